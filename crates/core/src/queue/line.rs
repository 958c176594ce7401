//! Coming into the line, leaving it, and whose turn it is.

use alloc::vec::Vec;
use core::cmp::Reverse;

use super::{Flow, Place, Queue, Waiting};
use crate::allowance::Allowed;
use crate::caller::{Caller, Priority, RouteId};
use crate::charge::Charge;
use crate::decision::WaitReason;
use crate::request::Request;

/// Requests of which the larger takes less than four times as much as the smaller stand in one lane.
const CLASS_BITS: u32 = 2;

/// Deadlines of requests that have left are thrown away when they are more than this, and more than those that count.
const STALE_MAX: usize = 64;

/// Returns the lane for requests of a cost.
pub(crate) fn size_class(cost: u64) -> u8 {
    let class = cost.max(1).ilog2() / CLASS_BITS;
    u8::try_from(class).unwrap_or(u8::MAX)
}

/// Until when those pause of whom it is being asked elsewhere whether they may go.
const ASKED: u64 = u64::MAX;

/// Where a look through a tier stands.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cursor(Option<(u64, u64, u32)>);

impl Queue {
    /// Puts a request in line, at the place that its arrival or deadline gives it. Returns its place.
    pub(crate) fn join(&mut self, arrival: u64, flow: u32, waiting: Waiting) -> u32 {
        let slot = self.settle_in(arrival, flow, waiting, None);
        self.stand(slot);
        self.invariants();
        slot
    }

    /// Lets a request pause until `until` before it stands in line again.
    pub(crate) fn pause(&mut self, arrival: u64, flow: u32, until: u64, waiting: Waiting) -> u32 {
        let slot = self.settle_in(arrival, flow, waiting, Some(until));
        self.resume.insert((until, slot));
        self.invariants();
        slot
    }

    /// Puts those back in line whose pause is over.
    pub(crate) fn resume(&mut self, now: u64) {
        while let Some(&(until, slot)) = self.resume.first() {
            if until > now {
                break;
            }
            self.resume.pop_first();
            if let Some(place) = self.place_mut(slot) {
                place.paused = None;
                self.stand(slot);
            }
        }
    }

    /// Takes somebody out of the line of whom it is being asked elsewhere whether they may go.
    pub(crate) fn hand_in(&mut self, slot: u32) {
        if self.place(slot).is_none_or(|place| place.paused.is_some()) {
            return;
        }
        self.leave(slot);
        if let Some(place) = self.place_mut(slot) {
            place.paused = Some(ASKED);
        }
        self.resume.insert((ASKED, slot));
        self.invariants();
    }

    /// Puts somebody back in line, at their old place, who may not go yet.
    pub(crate) fn hand_back(&mut self, slot: u32) {
        if self.resume.remove(&(ASKED, slot)) {
            if let Some(place) = self.place_mut(slot) {
                place.paused = None;
            }
            self.stand(slot);
            self.invariants();
        }
    }

    /// Adopts the service that a flow has had at all replicas together, and whether that was counted.
    pub(crate) fn adopt_service(
        &mut self,
        now: u64,
        caller: (Priority, crate::caller::TenantId),
        tag: u64,
        is_counted: bool,
    ) {
        let Some(at) = self.index.get(&caller).copied() else {
            return;
        };
        let Some(flow) = self.flows.get_mut(at as usize).and_then(Option::as_mut) else {
            return;
        };
        let tier = &mut self.tiers[flow.priority.index()];
        let (is_ready, rank) = (flow.is_ready(), flow.rank(at));
        flow.adopt(now, self.clock, tag, is_counted);
        if is_ready {
            tier.ready.remove(&rank);
            tier.ready.insert(flow.rank(at));
        }
    }

    /// Returns when the next pause ends.
    pub(crate) fn next_resume(&self) -> Option<u64> {
        let until = self.resume.first().map(|(until, _)| *until);
        until.filter(|until| *until < ASKED)
    }

    /// Returns the next deadline.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        // Those of requests that have left were thrown away by `forget_deadlines`.
        self.deadlines.peek().map(|Reverse((deadline, ..))| *deadline)
    }

    /// Returns one whose deadline has passed.
    pub(crate) fn expired(&self, now: u64) -> Option<u32> {
        let Reverse((deadline, _, slot)) = self.deadlines.peek()?;
        (*deadline <= now).then_some(*slot)
    }

    /// Takes anyone out.
    pub(crate) fn remove(&mut self, slot: u32) -> Option<Place> {
        if let Some(until) = self.place(slot)?.paused {
            self.resume.remove(&(until, slot));
        } else {
            self.leave(slot);
        }
        let place = self.places.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        self.len -= 1;
        let bytes = place.waiting.request.bytes.value();
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(flow) = self.flow_mut(place.flow) {
            flow.waiting -= 1;
            flow.bytes = flow.bytes.saturating_sub(bytes);
        }
        self.forget_deadlines();
        self.invariants();
        Some(place)
    }

    /// Takes anyone out.
    pub(crate) fn pop(&mut self) -> Option<(u32, Place)> {
        let slot = self.places.iter().position(Option::is_some)?;
        let slot = u32::try_from(slot).ok()?;
        self.remove(slot).map(|place| (slot, place))
    }

    /// Weighs everybody anew.
    pub(crate) fn weigh(&mut self, weigh: impl Fn(&Request) -> (Charge, u64)) {
        for slot in 0..self.places.len() {
            let slot = u32::try_from(slot).unwrap_or(u32::MAX);
            let Some(place) = self.place(slot) else { continue };
            let (charge, cost) = weigh(&place.waiting.request);
            self.reweigh(slot, charge, cost);
        }
    }

    /// Gives somebody who waits another weight.
    pub(crate) fn reweigh(&mut self, slot: u32, charge: Charge, cost: u64) {
        let in_line = self.place(slot).is_some_and(|place| place.paused.is_none());
        if in_line {
            self.leave(slot);
        }
        if let Some(place) = self.place_mut(slot) {
            (place.waiting.charge, place.waiting.cost) = (charge, cost);
        }
        if in_line {
            self.stand(slot);
        }
    }

    fn settle_in(&mut self, arrival: u64, flow: u32, waiting: Waiting, paused: Option<u64>) -> u32 {
        let (deadline, bytes) = (waiting.deadline, waiting.request.bytes.value());
        let rank = self.flow(flow).map_or(0, |flow| flow.rank_of(&waiting));
        let place = Place {
            arrival,
            rank,
            flow,
            paused,
            waiting,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
        });
        self.places[slot as usize] = Some(place);
        self.len += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if let Some(flow) = self.flow_mut(flow) {
            flow.waiting += 1;
            flow.bytes = flow.bytes.saturating_add(bytes);
        }
        self.deadlines.push(Reverse((deadline, arrival, slot)));
        slot
    }

    /// Throws deadlines away that concern nobody any more.
    fn forget_deadlines(&mut self) {
        while let Some(Reverse((_, arrival, slot))) = self.deadlines.peek() {
            if self.holds(*slot, *arrival) {
                break;
            }
            self.deadlines.pop();
        }
        if self.deadlines.len() > 2 * self.len + STALE_MAX {
            let places = &self.places;
            self.deadlines.retain(|Reverse((_, arrival, slot))| {
                let place = places.get(*slot as usize).and_then(Option::as_ref);
                place.is_some_and(|place| place.arrival == *arrival)
            });
        }
    }

    /// Puts somebody into the lane where they belong.
    fn stand(&mut self, slot: u32) {
        let Some(place) = self.place(slot) else { return };
        let (at, arrival, rank) = (place.flow, place.arrival, place.rank);
        let (charge, cost, route) = (
            place.waiting.charge,
            place.waiting.cost,
            place.waiting.request.caller.route,
        );
        let Some(flow) = self.flows.get_mut(at as usize).and_then(Option::as_mut) else {
            return;
        };
        let tier = &mut self.tiers[flow.priority.index()];
        let (was_active, was_ready) = (flow.in_line() > 0, flow.is_ready());
        if !was_active {
            flow.tag = flow.tag.max(tier.floor());
            tier.weights += u64::from(flow.weight.get());
            tier.active += 1;
            // Lower tiers come behind whoever waits in any case.
            tier.kept_from_lower = tier.kept_from_lower.saturating_sub(flow.kept_from_lower);
            flow.kept_from_lower = 0;
        }
        let lane = flow.lane(route, size_class(cost));
        flow.lanes[lane].line.insert((rank, arrival, slot));
        flow.demand.add(&charge);
        flow.cost += cost;
        tier.demand.add(&charge);
        tier.cost += cost;
        tier.in_line += 1;
        self.in_line += 1;
        if !was_ready && flow.is_ready() {
            tier.ready.insert(flow.rank(at));
        }
    }

    /// Takes somebody out of the lane.
    fn leave(&mut self, slot: u32) {
        let Some(place) = self.place(slot) else { return };
        let (at, arrival, rank) = (place.flow, place.arrival, place.rank);
        let (charge, cost, route) = (
            place.waiting.charge,
            place.waiting.cost,
            place.waiting.request.caller.route,
        );
        let Some(flow) = self.flows.get_mut(at as usize).and_then(Option::as_mut) else {
            return;
        };
        let tier = &mut self.tiers[flow.priority.index()];
        let was_ready = flow.is_ready();
        let class = size_class(cost);
        let mut unblocked = None;
        for (number, lane) in (0..).zip(&mut flow.lanes) {
            if lane.route == route && lane.class == class && lane.line.remove(&(rank, arrival, slot)) {
                if lane.line.is_empty() {
                    unblocked = lane.blocked.take().map(|until| (until, at, number));
                }
                break;
            }
        }
        if let Some(entry) = unblocked {
            self.blocked.remove(&entry);
        }
        flow.demand.subtract(&charge);
        flow.cost -= cost;
        tier.demand.subtract(&charge);
        tier.cost -= cost;
        tier.in_line -= 1;
        self.in_line -= 1;
        if tier.in_line == 0 {
            tier.since = None;
            tier.credit = 0;
        }
        if flow.in_line() == 0 {
            flow.active_since = None;
            tier.active -= 1;
            tier.weights = tier.weights.saturating_sub(flow.weight.get().into());
        }
        if was_ready && !flow.is_ready() {
            tier.ready.remove(&flow.rank(at));
        }
    }

    /// Counts a request as served: its flow has had that much more, and tiers that wait have earned their part of it.
    pub(crate) fn serve(&mut self, now: u64, at: u32, charge: &Charge, cost: u64) {
        self.dispatches += 1;
        let (slot, number) = (self.clock.slot(now), self.dispatches);
        let Some(flow) = self.flows.get_mut(at as usize).and_then(Option::as_mut) else {
            return;
        };
        let served = flow.priority.index();
        let (was_ready, rank) = (flow.is_ready(), flow.rank(at));
        let tier = &mut self.tiers[served];
        if !was_ready && flow.in_line() == 0 {
            // It went at once, so it has not been lifted yet.
            flow.tag = flow.tag.max(tier.floor());
        }
        let first = tier.ready.first().map_or(flow.tag, |(tag, ..)| *tag);
        tier.virtual_time = tier.virtual_time.max(flow.tag.min(first));
        flow.tag = flow.tag.saturating_add(flow.service(cost));
        flow.served = number;
        tier.keep_less(flow, cost);
        if self.present > 1 {
            flow.note_mix(charge, cost);
        }
        flow.recent.add(slot, i64::try_from(cost).unwrap_or(i64::MAX));
        if was_ready {
            tier.ready.remove(&rank);
            tier.ready.insert(flow.rank(at));
        }
        for (other, tier) in self.tiers.iter_mut().enumerate() {
            tier.earn(cost);
            if other == served {
                tier.spend(cost);
            }
        }
    }

    /// Corrects the service of a flow once it is known what a request really took.
    pub(crate) fn correct(&mut self, now: u64, caller: (Priority, crate::caller::TenantId), by: i64) {
        if by == 0 {
            return;
        }
        let Some(at) = self.index.get(&caller).copied() else {
            return;
        };
        let slot = self.clock.slot(now);
        let Some(flow) = self.flows.get_mut(at as usize).and_then(Option::as_mut) else {
            return;
        };
        let tier = &mut self.tiers[flow.priority.index()];
        let (is_ready, rank) = (flow.is_ready(), flow.rank(at));
        let service = flow.service(by.unsigned_abs());
        // What is given back never puts it before those who have waited since.
        let least = tier.virtual_time.min(flow.tag);
        flow.tag = if by > 0 {
            flow.tag.saturating_add(service)
        } else {
            flow.tag.saturating_sub(service).max(least)
        };
        flow.recent.add(slot, by);
        if is_ready {
            tier.ready.remove(&rank);
            tier.ready.insert(flow.rank(at));
        }
    }

    /// Lets a flow wait until a time because its head cannot go before, or only what goes by the head's route.
    pub(crate) fn block(&mut self, slot: u32, until: u64, of_route: bool) {
        let Some(place) = self.place(slot) else { return };
        let (at, route) = (place.flow, place.waiting.request.caller.route);
        let Some(flow) = self.flows.get_mut(at as usize).and_then(Option::as_mut) else {
            return;
        };
        let (was_ready, rank) = (flow.is_ready(), flow.rank(at));
        for (number, lane) in (0..).zip(&mut flow.lanes) {
            if lane.is_open() && (!of_route || lane.route == route) {
                lane.blocked = Some(until);
                self.blocked.insert((until, at, number));
            }
        }
        if was_ready && !flow.is_ready() {
            self.tiers[flow.priority.index()].ready.remove(&rank);
        }
    }

    /// Returns whether nothing of its own holds somebody in line up.
    pub(crate) fn is_open(&self, slot: u32) -> bool {
        let Some(place) = self.place(slot) else {
            return false;
        };
        let class = size_class(place.waiting.cost);
        let route = place.waiting.request.caller.route;
        let lanes = self.flow(place.flow).map_or(&[][..], |flow| &flow.lanes);
        let lane = lanes
            .iter()
            .find(|lane| lane.route == route && lane.class == class);
        lane.is_some_and(super::flow::Lane::is_open)
    }

    /// Returns whether a request of a flow may go before all others of the flow: nobody is in line, or only for other
    /// routes that have no room.
    pub(crate) fn is_first(&self, flow: u32, route: RouteId) -> bool {
        let lanes = self.flow(flow).map_or(&[][..], |flow| &flow.lanes);
        let waits_elsewhere = |lane: &super::flow::Lane| lane.blocked.is_some() && lane.route != route;
        lanes
            .iter()
            .all(|lane| lane.line.is_empty() || waits_elsewhere(lane))
    }

    /// Opens the lanes whose time has come.
    pub(crate) fn unblock(&mut self, now: u64) {
        while let Some(&(until, flow, lane)) = self.blocked.first() {
            if until > now {
                break;
            }
            self.open(until, flow, lane);
        }
    }

    /// Returns when the next blocked lane opens.
    pub(crate) fn next_unblock(&self) -> Option<u64> {
        self.blocked.first().map(|(until, ..)| *until)
    }

    /// Opens every blocked lane of a tenant.
    pub(crate) fn unblock_tenant(&mut self, tenant: crate::caller::TenantId) {
        for priority in Priority::ALL {
            let Some(at) = self.index.get(&(priority, tenant)).copied() else {
                continue;
            };
            let Some(flow) = self.flow(at) else { continue };
            let blocked: Vec<_> = (0..)
                .zip(&flow.lanes)
                .filter_map(|(number, lane)| Some((lane.blocked?, number)))
                .collect();
            for (until, number) in blocked {
                self.open(until, at, number);
            }
        }
    }

    /// Opens blocked lanes of a route: those of the flows that are next, a few at a time.
    pub(crate) fn unblock_route(&mut self, route: RouteId) {
        let mut found: Vec<_> = self
            .blocked
            .iter()
            .filter_map(|&(until, at, number)| {
                let flow = self.flow(at)?;
                let lane = flow.lanes.get(number as usize)?;
                (lane.route == route).then_some((flow.priority, flow.tag, until, at, number))
            })
            .collect();
        found.sort_unstable();
        for (_, _, until, at, number) in found {
            self.open(until, at, number);
        }
    }

    fn open(&mut self, until: u64, at: u32, number: u32) {
        self.blocked.remove(&(until, at, number));
        let Some(flow) = self.flows.get_mut(at as usize).and_then(Option::as_mut) else {
            return;
        };
        let (was_ready, rank) = (flow.is_ready(), flow.rank(at));
        if let Some(lane) = flow.lanes.get_mut(number as usize) {
            lane.blocked = None;
        }
        if !was_ready && flow.is_ready() {
            self.tiers[flow.priority.index()].ready.insert(rank);
        }
    }

    /// Returns the tiers in the order in which they are served: those that have earned it by waiting, then by rank.
    pub(crate) fn tier_order(&self) -> [usize; 4] {
        let mut order = [0, 1, 2, 3];
        if self.tiers.iter().all(|tier| !tier.has_earned(1)) {
            return order;
        }
        let head_cost = |tier: usize| {
            let (.., flow) = self.tiers[tier].ready.first()?;
            let (.., slot) = self.flow(*flow)?.head()?;
            Some(self.place(slot)?.waiting.cost)
        };
        let earned = |tier: usize| head_cost(tier).is_some_and(|cost| self.tiers[tier].has_earned(cost));
        let is_due = [false, earned(1), earned(2), earned(3)];
        if is_due.contains(&true) {
            order.sort_by_key(|tier| (!is_due[*tier], *tier));
        }
        order
    }

    /// Returns the next flow of a tier that may be served.
    pub(crate) fn next_flow(&self, tier: usize, cursor: &mut Cursor) -> Option<u32> {
        use core::ops::Bound::{Excluded, Unbounded};
        let ready = &self.tiers.get(tier)?.ready;
        let next = match cursor.0 {
            None => ready.first(),
            Some(last) => ready.range((Excluded(last), Unbounded)).next(),
        };
        cursor.0 = next.copied();
        next.map(|(.., flow)| *flow)
    }

    /// Returns the first of each lane of a flow that may go, behind `after` in the order of the flow.
    pub(crate) fn next_head_of(&self, flow: u32, after: Option<(u64, u64)>) -> Option<((u64, u64), u32)> {
        let lanes = self.flow(flow)?.lanes.iter().filter(|lane| lane.is_open());
        let heads = lanes.filter_map(|lane| lane.line.first().copied());
        heads
            .filter(|(rank, arrival, _)| after.is_none_or(|after| (*rank, *arrival) > after))
            .min()
            .map(|(rank, arrival, slot)| ((rank, arrival), slot))
    }

    /// Returns the newest request of the flow with the most requests waiting, and how many those are.
    pub(crate) fn newest_of_largest(&self) -> Option<(u32, usize)> {
        let (at, flow) = self
            .flows()
            .max_by_key(|(at, flow)| (flow.waiting, Reverse(*at)))?;
        let own = self.places().filter(|(_, place)| place.flow == at);
        let (slot, _) = own.max_by_key(|(_, place)| place.arrival)?;
        Some((slot, flow.waiting as usize))
    }

    /// Returns everybody who waits.
    pub(crate) fn places(&self) -> impl Iterator<Item = (u32, &Place)> {
        (0..)
            .zip(&self.places)
            .filter_map(|(slot, place)| Some((slot, place.as_ref()?)))
    }

    /// Looks up anew which allowances everybody is under.
    pub(crate) fn allow(&mut self, mut allowed: impl FnMut(Caller) -> Allowed) {
        for place in self.places.iter_mut().flatten() {
            place.waiting.allowed = allowed(place.waiting.request.caller);
        }
    }

    /// Takes note of tiers that have somebody in line from now on.
    pub(crate) fn note_since(&mut self, now: u64) {
        for tier in &mut self.tiers {
            if tier.in_line > 0 && tier.since.is_none() {
                tier.since = Some(now);
            }
        }
    }

    /// Returns what those take who stand before a request of a flow.
    pub(crate) fn before(&self, at: u32, waiting: &Waiting) -> (Charge, u64) {
        let mut before = (Charge::ZERO, 0);
        let Some(flow) = self.flow(at) else { return before };
        let rank = (flow.rank_of(waiting).saturating_add(1), 0, 0);
        for (.., slot) in flow.lanes.iter().flat_map(|lane| lane.line.range(..rank)) {
            if let Some(place) = self.place(*slot) {
                before.0.add(&place.waiting.charge);
                before.1 += place.waiting.cost;
            }
        }
        before
    }

    /// Returns the flows of tiers that were never empty in a whole window, but for the batch tier: nobody waits for that.
    pub(crate) fn overloaded(&self, now: u64) -> Vec<u32> {
        let window = self.clock.window();
        let is_overloaded = |priority: Priority| {
            let since = self.tiers[priority.index()].since;
            priority != Priority::Batch && since.is_some_and(|since| now.saturating_sub(since) >= window)
        };
        let flows = self
            .flows()
            .filter(|(_, flow)| flow.cost > 0 && is_overloaded(flow.priority));
        flows.map(|(at, _)| at).collect()
    }

    /// Returns the first of those in line, in the order in which they are to be served if nobody comes or leaves, and
    /// everybody else behind them.
    pub(crate) fn in_order(&self, most: usize) -> Vec<u32> {
        let mut order = Vec::new();
        for priority in Priority::ALL {
            let flows = self
                .flows()
                .filter(|(_, flow)| flow.priority == priority && flow.cost > 0);
            let mut lines: Vec<_> = flows
                .map(|(_, flow)| (flow.tag, flow.served, flow, flow.in_order()))
                .filter_map(|(tag, served, flow, mut line)| {
                    line.truncate(most);
                    line.reverse();
                    line.last()?;
                    Some((tag, served, flow, line))
                })
                .collect();
            while order.len() < most
                && let Some(next) = lines.iter_mut().min_by_key(|(tag, served, ..)| (*tag, *served))
            {
                let Some((.., slot)) = next.3.pop() else {
                    // Everybody of this flow is in the order.
                    lines.retain(|(.., line)| !line.is_empty());
                    continue;
                };
                let cost = self.place(slot).map_or(0, |place| place.waiting.cost);
                next.0 = next.0.saturating_add(next.2.service(cost));
                next.1 = u64::MAX;
                order.push(slot);
            }
        }
        let paused = self.resume.iter().map(|(_, slot)| *slot);
        order.extend(paused.take(most - order.len().min(most)));
        order
    }

    /// Says what somebody waits for, if they did not wait for something of their own before.
    pub(crate) fn note_reason(&mut self, slot: u32, reason: WaitReason) {
        if let Some(place) = self.place_mut(slot)
            && matches!(place.waiting.reason, WaitReason::Line | WaitReason::Store)
        {
            place.waiting.reason = reason;
        }
    }
}

impl Flow {
    /// Returns everybody in line, in the order of the flow: rank, arrival and place.
    pub(crate) fn in_order(&self) -> Vec<(u64, u64, u32)> {
        let mut line: Vec<_> = self
            .lanes
            .iter()
            .flat_map(|lane| lane.line.iter().copied())
            .collect();
        line.sort_unstable();
        line
    }
}
