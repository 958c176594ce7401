//! The provider over HTTP. Time stands still unless a test moves it.

mod answers;
mod client;
mod faults;
mod limits;
mod refusals;
