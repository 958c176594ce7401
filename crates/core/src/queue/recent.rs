//! What a flow was given in the last window, in coarse steps.

/// Steps in one window.
const STEPS: u64 = 16;

/// Windows for which somebody is remembered who does not come any more.
const MEMORY: u64 = 10;

/// The steps of one group's window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    width: u64,
}

impl Clock {
    /// Makes the steps of a window, in microseconds.
    pub(crate) fn new(window: u64) -> Self {
        Self {
            width: (window / STEPS).max(1),
        }
    }

    /// Returns the number of the step that `now` is in.
    pub(crate) const fn slot(self, now: u64) -> u64 {
        now / self.width
    }

    pub(crate) const fn window(self) -> u64 {
        self.width * STEPS
    }

    /// Returns for how long somebody is remembered who does not come any more.
    pub(crate) const fn memory(self) -> u64 {
        self.window().saturating_mul(MEMORY)
    }
}

/// Costs of the last window.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recent {
    steps: [u64; STEPS as usize],
    head: u64,
    live: u64,
}

impl Recent {
    /// Adds a cost, or takes back what turned out to be less.
    pub(crate) fn add(&mut self, slot: u64, cost: i64) {
        self.advance(slot);
        let at = index(self.head);
        let before = self.steps[at];
        self.steps[at] = before.saturating_add_signed(cost);
        self.live = self.live - before + self.steps[at];
    }

    /// Returns what was given in the last window.
    pub(crate) fn live(&mut self, slot: u64) -> u64 {
        self.advance(slot);
        self.live
    }

    /// Returns what was given in the last window, without letting time pass.
    pub(crate) fn live_at(&self, slot: u64) -> u64 {
        let gone = slot.saturating_sub(self.head);
        if gone >= STEPS {
            return 0;
        }
        let oldest = (1..=gone).map(|step| self.steps[index(self.head + step)]);
        self.live - oldest.sum::<u64>()
    }

    fn advance(&mut self, slot: u64) {
        let passed = slot.saturating_sub(self.head);
        if passed == 0 {
            return;
        }
        if passed >= STEPS {
            *self = Self {
                head: slot,
                ..Self::default()
            };
            return;
        }
        for step in 1..=passed {
            let at = index(self.head + step);
            self.live -= self.steps[at];
            self.steps[at] = 0;
        }
        self.head = slot;
        debug_assert_eq!(self.live, self.steps.iter().sum::<u64>(), "the sum is kept");
    }
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the remainder is smaller than the number of steps"
)]
const fn index(slot: u64) -> usize {
    (slot % STEPS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_forgotten_after_a_window() {
        let clock = Clock::new(60_000_000);
        let mut recent = Recent::default();
        let at = |seconds: u64| clock.slot(seconds * 1_000_000);
        recent.add(at(600), 10);
        recent.add(at(630), 5);
        assert_eq!(recent.live(at(630)), 15);
        assert_eq!(recent.live_at(at(659)), 15);
        assert_eq!(recent.live_at(at(661)), 5);
        assert_eq!(recent.live(at(661)), 5);
        recent.add(at(661), -3);
        assert_eq!(
            recent.live(at(661)),
            5,
            "what was given before is not taken back twice"
        );
        assert_eq!(recent.live(at(2_000)), 0);
    }
}
