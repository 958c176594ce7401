//! What a limit remembers over a restart.

use alloc::boxed::Box;
use core::num::NonZeroU64;
use core::time::Duration;

use super::{AMOUNT_MAX, Lesson, Meter, Taking};
use crate::group::UnderWay;
use crate::limit::{Limit, LimitSource};
use crate::margin::Margin;
use crate::memory::{Charged, LimitMemory, joined};
use crate::time::Timestamp;
use crate::units::{Amount, Dimension};
use crate::window::Rolling;

impl Meter {
    /// Returns what is known, in at most `each` charges; `None` if nothing is that a new meter would not know, or if it
    /// only counts requests in flight or comes and goes.
    pub(crate) fn remember(&self, now: u64, each: usize, under_way: &UnderWay) -> Option<LimitMemory> {
        if self.dimension() == Dimension::Concurrency || self.is_passing() {
            return None;
        }
        let presumed = self.presumed.as_deref();
        let by_guess = presumed.map_or(0, |presumed| presumed.amount);
        let guessed_at = presumed.map(|presumed| self.all.bucket(presumed.stamp));
        let charges = self.all.charges().map(|(stamp, amount)| {
            let is_guess = guessed_at.is_some_and(|at| at == self.all.bucket(stamp));
            (stamp, amount.saturating_sub(if is_guess { by_guess } else { 0 }))
        });
        // What they generate fits into what is left: so they were let through.
        let known = self.all.live().saturating_sub(by_guess);
        let (coming, unsettled) = match self.taking {
            Taking::AsGenerated => (under_way.output.min(self.amount.saturating_sub(known)), 0),
            Taking::AtOnce => (self.held, under_way.charge.amount(self.dimension()).value()),
        };
        let charges = charges.chain(core::iter::once((now, coming)));
        let bucket = self.bucket.as_ref().or(self.shadow.as_ref());
        let missing = bucket.map(|bucket| {
            let missing = i128::from(bucket.capacity()) - i128::from(bucket.level());
            let presumed = presumed.map_or(0, |presumed| i128::from(presumed.missing));
            let missing = missing - presumed + i128::from(coming);
            Amount::new(u64::try_from(missing).unwrap_or(0).min(AMOUNT_MAX))
        });
        let trial = match self.lesson.as_deref() {
            Some(Lesson::Trial(trial)) => Some(trial.remember()),
            _ => None,
        };
        let moment = |at: u64| Timestamp::from_micros(at);
        let known = LimitMemory {
            dimension: self.dimension(),
            window: Duration::from_micros(self.window),
            discipline: self.limit.discipline,
            amount: Amount::new(self.amount),
            source: self.source,
            told: moment(self.told),
            charges: joined(charges, each),
            unsettled: Amount::new(unsettled.saturating_add(coming)),
            foreign: self
                .foreign
                .as_ref()
                .map_or_else(Default::default, |ring| joined(ring.charges(), each)),
            foreign_known: moment(self.foreign_known),
            first_known: self.first_known.map(moment),
            missing: missing.filter(|missing| *missing > Amount::ZERO),
            paced_until: (self.pacer.is_some() && self.paced_until > now).then(|| moment(self.paced_until)),
            trial,
            presumed: presumed.map(|presumed| Charged {
                stamp: moment(presumed.stamp),
                amount: Amount::new(presumed.amount),
            }),
        };
        let is_new = known.charges.is_empty()
            && known.missing.is_none()
            && known.presumed.is_none()
            && (self.source.is_given() || self.source == LimitSource::Unknown);
        (!is_new).then_some(known)
    }

    /// Makes the meter that knew this at `at`.
    pub(crate) fn recalled(now: u64, at: u64, known: &LimitMemory, taking: Taking, margin: &Margin) -> Self {
        let amount = known.amount.value().clamp(1, AMOUNT_MAX);
        let limit = Limit {
            source: known.source,
            discipline: known.discipline,
            ..Limit::rolling(
                known.dimension,
                known.window,
                NonZeroU64::new(amount).unwrap_or(NonZeroU64::MIN),
            )
        };
        let mut meter = Self::new(now, limit, taking, margin);
        if meter.dimension() == Dimension::Concurrency {
            return meter;
        }
        let earlier = |moment: Timestamp| moment.as_micros().min(now);
        meter.told = earlier(known.told);
        fill(&mut meter.all, &known.charges);
        if !known.foreign.is_empty() {
            let mut ring = meter.all.clone();
            ring.clear();
            fill(&mut ring, &known.foreign);
            if ring.live() <= meter.all.live() {
                meter.foreign = Some(Box::new(ring));
            }
        }
        meter.foreign_known = earlier(known.foreign_known);
        meter.first_known = known.first_known.map(earlier);
        if let Some(missing) = known.missing {
            let passed = now.saturating_sub(at);
            for bucket in meter.bucket.iter_mut().chain(&mut meter.shadow) {
                let level = i128::from(bucket.capacity()) - i128::from(missing.value());
                bucket.set_level(level + i128::from(bucket.inflow(passed)));
            }
        }
        if let Some(trial) = &known.trial {
            meter.recall_trial(now, trial);
        }
        if let Some(until) = known.paced_until {
            let until = until
                .as_micros()
                .min(now.saturating_add(meter.window.saturating_mul(2)));
            meter.pace(now, until);
        }
        meter.unsettled = known.unsettled.value();
        if let Some(presumed) = known.presumed {
            meter.charge_presumed(now, presumed.stamp.as_micros(), presumed.amount.value());
        }
        meter
    }
}

/// Charges what is known, each as of its stamp; what is not remembered so long is gone.
fn fill(ring: &mut Rolling, charges: &[Charged]) {
    for charged in charges {
        let stamp = charged.stamp.as_micros();
        if ring.remembers(stamp) {
            ring.charge_at(stamp, charged.amount.value().min(AMOUNT_MAX));
        }
    }
}
