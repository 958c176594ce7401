//! A quota group as people see it.

use alloc::vec::Vec;
use core::time::Duration;

use super::Group;
use crate::charge::Charge;
use crate::meter::Earliest;
use crate::snapshot::{LimitSnapshot, QuotaSnapshot, WAITING_SHOWN, WaitingSnapshot};
use crate::time::Timestamp;
use crate::units::{Amount, Bytes, Dimension};

impl Group {
    /// Returns the group as people see it.
    pub(crate) fn snapshot(&self, now: u64) -> QuotaSnapshot {
        let limits = self
            .meters
            .iter()
            .filter(|meter| meter.is_known())
            .map(|meter| LimitSnapshot {
                limit: meter.name(),
                discipline: meter.limit().discipline,
                source: meter.source(),
                told: Timestamp::from_micros(meter.told()),
                used: Amount::new(meter.used()),
                held: Amount::new(meter.held()),
                foreign: Amount::new(meter.foreign()),
                margin: Duration::from_micros(meter.margin()),
                growth: meter.growth(),
            });
        let mut ahead = Charge::ZERO;
        let first_waiting =
            self.queue
                .iter()
                .take(WAITING_SHOWN)
                .enumerate()
                .map(|(index, (arrival, waiting))| {
                    // The times at which those before it will have been sent, if nobody leaves and nothing is settled.
                    let need = self.need(&waiting.request.demand);
                    let eta = match self.earliest(now, &ahead, &waiting.charge, &need).0 {
                        Earliest::At(at) if !self.is_learning() => {
                            let pause = self.queue.pauses_until(arrival).unwrap_or_default();
                            Some(Timestamp::from_micros(at.max(self.hold_until).max(pause)))
                        }
                        _ => None,
                    };
                    for dimension in Dimension::ALL {
                        ahead.set(
                            dimension,
                            ahead.amount(dimension) + waiting.charge.amount(dimension),
                        );
                    }
                    WaitingSnapshot {
                        place: index + 1,
                        waited: Duration::from_micros(now.saturating_sub(waiting.arrived)),
                        deadline: Timestamp::from_micros(waiting.deadline),
                        reason: waiting.reason,
                        eta,
                        caller: waiting.request.caller,
                    }
                });
        QuotaSnapshot {
            key: self.key,
            name: self.name.clone(),
            limits: limits.collect(),
            waiting: self.queue.len(),
            waiting_bytes: Bytes::new(self.queue.bytes()),
            first_waiting: first_waiting.collect(),
            shares: Vec::new(),
            in_flight: self.in_flight as usize,
            hold_until: (self.hold_until > now).then(|| Timestamp::from_micros(self.hold_until)),
            learning: self.is_learning(),
            outputs: self.projection.snapshots(),
            probing: self.lessons.probing(),
            congestion: self.lessons.congestion(now),
            spent_until: self.lessons.spent_until(now).map(Timestamp::from_micros),
            totals: self.totals,
        }
    }
}
