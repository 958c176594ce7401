use super::Weights;

/// The output that is reserved when a request names no maximum (providers.md §2.3).
const DEFAULT_OUTPUT: u64 = 16;

/// Tokens that frame one message (providers.md §14).
const MESSAGE_TOKENS: u64 = 3;

/// What a provider sees of a request before it runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// Unicode scalar values in all its texts.
    pub characters: u64,
    /// Messages; 0 for embeddings and plain prompts.
    pub messages: u64,
    /// The most output tokens it may produce, each choice; `None` if it does not say.
    pub max_output: Option<u64>,
    /// How many answers it asks for (`n`, `best_of`); 0 for a request that generates nothing.
    pub choices: u64,
}

impl Demand {
    /// Returns the weights that are charged before the request runs: a quarter of the characters, rounded up, three
    /// for each message, and the most output that it may produce (16 if it does not say).
    pub fn estimate(&self) -> Weights {
        let input = self
            .characters
            .div_ceil(4)
            .saturating_add(self.messages.saturating_mul(MESSAGE_TOKENS));
        let output = self
            .max_output
            .unwrap_or(DEFAULT_OUTPUT)
            .saturating_mul(self.choices);
        Weights::request(input, output)
    }
}
