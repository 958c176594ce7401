//! The replicas of a ledger: who is there, what each holds, and what it may use when it is cut off.
//!
//! A replica is in touch as of the sending of the latest call whose answer it has. The ledger learns of that with the next
//! call, so its idea of it is never later than the replica's: it keeps the share a second before the replica uses it. As long
//! as it is not known which of two answers a replica has, both count.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::call::{LimitName, Terms};
use super::ring::Ring;

/// A replica that was not heard of for so long, in microseconds, is silent: its share is kept for it, and its requests are
/// passed over.
pub const SILENT_AFTER: u64 = 1_000_000;

/// For so long after it was last in touch, in microseconds, a replica can say who was there: nobody new is let in meanwhile
/// whom it does not know. A store that starts anew takes that long at most.
pub const NAMES_KEPT: u64 = 10 * SILENT_AFTER;

/// A replica that was not in touch for so long, in microseconds, surely knows that others may have come.
pub(super) const CUT_OFF_AFTER: u64 = NAMES_KEPT + SILENT_AFTER;

/// A replica that has left is remembered for so long, in microseconds, so that a late call of it does no harm.
pub(super) const LEFT_KEPT: u64 = 60_000_000;

/// A request that waits at a replica, with what it takes and holds by the name of the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) tier: u8,
    pub(super) tenant: u64,
    pub(super) cost: u64,
    pub(super) service: u64,
    pub(super) arrived: u64,
    /// Limit, what it takes, what it holds.
    pub(super) wants: Vec<(LimitName, u64, u64)>,
}

/// What a replica knows of the charges of a limit, at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// The sum of the charges that it knows: those of its last view, and its own since.
    pub(super) seen: u64,
    /// What had been refunded of the limit, in all, at that view.
    pub(super) mark: u64,
}

/// What a replica was told, which it relies on when it is cut off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Its share, in millionths.
    pub(super) share: u64,
    /// When it was told who is there.
    pub(super) at: u64,
    pub(super) sights: BTreeMap<LimitName, Sight>,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) sequence: u64,
    /// When it joined, and when it was last heard of.
    pub(super) born: u64,
    pub(super) beat: u64,
    /// When its last call was sent, and the latest of those whose answers it has for sure.
    pub(super) sent: u64,
    pub(super) contact: u64,
    pub(super) left: bool,
    /// How far its idea of the time was from the server's clock at its last call.
    pub(super) off: i64,
    /// For how long it uses its share when it is cut off.
    pub(super) share_life: u64,
    pub(super) lease: u64,
    /// What it was told by its last answer, and by the one before, which it has for sure.
    pub(super) told: Told,
    pub(super) before: Told,
    /// What its last call was granted, and whether it was made again: whoever repeats a call is shown nothing.
    pub(super) granted: BTreeMap<LimitName, u64>,
    pub(super) is_repeated: bool,
    pub(super) held: BTreeMap<LimitName, u64>,
    /// Its requests that were not let in, in its order.
    pub(super) heads: Vec<Head>,
    /// For when it was last told to call, since it called; 0: it was not.
    pub(super) woken: u64,
    /// What it was answered last.
    pub(super) answer: Vec<u64>,
}

impl Member {
    pub(super) fn new(now: u64) -> Self {
        Self {
            sequence: 0,
            born: now,
            beat: now,
            sent: now,
            contact: now,
            left: false,
            off: 0,
            share_life: 0,
            lease: 0,
            told: Told::default(),
            before: Told::default(),
            granted: BTreeMap::new(),
            is_repeated: false,
            held: BTreeMap::new(),
            heads: Vec::new(),
            woken: 0,
            answer: Vec::new(),
        }
    }

    /// Notes whether it has the last answer, or has given it up.
    pub(super) fn confirm(&mut self, has_answer: bool) {
        if has_answer {
            self.contact = self.sent;
            if self.is_repeated {
                self.before.share = self.told.share;
                self.before.at = self.told.at;
                for (name, granted) in &self.granted {
                    let told = self.told.sights.get(name).copied().unwrap_or_default();
                    let before = self.before.sights.entry(*name).or_insert(told);
                    before.seen = told.seen.max(before.seen + granted);
                }
            } else {
                self.before = self.told.clone();
            }
        } else {
            self.told = self.before.clone();
        }
        self.is_repeated = false;
        self.granted.clear();
    }

    /// Forgets what it held and knew of limits that it does not ask for any more.
    pub(super) fn forget_others(&mut self, limits: &[Terms]) {
        let is_kept = |name: &LimitName| limits.iter().any(|terms| terms.name == *name);
        self.held.retain(|name, _| is_kept(name));
        self.granted.retain(|name, _| is_kept(name));
        self.told.sights.retain(|name, _| is_kept(name));
        self.before.sights.retain(|name, _| is_kept(name));
    }

    /// Notes what it is told of a limit by the answer to its call.
    pub(super) fn tell(&mut self, name: LimitName, ring: &Ring, granted: u64, is_shown: bool) {
        let now = Sight {
            seen: ring.live,
            mark: ring.refunded,
        };
        let blank = Sight { seen: 0, ..now };
        let before = *self.before.sights.entry(name).or_insert(blank);
        self.granted.insert(name, granted);
        let told = if is_shown {
            now
        } else {
            Sight {
                seen: before.seen + granted,
                ..before
            }
        };
        self.told.sights.insert(name, told);
    }

    /// Returns whether it was heard of lately.
    pub(super) fn is_there(&self, now: u64) -> bool {
        !self.left && now.saturating_sub(self.beat) <= SILENT_AFTER
    }

    /// Returns the share that it may use at most, in millionths, when it is cut off.
    pub(super) fn claim(&self, now: u64) -> u64 {
        if self.left || now.saturating_sub(self.sent) > self.share_life + 2 * SILENT_AFTER {
            0
        } else {
            self.told.share.max(self.before.share)
        }
    }

    /// Returns what is kept of a limit for it, in millionths: sums are rounded once, so that they can be kept up call by call.
    ///
    /// While it is in touch that is its share of what was refunded since its last view: it may still count on that to expire.
    /// When it is silent it is its share of all charges that it knows, as long as it may go on, and what it has let in then
    /// still counts.
    pub(super) fn kept(&self, now: u64, name: LimitName, ring: &Ring) -> u128 {
        let share = u128::from(self.share_kept(now, ring));
        if share == 0 {
            return 0;
        }
        if self.is_in_touch(now) {
            // Whoever was told nothing of it counts on nothing.
            let sight = self.before.sights.get(&name);
            let refunded = sight.map_or(0, |sight| ring.refunded.saturating_sub(sight.mark));
            return u128::from(refunded) * share;
        }
        let told = self.told.sights.get(&name).copied().unwrap_or_default();
        let before = self.before.sights.get(&name).copied().unwrap_or_default();
        let granted = self.granted.get(&name).copied().unwrap_or(0);
        u128::from(told.seen.max(before.seen + granted)) * share
    }

    /// Returns the share of a limit that is kept for it.
    fn share_kept(&self, now: u64, ring: &Ring) -> u64 {
        // It may be in touch since its last call, though that is not known.
        let ends = self.sent + self.share_life + 2 * SILENT_AFTER;
        if self.left || now > ends + ring.life || ring.since > ends {
            return 0;
        }
        self.told.share.max(self.before.share)
    }

    /// Returns whether it was in touch lately, as far as is known.
    pub(super) fn is_in_touch(&self, now: u64) -> bool {
        now.saturating_sub(self.contact) <= SILENT_AFTER
    }

    /// Returns whether it does not know for sure yet what had been refunded of a limit when that was so much.
    pub(super) fn is_behind(&self, name: LimitName, refunded: u64) -> bool {
        let sight = self.before.sights.get(&name);
        sight.is_some_and(|sight| sight.mark < refunded)
    }

    /// Returns what it holds of a limit.
    pub(super) fn held(&self, now: u64, name: LimitName) -> u64 {
        if self.left || now.saturating_sub(self.beat) > self.lease {
            return 0;
        }
        self.held.get(&name).copied().unwrap_or(0)
    }

    /// Returns whether nothing of it matters any more, where charges live so long.
    pub(super) fn is_over(&self, now: u64, life: u64) -> bool {
        let silent = now.saturating_sub(self.beat);
        if self.left {
            silent > life.max(LEFT_KEPT)
        } else {
            silent > (self.share_life + life).max(self.lease) + 10 * SILENT_AFTER
        }
    }

    /// Returns whether charges of it may count that live so long.
    pub(super) fn is_named(&self, now: u64, life: u64) -> bool {
        let silent = now.saturating_sub(self.beat);
        silent
            <= life
                + if self.left {
                    0
                } else {
                    self.share_life + 2 * SILENT_AFTER
                }
    }
}

/// The whole quota, in the unit of shares.
pub(super) const SHARES: u64 = 1_000_000;

/// Returns a share of an amount, rounded up, by numbers that stay small.
pub(super) fn part(amount: u64, share: u64) -> u64 {
    (amount / SHARES) * share + (amount % SHARES * share).div_ceil(SHARES)
}
