//! How providers enforce their limits: pure models in virtual time, exact and plain rather than clever.
//!
//! An [`Enforcer`] is one quota group: all the limits that one request must pass together. It never reads a clock;
//! every call takes `now`, which must not run backwards (an earlier `now` counts as the last one).
//!
//! ```
//! use std::time::Duration;
//! use tidegate_mock::limits::{Algorithm, Charging, Dimension, Enforcer, Limit, Timestamp, Wait, Weights};
//!
//! let minute = Duration::from_secs(60);
//! let rpm = Limit::new(Dimension::Requests, minute, 1, Algorithm::Rolling);
//! let mut provider = Enforcer::new(Charging::ESTIMATE, vec![rpm]);
//! assert!(provider.admit(Timestamp(0), 1, &Weights::request(10, 16)).is_ok());
//! let refused = provider.admit(Timestamp(1_000_000), 2, &Weights::request(10, 16)).unwrap_err();
//! assert_eq!(refused.wait, Wait::For(Duration::from_secs(59)));
//! ```

mod account;
mod bucket;
mod charging;
pub(crate) mod civil;
mod congestion;
mod demand;
mod fixed;
mod limit;
mod meter;
mod preset;
mod ramp;
mod rolling;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

pub use account::{Account, Applies, Level, Pool, PoolState, Refusal, Scope, Subject};
pub use charging::{Charging, Reserves, Settles, Usage};
pub use civil::Period;
pub use demand::Demand;
pub use limit::{Algorithm, Dimension, Limit, Slice, Timestamp, Weights};

pub use rolling::Log;

use congestion::Congestion;
use fixed::Turns;
use limit::micros;
use meter::Meter;
use ramp::Ramp;

/// All limits of one quota group.
#[derive(Debug, Clone)]
pub struct Enforcer {
    charging: Charging,
    counts_failures: bool,
    limits: Vec<Limit>,
    checks: Vec<Check>,
    open: HashMap<u64, Open>,
    keeps_open: bool,
    last: Timestamp,
}

/// One meter of one limit; sliced limits have two.
#[derive(Debug, Clone)]
struct Check {
    limit: usize,
    dimension: Dimension,
    amount: u64,
    window: Duration,
    meter: Meter,
}

/// A request that was admitted and has not finished.
#[derive(Debug, Clone, Copy)]
struct Open {
    admitted: Timestamp,
    charged: Weights,
    settled: bool,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The limit's place in the list that [`Enforcer::new`] was given; the one with the longest wait.
    pub limit: usize,
    /// What the limit counts.
    pub dimension: Dimension,
    /// The window that is full: the limit's own, or its slice.
    pub window: Duration,
    /// What fits into that window.
    pub amount: u64,
    /// What is in it now.
    pub used: u64,
    /// What the request would have added.
    pub requested: u64,
    /// How long until the request would fit if nothing else came.
    pub wait: Wait,
    /// What would fit from the next minute boundary on, where the amount still grows ([`Algorithm::Ramp`]).
    pub growing_to: Option<u64>,
    /// Whether chance refused it ([`Algorithm::Congestion`]).
    pub congested: bool,
}

/// How long a refused request would have to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// Until another request finishes: nobody knows how long.
    Unknown,
    /// This long, if nothing else is admitted.
    For(Duration),
    /// For ever: the request is larger than the limit.
    Never,
}

/// What a limit has left, as response headers tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitState {
    /// The limit.
    pub limit: Limit,
    /// What is left now, never below zero.
    pub remaining: u64,
    /// How long until everything is back (not: until the next request fits).
    pub reset: Duration,
    /// What the slice of a sliced limit has left.
    pub slice: Option<SliceState>,
}

/// What the slice of a sliced limit has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SliceState {
    /// What fits into it.
    pub amount: u64,
    /// What is left now, never below zero.
    pub remaining: u64,
    /// How long until everything is back.
    pub reset: Duration,
}

impl Enforcer {
    /// Builds the quota group; every limit starts unused.
    pub fn new(charging: Charging, limits: Vec<Limit>) -> Self {
        Self::since(charging, limits, Duration::ZERO)
    }

    /// Builds the quota group where the beginning of time is so long after 1970: what follows the calendar needs to
    /// know.
    pub fn since(charging: Charging, limits: Vec<Limit>, unix: Duration) -> Self {
        let began = u64::try_from(unix.as_micros()).unwrap_or(u64::MAX);
        let checks: Vec<Check> = limits
            .iter()
            .enumerate()
            .flat_map(|(index, limit)| Check::all(index, limit, began))
            .collect();
        let gauges = limits
            .iter()
            .any(|limit| limit.dimension == Dimension::Concurrency);
        Self {
            charging,
            counts_failures: false,
            keeps_open: gauges || charging.as_generated || charging.settles != Settles::Never,
            limits,
            checks,
            open: HashMap::new(),
            last: Timestamp(0),
        }
    }

    /// Makes a refused request take one from the request limits, where one is left: "unsuccessful requests contribute
    /// to your per-minute limit" (providers.md §2.3).
    #[must_use]
    pub fn counting_failures(mut self) -> Self {
        self.counts_failures = true;
        self
    }

    /// Returns the limits as they were given, with later changes of amount.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// Returns how many requests are open: admitted and not finished. Counted only where the charging mode or a
    /// concurrency limit needs it.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Charges a request in every limit, or in none.
    ///
    /// `id` names the request in later calls and must be free; an id that is still open is finished first.
    ///
    /// # Errors
    ///
    /// Returns the limit that takes longest to make room.
    pub fn admit(&mut self, now: Timestamp, id: u64, weights: &Weights) -> Result<(), Refused> {
        let now = self.advance(now);
        if self.keeps_open && self.open.contains_key(&id) {
            self.finish(now, id);
        }
        let refused = self.refusal(now, weights);
        if let Some(refused) = refused {
            self.failed(now, weights);
            return Err(refused);
        }
        self.attempted(now, weights);
        let charged = self.charging.at_admission(weights);
        for check in &mut self.checks {
            check.meter.charge(now, charged.amount(check.dimension));
        }
        if self.keeps_open {
            self.open.insert(
                id,
                Open {
                    admitted: now,
                    charged,
                    settled: false,
                },
            );
        }
        Ok(())
    }

    /// Returns what [`Enforcer::admit`] would refuse with, and charges nothing.
    pub fn refusal(&mut self, now: Timestamp, weights: &Weights) -> Option<Refused> {
        let now = self.advance(now);
        let charging = self.charging;
        let refused = self.checks.iter_mut().filter_map(|check| {
            let requested = needed(&charging, check.dimension, weights);
            check.refusal(now, requested)
        });
        refused.reduce(|worst, next| if next.wait > worst.wait { next } else { worst })
    }

    /// Corrects an open request's charge by what it really used, as far as the charging mode does that. Only the first
    /// settlement of a request counts; unknown ids are ignored.
    ///
    /// Returns what was charged before and what is charged now.
    pub fn settle(&mut self, now: Timestamp, id: u64, usage: &Usage) -> Option<(Weights, Weights)> {
        let now = self.advance(now);
        let open = self.open.get_mut(&id).filter(|open| !open.settled)?;
        open.settled = true;
        let settled = self.charging.settled(&open.charged, usage);
        let before = std::mem::replace(&mut open.charged, settled);
        let admitted = open.admitted;
        for check in self
            .checks
            .iter_mut()
            .filter(|check| check.dimension != Dimension::Concurrency)
        {
            let (old, new) = (before.amount(check.dimension), settled.amount(check.dimension));
            if new > old {
                check.meter.charge(now, new - old);
            } else if new < old {
                check.meter.refund(now, admitted, old - new);
            }
        }
        Some((before, settled))
    }

    /// Counts `more` output tokens that an open request has just produced, where output is charged as it is generated.
    pub fn generated(&mut self, now: Timestamp, id: u64, more: u64) {
        let now = self.advance(now);
        if !self.charging.as_generated || more == 0 {
            return;
        }
        let Some(open) = self.open.get_mut(&id) else {
            return;
        };
        open.charged.output = open.charged.output.saturating_add(more);
        for check in &mut self.checks {
            if matches!(check.dimension, Dimension::Output | Dimension::Tokens) {
                check.meter.charge(now, more);
            }
        }
    }

    /// Ends a request: it no longer counts as concurrent and can no longer be settled. Unknown ids are ignored.
    pub fn finish(&mut self, now: Timestamp, id: u64) {
        let now = self.advance(now);
        let Some(open) = self.open.remove(&id) else { return };
        for check in self
            .checks
            .iter_mut()
            .filter(|check| check.dimension == Dimension::Concurrency)
        {
            check.meter.refund(now, open.admitted, open.charged.slots);
        }
    }

    /// Returns what every limit has left, hidden ones among them, in the order of the list.
    pub fn state(&mut self, now: Timestamp) -> Vec<LimitState> {
        let now = self.advance(now);
        let mut states: Vec<LimitState> = Vec::with_capacity(self.limits.len());
        for check in &mut self.checks {
            let remaining = check.amount.saturating_sub(check.meter.used(now));
            let reset = check.meter.reset(now);
            if let Some(state) = states.get_mut(check.limit) {
                state.slice = Some(SliceState {
                    amount: check.amount,
                    remaining,
                    reset,
                });
            } else {
                states.push(LimitState {
                    limit: self.limits[check.limit],
                    remaining,
                    reset,
                    slice: None,
                });
            }
        }
        states
    }

    /// Changes the amount of one limit, as providers do without notice; what was charged stays charged. A place
    /// outside the list is ignored.
    pub fn resize(&mut self, now: Timestamp, limit: usize, amount: u64) {
        let now = self.advance(now);
        let Some(changed) = self.limits.get_mut(limit) else {
            return;
        };
        changed.amount = amount;
        for check in self.checks.iter_mut().filter(|check| check.limit == limit) {
            check.amount = if check.window == changed.window {
                amount
            } else {
                changed.amount_of(check.window)
            };
            let capacity = changed.capacity().min(check.amount);
            check.meter.resize(now, check.amount, capacity);
        }
    }

    /// Counts a request that was refused here or elsewhere.
    pub fn failed(&mut self, now: Timestamp, weights: &Weights) {
        let now = self.advance(now);
        self.attempted(now, weights);
        if self.counts_failures {
            self.charge_failure(now);
        }
    }

    fn attempted(&mut self, now: Timestamp, weights: &Weights) {
        for check in &mut self.checks {
            let requested = needed(&self.charging, check.dimension, weights);
            check.meter.attempt(now, requested);
        }
    }

    fn charge_failure(&mut self, now: Timestamp) {
        let full = self.checks.iter_mut().any(|check| {
            check.dimension == Dimension::Requests && check.meter.wait(now, 1) != Wait::For(Duration::ZERO)
        });
        if full {
            return;
        }
        for check in self
            .checks
            .iter_mut()
            .filter(|check| check.dimension == Dimension::Requests)
        {
            check.meter.charge(now, 1);
        }
    }

    fn advance(&mut self, now: Timestamp) -> Timestamp {
        self.last = self.last.max(now);
        self.last
    }
}

/// What must be free for admission: where output is charged later, one token must be left of it.
fn needed(charging: &Charging, dimension: Dimension, weights: &Weights) -> u64 {
    if charging.as_generated && dimension == Dimension::Output && weights.output > 0 {
        return 1;
    }
    charging.at_admission(weights).amount(dimension)
}

impl Check {
    fn all(index: usize, limit: &Limit, began: u64) -> Vec<Self> {
        let Limit {
            dimension,
            window,
            amount,
            ..
        } = *limit;
        let whole = |meter| Self {
            limit: index,
            dimension,
            amount,
            window,
            meter,
        };
        if dimension == Dimension::Concurrency {
            return vec![whole(Meter::gauge(amount))];
        }
        let meter = match limit.algorithm {
            Algorithm::Rolling => Meter::rolling(window, amount),
            Algorithm::TokenBucket | Algorithm::Spaced { .. } => {
                Meter::bucket(window, amount, limit.capacity())
            }
            Algorithm::Fixed { phase } => Meter::fixed(Turns::every(window, phase), amount),
            Algorithm::Civil(period) => Meter::fixed(Turns::Civil { period, began }, amount),
            Algorithm::Ramp { start, step, idle } => {
                let period = Period::Minute;
                let turns = Turns::Civil { period, began };
                Meter::Ramp(Ramp::new(turns, micros(window), start, step, amount, idle))
            }
            Algorithm::Congestion { swing, period, seed } => {
                let period = micros(period);
                Meter::Congestion(Congestion::new(micros(window), amount, swing, period, seed))
            }
            Algorithm::Slices { slice, shape } => {
                let amount = limit.amount_of(slice);
                let meter = match shape {
                    Slice::Rolling => Meter::rolling(slice, amount),
                    Slice::Fixed { phase } => Meter::fixed(Turns::every(slice, phase), amount),
                };
                let part = Self {
                    amount,
                    window: slice,
                    ..whole(meter)
                };
                return vec![whole(Meter::rolling(window, limit.amount)), part];
            }
        };
        vec![whole(meter)]
    }

    fn refusal(&mut self, now: Timestamp, requested: u64) -> Option<Refused> {
        let wait = self.meter.wait(now, requested);
        if wait == Wait::For(Duration::ZERO) {
            return None;
        }
        let (usable, next) = self.meter.usable(now);
        Some(Refused {
            limit: self.limit,
            dimension: self.dimension,
            window: self.window,
            amount: usable.unwrap_or(self.amount),
            used: self.meter.used(now),
            requested,
            wait,
            growing_to: next.filter(|_| wait != Wait::Never),
            congested: matches!(self.meter, Meter::Congestion(_)),
        })
    }
}
