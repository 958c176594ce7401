//! What the person who runs Tidegate sees: configuration, its errors and its reference; metrics, status and log lines.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod admin;
mod client;
mod commands;
mod config;
mod golden;
mod keys;
mod log;
mod metrics;
mod quotas;
mod snapshot;
