//! A quota group as people see it.

use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;

use super::Group;
use crate::charge::Charge;
use crate::meter::{Earliest, Meter};
use crate::queue::{Flow, Place, WINDOW_COST};
use crate::snapshot::{QuotaSnapshot, SHARES_SHOWN, ShareSnapshot, WAITING_SHOWN, WaitingSnapshot};
use crate::time::Timestamp;
use crate::units::Bytes;

impl Group {
    /// Returns the group as people see it.
    pub(crate) fn snapshot(&self, now: u64) -> QuotaSnapshot {
        let limits = self
            .meters
            .iter()
            .filter(|meter| meter.is_known())
            .map(Meter::snapshot);
        QuotaSnapshot {
            key: self.key,
            name: self.name.clone(),
            limits: limits.collect(),
            waiting: self.queue.len(),
            waiting_bytes: Bytes::new(self.queue.bytes()),
            first_waiting: self.first_waiting(now),
            shares: self.shares(now),
            in_flight: self.in_flight as usize,
            hold_until: (self.hold_until > now).then(|| Timestamp::from_micros(self.hold_until)),
            learning: self.is_learning(),
            outputs: self.projection.snapshots(),
            probing: self.lessons.probing(),
            congestion: self.lessons.congestion(now),
            spent_until: self.lessons.spent_until(now).map(Timestamp::from_micros),
            store: self.store_snapshot(),
            totals: self.totals,
        }
    }

    /// Returns the first of those who wait, in the order in which they are to be served.
    fn first_waiting(&self, now: u64) -> Vec<WaitingSnapshot> {
        let mut ahead = Charge::ZERO;
        let order = self.queue.in_order(WAITING_SHOWN);
        let places = order.iter().filter_map(|slot| self.queue.place(*slot));
        let one = |(index, place): (usize, &Place)| {
            // The times at which those before it will have been sent, if nobody leaves and nothing is settled.
            let waiting = &place.waiting;
            let need = self.need(&waiting.request.demand);
            let eta = match self.earliest(now, &ahead, &waiting.charge, &need).0 {
                Earliest::At(at) if !self.is_learning() => {
                    let pause = place.paused.unwrap_or_default();
                    Some(Timestamp::from_micros(at.max(self.hold_until).max(pause)))
                }
                _ => None,
            };
            ahead.add(&waiting.charge);
            WaitingSnapshot {
                place: index + 1,
                waited: Duration::from_micros(now.saturating_sub(waiting.arrived)),
                deadline: Timestamp::from_micros(waiting.deadline),
                reason: waiting.reason,
                eta,
                caller: waiting.request.caller,
            }
        };
        places.enumerate().map(one).collect()
    }

    /// Returns who uses the group, and who waits for it.
    fn shares(&self, now: u64) -> Vec<ShareSnapshot> {
        let share = |(_, flow): (u32, &Flow)| {
            let used = self.queue.recent(now, flow);
            ShareSnapshot {
                tenant: flow.tenant,
                priority: flow.priority,
                weight: flow.weight.get(),
                waiting: flow.waiting as usize,
                waiting_bytes: Bytes::new(flow.bytes),
                used_per_million: used.saturating_mul(1_000_000) / WINDOW_COST,
            }
        };
        let mut shares: Vec<_> = self
            .queue
            .flows()
            .map(share)
            .filter(|share| share.used_per_million > 0 || share.waiting > 0)
            .collect();
        shares.sort_by_key(|share| Reverse((share.used_per_million, share.waiting)));
        shares.truncate(SHARES_SHOWN);
        shares
    }
}
