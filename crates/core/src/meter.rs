//! One limit at run time: what it allows, what is in use, and who uses it.

use alloc::boxed::Box;
use core::num::NonZeroU64;
use core::time::Duration;

use crate::limit::{Discipline, Limit, LimitRef};
use crate::margin::Margin;
use crate::signal::Reading;
use crate::time::micros;
use crate::units::Dimension;
use crate::window::{Bucket, Rolling};

/// Amounts larger than this are treated as this: no provider counts a trillion tokens a minute.
pub(crate) const AMOUNT_MAX: u64 = 1 << 40;

/// The amount of a limit that nobody has told yet.
const UNLIMITED: NonZeroU64 = NonZeroU64::new(AMOUNT_MAX).expect("it is not zero");

/// Traffic of others that arrives between two observations is expected to be at most this many times its average.
const FOREIGN_BURST: u64 = 2;
/// At most this part of a limit is held back for others' traffic that has not been seen yet.
const FOREIGN_RESERVE: u64 = 5;
/// A paced limit lets this part of its amount through at once.
const PACE_BURST: u64 = 10;

/// Where a limit's amount comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitSource {
    /// Nowhere yet: everything is counted and nothing is limited.
    Unknown,
    /// The configuration.
    Config,
    /// A response header, lower than the configuration or without any.
    Header,
    /// The text of a refusal.
    Refusal,
}

impl LimitSource {
    /// Returns the name used on status pages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Config => "config",
            Self::Header => "header",
            Self::Refusal => "refusal",
        }
    }
}

/// When a charge can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Earliest {
    /// At this time, in microseconds, if nothing else changes.
    At(u64),
    /// When a running request ends; nobody knows when.
    Event,
    /// Never.
    Never,
}

/// How a dimension is taken by the charge model in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taking {
    /// In full at admission.
    AtOnce,
    /// Held at admission, charged as it is generated.
    AsGenerated,
}

/// What the provider's answer revealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Revealed {
    /// Use by others that was not known before.
    pub foreign: u64,
    /// Whether room was found that we had thought taken.
    pub room: bool,
    /// Whether the amount of the limit changed.
    pub amount: bool,
}

/// One limit and its use.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    limit: Limit,
    /// The configured amount, if there is one.
    configured: Option<u64>,
    source: LimitSource,
    taking: Taking,
    /// What is allowed now: the configured amount, or less if a header said so.
    amount: u64,
    window: u64,
    margin: u64,
    /// Everything charged, by us and by others. Unused for concurrency.
    all: Rolling,
    /// What others were found to use, if ever.
    foreign: Option<Box<Rolling>>,
    /// The latest stamp (of ours) at which the provider's use was known.
    foreign_known: u64,
    /// The level, for the token-bucket discipline.
    bucket: Option<Bucket>,
    /// Spreads traffic out after refusals and next to others' traffic.
    pacer: Option<Bucket>,
    paced_until: u64,
    /// Held for running requests that have not generated it yet; for concurrency, requests in flight.
    held: u64,
}

impl Meter {
    /// Makes an unused meter of a configured limit.
    pub(crate) fn new(now: u64, limit: Limit, taking: Taking, margin: &Margin) -> Self {
        let window = micros(limit.window).max(1);
        let amount = limit.amount.get().min(AMOUNT_MAX);
        let (margin, margin_max) = (margin.current(window), margin.largest(window));
        let ring_window = if limit.dimension == Dimension::Concurrency {
            1
        } else {
            window
        };
        let mut meter = Self {
            limit,
            configured: Some(amount),
            source: LimitSource::Config,
            taking,
            amount,
            window,
            margin,
            all: Rolling::new(now, ring_window, margin, margin_max),
            foreign: None,
            foreign_known: now,
            bucket: None,
            pacer: None,
            paced_until: 0,
            held: 0,
        };
        if limit.discipline == Discipline::TokenBucket && limit.dimension != Dimension::Concurrency {
            meter.bucket = Some(Bucket::full(now, amount, window, meter.bucket_capacity()));
        }
        meter
    }

    /// Makes a meter that counts one dimension until a header or a refusal tells its limit.
    pub(crate) fn unlimited(
        now: u64,
        dimension: Dimension,
        window: Duration,
        taking: Taking,
        margin: &Margin,
    ) -> Self {
        let limit = Limit::rolling(dimension, window, UNLIMITED);
        let meter = Self::new(now, limit, taking, margin);
        Self {
            configured: None,
            source: LimitSource::Unknown,
            ..meter
        }
    }

    /// Returns whether there is a limit at all.
    pub(crate) fn is_known(&self) -> bool {
        self.source != LimitSource::Unknown
    }

    pub(crate) const fn source(&self) -> LimitSource {
        self.source
    }

    pub(crate) const fn taking(&self) -> Taking {
        self.taking
    }

    pub(crate) const fn limit(&self) -> &Limit {
        &self.limit
    }

    pub(crate) const fn dimension(&self) -> Dimension {
        self.limit.dimension
    }

    /// Returns the limit's name with the amount that holds now.
    pub(crate) fn name(&self) -> LimitRef {
        LimitRef {
            amount: self.amount,
            ..self.limit.name()
        }
    }

    pub(crate) const fn amount(&self) -> u64 {
        self.amount
    }

    pub(crate) const fn window(&self) -> u64 {
        self.window
    }

    pub(crate) const fn margin(&self) -> u64 {
        self.margin
    }

    /// Returns what is in use now: charged, and held.
    pub(crate) fn used(&self) -> u64 {
        match &self.bucket {
            Some(bucket) => {
                u64::try_from(i64::try_from(bucket.capacity()).unwrap_or(i64::MAX) - bucket.level())
                    .unwrap_or(0)
                    .saturating_add(self.held)
            }
            None => self.all.live().saturating_add(self.held),
        }
    }

    pub(crate) const fn held(&self) -> u64 {
        self.held
    }

    /// Returns what others are known to use now.
    pub(crate) fn foreign(&self) -> u64 {
        self.foreign.as_ref().map_or(0, |ring| ring.live())
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, now: u64) {
        if self.dimension() == Dimension::Concurrency {
            return;
        }
        self.all.advance(now);
        if let Some(foreign) = &mut self.foreign {
            foreign.advance(now);
        }
        if let Some(bucket) = &mut self.bucket {
            bucket.advance(now);
        }
        if let Some(pacer) = &mut self.pacer {
            pacer.advance(now);
            if now >= self.paced_until {
                self.pacer = None;
            }
        }
    }

    /// Changes the margin.
    pub(crate) fn set_margin(&mut self, now: u64, margin: u64) {
        if margin == self.margin {
            return;
        }
        self.margin = margin;
        self.all.set_margin(now, margin);
        if let Some(foreign) = &mut self.foreign {
            foreign.set_margin(now, margin);
        }
        let (amount, capacity) = (self.amount, self.bucket_capacity());
        if let Some(bucket) = &mut self.bucket {
            bucket.resize(amount, capacity);
        }
    }

    /// Adopts another amount, as configured or as a header tells it.
    pub(crate) fn set_amount(&mut self, amount: u64, source: LimitSource) {
        self.amount = amount.clamp(1, AMOUNT_MAX);
        self.source = source;
        let (amount, capacity) = (self.amount, self.bucket_capacity());
        if let Some(bucket) = &mut self.bucket {
            bucket.resize(amount, capacity);
        }
        if let Some(pacer) = &mut self.pacer {
            pacer.resize(amount, (amount / PACE_BURST).max(1));
        }
    }

    /// Takes over what was charged under another version of the same limit.
    pub(crate) fn inherit(&mut self, older: Self) {
        self.all = older.all;
        self.foreign = older.foreign;
        self.foreign_known = older.foreign_known;
        self.held = older.held;
        self.margin = older.margin;
        if let (Some(bucket), Some(from)) = (&mut self.bucket, older.bucket) {
            bucket.set_level(i128::from(from.level()));
        } else if let Some(bucket) = &mut self.bucket {
            bucket.set_level(i128::from(self.amount) - i128::from(self.all.live()));
        }
    }

    /// Returns whether a request of this weight can ever pass.
    pub(crate) fn can_ever_fit(&self, weight: u64) -> bool {
        weight <= self.amount
    }

    /// Returns whether `weight` can be taken now.
    pub(crate) fn fits(&self, now: u64, weight: u64) -> bool {
        match self.earliest(now, 0, weight) {
            Earliest::At(at) => at <= now,
            Earliest::Event | Earliest::Never => false,
        }
    }

    /// Returns when `weight` can be taken, after `ahead` has been taken by those before it.
    pub(crate) fn earliest(&self, now: u64, ahead: u64, weight: u64) -> Earliest {
        // An amount that nobody has told holds nobody up, whatever a client claims to need.
        if !self.is_known() {
            return Earliest::At(now);
        }
        if weight > self.amount {
            return Earliest::Never;
        }
        if weight == 0 {
            return Earliest::At(now);
        }
        if self.dimension() == Dimension::Concurrency {
            let free = self.amount.saturating_sub(self.held);
            return if ahead.saturating_add(weight) <= free {
                Earliest::At(now)
            } else {
                Earliest::Event
            };
        }
        let total = ahead
            .saturating_add(weight)
            .saturating_add(self.unseen_foreign(now));
        let at = match &self.bucket {
            Some(bucket) => self.bucket_earliest(now, bucket, total, weight),
            None => self.rolling_earliest(now, total),
        };
        match (at, &self.pacer) {
            (Earliest::At(at), Some(pacer)) => {
                let burst = weight.min(pacer.capacity()).saturating_add(ahead);
                Earliest::At(at.max(pacer.ready_at(burst)).max(now))
            }
            (at, _) => at,
        }
    }

    fn rolling_earliest(&self, now: u64, total: u64) -> Earliest {
        let live = self.all.live();
        let committed = live.saturating_add(self.held).saturating_add(total);
        // What others might use is only held back while something else is in use, so that it can never block for good.
        let over = committed.saturating_sub(self.amount);
        if over == 0
            || (live == 0 && self.held == 0 && total <= self.amount.saturating_add(self.unseen_foreign(now)))
        {
            return Earliest::At(now);
        }
        // What is admitted on the way frees itself one life later, so freed amounts repeat with that period.
        let periods = (over - 1) / self.amount;
        let rest = over - periods * self.amount;
        let wait = periods.saturating_mul(self.all.life());
        match self.all.freed_at(rest) {
            Some(at) => Earliest::At(at.saturating_add(wait)),
            None if self.held > 0 && live.saturating_add(self.held) >= rest => Earliest::Event,
            None => Earliest::At(now.saturating_add(self.all.life()).saturating_add(wait)),
        }
    }

    fn bucket_earliest(&self, now: u64, bucket: &Bucket, total: u64, weight: u64) -> Earliest {
        let need = total.saturating_add(self.held);
        if weight <= bucket.capacity() {
            // Never more than a full bucket is waited for: a reserve for others must not block for good.
            let need = if total <= self.amount {
                need.min(bucket.capacity())
            } else {
                need
            };
            return Earliest::At(bucket.ready_at(need).max(now));
        }
        // Larger than our capacity, though not than the provider's: its bucket is surely full one margin after ours.
        let ahead = total.saturating_add(self.held).saturating_sub(weight);
        let refilled = if ahead == 0 {
            bucket.full_at()
        } else {
            bucket.ready_at(bucket.capacity().saturating_add(ahead))
        };
        Earliest::At(refilled.saturating_add(self.margin).max(now))
    }

    /// Returns what others may have used since it was last known, judging by what they used before.
    fn unseen_foreign(&self, now: u64) -> u64 {
        let Some(foreign) = &self.foreign else { return 0 };
        let live = foreign.live();
        if live == 0 {
            return 0;
        }
        let blind = now.saturating_sub(self.foreign_known).saturating_add(self.margin);
        let expected = u128::from(live) * u128::from(blind) / u128::from(self.all.life());
        let expected = u64::try_from(expected)
            .unwrap_or(u64::MAX)
            .saturating_mul(FOREIGN_BURST);
        expected.min(self.amount / FOREIGN_RESERVE)
    }

    fn bucket_capacity(&self) -> u64 {
        let slack = u128::from(self.amount) * u128::from(self.margin) / u128::from(self.window);
        let slack = u64::try_from(slack).unwrap_or(u64::MAX).saturating_add(1);
        self.amount.saturating_sub(slack).max(1)
    }

    /// Charges an admitted request.
    pub(crate) fn take(&mut self, weight: u64) {
        match (self.dimension(), self.taking) {
            (Dimension::Concurrency, _) | (_, Taking::AsGenerated) => {
                self.held = self.held.saturating_add(weight);
            }
            (_, Taking::AtOnce) => self.charge(weight),
        }
        if let Some(pacer) = &mut self.pacer {
            pacer.take(weight);
        }
        self.invariants();
    }

    /// Gives back, as of its stamp, what was charged and turned out not to be used.
    pub(crate) fn refund(&mut self, stamp: u64, amount: u64) {
        if amount == 0 || self.dimension() == Dimension::Concurrency {
            return;
        }
        self.all.refund(stamp, amount);
        if let Some(bucket) = &mut self.bucket {
            bucket.give(amount);
        }
        if let Some(pacer) = &mut self.pacer {
            pacer.give(amount);
        }
        self.invariants();
    }

    /// Charges more, as of now.
    pub(crate) fn charge(&mut self, amount: u64) {
        let amount = amount.min(AMOUNT_MAX);
        self.all.charge(amount);
        if let Some(bucket) = &mut self.bucket {
            bucket.take(amount);
        }
    }

    /// Lets go of what was held. A meter made by a reload may never have held it.
    pub(crate) fn release(&mut self, amount: u64) {
        self.held = self.held.saturating_sub(amount);
    }

    /// Spreads traffic out until `until`.
    pub(crate) fn pace(&mut self, now: u64, until: u64) {
        if self.dimension() == Dimension::Concurrency {
            return;
        }
        self.paced_until = self.paced_until.max(until);
        if self.pacer.is_none() {
            self.pacer = Some(Bucket::full(
                now,
                self.amount,
                self.window,
                (self.amount / PACE_BURST).max(1),
            ));
        }
    }

    /// Takes note of what a response says about this limit, for an attempt that we stamped at `sent` with `own` charged.
    ///
    /// The provider stamped it somewhere in `[sent, sent + margin]`. What is known for certain of its count at that
    /// moment, widened by that uncertainty, bounds what we must still allow for: more use than all our charges that may
    /// have been counted explain is somebody else's; and a bucket that surely holds more than ours is believed.
    pub(crate) fn read(&mut self, now: u64, sent: u64, own: u64, reading: &Reading) -> Revealed {
        let mut revealed = Revealed::default();
        if self.dimension() == Dimension::Concurrency {
            return revealed;
        }
        if let Some(limit) = reading
            .limit
            .map(|limit| limit.value().min(AMOUNT_MAX))
            .filter(|limit| *limit > 0)
        {
            let (amount, source) = match self.configured {
                Some(configured) if limit >= configured => (configured, LimitSource::Config),
                _ => (limit, LimitSource::Header),
            };
            if amount != self.amount || source != self.source {
                self.set_amount(amount, source);
                revealed.amount = true;
            }
        }
        let Some(remaining) = reading.remaining else {
            return revealed;
        };
        // What is left of an amount that nobody has told says nothing about what is used.
        if !self.is_known() {
            return revealed;
        }
        let limit = reading
            .limit
            .map_or(self.amount, |limit| limit.value().min(AMOUNT_MAX));
        let rounding = reading.rounding.value() / 2;
        // Charges that the provider may have counted: from one window and margin before its earliest stamp.
        let from = sent.saturating_sub(self.all.life());
        if !self.all.remembers(from) {
            // The answer took so long that what it tells cannot be compared with anything any more.
            return revealed;
        }
        let latest = sent.saturating_add(self.margin).min(now);
        let room = remaining.value().saturating_add(rounding);
        let used = limit.saturating_sub(room);
        if self.bucket.is_some() {
            let least = remaining.value().saturating_sub(rounding).min(AMOUNT_MAX);
            self.read_bucket(now, sent, latest, own, least, room.min(AMOUNT_MAX), &mut revealed);
        } else {
            let known = self.all.charged_between(from, latest);
            revealed.foreign = used.saturating_sub(known);
        }
        self.foreign_known = self.foreign_known.max(sent);
        if revealed.foreign > 0 {
            self.charge_foreign(now, latest, revealed.foreign);
        }
        self.invariants();
        revealed
    }

    #[allow(clippy::too_many_arguments, reason = "one formula's inputs, used once")]
    fn read_bucket(
        &mut self,
        now: u64,
        sent: u64,
        latest: u64,
        own: u64,
        least: u64,
        most: u64,
        revealed: &mut Revealed,
    ) {
        let Some(bucket) = &mut self.bucket else { return };
        // Ours that the provider may not have counted yet, and ours that it surely has not.
        let maybe = self
            .all
            .charged_between(sent.saturating_sub(self.margin), now)
            .saturating_sub(own);
        let surely = self.all.charged_after(latest);
        let low = i128::from(least) + i128::from(bucket.inflow(now - latest)) - i128::from(maybe);
        let high =
            i128::from(most) + i128::from(bucket.inflow(now.saturating_sub(sent))) + 1 - i128::from(surely);
        let level = i128::from(bucket.level());
        if level > high {
            revealed.foreign = u64::try_from(level - high).unwrap_or(0);
            bucket.set_level(low.max(-i128::from(self.amount)));
        } else if level < low {
            bucket.set_level(low);
            revealed.room = true;
        }
    }

    fn charge_foreign(&mut self, now: u64, stamp: u64, amount: u64) {
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
        self.pace(now, now.saturating_add(self.window.saturating_mul(2)));
    }

    fn invariants(&self) {
        debug_assert!(
            self.foreign() <= self.all.live(),
            "others' charges are part of all charges"
        );
    }
}
