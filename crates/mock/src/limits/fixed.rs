use std::time::Duration;

use super::{Timestamp, Wait};

/// A counter that starts again at every turn of its window.
#[derive(Debug, Clone)]
pub(super) struct Fixed {
    window: u64,
    amount: u64,
    /// Microseconds from the turn before the beginning of time to the beginning: moves every turn to the phase.
    lead: u64,
    index: u64,
    used: u64,
}

impl Fixed {
    pub(super) fn new(window: u64, amount: u64, phase: Duration) -> Self {
        let phase = u64::try_from(phase.as_micros() % u128::from(window)).unwrap_or(0);
        Self {
            window,
            amount,
            lead: (window - phase) % window,
            index: 0,
            used: 0,
        }
    }

    pub(super) fn wait(&mut self, now: Timestamp, requested: u64) -> Wait {
        self.turn(now);
        if requested > self.amount {
            return Wait::Never;
        }
        if self.used <= self.amount - requested {
            return Wait::For(Duration::ZERO);
        }
        Wait::For(self.until_turn(now))
    }

    pub(super) fn charge(&mut self, now: Timestamp, weight: u64) {
        self.turn(now);
        self.used = self.used.saturating_add(weight);
    }

    pub(super) fn refund(&mut self, now: Timestamp, stamp: Timestamp, weight: u64) {
        self.turn(now);
        if self.index_of(stamp) == self.index {
            self.used = self.used.saturating_sub(weight);
        }
    }

    pub(super) fn used(&mut self, now: Timestamp) -> u64 {
        self.turn(now);
        self.used
    }

    pub(super) fn reset(&mut self, now: Timestamp) -> Duration {
        self.turn(now);
        if self.used == 0 {
            Duration::ZERO
        } else {
            self.until_turn(now)
        }
    }

    pub(super) fn resize(&mut self, amount: u64) {
        self.amount = amount;
    }

    fn turn(&mut self, now: Timestamp) {
        let index = self.index_of(now);
        if index != self.index {
            self.index = index;
            self.used = 0;
        }
    }

    fn index_of(&self, stamp: Timestamp) -> u64 {
        stamp.0.saturating_add(self.lead) / self.window
    }

    fn until_turn(&self, now: Timestamp) -> Duration {
        Duration::from_micros(self.window - now.0.saturating_add(self.lead) % self.window)
    }
}
