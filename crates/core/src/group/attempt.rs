//! An attempt from its permit to its end.

use alloc::vec::Vec;
use core::time::Duration;

use super::{Desk, Group, HOLD_MAX};
use crate::allowance::{Allowances, Allowed, Hold, Used};
use crate::charge::{Charge, OutputCharge, Settlement};
use crate::decision::{Obstacle, Refusal, RefusalReason, WaitReason};
use crate::meter::{AMOUNT_MAX, Taking};
use crate::outcome::{Failure, Outcome, Usage};
use crate::output::Notice;
use crate::plan::RetryPolicy;
use crate::projection::Fresh;
use crate::queue::Waiting;
use crate::request::Request;
use crate::retry;
use crate::time::micros;
use crate::units::{Amount, Dimension, Tokens};

/// Output charged on top of what was seen when a stream breaks: one chunk.
const CHUNK_TOKENS: u64 = 16;

const TOKEN_DIMENSIONS: [Dimension; 3] = [Dimension::Tokens, Dimension::InputTokens, Dimension::OutputTokens];

/// A request that was sent and is not settled.
#[derive(Debug, Clone)]
pub(crate) struct InFlight {
    pub(crate) group: u32,
    pub(crate) arrival: u64,
    position: u64,
    pub(crate) request: Request,
    pub(crate) charge: Charge,
    /// What its flow was given with it, as a part of a window's cost.
    service: u64,
    /// Under which allowances it is, and what it holds of their budgets.
    pub(crate) allowed: Allowed,
    pub(crate) hold: Hold,
    pub(crate) arrived: u64,
    pub(crate) deadline: u64,
    pub(crate) granted: u64,
    pub(crate) attempt: u32,
    /// How many others were in flight when it was sent.
    pub(super) ahead: u32,
    reason: WaitReason,
    /// Output charged so far, where output is charged as it is generated.
    generated: u64,
    /// Its place among those of whom output is expected.
    slot: Option<u32>,
    pub(super) observed: bool,
    /// What the provider said it charged in tokens; 0 if it did not.
    pub(super) cost: u64,
}

impl InFlight {
    /// Returns the output charged so far, where output is charged as it is generated.
    pub(crate) const fn generated(&self) -> u64 {
        self.generated
    }

    /// Returns what an attempt used that ended so, as far as that is known: else what it was held to use; `None` if it was
    /// not sent.
    pub(crate) fn used(&self, outcome: &Outcome) -> Option<Used> {
        let (demand, price) = (&self.request.demand, &self.request.price);
        let (input, cached, output) = match outcome {
            Outcome::NotSent => return None,
            Outcome::QuotaSpent { .. } | Outcome::TooLarge(_) => (Tokens::ZERO, Tokens::ZERO, Tokens::ZERO),
            // Its input was taken, and what was seen of its output.
            Outcome::Unknown { output_seen } => (demand.input, Tokens::ZERO, *output_seen),
            Outcome::Completed(usage) => {
                let held = Tokens::new(self.hold.tokens).saturating_sub(demand.input);
                let output = usage.output.unwrap_or(held);
                (usage.input.unwrap_or(demand.input), usage.cached_input, output)
            }
        };
        Some(Used {
            input: (input + cached).value(),
            output: output.value(),
            cost: price.cost(input, cached, output).as_micros(),
        })
    }
}

impl Group {
    /// Makes the record of a request that was just admitted.
    pub(crate) fn launch(
        &mut self,
        now: u64,
        granted: u64,
        group: u32,
        arrival: u64,
        waiting: Waiting,
    ) -> InFlight {
        let ahead = self.in_flight;
        self.in_flight = ahead.saturating_add(1);
        self.let_ask();
        self.lessons.admitted(now);
        self.totals.admitted += 1;
        self.last_used = now;
        let mut flight = InFlight {
            group,
            arrival,
            position: waiting.position,
            request: waiting.request,
            charge: waiting.charge,
            service: waiting.cost,
            allowed: waiting.allowed,
            hold: waiting.hold,
            arrived: waiting.arrived,
            deadline: waiting.deadline,
            granted,
            attempt: waiting.attempts + 1,
            ahead,
            reason: waiting.reason,
            generated: 0,
            slot: None,
            observed: false,
            cost: 0,
        };
        self.expect(now, &mut flight);
        self.excess.asked(self.model.excess_most(&flight.request.demand));
        self.keep_room();
        flight
    }

    /// Keeps room for what the settlement of those who run takes beyond their reservations.
    fn keep_room(&mut self) {
        let room = self.excess.room(self.in_flight);
        for meter in &mut self.meters {
            meter.keep_free(room);
        }
    }

    /// Expects output of a request that runs.
    fn expect(&mut self, now: u64, flight: &mut InFlight) {
        let demand = &flight.request.demand;
        if !demand.generates || self.model.output == OutputCharge::Free {
            return;
        }
        let (most, answers) = (self.model.output_reserve(demand), u64::from(demand.choices.get()));
        if !self.model.as_generated() {
            self.projection.used(now, demand.class, most);
            return;
        }
        let slot = self.projection.launch(now, demand.class, most, answers);
        flight.slot = Some(slot);
        for meter in &mut self.meters {
            meter.expect(now, slot, &self.projection);
        }
    }

    /// Takes note of output generated so far: it is charged, and no longer expected. Returns whether a meter charges output
    /// as it is generated.
    pub(crate) fn progress(&mut self, now: u64, flight: &mut InFlight, output: u64) -> bool {
        let output = output.min(AMOUNT_MAX);
        let since = flight
            .slot
            .and_then(|slot| self.projection.report(now, slot, output));
        self.generate(now, flight, output, since.map_or(now, |fresh| fresh.since))
    }

    /// Charges output that was generated since a moment.
    fn generate(&mut self, now: u64, flight: &mut InFlight, output: u64, since: u64) -> bool {
        let tokens = output.saturating_sub(flight.generated);
        flight.generated += tokens;
        let mut is_metered = false;
        for meter in self
            .meters
            .iter_mut()
            .filter(|meter| meter.taking() == Taking::AsGenerated)
        {
            is_metered = true;
            if tokens > 0 {
                meter.generated(now, flight.slot, Fresh { tokens, since }, &self.projection);
            }
        }
        is_metered
    }

    /// Ends an attempt for good. Returns whether room was made.
    pub(crate) fn settle(
        &mut self,
        now: u64,
        mut flight: InFlight,
        outcome: Outcome,
        allowances: &mut Allowances,
        notices: &mut Vec<Notice>,
    ) -> bool {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.last_used = now;
        Self::settle_own(now, &flight, &outcome, allowances);
        match outcome {
            Outcome::NotSent => {
                self.give_back(&flight, &Dimension::ALL);
                self.unserve(now, &flight);
            }
            Outcome::Completed(usage) => {
                self.accepted(&flight);
                self.reconcile(now, &mut flight, &usage);
            }
            Outcome::Unknown { output_seen } => {
                if output_seen.value() > 0 {
                    self.accepted(&flight);
                    let output = output_seen.value().saturating_add(CHUNK_TOKENS);
                    self.progress(now, &mut flight, output);
                }
            }
            // Refused tokens were not taken; the request itself may have been (providers.md §2.3).
            Outcome::QuotaSpent { until } => {
                self.give_back(&flight, &TOKEN_DIMENSIONS);
                self.quota_spent(now, &flight, until, notices);
            }
            Outcome::TooLarge(refused) => {
                self.give_back(&flight, &TOKEN_DIMENSIONS);
                self.too_large(now, &flight, &refused, notices);
            }
        }
        let has_ended = matches!(outcome, Outcome::Completed(_));
        if has_ended {
            self.lasting.note(now.saturating_sub(flight.granted));
        }
        self.let_go(&flight, has_ended)
    }

    /// Settles what an attempt took of its tenant's and its route's limits and budgets: only what was answered counts.
    fn settle_own(now: u64, flight: &InFlight, outcome: &Outcome, allowances: &mut Allowances) {
        if flight.allowed == Allowed::NONE {
            return;
        }
        match (outcome, flight.used(outcome)) {
            (Outcome::Completed(_) | Outcome::Unknown { .. }, Some(used)) => {
                allowances.settle(
                    now,
                    flight.granted,
                    (flight.allowed, &flight.charge, flight.hold),
                    &used,
                );
            }
            _ => allowances.give_back(now, flight.granted, flight.allowed, &flight.charge, flight.hold),
        }
    }

    /// What was given to a flow with an attempt that came to nothing is taken back.
    fn unserve(&mut self, now: u64, flight: &InFlight) {
        let caller = flight.request.caller;
        let service = i64::try_from(flight.service).unwrap_or(i64::MAX);
        self.queue
            .correct(now, (caller.priority, caller.tenant), -service);
        self.note_service(caller, -service);
    }

    /// Ends a failed attempt and decides when the next one is due. Returns where it waits.
    pub(crate) fn fail(
        &mut self,
        now: u64,
        flight: InFlight,
        failure: Failure,
        policy: &RetryPolicy,
        desk: &mut Desk<'_>,
        notices: &mut Vec<Notice>,
    ) -> Result<u32, Refusal> {
        let jitter = &mut *desk.jitter;
        self.in_flight = self.in_flight.saturating_sub(1);
        self.last_used = now;
        desk.allowances
            .give_back(now, flight.granted, flight.allowed, &flight.charge, flight.hold);
        let pause = match failure {
            Failure::RateLimited(_) => 0,
            _ => retry::pause(policy, flight.attempt, jitter),
        };
        let mut attempts = flight.attempt;
        let mut resume = now;
        let mut reason = flight.reason;
        match failure {
            Failure::Late => {
                self.give_back(&flight, &Dimension::ALL);
                self.unserve(now, &flight);
                attempts -= 1;
            }
            Failure::RateLimited(refused) => {
                // Refused tokens were not taken; the request itself may have been (providers.md §2.3).
                self.give_back(&flight, &TOKEN_DIMENSIONS);
                (resume, reason) = self.refused(now, &flight, &refused, policy, jitter, notices);
            }
            Failure::Overloaded { retry_after } => {
                resume = now.saturating_add(retry_after.map_or(0, micros).min(HOLD_MAX).max(pause));
                reason = WaitReason::Backoff;
            }
            Failure::Transient { sent } => {
                if !sent {
                    self.give_back(&flight, &Dimension::ALL);
                }
                resume = now.saturating_add(pause);
                reason = WaitReason::Backoff;
            }
        }
        self.let_go(&flight, false);
        let obstacle = Obstacle::of(reason);
        let refusal = |reason| Refusal {
            obstacle,
            retry_after: Some(Duration::from_micros(resume.saturating_sub(now).max(1_000))),
            ..Refusal::of(reason)
        };
        let charge = self.charge_for(&flight.request.demand);
        if let Some(limit) = self.never_fits(now, &charge) {
            self.totals.refused += 1;
            return Err(Refusal {
                limit: Some(limit),
                ..Refusal::of(RefusalReason::NeverFits)
            });
        }
        if matches!(failure, Failure::Overloaded { .. } | Failure::Transient { .. }) {
            let horizon = flight.arrived.saturating_add(micros(policy.horizon));
            if resume > horizon || !self.budget.spend(now, policy) {
                self.totals.refused += 1;
                return Err(refusal(RefusalReason::RetriesSpent));
            }
        }
        if self.lessons.is_closed(now) {
            self.totals.refused += 1;
            return Err(self.lessons.spent(now));
        }
        if resume >= flight.deadline {
            self.totals.refused += 1;
            return Err(refusal(RefusalReason::Deadline));
        }
        if attempts > 0 {
            self.totals.retried += 1;
        }
        let caller = flight.request.caller;
        let flow = self
            .queue
            .enter(now, caller, desk.allowances.bounds(caller.tenant).terms);
        let waiting = Waiting {
            request: flight.request,
            charge,
            cost: self.cost_of(&charge),
            allowed: flight.allowed,
            hold: flight.hold,
            position: flight.position,
            arrived: flight.arrived,
            deadline: flight.deadline,
            attempts,
            reason,
        };
        Ok(if reason == WaitReason::Backoff {
            self.queue.pause(flight.arrival, flow, resume, waiting)
        } else {
            self.queue.join(flight.arrival, flow, waiting)
        })
    }

    /// Gives back what was charged at admission in the given dimensions (what is held is let go in any case).
    fn give_back(&mut self, flight: &InFlight, dimensions: &[Dimension]) {
        for meter in self
            .meters
            .iter_mut()
            .filter(|meter| meter.taking() == Taking::AtOnce)
        {
            if dimensions.contains(&meter.dimension()) {
                meter.refund(flight.granted, flight.charge.amount(meter.dimension()).value());
            }
        }
    }

    /// Holds again what a running attempt holds, and the room that is kept for those who run, in meters made by a reload.
    pub(crate) fn hold(&mut self, now: u64, flight: &mut InFlight) {
        for meter in &mut self.meters {
            if meter.dimension() == Dimension::Concurrency {
                meter.hold(1);
            }
        }
        self.keep_room();
        if flight.slot.is_none() {
            self.expect(now, flight);
            if let Some(slot) = flight.slot {
                self.projection.report(now, slot, flight.generated);
            }
        }
    }

    /// Lets go of whatever an ended attempt still holds. Returns whether room may have been made.
    fn let_go(&mut self, flight: &InFlight, has_ended: bool) -> bool {
        for meter in &mut self.meters {
            if meter.dimension() == Dimension::Concurrency {
                meter.release(1);
            } else if let Some(slot) = flight.slot {
                meter.forget(slot, has_ended && self.projection.evens_out());
            }
        }
        if let Some(slot) = flight.slot {
            self.projection.remove(slot);
        }
        self.has_asked(has_ended);
        self.keep_room();
        self.has_let_go();
        !self.queue.is_empty()
    }

    /// Replaces estimates by the reported usage, as far as the provider does.
    fn reconcile(&mut self, now: u64, flight: &mut InFlight, usage: &Usage) {
        let estimated = flight.request.demand.input.value();
        let model = self.model;
        if let Some(input) = usage.input {
            self.input.sample(
                flight.request.demand.class,
                estimated,
                input.value().saturating_add(usage.cached_input.value()),
            );
        }
        if let Some(output) = usage.output {
            let output = output.value().min(AMOUNT_MAX);
            let demand = &flight.request.demand;
            let mut since = now;
            if demand.generates {
                since = self.projection.complete(now, flight.slot, demand.class, output);
            }
            self.generate(now, flight, output, since);
        }
        if model.settlement == Settlement::Never {
            return;
        }
        let mut taken = flight.charge;
        if let (true, Some(output)) = (model.as_generated(), usage.output) {
            taken.set(Dimension::OutputTokens, Amount::new(model.settled_output(output)));
        }
        let output = usage.output.map_or(0, |output| model.settled_output(output));
        let spread = self.input.spread(flight.request.demand.class, estimated);
        let reserve = model.output_reserve(&flight.request.demand);
        let can_exceed = model.excess_most(&flight.request.demand) > 0;
        let input = usage
            .input
            .map(|input| model.settled_input(input, usage.cached_input));
        let free = usage.cached_input.value()
            - model
                .settled_input(Tokens::ZERO, usage.cached_input)
                .min(usage.cached_input.value());
        for meter in self
            .meters
            .iter_mut()
            .filter(|meter| meter.taking() == Taking::AtOnce)
        {
            let charged = flight.charge.amount(meter.dimension()).value();
            let actual = match (meter.dimension(), model.settlement) {
                (Dimension::Requests | Dimension::Concurrency, _) | (_, Settlement::Never) => None,
                (Dimension::InputTokens | Dimension::Tokens, Settlement::CachedInput) => {
                    let input = flight.charge.amount(Dimension::InputTokens).value();
                    Some(charged.saturating_sub(free.min(input)))
                }
                (Dimension::OutputTokens, Settlement::CachedInput) => None,
                (Dimension::InputTokens, Settlement::Usage | Settlement::Late) => input,
                (Dimension::OutputTokens, Settlement::Usage | Settlement::Late) => {
                    usage.output.map(|_| output)
                }
                (Dimension::Tokens, Settlement::Usage | Settlement::Late) => {
                    input.map(|input| input.saturating_add(output).max(flight.cost))
                }
            };
            let Some(actual) = actual else { continue };
            taken.set(meter.dimension(), Amount::new(actual));
            if meter.dimension() == Dimension::Tokens && can_exceed {
                self.excess.sample(actual.saturating_sub(charged));
            }
            // What the provider took at admission for certain, by whatever estimate: the rest it takes now, so that it counts
            // from now on.
            let certain = match (model.output, model.settlement) {
                (OutputCharge::Reserved, Settlement::Usage) => charged - spread.min(charged),
                (OutputCharge::Reserved, Settlement::Late) => {
                    charged.saturating_sub(spread.saturating_add(reserve))
                }
                _ => charged,
            };
            if actual > certain {
                meter.refund(flight.granted, charged - certain);
                meter.charge(actual - certain);
            } else {
                meter.refund(flight.granted, charged - actual);
            }
        }
        self.correct_service(now, flight, &taken);
    }

    /// Corrects what its flow was given once it is known what a request really took.
    fn correct_service(&mut self, now: u64, flight: &InFlight, taken: &Charge) {
        let actual = i64::try_from(self.cost_of(taken)).unwrap_or(i64::MAX);
        let given = i64::try_from(flight.service).unwrap_or(i64::MAX);
        let caller = flight.request.caller;
        self.queue
            .correct(now, (caller.priority, caller.tenant), actual - given);
        self.note_service(caller, actual - given);
    }
}
