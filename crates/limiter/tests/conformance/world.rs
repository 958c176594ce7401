//! Replicas and everything that may happen to them, drawn from a seed.

use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tidegate_core::Dimension;
use tidegate_core::ledger::{Ask, Call, Entry, LimitName, Missed, Reply, Seed, Status, Terms};

use super::both::{Both, Copy};

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;

/// What a world is mostly about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    /// Everybody is let in, one after the other.
    Calm,
    Wide,
    Full,
    Lossy,
    Fresh,
    Huge,
}

/// How often what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) granted: u64,
    /// By status and by denial.
    pub(crate) statuses: [u64; 4],
    pub(crate) denials: [u64; 5],
    pub(crate) wakenings: u64,
    pub(crate) views: u64,
    pub(crate) facts: u64,
    /// Grants while the ledger learned, and answers of which the time was in doubt.
    pub(crate) tried: u64,
    pub(crate) doubted: u64,
    /// Calls that the script answered by its part for common ones.
    pub(crate) common: u64,
    /// A digest of all answers.
    pub(crate) digest: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.granted += other.granted;
        for (sum, more) in self.statuses.iter_mut().zip(other.statuses) {
            *sum += more;
        }
        for (sum, more) in self.denials.iter_mut().zip(other.denials) {
            *sum += more;
        }
        self.wakenings += other.wakenings;
        self.views += other.views;
        self.facts += other.facts;
        self.tried += other.tried;
        self.doubted += other.doubted;
        self.common += other.common;
    }

    fn count(&mut self, reply: &Reply, wakenings: usize) {
        let granted = reply.granted.iter().filter(|granted| **granted).count() as u64;
        self.granted += granted;
        let number = |number: u64| usize::try_from(number).expect("it is small");
        self.statuses[number(reply.status.number())] += 1;
        self.denials[number(reply.denial.number())] += 1;
        self.wakenings += wakenings as u64;
        self.views += u64::from(reply.view.is_some());
        self.facts += u64::from(!reply.facts.is_empty());
        if reply.status == Status::Learning {
            self.tried += granted;
        }
        self.doubted += u64::from(reply.now == 0);
        for number in reply.numbers() {
            self.digest = (self.digest ^ number)
                .wrapping_mul(0x0100_0000_01b3)
                .rotate_left(5);
        }
    }
}

/// A world of its own clock.
pub(crate) struct World {
    kind: Kind,
    seed: u64,
    rng: Pcg64Mcg,
    /// The true time, and what the server's clock is off by.
    time: u64,
    step_of_server: i64,
    /// Which server it is; 0: replicas cannot say.
    server: u64,
    limits: Vec<Terms>,
    tenants: Vec<u64>,
    tiers: [u8; 4],
    trusts_empty: bool,
    replicas: Vec<Replica>,
    copies: Vec<Copy>,
    tally: Tally,
}

struct Replica {
    id: u64,
    sequence: u64,
    epoch: u64,
    facts: u64,
    /// What its clock is off by.
    clock: i64,
    knows_time: bool,
    limits: Vec<Terms>,
    /// What it was charged: the limit's name, moment, amount.
    charged: Vec<(LimitName, u64, u64)>,
    seen: Vec<(LimitName, u64, u64)>,
    names: Vec<u64>,
    past: Vec<Call>,
    missed: Vec<Call>,
    lost: bool,
    silent_until: u64,
}

impl World {
    pub(crate) fn new(kind: Kind, seed: u64) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(seed.wrapping_mul(8) + kind as u64);
        let limits = draw_limits(kind, &mut rng);
        let tenants = (0..rng.random_range(1..8_u64))
            .map(|at| match at {
                0 => u64::MAX,
                1 => 0,
                _ => rng.next_u64(),
            })
            .collect();
        let mut world = Self {
            kind,
            seed,
            time: 1_790_000_000 * SECOND + rng.random_range(0..3600 * SECOND),
            step_of_server: 0,
            server: 0,
            limits,
            tenants,
            tiers: if rng.random_bool(0.5) {
                [0; 4]
            } else {
                [0, 20, 10, 5]
            },
            trusts_empty: match kind {
                Kind::Fresh => false,
                Kind::Calm => true,
                _ => rng.random_bool(0.8),
            },
            replicas: Vec::new(),
            copies: Vec::new(),
            tally: Tally::default(),
            rng,
        };
        for _ in 0..world.rng.random_range(1..=8) {
            let replica = world.draw_replica();
            world.replicas.push(replica);
        }
        world
    }

    /// Lives through so many calls.
    pub(crate) fn run(mut self, both: &mut Both, steps: u64) -> Tally {
        for step in 0..steps {
            self.pass_time();
            self.suffer(both);
            let context = format!("{:?} seed {} step {step}", self.kind, self.seed);
            self.call(both, &context);
        }
        self.tally
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    fn pass_time(&mut self) {
        let (short, most) = match self.kind {
            Kind::Calm => (20_000, 990),
            Kind::Full => (60_000, 1_000),
            _ => (180_000, 1_000),
        };
        let pause = match self.rng.random_range(0..most) {
            0..700_u32 => self.rng.random_range(0..short),
            700..960 => self.rng.random_range(0..short * 7),
            960..990 => self.rng.random_range(0..5 * SECOND),
            990..997 => self.rng.random_range(0..MINUTE),
            997..999 => self.rng.random_range(0..10 * MINUTE),
            _ => self.rng.random_range(0..3 * 60 * MINUTE),
        };
        self.time += pause;
    }

    /// What happens to the server, or to everybody.
    fn suffer(&mut self, both: &mut Both) {
        if self.kind == Kind::Calm && self.chance(0.9) {
            return;
        }
        if self.chance(0.004) {
            let far = if self.chance(0.2) { 3_600 } else { 3 };
            self.step_of_server = self.rng.random_range(-far..=far) * SECOND.cast_signed() / 2;
        }
        if self.kind != Kind::Calm && self.chance(0.001) {
            self.server = self.rng.random_range(0..4);
        }
        if self.chance(0.004) {
            // A reload: other amounts, another margin.
            for terms in &mut self.limits {
                terms.amount = (terms.amount * self.rng.random_range(50..150_u64) / 100).max(1);
                terms.life = terms.name.window() + self.rng.random_range(0..3 * SECOND);
            }
        }
        if self.chance(0.01) {
            let at = self.rng.random_range(0..self.replicas.len());
            self.replicas[at].limits.clone_from(&self.limits);
            if self.chance(0.3) && self.limits.len() > 1 {
                let gone = self.rng.random_range(0..self.limits.len());
                self.replicas[at].limits.remove(gone);
            }
            if self.chance(0.3) {
                self.replicas[at].limits.reverse();
            }
        }
        if self.chance(0.002) {
            let until = self.time + self.rng.random_range(0..3 * MINUTE);
            let at = self.rng.random_range(0..self.replicas.len());
            self.replicas[at].silent_until = until;
        }
        if self.kind == Kind::Lossy {
            if self.chance(0.01) {
                self.copies.push(both.copy());
            }
            if self.chance(0.003) {
                both.flush();
            }
            if self.chance(0.004) && !self.copies.is_empty() {
                let at = self.rng.random_range(0..self.copies.len());
                both.restore(&self.copies[at]);
            }
        } else if self.kind == Kind::Fresh && self.chance(0.003) {
            both.flush();
            for replica in &mut self.replicas {
                (replica.epoch, replica.sequence, replica.lost) = (0, 0, false);
                replica.missed.clear();
            }
        }
    }

    fn draw_replica(&mut self) -> Replica {
        Replica {
            id: self.rng.random_range(1..1 << 53),
            sequence: 0,
            epoch: 0,
            facts: 0,
            clock: match self.kind {
                Kind::Calm => self.rng.random_range(-100_000..20_000),
                _ => self.rng.random_range(-400_000..400_000),
            },
            knows_time: self.kind == Kind::Calm || self.rng.random_bool(0.8),
            limits: self.limits.clone(),
            charged: Vec::new(),
            seen: Vec::new(),
            names: Vec::new(),
            past: Vec::new(),
            missed: Vec::new(),
            lost: false,
            silent_until: 0,
        }
    }

    fn call(&mut self, both: &mut Both, context: &str) {
        let at = self.rng.random_range(0..self.replicas.len());
        if self.replicas[at].silent_until > self.time {
            return;
        }
        let server_time = self.time.saturating_add_signed(self.step_of_server);
        if self.chance(0.04) && !self.replicas[at].past.is_empty() {
            // A repeat, most often of the last call.
            let past = &self.replicas[at].past;
            let back = if self.rng.random_bool(0.7) {
                past.len() - 1
            } else {
                self.rng.random_range(0..past.len())
            };
            let (reply, wakenings) = both.call(server_time, &past[back], context);
            self.tally.count(&reply, wakenings.len());
            return;
        }
        let leaves = self.chance(0.003);
        let call = self.draw_call(at, leaves);
        self.replicas[at].sequence = call.sequence;
        if self.chance(0.02) {
            // It never arrives.
            self.replicas[at].missed.push(call);
            return;
        }
        let (reply, wakenings) = both.call(server_time, &call, context);
        self.tally.count(&reply, wakenings.len());
        if reply.now == 0 {
            // Nothing was done.
            self.replicas[at].sequence = self.replicas[at]
                .missed
                .last()
                .map_or(call.sequence - 1, |last| last.sequence);
            return;
        }
        if self.chance(0.03) && call.sequence > 0 {
            // The answer never arrives.
            self.replicas[at].missed.push(call.clone());
            self.replicas[at].past.push(call);
            return;
        }
        self.replicas[at].missed.clear();
        self.learn(at, &call, &reply);
        if leaves {
            let newcomer = self.draw_replica();
            self.replicas[at] = newcomer;
        }
    }

    fn learn(&mut self, at: usize, call: &Call, reply: &Reply) {
        let replica = &mut self.replicas[at];
        replica.past.push(call.clone());
        if replica.past.len() > 5 {
            replica.past.remove(0);
        }
        replica.facts = reply.facts_version;
        replica.epoch = reply.epoch;
        match reply.status {
            Status::Lost => {
                (replica.sequence, replica.lost) = (0, true);
                return;
            }
            Status::Stale => {
                // It takes itself to be gone, and comes anew.
                let newcomer = self.draw_replica();
                self.replicas[at] = newcomer;
                return;
            }
            Status::Open | Status::Learning => replica.lost = false,
        }
        for (ask, _) in call
            .asks
            .iter()
            .zip(&reply.granted)
            .filter(|(_, granted)| **granted)
        {
            for (terms, take) in call.limits.iter().zip(&ask.take) {
                if *take > 0 {
                    replica.charged.push((terms.name, reply.now, *take));
                }
            }
        }
        if replica.charged.len() > 300 {
            replica.charged.drain(..100);
        }
        if let Some(view) = &reply.view {
            let slots = call.limits.iter().zip(view);
            replica.seen = slots
                .flat_map(|(terms, slots)| slots.iter().map(|(slot, amount)| (terms.name, *slot, *amount)))
                .collect();
            replica.names.clone_from(&reply.names);
        }
    }

    fn draw_call(&mut self, at: usize, leaves: bool) -> Call {
        let missed = self.replicas[at].missed.clone();
        let first_missed = missed.first().map(|call| call.sequence);
        let lost = self.replicas[at].lost;
        let mut sequence = self.replicas[at].sequence + 1;
        if self.kind != Kind::Calm && self.chance(0.0005) {
            sequence += 1;
        }
        // A day begins at midnight.
        let day = self.time / (24 * 60 * MINUTE) * (24 * 60 * MINUTE);
        let mut limits = self.replicas[at].limits.clone();
        for terms in &mut limits {
            if terms.ends > 0 {
                (terms.since, terms.ends) = (day, day + 24 * 60 * MINUTE);
            }
            terms.held = if self.rng.random_bool(0.2) {
                self.rng.random_range(0..terms.amount / 8 + 2)
            } else {
                0
            };
        }
        let clock = self.replicas[at].clock;
        let seed = (lost && self.chance(0.9)).then(|| self.draw_seed(at, &limits));
        let call = Call {
            replica: self.replicas[at].id,
            sequence,
            epoch: if lost && self.chance(0.3) {
                0
            } else {
                self.replicas[at].epoch
            },
            next_epoch: self.rng.random_range(0..1 << 53),
            server: self.server,
            time: if self.replicas[at].knows_time {
                self.time.saturating_add_signed(clock)
            } else {
                0
            },
            shares: self.rng.random_range(0..4) * 400_000,
            share_life: 2 * MINUTE,
            lease: if self.rng.random_bool(0.8) {
                30 * SECOND
            } else {
                self.rng.random_range(0..2 * SECOND)
            },
            tiers: self.tiers,
            trusts_empty: self.trusts_empty,
            leaves,
            wants_view: self.rng.random_bool(0.1),
            facts: self.replicas[at].facts,
            entries: self.draw_entries(at, &limits),
            asks: self.draw_asks(&limits),
            missed: missed
                .iter()
                .filter(|call| Some(call.sequence) >= first_missed)
                .map(|call| by_limits(call, &limits))
                .collect(),
            seed,
            limits,
        };
        if self.kind != Kind::Calm && self.chance(0.01) {
            self.replicas[at].clock = self.rng.random_range(-3_000_000..3_000_000);
            self.replicas[at].knows_time = self.rng.random_bool(0.8);
        }
        call
    }

    fn draw_seed(&mut self, at: usize, limits: &[Terms]) -> Seed {
        let replica = &self.replicas[at];
        let placed = |charges: &[(LimitName, u64, u64)]| {
            let place = |name| limits.iter().position(|terms: &Terms| terms.name == name);
            let placed = charges
                .iter()
                .filter_map(|(name, moment, amount)| Some((place(*name)?, *moment, *amount)));
            placed.collect::<Vec<_>>()
        };
        let (own, seen) = (placed(&replica.charged), placed(&replica.seen));
        let mut names = replica.names.clone();
        if self.rng.random_bool(0.2) {
            names.push(self.rng.random_range(1..1 << 53));
        }
        Seed { own, seen, names }
    }

    fn draw_entries(&mut self, at: usize, limits: &[Terms]) -> Vec<Entry> {
        let mut entries = Vec::new();
        let most = match self.kind {
            Kind::Wide => 40,
            _ => 4,
        };
        for _ in 0..self.rng.random_range(0..most) {
            let limit = self.rng.random_range(0..=limits.len());
            let amount = limits.get(limit).map_or(1, |terms| terms.amount);
            let part = if self.kind == Kind::Calm { 1 << 20 } else { 10 };
            let amount = self.rng.random_range(0..amount / part + 3);
            let charged = &mut self.replicas[at].charged;
            let known = (!charged.is_empty()).then(|| self.rng.random_range(0..charged.len()));
            let kinds = if self.kind == Kind::Calm { 76 } else { 100 };
            entries.push(match self.rng.random_range(0..kinds) {
                0..50 => {
                    let Some(known) = known else { continue };
                    let (name, stamp, amount) = charged.swap_remove(known);
                    let Some(limit) = limits.iter().position(|terms| terms.name == name) else {
                        continue;
                    };
                    let given = self.rng.random_range(0..=amount);
                    if self.rng.random_bool(0.7) {
                        Entry::Refund {
                            limit,
                            stamp,
                            amount: given,
                        }
                    } else {
                        Entry::Charge {
                            limit,
                            stamp,
                            amount: given,
                        }
                    }
                }
                50..70 => Entry::Charge {
                    limit,
                    stamp: 0,
                    amount,
                },
                70..76 => {
                    let stamp = self.time.saturating_sub(self.rng.random_range(0..2 * MINUTE));
                    let stamp = stamp + self.rng.random_range(0..SECOND);
                    if self.rng.random_bool(0.5) {
                        Entry::Charge { limit, stamp, amount }
                    } else {
                        Entry::Refund { limit, stamp, amount }
                    }
                }
                76..82 if self.kind == Kind::Fresh || self.rng.random_bool(0.3) => Entry::Used {
                    limit,
                    amount: amount * self.rng.random_range(0..8),
                },
                82..84 => Entry::Amount {
                    limit,
                    amount: if self.rng.random_bool(0.4) {
                        0
                    } else {
                        amount * 8 + 1
                    },
                    source: self.rng.random_range(0..3),
                },
                84 => Entry::Pause {
                    until: self.time + self.rng.random_range(0..5 * SECOND),
                },
                85..95 => Entry::Service {
                    tier: self.rng.random_range(0..4),
                    tenant: self.tenants[self.rng.random_range(0..self.tenants.len())],
                    by: self.rng.random_range(-(1 << 27)..1 << 27),
                },
                _ => Entry::Charge {
                    limit,
                    stamp: self.time,
                    amount,
                },
            });
        }
        entries
    }

    fn draw_asks(&mut self, limits: &[Terms]) -> Vec<Ask> {
        let most = match self.kind {
            Kind::Wide => 64,
            Kind::Full => 20,
            Kind::Calm => 1,
            _ => 4,
        };
        let count = if self.chance(0.3) {
            0
        } else {
            self.rng.random_range(0..=most)
        };
        let heavy = match self.kind {
            Kind::Calm => 100_000,
            _ => self.rng.random_range(2..40_u64),
        };
        let asks = (0..count).map(|_| {
            let rng = &mut self.rng;
            let tier = if rng.random_bool(0.5) {
                1
            } else {
                rng.random_range(0..4)
            };
            let mut draw = |terms: &Terms, chance: f64| {
                if !rng.random_bool(chance) {
                    0
                } else if rng.random_bool(if heavy > 40 { 0.0 } else { 0.01 }) {
                    terms.amount + rng.random_range(0..3)
                } else {
                    rng.random_range(0..terms.amount / heavy + 2)
                }
            };
            let is_held = |terms: &Terms| terms.name.dimension() == Some(Dimension::Concurrency);
            let take = limits
                .iter()
                .map(|terms| if is_held(terms) { 0 } else { draw(terms, 0.8) });
            let take: Vec<u64> = take.collect();
            let hold = limits
                .iter()
                .map(|terms| if is_held(terms) { 1 } else { draw(terms, 0.1) });
            let hold: Vec<u64> = hold.collect();
            let cost = rng.random_range(0..(1 << 31) / heavy);
            Ask {
                tier,
                tenant: self.tenants[rng.random_range(0..self.tenants.len())],
                cost,
                service: cost / rng.random_range(1..4),
                arrived: self.time - rng.random_range(0..10) * SECOND / 4,
                take,
                hold,
            }
        });
        asks.collect()
    }
}

/// Tells a call of which no answer came, by the limits of another.
fn by_limits(call: &Call, limits: &[Terms]) -> Missed {
    let place = |at: usize| {
        let name = call.limits.get(at)?.name;
        limits.iter().position(|terms| terms.name == name)
    };
    let nowhere = limits.len();
    let placed = |at: usize| place(at).unwrap_or(nowhere);
    let entries = call.entries.iter().map(|entry| match *entry {
        Entry::Refund { limit, stamp, amount } => Entry::Refund {
            limit: placed(limit),
            stamp,
            amount,
        },
        Entry::Charge { limit, stamp, amount } => Entry::Charge {
            limit: placed(limit),
            stamp,
            amount,
        },
        Entry::Used { limit, amount } => Entry::Used {
            limit: placed(limit),
            amount,
        },
        Entry::Amount {
            limit,
            amount,
            source,
        } => Entry::Amount {
            limit: placed(limit),
            amount,
            source,
        },
        other => other,
    });
    let takes = |ask: &Ask| {
        let mut takes = vec![0; limits.len()];
        for (at, take) in ask.take.iter().enumerate() {
            if let Some(at) = place(at) {
                takes[at] = *take;
            }
        }
        takes
    };
    Missed {
        sequence: call.sequence,
        entries: entries.collect(),
        asks: call.asks.iter().map(takes).collect(),
    }
}

fn draw_limits(kind: Kind, rng: &mut Pcg64Mcg) -> Vec<Terms> {
    let most = if kind == Kind::Wide { 16 } else { 4 };
    let mut limits: Vec<Terms> = Vec::new();
    for _ in 0..rng.random_range(1..=most) {
        let dimension = Dimension::ALL[rng.random_range(0..Dimension::ALL.len())];
        let window = match dimension {
            Dimension::Concurrency => 0,
            _ => [
                SECOND,
                10 * SECOND,
                MINUTE,
                MINUTE,
                MINUTE,
                60 * MINUTE,
                1440 * MINUTE,
            ][rng.random_range(0..7)],
        };
        let name = LimitName::of(dimension, window);
        if limits.iter().any(|terms| terms.name == name) {
            continue;
        }
        let width = if window == 0 {
            SECOND
        } else {
            (window / 600).max(10_000)
        };
        let amount = match kind {
            Kind::Huge => rng.random_range(1 << 40..1 << 46),
            Kind::Calm => rng.random_range(1 << 35..1 << 36),
            Kind::Full => rng.random_range(20..2_000),
            _ => rng.random_range(5..100_000),
        };
        limits.push(Terms {
            name,
            life: window + rng.random_range(0..2 * SECOND),
            width,
            amount,
            since: 0,
            // Which day it is, is told with each call.
            ends: u64::from(window == 1440 * MINUTE && rng.random_bool(0.7)),
            held: 0,
        });
    }
    limits
}
