use std::time::Duration;

use super::civil::Period;

/// A moment: microseconds since any fixed beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// Requests.
    Requests,
    /// Input and output tokens together.
    Tokens,
    /// Input tokens.
    Input,
    /// Output tokens.
    Output,
    /// Texts or images in requests, where they are counted one by one (Cohere's embeddings).
    Inputs,
    /// Images asked for.
    Images,
    /// Seconds of audio.
    AudioSeconds,
    /// Requests that are open at one time; such a limit has no window and no algorithm.
    Concurrency,
}

/// How a limit's window moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// An exact log: what was charged at `t` counts until just before `t + window`.
    Rolling,
    /// A bucket that holds the amount, starts full and refills continuously (providers.md §2.2). Excess at settlement
    /// may draw it below zero.
    TokenBucket,
    /// A bucket that refills as [`Algorithm::TokenBucket`] and holds only what comes back within `burst`, at least one:
    /// "a rate of 60 RPM might be enforced as 1 request per second" (providers.md §4.2, §7).
    Spaced {
        /// How much time's worth the bucket holds.
        burst: Duration,
    },
    /// A counter that starts again at zero every window; one window starts at `phase`.
    Fixed {
        /// The start of any one window, counted from the beginning of time.
        phase: Duration,
    },
    /// A counter that starts again with the calendar. The limit's window should be about as long; it is told where
    /// a length is told, and counts for nothing else.
    Civil(Period),
    /// A rolling window whose amount is only `start` at first and grows by `step` at every minute boundary of the clock
    /// from the first use on, up to the limit's own amount: Anthropic's acceleration (providers.md §4.5).
    Ramp {
        /// The amount at first.
        start: u64,
        /// What every boundary adds.
        step: u64,
        /// Minutes without any use after which it starts again; `None`: never.
        idle: Option<u64>,
    },
    /// A pool shared with strangers: its capacity wanders around the amount, and what is offered above it is refused by
    /// chance, surely at twice the capacity (providers.md §5.2). Refused requests count as offered.
    Congestion {
        /// How far the capacity strays, in percent of the amount, at most 100.
        swing: u64,
        /// How long it takes from one capacity to the next.
        period: Duration,
        /// The seed of capacities and chances.
        seed: u64,
    },
    /// A rolling window, and within it each slice may hold only its share: rounded down, at least one
    /// (providers.md §3.2, Azure's requests over 1 s or 10 s).
    Slices {
        /// The length of a slice.
        slice: Duration,
        /// How the slices move.
        shape: Slice,
    },
}

/// How slices move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slice {
    /// No span of a slice's length, wherever it starts, may hold more.
    Rolling,
    /// Slices follow one another; one starts at `phase`.
    Fixed {
        /// The start of any one slice.
        phase: Duration,
    },
}

/// One limit of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is counted.
    pub dimension: Dimension,
    /// Over which time; taken as at least one microsecond and at most 285 years.
    pub window: Duration,
    /// How much fits.
    pub amount: u64,
    /// How the window moves.
    pub algorithm: Algorithm,
    /// Whether responses keep silent about it.
    pub hidden: bool,
}

impl Limit {
    /// Builds a limit.
    pub const fn new(dimension: Dimension, window: Duration, amount: u64, algorithm: Algorithm) -> Self {
        Self {
            dimension,
            window,
            amount,
            algorithm,
            hidden: false,
        }
    }

    /// Makes responses keep silent about the limit; refusals still name it where the provider's do.
    #[must_use]
    pub const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// Builds a limit on requests that are open at one time.
    pub const fn concurrency(amount: u64) -> Self {
        Self::new(Dimension::Concurrency, Duration::ZERO, amount, Algorithm::Rolling)
    }

    /// Returns what a bucket of this limit holds when it is full.
    pub fn capacity(&self) -> u64 {
        match self.algorithm {
            Algorithm::Spaced { burst } => self.amount_of(burst),
            _ => self.amount,
        }
    }

    /// Returns the share of the amount that a part of the window may hold: rounded down, at least one unless the
    /// amount is zero.
    pub fn amount_of(&self, part: Duration) -> u64 {
        let share = u128::from(self.amount).saturating_mul(part.as_micros()) / self.window.as_micros().max(1);
        let share = u64::try_from(share).unwrap_or(u64::MAX);
        share.max(1).min(self.amount)
    }
}

/// What a request weighs in each dimension; tokens are the sum of input and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weights {
    /// Requests: 1 unless a batch counts as several.
    pub requests: u64,
    /// Input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// Texts or images counted one by one.
    pub inputs: u64,
    /// Images asked for.
    pub images: u64,
    /// Seconds of audio.
    pub audio_seconds: u64,
    /// Places taken while it is open: one, or one for each answer (providers.md §12).
    pub slots: u64,
}

impl Weights {
    /// Returns the weights of one request.
    pub const fn request(input: u64, output: u64) -> Self {
        Self {
            requests: 1,
            input,
            output,
            inputs: 1,
            images: 0,
            audio_seconds: 0,
            slots: 1,
        }
    }

    /// Returns the weight in one dimension.
    pub const fn amount(&self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::Requests => self.requests,
            Dimension::Tokens => self.input.saturating_add(self.output),
            Dimension::Input => self.input,
            Dimension::Output => self.output,
            Dimension::Inputs => self.inputs,
            Dimension::Images => self.images,
            Dimension::AudioSeconds => self.audio_seconds,
            Dimension::Concurrency => self.slots,
        }
    }
}

/// The longest window: 2^53 µs, 285 years. It keeps the buckets' products within 128 bits.
const LONGEST: u128 = 1 << 53;

/// Returns a span in microseconds, at least one: a window of no length would divide by zero.
pub(super) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros().clamp(1, LONGEST)).unwrap_or(1)
}
