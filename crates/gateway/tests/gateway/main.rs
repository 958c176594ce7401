//! The whole gateway, in process, on real sockets: with an upstream that does what a test tells it to, and with the mock
//! provider.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bodies;
mod cancel;
mod drain;
mod faults;
mod input;
mod keepalive;
mod limit_api;
mod program;
mod provider;
#[path = "../../../limiter/tests/redis_server/mod.rs"]
mod redis_server;
mod relay;
mod reload;
mod replicas;
mod run;
mod state;
mod support;
mod tenants;
mod tls;
mod versions;
