//! Refusals: seven different things, and what is done about each.
//!
//! | the provider says | the request | the group |
//! |---|---|---|
//! | rate | waits in its place | pauses as long as is said, learns the limit from the numbers or from what was in use |
//! | acceleration | waits in its place | pauses until the next minute boundary, then input grows step by step |
//! | concurrency | waits in its place | has as many in flight as were accepted, and tries one more now and then |
//! | congestion | waits in its place | is paced: multiplicative decrease, additive increase |
//! | overload | pauses alone | is not touched |
//! | quota spent | gets the provider's word | is closed until the quota comes back, if that is known |
//! | too large | gets the provider's word | learns the limit, if it is told |
//!
//! Requests that were sent before a refusal was known teach nothing when they are refused as well: they only wait again.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::answer::{METERS_MAX, Span, Told};
use super::congestion::Congestion;
use super::spent::Spent;
use super::{Group, HOLD_MAX, InFlight};
use crate::charge::Charge;
use crate::decision::WaitReason;
use crate::limit::LimitSource;
use crate::meter::{Meter, Taking};
use crate::output::Notice;
use crate::plan::RetryPolicy;
use crate::retry::{self, Jitter};
use crate::signal::{Cause, RateLimited, Reading};
use crate::time::{Timestamp, micros};
use crate::units::{Amount, Dimension};

/// The growth of an acceleration limit at every minute boundary, where the refusal does not tell it: that of the one
/// message that is known (providers.md §4.5).
const RAMP_STEP: u64 = 10_000;
/// A limit that refuses has at least this percentage of it in use, if what is known of it is right.
const FULL: u128 = 95;
/// Limits whose use comes within this percentage of the fullest one may be the one that refused.
const NEAR: u128 = 90;
/// How many refusals in a row are waited for as long as they say and no longer.
const STATED_TURNS: u32 = 2;
/// An unnamed refusal is never by a limit over more than this many minutes: its day would not be told so.
const UNNAMED_MINUTES: u64 = 10;

impl Group {
    /// Learns from a refusal that time cures. Returns when the request may be sent again, and what it waits for.
    pub(super) fn refused(
        &mut self,
        now: u64,
        flight: &InFlight,
        refused: &RateLimited,
        policy: &RetryPolicy,
        jitter: &mut Jitter,
        notices: &mut Vec<Notice>,
    ) -> (u64, WaitReason) {
        let is_fresh = self.lessons.is_fresh(flight.granted);
        let turn = self.lessons.turn();
        let pause = match refused.retry_after {
            // What was waited for twice in vain is no measure: a provider, or a proxy before it, that says "in 0 s" each time
            // would be asked as often as it can answer.
            Some(wait) if is_fresh && turn > STATED_TURNS => {
                micros(wait).max(retry::pause(policy, turn - STATED_TURNS, jitter))
            }
            Some(wait) => micros(wait),
            None => retry::pause(policy, turn, jitter),
        };
        let pause = now.saturating_add(pause.clamp(1_000, HOLD_MAX));
        if refused.cause != Cause::Rate {
            notices.push(Notice::Refused {
                cause: refused.cause,
                dimension: refused.dimension,
            });
        }
        let reason = match refused.cause {
            Cause::Rate => {
                if is_fresh || refused.retry_after.is_some() {
                    self.hold_until = self.hold_until.max(pause);
                }
                self.refused_for_rate(now, flight, refused, is_fresh, notices);
                WaitReason::Hold
            }
            Cause::Acceleration => {
                self.totals.accelerated += 1;
                if is_fresh {
                    self.accelerated(now, flight, refused, notices);
                }
                WaitReason::Hold
            }
            Cause::Concurrency => {
                self.totals.crowded += 1;
                self.crowded(now, flight, notices);
                // Where nothing of ours runs that could end, others must have ended first.
                if refused.retry_after.is_some() || self.in_flight == 0 {
                    self.hold_until = self.hold_until.max(pause);
                }
                WaitReason::Hold
            }
            Cause::Congestion => {
                self.totals.congested += 1;
                if is_fresh {
                    self.hold_until = self.hold_until.max(pause);
                    self.congested(now, refused, notices);
                }
                WaitReason::Congestion
            }
        };
        if is_fresh {
            let blindly =
                refused.retry_after.is_none() && matches!(refused.cause, Cause::Rate | Cause::Congestion);
            self.lessons.taught(now, blindly);
        }
        (self.hold_until.max(now), reason)
    }

    /// Takes note that the provider accepted a request.
    pub(super) fn accepted(&mut self, flight: &InFlight) {
        self.succeeded = true;
        self.lessons.succeeded(flight.granted);
        if !flight.observed && self.is_learning() {
            // An answer without headers is an answer.
            self.learning_window = self.learning_window.saturating_add(1);
        }
        for meter in &mut self.meters {
            if meter.is_crowd() {
                meter.succeeded();
            }
        }
    }

    /// Takes note that the provider's quota is spent.
    pub(super) fn quota_spent(
        &mut self,
        now: u64,
        flight: &InFlight,
        until: Option<Duration>,
        notices: &mut Vec<Notice>,
    ) {
        self.totals.quota_spent += 1;
        let until = until.map(|until| now.saturating_add(micros(until).clamp(1_000, HOLD_MAX)));
        let spent = self.lessons.spent.get_or_insert_with(Box::<Spent>::default);
        if spent.told(now, flight.granted, until) {
            notices.push(Notice::QuotaSpent {
                until: until.map(Timestamp::from_micros),
            });
        }
    }

    /// Learns a limit from the refusal of a request that is larger than it.
    pub(super) fn too_large(
        &mut self,
        now: u64,
        flight: &InFlight,
        refused: &RateLimited,
        notices: &mut Vec<Notice>,
    ) {
        self.totals.too_large += 1;
        self.read_refusal(now, flight, refused, notices);
        self.end_slow_start();
    }

    /// Lets a limit grow that grows at every minute boundary.
    pub(super) fn climb(&mut self, now: u64) {
        let most = self
            .meters
            .iter()
            .filter(|meter| {
                meter.dimension() == Dimension::InputTokens
                    && !meter.is_ramp()
                    && meter.is_known()
                    && meter.window() == self.minute
            })
            // A full bucket lets twice its amount through in a minute.
            .map(|meter| meter.amount().saturating_mul(1 + u64::from(meter.is_bucket())))
            .min()
            .unwrap_or(u64::MAX);
        let last_used = self.last_used;
        for meter in self.meters.iter_mut().filter(|meter| meter.is_ramp()) {
            meter.climb(now, most, last_used);
        }
    }

    fn refused_for_rate(
        &mut self,
        now: u64,
        flight: &InFlight,
        refused: &RateLimited,
        is_fresh: bool,
        notices: &mut Vec<Notice>,
    ) {
        if self.was_promised(flight, refused) {
            self.totals.promises_broken += 1;
            notices.push(Notice::PromiseBroken {
                dimension: refused.dimension,
            });
        } else {
            self.totals.probed += 1;
            notices.push(Notice::Refused {
                cause: Cause::Rate,
                dimension: refused.dimension,
            });
        }
        let explained = self.read_refusal(now, flight, refused, notices);
        // Where requests are counted to find how many are accepted, one that was not does not count.
        for meter in self
            .meters
            .iter_mut()
            .filter(|meter| meter.dimension() == Dimension::Requests)
        {
            if meter.is_trial() || !meter.is_known() {
                meter.refund(flight.granted, flight.charge.amount(Dimension::Requests).value());
            }
        }
        if !is_fresh {
            for meter in self.meters.iter_mut().filter(|meter| meter.is_trial()) {
                meter.relearn(now);
            }
            if let Some(sent) = self.lessons.question()
                && explained.is_none()
                && self.learn_late(now, sent, refused, notices)
            {
                // It was no matter of delay after all.
                self.lessons.answered();
                self.margin.forgive();
                self.refresh_margin(now);
            }
            return;
        }
        // No margin helps a request that was sent before its limit was known, nor does it teach anything.
        let explained = match explained {
            _ if flight.granted < self.corrected => true,
            Some(explained) => explained,
            None => {
                self.lessons.answered();
                let learned = self.learn(now, flight.granted, &flight.charge, refused, notices);
                if !learned {
                    self.lessons.leave_open(flight.granted);
                }
                learned
            }
        };
        if !explained {
            self.margin.refused(now);
            self.refresh_margin(now);
        }
        self.doubt_buckets(now, refused);
        if self.is_learning() {
            self.learning_window = (self.learning_window / 2).max(1);
            self.lessons.slow_probe();
        } else {
            self.lessons.stop_probing();
        }
        for meter in self
            .meters
            .iter_mut()
            .filter(|meter| meter.is_known() && !meter.is_passing())
        {
            let until = self
                .hold_until
                .saturating_add(meter.window().saturating_mul(2).min(HOLD_MAX));
            meter.pace(now, until);
        }
    }

    /// Keeps as rolling windows what was kept as buckets and was refused twice within an hour: the provider may not be one,
    /// whatever is known of others like it. Numbers that obey a bucket's law speak for it.
    fn doubt_buckets(&mut self, now: u64, refused: &RateLimited) {
        let span = self.span(refused);
        if refused.solved_window().is_some() {
            return;
        }
        let is_meant = |meter: &Meter| meter.is_bucket() && is_suspect(meter, refused, span, u64::MAX);
        if self.meters.iter().any(is_meant) && self.lessons.doubt(now) {
            self.meters
                .iter_mut()
                .filter(|meter| is_meant(meter))
                .for_each(Meter::keep_rolling);
        }
    }

    /// Reads the numbers of a refusal. Returns whether they explain it; `None` if there are none.
    fn read_refusal(
        &mut self,
        now: u64,
        flight: &InFlight,
        refused: &RateLimited,
        notices: &mut Vec<Notice>,
    ) -> Option<bool> {
        let (dimension, limit) = (refused.dimension?, refused.limit?);
        if limit == Amount::ZERO {
            return None;
        }
        let reading = Reading {
            limit: Some(limit),
            remaining: refused.used.map(|used| limit.saturating_sub(used)),
            ..Reading::default()
        };
        let told = Told {
            dimension,
            span: self.span(refused),
            by: LimitSource::Refusal,
            // Where its numbers solve the window, it is by the law of a bucket.
            refills: refused.solved_window().is_some(),
        };
        let known = self.meters.len();
        let revealed = self.read(now, flight.granted, 0, &reading, told, notices);
        Some(match revealed {
            Some(revealed) => revealed.foreign > 0 || revealed.amount || self.meters.len() > known,
            // A limit of another window, which is not in the plan: no margin would have helped.
            None => true,
        })
    }

    /// Learns from what was in use when a refusal came that told no numbers. Returns whether that explains it.
    ///
    /// Which limit refused may be unknown. Limits that nobody told are the first to be thought of; else it is the one
    /// that was fullest, those that were nearly as full, and those that were as full when they last refused: what is
    /// raised because nothing contradicts it must not put the blame on another for good.
    fn learn(
        &mut self,
        now: u64,
        sent: u64,
        own: &Charge,
        refused: &RateLimited,
        notices: &mut Vec<Notice>,
    ) -> bool {
        let span = self.span(refused);
        let most = self.minute.saturating_mul(UNNAMED_MINUTES);
        let not_accepted = self.lessons.refused_of(sent);
        let mut suspects = Vec::with_capacity(self.meters.len());
        for (index, meter) in self.meters.iter().enumerate() {
            if !is_suspect(meter, refused, span, most) {
                continue;
            }
            // Refused tokens are given back by now; of refused requests only those that are counted to find a limit.
            let is_kept = meter.dimension() == Dimension::Requests && meter.is_known() && !meter.is_trial();
            let in_use = meter
                .in_use_at(sent)
                .saturating_sub(if is_kept { not_accepted } else { 0 });
            let permille = u128::from(in_use) * 1_000 / u128::from(meter.amount().max(1));
            suspects.push((index, in_use, permille));
        }
        let is_full = |(index, _, permille): &(usize, u64, u128)| {
            let meter = &self.meters[*index];
            meter.is_known() && !meter.is_trial() && *permille >= FULL * 10
        };
        if suspects.iter().any(is_full) {
            return false;
        }
        if self.lessons.question().is_none() && !self.lessons.has_evidence() {
            return true;
        }
        let is_open =
            |(index, in_use, _): &&(usize, u64, u128)| !self.meters[*index].is_known() && *in_use > 0;
        let finds = suspects.iter().any(|suspect| is_open(&suspect));
        let fullest = suspects
            .iter()
            .filter(|(index, ..)| self.meters[*index].is_known())
            .map(|(.., permille)| *permille)
            .max()
            .unwrap_or(0);
        let mut learned = false;
        for (index, in_use, permille) in suspects {
            let meter = &mut self.meters[index];
            let is_meant = if finds {
                !meter.is_known() && in_use > 0
            } else {
                let is_near = permille * 100 >= fullest * NEAR;
                meter.is_known() && (is_near || meter.was_refused_at(in_use))
            };
            if is_meant {
                // It would not have fitted: on average, half of it would.
                let own = own.amount(meter.dimension()).value();
                let mut in_use = in_use.saturating_add((own / 2).min(in_use / 2));
                if meter.taking() == Taking::AsGenerated && !meter.is_known() {
                    // More is on its way, and none of it may have been the reason.
                    in_use = in_use.saturating_add(in_use / 8);
                }
                meter.learn(now, sent, in_use);
                notices.push(Notice::LimitChanged(meter.name()));
                learned = true;
            }
        }
        learned
    }

    /// Learns from those refused who were sent with one that a delay explained: so many are not late.
    fn learn_late(&mut self, now: u64, sent: u64, refused: &RateLimited, notices: &mut Vec<Notice>) -> bool {
        let not_accepted = self.lessons.refused_of(sent);
        if !self.learn(now, sent, &Charge::ZERO, refused, notices) {
            return false;
        }
        for meter in &mut self.meters {
            if meter.is_trial() && meter.dimension() == Dimension::Requests {
                meter.refund(sent, not_accepted);
            }
        }
        true
    }

    /// Returns whether a refusal for rate breaks a promise: whether the limit was known, and not by trying.
    fn was_promised(&self, flight: &InFlight, refused: &RateLimited) -> bool {
        let span = self.span(refused);
        let (mut told, mut open, mut full) = (false, false, false);
        for meter in self
            .meters
            .iter()
            .filter(|meter| is_suspect(meter, refused, span, u64::MAX))
        {
            if meter.is_known() && !meter.is_trial() {
                told = true;
                let in_use = u128::from(meter.in_use_at(flight.granted));
                full |= in_use * 100 >= u128::from(meter.amount()) * NEAR;
            } else {
                open = true;
            }
        }
        told && (full || !open)
    }

    fn accelerated(&mut self, now: u64, flight: &InFlight, refused: &RateLimited, notices: &mut Vec<Notice>) {
        let minute = self.minute.max(1);
        // A little after the boundary of our clock, since the provider's may be behind.
        let boundary = (now / minute + 1)
            .saturating_mul(minute)
            .saturating_add(self.margin.current(minute));
        let pause = match refused.retry_after {
            Some(wait) => now.saturating_add(micros(wait).min(HOLD_MAX)),
            None => boundary,
        };
        self.hold_until = self.hold_until.max(pause);
        let in_use = self
            .meters
            .iter()
            .filter(|meter| meter.dimension() == Dimension::InputTokens && !meter.is_passing())
            .map(|meter| meter.in_use_at(flight.granted))
            .max();
        let Some(amount) = refused.limit.map(Amount::value).or(in_use) else {
            return;
        };
        let step = refused
            .next_limit
            .and_then(|next| next.value().checked_sub(amount))
            .filter(|step| *step > 0)
            .unwrap_or(RAMP_STEP);
        let found = self.meters.iter().position(Meter::is_ramp);
        let index = match found {
            Some(index) => index,
            None if self.meters.len() < METERS_MAX => {
                let mut meter = Meter::ramp(now, minute, amount, step, boundary, &self.margin);
                meter.catch_up(&self.meters, self.in_flight);
                self.meters.push(meter);
                self.meters.len() - 1
            }
            None => return,
        };
        self.lessons.ramps = true;
        let meter = &mut self.meters[index];
        meter.ramp_on(now, amount, step, boundary);
        notices.push(Notice::LimitChanged(meter.name()));
    }

    fn crowded(&mut self, now: u64, flight: &InFlight, notices: &mut Vec<Notice>) {
        // Those ahead of it may have ended, and those behind it may have been faster.
        let ahead = u64::from(flight.ahead.max(self.in_flight));
        let found = self.meters.iter_mut().find(|meter| meter.is_crowd());
        if let Some(meter) = found {
            if meter.crowded(now, flight.granted, ahead) {
                notices.push(Notice::LimitChanged(meter.name()));
            }
        } else if self.meters.len() < METERS_MAX {
            let mut meter = Meter::crowd(now, ahead.max(1), &self.margin);
            // This request is let go of with the others that are in flight.
            meter.catch_up(&self.meters, self.in_flight.saturating_add(1));
            notices.push(Notice::LimitChanged(meter.name()));
            self.meters.push(meter);
        }
    }

    fn congested(&mut self, now: u64, refused: &RateLimited, notices: &mut Vec<Notice>) {
        let per_minute = self.lessons.per_minute(now);
        let has_evidence = self.lessons.has_evidence();
        let congestion = match &mut self.lessons.congestion {
            // While nothing is accepted at all, no pace is too fast: there is nothing to measure.
            Some(congestion) if !has_evidence => {
                congestion.stay(now);
                congestion
            }
            Some(congestion) => {
                congestion.refused(now, per_minute);
                congestion
            }
            none => none.insert(Box::new(Congestion::new(now, per_minute))),
        };
        if let Some(steady) = refused.steady {
            congestion.steady(now.saturating_add(micros(steady).min(HOLD_MAX)));
        }
        notices.push(Notice::Slowed {
            per_minute: congestion.per_minute(),
        });
    }

    /// Ends slow start once a limit is known.
    pub(super) fn end_slow_start(&mut self) {
        if self.lessons.is_probing() && !self.is_learning() {
            self.lessons.stop_probing();
        }
    }

    fn span(&self, refused: &RateLimited) -> Span {
        refused
            .window()
            .map_or(Span::Any, |window| Span::About(self.scaled(micros(window))))
    }
}

/// Returns whether a limit may be the one that refused.
fn is_suspect(meter: &Meter, refused: &RateLimited, span: Span, most: u64) -> bool {
    // "Too many tokens" may be said of any of them.
    let is_named = refused.dimension.is_none_or(|dimension| {
        let is_of_tokens = matches!(
            meter.dimension(),
            Dimension::InputTokens | Dimension::OutputTokens
        );
        dimension == meter.dimension() || (dimension == Dimension::Tokens && is_of_tokens)
    });
    let is_near = !matches!(span, Span::Any) || meter.window() <= most;
    is_named
        && is_near
        && span.allows(meter.window())
        && meter.dimension() != Dimension::Concurrency
        && !meter.is_passing()
}
