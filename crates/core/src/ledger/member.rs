//! The replicas of a ledger: who is there, what each holds, and what it may use when it is cut off.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::call::LimitName;

/// A replica that was not heard of for so long, in microseconds, is silent: its share is kept for it, and its requests are
/// passed over.
pub const SILENT_AFTER: u64 = 1_000_000;

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

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) sequence: u64,
    /// When it joined, and when it was last heard of.
    pub(super) born: u64,
    pub(super) beat: u64,
    pub(super) left: bool,
    /// Its share, in millionths, and for how long it uses it when it is cut off.
    pub(super) share: u64,
    pub(super) share_life: u64,
    pub(super) lease: u64,
    /// What was in use of each limit when it was last told.
    pub(super) seen: BTreeMap<LimitName, u64>,
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
            left: false,
            share: 0,
            share_life: 0,
            lease: 0,
            seen: BTreeMap::new(),
            held: BTreeMap::new(),
            heads: Vec::new(),
            woken: 0,
            answer: Vec::new(),
        }
    }

    /// Returns whether it was heard of lately.
    pub(super) fn is_there(&self, now: u64) -> bool {
        !self.left && now.saturating_sub(self.beat) <= SILENT_AFTER
    }

    /// Returns what is kept of a limit for it: its share of what it last saw in use, while it is silent and may go on.
    pub(super) fn kept(&self, now: u64, name: LimitName) -> u64 {
        if self.left || self.is_there(now) {
            return 0;
        }
        let seen = self.seen.get(&name).copied().unwrap_or(0);
        // In two parts: the product may have more than 64 bits.
        seen / SHARES * self.share + (seen % SHARES * self.share).div_ceil(SHARES)
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
            silent > LEFT_KEPT
        } else {
            silent > (self.share_life + life).max(self.lease) + SILENT_AFTER
        }
    }
}

/// The whole quota, in the unit of shares.
pub(super) const SHARES: u64 = 1_000_000;
