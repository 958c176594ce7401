use super::Weights;

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
    /// Texts or images that are counted one by one where a provider limits inputs; 0 and 1 are the same.
    pub inputs: u64,
    /// Images that it asks for.
    pub images: u64,
    /// Seconds of audio that it brings.
    pub audio_seconds: u64,
}

impl Demand {
    /// Returns the weights of a request for which `unset` tokens of output are reserved if it names no maximum.
    pub(super) fn estimate_with(&self, unset: u64) -> Weights {
        let input = self
            .characters
            .div_ceil(4)
            .saturating_add(self.messages.saturating_mul(MESSAGE_TOKENS));
        let output = self.max_output.unwrap_or(unset).saturating_mul(self.choices);
        Weights {
            inputs: self.inputs.max(1),
            images: self.images,
            audio_seconds: self.audio_seconds,
            slots: self.choices.max(1),
            ..Weights::request(input, output)
        }
    }
}
