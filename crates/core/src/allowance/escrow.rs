//! What this replica has of limits and budgets that several share: what it tells the book, what it makes of its answers, and
//! how much of a limit may be used meanwhile.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::{Allowance, Allowances, Allowed, Entry, Hold};
use crate::charge::Charge;
use crate::escrow::{AMOUNT_MAX, Call, Claim, Claims, Grant, OWNERS_MAX, Reply};
use crate::ledger::LimitName;
use crate::plan::SharedPlan;
use crate::snapshot::{EscrowSnapshot, Owner};
use crate::time::{Timestamp, micros};
use crate::units::{Amount, Dimension};

/// Whoever is short, or whose use others wait for, calls so often, in microseconds.
const BEAT: u64 = 300_000;

/// Calls about one owner are at least so far apart, in microseconds.
const GAP: u64 = 5_000;

/// Whoever has anything calls so often at least, in microseconds.
const KEEPALIVE: u64 = 10_000_000;

/// The same where nothing may be used soon after the store is lost.
const KEEPALIVE_CLOSED: u64 = 1_000_000;

/// Where nothing may be used without the store: it is out of reach after this, in microseconds.
const CLOSED_AFTER: u64 = 2_000_000;

/// What is due so soon goes with a call, in microseconds.
const TOGETHER: u64 = 50_000;

/// Nothing is kept ready for somebody who has not used anything for so long, in microseconds.
const IDLE_AFTER: u64 = KEEPALIVE;

/// At most this part of a limit is kept ready.
const READY_PART: u64 = 8;

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

/// What this replica has of an owner's limits.
#[derive(Debug, Clone, Default)]
pub(super) struct Holding {
    epoch: u64,
    /// When the latest call about it was sent that was answered.
    contact: Option<u64>,
    called_at: u64,
    call_at: Option<u64>,
    /// When something was taken last.
    taken_at: u64,
    /// Whether somebody waits who needs more than there is.
    is_short: bool,
    /// Whether the latest answer brought less than the first of them needs.
    is_denied: bool,
    /// Whether it was told to call while a call was under way.
    is_woken: bool,
    parts: Vec<Part>,
}

/// What this replica has of one limit or budget.
#[derive(Debug, Clone, Copy)]
struct Part {
    name: LimitName,
    has: u64,
    /// What may be used while a call is under way.
    floor: Option<u64>,
    /// What may still be taken while others are short, whatever becomes free here.
    credit: u64,
    is_pressed: bool,
    /// What others have used of a budget.
    spent: u64,
    /// What the first of those who wait needs; 0: nobody does.
    least: u64,
    /// What was taken since the latest call, what was kept ready then, and what a request takes.
    taken: u64,
    ready: u64,
    usual: u64,
}

/// What waits for an allowance: sums over those in line.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Demanded {
    charge: Charge,
    hold: Hold,
    requests: u64,
}

/// One limit or budget of an allowance, as it is now.
struct Limited {
    name: LimitName,
    amount: u64,
    life: u64,
    used: u64,
    spent: u64,
    demand: u64,
}

impl Part {
    const fn new(name: LimitName) -> Self {
        Self {
            name,
            has: 0,
            floor: None,
            credit: 0,
            is_pressed: false,
            spent: 0,
            least: 0,
            taken: 0,
            ready: 0,
            usual: 1,
        }
    }

    /// Returns how much may be used in all.
    fn bound(&self) -> u64 {
        self.floor.map_or(self.has, |floor| floor.min(self.has))
    }

    /// Returns how much more may be taken where so much is in use.
    fn room(&self, used: u64) -> u64 {
        let room = self.bound().saturating_sub(used);
        if self.is_pressed {
            room.min(self.credit)
        } else {
            room
        }
    }
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

    /// Returns the moment until which an allowance may use what it has, for [`Holding::room`].
    pub(super) fn until_of(&self, holding: Option<&Holding>) -> u64 {
        self.usable_until(holding.and_then(|holding| holding.contact))
    }
}

impl Holding {
    fn part_mut(&mut self, name: LimitName) -> &mut Part {
        let at = self.parts.iter().position(|part| part.name == name);
        let at = at.unwrap_or_else(|| {
            self.parts.push(Part::new(name));
            self.parts.len() - 1
        });
        &mut self.parts[at]
    }

    fn part(&self, name: LimitName) -> Part {
        let known = self.parts.iter().find(|part| part.name == name);
        known.copied().unwrap_or(Part::new(name))
    }

    /// Returns what others have used of a budget.
    pub(super) fn spent(&self, name: LimitName) -> u64 {
        self.part(name).spent
    }

    /// Returns whether so much may be taken of a limit of which so much is in use. If not, the book has to be asked for it.
    pub(super) fn has_room(&mut self, is_usable: bool, name: LimitName, used: u64, weight: u64) -> bool {
        let part = self.part_mut(name);
        if is_usable && weight <= part.room(used) {
            return true;
        }
        part.least = part.least.max(weight);
        self.is_short = true;
        false
    }

    /// Takes note of what was taken, of which so much is in use now. Returns whether more should be kept ready.
    fn take(&mut self, name: LimitName, used: u64, weight: u64) -> bool {
        let part = self.part_mut(name);
        part.credit = part.credit.saturating_sub(weight);
        part.taken = part.taken.saturating_add(weight);
        part.usual = weight.max(1);
        part.room(used) < part.usual.max(part.ready / 2)
    }

    fn is_pressed(&self) -> bool {
        self.parts.iter().any(|part| part.is_pressed && part.has > 0)
    }

    pub(super) fn has_nothing(&self) -> bool {
        self.parts.iter().all(|part| part.has == 0)
    }
}

impl Allowance {
    /// Returns its limits and budgets as the book is told of them, with what waits for them.
    fn limited(&mut self, now: u64, lease: u64, demanded: &Demanded) -> Vec<Limited> {
        self.advance(now);
        let mut list: Vec<Limited> = Vec::with_capacity(self.meters.len() + self.accounts.len());
        for meter in &self.meters {
            let is_held = meter.dimension() == Dimension::Concurrency;
            let one = Limited {
                name: meter.ledger_name(),
                amount: meter.amount(),
                life: if is_held {
                    lease
                } else {
                    meter.window().saturating_add(meter.width())
                },
                used: meter.used(),
                spent: 0,
                demand: demanded.charge.amount(meter.dimension()).value(),
            };
            match list.iter_mut().find(|other| other.name == one.name) {
                Some(other) => other.amount = other.amount.min(one.amount),
                None => list.push(one),
            }
        }
        for account in &mut self.accounts {
            let (used, held) = account.in_use(now);
            let one = Limited {
                name: account.name(now),
                amount: account.amount(),
                life: account.rest(now),
                used: used.saturating_add(held),
                spent: used,
                demand: account.part(demanded.hold).max(demanded.requests),
            };
            match list.iter_mut().find(|other| other.name == one.name) {
                Some(other) => other.amount = other.amount.min(one.amount),
                None => list.push(one),
            }
        }
        list
    }

    /// Makes what is said of it in a call, and keeps to it from now on.
    fn claims(
        &mut self,
        now: u64,
        plan: &SharedPlan,
        is_leaving: bool,
        demanded: &Demanded,
    ) -> (Claims, bool) {
        let limits = self.limited(now, micros(plan.lease), demanded);
        let mut holding = self.holding.take().unwrap_or_default();
        let patience = micros(plan.share_life);
        if holding
            .contact
            .is_none_or(|contact| now >= contact.saturating_add(patience))
        {
            // Others may have it by now.
            holding.epoch = 0;
            holding.parts.iter_mut().for_each(|part| part.has = 0);
        }
        holding
            .parts
            .retain(|part| limits.iter().any(|limit| limit.name == part.name));
        let is_short = core::mem::take(&mut holding.is_short) && demanded.requests > 0;
        let leaves = is_leaving && !is_short;
        let is_idle = leaves || now.saturating_sub(holding.taken_at) > IDLE_AFTER;
        let since = now.saturating_sub(holding.called_at).max(BEAT);
        let claim = |limit: &Limited| {
            let part = holding.part_mut(limit.name);
            let amount = limit.amount.min(AMOUNT_MAX);
            let used = limit.used.min(AMOUNT_MAX);
            let least = core::mem::take(&mut part.least).min(amount);
            let (least, need) = if is_short && least > 0 {
                (least, limit.demand.clamp(least, amount))
            } else {
                (0, 0)
            };
            let lately = u128::from(part.taken) * 2 * u128::from(BEAT) / u128::from(since);
            let lately = u64::try_from(lately).unwrap_or(AMOUNT_MAX);
            let ready = if (is_idle && need == 0) || part.is_pressed {
                0
            } else {
                lately.min(amount / READY_PART).max(part.usual).min(amount)
            };
            let spare = part.bound().saturating_sub(used).min(ready);
            let keep = used + if need > 0 { 0 } else { spare };
            part.floor = Some(keep);
            (part.taken, part.ready) = (0, ready);
            Claim {
                name: limit.name,
                amount,
                life: limit.life,
                keep,
                need,
                least,
                want: keep.max(used.saturating_add(need).saturating_add(ready).min(amount)),
                spent: limit.spent.min(AMOUNT_MAX),
            }
        };
        let limits = limits.iter().map(claim).collect();
        holding.called_at = now;
        let claims = Claims {
            owner: self.owner,
            epoch: holding.epoch,
            limits,
        };
        self.holding = Some(holding);
        (claims, leaves)
    }

    pub(super) fn escrow_snapshot(&mut self, now: u64) -> Option<EscrowSnapshot> {
        let limits = self.limited(now, 0, &Demanded::default());
        let holding = self.holding.as_ref()?;
        let meters = self.meters.iter().map(crate::meter::Meter::ledger_name);
        let names: Vec<LimitName> = meters.chain(limits.iter().map(|limit| limit.name)).collect();
        let (own, budgets) = names.split_at(self.meters.len());
        let has = |name: &LimitName| Amount::new(holding.part(*name).has);
        let budgets = budgets.iter().filter(|name| name.dimension().is_none());
        Some(EscrowSnapshot {
            limits: own.iter().map(has).collect(),
            budgets: budgets.clone().map(has).collect(),
            spent_elsewhere: budgets.map(|name| Amount::new(holding.spent(*name))).collect(),
            is_pressed: holding.is_pressed(),
            contact: holding.contact.map(Timestamp::from_micros),
        })
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

impl Holding {
    /// Takes note of what an answer says.
    fn note(&mut self, sent: u64, claims: &Claims, (epoch, grants): (u64, &[Grant]), limits: &[Limited]) {
        for part in &mut self.parts {
            part.floor = None;
        }
        self.is_denied = false;
        if epoch == 0 {
            // It is of no use, and cannot be: nothing is had by it.
            for part in &mut self.parts {
                part.has = 0;
            }
            self.is_denied = true;
            return;
        }
        (self.epoch, self.contact) = (epoch, Some(sent));
        for (claim, grant) in claims.limits.iter().zip(grants) {
            let Some(part) = self.parts.iter_mut().find(|part| part.name == claim.name) else {
                continue;
            };
            let used = limits.iter().find(|limit| limit.name == claim.name);
            let used = used.map_or(0, |limit| limit.used);
            (part.has, part.is_pressed) = (grant.has, grant.is_pressed);
            part.credit = grant.has.saturating_sub(used);
            part.spent = part.spent.max(grant.spent);
            self.is_denied |= grant.has < claim.keep.saturating_add(claim.least);
        }
    }

    /// Returns when the book has to be called next.
    fn next_call(&mut self, now: u64, keepalive: u64, is_used: bool, limits: &[Limited]) -> Option<u64> {
        let is_spare = |part: &Part| {
            let used = limits.iter().find(|limit| limit.name == part.name);
            part.is_pressed && part.has > used.map_or(0, |limit| limit.used)
        };
        let called_at = self.called_at;
        if core::mem::take(&mut self.is_woken) {
            self.is_denied = false;
            Some(now)
        } else if !self.is_denied && self.parts.iter().any(is_spare) {
            Some(now.max(called_at.saturating_add(GAP)))
        } else if self.is_denied || self.is_pressed() {
            Some(called_at.saturating_add(BEAT))
        } else if is_used || !self.has_nothing() {
            Some(called_at.saturating_add(keepalive))
        } else {
            // Whoever has nothing does not care what becomes of the book.
            self.epoch = 0;
            None
        }
    }
}

fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}
