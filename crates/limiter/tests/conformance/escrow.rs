//! The script that keeps the books of tenants' and routes' limits, and its definition, call by call.

use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use redis::ConnectionLike;
use tidegate::store::wire::escrow;
use tidegate_core::escrow::{AMOUNT_MAX, Books, Call, Claim, Claims};
use tidegate_core::ledger::LimitName;
use tidegate_core::{Dimension, Owner, RouteId, TenantId};

use super::redis_server::RedisServer;
use super::{seeds, steps};

const SECOND: u64 = 1_000_000;

/// How often what happened.
#[derive(Debug, Default)]
struct Tally {
    granted: u64,
    pressed: u64,
    stale: u64,
    woken: u64,
    repeated: u64,
}

struct World {
    rng: Pcg64Mcg,
    time: u64,
    books: Books,
    redis: redis::Connection,
    script: String,
    owners: Vec<(Owner, Vec<(LimitName, u64)>)>,
    /// The latest call of each replica, and the books that it knows.
    calls: Vec<Call>,
    epochs: Vec<Vec<u64>>,
    tally: Tally,
}

impl World {
    fn new(server: &RedisServer, seed: u64) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let mut redis = server.connect();
        let script = redis::cmd("SCRIPT").arg("LOAD").arg(escrow::SCRIPT).take();
        let script = script.query(&mut redis).expect("the script is well-formed");
        redis::cmd("FLUSHALL")
            .query::<()>(&mut redis)
            .expect("the server obeys");
        let owners = (0..rng.random_range(1..=6_u64))
            .map(|number| {
                let owner = match number % 3 {
                    0 => Owner::Route(RouteId::from_value(rng.next_u64())),
                    _ => Owner::Tenant(TenantId::from_value(rng.next_u64())),
                };
                let limits = (0..rng.random_range(1..=3_u64)).map(|at| {
                    let name = LimitName::of(Dimension::ALL[at as usize], 60 * SECOND * (number + 1));
                    let amount = match rng.random_range(0..4) {
                        0 => 1,
                        1 => rng.random_range(1..20),
                        2 => rng.random_range(1..100_000),
                        _ => rng.random_range(1..=AMOUNT_MAX),
                    };
                    (name, amount)
                });
                (owner, limits.collect())
            })
            .collect();
        let replicas = rng.random_range(1..=6_u64);
        let numbers: Vec<u64> = (0..replicas).map(|_| rng.random_range(1..1 << 36)).collect();
        let call = |replica: &u64| Call {
            replica: *replica,
            ..Call::default()
        };
        Self {
            time: 1_790_000_000 * SECOND + rng.random_range(0..3_600 * SECOND),
            books: Books::new(),
            redis,
            script,
            owners,
            calls: numbers.iter().map(call).collect(),
            epochs: vec![vec![0; 6]; numbers.len()],
            tally: Tally::default(),
            rng,
        }
    }

    /// Draws an amount of up to about as much as there is.
    fn amount(&mut self, most: u64) -> u64 {
        match self.rng.random_range(0..6) {
            0 | 1 => 0,
            2 => 1,
            3 => self.rng.random_range(0..=most),
            _ => self.rng.random_range(0..=most / 4 + 1),
        }
        .min(AMOUNT_MAX)
    }

    fn draw(&mut self, at: usize) -> Call {
        let before = &self.calls[at];
        let (replica, sequence) = (before.replica, before.sequence);
        let (trusts_empty, leaves) = (self.rng.random_bool(0.3), self.rng.random_bool(0.03));
        let mut owners = Vec::new();
        for number in 0..self.owners.len() {
            if self.rng.random_bool(0.3) {
                continue;
            }
            let (owner, limits) = self.owners[number].clone();
            let mut claims = Vec::new();
            for (name, amount) in limits {
                let keep = self.amount(amount);
                let need = self.amount(amount);
                let least = need.min(self.amount(amount).max(1));
                let want = keep.max(self.amount(amount).saturating_add(need));
                claims.push(Claim {
                    name,
                    amount,
                    life: self.rng.random_range(1..70 * SECOND),
                    keep,
                    need,
                    least,
                    want: want.min(AMOUNT_MAX),
                    spent: if self.rng.random_bool(0.2) {
                        self.amount(amount)
                    } else {
                        0
                    },
                });
            }
            let epoch = match self.rng.random_range(0..100) {
                0..10 => 0,
                10 => self.rng.random_range(1..1 << 50),
                _ => self.epochs[at][number],
            };
            owners.push(Claims {
                owner,
                epoch,
                limits: claims,
            });
        }
        Call {
            replica,
            sequence: match self.rng.random_range(0..100) {
                0..3 => sequence.saturating_sub(1).max(1),
                3..6 => sequence.max(1),
                _ => sequence + 1,
            },
            patience: 45 * SECOND,
            leaves,
            trusts_empty,
            owners,
        }
    }

    fn step(&mut self, context: &str) {
        self.time += match self.rng.random_range(0..1_000) {
            0..900 => self.rng.random_range(0..400_000),
            900..990 => self.rng.random_range(0..5 * SECOND),
            990..999 => self.rng.random_range(0..90 * SECOND),
            _ => self.rng.random_range(0..7_200 * SECOND),
        };
        if self.rng.random_bool(0.01) {
            self.time -= self.rng.random_range(0..10 * SECOND);
        }
        if self.rng.random_bool(0.002) {
            self.books = Books::new();
            let flush = redis::cmd("FLUSHALL");
            self.redis.req_command(&flush).expect("the server obeys");
        }
        let at = self.rng.random_range(0..self.calls.len());
        let is_repeated = self.calls[at].sequence > 0 && self.rng.random_bool(0.05);
        let call = if is_repeated {
            self.calls[at].clone()
        } else {
            self.draw(at)
        };
        if call.owners.is_empty() {
            return;
        }
        self.tally.repeated += u64::from(is_repeated);
        let (reply, wakenings) = self.books.call(self.time, &call);
        let keys = escrow::keys("tidegate", &call);
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.script).arg(keys.len()).arg(keys);
        command.arg(self.time).arg(escrow::write_call(&call));
        let numbers: Vec<u64> = command
            .query(&mut self.redis)
            .unwrap_or_else(|error| panic!("{context}: {error}\n{call:#?}"));
        let (read, woken) = escrow::read_reply(&call, &numbers)
            .unwrap_or_else(|| panic!("{context}: not a reply: {numbers:?}\n{call:#?}"));
        assert_eq!(read, reply, "{context}: the script answers otherwise\n{call:#?}");
        assert_eq!(woken, wakenings, "{context}: the script wakes others\n{call:#?}");
        self.tally.woken += wakenings.len() as u64;
        for (claims, grants) in call.owners.iter().zip(&reply.owners) {
            self.tally.stale += u64::from(grants.epoch == 0);
            let number = self.owners.iter().position(|(owner, _)| *owner == claims.owner);
            self.epochs[at][number.expect("it is one of them")] = grants.epoch;
            for (claim, grant) in claims.limits.iter().zip(&grants.limits) {
                self.tally.granted += u64::from(grant.has > claim.keep);
                self.tally.pressed += u64::from(grant.is_pressed);
            }
        }
        if call.sequence >= self.calls[at].sequence {
            self.calls[at] = call;
        }
    }
}

#[test]
fn the_books_of_tenants_and_routes() {
    let server = RedisServer::start();
    let mut sum = Tally::default();
    for seed in seeds() {
        let mut world = World::new(&server, seed);
        for step in 0..steps() {
            world.step(&format!("seed {seed} step {step}"));
        }
        let tally = world.tally;
        sum.granted += tally.granted;
        sum.pressed += tally.pressed;
        sum.stale += tally.stale;
        sum.woken += tally.woken;
        sum.repeated += tally.repeated;
    }
    println!("{sum:?}");
    assert!(sum.granted > 0 && sum.pressed > 0 && sum.stale > 0, "{sum:?}");
    assert!(sum.woken > 0 && sum.repeated > 0, "{sum:?}");
}
