//! Shortage of capacity that everybody shares: the pace at which requests are sent is found by additive increase and
//! multiplicative decrease.
//!
//! There is no limit to learn, so nothing is charged and no amount is lowered: requests are spaced, and the space between
//! them follows the refusals. The first of them takes the pace of the last seconds down to 70 %; those of requests that
//! were on their way by then change nothing (one decrease per round trip), nor do those that come before anything was
//! accepted again: an outage says nothing of the pace. Every five seconds without a refusal in
//! which somebody waits add 4 % of the pace that was refused. Once nobody has waited for a minute, it is over.

use crate::window::Bucket;

/// What one refusal leaves of the pace, in percent.
const KEPT: u64 = 70;
/// What every clean interval adds, in percent of the pace that was refused, or of a faster one that was not.
const STEP: u64 = 4;
/// The length of an interval, in microseconds.
const INTERVAL: u64 = 5_000_000;
/// It is over when nobody has waited for so long.
const OVER: u64 = 60_000_000;
const MINUTE: u64 = 60_000_000;
/// No pace is slower than this many requests a minute.
const SLOWEST: u64 = 6;
const FASTEST: u64 = 1 << 30;
/// Paces up to a second's worth of requests go at once.
const BURST: u64 = 60;

/// The pace that shortage leaves.
#[derive(Debug, Clone)]
pub(super) struct Congestion {
    pace: Bucket,
    per_minute: u64,
    /// The pace at which the provider last refused.
    refused: u64,
    /// When the current interval began.
    since: u64,
    /// When somebody last waited, or the provider last refused.
    pressed_at: u64,
    pressed: bool,
    /// Until when the pace does not grow.
    steady_until: u64,
}

impl Congestion {
    /// Learns from the first refusal, at a pace of so many requests a minute.
    pub(super) fn new(now: u64, per_minute: u64) -> Self {
        let mut congestion = Self {
            pace: Bucket::full(now, SLOWEST, MINUTE, 1),
            per_minute: FASTEST,
            refused: FASTEST,
            since: now,
            pressed_at: now,
            pressed: false,
            steady_until: 0,
        };
        congestion.refused(now, per_minute);
        congestion
    }

    /// Learns from a refusal, when so many requests a minute were sent.
    pub(super) fn refused(&mut self, now: u64, per_minute: u64) {
        self.refused = per_minute.min(self.per_minute).max(1);
        self.set(self.refused * KEPT / 100);
        (self.since, self.pressed_at, self.pressed) = (now, now, false);
    }

    /// Keeps the pace: the provider refuses still.
    pub(super) const fn stay(&mut self, now: u64) {
        (self.since, self.pressed_at, self.pressed) = (now, now, false);
    }

    /// Keeps the pace from growing until `until`.
    pub(super) fn steady(&mut self, until: u64) {
        self.steady_until = self.steady_until.max(until);
    }

    pub(super) fn ready_at(&self) -> u64 {
        self.pace.ready_at(1)
    }

    /// Returns when so many others and one more will have gone, at the pace that was refused.
    pub(super) fn ready_after(&self, ahead: u64) -> u64 {
        let wait = u128::from(ahead) * u128::from(MINUTE) / u128::from(self.refused.max(self.per_minute));
        self.ready_at()
            .saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    pub(super) fn take(&mut self) {
        self.pace.take(1);
    }

    /// Takes note that somebody waits.
    pub(super) const fn press(&mut self, now: u64) {
        self.pressed = true;
        self.pressed_at = now;
    }

    /// Lets time pass. Returns whether it is over.
    pub(super) fn advance(&mut self, now: u64) -> bool {
        self.pace.advance(now);
        if now < self.steady_until {
            self.since = now;
            return false;
        }
        if now.saturating_sub(self.since) >= INTERVAL {
            self.since = now;
            if core::mem::replace(&mut self.pressed, false) {
                let known = self.refused.max(self.per_minute);
                self.set(self.per_minute + (known * STEP).div_ceil(100));
            }
        }
        now.saturating_sub(self.pressed_at.max(self.steady_until)) >= OVER
    }

    pub(super) const fn per_minute(&self) -> u64 {
        self.per_minute
    }

    /// Returns the pace over the one that was refused, in percent.
    pub(super) fn percent(&self) -> u32 {
        u32::try_from(self.per_minute.saturating_mul(100) / self.refused.max(1)).unwrap_or(u32::MAX)
    }

    /// Returns until when the pace stays as it is.
    pub(super) fn steady_until(&self, now: u64) -> Option<u64> {
        (self.steady_until > now).then_some(self.steady_until)
    }

    fn set(&mut self, per_minute: u64) {
        self.per_minute = per_minute.clamp(SLOWEST, FASTEST);
        self.pace
            .resize(self.per_minute, (self.per_minute / BURST).max(1));
    }
}
