//! What the tables say: waits and their percentiles, and shares.

use std::fmt;

use super::course::SECOND;

/// How long some waited, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waits(Vec<u64>);

impl Waits {
    /// Adds one.
    pub fn add(&mut self, micros: u64) {
        self.0.push(micros);
    }

    /// Adds all of another's.
    pub fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the wait that so many percent do not exceed, in seconds (the nearest rank); 0 if nobody waited.
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        seconds(sorted.get(rank - 1).copied().unwrap_or(0))
    }

    /// Returns the share of those that are not longer than so many microseconds; all of them if there are none.
    pub fn share_up_to(&self, micros: u64) -> f64 {
        let within = self.0.iter().filter(|wait| **wait <= micros).count();
        share(within as u64, self.0.len() as u64)
    }

    /// Returns the longest, in seconds.
    pub fn longest(&self) -> f64 {
        seconds(self.0.iter().copied().max().unwrap_or(0))
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return write!(f, "{:>7} {:>7}", "–", "–");
        }
        write!(f, "{:>7.2} {:>7.2}", self.percentile(50), self.percentile(99))
    }
}

/// Returns microseconds in seconds.
#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
pub fn seconds(micros: u64) -> f64 {
    micros as f64 / SECOND as f64
}

/// Returns a part of a whole; nothing is all of nothing.
#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 1.0;
    }
    part as f64 / whole as f64
}
