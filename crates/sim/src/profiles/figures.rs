//! What came of a trial.

use tidegate_core::{Cause, LimitSnapshot};

/// Refusals by what they were for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refusals {
    /// A limit over a window.
    pub rate: u64,
    /// Use that grew too fast.
    pub acceleration: u64,
    /// Too many in flight.
    pub concurrency: u64,
    /// A pool that everybody shares.
    pub congestion: u64,
}

impl Refusals {
    /// Counts one.
    pub const fn add(&mut self, cause: Cause) {
        match cause {
            Cause::Rate => self.rate += 1,
            Cause::Acceleration => self.acceleration += 1,
            Cause::Concurrency => self.concurrency += 1,
            Cause::Congestion => self.congestion += 1,
        }
    }

    /// Returns all of them.
    pub const fn all(&self) -> u64 {
        self.rate + self.acceleration + self.concurrency + self.congestion
    }
}

/// One limit's use, minute by minute.
#[derive(Debug, Clone, PartialEq)]
pub struct Use {
    /// What people call it.
    pub name: String,
    /// Whether its window is longer than an hour.
    pub is_long: bool,
    /// What was taken in each minute; what came back is taken from the minute in which it had been taken.
    pub taken: Vec<i64>,
    /// What each minute allows, in the same unit.
    pub allowed: Vec<f64>,
}

/// The first minutes, in which windows are not full yet, are not measured: of a limit over a minute …
const WARM_MINUTES: usize = 2;
/// … and over a day.
const WARM_DAYS: usize = 1_440;

impl Use {
    /// Returns the share used of what these minutes allow.
    #[allow(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn share(&self, from: usize, to: usize) -> f64 {
        let to = to.min(self.taken.len());
        let from = from.min(to);
        let allowed: f64 = self.allowed[from..to].iter().sum();
        let taken: i64 = self.taken[from..to].iter().sum();
        if allowed > 0.0 {
            taken as f64 / allowed
        } else {
            0.0
        }
    }
}

/// What came of a trial.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Figures {
    /// Simulated minutes.
    pub minutes: u64,
    /// Requests that reached the provider.
    pub sent: u64,
    /// Those of them that it refused for now.
    pub refusals: Refusals,
    /// Refusals in the first ten minutes.
    pub early: u64,
    /// Refusals of requests that had been sent before the first answer told anything.
    pub excepted: u64,
    /// Refusals of requests that were sent later.
    pub later: u64,
    /// When the last refusal came, in minutes from the beginning.
    pub last: Option<u64>,
    /// Refusals after each change of a limit of requests sent before the first answer after it, and later.
    pub after_change: [u64; 2],
    /// Requests that the provider said are larger than a limit.
    pub too_large: u64,
    /// Answers that said the quota is spent.
    pub spent: u64,
    /// Requests that the engine did not let through at all.
    pub declined: u64,
    /// The longest wait in line, in microseconds.
    pub longest_wait: u64,
    /// The fullest that a limit on output was in the first two minutes and later, in thousandths of its amount.
    pub peaks: [u64; 2],
    /// What the engine believes of the limits in the end.
    pub believed: Vec<LimitSnapshot>,
    /// The use of every limit.
    pub uses: Vec<Use>,
    /// A digest of everything that happened, in order.
    pub digest: u64,
}

/// Minutes over which use is averaged to tell whether it has settled.
const SETTLED: usize = 5;

impl Figures {
    /// Returns the limit that was used most, and its share, while there was always a line.
    pub fn utilization(&self) -> (&str, f64) {
        self.binding(|used| used.share(if used.is_long { WARM_DAYS } else { WARM_MINUTES }, usize::MAX))
    }

    /// Returns the same from a minute on, of the limits over at most an hour.
    pub fn utilization_from(&self, from: usize, to: usize) -> f64 {
        self.binding(|used| if used.is_long { 0.0 } else { used.share(from, to) })
            .1
    }

    /// Returns the first minute from which on, for five minutes, nine tenths of a limit were used.
    pub fn settled(&self) -> Option<usize> {
        let minutes = self.uses.first().map_or(0, |used| used.taken.len());
        let mut starts = 0..minutes.saturating_sub(SETTLED);
        starts.find(|from| self.utilization_from(*from, from + SETTLED) >= 0.9)
    }

    fn binding(&self, share: impl Fn(&Use) -> f64) -> (&str, f64) {
        let shares = self.uses.iter().map(|used| (used.name.as_str(), share(used)));
        shares
            .reduce(|most, next| if next.1 > most.1 { next } else { most })
            .unwrap_or(("", 0.0))
    }
}
