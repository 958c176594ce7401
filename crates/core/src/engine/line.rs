//! Coming into a group's line and leaving it without being sent: places, bounds, and callers that are told to come back.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::Engine;
use crate::caller::Caller;
use crate::charge::Charge;
use crate::decision::{Decision, Refusal, RefusalReason, Ticket, TicketId};
use crate::group::Expectation;
use crate::output::Output;
use crate::queue::{Place, Waiting};
use crate::time::{Timestamp, micros};

/// What a flow holds while it waits: its bytes, and its requests with arrival, place and bytes.
#[derive(Debug, Default)]
struct Holder {
    bytes: u64,
    line: Vec<(u64, u32, u64)>,
}

impl Engine {
    /// Tells a caller when to come back, and keeps its place in line until then.
    pub(super) fn put_off(&mut self, index: u32, waiting: &Waiting, turn: u64, refusal: Refusal) -> Decision {
        self.arrivals += 1;
        self.groups[index as usize].totals.refused += 1;
        if let (Some(identity), Some(wait)) = (waiting.request.identity, refusal.retry_after) {
            let caller = waiting.request.caller;
            self.expect_back(
                index,
                identity,
                (self.arrivals, caller),
                (turn, wait),
                waiting.charge,
            );
        }
        Decision::Refuse(refusal)
    }

    /// Expects a caller back after a wait, at this place in line and for this turn.
    pub(super) fn expect_back(
        &mut self,
        index: u32,
        identity: u64,
        place: (u64, Caller),
        (turn, wait): (u64, Duration),
        charge: Charge,
    ) {
        let queue = &mut self.groups[index as usize].queue;
        let clock = queue.clock;
        queue
            .promises
            .give(self.now, clock, identity, place, (turn, micros(wait)), charge);
    }

    /// Puts a request in line.
    pub(super) fn line_up(
        &mut self,
        index: u32,
        flow: u32,
        waiting: Waiting,
        expected: &Expectation,
    ) -> Ticket {
        let arrival = self.arrivals + 1;
        self.arrivals = arrival;
        self.bytes_waiting = self.bytes_waiting.saturating_add(waiting.request.bytes.value());
        let (now, deadline, reason) = (self.now, waiting.deadline, waiting.reason);
        let group = &mut self.groups[index as usize];
        let could_go = group.could_go(now, &waiting);
        let slot = group.queue.join(arrival, flow, waiting);
        // Behind others nothing changes but, perhaps, the next deadline.
        if could_go || group.may_change(flow) {
            group.is_fresh_again();
            self.pump(index);
        } else if group.wake.is_none_or(|(at, _)| at > deadline) {
            self.rearm(index);
        }
        Ticket {
            id: TicketId {
                arrival,
                group: index,
                slot,
            },
            eta: Timestamp::from_micros(expected.eta),
            reason,
            place: expected.place,
            is_own: expected.is_own,
        }
    }

    /// Makes room for one more to wait, at the cost of the newest requests of whoever has the most waiting. Returns why there
    /// is none if that is the one who comes; then nobody else leaves either.
    pub(super) fn make_room(&mut self, index: u32, flow: u32, waiting: &Waiting) -> Option<RefusalReason> {
        let bounds = self.plan.queue;
        let bytes = waiting.request.bytes.value();
        let queue = &self.groups[index as usize].queue;
        let mut leaving = Vec::new();
        let mut free = 0;
        if queue.len() >= bounds.requests_max {
            let own = queue.flow(flow).map_or(0, |flow| flow.waiting as usize);
            match queue
                .newest_of_largest()
                .filter(|(_, waiting)| *waiting > own + 1)
            {
                Some((slot, _)) => {
                    free = queue
                        .place(slot)
                        .map_or(0, |place| place.waiting.request.bytes.value());
                    leaving.push((index, slot));
                }
                None => return Some(RefusalReason::QueueFull),
            }
        }
        let over = self
            .bytes_waiting
            .saturating_add(bytes)
            .saturating_sub(bounds.bytes_max);
        if over > free {
            match self.largest_in_bytes(index, flow, bytes, over - free, &leaving) {
                Some(more) => leaving.extend(more),
                None => return Some(RefusalReason::QueueBytes),
            }
        }
        let reason = if over > free {
            RefusalReason::QueueBytes
        } else {
            RefusalReason::QueueFull
        };
        for (at, slot) in leaving {
            self.push_out(at, slot, reason);
        }
        None
    }

    /// Returns the newest requests of the flows that hold the most bytes, until they hold so many together; `None` if the
    /// flow of whoever comes holds no less than those.
    fn largest_in_bytes(
        &self,
        index: u32,
        flow: u32,
        bytes: u64,
        needed: u64,
        leaving: &[(u32, u32)],
    ) -> Option<Vec<(u32, u32)>> {
        let own = self.groups[index as usize]
            .queue
            .flow(flow)
            .map_or(0, |flow| flow.bytes);
        let mut holders: BTreeMap<(u32, u32), Holder> = BTreeMap::new();
        for (at, group) in (0..).zip(&self.groups) {
            let waiting = group.queue.places();
            for (slot, place) in waiting.filter(|(slot, _)| !leaving.contains(&(at, *slot))) {
                let size = place.waiting.request.bytes.value();
                let holder = holders.entry((at, place.flow)).or_default();
                holder.bytes += size;
                holder.line.push((place.arrival, slot, size));
            }
        }
        for holder in holders.values_mut() {
            holder.line.sort_unstable();
        }
        let (mut found, mut freed) = (Vec::new(), 0);
        while freed < needed {
            let ((at, _), holder) = holders.iter_mut().max_by_key(|(_, holder)| holder.bytes)?;
            if holder.bytes <= own.saturating_add(bytes) {
                return None;
            }
            let (_, slot, size) = holder.line.pop()?;
            holder.bytes -= size;
            freed += size;
            found.push((*at, slot));
        }
        Some(found)
    }

    /// Refuses somebody who waits, in favor of somebody else.
    pub(super) fn push_out(&mut self, index: u32, slot: u32, reason: RefusalReason) {
        let now = self.now;
        let group = &mut self.groups[index as usize];
        let Some(place) = group.queue.remove(slot) else {
            return;
        };
        group.totals.refused += 1;
        let expected = group.expect_turn(now, place.flow, &place.waiting, &mut self.allowances);
        let refusal = expected.refusal(now, place.waiting.request.caller, reason);
        self.dismiss(index, slot, &place, refusal);
        // It may have been the head: others may fit now, and have to be woken for.
        self.pump(index);
    }

    /// Tells somebody who waited that they will not be sent.
    pub(super) fn dismiss(&mut self, index: u32, slot: u32, place: &Place, refusal: Refusal) {
        self.forget(place);
        if let (Some(identity), Some(wait)) = (place.waiting.request.identity, refusal.retry_after) {
            let caller = place.waiting.request.caller;
            let turn = self.now.saturating_add(micros(wait));
            self.expect_back(
                index,
                identity,
                (place.arrival, caller),
                (turn, wait),
                place.waiting.charge,
            );
        }
        self.outputs.push_back(Output::Refuse {
            ticket: TicketId {
                arrival: place.arrival,
                group: index,
                slot,
            },
            refusal,
        });
    }

    /// Forgets what somebody held while they waited.
    pub(super) fn forget(&mut self, place: &Place) {
        let request = &place.waiting.request;
        self.bytes_waiting = self.bytes_waiting.saturating_sub(request.bytes.value());
        if let Some(step) = &request.run {
            self.runs.leave(step, place.waiting.hold);
        }
    }
}
