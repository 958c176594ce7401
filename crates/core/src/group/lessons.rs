//! What refusals taught a group, limits apart: its pace while nothing is known or shared capacity is short, and whether
//! its quota is spent.

use alloc::boxed::Box;
use core::time::Duration;

use super::congestion::Congestion;
use super::probe::Probe;
use super::spent::Spent;
use crate::decision::{Refusal, RefusalReason, WaitReason};
use crate::snapshot::CongestionSnapshot;
use crate::time::Timestamp;

/// So many requests that were sent since the last lesson and not refused show that something was accepted.
const EVIDENCE: u32 = 3;

/// Doubts about how a limit is kept are forgotten after an hour, in microseconds.
const DOUBT_LIFE: u64 = 3_600_000_000;

/// If one request is not refused for so long, in microseconds, others may follow it.
const TESTED: u64 = 1_000_000;

/// After a refusal that told nothing, one request is sent before all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Test {
    /// None is needed.
    #[default]
    Done,
    /// It is the next one.
    Due,
    /// It was sent; the others follow at this time, or when it succeeds.
    Sent(u64),
}

/// Requests sent in each of the last seconds.
#[derive(Debug, Clone, Copy, Default)]
struct Recent {
    seconds: [u32; RECENT],
    last: u64,
}

const RECENT: usize = 8;
const SECOND: u64 = 1_000_000;

impl Recent {
    fn count(&mut self, now: u64) {
        let second = self.turn(now);
        self.seconds[second] = self.seconds[second].saturating_add(1);
    }

    /// Returns how many a minute there were, counting from the first second in which there was one.
    fn per_minute(&mut self, now: u64) -> u64 {
        self.turn(now);
        let in_order = (1..=RECENT as u64).map(|step| self.seconds[slot(self.last + step)]);
        let counts = in_order.skip_while(|count| *count == 0);
        let (seconds, sum) = counts.fold((0, 0), |(seconds, sum), count| {
            (seconds + 1, sum + u64::from(count))
        });
        sum * 60 / u64::max(seconds, 1)
    }

    fn turn(&mut self, now: u64) -> usize {
        let second = now / SECOND;
        if second > self.last {
            for step in 1..=(second - self.last).min(RECENT as u64) {
                self.seconds[slot(self.last + step)] = 0;
            }
            self.last = second;
        }
        slot(self.last)
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the remainder is smaller than eight"
)]
const fn slot(second: u64) -> usize {
    (second % RECENT as u64) as usize
}

/// What refusals taught a group, limits apart.
#[derive(Debug, Clone, Default)]
pub(super) struct Lessons {
    /// When the last refusal became known that taught anything: what was sent before teaches nothing more.
    taught_at: u64,
    /// Requests sent since then, and those of them that were refused.
    sent: u32,
    refused: u32,
    /// Whether one of them succeeded.
    accepted: bool,
    /// The stamp of a refused request that a wrong limit might explain as well as a late one, if more are refused.
    question: Option<u64>,
    /// Lessons in a row without a success between them.
    streak: u32,
    recent: Recent,
    /// What comes first after a refusal that told nothing.
    test: Test,
    /// Slow start, while no limit is known.
    probe: Option<Box<Probe>>,
    pub(super) congestion: Option<Box<Congestion>>,
    pub(super) spent: Option<Box<Spent>>,
    /// Whether there is a limit that grows at minute boundaries.
    pub(super) ramps: bool,
    /// When a refusal last spoke against the law by which a limit is kept.
    doubted_at: Option<u64>,
}

impl Lessons {
    pub(super) fn new(now: u64, probes: bool, minute: u64, is_known: bool) -> Self {
        let probe = (probes && !is_known).then(|| Box::new(Probe::new(now, minute)));
        Self {
            probe,
            ..Self::default()
        }
    }

    /// Follows another version of the plan. What was said of spent quota is asked anew: somebody may have mended it.
    pub(super) fn reconfigure(&mut self, now: u64, probes: bool, minute: u64, is_known: bool) {
        if !probes || is_known {
            self.probe = None;
        } else if self.probe.is_none() {
            self.probe = Some(Box::new(Probe::new(now, minute)));
        }
        self.spent = None;
    }

    /// Takes note of a refusal that speaks against the law by which a limit is kept. Returns whether it is the second
    /// within an hour.
    pub(super) fn doubt(&mut self, now: u64) -> bool {
        let before = self.doubted_at.replace(now);
        before.is_some_and(|before| now.saturating_sub(before) < DOUBT_LIFE)
    }

    /// Lets time pass.
    pub(super) fn advance(&mut self, now: u64) {
        if matches!(self.test, Test::Sent(until) if until <= now) {
            self.test = Test::Done;
        }
        if let Some(probe) = &mut self.probe {
            probe.advance(now);
        }
        if let Some(congestion) = &mut self.congestion
            && congestion.advance(now)
        {
            self.congestion = None;
        }
    }

    /// Returns when the pace lets the next request through.
    pub(super) fn ready_at(&self) -> u64 {
        let probe = self.probe.as_ref().map_or(0, |probe| probe.ready_at());
        let congestion = self.congestion.as_ref().map_or(0, |pace| pace.ready_at());
        let tested = match self.test {
            Test::Sent(until) => until,
            Test::Done | Test::Due => 0,
        };
        probe.max(congestion).max(tested)
    }

    /// Takes note that a request is let through.
    pub(super) fn take(&mut self, now: u64) {
        if self.test == Test::Due {
            self.test = Test::Sent(now.saturating_add(TESTED));
        }
        if let Some(probe) = &mut self.probe {
            probe.take();
        }
        if let Some(congestion) = &mut self.congestion {
            congestion.take();
        }
        if let Some(spent) = &mut self.spent {
            spent.take(now);
        }
    }

    /// Takes note that somebody waits.
    pub(super) fn press(&mut self, now: u64) {
        if let Some(probe) = &mut self.probe {
            probe.press();
        }
        if let Some(congestion) = &mut self.congestion {
            congestion.press(now);
        }
    }

    /// Returns the reason for waiting for the pace.
    pub(super) const fn reason(&self) -> WaitReason {
        if self.congestion.is_some() {
            WaitReason::Congestion
        } else {
            WaitReason::Learning
        }
    }

    pub(super) const fn is_probing(&self) -> bool {
        self.probe.is_some()
    }

    /// Ends slow start: a limit is known.
    pub(super) fn stop_probing(&mut self) {
        self.probe = None;
    }

    /// A refusal taught no limit: slow start goes on at half the pace.
    pub(super) fn slow_probe(&mut self) {
        if let Some(probe) = &mut self.probe {
            probe.slow_down();
        }
    }

    /// Takes note that a request is sent.
    pub(super) fn admitted(&mut self, now: u64) {
        self.sent = self.sent.saturating_add(1);
        self.recent.count(now);
    }

    /// Returns how many requests a minute were sent in the last seconds.
    pub(super) fn per_minute(&mut self, now: u64) -> u64 {
        self.recent.per_minute(now)
    }

    /// Takes note of a refusal of a request sent at `sent`. Returns whether it may teach anything: whether it was sent
    /// after the last lesson was known.
    pub(super) const fn is_fresh(&mut self, sent: u64) -> bool {
        self.refused = self.refused.saturating_add(1);
        sent >= self.taught_at
    }

    /// Returns whether anything was accepted since the last lesson. If nothing was, the provider still refuses for the
    /// same reason, and the amounts are no smaller than they were.
    pub(super) const fn has_evidence(&self) -> bool {
        self.accepted || self.sent.saturating_sub(self.refused.saturating_sub(1)) >= EVIDENCE
    }

    /// Returns how many are known to be refused with one that was sent at `sent`.
    pub(super) fn refused_of(&self, sent: u64) -> u64 {
        if self.question == Some(sent) {
            u64::from(self.refused)
        } else {
            1
        }
    }

    /// Takes note that the last refusal may have been for a limit that was believed full and is wrong.
    pub(super) const fn leave_open(&mut self, sent: u64) {
        self.question = Some(sent);
    }

    /// Returns the stamp of that refusal's request, if it is not known yet.
    pub(super) const fn question(&self) -> Option<u64> {
        self.question
    }

    /// It is known.
    pub(super) const fn answered(&mut self) {
        self.question = None;
    }

    /// Takes note of a lesson; `blindly`, if nothing tells when the provider accepts again.
    pub(super) const fn taught(&mut self, now: u64, blindly: bool) {
        (self.taught_at, self.sent, self.accepted) = (now, 0, false);
        // The refusal that taught is the first of its kind.
        self.refused = 1;
        self.test = if blindly { Test::Due } else { Test::Done };
        self.streak = self.streak.saturating_add(1);
    }

    /// Returns the number of the next lesson in a row without a success between them, from 1.
    pub(super) const fn turn(&self) -> u32 {
        self.streak.saturating_add(1)
    }

    /// Takes note that a request sent at `sent` was accepted.
    pub(super) fn succeeded(&mut self, sent: u64) {
        if sent >= self.taught_at {
            self.accepted = true;
            self.streak = 0;
            self.test = Test::Done;
        }
        if self.spent.as_ref().is_some_and(|spent| spent.is_refuted(sent)) {
            self.spent = None;
        }
    }

    /// Returns whether nobody is let in because the quota is spent.
    pub(super) fn is_closed(&self, now: u64) -> bool {
        self.spent.as_ref().is_some_and(|spent| spent.is_closed(now))
    }

    /// Returns when somebody is let in again, where nobody is.
    pub(super) fn opens_at(&self, now: u64) -> u64 {
        match &self.spent {
            Some(spent) if spent.is_closed(now) => spent.opens_at(now),
            _ => 0,
        }
    }

    /// Returns the moment up to which everybody's deadline is too early.
    pub(super) fn hopeless_until(&self, now: u64) -> u64 {
        self.spent.as_ref().map_or(0, |spent| spent.hopeless_until(now))
    }

    /// Returns until when the quota is spent.
    pub(super) fn spent_until(&self, now: u64) -> Option<u64> {
        self.spent.as_ref().and_then(|spent| spent.until(now))
    }

    /// Returns what those are told who are not let in.
    pub(super) fn spent(&self, now: u64) -> Refusal {
        let until = self.spent_until(now);
        Refusal {
            retry_after: until.map(|until| Duration::from_micros((until - now).max(1_000))),
            ..Refusal::of(RefusalReason::QuotaSpent)
        }
    }

    /// Returns the pace of slow start, in requests a minute.
    pub(super) fn probing(&self) -> Option<u64> {
        self.probe.as_ref().map(|probe| probe.per_minute())
    }

    pub(super) fn congestion(&self, now: u64) -> Option<CongestionSnapshot> {
        self.congestion.as_ref().map(|pace| CongestionSnapshot {
            per_minute: pace.per_minute(),
            percent: pace.percent(),
            steady_until: pace.steady_until(now).map(Timestamp::from_micros),
        })
    }

    /// Returns when the pace will have let so many others through, and one more, if it were what it was at the last
    /// refusal: it grows, so that anything slower would refuse those who can be served.
    pub(super) fn ready_after(&self, ahead: u64) -> u64 {
        let congestion = self.congestion.as_ref().map_or(0, |pace| pace.ready_after(ahead));
        self.probe
            .as_ref()
            .map_or(0, |probe| probe.ready_at())
            .max(congestion)
    }
}
