use std::time::Duration;

use super::{Timestamp, Wait};

/// The lowest level: far below anything real, far above where the arithmetic would overflow.
const DEEPEST: i128 = -(1 << 122);

/// A token bucket in whole numbers, which refills by the amount in every window: the level is kept in tokens times the window's microseconds, so that every
/// microsecond adds exactly `amount` and nothing is ever rounded.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    window: u64,
    amount: u64,
    /// What it holds when it is full.
    capacity: u64,
    level: i128,
    at: u64,
}

impl Bucket {
    pub(super) fn new(window: u64, amount: u64, capacity: u64) -> Self {
        Self {
            window,
            amount,
            capacity,
            level: full(window, capacity),
            at: 0,
        }
    }

    /// The wait is that of OpenAI's message: whole tokens missing, over the rate (providers.md §2.2). It is never
    /// shorter than the exact one, and longer by less than one token's time.
    pub(super) fn wait(&mut self, now: Timestamp, requested: u64) -> Wait {
        self.refill(now);
        if requested > self.capacity {
            return Wait::Never;
        }
        if self.level >= self.scaled(requested) {
            return Wait::For(Duration::ZERO);
        }
        let missing = self.used(now).saturating_add(requested) - self.capacity;
        Wait::For(self.time_for(self.scaled(missing)))
    }

    pub(super) fn charge(&mut self, now: Timestamp, weight: u64) {
        self.refill(now);
        self.level = self.level.saturating_sub(self.scaled(weight)).max(DEEPEST);
    }

    pub(super) fn refund(&mut self, now: Timestamp, weight: u64) {
        self.refill(now);
        self.level = self
            .level
            .saturating_add(self.scaled(weight))
            .min(full(self.window, self.capacity));
    }

    /// What is missing from a full bucket, in whole tokens, rounded up.
    pub(super) fn used(&mut self, now: Timestamp) -> u64 {
        self.refill(now);
        let missing = full(self.window, self.capacity) - self.level;
        let window = i128::from(self.window);
        u64::try_from((missing + window - 1) / window).unwrap_or(u64::MAX)
    }

    pub(super) fn reset(&mut self, now: Timestamp) -> Duration {
        self.refill(now);
        self.time_for(full(self.window, self.capacity) - self.level)
    }

    pub(super) fn resize(&mut self, now: Timestamp, amount: u64, capacity: u64) {
        self.refill(now);
        // What was taken stays taken; a larger bucket starts with the difference in it.
        let missing = full(self.window, self.capacity) - self.level;
        self.amount = amount;
        self.capacity = capacity;
        self.level = full(self.window, capacity) - missing;
    }

    fn refill(&mut self, now: Timestamp) {
        if now.0 > self.at {
            let elapsed = i128::from(now.0 - self.at);
            let refilled = self
                .level
                .saturating_add(elapsed.saturating_mul(i128::from(self.amount)));
            self.level = refilled.min(full(self.window, self.capacity));
            self.at = now.0;
        }
    }

    fn scaled(&self, tokens: u64) -> i128 {
        i128::from(tokens) * i128::from(self.window)
    }

    fn time_for(&self, scaled: i128) -> Duration {
        let amount = i128::from(self.amount.max(1));
        Duration::from_micros(u64::try_from((scaled + amount - 1) / amount).unwrap_or(u64::MAX))
    }
}

fn full(window: u64, capacity: u64) -> i128 {
    i128::from(window) * i128::from(capacity)
}
