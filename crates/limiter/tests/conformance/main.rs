//! The script inside Redis and the ledger that defines it, call by call, in virtual time.
//!
//! A world draws replicas, limits and everything that happens from a seed, and gives each call to both. A failure prints the
//! seed and the call. `TIDEGATE_SEEDS=100..200` runs other seeds, `TIDEGATE_STEPS` longer traces.

#[path = "../redis_server/mod.rs"]
mod redis_server;

mod both;
mod cases;
mod world;

use both::Both;
use redis_server::RedisServer;
use world::{Kind, World};

/// Seeds that once found a difference.
const REGRESSIONS: &[(Kind, u64)] = &[];

fn seeds() -> std::ops::Range<u64> {
    let told = std::env::var("TIDEGATE_SEEDS").unwrap_or_else(|_| "0..12".to_owned());
    let (from, to) = told.split_once("..").expect("TIDEGATE_SEEDS=from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

fn steps() -> u64 {
    let told = std::env::var("TIDEGATE_STEPS").unwrap_or_else(|_| "1500".to_owned());
    told.parse().expect("a number")
}

fn run(server: &RedisServer, kind: Kind, seed: u64) -> u64 {
    let mut both = Both::new(server, &format!("{kind:?}-{seed}"));
    World::new(kind, seed).run(&mut both, steps())
}

fn run_all(kind: Kind) {
    let server = RedisServer::start();
    for seed in seeds() {
        run(&server, kind, seed);
    }
}

#[test]
fn a_few_replicas_with_a_few_limits() {
    run_all(Kind::Plain);
}

#[test]
fn many_limits_and_many_requests_a_call() {
    run_all(Kind::Wide);
}

#[test]
fn a_full_quota_over_which_replicas_compete() {
    run_all(Kind::Full);
}

#[test]
fn writes_are_lost_and_old_ones_come_back() {
    run_all(Kind::Lossy);
}

#[test]
fn a_new_ledger_learns_from_what_the_provider_says() {
    run_all(Kind::Fresh);
}

#[test]
fn amounts_as_large_as_they_may_be() {
    run_all(Kind::Huge);
}

#[test]
fn the_same_trace_has_the_same_answers() {
    let server = RedisServer::start();
    let digests: Vec<u64> = (0..2)
        .map(|_| {
            let mut both = Both::new(&server, "same");
            both.flush();
            World::new(Kind::Full, 7).run(&mut both, steps())
        })
        .collect();
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn differences_found_before_stay_away() {
    let server = RedisServer::start();
    for (kind, seed) in REGRESSIONS {
        run(&server, *kind, *seed);
    }
}
