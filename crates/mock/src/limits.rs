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
//! let mut provider = Enforcer::new(Charging::Estimate, vec![rpm]);
//! assert!(provider.admit(Timestamp(0), 1, &Weights::request(10, 16)).is_ok());
//! let refused = provider.admit(Timestamp(1_000_000), 2, &Weights::request(10, 16)).unwrap_err();
//! assert_eq!(refused.wait, Wait::For(Duration::from_secs(59)));
//! ```

mod bucket;
mod demand;
mod fixed;
mod limit;
mod meter;
mod rolling;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

pub use demand::Demand;
pub use limit::{Algorithm, Dimension, Limit, Slice, Timestamp, Weights};

pub use rolling::Log;

use meter::Meter;

/// When a provider charges, and what it gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charging {
    /// OpenAI: the estimate at admission, never corrected (providers.md §2.3).
    Estimate,
    /// The estimate at admission, replaced by the actual weight at settlement. A refund reaches back to the moment of
    /// admission; an excess is charged at the moment of settlement.
    Settled,
    /// Anthropic: input as [`Charging::Settled`]; output only as it is generated, so admission is refused only when
    /// nothing at all is left (providers.md §4.3).
    AsGenerated,
}

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
}

impl Enforcer {
    /// Builds the quota group; every limit starts unused.
    pub fn new(charging: Charging, limits: Vec<Limit>) -> Self {
        let checks: Vec<Check> = limits
            .iter()
            .enumerate()
            .flat_map(|(index, limit)| Check::all(index, limit))
            .collect();
        let gauges = limits
            .iter()
            .any(|limit| limit.dimension == Dimension::Concurrency);
        Self {
            charging,
            counts_failures: false,
            keeps_open: gauges || charging != Charging::Estimate,
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
        if let Some(refused) = self.refusal(now, weights) {
            if self.counts_failures {
                self.charge_failure(now);
            }
            return Err(refused);
        }
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
            let requested = charging.needed(check.dimension, weights);
            check.refusal(now, requested)
        });
        refused.reduce(|worst, next| if next.wait > worst.wait { next } else { worst })
    }

    /// Replaces an open request's charge by what it really took (input net of free cache reads), as far as the
    /// charging mode does that. Only the first settlement of a request counts; unknown ids are ignored.
    pub fn settle(&mut self, now: Timestamp, id: u64, actual: &Weights) {
        let now = self.advance(now);
        let Some(open) = self.open.get_mut(&id).filter(|open| !open.settled) else {
            return;
        };
        open.settled = true;
        let settled = match self.charging {
            Charging::Estimate => return,
            Charging::Settled => Weights {
                requests: open.charged.requests,
                ..*actual
            },
            // Output was stamped as it was made; it is never taken back.
            Charging::AsGenerated => Weights {
                requests: open.charged.requests,
                input: actual.input,
                output: actual.output.max(open.charged.output),
            },
        };
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
    }

    /// Counts `more` output tokens that an open request has just produced, where output is charged as it is generated.
    pub fn generated(&mut self, now: Timestamp, id: u64, more: u64) {
        let now = self.advance(now);
        if self.charging != Charging::AsGenerated || more == 0 {
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
            check.meter.refund(now, open.admitted, 1);
        }
    }

    /// Returns what every limit has left, in the order of the list; of a sliced limit, the whole window.
    pub fn state(&mut self, now: Timestamp) -> Vec<LimitState> {
        let now = self.advance(now);
        let mut states: Vec<LimitState> = Vec::with_capacity(self.limits.len());
        for check in &mut self.checks {
            if check.limit == states.len() {
                let used = check.meter.used(now);
                states.push(LimitState {
                    limit: self.limits[check.limit],
                    remaining: check.amount.saturating_sub(used),
                    reset: check.meter.reset(now),
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
            check.meter.resize(now, check.amount);
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

impl Charging {
    /// What admission takes.
    fn at_admission(self, weights: &Weights) -> Weights {
        match self {
            Self::Estimate | Self::Settled => *weights,
            Self::AsGenerated => Weights {
                output: 0,
                ..*weights
            },
        }
    }

    /// What must be free for admission: where output is charged later, one token must be left of it.
    fn needed(self, dimension: Dimension, weights: &Weights) -> u64 {
        match (self, dimension) {
            (Self::AsGenerated, Dimension::Output) if weights.output > 0 => 1,
            _ => self.at_admission(weights).amount(dimension),
        }
    }
}

impl Check {
    fn all(index: usize, limit: &Limit) -> Vec<Self> {
        let whole = |meter| Self {
            limit: index,
            dimension: limit.dimension,
            amount: limit.amount,
            window: limit.window,
            meter,
        };
        if limit.dimension == Dimension::Concurrency {
            return vec![whole(Meter::gauge(limit.amount))];
        }
        match limit.algorithm {
            Algorithm::Rolling => vec![whole(Meter::rolling(limit.window, limit.amount))],
            Algorithm::TokenBucket => vec![whole(Meter::bucket(limit.window, limit.amount))],
            Algorithm::Fixed { phase } => vec![whole(Meter::fixed(limit.window, limit.amount, phase))],
            Algorithm::Slices { slice, shape } => {
                let amount = limit.amount_of(slice);
                let meter = match shape {
                    Slice::Rolling => Meter::rolling(slice, amount),
                    Slice::Fixed { phase } => Meter::fixed(slice, amount, phase),
                };
                let part = Self {
                    amount,
                    window: slice,
                    ..whole(meter)
                };
                vec![whole(Meter::rolling(limit.window, limit.amount)), part]
            }
        }
    }

    fn refusal(&mut self, now: Timestamp, requested: u64) -> Option<Refused> {
        let wait = self.meter.wait(now, requested);
        if wait == Wait::For(Duration::ZERO) {
            return None;
        }
        Some(Refused {
            limit: self.limit,
            dimension: self.dimension,
            window: self.window,
            amount: self.amount,
            used: self.meter.used(now),
            requested,
            wait,
        })
    }
}
