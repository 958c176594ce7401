//! A limiter for calls to language models, for any program that runs on tokio.
//!
//! It waits, in order, until the provider is certain to accept a request, over all of the provider's limits at once,
//! and corrects itself by what the answers say. The rules live in [`core`]; this crate adds a clock, one timer task and
//! wake-ups, and knows nothing of HTTP.
//!
//! ```
//! use tidegate::{Limiter, Tokens, Usage};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tidegate::Refusal> {
//! let limiter = Limiter::builder().requests_per_minute(500).tokens_per_minute(30_000).build();
//! let permit = limiter.acquire_tokens(Tokens::new(1_200), Some(Tokens::new(300))).await?;
//! // … call the provider …
//! permit.settle(Usage { input: Some(Tokens::new(1_187)), output: Some(Tokens::new(211)), ..Usage::default() });
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `redis`, several processes share one quota through Redis or Valkey: see `Limiter::with_store` and
//! `examples/shared.rs`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod builder;
mod clock;
mod limiter;
mod memory;
mod permit;
#[cfg(feature = "serde")]
mod saved;
#[cfg(feature = "redis")]
#[doc(hidden)]
pub mod store;

pub use tidegate_core as core;
pub use tidegate_core::{
    ChargeModel, Demand, Discipline, Failure, Gap, Limit, LimitRef, Memory, Obstacle, Plan, QuotaKey,
    QuotaPlan, Readings, Refusal, RefusalReason, Request, Snapshot, Timestamp, Tokens, UnknownMemory, Usage,
    WaitReason,
};

pub use crate::builder::Builder;
pub use crate::limiter::Limiter;
pub use crate::permit::Permit;
#[cfg(feature = "serde")]
pub use crate::saved::SavedMemory;
#[cfg(feature = "redis")]
pub use crate::store::{
    RoundTrips, StoreError, StoreNode, StoreOptions, StoreProblem, StoreState, StoreStatus,
};
