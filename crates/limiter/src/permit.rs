//! The right to send one request.

use std::fmt;
use std::time::Duration;

use tidegate_core::{
    Failure, Outcome, Permit as Grant, Readings, Refusal, Timestamp, Tokens, UpstreamSignal, Usage,
    WaitReason,
};

use crate::limiter::{Limiter, waited};

/// The right to send one request now.
///
/// Every permit ends exactly once: settled, abandoned, given back, or exchanged for that of another attempt. Dropping it
/// counts as sent with unknown usage, so that what it took stays taken, unless [`Permit::pending`] says otherwise.
pub struct Permit {
    limiter: Limiter,
    grant: Grant,
    came: Timestamp,
    reason: Option<WaitReason>,
    pending: bool,
    ended: bool,
}

impl Permit {
    pub(crate) fn new(limiter: Limiter, grant: Grant, came: Timestamp, reason: Option<WaitReason>) -> Self {
        Self {
            limiter,
            grant,
            came,
            reason,
            pending: false,
            ended: false,
        }
    }

    /// Returns whether the request may still be handed to the connection. A permit that is not valid any more must not
    /// be used: [`Permit::retry`] with [`Failure::Late`] exchanges it.
    pub fn is_valid(&self) -> bool {
        self.limiter.now() <= self.grant.valid_until
    }

    /// Returns how long the request has waited in line, from its arrival to this permit.
    pub fn waited(&self) -> Duration {
        waited(self.came, self.grant.granted)
    }

    /// Returns what the request waited for, if it waited for anything but the answer of a store that is shared.
    pub fn limited_by(&self) -> Option<WaitReason> {
        self.reason
    }

    /// Returns the time by the limiter's clock.
    pub fn now(&self) -> Timestamp {
        self.limiter.now()
    }

    /// Returns the number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.grant.attempt
    }

    /// From now on until [`Permit::sent`], dropping the permit gives everything back.
    pub fn pending(&mut self) {
        self.pending = true;
    }

    /// The request is handed to the connection: what it takes is taken.
    pub fn sent(&mut self) {
        self.pending = false;
    }

    /// The head of the answer has arrived: what its headers say, and how long the provider says it worked on it.
    pub fn observe(&self, readings: Readings, processing: Option<Duration>) {
        let signal = UpstreamSignal {
            permit: self.grant.id,
            readings,
            processing,
        };
        self.limiter.command(|engine, now| engine.observe(now, signal));
    }

    /// So many output tokens have been streamed so far. Returns whether any limit counts them while they are generated:
    /// if none does, further reports change nothing.
    pub fn progress(&self, output: Tokens) -> bool {
        self.limiter
            .command(|engine, now| engine.progress(now, self.grant.id, output))
    }

    /// The answer is complete; this is the usage that it reported.
    pub fn settle(mut self, usage: Usage) {
        self.finish(Outcome::Completed(usage));
    }

    /// Nothing was written to the provider: everything is given back.
    pub fn not_sent(mut self) {
        self.finish(Outcome::NotSent);
    }

    /// The attempt is over, and there will be no other: as the provider refused for good ([`Outcome::QuotaSpent`],
    /// [`Outcome::TooLarge`]), say.
    pub fn end(mut self, outcome: Outcome) {
        self.finish(outcome);
    }

    /// The caller left or the stream broke after so many output tokens.
    pub fn abandon(mut self, output_seen: Tokens) {
        self.finish(Outcome::Unknown { output_seen });
    }

    /// The attempt failed. Waits for the permit of the next one, at the same place in line and with the same deadline,
    /// after the pause that the failure demands.
    ///
    /// # Errors
    ///
    /// Returns a [`Refusal`] if there is no time, no budget or no hope for another attempt: the failure itself is then
    /// the answer.
    pub async fn retry(mut self, failure: Failure) -> Result<Self, Refusal> {
        self.ended = true;
        let id = self.grant.id;
        let grant = self
            .limiter
            .command_and_wait(|engine, now| engine.retry(now, id, failure))
            .await?;
        let reason = self.reason.or(Some(match failure {
            Failure::Late => WaitReason::Line,
            Failure::RateLimited(_) => WaitReason::Hold,
            Failure::Overloaded { .. } | Failure::Transient { .. } => WaitReason::Backoff,
        }));
        Ok(Self::new(self.limiter.clone(), grant, self.came, reason))
    }

    fn finish(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.ended, true) {
            let id = self.grant.id;
            self.limiter
                .command(|engine, now| engine.settle(now, id, outcome));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let outcome = if self.pending {
            Outcome::NotSent
        } else {
            Outcome::Unknown {
                output_seen: Tokens::ZERO,
            }
        };
        self.finish(outcome);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("grant", &self.grant)
            .finish_non_exhaustive()
    }
}
