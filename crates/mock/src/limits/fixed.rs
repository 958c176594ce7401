use std::time::Duration;

use super::civil::Period;
use super::limit::micros;
use super::{Timestamp, Wait};

/// A counter that starts again at every turn of its window.
#[derive(Debug, Clone)]
pub(super) struct Fixed {
    turns: Turns,
    amount: u64,
    index: u64,
    used: u64,
}

/// When windows turn.
#[derive(Debug, Clone, Copy)]
pub(super) enum Turns {
    /// After every window of this length.
    Every {
        window: u64,
        /// Microseconds from the turn before the beginning of time to the beginning: moves every turn to the phase.
        lead: u64,
    },
    /// With the calendar.
    Civil {
        period: Period,
        /// Microseconds since 1970 at the beginning of time.
        began: u64,
    },
}

const SECOND: u64 = 1_000_000;

impl Turns {
    pub(super) fn every(window: Duration, phase: Duration) -> Self {
        let window = micros(window);
        let phase = u64::try_from(phase.as_micros() % u128::from(window)).unwrap_or(0);
        Self::Every {
            window,
            lead: (window - phase) % window,
        }
    }

    pub(super) fn index(self, stamp: Timestamp) -> u64 {
        match self {
            Self::Every { window, lead } => stamp.0.saturating_add(lead) / window,
            Self::Civil { period, began } => period.index(unix(stamp, began) / SECOND),
        }
    }

    /// How long until the next turn, at least a microsecond.
    pub(super) fn until_next(self, now: Timestamp) -> Duration {
        Duration::from_micros(match self {
            Self::Every { window, lead } => window - now.0.saturating_add(lead) % window,
            Self::Civil { period, began } => {
                let unix = unix(now, began);
                period.next(unix / SECOND) * SECOND - unix
            }
        })
    }
}

/// Microseconds since 1970, held below the year 100,000 so that no calendar overflows.
fn unix(stamp: Timestamp, began: u64) -> u64 {
    stamp.0.saturating_add(began).min(3_093_527_980_800 * SECOND)
}

impl Fixed {
    pub(super) fn new(turns: Turns, amount: u64) -> Self {
        Self {
            turns,
            amount,
            index: turns.index(Timestamp(0)),
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
        Wait::For(self.turns.until_next(now))
    }

    pub(super) fn charge(&mut self, now: Timestamp, weight: u64) {
        self.turn(now);
        self.used = self.used.saturating_add(weight);
    }

    pub(super) fn refund(&mut self, now: Timestamp, stamp: Timestamp, weight: u64) {
        self.turn(now);
        if self.turns.index(stamp) == self.index {
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
            self.turns.until_next(now)
        }
    }

    pub(super) fn resize(&mut self, amount: u64) {
        self.amount = amount;
    }

    fn turn(&mut self, now: Timestamp) {
        let index = self.turns.index(now);
        if index != self.index {
            self.index = index;
            self.used = 0;
        }
    }
}
