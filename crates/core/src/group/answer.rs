//! What an answer tells: the delay to the provider, its limits, and who else uses them.

use alloc::vec::Vec;

use super::{Group, HOLD_MAX, InFlight};
use crate::margin::delay_sample;
use crate::meter::{Meter, Revealed};
use crate::output::Notice;
use crate::signal::{RateLimited, Reading, UpstreamSignal};
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
        for dimension in Dimension::ALL {
            if let Some(reading) = signal.readings.reading(dimension) {
                let own = flight.charge.amount(dimension).value();
                let span = reading
                    .reset
                    .map_or(Span::Any, |reset| Span::AtLeast(micros(reset)));
                let revealed = self.read(now, flight.granted, own, dimension, reading, span, notices);
                room |= revealed.is_some_and(|revealed| revealed.room || revealed.amount);
            }
        }
        room
    }

    /// Learns from a refusal for rate, and pauses the group until the provider wants to hear of it again.
    pub(super) fn rate_limited(
        &mut self,
        now: u64,
        flight: &InFlight,
        refused: &RateLimited,
        pause: u64,
        notices: &mut Vec<Notice>,
    ) {
        self.totals.promises_broken += 1;
        notices.push(Notice::PromiseBroken {
            dimension: refused.dimension,
        });
        let wait = refused.retry_after.map_or(pause, micros).min(HOLD_MAX);
        self.hold_until = self.hold_until.max(now.saturating_add(wait.max(1_000)));
        let mut explained = false;
        if let (Some(dimension), Some(limit), Some(used)) = (refused.dimension, refused.limit, refused.used) {
            let reading = Reading {
                limit: Some(limit),
                remaining: Some(limit.saturating_sub(used)),
                ..Reading::default()
            };
            let span = refused
                .window()
                .map_or(Span::Any, |window| Span::About(micros(window)));
            explained = match self.read(now, flight.granted, 0, dimension, &reading, span, notices) {
                Some(revealed) => revealed.foreign > 0,
                // A limit of another window, which is not in the plan: no margin would have helped.
                None => true,
            };
        }
        if !explained {
            self.margin.refused(now);
            self.refresh_margin(now);
        }
        if self.is_learning() {
            self.learning_window = (self.learning_window / 2).max(1);
        }
        for meter in self.meters.iter_mut().filter(|meter| meter.is_known()) {
            let until = self
                .hold_until
                .saturating_add(meter.window().saturating_mul(2).min(HOLD_MAX));
            meter.pace(now, until);
        }
    }

    /// Reads one dimension of an answer; `None` if it is about no limit of this group.
    #[allow(clippy::too_many_arguments, reason = "an answer's parts, handed on")]
    fn read(
        &mut self,
        now: u64,
        sent: u64,
        own: u64,
        dimension: Dimension,
        reading: &Reading,
        span: Span,
        notices: &mut Vec<Notice>,
    ) -> Option<Revealed> {
        let meter = meter_of(&mut self.meters, self.minute, dimension, reading, span)?;
        meter.advance(now);
        let revealed = meter.read(now, sent, own, reading);
        if revealed.amount {
            notices.push(Notice::LimitChanged(meter.name()));
        }
        if revealed.foreign > 0 {
            notices.push(Notice::ForeignTraffic {
                dimension,
                amount: Amount::new(revealed.foreign),
            });
        }
        Some(revealed)
    }

    fn refresh_margin(&mut self, now: u64) {
        self.margin.decay(now);
        for meter in &mut self.meters {
            let margin = self.margin.current(meter.window());
            meter.set_margin(now, margin);
        }
    }
}

/// What is known of the window of a limit that somebody tells of, in microseconds.
#[derive(Debug, Clone, Copy)]
enum Span {
    Any,
    /// It is whole again only after this time: no shorter window takes so long.
    AtLeast(u64),
    /// It is about so long.
    About(u64),
}

impl Span {
    /// Returns whether a window may be meant, with room for rounding to whole seconds.
    const fn allows(self, window: u64) -> bool {
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

/// Finds the meter that a reading is about: among those of its dimension and span the one with the very amount, else
/// the one whose window is nearest to the provider's minute.
fn meter_of<'a>(
    meters: &'a mut [Meter],
    minute: u64,
    dimension: Dimension,
    reading: &Reading,
    span: Span,
) -> Option<&'a mut Meter> {
    let amount = reading.limit.map(Amount::value);
    meters
        .iter_mut()
        .filter(|meter| meter.dimension() == dimension && span.allows(meter.window()))
        .min_by_key(|meter| (Some(meter.amount()) != amount, meter.window().abs_diff(minute)))
}
