//! The ledger of one quota group that several replicas share: what was charged, who waits, and who goes next.
//!
//! It is a state machine of its own, driven by the calls of the replicas. This is its definition; the script that runs it
//! inside Redis (crate `tidegate`, feature `redis`) does the same in the same order, and one suite compares the two call by
//! call. Everything is a whole number below 2⁵³, because that is what the script's numbers hold.
//!
//! What it promises (decision record 0009):
//!
//! * **No over-admission.** Charges, holds and what is kept for silent replicas never exceed an amount by anything that was
//!   let in, whatever replicas do and however often they repeat themselves.
//! * **Settled once.** A repeated call is answered with its first answer and changes nothing.
//! * **Fenced.** A replica that was silent for [`SILENT_AFTER`] has its share kept for it until it comes back or its charges
//!   have expired; a ledger that has lost something gets another epoch, and lets nobody in before it knows what is in use.
//! * **No barging.** Nobody is let in before somebody more entitled at another replica, unless that one goes no later for it.
//!
//! # What replicas do
//!
//! The ledger keeps this only with replicas that keep the following. `tests/ledger` has one that does, and tries it in random
//! worlds and in all courses of small ones.
//!
//! * **Calls.** One at a time; the same again, byte for byte, until its answer comes, or the next with this one among its
//!   `missed` once its answer is given up, which is then never used. An answer belongs to one call: replica, epoch and number.
//!   Whoever has as many missed as there may be makes the last call again. `now = 0` is no
//!   answer: the call is made again.
//! * **Grants** are used if the answer came within their validity of the call's first sending, and are refunded else.
//! * **Time.** Its own monotonic clock and an offset, from an answer to a call that was made once and answered at once. The
//!   offset stays; it is taken anew if an answer is off by more than twice [`CLOCK_SLACK`]. Following every answer would add
//!   up the steps of a server's clock. A life is window, margin, validity of grants and twice [`CLOCK_SLACK`].
//! * **Contact** is the first sending of the latest call that was answered, within a second if at all.
//! * **Cut off** is who was not in touch for two seconds. It lets through its share of the charges that it knew and that it
//!   sees expire from then on, less what it has let through itself, which lives a whole life. What it knew are those of its
//!   last view and its own since. It stops `share_life` after its contact, and also when an answer comes that is too late to
//!   put it in touch. It asks for nobody. Requests in flight: only in place of those that end, as long as the lease.
//! * **Back** in touch it has reported what it let through, as [`Entry::Charge`] with their moments, in the calls that it made
//!   meanwhile.
//! * **Lost.** It lives on its share no more. A `Lost` answer to a call that was made twice or took long is asked for again,
//!   for it says what time it is there: if that is off by more than twice [`CLOCK_SLACK`] the moments of its own charges, and
//!   of what it will refund, are shifted by as much (to the end of a bucket, so that none is too early). Then it calls with
//!   number 1 and a seed. Its own charges are after all corrections, so this call has no corrections of charges. Names are
//!   those of the latest answer that had any; none if it was not in touch for [`NAMES_KEPT`], or for a life. Views of a
//!   ledger that learns do not replace what it saw before.
//! * **Gone.** Whose contact is longer ago than share_life (or lease) and the longest life joins anew, as another, within
//!   ten seconds more.
//! * **Servers.** A call says to which server process it is made.
//!
//! What is not covered: two servers that both take themselves for the only one; a server's clock that jumps when nobody who
//! knows the time calls twice after it, and somebody new comes; a ledger that is wiped while everybody who knew is cut off, and
//! somebody new comes (the new one knows nothing; shares may then be used beside it).

mod call;
mod learning;
mod line;
mod member;
mod reply;
mod ring;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

pub use call::{Ask, Call, CallKey, Entry, LimitName, Missed, Seed, Terms};
pub use member::{NAMES_KEPT, SILENT_AFTER};
pub use reply::{Denial, Fact, Reply, Status, Wakening};

pub(crate) use learning::WINDOW_MAX;
use learning::{Learning, Missing};
use line::Fairness;
use member::{Head, Member, SHARES};
use ring::Ring;

/// The server's clock and a replica's idea of it may differ by this much, in microseconds: a clock that steps moves the
/// ledger's time by no more. Lives of charges have to be longer by twice as much.
pub const CLOCK_SLACK: u64 = 100_000;

/// Two calls that are off by the same, but for so much and a 64th, show that the server's clock has jumped, in microseconds.
const CLOCK_JITTER: u64 = 50_000;

/// The most requests of one replica that keep their place in the line of all.
pub const HEADS_MAX: usize = 16;

/// How many times a process can join a group before its numbers are used again: process and join together are a replica's number.
pub const JOINS: u64 = 1 << 12;

/// The most calls in a row whose answers a replica may give up.
pub const MISSED_MAX: usize = 16;

/// The ledger of one quota group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// 0: there is none yet.
    epoch: u64,
    /// The server that keeps it; 0: nobody has said.
    server: u64,
    /// The latest time.
    last: u64,
    /// What is added to the server's clock, in microseconds.
    skew: i64,
    /// When, by the server's clock, somebody first called who could not say whether that clock had jumped; 0: nobody.
    doubt: u64,
    paused_until: u64,
    facts_version: u64,
    /// When everybody was last asked to look at what was refunded.
    round_at: u64,
    rings: BTreeMap<LimitName, Ring>,
    members: BTreeMap<u64, Member>,
    fairness: Fairness,
    learning: Option<Learning>,
    missing: Option<Missing>,
}

impl Ledger {
    /// Makes a ledger of which nobody knows anything yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers a call at a time of the server's clock, and tells who else should call.
    pub fn call(&mut self, server_time: u64, call: &Call) -> (Reply, Vec<Wakening>) {
        let Some(now) = self.time(server_time, call) else {
            // Whoever knows the time tells it when it calls.
            return (
                self.brief(0, Status::Learning),
                self.introduce(self.last, call.replica),
            );
        };
        if self.epoch == 0 {
            self.begin(now, server_time, call, call.epoch == 0);
        } else if self.server == 0 {
            self.server = call.server;
        } else if call.server != 0 && call.server != self.server {
            self.begin(now, server_time, call, false);
        }
        self.last = now;
        if call.epoch != 0 && call.epoch != self.epoch {
            return (self.brief(now, Status::Lost), Vec::new());
        }
        match self.members.get_mut(&call.replica) {
            Some(member) if call.sequence == member.sequence => {
                member.is_repeated = true;
                let answer = Reply::from_numbers(&member.answer);
                return (
                    answer.unwrap_or_else(|| self.brief(now, Status::Stale)),
                    Vec::new(),
                );
            }
            Some(member) if call.sequence < member.sequence || member.left => {
                return (self.brief(now, Status::Stale), Vec::new());
            }
            Some(member) if follows(member.sequence, call) => {}
            None if follows(0, call) => {}
            // What it was told once is not here any more.
            _ => {
                self.begin(now, server_time, call, false);
                return (self.brief(now, Status::Lost), Vec::new());
            }
        }
        self.answer(now, call)
    }

    fn answer(&mut self, now: u64, call: &Call) -> (Reply, Vec<Wakening>) {
        for terms in &call.limits {
            let ring = self.rings.entry(terms.name).or_default();
            ring.adopt(now, terms);
            ring.advance(now);
        }
        let life = self.rings.values().map(|ring| ring.life).max().unwrap_or(0);
        self.members.retain(|_, member| !member.is_over(now, life));
        if self
            .missing
            .as_ref()
            .is_some_and(|missing| now > missing.until + life)
        {
            self.missing = None;
        }
        self.make_up(now, call);
        let is_new = !self.members.contains_key(&call.replica);
        self.meet(now, call);
        let mut wakenings = if is_new && !call.leaves {
            self.introduce(now, call.replica)
        } else {
            Vec::new()
        };
        for entry in &call.entries {
            self.enter(now, call, entry);
        }
        if let Some(seed) = &call.seed {
            self.sow(now, call, seed);
        }
        self.learn(now, call);
        let asks: Vec<Head> = call.asks.iter().map(|ask| head(ask, &call.limits)).collect();
        let pass = self.pass(now, call.replica, &asks, call.tiers);
        let totals = self.totals(now);
        let denied = pass.granted.contains(&false);
        let is_behind = pass.is_waited_for && self.is_behind(call);
        let wants_view = call.wants_view || denied || is_behind;
        let view = wants_view.then(|| {
            let slots = |terms: &Terms| self.rings.get(&terms.name).map(Ring::slots).unwrap_or_default();
            call.limits.iter().map(slots).collect()
        });
        let there = self.members.values().filter(|member| member.is_there(now));
        let mut reply = Reply {
            replicas: there.count() as u64,
            denial: pass.denial,
            denied_by: pass.denied_by,
            // That it has looked is known when it calls again.
            wake_at: if is_behind { now } else { pass.wake_at },
            totals: call
                .limits
                .iter()
                .map(|terms| totals.get(&terms.name).copied().unwrap_or(0))
                .collect(),
            tags: asks
                .iter()
                .map(|ask| self.fairness.tag(now, ask.tier, ask.tenant))
                .collect(),
            facts: if call.facts == self.facts_version {
                Vec::new()
            } else {
                self.facts()
            },
            names: self.names(now),
            view,
            granted: pass.granted,
            ..self.brief(
                now,
                if self.learning.is_some() {
                    Status::Learning
                } else {
                    Status::Open
                },
            )
        };
        self.part(now, call, asks, &mut reply);
        wakenings.extend(pass.wakenings);
        (reply, wakenings)
    }

    /// Lets the others call at once: nobody new is let in before they know of it.
    fn introduce(&self, now: u64, caller: u64) -> Vec<Wakening> {
        let others = self.members.iter();
        let there = others.filter(|(id, member)| **id != caller && member.is_there(now));
        there
            .map(|(id, _)| Wakening {
                replica: *id,
                at: now,
            })
            .collect()
    }

    /// Makes up for calls whose answers were given up.
    fn make_up(&mut self, now: u64, call: &Call) {
        let member = self.members.get(&call.replica);
        let (last, answer) = member.map_or((0, None), |member| {
            (member.sequence, Reply::from_numbers(&member.answer))
        });
        for missed in &call.missed {
            if missed.sequence > last {
                for entry in &missed.entries {
                    self.enter(now, call, entry);
                }
            }
            let Some(answer) = answer.as_ref().filter(|_| missed.sequence == last) else {
                continue;
            };
            let granted = missed
                .asks
                .iter()
                .zip(&answer.granted)
                .filter(|(_, granted)| **granted);
            for (takes, _) in granted {
                for (terms, take) in call.limits.iter().zip(takes) {
                    if let Some(ring) = self.rings.get_mut(&terms.name) {
                        ring.refund(answer.now, *take);
                    }
                }
            }
        }
    }

    /// Notes who calls, and what it holds.
    fn meet(&mut self, now: u64, call: &Call) {
        let member = self
            .members
            .entry(call.replica)
            .or_insert_with(|| Member::new(now));
        let sent = now.min(if call.time > 0 { call.time } else { now });
        if member.sequence == 0 {
            member.contact = sent;
        } else {
            member.confirm(is_answered(member.sequence, call));
        }
        member.sent = sent;
        member.sequence = call.sequence;
        member.beat = now;
        member.woken = 0;
        member.share_life = call.share_life;
        member.lease = call.lease;
        member.heads.clear();
        member.forget_others(&call.limits);
        for terms in &call.limits {
            member.held.insert(terms.name, terms.held);
        }
        if call.leaves {
            member.left = true;
            return;
        }
        // Whoever does not know the time is never in touch.
        let is_known = call.time > 0 && self.learning.is_none() && self.missing.is_none();
        let there = self
            .members
            .values()
            .filter(|member| member.is_there(now))
            .count() as u64;
        let others = self.members.iter().filter(|(id, _)| **id != call.replica);
        let taken: u64 = others.map(|(_, member)| member.claim(now)).sum();
        let all = if is_known { call.shares.min(SHARES) } else { 0 };
        if let Some(member) = self.members.get_mut(&call.replica) {
            member.told.share = (all / there.max(1)).min(all.saturating_sub(taken));
        }
    }

    /// Returns everybody of whom charges may count: whoever is told of them can say who is missing, should they be lost.
    fn names(&self, now: u64) -> Vec<u64> {
        let short = self.rings.iter().filter(|(name, _)| name.window() <= WINDOW_MAX);
        let life = short.map(|(_, ring)| ring.life).max().unwrap_or(0);
        let members = self
            .members
            .iter()
            .filter(|(_, member)| member.is_named(now, life));
        let mut names: BTreeSet<u64> = members.map(|(id, _)| *id).collect();
        if let Some(learning) = &self.learning {
            if learning.named.is_empty() {
                return Vec::new();
            }
            names.extend(&learning.named);
        }
        if let Some(missing) = &self.missing {
            names.extend(&missing.names);
        }
        names.into_iter().collect()
    }

    /// Returns whether a caller has yet to look at what everybody was asked to look at.
    fn is_behind(&self, call: &Call) -> bool {
        self.members.get(&call.replica).is_some_and(|member| {
            call.limits.iter().any(|terms| {
                let ring = self.rings.get(&terms.name);
                ring.is_some_and(|ring| member.is_behind(terms.name, ring.round))
            })
        })
    }

    /// Notes what the caller was told.
    fn part(&mut self, now: u64, call: &Call, asks: Vec<Head>, reply: &mut Reply) {
        let Some(member) = self.members.get_mut(&call.replica) else {
            return;
        };
        reply.share = if member.left { 0 } else { member.told.share };
        if !reply.names.is_empty() {
            member.told.at = now;
        }
        for (at, terms) in call.limits.iter().enumerate() {
            let granted = call
                .asks
                .iter()
                .zip(&reply.granted)
                .filter(|(_, granted)| **granted);
            let taken = granted
                .map(|(ask, _)| ask.take.get(at).copied().unwrap_or(0))
                .sum();
            if let Some(ring) = self.rings.get(&terms.name) {
                member.tell(terms.name, ring, taken, reply.view.is_some());
            }
        }
        if !member.left {
            let denied = asks
                .into_iter()
                .zip(&reply.granted)
                .filter(|(_, granted)| !**granted);
            member.heads = denied.map(|(ask, _)| ask).take(HEADS_MAX).collect();
        }
        member.woken = reply.wake_at;
        // Whoever repeats a call does not need to see everything again.
        let view = reply.view.take();
        member.answer = reply.numbers();
        reply.view = view;
    }

    fn enter(&mut self, now: u64, call: &Call, entry: &Entry) {
        let ring_of = |rings: &mut BTreeMap<LimitName, Ring>, limit: usize| {
            let name = call.limits.get(limit)?.name;
            rings.contains_key(&name).then_some(name)
        };
        match *entry {
            Entry::Refund { limit, stamp, amount } => {
                if let Some(name) = ring_of(&mut self.rings, limit)
                    && let Some(ring) = self.rings.get_mut(&name)
                {
                    ring.refund(stamp, amount);
                }
            }
            Entry::Charge { limit, stamp, amount } => {
                if let Some(name) = ring_of(&mut self.rings, limit)
                    && let Some(ring) = self.rings.get_mut(&name)
                {
                    ring.charge(now, if stamp == 0 { now } else { stamp }, amount);
                }
            }
            Entry::Used { limit, amount } => {
                if let Some(name) = ring_of(&mut self.rings, limit)
                    && let Some(ring) = self.rings.get_mut(&name)
                {
                    ring.charge(now, now, amount.saturating_sub(ring.live));
                    if let (Some(learning), Some(dimension)) = (&mut self.learning, name.dimension()) {
                        learning.proven.insert(dimension.index());
                    }
                }
            }
            Entry::Amount {
                limit,
                amount,
                source,
            } => {
                if let Some(name) = ring_of(&mut self.rings, limit)
                    && let Some(ring) = self.rings.get_mut(&name)
                    && (ring.told, ring.source) != (amount, source)
                {
                    (ring.told, ring.source) = (amount, source);
                    self.facts_version += 1;
                }
            }
            Entry::Pause { until } => self.paused_until = self.paused_until.max(until),
            Entry::Service { tier, tenant, by } => self.fairness.correct(tier, tenant, by),
        }
    }

    fn facts(&self) -> Vec<Fact> {
        let told = self.rings.iter().filter(|(_, ring)| ring.source > 0);
        told.map(|(name, ring)| Fact {
            name: *name,
            amount: ring.told,
            source: ring.source,
        })
        .collect()
    }

    /// Returns a reply that says nothing but how things stand.
    fn brief(&self, now: u64, status: Status) -> Reply {
        Reply {
            status,
            epoch: self.epoch,
            now,
            replicas: 0,
            share: 0,
            paused_until: if self.paused_until > now {
                self.paused_until
            } else {
                0
            },
            learning_until: self.learning.as_ref().map_or(0, |learning| learning.until),
            denial: Denial::None,
            denied_by: 0,
            wake_at: 0,
            facts_version: self.facts_version,
            granted: Vec::new(),
            totals: Vec::new(),
            tags: Vec::new(),
            facts: Vec::new(),
            names: Vec::new(),
            view: None,
        }
    }

    /// Returns the time of a call, which is never earlier than before; `None` if it is in doubt.
    ///
    /// It is the server's, unless the caller's own clock says otherwise by more than [`CLOCK_SLACK`]: then it is the
    /// caller's. A call that comes late looks as if the server's clock had jumped, and does no harm: its time has passed. Two
    /// calls of one replica, one sent after the other was answered, show that the clock did jump, and for good; one is enough
    /// where the clock is behind, for which no delay accounts. A caller who does not know the time, or that of another epoch,
    /// cannot tell, so it waits whether one who does calls meanwhile.
    fn time(&mut self, server_time: u64, call: &Call) -> Option<u64> {
        let raw = server_time.saturating_add_signed(self.skew);
        if call.time == 0 || (self.epoch != 0 && call.epoch != self.epoch) {
            let last = self.last;
            let is_alone = !self.members.values().any(|member| member.is_there(last));
            if is_alone || raw <= last + CLOCK_SLACK {
                return Some(raw.max(last));
            }
            if self.doubt == 0 || raw < self.doubt {
                self.doubt = raw;
            }
            if raw - self.doubt < SILENT_AFTER {
                return None;
            }
            self.doubt = 0;
            return Some(raw);
        }
        self.doubt = 0;
        let off = i64::try_from(call.time).unwrap_or(i64::MAX) - i64::try_from(raw).unwrap_or(i64::MAX);
        let is_off = |off: i64| off.unsigned_abs() > CLOCK_SLACK;
        if let Some(member) = self.members.get_mut(&call.replica)
            && call.sequence > member.sequence
        {
            let near = CLOCK_JITTER + off.unsigned_abs() / 64;
            let is_same = off.abs_diff(member.off) <= near && is_answered(member.sequence, call);
            if is_off(off) && (off > 0 || is_off(member.off) && is_same) {
                self.skew += off;
                member.off = 0;
            } else {
                member.off = off;
            }
        }
        Some(self.last.max(if is_off(off) { call.time } else { raw }))
    }
}

/// Returns whether a call comes right after the one with this number, but for those that it makes up for.
fn follows(last: u64, call: &Call) -> bool {
    let missed = |sequence: u64| call.missed.iter().any(|missed| missed.sequence == sequence);
    call.sequence > last
        && call.sequence - last <= MISSED_MAX as u64 + 1
        && (last + 1..call.sequence).all(missed)
}

/// Returns whether a caller has the answer to its call of a number, the last that came here, and has not given it up.
fn is_answered(last: u64, call: &Call) -> bool {
    call.missed.iter().all(|missed| missed.sequence != last)
}

/// Returns an ask as it waits, with limits by their names.
fn head(ask: &Ask, limits: &[Terms]) -> Head {
    let wants = limits.iter().enumerate().map(|(at, terms)| {
        let of = |amounts: &[u64]| amounts.get(at).copied().unwrap_or(0);
        (terms.name, of(&ask.take), of(&ask.hold))
    });
    Head {
        tier: ask.tier & 3,
        tenant: ask.tenant,
        cost: ask.cost,
        service: ask.service,
        arrived: ask.arrived,
        wants: wants.filter(|(_, take, hold)| take + hold > 0).collect(),
    }
}
