//! Limits that answers tell of and that are in no plan.

use alloc::vec;
use core::time::Duration;

use super::{World, limit, plan, plan_of};
use crate::{
    Amount, ChargeModel, Demand, Dimension, Discipline, Failure, LimitSource, Outcome, Permit, RateLimited,
    Reading, Readings, Snapshot, Tokens, UpstreamSignal, Usage,
};

const DAY: Duration = Duration::from_secs(86_400);

fn observe(world: &mut World, permit: &Permit, readings: Readings) {
    let signal = UpstreamSignal {
        permit: permit.id,
        readings,
        processing: None,
    };
    world.engine.observe(world.now, signal);
}

fn known(snapshot: &Snapshot) -> alloc::vec::Vec<(Dimension, u64, u64, LimitSource)> {
    let limits = snapshot.quotas[0].limits.iter();
    limits
        .map(|limit| {
            let name = limit.limit;
            (name.dimension, name.window.as_secs(), name.amount, limit.source)
        })
        .collect()
}

/// OpenAI's header tells the request limit that binds: 500 a minute or 10,000 a day (providers.md §2.4).
#[test]
fn a_limit_of_the_day_does_not_pass_for_one_of_the_minute() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 500)]));
    let permit = world.admit(1);
    let mut readings = Readings::default();
    readings.push(
        Dimension::Requests,
        Reading {
            limit: Some(Amount::new(10_000)),
            remaining: Some(Amount::new(9_999)),
            reset: Some(Duration::from_millis(8_640)),
            window: Some(DAY),
            ..Reading::default()
        },
    );
    observe(&mut world, &permit, readings);
    assert_eq!(
        known(&world.engine.snapshot(world.now)).len(),
        1,
        "one may be chance"
    );
    let again = world.admit(1);
    readings.entry(Dimension::Requests).remaining = Some(Amount::new(9_998));
    readings.entry(Dimension::Requests).reset = Some(Duration::from_millis(17_280));
    observe(&mut world, &again, readings);
    let snapshot = world.engine.snapshot(world.now);
    assert_eq!(
        known(&snapshot),
        [
            (Dimension::Requests, 60, 500, LimitSource::Config),
            (Dimension::Requests, 86_400, 10_000, LimitSource::Header),
        ]
    );
    // It refills continuously, and these requests are all that is used of it.
    assert_eq!(snapshot.quotas[0].limits[1].discipline, Discipline::TokenBucket);
    assert_eq!(snapshot.quotas[0].limits[1].foreign, Amount::ZERO);
}

/// Groq tells of its limit on tokens a day only when it refuses (providers.md §8).
#[test]
fn a_refusal_tells_of_a_limit_that_no_header_shows() {
    let mut world = World::new(plan_of(vec![limit(Dimension::Tokens, 12_000)], ChargeModel::GROQ));
    let permit = world.admit(3_619);
    let refused = RateLimited {
        dimension: Some(Dimension::Tokens),
        limit: Some(Amount::new(100_000)),
        used: Some(Amount::new(97_050)),
        requested: Some(Amount::new(3_619)),
        retry_after: Some(Duration::from_millis(578_016)),
        ..RateLimited::default()
    };
    world
        .engine
        .retry(world.now, permit.id, Failure::RateLimited(refused));
    let snapshot = world.engine.snapshot(world.now);
    let limits = known(&snapshot);
    assert_eq!(limits.len(), 2, "{limits:?}");
    assert_eq!(
        limits[1],
        (Dimension::Tokens, 86_400, 100_000, LimitSource::Refusal)
    );
    // What is missing flows in again: 669 tokens more take as long as was stated, give or take the margin.
    world.outputs();
    let outputs = world.step();
    assert!(
        matches!(outputs[..], [crate::Output::Admit { .. }]),
        "{outputs:?}"
    );
    let waited = world.now.since(super::START);
    assert!(
        (Duration::from_millis(578_016)..Duration::from_secs(581)).contains(&waited),
        "{waited:?}"
    );
}

#[test]
fn a_limit_that_answers_told_of_survives_a_reload() {
    let configured = plan(vec![limit(Dimension::Requests, 500)]);
    let mut world = World::new(configured.clone());
    let permit = world.admit(1);
    let mut readings = Readings::default();
    readings.push(
        Dimension::Tokens,
        Reading {
            limit: Some(Amount::new(5_000_000)),
            window: Some(Duration::from_secs(30 * 86_400)),
            ..Reading::default()
        },
    );
    observe(&mut world, &permit, readings);
    let again = world.admit(1);
    observe(&mut world, &again, readings);
    let before = known(&world.engine.snapshot(world.now));
    assert_eq!(before.len(), 2);
    world.engine.reconfigure(world.now, configured);
    assert_eq!(known(&world.engine.snapshot(world.now)), before);
}

/// Mistral says what each request cost (providers.md §7).
#[test]
fn the_providers_own_word_on_the_cost_replaces_the_charge() {
    let mut world = World::new(plan_of(
        vec![limit(Dimension::Tokens, 10_000)],
        ChargeModel::SETTLED,
    ));
    let demand = Demand::generating(Tokens::new(10), Some(Tokens::new(1_000)));
    let crate::Decision::Admit(permit) = world.submit(demand, Duration::ZERO + super::MINUTE) else {
        panic!("nothing is in use");
    };
    let used = |world: &mut World| world.engine.snapshot(world.now).quotas[0].limits[0].used;
    assert_eq!(used(&mut world), Amount::new(1_010));
    let mut readings = Readings::default();
    readings.cost = Some(Amount::new(52));
    observe(&mut world, &permit, readings);
    assert_eq!(used(&mut world), Amount::new(52));
    // What is reported in the end counts if it is more.
    let usage = Usage {
        input: Some(Tokens::new(12)),
        output: Some(Tokens::new(30)),
        ..Usage::default()
    };
    world
        .engine
        .settle(world.now, permit.id, Outcome::Completed(usage));
    assert_eq!(used(&mut world), Amount::new(52));
}

/// What passes for a bucket may be none: a provider with a rolling window refuses what a bucket would take.
#[test]
fn a_bucket_that_is_refused_twice_is_kept_as_a_rolling_window() {
    let mut world = World::new(plan(vec![super::bucket(Dimension::Requests, 60)]));
    let kept = |world: &mut World| world.engine.snapshot(world.now).quotas[0].limits[0].discipline;
    for after in [Discipline::TokenBucket, Discipline::Rolling] {
        let permit = world.admit(1);
        world.sleep(Duration::from_secs(1));
        let refused = RateLimited {
            dimension: Some(Dimension::Requests),
            retry_after: Some(Duration::from_secs(1)),
            ..RateLimited::default()
        };
        world
            .engine
            .retry(world.now, permit.id, Failure::RateLimited(refused));
        world.outputs();
        assert_eq!(kept(&mut world), after);
        world.sleep(Duration::from_secs(300));
    }
}
