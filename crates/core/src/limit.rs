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
}

impl Limit {
    /// Makes a limit kept as a rolling window.
    pub const fn rolling(dimension: Dimension, window: Duration, amount: NonZeroU64) -> Self {
        Self {
            dimension,
            window,
            amount,
            discipline: Discipline::Rolling,
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
