//! What is learned from reported usage: how far estimates are off.

use alloc::vec::Vec;

use crate::request::RequestClass;

/// Samples before anything is believed.
const SAMPLES_MIN: u32 = 50;

/// A running mean and mean deviation, each new value weighing 1/16, in integers scaled by 1,024.
#[derive(Debug, Clone, Default)]
struct Running {
    samples: u32,
    mean: u64,
    deviation: u64,
}

impl Running {
    fn sample(&mut self, value: u64) {
        let value = value.min(1 << 40) << 10;
        if self.samples == 0 {
            self.mean = value;
            self.deviation = value / 2;
        } else {
            let error = value.abs_diff(self.mean);
            self.deviation = self.deviation - self.deviation / 16 + error / 16;
            self.mean = self.mean - self.mean / 16 + value / 16;
        }
        self.samples = self.samples.saturating_add(1);
    }

    /// Returns the mean and `deviations` mean deviations on top, once there are enough samples.
    fn high(&self, deviations: u64) -> Option<u64> {
        (self.samples >= SAMPLES_MIN).then(|| (self.mean + deviations * self.deviation) >> 10)
    }
}

/// The most classes of requests whose factors are told apart; beyond that the one used longest ago is forgotten.
const CLASSES_MAX: usize = 32;

/// Ratios of reported input tokens to estimated ones, for providers that charge real tokens: one for each class of
/// requests, and one for all of them, which holds for those of which too little is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct InputFactors {
    all: InputFactor,
    /// The one used last comes first.
    classes: Vec<(RequestClass, InputFactor)>,
}

impl InputFactors {
    pub(crate) fn sample(&mut self, class: RequestClass, estimated: u64, actual: u64) {
        self.all.sample(estimated, actual);
        let found = self.classes.iter().position(|(known, _)| *known == class);
        let at = found.unwrap_or_else(|| {
            if self.classes.len() >= CLASSES_MAX {
                self.classes.pop();
            }
            self.classes.push((class, InputFactor::default()));
            self.classes.len() - 1
        });
        self.classes[at].1.sample(estimated, actual);
        self.classes[..=at].rotate_right(1);
    }

    /// Returns how far apart corrections of an estimate may be, ours and the provider's own.
    pub(crate) fn spread(&self, class: RequestClass, estimated: u64) -> u64 {
        self.of(class).spread(estimated)
    }

    /// Corrects an estimate.
    pub(crate) fn apply(&self, class: RequestClass, estimated: u64) -> u64 {
        self.of(class).apply(estimated)
    }

    fn of(&self, class: RequestClass) -> &InputFactor {
        self.classes
            .iter()
            .find_map(|(known, factor)| (*known == class && factor.is_known()).then_some(factor))
            .unwrap_or(&self.all)
    }
}

/// The ratio of reported input tokens to estimated ones.
#[derive(Debug, Clone, Default)]
struct InputFactor(Running);

impl InputFactor {
    const fn is_known(&self) -> bool {
        self.0.samples >= SAMPLES_MIN
    }

    fn sample(&mut self, estimated: u64, actual: u64) {
        // Tiny requests say more about their frame than about the text.
        if estimated >= 16 {
            self.0.sample(actual.saturating_mul(1_024) / estimated);
        }
    }

    fn spread(&self, estimated: u64) -> u64 {
        if !self.is_known() {
            return estimated / 4;
        }
        let spread = (6 * self.0.deviation) >> 10;
        estimated.saturating_mul(spread.min(1_024)).div_ceil(1_024)
    }

    /// Corrects an estimate by the mean and three mean deviations, once there are enough samples.
    fn apply(&self, estimated: u64) -> u64 {
        let Some(high) = self.0.high(3) else {
            return estimated;
        };
        estimated
            .saturating_mul(high.clamp(128, 16 * 1_024))
            .div_ceil(1_024)
    }
}

/// What settlement takes beyond the reservation, where an output token weighs more in the end than at admission.
///
/// The provider takes it a little before we hear of it, and our next request may be on its way by then. So room is kept for
/// all that run and the next one: the mean of each, and four mean deviations of their sum; of few also the most that one
/// can take.
#[derive(Debug, Clone, Default)]
pub(crate) struct Excess {
    taken: Running,
    /// The most that one request can take: of the largest lately.
    most: u64,
}

/// Samples before less is kept than all that settlement can take: the first to end are the short ones.
const EXCESS_SAMPLES_MIN: u32 = 200;
/// With fewer running, one of them may also take the most it can.
const FEW: u32 = 10;

impl Excess {
    /// Takes note of the most that a request can take.
    pub(crate) fn asked(&mut self, most: u64) {
        self.most = most.min(1 << 40).max(self.most - self.most / 64);
    }

    pub(crate) fn sample(&mut self, excess: u64) {
        self.taken.sample(excess);
    }

    /// Returns the room to keep while so many run.
    pub(crate) fn room(&self, running: u32) -> u64 {
        if running == 0 || self.most == 0 {
            return 0;
        }
        let count = u64::from(running) + 1;
        let all = self.most.saturating_mul(count);
        if self.taken.samples < EXCESS_SAMPLES_MIN {
            return all;
        }
        let (mean, deviation) = (self.taken.mean >> 10, self.taken.deviation >> 10);
        let surprise = if running < FEW { self.most } else { 0 };
        // The root in tenths, so that it grows with every request.
        let deviations = (4 * deviation * (count * 100).isqrt()).div_ceil(10);
        all.min(mean * count + deviations.max(surprise))
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn models_have_factors_of_their_own_once_enough_is_known_of_them() {
        let (dense, plain, new) = (
            RequestClass::of(&["dense"]),
            RequestClass::of(&["plain"]),
            RequestClass::of(&["new"]),
        );
        let mut factors = InputFactors::default();
        assert_eq!(factors.apply(dense, 1_000), 1_000, "nothing is known");
        for _ in 0..200 {
            factors.sample(dense, 1_000, 2_000);
            factors.sample(plain, 1_000, 500);
        }
        assert!((2_000..2_010).contains(&factors.apply(dense, 1_000)));
        assert!((500..510).contains(&factors.apply(plain, 1_000)));
        // Nothing is known of it but that it is one of those.
        assert!(factors.apply(new, 1_000) > 2_000);
        for other in 0..100 {
            factors.sample(RequestClass::of(&[&format!("{other}")]), 1_000, 1_000);
        }
        assert!(factors.classes.len() <= CLASSES_MAX);
    }
}
