//! Remembering over a restart, and what is presumed after a crash.

use alloc::vec;
use core::time::Duration;

use super::{ACCOUNTS_MAX, Engine, find};
use crate::group::{Group, UnderWay};
use crate::memory::{Gap, Memory, UnknownMemory, charges_each};
use crate::plan::{QuotaId, QuotaKey};
use crate::time::Timestamp;

impl Engine {
    /// Returns what is known now, for [`Engine::recall`] after a restart.
    ///
    /// What is under way counts as charged, with all that it may still take: nobody will settle it.
    pub fn remember(&mut self, now: Timestamp) -> Memory {
        self.pass(now);
        let now = self.now;
        let mut under_way = vec![UnderWay::default(); self.groups.len()];
        for flight in self.permits.iter().filter_map(|slot| slot.flight.as_ref()) {
            let at = flight.group as usize;
            if let (Some(sum), Some(group)) = (under_way.get_mut(at), self.groups.get(at)) {
                sum.add(group, flight);
            }
        }
        let limits: usize = self.groups.iter().map(Group::limits).sum();
        let each = charges_each(limits.saturating_add(self.allowances.limits()));
        let groups = self.keys.values().filter_map(|index| {
            let at = *index as usize;
            let group = self.groups.get_mut(at)?;
            group.advance(now);
            group.remember(now, each, under_way.get(at)?)
        });
        Memory {
            version: Memory::VERSION,
            at: Timestamp::from_micros(now),
            groups: groups.collect(),
            allowances: self.allowances.remember(now, each),
            gap: self.gap,
        }
    }

    /// Takes over what an engine before this one knew. It is to be called before the first request: groups that are in use
    /// already are left alone, and so is what is in the plan no more.
    ///
    /// # Errors
    ///
    /// Returns an error, and changes nothing, if the memory is of another version.
    pub fn recall(&mut self, now: Timestamp, memory: &Memory) -> Result<(), UnknownMemory> {
        if memory.version != Memory::VERSION {
            return Err(UnknownMemory {
                version: memory.version,
            });
        }
        self.pass(now);
        let (now, at) = (self.now, memory.at.as_micros());
        if let Some(gap) = memory.gap {
            self.presume(Timestamp::from_micros(now), gap);
        }
        for known in memory.groups.iter().take(ACCOUNTS_MAX) {
            let key = QuotaKey {
                id: QuotaId::of(&known.name),
                account: known.account,
            };
            if self.keys.contains_key(&key) {
                continue;
            }
            let Ok(index) = self.group_for(key) else { continue };
            let plan = find(&self.plan, key.id);
            if let (Some(plan), Some(group)) = (plan, self.groups.get_mut(index as usize)) {
                group.recall(now, at, known, plan);
                if let Some(gap) = self.gap {
                    group.presume_new(now, gap);
                }
            }
        }
        if !self.allowances.is_shared() {
            // The book that replicas share knows what its former self used.
            self.allowances.recall(now, at, &memory.allowances);
        }
        Ok(())
    }

    /// Takes every limit of a provider for used up as of the end of a gap: an engine before this one was gone by then, and
    /// was not asked to [remember](Engine::remember) later than at its beginning. It is to be called before the first request
    /// and after [`Engine::recall`], and holds for groups that come into use later as well. Requests in flight are not
    /// presumed, nor is what tenants and routes may use.
    ///
    /// While use is presumed, one request at a time goes all the same. As soon as an answer tells what is left of a limit,
    /// that holds instead. Where answers do not, no other asks, if the window is a short one: it is waited for.
    ///
    /// Returns when the last of it will have expired; `None` if nothing is presumed, because every window is over or
    /// the limits are shared: their ledger knows what was charged.
    pub fn presume(&mut self, now: Timestamp, gap: Gap) -> Option<Timestamp> {
        self.pass(now);
        let now = self.now;
        if self.plan.shared.is_some() {
            // The ledger that replicas share knows what was charged.
            return None;
        }
        let until = gap.until.min(Timestamp::from_micros(now));
        let gap = Gap {
            since: gap.since.min(until),
            until,
        };
        let mut last = None;
        for group in &mut self.groups {
            group.advance(now);
            last = last.max(group.presume(now, gap));
        }
        // Of what is in no memory, nobody knew in an earlier gap either.
        let before = self.gap.map_or(0, Gap::length);
        let gap = Gap {
            since: gap.since - Duration::from_micros(before),
            ..gap
        };
        // Those that come into use later, to tell until when.
        for quota in &self.plan.quotas {
            let key = QuotaKey {
                id: quota.id(),
                account: 0,
            };
            last = last.max(Group::new(now, key, quota, self.plan.tiers).presume(now, gap));
        }
        self.gap = last.map(|_| gap);
        last.map(Timestamp::from_micros)
    }
}
