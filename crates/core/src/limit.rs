//! A limit: a dimension, its window and its amount.

use core::num::NonZeroU64;
use core::time::Duration;

use crate::units::Dimension;

/// How a limit is kept on our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Discipline {
    /// Everything charged in the last `window + margin` stays within the amount.
    ///
    /// Safe at once against providers that use rolling windows, fixed windows of any phase, or token buckets.
    #[default]
    Rolling,
    /// A bucket that holds the amount less `rate × margin` and refills continuously.
    ///
    /// Safe only against providers that are known to be continuous token buckets themselves; in exchange the whole
    /// quota flows evenly and nothing is spent on the margin in the long run.
    TokenBucket,
    /// Everything charged since the last midnight stays within the amount: for limits that the provider resets then.
    ///
    /// Only for windows of a day. Clocks may differ by a few seconds: what is charged next to midnight counts in both days.
    Day(Zone),
}

/// Where a provider's day begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Zone {
    /// At midnight UTC (OpenRouter, providers.md §11).
    Utc,
    /// At midnight on the US Pacific coast, with daylight saving (Gemini, providers.md §5.1).
    Pacific,
}

/// Where a limit's amount comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum LimitSource {
    /// Nowhere yet: everything is counted and nothing is limited.
    Unknown,
    /// The configuration.
    #[default]
    Config,
    /// A preset: what the provider's tables said at its date.
    Preset,
    /// A response header, lower than the configuration or without any.
    Header,
    /// The provider's interface that tells limits.
    Api,
    /// The text of a refusal.
    Refusal,
    /// Slow start, and what refusals and successes showed since.
    Learned,
}

impl LimitSource {
    /// Returns the name used on status pages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Config => "config",
            Self::Preset => "preset",
            Self::Header => "header",
            Self::Api => "api",
            Self::Refusal => "refusal",
            Self::Learned => "learned",
        }
    }

    /// Returns whether the amount was told before any answer came.
    pub const fn is_given(self) -> bool {
        matches!(self, Self::Config | Self::Preset)
    }
}

/// One limit of a quota group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Limit {
    /// What is counted.
    pub dimension: Dimension,
    /// The length of the window; ignored for [`Dimension::Concurrency`].
    pub window: Duration,
    /// The most that may be charged in one window.
    pub amount: NonZeroU64,
    /// How the limit is kept.
    pub discipline: Discipline,
    /// Where the amount comes from: [`LimitSource::Config`], [`LimitSource::Preset`] or [`LimitSource::Api`]. A header
    /// or a refusal that tells less beats a configured limit; one that tells anything else beats the other two.
    pub source: LimitSource,
}

impl Limit {
    /// Makes a limit kept as a rolling window.
    pub const fn rolling(dimension: Dimension, window: Duration, amount: NonZeroU64) -> Self {
        Self {
            dimension,
            window,
            amount,
            discipline: Discipline::Rolling,
            source: LimitSource::Config,
        }
    }

    /// Returns what identifies the limit to people.
    pub const fn name(&self) -> LimitRef {
        LimitRef {
            dimension: self.dimension,
            window: self.window,
            amount: self.amount.get(),
        }
    }
}

/// Names a limit in a refusal, a wait, a log line or a status page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitRef {
    /// What is counted.
    pub dimension: Dimension,
    /// The length of the window.
    pub window: Duration,
    /// The most that may be charged in one window.
    pub amount: u64,
}
