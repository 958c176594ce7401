//! Slow start: how requests are let through while nobody has told any limit.
//!
//! Each second in which somebody has to wait, the pace grows by a fourteenth: it doubles in ten seconds. Requests are
//! spaced evenly, so that only those are refused for nothing that are on their way when the first refusal comes: about
//! 7 % of the limit for every second that a refusal takes. From eight requests at once and 33 a minute it reaches 600 a
//! minute in one, and 30,000 in two.

use crate::window::Bucket;

/// Requests that go at once.
const BURST: u64 = 8;
/// Requests in the first minute after them: as many as grow eight at the pace of the growth.
const START: u64 = 33;
/// The growth in each second, in thousandths: the tenth root of two.
const GROWTH: u64 = 1_072;
/// The length of such a second, in parts of the provider's minute.
const SECONDS: u64 = 60;
/// No pace is faster than this many requests a minute.
const FASTEST: u64 = 1 << 24;

/// Slow start.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    pace: Bucket,
    minute: u64,
    per_minute: u64,
    since: u64,
    pressed: bool,
}

impl Probe {
    pub(super) fn new(now: u64, minute: u64) -> Self {
        let minute = minute.max(SECONDS);
        Self {
            pace: Bucket::full(now, START, minute, BURST),
            minute,
            per_minute: START,
            since: now,
            pressed: false,
        }
    }

    /// Returns when the next request may go.
    pub(super) fn ready_at(&self) -> u64 {
        self.pace.ready_at(1)
    }

    pub(super) const fn per_minute(&self) -> u64 {
        self.per_minute
    }

    pub(super) fn take(&mut self) {
        self.pace.take(1);
    }

    /// Takes note that somebody waits.
    pub(super) const fn press(&mut self) {
        self.pressed = true;
    }

    /// Lets time pass: a second in which somebody waited makes the next one faster.
    pub(super) fn advance(&mut self, now: u64) {
        self.pace.advance(now);
        if now.saturating_sub(self.since) < self.minute / SECONDS {
            return;
        }
        self.since = now;
        if core::mem::replace(&mut self.pressed, false) {
            self.set((self.per_minute * GROWTH).div_ceil(1_000));
        }
    }

    /// A refusal came though nothing is known to have been accepted.
    pub(super) fn slow_down(&mut self) {
        self.pressed = false;
        self.set(self.per_minute / 2);
    }

    fn set(&mut self, per_minute: u64) {
        self.per_minute = per_minute.clamp(1, FASTEST);
        // What a growing pace saves up must not come all at once.
        let burst = (self.per_minute / SECONDS / 4).clamp(1, BURST);
        self.pace.resize(self.per_minute, burst);
    }
}
