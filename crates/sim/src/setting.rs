//! What a world is made of, drawn from its seed.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tidegate_mock::limits::{Algorithm, Slice};

/// The length of every world's "minute".
pub const MINUTE: Duration = Duration::from_secs(60);

/// The longest delay between our stamp and the provider's, beyond the shortest: the margin J that is promised.
pub const DELAY_MAX: u64 = 1_000_000;

/// Which enforcement algorithm the provider uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithms {
    /// An exact rolling window.
    Rolling,
    /// A continuous token bucket.
    TokenBucket,
    /// A fixed window of any phase.
    Fixed,
    /// A rolling window whose requests are also checked over 10 s.
    Slices,
}

impl Algorithms {
    /// Every algorithm.
    pub const ALL: [Self; 4] = [Self::Rolling, Self::TokenBucket, Self::Fixed, Self::Slices];

    /// Returns the name printed in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::TokenBucket => "token bucket",
            Self::Fixed => "fixed, any phase",
            Self::Slices => "10 s slices",
        }
    }
}

/// How long requests take to reach the provider's limiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// Evenly between nothing and this many microseconds.
    Uniform(u64),
    /// Exponential with this mean, cut off at [`DELAY_MAX`].
    Exponential(u64),
    /// Nothing or the longest, at random: the worst that the margin allows.
    Extreme,
}

/// When requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// There is always a line.
    Backlog,
    /// At random, with this percentage of what the limits allow.
    Poisson(u64),
    /// Everything of one to three minutes at once, then a pause.
    Bursts,
}

/// A whole world.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// How long it lasts.
    pub minutes: u64,
    /// How the provider enforces.
    pub algorithm: Algorithms,
    /// Its window's phase, for fixed ones.
    pub phase: Duration,
    /// Requests a minute.
    pub rpm: u64,
    /// Tokens a minute.
    pub tpm: u64,
    /// Mean tokens of a request, roughly.
    pub mean_tokens: u64,
    /// Whether sizes are spread evenly up to twice the mean; else most are small and some are eight times as large.
    pub even: bool,
    /// How long requests are under way.
    pub delay: Delay,
    /// When requests come.
    pub load: Load,
    /// Whether responses carry headers.
    pub headers: bool,
    /// The share of the limits, in percent, that somebody else uses.
    pub foreign_percent: u64,
}

impl Setting {
    /// Draws a world from a seed.
    pub fn draw(seed: u64, minutes: u64, algorithm: Algorithms) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let rpm = [6, 12, 20, 40, 60, 100][rng.random_range(0..6)];
        let mean_tokens = rng.random_range(50..2_000_u64);
        // Sometimes requests bind, sometimes tokens, sometimes both.
        let tpm = rpm * mean_tokens * rng.random_range(30..200_u64) / 100;
        let delay = match rng.random_range(0..4) {
            0 => Delay::Uniform(rng.random_range(1..DELAY_MAX)),
            1 => Delay::Exponential(rng.random_range(1_000..100_000)),
            2 => Delay::Uniform(rng.random_range(1..50_000)),
            _ => Delay::Extreme,
        };
        let load = match rng.random_range(0..4) {
            0 => Load::Bursts,
            1 => Load::Poisson(rng.random_range(50..150)),
            _ => Load::Backlog,
        };
        Self {
            seed,
            minutes,
            algorithm,
            phase: Duration::from_micros(rng.random_range(0..60_000_000)),
            rpm,
            tpm: tpm.max(mean_tokens * 4),
            mean_tokens,
            even: false,
            delay,
            load,
            headers: rng.random_bool(0.5),
            foreign_percent: 0,
        }
    }

    /// Makes the ordinary production case: 300 requests and 400,000 tokens a minute, a line all the time, headers, and
    /// requests of 2,000 tokens on average, so that tokens bind. What is used of the quota then says something about the
    /// limiter rather than about what does not fit into what is left.
    pub fn production(seed: u64, minutes: u64, algorithm: Algorithms) -> Self {
        Self {
            rpm: 300,
            tpm: 400_000,
            mean_tokens: if algorithm == Algorithms::Slices {
                1_000
            } else {
                2_000
            },
            even: true,
            delay: Delay::Exponential(20_000),
            load: Load::Backlog,
            headers: true,
            // Slices are about requests, so requests bind there.
            ..Self::draw(seed, minutes, algorithm)
        }
    }

    /// Returns the provider's algorithm for requests (sliced) and for tokens (whole).
    pub fn algorithms(&self) -> (Algorithm, Algorithm) {
        let whole = match self.algorithm {
            Algorithms::Rolling | Algorithms::Slices => Algorithm::Rolling,
            Algorithms::TokenBucket => Algorithm::TokenBucket,
            Algorithms::Fixed => Algorithm::Fixed { phase: self.phase },
        };
        let requests = match self.algorithm {
            Algorithms::Slices if self.seed.is_multiple_of(2) => Algorithm::Slices {
                slice: SLICE,
                shape: Slice::Rolling,
            },
            Algorithms::Slices => Algorithm::Slices {
                slice: SLICE,
                shape: Slice::Fixed { phase: self.phase },
            },
            _ => whole,
        };
        (requests, whole)
    }

    /// Draws the tokens of a request: mostly small, sometimes up to eight times the mean, never above the limit.
    pub fn tokens(&self, rng: &mut Pcg64Mcg) -> u64 {
        if self.even {
            return rng.random_range(1..=2 * self.mean_tokens);
        }
        let small = rng.random_range(1..=self.mean_tokens);
        let tokens = if rng.random_range(0..8) == 0 {
            small * 8
        } else {
            small
        };
        tokens.clamp(1, self.tpm / 2)
    }

    /// Draws a delay in microseconds.
    pub fn delay(&self, rng: &mut Pcg64Mcg) -> u64 {
        let delay = match self.delay {
            Delay::Uniform(most) => rng.random_range(0..=most),
            Delay::Exponential(mean) => exponential(rng, mean),
            Delay::Extreme => u64::from(rng.random_bool(0.5)) * DELAY_MAX,
        };
        delay.min(self.delay_max())
    }

    /// Returns the longest delay in this world: the margin J of its shortest window.
    pub fn delay_max(&self) -> u64 {
        if self.algorithm == Algorithms::Slices {
            DELAY_MAX / 4
        } else {
            DELAY_MAX
        }
    }
}

/// The slice of [`Algorithms::Slices`].
pub const SLICE: Duration = Duration::from_secs(10);

/// Draws from the exponential distribution.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a draw of some microseconds"
)]
#[allow(clippy::cast_precision_loss, reason = "a mean of some microseconds")]
pub fn exponential(rng: &mut Pcg64Mcg, mean: u64) -> u64 {
    let uniform: f64 = rng.random_range(f64::EPSILON..1.0);
    (-uniform.ln() * mean as f64) as u64
}
