//! Those who are too late, or will be: they are told, and what it was that they waited for.

use super::eta::{at_best, refusal};
use super::{Group, Step};
use crate::allowance::Allowances;
use crate::charge::Charge;
use crate::decision::{RefusalReason, WaitReason};

/// The shortest time between two looks for those who will be too late, in microseconds.
const SHED_LOOK: u64 = 1_000_000;

/// The most requests that are looked at when it is looked for those who will be too late.
const SHED_MAX: usize = 500;

impl Group {
    /// Takes somebody out of the line whose deadline has passed, or whose quota is spent until after it.
    pub(super) fn expire(&mut self, now: u64, slot: u32, allowances: &mut Allowances) -> Step {
        let Some(place) = self.queue.remove(slot) else {
            return Step::Idle;
        };
        if place.waiting.deadline > now {
            return Step::Expire(slot, place, self.lessons.spent(now));
        }
        let expected = self.expect_turn(now, place.flow, &place.waiting, allowances);
        // What it waited for is what it is told; how long that still takes is another question.
        let caller = place.waiting.request.caller;
        let waited_for = self.waited_for(place.waiting.reason, expected.reason);
        let wait = expected.eta.saturating_sub(now);
        let refusal = refusal(caller, waited_for, wait, RefusalReason::Deadline);
        Step::Expire(slot, place, refusal)
    }

    /// Returns what somebody waited for: the store only if it is not there, for whoever was never asked for believes that.
    fn waited_for(&self, believed: WaitReason, otherwise: WaitReason) -> WaitReason {
        let reason = match believed {
            WaitReason::Store => otherwise,
            reason => reason,
        };
        self.waits_for_store().unwrap_or(reason)
    }

    /// Takes one of those out of the line who will be too late as things stand now, of tiers that have not been empty for a
    /// whole window: they are told now instead of then.
    pub(super) fn shed(&mut self, now: u64) -> Option<Step> {
        if now.saturating_sub(self.shed_at) < SHED_LOOK || self.queue.line_is_empty() {
            return None;
        }
        self.shed_at = now;
        let (slot, wait) = self.hopeless(now)?;
        let place = self.queue.remove(slot)?;
        // There may be more of them.
        self.shed_at = now - SHED_LOOK;
        let caller = place.waiting.request.caller;
        let waited_for = self.waited_for(place.waiting.reason, WaitReason::Line);
        let refusal = refusal(caller, waited_for, wait, RefusalReason::Deadline);
        Some(Step::Expire(slot, place, refusal))
    }

    /// Returns somebody who will be too late as things stand now, and how long they would still have to wait. At most
    /// [`SHED_MAX`] are looked at.
    fn hopeless(&self, now: u64) -> Option<(u32, u64)> {
        let mut looks = 0;
        for at in self.queue.overloaded(now) {
            let mut before = (Charge::ZERO, 0);
            for (_, _, slot) in self.queue.flow(at)?.in_order() {
                looks += 1;
                if looks > SHED_MAX {
                    return None;
                }
                let Some(place) = self.queue.place(slot) else {
                    continue;
                };
                let waiting = &place.waiting;
                let ahead = self.ahead(now, at, before, waiting.cost, now);
                let need = self.need(&waiting.request.demand);
                let (eta, reason) = self.eta(now, &ahead, &waiting.charge, &need);
                let wait = at_best(now, eta, reason).saturating_sub(now);
                // A tenth is left for what may change.
                if now.saturating_add(wait - wait / 10) > waiting.deadline {
                    return Some((slot, wait));
                }
                before.0.add(&waiting.charge);
                before.1 += waiting.cost;
            }
        }
        None
    }
}
