//! What refusals taught about a limit that nobody told.

use alloc::boxed::Box;

use super::Meter;
use super::crowd::Crowd;
use super::ramp::Ramp;
use super::trial::Trial;
use crate::limit::LimitSource;
use crate::snapshot::Growth;
use crate::time::Timestamp;
use crate::units::Amount;

/// What refusals taught about a limit that nobody told.
#[derive(Debug, Clone)]
pub(crate) enum Lesson {
    /// An amount found by trying.
    Trial(Trial),
    /// A temporary amount that grows at every minute boundary.
    Ramp(Ramp),
    /// A number of requests in flight.
    Crowd(Crowd),
}

impl Lesson {
    /// Returns when an amount that cannot hold `weight` yet will have grown to it; `None` if it does, or if nobody knows.
    pub(super) fn reached_at(&self, amount: u64, weight: u64) -> Option<u64> {
        match self {
            Self::Ramp(ramp) if weight > amount => Some(ramp.reached_at(amount, weight)),
            _ => None,
        }
    }

    /// Returns when to look again instead of at `at`, because the amount may have grown by then.
    pub(super) fn sooner(&self, now: u64, at: u64) -> u64 {
        match self {
            Self::Ramp(ramp) if ramp.next() > now => at.min(ramp.next()),
            _ => at,
        }
    }
}

impl Meter {
    /// Returns whether it is no limit of the plan or of the provider's tables, but comes and goes with use.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self.lesson.as_deref(), Some(Lesson::Ramp(_) | Lesson::Crowd(_)))
    }

    /// Returns whether its amount was found by trying.
    pub(crate) fn is_trial(&self) -> bool {
        matches!(self.lesson.as_deref(), Some(Lesson::Trial(_)))
    }

    /// Takes note that somebody waits because of it.
    pub(crate) fn press(&mut self) {
        if let Some(Lesson::Trial(trial)) = self.lesson.as_deref_mut() {
            trial.press();
        }
    }

    /// Lets an amount that was found by trying grow as time passes without a refusal.
    pub(super) fn ease(&mut self, now: u64) {
        let (amount, window) = (self.amount, self.window);
        let Some(Lesson::Trial(trial)) = self.lesson.as_deref_mut() else {
            return;
        };
        if let Some((amount, source)) = trial.ease(now, amount, window) {
            let told = self.told;
            self.set_amount(now, amount, source);
            // It is as old as the refusal that taught it.
            self.told = told;
        }
    }

    /// Forgets what was found by trying once somebody tells the amount.
    pub(super) fn outgrow(&mut self, now: u64) {
        if self.source != LimitSource::Learned && self.is_trial() {
            self.lesson = None;
            self.paced_until = now;
        }
    }

    /// Sets what was taught.
    pub(super) fn teach(&mut self, lesson: Lesson) {
        self.lesson = Some(Box::new(lesson));
    }

    /// Returns how it grows, where it is a ramp.
    pub(crate) fn growth(&self) -> Option<Growth> {
        match self.lesson.as_deref() {
            Some(Lesson::Ramp(ramp)) => Some(Growth {
                step: Amount::new(ramp.step()),
                next: Timestamp::from_micros(ramp.next()),
            }),
            _ => None,
        }
    }

    /// Adopts what the provider's interface tells. Returns whether that changed the amount.
    pub(crate) fn is_told(&mut self, now: u64, amount: u64) -> bool {
        let adopts = match self.source {
            LimitSource::Config | LimitSource::Header | LimitSource::Refusal => amount < self.amount,
            LimitSource::Unknown | LimitSource::Preset | LimitSource::Api | LimitSource::Learned => true,
        };
        if !adopts || self.configured.is_some_and(|configured| amount > configured) {
            return false;
        }
        let changed = amount != self.amount;
        self.set_amount(now, amount, LimitSource::Api);
        changed
    }

    /// Counts what those who are made already counted of the same dimension.
    pub(crate) fn catch_up(&mut self, others: &[Self], in_flight: u32) {
        if self.dimension() == crate::units::Dimension::Concurrency {
            self.let_go();
            self.hold(u64::from(in_flight));
            return;
        }
        let nearest = others
            .iter()
            .filter(|other| other.dimension() == self.dimension() && !other.is_passing())
            .max_by_key(|other| other.window);
        if let Some(other) = nearest {
            let (amount, source, told) = (self.amount, self.source, self.told);
            // What it was made for is its own.
            let lesson = self.lesson.take();
            self.inherit(other);
            self.lesson = lesson;
            self.set_amount(told, amount, source);
            self.hold(other.held);
        }
    }
}
