//! When a request's turn will come, if nobody else comes or leaves.

use core::time::Duration;

use super::Group;
use crate::allowance::Allowances;
use crate::caller::Caller;
use crate::charge::Charge;
use crate::decision::{Obstacle, Refusal, RefusalReason, WaitReason};
use crate::meter::Earliest;
use crate::projection::Need;
use crate::queue::{Flow, Waiting};
use crate::snapshot::Owner;
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
    /// Returns a refusal that says what it waits for, and for how long to stay away.
    pub(crate) fn refusal(&self, now: u64, caller: Caller, reason: RefusalReason) -> Refusal {
        refusal(caller, self.reason, self.eta.saturating_sub(now), reason)
    }
}

/// The shortest time that anybody is told to stay away, in microseconds: where nobody knows how long it takes, because it
/// depends on when something under way ends, SDKs would else have used up their attempts in no time.
const AWAY_MIN: u64 = 1_000_000;

/// Returns a refusal of somebody who waits for this.
pub(super) fn refusal(caller: Caller, waits_for: WaitReason, wait: u64, reason: RefusalReason) -> Refusal {
    let (limit, owner) = match waits_for {
        WaitReason::Limit(limit) => (Some(limit), None),
        WaitReason::Tenant(limit) => (Some(limit), Some(Owner::Tenant(caller.tenant))),
        WaitReason::Route(limit) => (Some(limit), Some(Owner::Route(caller.route))),
        _ => (None, None),
    };
    Refusal {
        limit,
        owner,
        retry_after: Some(Duration::from_micros(wait.max(AWAY_MIN))),
        obstacle: Obstacle::of(waits_for),
        ..Refusal::of(reason)
    }
}

/// Returns when a turn comes at best: when something under way ends is known far less well than when a window frees room.
pub(super) fn at_best(now: u64, eta: u64, reason: WaitReason) -> u64 {
    match reason {
        WaitReason::Limit(limit) | WaitReason::Tenant(limit) | WaitReason::Route(limit)
            if limit.dimension == Dimension::Concurrency =>
        {
            now + eta.saturating_sub(now) / 2
        }
        _ => eta,
    }
}

/// How often the span of an estimate is doubled until all who come in it are served in it.
const DOUBLINGS: u32 = 12;

/// Estimates are not refined below this, in microseconds.
const RESOLUTION: u64 = 500_000;

impl Group {
    /// Returns what is expected of a request that comes to the end of its flow's line.
    ///
    /// Before it go the higher tiers, those of its flow, and of each other flow of its tier what is fair until then: as
    /// much service as its own flow will have had. Others go on to come meanwhile, and callers come back as they were told.
    pub(crate) fn expect_turn(
        &self,
        now: u64,
        flow: u32,
        waiting: &Waiting,
        allowances: &mut Allowances,
    ) -> Expectation {
        let before = self
            .queue
            .flow(flow)
            .map_or((Charge::ZERO, 0), |flow| (flow.demand, flow.cost));
        self.expect_behind(now, flow, before, waiting, true, allowances)
    }

    /// Returns what is expected of a request that stands in a flow's line behind `before`; also behind those who were told to
    /// come back, if it is new.
    pub(crate) fn expect_behind(
        &self,
        now: u64,
        flow: u32,
        before: (Charge, u64),
        waiting: &Waiting,
        is_new: bool,
        allowances: &mut Allowances,
    ) -> Expectation {
        let need = self.need(&waiting.request.demand);
        let is_promised = is_new && !self.queue.promises.is_empty();
        let turn = |until| {
            let mut ahead = self.ahead(now, flow, before, waiting.cost, until);
            if is_promised {
                let (queue, tier) = (&self.queue, waiting.request.caller.priority.index());
                ahead.add(&queue.promises.before(now, queue.clock, until, tier));
            }
            let (eta, reason) = self.eta(now, &ahead, &waiting.charge, &need);
            (eta, reason, ahead)
        };
        let mut found = turn(now);
        let depends = is_promised || (!self.queue.is_alone() && self.queue.is_few());
        if found.0 > now && depends {
            // Who comes before it depends on how long it takes, and that on who comes: the first moment is looked for at
            // which all who come until then are served.
            let (mut early, mut late) = (now, found.0);
            for _ in 0..DOUBLINGS {
                found = turn(late);
                if found.0 <= late {
                    break;
                }
                early = late;
                late = found.0.max(now.saturating_add((late - now).saturating_mul(2)));
            }
            while late - early > RESOLUTION.max((late - now) / 64) {
                let middle = early + (late - early) / 2;
                let at = turn(middle);
                if at.0 <= middle {
                    (late, found) = (middle, at);
                } else {
                    early = middle;
                }
            }
        }
        let (mut eta, mut reason, ahead) = found;
        let mut own_ahead = before.0;
        if is_promised {
            own_ahead.add(&self.queue.promises.of(waiting.request.caller.tenant));
        }
        let later = allowances.earliest(now, waiting.allowed, &own_ahead, &waiting.charge);
        if let Some((at, own_reason)) = later
            && at > eta
        {
            (eta, reason) = (at, own_reason);
        }
        let own = match self.queue.flow(flow) {
            Some(flow) => self.spread_of(now, flow).charge(&before.0),
            None => before.0,
        };
        let own = own.amount(Dimension::Requests).value();
        let requests = ahead.amount(Dimension::Requests).value();
        let is_of_own = matches!(reason, WaitReason::Tenant(_) | WaitReason::Budget);
        let is_own = match requests {
            // Nobody is before it: it waits for those who used the window.
            0 => self.queue.is_alone() || self.queue.uses_most(now, flow),
            _ => 2 * own >= requests,
        };
        Expectation {
            eta,
            reason,
            place: requests.saturating_add(1),
            is_own: is_own || is_of_own,
        }
    }

    /// Returns what will have been taken by those before a request of this cost that stands in a flow's line behind
    /// `before`, if it takes until `until`.
    pub(super) fn ahead(&self, now: u64, at: u32, before: (Charge, u64), cost: u64, until: u64) -> Charge {
        let known = self.ahead_of_known(now, at, before, cost, until);
        self.unseen(now).charge(&known)
    }

    /// The same of the tenants that are here, wherever they wait.
    fn ahead_of_known(&self, now: u64, at: u32, before: (Charge, u64), cost: u64, until: u64) -> Charge {
        let mut ahead = Charge::ZERO;
        let Some(flow) = self.queue.flow(at) else {
            return ahead;
        };
        let spread = self.spread_of(now, flow);
        let before = (spread.charge(&before.0), spread.cost(before.1));
        let own_tier = flow.priority.index();
        for higher in &self.queue.tiers[..own_tier] {
            ahead.add(&self.spread().charge(&higher.demand));
        }
        ahead.add(&before.0);
        if self.queue.is_alone() {
            return ahead;
        }
        let tier = &self.queue.tiers[own_tier];
        let start = flow.tag.max(if flow.cost == 0 { tier.virtual_time } else { 0 });
        let served = start.saturating_add(flow.service(before.1.saturating_add(cost)));
        if self.queue.is_few() {
            for (_, flow) in self.queue.flows().filter(|(other, _)| *other != at) {
                self.add_flow(now, &mut ahead, flow, (own_tier, served), until);
            }
            return ahead;
        }
        // The weights of the others say how much they get while this flow is served.
        let mut rest = tier.demand;
        rest.subtract(&flow.demand);
        let weight = u64::from(flow.weight.get());
        let in_line = if flow.cost == 0 { 0 } else { weight };
        let others = tier.weights.saturating_sub(in_line);
        let spread = self.spread();
        let rest = spread.charge(&rest);
        let rest_cost = spread.cost(tier.cost - flow.cost).max(1);
        let share = u128::from(before.1.saturating_add(cost)) * u128::from(others) / u128::from(weight);
        let share = u64::try_from(share).unwrap_or(u64::MAX).min(rest_cost);
        ahead.add(&rest.part(share, rest_cost));
        ahead
    }

    /// Adds what another flow will have taken until a time, if as much is fair in its tier: what waits, and what will come
    /// meanwhile as it came lately.
    fn add_flow(
        &self,
        now: u64,
        ahead: &mut Charge,
        other: &Flow,
        (own_tier, served): (usize, u64),
        until: u64,
    ) {
        let tier = other.priority.index();
        if tier > own_tier {
            return;
        }
        let spread = self.spread_of(now, other);
        let (taken, cost) = self.queue.recent_charge(now, other);
        let window = self.queue.clock.window().max(1);
        let passing = until.saturating_sub(now).min(4 * window);
        let coming = taken.part(passing, window);
        if tier < own_tier {
            // Those who wait are counted already.
            ahead.add(&spread.charge(&coming));
            return;
        }
        let coming_cost = u128::from(cost) * u128::from(passing) / u128::from(window);
        let all_cost = other
            .cost
            .saturating_add(u64::try_from(coming_cost).unwrap_or(u64::MAX));
        let mut all = other.demand;
        all.add(&coming);
        let (all, all_cost) = (spread.charge(&all), spread.cost(all_cost));
        // Whoever comes to the line begins with the service that is due there by then.
        let floor = self.queue.tiers[tier].virtual_time;
        let tag = if other.cost == 0 {
            other.tag.max(floor)
        } else {
            other.tag
        };
        let service = other.service(all_cost);
        let fair = served.saturating_sub(tag).min(service);
        ahead.add(&all.part(fair, service));
    }

    /// Returns when a charge can be taken behind others who will take `ahead`, and what it waits for.
    ///
    /// Nobody knows when the store is there again, nor how long it then takes until it knows what is in use.
    pub(crate) fn eta(&self, now: u64, ahead: &Charge, charge: &Charge, need: &Need) -> (u64, WaitReason) {
        if let Some(reason) = self.waits_for_store() {
            return (self.opens_at(now).max(now), reason);
        }
        let (earliest, limit) = self.earliest(now, ahead, charge, need);
        let is_presumed = limit.is_some_and(|limit| self.awaits_proof(limit, ahead, charge));
        let at = match (earliest, limit) {
            // The first answers will tell more.
            (Earliest::At(_), Some(_)) if is_presumed => now,
            (Earliest::At(u64::MAX), _) => now,
            (Earliest::At(at), _) => at,
            (Earliest::Event, Some(limit)) if limit.dimension == Dimension::Concurrency => {
                let ahead = ahead.amount(Dimension::Concurrency).value();
                now.saturating_add(self.lasting.turn(ahead, limit.amount))
            }
            (Earliest::Event | Earliest::Never, _) => now,
        };
        let opens = self.opens_at(now);
        let paced = self
            .lessons
            .ready_after(ahead.amount(Dimension::Requests).value());
        let eta = at.max(opens).max(paced);
        let reason = match limit {
            _ if opens > now => WaitReason::Hold,
            _ if !self.is_open(now) || is_presumed => WaitReason::Learning,
            _ if paced > at => self.lessons.reason(),
            Some(limit) => WaitReason::Limit(limit),
            None => WaitReason::Line,
        };
        (eta, reason)
    }
}
