use std::fmt;

/// Whose interface is spoken and whose ways are enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// OpenAI, and everybody compatible with it.
    OpenAi,
    /// Azure OpenAI (Foundry Models).
    Azure,
    /// Anthropic.
    Anthropic,
    /// Google's Gemini API (AI Studio).
    Gemini,
    /// Groq.
    Groq,
    /// Mistral.
    Mistral,
    /// OpenRouter.
    OpenRouter,
    /// DeepSeek.
    DeepSeek,
    /// Cohere.
    Cohere,
    /// AWS Bedrock: runtime and mantle.
    Bedrock,
    /// Google's Vertex AI.
    Vertex,
    /// vLLM on one's own machines.
    Vllm,
}

impl Provider {
    /// Every provider.
    pub const ALL: [Self; 12] = [
        Self::OpenAi,
        Self::Azure,
        Self::Anthropic,
        Self::Gemini,
        Self::Groq,
        Self::Mistral,
        Self::OpenRouter,
        Self::DeepSeek,
        Self::Cohere,
        Self::Bedrock,
        Self::Vertex,
        Self::Vllm,
    ];

    /// Returns the name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Azure => "azure",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Groq => "groq",
            Self::Mistral => "mistral",
            Self::OpenRouter => "openrouter",
            Self::DeepSeek => "deepseek",
            Self::Cohere => "cohere",
            Self::Bedrock => "bedrock",
            Self::Vertex => "vertex",
            Self::Vllm => "vllm",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
