//! Output that nobody knows yet: what running requests will still generate, and when.
//!
//! A provider that charges output as it is generated refuses only while what was generated in its window reaches the limit.
//! So a request may start as soon as nothing that is running, together with it, is expected to reach the limit at any
//! moment to come, with the chance that is asked for (theory.md §2.3):
//!
//! ```text
//!  tokens in the window
//!   L ┤ - - - - - - - - - - - - - - - - - -      for every node T of the grid:
//!     │      ▄▄▟▀▀▙▄                              charged already and alive at T
//!     │  ▄▄▟▀  ·  · ▀▀▙▄▄  + new request?         + Σ expected of those who run until T
//!     │▟▀·  ·  ·  ·  ·  · ▀▀▀▀                    + z √Σ variances + the new one  ≤  L
//!     └┬──┬──┬──┬──┬──┬──┬──┬──► time
//!     now        grid          one life of a charge
//! ```
//!
//! [`Projection`] knows what a group has learned (lengths by class, rates, time to the first token) and who runs; an
//! [`Outlook`] for each meter keeps the sums on its grid. A request of which nothing is reported is expected to generate in
//! a straight line; nothing of it is charged until its usage is known, which is then charged along the line that it took.

mod grid;
mod normal;
mod outlook;
mod rate;

#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use crate::plan::Guarantee;
use crate::request::OutputClass;
use crate::sketch::{Moments, SAMPLES_MIN, Sketch};
use crate::snapshot::OutputSnapshot;
use crate::units::Tokens;

pub(crate) use grid::{Grid, NODES};
pub(crate) use outlook::{EXPECTED_MAX, Expected, FEW, Outlook};
pub(crate) use rate::Rate;
use rate::{Latency, Pace};

/// The classes of outputs that one quota group tells apart; beyond that the one that was used last the longest ago is
/// forgotten.
pub const CLASSES_MAX: usize = 16;

/// Tokens that must have come, and microseconds passed, before a request's own rate is believed.
const OWN_MIN: (u64, u64) = (32, 1_000_000);

/// What is learned about outputs, and the requests that run.
#[derive(Debug, Clone)]
pub(crate) struct Projection {
    guarantee: Guarantee,
    classes: Vec<Class>,
    /// Counts uses of classes, to find the one that was not used for longest.
    uses: u64,
    pace: Pace,
    latency: Latency,
    running: Vec<Option<Running>>,
    free: Vec<u32>,
}

#[derive(Debug, Clone)]
struct Class {
    id: OutputClass,
    used: u64,
    sketch: Sketch,
    /// The mean of the maxima that requests ask for, times 16.
    asked: u64,
}

/// A request that runs.
#[derive(Debug, Clone)]
struct Running {
    class: OutputClass,
    most: u64,
    answers: u64,
    /// Tokens reported, and when the last of them was.
    seen: u64,
    at: u64,
    granted: u64,
    /// The first report: when, and of how many tokens.
    first: Option<(u64, u64)>,
}

/// What a request that wants to start is expected to need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) mean: u64,
    pub(crate) variance: u64,
    pub(crate) most: u64,
    pub(crate) rate: Option<Rate>,
    /// The time to its first token, in microseconds.
    pub(crate) latency: u64,
    /// How many standard deviations are kept free, in thousandths; 0 if everything is.
    pub(crate) deviations: u64,
}

/// Tokens that a report brought, and since when they may have been generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fresh {
    pub(crate) tokens: u64,
    pub(crate) since: u64,
}

impl Projection {
    pub(crate) fn new(guarantee: Guarantee) -> Self {
        Self {
            guarantee,
            classes: Vec::new(),
            uses: 0,
            pace: Pace::default(),
            latency: Latency::default(),
            running: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Adopts another guarantee; what was learned stays.
    pub(crate) const fn follow(&mut self, guarantee: Guarantee) {
        self.guarantee = guarantee;
    }

    /// Returns what a request of a class needs that may generate `most` tokens in so many answers.
    pub(crate) fn need(&self, class: OutputClass, most: u64, answers: u64) -> Need {
        let most = most.min(EXPECTED_MAX);
        let (known, deviations) = match self.guarantee {
            Guarantee::Hard => (None, 0),
            Guarantee::Statistical { per_million } => (
                self.sketch(class).and_then(|sketch| sketch.tail(0)),
                normal::deviations(per_million),
            ),
        };
        let Moments { mean, variance } = known.map_or(
            Moments {
                mean: most,
                variance: 0,
            },
            |tail| tail.within(most),
        );
        Need {
            // Every request generates something.
            mean: mean.max(u64::from(most > 0)),
            variance,
            most,
            rate: self.rate().map(|rate| rate.times(answers)),
            latency: self.latency(),
            deviations,
        }
    }

    /// Makes a place for a request that starts now.
    pub(crate) fn launch(&mut self, now: u64, class: OutputClass, most: u64, answers: u64) -> u32 {
        self.used(now, class, most);
        let running = Running {
            class,
            most: most.min(EXPECTED_MAX),
            answers,
            seen: 0,
            at: now.saturating_add(self.latency()),
            granted: now,
            first: None,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.running.push(None);
            u32::try_from(self.running.len() - 1).unwrap_or(u32::MAX)
        });
        self.running[slot as usize] = Some(running);
        slot
    }

    /// Takes note of all tokens that a request has generated so far.
    pub(crate) fn report(&mut self, now: u64, slot: u32, output: u64) -> Option<Fresh> {
        let latency = &mut self.latency;
        let running = self.running.get_mut(slot as usize)?.as_mut()?;
        let tokens = output.checked_sub(running.seen).filter(|tokens| *tokens > 0)?;
        let since = running.at.min(now);
        if running.first.is_none() {
            running.first = Some((now, output));
            if output <= OWN_MIN.0 {
                latency.sample(now.saturating_sub(running.granted));
            }
        }
        running.seen = output;
        running.at = now;
        Some(Fresh { tokens, since })
    }

    /// Takes note of a request's whole output, and of how long it took. Returns since when what was never reported may
    /// have been generated.
    pub(crate) fn complete(&mut self, now: u64, slot: Option<u32>, class: OutputClass, output: u64) -> u64 {
        self.uses += 1;
        let uses = self.uses;
        if let Some(known) = self.classes.iter_mut().find(|known| known.id == class) {
            known.used = uses;
            known.sketch.sample(now, output);
        }
        let running = slot.and_then(|slot| self.running.get(slot as usize)?.as_ref());
        let Some(running) = running else { return now };
        let began = running.first.map_or_else(
            || running.granted.saturating_add(self.latency.mean()),
            |(at, _)| at,
        );
        let timed = output.saturating_sub(running.first.map_or(0, |(_, tokens)| tokens));
        let answers = running.answers.max(1);
        let took = now.saturating_sub(began);
        // It may have waited longer than others before it began: what is charged too early is forgotten too early.
        let fresh = output.saturating_sub(running.seen);
        let quick = self.pace.mean().map_or(0, |rate| rate.times(answers).time(fresh));
        let since = running.at.max(now.saturating_sub(quick + quick / 4)).min(now);
        self.pace.sample(timed / answers, took);
        since
    }

    /// Forgets a request that does not run any more.
    pub(crate) fn remove(&mut self, slot: u32) {
        if self
            .running
            .get_mut(slot as usize)
            .and_then(Option::take)
            .is_some()
        {
            self.free.push(slot);
        }
    }

    /// Returns what is expected of a request that runs.
    pub(crate) fn expected(&self, now: u64, slot: u32, grid: &Grid) -> Option<Expected> {
        let running = self.running.get(slot as usize)?.as_ref()?;
        Some(self.expect(now, running, grid))
    }

    /// Returns what is expected of everything that runs.
    pub(crate) fn all(&self, now: u64, grid: Grid) -> impl Iterator<Item = (usize, Expected)> {
        let known = move |(slot, running): (usize, &Option<Running>)| {
            Some((slot, self.expect(now, running.as_ref()?, &grid)))
        };
        self.running.iter().enumerate().filter_map(known)
    }

    /// Returns what is known of the outputs of each class.
    pub(crate) fn snapshots(&self) -> Vec<OutputSnapshot> {
        let snapshot = |class: &Class| OutputSnapshot {
            class: class.id,
            samples: class.sketch.samples(),
            asked: Tokens::new(class.asked / 16),
            per_second: self.pace.mean().map(Rate::per_second),
            longer: class.sketch.longer().collect(),
        };
        self.classes.iter().map(snapshot).collect()
    }

    /// Takes note that a class is in use, and of the maximum that a request asks for.
    pub(crate) fn used(&mut self, now: u64, class: OutputClass, most: u64) {
        self.uses += 1;
        let uses = self.uses;
        let most = most.min(EXPECTED_MAX);
        if let Some(known) = self.classes.iter_mut().find(|known| known.id == class) {
            known.used = uses;
            known.asked = known.asked - known.asked / 16 + most;
            return;
        }
        let class = Class {
            id: class,
            used: uses,
            sketch: Sketch::new(now),
            asked: most * 16,
        };
        if self.classes.len() < CLASSES_MAX {
            self.classes.push(class);
        } else if let Some(oldest) = self.classes.iter_mut().min_by_key(|class| class.used) {
            *oldest = class;
        }
    }

    fn sketch(&self, class: OutputClass) -> Option<&Sketch> {
        self.classes
            .iter()
            .find(|known| known.id == class)
            .map(|known| &known.sketch)
            .filter(|sketch| sketch.samples() >= SAMPLES_MIN)
    }

    fn rate(&self) -> Option<Rate> {
        match self.guarantee {
            Guarantee::Hard => self.pace.fastest(),
            Guarantee::Statistical { .. } => self.pace.mean(),
        }
    }

    /// Returns how long a request is expected to generate nothing. To be sure, it is not expected to wait at all.
    fn latency(&self) -> u64 {
        match self.guarantee {
            Guarantee::Hard => 0,
            Guarantee::Statistical { .. } => self.latency.mean(),
        }
    }

    fn expect(&self, now: u64, running: &Running, grid: &Grid) -> Expected {
        let most = running.most.saturating_sub(running.seen);
        let rate = self.rate().map(|rate| rate.times(running.answers));
        let mut expected = Expected {
            mean: [0; NODES],
            variance: [0; NODES],
            reported: 0,
            most,
            from: running.at,
            rate,
        };
        if self.guarantee == Guarantee::Hard {
            for (mean, moment) in expected.mean.iter_mut().zip(grid.moments(now)) {
                let until = moment.saturating_sub(running.at);
                *mean = rate.map_or(most, |rate| rate.tokens(until).min(most));
            }
            return expected;
        }
        let rate = self.own_rate(running).or(rate);
        expected.rate = rate;
        // What it has generated already without telling, on a straight line.
        let silent = now.saturating_sub(running.at);
        let unseen = rate.map_or(0, |rate| rate.tokens(silent).min(most));
        let rest = most - unseen;
        let tail = self
            .sketch(running.class)
            .and_then(|sketch| sketch.tail(running.seen.saturating_add(unseen)));
        let from = now.max(running.at);
        let spread = if running.first.is_some() {
            0
        } else {
            self.pace.spread()
        };
        for (node, moment) in grid.moments(now).enumerate() {
            let until = moment.saturating_sub(from);
            let within = rate.map_or(rest, |rate| rate.tokens(until).min(rest));
            let Moments { mean, variance } = tail.as_ref().map_or(
                Moments {
                    mean: within,
                    variance: 0,
                },
                |tail| tail.within(within),
            );
            // Of a long call, what it generated before the window began counts no more; half is certain enough.
            let gone = moment.saturating_sub(grid.life()).saturating_sub(running.at);
            let gone = rate.map_or(0, |rate| rate.tokens(gone) / 2).min(unseen);
            let mean = (unseen - gone + mean).min(EXPECTED_MAX);
            expected.mean[node] = mean;
            expected.variance[node] = variance + ((mean * mean) >> 10) * spread;
        }
        expected
    }

    /// Returns the rate at which a request generates, once it has shown it.
    fn own_rate(&self, running: &Running) -> Option<Rate> {
        let (at, tokens) = running.first?;
        let (tokens, took) = (running.seen - tokens, running.at.saturating_sub(at));
        (tokens >= OWN_MIN.0 && took >= OWN_MIN.1).then(|| Rate::of(tokens, took))
    }
}
