//! Replicas, a ledger, and a network between them, in virtual time; and the exact log of what was used.
//!
//! The log knows nothing of the ledger: every unit that a replica lets through is written down with a moment at which it was
//! used, anywhere between its admission and the end of its validity, and what was refunded is not.

use std::collections::{BTreeMap, VecDeque};

use super::replica::{Demand, Doings, Key, Replica, key};
use super::*;

/// Numbers that look random, from a seed.
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(super) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// What is on its way.
enum Parcel {
    Call {
        from: usize,
        server: u64,
        call: Call,
    },
    Answer {
        to: usize,
        key: Key,
        server: u64,
        reply: Reply,
    },
    Wake {
        id: u64,
        at: u64,
    },
}

/// One place where a replica runs, and its line to the ledger.
pub(super) struct Place {
    pub(super) replica: Replica,
    /// Its clock is ahead of the true time by this much.
    ahead: u64,
    /// Nothing gets through until then; whether it is lost or only late.
    pub(super) cut_until: u64,
    pub(super) cut_loses: bool,
    pub(super) is_alive: bool,
    pub(super) restart_at: u64,
}

impl Place {
    pub(super) fn is_in_touch(&self, now: u64) -> bool {
        self.is_alive && self.cut_until <= now && self.replica.is_in_touch(now + self.ahead)
    }
}

pub(super) struct World {
    pub(super) seed: u64,
    pub(super) random: Random,
    pub(super) now: u64,
    pub(super) ledger: Ledger,
    pub(super) limits: Vec<Terms>,
    shares: u64,
    /// What the server's clock is ahead of the true time, and which server it is.
    pub(super) server_ahead: i64,
    pub(super) server: u64,
    pub(super) frozen_until: u64,
    /// Nothing else happens until then: somebody who knows the time has to call after a step of the clock.
    pub(super) steady_until: u64,
    /// Copies of the ledger, some time ago.
    copies: VecDeque<(u64, Ledger)>,
    pub(super) places: Vec<Place>,
    parcels: BTreeMap<(u64, u64), Parcel>,
    nth: u64,
    next_id: u64,
    /// In percent: calls or answers that are lost; demands of which a part is refunded.
    pub(super) loss: u64,
    pub(super) refunds: u64,
    pub(super) is_slow: bool,
    /// When so much was used of each limit.
    pub(super) log: Vec<(u64, Demand)>,
    pub(super) asked: u64,
    pub(super) used: u64,
    /// Whether what happens is printed.
    is_told: bool,
}

impl World {
    pub(super) fn new(seed: u64, limits: Vec<Terms>, shares: u64, replicas: usize) -> Self {
        let mut world = Self {
            seed,
            random: Random(seed),
            now: START,
            ledger: Ledger::new(),
            limits,
            shares,
            server_ahead: 0,
            server: 1,
            frozen_until: 0,
            steady_until: 0,
            copies: VecDeque::new(),
            places: Vec::new(),
            parcels: BTreeMap::new(),
            nth: 0,
            next_id: 0,
            loss: 0,
            refunds: 0,
            is_slow: false,
            log: Vec::new(),
            asked: 0,
            used: 0,
            is_told: std::env::var("TIDEGATE_LEDGER_TOLD").is_ok(),
        };
        for nth in 0..replicas {
            let mut replica = world.newcomer();
            replica.trusts_empty = nth == 0;
            let ahead = world.random.below(1_000 * SECOND);
            world.places.push(Place {
                replica,
                ahead,
                cut_until: 0,
                cut_loses: false,
                is_alive: nth == 0,
                restart_at: START + nth as u64 * 700_000,
            });
        }
        world
    }

    pub(super) fn newcomer(&mut self) -> Replica {
        self.next_id += 1;
        Replica::new(self.next_id, self.limits.clone(), self.shares)
    }

    fn delay(&mut self) -> u64 {
        let rare = if self.is_slow { 10 } else { 1 };
        if self.random.percent(rare) {
            self.random.below(400_000)
        } else {
            500 + self.random.below(8_000)
        }
    }

    /// Prints what happens, if somebody wants to know.
    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>10} {}", self.now - START, what());
        }
    }

    fn put(&mut self, at: u64, parcel: Parcel) {
        self.nth += 1;
        self.parcels.insert((at, self.nth), parcel);
    }

    /// Sends something over a replica's line; `None` if it is lost.
    fn arrival(&mut self, place: usize) -> Option<u64> {
        let at = self.now + self.delay();
        let (until, loses) = (self.places[place].cut_until, self.places[place].cut_loses);
        if self.random.percent(self.loss) || (until > self.now && loses) {
            return None;
        }
        Some(at.max(if until > self.now {
            until + at - self.now
        } else {
            0
        }))
    }

    /// Lets time pass until a moment, calling `happens` every 50 ms.
    pub(super) fn run(&mut self, until: u64, mut happens: impl FnMut(&mut Self)) {
        while self.now < until {
            self.now += 10_000;
            while let Some(entry) = self.parcels.first_entry()
                && entry.key().0 <= self.now
            {
                let ((at, _), parcel) = entry.remove_entry();
                let now = core::mem::replace(&mut self.now, at);
                self.deliver(parcel);
                self.now = now;
            }
            if (self.now / 10_000).is_multiple_of(5) {
                self.copies.push_back((self.now, self.ledger.clone()));
                if self.copies.len() > 20 {
                    self.copies.pop_front();
                }
                happens(self);
            }
            for at in 0..self.places.len() {
                self.turn(at);
            }
        }
    }

    fn turn(&mut self, at: usize) {
        if !self.places[at].is_alive {
            if self.places[at].restart_at <= self.now {
                let queue = core::mem::take(&mut self.places[at].replica.queue);
                if self.places[at].replica.epoch != 0 || self.places[at].replica.left {
                    self.places[at].replica = self.newcomer();
                }
                self.places[at].replica.queue = queue;
                self.places[at].is_alive = true;
            }
            return;
        }
        let place = &mut self.places[at];
        let doings = place.replica.tick(self.now + place.ahead);
        self.follow(at, doings);
        let place = &mut self.places[at];
        if place.replica.left {
            place.is_alive = false;
            place.restart_at = self.now + self.random.below(4 * SECOND);
        }
    }

    fn follow(&mut self, at: usize, doings: Doings) {
        if let Some(call) = doings.call {
            let server = self.server;
            if let Some(when) = self.arrival(at) {
                self.put(
                    when,
                    Parcel::Call {
                        from: at,
                        server,
                        call,
                    },
                );
            }
        }
        for (demand, until, stamp) in doings.uses {
            let own_now = self.now + self.places[at].ahead;
            let mut used = demand.clone();
            if self.random.percent(self.refunds) {
                let later = own_now + self.random.below(3 * SECOND);
                for (limit, amount) in used.iter_mut().enumerate() {
                    let unused = self.random.below(*amount + 1);
                    *amount -= unused;
                    self.places[at].replica.will_refund(later, limit, stamp, unused);
                }
            }
            // Those who want to break the promise use early what comes first, and late what comes last.
            let latest = until.saturating_sub(own_now);
            let after = match self.random.below(3) {
                0 => 0,
                1 => latest,
                _ => self.random.below(latest + 1),
            };
            self.used += 1;
            self.tell(|| {
                let replica = &self.places[at].replica;
                format!(
                    "use {} {demand:?} less {used:?} after {after} alone {}",
                    replica.id,
                    replica.is_alone()
                )
            });
            self.log.push((self.now + after, used));
        }
    }

    fn deliver(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::Call {
                from,
                server,
                mut call,
            } => {
                if server != self.server {
                    return;
                }
                if self.frozen_until > self.now {
                    let at = self.frozen_until;
                    self.put(at, Parcel::Call { from, server, call });
                    return;
                }
                call.server = server;
                let clock = self.now.saturating_add_signed(self.server_ahead);
                let key = key(&call);
                let (reply, wakenings) = self.ledger.call(clock, &call);
                self.tell(|| {
                    let ask: Vec<u64> = call.asks.iter().map(|ask| ask.take[0]).collect();
                    format!(
                        "call {}/{} epoch {} time {} missed {} entries {:?} asks {ask:?} seed {:?}: {:?} epoch {} now {} share {} {:?} {:?} names {:?}",
                        call.replica,
                        call.sequence,
                        call.epoch,
                        call.time as i64 - START as i64,
                        call.missed.len(),
                        call.entries.iter().filter(|entry| matches!(entry, Entry::Charge { limit: 0, .. } | Entry::Refund { limit: 0, .. })).collect::<Vec<_>>(),
                        call.seed.is_some(),
                        reply.status,
                        reply.epoch,
                        reply.now as i64 - START as i64,
                        reply.share,
                        reply.granted,
                        reply.totals,
                        reply.names,
                    )
                });
                let is_fenced = call.epoch != 0 && call.epoch != reply.epoch;
                assert!(
                    !is_fenced || !reply.granted.contains(&true),
                    "EpochFence: seed {}",
                    self.seed
                );
                if let Some(at) = self.arrival(from) {
                    self.put(
                        at,
                        Parcel::Answer {
                            to: from,
                            key,
                            server,
                            reply,
                        },
                    );
                }
                for wakening in wakenings {
                    let at = self.now + self.delay();
                    self.put(
                        at,
                        Parcel::Wake {
                            id: wakening.replica,
                            at: wakening.at,
                        },
                    );
                }
            }
            Parcel::Answer {
                to,
                key,
                server,
                reply,
            } => {
                let place = &mut self.places[to];
                // An answer of the former server may just have made it.
                let is_heard = server == self.server || self.now.is_multiple_of(2);
                if place.is_alive && is_heard {
                    let doings = place.replica.answer(self.now + place.ahead, key, &reply);
                    self.follow(to, doings);
                }
            }
            Parcel::Wake { id, at } => {
                let now = self.now;
                for place in self.places.iter_mut().filter(|place| place.replica.id == id) {
                    place.replica.wake(now + place.ahead, at);
                }
            }
        }
    }

    /// Another server takes over, with a copy of some time ago.
    pub(super) fn fail_over(&mut self) {
        let back = usize::try_from(self.random.below(10)).expect("a small number");
        if let Some((_, copy)) = self.copies.iter().rev().nth(back) {
            self.ledger = copy.clone();
        }
        self.copies.clear();
        self.server += 1;
        self.frozen_until = self.now + self.random.below(1_500_000);
    }

    pub(super) fn wipe(&mut self) {
        self.ledger = Ledger::new();
        self.copies.clear();
    }

    pub(super) fn crash(&mut self, at: usize) {
        let down = self.random.below(6 * SECOND);
        let place = &mut self.places[at];
        place.is_alive = false;
        place.restart_at = self.now + down;
    }

    /// Nothing was ever used beyond a limit.
    pub(super) fn check(&mut self) {
        self.log.sort();
        for (limit, terms) in self.limits.iter().enumerate() {
            let window = terms.name.window();
            let (mut sum, mut first) = (0, 0);
            for (at, demand) in &self.log {
                sum += demand[limit];
                while self.log[first].0 + window <= *at {
                    sum -= self.log[first].1[limit];
                    first += 1;
                }
                assert!(
                    sum <= terms.amount,
                    "NoOverAdmission: seed {}: {sum} of {} in the window before {}",
                    self.seed,
                    terms.amount,
                    at - START
                );
            }
        }
    }
}
