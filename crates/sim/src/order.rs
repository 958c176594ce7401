//! Who goes next, in figures: the order of the line next to other orders, tenants by their weights, what callers are told,
//! a greedy one, tiers of urgency, and what all of it costs.
//!
//! The engine is used by its public contract alone. Everything but the costs is computed in virtual time from the seed.

pub mod baseline;
pub mod costs;
pub mod course;
pub mod figures;
pub mod greedy;
pub mod mixture;
pub mod promise;
pub mod quota;
pub mod shares;
pub mod tiers;
pub mod trace;
pub mod window;

use tidegate_core::Priority;

use self::baseline::Rule;
use self::course::Who;
use self::mixture::Mixture;
use self::promise::Replay;

/// The loads of the comparison, and how many times as long each is measured: a line that does not grow needs a long look.
pub const LOADS: [(f64, u64); 2] = [(0.92, 4), (1.22, 1)];

/// Worlds of the comparison, each with a seed of its own.
pub const WORLDS: u64 = 6;

/// Prints every table, or only one. `minutes` is the length of the comparison under overload; the others last in
/// proportion.
pub fn print_tables(seed: u64, minutes: u64, only: Option<&str>) {
    let wants = |name: &str| only.is_none_or(|only| only == name);
    // Measured before the other tables leave memory behind that would be used again.
    let costs = wants("costs").then(|| costs::measure(seed));
    if wants("mixture") {
        print_mixture(seed, minutes);
    }
    if wants("shares") {
        print_shares(seed, minutes / 2);
    }
    if wants("promise") {
        print_promise(seed);
    }
    if wants("greedy") {
        print_greedy(seed);
    }
    if wants("tiers") {
        print_tiers(seed, minutes / 2);
    }
    if let Some(costs) = costs {
        println!("\nCosts, measured on this machine\n{costs}");
    }
}

fn print_mixture(seed: u64, minutes: u64) {
    for (load, times) in LOADS {
        let minutes = minutes * times;
        println!(
            "{}Requests of 500, 5,000 and 200,000 tokens, 1,000,000 a minute, offered {load} of what a rolling window of 60 s \
             with 1 s of margin carries, {WORLDS} times {minutes} minutes{}",
            if times == LOADS[0].1 { "" } else { "\n" },
            if load > 1.0 {
                " in which the line grows without end; waits of those who were served"
            } else {
                ""
            },
        );
        println!("{}", mixture::COLUMNS);
        for figures in mixture::compare(&Mixture {
            seed,
            worlds: WORLDS,
            minutes,
            load,
        }) {
            println!("{figures}");
        }
    }
}

fn print_shares(seed: u64, minutes: u64) {
    println!("\nTenants of the weights 1 to 10 with 30 requests waiting each, {minutes} minutes");
    println!("{:<68} {}", "scene", shares::COLUMNS);
    for who in [Who::Baseline(Rule::Fifo), Who::Baseline(Rule::Fair), Who::Ours] {
        for (name, scene) in [
            ("tokens bind", shares::Scene::ten(seed, minutes)),
            (
                "tokens bind, four times as long",
                shares::Scene::ten(seed, 4 * minutes),
            ),
            ("both limits bind", shares::Scene::two_limits(seed, minutes)),
            (
                "a newcomer, from minute 10 on",
                shares::Scene::newcomer(seed, minutes),
            ),
            (
                "back after 19 minutes, the next 2 minutes",
                shares::Scene::idle(seed),
            ),
        ] {
            let name = format!("{name}; {}", who.name());
            println!("{name:<68} {}", scene.run(who));
        }
    }
}

/// The replays of the table.
pub fn replays(seed: u64) -> Vec<Replay> {
    let mut all = Vec::new();
    for patience in [600, 60] {
        for tenants in [1, 4] {
            for load in [80, 95, 120] {
                all.push(Replay {
                    seed,
                    load,
                    tenants,
                    patience,
                });
            }
        }
    }
    all
}

fn print_promise(seed: u64) {
    let trace = trace::azure_code();
    println!(
        "\nWhat callers are told: {} requests of a coding assistant in {:.0} minutes",
        trace.len(),
        promise::minutes(&trace)
    );
    println!("patience s  tenants  load %  {}", promise::COLUMNS);
    for replay in replays(seed) {
        let Replay {
            load,
            tenants,
            patience,
            ..
        } = replay;
        println!("{patience:>10} {tenants:>8} {load:>7}  {}", replay.run(&trace));
    }
}

fn print_greedy(seed: u64) {
    println!(
        "\n5,000 calls at once next to one call a second, {} a minute; a slot is {:.3} s",
        greedy::LIMIT,
        greedy::SLOT
    );
    println!("{:<58} {}", "limiter", greedy::COLUMNS);
    for (name, scene) in greedy::Scene::all(seed) {
        println!("{name:<58} {}", scene.run());
    }
}

fn print_tiers(seed: u64, minutes: u64) {
    println!("\nTiers, 3,000 requests and 1,000,000 tokens a minute, {minutes} minutes");
    println!("{:<40} {}", "scene", tiers::COLUMNS);
    for (name, scene) in [
        ("people alone", tiers::Scene::quiet(seed, minutes)),
        (
            "a job in the batch tier",
            tiers::Scene::nightly(seed, minutes, Priority::Batch),
        ),
        (
            "a job in the low tier",
            tiers::Scene::nightly(seed, minutes, Priority::Low),
        ),
        (
            "high at 120 %, normal and low want all",
            tiers::Scene::overload(seed, minutes),
        ),
    ] {
        println!("{name:<40} {}", scene.run());
    }
}
