//! The promise, provider by provider: nothing that a profile sends is refused, and the whole quota is used; limits that
//! were not told are found, and wrong ones corrected. Each seed runs twice and must agree.
//!
//! Profiles whose day binds run 20,000 minutes here, over a change of the clocks; `make sim` runs all of them so long.

use tidegate_core::provider::Dialect;
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
    check_told(100, |profile| !binds_by_day(profile));
}

#[test]
fn days_are_never_exceeded() {
    check_told(20_000, binds_by_day);
}

/// Whether the provider's headers or refusals name its limits; the others can only be tried.
fn names_limits(profile: &Profile) -> bool {
    matches!(
        profile.dialect,
        Dialect::OpenAi | Dialect::Azure | Dialect::Anthropic | Dialect::Groq | Dialect::Mistral
    )
}

fn learn(knowledge: Knowledge, check: impl Fn(&Profile, &Figures)) {
    let profiles = catalog();
    let trial = |profile| {
        let trial = Trial {
            knowledge,
            ..Trial::told(SEED, 30)
        };
        (profile, trial)
    };
    let trials: Vec<_> = profiles.iter().map(trial).collect();
    println!("{LEARNED}");
    let figures = run_twice(trials.clone());
    for ((profile, _), figures) in trials.iter().zip(&figures) {
        let name = profile.name;
        println!("{}", LearnedRow { name, figures });
    }
    for ((profile, _), figures) in trials.iter().zip(&figures) {
        check(profile, figures);
    }
}

#[test]
fn limits_that_nobody_tells_are_found_within_ten_minutes() {
    learn(Knowledge::Unknown, |profile, figures| {
        let name = profile.name;
        // Its limit on input counts what output is reserved too, so that two limits seem to refuse at once.
        if name != "Bedrock mantle" {
            let settled = figures.settled();
            assert!(
                settled.is_some_and(|minute| minute <= 10),
                "{name} settled at {settled:?}"
            );
        }
        // One header shows one limit on requests: the other is met by all that are under way.
        let most = if names_limits(profile) { 3 } else { 20 };
        assert!(
            figures.later <= most,
            "{name} was refused {} times while it learned",
            figures.later
        );
    });
}

#[test]
fn limits_told_twice_as_high_are_corrected_at_once() {
    learn(Knowledge::Doubled, |profile, figures| {
        let most = if names_limits(profile) { 1 } else { 30 };
        let name = profile.name;
        assert!(
            figures.later <= most,
            "{name} was refused {} times more",
            figures.later
        );
    });
}

#[test]
fn limits_that_move_or_hide_are_met_once() {
    let surprises = surprises();
    let trial = |changes: &[_]| Trial {
        changes: changes.to_vec(),
        ..Trial::told(SEED, 70)
    };
    let trials = surprises
        .iter()
        .map(|surprise| (&surprise.profile, trial(&surprise.changes)));
    println!("{SURPRISE}");
    for (surprise, figures) in surprises.iter().zip(&run_twice(trials.collect())) {
        let name = surprise.name;
        println!("{}", SurpriseRow { name, figures });
        assert_eq!(figures.after_change[1], 0, "{name} was refused after it was told");
        assert!(
            figures.utilization_from(40, 60) >= 0.9,
            "{name} was used too little"
        );
        if surprise.changes.is_empty() {
            // Those under way at first, and one more tried now and then.
            let late = figures.refusals.all() - figures.early;
            assert!(
                figures.early <= 100 && late <= 10,
                "{name}: {} and {late}",
                figures.early
            );
        }
    }
}
