//! A temporary amount that grows at every minute boundary: Anthropic's acceleration limit (providers.md §4.5).
//!
//! It is a limit of its own beside the one on input tokens, in place only as long as it is the lower of the two. What is
//! known of it is one refusal's text, so the rest is decided here: it grows whether it is used or not, and after a quarter
//! of an hour without traffic it is taken to begin anew.

use alloc::boxed::Box;

use super::{AMOUNT_MAX, Lesson, Meter, Taking};
use crate::limit::{Limit, LimitSource};
use crate::margin::Margin;
use crate::units::Dimension;

/// Without traffic for this long, in microseconds, use is taken to grow from the beginning.
pub(crate) const REST: u64 = 15 * 60_000_000;

/// What one refusal taught is forgotten after a day, so that nothing a text says holds anybody up for good.
const FORGOTTEN: u64 = 86_400_000_000;

/// How a temporary amount grows.
#[derive(Debug, Clone)]
pub(crate) struct Ramp {
    /// Where it began.
    base: u64,
    /// By how much it grows at every boundary.
    step: u64,
    /// When it grows next, in microseconds.
    next: u64,
    /// The provider's minute, in microseconds.
    minute: u64,
    /// When it is forgotten.
    until: u64,
}

impl Ramp {
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    pub(super) const fn step(&self) -> u64 {
        self.step
    }

    /// Returns when it will have grown from `amount` to `weight`.
    pub(super) fn reached_at(&self, amount: u64, weight: u64) -> u64 {
        let steps = weight.saturating_sub(amount).div_ceil(self.step.max(1)).max(1);
        self.next
            .saturating_add((steps - 1).saturating_mul(self.minute))
            .min(self.until)
    }
}

impl Meter {
    /// Makes a limit on input tokens that is `amount` now and grows by `step` from `next` on.
    pub(crate) fn ramp(now: u64, minute: u64, amount: u64, step: u64, next: u64, margin: &Margin) -> Self {
        let amount = amount.clamp(1, AMOUNT_MAX);
        let limit = Limit {
            source: LimitSource::Refusal,
            ..Limit::rolling(
                Dimension::InputTokens,
                core::time::Duration::from_micros(minute),
                core::num::NonZeroU64::new(amount).unwrap_or(core::num::NonZeroU64::MIN),
            )
        };
        let mut meter = Self::new(now, limit, Taking::AtOnce, margin);
        meter.lesson = Some(Box::new(Lesson::Ramp(Ramp {
            base: amount,
            step: step.clamp(1, AMOUNT_MAX),
            next,
            minute: minute.max(1),
            until: now.saturating_add(FORGOTTEN),
        })));
        meter
    }

    /// Returns whether this is the limit of an acceleration.
    pub(crate) fn is_ramp(&self) -> bool {
        matches!(self.lesson.as_deref(), Some(Lesson::Ramp(_)))
    }

    /// Tells the amount, the step and the next boundary anew.
    pub(crate) fn ramp_on(&mut self, now: u64, amount: u64, step: u64, next: u64) {
        let Some(Lesson::Ramp(ramp)) = self.lesson.as_deref_mut() else {
            return;
        };
        ramp.base = ramp.base.min(amount).max(1);
        ramp.step = step.clamp(1, AMOUNT_MAX);
        ramp.next = next;
        ramp.until = now.saturating_add(FORGOTTEN);
        self.set_amount(now, amount, LimitSource::Refusal);
    }

    /// Lets it grow at every boundary that has passed. Where it reaches `most`, it is no limit any more, and is one again
    /// after a rest.
    pub(crate) fn climb(&mut self, now: u64, most: u64, last_used: u64) {
        let Some(Lesson::Ramp(ramp)) = self.lesson.as_deref_mut() else {
            return;
        };
        let mut amount = self.amount;
        let told = self.told;
        if now >= ramp.until {
            if self.is_known() {
                self.set_amount(told, amount, LimitSource::Unknown);
            }
            return;
        }
        let (rested, due) = (now.saturating_sub(last_used) > REST, now >= ramp.next);
        if !rested && !due {
            return;
        }
        if rested {
            amount = ramp.base;
        }
        if due {
            let turns = (now - ramp.next) / ramp.minute + 1;
            ramp.next = ramp.next.saturating_add(turns.saturating_mul(ramp.minute));
            if !rested && self.source != LimitSource::Unknown {
                amount = amount
                    .saturating_add(turns.saturating_mul(ramp.step))
                    .min(AMOUNT_MAX);
            }
        }
        let source = match self.source {
            LimitSource::Unknown if !rested => LimitSource::Unknown,
            _ if amount >= most => LimitSource::Unknown,
            _ => LimitSource::Refusal,
        };
        self.set_amount(told, amount, source);
    }
}
