//! The Tidegate gateway: everything HTTP around the limiter. It decides nothing about limits.

pub mod command;
pub mod config;
mod connection;
mod phase;
mod pool;
pub mod provider;
mod proxy;
pub mod replay;
mod shared;
mod site;
