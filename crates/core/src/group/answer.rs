//! What an answer tells: the delay to the provider, its limits, and who else uses them.

use alloc::vec::Vec;

use super::{Group, HOLD_MAX, InFlight};
use crate::margin::delay_sample;
use crate::meter::Meter;
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
                room |= self.read(now, flight.granted, own, dimension, reading, notices).0;
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
            let remaining = limit.saturating_sub(used);
            let reading = Reading {
                limit: Some(limit),
                remaining: Some(remaining),
                ..Reading::default()
            };
            explained = self.read(now, flight.granted, 0, dimension, &reading, notices).1;
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

    /// Reads one dimension of an answer. Returns whether room was found, and whether others' use was.
    fn read(
        &mut self,
        now: u64,
        sent: u64,
        own: u64,
        dimension: Dimension,
        reading: &Reading,
        notices: &mut Vec<Notice>,
    ) -> (bool, bool) {
        let Some(meter) = meter_of(&mut self.meters, self.minute, dimension, reading) else {
            return (false, false);
        };
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
        (revealed.room || revealed.amount, revealed.foreign > 0)
    }

    fn refresh_margin(&mut self, now: u64) {
        self.margin.decay(now);
        for meter in &mut self.meters {
            let margin = self.margin.current(meter.window());
            meter.set_margin(now, margin);
        }
    }
}

/// Finds the meter that a reading is about: the one with the very amount, else the one whose window is nearest to the
/// provider's minute.
fn meter_of<'a>(
    meters: &'a mut [Meter],
    minute: u64,
    dimension: Dimension,
    reading: &Reading,
) -> Option<&'a mut Meter> {
    let amount = reading.limit.map(Amount::value);
    let same = meters
        .iter()
        .position(|meter| meter.dimension() == dimension && Some(meter.amount()) == amount);
    let index = same.or_else(|| {
        let candidates = meters
            .iter()
            .enumerate()
            .filter(|(_, meter)| meter.dimension() == dimension);
        candidates
            .min_by_key(|(_, meter)| meter.window().abs_diff(minute))
            .map(|(index, _)| index)
    })?;
    meters.get_mut(index)
}
