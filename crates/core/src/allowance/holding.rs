//! What this replica has of one owner's limits and budgets: how much of each may be used, and what the book is told of it.

use alloc::vec::Vec;

use super::{Allowance, Hold};
use crate::charge::Charge;
use crate::escrow::{AMOUNT_MAX, Claim, Claims, Grant};
use crate::ledger::LimitName;
use crate::plan::SharedPlan;
use crate::snapshot::EscrowSnapshot;
use crate::time::{Timestamp, micros};
use crate::units::{Amount, Dimension};

/// Whoever is short, or whose use others wait for, calls so often, in microseconds.
pub(super) const BEAT: u64 = 300_000;

/// Calls about one owner are at least so far apart, in microseconds.
pub(super) const GAP: u64 = 5_000;

/// Nothing is kept ready for somebody who has not used anything for so long, in microseconds.
const IDLE_AFTER: u64 = 10_000_000;

/// At most this part of a limit is kept ready.
const READY_PART: u64 = 8;

/// What this replica has of an owner's limits.
#[derive(Debug, Clone, Default)]
pub(super) struct Holding {
    pub(super) epoch: u64,
    /// When the latest call about it was sent that was answered.
    pub(super) contact: Option<u64>,
    pub(super) called_at: u64,
    pub(super) call_at: Option<u64>,
    /// When something was taken last.
    pub(super) taken_at: u64,
    /// Whether somebody waits who needs more than there is.
    pub(super) is_short: bool,
    /// Whether the latest answer brought less than the first of them needs.
    pub(super) is_denied: bool,
    /// Whether it was told to call while a call was under way.
    pub(super) is_woken: bool,
    pub(super) parts: Vec<Part>,
}

/// What this replica has of one limit or budget.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) name: LimitName,
    pub(super) has: u64,
    /// What may be used while a call is under way.
    pub(super) floor: Option<u64>,
    /// What may still be taken while others are short, whatever becomes free here.
    pub(super) credit: u64,
    pub(super) is_pressed: bool,
    /// What others have used of a budget.
    pub(super) spent: u64,
    /// What the first of those who wait needs; 0: nobody does.
    pub(super) least: u64,
    /// What was taken since the latest call, what was kept ready then, and what a request takes.
    pub(super) taken: u64,
    pub(super) ready: u64,
    pub(super) usual: u64,
}

/// What waits for an allowance: sums over those in line.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Demanded {
    pub(super) charge: Charge,
    pub(super) hold: Hold,
    pub(super) requests: u64,
}

/// One limit or budget of an allowance, as it is now.
pub(super) struct Limited {
    pub(super) name: LimitName,
    pub(super) amount: u64,
    pub(super) life: u64,
    pub(super) used: u64,
    pub(super) spent: u64,
    pub(super) demand: u64,
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

impl Holding {
    pub(super) fn part_mut(&mut self, name: LimitName) -> &mut Part {
        let at = self.parts.iter().position(|part| part.name == name);
        let at = at.unwrap_or_else(|| {
            self.parts.push(Part::new(name));
            self.parts.len() - 1
        });
        &mut self.parts[at]
    }

    pub(super) fn part(&self, name: LimitName) -> Part {
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
    pub(super) fn take(&mut self, name: LimitName, used: u64, weight: u64) -> bool {
        let part = self.part_mut(name);
        part.credit = part.credit.saturating_sub(weight);
        part.taken = part.taken.saturating_add(weight);
        part.usual = weight.max(1);
        part.room(used) < part.usual.max(part.ready / 2)
    }

    pub(super) fn is_pressed(&self) -> bool {
        self.parts.iter().any(|part| part.is_pressed && part.has > 0)
    }

    pub(super) fn has_nothing(&self) -> bool {
        self.parts.iter().all(|part| part.has == 0)
    }
}

impl Allowance {
    /// Returns its limits and budgets as the book is told of them, with what waits for them.
    pub(super) fn limited(&mut self, now: u64, lease: u64, demanded: &Demanded) -> Vec<Limited> {
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
    pub(super) fn claims(
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
        self.holding.as_ref()?;
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

impl Holding {
    /// Takes note of what an answer says.
    pub(super) fn note(
        &mut self,
        sent: u64,
        claims: &Claims,
        (epoch, grants): (u64, &[Grant]),
        limits: &[Limited],
    ) {
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
    pub(super) fn next_call(
        &mut self,
        now: u64,
        keepalive: u64,
        is_used: bool,
        limits: &[Limited],
    ) -> Option<u64> {
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
