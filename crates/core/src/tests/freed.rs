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
