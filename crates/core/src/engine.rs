//! The engine: quota groups, permits, and the contract of commands, outputs and timeouts.

mod escrow;
mod line;
mod memory;
mod store;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::allowance::{Allowances, Allowed, Hold};
use crate::decision::{Decision, Permit, PermitId, Refusal, RefusalReason, Ticket, TicketId, WaitReason};
use crate::group::{Desk, Entry, Group, InFlight, Step};
use crate::limit::Limit;
use crate::memory::Gap;
use crate::outcome::{Failure, Outcome};
use crate::output::{Notice, Output, Wake};
use crate::plan::{Plan, QuotaId, QuotaKey};
use crate::queue::Waiting;
use crate::request::Request;
use crate::retry::Jitter;
use crate::run::{RunId, Runs};
use crate::signal::UpstreamSignal;
use crate::snapshot::{Owner, RunSnapshot, Snapshot};
use crate::time::Timestamp;
use crate::units::{Bytes, Tokens};

/// The most quota groups (accounts) that are kept track of at one time.
pub const ACCOUNTS_MAX: usize = 4_096;

/// Later times are taken to be this one, so that there is always a later one to wait for.
const NOW_MAX: u64 = 1 << 62;
/// Numbers of processes are at most this.
const PROCESSES: u64 = (1 << 36) - 1;
/// More bytes than this for one request are counted as this many: 64 GiB.
const BYTES_MAX: Bytes = Bytes::new(1 << 36);

/// Every rule about limits, as one deterministic state machine.
///
/// Commands take `now` first; it should never be earlier than the last one, and is taken to be the last one if it is.
/// After each command drain [`Engine::poll_output`], then sleep until [`Engine::poll_timeout`] and call
/// [`Engine::handle_timeout`].
#[derive(Debug, Clone)]
pub struct Engine {
    plan: Plan,
    now: u64,
    groups: Vec<Group>,
    keys: BTreeMap<QuotaKey, u32>,
    permits: Vec<Slot>,
    free: Vec<u32>,
    wakes: BTreeSet<(u64, u32)>,
    outputs: VecDeque<Output>,
    notices: Vec<Notice>,
    /// The number of the next request, in order of arrival.
    arrivals: u64,
    bytes_waiting: u64,
    jitter: Jitter,
    /// Limits and budgets of tenants and routes.
    allowances: Allowances,
    runs: Runs,
    /// A time of which nobody knows what was charged.
    gap: Option<Gap>,
    closed: bool,
    /// The number of this process among the replicas.
    process: u64,
}

/// A place for a permit; `turn` tells apart the permits that use it one after the other.
#[derive(Debug, Clone)]
struct Slot {
    turn: u32,
    flight: Option<InFlight>,
}

impl Engine {
    /// Makes an engine. Equal plans, seeds and calls give equal answers.
    pub fn new(now: Timestamp, plan: Plan, seed: u64) -> Self {
        let process = Jitter::new(seed).next() % PROCESSES + 1;
        Self {
            allowances: Allowances::new(&plan, process),
            runs: Runs::default(),
            plan,
            now: now.as_micros().min(NOW_MAX),
            groups: Vec::new(),
            keys: BTreeMap::new(),
            permits: Vec::new(),
            free: Vec::new(),
            wakes: BTreeSet::new(),
            outputs: VecDeque::new(),
            notices: Vec::new(),
            arrivals: 0,
            bytes_waiting: 0,
            jitter: Jitter::new(seed),
            gap: None,
            closed: false,
            process,
        }
    }

    /// Decides on a request: send it now, wait for an output, or do not send it.
    pub fn submit(&mut self, now: Timestamp, mut request: Request) -> Decision {
        self.pass(now);
        request.bytes = request.bytes.min(BYTES_MAX);
        if self.closed {
            return Decision::Refuse(refusal(RefusalReason::Closed));
        }
        let index = match self.group_for(request.quota) {
            Ok(index) => index,
            Err(reason) => return Decision::Refuse(refusal(reason)),
        };
        // Nothing is held where nothing is counted.
        let hold = if request.run.is_some() || !self.allowances.is_empty() {
            self.groups[index as usize].hold_of(&request)
        } else {
            Hold::default()
        };
        if let Some(step) = &request.run
            && let Err(spent) = self.runs.enter(self.now, &self.plan.runs, step, hold)
        {
            self.groups[index as usize].totals.refused += 1;
            return Decision::Refuse(Refusal {
                spent: Some(spent),
                ..Refusal::of(RefusalReason::RunSpent)
            });
        }
        let decision = self.decide(index, request, hold);
        if let (Decision::Refuse(_), Some(step)) = (&decision, &request.run) {
            self.runs.leave(step, hold);
        }
        decision
    }

    fn decide(&mut self, index: u32, request: Request, hold: Hold) -> Decision {
        let now = self.now;
        let group = &mut self.groups[index as usize];
        group.advance(now);
        let mut desk = Desk {
            index,
            arrival: self.arrivals + 1,
            hold,
            bounds: &self.plan.queue,
            allowances: &mut self.allowances,
            jitter: &mut self.jitter,
        };
        match group.enter(now, request, &mut desk) {
            Entry::Admit(waiting) => {
                let arrival = self.arrivals + 1;
                self.arrivals = arrival;
                Decision::Admit(Permit {
                    reason: None,
                    ..self.launch(index, arrival, waiting)
                })
            }
            Entry::Wait(flow, waiting, expected) => {
                if let Some(reason) = self.make_room(index, flow, &waiting) {
                    let refusal = expected.refusal(now, request.caller, reason);
                    return self.put_off(index, &waiting, expected.eta, refusal);
                }
                Decision::Wait(self.line_up(index, flow, waiting, &expected))
            }
            Entry::Later(waiting, turn, refusal) => self.put_off(index, &waiting, turn, refusal),
            Entry::Refuse(refusal) => {
                group.totals.refused += 1;
                Decision::Refuse(refusal)
            }
        }
    }

    /// Takes note of the head of an answer. Only the first for each permit counts.
    pub fn observe(&mut self, now: Timestamp, signal: UpstreamSignal) {
        self.pass(now);
        let now = self.now;
        let Some(flight) = flight_mut(&mut self.permits, signal.permit) else {
            return;
        };
        let index = flight.group;
        let Some(group) = self.groups.get_mut(index as usize) else {
            return;
        };
        let room = group.observe(now, flight, &signal, &mut self.notices);
        let key = group.key;
        self.publish(key);
        if room {
            self.pump(index);
        } else if !self.waits_nobody(index) || self.is_shared(index) {
            self.rearm(index);
        }
    }

    /// Takes note of the output tokens streamed so far. Returns whether any limit counts output while it is generated:
    /// if none does, nothing is lost by not reporting on this permit any more, since its end tells all of it.
    pub fn progress(&mut self, now: Timestamp, permit: PermitId, output: Tokens) -> bool {
        self.pass(now);
        let now = self.now;
        let Some(flight) = flight_mut(&mut self.permits, permit) else {
            return false;
        };
        let index = flight.group;
        let Some(group) = self.groups.get_mut(index as usize) else {
            return false;
        };
        group.advance(now);
        let is_metered = group.progress(now, flight, output.value());
        // What was expected has become a charge that expires by itself, so the next wake-up may be another.
        if is_metered && (!group.queue.is_empty() || group.shared.is_some()) {
            self.rearm(index);
        }
        is_metered
    }

    /// Ends an attempt for good. A permit that was ended already is left alone.
    pub fn settle(&mut self, now: Timestamp, permit: PermitId, outcome: Outcome) {
        self.pass(now);
        let now = self.now;
        let Some(flight) = self.land(permit) else { return };
        let index = flight.group;
        let Some(group) = self.groups.get_mut(index as usize) else {
            return;
        };
        group.advance(now);
        let key = group.key;
        let allowed = flight.allowed;
        if let Some(step) = &flight.request.run {
            self.runs.settle(now, step, flight.hold, flight.used(&outcome));
        }
        let waits = group.settle(now, flight, outcome, &mut self.allowances, &mut self.notices);
        if !self.notices.is_empty() {
            self.publish(key);
        }
        if waits {
            self.pump(index);
        } else if self.is_shared(index) {
            self.rearm(index);
        }
        self.wake_waiters(allowed);
    }

    /// Ends a failed attempt and asks for another: the request goes back to its place in line with its old deadline,
    /// at once or after the pause that the failure demands. The answer is never [`Decision::Admit`]: a permit comes
    /// as an output, possibly at once.
    pub fn retry(&mut self, now: Timestamp, permit: PermitId, failure: Failure) -> Decision {
        self.pass(now);
        let now = self.now;
        let Some(flight) = self.land(permit) else {
            return Decision::Refuse(refusal(RefusalReason::RetriesSpent));
        };
        let (index, arrival) = (flight.group, flight.arrival);
        let (request, allowed, hold) = (flight.request, flight.allowed, flight.hold);
        let Some(group) = self.groups.get_mut(index as usize) else {
            return Decision::Refuse(refusal(RefusalReason::UnknownQuota));
        };
        group.advance(now);
        let mut desk = Desk {
            index,
            arrival: self.arrivals + 1,
            hold,
            bounds: &self.plan.queue,
            allowances: &mut self.allowances,
            jitter: &mut self.jitter,
        };
        let outcome = group.fail(
            now,
            flight,
            failure,
            &self.plan.retry,
            &mut desk,
            &mut self.notices,
        );
        let (key, gone) = (group.key, group.gone);
        let decision = match outcome {
            Ok(slot) if self.closed || gone => {
                group.queue.remove(slot);
                Decision::Refuse(refusal(if gone {
                    RefusalReason::UnknownQuota
                } else {
                    RefusalReason::Closed
                }))
            }
            Ok(slot) => {
                self.bytes_waiting = self.bytes_waiting.saturating_add(request.bytes.value());
                let id = TicketId {
                    arrival,
                    group: index,
                    slot,
                };
                let (eta, reason) = group.eta_of(now, slot);
                Decision::Wait(Ticket {
                    id,
                    eta: Timestamp::from_micros(eta),
                    reason,
                    place: 1,
                    is_own: true,
                })
            }
            Err(refusal) => Decision::Refuse(refusal),
        };
        if let (Decision::Refuse(_), Some(step)) = (&decision, &request.run) {
            self.runs.leave(step, hold);
        }
        self.publish(key);
        self.pump(index);
        self.wake_waiters(allowed);
        decision
    }

    /// Takes a waiting request out of the line, because nobody waits for it any more.
    pub fn cancel(&mut self, now: Timestamp, ticket: TicketId) {
        self.pass(now);
        let Some(group) = self.groups.get_mut(ticket.group as usize) else {
            return;
        };
        if !group.queue.holds(ticket.slot, ticket.arrival) {
            return;
        }
        if let Some(place) = group.queue.remove(ticket.slot) {
            group.advance(self.now);
            group.totals.cancelled += 1;
            self.forget(&place);
            self.pump(ticket.group);
        }
    }

    /// Returns what a run has used so far.
    pub fn run(&mut self, now: Timestamp, run: RunId) -> Option<RunSnapshot> {
        self.pass(now);
        self.runs.snapshot(self.now, &self.plan.runs, run)
    }

    /// Lets those look again who wait for an allowance in which there may be room now.
    fn wake_waiters(&mut self, allowed: Allowed) {
        if allowed == Allowed::NONE {
            return;
        }
        let waiters = self.allowances.waiters(allowed);
        self.wake_all(waiters);
    }

    /// Lets those look again who wait in these groups for an allowance of these owners.
    fn wake_all(&mut self, waiters: Vec<(u32, Owner)>) {
        for (index, owner) in waiters {
            let Some(group) = self.groups.get_mut(index as usize) else {
                continue;
            };
            match owner {
                Owner::Tenant(tenant) => group.queue.unblock_tenant(tenant),
                Owner::Route(route) => group.queue.unblock_route(route),
            }
            group.is_fresh_again();
            self.pump(index);
        }
    }

    /// Takes note of limits that the provider's interface tells of one quota group.
    ///
    /// They count where nothing is configured, and where they are lower than what is. Those of a preset, and those learned
    /// before, they replace; what headers or refusals told they only lower.
    pub fn inform(&mut self, now: Timestamp, quota: QuotaKey, limits: &[Limit]) {
        self.pass(now);
        let now = self.now;
        let Ok(index) = self.group_for(quota) else { return };
        let group = &mut self.groups[index as usize];
        group.advance(now);
        group.inform(now, limits, &mut self.notices);
        if let Some(gap) = self.gap {
            group.presume_new(now, gap);
        }
        self.publish(quota);
        self.pump(index);
    }

    /// Returns the name of a group of the plan.
    pub fn name(&self, id: QuotaId) -> Option<&str> {
        find(&self.plan, id).map(|quota| quota.name.as_str())
    }

    /// Adopts another plan. Charges, lines and everything learned stay; those who wait in a group that is gone are
    /// refused.
    pub fn reconfigure(&mut self, now: Timestamp, plan: Plan) {
        self.pass(now);
        self.take_back_all();
        self.plan = plan;
        self.allowances.reconfigure(self.now, &self.plan, self.process);
        for group in &mut self.groups {
            group.share(self.now, self.plan.shared, self.process, &mut self.jitter);
            group.advance(self.now);
            let allowances = &self.allowances;
            let window = group.window();
            group
                .queue
                .reconfigure(window, self.plan.tiers, |tenant| allowances.bounds(tenant).terms);
            let (now, allowances) = (self.now, &mut self.allowances);
            group.queue.allow(|caller| allowances.of(now, caller));
            let quota = self.plan.quotas.iter().find(|quota| quota.id() == group.key.id);
            if let Some(quota) = quota {
                group.reconfigure(self.now, quota);
            }
            group.gone = quota.is_none();
        }
        for flight in self.permits.iter_mut().filter_map(|slot| slot.flight.as_mut()) {
            flight.allowed = self.allowances.of(self.now, flight.request.caller);
            self.allowances
                .hold(self.now, flight.allowed, &flight.charge, flight.hold);
            if let Some(group) = self
                .groups
                .get_mut(flight.group as usize)
                .filter(|group| !group.gone)
            {
                group.hold(self.now, flight);
            }
        }
        for index in 0..self.groups.len() {
            if self.groups[index].gone {
                self.empty(index, RefusalReason::UnknownQuota);
            }
            self.pump(u32::try_from(index).unwrap_or(u32::MAX));
        }
    }

    /// Refuses everything that waits and everything that comes from now on.
    pub fn close(&mut self, now: Timestamp) {
        self.pass(now);
        self.closed = true;
        for index in 0..self.groups.len() {
            self.empty(index, RefusalReason::Closed);
            self.rearm(u32::try_from(index).unwrap_or(u32::MAX));
        }
    }

    // What replicas share: engine/store.rs and engine/escrow.rs.

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.pass(now);
        while let Some(&(at, index)) = self.wakes.first() {
            if at > self.now {
                break;
            }
            self.pump(index);
        }
        self.announce_escrow();
    }

    /// Returns the next thing that has to be passed on.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when [`Engine::handle_timeout`] wants to be called, and why.
    pub fn poll_timeout(&self) -> Option<(Timestamp, Wake)> {
        let of_groups = self.wakes.first().and_then(|&(at, index)| {
            let (_, wake) = self.groups.get(index as usize)?.wake?;
            Some((at, wake))
        });
        let of_escrow = self.allowances.escrow_wake().map(|at| (at, Wake::Store));
        let (at, wake) = of_groups.into_iter().chain(of_escrow).min()?;
        Some((Timestamp::from_micros(at), wake))
    }

    /// Returns what the engine looks like, for people and tests.
    pub fn snapshot(&mut self, now: Timestamp) -> Snapshot {
        self.pass(now);
        let now = self.now;
        let mut quotas = Vec::with_capacity(self.keys.len());
        for index in self.keys.values() {
            let group = &mut self.groups[*index as usize];
            group.advance(now);
            quotas.push(group.snapshot(now));
        }
        Snapshot {
            now: Timestamp::from_micros(now),
            quotas,
            waiting_bytes: Bytes::new(self.bytes_waiting),
            allowances: self.allowances.snapshots(now),
            runs: self.runs.snapshots(now, &self.plan.runs),
        }
    }

    fn pass(&mut self, now: Timestamp) {
        self.now = self.now.max(now.as_micros().min(NOW_MAX));
    }

    fn group_for(&mut self, key: QuotaKey) -> Result<u32, RefusalReason> {
        if let Some(index) = self.keys.get(&key) {
            return match self.groups.get(*index as usize) {
                Some(group) if !group.gone => Ok(*index),
                _ => Err(RefusalReason::UnknownQuota),
            };
        }
        let plan = find(&self.plan, key.id).ok_or(RefusalReason::UnknownQuota)?;
        let mut group = Group::new(self.now, key, plan, self.plan.tiers);
        group.share(self.now, self.plan.shared, self.process, &mut self.jitter);
        if let Some(gap) = self.gap {
            group.presume(self.now, gap);
        }
        if self.groups.len() < ACCOUNTS_MAX {
            let index = u32::try_from(self.groups.len()).map_err(|_| RefusalReason::TooManyAccounts)?;
            self.groups.push(group);
            self.keys.insert(key, index);
            return Ok(index);
        }
        let idle = self
            .groups
            .iter()
            .enumerate()
            .filter_map(|(index, group)| Some((group.worth(self.now)?, group.last_used, index)))
            .min()
            .map(|(_, _, index)| index)
            .ok_or(RefusalReason::TooManyAccounts)?;
        let old = core::mem::replace(&mut self.groups[idle], group);
        self.keys.remove(&old.key);
        let index = u32::try_from(idle).map_err(|_| RefusalReason::TooManyAccounts)?;
        self.keys.insert(key, index);
        Ok(index)
    }

    fn launch(&mut self, index: u32, arrival: u64, waiting: Waiting) -> Permit {
        let valid_until = self.now.saturating_add(self.groups[index as usize].permit_ttl());
        self.launch_as(index, arrival, waiting, self.now, valid_until)
    }

    /// Gives a permit that counts as given at a moment, and is valid until another.
    fn launch_as(
        &mut self,
        index: u32,
        arrival: u64,
        waiting: Waiting,
        granted: u64,
        valid_until: u64,
    ) -> Permit {
        let reason = Some(waiting.reason).filter(|reason| *reason != WaitReason::Store);
        let group = &mut self.groups[index as usize];
        let flight = group.launch(self.now, granted, index, arrival, waiting);
        let attempt = flight.attempt;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.permits.push(Slot {
                turn: 0,
                flight: None,
            });
            u32::try_from(self.permits.len() - 1).unwrap_or(u32::MAX)
        });
        let place = &mut self.permits[slot as usize];
        place.flight = Some(flight);
        Permit {
            id: PermitId {
                slot,
                turn: place.turn,
            },
            granted: Timestamp::from_micros(granted),
            valid_until: Timestamp::from_micros(valid_until),
            attempt,
            reason,
        }
    }

    fn land(&mut self, permit: PermitId) -> Option<InFlight> {
        let place = self
            .permits
            .get_mut(permit.slot as usize)
            .filter(|place| place.turn == permit.turn)?;
        let flight = place.flight.take()?;
        place.turn = place.turn.wrapping_add(1);
        self.free.push(permit.slot);
        Some(flight)
    }

    /// Lets a group do everything that time and capacity allow.
    fn pump(&mut self, index: u32) {
        let now = self.now;
        self.groups[index as usize].advance(now);
        self.keep_in_touch(index);
        loop {
            match self.groups[index as usize].step(now, index, &mut self.allowances) {
                Step::Admit(slot, place) => {
                    let bytes = place.waiting.request.bytes.value();
                    self.bytes_waiting = self.bytes_waiting.saturating_sub(bytes);
                    let arrival = place.arrival;
                    let permit = self.launch(index, arrival, place.waiting);
                    let ticket = TicketId {
                        arrival,
                        group: index,
                        slot,
                    };
                    self.outputs.push_back(Output::Admit { ticket, permit });
                }
                Step::Expire(slot, place, refusal) => {
                    self.groups[index as usize].totals.refused += 1;
                    self.dismiss(index, slot, &place, refusal);
                }
                Step::Asked => {}
                Step::Idle => break,
            }
        }
        // The last who waited for the ledger may have left.
        self.keep_in_touch(index);
        self.rearm(index);
    }

    /// Refuses everybody who waits in a group.
    fn empty(&mut self, index: usize, reason: RefusalReason) {
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        while let Some((slot, place)) = self.groups[index].queue.pop() {
            self.groups[index].totals.refused += 1;
            self.dismiss(number, slot, &place, refusal(reason));
        }
    }

    fn waits_nobody(&self, index: u32) -> bool {
        self.groups[index as usize].queue.is_empty()
    }

    /// Sets the time at which a group is looked at again.
    fn rearm(&mut self, index: u32) {
        let now = self.now;
        let group = &mut self.groups[index as usize];
        if group.shared.is_some() {
            group.note_changes(now);
            if group.announces(now) {
                self.outputs.push_back(Output::Call { quota: group.key });
            }
            if self.allowances.announces(now) {
                self.outputs.push_back(Output::CallEscrow);
            }
        }
        let wake = if group.queue.is_empty() && group.shared.is_none() {
            None
        } else {
            group.next_wake(now)
        };
        if wake != group.wake {
            if let Some((at, _)) = group.wake {
                self.wakes.remove(&(at, index));
            }
            if let Some((at, _)) = wake {
                self.wakes.insert((at, index));
            }
            group.wake = wake;
        }
        self.invariants();
    }

    fn publish(&mut self, quota: QuotaKey) {
        for notice in self.notices.drain(..) {
            self.outputs.push_back(Output::Notice { quota, notice });
        }
    }

    fn invariants(&self) {
        debug_assert_eq!(self.keys.len(), self.groups.len(), "every group has its key");
        #[cfg(debug_assertions)]
        if self.groups.len() < 64 {
            let armed = self.groups.iter().filter(|group| group.wake.is_some()).count();
            debug_assert_eq!(armed, self.wakes.len(), "every wake-up is set once");
            let bytes: u64 = self.groups.iter().map(|group| group.queue.bytes()).sum();
            debug_assert_eq!(bytes, self.bytes_waiting, "bytes are counted once");
        }
    }
}

fn find(plan: &Plan, id: QuotaId) -> Option<&crate::plan::QuotaPlan> {
    plan.quotas.iter().find(|quota| quota.id() == id)
}

fn flight_mut(permits: &mut [Slot], permit: PermitId) -> Option<&mut InFlight> {
    permits
        .get_mut(permit.slot as usize)
        .filter(|place| place.turn == permit.turn)?
        .flight
        .as_mut()
}

const fn refusal(reason: RefusalReason) -> Refusal {
    Refusal::of(reason)
}
