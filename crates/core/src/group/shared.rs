//! A quota group that replicas share: what it asks of the ledger, what it was answered, and what it does without it.
//!
//! The engine chooses who should go next, as it always does, by meters that mirror what the ledger last told. What it would
//! send it asks for first: the ledger, which knows everybody's charges and everybody's line, lets it go or does not. Nobody
//! is ever sent without, unless the ledger is out of reach ([`away`]).

mod answer;
mod asked;
mod away;
mod calls;
mod spread;

pub(crate) use answer::Let;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use asked::Asked;

use super::{Group, LOOK_AGAIN};
use crate::caller::Caller;
use crate::ledger::{Call, LimitName, Missed};
use crate::output::{Notice, Standing};
use crate::plan::SharedPlan;
use crate::retry::Jitter;
use crate::snapshot::StoreSnapshot;
use crate::time::{Timestamp, micros};

/// A replica calls at least so often while it uses anything, in microseconds.
const BEAT: u64 = 300_000;

/// The most requests that one call asks for, and the least where few were let in the last time.
const ASKS_MAX: usize = 64;
const ASKS_MIN: usize = 8;

/// Where permits come too late they are valid for longer, at most so long, in microseconds, until so many answers in a row
/// took less than half of the usual time.
const PERMIT_TTL_MAX: u64 = 250_000;
const PROMPT_ENOUGH: u32 = 1_000;

/// An answer that took longer says nothing about being in touch, in microseconds.
const TOUCH_MAX: u64 = 1_000_000;

/// Numbers of replicas are below this: what the ledger's script can count exactly.
const NUMBERS: u64 = 1 << 48;

/// How many times a process can join a group before its numbers are used again.
const JOINS: u64 = 1 << 12;

/// A call whose answer is awaited.
#[derive(Debug, Clone)]
struct Sent {
    call: Call,
    asked: Vec<Asked>,
    /// When it was sent first, and last.
    first: u64,
    last: u64,
}

/// What is known of the ledger.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    plan: SharedPlan,
    /// This process, and how many times it has joined; both make the number by which the ledger knows it.
    process: u64,
    joins: u64,
    is_member: bool,
    epoch: u64,
    next_epoch: u64,
    sequence: u64,
    sent: Option<Sent>,
    /// Calls whose answers were given up.
    missed: Vec<Missed>,
    /// The limits by which they are told, since they are told again with other calls.
    asked: Vec<Asked>,
    /// Corrections that the ledger has to be told: limit, bucket of its clock, amount.
    entries: BTreeMap<(LimitName, u64), i64>,
    /// Corrections of service: tier, tenant, by how much.
    service: BTreeMap<(u8, u64), i64>,
    /// What the provider counted, by its own word.
    used: BTreeMap<LimitName, u64>,
    /// What the provider told, as the ledger knows it.
    told: BTreeMap<LimitName, (u64, u64)>,
    facts: u64,
    paused_until: u64,
    /// Our own charges, by buckets of the ledger's clock.
    own: BTreeMap<(LimitName, u64), u64>,
    /// Everybody's charges of the limits over long windows, as last seen, by slots of ten buckets.
    seen: BTreeMap<LimitName, Vec<(u64, u64)>>,
    names: Vec<u64>,
    has_lost: bool,
    /// The ledger's clock less ours.
    offset: Option<i64>,
    /// The last moment at which the ledger was surely in touch.
    contact: Option<u64>,
    /// Since when it is in use without ever having been in touch.
    wanted: Option<u64>,
    standing: Standing,
    share: u64,
    replicas: u64,
    /// Whether nobody is asked for before something changes.
    is_quiet: bool,
    /// Somebody has come, or may go again, since it was quiet.
    is_fresh: bool,
    /// The most that are asked for at once: twice as many as were let in last.
    asks_max: usize,
    /// When the ledger said to call again.
    wake_at: Option<u64>,
    /// Those who wait and of whom the ledger knows: place and arrival.
    registered: Vec<(u32, u64)>,
    /// Those who came when it was not known what others had charged, and were not let in: place and arrival.
    surprised: Vec<(u32, u64)>,
    /// When it has to be called again, whatever happens.
    beat_at: u64,
    /// Whether something has to be told at once.
    is_urgent: bool,
    /// Whether a limit is nearly used up, so that whatever is given back may be waited for.
    is_tight: bool,
    /// Whether the driver has been told that a call is due.
    is_announced: bool,
    is_leaving: bool,
    /// Whether the call whose answer is awaited is to be made again, although it was answered.
    repeats: bool,
    calls: u64,
    /// When everybody's charges were last seen.
    viewed_at: Option<u64>,
    /// How long a permit is valid where answers come in time, and how many came well in time since one did not.
    usual_ttl: u64,
    prompt: u32,
    /// What was charged by us, and by everybody, of the limit that is used most.
    part: (u64, u64),
}

impl Shared {
    pub(crate) fn new(now: u64, plan: SharedPlan, process: u64, jitter: &mut Jitter) -> Self {
        Self {
            plan,
            process,
            joins: 0,
            is_member: false,
            epoch: 0,
            next_epoch: jitter.next() % NUMBERS + 1,
            sequence: 0,
            sent: None,
            missed: Vec::new(),
            asked: Vec::new(),
            entries: BTreeMap::new(),
            service: BTreeMap::new(),
            used: BTreeMap::new(),
            told: BTreeMap::new(),
            facts: 0,
            paused_until: 0,
            own: BTreeMap::new(),
            seen: BTreeMap::new(),
            names: Vec::new(),
            has_lost: false,
            offset: None,
            contact: None,
            wanted: None,
            standing: Standing::Idle,
            share: 0,
            replicas: 0,
            is_quiet: false,
            is_fresh: false,
            asks_max: ASKS_MAX,
            wake_at: None,
            registered: Vec::new(),
            surprised: Vec::new(),
            beat_at: now,
            is_urgent: false,
            is_tight: false,
            is_announced: false,
            is_leaving: false,
            repeats: false,
            calls: 0,
            viewed_at: None,
            usual_ttl: micros(plan.permit_ttl),
            prompt: 0,
            part: (1, 1),
        }
    }

    /// Returns the number by which the ledger knows this replica.
    const fn replica(&self) -> u64 {
        self.process * JOINS + self.joins % JOINS
    }

    /// Returns a moment by the ledger's clock.
    fn there(&self, moment: u64) -> u64 {
        moment.saturating_add_signed(self.offset.unwrap_or(0))
    }

    /// Returns a moment of the ledger's clock by ours.
    fn here(&self, moment: u64) -> u64 {
        moment.saturating_add_signed(-self.offset.unwrap_or(0))
    }

    /// Returns whether the ledger decides, rather than we alone.
    const fn decides(&self) -> bool {
        !matches!(self.standing, Standing::Sharing | Standing::Closed)
    }

    /// Takes note of a charge of our own at a moment of the ledger's clock, or of something that was given back.
    fn note_own(&mut self, name: LimitName, bucket: u64, amount: u64, is_refund: bool) {
        let own = self.own.entry((name, bucket)).or_default();
        if is_refund {
            *own = own.saturating_sub(amount);
        } else {
            *own = own.saturating_add(amount);
        }
    }

    fn snapshot(&self) -> StoreSnapshot {
        StoreSnapshot {
            standing: self.standing,
            replicas: self.replicas,
            share: self.share,
            epoch: self.epoch,
            contact: self.contact.map(Timestamp::from_micros),
            asked: self.asked.len() + self.sent.as_ref().map_or(0, |sent| sent.asked.len()),
            calls: self.calls,
        }
    }
}

impl Group {
    /// Shares the group with other replicas from now on.
    pub(crate) fn share(&mut self, now: u64, plan: Option<SharedPlan>, process: u64, jitter: &mut Jitter) {
        let Some(plan) = plan else { return };
        match &mut self.shared {
            Some(shared) => shared.plan = plan,
            None => self.shared = Some(alloc::boxed::Box::new(Shared::new(now, plan, process, jitter))),
        }
        self.permit_ttl = self.permit_ttl.max(micros(plan.permit_ttl));
        if let Some(shared) = &mut self.shared {
            (shared.usual_ttl, shared.prompt) = (self.permit_ttl, 0);
        }
        for meter in &mut self.meters {
            meter.keep_journal();
        }
    }

    /// Returns whether the ledger has to be asked before anybody is sent.
    pub(crate) fn asks_first(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.decides())
    }

    /// Returns whether nobody is to be asked for now.
    pub(super) fn is_quiet(&mut self, now: u64) -> bool {
        let queue = &self.queue;
        let Some(shared) = &mut self.shared else {
            return false;
        };
        if !shared.decides() {
            return false;
        }
        if shared.wake_at.is_some_and(|at| at <= now) || shared.beat_at <= now {
            // Whoever is known already is asked for again.
            shared.registered.clear();
            shared.wake_at = None;
            shared.is_quiet = false;
        }
        if shared.is_fresh {
            // The ledger knows of those who were asked for last: whoever waits is asked for again with the one who has come.
            shared.registered.clear();
        }
        if shared
            .registered
            .iter()
            .any(|(slot, arrival)| !queue.holds(*slot, *arrival))
        {
            // Others stand behind somebody who is gone.
            shared
                .registered
                .retain(|(slot, arrival)| queue.holds(*slot, *arrival));
            shared.is_urgent = true;
            shared.is_quiet = false;
        }
        shared.asked.len() >= shared.asks_max || (shared.is_quiet && !shared.is_fresh)
    }

    /// Returns whether the ledger knows who else asks for what is left: then nothing has to be kept for those who are not
    /// here, for they wait elsewhere or go first when they come.
    pub(super) fn others_are_known(&self) -> bool {
        self.shared
            .as_ref()
            .is_some_and(|shared| shared.decides() && shared.is_tight && shared.replicas > 1)
    }

    /// Somebody has come, or may go again: they may be let in, whoever was not.
    pub(crate) fn is_fresh_again(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.is_fresh = true;
        }
    }

    /// Nobody else is to be asked for now.
    pub(super) fn has_asked_all(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.is_fresh = false;
        }
    }

    /// Gathers what was charged and given back, for the ledger to be told.
    pub(crate) fn note_changes(&mut self, now: u64) {
        let Some(shared) = &mut self.shared else { return };
        for meter in &mut self.meters {
            meter.keep_journal();
            let (name, width) = (meter.ledger_name(), meter.width());
            let is_held = meter.dimension() == crate::units::Dimension::Concurrency;
            for change in meter.changes() {
                if is_held {
                    continue;
                }
                let moment = if change.stamp == 0 { now } else { change.stamp };
                let bucket = shared.there(moment) / width;
                let amount = i64::try_from(change.amount).unwrap_or(i64::MAX);
                let entry = shared.entries.entry((name, bucket)).or_default();
                *entry += if change.is_refund { -amount } else { amount };
                shared.note_own(name, bucket, change.amount, change.is_refund);
                shared.is_urgent |= change.is_refund && shared.is_tight;
            }
        }
    }

    /// Takes note of how much the provider counts: the ledger knows whether that is explained.
    pub(super) fn note_used(&mut self, name: LimitName, used: u64, in_use: u64) {
        let Some(shared) = &mut self.shared else { return };
        let is_learning = shared.standing == Standing::Learning;
        if is_learning || used > in_use {
            let known = shared.used.entry(name).or_default();
            *known = used.max(*known);
            shared.is_urgent |= is_learning;
            // Of limits that nobody knows nothing can be told, and nothing need be waited for.
            let unknown = self
                .meters
                .iter()
                .filter(|meter| is_learning && !meter.is_known());
            for meter in unknown {
                shared.used.entry(meter.ledger_name()).or_default();
            }
        }
    }

    /// A place among those who run is free again.
    pub(crate) fn has_let_go(&mut self) {
        let held = self
            .meters
            .iter()
            .any(|meter| meter.dimension() == crate::units::Dimension::Concurrency);
        if let Some(shared) = &mut self.shared {
            shared.is_urgent |= held && shared.is_tight;
        }
    }

    /// Takes note that a flow was given more service than was counted, or less.
    pub(super) fn note_service(&mut self, caller: Caller, by: i64) {
        let flow = self
            .queue
            .flows()
            .find(|(_, flow)| flow.tenant == caller.tenant && flow.priority == caller.priority);
        let weight = flow.map_or(1, |(_, flow)| i64::from(flow.weight.get()));
        if let Some(shared) = &mut self.shared {
            let key = (
                u8::try_from(caller.priority.index()).unwrap_or(3),
                caller.tenant.value(),
            );
            *shared.service.entry(key).or_default() += by / weight.max(1);
        }
    }

    /// Returns whether it uses anything, or somebody waits for it.
    fn is_in_use(&self) -> bool {
        let Some(shared) = &self.shared else { return false };
        self.in_flight > 0
            || !self.queue.is_empty()
            || !shared.own.is_empty()
            || !shared.entries.is_empty()
            || !shared.missed.is_empty()
    }

    /// Returns when the ledger has to be called, or has been silent for too long.
    pub(super) fn store_wake(&self, now: u64) -> Option<u64> {
        let shared = self.shared.as_ref()?;
        let is_free = (shared.sent.is_none() || shared.repeats) && !shared.is_announced;
        if !self.is_in_use() {
            return (shared.is_member && is_free).then(|| shared.beat_at.max(now + LOOK_AGAIN));
        }
        let beat = is_free.then_some(shared.beat_at);
        let wake = shared.wake_at.filter(|_| shared.is_quiet);
        let next = [beat, wake, shared.next_retreat()].into_iter().flatten().min();
        next.map(|at| at.max(now + LOOK_AGAIN))
    }

    /// Returns whether a call is due that the driver has not been told of.
    pub(crate) fn announces(&mut self, now: u64) -> bool {
        let is_in_use = self.is_in_use();
        let Some(shared) = &mut self.shared else {
            return false;
        };
        let is_wanted = is_in_use && shared.contact.is_none();
        shared.wanted = is_wanted.then(|| shared.wanted.unwrap_or(now));
        if shared.repeats && !shared.is_announced && shared.beat_at <= now {
            shared.repeats = false;
            shared.is_announced = true;
            return true;
        }
        if shared.is_announced || shared.sent.is_some() {
            return false;
        }
        let asks = !shared.asked.is_empty();
        let tells = shared.is_urgent && (shared.is_member || asks);
        let is_beat = shared.beat_at <= now && (is_in_use || shared.is_member);
        let leaves = shared.is_leaving && shared.is_member;
        if !(asks || tells || is_beat || leaves) {
            return false;
        }
        if is_beat {
            shared.beat_at = now + BEAT;
        }
        shared.is_announced = true;
        true
    }

    /// The ledger says that the first of those who wait here goes next, or that it wants to be called.
    pub(crate) fn wakened(&mut self, now: u64, replica: u64, at: u64) {
        if let Some(shared) = &mut self.shared
            && shared.replica() == replica
        {
            let at = shared.here(at).max(now);
            let at = if at > now { at + WAKE_AFTER } else { now };
            if shared.is_quiet {
                shared.wake_at = Some(shared.wake_at.map_or(at, |known| known.min(at)));
            } else if at <= now {
                // Somebody new is there, or nobody else knows the time.
                shared.is_urgent = true;
            }
        }
    }

    /// Leaves the ledger for good, as soon as it can be told.
    pub(crate) fn leave_ledger(&mut self) {
        if let Some(shared) = &mut self.shared {
            shared.is_leaving = true;
        }
    }

    pub(super) fn store_snapshot(&self) -> Option<StoreSnapshot> {
        self.shared.as_ref().map(|shared| shared.snapshot())
    }

    fn stand(&mut self, standing: Standing, notices: &mut Vec<Notice>) {
        if let Some(shared) = &mut self.shared
            && shared.standing != standing
        {
            shared.standing = standing;
            notices.push(Notice::Store { standing });
        }
    }
}

/// A call at the moment at which something expires is made this much later, in microseconds.
const WAKE_AFTER: u64 = 1_000;

/// Service is told in coarser units than it is counted in: the ledger's numbers are below 2⁵³.
const SERVICE_BITS: u32 = 10;

/// Returns the length of a duration in microseconds.
fn length(duration: Duration) -> u64 {
    micros(duration)
}
