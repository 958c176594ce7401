//! Limits that replicas share: the ledger of each quota group, and the books of tenants and routes, in Redis.
//!
//! [`tidegate_core::ledger`] defines what the ledger does, and [`tidegate_core::escrow`] what a book does. Scripts in Lua do the
//! same inside Redis, one call at a time, so that what one replica sees is never older than what another did. [`wire`] says how
//! calls and replies travel.
//!
//! # Keys
//!
//! The keys of a group have one hash tag, so a cluster keeps them at one node. All expire a day after the last charge in
//! them counts no more. So it is with the books of all tenants and routes; each expires ten minutes after the last part in it.
//!
//! | Key | Type | |
//! |---|---|---|
//! | `<prefix>:{<group>}:state` | hash | how the ledger stands, and its replicas |
//! | `<prefix>:{<group>}:tags` | hash | the service of flows that were served while others waited |
//! | `<prefix>:{<group>}:r:<n>` | string | the charges of limit n, in cells of eight bytes |
//! | `<prefix>:{escrow}:t<tenant>`, `…:r<route>` | hash | what each replica has of the limits and budgets of a tenant or route, by its number in hex |
//! | `<prefix>:wake:<process>` | channel | tells a process which of its replicas should call, and when: `<group> <replica> <moment>`; or that it should call about a tenant or route: `escrow t<tenant>` |
//!
//! # Commands
//!
//! The scripts are run with `EVALSHA` (`SCRIPT LOAD` where they are not known), and themselves use `HMGET`, `HGET`, `HGETALL`, `HSET`,
//! `HDEL`, `BITFIELD_RO`, `BITFIELD`, `GETRANGE`, `DEL`, `PEXPIRE`, `PUBLISH` and `TIME`. A user for it needs these, keys
//! `<prefix>:*` and channels `<prefix>:wake:*`. Redis 6.2 and later and Valkey 7.2 and later have all of them.
//!
//! # The scripts
//!
//! That of tenants and routes is `escrow.lua`. That of ledgers is put together of the files in `ledger/`: `head` (the layout, and the call), `common` (the call as most are, answered
//! at a third of the cost), and then, for all others, `shared` (what functions share), `ring` (charges), `state` (the ledger,
//! its replicas, the service of flows), `line` (whose turn it is), `answer` and `write`. `tests/conformance` holds both to their
//! definitions; Redis 6.2, 7.0 and 8.2 and Valkey 8.1 and 9.1 have passed it for ledgers, Redis 7.0 for
//! tenants and routes.
//!
//! # The driver
//!
//! One task (`driver`) on the runtime on which the limiter was made: it takes the calls that the engine wants made, sends
//! those of different groups side by side over one connection to each server (`link`), and hands back the answers. The
//! connection speaks RESP3, so what tells it to call comes over the same connection. `whereabouts` knows which server that
//! is, `fault` what goes wrong, and `status` what people see of it.

mod address;
mod driver;
mod fault;
mod link;
mod options;
mod server;
mod status;
mod subject;
mod whereabouts;
#[doc(hidden)]
pub mod wire;

use std::sync::{Arc, Weak};

use tidegate_core::{SharedPlan, Timestamp};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

pub use fault::StoreError;
pub use options::{StoreOptions, StoreProblem};
pub use status::{RoundTrips, StoreNode, StoreState, StoreStatus};
pub(crate) use subject::Subject;

use crate::limiter::Shared;
use driver::Driver;
use link::Dialer;
use status::Board;

/// The store as a limiter uses it. Dropped, its task ends.
pub(crate) struct Store {
    board: Arc<Board>,
    plan: SharedPlan,
    task: AbortHandle,
}

impl Store {
    /// Starts the task that calls the ledgers whenever `wanted` says that a call is due.
    pub(crate) fn start(
        now: Timestamp,
        process: u64,
        options: StoreOptions,
        limiter: Weak<Shared>,
        wanted: Arc<Notify>,
    ) -> Result<Self, StoreProblem> {
        options.check()?;
        let plan = options.plan();
        let board = Arc::new(Board::new(now, options.describe(), options.prefix.clone()));
        let dialer = Arc::new(Dialer {
            tls: options.tls()?,
            channel: wire::channel(&options.prefix, process),
            options,
        });
        let driver = Driver::new(limiter, wanted, dialer, Arc::clone(&board));
        let task = tokio::spawn(driver.run()).abort_handle();
        Ok(Self { board, plan, task })
    }

    /// Returns how the engine shares its groups.
    pub(crate) const fn plan(&self) -> SharedPlan {
        self.plan
    }

    /// Returns what is known of the store.
    pub(crate) fn status(&self) -> StoreStatus {
        self.board.status()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.task.abort();
    }
}
