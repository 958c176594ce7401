//! A rolling window for the baselines, on the same terms as the engine's: charges live until the end of their bucket plus
//! window and margin, so that what differs between the rows of a table is the order alone.

use std::collections::VecDeque;
use std::time::Duration;

/// The margin J that the engine is given too.
pub const MARGIN: Duration = Duration::from_secs(1);
/// The width of a bucket in microseconds: 1/600 of a minute, as the engine has it.
const WIDTH: u64 = 100_000;
/// How long a charge counts beyond the end of its bucket, in microseconds.
const LIFE: u64 = 61_000_000;

/// How long a charge counts on average, in seconds: window, margin, and half a bucket. What one limit amounts to in each
/// such time is the most that any order can make of it, so loads and use are told as shares of that.
pub const LIFE_MEAN_S: f64 = 61.05;

/// What was charged lately against one limit.
#[derive(Debug, Clone)]
pub struct Window {
    amount: u64,
    used: u64,
    buckets: VecDeque<(u64, u64)>,
}

impl Window {
    /// Makes an empty window of a limit.
    pub const fn new(amount: u64) -> Self {
        Self {
            amount,
            used: 0,
            buckets: VecDeque::new(),
        }
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: u64) {
        while let Some((bucket, charged)) = self.buckets.front().copied() {
            if expiry(bucket) > now {
                break;
            }
            self.used -= charged;
            self.buckets.pop_front();
        }
    }

    /// Returns whether there is room for so much.
    pub const fn fits(&self, charge: u64) -> bool {
        self.used.saturating_add(charge) <= self.amount
    }

    /// Charges so much.
    pub fn take(&mut self, now: u64, charge: u64) {
        self.used += charge;
        let bucket = now / WIDTH;
        match self.buckets.back_mut() {
            Some((last, charged)) if *last == bucket => *charged += charge,
            _ => self.buckets.push_back((bucket, charge)),
        }
    }

    /// Returns when the next charge expires.
    pub fn next(&self) -> Option<u64> {
        self.buckets.front().map(|(bucket, _)| expiry(*bucket))
    }
}

const fn expiry(bucket: u64) -> u64 {
    (bucket + 1) * WIDTH + LIFE
}
