//! Output that is charged as it is generated: nothing that is sent is refused, the quota is used, and what is generated
//! stays within it, though requests ask for far more than they need.

use tidegate_core::Guarantee;
use tidegate_sim::output::{Figures, Rule, World, run};
use tidegate_sim::setting::Algorithms;

const MINUTES: u64 = 30;

fn check(world: World, rule: Rule, least: f64, peak: f64) -> Figures {
    let figures = run(&world, rule);
    println!("{world:?}, {rule:?}: {figures}");
    assert_eq!(figures.refused, 0, "seed {}: {figures:?}", world.seed);
    assert!(figures.utilization >= least, "seed {}: {figures:?}", world.seed);
    assert!(figures.peak <= peak, "seed {}: {figures:?}", world.seed);
    figures
}

#[test]
fn the_whole_limit_is_used_and_never_exceeded() {
    let rule = Rule::Projected(Guarantee::default());
    for (seed, enforced) in (1..).zip([Algorithms::Rolling, Algorithms::Fixed, Algorithms::TokenBucket]) {
        let world = World {
            enforced,
            ..World::usual(seed, MINUTES)
        };
        check(world, rule, 0.95, 1.0);
    }
    let world = World::usual(4, MINUTES);
    assert_eq!(
        run(&world, rule),
        run(&world, rule),
        "the same seed, the same history"
    );
}

#[test]
fn a_bucket_kept_as_one_is_used_up() {
    let world = World {
        enforced: Algorithms::TokenBucket,
        uneven: 40,
        silent: 50,
        ..World::usual(5, MINUTES)
    };
    check(world, Rule::Bucket(Guarantee::default()), 0.98, 1.0);
}

#[test]
fn calls_that_do_not_stream_are_counted_on_a_straight_line() {
    let world = World {
        silent: 100,
        ..World::usual(6, MINUTES)
    };
    check(world, Rule::Projected(Guarantee::default()), 0.94, 1.05);
}

#[test]
fn a_maximum_far_above_what_is_generated_costs_nothing() {
    let world = World {
        asked: 64_000,
        ..World::usual(7, MINUTES)
    };
    check(world, Rule::Projected(Guarantee::default()), 0.95, 1.0);
}

#[test]
fn holding_the_maximum_wastes_half() {
    let figures = check(World::usual(8, MINUTES), Rule::Hold(4_096), 0.4, 0.7);
    assert!(figures.utilization < 0.6, "{figures:?}");
    check(
        World::usual(8, MINUTES),
        Rule::Projected(Guarantee::Hard),
        0.85,
        1.0,
    );
}

/// Outputs become five times as long all at once: the limit is exceeded, once, by what those who run generate beyond expectation, and
/// nobody is sent to the provider until that is over.
#[test]
fn a_sudden_change_costs_waiting_and_no_refusal() {
    for silent in [0, 100] {
        let world = World {
            grows: 5.0,
            silent,
            ..World::usual(9, 2 * MINUTES)
        };
        check(world, Rule::Projected(Guarantee::default()), 0.9, 3.0);
    }
}
