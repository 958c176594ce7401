//! Use that is presumed after a crash: everything that may have been sent in a time of which nobody knows.
//!
//! It is charged like any other, so it expires like any other. Until then one request at a time may ask: it goes if there
//! would be room without it. What an answer tells is left then holds instead. Where an answer tells nothing, the next one
//! will not either, and what is presumed of a short window is waited for.
//!
//! ```text
//!              known          nobody knows           │ now: remembered charges, and everything else presumed,
//!  ─────┬─────────────────┬──────────────────────────┤      as of the end of the gap
//!       charges           since                 until
//! ```

use alloc::boxed::Box;

use super::{AMOUNT_MAX, Meter};
use crate::units::Dimension;

/// Windows that are no longer than this, in microseconds, are waited for where answers do not tell what is left of them;
/// through a longer one requests go on one at a time.
const WAITED_FOR: u64 = 5 * 60_000_000;

/// Use that is presumed.
#[derive(Debug, Clone)]
pub(super) struct Presumed {
    /// As of when it is charged.
    pub(super) stamp: u64,
    /// How much is charged.
    pub(super) amount: u64,
    /// How much of it is missing from the bucket, where one is kept.
    pub(super) missing: u64,
    /// Whether somebody may ask now.
    is_open: bool,
    /// Whether nobody needs to ask any more: the answers do not tell.
    is_silent: bool,
}

impl Meter {
    /// Takes the limit for used up as of `until`, but for no more than `most` beside what is known. Returns when that will
    /// have expired; `None` if it has already, or if nothing is left to presume.
    pub(crate) fn presume(&mut self, now: u64, until: u64, most: u64) -> Option<u64> {
        let before = self.withdraw();
        let unsettled = core::mem::take(&mut self.unsettled);
        // What was told before says nothing of what came after it.
        self.first_known = None;
        if self.dimension() == Dimension::Concurrency || !self.is_known() || self.is_passing() {
            return None;
        }
        let stamp = until.min(now);
        if !self.all.lives(stamp, now) {
            return None;
        }
        let most = most.saturating_add(before);
        let amount = if let Some(bucket) = &self.bucket {
            // It was empty then, and has filled up since.
            let inflow = i64::try_from(bucket.inflow(now - stamp)).unwrap_or(i64::MAX);
            u64::try_from(bucket.level().saturating_sub(inflow)).unwrap_or(0)
        } else {
            // What was under way may have been given back, and others let through instead.
            let known = self.all.charged_after(self.all.counted_from(stamp));
            self.amount.saturating_sub(known.saturating_sub(unsettled))
        };
        // Those who asked went beside what was presumed before, so that may be in use all the same.
        let amount = amount.min(most).max(before);
        if amount == 0 {
            return None;
        }
        self.charge_presumed(now, stamp, amount);
        Some(self.all.forgets_at(stamp))
    }

    /// Charges what is presumed, as of its stamp.
    pub(super) fn charge_presumed(&mut self, now: u64, stamp: u64, amount: u64) {
        let (stamp, amount) = (stamp.min(now), amount.min(AMOUNT_MAX));
        if !self.all.lives(stamp, now) {
            return;
        }
        let mut missing = 0;
        if let Some(bucket) = self.bucket.as_mut().or(self.shadow.as_mut()) {
            // Some of it has flowed in again.
            missing = amount.min(self.amount.saturating_sub(bucket.inflow(now - stamp)));
            bucket.take(missing);
        }
        self.all.charge_at(stamp, amount);
        self.outlook_stale = true;
        self.presumed = Some(Box::new(Presumed {
            stamp,
            amount,
            missing,
            is_open: false,
            is_silent: false,
        }));
    }

    /// Takes back what is presumed. Returns how much it was.
    fn withdraw(&mut self) -> u64 {
        let Some(presumed) = self.presumed.take() else {
            return 0;
        };
        self.all.refund(presumed.stamp, presumed.amount);
        if let Some(bucket) = self.bucket.as_mut().or(self.shadow.as_mut()) {
            bucket.give(presumed.missing);
        }
        self.outlook_stale = true;
        presumed.amount
    }

    /// An answer tells what is left: nothing is presumed any more. Returns whether anything was.
    pub(super) fn prove(&mut self, sent: u64) -> bool {
        let is_later = |presumed: &Presumed| sent >= presumed.stamp;
        self.presumed.as_deref().is_some_and(is_later) && self.withdraw() > 0
    }

    /// Forgets about presumed use that has expired.
    pub(super) fn outlive_presumed(&mut self, now: u64) {
        if let Some(presumed) = &self.presumed
            && !self.all.lives(presumed.stamp, now)
        {
            self.presumed = None;
        }
    }

    /// Returns whether neither anything is presumed nor any answer has told what is left.
    pub(crate) const fn is_unproven(&self) -> bool {
        self.presumed.is_none() && self.first_known.is_none()
    }

    /// Returns whether an answer may yet tell that there is room for so much now.
    pub(crate) fn awaits_proof(&self, taken: u64) -> bool {
        let Some(presumed) = self.presumed.as_deref().filter(|presumed| !presumed.is_silent) else {
            return false;
        };
        match &self.bucket {
            Some(bucket) => i128::from(bucket.level()) + i128::from(presumed.missing) >= i128::from(taken),
            None => self.known().saturating_add(taken) <= self.amount,
        }
    }

    /// Returns what is known to be charged.
    fn known(&self) -> u64 {
        let presumed = self.presumed.as_ref().map_or(0, |presumed| presumed.amount);
        self.all.live().saturating_sub(presumed)
    }

    /// Returns what is presumed to be in use.
    pub(super) fn presumed(&self) -> u64 {
        self.presumed.as_ref().map_or(0, |presumed| presumed.amount)
    }

    /// Says whether somebody may ask now.
    pub(crate) fn let_ask(&mut self, is_free: bool) {
        if let Some(presumed) = &mut self.presumed {
            presumed.is_open = is_free && !presumed.is_silent;
        }
    }

    /// A request succeeded whose answer did not tell what is left.
    pub(crate) fn asked_in_vain(&mut self) {
        if self.window <= WAITED_FOR
            && let Some(presumed) = &mut self.presumed
        {
            presumed.is_silent = true;
        }
    }

    /// Returns whether a request may go to ask: it is the first, and there is room if what is presumed is not so.
    pub(super) fn may_ask(&self, ahead: u64, weight: u64) -> bool {
        let Some(presumed) = self.presumed.as_deref().filter(|presumed| presumed.is_open) else {
            return false;
        };
        if ahead > 0 {
            return false;
        }
        match (&self.bucket, &self.outlook) {
            (Some(bucket), _) => {
                let level = i128::from(bucket.level()) + i128::from(presumed.missing);
                level >= i128::from(weight.min(bucket.capacity()).max(1))
            }
            (None, Some(_)) => self.known() < self.amount,
            (None, None) => self.known().saturating_add(self.held).saturating_add(weight) <= self.amount,
        }
    }
}
