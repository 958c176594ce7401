//! What a quota group remembers over a restart, and what is presumed of it after a crash.

use super::answer::METERS_MAX;
use super::{Group, InFlight};
use crate::charge::Charge;
use crate::limit::LimitRef;
use crate::memory::{Gap, GroupMemory};
use crate::meter::{Meter, Taking};
use crate::plan::QuotaPlan;
use crate::time::Timestamp;

/// What requests under way take of a group.
#[derive(Debug, Clone, Default)]
pub(crate) struct UnderWay {
    /// What was charged for them.
    pub(crate) charge: Charge,
    /// What they may still generate, where output is charged as it is.
    pub(crate) output: u64,
}

impl UnderWay {
    /// Adds a request.
    pub(crate) fn add(&mut self, group: &Group, flight: &InFlight) {
        self.charge.add(&flight.charge);
        let demand = &flight.request.demand;
        if demand.generates && group.model.as_generated() {
            let reserve = group.model.output_reserve(demand);
            let rest = reserve.saturating_sub(flight.generated());
            self.output = self.output.saturating_add(rest);
        }
    }
}

impl Group {
    /// Returns how many limits it keeps.
    pub(crate) fn limits(&self) -> usize {
        self.meters.len()
    }

    /// Returns what is known, in at most `each` charges of each limit; `None` if nothing is worth it.
    pub(crate) fn remember(&self, now: u64, each: usize, under_way: &UnderWay) -> Option<GroupMemory> {
        let limits = self
            .meters
            .iter()
            .filter_map(|meter| meter.remember(now, each, under_way));
        let known = GroupMemory {
            name: self.name.clone(),
            account: self.key.account,
            succeeded: self.succeeded,
            hold_until: (self.hold_until > now).then(|| Timestamp::from_micros(self.hold_until)),
            margin_doublings: self.margin.doublings(),
            limits: limits.collect(),
        };
        let is_empty = known.limits.is_empty() && known.hold_until.is_none() && known.margin_doublings == 0;
        (!is_empty).then_some(known)
    }

    /// Takes over what was known at `at`, as after a reload of the plan.
    pub(crate) fn recall(&mut self, now: u64, at: u64, known: &GroupMemory, plan: &QuotaPlan) {
        self.margin.recall(now, known.margin_doublings);
        self.succeeded = known.succeeded;
        self.hold_until = known.hold_until.map_or(0, Timestamp::as_micros);
        let limits = known.limits.iter().take(METERS_MAX);
        let recalled = limits.map(|limit| {
            let taking = Taking::of(&self.model, limit.dimension);
            Meter::recalled(now, at, limit, taking, &self.margin)
        });
        self.meters = recalled.collect();
        self.reconfigure(now, plan);
        self.let_ask();
    }

    /// Takes every limit for used up, as far as it may have been in the time of which nobody knows. Returns when the last of
    /// that will have expired, if there is any.
    pub(crate) fn presume(&mut self, now: u64, gap: Gap) -> Option<u64> {
        self.presume_where(now, gap, |_| true)
    }

    /// The same for those limits only that became known since without being presumed.
    pub(crate) fn presume_new(&mut self, now: u64, gap: Gap) {
        self.presume_where(now, gap, Meter::is_unproven);
    }

    fn presume_where(&mut self, now: u64, gap: Gap, is_meant: impl Fn(&Meter) -> bool) -> Option<u64> {
        let mut last = None;
        for at in 0..self.meters.len() {
            let most = self.most_in(gap, &self.meters[at]);
            let meter = &mut self.meters[at];
            if is_meant(meter) {
                last = last.max(meter.presume(now, gap.until.as_micros(), most));
            }
        }
        self.let_ask();
        last
    }

    /// Returns the most that can have been charged of a limit in so long: no more than the shorter limits of its dimension
    /// let through.
    fn most_in(&self, gap: Gap, meter: &Meter) -> u64 {
        let shorter = self.meters.iter().filter(|other| {
            other.dimension() == meter.dimension()
                && other.window() <= meter.window()
                && other.is_known()
                && !other.is_passing()
        });
        let most = shorter.map(|other| {
            let amount = u128::from(other.amount());
            let inflow = (amount * u128::from(gap.length())).div_ceil(u128::from(other.window()));
            u64::try_from(amount + inflow).unwrap_or(u64::MAX)
        });
        most.min().unwrap_or(u64::MAX)
    }

    /// Lets one request at a time ask the provider whether what is presumed is so.
    pub(super) fn let_ask(&mut self) {
        let is_free = self.in_flight == 0;
        for meter in &mut self.meters {
            meter.let_ask(is_free);
        }
    }

    /// Takes note that an attempt has ended: if it succeeded, its answer told what it tells, and no other will tell more.
    pub(super) fn has_asked(&mut self, has_succeeded: bool) {
        if has_succeeded {
            for meter in &mut self.meters {
                meter.asked_in_vain();
            }
        }
        self.let_ask();
    }

    /// Returns whether an answer may yet tell that a limit has room for a charge and those before it.
    pub(super) fn awaits_proof(&self, limit: LimitRef, ahead: &Charge, charge: &Charge) -> bool {
        let [ahead, charge] = [ahead, charge].map(|taken| taken.amount(limit.dimension).value());
        let is_meant = |meter: &&Meter| {
            let name = meter.name();
            name.dimension == limit.dimension && name.window == limit.window
        };
        let taken = ahead.saturating_add(charge);
        self.meters
            .iter()
            .filter(is_meant)
            .any(|meter| meter.awaits_proof(taken))
    }
}
