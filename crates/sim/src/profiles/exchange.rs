//! A trial from its first moment to its last: callers, the engine, and one provider.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU64;
use std::time::Duration;

use http::HeaderMap;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tidegate_core::{
    Bytes, Decision, Engine, Failure, Outcome, Output, PermitId, Plan, QueueBounds, QuotaKey, QuotaPlan,
    Request, TicketId, Timestamp as At, Tokens, UpstreamSignal, Usage, Verdict,
};
use tidegate_mock::Key;
use tidegate_mock::limits::{Account, Algorithm, Dimension, Limit, Subject, Timestamp, Wait, Weights};

use super::catalog::Profile;
use super::figures::{Figures, Use};
use super::load::Asked;
use super::wire::{self, Texts};
use crate::setting::exponential;

/// What the engine is told of the limits beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// What the provider enforces.
    Told,
    /// Nothing.
    Unknown,
    /// Twice what the provider enforces.
    Doubled,
}

/// The provider changes a limit while everything runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// When, in minutes from the beginning.
    pub minute: u64,
    /// The pool's place in the profile's list.
    pub pool: usize,
    /// The limit's place in the pool's list.
    pub limit: usize,
    /// The new amount.
    pub amount: u64,
}

/// What is tried with a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The seed of everything that is drawn.
    pub seed: u64,
    /// How long it lasts.
    pub minutes: u64,
    /// What the engine is told.
    pub knowledge: Knowledge,
    /// What the provider changes, in order.
    pub changes: Vec<Change>,
}

impl Trial {
    /// Tries a profile as it is configured.
    pub const fn told(seed: u64, minutes: u64) -> Self {
        Self {
            seed,
            minutes,
            knowledge: Knowledge::Told,
            changes: Vec::new(),
        }
    }
}

/// Something that is going to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A request comes to us.
    Come,
    /// The provider decides on a request.
    Stamp(u32),
    /// The provider has generated more of an answer.
    Generate(u32),
    /// The head of an answer reaches us.
    Head(u32),
    /// So many tokens of a streamed answer have reached us.
    Progress(u32, u64),
    /// An answer is complete.
    Done(u32),
    /// A refusal reaches us.
    Refused(u32),
    /// The engine wants to be woken.
    Wake,
    /// The provider changes a limit.
    Change(u32),
}

/// A request from its arrival to its end.
#[derive(Debug)]
struct Call {
    asked: Asked,
    came: u64,
    permit: Option<PermitId>,
    granted: u64,
    attempts: u32,
    /// When the provider stamped it.
    stamped: u64,
    /// When it is answered whole: the provider's side.
    generated: u64,
    /// The last thing of it that reached us, or will.
    arrives: u64,
    /// Whether anybody counts output while it is generated.
    provider_counts: bool,
    engine_counts: bool,
    is_observed: bool,
    answer: Answer,
}

/// What the provider says, on its way.
#[derive(Debug, Default)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
    /// Whether it refuses the request for good.
    never: bool,
}

struct World<'a> {
    profile: &'a Profile,
    trial: &'a Trial,
    rng: Pcg64Mcg,
    start: u64,
    now: u64,
    end: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    engine: Engine,
    quota: QuotaKey,
    account: Account,
    key: Key,
    /// The place of each pool's first limit among all uses.
    places: Vec<usize>,
    limits: Vec<Limit>,
    calls: Vec<Option<Call>>,
    free: Vec<u32>,
    tickets: BTreeMap<TicketId, u32>,
    sent: Vec<u32>,
    in_flight: usize,
    /// Callers that wait for others to finish before they ask.
    shy: usize,
    woken_at: Option<u64>,
    /// When the first answer came: since the beginning, and since the last change of a limit.
    told: Option<u64>,
    told_change: Option<u64>,
    changed: Option<u64>,
    concurrent: (u64, u64),
    figures: Figures,
}

/// Microseconds.
const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 1_440 * MINUTE;
/// 2026-11-01 and 2026-03-08, midnight in California: the days on which its clocks change, of 25 and of 23 hours.
const CLOCK_CHANGES: [u64; 2] = [1_793_516_400 * SECOND, 1_772_956_800 * SECOND];
/// Requests that wait in line at any time.
const LINE: usize = 24;
/// Callers that wait for an answer at any time, at most.
const CALLERS_MAX: usize = 2_000;
/// The time in which the engine gets to know what is asked for.
const WARM: u64 = 2 * MINUTE;
/// Between two looks at what was generated.
const LOOK: u64 = SECOND / 2;

/// Runs a trial to its end.
pub fn run(profile: &Profile, trial: &Trial) -> Figures {
    let mut world = World::new(profile, trial);
    for _ in 0..LINE {
        world.at(world.start, Event::Come);
    }
    for (index, change) in trial.changes.iter().enumerate() {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        world.at(world.start + change.minute * MINUTE, Event::Change(index));
    }
    world.live();
    world.close();
    world.figures
}

/// Returns the plan as the gateway makes it with this knowledge.
fn plan(profile: &Profile, knowledge: Knowledge) -> QuotaPlan {
    let mut quota = profile.plan.clone();
    match knowledge {
        Knowledge::Told => {}
        Knowledge::Unknown => quota.limits.clear(),
        Knowledge::Doubled => {
            for limit in &mut quota.limits {
                limit.amount = limit
                    .amount
                    .saturating_mul(NonZeroU64::new(2).unwrap_or(NonZeroU64::MIN));
            }
        }
    }
    quota
}

impl<'a> World<'a> {
    fn new(profile: &'a Profile, trial: &'a Trial) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(trial.seed ^ 0x7161);
        // The clocks change six to seven days after the beginning, back or forth.
        let change = CLOCK_CHANGES[usize::try_from(trial.seed % 2).unwrap_or(0)];
        let start = change - 7 * DAY + rng.random_range(0..DAY);
        let end = start + trial.minutes * MINUTE;
        let quota = plan(profile, trial.knowledge);
        let key = QuotaKey::named(&quota.name);
        let queue = QueueBounds {
            wait_max: Duration::from_secs(1 << 30),
            ..QueueBounds::default()
        };
        let plan = Plan {
            quotas: vec![quota],
            queue,
            ..Plan::default()
        };
        let mut account = Account::new(profile.pools.clone(), Duration::from_micros(start));
        if profile.counts_failures {
            account = account.counting_failures();
        }
        let limits: Vec<Limit> = profile
            .pools
            .iter()
            .flat_map(|pool| pool.limits.clone())
            .collect();
        let mut places = Vec::new();
        let mut next = 0;
        for pool in &profile.pools {
            places.push(next);
            next += pool.limits.len();
        }
        let minutes = usize::try_from(trial.minutes).unwrap_or(0);
        let uses = limits.iter().map(|limit| Use {
            name: name(limit),
            is_long: limit.window > Duration::from_secs(3_600),
            taken: vec![0; minutes],
            allowed: vec![0.0; minutes],
        });
        let figures = Figures {
            minutes: trial.minutes,
            uses: uses.collect(),
            ..Figures::default()
        };
        Self {
            profile,
            trial,
            rng,
            start,
            now: start,
            end,
            events: BinaryHeap::new(),
            order: 0,
            engine: Engine::new(At::from_micros(start), plan, trial.seed),
            quota: key,
            account,
            key: Key::new("key"),
            places,
            limits,
            calls: Vec::new(),
            free: Vec::new(),
            tickets: BTreeMap::new(),
            sent: Vec::new(),
            in_flight: 0,
            shy: 0,
            woken_at: None,
            told: None,
            told_change: None,
            changed: None,
            concurrent: (0, start),
            figures,
        }
    }

    fn live(&mut self) {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at >= self.end {
                break;
            }
            self.now = at;
            self.note(at);
            match event {
                Event::Come => self.come(),
                Event::Stamp(id) => self.stamp(id),
                Event::Generate(id) => self.generate(id),
                Event::Head(id) => self.head(id),
                Event::Progress(id, tokens) => self.progress(id, tokens),
                Event::Done(id) => self.done(id),
                Event::Refused(id) => self.refused(id),
                Event::Wake => {
                    if self.woken_at == Some(at) {
                        self.woken_at = None;
                        self.engine.handle_timeout(At::from_micros(at));
                    }
                }
                Event::Change(index) => self.change(index),
            }
            self.drain();
            self.send();
            self.arm();
        }
    }

    /// Works out what the limits allowed, and what was used of those on concurrency.
    fn close(&mut self) {
        self.now = self.end;
        self.count_concurrent(0);
        let snapshot = self.engine.snapshot(At::from_micros(self.now));
        self.figures.believed = snapshot
            .quotas
            .into_iter()
            .flat_map(|quota| quota.limits)
            .collect();
        let mut amounts: Vec<u64> = self
            .profile
            .pools
            .iter()
            .flat_map(|pool| &pool.limits)
            .map(|limit| limit.amount)
            .collect();
        let mut changes = self.trial.changes.iter().peekable();
        for minute in 0..usize::try_from(self.trial.minutes).unwrap_or(0) {
            while let Some(change) = changes.next_if(|change| change.minute <= minute as u64) {
                amounts[self.places[change.pool] + change.limit] = change.amount;
            }
            for ((used, limit), amount) in self.figures.uses.iter_mut().zip(&self.limits).zip(&amounts) {
                used.allowed[minute] = allowed(limit, *amount, minute == 0);
            }
        }
    }

    fn come(&mut self) {
        if self.in_flight >= CALLERS_MAX {
            self.shy += 1;
            return;
        }
        let asked = self.profile.load.draw(&mut self.rng);
        let call = Call {
            asked,
            came: self.now,
            permit: None,
            granted: 0,
            attempts: 0,
            stamped: 0,
            generated: 0,
            arrives: 0,
            provider_counts: true,
            engine_counts: true,
            is_observed: false,
            answer: Answer::default(),
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.calls.push(None);
            u32::try_from(self.calls.len() - 1).unwrap_or(u32::MAX)
        });
        self.calls[id as usize] = Some(call);
        let request = Request {
            quota: self.quota,
            demand: asked.demand,
            bytes: Bytes::ZERO,
            deadline: At::from_micros(u64::MAX),
        };
        match self.engine.submit(At::from_micros(self.now), request) {
            Decision::Admit(permit) => self.granted(id, permit.id),
            Decision::Wait(ticket) => {
                self.tickets.insert(ticket.id, id);
            }
            Decision::Refuse(_) => self.declined(id),
        }
    }

    fn granted(&mut self, id: u32, permit: PermitId) {
        let now = self.now;
        if let Some(call) = &mut self.calls[id as usize] {
            call.permit = Some(permit);
            call.granted = now;
            self.sent.push(id);
        }
    }

    /// The engine does not let a request through. Its caller is told, and another comes a little later.
    fn declined(&mut self, id: u32) {
        self.figures.declined += 1;
        self.forget(id);
        self.at(self.now + SECOND / 10, Event::Come);
    }

    fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Admit { ticket, permit } => {
                    if let Some(id) = self.tickets.remove(&ticket) {
                        self.granted(id, permit.id);
                    }
                }
                Output::Refuse { ticket, .. } => {
                    if let Some(id) = self.tickets.remove(&ticket) {
                        let is_retry = self.call(id).is_some_and(|call| call.attempts > 0);
                        if is_retry {
                            // Somebody else has taken its place in line already.
                            self.figures.declined += 1;
                            self.forget(id);
                        } else {
                            self.declined(id);
                        }
                    }
                }
                Output::Notice { .. } => {}
            }
        }
    }

    /// Sends what may be sent; somebody else takes the place in line.
    fn send(&mut self) {
        let mut sent = std::mem::take(&mut self.sent);
        for id in sent.drain(..) {
            self.in_flight += 1;
            self.figures.sent += 1;
            let now = self.now;
            let Some(call) = &mut self.calls[id as usize] else {
                continue;
            };
            call.attempts += 1;
            call.is_observed = false;
            let first = call.attempts == 1;
            if first {
                self.figures.longest_wait = self.figures.longest_wait.max(now - call.came);
            }
            let delay = self.delay(20_000);
            self.at(now + delay, Event::Stamp(id));
            if first {
                self.at(now, Event::Come);
            }
        }
        self.sent = sent;
    }

    /// The provider decides.
    fn stamp(&mut self, id: u32) {
        let Some(asked) = self.call(id).map(|call| call.asked) else {
            return;
        };
        let now = self.provider_now();
        if let Some(call) = &mut self.calls[id as usize] {
            call.stamped = self.now;
        }
        let (profile, key) = (self.profile, &self.key);
        let subject = Subject {
            key,
            model: profile.model,
            endpoint: profile.endpoint,
        };
        let admitted = self.account.admit(now, u64::from(id), &subject, &asked.seen);
        let states = self.account.state(now, &subject, &asked.seen);
        let back = self.delay(10_000);
        let unix = Duration::from_micros(self.now);
        match admitted {
            Ok(charged) => {
                for (pool, weights) in charged {
                    self.take(pool, self.now, &Weights::default(), &weights);
                }
                self.count_concurrent(1);
                let first = 100_000 + exponential(&mut self.rng, 200_000).min(4 * SECOND);
                let worked = if asked.streams {
                    first
                } else {
                    first + asked.usage.output * SECOND / asked.pace.max(1)
                };
                let headers = wire::success(profile, &states, unix, Duration::from_micros(worked));
                let now = self.now;
                let Some(call) = &mut self.calls[id as usize] else {
                    return;
                };
                call.generated = 0;
                call.provider_counts = true;
                call.engine_counts = call.asked.streams;
                call.arrives = 0;
                call.answer = Answer {
                    status: 200,
                    headers,
                    ..Answer::default()
                };
                if asked.streams {
                    call.arrives = now + first + back;
                    self.at(now + first + back, Event::Head(id));
                }
                self.at(now + first, Event::Generate(id));
            }
            Err(refusal) => {
                let spoken = wire::refusal(profile, &self.account, &refusal, &states, unix);
                self.note(u64::from(id).wrapping_mul(31));
                if let Some(call) = &mut self.calls[id as usize] {
                    call.answer = Answer {
                        status: spoken.status,
                        headers: spoken.headers,
                        body: spoken.body,
                        never: refusal.refused.wait == Wait::Never,
                    };
                }
                self.at(self.now + back, Event::Refused(id));
            }
        }
    }

    /// The provider has generated another half second's worth.
    fn generate(&mut self, id: u32) {
        let now = self.provider_now();
        let Some(call) = &mut self.calls[id as usize] else {
            return;
        };
        let asked = call.asked;
        let left = asked.usage.output - call.generated;
        if left == 0 {
            return self.complete(id);
        }
        // Where nobody counts output on the way, only the end matters.
        let step = if call.provider_counts || call.engine_counts {
            (asked.pace * LOOK / SECOND).max(1)
        } else {
            left
        };
        let more = step.min(left);
        call.generated += more;
        let generated = call.generated;
        let at = self.now + more * SECOND / asked.pace.max(1);
        let pools = self.account.generated(now, u64::from(id), more);
        let counted = Weights {
            output: more,
            ..Weights::default()
        };
        for pool in &pools {
            self.take(*pool, self.now, &Weights::default(), &counted);
        }
        if !pools.is_empty() && self.profile.measures_peak {
            self.measure_peak(&asked);
        }
        let back = self.delay(10_000);
        let now = self.now;
        let Some(call) = &mut self.calls[id as usize] else {
            return;
        };
        call.provider_counts = !pools.is_empty();
        if call.engine_counts && more < left {
            call.arrives = (now + back).max(call.arrives + 1);
            let arrives = call.arrives;
            self.at(arrives, Event::Progress(id, generated));
        }
        self.at(at, Event::Generate(id));
    }

    /// The provider is done with a request.
    fn complete(&mut self, id: u32) {
        let now = self.provider_now();
        let Some((usage, stamped)) = self.call(id).map(|call| (call.asked.usage, call.stamped)) else {
            return;
        };
        for (pool, before, after) in self.account.settle(now, u64::from(id), &usage) {
            self.take(pool, stamped, &before, &after);
        }
        self.account.finish(now, u64::from(id));
        self.count_concurrent(-1);
        let back = self.delay(10_000);
        let now = self.now;
        if let Some(call) = &mut self.calls[id as usize] {
            let arrives = (now + back).max(call.arrives + 1);
            self.at(arrives, Event::Done(id));
        }
    }

    fn head(&mut self, id: u32) {
        let now = At::from_micros(self.now);
        let stamped = self.call(id).map_or(0, |call| call.stamped);
        self.hear(stamped);
        let Some(call) = &mut self.calls[id as usize] else {
            return;
        };
        if std::mem::replace(&mut call.is_observed, true) {
            return;
        }
        let Some(permit) = call.permit else { return };
        let texts = Texts(&call.answer.headers);
        let dialect = self.profile.dialect;
        let processing = dialect.processing(&texts);
        if texts.tell() || processing.is_some() {
            let readings = dialect.readings(now, &texts);
            self.engine.observe(
                now,
                UpstreamSignal {
                    permit,
                    readings,
                    processing,
                },
            );
        }
    }

    fn progress(&mut self, id: u32, tokens: u64) {
        let Some(call) = &mut self.calls[id as usize] else {
            return;
        };
        let Some(permit) = call.permit else { return };
        let now = At::from_micros(self.now);
        call.engine_counts = self.engine.progress(now, permit, Tokens::new(tokens));
    }

    fn done(&mut self, id: u32) {
        self.head(id);
        let Some((usage, permit)) = self.call(id).map(|call| (call.asked.usage, call.permit)) else {
            return;
        };
        let usage = Usage {
            input: Some(Tokens::new(usage.input - usage.cache_read)),
            cached_input: Tokens::new(usage.cache_read),
            output: Some(Tokens::new(usage.output)),
        };
        if let Some(permit) = permit {
            let now = At::from_micros(self.now);
            self.engine.settle(now, permit, Outcome::Completed(usage));
        }
        self.forget(id);
        self.leave();
    }

    /// A refusal reaches us: it is read, and the engine decides what becomes of the request.
    fn refused(&mut self, id: u32) {
        let now = At::from_micros(self.now);
        let minute = (self.now - self.start) / MINUTE;
        let Some(call) = &mut self.calls[id as usize] else {
            return;
        };
        let Some(permit) = call.permit else { return };
        let (granted, stamped, never) = (call.granted, call.stamped, call.answer.never);
        let texts = Texts(&call.answer.headers);
        let dialect = self.profile.dialect;
        if texts.tell() {
            let readings = dialect.readings(now, &texts);
            self.engine.observe(
                now,
                UpstreamSignal {
                    permit,
                    readings,
                    processing: None,
                },
            );
        }
        let verdict = dialect.classify(now, call.answer.status, &texts, call.answer.body.as_bytes());
        self.leave();
        let failure = match verdict {
            Verdict::RateLimited(refused) => {
                self.figures.refusals.add(refused.cause);
                Some(Failure::RateLimited(refused))
            }
            Verdict::Overloaded { retry_after } => {
                self.figures.refusals.congestion += 1;
                Some(Failure::Overloaded { retry_after })
            }
            Verdict::Transient => Some(Failure::Transient { sent: true }),
            Verdict::QuotaSpent { until } => {
                self.figures.spent += 1;
                self.engine.settle(now, permit, Outcome::QuotaSpent { until });
                None
            }
            Verdict::TooLarge(refused) => {
                self.figures.too_large += 1;
                self.engine.settle(now, permit, Outcome::TooLarge(refused));
                None
            }
            Verdict::Success | Verdict::ClientError => {
                self.engine
                    .settle(now, permit, Outcome::Completed(Usage::default()));
                None
            }
        };
        if !never {
            self.count_refusal(granted, minute);
        }
        self.hear(stamped);
        let Some(failure) = failure else {
            self.forget(id);
            return;
        };
        match self.engine.retry(now, permit, failure) {
            Decision::Wait(ticket) => {
                self.tickets.insert(ticket.id, id);
            }
            Decision::Admit(permit) => self.granted(id, permit.id),
            Decision::Refuse(_) => {
                self.figures.declined += 1;
                self.forget(id);
            }
        }
    }

    /// An answer arrives to what the provider decided on at `stamped`: it tells the limits of that moment.
    fn hear(&mut self, stamped: u64) {
        self.told.get_or_insert(self.now);
        if self.changed.is_some_and(|changed| changed <= stamped) {
            self.told_change.get_or_insert(self.now);
        }
    }

    fn count_refusal(&mut self, granted: u64, minute: u64) {
        let figures = &mut self.figures;
        figures.early += u64::from(minute < 10);
        figures.last = Some(minute);
        if self.told.is_none_or(|told| granted <= told) {
            figures.excepted += 1;
        } else {
            figures.later += 1;
        }
        if self.changed.is_some() {
            let before = self.told_change.is_none_or(|told| granted <= told);
            figures.after_change[usize::from(!before)] += 1;
        }
    }

    /// A call is over, so that a caller who held back may ask.
    fn leave(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.shy > 0 {
            self.shy -= 1;
            self.at(self.now, Event::Come);
        }
    }

    fn change(&mut self, index: u32) {
        let now = self.provider_now();
        if let Some(change) = self.trial.changes.get(index as usize) {
            self.account.resize(now, change.pool, change.limit, change.amount);
            self.changed = Some(self.now);
            self.told_change = None;
        }
    }

    /// Counts what was taken in a pool, as of a moment.
    fn take(&mut self, pool: usize, at: u64, before: &Weights, after: &Weights) {
        let minute = usize::try_from((at - self.start) / MINUTE).unwrap_or(usize::MAX);
        let first = self.places[pool];
        let count = self.profile.pools[pool].limits.len();
        for place in first..first + count {
            let dimension = self.limits[place].dimension;
            if dimension == Dimension::Concurrency {
                continue;
            }
            let taken = i64::try_from(after.amount(dimension)).unwrap_or(i64::MAX)
                - i64::try_from(before.amount(dimension)).unwrap_or(i64::MAX);
            if let Some(used) = self.figures.uses[place].taken.get_mut(minute) {
                *used += taken;
            }
        }
    }

    /// Adds up how many were open, and for how long, in microseconds.
    fn count_concurrent(&mut self, change: i64) {
        let (open, mut from) = self.concurrent;
        for place in 0..self.limits.len() {
            if self.limits[place].dimension != Dimension::Concurrency {
                continue;
            }
            from = self.concurrent.1;
            while from < self.now {
                let minute = (from - self.start) / MINUTE;
                let to = self.now.min(self.start + (minute + 1) * MINUTE);
                let used = usize::try_from(minute)
                    .ok()
                    .and_then(|minute| self.figures.uses[place].taken.get_mut(minute));
                if let Some(used) = used {
                    *used += i64::try_from(open * (to - from)).unwrap_or(i64::MAX);
                }
                from = to;
            }
        }
        debug_assert!(from <= self.now, "time runs forward");
        self.concurrent = (open.saturating_add_signed(change), self.now);
    }

    /// Takes note of how far a limit on output is used: the time until its bucket is full again tells it.
    fn measure_peak(&mut self, asked: &Asked) {
        let subject = Subject {
            key: &self.key,
            model: self.profile.model,
            endpoint: self.profile.endpoint,
        };
        let now = Timestamp(self.now - self.start);
        for state in self.account.state(now, &subject, &asked.seen) {
            for limit in &state.limits {
                if limit.limit.dimension == Dimension::Output && !limit.limit.hidden {
                    let thousandths = limit.reset.as_micros() * 1_000 / limit.limit.window.as_micros().max(1);
                    let thousandths = u64::try_from(thousandths).unwrap_or(u64::MAX);
                    let is_warm = self.now >= self.start + WARM;
                    let peak = &mut self.figures.peaks[usize::from(is_warm)];
                    *peak = (*peak).max(thousandths);
                }
            }
        }
    }

    /// Sees to it that the engine is woken when it wants to be.
    fn arm(&mut self) {
        let Some((next, _)) = self.engine.poll_timeout() else {
            return;
        };
        let next = next.as_micros().max(self.now);
        if self.woken_at.is_none_or(|at| next < at || at < self.now) {
            self.woken_at = Some(next);
            self.at(next, Event::Wake);
        }
    }

    fn call(&self, id: u32) -> Option<&Call> {
        self.calls.get(id as usize)?.as_ref()
    }

    fn forget(&mut self, id: u32) {
        self.calls[id as usize] = None;
        self.free.push(id);
    }

    /// Draws how long something is under way: 5 ms and a tail that is cut at 200 ms.
    fn delay(&mut self, mean: u64) -> u64 {
        5_000 + exponential(&mut self.rng, mean).min(200_000)
    }

    const fn provider_now(&self) -> Timestamp {
        Timestamp(self.now - self.start)
    }

    fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    fn note(&mut self, value: u64) {
        self.figures.digest = (self.figures.digest ^ value)
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(17);
    }
}

/// Returns what people call a limit.
fn name(limit: &Limit) -> String {
    let what = match limit.dimension {
        Dimension::Requests => "R",
        Dimension::Tokens => "T",
        Dimension::Input => "IT",
        Dimension::Output => "OT",
        Dimension::Concurrency => return "in flight".to_owned(),
        _ => "other ",
    };
    let per = match limit.window.as_secs() {
        0..=9 => "PS",
        10..=59 => "P10S",
        60..=3_600 => "PM",
        _ => "PD",
    };
    format!("{what}{per}")
}

/// Returns what a limit allows in a minute; a bucket also what it held at first.
#[allow(clippy::cast_precision_loss, reason = "a share for people")]
fn allowed(limit: &Limit, amount: u64, is_first: bool) -> f64 {
    if limit.dimension == Dimension::Concurrency {
        return amount as f64 * MINUTE as f64;
    }
    let whole = match limit.algorithm {
        // Slices are rounded down.
        Algorithm::Slices { slice, .. } => {
            let parts = (limit.window.as_micros() / slice.as_micros().max(1)) as f64;
            (amount as f64 / parts).floor() * parts
        }
        _ => amount as f64,
    };
    let minutes = limit.window.as_secs_f64() / 60.0;
    let burst = match limit.algorithm {
        Algorithm::TokenBucket if is_first => amount as f64,
        Algorithm::Spaced { .. } if is_first => limit.capacity() as f64,
        _ => 0.0,
    };
    whole / minutes + burst
}
