//! The promise, in virtual time: over every enforcement algorithm that providers use, nothing that is sent is refused,
//! and the whole quota is used. More than 100,000 minutes, each seed twice.

use tidegate_sim::report::{HEADING, Row, tally};
use tidegate_sim::setting::{Algorithms, Setting};
use tidegate_sim::{Discipline, Tally};

const SEEDS: std::ops::Range<u64> = 1_000..1_630;
const MINUTES: u64 = 40;

fn check(discipline: Discipline, algorithm: Algorithms, least: f64) -> Tally {
    let drawn = || SEEDS.map(|seed| Setting::draw(seed, MINUTES, algorithm));
    let safety = tally(drawn(), discipline);
    let production = tally(
        (1..=5).map(|seed| Setting::production(seed, MINUTES, algorithm)),
        discipline,
    );
    println!(
        "{HEADING}\n{}",
        Row {
            discipline,
            algorithm,
            safety: &safety,
            production: &production
        }
    );
    assert_eq!(safety.refused, 0, "seed {:?} was refused", safety.first_refused);
    assert_eq!(
        production.refused, 0,
        "production seed {:?} was refused",
        production.first_refused
    );
    let used = production.mean_utilization();
    assert!(used >= least, "{used} of the quota was used");
    assert_eq!(
        safety.digest,
        tally(drawn(), discipline).digest,
        "the same seeds gave another history"
    );
    safety
}

#[test]
fn rolling_windows_are_never_exceeded() {
    let tally = check(Discipline::Tidegate, Algorithms::Rolling, 0.98);
    assert!(tally.minutes >= 25_000);
}

#[test]
fn token_buckets_are_never_overdrawn() {
    check(Discipline::Tidegate, Algorithms::TokenBucket, 0.98);
}

#[test]
fn fixed_windows_of_any_phase_are_never_exceeded() {
    check(Discipline::Tidegate, Algorithms::Fixed, 0.98);
}

#[test]
fn ten_second_slices_are_never_exceeded() {
    check(Discipline::Tidegate, Algorithms::Slices, 0.96);
}

#[test]
fn the_token_bucket_discipline_fills_a_token_bucket() {
    check(Discipline::TidegateBucket, Algorithms::TokenBucket, 0.99);
}

/// Worlds that were refused once, with what was wrong.
#[test]
fn worlds_that_were_refused_once_are_not_again() {
    let worlds = [
        // A header of a bucket that had been full meanwhile was believed to have kept what flowed in.
        (Discipline::TidegateBucket, Algorithms::TokenBucket, 50, 60),
    ];
    for (discipline, algorithm, seed, minutes) in worlds {
        let outcome = tidegate_sim::run(&Setting::draw(seed, minutes, algorithm), discipline);
        assert_eq!(
            outcome.refused,
            0,
            "seed {seed} of {} against {}",
            discipline.name(),
            algorithm.name()
        );
    }
}
