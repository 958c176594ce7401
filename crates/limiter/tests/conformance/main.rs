//! The script inside Redis and the ledger that defines it, call by call, in virtual time.
//!
//! A world draws replicas, limits and everything that happens from a seed, and gives each call to both. A failure prints the
//! seed and the call. `TIDEGATE_SEEDS=100..200` runs other seeds, `TIDEGATE_STEPS` longer traces.

#[path = "../redis_server/mod.rs"]
mod redis_server;

mod both;
mod cases;
mod escrow;
mod world;

use both::Both;
use redis_server::RedisServer;
use tidegate_core::ledger::{Denial, Status};
use world::{Kind, Tally, World};

fn seeds() -> std::ops::Range<u64> {
    let told = std::env::var("TIDEGATE_SEEDS").unwrap_or_else(|_| "0..12".to_owned());
    let (from, to) = told.split_once("..").expect("TIDEGATE_SEEDS=from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

fn steps() -> u64 {
    let told = std::env::var("TIDEGATE_STEPS").unwrap_or_else(|_| "1500".to_owned());
    told.parse().expect("a number")
}

fn run(server: &RedisServer, kind: Kind, seed: u64) -> Tally {
    let mut both = Both::new(server, &format!("{kind:?}-{seed}"));
    // A wide call is as much work as many others.
    let steps = if kind == Kind::Wide { steps() / 4 } else { steps() };
    let mut tally = World::new(kind, seed).run(&mut both, steps);
    tally.common = both.common;
    tally
}

/// Runs the seeds of a kind, and sees to it that what the kind is about did happen.
fn run_all(kind: Kind, statuses: &[Status], denials: &[Denial]) -> Tally {
    let server = RedisServer::start();
    let mut tally = Tally::default();
    for seed in seeds() {
        tally.add(&run(&server, kind, seed));
    }
    let at = |number: u64| usize::try_from(number).expect("it is small");
    assert!(tally.granted > 0 && tally.views > 0, "{tally:?}");
    for status in statuses {
        assert!(tally.statuses[at(status.number())] > 0, "{status:?}: {tally:?}");
    }
    for denial in denials {
        assert!(tally.denials[at(denial.number())] > 0, "{denial:?}: {tally:?}");
    }
    println!("{kind:?}: {tally:?}");
    tally
}

#[test]
fn a_few_replicas_with_a_few_limits() {
    let tally = run_all(
        Kind::Plain,
        &[Status::Open, Status::Learning, Status::Lost, Status::Stale],
        &[Denial::Limit, Denial::Pause, Denial::Learning],
    );
    assert!(tally.facts > 0 && tally.doubted > 0, "{tally:?}");
}

#[test]
fn one_after_the_other_and_all_let_in() {
    let tally = run_all(Kind::Calm, &[Status::Open], &[]);
    // Many of these are answered by the part of the script for common calls.
    let calls: u64 = tally.statuses.iter().sum();
    assert!(tally.common * 4 > calls, "{tally:?}");
}

#[test]
fn many_limits_and_many_requests_a_call() {
    run_all(Kind::Wide, &[Status::Open], &[Denial::Limit, Denial::Pause]);
}

#[test]
fn a_full_quota_over_which_replicas_compete() {
    let tally = run_all(
        Kind::Full,
        &[Status::Open],
        &[Denial::Limit, Denial::Line, Denial::Pause],
    );
    assert!(tally.wakenings > 0, "{tally:?}");
}

#[test]
fn writes_are_lost_and_old_ones_come_back() {
    run_all(
        Kind::Lossy,
        &[Status::Open, Status::Learning, Status::Lost, Status::Stale],
        &[Denial::Limit, Denial::Learning],
    );
}

#[test]
fn a_new_ledger_learns_from_what_the_provider_says() {
    let tally = run_all(
        Kind::Fresh,
        &[Status::Open, Status::Learning],
        &[Denial::Learning],
    );
    assert!(tally.tried > 0, "{tally:?}");
}

#[test]
fn amounts_as_large_as_they_may_be() {
    run_all(Kind::Huge, &[Status::Open], &[Denial::Limit]);
}

#[test]
fn the_same_trace_has_the_same_answers() {
    let server = RedisServer::start();
    let tallies: Vec<Tally> = (0..2)
        .map(|_| {
            let mut both = Both::new(&server, "same");
            both.flush();
            World::new(Kind::Full, 7).run(&mut both, steps())
        })
        .collect();
    assert_eq!(tallies[0], tallies[1]);
}
