//! A number of requests in flight that was learned from refusals: additive increase, and no decrease below what was
//! accepted.

use alloc::boxed::Box;
use core::num::NonZeroU64;
use core::time::Duration;

use super::{Lesson, Meter, Taking};
use crate::limit::{Limit, LimitSource};
use crate::margin::Margin;
use crate::units::Dimension;

/// So many times the amount has to succeed at the limit before one more is tried.
const PATIENCE: u64 = 10;
/// Patience doubles with every refusal of one more, up to this many times the amount.
const PATIENCE_MAX: u64 = 640;

/// How a number of requests in flight is found.
#[derive(Debug, Clone)]
pub(crate) struct Crowd {
    /// Successes with as many in flight as may be, since the last change.
    successes: u64,
    /// Times the amount that are to succeed before one more is tried.
    patience: u64,
    /// When the amount was last lowered.
    lowered: u64,
    /// Whether one more has been tried since then.
    is_raised: bool,
}

impl Meter {
    /// Makes a limit of `amount` requests in flight.
    pub(crate) fn crowd(now: u64, amount: u64, margin: &Margin) -> Self {
        let amount = NonZeroU64::new(amount).unwrap_or(NonZeroU64::MIN);
        let limit = Limit {
            source: LimitSource::Learned,
            ..Limit::rolling(Dimension::Concurrency, Duration::ZERO, amount)
        };
        let mut meter = Self::new(now, limit, Taking::AtOnce, margin);
        meter.lesson = Some(Box::new(Lesson::Crowd(Crowd {
            successes: 0,
            patience: PATIENCE,
            lowered: now,
            is_raised: false,
        })));
        meter
    }

    /// Returns whether this number of requests in flight was learned.
    pub(crate) fn is_crowd(&self) -> bool {
        matches!(self.lesson.as_deref(), Some(Lesson::Crowd(_)))
    }

    /// Learns that a request was refused that was sent at `sent` with `ahead` others in flight. Returns whether that is
    /// news.
    pub(crate) fn crowded(&mut self, now: u64, sent: u64, ahead: u64) -> bool {
        let amount = self.amount;
        let Some(Lesson::Crowd(crowd)) = self.lesson.as_deref_mut() else {
            return false;
        };
        crowd.successes = 0;
        let lower = ahead.max(1);
        // Only a refusal of one more than was found says that one more is too many. Fewer than that tell of another limit,
        // of which what was found before says nothing.
        if sent > crowd.lowered {
            if core::mem::take(&mut crowd.is_raised) && ahead + 1 >= amount {
                crowd.patience = (crowd.patience * 2).min(PATIENCE_MAX);
            } else if lower < amount {
                crowd.patience = PATIENCE;
            }
        }
        if lower >= amount {
            return false;
        }
        crowd.lowered = now;
        self.set_amount(now, lower, LimitSource::Learned);
        true
    }

    /// Takes note of a success. After enough of them with as many in flight as may be, one more may be.
    pub(crate) fn succeeded(&mut self) {
        let (amount, told, is_full) = (self.amount, self.told, self.held >= self.amount);
        let Some(Lesson::Crowd(crowd)) = self.lesson.as_deref_mut() else {
            return;
        };
        if !is_full {
            return;
        }
        crowd.successes += 1;
        if crowd.successes >= amount.saturating_mul(crowd.patience) {
            crowd.successes = 0;
            crowd.is_raised = true;
            self.set_amount(told, amount.saturating_add(1), LimitSource::Learned);
        }
    }
}
