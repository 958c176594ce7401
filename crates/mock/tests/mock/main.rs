//! The provider over HTTP. Time stands still unless a test moves it.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking, in its helpers too"
)]

mod answers;
mod client;
mod faults;
mod limits;
mod providers;
mod refusals;
