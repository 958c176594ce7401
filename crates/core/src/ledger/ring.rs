//! What was charged of one limit, by the time at which it was.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::call::Terms;

/// Buckets of a slot in the views that replicas are given.
pub(super) const SLOT_BUCKETS: u64 = 10;

/// One limit of a ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ring {
    pub(super) life: u64,
    /// When a life so long was last asked for.
    pub(super) life_asked: u64,
    pub(super) width: u64,
    /// The amount that the replicas ask for, and the one that the provider told (0: none) with its source.
    pub(super) amount: u64,
    pub(super) told: u64,
    pub(super) source: u64,
    pub(super) since: u64,
    pub(super) ends: u64,
    /// The sum of `buckets`.
    pub(super) live: u64,
    /// What was ever refunded.
    pub(super) refunded: u64,
    /// As much of it as everybody was asked to look at.
    pub(super) round: u64,
    pub(super) buckets: BTreeMap<u64, u64>,
}

/// A longer life is kept for so long after it was last asked for, in microseconds: ten minutes.
const LIFE_KEPT: u64 = 600_000_000;

impl Ring {
    /// Adopts the terms of a caller.
    pub(super) fn adopt(&mut self, now: u64, terms: &Terms) {
        if terms.life >= self.life || now.saturating_sub(self.life_asked) >= LIFE_KEPT {
            self.life = terms.life;
            self.life_asked = now;
        }
        self.width = terms.width.max(1);
        self.amount = terms.amount;
        // Whoever still lives in yesterday does not say when today ends.
        if terms.since >= self.since {
            (self.since, self.ends) = (terms.since, terms.ends);
        }
    }

    /// Returns the amount that holds.
    pub(super) fn limit(&self) -> u64 {
        if self.told == 0 {
            self.amount
        } else {
            self.amount.min(self.told)
        }
    }

    /// Returns the first bucket that counts at a moment.
    fn first_live(&self, now: u64) -> u64 {
        (now.saturating_sub(self.life) / self.width).max(self.since / self.width)
    }

    /// Lets time pass.
    pub(super) fn advance(&mut self, now: u64) {
        let first = self.first_live(now);
        while let Some(entry) = self.buckets.first_entry()
            && *entry.key() < first
        {
            self.live -= entry.remove();
        }
    }

    /// Charges an amount at a moment, if that still counts.
    pub(super) fn charge(&mut self, now: u64, stamp: u64, amount: u64) {
        let bucket = stamp.min(now) / self.width;
        if amount == 0 || bucket < self.first_live(now) {
            return;
        }
        *self.buckets.entry(bucket).or_default() += amount;
        self.live += amount;
    }

    /// Takes back up to an amount of what was charged at a moment.
    pub(super) fn refund(&mut self, stamp: u64, amount: u64) {
        let bucket = stamp / self.width;
        if let Some(charged) = self.buckets.get_mut(&bucket) {
            let given = amount.min(*charged);
            *charged -= given;
            self.live -= given;
            self.refunded += given;
            if *charged == 0 {
                self.buckets.remove(&bucket);
            }
        }
    }

    /// Returns when so much will have expired; 0: it never will.
    pub(super) fn freed_at(&self, amount: u64) -> u64 {
        let mut freed = 0;
        for (bucket, charged) in &self.buckets {
            freed += charged;
            if freed >= amount {
                return self.expiry(*bucket);
            }
        }
        0
    }

    /// Returns what will have expired by a moment.
    pub(super) fn freed_by(&self, moment: u64) -> u64 {
        let expired = self
            .buckets
            .iter()
            .take_while(|(bucket, _)| self.expiry(**bucket) <= moment);
        expired.map(|(_, charged)| charged).sum()
    }

    fn expiry(&self, bucket: u64) -> u64 {
        let expiry = (bucket + 1) * self.width + self.life;
        if self.ends > 0 {
            expiry.min(self.ends)
        } else {
            expiry
        }
    }

    /// Returns the charges that count, in slots of ten buckets.
    pub(super) fn slots(&self) -> Vec<(u64, u64)> {
        let mut slots: Vec<(u64, u64)> = Vec::new();
        for (bucket, charged) in &self.buckets {
            let slot = bucket / SLOT_BUCKETS;
            match slots.last_mut() {
                Some((last, sum)) if *last == slot => *sum += charged,
                _ => slots.push((slot, *charged)),
            }
        }
        slots
    }
}
