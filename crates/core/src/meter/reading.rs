//! What an answer reveals about one limit: its amount, what is left of it, and what others use.

use alloc::boxed::Box;

use super::{AMOUNT_MAX, Meter, Taking};
use crate::limit::LimitSource;
use crate::signal::Reading;
use crate::units::Dimension;

/// Traffic of others that arrives between two observations is expected to be at most this many times its average.
const FOREIGN_BURST: u64 = 2;
/// At most this part of a limit is held back for others' traffic that has not been seen yet.
const FOREIGN_RESERVE: u64 = 5;

/// Others are expected to have used what they use in so long, in microseconds, however long ago anything was known: where
/// nobody is let in, nothing is found out.
const BLIND_MAX: u64 = 5 * 60_000_000;

/// What the provider's answer revealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Revealed {
    /// Use by others that was not known before.
    pub foreign: u64,
    /// Whether room was found that we had thought taken.
    pub room: bool,
    /// Whether the amount of the limit changed.
    pub amount: bool,
    /// How much the provider counts, where that is for a ledger to judge that others share.
    pub used: Option<u64>,
}

/// An answer's attempt and what is left after it, for a bucket.
struct Left {
    sent: u64,
    /// The latest moment at which the provider can have stamped it.
    latest: u64,
    /// What was charged for the attempt itself.
    own: u64,
    /// The least that may be left, where the whole limit is ours.
    least: Option<u64>,
    /// The most that may be left.
    most: u64,
}

impl Meter {
    /// Takes note of what a response says about this limit, for an attempt that we stamped at `sent` with `own` charged.
    ///
    /// The provider stamped it somewhere in `[sent, sent + margin]`. What is known for certain of its count at that
    /// moment, widened by that uncertainty, bounds what we must still allow for: more use than all our charges that may
    /// have been counted explain is somebody else's; and a bucket that surely holds more than ours is believed.
    ///
    /// Where less than the provider's limit is configured, the rest is meant for others: they are only held against us
    /// where less is left than our part.
    pub(crate) fn read(
        &mut self,
        now: u64,
        sent: u64,
        own: u64,
        reading: &Reading,
        told_by: LimitSource,
    ) -> Revealed {
        let mut revealed = Revealed::default();
        if self.dimension() == Dimension::Concurrency {
            return revealed;
        }
        let limit = reading.limit.map(|limit| limit.value().min(AMOUNT_MAX));
        if let Some(limit) = limit.filter(|limit| *limit > 0) {
            if sent < self.limit_sent {
                // A later request has told already: an answer that took its time may be about a limit of the past.
                if self.is_known() && limit != self.amount {
                    return revealed;
                }
            } else {
                self.limit_sent = sent;
            }
            let (amount, source) = match self.configured {
                Some(configured) if limit >= configured => (configured, LimitSource::Config),
                _ => (limit, told_by),
            };
            if amount != self.amount || source != self.source {
                self.set_amount(now, amount, source);
                revealed.amount = true;
            } else if source == told_by {
                self.confirm(now);
            }
        }
        let Some(remaining) = reading.remaining else {
            return revealed;
        };
        // What is left of an amount that nobody has told says nothing about what is used.
        if !self.is_known() {
            return revealed;
        }
        let rounding = reading.rounding.value() / 2;
        if self.keeps_journal() {
            let room = remaining.value().saturating_add(rounding).min(AMOUNT_MAX);
            revealed.used = limit
                .or(Some(self.amount))
                .map(|limit| limit.saturating_sub(room));
            return revealed;
        }
        // Charges that the provider may have counted: from one window and margin before its earliest stamp.
        let from = self.all.counted_from(sent);
        if !self.all.remembers(from) {
            // The answer took so long that what it tells cannot be compared with anything any more.
            return revealed;
        }
        revealed.room |= self.prove(sent);
        let latest = sent.saturating_add(self.margin).min(now);
        let room = remaining.value().saturating_add(rounding).min(AMOUNT_MAX);
        let generated = self.taking == Taking::AsGenerated;
        if self.bucket.is_some() {
            let least = remaining.value().saturating_sub(rounding).min(AMOUNT_MAX);
            // Nothing left is what an overdrawn bucket says too, however deep it is.
            let whole = limit.is_none_or(|limit| limit == self.amount) && least > 0;
            let left = Left {
                sent,
                latest,
                own: if generated { 0 } else { own },
                least: whole.then_some(least),
                most: room,
            };
            self.read_bucket(now, &left, &mut revealed);
        } else {
            // Output may be generated that we have not seen yet; it is expected.
            let known = if generated {
                self.all.charged_between(from, now).saturating_add(self.unseen())
            } else {
                self.all.charged_between(from, latest)
            };
            // What later requests have told of others already includes what this one tells.
            let told = self
                .foreign
                .as_ref()
                .filter(|_| !generated)
                .map_or(0, |ring| ring.charged_after(latest));
            let used = self.amount.saturating_sub(room);
            revealed.foreign = used.saturating_sub(known.saturating_add(told));
        }
        self.foreign_known = self.foreign_known.max(sent);
        let first_known = *self.first_known.get_or_insert(now);
        if revealed.foreign > 0 {
            self.charge_foreign(latest, revealed.foreign);
            // Use from before anything was known (by ourselves in an earlier life, perhaps) may be over.
            if sent > first_known {
                self.pace(now, now.saturating_add(self.window.saturating_mul(2)));
            }
        }
        self.invariants();
        revealed
    }

    fn read_bucket(&mut self, now: u64, left: &Left, revealed: &mut Revealed) {
        let unseen = self.unseen();
        let Some(bucket) = &mut self.bucket else { return };
        // Ours that the provider may not have counted yet, and ours that it surely has not.
        let maybe = self
            .all
            .charged_between(left.sent.saturating_sub(self.margin), now)
            .saturating_sub(left.own);
        let surely = self.all.charged_after(left.latest);
        let least = i128::from(left.least.unwrap_or(0));
        // The provider's bucket may have been full on the way: what flowed in then was lost, and ours came after it.
        let filled = (least + i128::from(bucket.inflow(now - left.latest))).min(i128::from(self.amount));
        let low = filled - i128::from(maybe);
        let high = i128::from(left.most) + i128::from(bucket.inflow(now.saturating_sub(left.sent))) + 1
            - i128::from(surely);
        let level = i128::from(bucket.level());
        // What is expected may have been generated already, and left the provider's bucket.
        let explained = high + i128::from(unseen);
        if level > explained {
            revealed.foreign = u64::try_from(level - explained).unwrap_or(0);
            let lowest = left.least.map_or(high, |_| low);
            bucket.set_level(lowest.max(-i128::from(self.amount)).min(level));
        } else if left.least.is_some() && level < low {
            // It may have been full since, and then what flowed in meanwhile was lost: also while ours were on their way.
            let reach = self
                .all
                .charges_since(left.sent.saturating_sub(self.margin))
                .map(|charges| bucket.reach(charges));
            let believed = low.min(reach.unwrap_or(level));
            if believed > level {
                bucket.set_level(believed);
                revealed.room = true;
            }
        }
    }

    fn charge_foreign(&mut self, stamp: u64, amount: u64) {
        let amount = amount.min(AMOUNT_MAX);
        if self.foreign.is_none() {
            let mut ring = self.all.clone();
            ring.clear();
            self.foreign = Some(Box::new(ring));
        }
        if let Some(foreign) = &mut self.foreign {
            foreign.charge_at(stamp, amount);
        }
        self.all.charge_at(stamp, amount);
        self.note_charge(stamp, amount);
    }

    /// Returns what others may have used since it was last known, judging by what they used before.
    pub(super) fn unseen_foreign(&self, now: u64) -> u64 {
        let Some(foreign) = &self.foreign else { return 0 };
        let live = match self.first_known {
            Some(first) if foreign.expiry_of(first) > now => foreign.charged_after(first),
            _ => foreign.live(),
        };
        if live == 0 {
            return 0;
        }
        // In a quiet night nobody asks: whoever comes first in the morning finds out.
        let blind = now.saturating_sub(self.foreign_known).min(BLIND_MAX);
        let blind = blind.saturating_add(self.margin);
        let expected = u128::from(live) * u128::from(blind) / u128::from(self.all.life());
        let expected = u64::try_from(expected)
            .unwrap_or(u64::MAX)
            .saturating_mul(FOREIGN_BURST);
        expected.min(self.amount / FOREIGN_RESERVE)
    }
}
