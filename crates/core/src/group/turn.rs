//! Whose turn it is: the fair head, what it keeps for itself while it does not fit, and who may pass it.

use super::Group;
use crate::allowance::{Allowances, Verdict};
use crate::caller::Priority;
use crate::charge::Charge;
use crate::decision::{Refusal, RefusalReason, WaitReason};
use crate::limit::LimitRef;
use crate::meter::Earliest;
use crate::projection::Need;
use crate::queue::{Cursor, WINDOW_COST, Waiting};

/// The most requests that are looked at to pass a head that does not fit.
const PASSING_MAX: u32 = 32;

/// How long a request waits at most for something that nobody tells the time of, before it is looked at again, in
/// microseconds.
const EVENT_LOOK: u64 = 1_000_000;

/// Larger requests are not held back for others' sake: fewer than sixteen fill a window.
const LARGE_COST: u64 = WINDOW_COST / 16;

/// How long a request that leaves no room for others waits at most until it is looked at again, in microseconds.
const KEPT_LOOK: u64 = 1_000_000;

/// What is to be done with the line.
#[derive(Debug)]
pub(super) enum Turn {
    /// This one goes.
    Send(u32),
    /// This one will never go.
    Drop(u32, Refusal),
    /// Nobody can go now.
    Nobody,
}

/// The head that does not fit yet.
struct Head {
    slot: u32,
    tier: usize,
    flow: u32,
    charge: Charge,
    need: Need,
    earliest: Earliest,
    /// As much service as its flow will have had once it is served.
    served: u64,
}

/// What a look at one request needs to know.
struct Candidate {
    slot: u32,
    flow: u32,
    charge: Charge,
    cost: u64,
    need: Need,
}

/// What a look at one request came to.
enum Look {
    Goes,
    Dropped(Refusal),
    /// The whole flow waits for something of its own.
    FlowWaits,
    /// Others of the flow may go all the same.
    Waits,
    /// It weighs less now and is to be looked at anew.
    Again,
    DoesNotFit,
}

impl Group {
    /// Decides what happens next in the line.
    pub(super) fn turn(&mut self, now: u64, index: u32, allowances: &mut Allowances) -> Turn {
        let mut head: Option<Head> = None;
        let mut passing = 0;
        'line: for tier in self.queue.tier_order() {
            let mut kept = self.kept(now, tier);
            let kept_flow = kept.and_then(|slot| Some(self.queue.place(slot)?.flow));
            let mut cursor = Cursor::default();
            loop {
                let flow = match kept_flow.filter(|_| kept.is_some()) {
                    Some(flow) => flow,
                    None => match self.queue.next_flow(tier, &mut cursor) {
                        Some(flow) if Some(flow) == kept_flow => continue,
                        Some(flow) => flow,
                        None => break,
                    },
                };
                let mut after = None;
                loop {
                    let slot = match kept.take() {
                        Some(slot) => slot,
                        None => match self.queue.next_head_of(flow, after) {
                            Some((key, slot)) => {
                                after = Some(key);
                                slot
                            }
                            None => break,
                        },
                    };
                    if head.as_ref().is_some_and(|head| head.slot == slot) {
                        continue;
                    }
                    if head.is_some() {
                        passing += 1;
                        if passing > PASSING_MAX {
                            break 'line;
                        }
                    }
                    let Some(candidate) = self.candidate(slot) else {
                        break;
                    };
                    match self.look(now, index, &candidate, head.as_ref(), tier, allowances) {
                        Look::Goes => {
                            // Whoever passes leaves the head where it is.
                            self.head = head.and_then(|head| self.key_of(head.slot));
                            return Turn::Send(slot);
                        }
                        Look::Dropped(refusal) => return Turn::Drop(slot, refusal),
                        Look::FlowWaits => break,
                        Look::Waits => {}
                        Look::Again => after = None,
                        Look::DoesNotFit if head.is_none() => {
                            head = Some(self.head_of(now, tier, candidate));
                            if !self.meters.iter().all(crate::meter::Meter::has_room) {
                                break 'line;
                            }
                            after = None;
                        }
                        Look::DoesNotFit => {}
                    }
                }
            }
        }
        self.head = head.and_then(|head| self.key_of(head.slot));
        Turn::Nobody
    }

    fn key_of(&self, slot: u32) -> Option<(u32, u64)> {
        Some((slot, self.queue.place(slot)?.arrival))
    }

    /// Returns the head that keeps its place in a tier: the one that was first and did not fit. A small one of a flow that
    /// borrows gives way to flows that do not.
    fn kept(&mut self, now: u64, tier: usize) -> Option<u32> {
        let (slot, arrival) = self.head?;
        let place = self.queue.place(slot).filter(|place| place.arrival == arrival)?;
        if place.paused.is_some() || place.waiting.request.caller.priority.index() != tier {
            return None;
        }
        let (flow, cost) = (place.flow, place.waiting.cost);
        // A lane that waits for something of its own keeps nothing.
        if !self.queue.is_open(slot) {
            return None;
        }
        let first = self.queue.next_flow(tier, &mut Cursor::default())?;
        let gives_way = first != flow
            && cost <= LARGE_COST
            && self.queue.borrows(now, flow)
            && !self.queue.borrows(now, first);
        (!gives_way).then_some(slot)
    }

    fn candidate(&self, slot: u32) -> Option<Candidate> {
        let place = self.queue.place(slot)?;
        let waiting = &place.waiting;
        Some(Candidate {
            slot,
            flow: place.flow,
            charge: waiting.charge,
            cost: waiting.cost,
            need: self.need(&waiting.request.demand),
        })
    }

    fn head_of(&mut self, now: u64, tier: usize, candidate: Candidate) -> Head {
        let Candidate {
            slot,
            flow,
            charge,
            cost,
            need,
        } = candidate;
        self.press(now, &charge, &need);
        let served = self
            .queue
            .flow(flow)
            .map_or(0, |flow| flow.tag.saturating_add(flow.service(cost)));
        Head {
            slot,
            tier,
            flow,
            earliest: self.earliest(now, &Charge::ZERO, &charge, &need).0,
            charge,
            need,
            served,
        }
    }

    /// Looks whether one request may go.
    fn look(
        &mut self,
        now: u64,
        index: u32,
        candidate: &Candidate,
        head: Option<&Head>,
        tier: usize,
        allowances: &mut Allowances,
    ) -> Look {
        let Candidate {
            slot,
            ref charge,
            ref need,
            ..
        } = *candidate;
        // Most of those who might pass do not fit, and this is the cheapest thing to see.
        if head.is_some() && !self.fits(now, charge, need) {
            return Look::DoesNotFit;
        }
        let Some(place) = self.queue.place_mut(slot) else {
            return Look::Waits;
        };
        if allowances.are_gone(place.waiting.allowed) {
            place.waiting.allowed = allowances.of(now, place.waiting.request.caller);
        }
        let (allowed, hold) = (place.waiting.allowed, place.waiting.hold);
        let (until, reason) = match allowances.verdict(now, allowed, charge, hold, index) {
            Verdict::Now => (now, WaitReason::Line),
            Verdict::Later(until, reason) => (until, reason),
            Verdict::Event(reason) => (now.saturating_add(EVENT_LOOK), reason),
            Verdict::Refuse(refusal) => return Look::Dropped(refusal),
        };
        if until > now {
            self.queue.note_reason(slot, reason);
            let of_route = matches!(reason, WaitReason::Route(_));
            self.queue.block(slot, until, of_route);
            return if of_route { Look::Waits } else { Look::FlowWaits };
        }
        if let Some(limit) = self.never_fits(now, charge) {
            return self.cut(now, slot, limit);
        }
        let fits = self.fits(now, charge, need);
        if fits
            && !self.others_are_known()
            && let Some(until) = self.leaves_no_room(now, candidate)
        {
            self.queue.note_reason(slot, WaitReason::Share);
            self.queue.block(slot, until, false);
            return Look::FlowWaits;
        }
        match head {
            None if fits => Look::Goes,
            Some(head) if self.passes(now, candidate, head, tier) => Look::Goes,
            _ => Look::DoesNotFit,
        }
    }

    /// A limit was lowered while it waited: what it would only hold is cut to what fits, else it will never go.
    fn cut(&mut self, now: u64, slot: u32, limit: LimitRef) -> Look {
        let Some(place) = self.queue.place(slot) else {
            return Look::Waits;
        };
        let charge = self.charge_for(&place.waiting.request.demand);
        if self.never_fits(now, &charge).is_none() {
            let cost = self.cost_of(&charge);
            self.queue.reweigh(slot, charge, cost);
            return Look::Again;
        }
        Look::Dropped(Refusal {
            limit: Some(limit),
            ..Refusal::of(RefusalReason::NeverFits)
        })
    }

    /// Returns whether a request that fits may go before the head: only if the head goes no later for it, and, within the
    /// tier, only so far ahead in service as the head itself will be.
    fn passes(&self, now: u64, candidate: &Candidate, head: &Head, tier: usize) -> bool {
        if tier == head.tier && candidate.flow != head.flow {
            let after = self.queue.flow(candidate.flow).map_or(u64::MAX, |flow| {
                flow.tag.saturating_add(flow.service(candidate.cost))
            });
            if after > head.served {
                return false;
            }
        }
        let Earliest::At(at) = head.earliest else {
            return false;
        };
        match self.earliest(now, &candidate.charge, &head.charge, &head.need).0 {
            Earliest::At(then) => then <= at,
            Earliest::Event | Earliest::Never => false,
        }
    }

    /// Returns when to look again at a request that fits but leaves no room for others who do not wait now and will ask
    /// soon; `None` if it leaves enough.
    ///
    /// A large request is no flood: it may take what it fits into, or it would wait for far more room than it needs.
    fn leaves_no_room(&mut self, now: u64, candidate: &Candidate) -> Option<u64> {
        let &Candidate {
            flow,
            charge,
            cost,
            need,
            ..
        } = candidate;
        let until = self.room_is_left(now, flow, (&charge, cost), &Charge::ZERO, &need)?;
        Some(until.min(now.saturating_add(KEPT_LOOK)))
    }

    /// Returns when a request that is not in line yet leaves room for others, behind so much of its own flow; `None` if it
    /// does now.
    pub(super) fn full_until(
        &mut self,
        now: u64,
        flow: u32,
        waiting: &Waiting,
        own_before: &Charge,
        need: &Need,
    ) -> Option<u64> {
        self.room_is_left(now, flow, (&waiting.charge, waiting.cost), own_before, need)
    }

    fn room_is_left(
        &mut self,
        now: u64,
        flow: u32,
        (charge, cost): (&Charge, u64),
        own_before: &Charge,
        need: &Need,
    ) -> Option<u64> {
        if cost > LARGE_COST {
            return None;
        }
        let kept = self.queue.kept_free(now, flow);
        let is_batch = self
            .queue
            .flow(flow)
            .is_some_and(|flow| flow.priority == Priority::Batch);
        let is_spread = is_batch || self.queue.borrows(now, flow);
        if kept == 0 && !is_spread {
            return None;
        }
        let mut latest = now;
        for meter in &mut self.meters {
            let weight = charge.amount(meter.dimension()).value();
            let before = own_before.amount(meter.dimension()).value();
            let ahead = meter.part_of_amount(kept, WINDOW_COST).saturating_add(before);
            if let Earliest::At(at) = meter.earliest(now, ahead, weight, need) {
                latest = latest.max(at);
            }
            if is_spread {
                latest = latest.max(meter.even_at(now, before, weight));
            }
        }
        (latest > now).then_some(latest)
    }
}
