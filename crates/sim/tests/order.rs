//! The promises about the order of the line, as figures of scenes in virtual time.

use tidegate_core::{Discipline, Priority};
use tidegate_sim::order::baseline::Rule;
use tidegate_sim::order::course::Who;
use tidegate_sim::order::mixture::{Figures, Mixture, compare};
use tidegate_sim::order::{LOADS, WORLDS, greedy, promise, replays, shares, tiers, trace};

const SEED: u64 = 1;
/// A window of the limit with its margin, in seconds.
const WINDOW: f64 = 61.0;
/// The engine's window gives back in steps of this many seconds.
const BUCKET: f64 = 0.1;

fn mixture(load: f64, worlds: u64, minutes: u64) -> Vec<Figures> {
    compare(&Mixture {
        seed: SEED,
        worlds,
        minutes,
        load,
    })
}

fn of(all: &[Figures], who: Who) -> &Figures {
    all.iter()
        .find(|figures| figures.who == who)
        .unwrap_or_else(|| panic!("no figures of {}", who.name()))
}

#[test]
fn below_the_limit_small_requests_do_not_wait_and_large_ones_wait_less_than_in_other_orders() {
    let all = mixture(LOADS[0].0, WORLDS, 240);
    let [small, _, large] = &of(&all, Who::Ours).waits;
    assert!(small.percentile(50) < BUCKET, "small: {small}");
    for rule in [Rule::Fifo, Rule::SmallestFirst, Rule::Fair] {
        let other = of(&all, Who::Baseline(rule));
        for percent in [50, 99] {
            let (ours, theirs) = (large.percentile(percent), other.waits[2].percentile(percent));
            assert!(
                ours < theirs,
                "large, p{percent}: {ours} s, {}: {theirs} s",
                other.who.name()
            );
        }
    }
}

#[test]
fn under_overload_nothing_uses_the_quota_better_and_nobody_starves() {
    let all = mixture(LOADS[1].0, WORLDS, 60);
    let ours = of(&all, Who::Ours);
    for other in all.iter().filter(|other| other.who != Who::Ours) {
        let (used, theirs) = (ours.used, other.used);
        assert!(used >= theirs, "{used}, {}: {theirs}", other.who.name());
    }
    // Small and middle requests ask for less than their shares, so all of them are served; of the others what is left.
    assert!(ours.unserved[0] <= 0.03, "{ours}");
    assert!(ours.unserved[1] <= 0.03, "{ours}");
    assert!(ours.unserved[2] <= 0.50, "{ours}");
    for pause in ours.pause {
        assert!(pause <= 2.0 * WINDOW, "{ours}");
    }
}

#[test]
fn no_order_takes_more_than_the_window_carries() {
    for (load, minutes) in [(LOADS[0].0, 60), (LOADS[1].0, 60)] {
        for figures in mixture(load, 1, minutes) {
            // A full window more may fall into what is measured.
            assert!(figures.used <= 61.0 / 60.0, "{figures}");
        }
    }
}

#[test]
fn equal_seeds_give_equal_figures() {
    let [one, other] = [(), ()].map(|()| mixture(LOADS[1].0, 1, 20));
    for (one, other) in one.iter().zip(&other) {
        assert_eq!(one.to_string(), other.to_string());
    }
}

/// Long enough for the last request of the lightest tenant to matter less than what is allowed: in half
/// an hour exact fair queueing is off by 2.8 % with some seeds.
const LONG: u64 = 120;

/// `apart` is the largest difference of service over weight of any two, over the largest cost over weight.
fn shared_by_weight(who: Who, scene: &shares::Scene, apart: f64) {
    let figures = scene.run(who);
    let each: Vec<String> = figures
        .shares
        .iter()
        .map(|share| format!("{:+.2} %", share.error() * 100.0))
        .collect();
    assert!(
        figures.error() <= 0.02,
        "{}: {figures}\n{}",
        who.name(),
        each.join(", ")
    );
    assert!(figures.apart <= apart, "{}: {figures}", who.name());
}

#[test]
fn the_scenes_are_sound_a_virtual_token_counter_shares_by_weight() {
    let who = Who::Baseline(Rule::Fair);
    shared_by_weight(who, &shares::Scene::ten(SEED, LONG), 2.0);
    shared_by_weight(who, &shares::Scene::two_limits(SEED, LONG), 2.0);
}

#[test]
fn backlogged_tenants_share_by_weight() {
    shared_by_weight(Who::Ours, &shares::Scene::ten(SEED, LONG), 2.0);
}

#[test]
fn backlogged_tenants_share_by_weight_where_each_is_bound_by_another_limit() {
    // Those whom one limit binds pass heads that wait for the other; in the long run they get no more for it.
    shared_by_weight(Who::Ours, &shares::Scene::two_limits(SEED, LONG), 10.0);
}

#[test]
fn a_newcomer_is_served_within_a_window_and_then_gets_its_share() {
    let figures = shares::Scene::newcomer(SEED, 30).run(Who::Ours);
    let newcomer = figures.shares[10];
    let first = newcomer.first.unwrap_or(f64::INFINITY);
    assert!(first <= WINDOW, "{figures}");
    assert!(newcomer.error().abs() <= 0.02, "{figures}");
    assert!(figures.apart <= 2.0, "{figures}");
}

#[test]
fn an_idle_tenant_earns_nothing() {
    let figures = shares::Scene::idle(SEED).run(Who::Ours);
    let back = figures.shares[10];
    // Two minutes are few requests, so one of them more or less counts.
    assert!(back.got <= back.due + figures.grain, "{figures}");
    // Nor does it lose anything.
    assert!(back.got >= back.due - figures.grain, "{figures}");
}

#[test]
fn waits_are_as_long_as_they_were_told_to_be() {
    let trace = trace::azure_code();
    let mut wrong = Vec::new();
    for replay in replays(SEED) {
        // What four tenants ask of each other in the next minutes is not in the trace's past: a burst of one takes from what
        // the others were told. With the patience of the SDKs the error stays near the bound; with a minute's it does not.
        let most = match (replay.tenants, replay.patience, replay.load) {
            (1, ..) => 1.0,
            (_, 600, ..100) => 1.2,
            _ => continue,
        };
        let figures = replay.run(&trace);
        if figures.relative(90) > most {
            wrong.push(format!("{replay:?}: {figures}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", promise::COLUMNS, wrong.join("\n"));
}

#[test]
fn who_comes_back_when_told_is_let_in() {
    let trace = trace::azure_code();
    let mut wrong = Vec::new();
    for replay in replays(SEED) {
        // Whoever gives up after a minute has less time than the window takes to turn once.
        let least = match (replay.patience, replay.tenants) {
            (600, _) => 0.95,
            (_, 1) => 0.9,
            _ => 0.8,
        };
        let figures = replay.run(&trace);
        if figures.returned() < least {
            wrong.push(format!("{replay:?}: {figures}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", promise::COLUMNS, wrong.join("\n"));
}

#[test]
fn five_thousand_calls_at_once_do_not_hold_up_somebody_polite() {
    let usual = greedy::Scene::usual(SEED);
    for discipline in [Discipline::Rolling, Discipline::TokenBucket] {
        for history in [0, 1] {
            // What is in use when somebody first comes is in use: one window at most.
            let most = match (discipline, history) {
                (Discipline::Rolling, 0) => 62.0,
                _ => 1.0,
            };
            let figures = greedy::Scene {
                discipline,
                history,
                ..usual
            }
            .run();
            let case = format!("{discipline:?}, {history} minutes of history: {figures}");
            assert!(figures.waits.percentile(50) <= greedy::SLOT + BUCKET, "{case}");
            assert!(figures.waits.percentile(99) <= most, "{case}");
            // Eleven minutes are what both need of the limit together.
            assert!(figures.done().is_some_and(|done| done <= 12.0), "{case}");
        }
    }
}

#[test]
fn nobody_alone_is_held_back() {
    let alone = greedy::Scene {
        is_shared: false,
        ..greedy::Scene::usual(SEED)
    };
    assert!(alone.run().waits.longest() == 0.0);
}

#[test]
fn a_nightly_job_takes_what_people_leave() {
    for (job, p99) in [(Priority::Batch, 1.0), (Priority::Low, 5.0)] {
        let figures = tiers::Scene::nightly(SEED, 30, job).run();
        let chat = &figures.served[0].waits;
        assert!(chat.percentile(99) <= p99, "{}: {figures}", job.name());
        assert!(figures.used() >= 0.95, "{}: {figures}", job.name());
    }
}

#[test]
fn an_overloaded_tier_leaves_the_others_what_they_are_guaranteed() {
    let figures = tiers::Scene::overload(SEED, 30).run();
    for index in [1, 2] {
        // The share is paid in arrears and in whole requests.
        assert!(figures.share(index) >= 0.05 * 0.98, "{figures}");
        assert!(figures.share(index) <= 0.07, "{figures}");
    }
    assert!(figures.used() >= 0.95, "{figures}");
}
