//! What answers tell, and what they must not be taken for.

use super::scenarios::secs;
use super::*;
use crate::{
    Amount, Failure, Notice, Outcome, RateLimited, Reading, Readings, UpstreamSignal, Usage, WaitReason,
};

pub(super) fn readings(dimension: Dimension, limit: u64, remaining: u64) -> Readings {
    let mut readings = Readings::default();
    *readings.entry(dimension) = Reading {
        limit: Some(Amount::new(limit)),
        remaining: Some(Amount::new(remaining)),
        ..Reading::default()
    };
    readings
}

fn observe(world: &mut World, permit: &Permit, readings: Readings) -> Vec<Output> {
    let signal = UpstreamSignal {
        permit: permit.id,
        readings,
        processing: None,
    };
    world.engine.observe(world.now, signal);
    world.outputs()
}

fn foreign(outputs: &[Output]) -> u64 {
    let amounts = outputs.iter().filter_map(|output| match output {
        Output::Notice {
            notice: Notice::ForeignTraffic { amount, .. },
            ..
        } => Some(amount.value()),
        _ => None,
    });
    amounts.sum()
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

/// Half of a limit is configured; the other half is meant for somebody else, who uses it.
#[test]
fn a_configured_share_of_a_limit_is_neither_exceeded_nor_taken_by_the_others() {
    for limits in [
        vec![limit(Dimension::Requests, 50)],
        vec![bucket(Dimension::Requests, 50)],
    ] {
        let mut world = World::new(plan(limits));
        let permit = world.admit(1);
        let outputs = observe(&mut world, &permit, readings(Dimension::Requests, 100, 59));
        assert_eq!(foreign(&outputs), 0, "59 are left, more than our share");
        for _ in 0..40 {
            let Decision::Admit(permit) = world.submit(Demand::REQUEST_ONLY, Duration::ZERO) else {
                break;
            };
            observe(&mut world, &permit, readings(Dimension::Requests, 100, 90));
        }
        let more = admitted(&mut world);
        assert!(more <= 9, "41 of 50 are used, {more} more were let through");
    }
}

#[test]
fn what_is_left_of_a_day_is_not_taken_for_a_minutes() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 500)]));
    let permit = world.admit(1);
    let outputs = observe(&mut world, &permit, readings(Dimension::Requests, 10_000, 9_000));
    assert_eq!(foreign(&outputs), 0);
    // Nor is a smaller one, whose reset tells that it is no minute's.
    let permit = world.admit(1);
    let mut daily = readings(Dimension::Requests, 200, 10);
    daily.entry(Dimension::Requests).reset = Some(secs(3_600));
    assert!(observe(&mut world, &permit, daily).is_empty());
    assert_eq!(admitted(&mut world), 498);
}

#[test]
fn a_refusal_by_a_limit_of_the_day_does_not_change_that_of_the_minute() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 500)]));
    let permit = world.admit(1);
    let refused = RateLimited {
        dimension: Some(Dimension::Requests),
        limit: Some(Amount::new(200)),
        used: Some(Amount::new(200)),
        requested: Some(Amount::new(1)),
        retry_after: Some(secs(432)),
        ..RateLimited::default()
    };
    world
        .engine
        .retry(world.now, permit.id, Failure::RateLimited(refused));
    let snapshot = world.engine.snapshot(world.now);
    let minute = &snapshot.quotas[0].limits[0];
    assert_eq!((minute.limit.amount, minute.foreign.value()), (500, 0));
    assert!(snapshot.quotas[0].hold_until.is_some());
}

/// The later of two requests is answered first; what the earlier one tells is no news.
#[test]
fn answers_out_of_order_count_others_once() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 100)]));
    let first = world.admit(1);
    world.sleep(secs(5));
    let second = world.admit(1);
    world.sleep(secs(1));
    let outputs = observe(&mut world, &second, readings(Dimension::Requests, 100, 68));
    assert_eq!(foreign(&outputs), 30);
    let outputs = observe(&mut world, &first, readings(Dimension::Requests, 100, 69));
    assert_eq!(foreign(&outputs), 0, "the thirty are known");
    let snapshot = world.engine.snapshot(world.now);
    assert_eq!(snapshot.quotas[0].limits[0].used.value(), 32);
}

/// Output that another request of ours is generating unseen is counted by the provider already.
#[test]
fn output_that_is_held_is_not_taken_for_that_of_others() {
    for limits in [
        vec![limit(Dimension::OutputTokens, 10_000)],
        vec![bucket(Dimension::OutputTokens, 10_000)],
    ] {
        let mut world = World::new(plan_of(limits, ChargeModel::ANTHROPIC));
        let demand = Demand::generating(Tokens::new(10), Some(Tokens::new(3_000)));
        let Decision::Admit(_) = world.submit(demand, secs(1)) else {
            panic!("it fits")
        };
        world.sleep(secs(10));
        let Decision::Admit(second) = world.submit(demand, secs(1)) else {
            panic!("it fits")
        };
        let outputs = observe(
            &mut world,
            &second,
            readings(Dimension::OutputTokens, 10_000, 8_000),
        );
        assert_eq!(foreign(&outputs), 0, "the first one generated them");
    }
}

#[test]
fn a_bucket_counts_what_is_held() {
    let mut world = World::new(plan_of(
        vec![bucket(Dimension::OutputTokens, 1_000)],
        ChargeModel::ANTHROPIC,
    ));
    let demand = Demand::generating(Tokens::new(10), Some(Tokens::new(700)));
    let Decision::Admit(first) = world.submit(demand, secs(600)) else {
        panic!("it fits")
    };
    assert!(
        matches!(world.submit(demand, secs(600)), Decision::Wait(_)),
        "300 are left"
    );
    // Nothing is known to become free by itself, so nothing is tried before somebody's deadline.
    world.step();
    assert_eq!(world.now.since(START), secs(600));
    let Decision::Wait(_) = world.submit(demand, secs(600)) else {
        panic!("still 300")
    };
    let usage = Usage {
        output: Some(Tokens::new(10)),
        ..Usage::default()
    };
    world
        .engine
        .settle(world.now, first.id, Outcome::Completed(usage));
    assert!(matches!(world.outputs()[..], [Output::Admit { .. }]));
}

/// What was held becomes a charge that expires: from then on the time is known.
#[test]
fn who_waits_behind_a_long_stream_goes_when_what_it_generated_has_expired() {
    let mut world = World::new(plan_of(
        vec![limit(Dimension::OutputTokens, 1_000)],
        ChargeModel::ANTHROPIC,
    ));
    let demand = |most| Demand::generating(Tokens::new(10), Some(Tokens::new(most)));
    let Decision::Admit(stream) = world.submit(demand(900), secs(1)) else {
        panic!("it fits")
    };
    assert!(matches!(world.submit(demand(300), secs(600)), Decision::Wait(_)));
    world.engine.progress(world.now, stream.id, Tokens::new(400));
    let outputs = world.step();
    assert!(matches!(outputs[..], [Output::Admit { .. }]), "{outputs:?}");
    assert!(world.now.since(START) <= secs(62), "{}", world.now);
}

#[test]
fn a_lowered_output_limit_is_no_reason_to_refuse_those_who_wait() {
    let mut world = World::new(plan_of(
        vec![limit(Dimension::OutputTokens, 1_000)],
        ChargeModel::ANTHROPIC,
    ));
    let demand = Demand::generating(Tokens::new(10), Some(Tokens::new(800)));
    let Decision::Admit(first) = world.submit(demand, secs(600)) else {
        panic!("it fits")
    };
    assert!(matches!(world.submit(demand, secs(600)), Decision::Wait(_)));
    let outputs = observe(&mut world, &first, readings(Dimension::OutputTokens, 500, 500));
    assert!(
        !outputs
            .iter()
            .any(|output| matches!(output, Output::Refuse { .. })),
        "{outputs:?}"
    );
    world
        .engine
        .settle(world.now, first.id, Outcome::Completed(Usage::default()));
    assert!(matches!(world.outputs()[..], [Output::Admit { .. }]));
}

/// The provider's bucket was full again before the estimate turned out too high, so there is nothing to give back.
#[test]
fn a_bucket_gets_back_only_what_it_could_have_kept() {
    let mut world = World::new(plan_of(
        vec![bucket(Dimension::InputTokens, 1_000)],
        ChargeModel::ANTHROPIC,
    ));
    let slow = world.admit(500);
    world.sleep(secs(59));
    let mut taken = 0;
    while let Decision::Admit(_) = world.submit(Demand::input_only(Tokens::new(90)), Duration::ZERO) {
        taken += 90;
    }
    let usage = Usage {
        input: Some(Tokens::new(100)),
        ..Usage::default()
    };
    world.engine.settle(world.now, slow.id, Outcome::Completed(usage));
    while let Decision::Admit(_) = world.submit(Demand::input_only(Tokens::new(90)), Duration::ZERO) {
        taken += 90;
    }
    assert!(
        taken <= 1_000,
        "{taken} were taken of a bucket of 1,000 at one moment"
    );
}

#[test]
fn absurd_usage_does_not_block_a_bucket_for_ever() {
    let mut world = World::new(plan_of(
        vec![bucket(Dimension::Tokens, 1_000)],
        ChargeModel::SETTLED,
    ));
    let permit = world.admit(10);
    let usage = Usage {
        input: Some(Tokens::new(u64::MAX)),
        output: Some(Tokens::new(u64::MAX)),
        ..Usage::default()
    };
    world
        .engine
        .settle(world.now, permit.id, Outcome::Completed(usage));
    world.sleep(secs(180));
    world.admit(500);
}

#[test]
fn limits_are_learned_from_headers_and_lowered_by_them() {
    let mut world = World::new(plan(vec![]));
    let permits: Vec<Permit> = (0..8).map(|_| world.admit(10)).collect();
    let Decision::Wait(ninth) = world.ask(10) else {
        panic!("only a few go while nothing is known")
    };
    assert_eq!(ninth.reason, WaitReason::Learning);
    let signal = UpstreamSignal {
        permit: permits[0].id,
        readings: readings(Dimension::Requests, 9, 1),
        processing: None,
    };
    world.engine.observe(world.now, signal);
    let outputs = world.outputs();
    assert!(outputs.iter().any(|output| matches!(output, Output::Notice { notice: Notice::LimitChanged(limit), .. } if limit.amount == 9)));
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, Output::Admit { ticket, .. } if *ticket == ninth.id))
    );
    assert!(
        matches!(world.ask(10), Decision::Wait(_)),
        "nine of nine are used"
    );

    // Configured twice as high as it is: the first header corrects it.
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 20)]));
    let permit = world.admit(1);
    let signal = UpstreamSignal {
        permit: permit.id,
        readings: readings(Dimension::Requests, 10, 9),
        processing: None,
    };
    world.engine.observe(world.now, signal);
    for _ in 0..9 {
        world.admit(1);
    }
    assert!(matches!(world.ask(1), Decision::Wait(_)));
}

#[test]
fn what_is_left_of_an_unknown_limit_holds_nobody_up() {
    let mut world = World::new(plan(vec![]));
    let permit = world.admit(1);
    let mut left = Readings::default();
    left.entry(Dimension::Requests).remaining = Some(Amount::new(99));
    let signal = UpstreamSignal {
        permit: permit.id,
        readings: left,
        processing: None,
    };
    world.engine.observe(world.now, signal);
    world.admit(1);
    world.admit(u64::MAX);
    world.admit(u64::MAX);
}

#[test]
fn traffic_of_others_is_seen_in_headers_and_charged() {
    for limits in [
        vec![limit(Dimension::Requests, 100)],
        vec![bucket(Dimension::Requests, 100)],
    ] {
        let mut world = World::new(plan(limits));
        let permit = world.admit(1);
        let readings = readings(Dimension::Requests, 100, 39);
        world.engine.observe(
            world.now,
            UpstreamSignal {
                permit: permit.id,
                readings,
                processing: None,
            },
        );
        let outputs = world.outputs();
        let foreign = outputs.iter().find_map(|output| match output {
            Output::Notice {
                notice: Notice::ForeignTraffic { amount, .. },
                ..
            } => Some(amount.value()),
            _ => None,
        });
        assert!(
            foreign.is_some_and(|foreign| (57..=60).contains(&foreign)),
            "{foreign:?}"
        );
        let mut more = 0;
        while let Decision::Admit(_) = world.ask(1) {
            more += 1;
        }
        assert!(more <= 39, "only 39 are left, {more} were let through");
    }
}

/// An answer whose head comes after many seconds tells of charges that have left the window since.
#[test]
fn own_charges_are_not_taken_for_those_of_others_when_an_answer_takes_long() {
    for (limits, seconds) in [
        (vec![limit(Dimension::Requests, 100)], 2),
        (vec![limit(Dimension::Requests, 100)], 10),
        (vec![limit(Dimension::Requests, 100)], 100),
    ] {
        let mut world = World::new(plan(limits));
        for _ in 0..60 {
            world.admit(1);
        }
        world.sleep(Duration::from_millis(59_900));
        let permit = world.admit(1);
        world.sleep(secs(seconds));
        let readings = readings(Dimension::Requests, 100, 39);
        world.engine.observe(
            world.now,
            UpstreamSignal {
                permit: permit.id,
                readings,
                processing: None,
            },
        );
        let outputs = world.outputs();
        assert!(outputs.is_empty(), "after {seconds} s: {outputs:?}");
    }
}

#[test]
fn an_answer_that_took_its_time_is_not_taken_for_traffic_of_others() {
    for seconds in [1, 5, 29, 31, 60, 600] {
        let mut world = World::new(plan(vec![limit(Dimension::Requests, 100)]));
        for _ in 0..60 {
            world.admit(1);
            world.sleep(Duration::from_millis(500));
        }
        let permit = world.admit(1);
        let readings = readings(Dimension::Requests, 100, 39);
        world.sleep(secs(seconds));
        let processing = Some(secs(seconds));
        world.engine.observe(
            world.now,
            UpstreamSignal {
                permit: permit.id,
                readings,
                processing,
            },
        );
        let outputs = world.outputs();
        assert!(
            outputs.is_empty(),
            "all 61 were ours, {seconds} s ago: {outputs:?}"
        );
    }
}

/// The provider's bucket was full when it answered, and stayed so until we emptied it.
#[test]
fn a_slow_answer_does_not_fill_a_bucket_that_was_emptied_since() {
    let mut world = World::new(plan(vec![bucket(Dimension::Requests, 100)]));
    let slow = world.admit(1);
    world.sleep(secs(25));
    let taken = admitted(&mut world);
    observe(&mut world, &slow, readings(Dimension::Requests, 100, 99));
    let taken = taken + admitted(&mut world);
    assert!(
        taken <= 100,
        "{taken} were taken of a bucket of 100 at one moment"
    );
}

/// The provider's bucket stays full, and gains nothing, until what is under way arrives.
#[test]
fn what_flows_into_a_full_bucket_before_our_requests_arrive_is_not_counted_on() {
    let mut world = World::new(plan(vec![bucket(Dimension::Tokens, 6_000)]));
    let slow = world.admit(1);
    world.sleep(secs(20));
    world.admit(3_000);
    observe(&mut world, &slow, readings(Dimension::Tokens, 6_000, 5_999));
    world.sleep(Duration::from_millis(900));
    let mut taken = 3_000;
    while let Decision::Admit(_) = world.submit(Demand::input_only(Tokens::new(10)), Duration::ZERO) {
        taken += 10;
    }
    assert!(taken <= 6_000, "{taken} may arrive at one moment");
}
