//! How many admissions a second one ledger in Redis gives, beside what `INCR` gives in the same run.
//!
//! One group with requests and tokens a minute, amounts so large that everybody is let in. Each call asks for one request and
//! gives back what an earlier one did not use; every connection is a replica of its own, and sees everybody's charges every
//! quarter of a second. The last row is a full quota: 16 requests of each of 8 replicas wait, and every call looks through
//! all of them.

#[path = "../tests/redis_server/mod.rs"]
mod redis_server;

use std::process::Command;
use std::time::Duration;

use redis_server::RedisServer;
use tidegate::store::wire::{self, Place};
use tidegate_core::Dimension;
use tidegate_core::ledger::{Ask, Call, Entry, LimitName, Reply, Terms};
use tokio::time::Instant;

const MINUTE: u64 = 60_000_000;
const DURATION: Duration = Duration::from_secs(3);

fn main() {
    let server = RedisServer::start();
    let alone = incr(&server, 1);
    println!(
        "{:<44} {:>10} {:>8} {:>10}",
        "", "a second", "of INCR", "µs a call"
    );
    row("INCR, 1 connection", alone, alone, None);
    row("INCR, 50 connections", incr(&server, 50), alone, None);
    for connections in [1, 8, 50] {
        let (rate, cost) = admissions(&server, connections, 1 << 45, 1);
        let name = format!("admissions, {connections} connections");
        row(&name, rate, alone, Some(cost));
    }
    let (rate, cost) = admissions(&server, 8, 1, 16);
    row("calls on a full quota, 8 connections", rate, alone, Some(cost));
}

fn row(name: &str, rate: f64, alone: f64, cost: Option<f64>) {
    let cost = cost.map(|cost| format!("{cost:.1}")).unwrap_or_default();
    println!("{name:<44} {rate:>10.0} {:>8.2} {cost:>10}", rate / alone);
}

/// Returns how many `INCR` a second there are.
fn incr(server: &RedisServer, connections: usize) -> f64 {
    let port = server.port().to_string();
    let count = if connections == 1 { "100000" } else { "300000" };
    let output = Command::new("redis-benchmark")
        .args([
            "-p",
            &port,
            "-t",
            "incr",
            "--csv",
            "-n",
            count,
            "-c",
            &connections.to_string(),
        ])
        .output()
        .expect("redis-benchmark runs: apt-get install redis-tools");
    let text = String::from_utf8_lossy(&output.stdout);
    let row = text
        .lines()
        .find(|line| line.starts_with("\"INCR\""))
        .expect("a row");
    let rate = row.split(',').nth(1).expect("a rate");
    rate.trim_matches('"').parse().expect("a number")
}

/// Returns how many calls a second there are, and what one costs the server, in microseconds.
fn admissions(server: &RedisServer, connections: u64, amount: u64, asks: usize) -> (f64, f64) {
    let place = Place::new("bench", &format!("{connections}-{asks}"));
    let mut replicas: Vec<Replica> = (1..=connections)
        .map(|id| Replica::new(server, &place, id, amount))
        .collect();
    // Until everybody knows everybody.
    for _ in 0..4 {
        for replica in &mut replicas {
            replica.call(0);
        }
    }
    let mut admin = server.connect();
    redis::cmd("CONFIG")
        .arg("RESETSTAT")
        .exec(&mut admin)
        .expect("it is reset");
    let began = Instant::now();
    let threads: Vec<_> = replicas
        .into_iter()
        .map(|mut replica| {
            std::thread::spawn(move || {
                let mut calls = 0_u32;
                while began.elapsed() < DURATION {
                    let reply = replica.call(asks);
                    assert!(asks > 1 || reply.granted == [true], "{reply:?}");
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    let calls: u32 = threads
        .into_iter()
        .map(|thread| thread.join().expect("it ends"))
        .sum();
    let took = began.elapsed().as_secs_f64();
    let info: String = redis::cmd("INFO")
        .arg("commandstats")
        .query(&mut admin)
        .expect("statistics");
    let cost = info
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:"))
        .and_then(|stats| {
            stats
                .split(',')
                .find_map(|part| part.strip_prefix("usec_per_call="))
        })
        .expect("the script ran");
    (f64::from(calls) / took, cost.parse().expect("a number"))
}

struct Replica {
    redis: redis::Connection,
    script: String,
    keys: Vec<String>,
    call: Call,
    /// The last answer, and when it came.
    answered: (u64, Instant),
    viewed: Instant,
}

impl Replica {
    fn new(server: &RedisServer, place: &Place, id: u64, amount: u64) -> Self {
        let client = redis::Client::open(server.tcp_url()).expect("an address");
        let mut redis = client.get_connection().expect("a connection");
        let load = redis::cmd("SCRIPT").arg("LOAD").arg(wire::SCRIPT).take();
        let limits = [Dimension::Requests, Dimension::Tokens].map(|dimension| Terms {
            name: LimitName::of(dimension, MINUTE),
            life: MINUTE + 1_500_000,
            width: MINUTE / 600,
            amount,
            since: 0,
            ends: 0,
            held: 0,
        });
        Self {
            script: load.query(&mut redis).expect("the script is well-formed"),
            redis,
            keys: place.keys(&limits),
            call: Call {
                replica: id * 4_096 + 1,
                next_epoch: 12_345,
                shares: 500_000,
                share_life: 2 * MINUTE,
                lease: MINUTE / 2,
                trusts_empty: true,
                limits: limits.to_vec(),
                ..Call::default()
            },
            answered: (0, Instant::now()),
            viewed: Instant::now(),
        }
    }

    fn call(&mut self, asks: usize) -> Reply {
        let (now, at) = self.answered;
        let call = &mut self.call;
        call.sequence += 1;
        call.time = if now == 0 {
            0
        } else {
            now + u64::try_from(at.elapsed().as_micros()).unwrap_or(0)
        };
        call.wants_view = self.viewed.elapsed() > Duration::from_millis(250);
        if call.wants_view {
            self.viewed = Instant::now();
        }
        let ask = Ask {
            tier: 1,
            tenant: call.replica << 20,
            cost: 1 << 12,
            service: 1 << 12,
            arrived: call.time,
            take: vec![1, 1_200],
            hold: Vec::new(),
        };
        call.asks = vec![ask; asks];
        call.entries = vec![Entry::Refund {
            limit: 1,
            stamp: now.saturating_sub(400_000),
            amount: 300,
        }];
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.script).arg(self.keys.len()).arg(&self.keys);
        command.arg(0).arg(wire::write_call(call));
        let numbers: Vec<u64> = command.query(&mut self.redis).expect("an answer");
        let (reply, _) = wire::read_reply(&numbers).expect("a reply");
        call.epoch = reply.epoch;
        call.facts = reply.facts_version;
        self.answered = (reply.now, Instant::now());
        reply
    }
}
