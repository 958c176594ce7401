//! Whether there is room for a request, and when there will be.

use super::{Earliest, Meter, PACED_MAX};
use crate::projection::Need;
use crate::units::Dimension;
use crate::window::Bucket;

impl Meter {
    /// Returns whether `weight` can be taken now, by a request with this need of output.
    pub(crate) fn fits(&self, now: u64, weight: u64, need: &Need) -> bool {
        let is_plain = self.bucket.is_none()
            && self.outlook.is_none()
            && self.lesson.is_none()
            && self.pacer.is_none()
            && self.presumed.is_none()
            && self.foreign.is_none();
        if is_plain && self.is_known() && self.dimension() != Dimension::Concurrency {
            // The usual case, without looking for the time at which it would.
            let held = self.held.saturating_add(self.elsewhere);
            let committed = self.all.live().saturating_add(held).saturating_add(weight);
            if committed <= self.ceiling() || weight == 0 {
                return true;
            }
            if self.all.live() > 0 && weight <= self.ceiling() {
                return false;
            }
        }
        match self.earliest(now, 0, weight, need) {
            Earliest::At(at) => at <= now,
            Earliest::Event | Earliest::Never => false,
        }
    }

    /// Returns when `weight` can be taken, after `ahead` has been taken by those before it.
    pub(crate) fn earliest(&self, now: u64, ahead: u64, weight: u64, need: &Need) -> Earliest {
        // An amount that nobody has told holds nobody up, whatever a client claims to need.
        if !self.is_known() {
            return Earliest::At(now);
        }
        let weight = match &self.lesson {
            // A learned amount is no certain one: whoever needs more goes when nothing else is in use.
            Some(lesson) => match lesson.reached_at(self.amount, weight) {
                Some(at) => return Earliest::At(at.max(now)),
                None => weight.min(self.amount),
            },
            None if weight > self.amount && self.is_certain(now) => return Earliest::Never,
            None => weight.min(self.amount),
        };
        if weight == 0 {
            return Earliest::At(now);
        }
        if self.dimension() == Dimension::Concurrency {
            let free = self
                .ceiling()
                .saturating_sub(self.held.saturating_add(self.elsewhere));
            return if ahead.saturating_add(weight) <= free {
                Earliest::At(now)
            } else {
                Earliest::Event
            };
        }
        if self.may_ask(ahead, weight) {
            return Earliest::At(now);
        }
        let at = match (&self.outlook, &self.bucket) {
            (Some(outlook), _) => self.projected_earliest(now, outlook, ahead, need),
            (None, Some(bucket)) => self.bucket_earliest(now, bucket, ahead, weight),
            (None, None) => {
                let total = ahead.saturating_add(weight);
                self.rolling_earliest(now, total.saturating_add(self.unseen_foreign(now)))
            }
        };
        let at = match (at, &self.lesson) {
            (Earliest::At(at), Some(lesson)) => Earliest::At(lesson.sooner(now, at)),
            (at, _) => at,
        };
        match (at, &self.pacer) {
            (Earliest::At(at), Some(pacer)) => {
                let burst = weight.min(pacer.capacity()).saturating_add(ahead);
                let paced = pacer.ready_at(burst).min(self.paced_until);
                Earliest::At(at.max(paced).max(now))
            }
            (at, _) => at,
        }
    }

    fn rolling_earliest(&self, now: u64, total: u64) -> Earliest {
        let live = self.all.live();
        let held = self.held.saturating_add(self.elsewhere);
        let amount = self.ceiling();
        let committed = live.saturating_add(held).saturating_add(total);
        // What others might use is only held back while something else is in use, so that it can never block for good.
        let over = committed.saturating_sub(amount);
        if over == 0 || (live == 0 && held == 0 && total <= amount.saturating_add(self.unseen_foreign(now))) {
            return Earliest::At(now);
        }
        // Use above the amount, from before it was lowered, expires without anybody being admitted in its place. What is
        // admitted from then on frees itself one life later, so freed amounts repeat with that period.
        let excess = live.saturating_sub(amount);
        let periods = over.saturating_sub(excess).saturating_sub(1) / amount.max(1);
        let rest = over - periods * amount;
        let wait = periods.saturating_mul(self.all.life());
        match self.all.freed_at(rest) {
            Some(at) => Earliest::At(at.saturating_add(wait)),
            None if held > 0 && live.saturating_add(held) >= rest => Earliest::Event,
            None => Earliest::At(self.all.expiry_of(now).saturating_add(wait)),
        }
    }

    fn bucket_earliest(&self, now: u64, bucket: &Bucket, ahead: u64, weight: u64) -> Earliest {
        let capacity = bucket.capacity();
        if self.held > 0 && weight.saturating_add(self.held) > capacity {
            // However full it is, what is held is not there for others.
            return Earliest::Event;
        }
        if weight <= capacity {
            let need = weight.saturating_add(ahead).saturating_add(self.held);
            // Never more than a full bucket is waited for: a reserve for others must not block for good.
            let reserved = need
                .saturating_add(self.unseen_foreign(now))
                .min(need.max(capacity));
            return Earliest::At(bucket.ready_at(reserved).max(now));
        }
        // Larger than our capacity, though not than the provider's: its bucket is surely full one margin after ours.
        let refilled = if ahead == 0 {
            bucket.full_at()
        } else {
            bucket.ready_at(capacity.saturating_add(ahead))
        };
        Earliest::At(refilled.saturating_add(self.margin).max(now))
    }

    /// Returns whether there is room for anything at all, as far as is easily seen.
    pub(crate) fn has_room(&self) -> bool {
        if !self.is_known() || self.outlook.is_some() || self.lesson.is_some() || self.presumed.is_some() {
            return true;
        }
        match (&self.bucket, self.dimension()) {
            (_, Dimension::Concurrency) => self.held.saturating_add(self.elsewhere) < self.ceiling(),
            (Some(bucket), _) => bucket.level() > 0,
            (None, _) => {
                self.all
                    .live()
                    .saturating_add(self.held)
                    .saturating_add(self.elsewhere)
                    < self.ceiling()
            }
        }
    }

    /// Returns the part of the limit that `weight` is, of `whole`; `None` where it is no limit by which shares are
    /// measured.
    pub(crate) fn part(&self, weight: u64, whole: u64) -> Option<u64> {
        let measures =
            self.is_known() && self.dimension() != Dimension::Concurrency && self.window <= PACED_MAX;
        measures.then(|| {
            let inverse = (1_u64 << 62) / self.amount;
            let part = ((u128::from(weight) * u128::from(inverse)) >> 32) * u128::from(whole);
            u64::try_from(part >> 30)
                .unwrap_or(u64::MAX)
                .min(whole.saturating_mul(4))
        })
    }

    /// Returns so much of the amount as `part` is of `whole`, where shares are measured by it.
    pub(crate) fn part_of_amount(&self, part: u64, whole: u64) -> u64 {
        if self.part(1, whole).is_none() {
            return 0;
        }
        let amount = u128::from(self.amount) * u128::from(part) / u128::from(whole.max(1));
        u64::try_from(amount).unwrap_or(u64::MAX)
    }
}
