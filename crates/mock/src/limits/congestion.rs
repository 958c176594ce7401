use std::time::Duration;

use super::rolling::Rolling;
use super::{Timestamp, Wait};

/// A pool shared with strangers: what it can carry moves, and the more is offered above that, the more is refused by
/// chance (Vertex, providers.md §5.2). The same seed and the same requests give the same refusals.
#[derive(Debug, Clone)]
pub(super) struct Congestion {
    mean: u64,
    /// How far the capacity strays from its mean, in percent.
    swing: u64,
    /// How long it takes from one capacity to the next, in microseconds.
    period: u64,
    seed: u64,
    /// Everything that was offered within one window, refused or not: retries make it worse.
    offered: Rolling,
    attempts: u64,
}

/// Chances are counted in millionths.
const MILLION: u64 = 1_000_000;

impl Congestion {
    pub(super) fn new(window: u64, mean: u64, swing: u64, period: u64, seed: u64) -> Self {
        Self {
            mean,
            swing: swing.min(100),
            period: period.max(1),
            seed,
            offered: Rolling::new(window, u64::MAX),
            attempts: 0,
        }
    }

    /// What the pool carries now: a straight line between capacities drawn for every period.
    pub(super) fn capacity(&self, now: Timestamp) -> u64 {
        let (index, part) = (now.0 / self.period, now.0 % self.period);
        let [from, to] = [index, index + 1].map(|index| self.drawn(index));
        let (period, part) = (u128::from(self.period), u128::from(part));
        let capacity = (u128::from(from) * (period - part) + u128::from(to) * part) / period;
        u64::try_from(capacity).unwrap_or(u64::MAX)
    }

    /// Whether the next attempt is refused. Nobody knows when it would be welcome.
    pub(super) fn wait(&mut self, now: Timestamp, requested: u64) -> Wait {
        let capacity = self.capacity(now);
        let offered = self.offered.used(now).saturating_add(requested);
        let above = u128::from(offered.saturating_sub(capacity)) * u128::from(MILLION);
        // Twice the capacity and more is refused always.
        let chance = above / u128::from(capacity.max(1));
        if u128::from(mix(self.seed ^ mix(self.attempts)) % MILLION) < chance {
            Wait::Unknown
        } else {
            Wait::For(Duration::ZERO)
        }
    }

    /// Counts an attempt, whatever came of it.
    pub(super) fn attempt(&mut self, now: Timestamp, requested: u64) {
        self.attempts += 1;
        if requested > 0 {
            self.offered.charge(now, requested);
        }
    }

    pub(super) fn used(&mut self, now: Timestamp) -> u64 {
        self.offered.used(now)
    }

    pub(super) fn reset(&mut self, now: Timestamp) -> Duration {
        self.offered.reset(now)
    }

    pub(super) fn resize(&mut self, mean: u64) {
        self.mean = mean;
    }

    fn drawn(&self, index: u64) -> u64 {
        let swing = self.mean / 100 * self.swing + self.mean % 100 * self.swing / 100;
        let spread = swing.saturating_mul(2).saturating_add(1);
        (self.mean - swing).saturating_add(mix(self.seed.rotate_left(32) ^ mix(!index)) % spread)
    }
}

/// Scatters a number over all numbers (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
