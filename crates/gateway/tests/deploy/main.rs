//! `deploy/`: every file can be read by its format, and says the same as the program and as its neighbours.
//!
//! Containers are not started here: `deploy/README.md` says what was run by hand.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod compose;
mod docker;
mod files;
mod kubernetes;
mod systemd;
mod valkey;
