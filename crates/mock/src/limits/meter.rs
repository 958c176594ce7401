use std::time::Duration;

use super::Wait;
use super::bucket::Bucket;
use super::fixed::Fixed;
use super::limit::{Timestamp, micros};
use super::rolling::Rolling;

/// One counter with one way to forget.
#[derive(Debug, Clone)]
pub(super) enum Meter {
    Rolling(Rolling),
    Bucket(Bucket),
    Fixed(Fixed),
    Gauge { amount: u64, used: u64 },
}

impl Meter {
    pub(super) fn rolling(window: Duration, amount: u64) -> Self {
        Self::Rolling(Rolling::new(micros(window), amount))
    }

    pub(super) fn bucket(window: Duration, amount: u64) -> Self {
        Self::Bucket(Bucket::new(micros(window), amount))
    }

    pub(super) fn fixed(window: Duration, amount: u64, phase: Duration) -> Self {
        Self::Fixed(Fixed::new(micros(window), amount, phase))
    }

    pub(super) fn gauge(amount: u64) -> Self {
        Self::Gauge { amount, used: 0 }
    }

    /// How long until `requested` fits; zero if it fits now.
    pub(super) fn wait(&mut self, now: Timestamp, requested: u64) -> Wait {
        if requested == 0 {
            return Wait::For(Duration::ZERO);
        }
        match self {
            Self::Rolling(meter) => meter.wait(now, requested),
            Self::Bucket(meter) => meter.wait(now, requested),
            Self::Fixed(meter) => meter.wait(now, requested),
            Self::Gauge { amount, .. } if requested > *amount => Wait::Never,
            Self::Gauge { amount, used } if used.saturating_add(requested) > *amount => Wait::Unknown,
            Self::Gauge { .. } => Wait::For(Duration::ZERO),
        }
    }

    /// Counts `weight` at `now`, whether it fits or not.
    pub(super) fn charge(&mut self, now: Timestamp, weight: u64) {
        if weight == 0 {
            return;
        }
        match self {
            Self::Rolling(meter) => meter.charge(now, weight),
            Self::Bucket(meter) => meter.charge(now, weight),
            Self::Fixed(meter) => meter.charge(now, weight),
            Self::Gauge { used, .. } => *used = used.saturating_add(weight),
        }
    }

    /// Takes back `weight` of what was charged at `stamp`, if it still counts.
    pub(super) fn refund(&mut self, now: Timestamp, stamp: Timestamp, weight: u64) {
        match self {
            Self::Rolling(meter) => meter.refund(stamp, weight),
            Self::Bucket(meter) => meter.refund(now, weight),
            Self::Fixed(meter) => meter.refund(now, stamp, weight),
            Self::Gauge { used, .. } => *used = used.saturating_sub(weight),
        }
    }

    pub(super) fn used(&mut self, now: Timestamp) -> u64 {
        match self {
            Self::Rolling(meter) => meter.used(now),
            Self::Bucket(meter) => meter.used(now),
            Self::Fixed(meter) => meter.used(now),
            Self::Gauge { used, .. } => *used,
        }
    }

    /// How long until nothing counts any more.
    pub(super) fn reset(&mut self, now: Timestamp) -> Duration {
        match self {
            Self::Rolling(meter) => meter.reset(now),
            Self::Bucket(meter) => meter.reset(now),
            Self::Fixed(meter) => meter.reset(now),
            Self::Gauge { .. } => Duration::ZERO,
        }
    }

    pub(super) fn resize(&mut self, now: Timestamp, amount: u64) {
        match self {
            Self::Rolling(meter) => meter.resize(amount),
            Self::Bucket(meter) => meter.resize(now, amount),
            Self::Fixed(meter) => meter.resize(amount),
            Self::Gauge { amount: old, .. } => *old = amount,
        }
    }
}
