//! The Tidegate gateway: everything HTTP around the limiter. It decides nothing about limits.

pub mod command;
pub mod config;
pub mod provider;
pub mod replay;
