//! What tenants and routes may use of limits and budgets of their own, over all quota groups.
//!
//! These limits are ours, so they need no margin: they are exact, and settled to what was really used.

mod budget;
mod escrow;
mod holding;
mod memory;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::time::Duration;

use self::budget::Account;
use self::escrow::Escrow;
use self::holding::Holding;
use crate::caller::{Caller, TenantId};
use crate::charge::Charge;
use crate::decision::{Refusal, RefusalReason, WaitReason};
use crate::lasting::Lasting;
use crate::limit::{Limit, LimitRef};
use crate::margin::{Margin, MarginPolicy};
use crate::meter::{Earliest, Meter, Taking};
use crate::plan::{Order, Plan, TenantPlan};
use crate::projection::Need;
use crate::queue::Terms;
use crate::snapshot::{AllowanceSnapshot, Owner};
use crate::units::Dimension;

/// The most tenants and routes with limits of their own. Beyond it a tenant that is not listed takes the place of one that
/// uses nothing; while all use something, those who come share what holds for each.
const ALLOWANCES_MAX: usize = 10_000;

/// How many places are looked at for one that nobody needs, each time somebody new comes.
const PLACES_LOOKED_AT: usize = 16;

/// Which allowances a request is under: its tenant's and its route's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowed([Entry; 2]);

impl Allowed {
    /// None at all.
    pub(crate) const NONE: Self = Self([Entry::NONE; 2]);
}

/// One allowance: its place in the list, and how many had that place before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    place: u32,
    turn: u32,
}

impl Entry {
    const NONE: Self = Self {
        place: u32::MAX,
        turn: 0,
    };
}

/// What a request may use of budgets: held while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Hold {
    /// Tokens, input and output together.
    pub(crate) tokens: u64,
    /// Millionths of a dollar.
    pub(crate) cost: u64,
}

/// Whether a request may go as far as its allowances are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may.
    Now,
    /// Not before this time, in microseconds.
    Later(u64, WaitReason),
    /// When something under way ends.
    Event(WaitReason),
    /// Never.
    Refuse(Refusal),
}

/// How a tenant is treated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) terms: Terms,
    pub(crate) waiting_max: usize,
    pub(crate) waiting_bytes_max: u64,
}

impl Bounds {
    const USUAL: Self = Self {
        terms: Terms {
            weight: NonZeroU32::MIN,
            order: Order::Arrival,
        },
        waiting_max: usize::MAX,
        waiting_bytes_max: u64::MAX,
    };

    const fn of(plan: &TenantPlan) -> Self {
        Self {
            terms: Terms {
                weight: plan.weight,
                order: plan.order,
            },
            waiting_max: plan.waiting_max,
            waiting_bytes_max: plan.waiting_bytes_max,
        }
    }
}

/// Limits and budgets of one tenant or route.
#[derive(Debug, Clone)]
struct Allowance {
    owner: Owner,
    /// How many had its place before.
    turn: u32,
    /// How long its requests take.
    lasting: Lasting,
    meters: Vec<Meter>,
    accounts: Vec<Account>,
    /// Quota groups in which somebody waits for this allowance.
    waiters: BTreeSet<u32>,
    /// What this replica has of it, where several share it.
    holding: Option<Box<Holding>>,
}

/// All limits and budgets of tenants and routes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Allowances {
    list: Vec<Allowance>,
    index: BTreeMap<Owner, u32>,
    /// The place that is looked at next for one that nobody needs.
    hand: usize,
    tenants: BTreeMap<TenantId, TenantPlan>,
    /// What holds for each tenant that is not listed.
    each_other: Option<TenantPlan>,
    routes: BTreeMap<crate::caller::RouteId, Vec<Limit>>,
    /// How they are shared with other replicas, if they are.
    escrow: Option<Box<Escrow>>,
}

impl Allowances {
    pub(crate) fn new(plan: &Plan, process: u64) -> Self {
        let mut allowances = Self::default();
        allowances.adopt(plan);
        allowances.share(plan.shared, process);
        allowances
    }

    fn adopt(&mut self, plan: &Plan) {
        let others = |tenant: &&TenantPlan| tenant.name == TenantPlan::EACH_OTHER;
        self.each_other = plan.tenants.iter().find(others).cloned();
        let listed = plan.tenants.iter().filter(|tenant| !others(tenant));
        self.tenants = listed.map(|tenant| (tenant.id(), tenant.clone())).collect();
        self.routes = plan
            .routes
            .iter()
            .map(|route| (route.id(), route.limits.clone()))
            .collect();
    }

    /// Follows another version of the plan; what was used stays used.
    pub(crate) fn reconfigure(&mut self, now: u64, plan: &Plan, process: u64) {
        self.adopt(plan);
        self.share(plan.shared, process);
        let is_shared = self.is_shared();
        let mut list = core::mem::take(&mut self.list);
        for allowance in &mut list {
            let (limits, budgets) = match allowance.owner {
                Owner::Tenant(tenant) => {
                    let plan = self.tenants.get(&tenant).or(self.each_other.as_ref());
                    plan.map_or((&[][..], &[][..]), |plan| (&plan.limits, &plan.budgets))
                }
                Owner::Route(route) => (self.routes.get(&route).map_or(&[][..], Vec::as_slice), &[][..]),
            };
            let older = core::mem::replace(&mut allowance.meters, meters(now, limits, is_shared));
            for meter in &mut allowance.meters {
                let same = |old: &&Meter| old.dimension() == meter.dimension();
                let nearest = older.iter().filter(same);
                let nearest = nearest.max_by_key(|old| (old.window() == meter.window(), old.window()));
                if let Some(old) = nearest {
                    meter.inherit(old);
                }
            }
            let older = core::mem::take(&mut allowance.accounts);
            let follow = |budget| Account::follow(now, budget, &older);
            allowance.accounts = budgets.iter().copied().map(follow).collect();
        }
        self.list = list;
    }

    /// Returns whether nobody has any limits or budgets.
    pub(crate) fn is_empty(&self) -> bool {
        self.tenants.is_empty() && self.each_other.is_none() && self.routes.is_empty() && self.list.is_empty()
    }

    /// Holds again what a running attempt holds, after a reload.
    pub(crate) fn hold(&mut self, now: u64, allowed: Allowed, charge: &Charge, hold: Hold) {
        for entry in allowed.0 {
            let Some(allowance) = self.entry_mut(entry) else {
                continue;
            };
            for meter in &mut allowance.meters {
                if meter.dimension() == Dimension::Concurrency {
                    meter.hold(charge.amount(Dimension::Concurrency).value());
                }
            }
            for account in &mut allowance.accounts {
                account.hold(now, hold);
            }
        }
    }

    /// Returns how a tenant is treated.
    pub(crate) fn bounds(&self, tenant: TenantId) -> Bounds {
        if self.tenants.is_empty() && self.each_other.is_none() {
            return Bounds::USUAL;
        }
        let plan = self.tenants.get(&tenant).or(self.each_other.as_ref());
        plan.map_or(Bounds::USUAL, Bounds::of)
    }

    /// Returns the allowances that a caller is under.
    pub(crate) fn of(&mut self, now: u64, caller: Caller) -> Allowed {
        let tenant = self.find(now, Owner::Tenant(caller.tenant));
        let route = self.find(now, Owner::Route(caller.route));
        Allowed([tenant, route])
    }

    /// Returns whether somebody else has one of the places meanwhile: it has to be asked anew which allowances these are.
    pub(crate) fn are_gone(&self, allowed: Allowed) -> bool {
        allowed != Allowed::NONE
            && allowed
                .0
                .iter()
                .any(|entry| *entry != Entry::NONE && self.entry(*entry).is_none())
    }

    fn entry(&self, entry: Entry) -> Option<&Allowance> {
        let allowance = self.list.get(entry.place as usize)?;
        (allowance.turn == entry.turn).then_some(allowance)
    }

    fn entry_mut(&mut self, entry: Entry) -> Option<&mut Allowance> {
        let allowance = self.list.get_mut(entry.place as usize)?;
        (allowance.turn == entry.turn).then_some(allowance)
    }

    fn find(&mut self, now: u64, owner: Owner) -> Entry {
        let (limits, budgets) = match owner {
            Owner::Tenant(_) if self.tenants.is_empty() && self.each_other.is_none() => return Entry::NONE,
            Owner::Tenant(id) => match self.tenants.get(&id).or(self.each_other.as_ref()) {
                Some(plan) => (plan.limits.as_slice(), plan.budgets.as_slice()),
                None => return Entry::NONE,
            },
            Owner::Route(_) if self.routes.is_empty() => return Entry::NONE,
            Owner::Route(id) => match self.routes.get(&id) {
                Some(limits) => (limits.as_slice(), &[][..]),
                None => return Entry::NONE,
            },
        };
        if limits.is_empty() && budgets.is_empty() {
            return Entry::NONE;
        }
        if let Some(known) = self.known(owner) {
            return known;
        }
        let mut allowance = Allowance {
            owner,
            turn: 0,
            lasting: Lasting::default(),
            meters: meters(now, limits, self.escrow.is_some()),
            accounts: budgets.iter().map(|budget| Account::new(now, *budget)).collect(),
            waiters: BTreeSet::new(),
            holding: None,
        };
        if self.list.len() >= ALLOWANCES_MAX && !self.is_listed(owner) {
            if let Some(place) = self.unneeded(now) {
                self.call_no_more(place);
                let before = &mut self.list[place as usize];
                allowance.turn = before.turn.wrapping_add(1);
                self.index.remove(&before.owner);
                let entry = Entry {
                    place,
                    turn: allowance.turn,
                };
                *before = allowance;
                self.index.insert(owner, place);
                return entry;
            }
            allowance.owner = Owner::Tenant(TenantId::of(TenantPlan::EACH_OTHER));
            if let Some(known) = self.known(allowance.owner) {
                return known;
            }
        }
        let Ok(place) = u32::try_from(self.list.len()) else {
            return Entry::NONE;
        };
        self.index.insert(allowance.owner, place);
        self.list.push(allowance);
        Entry { place, turn: 0 }
    }

    fn known(&self, owner: Owner) -> Option<Entry> {
        let place = *self.index.get(&owner)?;
        let turn = self.list.get(place as usize)?.turn;
        Some(Entry { place, turn })
    }

    /// Returns whether the plan names somebody.
    fn is_listed(&self, owner: Owner) -> bool {
        match owner {
            Owner::Tenant(id) => id == TenantId::of(TenantPlan::EACH_OTHER) || self.tenants.contains_key(&id),
            Owner::Route(_) => true,
        }
    }

    /// Returns the place of somebody who is not listed and uses nothing, if one is soon found.
    fn unneeded(&mut self, now: u64) -> Option<u32> {
        for _ in 0..PLACES_LOOKED_AT {
            let place = self.hand;
            self.hand = (place + 1) % self.list.len().max(1);
            let owner = self.list.get(place)?.owner;
            if !self.is_listed(owner) && self.list[place].is_unused(now) {
                return u32::try_from(place).ok();
            }
        }
        None
    }

    /// Returns whether a request may go. `group` is told when something changes that it waits for.
    pub(crate) fn verdict(
        &mut self,
        now: u64,
        allowed: Allowed,
        charge: &Charge,
        hold: Hold,
        group: u32,
    ) -> Verdict {
        let mut latest = Verdict::Now;
        if allowed == Allowed::NONE {
            return latest;
        }
        for entry in allowed.0 {
            let until = self.escrow.as_ref().map(|escrow| {
                let holding = self.entry(entry).and_then(|own| own.holding.as_deref());
                escrow.until_of(holding)
            });
            let Some(allowance) = self.entry_mut(entry) else {
                continue;
            };
            let verdict = allowance.verdict(now, charge, hold, until.map(|until| now < until));
            if !matches!(verdict, Verdict::Now) {
                allowance.waiters.insert(group);
                if until.is_some() {
                    self.ask_for_more(now, entry);
                }
            }
            latest = match (latest, verdict) {
                (Verdict::Refuse(_), _) | (_, Verdict::Now) => latest,
                (_, Verdict::Refuse(_)) | (Verdict::Now, _) => verdict,
                (Verdict::Event(_), _) => latest,
                (_, Verdict::Event(_)) => verdict,
                (Verdict::Later(one, _), Verdict::Later(other, _)) if one >= other => latest,
                _ => verdict,
            };
        }
        latest
    }

    /// Returns when a request can go behind others under the same allowances who will take `ahead`, if that can be told and
    /// is not now.
    pub(crate) fn earliest(
        &mut self,
        now: u64,
        allowed: Allowed,
        ahead: &Charge,
        charge: &Charge,
    ) -> Option<(u64, WaitReason)> {
        let mut latest = None;
        for entry in allowed.0 {
            let Some(allowance) = self.entry_mut(entry) else {
                continue;
            };
            allowance.advance(now);
            for meter in &allowance.meters {
                let [ahead, weight] = [ahead, charge].map(|taken| taken.amount(meter.dimension()).value());
                let earliest = match meter.earliest(now, ahead, weight, &Need::default()) {
                    Earliest::Event => {
                        let turn = allowance.lasting.turn(ahead, meter.amount());
                        Earliest::At(now.saturating_add(turn))
                    }
                    other => other,
                };
                if let Earliest::At(at) = earliest
                    && at > now
                    && latest.is_none_or(|(before, _)| at > before)
                {
                    latest = Some((at, allowance.reason(meter.name())));
                }
            }
        }
        latest
    }

    /// Takes what a request needs from each of its allowances.
    pub(crate) fn take(&mut self, now: u64, allowed: Allowed, charge: &Charge, hold: Hold) {
        if allowed == Allowed::NONE {
            return;
        }
        for entry in allowed.0 {
            let Some(allowance) = self.entry_mut(entry) else {
                continue;
            };
            allowance.advance(now);
            for meter in &mut allowance.meters {
                meter.take(charge.amount(meter.dimension()).value());
            }
            for account in &mut allowance.accounts {
                account.hold(now, hold);
            }
        }
        if self.is_shared() {
            self.note_taken(now, allowed, charge, hold);
        }
    }

    /// Gives back what an attempt took that is not to count: all of it.
    pub(crate) fn give_back(
        &mut self,
        now: u64,
        granted: u64,
        allowed: Allowed,
        charge: &Charge,
        hold: Hold,
    ) {
        self.end(now, granted, allowed, charge, hold, None);
    }

    /// Replaces what an attempt took by what it used.
    pub(crate) fn settle(
        &mut self,
        now: u64,
        granted: u64,
        (allowed, charge, hold): (Allowed, &Charge, Hold),
        used: &Used,
    ) {
        self.end(now, granted, allowed, charge, hold, Some(*used));
    }

    fn end(
        &mut self,
        now: u64,
        granted: u64,
        allowed: Allowed,
        charge: &Charge,
        hold: Hold,
        used: Option<Used>,
    ) {
        for entry in allowed.0 {
            let Some(allowance) = self.entry_mut(entry) else {
                continue;
            };
            allowance.advance(now);
            if used.is_some() {
                allowance.lasting.note(now.saturating_sub(granted));
            }
            for meter in &mut allowance.meters {
                let charged = charge.amount(meter.dimension()).value();
                let actual = match (meter.dimension(), &used) {
                    (Dimension::Concurrency, _) => {
                        meter.release(charged);
                        continue;
                    }
                    (_, None) => 0,
                    (Dimension::Requests, Some(_)) => charged,
                    (Dimension::InputTokens, Some(used)) => used.input,
                    (Dimension::OutputTokens, Some(used)) => used.output,
                    (Dimension::Tokens, Some(used)) => used.tokens(),
                };
                if actual > charged {
                    meter.charge(actual - charged);
                } else {
                    meter.refund(granted, charged - actual);
                }
            }
            for account in &mut allowance.accounts {
                account.settle(now, hold, used.as_ref());
            }
        }
        if self.is_shared() {
            self.note_ended(now, allowed);
        }
    }

    /// Returns the groups in which somebody waits for one of these allowances, and forgets them: they look again.
    pub(crate) fn waiters(&mut self, allowed: Allowed) -> Vec<(u32, Owner)> {
        let mut found = Vec::new();
        for entry in allowed.0 {
            let Some(allowance) = self.entry_mut(entry) else {
                continue;
            };
            let owner = allowance.owner;
            found.extend(
                core::mem::take(&mut allowance.waiters)
                    .into_iter()
                    .map(|group| (group, owner)),
            );
        }
        found
    }

    pub(crate) fn snapshots(&mut self, now: u64) -> Vec<AllowanceSnapshot> {
        let one = |allowance: &mut Allowance| {
            allowance.advance(now);
            AllowanceSnapshot {
                owner: allowance.owner,
                limits: allowance.meters.iter().map(Meter::snapshot).collect(),
                budgets: allowance
                    .accounts
                    .iter()
                    .map(|account| account.snapshot(now))
                    .collect(),
                escrow: allowance.escrow_snapshot(now),
            }
        };
        self.list.iter_mut().map(one).collect()
    }
}

/// What an attempt used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    /// Input tokens, those from the provider's cache among them.
    pub(crate) input: u64,
    pub(crate) output: u64,
    /// Millionths of a dollar.
    pub(crate) cost: u64,
}

impl Used {
    /// Returns the tokens, input and output together.
    pub(crate) const fn tokens(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

impl Allowance {
    /// Returns whether nothing is lost if it is forgotten: nothing is used, held or waited for.
    fn is_unused(&mut self, now: u64) -> bool {
        self.advance(now);
        self.waiters.is_empty()
            && self.holding.as_ref().is_none_or(|holding| holding.has_nothing())
            && self.meters.iter().all(|meter| meter.used() == 0)
            && self.accounts.iter_mut().all(|account| account.is_unused(now))
    }

    fn advance(&mut self, now: u64) {
        for meter in &mut self.meters {
            meter.advance(now);
        }
    }

    const fn reason(&self, limit: LimitRef) -> WaitReason {
        match self.owner {
            Owner::Tenant(_) => WaitReason::Tenant(limit),
            Owner::Route(_) => WaitReason::Route(limit),
        }
    }

    /// Returns whether a request may go. Where replicas share the limits, `is_usable` says whether what this one has may be used.
    fn verdict(&mut self, now: u64, charge: &Charge, hold: Hold, is_usable: Option<bool>) -> Verdict {
        self.advance(now);
        let mut latest = Verdict::Now;
        let mut holding = is_usable.map(|is_usable| (self.holding.get_or_insert_default(), is_usable));
        for account in &mut self.accounts {
            let name = account.name(now);
            let elsewhere = holding.as_ref().map_or(0, |(holding, _)| holding.spent(name));
            match account.verdict(now, hold, elsewhere) {
                Verdict::Now => {}
                refuse @ Verdict::Refuse(_) => return refuse,
                other => latest = other,
            }
            if let (Verdict::Now, Some((holding, is_usable))) = (latest, &mut holding) {
                let (used, held) = account.in_use(now);
                let weight = account.part(hold).max(1);
                if !holding.has_room(*is_usable, name, used.saturating_add(held), weight) {
                    latest = Verdict::Event(WaitReason::Budget);
                }
            }
        }
        for meter in &self.meters {
            let weight = charge.amount(meter.dimension()).value();
            let limit = meter.name();
            let reason = match self.owner {
                Owner::Tenant(_) => WaitReason::Tenant(limit),
                Owner::Route(_) => WaitReason::Route(limit),
            };
            match meter.earliest(now, 0, weight, &Need::default()) {
                Earliest::At(at) if at <= now => {
                    if let Some((holding, is_usable)) = &mut holding
                        && weight > 0
                        && !holding.has_room(*is_usable, meter.ledger_name(), meter.used(), weight)
                    {
                        latest = Verdict::Event(reason);
                    }
                }
                Earliest::At(at) => match latest {
                    Verdict::Later(other, _) if other >= at => {}
                    Verdict::Event(_) => {}
                    _ => latest = Verdict::Later(at, reason),
                },
                Earliest::Event if matches!(latest, Verdict::Event(_)) => {}
                Earliest::Event => latest = Verdict::Event(reason),
                Earliest::Never => {
                    return Verdict::Refuse(Refusal {
                        limit: Some(limit),
                        owner: Some(self.owner),
                        ..Refusal::of(RefusalReason::NeverFits)
                    });
                }
            }
        }
        latest
    }
}

/// Makes the meters of limits that are ours.
fn meters(now: u64, limits: &[Limit], is_shared: bool) -> Vec<Meter> {
    let margin = Margin::new(MarginPolicy::Fixed(Duration::ZERO));
    let meter = |limit: &Limit| {
        let mut meter = Meter::new(now, *limit, Taking::AtOnce, &margin);
        if is_shared && meter.is_bucket() {
            // A part of a limit is a part of what is in use, which a bucket does not know.
            meter.keep_rolling();
        }
        meter
    };
    limits.iter().map(meter).collect()
}
