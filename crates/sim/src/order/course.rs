//! How a scene runs: what is to happen at a time, and a line that answers, one turn after the other in virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use tidegate_core::{
    Caller, Decision, Demand, Engine, Outcome, Output, PermitId, QuotaKey, Request, RouteId, TenantId,
    TicketId, Timestamp, Usage,
};

use super::baseline::{Baseline, Rule};
use super::quota::{Call, QUOTA, Quota, Tenant};

/// When every scene begins, in microseconds.
pub const START: u64 = 1_000_000_000_000;
/// A second, in microseconds.
pub const SECOND: u64 = 1_000_000;
/// A minute, in microseconds.
pub const MINUTE: u64 = 60 * SECOND;

/// Who decides on the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// One of the orders that others use.
    Baseline(Rule),
    /// The engine.
    Ours,
}

impl Who {
    /// Everybody, in the order of the rows.
    pub const ALL: [Self; 5] = [
        Self::Baseline(Rule::Fifo),
        Self::Baseline(Rule::SmallestFirst),
        Self::Baseline(Rule::Fair),
        Self::Baseline(Rule::FairSkip),
        Self::Ours,
    ];

    /// Returns the name printed in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Baseline(Rule::Fifo) => "first come, first served",
            Self::Baseline(Rule::SmallestFirst) => "smallest first",
            Self::Baseline(Rule::Fair) => "fair, the head blocks",
            Self::Baseline(Rule::FairSkip) => "fair, skip what does not fit",
            Self::Ours => "Tidegate",
        }
    }
}

/// What is said to a call at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It may start.
    Start,
    /// It waits, and is expected to start then, if the line says so.
    Wait(Option<u64>),
    /// It is turned away, for so long if time helps.
    Refuse(Option<Duration>),
}

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn<T> {
    /// Something of the agenda is due.
    Due(T),
    /// One that waited may start.
    Start(u64),
    /// One that waited is turned away, for so long if time helps.
    Refuse(u64, Option<Duration>),
}

/// A scene on its way.
#[derive(Debug)]
pub struct Course<T> {
    /// The time, in microseconds.
    pub now: u64,
    line: Line,
    agenda: BinaryHeap<Reverse<Entry<T>>>,
    entries: u64,
}

/// What is to happen; what was noted first happens first at the same time.
#[derive(Debug, Clone, Copy)]
struct Entry<T> {
    at: u64,
    number: u64,
    what: T,
}

#[derive(Debug)]
enum Line {
    Ours(Box<Desk>),
    Baseline(Box<Baseline>),
}

impl<T: Copy> Course<T> {
    /// Makes a scene in which nothing has happened yet.
    pub fn new(who: Who, quota: Quota, tenants: &[Tenant], seed: u64) -> Self {
        let line = match who {
            Who::Baseline(rule) => Line::Baseline(Box::new(Baseline::new(rule, quota, tenants))),
            Who::Ours => Line::Ours(Box::new(Desk::new(quota, tenants, seed))),
        };
        Self {
            now: START,
            line,
            agenda: BinaryHeap::new(),
            entries: 0,
        }
    }

    /// Notes what is to happen at a time.
    pub fn plan(&mut self, at: u64, what: T) {
        self.entries += 1;
        let number = self.entries;
        self.agenda.push(Reverse(Entry { at, number, what }));
    }

    /// Hands in a call. What becomes of it later is told by turns that name its number.
    pub fn submit(&mut self, id: u64, call: Call) -> Answer {
        match &mut self.line {
            Line::Ours(desk) => desk.submit(self.now, id, call),
            Line::Baseline(baseline) => {
                baseline.submit(self.now, id, call);
                Answer::Wait(None)
            }
        }
    }

    /// Returns what happens next before `end`.
    pub fn turn(&mut self, end: u64) -> Option<Turn<T>> {
        loop {
            let told = match &mut self.line {
                Line::Ours(desk) => desk.news.pop_front().map(|news| match news {
                    (id, None) => Turn::Start(id),
                    (id, Some(retry_after)) => Turn::Refuse(id, retry_after),
                }),
                Line::Baseline(baseline) => baseline.started().map(Turn::Start),
            };
            if told.is_some() {
                return told;
            }
            let due = self.agenda.peek().map(|Reverse(entry)| entry.at);
            let wake = match &self.line {
                Line::Ours(desk) => desk.next(),
                Line::Baseline(baseline) => baseline.next(),
            };
            let at = due.into_iter().chain(wake).min().filter(|at| *at < end)?;
            self.now = self.now.max(at);
            if wake == Some(at) {
                match &mut self.line {
                    Line::Ours(desk) => desk.wake(self.now),
                    Line::Baseline(baseline) => baseline.wake(self.now),
                }
            } else if let Some(Reverse(entry)) = self.agenda.pop() {
                return Some(Turn::Due(entry.what));
            }
        }
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The engine with its bookkeeping; it is used by its public contract alone.
#[derive(Debug)]
struct Desk {
    engine: Engine,
    tenants: Vec<TenantId>,
    /// Who holds which ticket, and how long the answer will take.
    tickets: BTreeMap<TicketId, (u64, Duration)>,
    /// When which answer is complete.
    ends: BTreeSet<(u64, PermitId)>,
    /// Who may start, or is turned away and for how long.
    news: VecDeque<(u64, Option<Option<Duration>>)>,
}

impl Desk {
    fn new(quota: Quota, tenants: &[Tenant], seed: u64) -> Self {
        Self {
            engine: Engine::new(Timestamp::from_micros(START), quota.plan(tenants), seed),
            tenants: tenants.iter().map(|tenant| TenantId::of(&tenant.name)).collect(),
            tickets: BTreeMap::new(),
            ends: BTreeSet::new(),
            news: VecDeque::new(),
        }
    }

    fn submit(&mut self, now: u64, id: u64, call: Call) -> Answer {
        let request = Request {
            caller: Caller {
                tenant: self.tenants[call.tenant],
                priority: call.priority,
                route: RouteId::NONE,
            },
            identity: call.identity,
            ..Request::new(
                QuotaKey::named(QUOTA),
                Demand::input_only(call.tokens),
                call.deadline,
            )
        };
        let answer = match self.engine.submit(Timestamp::from_micros(now), request) {
            Decision::Admit(permit) => {
                self.run(now, permit.id, call.lasts);
                Answer::Start
            }
            Decision::Wait(ticket) => {
                self.tickets.insert(ticket.id, (id, call.lasts));
                Answer::Wait(Some(ticket.eta.as_micros()))
            }
            Decision::Refuse(refusal) => Answer::Refuse(refusal.retry_after),
        };
        self.drain(now);
        answer
    }

    fn next(&self) -> Option<u64> {
        let wake = self.engine.poll_timeout().map(|(at, _)| at.as_micros());
        let end = self.ends.first().map(|(at, _)| *at);
        wake.into_iter().chain(end).min()
    }

    fn wake(&mut self, now: u64) {
        while let Some((at, permit)) = self.ends.first().copied().filter(|(at, _)| *at <= now) {
            self.ends.remove(&(at, permit));
            self.settle(now, permit);
        }
        self.engine.handle_timeout(Timestamp::from_micros(now));
        self.drain(now);
    }

    fn drain(&mut self, now: u64) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Admit { ticket, permit } => {
                    if let Some((id, lasts)) = self.tickets.remove(&ticket) {
                        self.news.push_back((id, None));
                        self.run(now, permit.id, lasts);
                    }
                }
                Output::Refuse { ticket, refusal } => {
                    if let Some((id, _)) = self.tickets.remove(&ticket) {
                        self.news.push_back((id, Some(refusal.retry_after)));
                    }
                }
                Output::Notice { .. } | Output::Call { .. } | Output::CallEscrow => {}
            }
        }
    }

    fn run(&mut self, now: u64, permit: PermitId, lasts: Duration) {
        if lasts.is_zero() {
            return self.settle(now, permit);
        }
        let lasts = u64::try_from(lasts.as_micros()).unwrap_or(u64::MAX);
        self.ends.insert((now.saturating_add(lasts), permit));
    }

    /// Ends an attempt. The charge model never corrects anything, so this changes nothing that the tables show.
    fn settle(&mut self, now: u64, permit: PermitId) {
        let outcome = Outcome::Completed(Usage::default());
        self.engine.settle(Timestamp::from_micros(now), permit, outcome);
    }
}
