//! What the person who runs Tidegate sees: configuration, its errors and its reference; metrics, status and log lines.

mod config;
mod golden;
