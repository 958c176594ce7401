//! What the requests of one run of an agent may use together.

use super::*;
use crate::{Allotment, Cost, Failure, RefusalReason, RunId, RunPlan, RunSnapshot, Spent};

const RUN: RunStep = RunStep {
    run: RunId::of(1),
    parent: None,
    fingerprint: None,
};

const CHILD: RunStep = RunStep {
    run: RunId::of(2),
    parent: Some(RunId::of(1)),
    fingerprint: None,
};

/// A token of input costs one millionth of a dollar, a token of output ten.
const PRICE: Price = Price {
    input: 1_000_000,
    cached_input: 0,
    output: 10_000_000,
};

const fn step(run: RunStep, input: u64, output: u64) -> Ask {
    Ask {
        run: Some(run),
        output: Some(output),
        price: PRICE,
        ..of("a", input)
    }
}

fn running(runs: RunPlan) -> Desk {
    Desk::new(Plan { runs, ..two_groups() })
}

fn show(desk: &mut Desk, run: u64) -> RunSnapshot {
    let now = desk.world.now;
    desk.world
        .engine
        .run(now, RunId::of(run))
        .expect("it was heard of")
}

fn spent(desk: &mut Desk, ask: Ask) -> Spent {
    let refusal = desk.refuse(ask);
    assert_eq!(
        (refusal.reason, refusal.retry_after),
        (RefusalReason::RunSpent, None)
    );
    refusal.spent.expect("it says what is used up")
}

#[test]
fn each_allotment_holds_at_its_bound_and_not_beyond() {
    let none = RunPlan::default();
    let table = [
        (
            RunPlan {
                calls: Some(2),
                ..none
            },
            Allotment::RunCalls,
            2,
            2,
        ),
        (
            RunPlan {
                tokens: Some(200),
                ..none
            },
            Allotment::RunTokens,
            200,
            200,
        ),
        (
            RunPlan {
                cost: Some(1_100),
                ..none
            },
            Allotment::RunCost,
            1_100,
            1_100,
        ),
    ];
    for (runs, what, used_up, most) in table {
        let mut desk = running(runs);
        desk.go(step(RUN, 50, 50));
        desk.end(0, used(50, 50));
        desk.go(Ask {
            quota: OTHER,
            ..step(RUN, 50, 50)
        });
        let parallel = spent(&mut desk, step(RUN, 1, 0));
        assert_eq!(
            parallel,
            Spent {
                what,
                used: used_up,
                most,
                above: 0
            },
            "while the second is under way"
        );
        desk.end(1, used(50, 50));
        assert_eq!(
            spent(&mut desk, step(RUN, 1, 0)),
            Spent {
                what,
                used: used_up,
                most,
                above: 0
            }
        );
        // Another run has not used anything.
        desk.go(step(
            RunStep {
                run: RunId::of(9),
                ..RUN
            },
            50,
            50,
        ));
    }
}

#[test]
fn parallel_branches_cannot_overshoot_together() {
    let mut desk = running(RunPlan {
        tokens: Some(1_000),
        ..RunPlan::default()
    });
    let decisions = desk.ask_all([step(RUN, 10, 140); 10]);
    let admitted = decisions
        .iter()
        .filter(|decision| matches!(decision, Decision::Admit(_)));
    assert_eq!(admitted.count(), 6, "six times 150 fit into 1,000");
    // What they did not use is there for others.
    for number in 0..6 {
        desk.end(number, used(10, 15));
    }
    assert_eq!(show(&mut desk, 1).tokens, 150);
    desk.go(step(RUN, 10, 840));
    spent(&mut desk, step(RUN, 1, 0));
}

#[test]
fn time_counts_from_the_first_request() {
    let mut desk = running(RunPlan {
        time: Some(secs(30)),
        ..RunPlan::default()
    });
    desk.go(step(RUN, 1, 1));
    desk.sleep(secs(30));
    desk.go(step(RUN, 1, 1));
    desk.sleep(Duration::from_micros(1));
    let spent = spent(&mut desk, step(RUN, 1, 1));
    let most = 30_000_000;
    assert_eq!(
        spent,
        Spent {
            what: Allotment::RunTime,
            used: most + 1,
            most,
            above: 0
        }
    );
}

#[test]
fn runs_within_runs_are_as_deep_as_may_be_and_no_deeper() {
    let mut desk = running(RunPlan {
        depth: Some(3),
        ..RunPlan::default()
    });
    let nested = |depth: u64| RunStep {
        run: RunId::of(depth),
        parent: (depth > 1).then(|| RunId::of(depth - 1)),
        fingerprint: None,
    };
    for depth in 1..=3 {
        desk.go(step(nested(depth), 1, 1));
        assert_eq!(u64::from(show(&mut desk, depth).depth), depth);
    }
    let spent = spent(&mut desk, step(nested(4), 1, 1));
    assert_eq!(
        spent,
        Spent {
            what: Allotment::RunDepth,
            used: 4,
            most: 3,
            above: 0
        }
    );
}

#[test]
fn the_same_step_among_the_last_twenty_may_be_repeated_so_often_and_no_more() {
    let mut desk = running(RunPlan {
        repeats: Some(3),
        ..RunPlan::default()
    });
    let same = |fingerprint| step(RunStep { fingerprint, ..RUN }, 1, 1);
    desk.go(same(Some(7)));
    desk.go(same(None));
    desk.go(same(Some(7)));
    desk.go(same(Some(7)));
    let refused = spent(&mut desk, same(Some(7)));
    assert_eq!(
        refused,
        Spent {
            what: Allotment::RunRepeats,
            used: 4,
            most: 3,
            above: 0
        }
    );
    // The first is the twentieth before it, and then the twenty-first.
    for other in 100..117 {
        desk.go(same(Some(other)));
    }
    spent(&mut desk, same(Some(7)));
    desk.go(same(Some(117)));
    desk.go(same(Some(7)));
}

/// Whoever was refused for a time and comes back when told to has not repeated a step: it was never made.
#[test]
fn a_step_that_was_not_made_is_no_repetition() {
    let runs = RunPlan {
        repeats: Some(2),
        ..RunPlan::default()
    };
    let mut desk = Desk::quick(Plan {
        runs,
        ..plan(vec![per_minute(1)])
    });
    desk.go(of("x", 1));
    let step = Ask {
        patience: secs(1),
        ..step(
            RunStep {
                fingerprint: Some(7),
                ..RUN
            },
            1,
            1,
        )
    };
    for _ in 0..4 {
        assert_eq!(desk.refuse(step).reason, RefusalReason::Deadline);
    }
    desk.sleep(secs(62));
    desk.go(step);
    assert_eq!(show(&mut desk, 1).repeats, 1);
}

#[test]
fn what_a_run_uses_the_run_that_started_it_uses_too() {
    let mut desk = running(RunPlan {
        calls: Some(3),
        ..RunPlan::default()
    });
    desk.go(step(RUN, 10, 10));
    desk.go(step(CHILD, 10, 10));
    desk.end(1, used(10, 5));
    assert_eq!((show(&mut desk, 1).calls, show(&mut desk, 1).tokens), (2, 35));
    assert_eq!((show(&mut desk, 2).calls, show(&mut desk, 2).tokens), (1, 15));
    assert_eq!(show(&mut desk, 2).cost, Cost::from_micros(60));
    let sibling = RunStep {
        run: RunId::of(3),
        ..CHILD
    };
    desk.go(step(sibling, 10, 10));
    // Each of them has made one, and together they have made all that the first may.
    assert_eq!(spent(&mut desk, step(CHILD, 1, 1)).what, Allotment::RunCalls);
    assert_eq!(spent(&mut desk, step(RUN, 1, 1)).used, 3);
}

#[test]
fn a_call_that_was_not_made_is_given_back() {
    let runs = RunPlan {
        calls: Some(2),
        tokens: Some(1_000),
        ..RunPlan::default()
    };
    let mut desk = Desk::new(Plan {
        runs,
        tenants: vec![tenant("a", vec![concurrent(1)])],
        ..two_groups()
    });
    let calls = |desk: &mut Desk| [1, 2].map(|run| (show(desk, run).calls, show(desk, run).tokens));
    desk.go(of("a", 1));
    // Refused at once: its deadline is now.
    desk.refuse(Ask {
        patience: Duration::ZERO,
        ..step(CHILD, 10, 10)
    });
    assert_eq!(calls(&mut desk), [(0, 0); 2]);
    // Cancelled while it waits.
    let number = desk.stays(step(CHILD, 10, 10));
    assert_eq!(calls(&mut desk), [(1, 20); 2], "it holds what it may use");
    desk.cancel(number);
    assert_eq!(calls(&mut desk), [(0, 0); 2]);
    // Refused while it waits.
    let number = desk.stays(Ask {
        patience: secs(5),
        ..step(CHILD, 10, 10)
    });
    desk.sleep(secs(6));
    assert!(desk.refusal(number).is_some());
    assert_eq!(calls(&mut desk), [(0, 0); 2]);
    // Not sent.
    desk.end(0, used(1, 1));
    let number = desk.go(step(CHILD, 10, 10));
    desk.end(number, Outcome::NotSent);
    assert_eq!(calls(&mut desk), [(0, 0); 2]);
    // Its retry refused.
    desk.go(step(CHILD, 10, 10));
    let permit = desk.running.pop_last().expect("it runs").1;
    let failure = Failure::Overloaded {
        retry_after: Some(secs(10_000)),
    };
    let decision = desk.world.engine.retry(desk.world.now, permit, failure);
    assert!(matches!(decision, Decision::Refuse(_)), "{decision:?}");
    assert_eq!(calls(&mut desk), [(0, 0); 2]);
    // Closed while it waits.
    desk.go(of("a", 1));
    desk.stays(step(CHILD, 10, 10));
    desk.world.engine.close(desk.world.now);
    desk.drain();
    assert_eq!(calls(&mut desk), [(0, 0); 2]);
}

#[test]
fn another_attempt_is_not_another_call() {
    let mut desk = running(RunPlan {
        calls: Some(1),
        repeats: Some(1),
        ..RunPlan::default()
    });
    let only = step(
        RunStep {
            fingerprint: Some(1),
            ..RUN
        },
        10,
        90,
    );
    let number = desk.go(only);
    for _ in 0..3 {
        let permit = desk.running.remove(&number).expect("it runs");
        let failure = Failure::Transient { sent: true };
        let Decision::Wait(ticket) = desk.world.engine.retry(desk.world.now, permit, failure) else {
            panic!("there is time for another")
        };
        desk.waiting.insert(ticket.id, number);
        assert_eq!((show(&mut desk, 1).calls, show(&mut desk, 1).tokens), (1, 100));
        desk.sleep(secs(6));
    }
    desk.end(number, used(10, 20));
    assert_eq!((show(&mut desk, 1).calls, show(&mut desk, 1).tokens), (1, 30));
}

#[test]
fn a_run_is_forgotten_when_nothing_was_heard_of_it() {
    let mut desk = running(RunPlan {
        calls: Some(1),
        idle: secs(100),
        ..RunPlan::default()
    });
    desk.go(step(RUN, 1, 1));
    desk.end(0, used(1, 1));
    desk.sleep(secs(99));
    spent(&mut desk, step(RUN, 1, 1));
    desk.sleep(secs(100));
    desk.go(step(RUN, 1, 1));
}

/// A run that waits for an answer is not idle: what it has used is not forgotten.
#[test]
fn a_run_with_a_request_under_way_is_not_forgotten() {
    let mut desk = running(RunPlan {
        calls: Some(1),
        idle: secs(100),
        ..RunPlan::default()
    });
    desk.go(step(RUN, 1, 1));
    desk.sleep(secs(101));
    assert_eq!(spent(&mut desk, step(RUN, 1, 1)).what, Allotment::RunCalls);
}

/// As above, of the run above the run above.
#[test]
fn the_run_at_the_top_is_heard_of_while_those_below_it_go_on() {
    let mut desk = running(RunPlan {
        calls: Some(4),
        idle: secs(100),
        ..RunPlan::default()
    });
    let below = RunStep {
        run: RunId::of(3),
        parent: Some(RunId::of(2)),
        fingerprint: None,
    };
    for ask in [RUN, CHILD, below] {
        desk.go(step(ask, 1, 1));
    }
    desk.sleep(secs(60));
    desk.go(step(below, 1, 1));
    desk.sleep(secs(60));
    assert_eq!(spent(&mut desk, step(below, 1, 1)).what, Allotment::RunCalls);
}

#[test]
fn of_too_many_runs_the_one_heard_of_least_lately_makes_room() {
    let mut desk = running(RunPlan {
        calls: Some(1),
        idle: secs(1_000_000),
        ..RunPlan::default()
    });
    desk.is_quick = true;
    let of = |run| {
        step(
            RunStep {
                run: RunId::of(run),
                ..RUN
            },
            1,
            1,
        )
    };
    for run in 0..10_000 {
        desk.go(of(run));
        desk.sleep(Duration::from_millis(50));
    }
    spent(&mut desk, of(0));
    desk.go(of(10_000));
    spent(&mut desk, of(0));
    desk.go(of(1));
}

#[test]
fn nearly_used_up_is_a_warning() {
    let mut desk = running(RunPlan {
        calls: Some(10),
        tokens: Some(1_000),
        ..RunPlan::default()
    });
    for _ in 0..7 {
        desk.go(step(RUN, 1, 1));
    }
    assert_eq!(show(&mut desk, 1).warning, None);
    desk.go(step(RUN, 1, 1));
    let warning = show(&mut desk, 1).warning;
    assert_eq!(
        warning,
        Some(Spent {
            what: Allotment::RunCalls,
            used: 8,
            most: 10,
            above: 0
        })
    );
}
