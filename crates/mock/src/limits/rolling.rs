use std::collections::VecDeque;
use std::time::Duration;

use super::limit::micros;
use super::{Timestamp, Wait};

/// The exact log of a rolling window. A charge at `t` counts in `[t, t + window)`.
///
/// The log is bounded by what it admits: every entry weighs at least one.
#[derive(Debug, Clone)]
pub(super) struct Rolling {
    window: u64,
    amount: u64,
    log: VecDeque<(u64, u64)>,
    sum: u64,
}

impl Rolling {
    pub(super) fn new(window: u64, amount: u64) -> Self {
        Self {
            window,
            amount,
            log: VecDeque::new(),
            sum: 0,
        }
    }

    pub(super) fn wait(&mut self, now: Timestamp, requested: u64) -> Wait {
        self.expire(now);
        self.wait_for(now, self.amount, requested)
    }

    /// How long until `requested` fits within `amount`, from a moment that is now or later.
    pub(super) fn wait_for(&self, now: Timestamp, amount: u64, requested: u64) -> Wait {
        if requested > amount {
            return Wait::Never;
        }
        let allowed = amount - requested;
        let gone = |stamp: u64| stamp.saturating_add(self.window) <= now.0;
        let mut left = self.sum;
        for (_, weight) in self.log.iter().take_while(|(stamp, _)| gone(*stamp)) {
            left -= weight;
        }
        if left <= allowed {
            return Wait::For(Duration::ZERO);
        }
        for (stamp, weight) in self.log.iter().skip_while(|(stamp, _)| gone(*stamp)) {
            left -= weight;
            if left <= allowed {
                return Wait::For(Duration::from_micros(stamp.saturating_add(self.window) - now.0));
            }
        }
        Wait::For(Duration::ZERO)
    }

    pub(super) fn charge(&mut self, now: Timestamp, weight: u64) {
        self.expire(now);
        // A sum that would overflow is held at the top: it refuses everything all the same.
        let weight = weight.min(u64::MAX - self.sum);
        self.sum += weight;
        match self.log.back_mut() {
            Some((stamp, last)) if *stamp == now.0 => *last += weight,
            _ => self.log.push_back((now.0, weight)),
        }
    }

    pub(super) fn refund(&mut self, stamp: Timestamp, weight: u64) {
        let place = self.log.partition_point(|(at, _)| *at < stamp.0);
        if let Some((at, charged)) = self.log.get_mut(place)
            && *at == stamp.0
        {
            let back = weight.min(*charged);
            *charged -= back;
            self.sum -= back;
        }
    }

    pub(super) fn used(&mut self, now: Timestamp) -> u64 {
        self.expire(now);
        self.sum
    }

    pub(super) fn reset(&mut self, now: Timestamp) -> Duration {
        self.expire(now);
        let last = self.log.iter().rev().find(|(_, weight)| *weight > 0);
        last.map_or(Duration::ZERO, |(stamp, _)| {
            Duration::from_micros(stamp.saturating_add(self.window) - now.0)
        })
    }

    pub(super) fn resize(&mut self, amount: u64) {
        self.amount = amount;
    }

    fn expire(&mut self, now: Timestamp) {
        while let Some((stamp, weight)) = self.log.front()
            && stamp.saturating_add(self.window) <= now.0
        {
            self.sum -= weight;
            self.log.pop_front();
        }
    }
}

/// A log of a rolling window that refuses nothing: for telling what any window held.
#[derive(Debug, Clone)]
pub struct Log(Rolling);

impl Log {
    /// Builds an empty log.
    pub fn new(window: Duration) -> Self {
        Self(Rolling::new(micros(window), u64::MAX))
    }

    /// Counts `weight` at `now`.
    pub fn charge(&mut self, now: Timestamp, weight: u64) {
        if weight > 0 {
            self.0.charge(now, weight);
        }
    }

    /// Takes back `weight` of what was counted at `stamp`.
    pub fn refund(&mut self, stamp: Timestamp, weight: u64) {
        self.0.refund(stamp, weight);
    }

    /// Returns what the window that ends at `now` holds.
    pub fn used(&mut self, now: Timestamp) -> u64 {
        self.0.used(now)
    }
}
