//! What a provider's answer tells about its limits.

use core::time::Duration;

use crate::decision::PermitId;
use crate::units::{Amount, Dimension};

/// One dimension as response headers describe it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reading {
    /// The limit's amount.
    pub limit: Option<Amount>,
    /// What is left of it after this request was admitted.
    pub remaining: Option<Amount>,
    /// The time until the limit is whole again.
    pub reset: Option<Duration>,
    /// The step to which `remaining` is rounded (1,000 for Anthropic's tokens); 0 and 1 mean exact.
    pub rounding: Amount,
}

/// What the headers of one response say, by dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readings([Option<Reading>; Dimension::ALL.len()]);

impl Readings {
    /// Returns the reading of one dimension, if the headers had one.
    pub const fn reading(&self, dimension: Dimension) -> Option<&Reading> {
        self.0[dimension.index()].as_ref()
    }

    /// Returns the reading of one dimension for filling in.
    pub fn entry(&mut self, dimension: Dimension) -> &mut Reading {
        self.0[dimension.index()].get_or_insert_with(Reading::default)
    }

    /// Returns whether the headers said nothing about limits.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

/// The head of a response, as far as limits are concerned. It arrives once per attempt, before the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamSignal {
    /// The attempt that was answered.
    pub permit: PermitId,
    /// What the headers say.
    pub readings: Readings,
    /// The time the provider says it spent on the request before answering (`openai-processing-ms`).
    pub processing: Option<Duration>,
}

/// A refusal for rate, as far as headers and body tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimited {
    /// The dimension that refused.
    pub dimension: Option<Dimension>,
    /// Its amount.
    pub limit: Option<Amount>,
    /// What was used of it at that moment.
    pub used: Option<Amount>,
    /// What the request would have taken.
    pub requested: Option<Amount>,
    /// When to come back.
    pub retry_after: Option<Duration>,
}

impl RateLimited {
    /// Returns the provider's window, solved from its own numbers: `wait × limit / (used + requested − limit)`.
    ///
    /// Worked example (providers.md §2.2): limit 30,000, used 29,937, requested 385, wait 644 ms: 60 s.
    pub fn window(&self) -> Option<Duration> {
        let (limit, used) = (self.limit?.value(), self.used?.value());
        let over = used.checked_add(self.requested?.value())?.checked_sub(limit)?;
        if over == 0 {
            return None;
        }
        let micros =
            u128::from(crate::time::micros(self.retry_after?)) * u128::from(limit) / u128::from(over);
        Some(Duration::from_micros(u64::try_from(micros).ok()?))
    }
}

/// What an answer means for the request that got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A success: relay it.
    Success,
    /// Refused for rate: time cures it.
    RateLimited(RateLimited),
    /// A 429 that time does not cure (quota spent, spend limit, limit zero, larger than the limit): pass it through.
    Hopeless,
    /// The provider is overloaded: another attempt later may succeed.
    Overloaded {
        /// The wait the provider asks for.
        retry_after: Option<Duration>,
    },
    /// A server fault: another attempt may succeed.
    Transient,
    /// The request itself is wrong (400, 401, 403, 404, 413, 422 …): pass it through.
    ClientError,
}
