use super::{Demand, Weights};

/// When a provider charges, and what it gives back.
///
/// ```
/// use tidegate_mock::limits::{Charging, Usage, Weights};
///
/// // Bedrock reserves what a request may produce and counts what it produced five times (providers.md §6).
/// let request = Weights::request(100, 1_000);
/// let charging = Charging::BEDROCK;
/// assert_eq!(charging.at_admission(&request), request);
/// let usage = Usage { cache_read: 40, ..Usage::of(100, 20) };
/// assert_eq!(charging.settled(&request, &usage), Weights::request(60, 100));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charging {
    /// What admission takes for output that does not exist yet.
    pub reserves: Reserves,
    /// What the end of a request corrects. A refund reaches back to the moment of admission; an excess is charged at
    /// the moment of settlement.
    pub settles: Settles,
    /// Whether output counts token by token as it is made. Admission then asks only that anything at all is left.
    pub as_generated: bool,
    /// Whether input read from the cache counts in the end.
    pub counts_cache_reads: bool,
    /// How many tokens one token of output counts for when it is settled: Bedrock's burndown (providers.md §6).
    pub output_weight: u64,
    /// Whether the reservation is weighed alike.
    pub weighs_reservation: bool,
    /// The output that is reserved for a request that names no maximum.
    pub unset_output: u64,
}

/// What admission takes for output that does not exist yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserves {
    /// Nothing.
    Nothing,
    /// The most that the request may produce, as output.
    Output,
    /// The most that the request may produce, as input.
    Input,
}

/// What the end of a request corrects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settles {
    /// Nothing.
    Never,
    /// Input that was read from the cache is given back.
    CacheReads,
    /// What was taken is replaced by what was used.
    Actual,
}

/// What a request really used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// All input tokens, those of the cache among them.
    pub input: u64,
    /// Input tokens read from the cache.
    pub cache_read: u64,
    /// Output tokens.
    pub output: u64,
}

impl Usage {
    /// Returns the use of this much input, none of it cached, and this much output.
    pub const fn of(input: u64, output: u64) -> Self {
        Self {
            input,
            cache_read: 0,
            output,
        }
    }
}

/// The output that OpenAI reserves when a request names no maximum (providers.md §2.3).
const UNSET_OUTPUT: u64 = 16;
/// A model's maximum, which Bedrock reserves when a request names none (providers.md §6).
const MODEL_OUTPUT: u64 = 64_000;

impl Charging {
    /// The estimate at admission, never corrected: OpenAI and Azure (providers.md §2.3, §3.3).
    pub const ESTIMATE: Self = Self {
        reserves: Reserves::Output,
        settles: Settles::Never,
        as_generated: false,
        counts_cache_reads: true,
        output_weight: 1,
        weighs_reservation: false,
        unset_output: UNSET_OUTPUT,
    };

    /// The estimate at admission, replaced by what was used.
    pub const SETTLED: Self = Self {
        settles: Settles::Actual,
        ..Self::ESTIMATE
    };

    /// Input estimated and corrected, without reads from the cache; output only as it is generated: Anthropic
    /// (providers.md §4.3).
    pub const AS_GENERATED: Self = Self {
        reserves: Reserves::Nothing,
        settles: Settles::Actual,
        as_generated: true,
        counts_cache_reads: false,
        ..Self::ESTIMATE
    };

    /// Input alone, at admission: Gemini (providers.md §5.1).
    pub const INPUT: Self = Self {
        reserves: Reserves::Nothing,
        ..Self::ESTIMATE
    };

    /// Prompt and maximum at admission; reads from the cache come back: Groq (providers.md §8).
    pub const GROQ: Self = Self {
        settles: Settles::CacheReads,
        counts_cache_reads: false,
        ..Self::ESTIMATE
    };

    /// Input at admission, output once it is known: Mistral, which tells a request's cost (providers.md §7).
    pub const MISTRAL: Self = Self {
        reserves: Reserves::Nothing,
        settles: Settles::Actual,
        ..Self::ESTIMATE
    };

    /// Input and maximum at admission, five times the output at the end: Bedrock's runtime (providers.md §6).
    pub const BEDROCK: Self = Self {
        settles: Settles::Actual,
        counts_cache_reads: false,
        output_weight: 5,
        unset_output: MODEL_OUTPUT,
        ..Self::ESTIMATE
    };

    /// Input and maximum against the input limit, output as it is generated: Bedrock's mantle (providers.md §6).
    pub const MANTLE: Self = Self {
        reserves: Reserves::Input,
        settles: Settles::Actual,
        as_generated: true,
        counts_cache_reads: false,
        unset_output: MODEL_OUTPUT,
        ..Self::ESTIMATE
    };

    /// Returns what a request is taken to weigh before it runs: a quarter of the characters, rounded up, three tokens
    /// for each message, and the most output that it may produce.
    pub fn estimate(&self, demand: &Demand) -> Weights {
        demand.estimate_with(self.unset_output)
    }

    /// Returns what admission takes of a request's estimate.
    pub fn at_admission(&self, weights: &Weights) -> Weights {
        match self.reserves {
            Reserves::Nothing => Weights {
                output: 0,
                ..*weights
            },
            Reserves::Output if self.weighs_reservation => Weights {
                output: weights.output.saturating_mul(self.output_weight),
                ..*weights
            },
            Reserves::Output => *weights,
            Reserves::Input => Weights {
                input: weights.input.saturating_add(weights.output),
                output: 0,
                ..*weights
            },
        }
    }

    /// Returns what a request has taken in the end, if `charged` was taken so far.
    pub fn settled(&self, charged: &Weights, usage: &Usage) -> Weights {
        let free = if self.counts_cache_reads {
            0
        } else {
            usage.cache_read
        };
        match self.settles {
            Settles::Never => *charged,
            Settles::CacheReads => Weights {
                input: charged.input.saturating_sub(free),
                ..*charged
            },
            Settles::Actual => {
                let output = usage.output.saturating_mul(self.output_weight);
                Weights {
                    input: usage.input.saturating_sub(free),
                    // Output was stamped as it was made; it is never taken back.
                    output: if self.as_generated {
                        output.max(charged.output)
                    } else {
                        output
                    },
                    ..*charged
                }
            }
        }
    }
}
