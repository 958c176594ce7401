//! The waiting requests of one quota group: flows in priority tiers, and what each of them waits with.
//!
//! ```text
//!  tier high    ─ flow (tenant a) ─ lane (route, size) ─ requests in the order of the flow
//!  tier normal  ─ flow (tenant a) ─ …
//!               ─ flow (tenant b) ─ …
//! ```
//!
//! Within a tier the flow with the least service goes first (virtual token counter, theory.md §3.1). Lanes keep requests
//! of one route and about one size, so that a head which cannot go holds up neither other routes nor smaller requests.

mod flow;
mod line;
mod promise;
mod recent;
mod tier;

use alloc::collections::{BTreeMap, BTreeSet, BinaryHeap};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::num::NonZeroU32;

use crate::allowance::{Allowed, Hold};
use crate::caller::{Caller, Priority, TenantId};
use crate::charge::Charge;
use crate::decision::WaitReason;
use crate::plan::{Order, TierPlan};
use crate::request::Request;

pub(crate) use flow::Flow;
pub(crate) use line::Cursor;
use promise::Promises;
pub(crate) use recent::Clock;
pub(crate) use tier::Tier;

/// The cost of a whole window of the scarcest limit: costs are parts of it.
pub(crate) const WINDOW_COST: u64 = 1 << 30;

/// Flows that are looked at one by one for an estimate; of more, only their sum is.
const FLOWS_LOOKED_AT: usize = 32;

/// The most flows that are remembered in one group when nobody of them waits.
const FLOWS_MAX: usize = 10_000;

/// A request that waits.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) request: Request,
    /// What it will take.
    pub(crate) charge: Charge,
    /// The largest part that it takes of any limit, of [`WINDOW_COST`].
    pub(crate) cost: u64,
    /// Under which allowances it is.
    pub(crate) allowed: Allowed,
    /// What it may use of budgets.
    pub(crate) hold: Hold,
    /// Its place among all by the order of arrival; that of a caller that has come back is where it would have been.
    pub(crate) position: u64,
    /// When it came, in microseconds.
    pub(crate) arrived: u64,
    /// When nobody waits for it any more, in microseconds.
    pub(crate) deadline: u64,
    /// Attempts made so far.
    pub(crate) attempts: u32,
    /// What it waited for first.
    pub(crate) reason: WaitReason,
}

/// Where a waiting request stands.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) arrival: u64,
    /// What its flow orders by: its position or its deadline.
    rank: u64,
    pub(crate) flow: u32,
    /// Until when it pauses before another attempt; it stands in no lane until then.
    pub(crate) paused: Option<u64>,
    pub(crate) waiting: Waiting,
}

/// How a flow is served.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) weight: NonZeroU32,
    pub(crate) order: Order,
}

/// Everybody who waits, and everybody who was served lately.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    /// Those who wait; a place is used by one after the other.
    places: Vec<Option<Place>>,
    free: Vec<u32>,
    flows: Vec<Option<Flow>>,
    flows_free: Vec<u32>,
    index: BTreeMap<(Priority, TenantId), u32>,
    pub(crate) tiers: [Tier; 4],
    /// Lanes whose head cannot go before a time: that time, flow and lane.
    blocked: BTreeSet<(u64, u32, u32)>,
    /// Those who pause, by the end of the pause.
    resume: BTreeSet<(u64, u32)>,
    /// Deadlines with arrival and place; those of requests that have left are thrown away when they come up.
    deadlines: BinaryHeap<Reverse<(u64, u64, u32)>>,
    len: usize,
    /// How many stand in line.
    in_line: usize,
    bytes: u64,
    pub(crate) clock: Clock,
    /// Callers that were told when to come back.
    pub(crate) promises: Promises,
    /// Counts dispatches, so that among equals the one that was served longest ago goes first.
    dispatches: u64,
    /// The weights of all flows that are present.
    present_weight: u64,
    present: usize,
    swept: u64,
    /// The step in which it was last judged what everybody will use.
    judged: u64,
}

impl Queue {
    /// Makes an empty queue of a group whose window has this length, in microseconds.
    pub(crate) fn new(now: u64, window: u64, tiers: [TierPlan; 4]) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            flows: Vec::new(),
            flows_free: Vec::new(),
            index: BTreeMap::new(),
            tiers: tiers.map(Tier::new),
            blocked: BTreeSet::new(),
            resume: BTreeSet::new(),
            deadlines: BinaryHeap::new(),
            len: 0,
            in_line: 0,
            bytes: 0,
            clock: Clock::new(window),
            promises: Promises::default(),
            dispatches: 0,
            present_weight: 0,
            present: 0,
            swept: now,
            judged: u64::MAX,
        }
    }

    /// Returns how many wait, in line or pausing.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) const fn line_is_empty(&self) -> bool {
        self.in_line == 0
    }

    /// Returns whether somebody stands in line whom nothing but the group's own limits holds up.
    pub(crate) fn somebody_is_ready(&self) -> bool {
        self.tiers.iter().any(|tier| !tier.ready.is_empty())
    }

    /// Returns the bytes that all waiting requests hold.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn place(&self, slot: u32) -> Option<&Place> {
        self.places.get(slot as usize)?.as_ref()
    }

    pub(crate) fn place_mut(&mut self, slot: u32) -> Option<&mut Place> {
        self.places.get_mut(slot as usize)?.as_mut()
    }

    /// Returns the place of a ticket, if it is still its own.
    pub(crate) fn holds(&self, slot: u32, arrival: u64) -> bool {
        self.place(slot).is_some_and(|place| place.arrival == arrival)
    }

    pub(crate) fn flow(&self, flow: u32) -> Option<&Flow> {
        self.flows.get(flow as usize)?.as_ref()
    }

    pub(super) fn flow_mut(&mut self, flow: u32) -> Option<&mut Flow> {
        self.flows.get_mut(flow as usize)?.as_mut()
    }

    pub(crate) fn flows(&self) -> impl Iterator<Item = (u32, &Flow)> {
        (0..)
            .zip(&self.flows)
            .filter_map(|(at, flow)| Some((at, flow.as_ref()?)))
    }

    /// Returns how many requests of a tenant wait, over all tiers, and the bytes that they hold.
    pub(crate) fn waiting_of(&self, tenant: TenantId) -> (usize, u64) {
        let flows = Priority::ALL
            .iter()
            .filter_map(|tier| self.index.get(&(*tier, tenant)));
        flows
            .filter_map(|at| self.flow(*at))
            .fold((0, 0), |(count, bytes), flow| {
                (count + flow.waiting as usize, bytes + flow.bytes)
            })
    }

    /// Returns the flow of a caller, which is present from now on.
    pub(crate) fn enter(&mut self, now: u64, caller: Caller, terms: Terms) -> u32 {
        self.sweep(now);
        let key = (caller.priority, caller.tenant);
        let window = self.clock.window();
        if let Some(at) = self.index.get(&key).copied() {
            let present_weight = &mut self.present_weight;
            if let Some(flow) = self.flows.get_mut(at as usize).and_then(Option::as_mut) {
                let weight = u64::from(terms.weight.get());
                if !flow.is_present {
                    flow.is_present = true;
                    self.present += 1;
                    self.tiers[caller.priority.index()].present += 1;
                    *present_weight += weight;
                } else if flow.weight != terms.weight {
                    *present_weight = present_weight.saturating_sub(flow.weight.get().into()) + weight;
                }
                (flow.weight, flow.order) = (terms.weight, terms.order);
                flow.hear(now, window);
            }
            return at;
        }
        self.add(now, key, terms)
    }

    fn add(&mut self, now: u64, key: (Priority, TenantId), terms: Terms) -> u32 {
        if self.index.len() >= FLOWS_MAX {
            self.clear_idle();
        }
        let flow = Flow::new(now, key, terms);
        self.present += 1;
        self.tiers[key.0.index()].present += 1;
        self.present_weight += u64::from(terms.weight.get());
        let at = match self.flows_free.pop() {
            Some(at) => at,
            None => {
                self.flows.push(None);
                u32::try_from(self.flows.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.flows[at as usize] = Some(flow);
        self.index.insert(key, at);
        at
    }

    /// Forgets flows that nobody has heard of for ten windows, from time to time.
    fn sweep(&mut self, now: u64) {
        if now.saturating_sub(self.swept) < self.clock.window() {
            return;
        }
        self.swept = now;
        let latest = now.saturating_sub(self.clock.memory());
        for at in 0..self.flows.len() {
            let Some(flow) = &self.flows[at] else { continue };
            // What it owes is remembered until the others have caught up.
            let owes = flow.tag > self.tiers[flow.priority.index()].virtual_time;
            if flow.seen < latest && flow.waiting == 0 && !owes {
                self.forget(u32::try_from(at).unwrap_or(u32::MAX));
            }
        }
        self.invariants();
    }

    /// Forgets every flow of which nobody waits; there are more than can be remembered.
    fn clear_idle(&mut self) {
        for at in 0..self.flows.len() {
            if self.flows[at].as_ref().is_some_and(|flow| flow.waiting == 0) {
                self.forget(u32::try_from(at).unwrap_or(u32::MAX));
            }
        }
    }

    fn forget(&mut self, at: u32) {
        let Some(flow) = self.flows.get_mut(at as usize).and_then(Option::take) else {
            return;
        };
        debug_assert_eq!(flow.waiting, 0, "nobody who waits is forgotten");
        if flow.is_present {
            self.present -= 1;
            self.tiers[flow.priority.index()].present -= 1;
            self.present_weight = self.present_weight.saturating_sub(flow.weight.get().into());
        }
        self.index.remove(&(flow.priority, flow.tenant));
        self.flows_free.push(at);
    }

    /// Returns what a request of a flow has to leave free for others: what they usually use and have not used yet. Higher
    /// tiers are kept as much as they use; others of its own tier no more than their share, and only once it has its own.
    pub(crate) fn kept_free(&mut self, now: u64, at: u32) -> u64 {
        if self.present < 2 {
            return 0;
        }
        self.judge(now);
        let has_share = self.has_share(now, at);
        let Some(flow) = self.flow(at) else { return 0 };
        let tier = flow.priority.index();
        let higher: u64 = self.tiers[..tier].iter().map(|tier| tier.kept_from_lower).sum();
        let own = if has_share {
            self.tiers[tier].kept.saturating_sub(flow.kept)
        } else {
            0
        };
        higher.saturating_add(own).min(WINDOW_COST)
    }

    /// Returns whether a flow has used its share of the window.
    fn has_share(&mut self, now: u64, at: u32) -> bool {
        let (clock, all) = (self.clock, self.present_weight.max(1));
        self.flow_mut(at).is_some_and(|flow| {
            let fair = WINDOW_COST / all * u64::from(flow.weight.get());
            flow.recent.live(clock.slot(now)) >= fair
        })
    }

    /// Returns whether a flow used at least half of the window.
    pub(crate) fn uses_most(&self, now: u64, at: u32) -> bool {
        self.flow(at)
            .is_some_and(|flow| self.recent(now, flow).saturating_mul(2) >= WINDOW_COST)
    }

    /// Returns whether a flow has used its share of the window although others are present who do not wait now, or who have
    /// less than they usually use: what is beyond the share is borrowed from them.
    pub(crate) fn borrows(&mut self, now: u64, at: u32) -> bool {
        if self.present < 2 {
            return false;
        }
        self.judge(now);
        if self.present < 2 || !self.has_share(now, at) {
            return false;
        }
        let Some(flow) = self.flow(at) else { return false };
        let (waits, tier) = (usize::from(flow.in_line() > 0), flow.priority.index());
        if self.tiers[tier].kept > flow.kept {
            return true;
        }
        let tiers = &self.tiers[..=tier];
        let present: usize = tiers.iter().map(|tier| tier.present).sum();
        let waiting: usize = tiers.iter().map(|tier| tier.active).sum();
        // Nobody borrows from themselves.
        present - waiting > 1 - waits
    }

    /// Judges anew who is still there and what every flow will use soon, once a step.
    fn judge(&mut self, now: u64) {
        let (clock, slot) = (self.clock, self.clock.slot(now));
        if self.judged == slot {
            return;
        }
        self.judged = slot;
        for tier in &mut self.tiers {
            (tier.kept, tier.kept_from_lower) = (0, 0);
        }
        for flow in self.flows.iter_mut().flatten() {
            if flow.is_present && flow.is_gone(now, clock.window()) {
                flow.is_present = false;
                self.present -= 1;
                self.tiers[flow.priority.index()].present -= 1;
                self.present_weight = self.present_weight.saturating_sub(flow.weight.get().into());
            }
        }
        let all = self.present_weight.max(1);
        for flow in self.flows.iter_mut().flatten() {
            let fair = WINDOW_COST / all * u64::from(flow.weight.get());
            flow.judge(now, slot, clock.window(), fair);
            let tier = &mut self.tiers[flow.priority.index()];
            tier.kept += flow.kept;
            tier.kept_from_lower += flow.kept_from_lower;
        }
    }

    /// Returns the position of a caller that has come back: where it would have been, but behind those that came back before.
    pub(crate) fn position_back(&mut self, flow: u32, position: u64) -> u64 {
        self.flow_mut(flow).map_or(position, |flow| {
            flow.last_back = flow.last_back.max(position);
            flow.last_back
        })
    }

    /// Returns whether nobody but one flow is present.
    pub(crate) const fn is_alone(&self) -> bool {
        self.present < 2
    }

    /// Returns whether the flows are few enough to be looked at one by one.
    pub(crate) fn is_few(&self) -> bool {
        self.index.len() <= FLOWS_LOOKED_AT
    }

    /// Returns what a flow was given in the last window, as a charge and as a cost.
    pub(crate) fn recent_charge(&self, now: u64, flow: &Flow) -> (Charge, u64) {
        let cost = self.recent(now, flow);
        // Its mix of dimensions is that of what it was given last.
        (flow.mix.part(cost, flow.mix_cost.max(1)), cost)
    }

    /// Returns what a flow was given in the last window.
    pub(crate) fn recent(&self, now: u64, flow: &Flow) -> u64 {
        flow.recent.live_at(self.clock.slot(now))
    }

    /// Returns what a flow was given in the last window by all replicas together, as far as that is known.
    pub(crate) fn recent_everywhere(&self, now: u64, flow: &Flow) -> u64 {
        let everywhere = flow.everywhere.as_ref();
        everywhere.map_or(0, |everywhere| everywhere.recent.live_at(self.clock.slot(now)))
    }

    /// Changes the weights and the order of flows, their tiers and the length of the window.
    pub(crate) fn reconfigure(
        &mut self,
        window: u64,
        tiers: [TierPlan; 4],
        terms: impl Fn(TenantId) -> Terms,
    ) {
        if self.clock.window() != Clock::new(window).window() {
            self.clock = Clock::new(window);
            self.promises = Promises::default();
        }
        for (tier, plan) in self.tiers.iter_mut().zip(tiers) {
            tier.share_percent = plan.share_percent;
        }
        self.present_weight = 0;
        for flow in self.flows.iter_mut().flatten() {
            let Terms { weight, order } = terms(flow.tenant);
            flow.weight = weight;
            flow.next_order = order;
            if flow.is_present {
                self.present_weight += u64::from(weight.get());
            }
        }
        // Requests that wait keep the order in which they were put in line; it holds for those that come from now on.
        for flow in self.flows.iter_mut().flatten() {
            flow.order = flow.next_order;
        }
        for tier in &mut self.tiers {
            tier.weights = 0;
        }
        for flow in self.flows.iter().flatten().filter(|flow| flow.in_line() > 0) {
            self.tiers[flow.priority.index()].weights += u64::from(flow.weight.get());
        }
        // What held anybody up may be another now.
        self.unblock(u64::MAX);
    }

    pub(crate) fn invariants(&self) {
        debug_assert_eq!(
            self.len,
            self.in_line + self.resume.len(),
            "who waits stands in line or pauses"
        );
        debug_assert!(
            self.deadlines.len() >= self.len,
            "everyone who waits has a deadline"
        );
        debug_assert!(
            self.in_line > 0 || self.blocked.is_empty(),
            "only lanes with somebody in them are blocked"
        );
        #[cfg(debug_assertions)]
        if self.flows.len() < 16 && self.len < 64 {
            self.invariants_in_full();
        }
    }

    #[cfg(debug_assertions)]
    fn invariants_in_full(&self) {
        let present: Vec<_> = self.flows().filter(|(_, flow)| flow.is_present).collect();
        let weights: u64 = present.iter().map(|(_, flow)| u64::from(flow.weight.get())).sum();
        assert_eq!(self.present, present.len(), "who is present is counted");
        assert_eq!(self.present_weight, weights, "weights are counted once");
        let waiting: usize = self.flows().map(|(_, flow)| flow.waiting as usize).sum();
        assert_eq!(self.len, waiting, "everyone who waits belongs to one flow");
        let bytes: u64 = self.flows().map(|(_, flow)| flow.bytes).sum();
        assert_eq!(self.bytes, bytes, "bytes are counted once");
        for (tier, priority) in self.tiers.iter().zip(Priority::ALL) {
            let mut demand = Charge::ZERO;
            let (mut cost, mut count, mut weights) = (0, 0, 0);
            for (at, flow) in self.flows().filter(|(_, flow)| flow.priority == priority) {
                demand.add(&flow.demand);
                cost += flow.cost;
                count += flow.lanes.iter().map(|lane| lane.line.len()).sum::<usize>();
                weights += if flow.in_line() > 0 {
                    u64::from(flow.weight.get())
                } else {
                    0
                };
                let open = flow.is_ready();
                assert_eq!(
                    open,
                    tier.ready.contains(&flow.rank(at)),
                    "a flow is ready if a lane of it is"
                );
                for (number, lane) in (0..).zip(&flow.lanes) {
                    let is_blocked = lane
                        .blocked
                        .is_some_and(|until| self.blocked.contains(&(until, at, number)));
                    assert_eq!(
                        lane.blocked.is_some(),
                        is_blocked,
                        "a blocked lane is in the list of blocked ones"
                    );
                }
            }
            assert_eq!(
                tier.demand, demand,
                "what a tier asks for is what its flows ask for"
            );
            assert_eq!((tier.cost, tier.in_line), (cost, count));
            assert!(
                weights <= tier.weights + 4_000,
                "weights of flows in line are counted"
            );
            assert!(tier.ready.len() <= self.flows.len());
        }
        for (slot, place) in (0..).zip(&self.places) {
            let Some(place) = place else { continue };
            let is_known = self.flow(place.flow).is_some_and(|flow| {
                place.paused.is_some()
                    || flow
                        .lanes
                        .iter()
                        .any(|lane| lane.line.iter().any(|entry| entry.2 == slot))
            });
            assert!(is_known, "whoever waits is in the flow that it names");
        }
    }
}
