//! One quota group at run time: its meters, its line, and what is learned about its provider.

mod answer;
mod attempt;
mod congestion;
mod eta;
mod inform;
mod late;
mod lessons;
mod memory;
mod probe;
mod refusal;
mod shared;
mod spent;
mod turn;
mod view;
mod weight;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use self::lessons::Lessons;
use self::turn::Turn;

use crate::allowance::{Allowances, Hold, Verdict};
use crate::charge::{Charge, ChargeModel, OutputCharge};
use crate::decision::{Refusal, RefusalReason, WaitReason};
use crate::forecast::{Excess, InputFactors};
use crate::lasting::Lasting;
use crate::limit::{Discipline, Limit, LimitRef};
use crate::margin::Margin;
use crate::meter::{Earliest, Meter, Taking};
use crate::output::Wake;
use crate::plan::{Learning, QueueBounds, QuotaKey, QuotaPlan, TierPlan};
use crate::projection::{Need, Projection};
use crate::queue::{Place, Queue, Waiting};
use crate::request::Request;
use crate::retry::{Jitter, RetryBudget};
use crate::snapshot::Totals;
use crate::time::micros;
use crate::units::{Amount, Dimension};

/// Requests in flight at first while no limit is known.
const LEARNING_WINDOW: u32 = 8;
/// The shortest sleep between two looks at a full limit, in microseconds.
const LOOK_AGAIN: u64 = 500;

/// What a reload leaves of a longer pause, in microseconds: five minutes.
const HOLD_RELOADED: u64 = 300 * 1_000_000;

/// The longest pause that a provider can impose, in microseconds: thirty days.
const HOLD_MAX: u64 = 30 * 86_400 * 1_000_000;

pub(crate) use attempt::InFlight;
pub(crate) use eta::Expectation;
pub(crate) use memory::UnderWay;
pub(crate) use shared::{Let, Shared};

/// What happens next in a group.
#[derive(Debug)]
pub(crate) enum Step {
    /// Whoever stood at this place goes.
    Admit(u32, Place),
    /// Whoever stood at this place will not go.
    Expire(u32, Place, Refusal),
    /// Somebody has left the line until the ledger has answered.
    Asked,
    Idle,
}

/// What a new request is told.
#[derive(Debug)]
pub(crate) enum Entry {
    /// It goes.
    Admit(Waiting),
    /// It waits, in this flow's line.
    Wait(u32, Waiting, Expectation),
    /// It does not: its turn would be at this time, and it is told when to come back.
    Later(Waiting, u64, Refusal),
    Refuse(Refusal),
}

/// What of the engine a group needs to decide on a request.
pub(crate) struct Desk<'a> {
    /// The group's own number.
    pub(crate) index: u32,
    /// The number of the request in the order of arrival.
    pub(crate) arrival: u64,
    /// What it may use of budgets.
    pub(crate) hold: Hold,
    pub(crate) bounds: &'a QueueBounds,
    pub(crate) allowances: &'a mut Allowances,
    pub(crate) jitter: &'a mut Jitter,
}

#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) key: QuotaKey,
    name: String,
    model: ChargeModel,
    permit_ttl: u64,
    /// The length of the provider's minute, in microseconds.
    minute: u64,
    /// The shorter time over which requests are limited too, in microseconds; 0: none.
    slice: u64,
    /// How learned limits are kept.
    discipline: Discipline,
    meters: Vec<Meter>,
    pub(crate) queue: Queue,
    /// The head of the line that does not fit yet and keeps its place: where it stands, and its arrival.
    head: Option<(u32, u64)>,
    /// When those who will be too late were last looked for.
    shed_at: u64,
    pub(crate) in_flight: u32,
    /// How long requests take.
    lasting: Lasting,
    hold_until: u64,
    /// Requests that may be in flight while no limit is known.
    learning_window: u32,
    /// When an amount was last learned or corrected: what was sent before could not know it.
    corrected: u64,
    /// Whether limits are adopted that answers tell of.
    learns: bool,
    /// Limits that one header told of and that are in no plan, the latest first: dimension, window and amount.
    hearsay: [Option<(Dimension, u64, Amount)>; 4],
    /// What refusals taught, limits apart.
    lessons: Lessons,
    /// Whether any attempt was ever accepted.
    pub(crate) succeeded: bool,
    margin: Margin,
    projection: Projection,
    input: InputFactors,
    excess: Excess,
    budget: RetryBudget,
    pub(crate) totals: Totals,
    pub(crate) last_used: u64,
    /// Whether it is in the plan no more: nobody new is let in.
    pub(crate) gone: bool,
    /// The time for which the engine is set to wake this group.
    pub(crate) wake: Option<(u64, Wake)>,
    /// What is known of the ledger, where replicas share it.
    pub(crate) shared: Option<Box<Shared>>,
}

impl Group {
    pub(crate) fn new(now: u64, key: QuotaKey, plan: &QuotaPlan, tiers: [TierPlan; 4]) -> Self {
        let margin = Margin::new(plan.margin);
        let meters = meters(now, plan, &margin);
        let is_known = meters.iter().any(Meter::is_known);
        Self {
            key,
            name: plan.name.clone(),
            model: plan.charge,
            permit_ttl: micros(plan.permit_ttl),
            minute: micros(plan.window),
            slice: plan.slice.map_or(0, micros),
            discipline: plan.discipline,
            meters,
            queue: Queue::new(now, micros(plan.window), tiers),
            head: None,
            shed_at: now,
            in_flight: 0,
            lasting: Lasting::default(),
            hold_until: 0,
            learning_window: LEARNING_WINDOW,
            corrected: 0,
            learns: plan.learning != Learning::Off,
            hearsay: [None; 4],
            lessons: Lessons::new(
                now,
                plan.learning == Learning::Probe,
                micros(plan.window),
                is_known,
            ),
            succeeded: false,
            margin,
            projection: Projection::new(plan.guarantee),
            input: InputFactors::default(),
            excess: Excess::default(),
            budget: RetryBudget::default(),
            totals: Totals::default(),
            last_used: now,
            gone: false,
            wake: None,
            shared: None,
        }
    }

    pub(crate) const fn permit_ttl(&self) -> u64 {
        self.permit_ttl
    }

    /// Returns whether the group holds nothing that matters: nobody waits or runs and every charge has expired.
    pub(crate) fn is_idle(&self, now: u64) -> bool {
        let longest = self
            .meters
            .iter()
            .map(|meter| meter.window().saturating_add(meter.margin()))
            .max()
            .unwrap_or(0);
        let known = self.is_learning() || now.saturating_sub(self.last_used) > longest;
        self.in_flight == 0
            && self.queue.is_empty()
            && self.hold_until <= now
            && known
            && !self.lessons.is_closed(now)
    }

    /// Returns how little is lost if the group makes room for another one: 0 the least; `None` if it is needed.
    ///
    /// What never succeeded goes first, also while its charges count: keys that nobody knows take nothing of any quota,
    /// and a few thousand of them must not lock others out.
    pub(crate) fn worth(&self, now: u64) -> Option<u32> {
        match (self.is_idle(now), self.succeeded) {
            (true, false) => Some(0),
            (true, true) => Some(1),
            (false, false) if self.in_flight == 0 && self.queue.is_empty() && self.hold_until <= now => {
                Some(2)
            }
            (false, _) => None,
        }
    }

    /// Takes over another version of its plan; charges, lines and everything learned stay. Those who run have to be
    /// [held](Group::hold) again.
    pub(crate) fn reconfigure(&mut self, now: u64, plan: &QuotaPlan) {
        self.model = plan.charge;
        self.permit_ttl = micros(plan.permit_ttl);
        self.minute = micros(plan.window);
        self.slice = plan.slice.map_or(0, micros);
        self.discipline = plan.discipline;
        self.margin.follow(plan.margin);
        // A pause of days may have been a mistake, and a reload is what people reach for.
        self.hold_until = self.hold_until.min(now.saturating_add(HOLD_RELOADED));
        self.projection.follow(plan.guarantee);
        let is_alone = self.waits_for_store() == Some(WaitReason::Store);
        let older = core::mem::replace(&mut self.meters, meters(now, plan, &self.margin));
        for meter in &mut self.meters {
            let window = meter.window();
            let nearest = older
                .iter()
                .filter(|old| old.dimension() == meter.dimension() && !old.is_passing())
                .max_by_key(|old| (old.window() == window, old.window()));
            match nearest {
                Some(old) => meter.inherit(old),
                // Of what others use of it nothing is known.
                None if is_alone => meter.retreat(now, 0, 1),
                None => {}
            }
        }
        self.learns = plan.learning != Learning::Off;
        if self.learns {
            // Limits that only answers told of are not in the plan.
            for mut old in older {
                let is_new =
                    |meter: &Meter| meter.dimension() == old.dimension() && meter.window() == old.window();
                let is_missing = old.is_passing() || !self.meters.iter().any(is_new);
                if old.is_known() && !old.source().is_given() && is_missing {
                    old.let_go();
                    self.meters.push(old);
                }
            }
        }
        let is_known = !self.is_learning();
        self.lessons
            .reconfigure(now, plan.learning == Learning::Probe, self.minute, is_known);
        let empty = Queue::new(now, self.minute, TierPlan::USUAL);
        let mut queue = core::mem::replace(&mut self.queue, empty);
        queue.weigh(|request| {
            let charge = self.charge_for(&request.demand);
            (charge, self.cost_of(&charge))
        });
        self.queue = queue;
    }

    /// Lets time pass in every meter.
    pub(crate) fn advance(&mut self, now: u64) {
        if self.lessons.ramps {
            self.climb(now);
        }
        for meter in &mut self.meters {
            meter.advance(now);
            meter.project(now, &self.projection);
        }
        self.lessons.advance(now);
    }

    /// Decides on a new request.
    pub(crate) fn enter(&mut self, now: u64, request: Request, desk: &mut Desk<'_>) -> Entry {
        self.last_used = now;
        self.budget.request(now);
        let charge = self.charge_for(&request.demand);
        let latest = now.saturating_add(micros(desk.bounds.wait_max));
        let bounds = desk.allowances.bounds(request.caller.tenant);
        let mut waiting = Waiting {
            request,
            charge,
            cost: self.cost_of(&charge),
            allowed: desk.allowances.of(now, request.caller),
            hold: desk.hold,
            position: desk.arrival,
            arrived: now,
            deadline: request.deadline.as_micros().min(latest),
            attempts: 0,
            reason: WaitReason::Line,
        };
        if let Some(limit) = self.never_fits(now, &charge) {
            return Entry::Refuse(Refusal {
                limit: Some(limit),
                ..Refusal::of(RefusalReason::NeverFits)
            });
        }
        if self.lessons.is_closed(now) {
            return Entry::Refuse(self.lessons.spent(now));
        }
        let flow = self.queue.enter(now, request.caller, bounds.terms);
        let (hold, need) = (desk.hold, self.need(&request.demand));
        let verdict = desk
            .allowances
            .verdict(now, waiting.allowed, &charge, hold, desk.index);
        if let Verdict::Refuse(refusal) = verdict {
            return Entry::Refuse(refusal);
        }
        let is_next = !self.queue.somebody_is_ready() && self.queue.is_first(flow, request.caller.route);
        if is_next && self.is_open(now) && verdict == Verdict::Now && !self.asks_first() {
            if !self.fits(now, &charge, &need) {
                self.press(now, &charge, &need);
            } else if self
                .full_until(now, flow, &waiting, &Charge::ZERO, &need)
                .is_none()
            {
                self.take(now, &charge);
                desk.allowances.take(now, waiting.allowed, &charge, hold);
                self.queue.serve(now, flow, &charge, waiting.cost);
                return Entry::Admit(waiting);
            }
        }
        let clock = self.queue.clock;
        let identity = request.identity;
        let place = identity.and_then(|identity| self.queue.promises.redeem(now, clock, identity));
        let (mut expected, own_before) = match place {
            None => (
                self.expect_turn(now, flow, &waiting, desk.allowances),
                self.queue.flow(flow).map_or(Charge::ZERO, |flow| flow.demand),
            ),
            Some(position) => {
                waiting.position = self.queue.position_back(flow, position);
                let before = self.queue.before(flow, &waiting);
                let expected = self.expect_behind(now, flow, before, &waiting, false, desk.allowances);
                (expected, before.0)
            }
        };
        if let Some(until) = self.full_until(now, flow, &waiting, &own_before, &need)
            && until > expected.eta
        {
            expected = Expectation {
                eta: until,
                reason: WaitReason::Share,
                is_own: true,
                ..expected
            };
        }
        if let Some(reason) = self.is_refused(now, flow, &waiting, &expected, desk) {
            // Up to a tenth more, so that those who are refused together do not come back together.
            let told = expected.refusal(now, request.caller, reason).retry_after;
            let wait = told.map_or(0, micros);
            let extra = (u128::from(wait / 10) * u128::from(desk.jitter.next() >> 32)) >> 32;
            let wait = wait.saturating_add(u64::try_from(extra).unwrap_or(0));
            let refusal = Refusal {
                retry_after: Some(Duration::from_micros(wait)),
                ..expected.refusal(now, request.caller, reason)
            };
            return Entry::Later(waiting, expected.eta, refusal);
        }
        waiting.reason = match verdict {
            Verdict::Later(_, reason) | Verdict::Event(reason) => {
                expected.is_own |= matches!(reason, WaitReason::Tenant(_) | WaitReason::Budget);
                reason
            }
            _ if expected.eta <= now && self.asks_first() => {
                expected.reason = WaitReason::Store;
                WaitReason::Store
            }
            _ => expected.reason,
        };
        Entry::Wait(flow, waiting, expected)
    }

    /// Returns why a request may not wait, if it may not.
    fn is_refused(
        &self,
        now: u64,
        flow: u32,
        waiting: &Waiting,
        expected: &Expectation,
        desk: &Desk<'_>,
    ) -> Option<RefusalReason> {
        if eta::at_best(now, expected.eta, expected.reason) > waiting.deadline || waiting.deadline <= now {
            return Some(RefusalReason::Deadline);
        }
        let bounds = desk.allowances.bounds(waiting.request.caller.tenant);
        if bounds.waiting_max == usize::MAX && bounds.waiting_bytes_max == u64::MAX {
            return None;
        }
        let tenant = self.queue.flow(flow)?.tenant;
        let (count, bytes) = self.queue.waiting_of(tenant);
        let is_full = count >= bounds.waiting_max
            || bytes.saturating_add(waiting.request.bytes.value()) > bounds.waiting_bytes_max;
        is_full.then_some(RefusalReason::TenantQueueFull)
    }

    /// Takes the next step that time and capacity allow; called until it is idle.
    pub(crate) fn step(&mut self, now: u64, index: u32, allowances: &mut Allowances) -> Step {
        let is_next = |at: Option<u64>| at.is_some_and(|at| at <= now);
        if is_next(self.queue.next_resume()) || is_next(self.queue.next_unblock()) {
            self.is_fresh_again();
        }
        self.queue.resume(now);
        self.queue.unblock(now);
        self.queue.note_since(now);
        let hopeless = self.lessons.hopeless_until(now);
        if let Some(slot) = self.queue.expired(now.max(hopeless)) {
            return self.expire(now, slot, allowances);
        }
        if let Some((slot, expected)) = self.surprised(now, allowances)
            && let Some(place) = self.queue.remove(slot)
        {
            let refusal = expected.refusal(now, place.waiting.request.caller, RefusalReason::Deadline);
            return Step::Expire(slot, place, refusal);
        }
        if let Some(step) = self.shed(now) {
            return step;
        }
        if !self.is_open(now) || self.is_quiet(now) {
            return Step::Idle;
        }
        match self.turn(now, index, allowances) {
            Turn::Send(slot) if self.asks_first() => {
                self.ask(now, slot, allowances);
                Step::Asked
            }
            Turn::Nobody if self.asks_first() => match self.unknown_head(now, index, allowances) {
                Some(slot) => {
                    self.ask(now, slot, allowances);
                    Step::Asked
                }
                None => {
                    self.has_asked_all();
                    Step::Idle
                }
            },
            Turn::Send(slot) => {
                let Some(place) = self.queue.place(slot) else {
                    return Step::Idle;
                };
                let (flow, cost) = (place.flow, place.waiting.cost);
                let (charge, allowed) = (place.waiting.charge, place.waiting.allowed);
                let hold = place.waiting.hold;
                self.take(now, &charge);
                allowances.take(now, allowed, &charge, hold);
                // Served while it still stands in line, so that its flow is not taken for a newcomer.
                self.queue.serve(now, flow, &charge, cost);
                match self.queue.remove(slot) {
                    Some(place) => Step::Admit(slot, place),
                    None => Step::Idle,
                }
            }
            Turn::Drop(slot, refusal) => match self.queue.remove(slot) {
                Some(place) => Step::Expire(slot, place, refusal),
                None => Step::Idle,
            },
            Turn::Nobody => Step::Idle,
        }
    }

    /// Returns when to look again, and why.
    pub(crate) fn next_wake(&self, now: u64) -> Option<(u64, Wake)> {
        let deadline = self.queue.next_deadline().map(|at| (at, Wake::Deadline));
        let resume = self.queue.next_resume().map(|at| (at, Wake::Backoff));
        let opens = self.opens_at(now);
        let line = if self.queue.line_is_empty() || (opens <= now && !self.is_open(now)) {
            None
        } else if opens > now {
            Some((opens, Wake::Hold))
        } else {
            let blocked = self.queue.next_unblock().map(|at| (at, Wake::Capacity));
            // Where the ledger decides, it says when to come again.
            let head = if self.asks_first() {
                None
            } else {
                self.head_wake(now)
            };
            [head, blocked].into_iter().flatten().min()
        };
        let store = self.store_wake(now).map(|at| (at, Wake::Store));
        [line, resume, deadline, store].into_iter().flatten().min()
    }

    /// Returns when the head of the line will fit.
    fn head_wake(&self, now: u64) -> Option<(u64, Wake)> {
        let (slot, arrival) = self.head?;
        let head = self.queue.place(slot).filter(|place| place.arrival == arrival)?;
        let need = self.need(&head.waiting.request.demand);
        match self.earliest(now, &Charge::ZERO, &head.waiting.charge, &need).0 {
            Earliest::At(at) => {
                let at = at.max(self.lessons.ready_at());
                Some((at.max(now.saturating_add(LOOK_AGAIN)), Wake::Capacity))
            }
            Earliest::Event | Earliest::Never => None,
        }
    }

    /// Returns whether a request that comes to the line might go at once, whoever else waits.
    pub(crate) fn could_go(&self, now: u64, waiting: &Waiting) -> bool {
        self.is_open(now) && self.fits(now, &waiting.charge, &self.need(&waiting.request.demand))
    }

    /// Returns when somebody who waits is expected to be admitted, and what for.
    pub(crate) fn eta_of(&self, now: u64, slot: u32) -> (u64, WaitReason) {
        let Some(place) = self.queue.place(slot) else {
            return (now, WaitReason::Line);
        };
        let (waiting, pause) = (&place.waiting, place.paused.unwrap_or(now));
        let need = self.need(&waiting.request.demand);
        let (eta, reason) = self.eta(now, &Charge::ZERO, &waiting.charge, &need);
        (eta.max(pause), reason)
    }

    /// Returns the length of the provider's minute, in microseconds.
    pub(crate) const fn window(&self) -> u64 {
        self.minute
    }

    /// Returns whether the line has to be looked at because somebody of this flow has come: the head may be another now.
    pub(crate) fn may_change(&self, flow: u32) -> bool {
        let Some((slot, _)) = self.head else { return true };
        let Some(head) = self.queue.place(slot) else {
            return true;
        };
        self.queue
            .flow(flow)
            .is_none_or(|flow| flow.waiting <= 1 || flow.priority < head.waiting.request.caller.priority)
    }

    /// Returns whether anything may be admitted at all.
    fn is_open(&self, now: u64) -> bool {
        self.hold_until <= now
            && !self.is_closed_off()
            && (self.in_flight < self.learning_window || self.lessons.is_probing() || !self.is_learning())
            && !self.lessons.is_closed(now)
    }

    /// Returns when the pause ends that the provider asked for, or until which its quota is spent.
    fn opens_at(&self, now: u64) -> u64 {
        self.hold_until.max(self.lessons.opens_at(now))
    }

    fn is_learning(&self) -> bool {
        !self
            .meters
            .iter()
            .any(|meter| meter.is_known() && !meter.is_passing())
    }

    fn never_fits(&self, now: u64, charge: &Charge) -> Option<LimitRef> {
        let too_large = |meter: &&Meter| {
            meter.is_known() && !meter.can_ever_fit(now, charge.amount(meter.dimension()).value())
        };
        self.meters.iter().find(too_large).map(Meter::name)
    }

    fn fits(&self, now: u64, charge: &Charge, need: &Need) -> bool {
        self.meters
            .iter()
            .all(|meter| meter.fits(now, charge.amount(meter.dimension()).value(), need))
            && self.lessons.ready_at() <= now
    }

    /// Takes note that somebody waits who needs this much.
    fn press(&mut self, now: u64, charge: &Charge, need: &Need) {
        for meter in &mut self.meters {
            if meter.is_trial() && !meter.fits(now, charge.amount(meter.dimension()).value(), need) {
                meter.press();
            }
        }
        self.lessons.press(now);
    }

    /// Returns when the charge can be taken behind others who will take `ahead`, and which limit is the last to allow it.
    fn earliest(
        &self,
        now: u64,
        ahead: &Charge,
        charge: &Charge,
        need: &Need,
    ) -> (Earliest, Option<LimitRef>) {
        let mut latest = (Earliest::At(now), None);
        for meter in &self.meters {
            let [ahead, charge] = [ahead, charge].map(|taken| taken.amount(meter.dimension()).value());
            let earliest = meter.earliest(now, ahead, charge, need);
            let later = match (earliest, latest.0) {
                (Earliest::At(at), Earliest::At(other)) => at > other,
                (Earliest::Event, Earliest::At(_)) | (Earliest::Never, _) => true,
                (Earliest::At(_) | Earliest::Event, _) => false,
            };
            if later {
                latest = (earliest, Some(meter.name()));
            }
        }
        latest
    }

    fn take(&mut self, now: u64, charge: &Charge) {
        for meter in &mut self.meters {
            meter.take(charge.amount(meter.dimension()).value());
        }
        self.lessons.take(now);
    }
}

/// Makes the meters of a plan: one for each limit, and one for each dimension whose limit may yet be learned.
fn meters(now: u64, plan: &QuotaPlan, margin: &Margin) -> Vec<Meter> {
    let taking = |dimension| Taking::of(&plan.charge, dimension);
    let mut meters: Vec<Meter> = plan
        .limits
        .iter()
        .map(|limit| Meter::new(now, *limit, taking(limit.dimension), margin))
        .collect();
    if plan.learning != Learning::Off {
        let learnable: &[Dimension] = match plan.charge.output {
            OutputCharge::Reserved => &[Dimension::Requests, Dimension::Tokens],
            OutputCharge::Free => &[Dimension::Requests, Dimension::InputTokens],
            OutputCharge::ReservedAsInput | OutputCharge::AsGenerated => &[
                Dimension::Requests,
                Dimension::InputTokens,
                Dimension::OutputTokens,
            ],
        };
        for dimension in learnable {
            if !plan.limits.iter().any(|limit| limit.dimension == *dimension) {
                meters.push(Meter::unlimited(
                    now,
                    *dimension,
                    plan.window,
                    plan.discipline,
                    taking(*dimension),
                    margin,
                ));
            }
        }
        if let Some(slice) = plan.slice {
            let (requests, discipline) = (Dimension::Requests, plan.discipline);
            let is_listed = |limit: &Limit| limit.dimension == requests && limit.window == slice;
            if !plan.limits.iter().any(is_listed) {
                meters.push(Meter::unlimited(
                    now,
                    requests,
                    slice,
                    discipline,
                    taking(requests),
                    margin,
                ));
            }
        }
    }
    meters
}
