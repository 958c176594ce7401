//! Closed loops: the engine against a provider that keeps its limits by the book and tells nothing of them in advance.
//!
//! The provider is as simple as can be: an exact log, a counter that begins anew, a level that refills. Requests reach it
//! after 10 to 60 ms, refusals come back 50 ms later, and successes take two to six seconds.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};

use super::*;
use crate::retry::Jitter;
use crate::{
    Amount, Cause, Failure, Learning, LimitSource, Outcome, PermitId, QuotaSnapshot, RateLimited, Readings,
    TicketId, UpstreamSignal, Usage,
};

const SECOND: u64 = 1_000_000;
const MINUTE_MICROS: u64 = 60 * SECOND;

/// How a provider keeps one limit.
#[derive(Debug, Clone)]
pub(super) enum Keeper {
    Rolling(VecDeque<(u64, u64)>),
    /// The counter begins anew at multiples of a minute after this phase.
    Fixed {
        phase: u64,
        turn: u64,
        used: u64,
    },
    /// The level, times a minute's microseconds, and when it was last known.
    Bucket {
        level: u128,
        known: u64,
    },
}

impl Keeper {
    pub(super) const fn rolling() -> Self {
        Self::Rolling(VecDeque::new())
    }

    pub(super) const fn fixed(phase: u64) -> Self {
        Self::Fixed {
            phase,
            turn: 0,
            used: 0,
        }
    }

    pub(super) fn bucket(amount: u64) -> Self {
        Self::Bucket {
            level: u128::from(amount) * u128::from(MINUTE_MICROS),
            known: 0,
        }
    }

    /// Accepts `weight` if it fits.
    fn accepts(&mut self, now: u64, amount: u64, weight: u64) -> bool {
        match self {
            Self::Rolling(log) => {
                while log.front().is_some_and(|(at, _)| at + MINUTE_MICROS <= now) {
                    log.pop_front();
                }
                let used: u64 = log.iter().map(|(_, weight)| weight).sum();
                if used + weight > amount {
                    return false;
                }
                log.push_back((now, weight));
                true
            }
            Self::Fixed { phase, turn, used } => {
                let current = (now + *phase) / MINUTE_MICROS;
                if current != *turn {
                    (*turn, *used) = (current, 0);
                }
                if *used + weight > amount {
                    return false;
                }
                *used += weight;
                true
            }
            Self::Bucket { level, known } => {
                let full = u128::from(amount) * u128::from(MINUTE_MICROS);
                let gained = u128::from(amount) * u128::from(now.saturating_sub(*known));
                *level = (*level + gained).min(full);
                *known = now;
                let cost = u128::from(weight) * u128::from(MINUTE_MICROS);
                if *level < cost {
                    return false;
                }
                *level -= cost;
                true
            }
        }
    }
}

/// What the provider does with a request that reaches it.
pub(super) enum Word {
    Accepted,
    /// Accepted, with headers.
    Told(Box<Readings>),
    Refused(RateLimited),
}

#[derive(Debug)]
enum Event {
    Arrive(PermitId, u64),
    Refuse(PermitId, u64, RateLimited),
    Head(PermitId, Box<Readings>),
    Done(PermitId, u64),
    Tick,
}

/// The engine, a backlog that never ends, and what the provider saw.
pub(super) struct Loop {
    pub(super) world: World,
    events: BTreeMap<(u64, u64), Event>,
    order: u64,
    random: Jitter,
    backlog: usize,
    weights: (u64, u64),
    waiting: BTreeMap<TicketId, u64>,
    /// Weight accepted in each minute from the start, and requests refused.
    pub(super) accepted: Vec<u64>,
    pub(super) refused: Vec<u64>,
    pub(super) in_flight: u64,
}

impl Loop {
    pub(super) fn new(plan: Plan, seed: u64, backlog: usize, weights: (u64, u64)) -> Self {
        let mut this = Self {
            world: World::new(plan),
            events: BTreeMap::new(),
            order: 0,
            random: Jitter::new(seed),
            backlog,
            weights,
            waiting: BTreeMap::new(),
            accepted: Vec::new(),
            refused: Vec::new(),
            in_flight: 0,
        };
        this.at(START.as_micros(), Event::Tick);
        this
    }

    fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.events.insert((at, self.order), event);
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.random.next() % (most - least + 1)
    }

    /// Runs for so many minutes from where it is. `judge` is the provider: it is told the time, the weight of a request
    /// and how many others it works on.
    pub(super) fn run(&mut self, minutes: u64, mut judge: impl FnMut(u64, u64, u64) -> Word) {
        let end = self.world.now.as_micros() + minutes * MINUTE_MICROS;
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let wake = self.world.engine.poll_timeout().map(|(at, _)| at.as_micros());
            let next = event.unwrap_or(u64::MAX).min(wake.unwrap_or(u64::MAX));
            if next >= end {
                self.world.now = Timestamp::from_micros(end);
                return;
            }
            self.world.now = self.world.now.max(Timestamp::from_micros(next));
            if event == Some(next) {
                let (_, event) = self.events.pop_first().expect("it was looked at");
                self.happen(event, &mut judge);
            } else {
                self.world.engine.handle_timeout(self.world.now);
            }
            self.drain();
        }
    }

    fn happen(&mut self, event: Event, judge: &mut impl FnMut(u64, u64, u64) -> Word) {
        let now = self.world.now.as_micros();
        let minute = usize::try_from((now - START.as_micros()) / MINUTE_MICROS).expect("few minutes");
        self.accepted.resize(self.accepted.len().max(minute + 1), 0);
        self.refused.resize(self.refused.len().max(minute + 1), 0);
        match event {
            Event::Tick => {
                self.fill();
                self.at(now + SECOND, Event::Tick);
            }
            Event::Arrive(permit, weight) => match judge(now, weight, self.in_flight) {
                Word::Refused(refused) => {
                    self.refused[minute] += 1;
                    self.at(now + 50_000, Event::Refuse(permit, weight, refused));
                }
                word => {
                    self.accepted[minute] += weight;
                    self.in_flight += 1;
                    if let Word::Told(readings) = word {
                        self.at(now + 100_000, Event::Head(permit, readings));
                    }
                    let takes = self.between(2 * SECOND, 6 * SECOND);
                    self.at(now + takes, Event::Done(permit, weight));
                }
            },
            Event::Head(permit, readings) => {
                let signal = UpstreamSignal {
                    permit,
                    readings: *readings,
                    processing: None,
                };
                self.world.engine.observe(self.world.now, signal);
            }
            Event::Refuse(permit, weight, refused) => {
                let failure = Failure::RateLimited(refused);
                if let Decision::Wait(ticket) = self.world.engine.retry(self.world.now, permit, failure) {
                    self.waiting.insert(ticket.id, weight);
                }
            }
            Event::Done(permit, weight) => {
                self.in_flight -= 1;
                let usage = Usage {
                    input: Some(Tokens::new(weight)),
                    output: Some(Tokens::ZERO),
                    ..Usage::default()
                };
                self.world
                    .engine
                    .settle(self.world.now, permit, Outcome::Completed(usage));
            }
        }
    }

    fn drain(&mut self) {
        for output in self.world.outputs() {
            match output {
                Output::Admit { ticket, permit } => {
                    let weight = self.waiting.remove(&ticket).expect("it waits");
                    self.send(permit.id, weight);
                }
                Output::Refuse { ticket, .. } => {
                    self.waiting.remove(&ticket);
                }
                Output::Notice { .. } | Output::Call { .. } | Output::CallEscrow => {}
            }
        }
        self.fill();
    }

    fn fill(&mut self) {
        while self.waiting.len() < self.backlog {
            let weight = self.between(self.weights.0, self.weights.1);
            match self.world.ask(weight) {
                Decision::Admit(permit) => self.send(permit.id, weight),
                Decision::Wait(ticket) => {
                    self.waiting.insert(ticket.id, weight);
                }
                Decision::Refuse(_) => break,
            }
        }
    }

    fn send(&mut self, permit: PermitId, weight: u64) {
        let arrives = self.world.now.as_micros() + self.between(10_000, 60_000);
        self.at(arrives, Event::Arrive(permit, weight));
    }

    pub(super) fn quota(&mut self) -> QuotaSnapshot {
        let now = self.world.now;
        self.world.engine.snapshot(now).quotas[0].clone()
    }

    /// Returns the first minute, from 1, in which at least `percent` of `amount` were accepted.
    pub(super) fn reached(&self, amount: u64, percent: u64) -> Option<usize> {
        let enough = |accepted: &u64| accepted * 100 >= amount * percent;
        Some(self.accepted.iter().position(enough)? + 1)
    }

    /// Returns what was accepted from one minute to another, over what could have been, in percent.
    pub(super) fn used(&self, amount: u64, from: usize, to: usize) -> u64 {
        let sum: u64 = self.accepted[from..to].iter().sum();
        sum * 100 / (amount * (to - from) as u64)
    }

    pub(super) fn refused_in(&self, from: usize, to: usize) -> u64 {
        self.refused[from..to].iter().sum()
    }
}

pub(super) fn probing(charge: ChargeModel) -> Plan {
    let mut plan = plan_of(vec![], charge);
    plan.quotas[0].learning = Learning::Probe;
    plan
}

pub(super) fn refusal(cause: Cause) -> Word {
    Word::Refused(RateLimited {
        cause,
        ..RateLimited::default()
    })
}

/// Runs slow start against a limit on requests or tokens for twenty minutes, and returns the first minute in which 90 %
/// of it were used, how much was used in the last ten minutes in percent, and the refusals of both halves.
fn probe(keeper: &mut Keeper, amount: u64, by_tokens: bool, seed: u64) -> (usize, u64, [u64; 2]) {
    let mut run = Loop::new(probing(ChargeModel::GEMINI), seed, 40, (200, 1_800));
    let mut minutes = Vec::new();
    for _ in 0..20 {
        let mut taken = 0;
        run.run(1, |now, weight, _| {
            let weight = if by_tokens { weight } else { 1 };
            if keeper.accepts(now, amount, weight) {
                taken += weight;
                Word::Accepted
            } else {
                refusal(Cause::Rate)
            }
        });
        minutes.push(taken);
    }
    run.accepted = minutes;
    let totals = run.quota().totals;
    assert_eq!(totals.promises_broken, 0, "nobody promised anything");
    assert_eq!(totals.probed, run.refused_in(0, run.refused.len()));
    (
        run.reached(amount, 90).unwrap_or(usize::MAX),
        run.used(amount, 10, 20),
        [run.refused_in(0, 10), run.refused_in(10, run.refused.len())],
    )
}

#[test]
fn an_unknown_limit_is_found_and_used_however_it_is_kept() {
    // The most refusals in ten minutes: about a second's worth of requests, and a score for finding a phase.
    for (amount, by_tokens, refused_max) in [(60, false, 25), (600, false, 30), (600_000, true, 30)] {
        let keepers = [
            ("rolling", Keeper::rolling()),
            ("fixed", Keeper::fixed(20 * SECOND)),
            ("fixed, late", Keeper::fixed(50 * SECOND)),
            ("bucket", Keeper::bucket(amount)),
        ];
        for (name, keeper) in keepers {
            for seed in [3, 4] {
                let (reached, used, refused) = probe(&mut keeper.clone(), amount, by_tokens, seed);
                let said = (amount, name, seed, reached, used, refused);
                assert!(reached <= 3, "{said:?}");
                assert!(used >= 90, "{said:?}");
                assert!(refused[0] <= refused_max && refused[1] <= refused_max, "{said:?}");
            }
        }
    }
}

/// 500 a minute are configured, and the provider keeps to 250: refusals without any numbers.
#[test]
fn a_wrong_limit_is_corrected_once_also_where_nothing_is_said() {
    for (name, mut keeper) in [("rolling", Keeper::rolling()), ("fixed", Keeper::fixed(0))] {
        let limits = vec![
            limit(Dimension::Requests, 500),
            limit(Dimension::InputTokens, 10_000_000),
        ];
        let mut plan = plan_of(limits, ChargeModel::GEMINI);
        plan.quotas[0].learning = Learning::Answers;
        let mut run = Loop::new(plan, 5, 40, (100, 200));
        let mut accepted = vec![0; 10];
        run.run(10, |now, _, _| {
            if keeper.accepts(now, 250, 1) {
                accepted[usize::try_from((now - START.as_micros()) / MINUTE_MICROS).expect("few")] += 1;
                Word::Accepted
            } else {
                refusal(Cause::Rate)
            }
        });
        let quota = run.quota();
        let learned = &quota.limits[0];
        assert_eq!(learned.source, LimitSource::Learned, "{name}: {learned:?}");
        assert!((225..=260).contains(&learned.limit.amount), "{name}: {learned:?}");
        // The first lesson is given by all that were on their way. A window that is fixed tells its limit only once it
        // is used evenly.
        let later = [run.refused_in(1, 5), run.refused_in(5, run.refused.len())];
        let most = if name == "rolling" { 0 } else { 12 };
        assert!(later[0] <= most && later[1] == 0, "{name}: {:?}", run.refused);
        assert!(
            accepted[3..].iter().all(|minute| *minute >= 220),
            "{name}: {accepted:?}"
        );
    }
}

/// The same with OpenAI's words: the numbers of the first refusal correct it.
#[test]
fn a_wrong_limit_is_corrected_once_by_numbers() {
    let mut keeper = Keeper::bucket(250);
    let plan = plan_of(vec![bucket(Dimension::Requests, 500)], ChargeModel::OPENAI);
    let mut run = Loop::new(plan, 5, 40, (100, 200));
    run.run(10, |now, _, _| {
        if keeper.accepts(now, 250, 1) {
            return Word::Accepted;
        }
        let Keeper::Bucket { level, .. } = &keeper else {
            unreachable!()
        };
        let left = u64::try_from(level * 1_000 / u128::from(MINUTE_MICROS)).expect("it is small");
        Word::Refused(RateLimited {
            dimension: Some(Dimension::Requests),
            limit: Some(Amount::new(250)),
            used: Some(Amount::new(250)),
            requested: Some(Amount::new(1)),
            named_window: Some(MINUTE),
            retry_after: Some(Duration::from_micros((1_000 - left) * 240)),
            ..RateLimited::default()
        })
    });
    let refused = run.refused_in(0, 1);
    assert!(
        (1..300).contains(&refused),
        "those on their way: {:?}",
        run.refused
    );
    assert_eq!(run.refused_in(1, run.refused.len()), 0, "{:?}", run.refused);
    let learned = run.quota().limits[0];
    assert_eq!(
        (learned.limit.amount, learned.source),
        (250, LimitSource::Refusal)
    );
}

/// Anthropic's acceleration limit: 58,276 input tokens a minute at first, 10,000 more at every minute boundary, up to
/// the 200,000 that are configured (providers.md §4.5).
#[test]
fn growth_that_is_too_fast_follows_the_ramp() {
    let mut keeper = Keeper::rolling();
    let plan = plan_of(
        vec![limit(Dimension::InputTokens, 200_000)],
        ChargeModel::ANTHROPIC,
    );
    let mut run = Loop::new(plan, 6, 40, (500, 1_500));
    let level = |now: u64| 58_276 + (now / MINUTE_MICROS - START.as_micros() / MINUTE_MICROS) * 10_000;
    let mut accepted = [0; 20];
    run.run(20, |now, weight, _| {
        let level = level(now).min(200_000);
        if keeper.accepts(now, level, weight) {
            accepted[usize::try_from((now - START.as_micros()) / MINUTE_MICROS).expect("few")] += weight;
            return Word::Accepted;
        }
        Word::Refused(RateLimited {
            cause: Cause::Acceleration,
            dimension: Some(Dimension::InputTokens),
            limit: Some(Amount::new(level)),
            next_limit: Some(Amount::new(level + 10_000)),
            ..RateLimited::default()
        })
    });
    let totals = run.quota().totals;
    assert_eq!((totals.promises_broken, totals.probed), (0, 0));
    assert_eq!(
        run.refused_in(1, run.refused.len()),
        0,
        "one lesson is enough: {:?}",
        run.refused
    );
    for (minute, accepted) in accepted.iter().enumerate().skip(2) {
        let level = (58_276 + minute as u64 * 10_000).min(200_000);
        assert!(
            accepted * 100 >= level * 85,
            "minute {minute}: {accepted} of {level}"
        );
    }
    assert!(
        run.quota().limits.iter().all(|limit| limit.growth.is_none()),
        "it is over"
    );
}

/// Four requests at a time are accepted, and nobody says so.
#[test]
fn a_number_of_requests_in_flight_is_learned() {
    let plan = plan_of(vec![limit(Dimension::Requests, 120)], ChargeModel::ANTHROPIC);
    let mut run = Loop::new(plan, 7, 40, (100, 200));
    run.run(20, |_, _, others| {
        if others < 4 {
            Word::Accepted
        } else {
            refusal(Cause::Concurrency)
        }
    });
    let quota = run.quota();
    let learned = quota
        .limits
        .iter()
        .find(|limit| limit.limit.dimension == Dimension::Concurrency);
    let learned = learned.expect("it was learned");
    assert_eq!(learned.source, LimitSource::Learned);
    assert!((3..=5).contains(&learned.limit.amount), "{learned:?}");
    assert_eq!(quota.totals.promises_broken, 0);
    // Four at a time, four seconds each: sixty a minute.
    let late: u64 = run.accepted[10..20].iter().sum::<u64>() / 150;
    assert!(late >= 10 * 54, "{:?}", run.accepted);
    assert!(
        run.refused_in(1, 20) <= 30,
        "one more is tried now and then: {:?}",
        run.refused
    );
}

/// What everybody shares carries 300 requests a minute of ours, then 100, then 600.
#[test]
fn shortage_of_shared_capacity_is_followed() {
    let mut plan = plan_of(vec![], ChargeModel::GEMINI);
    plan.quotas[0].learning = Learning::Off;
    let mut run = Loop::new(plan, 8, 40, (100, 200));
    let mut shares = Vec::new();
    for (capacity, minutes) in [(300, 8), (100, 8), (600, 8)] {
        // Half a second's worth may come at once.
        let (mut level, mut known) = (0_u64, run.world.now.as_micros());
        let full = MINUTE_MICROS * (capacity / 120).max(2);
        let mut taken = [0_u64; 8];
        let begun = run.world.now.as_micros();
        let refused = run.refused.iter().sum::<u64>();
        run.run(minutes, |now, _, _| {
            level = (level + capacity * (now - known)).min(full);
            known = now;
            if level < MINUTE_MICROS {
                return refusal(Cause::Congestion);
            }
            level -= MINUTE_MICROS;
            taken[usize::try_from((now - begun) / MINUTE_MICROS).expect("few")] += 1;
            Word::Accepted
        });
        let used: u64 = taken[4..].iter().sum::<u64>() * 100 / (capacity * 4);
        let refused = run.refused.iter().sum::<u64>() - refused;
        shares.push((capacity, used, refused * 100 / taken.iter().sum::<u64>()));
    }
    for (capacity, used, refused) in &shares {
        assert!(*used >= 70, "{capacity}: {shares:?}");
        assert!(*refused <= 25, "{capacity}: {shares:?}");
    }
    let totals = run.quota().totals;
    assert_eq!((totals.promises_broken, totals.probed), (0, 0));
}

/// Where answers tell the limit, it is used within seconds, however it is to be learned otherwise.
#[test]
fn a_limit_that_headers_tell_is_used_at_once() {
    for learning in [Learning::Answers, Learning::Probe] {
        let mut plan = plan_of(vec![], ChargeModel::OPENAI);
        plan.quotas[0].learning = learning;
        let mut run = Loop::new(plan, 9, 2_000, (100, 100));
        let mut keeper = Keeper::rolling();
        run.run(2, |now, _, _| {
            if !keeper.accepts(now, 600, 1) {
                return refusal(Cause::Rate);
            }
            let Keeper::Rolling(log) = &keeper else {
                unreachable!()
            };
            Word::Told(Box::new(answers::readings(
                Dimension::Requests,
                600,
                600 - log.len() as u64,
            )))
        });
        assert_eq!(run.refused_in(0, 2), 0, "{learning:?}");
        assert!(run.accepted[0] >= 590 * 100, "{learning:?}: {:?}", run.accepted);
    }
}
