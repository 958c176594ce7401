//! A limit that is shared with other replicas: what they have to be told, and what they tell.

use alloc::vec::Vec;

use super::Meter;
use crate::ledger::{LimitName, Terms};
use crate::projection::{NODES, Need};
use crate::units::Dimension;

/// A charge, or something given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// When; 0: now.
    pub(crate) stamp: u64,
    pub(crate) amount: u64,
    pub(crate) is_refund: bool,
}

impl Meter {
    /// Keeps a journal from now on, and a window: the ledger knows no buckets, and a window is safe next to them.
    pub(crate) fn keep_journal(&mut self) {
        if self.journal.is_none() {
            self.journal = Some(Vec::new());
            if self.bucket.is_some() {
                self.keep_rolling();
            }
            self.foreign = None;
        }
    }

    pub(crate) const fn keeps_journal(&self) -> bool {
        self.journal.is_some()
    }

    pub(super) fn note(&mut self, stamp: u64, amount: u64, is_refund: bool) {
        if let Some(journal) = &mut self.journal
            && amount > 0
        {
            journal.push(Change {
                stamp,
                amount,
                is_refund,
            });
        }
    }

    /// Returns what has changed since it was last asked.
    pub(crate) fn changes(&mut self) -> impl Iterator<Item = Change> {
        self.journal
            .as_mut()
            .into_iter()
            .flat_map(|journal| journal.drain(..))
    }

    /// Returns its name among those of its group.
    pub(crate) fn ledger_name(&self) -> LimitName {
        let window = if self.dimension() == Dimension::Concurrency {
            0
        } else {
            self.window
        };
        LimitName::of(self.dimension(), window)
    }

    /// Returns the length of a bucket of its charges, in microseconds.
    pub(crate) const fn width(&self) -> u64 {
        self.all.width()
    }

    /// Returns its terms as the ledger keeps them, where permits may be so late and the ledger's clock is ahead by `offset`.
    pub(crate) fn terms(&self, late: u64, offset: i64) -> Terms {
        let (since, ends) = self.all.day_bounds().unwrap_or((0, 0));
        let there = |moment: u64| {
            if moment == 0 {
                0
            } else {
                moment.saturating_add_signed(offset)
            }
        };
        Terms {
            name: self.ledger_name(),
            life: if self.dimension() == Dimension::Concurrency {
                0
            } else {
                self.window.saturating_add(self.margin.max(late))
            },
            width: self.width(),
            amount: self.amount,
            since: there(since),
            ends: there(ends),
            held: self.held_surely(),
        }
    }

    /// Returns what is held, with what output is expected and may turn out to be more.
    fn held_surely(&self) -> u64 {
        match &self.outlook {
            None => self.held,
            Some(outlook) => {
                let (mean, variance) = outlook.until(NODES - 1);
                mean.saturating_add(
                    u64::try_from(variance.isqrt())
                        .unwrap_or(u64::MAX)
                        .saturating_mul(4),
                )
            }
        }
    }

    /// Returns what a request holds until it ends, and what it takes when it is let in, of this charge.
    pub(crate) fn claim(&self, charged: u64, need: &Need) -> (u64, u64) {
        match (self.dimension(), self.taking) {
            (Dimension::Concurrency, _) => (1, 0),
            (_, super::Taking::AtOnce) => (0, charged),
            (_, super::Taking::AsGenerated) => {
                let more = need.variance.isqrt().saturating_mul(4);
                (need.mean.saturating_add(more).min(need.most).min(self.amount), 0)
            }
        }
    }

    /// Replaces all charges by those that the ledger tells of: when, and how much.
    pub(crate) fn mirror(&mut self, now: u64, charges: impl Iterator<Item = (u64, u64)>) {
        if self.dimension() == Dimension::Concurrency {
            return;
        }
        self.foreign = None;
        self.all.advance(now);
        self.all.clear();
        for (stamp, amount) in charges {
            if self.all.remembers(stamp) {
                self.all.charge_at(stamp, amount);
            }
        }
        self.outlook_stale = true;
    }

    /// Takes note of what others hold of it, elsewhere.
    pub(crate) const fn held_elsewhere(&mut self, amount: u64) {
        self.elsewhere = amount;
    }

    /// From now on uses only a share of what expires, of everybody's charges: what others charge meanwhile is not known.
    pub(crate) fn retreat(&mut self, now: u64, share: u64, whole: u64) {
        self.elsewhere = 0;
        if self.dimension() == Dimension::Concurrency {
            self.ceiling = Some(self.held.min(self.amount));
            return;
        }
        self.all.advance(now);
        let live = self.all.live().min(self.amount);
        let part = u128::from(live) * u128::from(share) / u128::from(whole.max(1));
        self.ceiling = Some(u64::try_from(part).unwrap_or(0));
        self.all.scale(share, whole);
        self.outlook_stale = true;
    }

    /// The ledger is there again.
    pub(crate) const fn advance_again(&mut self) {
        self.ceiling = None;
    }

    /// Returns the most that may be in use now.
    pub(super) fn ceiling(&self) -> u64 {
        self.ceiling
            .map_or(self.amount, |ceiling| ceiling.min(self.amount))
    }
}
