//! What a reload must not forget.

use super::answers::readings;
use super::scenarios::secs;
use super::*;
use crate::{Outcome, RefusalReason, UpstreamSignal, Usage};

fn observe(world: &mut World, permit: &Permit, readings: crate::Readings) {
    let signal = UpstreamSignal {
        permit: permit.id,
        readings,
        processing: None,
    };
    world.engine.observe(world.now, signal);
    world.outputs();
}

fn admitted(world: &mut World) -> u64 {
    let mut admitted = 0;
    while admitted < 1_000
        && let Decision::Admit(_) = world.submit(Demand::REQUEST_ONLY, Duration::ZERO)
    {
        admitted += 1;
    }
    admitted
}

#[test]
fn a_reload_keeps_the_limits_that_were_learned() {
    for limits in [vec![], vec![limit(Dimension::Requests, 50)]] {
        let plan = plan(limits);
        let mut world = World::new(plan.clone());
        let permit = world.admit(1);
        observe(&mut world, &permit, readings(Dimension::Requests, 10, 9));
        world.engine.reconfigure(world.now, plan);
        assert_eq!(admitted(&mut world), 9, "the provider said ten");
    }
}

#[test]
fn a_reload_keeps_charges_also_where_the_window_changes() {
    let day = Limit {
        window: secs(86_400),
        ..limit(Dimension::Requests, 10)
    };
    let shorter = Limit {
        window: secs(59),
        ..limit(Dimension::Requests, 10)
    };
    let cases = [
        (limit(Dimension::Requests, 10), shorter),
        (limit(Dimension::Requests, 10), day),
        (limit(Dimension::Requests, 10), bucket(Dimension::Requests, 10)),
        (bucket(Dimension::Requests, 10), limit(Dimension::Requests, 10)),
    ];
    for (old, new) in cases {
        let mut world = World::new(plan(vec![old]));
        for _ in 0..6 {
            world.admit(1);
        }
        world.sleep(secs(1));
        world.engine.reconfigure(world.now, plan(vec![new]));
        assert!(admitted(&mut world) <= 4, "six of ten are used: {old:?} {new:?}");
    }
}

#[test]
fn a_bucket_that_is_cut_keeps_what_was_taken_from_it() {
    let mut world = World::new(plan(vec![bucket(Dimension::Requests, 200)]));
    for _ in 0..60 {
        world.admit(1);
    }
    world
        .engine
        .reconfigure(world.now, plan(vec![bucket(Dimension::Requests, 100)]));
    let more = admitted(&mut world);
    assert!(more <= 40, "sixty of a hundred are used, {more} were let through");
}

#[test]
fn a_concurrency_limit_that_comes_with_a_reload_counts_those_who_run() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 100)]));
    let permits: Vec<Permit> = (0..3).map(|_| world.admit(1)).collect();
    world
        .engine
        .reconfigure(world.now, plan(vec![limit(Dimension::Concurrency, 3)]));
    assert!(matches!(world.ask(1), Decision::Wait(_)), "three run");
    for permit in &permits {
        world
            .engine
            .settle(world.now, permit.id, Outcome::Completed(Usage::default()));
    }
    assert_eq!(world.outputs().len(), 1);
    assert_eq!(admitted(&mut world), 2, "one runs of three");
}

#[test]
fn a_group_that_is_gone_takes_no_more_requests_until_it_comes_back() {
    let gone = |decision| matches!(decision, Decision::Refuse(refusal) if refusal.reason == RefusalReason::UnknownQuota);
    let limits = plan(vec![limit(Dimension::Requests, 2)]);
    let mut world = World::new(limits.clone());
    let permit = world.admit(1);
    world.engine.reconfigure(world.now, Plan::default());
    assert!(gone(world.ask(1)));
    let failure = crate::Failure::Transient { sent: true };
    assert!(gone(world.engine.retry(world.now, permit.id, failure)));
    world.engine.reconfigure(world.now, limits);
    world.admit(1);
    assert!(matches!(world.ask(1), Decision::Wait(_)), "its charges were kept");
}

#[test]
fn those_who_wait_are_weighed_by_the_new_plan() {
    let limits = vec![limit(Dimension::Tokens, 1_000)];
    let mut world = World::new(plan_of(limits.clone(), ChargeModel::OPENAI));
    world.admit(1_000);
    let demand = Demand::generating(Tokens::new(100), None);
    assert!(matches!(world.submit(demand, secs(600)), Decision::Wait(_)));
    let charged_more = vec![limit(Dimension::Tokens, 10_000)];
    world
        .engine
        .reconfigure(world.now, plan_of(charged_more, ChargeModel::SETTLED));
    assert_eq!(world.outputs().len(), 1);
    let used = world.engine.snapshot(world.now).quotas[0].limits[0].used.value();
    assert_eq!(used, 1_000 + 100 + 4_096);
}

#[test]
fn use_from_before_a_limit_was_lowered_expires_in_one_window() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 500)]));
    for _ in 0..500 {
        world.admit(1);
    }
    assert!(matches!(world.ask(1), Decision::Wait(_)));
    world
        .engine
        .reconfigure(world.now, plan(vec![limit(Dimension::Requests, 100)]));
    assert!(matches!(world.step()[..], [Output::Admit { .. }]));
    assert!(world.now.since(START) < secs(62), "{}", world.now);
}

/// An output token weighs five in the end, so room is kept for those who run.
#[test]
fn a_reload_keeps_the_room_that_settlement_takes() {
    let charge = ChargeModel {
        output_percent: 500,
        ..ChargeModel::BEDROCK
    };
    let plan = plan_of(vec![limit(Dimension::Tokens, 10_000)], charge);
    let mut world = World::new(plan.clone());
    let demand = Demand {
        max_output: Some(Tokens::new(500)),
        generates: true,
        ..Demand::input_only(Tokens::new(100))
    };
    let Decision::Admit(_) = world.submit(demand, secs(1)) else {
        panic!("nothing is in use")
    };
    let refused = |world: &mut World| {
        let large = Demand::input_only(Tokens::new(6_000));
        matches!(world.submit(large, Duration::ZERO), Decision::Refuse(_))
    };
    assert!(refused(&mut world), "600 are charged, and 4,000 kept free");
    world.engine.reconfigure(world.now, plan);
    assert!(refused(&mut world), "they are after a reload");
}

#[test]
fn a_reload_shortens_a_pause_of_days() {
    let limits = vec![limit(Dimension::Requests, 10)];
    let mut world = World::new(plan(limits.clone()));
    let permit = world.admit(1);
    let refused = crate::RateLimited {
        retry_after: Some(Duration::from_secs(20 * 86_400)),
        ..crate::RateLimited::default()
    };
    world
        .engine
        .retry(world.now, permit.id, crate::Failure::RateLimited(refused));
    world.sleep(Duration::from_secs(2 * 86_400));
    world.engine.reconfigure(world.now, plan(limits));
    let hold = world.engine.snapshot(world.now).quotas[0].hold_until.unwrap();
    assert_eq!(hold.since(world.now), Duration::from_secs(300));
}
