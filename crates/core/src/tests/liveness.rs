//! Whatever is asked, answered and told, everybody's wait ends, once, and nothing stays behind.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::{
    Amount, Bytes, Cause, Failure, Guarantee, Learning, LimitSource, MarginPolicy, Outcome, PermitId,
    RateLimited, Reading, Readings, RefusalReason, RequestClass, TicketId, UpstreamSignal, Usage,
};

/// Times after this one are never reached: whoever waits until then waits for good.
const NEVER: u64 = 1 << 61;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_wait_ends_once_and_nothing_stays_behind(
        plans in prop::collection::vec(a_plan(), 1..4),
        patient in any::<bool>(),
        seasoned in any::<bool>(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut story = Story::new(plans, patient);
        if seasoned {
            story.season();
        }
        for op in &ops {
            story.play(op);
        }
        story.finish();
    }
}

/// Mostly sensible numbers, some at the very ends.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0_u64..3_000,
        1 => Just(u64::MAX),
        1 => Just(0),
        1 => any::<u64>(),
    ]
}

fn pause() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (0_u64..2_000_000).prop_map(Duration::from_micros),
        4 => (0_u64..90).prop_map(Duration::from_secs),
        1 => Just(Duration::ZERO),
        1 => (0_u64..100_000).prop_map(Duration::from_secs),
        1 => Just(Duration::MAX),
    ]
}

fn a_limit() -> impl Strategy<Value = Limit> {
    let window = prop_oneof![
        6 => Just(60_000_000_u64), 2 => Just(10_000_000), 1 => Just(1_000_000), 1 => Just(86_400_000_000),
        1 => Just(0), 1 => Just(1), 1 => Just(315_360_000_000_000), 1 => Just(u64::MAX),
    ];
    let value = prop_oneof![6 => 1_u64..3_000, 2 => 1_u64..10, 1 => Just(u64::MAX)];
    (0..5_usize, window, value, any::<bool>()).prop_map(|(dimension, window, value, bucket)| Limit {
        dimension: Dimension::ALL[dimension],
        window: Duration::from_micros(window),
        amount: amount(value),
        discipline: if bucket {
            Discipline::TokenBucket
        } else {
            Discipline::Rolling
        },
        source: LimitSource::Config,
    })
}

fn a_plan() -> impl Strategy<Value = QuotaPlan> {
    let charge = prop::sample::select(vec![
        ChargeModel::OPENAI,
        ChargeModel::ANTHROPIC,
        ChargeModel::SETTLED,
        ChargeModel::GEMINI,
        ChargeModel::GROQ,
        ChargeModel::BEDROCK,
        ChargeModel::BEDROCK_MANTLE,
    ]);
    let learning = prop::sample::select(vec![Learning::Off, Learning::Answers, Learning::Probe]);
    let margin = prop_oneof![
        3 => Just(MarginPolicy::Learned),
        1 => (0_u64..3_000_000).prop_map(|micros| MarginPolicy::Fixed(Duration::from_micros(micros))),
        1 => Just(MarginPolicy::Fixed(Duration::MAX)),
    ];
    let limits = prop::collection::vec(a_limit(), 0..4);
    let guarantee = prop_oneof![
        4 => Just(Guarantee::default()),
        1 => any::<u32>().prop_map(|per_million| Guarantee::Statistical { per_million }),
        1 => Just(Guarantee::Hard),
    ];
    let slice = prop::option::of(pause());
    let rest = (margin, guarantee, slice);
    (limits, charge, learning, rest).prop_map(|(limits, charge, learning, (margin, guarantee, slice))| {
        QuotaPlan {
            slice,
            learning,
            margin,
            guarantee,
            ..QuotaPlan::new(QUOTA, limits, charge)
        }
    })
}

fn a_reading() -> impl Strategy<Value = Reading> {
    let amount = || prop::option::of(number().prop_map(Amount::new));
    let span = || prop::option::of(pause());
    (amount(), amount(), span(), number(), span()).prop_map(|(limit, remaining, reset, rounding, window)| {
        Reading {
            limit,
            remaining,
            reset,
            rounding: Amount::new(rounding),
            window,
        }
    })
}

fn some_readings() -> impl Strategy<Value = Readings> {
    let cost = prop::option::weighted(0.1, number().prop_map(Amount::new));
    (prop::collection::vec((0..5_usize, a_reading()), 0..8), cost).prop_map(|(list, cost)| {
        let mut readings = Readings::default();
        readings.cost = cost;
        for (dimension, reading) in list {
            readings.push(Dimension::ALL[dimension], reading);
        }
        readings
    })
}

fn a_refusal() -> impl Strategy<Value = RateLimited> {
    let amount = || prop::option::of(number().prop_map(Amount::new));
    let causes = [
        Cause::Rate,
        Cause::Acceleration,
        Cause::Concurrency,
        Cause::Congestion,
    ];
    let refused = (
        prop::option::of(0..5_usize),
        [amount(), amount(), amount(), amount()],
        [prop::option::of(pause()), prop::option::of(pause())],
        prop::sample::select(causes.to_vec()),
    );
    refused.prop_map(
        |(dimension, [limit, used, requested, next_limit], [retry_after, named_window], cause)| RateLimited {
            cause,
            named_window,
            next_limit,
            dimension: dimension.map(|index| Dimension::ALL[index]),
            limit,
            used,
            requested,
            retry_after,
            steady: named_window,
        },
    )
}

fn a_failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        1 => Just(Failure::Late),
        1 => any::<bool>().prop_map(|sent| Failure::Transient { sent }),
        1 => prop::option::of(pause()).prop_map(|retry_after| Failure::Overloaded { retry_after }),
        3 => a_refusal().prop_map(Failure::RateLimited),
    ]
}

fn an_outcome() -> impl Strategy<Value = Outcome> {
    let tokens = || prop::option::of(number().prop_map(Tokens::new));
    prop_oneof![
        Just(Outcome::NotSent),
        number().prop_map(|seen| Outcome::Unknown {
            output_seen: Tokens::new(seen)
        }),
        (tokens(), number(), tokens()).prop_map(|(input, cached, output)| {
            Outcome::Completed(Usage {
                input,
                cached_input: Tokens::new(cached),
                output,
            })
        }),
        prop::option::of(pause()).prop_map(|until| Outcome::QuotaSpent { until }),
        a_refusal().prop_map(Outcome::TooLarge),
    ]
}

#[derive(Debug, Clone)]
enum Op {
    Ask(Demand, Duration, u64),
    Sleep(Duration),
    Back(u64),
    Observe(usize, Box<Readings>, Option<Duration>),
    Progress(usize, u64),
    Settle(usize, Outcome),
    Fail(usize, Failure),
    Cancel(usize),
    Reload(usize),
    Inform(Vec<Limit>),
    Vanish,
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    let demand = (
        number(),
        prop::option::of(number()),
        prop_oneof![6 => Just(1), 1 => Just(u32::MAX)],
        any::<bool>(),
        0..3_u8,
    )
        .prop_map(|(input, most, choices, generates, class)| Demand {
            input: Tokens::new(input),
            max_output: most.map(Tokens::new),
            choices: NonZeroU32::new(choices).expect("it is positive"),
            generates,
            class: RequestClass::of(&[["a", "b", "c"][usize::from(class)]]),
        });
    let sleep = pause().prop_filter("a year at most", |pause| pause.as_secs() < 31_536_000);
    prop_oneof![
        200 => (demand, pause(), number()).prop_map(|(demand, patience, bytes)| Op::Ask(demand, patience, bytes)),
        80 => sleep.prop_map(Op::Sleep),
        4 => number().prop_map(Op::Back),
        60 => (any::<usize>(), some_readings(), prop::option::of(pause()))
            .prop_map(|(which, readings, worked)| Op::Observe(which, Box::new(readings), worked)),
        40 => (any::<usize>(), number()).prop_map(|(which, output)| Op::Progress(which, output)),
        80 => (any::<usize>(), an_outcome()).prop_map(|(which, outcome)| Op::Settle(which, outcome)),
        40 => (any::<usize>(), a_failure()).prop_map(|(which, failure)| Op::Fail(which, failure)),
        20 => any::<usize>().prop_map(Op::Cancel),
        10 => any::<usize>().prop_map(Op::Reload),
        6 => prop::collection::vec(a_limit(), 0..4).prop_map(Op::Inform),
        2 => Just(Op::Vanish),
        1 => Just(Op::Close),
    ]
}

/// A driver that keeps books about everybody.
struct Story {
    world: World,
    plans: Vec<Plan>,
    /// Whether those who ask wait as long as it takes.
    patient: bool,
    waiting: BTreeMap<TicketId, u64>,
    running: Vec<(PermitId, u64)>,
    asked: u64,
    ended: Vec<u64>,
}

impl Story {
    fn new(quotas: Vec<QuotaPlan>, patient: bool) -> Self {
        let plans: Vec<Plan> = quotas
            .into_iter()
            .map(|quota| {
                let mut plan = Plan {
                    quotas: vec![quota],
                    ..Plan::default()
                };
                if patient {
                    plan.queue.wait_max = Duration::MAX;
                }
                plan
            })
            .collect();
        Self {
            world: World::new(plans[0].clone()),
            plans,
            patient,
            waiting: BTreeMap::new(),
            running: Vec::new(),
            asked: 0,
            ended: Vec::new(),
        }
    }

    /// Lets the engine see so many outputs that it believes what it has seen.
    fn season(&mut self) {
        for call in 0..80_u64 {
            let demand = Demand {
                class: RequestClass::of(&["a"]),
                ..Demand::generating(Tokens::new(10), Some(Tokens::new(700)))
            };
            let decision = self.world.submit(demand, Duration::MAX);
            self.world.now = self.world.now + Duration::from_secs(call % 20);
            let now = self.world.now;
            match decision {
                Decision::Admit(permit) => {
                    let usage = Usage {
                        output: Some(Tokens::new(call % 20 * 35)),
                        ..Usage::default()
                    };
                    self.world
                        .engine
                        .settle(now, permit.id, Outcome::Completed(usage));
                }
                Decision::Wait(ticket) => self.world.engine.cancel(now, ticket.id),
                Decision::Refuse(_) => {}
            }
            self.world.engine.handle_timeout(now);
        }
    }

    fn play(&mut self, op: &Op) {
        let now = self.world.now;
        match op {
            Op::Ask(demand, patience, bytes) => {
                let id = self.asked;
                self.asked += 1;
                let deadline = if self.patient {
                    Timestamp::from_micros(u64::MAX)
                } else {
                    now + *patience
                };
                let request = Request {
                    bytes: Bytes::new(*bytes),
                    ..Request::new(QuotaKey::named(QUOTA), *demand, deadline)
                };
                let decision = self.world.engine.submit(now, request);
                self.decided(id, decision);
            }
            Op::Sleep(pause) => self.world.now = now + *pause,
            // Commands with an earlier time are taken as if no time had passed.
            Op::Back(micros) => {
                let earlier = Timestamp::from_micros(now.as_micros().saturating_sub(*micros));
                self.world.engine.handle_timeout(earlier);
            }
            Op::Observe(which, readings, processing) => {
                if let Some((permit, _)) = self.pick(*which) {
                    let signal = UpstreamSignal {
                        permit,
                        readings: **readings,
                        processing: *processing,
                    };
                    self.world.engine.observe(now, signal);
                }
            }
            Op::Progress(which, output) => {
                if let Some((permit, _)) = self.pick(*which) {
                    self.world.engine.progress(now, permit, Tokens::new(*output));
                }
            }
            Op::Settle(which, outcome) => {
                if let Some((permit, id)) = self.pick(*which) {
                    self.running.retain(|(other, _)| *other != permit);
                    self.world.engine.settle(now, permit, *outcome);
                    self.world.engine.settle(now, permit, Outcome::NotSent);
                    self.ended.push(id);
                }
            }
            Op::Fail(which, failure) => {
                if let Some((permit, id)) = self.pick(*which) {
                    self.running.retain(|(other, _)| *other != permit);
                    let decision = self.world.engine.retry(now, permit, *failure);
                    assert!(!matches!(decision, Decision::Admit(_)), "permits come as outputs");
                    self.decided(id, decision);
                }
            }
            Op::Cancel(which) => {
                let places = self.waiting.len().max(1);
                if let Some((ticket, id)) = self.waiting.iter().nth(which % places).map(|(a, b)| (*a, *b)) {
                    self.waiting.remove(&ticket);
                    self.world.engine.cancel(now, ticket);
                    self.ended.push(id);
                }
            }
            Op::Reload(which) => {
                let plan = self.plans[which % self.plans.len()].clone();
                self.world.engine.reconfigure(now, plan);
            }
            Op::Inform(limits) => self.world.engine.inform(now, QuotaKey::named(QUOTA), limits),
            Op::Vanish => self.world.engine.reconfigure(now, Plan::default()),
            Op::Close => self.world.engine.close(now),
        }
        let now = self.world.now;
        self.world.engine.handle_timeout(now);
        self.drain();
        let next = self.world.engine.poll_timeout();
        assert!(
            next.is_none_or(|(at, _)| at > now),
            "{next:?} is due at {now} still"
        );
    }

    fn pick(&self, which: usize) -> Option<(PermitId, u64)> {
        self.running.get(which % self.running.len().max(1)).copied()
    }

    fn decided(&mut self, id: u64, decision: Decision) {
        match decision {
            Decision::Admit(permit) => self.running.push((permit.id, id)),
            Decision::Wait(ticket) => {
                assert_eq!(self.waiting.insert(ticket.id, id), None, "a ticket is given once");
            }
            Decision::Refuse(_) => self.ended.push(id),
        }
    }

    fn drain(&mut self) {
        for output in self.world.outputs() {
            match output {
                Output::Admit { ticket, permit } => {
                    let id = self
                        .waiting
                        .remove(&ticket)
                        .expect("only those who wait are admitted");
                    self.running.push((permit.id, id));
                }
                Output::Refuse { ticket, refusal } => {
                    let id = self
                        .waiting
                        .remove(&ticket)
                        .expect("only those who wait are refused");
                    assert!(
                        !self.patient || refusal.reason != RefusalReason::Deadline,
                        "it would have waited longer than {}",
                        self.world.now
                    );
                    self.ended.push(id);
                }
                Output::Notice { .. } | Output::Call { .. } | Output::CallEscrow => {}
            }
        }
    }

    /// Lets everything that runs end, and time pass, until nobody waits.
    fn finish(mut self) {
        let mut steps = 2_000 + 100 * self.waiting.len();
        loop {
            while let Some((permit, id)) = self.running.pop() {
                let outcome = Outcome::Completed(Usage::default());
                self.world.engine.settle(self.world.now, permit, outcome);
                self.ended.push(id);
                self.drain();
            }
            if self.waiting.is_empty() {
                break;
            }
            let (at, _) = self.world.engine.poll_timeout().expect("who waits is woken");
            assert!(at > self.world.now, "{at} is due already");
            assert!(at.as_micros() < NEVER, "{:?} wait for good", self.waiting);
            assert!(steps > 0, "woken for nothing, again and again");
            steps -= 1;
            self.world.now = at;
            self.world.engine.handle_timeout(at);
            self.drain();
        }
        self.ended.sort_unstable();
        let all: Vec<u64> = (0..self.asked).collect();
        assert_eq!(self.ended, all, "everybody's request ends once");
        assert_eq!(self.world.engine.poll_timeout(), None, "nobody waits");
        let snapshot = self.world.engine.snapshot(self.world.now);
        assert_eq!(snapshot.waiting_bytes, Bytes::ZERO);
        for quota in snapshot.quotas {
            assert_eq!((quota.waiting, quota.in_flight), (0, 0));
            for limit in quota.limits {
                assert_eq!(limit.held.value(), 0, "{limit:?}");
            }
        }
    }
}
