//! Callers that were told when to come back: they take the place in line that they would have had.
//!
//! A refusal with a time is a promise. Whoever comes back then with the same request stands before all that came after the
//! first attempt, and newcomers are told of a later turn for as many of them as usually come back.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};

use super::Clock;
use crate::caller::{Caller, TenantId};
use crate::charge::Charge;

/// The most callers of one group that are expected back; further ones are told the time all the same.
const PROMISES_MAX: usize = 10_000;

/// Steps of a sixteenth of a window that are remembered: twelve windows ahead, and four of those who are late.
const STEPS: usize = 256;
const LATE_STEPS: u64 = 64;

/// How late a caller may come back and still find its place: this long, or this part of the time that it was told to stay
/// away, in microseconds.
const GRACE_MIN: u64 = 10_000_000;
const GRACE_PART: u64 = 4;

/// How many promises are judged by, when it is judged how many callers come back.
const JUDGED: u32 = 256;

#[derive(Debug, Clone)]
struct Promise {
    /// Its place in line: what would have been its arrival.
    arrival: u64,
    /// When its turn is, and when it was told to come: up to a tenth later.
    turn: u64,
    due: u64,
    until: u64,
    tier: u8,
    tenant: TenantId,
    charge: Charge,
}

/// The promises of one group.
#[derive(Debug, Clone)]
pub(crate) struct Promises {
    by_identity: BTreeMap<u64, Promise>,
    /// Promises by the time until which they hold.
    by_end: BTreeSet<(u64, u64)>,
    /// What those take who are expected in each step and of each tier; made when the first one is.
    expected: Option<Box<[[Charge; 4]; STEPS]>>,
    /// What those of each tenant take.
    of_tenant: BTreeMap<TenantId, Charge>,
    /// How many came back of the latest, and how many did not.
    kept: u32,
    lapsed: u32,
}

impl Default for Promises {
    fn default() -> Self {
        // All of them, until it is known better: SDKs come back when they are told.
        Self {
            by_identity: BTreeMap::new(),
            by_end: BTreeSet::new(),
            expected: None,
            of_tenant: BTreeMap::new(),
            kept: 16,
            lapsed: 0,
        }
    }
}

impl Promises {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_identity.is_empty()
    }

    /// Expects a caller back.
    pub(crate) fn give(
        &mut self,
        now: u64,
        clock: Clock,
        identity: u64,
        (arrival, caller): (u64, Caller),
        (turn, wait): (u64, u64),
        charge: Charge,
    ) {
        self.lapse(now, clock);
        // Whoever comes too early is told again, and has the first place still.
        let arrival = match self.take(clock, identity) {
            Some(earlier) => earlier.arrival,
            None => arrival,
        };
        if self.by_identity.len() >= PROMISES_MAX {
            return;
        }
        let due = now.saturating_add(wait);
        let promise = Promise {
            arrival,
            turn: turn.clamp(now, due),
            due,
            until: due.saturating_add((wait / GRACE_PART).max(GRACE_MIN)),
            tier: u8::try_from(caller.priority.index()).unwrap_or(u8::MAX),
            tenant: caller.tenant,
            charge,
        };
        self.by_end.insert((promise.until, identity));
        if let Some(step) = self.step(clock, &promise) {
            step.add(&charge);
        }
        self.of_tenant.entry(promise.tenant).or_default().add(&charge);
        self.by_identity.insert(identity, promise);
    }

    /// Returns what those of a tenant take who are expected back.
    pub(crate) fn of(&self, tenant: TenantId) -> Charge {
        let sum = self.of_tenant.get(&tenant).copied().unwrap_or_default();
        sum.part(u64::from(self.kept), u64::from(self.kept + self.lapsed))
    }

    /// Returns the place of a caller that has come back, if it was told to come by now. Its promise is kept.
    pub(crate) fn redeem(&mut self, now: u64, clock: Clock, identity: u64) -> Option<u64> {
        if self.by_identity.is_empty() {
            return None;
        }
        self.lapse(now, clock);
        let promise = self.by_identity.get(&identity)?;
        // Clocks and networks are not exact.
        if now.saturating_add(EARLY) < promise.due {
            return None;
        }
        let promise = self.take(clock, identity)?;
        self.judge(true);
        Some(promise.arrival)
    }

    /// Returns what those take whose turn is before a time and who are not back yet, in tiers down to this one.
    pub(crate) fn before(&self, now: u64, clock: Clock, until: u64, tier: usize) -> Charge {
        let mut sum = Charge::ZERO;
        let Some(expected) = self.expected.as_ref().filter(|_| !self.is_empty()) else {
            return sum;
        };
        let first = clock.slot(now).saturating_sub(LATE_STEPS);
        let last = clock.slot(until).min(first + STEPS as u64 - 1);
        for slot in first..=last {
            for charge in &expected[place(slot)][..=tier.min(3)] {
                sum.add(charge);
            }
        }
        sum.part(u64::from(self.kept), u64::from(self.kept + self.lapsed))
    }

    /// Forgets those who did not come back in time.
    fn lapse(&mut self, now: u64, clock: Clock) {
        while let Some(&(until, identity)) = self.by_end.first() {
            if until >= now {
                break;
            }
            self.take(clock, identity);
            self.judge(false);
        }
    }

    fn take(&mut self, clock: Clock, identity: u64) -> Option<Promise> {
        let promise = self.by_identity.remove(&identity)?;
        self.by_end.remove(&(promise.until, identity));
        let charge = promise.charge;
        if let Some(sum) = self.of_tenant.get_mut(&promise.tenant) {
            sum.subtract(&charge);
            if *sum == Charge::ZERO {
                self.of_tenant.remove(&promise.tenant);
            }
        }
        if let Some(step) = self.step(clock, &promise) {
            step.subtract(&charge);
        }
        debug_assert_eq!(self.by_end.len(), self.by_identity.len(), "every promise ends");
        Some(promise)
    }

    /// Returns the sum to which a promise belongs.
    fn step(&mut self, clock: Clock, promise: &Promise) -> Option<&mut Charge> {
        let expected = self
            .expected
            .get_or_insert_with(|| Box::new([[Charge::ZERO; 4]; STEPS]));
        expected[place(clock.slot(promise.turn))].get_mut(usize::from(promise.tier))
    }

    fn judge(&mut self, has_come: bool) {
        if self.kept + self.lapsed >= JUDGED {
            self.kept = self.kept.div_ceil(2);
            self.lapsed = self.lapsed.div_ceil(2);
        }
        if has_come {
            self.kept += 1;
        } else {
            self.lapsed += 1;
        }
    }
}

/// A caller that comes back so much too early is on time, in microseconds.
const EARLY: u64 = 250_000;

#[allow(
    clippy::cast_possible_truncation,
    reason = "the remainder is smaller than the number of steps"
)]
const fn place(slot: u64) -> usize {
    (slot % STEPS as u64) as usize
}
