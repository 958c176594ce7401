//! What an answer tells: the delay to the provider, its limits, and who else uses them.

use alloc::vec::Vec;
use core::time::Duration;

use super::{Group, InFlight};
use crate::limit::{Discipline, LimitRef, LimitSource};
use crate::margin::delay_sample;
use crate::meter::{AMOUNT_MAX, Meter, Revealed, Taking};
use crate::output::Notice;
use crate::signal::{Reading, UpstreamSignal};
use crate::time::micros;
use crate::units::{Amount, Dimension};

impl Group {
    /// Takes note of the head of an answer. Returns whether room may have been found.
    pub(crate) fn observe(
        &mut self,
        now: u64,
        flight: &mut InFlight,
        signal: &UpstreamSignal,
        notices: &mut Vec<Notice>,
    ) -> bool {
        if core::mem::replace(&mut flight.observed, true) {
            return false;
        }
        self.margin.sample(delay_sample(
            now.saturating_sub(flight.granted),
            signal.processing,
        ));
        self.refresh_margin(now);
        let mut room = false;
        if self.is_learning() {
            self.learning_window = self.learning_window.saturating_add(1);
            room = true;
        }
        if let Some(cost) = signal.readings.cost {
            self.correct_cost(now, flight, cost);
            room = true;
        }
        for (dimension, reading) in signal.readings.iter() {
            let own = flight.charge.amount(dimension).value();
            let span = match (reading.window, reading.reset) {
                (Some(window), _) => Span::About(self.scaled(micros(window))),
                (None, Some(reset)) => Span::AtLeast(micros(reset)),
                (None, None) => Span::Any,
            };
            let told = Told {
                dimension,
                span,
                by: LimitSource::Header,
                refills: refills(reading, span),
            };
            let revealed = self.read(now, flight.granted, own, reading, told, notices);
            room |= revealed.is_some_and(|revealed| revealed.room || revealed.amount);
        }
        self.end_slow_start();
        room
    }

    /// Reads what is told of one limit; `None` if it is about no limit of this group and cannot become one.
    pub(super) fn read(
        &mut self,
        now: u64,
        sent: u64,
        own: u64,
        reading: &Reading,
        told: Told,
        notices: &mut Vec<Notice>,
    ) -> Option<Revealed> {
        let Told {
            dimension, span, by, ..
        } = told;
        self.doubt_hearsay(dimension, reading, span);
        if meter_of(&mut self.meters, self.minute, dimension, reading, span).is_none() {
            self.adopt(now, reading, told);
        }
        let meter = meter_of(&mut self.meters, self.minute, dimension, reading, span)?;
        meter.advance(now);
        let believed = meter.amount();
        let revealed = meter.read(now, sent, own, reading, by);
        let (name, in_use) = (meter.ledger_name(), meter.used());
        if revealed.amount {
            let limit = meter.name();
            if limit.amount < believed {
                // Refusals so far were for believing too much.
                self.margin.forgive();
                self.refresh_margin(now);
            }
            notices.push(Notice::LimitChanged(limit));
            self.corrected = now;
            self.share_out(now, limit, by);
        }
        if let Some(used) = revealed.used {
            self.note_used(name, used, in_use);
        }
        if revealed.foreign > 0 {
            notices.push(Notice::ForeignTraffic {
                dimension,
                amount: Amount::new(revealed.foreign),
            });
        }
        Some(revealed)
    }

    /// Makes a meter for a limit that somebody tells of and that is not in the plan: an amount and a window are needed.
    ///
    /// A window solved from the numbers of one header may be chance, and a limit of a day that is none would choke the
    /// group: two headers have to agree, and none between them may tell otherwise. A refusal is believed at once.
    fn adopt(&mut self, now: u64, reading: &Reading, told: Told) {
        let dimension = told.dimension;
        let (Some(limit), Span::About(window)) = (reading.limit, told.span) else {
            return;
        };
        if !self.learns || limit == Amount::ZERO || self.meters.len() >= METERS_MAX {
            return;
        }
        let heard = (dimension, window, limit);
        if told.by == LimitSource::Header && !self.hearsay.contains(&Some(heard)) {
            self.hearsay.rotate_right(1);
            self.hearsay[0] = Some(heard);
            return;
        }
        let discipline = if told.refills {
            Discipline::TokenBucket
        } else {
            self.discipline
        };
        let taking = Taking::of(&self.model, dimension);
        let mut meter = Meter::unlimited(
            now,
            dimension,
            Duration::from_micros(window),
            discipline,
            taking,
            &self.margin,
        );
        let nearest = self
            .meters
            .iter()
            .filter(|other| other.dimension() == dimension)
            .max_by_key(|other| other.window());
        if let Some(other) = nearest {
            meter.inherit(other);
            meter.hold(other.held());
        }
        self.meters.push(meter);
    }

    /// Forgets what a header told of a limit whose window this one contradicts: a bucket with so much in use, or at most one
    /// unit less, is whole again at another time.
    fn doubt_hearsay(&mut self, dimension: Dimension, reading: &Reading, span: Span) {
        let (Some(limit), Some(remaining), Some(reset)) = (reading.limit, reading.remaining, reading.reset)
        else {
            return;
        };
        let reset = u128::from(micros(reset));
        let used = limit.saturating_sub(remaining).value();
        for place in &mut self.hearsay {
            let Some((of, window, amount)) = *place else {
                continue;
            };
            let is_told_again = matches!(span, Span::About(told) if told == window);
            if of != dimension || amount != limit || is_told_again {
                continue;
            }
            let whole_after =
                |used: u64| u128::from(window) * u128::from(used) / u128::from(limit.value().max(1));
            let (least, most) = (whole_after(used.saturating_sub(1)), whole_after(used));
            let off = 1_000_000 + most / 100;
            if reset + off < least || reset > most + off {
                *place = None;
            }
        }
    }

    /// Gives the slices of a limit on requests their shares of its new amount.
    fn share_out(&mut self, now: u64, limit: LimitRef, by: LimitSource) {
        let window = micros(limit.window);
        if limit.dimension != Dimension::Requests || self.slice == 0 || window <= self.slice {
            return;
        }
        let share = u128::from(limit.amount) * u128::from(self.slice) / u128::from(window);
        let share = u64::try_from(share).unwrap_or(u64::MAX).max(1);
        let slices = self
            .meters
            .iter_mut()
            .filter(|meter| meter.dimension() == Dimension::Requests && meter.window() == self.slice);
        for meter in slices {
            meter.follow(now, share, by);
        }
    }

    /// Replaces the charge of a request by what the provider says it charged.
    fn correct_cost(&mut self, now: u64, flight: &mut InFlight, cost: Amount) {
        let cost = cost.value().min(AMOUNT_MAX);
        let charged = flight.charge.amount(Dimension::Tokens).value();
        for meter in self
            .meters
            .iter_mut()
            .filter(|meter| meter.dimension() == Dimension::Tokens)
        {
            meter.advance(now);
            if cost > charged {
                meter.charge(cost - charged);
            } else {
                meter.refund(flight.granted, charged - cost);
            }
        }
        flight.charge.set(Dimension::Tokens, Amount::new(cost));
        flight.cost = cost;
    }

    /// Returns a window in the time of this provider, whose minute may have another length.
    pub(super) const fn scaled(&self, window: u64) -> u64 {
        if window == MINUTE { self.minute } else { window }
    }

    pub(super) fn refresh_margin(&mut self, now: u64) {
        self.margin.decay(now);
        for meter in &mut self.meters {
            let margin = self.margin.current(meter.window());
            meter.set_margin(now, margin);
        }
    }
}

/// The most limits of one group: those of the plan, and those that answers told of.
pub(super) const METERS_MAX: usize = 16;

/// A minute, in microseconds.
const MINUTE: u64 = 60_000_000;

/// Which limit is told of, and by whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) dimension: Dimension,
    pub(super) span: Span,
    pub(super) by: LimitSource,
    /// Whether it is known to refill continuously.
    pub(super) refills: bool,
}

/// Returns whether a limit is whole again when as much has flowed in as is used: the law of a bucket that refills
/// continuously, `reset = window × used / limit` (providers.md §2.2), give or take a second and a percent.
fn refills(reading: &Reading, span: Span) -> bool {
    let (Some(limit), Some(remaining), Some(reset), Span::About(window)) =
        (reading.limit, reading.remaining, reading.reset, span)
    else {
        return false;
    };
    let reset = micros(reset);
    let used = limit.saturating_sub(remaining).value();
    let expected = u128::from(window) * u128::from(used) / u128::from(limit.value().max(1));
    expected.abs_diff(u128::from(reset)) <= 1_000_000 + u128::from(reset) / 100
}

/// What is known of the window of a limit that somebody tells of, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Span {
    Any,
    /// It is whole again only after this time: no shorter window takes so long.
    AtLeast(u64),
    /// It is about so long.
    About(u64),
}

impl Span {
    /// Returns whether a window may be meant, with room for rounding to whole seconds.
    pub(super) const fn allows(self, window: u64) -> bool {
        let generous = window.saturating_mul(2).saturating_add(1_000_000);
        match self {
            Self::Any => true,
            Self::AtLeast(reset) => reset <= generous,
            Self::About(span) => {
                span <= generous && window <= span.saturating_mul(2).saturating_add(1_000_000)
            }
        }
    }
}

/// Finds the meter that a reading is about: among those of its dimension and span the one with the very amount; else, where
/// all amounts are known, the one with the amount that is nearest in proportion (a limit on requests and its slices, told
/// without a window); else the one whose window is nearest to the provider's minute.
fn meter_of<'a>(
    meters: &'a mut [Meter],
    minute: u64,
    dimension: Dimension,
    reading: &Reading,
    span: Span,
) -> Option<&'a mut Meter> {
    let amount = reading.limit.map(Amount::value);
    let is_meant =
        |meter: &Meter| meter.dimension() == dimension && !meter.is_passing() && span.allows(meter.window());
    let all_known = meters.iter().filter(|meter| is_meant(meter)).all(Meter::is_known);
    let proportion = |meter: &Meter| match amount {
        Some(amount) if all_known => {
            let (low, high) = (amount.min(meter.amount()), amount.max(meter.amount()));
            u128::from(high) * 1_000 / u128::from(low.max(1))
        }
        _ => 0,
    };
    meters
        .iter_mut()
        .filter(|meter| is_meant(meter))
        .min_by_key(|meter| (proportion(meter), meter.window().abs_diff(minute)))
}
