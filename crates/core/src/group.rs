//! One quota group at run time: its meters, its line, and what is learned about its provider.

mod answer;
mod attempt;
mod congestion;
mod inform;
mod lessons;
mod probe;
mod refusal;
mod spent;
mod view;

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use self::lessons::Lessons;

use crate::charge::{Charge, ChargeModel, InputCharge, OutputCharge};
use crate::decision::{Refusal, RefusalReason, WaitReason};
use crate::forecast::{Excess, InputFactors};
use crate::limit::{Discipline, Limit, LimitRef};
use crate::margin::Margin;
use crate::meter::{AMOUNT_MAX, Earliest, Meter, Taking};
use crate::output::Wake;
use crate::plan::{Learning, QueueBounds, QuotaKey, QuotaPlan};
use crate::projection::{Need, Projection};
use crate::queue::{Queue, Waiting};
use crate::request::{Demand, Request};
use crate::retry::RetryBudget;
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

/// What happens next in a group.
#[derive(Debug)]
pub(crate) enum Step {
    Admit(u64, Waiting),
    Expire(u64, u64, Refusal),
    Idle,
}

/// What a new request is told.
#[derive(Debug)]
pub(crate) enum Entry {
    Admit(Waiting),
    Wait { eta: u64, waiting: Waiting },
    Refuse(Refusal),
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
    pub(crate) in_flight: u32,
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
}

impl Group {
    pub(crate) fn new(now: u64, key: QuotaKey, plan: &QuotaPlan) -> Self {
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
            queue: Queue::default(),
            in_flight: 0,
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
        let older = core::mem::replace(&mut self.meters, meters(now, plan, &self.margin));
        for meter in &mut self.meters {
            let window = meter.window();
            let nearest = older
                .iter()
                .filter(|old| old.dimension() == meter.dimension() && !old.is_passing())
                .max_by_key(|old| (old.window() == window, old.window()));
            if let Some(old) = nearest {
                meter.inherit(old);
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
        let mut queue = core::mem::take(&mut self.queue);
        queue.weigh(|request| self.charge_for(&request.demand));
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
    pub(crate) fn enter(
        &mut self,
        now: u64,
        request: Request,
        bounds: &QueueBounds,
        bytes_waiting: u64,
    ) -> Entry {
        self.last_used = now;
        self.budget.request(now);
        let charge = self.charge_for(&request.demand);
        let latest = now.saturating_add(micros(bounds.wait_max));
        let deadline = request.deadline.as_micros().min(latest);
        let mut waiting = Waiting {
            request,
            charge,
            arrived: now,
            deadline,
            attempts: 0,
            reason: WaitReason::Line,
        };
        if let Some(limit) = self.never_fits(now, &charge) {
            return Entry::Refuse(Refusal {
                reason: RefusalReason::NeverFits,
                limit: Some(limit),
                retry_after: None,
                spent: None,
            });
        }
        if self.lessons.is_closed(now) {
            return Entry::Refuse(self.lessons.spent(now));
        }
        let need = self.need(&request.demand);
        if self.queue.line_is_empty() && self.is_open(now) && self.fits(now, &charge, &need) {
            self.take(now, &charge);
            return Entry::Admit(waiting);
        }
        if self.queue.line_is_empty() {
            self.press(now, &charge, &need);
        }
        let (eta, reason) = self.eta(now, &charge, &request.demand);
        let refuse = |reason_refused, limit| {
            let wait = Duration::from_micros(eta.saturating_sub(now).max(1_000));
            Entry::Refuse(Refusal {
                reason: reason_refused,
                limit,
                retry_after: Some(wait),
                spent: None,
            })
        };
        let limit = if let WaitReason::Limit(limit) = reason {
            Some(limit)
        } else {
            None
        };
        if eta > deadline || deadline <= now {
            return refuse(RefusalReason::Deadline, limit);
        }
        if self.queue.len() >= bounds.requests_max {
            return refuse(RefusalReason::QueueFull, limit);
        }
        if bytes_waiting.saturating_add(waiting.request.bytes.value()) > bounds.bytes_max {
            return refuse(RefusalReason::QueueBytes, limit);
        }
        waiting.reason = reason;
        Entry::Wait { eta, waiting }
    }

    /// Takes the next step that time and capacity allow; called until it is idle.
    pub(crate) fn step(&mut self, now: u64) -> Step {
        self.queue.resume(now);
        let hopeless = self.lessons.hopeless_until(now);
        if let Some((arrival, waiting)) = self.queue.expire(now.max(hopeless)) {
            if waiting.deadline > now {
                let bytes = waiting.request.bytes.value();
                return Step::Expire(arrival, bytes, self.lessons.spent(now));
            }
            let limit = if let WaitReason::Limit(limit) = waiting.reason {
                Some(limit)
            } else {
                None
            };
            let (eta, _) = self.eta(now, &waiting.charge, &waiting.request.demand);
            let retry_after = Some(Duration::from_micros(eta.saturating_sub(now).max(1_000)));
            let bytes = waiting.request.bytes.value();
            return Step::Expire(
                arrival,
                bytes,
                Refusal {
                    reason: RefusalReason::Deadline,
                    limit,
                    retry_after,
                    spent: None,
                },
            );
        }
        if !self.is_open(now) {
            return Step::Idle;
        }
        let Some((arrival, head)) = self.queue.head() else {
            return Step::Idle;
        };
        let charge = head.charge;
        if let Some(limit) = self.never_fits(now, &charge) {
            // A limit was lowered while it waited; what it would only hold is cut to what fits.
            let charge = self.charge_for(&head.request.demand);
            let bytes = head.request.bytes.value();
            let waiting = self.queue.remove(arrival);
            if let (None, Some(waiting)) = (self.never_fits(now, &charge), waiting) {
                self.queue.join(arrival, Waiting { charge, ..waiting });
                return self.step(now);
            }
            let refusal = Refusal {
                reason: RefusalReason::NeverFits,
                limit: Some(limit),
                retry_after: None,
                spent: None,
            };
            return Step::Expire(arrival, bytes, refusal);
        }
        let need = self.need(&head.request.demand);
        if !self.fits(now, &charge, &need) {
            self.press(now, &charge, &need);
            return Step::Idle;
        }
        self.take(now, &charge);
        self.queue
            .remove(arrival)
            .map_or(Step::Idle, |waiting| Step::Admit(arrival, waiting))
    }

    /// Returns when to look again, and why.
    pub(crate) fn next_wake(&self, now: u64) -> Option<(u64, Wake)> {
        let deadline = self.queue.next_deadline().map(|at| (at, Wake::Deadline));
        let resume = self.queue.next_resume().map(|at| (at, Wake::Backoff));
        let head = self.queue.head().and_then(|(_, head)| {
            let opens = self.opens_at(now);
            if opens > now {
                return Some((opens, Wake::Hold));
            }
            if !self.is_open(now) {
                return None;
            }
            let need = self.need(&head.request.demand);
            match self.earliest(now, &Charge::ZERO, &head.charge, &need).0 {
                Earliest::At(at) => {
                    let at = at.max(self.lessons.ready_at());
                    Some((at.max(now.saturating_add(LOOK_AGAIN)), Wake::Capacity))
                }
                Earliest::Event | Earliest::Never => None,
            }
        });
        [head, resume, deadline].into_iter().flatten().min()
    }

    /// Returns when a request at the end of the line is expected to be admitted, and what it waits for.
    pub(crate) fn eta(&self, now: u64, charge: &Charge, demand: &Demand) -> (u64, WaitReason) {
        let (earliest, limit) = self.earliest(now, self.queue.demand(), charge, &self.need(demand));
        let at = match earliest {
            Earliest::At(at) => at,
            Earliest::Event | Earliest::Never => now,
        };
        let opens = self.opens_at(now);
        let paced = self
            .lessons
            .ready_after(self.queue.demand().amount(Dimension::Requests).value());
        let eta = at.max(opens).max(paced);
        let reason = match limit {
            _ if opens > now => WaitReason::Hold,
            _ if !self.is_open(now) => WaitReason::Learning,
            _ if paced > at => self.lessons.reason(),
            Some(limit) => WaitReason::Limit(limit),
            None => WaitReason::Line,
        };
        (eta, reason)
    }

    /// Returns whether anything may be admitted at all.
    fn is_open(&self, now: u64) -> bool {
        self.hold_until <= now
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

    fn charge_for(&self, demand: &Demand) -> Charge {
        let plain = self.model.at_admission(demand);
        let mut demand = *demand;
        if self.model.input == InputCharge::Counted {
            demand.input = crate::units::Tokens::new(self.input.apply(demand.class, demand.input.value()));
        }
        let mut charge = self.model.at_admission(&demand);
        for dimension in Dimension::ALL {
            let amount = charge.amount(dimension).min(Amount::new(AMOUNT_MAX));
            charge.set(dimension, amount);
        }
        for meter in self.meters.iter().filter(|meter| meter.is_known()) {
            // A correction is no certain need: it is cut to what fits, or it would lock out those who can be served.
            let (dimension, most) = (meter.dimension(), Amount::new(meter.amount()));
            let estimated = plain.amount(dimension);
            if charge.amount(dimension) > estimated.max(most) {
                charge.set(dimension, estimated.max(most));
            }
        }
        let generated = |meter: &&Meter| meter.taking() == Taking::AsGenerated;
        if let Some(least) = self.meters.iter().filter(generated).map(Meter::amount).min() {
            // Expected, not charged: no certain use, so it is cut to what fits.
            let mean = self.need(&demand).mean.min(least);
            charge.set(Dimension::OutputTokens, Amount::new(mean));
        }
        charge
    }

    /// Returns what a request needs of output that is charged as it is generated.
    fn need(&self, demand: &Demand) -> Need {
        let answers = u64::from(demand.choices.get());
        self.projection
            .need(demand.class, self.model.output_reserve(demand), answers)
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
