//! Placeholder: the API that others build against; see the module docs later.
#![allow(missing_docs, clippy::todo, reason = "being built")]
use std::time::Duration;
pub use tidegate_core as core;
use tidegate_core::{
    Failure, LimitRef, Plan, Readings, Refusal, Request, Timestamp, Tokens, Usage, WaitReason,
};

/// The limiter. Clones share one engine. Must be made inside a tokio runtime (its one timer task is spawned there);
/// may then be used from any thread and any runtime.
#[derive(Clone)]
pub struct Limiter;

impl Limiter {
    pub fn new(_plan: Plan) -> Self {
        todo!()
    }
    /// Waits until the request may be sent. Dropping the future cancels the place in the queue.
    pub async fn acquire(&self, _request: Request) -> Result<Permit, Refusal> {
        todo!()
    }
    /// The clock of the engine: Unix time at start plus monotonic elapsed time.
    pub fn now(&self) -> Timestamp {
        todo!()
    }
    /// Hot reload: keeps all charges.
    pub fn reconfigure(&self, _plan: Plan) {
        todo!()
    }
    /// What every quota group looks like now (limits, used, waiting, holds, reasons): for /status and /metrics.
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }
    /// Refuses everything that waits or comes from now on with `RefusalReason::Closed` (end of a drain).
    pub fn close(&self) {
        todo!()
    }
}
pub struct Snapshot;

/// The right to send one request now. Dropping it settles it as `Outcome::Unknown` (sent, usage not known).
pub struct Permit {
    _private: (),
}

impl Permit {
    /// False once the permit's time τ has passed: then it must not be used; call `retry(Failure::Late)`.
    pub fn is_valid(&self) -> bool {
        todo!()
    }
    /// How long the request waited in all its queues so far.
    pub fn waited(&self) -> Duration {
        todo!()
    }
    /// The first reason it had to wait, if it waited.
    pub fn limited_by(&self) -> Option<WaitReason> {
        todo!()
    }
    pub fn attempt(&self) -> u32 {
        todo!()
    }
    /// Marks the moment at which the request was handed to the connection.
    pub fn sent(&self) {
        todo!()
    }
    /// The response head has arrived: what its headers say, and the server's own processing time if it tells.
    pub fn observe(&self, _readings: Readings, _processing: Option<Duration>) {
        todo!()
    }
    /// Output tokens streamed so far.
    pub fn progress(&self, _output: Tokens) {
        todo!()
    }
    /// The answer is complete.
    pub fn settle(self, _usage: Usage) {
        todo!()
    }
    /// Nothing was written to the provider: everything is given back.
    pub fn not_sent(self) {
        todo!()
    }
    /// The client has left or the stream broke after `output_seen` tokens.
    pub fn abandon(self, _output_seen: Tokens) {
        todo!()
    }
    /// The attempt failed; waits for the permit of the next attempt (same place in line, same deadline, after the
    /// backoff or hold that the failure demands). `Err(RetriesSpent | Deadline | …)` means: relay the failure.
    pub async fn retry(self, _failure: Failure) -> Result<Permit, Refusal> {
        todo!()
    }
}
#[allow(unused, reason = "stub")]
fn unused(_: LimitRef) {}
