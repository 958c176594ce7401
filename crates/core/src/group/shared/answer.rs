//! What the ledger answers.

use alloc::vec::Vec;

use super::{
    ASKS_MAX, ASKS_MIN, Asked, BEAT, Group, PERMIT_TTL_MAX, PROMPT_ENOUGH, SERVICE_BITS, Sent, TOUCH_MAX,
};
use crate::allowance::Allowances;
use crate::caller::{Priority, TenantId};
use crate::decision::WaitReason;
use crate::group::HOLD_MAX;
use crate::ledger::{
    CLOCK_SLACK, CallKey, Denial, Fact, HEADS_MAX, NAMES_KEPT, Reply, SILENT_AFTER, Status, WINDOW_MAX,
};
use crate::limit::LimitSource;
use crate::output::{Notice, Standing};
use crate::queue::Place;
use crate::units::Dimension;

/// Clocks drift: ours follows the ledger's by at most so much with every answer, in microseconds. Whoever followed at once
/// would follow every step of a server's clock.
const SLEW_MAX: i64 = 1_000;

/// A ledger that does not know what time it is is called again after so long, in microseconds: soon after somebody who knows
/// has called.
const DOUBT: u64 = CLOCK_SLACK / 2;

/// The ledger's time is another one if it is off by more, in microseconds.
const SHIFT_MIN: u64 = 2 * CLOCK_SLACK;

/// A call at the moment at which something expires is made this much later, in microseconds.
const AFTER: u64 = 1_000;

/// Somebody whom the ledger has let go.
#[derive(Debug)]
pub(crate) struct Let {
    pub(crate) slot: u32,
    pub(crate) place: Place,
    /// When, by our clock.
    pub(crate) granted: u64,
    pub(crate) valid_until: u64,
}

impl Group {
    /// Takes note of an answer. Returns those who may go.
    pub(crate) fn answered(
        &mut self,
        now: u64,
        call: CallKey,
        reply: &Reply,
        allowances: &mut Allowances,
        notices: &mut Vec<Notice>,
    ) -> Vec<Let> {
        self.note_changes(now);
        let Some(shared) = &mut self.shared else {
            return Vec::new();
        };
        if shared.sent.as_ref().is_none_or(|sent| sent.call.key() != call) {
            return Vec::new();
        }
        shared.is_announced = false;
        if reply.now == 0 {
            // The ledger does not know what time it is: the same call is made again soon.
            shared.beat_at = now + DOUBT;
            shared.repeats = true;
            self.stand(Standing::Learning, notices);
            return Vec::new();
        }
        let Some(sent) = shared.sent.take() else {
            return Vec::new();
        };
        let round = now.saturating_sub(sent.last);
        let middle = i64::try_from(now - round / 2).unwrap_or(i64::MAX);
        let measured = i64::try_from(reply.now)
            .unwrap_or(i64::MAX)
            .saturating_sub(middle);
        let is_exact = round <= self.permit_ttl && sent.first == sent.last;
        if reply.status == Status::Lost && !is_exact {
            // It does not say what time it is there: the same call is made again at once.
            shared.sent = Some(Sent {
                first: now,
                last: now,
                ..sent
            });
            shared.beat_at = now;
            shared.repeats = true;
            return Vec::new();
        }
        if let Status::Lost | Status::Stale = reply.status {
            self.lost(now, &sent, reply, measured, allowances, notices);
            return Vec::new();
        }
        shared.offset = match shared.offset {
            Some(offset) if is_exact => {
                let off = measured.saturating_sub(offset);
                let is_another = off.unsigned_abs() > SHIFT_MIN;
                Some(offset.saturating_add(if is_another {
                    off
                } else {
                    off.clamp(-SLEW_MAX, SLEW_MAX)
                }))
            }
            Some(offset) => Some(offset),
            None => Some(measured),
        };
        shared.epoch = reply.epoch;
        shared.missed.clear();
        if now.saturating_sub(sent.first) <= TOUCH_MAX {
            shared.contact = Some(sent.first);
        }
        if sent.call.leaves {
            shared.forget();
            shared.epoch = reply.epoch;
            (shared.contact, shared.replicas, shared.share) = (None, 0, 0);
            for meter in &mut self.meters {
                meter.advance_again();
            }
            self.stand(Standing::Idle, notices);
            return Vec::new();
        }
        shared.share = reply.share;
        shared.replicas = reply.replicas;
        shared.facts = reply.facts_version;
        let was_away = !shared.decides();
        let is_in_touch = shared.contact == Some(sent.first);
        if reply.paused_until > 0 {
            let until = shared.here(reply.paused_until).min(now.saturating_add(HOLD_MAX));
            shared.paused_until = shared.paused_until.max(until);
            self.hold_until = self.hold_until.max(until);
        }
        self.believe(now, &reply.facts, notices);
        self.reflect(now, &sent, reply);
        let lets = self.divide(now, &sent, reply, allowances);
        self.heed_delay(now.saturating_sub(sent.first), reply.granted.contains(&true));
        self.adopt_tags(now, &sent, reply);
        if is_in_touch {
            if was_away {
                for meter in &mut self.meters {
                    meter.advance_again();
                }
            }
            let standing = match reply.status {
                Status::Learning => Standing::Learning,
                _ => Standing::Open,
            };
            self.stand(standing, notices);
        } else if was_away {
            // It has heard of us, and may give our share to others.
            self.stand(Standing::Closed, notices);
        }
        self.prune(now);
        lets
    }

    /// The ledger is not the one that it was: it has to be told what is known.
    fn lost(
        &mut self,
        now: u64,
        sent: &Sent,
        reply: &Reply,
        measured: i64,
        allowances: &mut Allowances,
        notices: &mut Vec<Notice>,
    ) {
        for asked in &sent.asked {
            self.undo(now, asked, true, allowances);
        }
        let shortest = self.learned_after();
        let Some(shared) = &mut self.shared else { return };
        let silent = shared.contact.map(|contact| now.saturating_sub(contact));
        let is_cut_off = !shared.decides() || silent.is_none_or(|silent| silent > 2 * SILENT_AFTER);
        if silent.is_none_or(|silent| silent > NAMES_KEPT.min(shortest)) {
            // Others may have come since who are not known here.
            shared.names.clear();
        }
        let shift = shared.offset.map_or(0, |offset| measured - offset);
        if shift.unsigned_abs() > SHIFT_MIN {
            let widths: Vec<_> = self
                .meters
                .iter()
                .map(|meter| (meter.ledger_name(), meter.width()))
                .collect();
            let width_of = |name| {
                widths
                    .iter()
                    .find(|width| width.0 == name)
                    .map_or(1, |width| width.1)
            };
            shared.shift(shift, width_of);
            shared.seen.clear();
            shared.offset = Some(measured);
        }
        shared.share = 0;
        shared.sequence = 0;
        shared.missed.clear();
        (shared.is_quiet, shared.wake_at) = (false, None);
        shared.registered.clear();
        shared.epoch = reply.epoch;
        shared.next_epoch = shared.next_epoch % (super::NUMBERS - 1) + 1;
        shared.told.clear();
        shared.facts = 0;
        // What was charged is told as a whole.
        shared.entries.clear();
        shared.service.clear();
        shared.has_lost = reply.status == Status::Lost;
        shared.is_urgent = true;
        shared.beat_at = now;
        if reply.status == Status::Stale {
            // Somebody else has our number.
            shared.forget();
            shared.epoch = reply.epoch;
        }
        let standing = if is_cut_off {
            Standing::Closed
        } else {
            Standing::Learning
        };
        if shared.standing != Standing::Idle {
            self.stand(standing, notices);
        }
    }

    /// Adopts what other replicas were told by the provider.
    fn believe(&mut self, now: u64, facts: &[Fact], notices: &mut Vec<Notice>) {
        for fact in facts {
            let Some(shared) = &mut self.shared else { return };
            let known = (fact.amount, fact.source);
            if shared.told.insert(fact.name, known) == Some(known) || fact.amount == 0 {
                continue;
            }
            let source = source_of(fact.source);
            match self
                .meters
                .iter_mut()
                .find(|meter| meter.ledger_name() == fact.name)
            {
                Some(meter) => {
                    let before = meter.amount();
                    meter.follow(now, fact.amount, source);
                    if meter.amount() != before {
                        notices.push(Notice::LimitChanged(meter.name()));
                    }
                }
                None => self.adopt_fact(now, fact, source),
            }
        }
    }

    /// Makes the meters show what everybody has charged.
    fn reflect(&mut self, now: u64, sent: &Sent, reply: &Reply) {
        let Some(shared) = &mut self.shared else { return };
        if reply.view.is_some() {
            shared.viewed_at = Some(now);
        }
        let mut is_tight = false;
        let mut fullest = 0;
        for (at, terms) in sent.call.limits.iter().enumerate() {
            let total = reply.totals.get(at).copied().unwrap_or(0);
            is_tight |= total.saturating_mul(10) >= terms.amount.saturating_mul(9);
            let Some(meter) = self
                .meters
                .iter_mut()
                .find(|meter| meter.ledger_name() == terms.name)
            else {
                continue;
            };
            let is_held = meter.dimension() == Dimension::Concurrency;
            let view = reply.view.as_ref().and_then(|view| view.get(at));
            if let Some(view) = view {
                let slot_length = terms.width * 10;
                let charges = view.iter().map(|(slot, amount)| {
                    let end = (slot + 1) * slot_length - 1;
                    (shared.here(end).min(now), *amount)
                });
                meter.mirror(now, charges);
                // What has been taken meanwhile the ledger does not know yet.
                for asked in &shared.asked {
                    if meter.taking() == crate::meter::Taking::AtOnce && !is_held {
                        meter.charge(asked.charge.amount(meter.dimension()).value());
                    }
                }
                for ((name, _), amount) in &shared.entries {
                    if *name == terms.name && *amount > 0 {
                        meter.charge(amount.unsigned_abs());
                    }
                }
                meter.changes().for_each(drop);
            }
            if let Some(view) = view {
                // If the ledger loses them, nobody waits for a day.
                if terms.name.window() > WINDOW_MAX {
                    shared.seen.insert(terms.name, view.clone());
                }
                let all: u64 = view.iter().map(|(_, amount)| amount).sum();
                let full = u128::from(all) * 1_000_000 / u128::from(terms.amount.max(1));
                if full >= fullest {
                    fullest = full;
                    let own = shared.own.range((terms.name, 0)..=(terms.name, u64::MAX));
                    shared.part = (own.map(|(_, amount)| amount).sum::<u64>().min(all), all);
                }
            }
            if is_held || view.is_some() {
                let charged: u64 = view.map_or(0, |view| view.iter().map(|(_, amount)| amount).sum());
                let granted = sent
                    .call
                    .asks
                    .iter()
                    .zip(&reply.granted)
                    .filter(|(_, granted)| **granted);
                let held: u64 = granted
                    .map(|(ask, _)| ask.hold.get(at).copied().unwrap_or(0))
                    .sum();
                meter.held_elsewhere(total.saturating_sub(charged).saturating_sub(terms.held + held));
            }
        }
        if !reply.names.is_empty() {
            let is_known = |name| shared.names.contains(name);
            // The next call says that this one was heard: whoever is new waits for that.
            shared.is_urgent |= !shared.names.is_empty() && !reply.names.iter().all(is_known);
            shared.names.clone_from(&reply.names);
        }
        shared.is_tight = is_tight || reply.denial != Denial::None;
    }

    /// Lets permits be valid for longer where they come too late. The ledger is told with the next call, before it gives any.
    fn heed_delay(&mut self, took: u64, has_granted: bool) {
        let Some(shared) = &mut self.shared else { return };
        if took > self.permit_ttl && has_granted {
            self.permit_ttl = (self.permit_ttl * 2).min(PERMIT_TTL_MAX).max(self.permit_ttl);
            shared.prompt = 0;
        } else if took > shared.usual_ttl / 2 {
            shared.prompt = 0;
        } else {
            shared.prompt = shared.prompt.saturating_add(1);
            if shared.prompt >= PROMPT_ENOUGH {
                self.permit_ttl = shared.usual_ttl;
            }
        }
    }

    /// Parts those who may go from those who may not yet.
    fn divide(&mut self, now: u64, sent: &Sent, reply: &Reply, allowances: &mut Allowances) -> Vec<Let> {
        let (mut lets, mut denied, mut surprised) = (Vec::new(), Vec::new(), Vec::new());
        let valid_until = sent.first.saturating_add(self.permit_ttl);
        let has_view = reply.view.is_some();
        for (index, ask) in sent.call.asks.iter().enumerate() {
            // Nobody, if they were put back in line meanwhile.
            let asked = sent.asked.get(index);
            if !reply.granted.get(index).copied().unwrap_or(false) {
                if let Some(asked) = asked {
                    self.undo(now, asked, !has_view, allowances);
                    if let Some(reason) = self.denied_for(reply)
                        && self.queue.holds(asked.slot, asked.arrival)
                    {
                        let believed = self.queue.place(asked.slot).map(|place| place.waiting.reason);
                        let is_explained = matches!(reply.denial, Denial::Limit | Denial::Line);
                        if has_view && is_explained && believed == Some(WaitReason::Store) {
                            surprised.push((asked.slot, asked.arrival));
                        }
                        self.queue.note_reason(asked.slot, reason);
                    }
                    denied.push((asked.slot, asked.arrival));
                }
                continue;
            }
            let is_late = now > valid_until || asked.is_none();
            let Some(shared) = &mut self.shared else { break };
            let widths = sent.call.limits.iter().zip(&ask.take);
            for (terms, take) in widths.filter(|(_, take)| **take > 0) {
                let bucket = reply.now / terms.width;
                if is_late {
                    let amount = i64::try_from(*take).unwrap_or(i64::MAX);
                    *shared.entries.entry((terms.name, bucket)).or_default() -= amount;
                    shared.is_urgent = true;
                } else {
                    shared.note_own(terms.name, bucket, *take, false);
                }
            }
            let granted = shared.here(reply.now).min(now);
            let Some(asked) = asked else { continue };
            if is_late {
                self.undo(now, asked, true, allowances);
            } else if self.queue.holds(asked.slot, asked.arrival)
                && let Some(place) = self.queue.remove(asked.slot)
            {
                lets.push(Let {
                    slot: asked.slot,
                    place,
                    granted,
                    valid_until,
                });
            } else {
                // Nobody waits for it any more.
                self.give_up_grant(now, asked, granted, allowances);
            }
        }
        let Some(shared) = &mut self.shared else {
            return lets;
        };
        shared.is_quiet = !denied.is_empty();
        let granted = reply.granted.iter().filter(|granted| **granted).count();
        shared.asks_max = if denied.is_empty() {
            ASKS_MAX.min(shared.asks_max.max(granted) * 2)
        } else {
            (granted * 2).clamp(ASKS_MIN, ASKS_MAX)
        };
        denied.truncate(HEADS_MAX);
        (shared.registered, shared.surprised) = (denied, surprised);
        shared.wake_at = (reply.wake_at > 0).then(|| shared.here(reply.wake_at).max(now) + AFTER);
        shared.beat_at = shared.beat_at.max(sent.first + BEAT);
        if let Some(at) = shared.wake_at.filter(|_| !shared.is_quiet) {
            // Nobody is asked for, but it wants to be called.
            shared.beat_at = shared.beat_at.min(at);
        }
        lets
    }

    /// Returns what those wait for whom the ledger did not let go.
    fn denied_for(&self, reply: &Reply) -> Option<WaitReason> {
        Some(match reply.denial {
            Denial::None => return None,
            Denial::Limit => {
                let mut meters = self.meters.iter();
                let meter = meters.find(|meter| meter.ledger_name().number() == reply.denied_by)?;
                WaitReason::Limit(meter.name())
            }
            Denial::Line => WaitReason::Line,
            Denial::Pause => WaitReason::Hold,
            Denial::Learning => WaitReason::Learning,
        })
    }

    /// Gives back what was let go for somebody who has left.
    fn give_up_grant(&mut self, now: u64, asked: &Asked, granted: u64, allowances: &mut Allowances) {
        for meter in &mut self.meters {
            if meter.dimension() == Dimension::Concurrency {
                meter.release(1);
            } else if meter.taking() == crate::meter::Taking::AtOnce {
                meter.refund(granted, asked.charge.amount(meter.dimension()).value());
            }
        }
        self.note_changes(now);
        allowances.give_back(now, asked.at, asked.allowed, &asked.charge, asked.hold);
        let service = i64::try_from(asked.cost).unwrap_or(i64::MAX);
        let caller = asked.caller;
        self.queue
            .correct(now, (caller.priority, caller.tenant), -service);
        self.note_service(caller, -service);
    }

    fn adopt_tags(&mut self, now: u64, sent: &Sent, reply: &Reply) {
        // Alone in the ledger a flow's service is not counted, and is told as the least that anybody has.
        let is_counted = sent.call.asks.len() > 1 || reply.denial != Denial::None;
        for (ask, tag) in sent
            .call
            .asks
            .iter()
            .zip(&reply.tags)
            .filter(|(_, tag)| **tag > 0)
        {
            let Some(tier) = Priority::ALL.get(usize::from(ask.tier)) else {
                continue;
            };
            let tenant = TenantId::from_value(ask.tenant);
            self.queue
                .adopt_service(now, (*tier, tenant), tag << SERVICE_BITS, is_counted);
        }
    }

    /// Forgets charges of our own that count no more.
    fn prune(&mut self, now: u64) {
        let Some(shared) = &mut self.shared else { return };
        let now = now.saturating_add_signed(shared.offset.unwrap_or(0));
        for meter in &self.meters {
            let (name, width) = (meter.ledger_name(), meter.width().max(1));
            // Twice as long as anything counts that is given back late.
            let life = meter.window().saturating_add(meter.margin().saturating_mul(2));
            let first = now.saturating_sub(life) / width;
            let old: Vec<u64> = shared
                .own
                .range((name, 0)..(name, first))
                .map(|((_, bucket), _)| *bucket)
                .collect();
            for bucket in old {
                shared.own.remove(&(name, bucket));
            }
        }
        shared.own.retain(|_, amount| *amount > 0);
    }
}

fn source_of(number: u64) -> LimitSource {
    const SOURCES: [LimitSource; 3] = [LimitSource::Header, LimitSource::Api, LimitSource::Refusal];
    let source = SOURCES.into_iter().find(|source| *source as u64 == number);
    source.unwrap_or(LimitSource::Header)
}
