use std::time::Duration;

use super::fixed::Turns;
use super::rolling::Rolling;
use super::{Timestamp, Wait};

/// A rolling window whose amount grows by a step at every turn after its first use, up to a ceiling: Anthropic's
/// acceleration limit (providers.md §4.5).
#[derive(Debug, Clone)]
pub(super) struct Ramp {
    turns: Turns,
    start: u64,
    step: u64,
    ceiling: u64,
    /// Turns without any use after which the growth begins anew.
    idle: Option<u64>,
    log: Rolling,
    used: Option<Used>,
}

/// The turns of the first use and of the last.
#[derive(Debug, Clone, Copy)]
struct Used {
    first: u64,
    last: u64,
}

/// Most turns that are looked ahead for a wait.
const TURNS_MAX: u64 = 10_000;

impl Ramp {
    pub(super) fn new(
        turns: Turns,
        window: u64,
        start: u64,
        step: u64,
        ceiling: u64,
        idle: Option<u64>,
    ) -> Self {
        Self {
            turns,
            start,
            step,
            ceiling,
            idle,
            log: Rolling::new(window, u64::MAX),
            used: None,
        }
    }

    /// What the window may hold now.
    pub(super) fn usable(&mut self, now: Timestamp) -> u64 {
        self.rest(now);
        self.usable_at(self.turns.index(now))
    }

    /// What it may hold from the next turn on.
    pub(super) fn next(&mut self, now: Timestamp) -> u64 {
        self.rest(now);
        let turn = self.turns.index(now);
        // Before the first use nothing grows; the use that asks will be the first.
        if self.used.is_none() {
            return self.start.saturating_add(self.step).min(self.ceiling);
        }
        self.usable_at(turn + 1)
    }

    pub(super) fn wait(&mut self, now: Timestamp, requested: u64) -> Wait {
        if requested > self.ceiling {
            return Wait::Never;
        }
        let mut usable = self.usable(now);
        let mut turn = self.turns.index(now);
        let mut at = now;
        for _ in 0..TURNS_MAX {
            let until_turn = self.turns.until_next(at);
            let free = self.log.wait_for(at, usable, requested);
            if let Wait::For(free) = free
                && (free < until_turn || usable >= self.ceiling)
            {
                let at = at.0.saturating_add(duration(free));
                return Wait::For(Duration::from_micros(at - now.0));
            }
            if self.used.is_none() || self.step == 0 {
                // Nothing grows without use: more than the start does not fit at first.
                return Wait::Unknown;
            }
            at = Timestamp(at.0.saturating_add(duration(until_turn)));
            turn += 1;
            usable = self.usable_at(turn);
        }
        Wait::Unknown
    }

    pub(super) fn charge(&mut self, now: Timestamp, weight: u64) {
        self.rest(now);
        let turn = self.turns.index(now);
        let first = self.used.map_or(turn, |used| used.first);
        self.used = Some(Used { first, last: turn });
        self.log.charge(now, weight);
    }

    pub(super) fn refund(&mut self, stamp: Timestamp, weight: u64) {
        self.log.refund(stamp, weight);
    }

    pub(super) fn used(&mut self, now: Timestamp) -> u64 {
        self.log.used(now)
    }

    pub(super) fn reset(&mut self, now: Timestamp) -> Duration {
        self.log.reset(now)
    }

    pub(super) fn resize(&mut self, amount: u64) {
        self.ceiling = amount;
    }

    fn usable_at(&self, turn: u64) -> u64 {
        let turns = self.used.map_or(0, |used| turn.saturating_sub(used.first));
        self.start
            .saturating_add(self.step.saturating_mul(turns))
            .min(self.ceiling)
    }

    /// Forgets the growth after a long rest.
    fn rest(&mut self, now: Timestamp) {
        let turn = self.turns.index(now);
        if let (Some(used), Some(idle)) = (self.used, self.idle)
            && turn.saturating_sub(used.last) > idle
        {
            self.used = None;
        }
    }
}

fn duration(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
