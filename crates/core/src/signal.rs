//! What a provider's answer tells about its limits.

use core::time::Duration;

use crate::decision::PermitId;
use crate::units::{Amount, Dimension};

/// One limit as response headers describe it.
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
    /// The limit's window, where the header's name or its numbers tell it.
    pub window: Option<Duration>,
}

/// The most limits that the headers of one response tell of; further ones are ignored.
pub const READINGS_MAX: usize = 6;

/// What the headers of one response say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readings {
    entries: [Option<(Dimension, Reading)>; READINGS_MAX],
    /// What the provider says it charged this request in tokens (Mistral's `x-ratelimit-tokens-query-cost`).
    pub cost: Option<Amount>,
}

impl Readings {
    /// Returns the first reading of one dimension, if the headers had one.
    pub fn reading(&self, dimension: Dimension) -> Option<&Reading> {
        self.iter()
            .find_map(|(of, reading)| (of == dimension).then_some(reading))
    }

    /// Returns every reading.
    pub fn iter(&self) -> impl Iterator<Item = (Dimension, &Reading)> {
        self.entries
            .iter()
            .filter_map(|entry| entry.as_ref().map(|(dimension, reading)| (*dimension, reading)))
    }

    /// Adds the reading of one limit; beyond [`READINGS_MAX`] it is ignored.
    pub fn push(&mut self, dimension: Dimension, reading: Reading) {
        if let Some(free) = self.entries.iter_mut().find(|entry| entry.is_none()) {
            *free = Some((dimension, reading));
        }
    }

    /// Returns the first reading of one dimension for filling in.
    /// Where there is no room for another, that is the last one.
    pub fn entry(&mut self, dimension: Dimension) -> &mut Reading {
        let found = self
            .entries
            .iter()
            .position(|entry| entry.is_none_or(|(of, _)| of == dimension))
            .unwrap_or(READINGS_MAX - 1);
        &mut self.entries[found]
            .get_or_insert((dimension, Reading::default()))
            .1
    }

    /// Returns whether the headers said nothing about limits.
    pub fn is_empty(&self) -> bool {
        self.cost.is_none() && self.entries.iter().all(Option::is_none)
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

/// Why a provider refused for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Cause {
    /// A limit over a window is in use.
    #[default]
    Rate,
    /// Use grew too fast (Anthropic's acceleration limit): `limit` is what is allowed until the next minute boundary.
    Acceleration,
    /// Too many requests are in flight.
    Concurrency,
    /// Capacity that everybody shares is short: no limit of this account is involved, but less of it must be used
    /// (Vertex's shared pool, Gemini's bare "resource exhausted", Mistral's service tier, OpenAI's "slow down").
    Congestion,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 4] = [
        Self::Rate,
        Self::Acceleration,
        Self::Concurrency,
        Self::Congestion,
    ];

    /// Returns the name used in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Acceleration => "acceleration",
            Self::Concurrency => "concurrency",
            Self::Congestion => "congestion",
        }
    }
}

/// What waits are rounded to, in microseconds.
const WAIT_STEP: u64 = 1_000;
/// An hour, a day and a month, in microseconds.
const LONG_WINDOWS: [u128; 3] = [3_600_000_000, 86_400_000_000, 30 * 86_400_000_000];

/// A refusal that time cures, as far as headers and body tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimited {
    /// Why.
    pub cause: Cause,
    /// The window of the limit, where the text names it.
    pub named_window: Option<Duration>,
    /// What `limit` will be at the next minute boundary, where use grew too fast.
    pub next_limit: Option<Amount>,
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
    /// How long the provider asks to go no faster than before (OpenAI's "slow down": 15 minutes, providers.md §2.5).
    pub steady: Option<Duration>,
}

impl RateLimited {
    /// Returns the provider's window: as its numbers solve it, else as it is named.
    pub fn window(&self) -> Option<Duration> {
        self.solved_window().or(self.named_window)
    }

    /// Returns the window that the numbers tell, if they obey the law of a bucket that refills continuously:
    /// `wait × limit / (used + requested − limit)`.
    ///
    /// Worked example (providers.md §2.2): limit 30,000, used 29,937, requested 385, wait 644 ms: 60 s. Where another window
    /// is named, they may tell the end of a fixed one, or be worth nothing because the wait is told in whole milliseconds.
    /// So they are believed against the name only where they make an hour, a day or a month to a thousandth ("tokens per
    /// min", and a wait of 114 hours).
    pub(crate) fn solved_window(&self) -> Option<Duration> {
        let (limit, used) = (self.limit?.value(), self.used?.value());
        let over = used.checked_add(self.requested?.value())?.checked_sub(limit)?;
        if over == 0 {
            return None;
        }
        let per_over = |wait: u64| u128::from(wait) * u128::from(limit) / u128::from(over);
        let solved = per_over(crate::time::micros(self.retry_after?));
        let off = per_over(WAIT_STEP);
        let is_about =
            |window: u128, part: u128| off <= window / part && solved.abs_diff(window) <= off + window / part;
        let named = self
            .named_window
            .map(|named| u128::from(crate::time::micros(named)));
        let window = match named {
            None => Some(solved).filter(|window| is_about(*window, 10)),
            Some(named) if is_about(named, 10) => Some(named),
            Some(_) => LONG_WINDOWS.into_iter().find(|window| is_about(*window, 1_000)),
        }?;
        Some(Duration::from_micros(u64::try_from(window).ok()?))
    }
}

/// What an answer means for the request that got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A success: relay it.
    Success,
    /// Refused for rate: time cures it.
    RateLimited(RateLimited),
    /// Quota that no wait of a minute brings back (credits, a spend limit, a model that is not on the plan, a day's
    /// allowance): pass it through.
    QuotaSpent {
        /// When the quota comes back, if that is known.
        until: Option<Duration>,
    },
    /// The request alone is larger than a limit, of which the numbers tell as far as they are known: pass it through.
    TooLarge(RateLimited),
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
