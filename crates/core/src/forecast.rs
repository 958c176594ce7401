//! What is learned from reported usage: how far estimates are off.

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

/// The ratio of reported input tokens to estimated ones, for providers that charge real tokens.
#[derive(Debug, Clone, Default)]
pub(crate) struct InputFactor(Running);

impl InputFactor {
    pub(crate) fn sample(&mut self, estimated: u64, actual: u64) {
        // Tiny requests say more about their frame than about the text.
        if estimated >= 16 {
            self.0.sample(actual.saturating_mul(1_024) / estimated);
        }
    }

    /// Corrects an estimate: upwards as soon as anything says so, downwards once there are enough samples.
    pub(crate) fn apply(&self, estimated: u64) -> u64 {
        let Some(high) = self.0.high(3) else {
            return estimated;
        };
        estimated
            .saturating_mul(high.clamp(128, 16 * 1_024))
            .div_ceil(1_024)
    }
}
