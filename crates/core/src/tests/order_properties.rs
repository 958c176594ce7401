//! Whatever tenants, tiers, routes and runs ask and end with: nobody is lost, nothing leaks, and no limit is exceeded.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::{
    Amount, Budget, BudgetUnit, Bytes, Caller, Cause, Failure, Learning, Order, Outcome, Period, PermitId,
    Price, Priority, RateLimited, RefusalReason, RouteId, RoutePlan, RunId, RunStep, TenantId, TenantPlan,
    TicketId, TierPlan, Usage,
};

/// How many cases are tried at least; more for a long hunt: `PROPTEST_CASES=100000 make test`.
fn cases(least: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig {
        cases: config.cases.max(least),
        ..config
    }
}

/// Groups, tenants, routes and runs are few, so that they meet.
const GROUPS: [&str; 2] = [QUOTA, "other"];
const TENANTS: [&str; 4] = ["a", "b", "c", "nobody"];
const ROUTES: [&str; 3] = ["", "r", "s"];
const WINDOW: u64 = 60_000_000;
/// The longest pause after failures, in seconds: those that the provider asks for, and backoff.
const PAUSES: u64 = 120;
/// A token costs a millionth of a dollar.
const PRICE: Price = Price {
    input: 1_000_000,
    cached_input: 1_000_000,
    output: 1_000_000,
};

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn nobody_is_lost_nothing_leaks_and_no_limit_is_exceeded(
        plans in prop::collection::vec(a_plan(), 1..3),
        ops in prop::collection::vec(op(), 1..150),
    ) {
        let mut story = Story::new(&plans);
        ops.iter().for_each(|op| story.play(op));
        story.finish();
        if plans.len() == 1 || !ops.iter().any(|op| matches!(op, Op::Reload(_))) {
            story.check_limits(&plans[0]);
        }
    }

    /// When nothing else comes, somebody goes in every window, whatever happened before and however patient they are.
    #[test]
    fn who_waits_is_served_in_time_when_nothing_else_comes(
        plans in prop::collection::vec(a_plan(), 1..3),
        ops in prop::collection::vec(op(), 1..100),
    ) {
        let mut story = Story::patient(&plans);
        ops.iter().for_each(|op| story.play(op));
        let (waiting, then) = (story.waiting.len() as u64, story.world.now);
        story.finish();
        let most = Duration::from_secs(62 * (waiting + 2) + PAUSES + 130);
        let took = story.world.now.since(then);
        prop_assert!(took <= most, "{took:?} for {waiting}");
    }

    #[test]
    fn the_same_calls_give_the_same_answers(
        plans in prop::collection::vec(a_plan(), 1..3),
        ops in prop::collection::vec(op(), 1..100),
    ) {
        let run = || {
            let mut story = Story::new(&plans);
            ops.iter().for_each(|op| story.play(op));
            story.finish();
            story.trace
        };
        prop_assert_eq!(run(), run());
    }

    /// Where nothing is guaranteed to anybody, nobody is sent while somebody of a higher tier waits whom nothing of their own
    /// holds up and who fits as well. All ask for the same, so whoever fits is whoever is there.
    #[test]
    fn a_lower_tier_never_goes_before_a_higher_one(
        most in 1_u64..15,
        steps in prop::collection::vec((0_usize..4, 0_usize..3, 0_u64..20), 1..150),
    ) {
        let plan = Plan {
            tiers: [TierPlan { share_percent: 0 }; 4],
            ..plan(vec![limit(Dimension::Requests, most)])
        };
        let mut world = World::new(plan);
        let mut waiting: BTreeMap<TicketId, Priority> = BTreeMap::new();
        for (tier, tenant, pause) in steps {
            let caller = Caller {
                tenant: TenantId::of(TENANTS[tenant]),
                priority: Priority::ALL[tier],
                route: RouteId::NONE,
            };
            let request = Request::new(QuotaKey::named(QUOTA), Demand::REQUEST_ONLY, world.now + Duration::from_secs(590));
            match world.engine.submit(world.now, Request { caller, ..request }) {
                Decision::Admit(_) => {
                    let first = waiting.values().min();
                    prop_assert!(first.is_none_or(|first| *first >= caller.priority), "{first:?} waited");
                }
                Decision::Wait(ticket) => {
                    waiting.insert(ticket.id, caller.priority);
                }
                Decision::Refuse(_) => {}
            }
            let until = world.now + Duration::from_secs(pause);
            let mut outputs = world.outputs();
            loop {
                for output in outputs {
                    match output {
                        Output::Admit { ticket, .. } => {
                            let went = waiting.remove(&ticket).expect("only who waits is admitted");
                            let first = waiting.values().min();
                            prop_assert!(first.is_none_or(|first| *first >= went), "{first:?} waited when {went:?} went");
                        }
                        Output::Refuse { ticket, .. } => {
                            waiting.remove(&ticket);
                        }
                        Output::Notice { .. } | Output::Call { .. } | Output::CallEscrow => {}
                    }
                }
                match world.engine.poll_timeout() {
                    Some((at, _)) if at <= until => outputs = world.step(),
                    _ => break,
                }
            }
            world.now = until;
        }
    }
}

proptest! {
    #![proptest_config(cases(400))]

    /// Whoever is alone in the highest tier that waits goes as soon as they fit, whoever waits below and whatever passed.
    /// All are so large that nothing is kept for those who do not wait.
    #[test]
    fn the_first_in_line_goes_as_soon_as_it_fits(
        steps in prop::collection::vec((0_usize..4, 0_usize..3, 100_u64..=1_000, 0_u64..20, any::<bool>()), 1..150),
    ) {
        const MOST: u64 = 1_000;
        let mut world = World::new(Plan {
            tiers: [TierPlan { share_percent: 0 }; 4],
            ..plan(vec![limit(Dimension::Tokens, MOST)])
        });
        let mut waiting: BTreeMap<TicketId, (Priority, u64)> = BTreeMap::new();
        for (tier, tenant, size, pause, leaves) in steps {
            let caller = Caller {
                tenant: TenantId::of(TENANTS[tenant]),
                priority: Priority::ALL[tier],
                route: RouteId::NONE,
            };
            let demand = Demand::input_only(Tokens::new(size));
            let request = Request::new(QuotaKey::named(QUOTA), demand, world.now + Duration::from_secs(590));
            if let Decision::Wait(ticket) = world.engine.submit(world.now, Request { caller, ..request }) {
                waiting.insert(ticket.id, (caller.priority, size));
            }
            if leaves && let Some((ticket, _)) = waiting.pop_first() {
                world.engine.cancel(world.now, ticket);
            }
            let until = world.now + Duration::from_secs(pause);
            let mut outputs = world.outputs();
            loop {
                for output in outputs {
                    if let Output::Admit { ticket, .. } | Output::Refuse { ticket, .. } = output {
                        waiting.remove(&ticket);
                    }
                }
                let first = waiting.values().map(|(priority, _)| *priority).min();
                let mut tier = waiting.values().filter(|(priority, _)| Some(*priority) == first);
                if let (Some((_, size)), None) = (tier.next(), tier.next()) {
                    let used = world.engine.snapshot(world.now).quotas[0].limits[0].used.value();
                    prop_assert!(used + size > MOST, "{size} waits next to {used} at {}", world.now);
                }
                match world.engine.poll_timeout() {
                    Some((at, _)) if at <= until => outputs = world.step(),
                    _ => break,
                }
            }
            world.now = until;
        }
    }
}

fn a_limit() -> impl Strategy<Value = Limit> {
    let value = |most| prop_oneof![3 => 1..most, 1 => Just(most)];
    prop_oneof![
        3 => value(30_u64).prop_map(|value| limit(Dimension::Requests, value)),
        2 => value(3_000).prop_map(|value| limit(Dimension::Tokens, value)),
        2 => value(5).prop_map(|value| Limit::rolling(Dimension::Concurrency, Duration::ZERO, amount(value))),
    ]
}

/// At most one limit of a kind.
fn some_limits(most: usize) -> impl Strategy<Value = Vec<Limit>> {
    prop::collection::vec(a_limit(), 0..=most).prop_map(|mut limits| {
        limits.sort_by_key(|limit| limit.dimension);
        limits.dedup_by_key(|limit| limit.dimension);
        limits
    })
}

fn a_budget() -> impl Strategy<Value = Budget> {
    (any::<bool>(), any::<bool>(), 1_u64..20_000).prop_map(|(tokens, day, amount)| Budget {
        unit: if tokens {
            BudgetUnit::Tokens
        } else {
            BudgetUnit::Cost
        },
        period: if day { Period::Day } else { Period::Month },
        amount,
    })
}

fn a_tenant(name: &'static str) -> impl Strategy<Value = TenantPlan> {
    let bounds = (
        prop_oneof![3 => Just(usize::MAX), 1 => 0_usize..6],
        prop_oneof![3 => Just(u64::MAX), 1 => 0_u64..900],
    );
    (
        1_u32..1_000,
        any::<bool>(),
        some_limits(3),
        prop::collection::vec(a_budget(), 0..2),
        bounds,
    )
        .prop_map(
            move |(weight, by_deadline, limits, budgets, (waiting_max, waiting_bytes_max))| TenantPlan {
                name: name.into(),
                weight: NonZeroU32::new(weight).expect("weights are positive"),
                order: if by_deadline {
                    Order::Deadline
                } else {
                    Order::Arrival
                },
                limits,
                budgets,
                waiting_max,
                waiting_bytes_max,
            },
        )
}

fn a_plan() -> impl Strategy<Value = Plan> {
    let quota = |name: &'static str| {
        some_limits(3).prop_map(move |limits| QuotaPlan {
            // Every limit is a promise, and none is learned.
            learning: Learning::Off,
            ..QuotaPlan::new(name, limits, ChargeModel::OPENAI)
        })
    };
    let tenants = (
        prop::option::of(a_tenant("a")),
        prop::option::of(a_tenant("b")),
        prop::option::of(a_tenant("c")),
        prop::option::weighted(0.3, a_tenant(TenantPlan::EACH_OTHER)),
    );
    let routes = prop::option::of(some_limits(2));
    let shares = prop::array::uniform4(prop_oneof![Just(0_u8), Just(5), 0_u8..=100]);
    let bounds = (
        prop_oneof![3 => Just(1_000_usize), 1 => 1_usize..12],
        prop_oneof![3 => Just(1_u64 << 30), 1 => 100_u64..3_000],
    );
    let runs = (
        prop::option::weighted(0.3, 1_u64..10),
        prop::option::weighted(0.3, 1_u64..20_000),
        prop::option::weighted(0.3, 1_u32..4),
    );
    (
        (quota(GROUPS[0]), quota(GROUPS[1])),
        tenants,
        routes,
        shares,
        bounds,
        runs,
    )
        .prop_map(
            |(
                (one, other),
                (a, b, c, rest),
                route,
                shares,
                (requests_max, bytes_max),
                (calls, tokens, repeats),
            )| {
                let mut plan = Plan {
                    quotas: vec![one, other],
                    tenants: [a, b, c, rest].into_iter().flatten().collect(),
                    routes: route
                        .into_iter()
                        .map(|limits| RoutePlan {
                            name: "r".into(),
                            limits,
                        })
                        .collect(),
                    tiers: shares.map(|share_percent| TierPlan { share_percent }),
                    ..Plan::default()
                };
                (plan.queue.requests_max, plan.queue.bytes_max) = (requests_max, bytes_max);
                (plan.runs.calls, plan.runs.tokens, plan.runs.repeats) = (calls, tokens, repeats);
                plan
            },
        )
}

#[derive(Debug, Clone)]
struct Ask {
    group: usize,
    tenant: usize,
    tier: usize,
    route: usize,
    input: u64,
    output: Option<u64>,
    patience: u64,
    bytes: u64,
    run: Option<(u64, bool, u64)>,
}

#[derive(Debug, Clone)]
enum Op {
    Ask(Ask),
    /// Many of the same.
    Burst(Ask, usize),
    Sleep(u64),
    /// Of what it said that it may use, so many percent were used.
    Settle(usize, u64),
    Abandon(usize, u64),
    NotSent(usize),
    QuotaSpent(usize),
    Fail(usize, Failure),
    Cancel(usize),
    Reload(usize),
    Close,
}

fn an_ask() -> impl Strategy<Value = Ask> {
    let size = prop_oneof![3 => 1_u64..50, 1 => 1_u64..1_500];
    let output = prop_oneof![1 => Just(None), 1 => (0_u64..300).prop_map(Some)];
    let patience = prop_oneof![1 => 0_u64..10_000_000, 4 => 0_u64..400_000_000];
    let run = prop::option::weighted(0.4, (0_u64..4, any::<bool>(), 0_u64..3));
    (
        (0_usize..2, 0_usize..4, 0_usize..4, 0_usize..3),
        size,
        output,
        patience,
        0_u64..500,
        run,
    )
        .prop_map(
            |((group, tenant, tier, route), input, output, patience, bytes, run)| Ask {
                group,
                tenant,
                tier,
                route,
                input,
                output,
                patience,
                bytes,
                run,
            },
        )
}

fn a_failure() -> impl Strategy<Value = Failure> {
    let pause = || prop::option::of((0_u64..40).prop_map(Duration::from_secs));
    let causes = vec![
        Cause::Rate,
        Cause::Acceleration,
        Cause::Concurrency,
        Cause::Congestion,
    ];
    prop_oneof![
        1 => Just(Failure::Late),
        2 => any::<bool>().prop_map(|sent| Failure::Transient { sent }),
        1 => pause().prop_map(|retry_after| Failure::Overloaded { retry_after }),
        1 => (prop::sample::select(causes), pause(), prop::option::of((1_u64..30).prop_map(Amount::new))).prop_map(
            |(cause, retry_after, limit)| Failure::RateLimited(RateLimited {
                cause,
                dimension: Some(Dimension::Requests),
                limit,
                retry_after,
                ..RateLimited::default()
            })
        ),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let which = any::<usize>;
    prop_oneof![
        300 => an_ask().prop_map(Op::Ask),
        60 => (an_ask(), 2_usize..25).prop_map(|(ask, times)| Op::Burst(ask, times)),
        120 => (0_u64..30_000_000).prop_map(Op::Sleep),
        120 => (which(), 0_u64..=100).prop_map(|(which, percent)| Op::Settle(which, percent)),
        20 => (which(), 0_u64..=100).prop_map(|(which, percent)| Op::Abandon(which, percent)),
        20 => which().prop_map(Op::NotSent),
        3 => which().prop_map(Op::QuotaSpent),
        60 => (which(), a_failure()).prop_map(|(which, failure)| Op::Fail(which, failure)),
        40 => which().prop_map(Op::Cancel),
        12 => which().prop_map(Op::Reload),
        1 => Just(Op::Close),
    ]
}

/// A request: what it asked for, and how often it has ended.
struct Asked {
    ask: Ask,
    ended: u32,
}

/// An attempt, as the naive log remembers it.
struct Attempt {
    number: usize,
    permit: PermitId,
    from: u64,
    until: Option<u64>,
    /// Whether the provider charged it, and whether its tenant did.
    is_charged: bool,
    is_own: bool,
    /// Whether the provider gave its tokens back.
    gave_tokens_back: bool,
    /// What it has used in tokens.
    tokens: u64,
}

struct Story {
    world: World,
    plans: Vec<Plan>,
    waiting: BTreeMap<TicketId, usize>,
    running: Vec<usize>,
    asked: Vec<Asked>,
    attempts: Vec<Attempt>,
    trace: Vec<String>,
    /// Whether everybody waits as long as it takes.
    is_patient: bool,
}

impl Story {
    /// The same with people who wait as long as it takes, for limits that all come back within a minute.
    fn patient(plans: &[Plan]) -> Self {
        let plans: Vec<Plan> = plans
            .iter()
            .cloned()
            .map(|mut plan| {
                plan.queue.wait_max = Duration::MAX;
                plan
            })
            .collect();
        Self {
            is_patient: true,
            ..Self::new(&plans)
        }
    }

    fn new(plans: &[Plan]) -> Self {
        Self {
            world: World::new(plans[0].clone()),
            plans: plans.to_vec(),
            waiting: BTreeMap::new(),
            running: Vec::new(),
            asked: Vec::new(),
            attempts: Vec::new(),
            trace: Vec::new(),
            is_patient: false,
        }
    }

    fn play(&mut self, op: &Op) {
        let now = self.world.now;
        match op {
            Op::Ask(ask) => self.ask(ask),
            Op::Burst(ask, times) => (0..*times).for_each(|_| self.ask(ask)),
            Op::Sleep(pause) => self.sleep(*pause),
            Op::Settle(which, percent) => self.settle(*which, |ask| {
                Outcome::Completed(Usage {
                    input: Some(Tokens::new(ask.input * percent / 100)),
                    cached_input: Tokens::new(ask.input - ask.input * percent / 100),
                    output: Some(Tokens::new(ask.output.unwrap_or(0) * percent / 100)),
                })
            }),
            Op::Abandon(which, percent) => self.settle(*which, |ask| Outcome::Unknown {
                output_seen: Tokens::new(ask.output.unwrap_or(0) * percent / 100),
            }),
            Op::NotSent(which) => self.settle(*which, |_| Outcome::NotSent),
            Op::QuotaSpent(which) => self.settle(*which, |_| Outcome::QuotaSpent { until: None }),
            Op::Fail(which, failure) => self.fail(*which, *failure),
            Op::Cancel(which) => {
                let places = self.waiting.len().max(1);
                if let Some((ticket, number)) = self.waiting.iter().nth(which % places).map(|(a, b)| (*a, *b))
                {
                    self.waiting.remove(&ticket);
                    self.world.engine.cancel(now, ticket);
                    self.asked[number].ended += 1;
                }
            }
            Op::Reload(which) => {
                let plan = self.plans[which % self.plans.len()].clone();
                self.world.engine.reconfigure(now, plan);
            }
            Op::Close => self.world.engine.close(now),
        }
        self.drain();
        let (next, now) = (self.world.engine.poll_timeout(), self.world.now);
        assert!(
            next.is_none_or(|(at, _)| at > now),
            "{next:?} is due at {now} still"
        );
    }

    fn ask(&mut self, ask: &Ask) {
        let number = self.asked.len();
        self.asked.push(Asked {
            ask: ask.clone(),
            ended: 0,
        });
        let demand = match ask.output {
            Some(output) => Demand::generating(Tokens::new(ask.input), Some(Tokens::new(output))),
            None => Demand::input_only(Tokens::new(ask.input)),
        };
        let route = ROUTES[ask.route];
        let request = Request {
            bytes: Bytes::new(ask.bytes),
            caller: Caller {
                tenant: TenantId::of(TENANTS[ask.tenant]),
                priority: Priority::ALL[ask.tier],
                route: if route.is_empty() {
                    RouteId::NONE
                } else {
                    RouteId::of(route)
                },
            },
            price: PRICE,
            run: ask.run.map(|(run, has_parent, fingerprint)| RunStep {
                run: RunId::of(run),
                parent: has_parent.then(|| RunId::of(run / 2)),
                fingerprint: (fingerprint > 0).then_some(fingerprint),
            }),
            ..Request::new(
                QuotaKey::named(GROUPS[ask.group]),
                demand,
                if self.is_patient {
                    Timestamp::from_micros(u64::MAX)
                } else {
                    self.world.now + Duration::from_micros(ask.patience)
                },
            )
        };
        let decision = self.world.engine.submit(self.world.now, request);
        self.decided(number, decision);
        self.drain();
    }

    fn decided(&mut self, number: usize, decision: Decision) {
        self.trace.push(alloc::format!("{number} {decision:?}"));
        match decision {
            Decision::Admit(permit) => self.launch(number, permit.id),
            Decision::Wait(ticket) => {
                assert_eq!(
                    self.waiting.insert(ticket.id, number),
                    None,
                    "a ticket is given once"
                );
            }
            Decision::Refuse(refusal) => self.refused(number, &refusal),
        }
    }

    fn refused(&mut self, number: usize, refusal: &crate::Refusal) {
        self.asked[number].ended += 1;
        assert!(
            !self.is_patient || refusal.reason != RefusalReason::Deadline,
            "{number} would have waited longer: {refusal:?}"
        );
        let is_spent = matches!(
            refusal.reason,
            RefusalReason::BudgetSpent | RefusalReason::RunSpent
        );
        assert_eq!(refusal.spent.is_some(), is_spent, "{refusal:?}");
        let is_for_now = matches!(
            refusal.reason,
            RefusalReason::QueueFull
                | RefusalReason::QueueBytes
                | RefusalReason::TenantQueueFull
                | RefusalReason::Deadline
                | RefusalReason::BudgetSpent
        );
        assert!(!is_for_now || refusal.retry_after.is_some(), "{refusal:?}");
    }

    fn launch(&mut self, number: usize, permit: PermitId) {
        let ask = &self.asked[number].ask;
        self.running.push(self.attempts.len());
        self.attempts.push(Attempt {
            number,
            permit,
            from: self.world.now.as_micros(),
            until: None,
            is_charged: true,
            is_own: true,
            gave_tokens_back: false,
            tokens: ask.input + ask.output.unwrap_or(0),
        });
    }

    /// Ends the attempt of somebody who runs.
    fn land(&mut self, which: usize) -> Option<usize> {
        if self.running.is_empty() {
            return None;
        }
        let at = self.running.swap_remove(which % self.running.len());
        self.attempts[at].until = Some(self.world.now.as_micros());
        Some(at)
    }

    fn settle(&mut self, which: usize, outcome: impl Fn(&Ask) -> Outcome) {
        let Some(at) = self.land(which) else { return };
        let attempt = &mut self.attempts[at];
        let asked = &mut self.asked[attempt.number];
        let outcome = outcome(&asked.ask);
        match outcome {
            Outcome::NotSent => (attempt.is_charged, attempt.is_own) = (false, false),
            Outcome::QuotaSpent { .. } | Outcome::TooLarge(_) => {
                (attempt.is_own, attempt.gave_tokens_back) = (false, true);
            }
            Outcome::Unknown { output_seen } => attempt.tokens = asked.ask.input + output_seen.value(),
            Outcome::Completed(usage) => {
                let parts = usage
                    .input
                    .into_iter()
                    .chain([usage.cached_input])
                    .chain(usage.output);
                attempt.tokens = parts.sum::<Tokens>().value();
            }
        }
        asked.ended += 1;
        self.world.engine.settle(self.world.now, attempt.permit, outcome);
        // A permit that has ended is left alone.
        self.world
            .engine
            .settle(self.world.now, attempt.permit, Outcome::NotSent);
    }

    fn fail(&mut self, which: usize, failure: Failure) {
        let Some(at) = self.land(which) else { return };
        let attempt = &mut self.attempts[at];
        attempt.is_own = false;
        // Where it is counted how many are accepted, those that were refused for rate are not.
        let is_refused = matches!(failure, Failure::RateLimited(_));
        attempt.is_charged =
            !is_refused && !matches!(failure, Failure::Late | Failure::Transient { sent: false });
        let (number, permit) = (attempt.number, attempt.permit);
        let decision = self.world.engine.retry(self.world.now, permit, failure);
        assert!(!matches!(decision, Decision::Admit(_)), "permits come as outputs");
        self.decided(number, decision);
    }

    /// Lets time pass, awake whenever the engine wants to be called.
    fn sleep(&mut self, pause: u64) {
        let until = self.world.now + Duration::from_micros(pause);
        let mut steps = 20_000;
        while let Some((at, _)) = self.world.engine.poll_timeout()
            && at <= until
        {
            self.world.now = self.world.now.max(at);
            self.world.engine.handle_timeout(self.world.now);
            self.drain();
            steps -= 1;
            assert!(steps > 0, "woken for nothing, again and again");
        }
        self.world.now = until;
    }

    fn drain(&mut self) {
        for output in self.world.outputs() {
            self.trace.push(alloc::format!("{} {output:?}", self.world.now));
            match output {
                Output::Admit { ticket, permit } => {
                    let number = self
                        .waiting
                        .remove(&ticket)
                        .expect("only those who wait are admitted");
                    self.launch(number, permit.id);
                }
                Output::Refuse { ticket, refusal } => {
                    let number = self
                        .waiting
                        .remove(&ticket)
                        .expect("only those who wait are refused");
                    self.refused(number, &refusal);
                }
                Output::Notice { .. } | Output::Call { .. } | Output::CallEscrow => {}
            }
        }
    }

    /// Lets everything end; whoever waits is served or refused in time, and nothing stays behind.
    fn finish(&mut self) {
        let mut steps = 2_000 + 100 * self.waiting.len();
        loop {
            while !self.running.is_empty() {
                self.play(&Op::Settle(0, 50));
                self.drain();
            }
            if self.waiting.is_empty() {
                break;
            }
            let (at, _) = self.world.engine.poll_timeout().expect("who waits is woken");
            assert!(steps > 0, "woken for nothing, again and again");
            steps -= 1;
            self.world.now = self.world.now.max(at);
            self.world.engine.handle_timeout(self.world.now);
            self.drain();
        }
        assert_eq!(self.world.engine.poll_timeout(), None, "nobody waits");
        for (number, asked) in self.asked.iter().enumerate() {
            assert_eq!(asked.ended, 1, "{number} ends once: {:?}", asked.ask);
        }
        self.world.now = self.world.now + Duration::from_secs(130);
        let snapshot = self.world.engine.snapshot(self.world.now);
        assert_eq!(snapshot.waiting_bytes, Bytes::ZERO);
        for quota in &snapshot.quotas {
            assert_eq!((quota.waiting, quota.in_flight), (0, 0));
            for limit in &quota.limits {
                assert_eq!((limit.held.value(), limit.used.value()), (0, 0), "{limit:?}");
            }
        }
        for own in &snapshot.allowances {
            for limit in &own.limits {
                assert_eq!(
                    (limit.held.value(), limit.used.value()),
                    (0, 0),
                    "{:?}: {limit:?}",
                    own.owner
                );
            }
            for budget in &own.budgets {
                assert_eq!(budget.held, 0, "{:?}: {budget:?}", own.owner);
            }
        }
        self.check_runs();
    }

    /// A run has used what its answered requests and those of the runs below it have used, and holds nothing.
    fn check_runs(&mut self) {
        // Which run started which was settled when each was first heard of.
        let mut parents: BTreeMap<u64, Option<u64>> = BTreeMap::new();
        for asked in &self.asked {
            if let Some((run, has_parent, _)) = asked.ask.run {
                let parent = has_parent.then_some(run / 2).filter(|parent| *parent != run);
                if let Some(parent) = parent {
                    parents.entry(parent).or_insert(None);
                }
                parents.entry(run).or_insert(parent);
            }
        }
        let mut used: BTreeMap<u64, u64> = BTreeMap::new();
        for attempt in self.attempts.iter().filter(|attempt| attempt.is_own) {
            let mut next = self.asked[attempt.number].ask.run.map(|(run, ..)| run);
            while let Some(run) = next {
                *used.entry(run).or_default() += attempt.tokens;
                next = parents.get(&run).copied().flatten();
            }
        }
        let now = self.world.now;
        for run in 0..4 {
            if let Some(snapshot) = self.world.engine.run(now, RunId::of(run)) {
                let used = used.get(&run).copied().unwrap_or(0);
                assert_eq!(snapshot.tokens, used, "run {run}");
            }
        }
    }

    /// No window of the provider exceeds its limit, and none of a tenant or route its own, by the naive log.
    fn check_limits(&self, plan: &Plan) {
        for (group, quota) in plan.quotas.iter().enumerate() {
            let theirs = |attempt: &&Attempt| self.asked[attempt.number].ask.group == group;
            for limit in &quota.limits {
                let charge = |attempt: &Attempt| match limit.dimension {
                    Dimension::Requests => u64::from(attempt.is_charged),
                    // OpenAI gives nothing back for what was not used.
                    _ if attempt.is_charged && !attempt.gave_tokens_back => {
                        let ask = &self.asked[attempt.number].ask;
                        ask.input + ask.output.unwrap_or(0)
                    }
                    _ => 0,
                };
                self.check_limit(limit, theirs, charge, "the provider");
            }
        }
        let listed = |tenant: &str| plan.tenants.iter().find(|plan| plan.name == tenant);
        for (number, name) in TENANTS.iter().enumerate() {
            let Some(tenant) = listed(name).or_else(|| listed(TenantPlan::EACH_OTHER)) else {
                continue;
            };
            let theirs = |attempt: &&Attempt| self.asked[attempt.number].ask.tenant == number;
            for limit in &tenant.limits {
                self.check_limit(limit, theirs, own_charge(limit), name);
            }
        }
        for route in &plan.routes {
            let theirs = |attempt: &&Attempt| ROUTES[self.asked[attempt.number].ask.route] == route.name;
            for limit in &route.limits {
                self.check_limit(limit, theirs, own_charge(limit), &route.name);
            }
        }
    }

    fn check_limit(
        &self,
        limit: &Limit,
        theirs: impl Fn(&&Attempt) -> bool,
        charge: impl Fn(&Attempt) -> u64,
        whose: &str,
    ) {
        let all: Vec<&Attempt> = self.attempts.iter().filter(theirs).collect();
        for (at, attempt) in all.iter().enumerate() {
            let now = attempt.from;
            let sum: u64 = if limit.dimension == Dimension::Concurrency {
                let runs =
                    |other: &&&Attempt| other.until.is_none_or(|until| until > now || other.from == now);
                let before = all[..=at].iter().filter(runs);
                // Of those that ended at this very moment nobody knows whether it was before.
                let sure = before.filter(|other| other.until != Some(now));
                sure.count() as u64
            } else {
                let recent = all[..=at].iter().filter(|other| other.from + WINDOW > now);
                recent.map(|other| charge(other)).sum()
            };
            assert!(
                sum <= limit.amount.get(),
                "{sum} of {:?} of {whose} at {now}, attempt {at}",
                limit.name()
            );
        }
    }
}

fn own_charge(limit: &Limit) -> impl Fn(&Attempt) -> u64 {
    let dimension = limit.dimension;
    move |attempt| match dimension {
        Dimension::Requests => u64::from(attempt.is_own),
        _ if attempt.is_own => attempt.tokens,
        _ => 0,
    }
}
