//! Limits that replicas share: the ledger of each quota group, in Redis.
//!
//! [`tidegate_core::ledger`] defines what the ledger does. A script in Lua does the same inside Redis, one call at a time, so
//! that what one replica sees is never older than what another did. [`wire`] says how calls and replies travel.
//!
//! # Keys
//!
//! The keys of a group have one hash tag, so a cluster keeps them at one node. All expire a day after the last charge in
//! them counts no more.
//!
//! | Key | Type | |
//! |---|---|---|
//! | `<prefix>:{<group>}:state` | hash | how the ledger stands, and its replicas |
//! | `<prefix>:{<group>}:tags` | hash | the service of flows that were served while others waited |
//! | `<prefix>:{<group>}:r:<n>` | string | the charges of limit n, in cells of eight bytes |
//! | `<prefix>:wake:<process>` | channel | tells a process which of its replicas should call, and when: `<group> <replica> <moment>` |
//!
//! # Commands
//!
//! The script is run with `EVALSHA` (`SCRIPT LOAD` where it is not known), and itself uses `HMGET`, `HGET`, `HGETALL`, `HSET`,
//! `HDEL`, `BITFIELD_RO`, `BITFIELD`, `GETRANGE`, `DEL`, `PEXPIRE`, `PUBLISH` and `TIME`. A user for it needs these, keys
//! `<prefix>:*` and channels `<prefix>:wake:*`. Redis 6.2 and later and Valkey 7.2 and later have all of them.

#[doc(hidden)]
pub mod wire;
