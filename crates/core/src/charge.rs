//! What a request takes from each dimension, and when.

use crate::request::Demand;
use crate::units::{Amount, Dimension};

/// The output that OpenAI reserves when a request names no maximum: the legacy default of 16 tokens (providers.md §2.3).
const OPENAI_DEFAULT_OUTPUT: u64 = 16;

/// The output assumed when nothing is known about it and it must be reserved in full.
const UNKNOWN_OUTPUT: u64 = 4_096;

/// How a provider charges a request against its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChargeModel {
    /// OpenAI: the sum of the input estimate and the maximum output (16 if unset) at admission; never given back.
    OpenAi,
    /// Anthropic: estimated input at admission, corrected by the reported usage (cache reads are free); output as it
    /// is generated, whatever `max_tokens` says.
    Anthropic,
    /// Input and maximum output at admission, replaced by the reported usage when it is known.
    Settled,
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

    /// Sets the amount in one dimension.
    pub const fn set(&mut self, dimension: Dimension, amount: Amount) {
        self.0[dimension.index()] = amount.value();
    }
}

impl ChargeModel {
    /// Returns what a request takes when it is admitted.
    pub fn at_admission(self, demand: &Demand) -> Charge {
        let input = demand.input.value();
        let output = self.output_reserve(demand);
        let mut charge = Charge::ZERO;
        charge.set(Dimension::Requests, Amount::new(1));
        charge.set(Dimension::Concurrency, Amount::new(1));
        charge.set(Dimension::InputTokens, Amount::new(input));
        charge.set(Dimension::OutputTokens, Amount::new(output));
        charge.set(Dimension::Tokens, Amount::new(input.saturating_add(output)));
        charge
    }

    fn output_reserve(self, demand: &Demand) -> u64 {
        if !demand.generates {
            return 0;
        }
        let unset = match self {
            Self::OpenAi => OPENAI_DEFAULT_OUTPUT,
            Self::Anthropic | Self::Settled => UNKNOWN_OUTPUT,
        };
        let each = demand.max_output.map_or(unset, crate::units::Tokens::value);
        each.saturating_mul(u64::from(demand.choices.get()))
    }
}
