//! A budget over days or months of the calendar.

use core::time::Duration;

use super::{Hold, Used, Verdict};
use crate::calendar::next_month;
use crate::decision::{Allotment, Refusal, RefusalReason, Spent, WaitReason};
use crate::ledger::LimitName;
use crate::limit::Zone;
use crate::memory::BudgetMemory;
use crate::plan::{Budget, BudgetUnit, Period};
use crate::snapshot::BudgetSnapshot;
use crate::time::Timestamp;
use crate::units::Dimension;

/// Periods begin and end at whole hours, in microseconds.
const HOUR: u64 = 3_600_000_000;

/// What was used of one budget in the period that now is.
#[derive(Debug, Clone)]
pub(super) struct Account {
    budget: Budget,
    used: u64,
    /// What requests under way may use yet.
    held: u64,
    /// When the next period begins, in microseconds.
    renews: u64,
}

impl Account {
    pub(super) fn new(now: u64, budget: Budget) -> Self {
        Self {
            budget,
            used: 0,
            held: 0,
            renews: next(now, budget.period),
        }
    }

    /// Makes the account of a budget that may have had another amount before.
    pub(super) fn follow(now: u64, budget: Budget, older: &[Self]) -> Self {
        let same = |old: &&Self| old.budget.unit == budget.unit && old.budget.period == budget.period;
        let mut account = older
            .iter()
            .find(same)
            .cloned()
            .unwrap_or_else(|| Self::new(now, budget));
        account.budget = budget;
        // Whoever runs holds it again.
        account.held = 0;
        account
    }

    /// Begins the next period when its time has come. What is held is used in the period in which it ends.
    fn renew(&mut self, now: u64) {
        if now >= self.renews {
            self.used = 0;
            self.renews = next(now, self.budget.period);
        }
    }

    /// Returns what a request takes of it.
    pub(super) const fn part(&self, hold: Hold) -> u64 {
        match self.budget.unit {
            BudgetUnit::Tokens => hold.tokens,
            BudgetUnit::Cost => hold.cost,
        }
    }

    /// Returns the name by which replicas know it: another in each period.
    pub(super) fn name(&mut self, now: u64) -> LimitName {
        self.renew(now);
        let period = match self.budget.period {
            Period::Day => 0,
            Period::Month => 1,
        };
        let unit = match self.budget.unit {
            BudgetUnit::Tokens => 0,
            BudgetUnit::Cost => 1,
        };
        // Those of dimensions are below that number.
        let code = Dimension::ALL.len() as u64 + unit;
        LimitName::from_number((self.renews / HOUR * 2 + period) * 8 + code)
    }

    pub(super) const fn amount(&self) -> u64 {
        self.budget.amount
    }

    /// Returns how long the period still lasts, in microseconds.
    pub(super) fn rest(&mut self, now: u64) -> u64 {
        self.renew(now);
        self.renews - now
    }

    /// Returns what is used, and what is held.
    pub(super) fn in_use(&mut self, now: u64) -> (u64, u64) {
        self.renew(now);
        (self.used, self.held)
    }

    /// Returns whether a request fits into what is left, where others have used so much.
    pub(super) fn verdict(&mut self, now: u64, hold: Hold, elsewhere: u64) -> Verdict {
        self.renew(now);
        let used = self.used.saturating_add(elsewhere);
        let after = used.saturating_add(self.part(hold).max(1));
        if after > self.budget.amount {
            return Verdict::Refuse(Refusal {
                retry_after: Some(Duration::from_micros((self.renews - now).max(1))),
                spent: Some(Spent {
                    what: Allotment::Budget(self.budget.unit, self.budget.period),
                    used,
                    most: self.budget.amount,
                    above: 0,
                }),
                ..Refusal::of(RefusalReason::BudgetSpent)
            });
        }
        if after.saturating_add(self.held) > self.budget.amount {
            return Verdict::Event(WaitReason::Budget);
        }
        Verdict::Now
    }

    /// Returns what is used, and held, if anything is.
    pub(super) fn remember(&mut self, now: u64) -> Option<BudgetMemory> {
        self.renew(now);
        let used = self.used.saturating_add(self.held);
        (used > 0).then(|| BudgetMemory {
            unit: self.budget.unit,
            period: self.budget.period,
            used,
            renews: Timestamp::from_micros(self.renews),
        })
    }

    /// Takes over what was used, if that is of this budget and of the period that now is.
    pub(super) fn recall(&mut self, now: u64, known: &BudgetMemory) {
        let is_same = known.unit == self.budget.unit && known.period == self.budget.period;
        if is_same && known.renews.as_micros() > now {
            self.used = self.used.saturating_add(known.used);
        }
    }

    /// Returns whether nothing of it is used or held.
    pub(super) fn is_unused(&mut self, now: u64) -> bool {
        self.renew(now);
        self.used == 0 && self.held == 0
    }

    pub(super) fn hold(&mut self, now: u64, hold: Hold) {
        self.renew(now);
        self.held = self.held.saturating_add(self.part(hold));
    }

    /// Replaces what was held by what was used, if anything was.
    pub(super) fn settle(&mut self, now: u64, hold: Hold, used: Option<&Used>) {
        self.renew(now);
        self.held = self.held.saturating_sub(self.part(hold));
        let used = used.map_or(0, |used| match self.budget.unit {
            BudgetUnit::Tokens => used.tokens(),
            BudgetUnit::Cost => used.cost,
        });
        self.used = self.used.saturating_add(used);
    }

    pub(super) fn snapshot(&self, now: u64) -> BudgetSnapshot {
        let is_over = now >= self.renews;
        BudgetSnapshot {
            budget: self.budget,
            used: if is_over { 0 } else { self.used },
            held: self.held,
            renews: Timestamp::from_micros(if is_over {
                next(now, self.budget.period)
            } else {
                self.renews
            }),
        }
    }
}

fn next(now: u64, period: Period) -> u64 {
    let now = Timestamp::from_micros(now);
    let next = match period {
        Period::Day => Zone::Utc.next_midnight(now),
        Period::Month => next_month(now),
    };
    next.as_micros()
}
