//! Whose turn it is among the requests of all replicas.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::Ledger;
use super::call::LimitName;
use super::member::{CUT_OFF_AFTER, Head, Member, SHARES, SILENT_AFTER};
use super::reply::{Denial, Wakening};
use super::ring::Ring;

/// The cost of a whole window.
const WINDOW_COST: u64 = 1 << 30;

/// The most flows whose service is remembered.
const TAGS_MAX: usize = 1_024;

/// A flow that waited or was served within so long, in microseconds, is still there.
const THERE: u64 = 1_000_000;

/// Everybody is asked to look at refunds at most so often, in microseconds: looking takes two calls, which is as many as
/// replicas make meanwhile anyway.
const ROUND_EVERY: u64 = 6 * SILENT_AFTER / 10;

/// Service and credit of flows and tiers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fairness {
    /// The service of each flow (tier and tenant) that was served while others waited, and when it last waited or was served.
    pub(super) tags: BTreeMap<(u8, u64), (u64, u64)>,
    /// The service from which newcomers begin, of each tier.
    pub(super) virtual_time: [u64; 4],
    /// What each tier has earned while it waited.
    pub(super) credit: [u64; 4],
}

impl Fairness {
    /// Returns the service of a flow. Whoever was not there lately begins with those who are: what they did not ask for they
    /// cannot make up for. Who was keeps what it has had, although none of its requests may be known between two calls.
    pub(super) fn tag(&self, now: u64, tier: u8, tenant: u64) -> u64 {
        let floor = self.virtual_time[usize::from(tier & 3)];
        match self.tags.get(&(tier, tenant)) {
            Some((tag, seen)) if now.saturating_sub(*seen) <= THERE => *tag,
            Some((tag, _)) => floor.max(*tag),
            None => floor,
        }
    }

    pub(super) fn correct(&mut self, tier: u8, tenant: u64, by: i64) {
        let floor = self.virtual_time[usize::from(tier & 3)];
        if let Some((tag, _)) = self.tags.get_mut(&(tier, tenant)) {
            *tag = if by > 0 {
                *tag + by.unsigned_abs()
            } else {
                tag.saturating_sub(by.unsigned_abs()).max(floor.min(*tag))
            };
        }
    }

    /// Takes note that a flow waits, with what it has had.
    fn meet(&mut self, now: u64, head: &Head) {
        let tag = self.tag(now, head.tier, head.tenant);
        self.remember(now, head, tag);
    }

    fn serve(&mut self, now: u64, head: &Head, first_key: u64, shares: [u8; 4], waits: [bool; 4]) {
        let at = usize::from(head.tier & 3);
        let tag = self.tag(now, head.tier, head.tenant);
        self.virtual_time[at] = self.virtual_time[at].max(tag.min(first_key));
        self.remember(now, head, tag + head.service);
        for tier in 0..4 {
            self.credit[tier] = if waits[tier] {
                let earned = head.cost * u64::from(shares[tier]) / 100;
                (self.credit[tier] + earned).min(WINDOW_COST)
            } else {
                0
            };
        }
        self.credit[at] = self.credit[at].saturating_sub(head.cost);
    }

    /// Remembers the service of a flow. Where so many are ahead of the others, or still there, a newcomer's is not.
    fn remember(&mut self, now: u64, head: &Head, tag: u64) {
        let flow = (head.tier, head.tenant);
        let is_known = self.tags.contains_key(&flow);
        if !is_known && self.tags.len() >= TAGS_MAX {
            let floors = self.virtual_time;
            self.tags.retain(|(tier, _), (tag, seen)| {
                *tag > floors[usize::from(tier & 3)] || now.saturating_sub(*seen) <= THERE
            });
        }
        if is_known || self.tags.len() < TAGS_MAX {
            self.tags.insert(flow, (tag, now));
        }
    }
}

/// A request in the line of all replicas.
struct Candidate {
    /// Whether its tier is due by what it has earned (0) or not (1), and the tier.
    rank: (u8, u8),
    key: u64,
    /// When the oldest came of those of its flow that its replica does not send before it, and when it came itself.
    since: u64,
    arrived: u64,
    replica: u64,
    order: usize,
    head: Head,
}

/// The first that does not fit, which keeps its place.
struct Barrier {
    tier: u8,
    tenant: u64,
    /// The service that its flow will have had.
    served: u64,
    /// When it will fit; 0: nobody knows.
    at: u64,
    /// What others may take of each limit that it needs, without its going later for it.
    spare: BTreeMap<LimitName, u64>,
}

/// What came of a look through the line.
#[derive(Default)]
pub(super) struct Pass {
    pub(super) granted: Vec<bool>,
    pub(super) denial: Denial,
    pub(super) denied_by: u64,
    pub(super) wake_at: u64,
    /// Whether somebody waits who does not fit.
    pub(super) is_waited_for: bool,
    pub(super) wakenings: Vec<Wakening>,
}

impl Ledger {
    /// Lets those of the caller's requests in whose turn it is, and finds out who goes next.
    pub(super) fn pass(&mut self, now: u64, caller: u64, asks: &[Head], shares: [u8; 4]) -> Pass {
        let mut pass = Pass {
            granted: alloc::vec![false; asks.len()],
            ..Pass::default()
        };
        let others_wait = self
            .members
            .iter()
            .any(|(id, member)| *id != caller && member.is_there(now) && !member.heads.is_empty());
        if asks.is_empty() && !others_wait {
            return pass;
        }
        let is_contended = others_wait || asks.len() > 1;
        let candidates = self.candidates(now, caller, asks);
        let mut waits = [false; 4];
        let mut first_key = [u64::MAX; 4];
        for candidate in &candidates {
            let tier = usize::from(candidate.head.tier & 3);
            waits[tier] = true;
            first_key[tier] = first_key[tier].min(candidate.key);
            if is_contended {
                self.fairness.meet(now, &candidate.head);
            }
        }
        let mut totals = self.totals(now);
        let mut barrier: Option<Barrier> = None;
        for candidate in candidates {
            let is_own = candidate.replica == caller;
            if !self.is_known(now, candidate.replica) {
                if is_own && pass.denial == Denial::None {
                    pass.denial = Denial::Learning;
                }
                continue;
            }
            let closed = self.closed(now);
            let fits = closed.is_none() && self.fits(&candidate.head, &totals);
            let may_go = fits && barrier.as_ref().is_none_or(|barrier| passes(&candidate, barrier));
            if may_go {
                for (name, take, hold) in &candidate.head.wants {
                    *totals.entry(*name).or_default() += take + hold;
                }
                if is_own {
                    self.grant(now, caller, &candidate.head);
                    if is_contended {
                        let tier = usize::from(candidate.head.tier & 3);
                        self.fairness
                            .serve(now, &candidate.head, first_key[tier], shares, waits);
                    }
                    pass.granted[candidate.order] = true;
                } else {
                    self.wake(candidate.replica, now, &mut pass.wakenings);
                }
                if let Some(barrier) = &mut barrier {
                    for (name, take, hold) in &candidate.head.wants {
                        if let Some(spare) = barrier.spare.get_mut(name) {
                            *spare = spare.saturating_sub(take + hold);
                        }
                    }
                }
                continue;
            }
            if barrier.is_some() {
                if is_own && pass.denial == Denial::None {
                    pass.denial = closed.unwrap_or(Denial::Line);
                }
                continue;
            }
            pass.is_waited_for = true;
            if closed.is_none() {
                self.look_around(now, caller, &candidate.head, &totals, &mut pass.wakenings);
            }
            let (mut at, by) = self.earliest(now, &candidate.head, &totals);
            if at > 0 {
                at = at.max(self.paused_until);
            }
            let spare = self.spare(at, &candidate.head, &totals);
            if is_own {
                pass.denial = closed.unwrap_or(Denial::Limit);
                pass.denied_by = by;
                if closed != Some(Denial::Learning) {
                    pass.wake_at = at;
                }
            } else if at > 0 && closed != Some(Denial::Learning) {
                self.wake(candidate.replica, at, &mut pass.wakenings);
            }
            barrier = Some(Barrier {
                tier: candidate.head.tier,
                tenant: candidate.head.tenant,
                served: candidate.key + candidate.head.service,
                at,
                spare,
            });
        }
        pass
    }

    /// Returns everybody who wants to be sent, in the order in which they are entitled to it.
    fn candidates(&self, now: u64, caller: u64, asks: &[Head]) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let others = self
            .members
            .iter()
            .filter(|(id, member)| **id != caller && member.is_there(now));
        let lists = others
            .map(|(id, member)| (*id, member.heads.as_slice()))
            .chain([(caller, asks)]);
        for (replica, heads) in lists {
            let mut oldest: BTreeMap<(u8, u64), u64> = BTreeMap::new();
            for (order, head) in heads.iter().enumerate().rev() {
                let since = oldest.entry((head.tier, head.tenant)).or_insert(u64::MAX);
                *since = head.arrived.min(*since);
                candidates.push(Candidate {
                    rank: (1, head.tier),
                    key: 0,
                    since: *since,
                    arrived: head.arrived,
                    replica,
                    order,
                    head: head.clone(),
                });
            }
        }
        // A flow's requests go in the order in which they came, wherever they wait; those of one replica in its own.
        candidates.sort_by_key(|one| (one.since, one.replica, one.order));
        let mut ahead: BTreeMap<(u8, u64), u64> = BTreeMap::new();
        for candidate in &mut candidates {
            let (tier, tenant) = (candidate.head.tier, candidate.head.tenant);
            let before = ahead.entry((tier, tenant)).or_default();
            candidate.key = self.fairness.tag(now, tier, tenant) + *before;
            *before += candidate.head.service;
        }
        candidates.sort_by_key(|one| (one.rank, one.key, one.arrived, one.replica, one.order));
        for tier in 1..4_u8 {
            // As many are due as what the tier has earned is enough for.
            let mut credit = self.fairness.credit[usize::from(tier)];
            for candidate in candidates.iter_mut().filter(|one| one.head.tier == tier) {
                let cost = candidate.head.cost.min(WINDOW_COST);
                if credit == 0 || credit < cost {
                    break;
                }
                candidate.rank.0 = 0;
                credit -= cost;
            }
        }
        candidates.sort_by_key(|one| (one.rank, one.key, one.arrived, one.replica, one.order));
        candidates
    }

    /// Returns what is in use of every limit: charges, what is held, and what is kept for those who are cut off.
    pub(super) fn totals(&self, now: u64) -> BTreeMap<LimitName, u64> {
        let total = |name: LimitName, ring: &Ring| {
            let members = self.members.values();
            let held: u64 = members.clone().map(|member| member.held(now, name)).sum();
            let kept: u128 = members.map(|member| member.kept(now, name, ring)).sum();
            let missing = self.missing.as_ref().map_or(0, |missing| missing.kept(now, ring));
            let kept = u64::try_from(kept.div_ceil(u128::from(SHARES))).unwrap_or(u64::MAX);
            ring.live.saturating_add(kept) + held + missing
        };
        self.rings
            .iter()
            .map(|(name, ring)| (*name, total(*name, ring)))
            .collect()
    }

    /// Returns why nobody is let in now, if that is so.
    fn closed(&self, now: u64) -> Option<Denial> {
        match &self.learning {
            Some(learning) if !learning.lets_try(now) => Some(Denial::Learning),
            _ if now < self.paused_until => Some(Denial::Pause),
            _ => None,
        }
    }

    /// Returns whether everybody who may still say who is there knows that a replica is: if the ledger is lost, somebody has to
    /// say that its charges are missing.
    fn is_known(&self, now: u64, caller: u64) -> bool {
        let born = self.members.get(&caller).map_or(0, |member| member.born);
        let mut others = self.members.iter().filter(|(id, member)| {
            **id != caller && !member.left && now.saturating_sub(member.contact) <= CUT_OFF_AFTER
        });
        others.all(|(_, member)| {
            // Whoever has not got its first answer yet knows nobody, or everybody who was there before.
            let at = if member.before.at == 0 {
                member.told.at
            } else {
                member.before.at
            };
            at == 0 || at > born
        })
    }

    fn fits(&self, head: &Head, totals: &BTreeMap<LimitName, u64>) -> bool {
        head.wants.iter().all(|(name, take, hold)| {
            let limit = self.rings.get(name).map_or(0, Ring::limit);
            let weight = (take + hold).min(limit);
            weight == 0 || totals.get(name).copied().unwrap_or(0) + weight <= limit
        })
    }

    /// Returns when somebody will fit (0: nobody knows), and which limit is the last to let them.
    fn earliest(&self, now: u64, head: &Head, totals: &BTreeMap<LimitName, u64>) -> (u64, u64) {
        let (mut latest, mut by) = (now, 0);
        for (name, take, hold) in &head.wants {
            let Some(ring) = self.rings.get(name) else {
                continue;
            };
            let limit = ring.limit();
            let weight = (take + hold).min(limit);
            let total = totals.get(name).copied().unwrap_or(0);
            if weight == 0 || total + weight <= limit {
                continue;
            }
            let at = ring.freed_at(total + weight - limit);
            if at == 0 {
                return (0, name.number());
            }
            if at > latest || by == 0 {
                by = name.number();
            }
            latest = latest.max(at);
        }
        (latest, by)
    }

    /// Returns what others may take before somebody who will fit at a moment.
    fn spare(&self, at: u64, head: &Head, totals: &BTreeMap<LimitName, u64>) -> BTreeMap<LimitName, u64> {
        let spare = |name: &LimitName, weight: u64| {
            let ring = self.rings.get(name)?;
            let limit = ring.limit();
            let weight = weight.min(limit);
            let total = totals.get(name).copied().unwrap_or(0);
            let left = total.saturating_sub(ring.freed_by(at)) + weight;
            Some((*name, limit.saturating_sub(left)))
        };
        head.wants
            .iter()
            .filter(|(_, take, hold)| take + hold > 0)
            .filter_map(|(name, take, hold)| spare(name, take + hold))
            .collect()
    }

    fn grant(&mut self, now: u64, caller: u64, head: &Head) {
        for (name, take, hold) in &head.wants {
            if let Some(ring) = self.rings.get_mut(name) {
                ring.charge(now, now, *take);
            }
            if *hold > 0
                && let Some(member) = self.members.get_mut(&caller)
            {
                *member.held.entry(*name).or_default() += hold;
            }
        }
        if let Some(learning) = &mut self.learning {
            learning.tried = Some(now);
        }
    }

    /// Asks everybody to look at what was refunded, if somebody waits for nothing else: a part of it is kept for those who may
    /// still count on its expiry.
    fn look_around(
        &mut self,
        now: u64,
        caller: u64,
        head: &Head,
        totals: &BTreeMap<LimitName, u64>,
        wakenings: &mut Vec<Wakening>,
    ) {
        let is_due = now.saturating_sub(self.round_at) >= ROUND_EVERY;
        if !is_due || !self.waits_for_refund(now, head, totals) {
            return;
        }
        self.round_at = now;
        for ring in self.rings.values_mut() {
            ring.round = ring.refunded;
        }
        let rings = &self.rings;
        let is_behind = |member: &Member| {
            rings
                .iter()
                .any(|(name, ring)| member.is_behind(*name, ring.round))
        };
        let others = self.members.iter();
        let behind: Vec<(u64, bool)> = others
            .filter(|(id, member)| **id != caller && member.is_there(now) && is_behind(member))
            .map(|(id, member)| (*id, !member.heads.is_empty()))
            .collect();
        for (replica, waits) in behind {
            if waits {
                self.wake(replica, now, wakenings);
            } else {
                wakenings.push(Wakening { replica, at: now });
            }
        }
    }

    /// Returns whether somebody would fit if everybody knew what was refunded.
    fn waits_for_refund(&self, now: u64, head: &Head, totals: &BTreeMap<LimitName, u64>) -> bool {
        head.wants.iter().all(|(name, take, hold)| {
            let Some(ring) = self.rings.get(name) else {
                return true;
            };
            let limit = ring.limit();
            let weight = (take + hold).min(limit);
            let total = totals.get(name).copied().unwrap_or(0);
            if weight == 0 || total + weight <= limit {
                return true;
            }
            let there = self
                .members
                .values()
                .filter(|member| member.is_there(now) && member.is_in_touch(now));
            let kept: u128 = there.map(|member| member.kept(now, *name, ring)).sum();
            u128::from(total + weight - limit) <= kept.div_ceil(u128::from(SHARES))
        })
    }

    fn wake(&mut self, replica: u64, at: u64, wakenings: &mut Vec<Wakening>) {
        let Some(member) = self.members.get_mut(&replica) else {
            return;
        };
        if member.woken == 0 || at < member.woken {
            member.woken = at;
            wakenings.push(Wakening { replica, at });
        }
    }
}

/// Returns whether somebody who fits may go before the first who does not: that one goes no later for it, and its tenant is
/// not overtaken in service within the tier.
fn passes(candidate: &Candidate, barrier: &Barrier) -> bool {
    let head = &candidate.head;
    if head.tier == barrier.tier
        && head.tenant != barrier.tenant
        && candidate.key + head.service > barrier.served
    {
        return false;
    }
    barrier.at > 0
        && head.wants.iter().all(|(name, take, hold)| {
            let spare = barrier.spare.get(name).copied();
            spare.is_none_or(|spare| take + hold <= spare)
        })
}
