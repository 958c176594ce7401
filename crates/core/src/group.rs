//! One quota group at run time: its meters, its line, and what is learned about its provider.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::charge::{Charge, ChargeModel};
use crate::decision::{Refusal, RefusalReason, WaitReason};
use crate::forecast::{InputFactor, OutputForecast};
use crate::limit::LimitRef;
use crate::margin::{Margin, delay_sample};
use crate::meter::{Earliest, Meter, Taking};
use crate::outcome::{Failure, Outcome, Usage};
use crate::output::{Notice, Wake};
use crate::plan::{QueueBounds, QuotaKey, QuotaPlan, RetryPolicy};
use crate::queue::{Queue, Waiting};
use crate::request::{Demand, Request};
use crate::retry::{self, Jitter, RetryBudget};
use crate::signal::{RateLimited, Reading, UpstreamSignal};
use crate::snapshot::{LimitSnapshot, QuotaSnapshot, Totals, WAITING_SHOWN, WaitingSnapshot};
use crate::time::{Timestamp, micros};
use crate::units::{Amount, Bytes, Dimension};

/// Requests in flight at first while no limit is known.
const LEARNING_WINDOW: u32 = 8;
/// The shortest sleep between two looks at a full limit, in microseconds.
const LOOK_AGAIN: u64 = 500;
/// Output charged on top of what was seen when a stream breaks: one chunk.
const CHUNK_TOKENS: u64 = 16;
/// The longest pause that a provider can impose, in microseconds: thirty days.
const HOLD_MAX: u64 = 30 * 86_400 * 1_000_000;

/// A request that was sent and is not settled.
#[derive(Debug, Clone)]
pub(crate) struct InFlight {
    pub(crate) group: u32,
    pub(crate) arrival: u64,
    pub(crate) request: Request,
    pub(crate) charge: Charge,
    pub(crate) arrived: u64,
    pub(crate) deadline: u64,
    pub(crate) granted: u64,
    pub(crate) attempt: u32,
    reason: WaitReason,
    /// Output charged so far, where output is charged as it is generated.
    generated: u64,
    observed: bool,
}

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
    meters: Vec<Meter>,
    pub(crate) queue: Queue,
    pub(crate) in_flight: u32,
    hold_until: u64,
    /// Requests that may be in flight while no limit is known.
    learning_window: u32,
    margin: Margin,
    output: OutputForecast,
    input: InputFactor,
    budget: RetryBudget,
    pub(crate) totals: Totals,
    pub(crate) last_used: u64,
    /// The time for which the engine is set to wake this group.
    pub(crate) wake: Option<(u64, Wake)>,
}

impl Group {
    pub(crate) fn new(now: u64, key: QuotaKey, plan: &QuotaPlan) -> Self {
        let margin = Margin::new(plan.margin);
        let meters = meters(now, plan, &margin);
        Self {
            key,
            name: plan.name.clone(),
            model: plan.charge,
            permit_ttl: micros(plan.permit_ttl),
            minute: micros(plan.window),
            meters,
            queue: Queue::default(),
            in_flight: 0,
            hold_until: 0,
            learning_window: LEARNING_WINDOW,
            margin,
            output: OutputForecast::default(),
            input: InputFactor::default(),
            budget: RetryBudget::default(),
            totals: Totals::default(),
            last_used: now,
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
        self.in_flight == 0 && self.queue.is_empty() && known
    }

    /// Takes over another version of its plan; charges, lines and everything learned stay.
    pub(crate) fn reconfigure(&mut self, now: u64, plan: &QuotaPlan) {
        self.model = plan.charge;
        self.permit_ttl = micros(plan.permit_ttl);
        self.minute = micros(plan.window);
        let mut older = core::mem::take(&mut self.meters);
        self.meters = meters(now, plan, &self.margin);
        for meter in &mut self.meters {
            let same = |old: &Meter| {
                old.dimension() == meter.dimension() && old.limit().window == meter.limit().window
            };
            if let Some(found) = older.iter().position(same) {
                meter.inherit(older.swap_remove(found));
            }
        }
    }

    /// Lets time pass in every meter.
    pub(crate) fn advance(&mut self, now: u64) {
        for meter in &mut self.meters {
            meter.advance(now);
        }
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
        if let Some(limit) = self.never_fits(&charge) {
            return Entry::Refuse(Refusal {
                reason: RefusalReason::NeverFits,
                limit: Some(limit),
                retry_after: None,
            });
        }
        if self.queue.line_is_empty() && self.is_open(now) && self.fits(now, &charge) {
            self.take(&charge);
            return Entry::Admit(waiting);
        }
        let (eta, reason) = self.eta(now, &charge);
        let refuse = |reason_refused, limit| {
            let wait = Duration::from_micros(eta.saturating_sub(now).max(1_000));
            Entry::Refuse(Refusal {
                reason: reason_refused,
                limit,
                retry_after: Some(wait),
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
        if let Some((arrival, waiting)) = self.queue.expire(now) {
            let limit = if let WaitReason::Limit(limit) = waiting.reason {
                Some(limit)
            } else {
                None
            };
            let (eta, _) = self.eta(now, &waiting.charge);
            let retry_after = Some(Duration::from_micros(eta.saturating_sub(now).max(1_000)));
            let bytes = waiting.request.bytes.value();
            return Step::Expire(
                arrival,
                bytes,
                Refusal {
                    reason: RefusalReason::Deadline,
                    limit,
                    retry_after,
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
        if let Some(limit) = self.never_fits(&charge) {
            // A limit was lowered while it waited.
            let bytes = head.request.bytes.value();
            self.queue.remove(arrival);
            let refusal = Refusal {
                reason: RefusalReason::NeverFits,
                limit: Some(limit),
                retry_after: None,
            };
            return Step::Expire(arrival, bytes, refusal);
        }
        if !self.fits(now, &charge) {
            return Step::Idle;
        }
        self.take(&charge);
        self.queue
            .remove(arrival)
            .map_or(Step::Idle, |waiting| Step::Admit(arrival, waiting))
    }

    /// Returns when to look again, and why.
    pub(crate) fn next_wake(&self, now: u64) -> Option<(u64, Wake)> {
        let deadline = self.queue.next_deadline().map(|at| (at, Wake::Deadline));
        let resume = self.queue.next_resume().map(|at| (at, Wake::Backoff));
        let head = self.queue.head().and_then(|(_, head)| {
            if self.hold_until > now {
                return Some((self.hold_until, Wake::Hold));
            }
            if !self.is_open(now) {
                return None;
            }
            match self.earliest(now, &head.charge, false).0 {
                Earliest::At(at) => Some((at.max(now.saturating_add(LOOK_AGAIN)), Wake::Capacity)),
                Earliest::Event | Earliest::Never => None,
            }
        });
        [head, resume, deadline].into_iter().flatten().min()
    }

    /// Makes the record of a request that was just admitted.
    pub(crate) fn launch(&mut self, now: u64, group: u32, arrival: u64, waiting: Waiting) -> InFlight {
        self.in_flight = self.in_flight.saturating_add(1);
        self.totals.admitted += 1;
        self.last_used = now;
        InFlight {
            group,
            arrival,
            request: waiting.request,
            charge: waiting.charge,
            arrived: waiting.arrived,
            deadline: waiting.deadline,
            granted: now,
            attempt: waiting.attempts + 1,
            reason: waiting.reason,
            generated: 0,
            observed: false,
        }
    }

    /// Takes note of the head of an answer. Returns whether room may have been found.
    pub(crate) fn observe(
        &mut self,
        now: u64,
        flight: &mut InFlight,
        signal: &UpstreamSignal,
        notices: &mut Vec<Notice>,
    ) -> bool {
        if core::mem::replace(&mut flight.observed, true) {
            return false;
        }
        self.margin.sample(delay_sample(
            now.saturating_sub(flight.granted),
            signal.processing,
        ));
        self.refresh_margin(now);
        let mut room = false;
        if self.is_learning() {
            self.learning_window = self.learning_window.saturating_add(1);
            room = true;
        }
        for dimension in Dimension::ALL {
            if let Some(reading) = signal.readings.reading(dimension) {
                let own = flight.charge.amount(dimension).value();
                room |= self.read(now, flight.granted, own, dimension, reading, notices).0;
            }
        }
        room
    }

    /// Takes note of output generated so far. It is charged now, and no longer held.
    pub(crate) fn progress(&mut self, flight: &mut InFlight, output: u64) {
        let fresh = output
            .min(crate::meter::AMOUNT_MAX)
            .saturating_sub(flight.generated);
        if fresh == 0 {
            return;
        }
        let held = flight.charge.amount(Dimension::OutputTokens).value();
        let release = fresh.min(held.saturating_sub(flight.generated));
        flight.generated += fresh;
        for meter in self
            .meters
            .iter_mut()
            .filter(|meter| meter.taking() == Taking::AsGenerated)
        {
            meter.charge(fresh);
            meter.release(release);
        }
    }

    /// Ends an attempt for good. Returns whether room was made.
    pub(crate) fn settle(&mut self, now: u64, mut flight: InFlight, outcome: Outcome) -> bool {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.last_used = now;
        match outcome {
            Outcome::NotSent => self.give_back(&flight, &Dimension::ALL),
            Outcome::Completed(usage) => self.reconcile(&mut flight, &usage),
            Outcome::Unknown { output_seen } => {
                if output_seen.value() > 0 {
                    self.progress(&mut flight, output_seen.value().saturating_add(CHUNK_TOKENS));
                }
            }
        }
        self.let_go(&flight)
    }

    /// Ends a failed attempt and decides when the next one is due.
    pub(crate) fn fail(
        &mut self,
        now: u64,
        flight: InFlight,
        failure: Failure,
        policy: &RetryPolicy,
        jitter: &mut Jitter,
        notices: &mut Vec<Notice>,
    ) -> Result<(), Refusal> {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.last_used = now;
        let pause = retry::pause(policy, flight.attempt, jitter);
        let mut attempts = flight.attempt;
        let mut resume = now;
        let mut reason = flight.reason;
        match failure {
            Failure::Late => {
                self.give_back(&flight, &Dimension::ALL);
                attempts -= 1;
            }
            Failure::RateLimited(refused) => {
                // Refused tokens were not taken; the request itself may have been (providers.md §2.3).
                self.give_back(&flight, &TOKEN_DIMENSIONS);
                self.rate_limited(now, &flight, &refused, pause, notices);
                reason = WaitReason::Hold;
                resume = self.hold_until;
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
        self.let_go(&flight);
        let refusal = |reason| Refusal {
            reason,
            limit: None,
            retry_after: Some(Duration::from_micros(resume.saturating_sub(now).max(1_000))),
        };
        let charge = self.charge_for(&flight.request.demand);
        if let Some(limit) = self.never_fits(&charge) {
            self.totals.refused += 1;
            return Err(Refusal {
                reason: RefusalReason::NeverFits,
                limit: Some(limit),
                retry_after: None,
            });
        }
        if matches!(failure, Failure::Overloaded { .. } | Failure::Transient { .. }) {
            let horizon = flight.arrived.saturating_add(micros(policy.horizon));
            if resume > horizon || !self.budget.spend(now, policy) {
                self.totals.refused += 1;
                return Err(refusal(RefusalReason::RetriesSpent));
            }
        }
        if resume >= flight.deadline {
            self.totals.refused += 1;
            return Err(refusal(RefusalReason::Deadline));
        }
        if attempts > 0 {
            self.totals.retried += 1;
        }
        let waiting = Waiting {
            request: flight.request,
            charge,
            arrived: flight.arrived,
            deadline: flight.deadline,
            attempts,
            reason,
        };
        if reason == WaitReason::Backoff {
            self.queue.pause(flight.arrival, resume, waiting);
        } else {
            self.queue.join(flight.arrival, waiting);
        }
        Ok(())
    }

    /// Returns the group as people see it.
    pub(crate) fn snapshot(&self, now: u64) -> QuotaSnapshot {
        let limits = self
            .meters
            .iter()
            .filter(|meter| meter.is_known())
            .map(|meter| LimitSnapshot {
                limit: meter.name(),
                discipline: meter.limit().discipline,
                source: meter.source(),
                used: Amount::new(meter.used()),
                held: Amount::new(meter.held()),
                foreign: Amount::new(meter.foreign()),
                margin: Duration::from_micros(meter.margin()),
            });
        let first_waiting = self
            .queue
            .iter()
            .take(WAITING_SHOWN)
            .enumerate()
            .map(|(index, (_, waiting))| {
                let eta = match self.earliest(now, &waiting.charge, false).0 {
                    Earliest::At(at) if index == 0 => Some(Timestamp::from_micros(at.max(self.hold_until))),
                    _ => None,
                };
                WaitingSnapshot {
                    place: index + 1,
                    waited: Duration::from_micros(now.saturating_sub(waiting.arrived)),
                    deadline: Timestamp::from_micros(waiting.deadline),
                    reason: waiting.reason,
                    eta,
                }
            });
        QuotaSnapshot {
            key: self.key,
            name: self.name.clone(),
            limits: limits.collect(),
            waiting: self.queue.len(),
            waiting_bytes: Bytes::new(self.queue.bytes()),
            first_waiting: first_waiting.collect(),
            in_flight: self.in_flight as usize,
            hold_until: (self.hold_until > now).then(|| Timestamp::from_micros(self.hold_until)),
            learning: self.is_learning(),
            totals: self.totals,
        }
    }

    /// Returns when a request at the end of the line is expected to be admitted, and what it waits for.
    pub(crate) fn eta(&self, now: u64, charge: &Charge) -> (u64, WaitReason) {
        let (earliest, limit) = self.earliest(now, charge, true);
        let at = match earliest {
            Earliest::At(at) => at,
            Earliest::Event | Earliest::Never => now,
        };
        let eta = at.max(self.hold_until);
        let reason = match limit {
            _ if self.hold_until > now => WaitReason::Hold,
            _ if !self.is_open(now) => WaitReason::Learning,
            Some(limit) => WaitReason::Limit(limit),
            None => WaitReason::Line,
        };
        (eta, reason)
    }

    /// Returns whether anything may be admitted at all.
    fn is_open(&self, now: u64) -> bool {
        self.hold_until <= now && (self.in_flight < self.learning_window || !self.is_learning())
    }

    fn is_learning(&self) -> bool {
        !self.meters.iter().any(Meter::is_known)
    }

    fn charge_for(&self, demand: &Demand) -> Charge {
        let mut demand = *demand;
        if self.model != ChargeModel::OpenAi {
            demand.input = crate::units::Tokens::new(self.input.apply(demand.input.value()));
        }
        let mut charge = self.model.at_admission(&demand);
        for meter in self
            .meters
            .iter()
            .filter(|meter| meter.taking() == Taking::AsGenerated)
        {
            // Held, not charged: no certain use, so it is cut to what fits and to what such requests generate.
            let most = charge.amount(Dimension::OutputTokens).value().min(meter.amount());
            charge.set(
                Dimension::OutputTokens,
                Amount::new(self.output.hold(most).min(meter.amount())),
            );
        }
        charge
    }

    fn never_fits(&self, charge: &Charge) -> Option<LimitRef> {
        let too_large = |meter: &&Meter| {
            meter.is_known() && !meter.can_ever_fit(charge.amount(meter.dimension()).value())
        };
        self.meters.iter().find(too_large).map(Meter::name)
    }

    fn fits(&self, now: u64, charge: &Charge) -> bool {
        self.meters
            .iter()
            .all(|meter| meter.fits(now, charge.amount(meter.dimension()).value()))
    }

    /// Returns when the charge can be taken, behind the line if `queued`, and which limit is the last to allow it.
    fn earliest(&self, now: u64, charge: &Charge, queued: bool) -> (Earliest, Option<LimitRef>) {
        let mut latest = (Earliest::At(now), None);
        for meter in &self.meters {
            let ahead = if queued {
                self.queue.demand(meter.dimension())
            } else {
                0
            };
            let earliest = meter.earliest(now, ahead, charge.amount(meter.dimension()).value());
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

    fn take(&mut self, charge: &Charge) {
        for meter in &mut self.meters {
            meter.take(charge.amount(meter.dimension()).value());
        }
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

    /// Lets go of whatever an ended attempt still holds. Returns whether room may have been made.
    fn let_go(&mut self, flight: &InFlight) -> bool {
        for meter in &mut self.meters {
            if meter.dimension() == Dimension::Concurrency {
                meter.release(1);
            } else if meter.taking() == Taking::AsGenerated {
                let held = flight.charge.amount(Dimension::OutputTokens).value();
                meter.release(held.saturating_sub(flight.generated));
            }
        }
        !self.queue.is_empty()
    }

    /// Replaces estimates by the reported usage, as far as the provider does.
    fn reconcile(&mut self, flight: &mut InFlight, usage: &Usage) {
        let estimated = flight.request.demand.input.value();
        if let Some(input) = usage.input {
            self.input.sample(
                estimated,
                input.value().saturating_add(usage.cached_input.value()),
            );
        }
        if let Some(output) = usage.output {
            if flight.request.demand.generates {
                self.output.sample(output.value());
            }
            if self.model == ChargeModel::Anthropic {
                self.progress(flight, output.value());
            }
        }
        if self.model == ChargeModel::OpenAi {
            return;
        }
        for meter in self
            .meters
            .iter_mut()
            .filter(|meter| meter.taking() == Taking::AtOnce)
        {
            let actual = match meter.dimension() {
                Dimension::InputTokens => usage.input,
                Dimension::OutputTokens => usage.output,
                Dimension::Tokens => usage.input.map(|input| input + usage.output.unwrap_or_default()),
                Dimension::Requests | Dimension::Concurrency => None,
            };
            let Some(actual) = actual else { continue };
            let charged = flight.charge.amount(meter.dimension()).value();
            if actual.value() > charged {
                meter.charge(actual.value() - charged);
            } else {
                meter.refund(flight.granted, charged - actual.value());
            }
        }
    }

    /// Learns from a refusal for rate, and pauses the group until the provider wants to hear of it again.
    fn rate_limited(
        &mut self,
        now: u64,
        flight: &InFlight,
        refused: &RateLimited,
        pause: u64,
        notices: &mut Vec<Notice>,
    ) {
        self.totals.promises_broken += 1;
        notices.push(Notice::PromiseBroken {
            dimension: refused.dimension,
        });
        let wait = refused.retry_after.map_or(pause, micros).min(HOLD_MAX);
        self.hold_until = self.hold_until.max(now.saturating_add(wait.max(1_000)));
        let mut explained = false;
        if let (Some(dimension), Some(limit), Some(used)) = (refused.dimension, refused.limit, refused.used) {
            let remaining = limit.saturating_sub(used);
            let reading = Reading {
                limit: Some(limit),
                remaining: Some(remaining),
                ..Reading::default()
            };
            explained = self.read(now, flight.granted, 0, dimension, &reading, notices).1;
        }
        if !explained {
            self.margin.refused(now);
            self.refresh_margin(now);
        }
        if self.is_learning() {
            self.learning_window = (self.learning_window / 2).max(1);
        }
        for meter in self.meters.iter_mut().filter(|meter| meter.is_known()) {
            let until = self
                .hold_until
                .saturating_add(meter.window().saturating_mul(2).min(HOLD_MAX));
            meter.pace(now, until);
        }
    }

    /// Reads one dimension of an answer. Returns whether room was found, and whether others' use was.
    fn read(
        &mut self,
        now: u64,
        sent: u64,
        own: u64,
        dimension: Dimension,
        reading: &Reading,
        notices: &mut Vec<Notice>,
    ) -> (bool, bool) {
        let Some(meter) = meter_of(&mut self.meters, self.minute, dimension, reading) else {
            return (false, false);
        };
        meter.advance(now);
        let revealed = meter.read(now, sent, own, reading);
        if revealed.amount {
            notices.push(Notice::LimitChanged(meter.name()));
        }
        if revealed.foreign > 0 {
            notices.push(Notice::ForeignTraffic {
                dimension,
                amount: Amount::new(revealed.foreign),
            });
        }
        (revealed.room || revealed.amount, revealed.foreign > 0)
    }

    fn refresh_margin(&mut self, now: u64) {
        self.margin.decay(now);
        for meter in &mut self.meters {
            let margin = self.margin.current(meter.window());
            meter.set_margin(now, margin);
        }
    }
}

const TOKEN_DIMENSIONS: [Dimension; 3] = [Dimension::Tokens, Dimension::InputTokens, Dimension::OutputTokens];

/// Makes the meters of a plan: one for each limit, and one for each dimension whose limit may yet be learned.
fn meters(now: u64, plan: &QuotaPlan, margin: &Margin) -> Vec<Meter> {
    let taking = |dimension| match (plan.charge, dimension) {
        (ChargeModel::Anthropic, Dimension::OutputTokens) => Taking::AsGenerated,
        _ => Taking::AtOnce,
    };
    let mut meters: Vec<Meter> = plan
        .limits
        .iter()
        .map(|limit| Meter::new(now, *limit, taking(limit.dimension), margin))
        .collect();
    if plan.learn {
        let learnable: &[Dimension] = match plan.charge {
            ChargeModel::OpenAi | ChargeModel::Settled => &[Dimension::Requests, Dimension::Tokens],
            ChargeModel::Anthropic => &[
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
                    taking(*dimension),
                    margin,
                ));
            }
        }
    }
    meters
}

/// Finds the meter that a reading is about: the one with the very amount, else the one whose window is nearest to the
/// provider's minute.
fn meter_of<'a>(
    meters: &'a mut [Meter],
    minute: u64,
    dimension: Dimension,
    reading: &Reading,
) -> Option<&'a mut Meter> {
    let amount = reading.limit.map(Amount::value);
    let same = meters
        .iter()
        .position(|meter| meter.dimension() == dimension && Some(meter.amount()) == amount);
    let index = same.or_else(|| {
        let candidates = meters
            .iter()
            .enumerate()
            .filter(|(_, meter)| meter.dimension() == dimension);
        candidates
            .min_by_key(|(_, meter)| meter.window().abs_diff(minute))
            .map(|(index, _)| index)
    })?;
    meters.get_mut(index)
}
