//! How fast output is generated.

use crate::time::micros;
use core::time::Duration;

/// Calls that must have been timed before a rate is believed.
const SAMPLES_MIN: u32 = 8;
/// Calls after which the older fastest one is forgotten.
const EPOCH: u32 = 1_000;
/// Shorter times than this many microseconds are counted as this one: what comes in one burst says nothing of a rate.
const SPAN_MIN: u64 = 200_000;
/// Calls with fewer tokens say more about the frame than about the generation.
const TOKENS_MIN: u64 = 16;

/// Only calls with so many tokens can be the fastest.
const LONG: u64 = 128;

/// Tokens in a microsecond, times 2^32: 60 tokens a second are 257,698.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rate(u64);

impl Rate {
    /// 65,000 tokens a second: faster than any model.
    const MAX: u64 = 1 << 28;

    pub(crate) fn of(tokens: u64, micros: u64) -> Self {
        let rate = (tokens.min(1 << 30) << 32) / micros.max(1);
        Self(rate.clamp(1, Self::MAX))
    }

    /// Returns the tokens of a time, in microseconds; of more than 19 hours those of 19 hours.
    pub(crate) const fn tokens(self, micros: u64) -> u64 {
        let micros = if micros < 1 << 36 { micros } else { (1 << 36) - 1 };
        (self.0 * micros) >> 32
    }

    /// Returns the time that tokens take, in microseconds.
    pub(crate) fn time(self, tokens: u64) -> u64 {
        (tokens.min(1 << 31) << 32) / self.0
    }

    /// Returns the rate of several answers that are generated side by side.
    pub(crate) const fn times(self, answers: u64) -> Self {
        let rate = self.0.saturating_mul(answers);
        Self(if rate < Self::MAX { rate } else { Self::MAX })
    }

    /// Returns tokens in a second.
    pub(crate) const fn per_second(self) -> u64 {
        (self.0 * 1_000_000) >> 32
    }
}

/// What is known of the rates of all calls of a group: each new one weighs a thirty-second.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace {
    samples: u32,
    mean: u64,
    /// The mean deviation.
    deviation: u64,
    /// The fastest call of this epoch and of the one before.
    fastest: [u64; 2],
}

impl Pace {
    /// Takes note of what one answer generated in how long.
    pub(crate) fn sample(&mut self, tokens: u64, micros: u64) {
        if tokens < TOKENS_MIN {
            return;
        }
        let Rate(rate) = Rate::of(tokens, micros.max(SPAN_MIN));
        if self.samples == 0 {
            self.mean = rate;
        } else {
            let weight = u64::from(self.samples.min(31)) + 1;
            self.deviation = self.deviation - self.deviation / weight + rate.abs_diff(self.mean) / weight;
            self.mean = self.mean - self.mean / weight + rate / weight;
        }
        self.samples = self.samples.saturating_add(1);
        if tokens >= LONG {
            self.fastest[0] = self.fastest[0].max(rate);
        }
        if self.samples.is_multiple_of(EPOCH) {
            self.fastest = [0, self.fastest[0]];
        }
    }

    pub(crate) fn mean(&self) -> Option<Rate> {
        (self.samples >= SAMPLES_MIN).then(|| Rate(self.mean.max(1)))
    }

    /// Returns the rate of the fastest call of the last one or two thousand, and a thirty-second on top, once as many have
    /// been timed as the sketch of lengths wants to see.
    pub(crate) fn fastest(&self) -> Option<Rate> {
        let fastest = self.fastest[0].max(self.fastest[1]);
        (self.samples >= crate::sketch::SAMPLES_MIN)
            .then(|| Rate((fastest + fastest / 32).clamp(1, Rate::MAX)))
    }

    /// Returns the rate of slow calls: the mean less two standard deviations, at least a quarter of the mean.
    pub(crate) fn slow(&self) -> Option<Rate> {
        let Rate(mean) = self.mean()?;
        let slower = (self.deviation * 5 / 2).min(mean / 4 * 3);
        Some(Rate((mean - slower).max(1)))
    }

    /// Returns the variance of the rate over the square of its mean, times 2^10. For a normal distribution the standard
    /// deviation is 5/4 of the mean deviation.
    pub(crate) fn spread(&self) -> u64 {
        let relative = (self.deviation * 5 / 4).saturating_mul(1 << 10) / self.mean.max(1);
        (relative.min(1 << 12).pow(2) >> 10).max(1)
    }
}

/// The mean time to the first token, in microseconds: each new one weighs a sixteenth.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latency(Option<u64>);

impl Latency {
    pub(crate) fn sample(&mut self, waited: u64) {
        let waited = waited.min(micros(Duration::from_secs(600)));
        self.0 = Some(self.0.map_or(waited, |mean| mean - mean / 16 + waited / 16));
    }

    /// Returns the mean, or nothing while none is known.
    pub(crate) fn mean(&self) -> u64 {
        self.0.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_times_of_a_rate_agree() {
        for (tokens, time) in [
            (60, 1_000_000),
            (1, 1_000_000),
            (5_000, 1_000_000),
            (7, 123_456_789),
        ] {
            let rate = Rate::of(tokens, time);
            assert!(
                rate.tokens(time).abs_diff(tokens) <= 1 + tokens / 1_000,
                "{tokens} in {time}"
            );
            assert!(
                rate.time(tokens).abs_diff(time) <= 1 + time / 100,
                "{tokens} in {time}"
            );
        }
        assert_eq!(Rate::of(60, 1_000_000).per_second(), 59, "rounded down");
        assert!(
            Rate::of(u64::MAX, 0).tokens(u64::MAX) > 1 << 31,
            "nothing overflows"
        );
    }

    #[test]
    fn a_pace_is_the_mean_and_the_fastest_of_what_was_seen() {
        let mut pace = Pace::default();
        for call in 0..100_u64 {
            assert_eq!(pace.mean().is_some(), call >= 8);
            assert_eq!(pace.fastest().is_some(), call >= 50);
            pace.sample(if call % 2 == 0 { 500 } else { 700 }, 10_000_000);
        }
        let mean = pace.mean().expect("known").per_second();
        assert!((58..=62).contains(&mean), "{mean}");
        let fastest = pace.fastest().expect("known").per_second();
        assert!((71..=73).contains(&fastest), "{fastest}");
        // A sixth either way is 2.8 % of variance, and 29 of 1,024; five quarters of it squared are 44.
        assert!((30..=60).contains(&pace.spread()), "{}", pace.spread());
    }
}
