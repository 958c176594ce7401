//! The rolling window: everything charged in the last `window + margin`, in buckets of time.
//!
//! A charge made at `s` lives until the end of its bucket plus `window + margin`. Rounding only ever lengthens a life,
//! so the window errs on the safe side, by at most one bucket (1/600 of the window: 100 ms of a minute).
//!
//! A day that begins at midnight is the same ring; only which of its buckets are live differs.
//!
//! ```text
//!           first (oldest live)                      head (now)
//!  ┌──────┬──────┬──────┬──────┬──────┬──────┬──────┬──────┐
//!  │ kept │ live │ live │ live │ live │ live │ live │ live │      live = sum of the live ones
//!  └──────┴──────┴──────┴──────┴──────┴──────┴──────┴──────┘
//!  kept a while longer, for the case that the margin grows
//! ```

use alloc::boxed::Box;
use alloc::vec;

use crate::limit::Zone;
use crate::time::Timestamp;

/// Buckets in one window.
const BUCKETS: u64 = 600;

/// A bucket is never narrower than this many microseconds.
const WIDTH_MIN: u64 = 1_000;

/// A margin longer than this many windows is cut to it, which bounds the memory of a window.
const MARGIN_WINDOWS_MAX: u64 = 40;

/// No window is shorter than a bucket.
pub(crate) const WINDOW_MIN: u64 = WIDTH_MIN;

/// No window is longer than ten years.
pub(crate) const WINDOW_MAX: u64 = 315_360_000_000_000;

/// How far the provider's midnight may be from ours, in microseconds, beside the margin.
const MIDNIGHT_SLACK: u64 = 2_000_000;

/// A window that begins at midnight instead of moving along.
#[derive(Debug, Clone)]
struct Day {
    zone: Zone,
    /// The earliest stamp that counts in the day that is counted, before margin and slack.
    began: u64,
    /// When the next day begins to be counted instead.
    ends: u64,
}

impl Day {
    fn at(zone: Zone, now: u64) -> Self {
        let midnight = zone.midnight_before(Timestamp::from_micros(now.saturating_sub(MIDNIGHT_SLACK)));
        Self {
            zone,
            began: midnight.as_micros(),
            ends: zone
                .next_midnight(midnight)
                .as_micros()
                .saturating_add(MIDNIGHT_SLACK),
        }
    }
}

/// Charges of the last `window + margin`, or of the day, all times in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Rolling {
    window: u64,
    margin: u64,
    margin_max: u64,
    width: u64,
    slots: Box<[u64]>,
    /// The bucket of the latest `advance`, numbered from the epoch.
    head: u64,
    /// The oldest bucket whose charges still count.
    first: u64,
    /// The sum over `first..=head`.
    live: u64,
    /// Until then nothing changes by time alone.
    changes_at: u64,
    /// The day, where the window begins at midnight.
    day: Option<Day>,
}

impl Rolling {
    /// Makes an empty window that can later be given any margin up to `margin_max`.
    ///
    /// Half a window more is remembered than ever counts, so that an answer that took its time can still be compared with
    /// what was charged when its request was sent.
    pub(crate) fn new(now: u64, window: u64, margin: u64, margin_max: u64) -> Self {
        let window = window.clamp(WINDOW_MIN, WINDOW_MAX);
        let margin_max = margin_max.max(margin).min(MARGIN_WINDOWS_MAX * window);
        let margin = margin.min(margin_max);
        let width = (window / BUCKETS).max(WIDTH_MIN);
        let count = (window + margin_max + window / 2).div_ceil(width) + 2;
        let slots = vec![0; usize::try_from(count).unwrap_or(usize::MAX)].into_boxed_slice();
        let head = now / width;
        let mut rolling = Self {
            window,
            margin,
            margin_max,
            width,
            slots,
            head,
            first: 0,
            live: 0,
            changes_at: 0,
            day: None,
        };
        rolling.first = rolling.first_live(now);
        rolling
    }

    /// Makes an empty window that begins anew at every midnight of `zone`.
    ///
    /// What is charged within the margin and two seconds of midnight counts in both days: nobody knows on which side of
    /// it the provider stamped it.
    pub(crate) fn day(now: u64, zone: Zone, margin: u64, margin_max: u64) -> Self {
        let mut rolling = Self::new(now, 86_400_000_000, margin, margin_max);
        rolling.day = Some(Day::at(zone, now));
        rolling.first = rolling.first_live(now);
        rolling
    }

    /// Returns the sum of all live charges as of the last `advance`.
    pub(crate) const fn live(&self) -> u64 {
        self.live
    }

    /// Returns the length of a bucket, in microseconds.
    pub(crate) const fn width(&self) -> u64 {
        self.width
    }

    /// Returns the moment before which nothing counts, and the one at which everything that counts is forgotten, where the
    /// window begins anew at midnight.
    pub(crate) fn day_bounds(&self) -> Option<(u64, u64)> {
        let day = self.day.as_ref()?;
        Some((day.began.saturating_sub(self.guard()), day.ends))
    }

    /// Replaces every charge by this part of it, rounded up.
    pub(crate) fn scale(&mut self, part: u64, whole: u64) {
        for slot in &mut self.slots {
            let scaled = (u128::from(*slot) * u128::from(part)).div_ceil(u128::from(whole.max(1)));
            *slot = u64::try_from(scaled).unwrap_or(u64::MAX);
        }
        self.live = self.sum(self.first, self.head);
    }

    /// Returns the number of the bucket that `now` is in.
    pub(crate) const fn bucket(&self, now: u64) -> u64 {
        now / self.width
    }

    /// Returns how long a charge lives beyond the end of its bucket.
    pub(crate) const fn life(&self) -> u64 {
        self.window + self.margin
    }

    /// Forgets every charge.
    pub(crate) fn clear(&mut self) {
        self.slots.fill(0);
        self.live = 0;
    }

    /// Lets time pass: charges that are older than `window + margin` stop counting.
    pub(crate) fn advance(&mut self, now: u64) {
        if now < self.changes_at {
            return;
        }
        self.pass(now);
        let next_head = (self.head + 1).saturating_mul(self.width);
        self.changes_at = match &self.day {
            None => next_head.min(
                (self.first + 1)
                    .saturating_mul(self.width)
                    .saturating_add(self.life()),
            ),
            Some(day) => next_head.min(day.ends),
        };
    }

    fn pass(&mut self, now: u64) {
        if let Some(day) = &mut self.day
            && now >= day.ends
        {
            *day = Day::at(day.zone, now);
        }
        let head = now / self.width;
        if head > self.head {
            if head - self.head >= self.count() {
                self.slots.fill(0);
                self.live = 0;
                self.head = head;
                self.first = self.first_live(now);
                return;
            }
            self.expire_before(self.first_live(now));
            for bucket in self.head + 1..=head {
                let slot = self.slot(bucket);
                self.slots[slot] = 0;
            }
            self.head = head;
        } else {
            self.expire_before(self.first_live(now));
        }
        self.invariants();
    }

    /// Charges `amount` at the time of the last `advance`.
    pub(crate) fn charge(&mut self, amount: u64) {
        let slot = self.slot(self.head);
        self.slots[slot] = self.slots[slot].saturating_add(amount);
        self.live = self.live.saturating_add(amount);
    }

    /// Charges `amount` at an earlier time, if that time still counts.
    pub(crate) fn charge_at(&mut self, stamp: u64, amount: u64) {
        let bucket = (stamp / self.width).clamp(self.oldest(), self.head);
        let slot = self.slot(bucket);
        self.slots[slot] = self.slots[slot].saturating_add(amount);
        if bucket >= self.first {
            self.live = self.live.saturating_add(amount);
        }
    }

    /// Gives back up to `amount` of what was charged at `stamp`; what has expired already is gone.
    pub(crate) fn refund(&mut self, stamp: u64, amount: u64) {
        let bucket = stamp / self.width;
        if bucket < self.oldest() || bucket > self.head {
            return;
        }
        let slot = self.slot(bucket);
        let given = amount.min(self.slots[slot]);
        self.slots[slot] -= given;
        if bucket >= self.first {
            self.live = self.live.saturating_sub(given);
        }
        self.invariants();
    }

    /// Takes over the charges of another window, none of them earlier than it was made.
    pub(crate) fn adopt(&mut self, older: &Self) {
        for bucket in older.oldest()..=older.head {
            let amount = older.slots[older.slot(bucket)];
            let stamp = (bucket + 1).saturating_mul(older.width) - 1;
            if amount > 0 && self.remembers(stamp) {
                self.charge_at(stamp, amount);
            }
        }
        self.invariants();
    }

    /// Returns what is charged and counts, earliest first, each with the last moment of its bucket.
    pub(crate) fn charges(&self) -> impl Iterator<Item = (u64, u64)> {
        let (one, other) = if self.live == 0 {
            (&[][..], &[][..])
        } else {
            self.slices(self.first, self.head)
        };
        let buckets = (self.first..).zip(one.iter().chain(other));
        let charged = buckets.filter(|(_, amount)| **amount > 0);
        charged.map(|(bucket, amount)| ((bucket + 1).saturating_mul(self.width) - 1, *amount))
    }

    /// Returns the charges of each bucket behind that of `stamp`, latest first, with the time since its end; `None` if
    /// they are not remembered any more.
    pub(crate) fn charges_since(&self, stamp: u64) -> Option<impl Iterator<Item = (u64, u64)>> {
        let first = stamp / self.width;
        (first >= self.oldest()).then(|| {
            let buckets = (first.saturating_add(1)..=self.head).rev();
            buckets.map(|bucket| {
                (
                    (self.head - bucket).saturating_sub(1) * self.width,
                    self.slots[self.slot(bucket)],
                )
            })
        })
    }

    /// Changes the margin; charges that a longer one still covers count again.
    pub(crate) fn set_margin(&mut self, now: u64, margin: u64) {
        let margin = margin.min(self.margin_max);
        if margin == self.margin {
            return;
        }
        self.advance(now);
        self.changes_at = 0;
        self.margin = margin;
        self.first = self.first_live(now).max(self.oldest());
        self.live = self.sum(self.first, self.head);
        self.invariants();
    }

    /// Returns whether everything charged since `moment` is still remembered.
    pub(crate) fn remembers(&self, moment: u64) -> bool {
        moment / self.width >= self.oldest()
    }

    /// Returns what was charged from `from` to `to`, both rounded outwards to whole buckets.
    pub(crate) fn charged_between(&self, from: u64, to: u64) -> u64 {
        let (from, to) = (from / self.width, to / self.width);
        if from > self.head || to < self.first {
            return self.sum(from, to);
        }
        // Both ends are usually near those of the live range, so the sum that is known is corrected.
        let before = if from < self.first {
            self.sum(from, self.first - 1)
        } else {
            0
        };
        let missing = if from > self.first {
            self.sum(self.first, from - 1)
        } else {
            0
        };
        let after = if to < self.head {
            self.sum(to + 1, self.head)
        } else {
            0
        };
        self.live
            .saturating_add(before)
            .saturating_sub(missing)
            .saturating_sub(after)
    }

    /// Returns what was charged in the bucket of `stamp`.
    pub(crate) fn charged_at(&self, stamp: u64) -> u64 {
        let bucket = stamp / self.width;
        self.sum(bucket, bucket)
    }

    /// Returns what was surely charged after `moment`: in the buckets behind the one it is in.
    pub(crate) fn charged_after(&self, moment: u64) -> u64 {
        self.sum((moment / self.width).saturating_add(1), self.head)
    }

    /// Returns when `amount` of the live charges will have expired; `None` if they are less than that.
    pub(crate) fn freed_at(&self, amount: u64) -> Option<u64> {
        if amount > self.live {
            return None;
        }
        let mut rest = amount;
        let (one, other) = self.slices(self.first, self.head);
        let mut bucket = self.first;
        for run in [one, other] {
            for charged in run {
                if *charged >= rest {
                    return Some(self.expiry(bucket));
                }
                rest -= charged;
                bucket += 1;
            }
        }
        None
    }

    /// Returns what will still count at each of some later moments, in ascending order, of what is charged now, and how
    /// much more will count somewhere before the next of them than on the straight line between the two.
    pub(crate) fn alive_at(&self, moments: &[u64], each: &mut [(u64, u64)]) {
        let mut alive = self.live;
        let mut first = self.first;
        for (node, moment) in each.iter_mut().zip(moments) {
            let next = self.first_live_at(*moment).clamp(first, self.head + 1);
            if next > first {
                alive = alive.saturating_sub(self.sum(first, next - 1));
                first = next;
            }
            *node = (alive, 0);
        }
        first = self.first;
        for (place, moment) in moments.iter().enumerate() {
            let next = self.first_live_at(*moment).clamp(first, self.head + 1);
            if let Some((_, bulge)) = place.checked_sub(1).and_then(|before| each.get_mut(before)) {
                *bulge = self.bulge(first, next);
            }
            first = next;
        }
    }

    /// Returns how far what is alive is above the straight line at most, while the buckets from `first` to before `next`
    /// expire.
    fn bulge(&self, first: u64, next: u64) -> u64 {
        if next <= first {
            return 0;
        }
        let (total, count) = (self.sum(first, next - 1), next - first);
        let (mut gone, mut bulge) = (0_u64, 0);
        for (passed, charged) in (1..).zip(self.range(first, next - 1)) {
            gone = gone.saturating_add(charged);
            let line = total.saturating_mul(passed) / count;
            bulge = bulge.max(line.saturating_sub(gone));
        }
        bulge
    }

    /// Returns whether a charge that was made at `stamp` will still count at a later moment.
    pub(crate) fn lives(&self, stamp: u64, moment: u64) -> bool {
        (stamp / self.width).clamp(self.oldest(), self.head) >= self.first_live_at(moment)
    }

    /// Returns the moment since which charges may count in what the provider counted at `moment`.
    pub(crate) fn counted_from(&self, moment: u64) -> u64 {
        match &self.day {
            None => moment.saturating_sub(self.life()),
            Some(day) => {
                let day = Day::at(day.zone, moment);
                day.began.saturating_sub(self.guard())
            }
        }
    }

    /// Returns how long before midnight a charge may be and still count in the new day.
    fn guard(&self) -> u64 {
        self.margin.saturating_add(MIDNIGHT_SLACK)
    }

    /// Returns when a charge made at `moment` stops counting, but for the rounding to whole buckets.
    pub(crate) fn expiry_of(&self, moment: u64) -> u64 {
        match &self.day {
            None => moment.saturating_add(self.life()),
            Some(_) => self.expiry(moment / self.width),
        }
    }

    /// Returns the moment at which the charges of a bucket stop counting.
    fn expiry(&self, bucket: u64) -> u64 {
        if let Some(day) = &self.day {
            let last = (bucket + 1)
                .saturating_mul(self.width)
                .saturating_add(self.guard());
            if last < day.ends.saturating_sub(MIDNIGHT_SLACK) {
                return day.ends;
            }
            let midnight = day.zone.next_midnight(Timestamp::from_micros(last));
            return midnight.as_micros().saturating_add(MIDNIGHT_SLACK);
        }
        (bucket + 1)
            .saturating_mul(self.width)
            .saturating_add(self.life())
    }

    /// Returns when what was charged at `moment` stops counting.
    pub(crate) fn forgets_at(&self, moment: u64) -> u64 {
        self.expiry(moment / self.width)
    }

    fn first_live_at(&self, moment: u64) -> u64 {
        match &self.day {
            Some(day) if moment >= day.ends => {
                Day::at(day.zone, moment).began.saturating_sub(self.guard()) / self.width
            }
            _ => self.first_live(moment),
        }
    }

    fn first_live(&self, now: u64) -> u64 {
        if let Some(day) = &self.day {
            return day.began.saturating_sub(self.guard()) / self.width;
        }
        now.saturating_sub(self.life()) / self.width
    }

    fn expire_before(&mut self, first: u64) {
        let first = first.min(self.head + 1);
        while self.first < first {
            self.live = self.live.saturating_sub(self.slots[self.slot(self.first)]);
            self.first += 1;
        }
    }

    fn sum(&self, from: u64, to: u64) -> u64 {
        let from = from.max(self.oldest());
        let to = to.min(self.head);
        if from > to {
            return 0;
        }
        self.range(from, to).fold(0, u64::saturating_add)
    }

    /// Returns the charges of the buckets `from..=to`, which must have slots.
    fn range(&self, from: u64, to: u64) -> impl Iterator<Item = u64> {
        let (one, other) = self.slices(from, to);
        one.iter().chain(other).copied()
    }

    /// Returns the charges of the buckets `from..=to`, which must have slots: at most two runs of neighbors.
    fn slices(&self, from: u64, to: u64) -> (&[u64], &[u64]) {
        let start = self.slot(from);
        let length = usize::try_from((to + 1).saturating_sub(from))
            .unwrap_or(usize::MAX)
            .min(self.slots.len());
        let end = (start + length).min(self.slots.len());
        let wrapped = length - (end - start);
        (&self.slots[start..end], &self.slots[..wrapped])
    }

    /// Returns the oldest bucket that still has a slot.
    fn oldest(&self) -> u64 {
        self.head.saturating_sub(self.count() - 1)
    }

    fn count(&self) -> u64 {
        self.slots.len() as u64
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "the remainder is smaller than a slice's length"
    )]
    fn slot(&self, bucket: u64) -> usize {
        (bucket % self.count()) as usize
    }

    fn invariants(&self) {
        debug_assert!(self.first <= self.head + 1 && self.first >= self.oldest());
        debug_assert_eq!(
            self.live,
            self.sum(self.first, self.head),
            "the live sum is the sum of the live buckets"
        );
    }
}
