//! Seeded worlds in virtual time: a limiter in front of a provider that enforces its limits in one of the ways that
//! providers do, with delays, foreign traffic and bursts. A month passes in seconds, and the same seed always gives the
//! same history.
//!
//! The engine is `tidegate-core`; the provider is `tidegate-mock`'s model, which was written without it.
#![forbid(unsafe_code)]

pub mod baseline;
pub mod client;
pub mod order;
pub mod output;
pub mod profiles;
pub mod report;
pub mod setting;
pub mod world;

pub use client::Discipline;
pub use report::Tally;
pub use setting::{Algorithms, Setting};
pub use world::{Outcome, run};
