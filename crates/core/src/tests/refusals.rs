//! Each kind of refusal, and what is done about it.

use super::scenarios::secs;
use super::*;
use crate::{
    Amount, Cause, Failure, LimitSource, Notice, Outcome, QuotaSnapshot, RateLimited, RefusalReason, Usage,
};

fn minutes(minutes: u64) -> Duration {
    secs(60 * minutes)
}

fn quota(world: &mut World) -> QuotaSnapshot {
    world.engine.snapshot(world.now).quotas[0].clone()
}

fn spent(until: Option<Duration>) -> Outcome {
    Outcome::QuotaSpent { until }
}

fn refused_for(decision: Decision) -> Option<(RefusalReason, Option<Duration>)> {
    match decision {
        Decision::Refuse(refusal) => Some((refusal.reason, refusal.retry_after)),
        Decision::Admit(_) | Decision::Wait(_) => None,
    }
}

#[test]
fn a_spent_quota_closes_the_group_until_it_comes_back() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 2)]));
    let first = world.admit(1);
    world.admit(1);
    let Decision::Wait(early) = world.submit(Demand::REQUEST_ONLY, secs(100)) else {
        panic!("two of two are used")
    };
    let Decision::Wait(late) = world.submit(Demand::REQUEST_ONLY, secs(300)) else {
        panic!("two of two are used")
    };
    world.engine.settle(world.now, first.id, spent(Some(secs(120))));
    let outputs = world.outputs();
    let told = Some(START + secs(120));
    assert!(
        outputs.iter().any(
            |output| matches!(output, Output::Notice { notice: Notice::QuotaSpent { until }, .. } if *until == told)
        ),
        "{outputs:?}"
    );
    let refused = outputs.iter().find_map(|output| match output {
        Output::Refuse { ticket, refusal } => Some((*ticket, refusal.reason, refusal.retry_after)),
        _ => None,
    });
    let expected = (early.id, RefusalReason::QuotaSpent, Some(secs(120)));
    assert_eq!(refused, Some(expected), "it would be too late for that one");
    world.sleep(secs(20));
    let newcomer = world.submit(Demand::REQUEST_ONLY, secs(600));
    assert_eq!(
        refused_for(newcomer),
        Some((RefusalReason::QuotaSpent, Some(secs(100))))
    );
    assert_eq!(quota(&mut world).spent_until, told);
    let outputs = world.step();
    assert_eq!(world.now, START + secs(120));
    assert!(
        matches!(outputs[..], [Output::Admit { ticket, .. }] if ticket == late.id),
        "{outputs:?}"
    );
    world.admit(1);
}

#[test]
fn a_closed_group_lets_one_through_now_and_then_and_opens_when_that_succeeds() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 1_000)]));
    let permit = world.admit(1);
    world
        .engine
        .settle(world.now, permit.id, spent(Some(minutes(600))));
    let mut tried = Vec::new();
    for minute in 0..100 {
        world.sleep(minutes(1));
        if let Decision::Admit(permit) = world.ask(1) {
            tried.push(minute + 1);
            let left = minutes(600 - minute - 1);
            world.engine.settle(world.now, permit.id, spent(Some(left)));
        }
    }
    assert_eq!(tried, [5, 15, 35, 75], "after twice as long each time");
    world.sleep(minutes(60));
    let permit = world.admit(1);
    world
        .engine
        .settle(world.now, permit.id, Outcome::Completed(Usage::default()));
    world.admit(1);
    world.admit(1);
}

#[test]
fn broken_billing_is_not_hammered() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 1_000_000)]));
    let mut asked = 0;
    for _ in 0..6_000 {
        if let Decision::Admit(permit) = world.ask(1) {
            asked += 1;
            world.engine.settle(world.now, permit.id, spent(None));
        }
        world.sleep(Duration::from_millis(10));
    }
    assert!(
        (60..=72).contains(&asked),
        "ten, and one a second: {asked} of 6,000"
    );
    assert_eq!(quota(&mut world).totals.quota_spent, asked);
    world.sleep(secs(1));
    let permit = world.admit(1);
    world
        .engine
        .settle(world.now, permit.id, Outcome::Completed(Usage::default()));
    world.admit(1);
    world.admit(1);
}

/// `retry-after: 0`, time and again: it is obeyed twice, and from then on waited for longer and longer.
#[test]
fn a_wait_that_never_helps_is_not_relied_on() {
    for stated in [Duration::ZERO, Duration::from_millis(20)] {
        let mut world = World::new(plan(vec![limit(Dimension::Requests, 1_000_000)]));
        let mut permit = world.admit(1);
        let refused = RateLimited {
            retry_after: Some(stated),
            ..RateLimited::default()
        };
        let mut sent = vec![0];
        while world.now < START + secs(60) {
            let failure = Failure::RateLimited(refused);
            if let Decision::Admit(again) = world.engine.retry(world.now, permit.id, failure) {
                permit = again;
            } else {
                permit = loop {
                    let admitted = world.step().into_iter().find_map(|output| match output {
                        Output::Admit { permit, .. } => Some(permit),
                        _ => None,
                    });
                    if let Some(admitted) = admitted {
                        break admitted;
                    }
                };
            }
            sent.push(world.now.since(START).as_millis());
        }
        assert!(sent[2] < 100, "{stated:?} is believed twice: {sent:?}");
        assert!(sent[3] >= 750, "{stated:?}: {sent:?}");
        assert!((7..=10).contains(&sent.len()), "{stated:?}: {sent:?}");
    }
}

/// One model of a group is not on the plan; the others go on.
#[test]
fn a_refusal_for_good_now_and_then_holds_nobody_up() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 1_000_000)]));
    for _ in 0..100 {
        for _ in 0..5 {
            let permit = world.admit(1);
            world.engine.settle(world.now, permit.id, spent(None));
        }
        let permit = world.admit(1);
        world
            .engine
            .settle(world.now, permit.id, Outcome::Completed(Usage::default()));
        world.sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_reload_asks_anew_whether_the_quota_is_spent() {
    let plan = plan(vec![limit(Dimension::Requests, 100)]);
    let mut world = World::new(plan.clone());
    let permit = world.admit(1);
    world
        .engine
        .settle(world.now, permit.id, spent(Some(minutes(600))));
    assert!(refused_for(world.ask(1)).is_some());
    world.engine.reconfigure(world.now, plan);
    world.admit(1);
}

/// `Request too large … Limit 30000, Requested 30601`.
#[test]
fn what_is_too_large_tells_the_limit() {
    let mut world = World::new(plan(vec![limit(Dimension::Tokens, 90_000)]));
    let permit = world.admit(30_601);
    let told = RateLimited {
        dimension: Some(Dimension::Tokens),
        limit: Some(Amount::new(30_000)),
        requested: Some(Amount::new(30_601)),
        ..RateLimited::default()
    };
    world.engine.settle(world.now, permit.id, Outcome::TooLarge(told));
    let quota = quota(&mut world);
    let limit = quota.limits[0];
    assert_eq!(
        (limit.limit.amount, limit.source, limit.used.value()),
        (30_000, LimitSource::Refusal, 0)
    );
    assert_eq!((quota.totals.too_large, quota.totals.promises_broken), (1, 0));
    assert_eq!(
        refused_for(world.ask(30_601)),
        Some((RefusalReason::NeverFits, None))
    );
}

#[test]
fn refusals_of_requests_sent_before_the_first_was_known_teach_nothing_more() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 100)]));
    let permits: Vec<Permit> = (0..20).map(|_| world.admit(1)).collect();
    world.sleep(secs(1));
    let before = quota(&mut world).limits[0].margin;
    for (at, permit) in permits.iter().enumerate() {
        let refused = RateLimited {
            dimension: Some(Dimension::Requests),
            limit: Some(Amount::new(100)),
            retry_after: Some(secs(10)),
            ..RateLimited::default()
        };
        let decision = world
            .engine
            .retry(world.now, permit.id, Failure::RateLimited(refused));
        assert!(matches!(decision, Decision::Wait(_)), "{at} waits again");
    }
    let quota = quota(&mut world);
    assert!(quota.limits[0].margin <= 2 * before, "doubled once at most");
    assert_eq!(quota.totals.promises_broken, 20, "all of them are counted");
    let outputs = world.step();
    assert_eq!(world.now, START + secs(11), "{outputs:?}");
}

#[test]
fn causes_are_counted_apart() {
    let check = |cause| {
        let mut world = World::new(plan(vec![
            limit(Dimension::Requests, 100),
            limit(Dimension::Tokens, 1_000_000),
        ]));
        let permits: Vec<Permit> = (0..10).map(|_| world.admit(10)).collect();
        let refused = RateLimited {
            cause,
            ..RateLimited::default()
        };
        world
            .engine
            .retry(world.now, permits[9].id, Failure::RateLimited(refused));
        let totals = quota(&mut world).totals;
        (
            [
                totals.promises_broken,
                totals.accelerated,
                totals.crowded,
                totals.congested,
            ],
            quota(&mut world),
        )
    };
    assert_eq!(check(Cause::Rate).0, [1, 0, 0, 0]);
    assert_eq!(check(Cause::Acceleration).0, [0, 1, 0, 0]);
    let (counts, quota) = check(Cause::Concurrency);
    assert_eq!(counts, [0, 0, 1, 0]);
    assert_eq!(quota.hold_until, None, "nobody is held by time");
    let (counts, quota) = check(Cause::Congestion);
    assert_eq!(counts, [0, 0, 0, 1]);
    assert_eq!(quota.congestion.map(|pace| pace.percent), Some(70));
    assert_eq!(quota.limits[0].limit.amount, 100, "no limit shrinks");
}

/// OpenAI's "slow down": the pace stays for a quarter of an hour, and grows from then on.
#[test]
fn a_pace_that_is_to_be_kept_is_kept() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 100_000)]));
    let permits: Vec<Permit> = (0..600)
        .map(|_| {
            world.sleep(Duration::from_millis(10));
            world.admit(1)
        })
        .collect();
    let refused = RateLimited {
        cause: Cause::Congestion,
        steady: Some(minutes(15)),
        ..RateLimited::default()
    };
    world
        .engine
        .retry(world.now, permits[599].id, Failure::RateLimited(refused));
    let pace = |world: &mut World| quota(world).congestion.map(|pace| pace.per_minute);
    let slowed = pace(&mut world).expect("it is slowed");
    assert!((3_000..=4_500).contains(&slowed), "70 % of 6,000: {slowed}");
    for minute in 0..17 {
        for _ in 0..60 {
            // Always somebody waits.
            while let Decision::Admit(_) = world.ask(1) {}
            world.sleep(secs(1));
        }
        let now = pace(&mut world).expect("somebody waits");
        assert!(
            minute < 14 && now == slowed || minute >= 14 && now >= slowed,
            "{minute}: {now}"
        );
    }
    assert!(pace(&mut world) > Some(slowed));
}

#[test]
fn limits_told_by_an_interface_find_their_place() {
    let api = |dimension, value| Limit {
        source: LimitSource::Api,
        ..limit(dimension, value)
    };
    let check = |given: Vec<Limit>, told: u64, expect: (u64, LimitSource)| {
        let mut world = World::new(plan(given));
        world.engine.inform(
            world.now,
            QuotaKey::named(QUOTA),
            &[api(Dimension::Requests, told)],
        );
        let quota = quota(&mut world);
        let found = quota
            .limits
            .iter()
            .find(|limit| limit.limit.dimension == Dimension::Requests)
            .expect("it is known");
        assert_eq!((found.limit.amount, found.source), expect);
    };
    let preset = Limit {
        source: LimitSource::Preset,
        ..limit(Dimension::Requests, 50)
    };
    check(vec![], 70, (70, LimitSource::Api));
    check(vec![preset], 70, (70, LimitSource::Api));
    check(vec![preset], 30, (30, LimitSource::Api));
    check(
        vec![limit(Dimension::Requests, 50)],
        70,
        (50, LimitSource::Config),
    );
    check(vec![limit(Dimension::Requests, 50)], 30, (30, LimitSource::Api));
    // A lower header beats them all.
    let mut world = World::new(plan(vec![]));
    let permit = world.admit(1);
    world.engine.observe(
        world.now,
        crate::UpstreamSignal {
            permit: permit.id,
            readings: answers::readings(Dimension::Requests, 20, 19),
            processing: None,
        },
    );
    for told in [70, 20] {
        world.engine.inform(
            world.now,
            QuotaKey::named(QUOTA),
            &[api(Dimension::Requests, told)],
        );
        assert_eq!(quota(&mut world).limits[0].limit.amount, 20);
    }
    // One of another window is one more.
    let daily = Limit {
        window: secs(86_400),
        ..api(Dimension::Requests, 1_000)
    };
    world.engine.inform(world.now, QuotaKey::named(QUOTA), &[daily]);
    assert_eq!(quota(&mut world).limits.len(), 2);
}

/// What the last lesson was about is over when a limit is told.
#[test]
fn what_is_told_beats_what_was_found_by_trying() {
    let mut world = World::new(plan(vec![]));
    let permits: Vec<Permit> = (0..8).map(|_| world.admit(1)).collect();
    world.engine.retry(
        world.now,
        permits[7].id,
        Failure::RateLimited(RateLimited::default()),
    );
    let found = quota(&mut world).limits;
    assert!(
        found.iter().all(|limit| limit.source == LimitSource::Learned),
        "{found:?}"
    );
    assert_eq!(found[0].limit.amount, 7);
    world.engine.inform(
        world.now,
        QuotaKey::named(QUOTA),
        &[Limit {
            source: LimitSource::Api,
            ..limit(Dimension::Requests, 500)
        }],
    );
    let told = quota(&mut world).limits[0];
    assert_eq!((told.limit.amount, told.source), (500, LimitSource::Api));
}

/// Bedrock's "too many tokens" may be said of input and of output.
#[test]
fn tokens_that_are_not_told_apart_are_those_that_were_fullest() {
    let limits = vec![
        limit(Dimension::InputTokens, 10_000),
        limit(Dimension::OutputTokens, 10_000),
    ];
    let mut world = World::new(plan_of(limits, ChargeModel::ANTHROPIC));
    let permits: Vec<Permit> = (0..6).map(|_| world.admit(1_000)).collect();
    let refused = RateLimited {
        dimension: Some(Dimension::Tokens),
        ..RateLimited::default()
    };
    world
        .engine
        .retry(world.now, permits[5].id, Failure::RateLimited(refused));
    let limits = quota(&mut world).limits;
    let amounts: Vec<_> = limits
        .iter()
        .map(|limit| (limit.limit.amount, limit.source))
        .collect();
    assert_eq!(
        amounts,
        [(5_280, LimitSource::Learned), (10_000, LimitSource::Config)],
        "five were accepted, and half of the sixth would have been, less 4 %"
    );
}
