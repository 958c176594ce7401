//! What a ledger does that does not know what is in use: it lets nobody in until it does.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::Ledger;
use super::call::{Call, LimitName, Seed};
use super::member::{SHARES, SILENT_AFTER, part};
use super::ring::{Ring, SLOT_BUCKETS};
use crate::units::Dimension;

/// It learns for at least so long, in microseconds, so that everybody who knows something can say so.
const LEARNING_MIN: u64 = 1_000_000;

/// Windows longer than this, in microseconds, are not waited for: a day's use is only known from those who saw it.
pub(crate) const WINDOW_MAX: u64 = 3_600_000_000;

/// One request is let through to see what the provider says, and another if nothing came of it for so long, in
/// microseconds.
const TRIAL_LIFE: u64 = 10_000_000;

/// A ledger that is learning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Learning {
    pub(super) began: u64,
    pub(super) until: u64,
    /// Whether nobody has come who knows of an earlier ledger.
    pub(super) is_fresh: bool,
    /// Replicas that have said what they know, and those that somebody knew of.
    pub(super) seeded: BTreeSet<u64>,
    pub(super) named: BTreeSet<u64>,
    /// The most that anybody saw in a slot.
    pub(super) seen: BTreeMap<(LimitName, u64), u64>,
    /// Dimensions of which the provider has told what is in use.
    pub(super) proven: BTreeSet<usize>,
    /// When somebody was last let through to see what the provider says.
    pub(super) tried: Option<u64>,
}

/// Replicas that somebody knew of before charges were lost, and that have not said what they know: they may be cut off, and
/// go on with the shares that they had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    /// Which; 0 stands for those whom nobody knew for sure.
    pub(super) names: BTreeSet<u64>,
    /// The shares that they have together, in millionths, and until when they may use them.
    pub(super) shares: u64,
    pub(super) until: u64,
}

impl Missing {
    /// Returns what is kept of a limit for them.
    pub(super) fn kept(&self, now: u64, ring: &Ring) -> u64 {
        if now > self.until + ring.life || ring.since > self.until {
            0
        } else {
            part(ring.limit(), self.shares)
        }
    }
}

impl Learning {
    /// Returns whether one request may be let through to see what the provider says.
    pub(super) fn lets_try(&self, now: u64) -> bool {
        self.is_fresh && self.tried.is_none_or(|at| now.saturating_sub(at) >= TRIAL_LIFE)
    }
}

impl Ledger {
    /// Begins anew: nothing is known of what is in use.
    ///
    /// Time goes on as the caller knows it: nobody else is there who could say that the server's clock has jumped.
    pub(super) fn begin(&mut self, now: u64, server_time: u64, call: &Call, is_fresh: bool) {
        let lives = call
            .limits
            .iter()
            .filter(|terms| terms.name.window() <= WINDOW_MAX);
        let life = lives.map(|terms| terms.life).max().unwrap_or(0);
        let next = call.next_epoch.max(1);
        *self = Self {
            epoch: if next == self.epoch || next == call.epoch {
                next + 1
            } else {
                next
            },
            server: call.server,
            last: now,
            skew: i64::try_from(now).unwrap_or(i64::MAX) - i64::try_from(server_time).unwrap_or(i64::MAX),
            ..Self::default()
        };
        if !(is_fresh && call.trusts_empty) {
            self.learning = Some(Learning {
                began: now,
                until: now + life,
                is_fresh,
                seeded: BTreeSet::new(),
                named: BTreeSet::new(),
                seen: BTreeMap::new(),
                proven: BTreeSet::new(),
                tried: None,
            });
        }
    }

    /// Takes note of what a replica knows of lost charges.
    pub(super) fn sow(&mut self, now: u64, call: &Call, seed: &Seed) {
        for (limit, stamp, amount) in &seed.own {
            if let Some(ring) = call
                .limits
                .get(*limit)
                .and_then(|terms| self.rings.get_mut(&terms.name))
            {
                ring.charge(now, *stamp, *amount);
            }
        }
        if let Some(missing) = &mut self.missing {
            missing.names.remove(&call.replica);
            if missing.names.is_empty() {
                self.missing = None;
            }
        }
        let Some(learning) = &mut self.learning else {
            return;
        };
        learning.is_fresh = false;
        learning.seeded.insert(call.replica);
        learning.named.extend(seed.names.iter().copied());
        for (limit, slot, amount) in &seed.seen {
            if let Some(terms) = call.limits.get(*limit) {
                let seen = learning.seen.entry((terms.name, *slot)).or_default();
                *seen = (*seen).max(*amount);
            }
        }
    }

    /// Ends learning if enough is known.
    pub(super) fn learn(&mut self, now: u64, call: &Call) {
        let Some(learning) = &self.learning else { return };
        let all_said = !learning.is_fresh
            && !learning.named.is_empty()
            && learning.named.is_subset(&learning.seeded)
            && now >= learning.began + LEARNING_MIN;
        let all_proven = learning.is_fresh
            && !learning.proven.is_empty()
            && call.limits.iter().all(|terms| {
                let dimension = terms.name.dimension();
                terms.name.window() > WINDOW_MAX
                    || dimension == Some(Dimension::Concurrency)
                    || dimension.is_some_and(|dimension| learning.proven.contains(&dimension.index()))
            });
        if !all_said && !all_proven && now < learning.until {
            return;
        }
        let Some(learning) = self.learning.take() else {
            return;
        };
        if !learning.is_fresh && !all_said {
            let mut names: BTreeSet<u64> = learning.named.difference(&learning.seeded).copied().collect();
            if names.is_empty() {
                names.insert(0);
            }
            self.missing = Some(Missing {
                names,
                shares: call.shares.min(SHARES),
                until: learning.began + call.share_life + 2 * SILENT_AFTER,
            });
        }
        // What anybody saw and nobody has owned up to was charged by somebody who is gone, or who does not share the ledger.
        // All sums come first, for one slot's charge may fall into another.
        let missing: Vec<(LimitName, u64, u64)> = learning
            .seen
            .into_iter()
            .map(|((name, slot), seen)| {
                let buckets = slot.saturating_mul(SLOT_BUCKETS)..(slot + 1).saturating_mul(SLOT_BUCKETS);
                let ring = self.rings.get(&name);
                let owned = ring.map_or(0, |ring| {
                    ring.buckets.range(buckets).map(|(_, charged)| charged).sum()
                });
                (name, slot, seen.saturating_sub(owned))
            })
            .collect();
        for (name, slot, amount) in missing {
            if let Some(ring) = self.rings.get_mut(&name) {
                // By a clock that was ahead it may have been seen at a moment that is yet to come. It counts from now on then.
                let last = (slot + 1).saturating_mul(SLOT_BUCKETS) - 1;
                ring.charge(now, last.saturating_mul(ring.width), amount);
            }
        }
    }
}
