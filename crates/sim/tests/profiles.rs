//! The promise, provider by provider: nothing that a profile sends is refused, and the whole quota is used; limits that
//! were not told are found, and wrong ones corrected. Each seed runs twice and must agree.
//!
//! Profiles whose day binds run 20,000 minutes here, over a change of the clocks; `make sim` runs all of them so long.

use tidegate_sim::profiles::table::{LEARNED, LearnedRow, SURPRISE, SurpriseRow, TOLD, ToldRow, run_all};
use tidegate_sim::profiles::{Figures, Knowledge, Profile, Trial, catalog, surprises};

const SEED: u64 = 1;

/// Runs every trial twice, and returns what came of them.
fn run_twice(trials: Vec<(&Profile, Trial)>) -> Vec<Figures> {
    let twice: Vec<_> = trials.iter().chain(&trials).cloned().collect();
    let mut figures = run_all(&twice);
    let again = figures.split_off(trials.len());
    for ((profile, trial), (first, second)) in trials.iter().zip(figures.iter().zip(&again)) {
        assert_eq!(
            first, second,
            "{} with seed {} gave another history",
            profile.name, trial.seed
        );
    }
    figures
}

fn check_told(minutes: u64, is_chosen: impl Fn(&Profile) -> bool) {
    let profiles = catalog();
    let trials: Vec<_> = profiles
        .iter()
        .filter(|profile| is_chosen(profile))
        .map(|profile| (profile, Trial::told(SEED, minutes)))
        .collect();
    println!("{TOLD}");
    let figures = run_twice(trials.clone());
    for ((profile, _), figures) in trials.iter().zip(&figures) {
        println!("{}", ToldRow { profile, figures });
    }
    for ((profile, trial), figures) in trials.iter().zip(&figures) {
        let name = profile.name;
        assert_eq!(
            figures.refusals.all() + figures.spent,
            0,
            "{name} with seed {} was refused",
            trial.seed
        );
        let (limit, share) = figures.utilization();
        assert!(share * 100.0 >= profile.least, "{name} used {share} of {limit}");
        if profile.measures_peak {
            assert!(
                figures.peaks[1] <= 1_000,
                "{name} was {:?} thousandths full",
                figures.peaks
            );
        }
    }
}

fn binds_by_day(profile: &Profile) -> bool {
    profile.name.ends_with("a day")
}

#[test]
fn what_is_told_is_never_exceeded() {
    check_told(150, |profile| !binds_by_day(profile));
}

#[test]
fn days_are_never_exceeded() {
    check_told(20_000, binds_by_day);
}
