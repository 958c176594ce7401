//! When the book is called about limits and budgets that several replicas share, and what becomes of its answers.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::holding::{BEAT, Demanded, GAP, Holding};
use super::{Allowances, Allowed, Entry, Hold};
use crate::charge::Charge;
use crate::escrow::{Call, OWNERS_MAX, Reply};
use crate::plan::SharedPlan;
use crate::snapshot::Owner;
use crate::time::micros;

/// Whoever has anything calls so often at least, in microseconds.
const KEEPALIVE: u64 = 10_000_000;

/// The same where nothing may be used soon after the store is lost.
const KEEPALIVE_CLOSED: u64 = 1_000_000;

/// Where nothing may be used without the store: it is out of reach after this, in microseconds.
const CLOSED_AFTER: u64 = 2_000_000;

/// What is due so soon goes with a call, in microseconds.
const TOGETHER: u64 = 50_000;

/// What this process has to do with the book.
#[derive(Debug, Clone)]
pub(super) struct Escrow {
    plan: SharedPlan,
    process: u64,
    sequence: u64,
    sent: Option<Sent>,
    /// Whether the driver has been told that a call is due.
    is_announced: bool,
    is_leaving: bool,
    /// When the latest call was sent that was answered.
    contact: Option<u64>,
    /// When which allowance has to call.
    agenda: BTreeSet<(u64, u32)>,
}

/// A call whose answer is awaited, and when it was sent first.
#[derive(Debug, Clone)]
struct Sent {
    call: Call,
    at: u64,
}

impl Escrow {
    pub(super) const fn new(plan: SharedPlan, process: u64) -> Self {
        Self {
            plan,
            process,
            sequence: 0,
            sent: None,
            is_announced: false,
            is_leaving: false,
            contact: None,
            agenda: BTreeSet::new(),
        }
    }

    pub(super) const fn follow(&mut self, plan: SharedPlan) {
        self.plan = plan;
    }

    const fn is_closed(&self) -> bool {
        self.plan.share == 0
    }

    fn patience(&self) -> u64 {
        micros(self.plan.share_life)
    }

    /// Returns until when what was had at a contact with the book may be used.
    fn usable_until(&self, contact: Option<u64>) -> u64 {
        let Some(contact) = contact else { return 0 };
        let until = contact.saturating_add(self.patience());
        match self.contact {
            Some(latest) if self.is_closed() => until.min(latest.saturating_add(CLOSED_AFTER)),
            _ => until,
        }
    }

    fn keepalive(&self) -> u64 {
        let usual = if self.is_closed() {
            KEEPALIVE_CLOSED
        } else {
            KEEPALIVE
        };
        usual.min(self.patience() / 4)
    }

    /// Returns the moment until which an allowance may use what it has, for `Holding::room`.
    pub(super) fn until_of(&self, holding: Option<&Holding>) -> u64 {
        self.usable_until(holding.and_then(|holding| holding.contact))
    }
}

impl Allowances {
    /// Shares limits with other replicas from now on, if the plan says so.
    pub(super) fn share(&mut self, plan: Option<SharedPlan>, process: u64) {
        match (&mut self.escrow, plan) {
            (Some(escrow), Some(plan)) => escrow.follow(plan),
            (None, Some(plan)) => self.escrow = Some(Box::new(Escrow::new(plan, process))),
            (_, None) => {}
        }
    }

    /// Returns whether limits are shared with other replicas.
    pub(crate) const fn is_shared(&self) -> bool {
        self.escrow.is_some()
    }

    /// Sees to it that the book is called about an allowance at a moment, or earlier.
    fn call_by(&mut self, place: u32, at: u64) {
        let known = self.list.get(place as usize).and_then(|own| own.holding.as_ref());
        if known.is_none_or(|holding| holding.call_at.is_none_or(|known| known > at)) {
            self.call_at(place, Some(at));
        }
    }

    /// Sets when the book is called about an allowance.
    fn call_at(&mut self, place: u32, at: Option<u64>) {
        let (Some(escrow), Some(allowance)) = (&mut self.escrow, self.list.get_mut(place as usize)) else {
            return;
        };
        let holding = allowance.holding.get_or_insert_default();
        if let Some(known) = holding.call_at {
            escrow.agenda.remove(&(known, place));
        }
        holding.call_at = at;
        if let Some(at) = at {
            escrow.agenda.insert((at, place));
        }
    }

    /// Nobody has to call about an allowance any more, because another takes its place.
    pub(super) fn call_no_more(&mut self, place: u32) {
        if self.escrow.is_some() {
            self.call_at(place, None);
        }
    }

    /// Somebody waits for an allowance who needs more than this replica has: the book is asked for it.
    pub(super) fn ask_for_more(&mut self, now: u64, entry: Entry) {
        let Some(holding) = self.entry(entry).and_then(|own| own.holding.as_ref()) else {
            return;
        };
        if holding.is_short {
            let gap = if holding.is_denied { BEAT } else { GAP };
            self.call_by(entry.place, now.max(holding.called_at.saturating_add(gap)));
        }
    }

    /// Takes note of what was taken from allowances.
    pub(super) fn note_taken(&mut self, now: u64, allowed: Allowed, charge: &Charge, hold: Hold) {
        for entry in allowed.0 {
            let Some(allowance) = self.entry_mut(entry) else {
                continue;
            };
            let holding = allowance.holding.get_or_insert_default();
            holding.taken_at = now;
            let mut is_low = false;
            for meter in &allowance.meters {
                let weight = charge.amount(meter.dimension()).value();
                is_low |= holding.take(meter.ledger_name(), meter.used(), weight);
            }
            for account in &mut allowance.accounts {
                let (used, held) = account.in_use(now);
                is_low |= holding.take(account.name(now), used.saturating_add(held), account.part(hold));
            }
            if is_low {
                let at = holding.called_at.saturating_add(BEAT).max(now);
                self.call_by(entry.place, at);
            }
        }
    }

    /// Takes note that something was given back or settled, for which others may wait.
    pub(super) fn note_ended(&mut self, now: u64, allowed: Allowed) {
        for entry in allowed.0 {
            let Some(holding) = self.entry(entry).and_then(|own| own.holding.as_ref()) else {
                continue;
            };
            let gap = if holding.is_pressed() { GAP } else { KEEPALIVE };
            self.call_by(entry.place, now.max(holding.called_at.saturating_add(gap)));
        }
    }

    /// Returns when the book has to be called, if no call is under way.
    pub(crate) fn escrow_wake(&self) -> Option<u64> {
        let escrow = self.escrow.as_ref()?;
        if escrow.sent.is_some() || escrow.is_announced {
            return None;
        }
        escrow.agenda.first().map(|(at, _)| *at)
    }

    /// Returns whether a call is due that the driver has not been told of.
    pub(crate) fn announces(&mut self, now: u64) -> bool {
        let is_due = self.escrow_wake().is_some_and(|at| at <= now);
        if let Some(escrow) = self.escrow.as_mut().filter(|_| is_due) {
            escrow.is_announced = true;
        }
        is_due
    }

    /// Returns the call again whose answer has not come, if one is under way.
    pub(crate) fn escrow_call_again(&mut self) -> Option<Call> {
        let escrow = self.escrow.as_mut()?;
        escrow.is_announced = false;
        escrow.sent.as_ref().map(|sent| sent.call.clone())
    }

    /// Returns the allowances of which a call is due, with nothing demanded yet.
    pub(crate) fn escrow_due(&self, now: u64) -> BTreeMap<u32, Demanded> {
        let agenda = self.escrow.iter().flat_map(|escrow| &escrow.agenda);
        let due = agenda.take_while(|(at, _)| *at <= now.saturating_add(TOGETHER));
        due.take(OWNERS_MAX)
            .map(|(_, place)| (*place, Demanded::default()))
            .collect()
    }

    /// Adds what somebody in line needs to what is demanded.
    pub(crate) fn demand(
        &self,
        demanded: &mut BTreeMap<u32, Demanded>,
        allowed: Allowed,
        charge: &Charge,
        hold: Hold,
    ) {
        for entry in allowed.0 {
            if self.entry(entry).is_some()
                && let Some(sum) = demanded.get_mut(&entry.place)
            {
                sum.charge.add(charge);
                sum.hold.tokens = sum.hold.tokens.saturating_add(hold.tokens);
                sum.hold.cost = sum.hold.cost.saturating_add(hold.cost);
                sum.requests += 1;
            }
        }
    }

    /// Makes the call about these allowances.
    pub(crate) fn escrow_call(&mut self, now: u64, due: &BTreeMap<u32, Demanded>) -> Option<Call> {
        let escrow = self.escrow.as_ref()?;
        let (plan, is_leaving) = (escrow.plan, escrow.is_leaving);
        let (mut owners, mut leaves) = (Vec::with_capacity(due.len()), is_leaving);
        for (place, demanded) in due {
            self.call_at(*place, None);
            if let Some(allowance) = self.list.get_mut(*place as usize) {
                let (claims, is_left) = allowance.claims(now, &plan, is_leaving, demanded);
                leaves &= is_left;
                owners.push(claims);
            }
        }
        let escrow = self.escrow.as_mut().filter(|_| !owners.is_empty())?;
        escrow.sequence += 1;
        let call = Call {
            replica: escrow.process,
            sequence: escrow.sequence,
            patience: escrow.patience(),
            leaves,
            trusts_empty: escrow.plan.trusts_empty,
            owners,
        };
        escrow.sent = Some(Sent {
            call: call.clone(),
            at: now,
        });
        Some(call)
    }

    /// Takes note of the answer to a call. Returns the groups in which somebody waits for what it is about.
    pub(crate) fn escrow_answer(&mut self, now: u64, sequence: u64, reply: &Reply) -> Vec<(u32, Owner)> {
        let Some(escrow) = &mut self.escrow else {
            return Vec::new();
        };
        let is_awaited = |sent: &mut Sent| sent.call.sequence == sequence;
        let Some(sent) = escrow.sent.take_if(is_awaited) else {
            return Vec::new();
        };
        escrow.contact = Some(sent.at);
        let (keepalive, lease) = (escrow.keepalive(), micros(escrow.plan.lease));
        let mut waiters = Vec::new();
        for (claims, grants) in sent.call.owners.iter().zip(&reply.owners) {
            let Some(place) = self.index.get(&claims.owner).copied() else {
                continue;
            };
            let Some(allowance) = self.list.get_mut(place as usize) else {
                continue;
            };
            let limits = allowance.limited(now, lease, &Demanded::default());
            let Some(holding) = &mut allowance.holding else {
                continue;
            };
            holding.note(sent.at, claims, (grants.epoch, &grants.limits), &limits);
            let is_used = limits.iter().any(|limit| limit.used > 0);
            let next = if sent.call.leaves {
                holding.parts.iter_mut().for_each(|part| part.has = 0);
                None
            } else {
                holding.next_call(now, keepalive, is_used, &limits)
            };
            let owner = allowance.owner;
            let found = core::mem::take(&mut allowance.waiters).into_iter();
            waiters.extend(found.map(|group| (group, owner)));
            let known = allowance.holding.as_ref().and_then(|holding| holding.call_at);
            let is_denied = allowance
                .holding
                .as_ref()
                .is_some_and(|holding| holding.is_denied);
            self.call_at(place, if is_denied { next } else { earlier(known, next) });
        }
        waiters
    }

    /// The book says that others are short of what this replica has of an owner's limits, or that there is something for it.
    pub(crate) fn escrow_wakened(&mut self, now: u64, owner: Owner) {
        let is_under_way = self.escrow.as_ref().is_some_and(|escrow| escrow.sent.is_some());
        let Some(place) = self.index.get(&owner).copied() else {
            return;
        };
        let known = self
            .list
            .get_mut(place as usize)
            .and_then(|own| own.holding.as_mut());
        let Some(holding) = known else { return };
        holding.is_woken = is_under_way;
        for part in &mut holding.parts {
            part.is_pressed = true;
        }
        self.call_by(place, now);
    }

    /// The store was connected to: it may have lost what this replica has, and is told.
    pub(crate) fn escrow_reached(&mut self, now: u64) {
        for place in 0..self.list.len() {
            let holding = self.list[place].holding.as_deref();
            if holding.is_some_and(|holding| holding.epoch != 0)
                && let Ok(place) = u32::try_from(place)
            {
                self.call_by(place, now);
            }
        }
    }

    /// Gives back whatever is not in use, because the process ends.
    pub(crate) fn leave(&mut self, now: u64) {
        let Some(escrow) = &mut self.escrow else { return };
        escrow.is_leaving = true;
        self.escrow_reached(now);
    }
}

fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}
