//! When a request's turn will come, if nobody else comes or leaves.

use super::Group;
use crate::allowance::Allowances;
use crate::charge::Charge;
use crate::decision::WaitReason;
use crate::limit::LimitRef;
use crate::meter::Earliest;
use crate::projection::Need;
use crate::queue::Waiting;
use crate::units::Dimension;

/// What is expected of a request in line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expectation {
    /// When it will be admitted, in microseconds.
    pub(crate) eta: u64,
    pub(crate) reason: WaitReason,
    /// How many will be served until then, itself included.
    pub(crate) place: u64,
    /// Whether it waits for its own tenant's requests more than for others'.
    pub(crate) is_own: bool,
}

impl Expectation {
    /// Returns the limit that it waits for.
    pub(crate) const fn limit(&self) -> Option<LimitRef> {
        match self.reason {
            WaitReason::Limit(limit) | WaitReason::Tenant(limit) | WaitReason::Route(limit) => Some(limit),
            _ => None,
        }
    }
}

/// Flows of a tier whose lines are looked at one by one; of more, only their sum is.
const FLOWS_LOOKED_AT: usize = 32;

impl Group {
    /// Returns what is expected of a request that comes to the end of its flow's line.
    ///
    /// Before it go the higher tiers, those of its flow, and of each other flow of its tier what is fair until then: as
    /// much service as its own flow will have had.
    pub(crate) fn expect_turn(
        &mut self,
        now: u64,
        flow: u32,
        waiting: &Waiting,
        allowances: &mut Allowances,
    ) -> Expectation {
        let need = self.need(&waiting.request.demand);
        let (ahead, own) = self.ahead(flow, waiting.cost);
        let (mut eta, mut reason) = self.eta(now, &ahead, &waiting.charge, &need);
        let own_ahead = self.queue.flow(flow).map_or(Charge::ZERO, |flow| flow.demand);
        let later = allowances.earliest(now, waiting.allowed, &own_ahead, &waiting.charge);
        if let Some((at, own_reason)) = later
            && at > eta
        {
            (eta, reason) = (at, own_reason);
        }
        let requests = ahead.amount(Dimension::Requests).value();
        Expectation {
            eta,
            reason,
            place: requests.saturating_add(1),
            is_own: 2 * own >= requests.max(1) || matches!(reason, WaitReason::Tenant(_)),
        }
    }

    /// Returns what will have been taken by those before a request of this cost at the end of a flow's line, and how many
    /// of them are of its own flow.
    fn ahead(&self, at: u32, cost: u64) -> (Charge, u64) {
        let mut ahead = Charge::ZERO;
        let Some(flow) = self.queue.flow(at) else {
            return (ahead, 0);
        };
        let tier = flow.priority.index();
        for higher in &self.queue.tiers[..tier] {
            ahead.add(&higher.demand);
        }
        ahead.add(&flow.demand);
        let own = flow.demand.amount(Dimension::Requests).value();
        let tier = &self.queue.tiers[tier];
        if tier.cost == flow.cost {
            return (ahead, own);
        }
        let start = flow.tag.max(if flow.cost == 0 { tier.virtual_time } else { 0 });
        let served = start.saturating_add(flow.service(flow.cost.saturating_add(cost)));
        let others = tier.ready.iter().take(FLOWS_LOOKED_AT + 1);
        if tier.ready.len() <= FLOWS_LOOKED_AT {
            for other in others.filter(|(.., other)| *other != at) {
                let Some(other) = self.queue.flow(other.2) else {
                    continue;
                };
                let all = other.service(other.cost);
                let until = served.saturating_sub(other.tag).min(all);
                ahead.add(&other.demand.part(until, all));
            }
            return (ahead, own);
        }
        // The weights of the others say how much they get while this flow is served.
        let mut rest = tier.demand;
        rest.subtract(&flow.demand);
        let weight = u64::from(flow.weight.get());
        let in_line = if flow.cost == 0 { 0 } else { weight };
        let others = tier.weights.saturating_sub(in_line);
        let rest_cost = (tier.cost - flow.cost).max(1);
        let share = u128::from(flow.cost.saturating_add(cost)) * u128::from(others) / u128::from(weight);
        let share = u64::try_from(share).unwrap_or(u64::MAX).min(rest_cost);
        ahead.add(&rest.part(share, rest_cost));
        (ahead, own)
    }

    /// Returns when a charge can be taken behind others who will take `ahead`, and what it waits for.
    pub(crate) fn eta(&self, now: u64, ahead: &Charge, charge: &Charge, need: &Need) -> (u64, WaitReason) {
        let (earliest, limit) = self.earliest(now, ahead, charge, need);
        let at = match earliest {
            Earliest::At(at) => at,
            Earliest::Event | Earliest::Never => now,
        };
        let opens = self.opens_at(now);
        let paced = self
            .lessons
            .ready_after(ahead.amount(Dimension::Requests).value());
        let eta = at.max(opens).max(paced);
        let reason = match limit {
            _ if opens > now => WaitReason::Hold,
            _ if !self.is_open(now) => WaitReason::Learning,
            _ if paced > at => self.lessons.reason(),
            Some(limit) => WaitReason::Limit(limit),
            None => WaitReason::Line,
        };
        (eta, reason)
    }
}
