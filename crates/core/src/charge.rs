//! What a request takes from each dimension, and when.

use crate::request::Demand;
use crate::units::{Amount, Dimension, Tokens};

/// How a provider charges a request against its limits, as data.
///
/// At admission a request takes its estimated input, and what [`OutputCharge`] says of its output. At settlement the
/// reported usage replaces that where the [`Settlement`] says so, with the weights that are given here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChargeModel {
    /// Whether estimates are the provider's own or have to be corrected by what it reports.
    pub input: InputCharge,
    /// When output is charged.
    pub output: OutputCharge,
    /// The output tokens that are assumed where output is reserved and a request names no maximum.
    pub unset_output: u64,
    /// What happens when the usage is known.
    pub settlement: Settlement,
    /// The weight, in percent, of input tokens that were read from the provider's cache, once they are known.
    pub cached_input_percent: u32,
    /// The weight, in percent, of an output token once it is known (Bedrock's "burndown").
    pub output_percent: u32,
}

/// What input is charged by at admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InputCharge {
    /// By the provider's own estimate, which is known: ours is the same or larger, and never corrected.
    Estimated,
    /// By real tokens: our estimate is corrected by what is reported, model by model.
    Counted,
}

/// When output is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutputCharge {
    /// The maximum, at admission.
    Reserved,
    /// The maximum, at admission, also against the limit on input tokens; output tokens as they are generated
    /// (Bedrock's `bedrock-mantle`, providers.md §6).
    ReservedAsInput,
    /// As it is generated, whatever the maximum says.
    AsGenerated,
    /// Never: only input counts.
    Free,
}

/// What happens to a charge when the usage is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Settlement {
    /// Nothing is given back and nothing more is taken.
    Never,
    /// The reported usage replaces the charge: a refund as of admission, an excess as of settlement.
    Usage,
    /// The reported usage replaces the charge; output counts from settlement on, wherever it was taken before.
    Late,
    /// Only input that was read from the provider's cache is given back.
    CachedInput,
}

/// The output assumed when nothing is known about it and it must be reserved in full.
const UNKNOWN_OUTPUT: u64 = 4_096;

impl ChargeModel {
    /// OpenAI: the sum of the input estimate and the maximum output (16 if unset, the legacy default) times the choices,
    /// at admission; never given back, cached input counts in full (providers.md §2.3).
    pub const OPENAI: Self = Self {
        input: InputCharge::Estimated,
        output: OutputCharge::Reserved,
        unset_output: 16,
        settlement: Settlement::Never,
        cached_input_percent: 100,
        output_percent: 100,
    };

    /// Azure OpenAI: as OpenAI (providers.md §3.3).
    pub const AZURE: Self = Self::OPENAI;

    /// Anthropic: estimated input at admission, corrected by the reported usage (cache reads are free); output as it is
    /// generated, whatever `max_tokens` says (providers.md §4.3).
    pub const ANTHROPIC: Self = Self {
        input: InputCharge::Counted,
        output: OutputCharge::AsGenerated,
        unset_output: UNKNOWN_OUTPUT,
        settlement: Settlement::Usage,
        cached_input_percent: 0,
        output_percent: 100,
    };

    /// Gemini: input only, by real tokens; cached input counts (providers.md §5.1).
    pub const GEMINI: Self = Self {
        input: InputCharge::Counted,
        output: OutputCharge::Free,
        unset_output: 0,
        settlement: Settlement::Usage,
        cached_input_percent: 100,
        output_percent: 0,
    };

    /// Groq: input and the maximum output at admission, never given back but for cached input, which is free
    /// (providers.md §8).
    pub const GROQ: Self = Self {
        input: InputCharge::Counted,
        settlement: Settlement::CachedInput,
        cached_input_percent: 0,
        ..Self::OPENAI
    };

    /// Input and maximum output at admission, replaced by the reported usage when it is known.
    pub const SETTLED: Self = Self {
        input: InputCharge::Counted,
        output: OutputCharge::Reserved,
        unset_output: UNKNOWN_OUTPUT,
        settlement: Settlement::Usage,
        cached_input_percent: 100,
        output_percent: 100,
    };

    /// Mistral: input at admission and output once it is known; nobody says when it begins to count, so it counts from then on
    /// (providers.md §7).
    pub const MISTRAL: Self = Self {
        settlement: Settlement::Late,
        ..Self::SETTLED
    };

    /// Bedrock's runtime: input and maximum output at admission; at the end input without cache reads, and output times
    /// the model's burndown (`output_percent`; providers.md §6).
    pub const BEDROCK: Self = Self {
        cached_input_percent: 0,
        unset_output: 64_000,
        ..Self::SETTLED
    };

    /// Bedrock's `bedrock-mantle` endpoint: input and maximum output against the limit on input tokens; output as it is
    /// generated against its own (providers.md §6).
    pub const BEDROCK_MANTLE: Self = Self {
        output: OutputCharge::ReservedAsInput,
        ..Self::BEDROCK
    };

    /// Returns what a request takes when it is admitted. Output that is charged as it is generated is
    /// not: this is the most of it.
    pub fn at_admission(&self, demand: &Demand) -> Charge {
        let input = demand.input.value();
        let output = self.output_reserve(demand);
        let (with_input, alone) = match self.output {
            OutputCharge::Reserved => (0, output),
            OutputCharge::ReservedAsInput => (output, output),
            OutputCharge::AsGenerated => (0, output),
            OutputCharge::Free => (0, 0),
        };
        let mut charge = Charge::ZERO;
        charge.set(Dimension::Requests, Amount::new(1));
        charge.set(Dimension::Concurrency, Amount::new(1));
        charge.set(
            Dimension::InputTokens,
            Amount::new(input.saturating_add(with_input)),
        );
        charge.set(Dimension::OutputTokens, Amount::new(alone));
        charge.set(Dimension::Tokens, Amount::new(input.saturating_add(alone)));
        charge
    }

    /// Returns the most that settlement takes of output beyond the reservation: nothing, unless an output token weighs more
    /// in the end (Bedrock's burndown, providers.md §6).
    pub(crate) fn excess_most(&self, demand: &Demand) -> u64 {
        if self.output != OutputCharge::Reserved || self.settlement == Settlement::Never {
            return 0;
        }
        let most = self.output_reserve(demand);
        self.settled_output(Tokens::new(most)).saturating_sub(most)
    }

    /// Returns whether output tokens are charged as they are generated.
    pub const fn as_generated(&self) -> bool {
        matches!(
            self.output,
            OutputCharge::AsGenerated | OutputCharge::ReservedAsInput
        )
    }

    /// Returns what reported input weighs: tokens that were not read from the cache, and the weight of those that were.
    pub(crate) fn settled_input(&self, fresh: Tokens, cached: Tokens) -> u64 {
        fresh
            .value()
            .saturating_add(weighted(cached.value(), self.cached_input_percent))
    }

    /// Returns what reported output weighs.
    pub(crate) fn settled_output(&self, output: Tokens) -> u64 {
        weighted(output.value(), self.output_percent)
    }

    /// Returns the most output that a request may generate.
    pub(crate) fn output_reserve(&self, demand: &Demand) -> u64 {
        if !demand.generates {
            return 0;
        }
        let each = demand.max_output.map_or(self.unset_output, Tokens::value);
        each.saturating_mul(u64::from(demand.choices.get()))
    }
}

fn weighted(amount: u64, percent: u32) -> u64 {
    let weighed = u128::from(amount) * u128::from(percent);
    u64::try_from(weighed.div_ceil(100)).unwrap_or(u64::MAX)
}

/// An amount in each dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Charge([u64; Dimension::ALL.len()]);

impl Charge {
    /// Nothing in any dimension.
    pub const ZERO: Self = Self([0; Dimension::ALL.len()]);

    /// Returns the amount in one dimension.
    pub const fn amount(&self, dimension: Dimension) -> Amount {
        Amount::new(self.0[dimension.index()])
    }

    /// Adds another charge, dimension by dimension.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, amount) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(amount);
        }
    }

    /// Takes another charge away, dimension by dimension.
    pub(crate) fn subtract(&mut self, other: &Self) {
        for (sum, amount) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_sub(amount);
        }
    }

    /// Returns so many parts of it in a number of parts, rounded up.
    #[must_use]
    pub(crate) fn part(&self, parts: u64, of: u64) -> Self {
        let of = u128::from(of.max(1));
        Self(self.0.map(|amount| {
            let part = (u128::from(amount) * u128::from(parts)).div_ceil(of);
            u64::try_from(part).unwrap_or(u64::MAX)
        }))
    }

    /// Sets the amount in one dimension.
    pub const fn set(&mut self, dimension: Dimension, amount: Amount) {
        self.0[dimension.index()] = amount.value();
    }
}
