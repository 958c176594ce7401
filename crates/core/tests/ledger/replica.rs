//! An honest replica: what the protocol lets it do, and it does all of that.

use std::collections::BTreeMap;

use tidegate_core::ledger::{CLOCK_SLACK, NAMES_KEPT};

use super::*;

/// A grant is used within so long of its call's sending.
pub(super) const VALID: u64 = 100_000;

const BEAT: u64 = 300_000;
const RESEND: u64 = 250_000;
const MISSED_MAX: usize = 16;

/// Something that was asked for: how much of each limit.
pub(super) type Demand = Vec<u64>;

/// What tells a call from all others: replica, epoch and number.
pub(super) type Key = (u64, u64, u64);

pub(super) fn key(call: &Call) -> Key {
    (call.replica, call.epoch, call.sequence)
}

/// A call whose answer is awaited.
#[derive(Debug, Clone)]
struct Sent {
    call: Call,
    demands: Vec<Demand>,
    first: u64,
    last: u64,
}

/// What it does while it is cut off.
#[derive(Debug, Clone)]
struct Alone {
    /// What it knew: when each charge expires by the ledger's clock, limit, and amount.
    known: Vec<(u64, usize, u64)>,
    since: u64,
    share: u64,
    /// What it has let in: when that is free again, and the demand.
    lives: Vec<(u64, Demand)>,
}

/// What comes of a look at the clock or at an answer.
#[derive(Default)]
pub(super) struct Doings {
    pub(super) call: Option<Call>,
    /// Demands that may be used until a moment by its own clock, and when they were charged by the ledger's.
    pub(super) uses: Vec<(Demand, u64, u64)>,
}

#[derive(Debug, Clone)]
pub(super) struct Replica {
    pub(super) id: u64,
    pub(super) limits: Vec<Terms>,
    pub(super) shares: u64,
    pub(super) share_life: u64,
    pub(super) lease: u64,
    pub(super) trusts_empty: bool,
    pub(super) queue: Vec<Demand>,
    pub(super) leaving: bool,
    pub(super) left: bool,
    pub(super) epoch: u64,
    next_epoch: u64,
    sequence: u64,
    sent: Option<Sent>,
    missed: Vec<Missed>,
    /// The ledger's clock less its own.
    offset: Option<i64>,
    contact: Option<u64>,
    pub(super) share: u64,
    names: Vec<u64>,
    /// Everybody's charges as last seen, limit, slot and amount, and its own since, limit, bucket and amount.
    view: Vec<(usize, u64, u64)>,
    since: Vec<(usize, u64, u64)>,
    /// Its own charges.
    own: BTreeMap<(usize, u64), u64>,
    entries: Vec<Entry>,
    /// When, of which limit, charged when, how much.
    refunds: Vec<(u64, usize, u64, u64)>,
    alone: Option<Alone>,
    /// It has lived on its share for as long as it may, or was answered too late to go on with it.
    closed: bool,
    has_lost: bool,
    wake_at: Option<u64>,
    quiet: bool,
}

impl Replica {
    pub(super) fn new(id: u64, limits: Vec<Terms>, shares: u64) -> Self {
        Self {
            id,
            limits,
            shares,
            share_life: SHARE_LIFE,
            lease: LEASE,
            trusts_empty: false,
            queue: Vec::new(),
            leaving: false,
            left: false,
            epoch: 0,
            next_epoch: id << 20,
            sequence: 0,
            sent: None,
            missed: Vec::new(),
            offset: None,
            contact: None,
            share: 0,
            names: Vec::new(),
            view: Vec::new(),
            since: Vec::new(),
            own: BTreeMap::new(),
            entries: Vec::new(),
            refunds: Vec::new(),
            alone: None,
            closed: false,
            has_lost: false,
            wake_at: None,
            quiet: false,
        }
    }

    /// Whether it waits for nothing and has nothing to tell.
    pub(super) fn is_quiet(&self) -> bool {
        self.sent.is_none()
            && self.missed.is_empty()
            && self.entries.is_empty()
            && self.refunds.is_empty()
            && !self.has_lost
    }

    pub(super) fn is_answered(&self) -> bool {
        self.sent.is_none()
    }

    /// The share that it may use when it is cut off.
    pub(super) fn claim(&self, now: u64) -> u64 {
        let is_over = |contact| now - contact >= self.share_life;
        if self.left || self.closed || self.contact.is_none_or(is_over) {
            0
        } else {
            self.share
        }
    }

    pub(super) fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    pub(super) fn is_in_touch(&self, now: u64) -> bool {
        self.contact.is_some_and(|contact| now - contact < SECOND)
    }

    fn there(&self, now: u64) -> u64 {
        now.saturating_add_signed(self.offset.unwrap_or(0))
    }

    fn life(&self) -> u64 {
        self.limits.iter().map(|terms| terms.life).max().unwrap_or(0)
    }

    /// Somebody will turn out to have used less than was let in for.
    pub(super) fn will_refund(&mut self, at: u64, limit: usize, stamp: u64, amount: u64) {
        self.refunds.push((at, limit, stamp, amount));
    }

    fn refund(&mut self, limit: usize, stamp: u64, amount: u64) {
        self.entries.push(Entry::Refund { limit, stamp, amount });
        let bucket = stamp / self.limits[limit].width;
        if let Some(own) = self.own.get_mut(&(limit, bucket)) {
            *own = own.saturating_sub(amount);
        }
    }

    /// Looks at the clock.
    pub(super) fn tick(&mut self, now: u64) -> Doings {
        let mut doings = Doings::default();
        if self.left {
            return doings;
        }
        let (due, later) = self.refunds.iter().partition(|refund| refund.0 <= now);
        self.refunds = later;
        let due: Vec<(u64, usize, u64, u64)> = due;
        for (_, limit, stamp, amount) in due {
            self.refund(limit, stamp, amount);
        }
        self.keep_in_touch(now);
        self.go_alone(now, &mut doings);
        let gives_up = (self.alone.is_some() || self.closed) && self.missed.len() < MISSED_MAX;
        if let Some(sent) = &mut self.sent
            && now - sent.last >= RESEND
        {
            if gives_up {
                self.give_up();
            } else {
                sent.last = now;
                doings.call = Some(sent.call.clone());
            }
        }
        if self.sent.is_none() {
            let is_due = self.wake_at.is_some_and(|at| at <= now);
            let has_to_ask = !self.queue.is_empty() && !self.quiet && self.alone.is_none() && !self.closed;
            if is_due || has_to_ask || !self.entries.is_empty() || self.has_lost || self.leaving {
                doings.call = Some(self.call(now));
            }
        }
        doings
    }

    /// The ledger says that it goes next.
    pub(super) fn wake(&mut self, now: u64, at: u64) {
        let at = at.saturating_add_signed(-self.offset.unwrap_or(0)).max(now);
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    fn give_up(&mut self) {
        if let Some(sent) = self.sent.take() {
            self.missed.push(Missed {
                sequence: sent.call.sequence,
                entries: sent.call.entries,
                asks: sent.call.asks.into_iter().map(|ask| ask.take).collect(),
            });
            self.queue.splice(0..0, sent.demands);
            self.wake_at = Some(0);
        }
    }

    fn keep_in_touch(&mut self, now: u64) {
        let Some(contact) = self.contact else { return };
        let silent = now - contact;
        if silent >= self.share_life && (self.alone.is_some() || silent >= 2 * SECOND) {
            self.alone = None;
            self.closed = true;
        } else if silent >= 2 * SECOND && self.alone.is_none() && !self.closed {
            let limits = &self.limits;
            let view = self.view.iter().map(|(limit, slot, amount)| {
                let terms = &limits[*limit];
                ((slot + 1) * 10 * terms.width + terms.life, *limit, *amount)
            });
            let since = self.since.iter().map(|(limit, bucket, amount)| {
                let terms = &limits[*limit];
                ((bucket + 1) * terms.width + terms.life, *limit, *amount)
            });
            self.alone = Some(Alone {
                known: view.chain(since).collect(),
                since: self.there(now),
                share: self.share,
                lives: Vec::new(),
            });
            self.quiet = false;
            self.wake_at = Some(now);
        }
    }

    /// Lets in what its share has room for.
    fn go_alone(&mut self, now: u64, doings: &mut Doings) {
        let there = self.there(now);
        let life = self.life() + 2 * WIDTH;
        let Some(alone) = &mut self.alone else { return };
        alone.lives.retain(|(free, _)| *free > now);
        while let Some(first) = self.queue.first() {
            let has_room = |limit: usize, amount: &u64| {
                let expired: u64 = alone
                    .known
                    .iter()
                    .filter(|(at, of, _)| *of == limit && *at > alone.since && *at <= there)
                    .map(|(_, _, amount)| amount)
                    .sum();
                let lives: u64 = alone.lives.iter().map(|(_, demand)| demand[limit]).sum();
                lives + amount <= expired * alone.share / 1_000_000
            };
            if !first
                .iter()
                .enumerate()
                .all(|(limit, amount)| has_room(limit, amount))
            {
                break;
            }
            let demand = self.queue.remove(0);
            for (limit, amount) in demand.iter().enumerate() {
                let stamp = there;
                let amount = *amount;
                self.entries.push(Entry::Charge { limit, stamp, amount });
                *self
                    .own
                    .entry((limit, stamp / self.limits[limit].width))
                    .or_default() += amount;
            }
            doings.uses.push((demand.clone(), now + VALID, there));
            alone.lives.push((now + life, demand));
        }
    }

    /// Makes the next call.
    fn call(&mut self, now: u64) -> Call {
        let patience = self.share_life.max(self.lease) + self.life() + 5 * SECOND;
        if self.contact.is_some_and(|contact| now - contact > patience) {
            self.join_anew();
        }
        let first_seen = now.saturating_add_signed(self.offset.unwrap_or(0));
        let oldest = first_seen.saturating_sub(self.life() + 2 * SECOND);
        let widths: Vec<u64> = self.limits.iter().map(|terms| terms.width).collect();
        self.own
            .retain(|(limit, bucket), amount| *amount > 0 && (bucket + 1) * widths[*limit] > oldest);
        if self.has_lost {
            // What it says of its own charges is after all corrections: they must not count twice.
            self.entries.clear();
        }
        let seed = core::mem::take(&mut self.has_lost).then(|| Seed {
            own: self
                .own
                .iter()
                .map(|((limit, bucket), amount)| (*limit, bucket * widths[*limit], *amount))
                .collect(),
            seen: Vec::new(),
            names: self.names.clone(),
        });
        let asks_for = if self.alone.is_some() || self.closed || seed.is_some() {
            0
        } else {
            self.queue.len().min(6)
        };
        let demands: Vec<Demand> = self.queue.drain(..asks_for).collect();
        self.sequence += 1;
        self.wake_at = Some(now + BEAT);
        let call = Call {
            replica: self.id,
            sequence: self.sequence,
            epoch: self.epoch,
            next_epoch: self.next_epoch,
            time: self.offset.map_or(0, |_| self.there(now)),
            shares: self.shares,
            share_life: self.share_life,
            lease: self.lease,
            tiers: [0; 4],
            trusts_empty: self.trusts_empty,
            leaves: self.leaving
                && self.queue.is_empty()
                && self.refunds.is_empty()
                && self.alone.is_none()
                && demands.is_empty(),
            wants_view: true,
            limits: self.limits.clone(),
            entries: core::mem::take(&mut self.entries),
            asks: demands
                .iter()
                .map(|demand| Ask {
                    take: demand.clone(),
                    hold: vec![0; demand.len()],
                    ..ask_of(1, 1, 0, demand[0])
                })
                .collect(),
            missed: self.missed.clone(),
            seed,
            ..Call::default()
        };
        self.sent = Some(Sent {
            call: call.clone(),
            demands,
            first: now,
            last: now,
        });
        call
    }

    fn join_anew(&mut self) {
        self.id += 1 << 40;
        self.next_epoch += 1 << 10;
        (self.epoch, self.sequence, self.contact) = (0, 0, None);
        self.missed.clear();
        self.entries.clear();
        self.own.clear();
        self.names.clear();
        self.refunds.clear();
        (self.alone, self.closed, self.has_lost) = (None, false, false);
    }

    /// Takes note of an answer to a call. Numbers of calls begin anew with every epoch.
    pub(super) fn answer(&mut self, now: u64, to: Key, reply: &Reply) -> Doings {
        let mut doings = Doings::default();
        if self.sent.as_ref().is_none_or(|sent| key(&sent.call) != to) || reply.now == 0 {
            return doings;
        }
        let Some(sent) = self.sent.take() else {
            return doings;
        };
        let round = now - sent.last;
        let measured = reply.now as i64 - (now - round / 2) as i64;
        let is_exact = round <= VALID && sent.first == sent.last;
        if reply.status == Status::Lost && !is_exact {
            // It does not say what time it is there.
            doings.call = Some(sent.call.clone());
            self.sent = Some(Sent {
                first: now,
                last: now,
                ..sent
            });
            return doings;
        }
        if reply.status == Status::Lost {
            self.lose(now, sent, reply, measured);
            return doings;
        }
        if reply.status == Status::Stale {
            assert!(self.leaving, "{reply:?}");
            self.left = true;
            return doings;
        }
        if is_exact
            && self
                .offset
                .is_none_or(|offset| (offset - measured).abs() > 2 * CLOCK_SLACK as i64)
        {
            self.offset = Some(measured);
        }
        self.epoch = reply.epoch;
        self.missed.clear();
        if sent.call.leaves {
            self.left = true;
            return doings;
        }
        if self.offset.is_some() && now - sent.first <= SECOND {
            self.contact = Some(sent.first);
            (self.alone, self.closed) = (None, false);
        } else if self.alone.is_some() {
            (self.alone, self.closed) = (None, true);
        }
        self.share = reply.share;
        if !reply.names.is_empty() {
            self.names.clone_from(&reply.names);
        }
        if let Some(view) = &reply.view {
            self.since.clear();
            self.view = (0..)
                .zip(view)
                .flat_map(|(limit, slots)| slots.iter().map(move |(slot, amount)| (limit, *slot, *amount)))
                .collect();
        }
        let is_late = now - sent.first > VALID || reply.status == Status::Learning;
        let mut back = Vec::new();
        for (demand, granted) in sent.demands.into_iter().zip(&reply.granted) {
            if !granted {
                back.push(demand);
                continue;
            }
            for (limit, amount) in demand.iter().enumerate().filter(|(_, amount)| **amount > 0) {
                let (stamp, amount) = (reply.now, *amount);
                let bucket = stamp / self.limits[limit].width;
                if is_late {
                    self.entries.push(Entry::Refund { limit, stamp, amount });
                } else {
                    *self.own.entry((limit, bucket)).or_default() += amount;
                }
                if reply.view.is_none() {
                    self.since.push((limit, bucket, amount));
                }
            }
            if is_late {
                back.push(demand);
            } else {
                doings.uses.push((demand, sent.first + VALID, reply.now));
            }
        }
        self.quiet = !back.is_empty();
        self.queue.splice(0..0, back);
        self.wake_at = Some(sent.first + BEAT);
        if reply.wake_at > 0 {
            self.wake(now, reply.wake_at);
        }
        self.quiet &= !self.queue.is_empty();
        doings
    }

    /// The ledger has lost something: it is told what is known.
    fn lose(&mut self, now: u64, sent: Sent, reply: &Reply, measured: i64) {
        self.queue.splice(0..0, sent.demands);
        let cut_off = self.alone.is_some()
            || self.closed
            || self.contact.is_none_or(|contact| now - contact > 2 * SECOND);
        let can_name = self
            .contact
            .is_some_and(|contact| now - contact <= NAMES_KEPT.min(self.life()));
        if !can_name {
            self.names.clear();
        }
        let shift = self.offset.map_or(0, |offset| measured - offset);
        if shift.unsigned_abs() > 2 * CLOCK_SLACK {
            // The ledger's time is another one.
            self.offset = Some(measured);
            for (_, _, stamp, _) in &mut self.refunds {
                *stamp = stamp.saturating_add_signed(shift);
            }
            let own = core::mem::take(&mut self.own);
            for ((limit, bucket), amount) in own {
                let width = self.limits[limit].width;
                let stamp = ((bucket + 1) * width - 1).saturating_add_signed(shift);
                *self.own.entry((limit, stamp / width)).or_default() += amount;
            }
        }
        (self.alone, self.closed) = (None, cut_off);
        self.epoch = reply.epoch;
        self.next_epoch += 1;
        self.sequence = 0;
        self.missed.clear();
        self.entries.clear();
        self.view.clear();
        self.since.clear();
        self.share = 0;
        self.has_lost = true;
        (self.quiet, self.wake_at) = (false, Some(now));
    }
}
