//! One limit at run time: what it allows, what is in use, and who uses it.

mod crowd;
mod even;
mod lesson;
mod memory;
mod presumed;
mod projected;
mod ramp;
mod reading;
mod room;
mod shared;
mod trial;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::num::NonZeroU64;
use core::time::Duration;

use crate::charge::ChargeModel;
use crate::limit::{Discipline, Limit, LimitRef, LimitSource};
use crate::margin::Margin;
use crate::projection::Outlook;
use crate::snapshot::LimitSnapshot;
use crate::time::{Timestamp, micros};
use crate::units::{Amount, Dimension};
use crate::window::{Bucket, Rolling, WINDOW_MAX, WINDOW_MIN};

use even::Expiries;
pub(crate) use lesson::Lesson;
use presumed::Presumed;
pub(crate) use reading::Revealed;
pub(crate) use shared::Change;

/// Amounts larger than this are treated as this: no provider counts a trillion tokens a minute.
pub(crate) const AMOUNT_MAX: u64 = 1 << 40;

/// The amount of a limit that nobody has told yet.
const UNLIMITED: NonZeroU64 = NonZeroU64::new(AMOUNT_MAX).expect("it is not zero");

/// The window of a limit that begins anew at midnight, in microseconds.
const DAY: u64 = 86_400_000_000;

/// Limits over longer windows, in microseconds, are not paced: a day's quota in equal shares would be a far lower limit.
const PACED_MAX: u64 = 3_600_000_000;

/// A paced limit lets this part of its amount through at once.
const PACE_BURST: u64 = 10;

/// An amount that was found by trying is spread out more: how much of it a fixed window or a bucket lets through depends
/// on when, so that only even traffic measures it.
const TRIAL_BURST: u64 = 25;

/// For so long, in microseconds, a request larger than what an answer told is refused for good.
const TOLD_LIFE: u64 = 15 * 60_000_000;

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

impl Taking {
    /// Returns how a charge model takes one dimension.
    pub(crate) fn of(model: &ChargeModel, dimension: Dimension) -> Self {
        if dimension == Dimension::OutputTokens && model.as_generated() {
            Self::AsGenerated
        } else {
            Self::AtOnce
        }
    }
}

/// One limit and its use.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    limit: Limit,
    /// The configured amount, if there is one.
    configured: Option<u64>,
    source: LimitSource,
    /// When the source last told the amount.
    told: u64,
    /// When the latest request was sent whose answer told an amount.
    limit_sent: u64,
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
    /// When the provider's use was first known: what it revealed of use before is no sign of others who go on.
    first_known: Option<u64>,
    /// The level, for the token-bucket discipline.
    bucket: Option<Bucket>,
    /// The level that a bucket would have, where a window is kept that output may exceed.
    shadow: Option<Bucket>,
    /// Spreads traffic out after refusals and next to others' traffic.
    pacer: Option<Bucket>,
    paced_until: u64,
    /// For concurrency, requests in flight.
    held: u64,
    /// What is expected of those who run, where output is charged as it is generated.
    outlook: Option<Box<Outlook>>,
    /// Whether the outlook does not know what was charged before.
    outlook_stale: bool,
    /// What refusals taught that nobody told.
    lesson: Option<Box<Lesson>>,
    /// What was under way when it was remembered last, before a restart.
    unsettled: u64,
    /// Use that is presumed after a crash.
    presumed: Option<Box<Presumed>>,
    /// What expires in the next window, as it was looked at last.
    expiries: Option<Box<Expiries>>,
    /// What was charged and given back since it was last asked, where others have to be told.
    journal: Option<Vec<Change>>,
    /// What others hold of it, elsewhere.
    elsewhere: u64,
    /// The part of the amount that may be used while nobody knows what others do.
    ceiling: Option<u64>,
}

impl Meter {
    /// Makes an unused meter of a configured limit.
    pub(crate) fn new(now: u64, limit: Limit, taking: Taking, margin: &Margin) -> Self {
        let window = match limit.discipline {
            Discipline::Day(_) => DAY,
            _ => micros(limit.window).clamp(WINDOW_MIN, WINDOW_MAX),
        };
        let amount = limit.amount.get().min(AMOUNT_MAX);
        let (margin, margin_max) = (margin.current(window), margin.largest(window));
        let ring_window = if limit.dimension == Dimension::Concurrency {
            1
        } else {
            window
        };
        let mut meter = Self {
            limit,
            configured: (limit.source == LimitSource::Config).then_some(amount),
            source: limit.source,
            told: now,
            limit_sent: 0,
            taking,
            amount,
            window,
            margin,
            all: match limit.discipline {
                Discipline::Day(zone) if limit.dimension != Dimension::Concurrency => {
                    Rolling::day(now, zone, margin, margin_max)
                }
                _ => Rolling::new(now, ring_window, margin, margin_max),
            },
            foreign: None,
            foreign_known: now,
            first_known: None,
            bucket: None,
            shadow: None,
            pacer: None,
            paced_until: 0,
            held: 0,
            outlook: None,
            outlook_stale: true,
            lesson: None,
            unsettled: 0,
            presumed: None,
            expiries: None,
            journal: None,
            elsewhere: 0,
            ceiling: None,
        };
        if taking == Taking::AsGenerated {
            meter.outlook = Some(projected::outlook(now, meter.all.life()));
            if limit.discipline == Discipline::Rolling {
                meter.shadow = Some(Bucket::full(now, amount, window, amount));
            }
        }
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
        discipline: Discipline,
        taking: Taking,
        margin: &Margin,
    ) -> Self {
        let limit = Limit {
            discipline,
            source: LimitSource::Unknown,
            ..Limit::rolling(dimension, window, UNLIMITED)
        };
        Self::new(now, limit, taking, margin)
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

    /// Returns the limit as people see it.
    pub(crate) fn snapshot(&self) -> LimitSnapshot {
        LimitSnapshot {
            limit: self.name(),
            discipline: self.limit.discipline,
            source: self.source,
            told: Timestamp::from_micros(self.told),
            used: Amount::new(self.used()),
            held: Amount::new(self.held()),
            foreign: Amount::new(self.foreign()),
            presumed: Amount::new(self.presumed()),
            margin: Duration::from_micros(self.margin),
            growth: self.growth(),
        }
    }

    /// Returns what is in use now: charged, and held.
    pub(crate) fn used(&self) -> u64 {
        match &self.bucket {
            Some(bucket) => {
                u64::try_from(i64::try_from(bucket.capacity()).unwrap_or(i64::MAX) - bucket.level())
                    .unwrap_or(0)
                    .saturating_add(self.held())
            }
            None => self.all.live().saturating_add(self.held()),
        }
    }

    /// Returns what is held, or expected to be generated by those who run.
    pub(crate) fn held(&self) -> u64 {
        self.expected().unwrap_or(self.held)
    }

    /// Returns what others are known to use now.
    pub(crate) fn foreign(&self) -> u64 {
        self.foreign.as_ref().map_or(0, |ring| ring.live())
    }

    pub(crate) const fn is_bucket(&self) -> bool {
        self.bucket.is_some()
    }

    /// Keeps the limit as a rolling window from now on, of which everything needed is known.
    pub(crate) fn keep_rolling(&mut self) {
        self.bucket = None;
        self.limit.discipline = Discipline::Rolling;
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, now: u64) {
        if self.dimension() == Dimension::Concurrency {
            return;
        }
        self.all.advance(now);
        self.outlive_presumed(now);
        if let Some(foreign) = &mut self.foreign {
            foreign.advance(now);
        }
        for bucket in self.bucket.iter_mut().chain(&mut self.shadow) {
            bucket.advance(now);
        }
        if let Some(pacer) = &mut self.pacer {
            pacer.advance(now);
            if now >= self.paced_until {
                self.pacer = None;
            }
        }
        if self.lesson.is_some() {
            self.ease(now);
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

    /// Takes note that the source told the same amount again.
    pub(crate) const fn confirm(&mut self, now: u64) {
        self.told = now;
    }

    /// Adopts its share of what was told of a longer window, but no more than is configured.
    pub(crate) fn follow(&mut self, now: u64, share: u64, by: LimitSource) {
        let (amount, source) = match self.configured {
            Some(configured) if share >= configured => (configured, LimitSource::Config),
            _ => (share, by),
        };
        if amount != self.amount || source != self.source {
            self.set_amount(now, amount, source);
        }
    }

    /// Adopts another amount, as configured or as a header tells it.
    pub(crate) fn set_amount(&mut self, now: u64, amount: u64, source: LimitSource) {
        self.told = now;
        self.amount = amount.clamp(1, AMOUNT_MAX);
        self.source = source;
        self.outgrow(now);
        let (amount, capacity, burst) = (self.amount, self.bucket_capacity(), self.pace_burst());
        if let Some(bucket) = &mut self.bucket {
            bucket.resize(amount, capacity);
        }
        if let Some(shadow) = &mut self.shadow {
            shadow.resize(amount, amount);
        }
        if let Some(pacer) = &mut self.pacer {
            pacer.resize(amount, burst);
        }
    }

    /// Takes over what was charged and learned under another version of the limit, perhaps one of another window; what
    /// is held has to be held again.
    pub(crate) fn inherit(&mut self, older: &Self) {
        // While the ledger is out of reach no reload makes the share that is used any larger.
        let is_same = self.window == older.window;
        self.ceiling = older.ceiling.map(|ceiling| if is_same { ceiling } else { 0 });
        if self.dimension() == Dimension::Concurrency || older.is_passing() {
            return;
        }
        self.all.adopt(&older.all);
        self.outlook_stale = true;
        if let Some(theirs) = &older.foreign {
            let mut ring = self.all.clone();
            ring.clear();
            ring.adopt(theirs);
            self.foreign = Some(Box::new(ring));
        }
        self.foreign_known = older.foreign_known;
        self.first_known = older.first_known;
        let same = self.window == older.window;
        if let Some(bucket) = &mut self.bucket {
            // What is missing from the older bucket is missing from this one.
            let (charged, missing) = match &older.bucket {
                Some(from) if same => (0, i128::from(from.capacity()) - i128::from(from.level())),
                _ => (self.all.live(), 0),
            };
            bucket.set_level(i128::from(bucket.capacity()) - i128::from(charged) - missing);
        }
        if let Some(shadow) = &mut self.shadow {
            let missing = match &older.shadow {
                Some(from) if same => i128::from(from.capacity()) - i128::from(from.level()),
                _ => i128::from(self.all.live()),
            };
            shadow.set_level(i128::from(shadow.capacity()) - missing);
        }
        if !same {
            return;
        }
        self.unsettled = older.unsettled;
        self.presumed.clone_from(&older.presumed);
        self.paced_until = older.paced_until;
        self.pacer.clone_from(&older.pacer);
        let learned = older.is_known() && !older.source.is_given();
        if learned && self.configured.is_none_or(|configured| older.amount < configured) {
            self.lesson.clone_from(&older.lesson);
            self.set_amount(older.told, older.amount, older.source);
        } else {
            self.set_amount(self.told, self.amount, self.source);
        }
    }

    /// Returns whether a request of this weight can ever pass.
    pub(crate) fn can_ever_fit(&self, now: u64, weight: u64) -> bool {
        weight <= self.amount || !self.is_certain(now)
    }

    /// Returns whether the amount is certain: neither found by trying, nor told by an answer that is long past. Whoever
    /// needs more than an uncertain one goes when nothing else is in use: nobody else would ever ask whether it still holds.
    fn is_certain(&self, now: u64) -> bool {
        self.lesson.is_none() && (self.source.is_given() || now.saturating_sub(self.told) < TOLD_LIFE)
    }

    fn bucket_capacity(&self) -> u64 {
        let slack = u128::from(self.amount) * u128::from(self.margin) / u128::from(self.window);
        let slack = u64::try_from(slack).unwrap_or(u64::MAX).saturating_add(1);
        self.amount.saturating_sub(slack).max(1)
    }

    /// Charges an admitted request.
    pub(crate) fn take(&mut self, weight: u64) {
        match (self.dimension(), self.taking) {
            (Dimension::Concurrency, _) => self.hold(weight),
            (_, Taking::AsGenerated) => {}
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
        self.note(stamp, amount, true);
        // Never out of what others took: a meter made by a reload may not know of this charge.
        let theirs = self.foreign.as_ref().map_or(0, |ring| ring.charged_at(stamp));
        let amount = amount.min(self.all.charged_at(stamp).saturating_sub(theirs));
        if let Some(bucket) = &mut self.bucket {
            // A bucket that was full since then, or would have been, cannot have kept what was not taken from it.
            let spare = self.all.charges_since(stamp).map(|charges| bucket.spare(charges));
            bucket.give(amount.min(spare.unwrap_or(0)));
        }
        self.all.refund(stamp, amount);
        if let Some(pacer) = &mut self.pacer {
            pacer.give(amount);
        }
        self.invariants();
    }

    /// Charges more, as of now.
    pub(crate) fn charge(&mut self, amount: u64) {
        let amount = amount.min(AMOUNT_MAX);
        self.all.charge(amount);
        self.note(0, amount, false);
        if let Some(outlook) = &mut self.outlook {
            outlook.charge(amount);
        }
        for bucket in self.bucket.iter_mut().chain(&mut self.shadow) {
            bucket.take(amount);
        }
    }

    /// Keeps so much free of a limit on tokens, in place of what was kept.
    pub(crate) fn keep_free(&mut self, amount: u64) {
        if self.dimension() == Dimension::Tokens {
            self.held = amount;
        }
    }

    /// Holds the place of a running request among those in flight.
    pub(crate) fn hold(&mut self, amount: u64) {
        if self.outlook.is_none() {
            self.held = self.held.saturating_add(amount);
        }
    }

    /// Lets go of everything that is held; it has to be held again.
    pub(crate) const fn let_go(&mut self) {
        self.held = 0;
    }

    /// Lets go of what was held.
    pub(crate) fn release(&mut self, amount: u64) {
        self.held = self.held.saturating_sub(amount);
    }

    /// Spreads traffic out until `until`.
    pub(crate) fn pace(&mut self, now: u64, until: u64) {
        if self.dimension() == Dimension::Concurrency || self.window > PACED_MAX {
            return;
        }
        self.paced_until = self.paced_until.max(until);
        if self.pacer.is_none() {
            let mut pacer = Bucket::full(now, self.amount, self.window, self.pace_burst());
            if self.is_trial() {
                // The provider has just refused.
                pacer.set_level(0);
            }
            self.pacer = Some(pacer);
        }
    }

    fn pace_burst(&self) -> u64 {
        if self.is_trial() {
            // Two paces at once let less through than either, if neither lets a few through at once.
            (self.amount / TRIAL_BURST).max(3).min(self.amount)
        } else {
            (self.amount / PACE_BURST).max(1)
        }
    }

    fn invariants(&self) {
        debug_assert!(
            self.foreign() <= self.all.live(),
            "others' charges are part of all charges"
        );
    }
}
