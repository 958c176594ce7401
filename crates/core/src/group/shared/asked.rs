//! Requests that the ledger is asked to let go: which, what is taken for them meanwhile, and how they stand in line again.

use alloc::vec::Vec;

use super::{Group, SERVICE_BITS};
use crate::allowance::{Allowances, Allowed, Hold, Verdict};
use crate::caller::Caller;
use crate::charge::Charge;
use crate::group::eta::{Expectation, at_best};
use crate::ledger::{Ask, HEADS_MAX, LimitName};
use crate::queue::Cursor;

/// A request that the ledger is asked to let go.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) slot: u32,
    pub(super) arrival: u64,
    /// When it was taken out of the line, and everything it needs was taken.
    pub(super) at: u64,
    pub(super) charge: Charge,
    pub(super) allowed: Allowed,
    pub(super) hold: Hold,
    pub(super) caller: Caller,
    pub(super) cost: u64,
    pub(super) ask: Ask,
    /// Limit, what it takes, what it holds.
    pub(super) wants: Vec<(LimitName, u64, u64)>,
}

impl Group {
    /// Returns one who is first in a flow, and of whom the ledger does not know: it chooses among the flows of all replicas.
    pub(in crate::group) fn unknown_head(
        &mut self,
        now: u64,
        index: u32,
        allowances: &mut Allowances,
    ) -> Option<u32> {
        let shared = self.shared.as_ref()?;
        let mut known = shared.registered.len() + shared.asked.len();
        if known >= HEADS_MAX {
            return None;
        }
        for tier in self.queue.tier_order() {
            let mut cursor = Cursor::default();
            while let Some(flow) = self.queue.next_flow(tier, &mut cursor) {
                let Some((_, slot)) = self.queue.next_head_of(flow, None) else {
                    continue;
                };
                let Some(place) = self.queue.place(slot) else {
                    continue;
                };
                if shared.registered.contains(&(slot, place.arrival)) {
                    continue;
                }
                let (charge, allowed, hold) =
                    (place.waiting.charge, place.waiting.allowed, place.waiting.hold);
                let verdict = allowances.verdict(now, allowed, &charge, hold, index);
                if verdict == Verdict::Now && self.never_fits(now, &charge).is_none() {
                    return Some(slot);
                }
                known += 1;
                if known >= HEADS_MAX {
                    return None;
                }
            }
        }
        None
    }

    /// Takes somebody out of the line, with everything that they need, and asks the ledger whether they may go.
    pub(in crate::group) fn ask(&mut self, now: u64, slot: u32, allowances: &mut Allowances) {
        self.note_changes(now);
        let Some(place) = self.queue.place(slot) else {
            return;
        };
        let (arrival, flow, waiting) = (place.arrival, place.flow, place.waiting.clone());
        let need = self.need(&waiting.request.demand);
        let (service, since) = self.queue.flow(flow).map_or((1, waiting.arrived), |flow| {
            (flow.service(waiting.cost), flow.since(now, &waiting))
        });
        self.take(now, &waiting.charge);
        allowances.take(now, waiting.allowed, &waiting.charge, waiting.hold);
        self.queue.serve(now, flow, &waiting.charge, waiting.cost);
        self.queue.hand_in(slot);
        let mut wants = Vec::with_capacity(self.meters.len());
        for meter in &mut self.meters {
            meter.changes().for_each(drop);
            let charged = waiting.charge.amount(meter.dimension()).value();
            let (hold, take) = meter.claim(charged, &need);
            wants.push((meter.ledger_name(), take, hold));
        }
        let caller = waiting.request.caller;
        let Some(shared) = &mut self.shared else { return };
        let ask = Ask {
            tier: u8::try_from(caller.priority.index()).unwrap_or(3),
            tenant: caller.tenant.value(),
            cost: waiting.cost,
            service: (service >> SERVICE_BITS).max(1),
            arrived: shared.there(since),
            take: Vec::new(),
            hold: Vec::new(),
        };
        shared.asked.push(Asked {
            slot,
            arrival,
            at: now,
            charge: waiting.charge,
            allowed: waiting.allowed,
            hold: waiting.hold,
            caller,
            cost: waiting.cost,
            ask,
            wants,
        });
    }

    /// Puts somebody back in line who may not go yet, and gives back what was taken.
    pub(super) fn undo(&mut self, now: u64, asked: &Asked, from_meters: bool, allowances: &mut Allowances) {
        for meter in &mut self.meters {
            if meter.dimension() == crate::units::Dimension::Concurrency {
                meter.release(1);
            } else if from_meters && meter.taking() == crate::meter::Taking::AtOnce {
                meter.refund(asked.at, asked.charge.amount(meter.dimension()).value());
                meter.changes().for_each(drop);
            }
        }
        allowances.give_back(now, asked.at, asked.allowed, &asked.charge, asked.hold);
        let service = i64::try_from(asked.cost).unwrap_or(i64::MAX);
        let caller = asked.caller;
        self.queue
            .correct(now, (caller.priority, caller.tenant), -service);
        if self.queue.holds(asked.slot, asked.arrival) {
            self.queue.hand_back(asked.slot);
        }
    }

    /// Returns somebody who came when it was not known what others had charged, and will be too late for it, as would have
    /// been told at once.
    pub(in crate::group) fn surprised(
        &mut self,
        now: u64,
        allowances: &mut Allowances,
    ) -> Option<(u32, Expectation)> {
        while let Some((slot, arrival)) = self.shared.as_mut()?.surprised.pop() {
            if !self.queue.holds(slot, arrival) {
                continue;
            }
            let Some(place) = self.queue.place(slot) else {
                continue;
            };
            let (flow, waiting) = (place.flow, place.waiting.clone());
            let mut before = (Charge::ZERO, 0);
            let line = self
                .queue
                .flow(flow)
                .map(crate::queue::Flow::in_order)
                .unwrap_or_default();
            for (_, _, other) in line.iter().take_while(|(_, _, other)| *other != slot) {
                if let Some(other) = self.queue.place(*other) {
                    before.0.add(&other.waiting.charge);
                    before.1 += other.waiting.cost;
                }
            }
            let expected = self.expect_behind(now, flow, before, &waiting, false, allowances);
            if at_best(now, expected.eta, expected.reason) > waiting.deadline {
                return Some((slot, expected));
            }
        }
        None
    }
}
