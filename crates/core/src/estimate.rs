//! Input tokens estimated from the shape of a text, as providers' own limiters do it.

use crate::units::Tokens;

/// What a request's text looks like, without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TextShape {
    /// Unicode scalar values in all texts of the request.
    pub characters: u64,
    /// Messages (chat), inputs (embeddings) or prompts (completions).
    pub messages: u64,
    /// Images, audio clips and files.
    pub attachments: u64,
}

/// Tokens counted for one image, audio clip or file when nothing better is known: OpenAI's high-detail image of four
/// 512-pixel tiles, 85 + 4 × 170 (providers.md §14).
const ATTACHMENT_TOKENS: u64 = 765;

impl TextShape {
    /// Estimates tokens as OpenAI's limiter does: a quarter of the characters, rounded up, and four a message.
    ///
    /// The three admission charges that were ever observed (7, 6 and 10 tokens for 21, 13 and 25 characters in one
    /// message) are never above it: 10, 8 and 11 (providers.md §2.3).
    pub fn openai_tokens(&self) -> Tokens {
        self.tokens_at(4, 1, 4)
    }

    /// Estimates tokens as embeddings are charged: a quarter of the characters, rounded up for each input.
    pub fn embedding_tokens(&self) -> Tokens {
        self.tokens_at(4, 1, 1)
    }

    /// Estimates tokens of Anthropic's newer tokenizer: 2.7 characters a token (providers.md §14), and eight a message.
    pub fn anthropic_tokens(&self) -> Tokens {
        self.tokens_at(27, 10, 8)
    }

    fn tokens_at(&self, characters: u64, per_tokens: u64, per_message: u64) -> Tokens {
        let text = self.characters.saturating_mul(per_tokens).div_ceil(characters);
        let frame = self.messages.saturating_mul(per_message);
        let attached = self.attachments.saturating_mul(ATTACHMENT_TOKENS);
        Tokens::new(text.saturating_add(frame).saturating_add(attached))
    }
}
