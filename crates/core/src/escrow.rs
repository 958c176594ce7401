//! The book by which replicas divide the limits and budgets of tenants and routes: how much of each every replica has.
//!
//! Each replica admits by its own meters, and only up to what it has of a limit. What all of them have is never more than the
//! limit, so what all of them use is never more either, and nobody asks before a request: the demarcation protocol (Barbará
//! and Garcia-Molina, 1994) over escrow (O'Neil, 1986). The book is a state machine of its own, one for each owner, driven by
//! the calls of the replicas. This is its definition; the script that runs it inside Redis (crate `tidegate`, feature `redis`)
//! does the same in the same order, and one suite compares the two call by call. Everything is a whole number below 2⁵³,
//! because that is what the script's numbers hold.
//!
//! What it promises (decision record 0012):
//!
//! * **No more than the limit.** What replicas have together is at most the amount, but for what they said they must keep.
//! * **Settled once.** A repeated call is answered with its first answer and changes nothing; an older one is refused.
//! * **Everybody's turn.** What is free is divided among those who are short, whoever was served longest ago first.
//!
//! # What replicas do
//!
//! * **Calls.** One at a time; the same again until its answer comes. Numbers only grow.
//! * **Keep.** While a call is under way, no more is used than the call says is kept, and than what it had before.
//! * **Contact** is the first sending of the latest call that was answered. `patience` after it nothing more is admitted.
//! * **Life** is how long use lasts at most after it was admitted: the book keeps what a silent replica has for its patience and
//!   a life, and what one that left must keep for a life.
//! * **Clocks.** Lengths are each replica's own, and the server's; no two clocks have to agree about the time. The book's time
//!   passes by at most [`STEP_MAX`] between two calls, which is less than what lives are longer than told: a clock that jumps
//!   ends nothing too early.
//!
//! What is not covered: a store that was emptied, or that came back with an old copy, and a replica that calls before those who
//! have something have said so. In a new book a newcomer has half of a limit for [`NEW_FOR`], and when somebody is found to have
//! known an older book, nobody gets more than what they keep until [`LOST_FOR`] after it was made. So no more than one and a
//! half times the limit is used in the first [`NEW_FOR`], and no more than twice the limit after it.

mod call;
#[cfg(test)]
mod tests;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

pub use call::{Call, Claim, Claims, Grant, Grants, Reply, Wakening};

use crate::ledger::LimitName;
use crate::snapshot::Owner;

/// The most owners that one call is about.
pub const OWNERS_MAX: usize = 64;

/// Larger amounts are taken to be this one.
pub const AMOUNT_MAX: u64 = 1 << 44;

/// The book's time passes by at most so much between two calls, in microseconds.
pub const STEP_MAX: u64 = 15_000_000;

/// Whatever is kept for somebody who is silent is kept for so much longer than they said, in microseconds.
pub const SLACK: u64 = 20_000_000;

/// For so long after it was made, nobody has more than half of a limit by a book of which nobody knew another, in microseconds.
pub const NEW_FOR: u64 = 2_000_000;

/// For so long after it was made, only what replicas must keep is noted in a book that stands for a lost one, in microseconds:
/// whoever has something calls every ten seconds.
pub const LOST_FOR: u64 = 12_000_000;

/// Whoever is short calls more often than this, in microseconds; of others nobody knows whether they still are.
const FRESH: u64 = 1_000_000;

/// Whoever was woken and did not call is woken again after so long, in microseconds.
const WAKE_AGAIN: u64 = 1_000_000;

/// The most that one owner's book holds, of all limits and replicas. Those who come later have to wait.
pub const PARTS_MAX: usize = 512;

/// What one replica has of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Part {
    sequence: u64,
    /// What it has, and what it said it must keep.
    has: u64,
    keep: u64,
    /// What it has used that will not come back.
    spent: u64,
    /// What those who wait there need beyond that, and the first of them.
    need: u64,
    least: u64,
    /// Since when it is short and was not served; 0: it is not short.
    since: u64,
    /// When it called last.
    seen: u64,
    /// When it is forgotten.
    until: u64,
    /// When it was last told to call, since it did; 0: it was not.
    woken: u64,
    /// Whether it was told that others are short.
    is_pressed: bool,
}

/// One who is short.
struct Short {
    since: u64,
    replica: u64,
    least: u64,
    missing: u64,
}

/// The book of one owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    /// When it was made; 0: it was not yet.
    epoch: u64,
    /// Its time, and the server's when it was last called.
    clock: u64,
    server: u64,
    /// Whether it stands for one that was lost.
    is_lost: bool,
    parts: BTreeMap<(LimitName, u64), Part>,
}

impl Book {
    /// Answers what a call says of its owner, at a time of the server's clock. Who else should call is added to `wakes`.
    fn call(&mut self, server_time: u64, call: &Call, claims: &Claims, wakes: &mut Vec<u64>) -> Grants {
        if self.epoch == 0 {
            self.epoch = server_time.max(1);
            self.clock = self.epoch;
        } else {
            self.clock += server_time.saturating_sub(self.server).min(STEP_MAX);
        }
        self.server = server_time;
        if claims.epoch != 0 && claims.epoch != self.epoch {
            self.is_lost = true;
        }
        let clock = self.clock;
        self.parts.retain(|_, part| part.until > clock);
        let is_stale = |claim: &Claim| {
            let known = self.parts.get(&(claim.name, call.replica));
            known.is_some_and(|part| part.sequence > call.sequence)
        };
        if claims.limits.iter().any(is_stale) {
            return Grants::default();
        }
        let limits = claims.limits.iter();
        Grants {
            epoch: self.epoch,
            limits: limits.map(|claim| self.claim(call, claim, wakes)).collect(),
        }
    }

    fn claim(&mut self, call: &Call, claim: &Claim, wakes: &mut Vec<u64>) -> Grant {
        let now = self.clock;
        let key = (claim.name, call.replica);
        let (elsewhere, spent, mut shorts) = self.others(claim.name, call.replica);
        let before = self.parts.get(&key).copied();
        if let Some(part) = before.filter(|part| part.sequence == call.sequence) {
            return Grant {
                has: part.has,
                is_pressed: part.is_pressed,
                spent,
            };
        }
        if before.is_none() && claim.keep == 0 && self.parts.len() >= PARTS_MAX {
            return Grant {
                has: 0,
                is_pressed: true,
                spent,
            };
        }
        let need = if call.leaves { 0 } else { claim.need };
        let amount = self.amount_now(call, claim.amount);
        let pool = amount.saturating_sub(elsewhere).saturating_sub(claim.keep);
        let is_pressed = !shorts.is_empty();
        let since = match before {
            _ if need == 0 => 0,
            Some(part) if part.since > 0 => part.since,
            _ => now,
        };
        let grant = if call.leaves || (is_pressed && need == 0) {
            0
        } else if is_pressed {
            shorts.push(Short {
                since,
                replica: call.replica,
                least: claim.least,
                missing: need,
            });
            let shares = divide(pool, &mut shorts);
            let own = shares.iter().find(|(replica, _)| *replica == call.replica);
            own.map_or(0, |(_, share)| *share)
        } else {
            pool.min(claim.want.saturating_sub(claim.keep))
        };
        let has = claim.keep + grant;
        let lasts = if has == 0 && need == 0 && claim.spent == 0 {
            call.patience
        } else if call.leaves {
            claim.life + SLACK
        } else {
            call.patience + claim.life + SLACK
        };
        let part = Part {
            sequence: call.sequence,
            has,
            keep: claim.keep,
            spent: claim.spent,
            need,
            least: claim.least,
            since: if need > 0 && grant >= claim.least {
                now
            } else {
                since
            },
            seen: now,
            until: now + lasts,
            woken: 0,
            is_pressed,
        };
        self.parts.insert(key, part);
        shorts.retain(|short| short.replica != call.replica);
        for (replica, _) in divide(pool - grant, &mut shorts) {
            self.wake((claim.name, replica), wakes);
        }
        if grant < need {
            self.wake_idle(claim.name, call.replica, wakes);
        }
        Grant {
            has,
            is_pressed,
            spent,
        }
    }

    /// Returns what all but one replica have of a limit, what they have spent of it, and who of them is short.
    fn others(&self, name: LimitName, but: u64) -> (u64, u64, Vec<Short>) {
        let now = self.clock;
        let (mut has, mut spent, mut shorts) = (0, 0, Vec::new());
        for (&(_, replica), part) in self.of(name).filter(|((_, replica), _)| *replica != but) {
            has += part.has;
            spent += part.spent;
            let needs = part.keep + part.need;
            if part.since > 0 && now - part.seen <= FRESH && part.has < needs {
                shorts.push(Short {
                    since: part.since,
                    replica,
                    least: (part.keep + part.least).saturating_sub(part.has),
                    missing: needs - part.has,
                });
            }
        }
        (has, spent, shorts)
    }

    /// Tells those to call who have something and do not know that one is short: they may have more than they need.
    fn wake_idle(&mut self, name: LimitName, short: u64, wakes: &mut Vec<u64>) {
        let others = self.of(name).filter(|((_, replica), _)| *replica != short);
        let idle = others.filter(|(_, part)| part.has > 0 && !part.is_pressed);
        let idle: Vec<_> = idle.map(|(key, _)| *key).collect();
        for key in idle {
            self.wake(key, wakes);
        }
    }

    /// Returns what all may have together of an amount, now.
    fn amount_now(&self, call: &Call, amount: u64) -> u64 {
        if self.is_lost && self.clock < self.epoch + LOST_FOR {
            0
        } else if !self.is_lost && !call.trusts_empty && self.clock < self.epoch + NEW_FOR {
            amount.div_ceil(2)
        } else {
            amount
        }
    }

    fn of(&self, name: LimitName) -> impl Iterator<Item = (&(LimitName, u64), &Part)> {
        self.parts.range((name, 0)..=(name, u64::MAX))
    }

    /// Tells somebody to call, unless they were told already.
    fn wake(&mut self, key: (LimitName, u64), wakes: &mut Vec<u64>) {
        let now = self.clock;
        if let Some(part) = self.parts.get_mut(&key)
            && (part.woken == 0 || now - part.woken >= WAKE_AGAIN)
        {
            part.woken = now;
            wakes.push(key.1);
        }
    }
}

/// Divides what is free among those who are short, whoever was served longest ago first: evenly, but never less than the first
/// request needs while it lasts. Returns who gets how much, as far as there is something for them.
fn divide(pool: u64, shorts: &mut [Short]) -> Vec<(u64, u64)> {
    shorts.sort_unstable_by_key(|short| (short.since, short.replica));
    let (mut rest, mut left) = (pool, shorts.len() as u64);
    let mut shares = Vec::new();
    for short in shorts.iter() {
        let share = rest.div_ceil(left).max(short.least).min(short.missing).min(rest);
        (rest, left) = (rest - share, left - 1);
        if share > 0 {
            shares.push((short.replica, share));
        }
    }
    shares
}

/// The books of all owners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books(BTreeMap<Owner, Book>);

impl Books {
    /// Makes books of which nobody knows anything yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers a call at a time of the server's clock, in microseconds, and tells who else should call.
    pub fn call(&mut self, server_time: u64, call: &Call) -> (Reply, Vec<Wakening>) {
        let (mut reply, mut wakenings) = (Reply::default(), Vec::new());
        for claims in &call.owners {
            let mut wakes = Vec::new();
            let book = self.0.entry(claims.owner).or_default();
            reply
                .owners
                .push(book.call(server_time, call, claims, &mut wakes));
            let wakes = wakes.into_iter().map(|replica| Wakening {
                owner: claims.owner,
                replica,
            });
            wakenings.extend(wakes);
        }
        (reply, wakenings)
    }

    /// Returns what replicas have of a limit together.
    pub fn taken(&self, owner: Owner, name: LimitName) -> u64 {
        let book = self.0.get(&owner);
        book.map_or(0, |book| book.of(name).map(|(_, part)| part.has).sum())
    }
}
