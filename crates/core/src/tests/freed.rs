//! What holds a group up, and what frees it.

use super::scenarios::secs;
use super::*;
use crate::{
    Amount, Cause, Failure, Outcome, RateLimited, Reading, Readings, RefusalReason, UpstreamSignal, Usage,
};

fn observe(world: &mut World, permit: &Permit, dimension: Dimension, reading: Reading) {
    let mut readings = Readings::default();
    readings.push(dimension, reading);
    let signal = UpstreamSignal {
        permit: permit.id,
        readings,
        processing: None,
    };
    world.engine.observe(world.now, signal);
}

fn windows(world: &mut World) -> Vec<(Dimension, u64)> {
    let snapshot = world.engine.snapshot(world.now);
    let limits = snapshot.quotas[0].limits.iter();
    limits
        .map(|limit| (limit.limit.dimension, limit.limit.window.as_secs()))
        .collect()
}

fn permits(outputs: Vec<Output>) -> impl Iterator<Item = Permit> {
    outputs.into_iter().filter_map(|output| match output {
        Output::Admit { permit, .. } => Some(permit),
        _ => None,
    })
}

fn settled(world: &mut World, permit: &Permit, input: u64) {
    let usage = Usage {
        input: Some(Tokens::new(input)),
        output: Some(Tokens::new(1)),
        ..Usage::default()
    };
    world
        .engine
        .settle(world.now, permit.id, Outcome::Completed(usage));
}

/// A wait is told in whole milliseconds, or belongs to a window that begins anew: numbers that say otherwise than the
/// text make no limit of hours.
#[test]
fn numbers_that_contradict_the_named_window_teach_no_window() {
    for (limit_told, used, requested, wait) in [
        // 0.4 ms, rounded up.
        (30_000_000, 29_999_900, 300, Duration::from_millis(1)),
        // A window that begins anew in half a minute.
        (30_000_000, 29_999_000, 2_000, secs(30)),
    ] {
        let mut world = World::new(plan(vec![limit(Dimension::Tokens, limit_told)]));
        let permit = world.admit(requested);
        let refused = RateLimited {
            dimension: Some(Dimension::Tokens),
            named_window: Some(MINUTE),
            limit: Some(Amount::new(limit_told)),
            used: Some(Amount::new(used)),
            requested: Some(Amount::new(requested)),
            retry_after: Some(wait),
            ..RateLimited::default()
        };
        world
            .engine
            .retry(world.now, permit.id, Failure::RateLimited(refused));
        assert_eq!(windows(&mut world), [(Dimension::Tokens, 60)], "{wait:?}");
    }
}

/// The reset of a fixed window looks like a bucket of a day now and then.
#[test]
fn two_chance_numbers_with_others_between_make_no_limit_of_a_day() {
    let mut world = World::new(plan(vec![limit(Dimension::Tokens, 60_000)]));
    for (used, reset, window) in [
        (41, 59_040, Some(secs(86_400))),
        (541, 40_000, None),
        (1_041, 20_000, None),
        (41, 59_040, Some(secs(86_400))),
    ] {
        let permit = world.admit(500);
        let reading = Reading {
            limit: Some(Amount::new(60_000)),
            remaining: Some(Amount::new(60_000 - used)),
            reset: Some(Duration::from_millis(reset)),
            window,
            ..Reading::default()
        };
        observe(&mut world, &permit, Dimension::Tokens, reading);
        world.sleep(secs(20));
    }
    assert_eq!(windows(&mut world), [(Dimension::Tokens, 60)]);
}

/// Half a minute in which everything is refused.
#[test]
fn a_short_outage_does_not_take_the_pace_to_nothing() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 1_000_000)]));
    let mut running: Vec<(Timestamp, Permit)> = Vec::new();
    let mut served = Vec::new();
    let (began, ends) = (START + secs(20), START + secs(50));
    while world.now < START + secs(170) {
        if let Decision::Admit(permit) = world.ask(1) {
            running.push((world.now, permit));
        }
        for output in world.sleep(Duration::from_millis(100)) {
            if let Output::Admit { permit, .. } = output {
                running.push((world.now, permit));
            }
        }
        let now = world.now;
        let (due, rest): (Vec<_>, Vec<_>) = running
            .into_iter()
            .partition(|(sent, _)| now.since(*sent) >= Duration::from_millis(300));
        running = rest;
        for (sent, permit) in due {
            if (began..ends).contains(&sent) {
                let refused = RateLimited {
                    cause: Cause::Congestion,
                    ..RateLimited::default()
                };
                world.engine.retry(now, permit.id, Failure::RateLimited(refused));
            } else {
                world
                    .engine
                    .settle(now, permit.id, Outcome::Completed(Usage::default()));
                served.push(now);
            }
        }
        for output in world.outputs() {
            if let Output::Admit { permit, .. } = output {
                running.push((world.now, permit));
            }
        }
    }
    let last = served.iter().filter(|at| **at >= START + secs(110)).count();
    assert!(last >= 360, "of ten a second, {last} in the last minute");
}

/// A correction is no certain need: what fits as it was estimated is never refused for good.
#[test]
fn estimates_corrected_upwards_do_not_lock_out() {
    let charge = ChargeModel {
        unset_output: 0,
        ..ChargeModel::SETTLED
    };
    let mut world = World::new(plan_of(vec![limit(Dimension::Tokens, 10_000)], charge));
    for _ in 0..60 {
        let permit = world.admit(100);
        settled(&mut world, &permit, 1_000);
        world.sleep(secs(30));
    }
    world.sleep(secs(120));
    world.admit(5_000);
}

/// What others might use is no reason to hold up one that would be alone.
#[test]
fn one_that_may_fill_the_window_is_woken_while_others_use_it_too() {
    let mut world = World::new(plan_of(
        vec![limit(Dimension::OutputTokens, 1_000)],
        ChargeModel::ANTHROPIC,
    ));
    let demand = Demand {
        max_output: Some(Tokens::new(1_000)),
        generates: true,
        ..Demand::input_only(Tokens::new(10))
    };
    let Decision::Admit(permit) = world.submit(demand, secs(600)) else {
        panic!("nothing is in use")
    };
    for remaining in [1_000, 500] {
        world.sleep(secs(1));
        let reading = Reading {
            limit: Some(Amount::new(1_000)),
            remaining: Some(Amount::new(remaining)),
            ..Reading::default()
        };
        observe(&mut world, &permit, Dimension::OutputTokens, reading);
        settled(&mut world, &permit, 10);
        if remaining == 1_000 {
            break;
        }
    }
    // Another one tells of others.
    let small = Demand {
        max_output: Some(Tokens::new(10)),
        ..demand
    };
    let Decision::Admit(permit) = world.submit(small, secs(600)) else {
        panic!("almost nothing is in use")
    };
    world.sleep(secs(1));
    let reading = Reading {
        limit: Some(Amount::new(1_000)),
        remaining: Some(Amount::new(500)),
        ..Reading::default()
    };
    observe(&mut world, &permit, Dimension::OutputTokens, reading);
    settled(&mut world, &permit, 10);
    let began = world.now;
    let Decision::Wait(_) = world.submit(demand, secs(600)) else {
        panic!("others use half of it")
    };
    let mut admitted = false;
    while !admitted && world.engine.poll_timeout().is_some() {
        admitted = world
            .step()
            .iter()
            .any(|output| matches!(output, Output::Admit { .. }));
        if world.now.since(began) > secs(590) {
            break;
        }
    }
    assert!(
        admitted && world.now.since(began) < secs(70),
        "{:?}",
        world.now.since(began)
    );
}

/// Others used some of a day's limit in the morning; nobody has asked since.
#[test]
fn what_others_might_use_of_a_day_holds_nobody_up_for_hours() {
    let day = Limit::rolling(Dimension::Requests, secs(86_400), amount(1_000));
    let mut world = World::new(plan(vec![day]));
    for (left, count) in [(999, 1), (550, 50), (151, 299)] {
        let mut last = None;
        for _ in 0..count {
            let permit = world.admit(1);
            if let Some(last) = last.replace(permit) {
                settled(&mut world, &last, 1);
            }
        }
        let permit = last.expect("some were sent");
        world.sleep(secs(1));
        let reading = Reading {
            limit: Some(Amount::new(1_000)),
            remaining: Some(Amount::new(left)),
            ..Reading::default()
        };
        observe(&mut world, &permit, Dimension::Requests, reading);
        settled(&mut world, &permit, 1);
        world.sleep(secs(600));
    }
    world.sleep(secs(11 * 3_600));
    let decision = world.submit(Demand::REQUEST_ONLY, secs(60));
    assert!(!matches!(decision, Decision::Refuse(_)), "{decision:?}");
}

/// A limit told once that is smaller than any request.
#[test]
fn a_tiny_limit_that_a_header_told_is_asked_about_again() {
    let mut world = World::new(plan(vec![limit(Dimension::Tokens, 60_000)]));
    let permit = world.admit(500);
    let reading = Reading {
        limit: Some(Amount::new(1)),
        ..Reading::default()
    };
    observe(&mut world, &permit, Dimension::Tokens, reading);
    settled(&mut world, &permit, 500);
    let Decision::Refuse(refusal) = world.ask(500) else {
        panic!("it is larger than the limit")
    };
    assert_eq!(refusal.reason, RefusalReason::NeverFits);
    world.sleep(secs(3_600));
    let permit = world.admit(500);
    let reading = Reading {
        limit: Some(Amount::new(60_000)),
        ..Reading::default()
    };
    observe(&mut world, &permit, Dimension::Tokens, reading);
    world.admit(500);
}

/// Fewer were accepted for a while, after it was found often that one more is too many.
#[test]
fn a_number_in_flight_that_fell_is_found_again() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 100_000_000)]));
    let refused = || {
        Failure::RateLimited(RateLimited {
            cause: Cause::Concurrency,
            ..RateLimited::default()
        })
    };
    let mut most = 20;
    let mut running: Vec<Permit> = Vec::new();
    let mut old = 0;
    for round in 0..30_000 {
        match round {
            20_000 => most = 4,
            20_100 => most = 20,
            _ => {}
        }
        while running.len() < 64 {
            match world.ask(1) {
                Decision::Admit(permit) => running.push(permit),
                _ => break,
            }
        }
        running.extend(permits(world.outputs()));
        running.extend(permits(world.sleep(Duration::from_millis(10))));
        // Those are refused that were sent when enough were running.
        let mut last = running.len().saturating_sub(most).min(running.len() - old);
        while last > 0 {
            last -= 1;
            let permit = running.pop().expect("there are more");
            world.engine.retry(world.now, permit.id, refused());
        }
        old = running.len();
        if !running.is_empty() {
            let ends = running.remove(0);
            settled(&mut world, &ends, 1);
            old -= 1;
        }
        running.extend(permits(world.sleep(Duration::from_millis(10))));
    }
    assert!(running.len() >= 16, "{} of 20", running.len());
}
