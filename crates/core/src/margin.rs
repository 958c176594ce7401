//! The margin J: a bound on how far apart our stamp and the provider's can be.
//!
//! A request that we stamp at `s` is stamped by the provider somewhere in `[s + d_min, s + d_max]`. Only the spread
//! `J = d_max - d_min` matters (theory.md §1.2). It starts at a sixtieth of the window, between 250 ms and 1 s, is learned
//! from answers, and is doubled when a provider refuses for rate in spite of everything.

use core::time::Duration;

use crate::time::micros;

/// Samples before anything is believed.
const SAMPLES_MIN: u32 = 200;
/// Samples after which the older half is forgotten.
const EPOCH: u32 = 20_000;
/// The margin is never learned to be less than this, in microseconds.
const LEARNED_MIN: u64 = 250_000;
/// It moves in steps of this many microseconds, so that windows are seldom recounted.
const STEP: u64 = 50_000;
/// The margin at the start, in microseconds, is a sixtieth of the window between these two.
const START: (u64, u64) = (250_000, 1_000_000);
/// The most doublings after refusals.
const DOUBLINGS_MAX: u32 = 2;
/// One doubling is taken back after this many microseconds without a refusal.
const DOUBLING_LIFE: u64 = 3_600_000_000;

/// Where the margin comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MarginPolicy {
    /// A sixtieth of the window (250 ms to 1 s) at first, then learned from answers.
    #[default]
    Learned,
    /// Always this long, for upstreams whose delay is known.
    Fixed(Duration),
}

/// What is known of the delay to one provider.
#[derive(Debug, Clone)]
pub(crate) struct Margin {
    fixed: Option<u64>,
    samples: u32,
    /// The largest delay seen in the current and in the previous epoch.
    largest: [u64; 2],
    doublings: u32,
    doubled_at: u64,
}

impl Margin {
    pub(crate) const fn new(policy: MarginPolicy) -> Self {
        Self {
            fixed: fixed(policy),
            samples: 0,
            largest: [0; 2],
            doublings: 0,
            doubled_at: 0,
        }
    }

    /// Adopts another policy; what was learned stays.
    pub(crate) const fn follow(&mut self, policy: MarginPolicy) {
        self.fixed = fixed(policy);
    }

    /// Returns how often it is doubled.
    pub(crate) const fn doublings(&self) -> u32 {
        self.doublings
    }

    /// Takes over doublings from before a restart.
    pub(crate) fn recall(&mut self, now: u64, doublings: u32) {
        self.doublings = doublings.min(DOUBLINGS_MAX);
        self.doubled_at = now;
    }

    /// Takes note that a request was stamped no later than `delay` microseconds after our own stamp.
    pub(crate) fn sample(&mut self, delay: u64) {
        self.samples = self.samples.saturating_add(1);
        self.largest[0] = self.largest[0].max(delay);
        if self.samples.is_multiple_of(EPOCH) {
            self.largest = [0, self.largest[0]];
        }
    }

    /// Takes note of a refusal that our own charges explain; doubles the margin.
    pub(crate) fn refused(&mut self, now: u64) {
        self.decay(now);
        self.doublings = (self.doublings + 1).min(DOUBLINGS_MAX);
        self.doubled_at = now;
    }

    /// Takes all doublings back: another reason was found for the refusals.
    pub(crate) const fn forgive(&mut self) {
        self.doublings = 0;
    }

    /// Takes doublings back as time passes.
    pub(crate) fn decay(&mut self, now: u64) {
        while self.doublings > 0 && now.saturating_sub(self.doubled_at) >= DOUBLING_LIFE {
            self.doublings -= 1;
            self.doubled_at = self.doubled_at.saturating_add(DOUBLING_LIFE);
        }
    }

    /// Returns the margin for a window of `window` microseconds.
    ///
    /// Three times the largest delay seen and 50 ms, so that a tail three times as long as anything ever seen is still
    /// covered; worked example: answers within 20 ms of their stamp give 110 ms, raised to the floor of 250 ms.
    pub(crate) fn current(&self, window: u64) -> u64 {
        if let Some(fixed) = self.fixed {
            return fixed;
        }
        let start = start(window);
        let learned = if self.samples < SAMPLES_MIN {
            start
        } else {
            let largest = self.largest[0].max(self.largest[1]);
            let learned = largest
                .saturating_mul(3)
                .saturating_add(50_000)
                .clamp(LEARNED_MIN, start.max(LEARNED_MIN));
            learned.div_ceil(STEP) * STEP
        };
        learned << self.doublings
    }

    /// Returns the longest margin that a window of `window` microseconds will ever be given.
    pub(crate) fn largest(&self, window: u64) -> u64 {
        self.fixed.unwrap_or_else(|| start(window) << DOUBLINGS_MAX)
    }
}

const fn fixed(policy: MarginPolicy) -> Option<u64> {
    match policy {
        MarginPolicy::Learned => None,
        MarginPolicy::Fixed(margin) => Some(clamp_micros(margin)),
    }
}

fn start(window: u64) -> u64 {
    (window / 60).clamp(START.0, START.1).div_ceil(STEP) * STEP
}

#[allow(clippy::cast_possible_truncation, reason = "at most an hour")]
const fn clamp_micros(duration: Duration) -> u64 {
    let micros = duration.as_micros();
    if micros > 3_600_000_000 {
        3_600_000_000
    } else {
        micros as u64
    }
}

/// Returns the delay of an answer: what passed from our stamp to its arrival, less what the provider says it worked.
pub(crate) fn delay_sample(waited: u64, processing: Option<Duration>) -> u64 {
    waited.saturating_sub(processing.map_or(0, micros))
}
