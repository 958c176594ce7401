//! The Tidegate gateway: everything HTTP around the limiter. It decides nothing about limits.

pub mod admin;
pub mod command;
pub mod config;
mod connection;
pub mod demo;
pub mod keys;
mod limit_api;
pub mod log;
pub mod metrics;
pub mod phase;
mod pool;
pub mod prices;
pub mod provider;
mod proxy;
pub mod replay;
pub mod serve;
mod shared;
mod site;
pub mod state;
mod tenants;
mod worker;
