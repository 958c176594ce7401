//! When a failed attempt is tried again: pauses that double, with jitter, under a budget.

use crate::plan::RetryPolicy;
use crate::time::micros;

/// The budget looks back this many slices of a second.
const SLICES: usize = 10;
const SLICE: u64 = 1_000_000;

/// A small generator for jitter (SplitMix64): deterministic, seeded by the owner of the engine.
#[derive(Debug, Clone)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Returns the pause after failed attempt number `attempt` (from 1), in microseconds.
///
/// Worked example with the defaults: 1 s, 2 s, 4 s … 60 s, each ±25 %.
pub(crate) fn pause(policy: &RetryPolicy, attempt: u32, jitter: &mut Jitter) -> u64 {
    let doublings = attempt.saturating_sub(1).min(32);
    let base = micros(policy.backoff_min)
        .saturating_mul(1 << doublings)
        .min(micros(policy.backoff_max))
        .min(1 << 45);
    let spread = base / 100 * u64::from(policy.jitter_percent.min(100));
    if spread == 0 {
        return base;
    }
    base - spread + jitter.next() % (2 * spread + 1)
}

/// Requests and retries of the last ten seconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct RetryBudget {
    requests: [u32; SLICES],
    retries: [u32; SLICES],
    slice: u64,
}

impl RetryBudget {
    pub(crate) fn request(&mut self, now: u64) {
        let slot = self.turn(now);
        self.requests[slot] = self.requests[slot].saturating_add(1);
    }

    /// Spends one retry, if the budget has one.
    pub(crate) fn spend(&mut self, now: u64, policy: &RetryPolicy) -> bool {
        let slot = self.turn(now);
        let requests: u64 = self.requests.iter().copied().map(u64::from).sum();
        let retries: u64 = self.retries.iter().copied().map(u64::from).sum();
        let allowed = requests * u64::from(policy.budget_percent) / 100 + u64::from(policy.budget_floor);
        if retries >= allowed {
            return false;
        }
        self.retries[slot] = self.retries[slot].saturating_add(1);
        true
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "the remainder is smaller than ten"
    )]
    fn turn(&mut self, now: u64) -> usize {
        let slice = now / SLICE;
        let passed = slice.saturating_sub(self.slice).min(SLICES as u64);
        for step in 1..=passed {
            let slot = ((self.slice + step) % SLICES as u64) as usize;
            self.requests[slot] = 0;
            self.retries[slot] = 0;
        }
        if passed == SLICES as u64 {
            self.requests = [0; SLICES];
            self.retries = [0; SLICES];
        }
        self.slice = self.slice.max(slice);
        (self.slice % SLICES as u64) as usize
    }
}
