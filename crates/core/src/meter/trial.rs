//! An amount found by trying: decreased by refusals, increased while none comes.
//!
//! A refusal without numbers teaches what was in use when it came: exactly the limit of a rolling window, no less than it
//! of a fixed window or of a bucket that was full (theory.md §1.2). So the amount becomes a little less than that, and
//! since requests are then spread evenly, the next refusal tells the same of all three.
//!
//! Afterwards it is raised, seldom and little where refusals agree on it, and by steps that double once nothing
//! contradicts them any more:
//!
//! ```text
//! in use at the refusal ───────────────────────x──────────────────────x───
//!                                           ╱  │                   ╱  │
//! amount                        ───────────╱   └──────────────────╱   └──
//!                                 patience  steps   longer patience
//! ```

use super::{AMOUNT_MAX, Lesson, Meter};
use crate::limit::LimitSource;
use crate::memory::TrialMemory;
use crate::units::Amount;

/// The percentage of what was in use that an amount is set to, by how often refusals have agreed on it.
const KEPT: [u64; 3] = [96, 97, 98];
/// The lowest percentage of a learned amount that one refusal leaves of it.
const KEPT_MIN: u64 = 60;
/// One refusal leaves at least this part of an amount that was told.
const TOLD_PART: u64 = 8;
/// Refusals agree if they come within this percentage of each other.
const AGREEMENT: u64 = 10;
/// The first raise, in percent; the next ones double, up to the last.
const STEP: (u64, u64) = (3, 48);
/// Clean windows under pressure before the first raise of an amount that nobody had told…
const PATIENCE: u32 = 2;
/// … and of one that was told and contradicted.
const PATIENCE_TOLD: u32 = 15;
/// Patience doubles with every refusal that agrees, up to this many windows.
const PATIENCE_MAX: u32 = 32;
/// For so long, in microseconds, further refusals of the same moment correct what one of them taught.
const RELEARNED: u64 = 5_000_000;

/// How an amount is found.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    /// What was told before a refusal contradicted it: the most that it becomes again.
    told: Option<(u64, LimitSource)>,
    /// What was in use at the last refusal, when its request was stamped, and what was kept of that.
    refused: u64,
    sent: u64,
    kept: u64,
    /// How many refusals in a row agreed on it.
    agreed: u32,
    /// The next raise, in percent.
    step: u64,
    /// Clean windows that are to pass before it.
    patience: u32,
    /// Those that have passed.
    calm: u32,
    /// When the current window began.
    since: u64,
    /// Whether somebody waited because of this limit in it.
    pressed: bool,
}

impl Trial {
    pub(super) const fn press(&mut self) {
        self.pressed = true;
    }

    /// Returns a larger amount, and where it comes from, when it is time for one.
    pub(super) fn ease(&mut self, now: u64, amount: u64, window: u64) -> Option<(u64, LimitSource)> {
        if now.saturating_sub(self.since) < window {
            return None;
        }
        self.since = now;
        if !core::mem::replace(&mut self.pressed, false) {
            return None;
        }
        self.calm += 1;
        if self.calm < self.patience {
            return None;
        }
        (self.calm, self.patience) = (0, 1);
        let raised = amount.saturating_add((amount.saturating_mul(self.step) / 100).max(1));
        self.step = (self.step * 2).min(STEP.1);
        match self.told {
            Some((told, source)) if raised >= told => Some((told, source)),
            _ => Some((raised, LimitSource::Learned)),
        }
    }
}

impl Trial {
    /// Returns what of it outlasts a restart.
    pub(super) const fn remember(&self) -> TrialMemory {
        let told = match self.told {
            Some((amount, source)) => Some((Amount::new(amount), source)),
            None => None,
        };
        TrialMemory {
            told,
            refused: Amount::new(self.refused),
            agreed: self.agreed,
        }
    }
}

impl Meter {
    /// Goes on trying where it was left, with all of its patience.
    pub(super) fn recall_trial(&mut self, now: u64, known: &TrialMemory) {
        let told = known
            .told
            .map(|(amount, source)| (amount.value().clamp(1, AMOUNT_MAX), source));
        self.teach(Lesson::Trial(Trial {
            told,
            refused: known.refused.value().min(AMOUNT_MAX),
            sent: now,
            kept: KEPT[(known.agreed as usize).min(KEPT.len() - 1)],
            agreed: known.agreed,
            step: STEP.0,
            patience: patience(told.is_some(), known.agreed),
            calm: 0,
            since: now,
            pressed: false,
        }));
        self.pace(now, u64::MAX);
    }

    /// Returns what was in use when the provider stamped a request that we stamped at `sent`, by the provider's window.
    pub(crate) fn in_use_at(&self, sent: u64) -> u64 {
        self.all.charged_between(sent.saturating_sub(self.window), sent)
    }

    /// Returns whether a refusal came before when as much was in use.
    pub(crate) fn was_refused_at(&self, in_use: u64) -> bool {
        match self.lesson.as_deref() {
            Some(Lesson::Trial(trial)) => in_use >= percent(trial.refused, 100 - AGREEMENT / 2),
            _ => false,
        }
    }

    /// Learns from the refusal of a request stamped at `sent`, when `in_use` was in use.
    pub(crate) fn learn(&mut self, now: u64, sent: u64, in_use: u64) {
        let amount = self.amount;
        let (told, before, agreed) = match self.lesson.as_deref() {
            Some(Lesson::Trial(trial)) => (trial.told, Some(trial.refused), trial.agreed),
            _ => (self.is_known().then_some((amount, self.source)), None, 0),
        };
        let agrees =
            before.is_some_and(|before| before.abs_diff(in_use).saturating_mul(100) <= before * AGREEMENT);
        let agreed = if agrees { agreed + 1 } else { 0 };
        let kept = KEPT[(agreed as usize).min(KEPT.len() - 1)];
        let least = match before {
            Some(_) => percent(amount, KEPT_MIN),
            None if self.is_known() => amount / TOLD_PART,
            None => 1,
        };
        let learned = keep(in_use, kept).min(amount - 1).max(least);
        let patience = patience(told.is_some(), agreed);
        self.teach(Lesson::Trial(Trial {
            told,
            refused: in_use,
            sent,
            kept,
            agreed,
            step: STEP.0,
            patience,
            calm: 0,
            since: now,
            pressed: false,
        }));
        self.set_amount(now, learned, LimitSource::Learned);
        self.pace(now, u64::MAX);
    }

    /// Measures the last lesson again: others that were counted as accepted by then were refused as well.
    pub(crate) fn relearn(&mut self, now: u64) {
        let Some(Lesson::Trial(trial)) = self.lesson.as_deref() else {
            return;
        };
        let (before, sent, kept) = (trial.refused, trial.sent, trial.kept);
        let least = trial.told.map_or(1, |(told, _)| told / TOLD_PART);
        // Later than that, usage has been settled that the provider still counted in full.
        if now.saturating_sub(trial.since) > RELEARNED
            || !self.all.remembers(sent.saturating_sub(self.window))
        {
            return;
        }
        let in_use = self.in_use_at(sent);
        if in_use >= before || in_use == 0 {
            return;
        }
        if let Some(Lesson::Trial(trial)) = self.lesson.as_deref_mut() {
            trial.refused = in_use;
        }
        let learned = keep(in_use, kept).max(least).min(self.amount);
        self.set_amount(now, learned, LimitSource::Learned);
    }
}

/// Returns how many clean windows are to pass before the first raise.
fn patience(is_told: bool, agreed: u32) -> u32 {
    let first = if is_told { PATIENCE_TOLD } else { PATIENCE };
    first.saturating_mul(1 << agreed.min(5)).min(PATIENCE_MAX)
}

/// Returns what is kept of an amount, at least as much as leaves one out of twenty.
fn keep(amount: u64, kept: u64) -> u64 {
    amount - percent(amount, 100 - kept)
}

fn percent(of: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(of) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}
