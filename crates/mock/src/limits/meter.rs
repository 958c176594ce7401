use std::time::Duration;

use super::Wait;
use super::bucket::Bucket;
use super::congestion::Congestion;
use super::fixed::{Fixed, Turns};
use super::limit::{Timestamp, micros};
use super::ramp::Ramp;
use super::rolling::Rolling;

/// One counter with one way to forget.
#[derive(Debug, Clone)]
pub(super) enum Meter {
    Rolling(Rolling),
    Bucket(Bucket),
    Fixed(Fixed),
    Ramp(Ramp),
    Congestion(Congestion),
    Gauge { amount: u64, used: u64 },
}

impl Meter {
    pub(super) fn rolling(window: Duration, amount: u64) -> Self {
        Self::Rolling(Rolling::new(micros(window), amount))
    }

    pub(super) fn bucket(window: Duration, amount: u64, capacity: u64) -> Self {
        Self::Bucket(Bucket::new(micros(window), amount, capacity))
    }

    pub(super) fn fixed(turns: Turns, amount: u64) -> Self {
        Self::Fixed(Fixed::new(turns, amount))
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
            Self::Ramp(meter) => meter.wait(now, requested),
            Self::Congestion(meter) => meter.wait(now, requested),
            Self::Gauge { amount, .. } if requested > *amount => Wait::Never,
            Self::Gauge { amount, used } if used.saturating_add(requested) > *amount => Wait::Unknown,
            Self::Gauge { .. } => Wait::For(Duration::ZERO),
        }
    }

    /// Counts an attempt, whatever comes of it.
    pub(super) fn attempt(&mut self, now: Timestamp, requested: u64) {
        if let Self::Congestion(meter) = self {
            meter.attempt(now, requested);
        }
    }

    /// What fits at the moment, if that is not the limit's amount, and what will fit after the next turn.
    pub(super) fn usable(&mut self, now: Timestamp) -> (Option<u64>, Option<u64>) {
        match self {
            Self::Ramp(meter) => (Some(meter.usable(now)), Some(meter.next(now))),
            Self::Congestion(meter) => (Some(meter.capacity(now)), None),
            _ => (None, None),
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
            Self::Ramp(meter) => meter.charge(now, weight),
            // It counts attempts.
            Self::Congestion(_) => {}
            Self::Gauge { used, .. } => *used = used.saturating_add(weight),
        }
    }

    /// Takes back `weight` of what was charged at `stamp`, if it still counts.
    pub(super) fn refund(&mut self, now: Timestamp, stamp: Timestamp, weight: u64) {
        match self {
            Self::Rolling(meter) => meter.refund(stamp, weight),
            Self::Bucket(meter) => meter.refund(now, weight),
            Self::Fixed(meter) => meter.refund(now, stamp, weight),
            Self::Ramp(meter) => meter.refund(stamp, weight),
            Self::Congestion(_) => {}
            Self::Gauge { used, .. } => *used = used.saturating_sub(weight),
        }
    }

    pub(super) fn used(&mut self, now: Timestamp) -> u64 {
        match self {
            Self::Rolling(meter) => meter.used(now),
            Self::Bucket(meter) => meter.used(now),
            Self::Fixed(meter) => meter.used(now),
            Self::Ramp(meter) => meter.used(now),
            Self::Congestion(meter) => meter.used(now),
            Self::Gauge { used, .. } => *used,
        }
    }

    /// How long until nothing counts any more.
    pub(super) fn reset(&mut self, now: Timestamp) -> Duration {
        match self {
            Self::Rolling(meter) => meter.reset(now),
            Self::Bucket(meter) => meter.reset(now),
            Self::Fixed(meter) => meter.reset(now),
            Self::Ramp(meter) => meter.reset(now),
            Self::Congestion(meter) => meter.reset(now),
            Self::Gauge { .. } => Duration::ZERO,
        }
    }

    /// Changes the amount; a bucket then holds `capacity`.
    pub(super) fn resize(&mut self, now: Timestamp, amount: u64, capacity: u64) {
        match self {
            Self::Rolling(meter) => meter.resize(amount),
            Self::Bucket(meter) => meter.resize(now, amount, capacity),
            Self::Fixed(meter) => meter.resize(amount),
            Self::Ramp(meter) => meter.resize(amount),
            Self::Congestion(meter) => meter.resize(amount),
            Self::Gauge { amount: old, .. } => *old = amount,
        }
    }
}
