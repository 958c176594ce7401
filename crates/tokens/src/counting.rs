//! Which way a request's tokens are counted, for each platform and model.

use crate::encoding::Encoding;
use crate::image::ImageCost;

/// Whose limits are counted against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Platform {
    /// OpenAI and Azure OpenAI, whose limiters look at characters.
    OpenAi,
    /// Anthropic.
    Anthropic,
    /// Gemini and Vertex AI.
    Gemini,
    /// AWS Bedrock.
    Bedrock,
    /// Everybody else who charges real tokens: Groq, Mistral, OpenRouter, vLLM …
    Other,
}

/// How the tokens of a text are counted, and what stands around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counting {
    /// A quarter of the characters, rounded up: what OpenAI's and Azure's limiters charge (providers.md §2.3, §3.3),
    /// whatever the tokenizer says.
    Quarter,
    /// Real tokens: they are charged, and the tokenizer is public.
    Encoded(Encoding),
    /// Bytes in UTF-8 over a ratio: real tokens are charged, and the tokenizer is not public. Bytes rather than
    /// characters, because three bytes of Chinese are a token or so and three letters of English are less than one.
    /// What the ratio misses is learned from reported usage.
    Bytes(Ratio),
}

/// Bytes of text for ten tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ratio(u8);

impl Ratio {
    /// Claude before 4.7: 3.5 (commonly known, providers.md §14).
    pub const CLAUDE: Self = Self(35);
    /// Claude 4.7 and newer, about 30 % more tokens: 2.7 (providers.md §14).
    pub const CLAUDE_NEW: Self = Self(27);
    /// Gemini: 4 (providers.md §14).
    pub const GEMINI: Self = Self(40);
    /// Amazon's Nova: 3 (providers.md §14), and what is taken where nothing is known.
    pub const CAUTIOUS: Self = Self(30);

    /// Returns the tokens of so many bytes, rounded up.
    pub fn tokens(self, bytes: u64) -> u64 {
        bytes.saturating_mul(10).div_ceil(u64::from(self.0))
    }
}

impl Counting {
    /// Returns how a platform's charge for a model is counted.
    pub fn of(platform: Platform, model: &str) -> Self {
        match platform {
            Platform::OpenAi => Self::Quarter,
            Platform::Anthropic => Self::Bytes(claude_ratio(model)),
            Platform::Gemini if model.contains("claude") => Self::Bytes(claude_ratio(model)),
            Platform::Gemini => Self::Bytes(Ratio::GEMINI),
            Platform::Bedrock | Platform::Other => match Encoding::for_model(model) {
                Some(encoding) => Self::Encoded(encoding),
                None if model.contains("claude") => Self::Bytes(claude_ratio(model)),
                None if model.contains("gemini") => Self::Bytes(Ratio::GEMINI),
                None => Self::Bytes(Ratio::CAUTIOUS),
            },
        }
    }

    /// Returns what images cost on a platform.
    pub fn image_cost(platform: Platform, model: &str) -> ImageCost {
        if model.contains("claude") || platform == Platform::Anthropic {
            ImageCost::claude(claude_ratio(model) == Ratio::CLAUDE_NEW)
        } else if model.contains("gemini") || platform == Platform::Gemini {
            ImageCost::gemini(model)
        } else {
            ImageCost::openai(model)
        }
    }
}

/// Models of Claude whose tokenizer is the one before 4.7; what is unknown is taken for newer, which counts more.
fn claude_ratio(model: &str) -> Ratio {
    const OLDER: &[&str] = &[
        "claude-2",
        "claude-3",
        "claude-instant",
        "opus-4-0",
        "opus-4-1",
        "opus-4-2",
        "opus-4-5",
        "opus-4-6",
        "sonnet-4",
        "haiku-3",
        "haiku-4",
    ];
    if OLDER.iter().any(|name| model.contains(name)) {
        Ratio::CLAUDE
    } else {
        Ratio::CLAUDE_NEW
    }
}

/// The texts of a request, added up as they are visited. Nothing is kept of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextCount {
    counting: Counting,
    characters: u64,
    bytes: u64,
    tokens: u64,
}

impl TextCount {
    /// Starts with nothing.
    pub fn new(counting: Counting) -> Self {
        Self {
            counting,
            characters: 0,
            bytes: 0,
            tokens: 0,
        }
    }

    /// Adds a text.
    pub fn add(&mut self, text: &str) {
        match self.counting {
            Counting::Quarter => self.characters += text.chars().count() as u64,
            Counting::Encoded(encoding) => self.tokens += encoding.count(text),
            Counting::Bytes(_) => self.bytes += text.len() as u64,
        }
    }

    /// Adds tokens that come from elsewhere.
    pub fn add_tokens(&mut self, tokens: u64) {
        self.tokens = self.tokens.saturating_add(tokens);
    }

    /// Returns the tokens so far.
    pub fn tokens(&self) -> u64 {
        let counted = match self.counting {
            Counting::Quarter => self.characters.div_ceil(4),
            Counting::Encoded(_) => 0,
            Counting::Bytes(ratio) => ratio.tokens(self.bytes),
        };
        counted.saturating_add(self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_follows_what_is_charged() {
        let check =
            |platform, model, expected| assert_eq!(Counting::of(platform, model), expected, "{model}");
        check(Platform::OpenAi, "gpt-4o", Counting::Quarter);
        check(
            Platform::Other,
            "openai/gpt-oss-120b",
            Counting::Encoded(Encoding::O200k),
        );
        check(
            Platform::Bedrock,
            "openai.gpt-oss-20b-1:0",
            Counting::Encoded(Encoding::O200k),
        );
        check(
            Platform::Other,
            "openai/gpt-4-turbo",
            Counting::Encoded(Encoding::Cl100k),
        );
        check(
            Platform::Other,
            "llama-3.3-70b-versatile",
            Counting::Bytes(Ratio::CAUTIOUS),
        );
        check(
            Platform::Bedrock,
            "amazon.nova-pro-v1:0",
            Counting::Bytes(Ratio::CAUTIOUS),
        );
        check(Platform::Gemini, "gemini-2.5-pro", Counting::Bytes(Ratio::GEMINI));
        for model in [
            "claude-opus-4-7",
            "claude-opus-4-8",
            "claude-opus-5",
            "claude-sonnet-5",
            "claude-fable-5",
        ] {
            check(Platform::Anthropic, model, Counting::Bytes(Ratio::CLAUDE_NEW));
        }
        for model in [
            "claude-opus-4-6",
            "claude-sonnet-4-6",
            "claude-sonnet-4-20250514",
            "claude-haiku-4-5",
            "claude-3-5-haiku",
        ] {
            check(Platform::Anthropic, model, Counting::Bytes(Ratio::CLAUDE));
        }
        check(
            Platform::Bedrock,
            "us.anthropic.claude-opus-4-8-v1:0",
            Counting::Bytes(Ratio::CLAUDE_NEW),
        );
    }

    #[test]
    fn texts_add_up() {
        let total = |counting| {
            let mut count = TextCount::new(counting);
            count.add("Who is ");
            count.add("Joseph Conrad?");
            count.add_tokens(100);
            count.tokens()
        };
        assert_eq!(total(Counting::Quarter), 106);
        assert_eq!(total(Counting::Encoded(Encoding::O200k)), 106);
        assert_eq!(total(Counting::Bytes(Ratio::CLAUDE)), 106);
    }
}
