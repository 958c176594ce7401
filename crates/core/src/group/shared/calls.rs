//! What the ledger is asked and told.

use alloc::vec::Vec;

use super::{Asked, BEAT, Group, JOINS, Sent, length};
use crate::ledger::{Ask, CLOCK_SLACK, Call, Entry, LimitName, MISSED_MAX, Missed, Seed, Terms, WINDOW_MAX};
use crate::limit::LimitSource;
use crate::output::Standing;
use crate::plan::TierPlan;

impl Group {
    /// Returns the call that is due, or the one again whose answer has not come.
    pub(crate) fn call(&mut self, now: u64, tiers: [TierPlan; 4]) -> Option<Call> {
        self.note_changes(now);
        let is_in_use = self.is_in_use();
        let longest = self.longest();
        let shared = self.shared.as_mut()?;
        shared.is_announced = false;
        if !shared.decides() && shared.missed.len() < MISSED_MAX {
            shared.give_up();
        }
        if let Some(sent) = &mut shared.sent {
            sent.last = now;
            return Some(sent.call.clone());
        }
        if shared.is_gone(now, longest) {
            shared.forget();
        }
        let asks_for_nobody = shared.asked.is_empty();
        if !is_in_use && !shared.is_member && asks_for_nobody {
            return None;
        }
        let leaves = asks_for_nobody && (shared.is_leaving || !is_in_use);
        let (mut limits, facts) = (self.terms(), self.facts());
        let hold_until = self.hold_until;
        let shared = self.shared.as_mut()?;
        shared.join();
        if shared.has_lost {
            // What is said of our own charges is after all corrections: they must not count twice.
            shared.entries.clear();
        }
        let mut entries = shared.corrections(&limits);
        shared.tell(&limits, &facts, &mut entries);
        if hold_until > now && hold_until > shared.paused_until {
            shared.paused_until = hold_until;
            entries.push(Entry::Pause {
                until: shared.there(hold_until),
            });
        }
        let asked = core::mem::take(&mut shared.asked);
        let asks = asked.iter().map(|asked| aligned(asked, &limits)).collect();
        for terms in limits.iter_mut().filter(|terms| terms.life == 0) {
            // Those who are asked for hold nothing before they are let in.
            terms.held = terms.held.saturating_sub(asked.len() as u64);
        }
        shared.sequence += 1;
        let seed = core::mem::take(&mut shared.has_lost).then(|| Seed {
            own: shared.listed(&limits),
            seen: shared.seen_of(&limits),
            names: shared.names.clone(),
        });
        let call = Call {
            replica: shared.replica(),
            sequence: shared.sequence,
            epoch: shared.epoch,
            next_epoch: shared.next_epoch,
            time: if shared.offset.is_some() {
                shared.there(now)
            } else {
                0
            },
            shares: u64::from(shared.plan.share),
            share_life: length(shared.plan.share_life),
            lease: length(shared.plan.lease),
            tiers: tiers.map(|tier| tier.share_percent),
            trusts_empty: shared.plan.trusts_empty,
            leaves,
            wants_view: shared.standing != Standing::Open
                || shared.sequence == 1
                || shared
                    .viewed_at
                    .is_none_or(|at| now.saturating_sub(at) >= VIEW_AFTER),
            facts: shared.facts,
            limits,
            entries,
            asks,
            missed: shared.missed.clone(),
            seed,
            ..Call::default()
        };
        if leaves {
            // It may be gone for the ledger from now on, which keeps nothing for it then.
            shared.share = 0;
        }
        shared.calls += 1;
        (shared.is_urgent, shared.is_fresh) = (false, false);
        shared.beat_at = now + BEAT;
        shared.sent = Some(Sent {
            call: call.clone(),
            asked,
            first: now,
            last: now,
        });
        Some(call)
    }

    /// Returns the limits as the ledger keeps them.
    fn terms(&self) -> Vec<Terms> {
        let Some(shared) = &self.shared else {
            return Vec::new();
        };
        let late = self.permit_ttl + LATE;
        let offset = shared.offset.unwrap_or(0);
        let mut terms: Vec<Terms> = Vec::new();
        for meter in &self.meters {
            let one = meter.terms(late, offset);
            // Two meters of one name are one limit: the lower amount counts.
            match terms.iter_mut().find(|other| other.name == one.name) {
                Some(other) => other.amount = other.amount.min(one.amount),
                None => terms.push(one),
            }
        }
        terms
    }

    /// Returns what the provider told of each limit: its amount and who told it; 0 where nobody did.
    fn facts(&self) -> Vec<(LimitName, u64, u64)> {
        let told = self
            .meters
            .iter()
            .filter(|meter| meter.is_known() && !meter.is_passing());
        told.map(|meter| match meter.source() {
            source @ (LimitSource::Header | LimitSource::Api | LimitSource::Refusal) => {
                (meter.ledger_name(), meter.amount(), source as u64)
            }
            source => (meter.ledger_name(), 0, source as u64),
        })
        .collect()
    }

    /// Returns how long charges live at most.
    pub(super) fn longest(&self) -> u64 {
        let lives = self
            .meters
            .iter()
            .map(|meter| meter.window().saturating_add(meter.margin()));
        lives.max().unwrap_or(0)
    }

    /// Returns after how long a ledger that has lost charges lets requests in, whoever is missing.
    pub(super) fn learned_after(&self) -> u64 {
        let lives = self
            .meters
            .iter()
            .filter(|meter| meter.ledger_name().window() <= WINDOW_MAX)
            .map(|meter| meter.window().saturating_add(meter.margin()));
        lives.max().unwrap_or(0)
    }
}

/// Beyond its validity a permit may be so late on the wire, and the ledger's clock so far off, in microseconds.
const LATE: u64 = 100_000 + 2 * CLOCK_SLACK;

impl super::Shared {
    /// Joins the ledger, if it is no member.
    fn join(&mut self) {
        if !self.is_member {
            self.is_member = true;
            self.joins += 1;
            self.sequence = 0;
            if self.standing == Standing::Idle {
                self.standing = Standing::Joining;
            }
        }
    }

    /// Returns what the ledger has to be told of charges, of service and of what the provider counts.
    fn corrections(&mut self, limits: &[Terms]) -> Vec<Entry> {
        let place = |name: LimitName| limits.iter().position(|terms| terms.name == name);
        let mut entries = Vec::new();
        for ((name, bucket), by) in core::mem::take(&mut self.entries) {
            let Some(limit) = place(name) else { continue };
            let (stamp, amount) = (bucket * limits[limit].width, by.unsigned_abs());
            match by {
                1.. => entries.push(Entry::Charge { limit, stamp, amount }),
                0 => {}
                _ => entries.push(Entry::Refund { limit, stamp, amount }),
            }
        }
        for ((tier, tenant), by) in core::mem::take(&mut self.service) {
            if by != 0 {
                entries.push(Entry::Service { tier, tenant, by });
            }
        }
        for (name, amount) in core::mem::take(&mut self.used) {
            if let Some(limit) = place(name) {
                entries.push(Entry::Used { limit, amount });
            }
        }
        entries
    }

    /// Tells of amounts that the ledger does not know from us.
    fn tell(&mut self, limits: &[Terms], facts: &[(LimitName, u64, u64)], entries: &mut Vec<Entry>) {
        for (name, amount, source) in facts.iter().copied() {
            let Some(limit) = limits.iter().position(|terms| terms.name == name) else {
                continue;
            };
            let told = self.told.get(&name).copied();
            let is_news = amount > 0 || told.is_some_and(|(told, _)| told > 0);
            if is_news && told != Some((amount, source)) {
                self.told.insert(name, (amount, source));
                entries.push(Entry::Amount {
                    limit,
                    amount,
                    source,
                });
            }
        }
    }

    /// Gives up the answer that is awaited.
    pub(super) fn give_up(&mut self) {
        if let Some(sent) = self.sent.take() {
            self.missed.push(Missed {
                sequence: sent.call.sequence,
                entries: sent.call.entries,
                asks: sent.call.asks.into_iter().map(|ask| ask.take).collect(),
            });
        }
    }

    /// Returns whether the ledger has surely forgotten this replica, and everything that it did has expired.
    fn is_gone(&self, now: u64, longest: u64) -> bool {
        let patience = length(self.plan.share_life).max(length(self.plan.lease)) + longest + GONE_SLACK;
        self.is_member
            && self
                .contact
                .is_some_and(|contact| now.saturating_sub(contact) > patience)
    }

    /// Forgets that it was a member: it joins anew, as another.
    pub(super) fn forget(&mut self) {
        self.is_member = false;
        self.joins = (self.joins + 1) % JOINS;
        self.sequence = 0;
        self.missed.clear();
        self.own.clear();
        self.entries.clear();
        self.epoch = 0;
        self.has_lost = false;
    }

    /// Returns our own charges, by the limits of a call.
    fn listed(&self, limits: &[Terms]) -> Vec<(usize, u64, u64)> {
        let mut list = Vec::new();
        for ((name, bucket), amount) in self.own.iter().filter(|(_, amount)| **amount > 0) {
            if let Some(limit) = limits.iter().position(|terms| terms.name == *name) {
                list.push((limit, bucket * limits[limit].width, *amount));
            }
        }
        list
    }

    /// Returns everybody's charges of the limits over long windows, as last seen.
    fn seen_of(&self, limits: &[Terms]) -> Vec<(usize, u64, u64)> {
        let place = |name: LimitName| limits.iter().position(|terms| terms.name == name);
        let listed = self
            .seen
            .iter()
            .filter_map(|(name, slots)| Some((place(*name)?, slots)));
        listed
            .flat_map(|(limit, slots)| slots.iter().map(move |(slot, amount)| (limit, *slot, *amount)))
            .collect()
    }

    /// Moves our own charges by so much, because the ledger's time is another one.
    pub(super) fn shift(&mut self, by: i64, width_of: impl Fn(LimitName) -> u64) {
        for ((name, bucket), amount) in core::mem::take(&mut self.own) {
            let width = width_of(name).max(1);
            let stamp = ((bucket + 1) * width - 1).saturating_add_signed(by);
            *self.own.entry((name, stamp / width)).or_default() += amount;
        }
    }
}

/// Everybody's charges are asked for when they were not seen for so long, in microseconds. They are shown to whoever is not
/// let in anyway, and looking at them costs the store more than all else.
const VIEW_AFTER: u64 = BEAT;

/// Returns an ask by the limits of a call.
fn aligned(asked: &Asked, limits: &[Terms]) -> Ask {
    let of = |name: LimitName| asked.wants.iter().find(|want| want.0 == name);
    let take = |terms: &Terms| of(terms.name).map_or(0, |want| want.1);
    let hold = |terms: &Terms| of(terms.name).map_or(0, |want| want.2);
    Ask {
        take: limits.iter().map(take).collect(),
        hold: limits.iter().map(hold).collect(),
        ..asked.ask.clone()
    }
}

/// A replica that was silent for so much longer than anything of it counts joins anew, in microseconds.
const GONE_SLACK: u64 = 5_000_000;
