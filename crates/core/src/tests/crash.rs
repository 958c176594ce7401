//! What is presumed after a crash, and how it is proved wrong.

use proptest::prelude::*;

use super::answers::readings;
use super::memory::{admitted, complete, observe, restart, used, window};
use super::scenarios::secs;
use super::*;
use crate::{Amount, Gap, LimitSource, Memory, Outcome, Usage, WaitReason};

/// Kills an engine and starts another one with what was remembered of it at some time.
fn crash(world: &mut World, plan: &Plan, memory: &Memory, until: Timestamp) -> Option<Timestamp> {
    world.engine = Engine::new(world.now, plan.clone(), 8);
    world.engine.recall(world.now, memory).unwrap();
    world.engine.presume(
        world.now,
        Gap {
            since: memory.at,
            until,
        },
    )
}

#[test]
fn after_a_crash_one_asks_and_an_answer_proves() {
    for one in [limit(Dimension::Requests, 10), bucket(Dimension::Requests, 10)] {
        let plan = plan(vec![one]);
        let mut world = World::new(plan.clone());
        for _ in 0..2 {
            let permit = world.admit(1);
            complete(&mut world, &permit);
        }
        let memory = world.engine.remember(world.now);
        world.sleep(secs(3));
        let now = world.now;
        let until = crash(&mut world, &plan, &memory, now).unwrap();
        assert!((secs(60)..secs(62)).contains(&until.since(world.now)), "{until}");
        let first = world.admit(1);
        let Decision::Wait(ticket) = world.ask(1) else {
            panic!("one at a time")
        };
        assert_eq!((ticket.reason, ticket.eta), (WaitReason::Learning, world.now));
        let snapshot = world.engine.snapshot(world.now);
        assert!(snapshot.quotas[0].limits[0].presumed.value() >= 7, "{snapshot:?}");
        // The provider counted two and this one.
        world.sleep(secs(1));
        observe(&mut world, &first, readings(Dimension::Requests, 10, 7));
        let outputs = world.outputs();
        assert!(
            outputs
                .iter()
                .any(|output| matches!(output, Output::Admit { .. })),
            "{outputs:?}"
        );
        let rest = admitted(&mut world);
        assert!((5..=6).contains(&rest), "{rest}");
        let snapshot = world.engine.snapshot(world.now);
        assert_eq!(snapshot.quotas[0].limits[0].presumed, Amount::ZERO);
    }
}

#[test]
fn an_answer_that_says_it_is_full_is_believed() {
    let plan = plan(vec![limit(Dimension::Requests, 10)]);
    let mut world = World::new(plan.clone());
    let memory = world.engine.remember(world.now);
    let now = world.now;
    crash(&mut world, &plan, &memory, now).unwrap();
    let first = world.admit(1);
    observe(&mut world, &first, readings(Dimension::Requests, 10, 1));
    assert_eq!(admitted(&mut world), 1);
}

#[test]
fn where_answers_tell_nothing_the_window_is_waited_for() {
    let plan = plan(vec![limit(Dimension::Requests, 10)]);
    let mut world = World::new(plan.clone());
    let memory = world.engine.remember(world.now);
    let now = world.now;
    let until = crash(&mut world, &plan, &memory, now).unwrap();
    let first = world.admit(1);
    complete(&mut world, &first);
    assert_eq!(admitted(&mut world), 0);
    let Decision::Wait(ticket) = world.ask(1) else {
        panic!("it waits")
    };
    assert_eq!(ticket.eta, until, "{:?}", ticket.reason);
    let outputs = world.step();
    assert!(matches!(outputs[..], [Output::Admit { .. }]), "{outputs:?}");
    assert_eq!(admitted(&mut world), 9);
}

#[test]
fn through_a_long_window_requests_go_one_at_a_time() {
    let plan = plan(vec![window(86_400, 100)]);
    let mut world = World::new(plan.clone());
    let memory = world.engine.remember(world.now);
    let now = world.now;
    crash(&mut world, &plan, &memory, now).unwrap();
    for _ in 0..3 {
        let permit = world.admit(1);
        assert_eq!(admitted(&mut world), 0);
        complete(&mut world, &permit);
    }
}

#[test]
fn a_crash_that_is_past_costs_nothing() {
    let plan = plan(vec![limit(Dimension::Requests, 10)]);
    let mut world = World::new(plan.clone());
    admitted(&mut world);
    let memory = world.engine.remember(world.now);
    world.sleep(secs(3_600));
    let until = memory.at + secs(4);
    assert_eq!(crash(&mut world, &plan, &memory, until), None);
    assert_eq!(admitted(&mut world), 10);
}

#[test]
fn no_more_is_presumed_than_a_shorter_limit_let_through() {
    let plan = plan(vec![window(60, 10), window(86_400, 1_000)]);
    let mut world = World::new(plan.clone());
    let memory = world.engine.remember(world.now);
    world.sleep(secs(6));
    let now = world.now;
    crash(&mut world, &plan, &memory, now).unwrap();
    world.admit(1);
    assert!(used(&mut world, 0) >= 10);
    assert_eq!(
        used(&mut world, 1),
        12,
        "ten at once, one that flowed in, and this one"
    );
}

#[test]
fn groups_that_come_into_use_later_are_presumed_as_well() {
    let plan = plan(vec![limit(Dimension::Requests, 10)]);
    let mut world = World::new(plan);
    assert!(
        world
            .engine
            .presume(
                world.now,
                Gap {
                    since: Timestamp::ZERO,
                    until: START
                }
            )
            .is_some()
    );
    world.sleep(secs(20));
    let permit = world.admit(1);
    assert_eq!(admitted(&mut world), 0);
    complete(&mut world, &permit);
    // A limit that becomes known only now may be used up as well.
    let told = Limit {
        source: LimitSource::Api,
        ..limit(Dimension::Tokens, 100)
    };
    world.engine.inform(world.now, QuotaKey::named(QUOTA), &[told]);
    let snapshot = world.engine.snapshot(world.now);
    let presumed: Vec<_> = snapshot.quotas[0]
        .limits
        .iter()
        .map(|limit| limit.presumed.value())
        .collect();
    assert_eq!(presumed, [10, 99]);
}

#[test]
fn crashes_in_a_row_presume_no_less_and_still_ask() {
    for one in [limit(Dimension::Requests, 10), bucket(Dimension::Requests, 10)] {
        let plan = plan(vec![one]);
        let mut world = World::new(plan.clone());
        let mut memory = world.engine.remember(world.now);
        for _ in 0..3 {
            world.sleep(secs(2));
            let now = world.now;
            crash(&mut world, &plan, &memory, now).unwrap();
            world.sleep(secs(1));
            let permit = world.admit(1);
            assert_eq!(admitted(&mut world), 0);
            world.engine.settle(world.now, permit.id, Outcome::NotSent);
            memory = world.engine.remember(world.now);
        }
        // A restart in between keeps what is presumed, and that it is only that.
        restart(&mut world, &plan, secs(1));
        let permit = world.admit(1);
        assert_eq!(admitted(&mut world), 0);
        observe(&mut world, &permit, readings(Dimension::Requests, 10, 9));
        let rest = admitted(&mut world);
        assert!((8..=9).contains(&rest), "{rest}");
    }
}

#[test]
fn requests_in_flight_are_not_presumed() {
    let concurrent = limit(Dimension::Concurrency, 3);
    let plan = plan(vec![concurrent]);
    let mut world = World::new(plan.clone());
    admitted(&mut world);
    let memory = world.engine.remember(world.now);
    let now = world.now;
    assert_eq!(crash(&mut world, &plan, &memory, now), None);
    assert_eq!(admitted(&mut world), 3);
}

/// What one engine after the other let through: when, and how many tokens.
struct History {
    world: World,
    sent: Vec<(u64, u64)>,
    running: Vec<(crate::PermitId, usize)>,
    waiting: Vec<(crate::TicketId, u64)>,
}

#[derive(Debug, Clone)]
enum Step {
    Ask(u64),
    Sleep(u64),
    Settle(usize),
    NotSent(usize),
    Restart(u64),
    Crash(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1_u64..400).prop_map(Step::Ask),
        4 => (0_u64..10_000_000).prop_map(Step::Sleep),
        3 => any::<usize>().prop_map(Step::Settle),
        1 => any::<usize>().prop_map(Step::NotSent),
        1 => (0_u64..20_000_000).prop_map(Step::Restart),
        1 => (0_u64..20_000_000).prop_map(Step::Crash),
    ]
}

impl History {
    fn collect(&mut self) {
        for output in self.world.outputs() {
            if let Output::Admit { ticket, permit } = output {
                let at = self.waiting.iter().position(|(id, _)| *id == ticket).unwrap();
                let (_, tokens) = self.waiting.swap_remove(at);
                self.admit(permit, tokens);
            }
        }
    }

    fn admit(&mut self, permit: Permit, tokens: u64) {
        // Whoever asks after a crash is what that may cost.
        let snapshot = self.world.engine.snapshot(self.world.now);
        let quota = &snapshot.quotas[0];
        let asks = quota.in_flight == 1 && quota.limits.iter().any(|limit| limit.presumed > Amount::ZERO);
        let tokens = if asks { 0 } else { tokens };
        self.sent.push((self.world.now.as_micros(), tokens));
        self.running.push((permit.id, self.sent.len() - 1));
    }

    fn run(plan: &Plan, steps: &[Step], crashes: bool) -> Self {
        let mut history = Self {
            world: World::new(plan.clone()),
            sent: Vec::new(),
            running: Vec::new(),
            waiting: Vec::new(),
        };
        let mut kept = history.world.engine.remember(START);
        for step in steps {
            match step {
                Step::Ask(tokens) => match history.world.ask(*tokens) {
                    Decision::Admit(permit) => history.admit(permit, *tokens),
                    Decision::Wait(ticket) => history.waiting.push((ticket.id, *tokens)),
                    Decision::Refuse(_) => {}
                },
                Step::Sleep(micros) => {
                    // As a driver does, at every moment at which something happens.
                    let end = history.world.now + Duration::from_micros(*micros);
                    while let Some((at, _)) = history.world.engine.poll_timeout()
                        && at <= end
                    {
                        history.world.now = history.world.now.max(at);
                        history.world.engine.handle_timeout(history.world.now);
                        history.collect();
                        if history.world.now.since(kept.at) > secs(3) {
                            kept = history.world.engine.remember(history.world.now);
                        }
                    }
                    history.world.now = end;
                }
                Step::Settle(which) if !history.running.is_empty() => {
                    let (id, _) = history.running.swap_remove(which % history.running.len());
                    let outcome = Outcome::Completed(Usage::default());
                    history.world.engine.settle(history.world.now, id, outcome);
                }
                Step::NotSent(which) if !history.running.is_empty() => {
                    let (id, at) = history.running.swap_remove(which % history.running.len());
                    history.sent[at].1 = 0;
                    history
                        .world
                        .engine
                        .settle(history.world.now, id, Outcome::NotSent);
                }
                Step::Restart(later) => {
                    restart(&mut history.world, plan, Duration::from_micros(*later));
                    (history.running, history.waiting) = (Vec::new(), Vec::new());
                }
                Step::Crash(later) if crashes => {
                    let until = history.world.now;
                    history.world.now = history.world.now + Duration::from_micros(*later);
                    crash(&mut history.world, plan, &kept, until);
                    (history.running, history.waiting) = (Vec::new(), Vec::new());
                }
                Step::Settle(_) | Step::NotSent(_) | Step::Crash(_) => {}
            }
            history.world.engine.handle_timeout(history.world.now);
            history.collect();
            if history.world.now.since(kept.at) > secs(3) {
                kept = history.world.engine.remember(history.world.now);
            }
        }
        history
    }

    /// Returns the most tokens that were sent in any window of so many seconds.
    fn most(&self, seconds: u64) -> u64 {
        let sum = |end: u64| {
            let inside = |at: u64| at <= end && at + seconds * 1_000_000 > end;
            self.sent
                .iter()
                .filter(|(at, _)| inside(*at))
                .map(|(_, tokens)| tokens)
                .sum::<u64>()
        };
        self.sent.iter().map(|(at, _)| sum(*at)).max().unwrap_or(0)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Restarts and crashes at any moment let no more through in any window than the limit.
    #[test]
    fn no_window_exceeds_the_limit_over_restarts_and_crashes(
        steps in prop::collection::vec(step(), 1..200), crashes in any::<bool>(), is_two in any::<bool>(),
    ) {
        let mut limits = vec![limit(Dimension::Tokens, 1_000)];
        if is_two {
            limits.push(Limit { window: secs(600), ..limit(Dimension::Tokens, 4_000) });
        }
        let plan = plan(limits);
        let history = History::run(&plan, &steps, crashes);
        prop_assert!(history.most(60) <= 1_000, "{} of 1000", history.most(60));
        if is_two {
            prop_assert!(history.most(600) <= 4_000, "{} of 4000", history.most(600));
        }
    }
}
