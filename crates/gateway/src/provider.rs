//! What the gateway knows of each provider: paths, authentication, bodies, usage, errors.
//!
//! Everything here is a pure function or a small state machine over bytes; nothing here does IO or knows a limit.

mod anthropic;
mod auth;
mod aws_events;
mod azure;
mod bad_body;
mod bedrock;
mod cohere;
mod deepseek;
mod edit;
mod endpoint;
mod facts;
mod fault;
mod fields;
mod form;
mod gemini;
mod groq;
mod input;
mod mistral;
mod openai;
mod openrouter;
mod operation;
mod output;
mod profile;
mod reply;
mod root;
mod sse;
mod step;
mod stream;
mod tally;
mod tap;
mod usage;
mod usage_option;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

pub use auth::AuthStyle;
pub use bad_body::BadBody;
pub use endpoint::{Api, Endpoint, Scope, Shape};
pub use facts::{Edited, RequestFacts, Wishes};
pub use fault::StreamFault;
pub use operation::Operation;
pub use profile::{Profile, Slice};
pub(crate) use reply::dollars;
pub use reply::{Asker, ErrorReply, error_event, in_short};
pub use root::Root;
pub use step::fingerprint;
pub use tap::ResponseTap;

/// A provider of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename_all = "lowercase")]
pub enum Provider {
    /// OpenAI.
    OpenAi,
    /// Azure OpenAI.
    Azure,
    /// Anthropic.
    Anthropic,
    /// Gemini by an API key (AI Studio).
    Gemini,
    /// Models of Google Cloud, by bearer tokens.
    Vertex,
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
    /// AWS Bedrock's runtime, by its API keys.
    Bedrock,
    /// AWS Bedrock's `bedrock-mantle`.
    #[serde(rename = "bedrock-mantle")]
    #[schemars(rename = "bedrock-mantle")]
    BedrockMantle,
    /// Anything else that speaks OpenAI's API: vLLM, Ollama, llama.cpp, together …
    Compatible,
}

impl Provider {
    /// Every provider that can be configured.
    pub const ALL: [Self; 13] = [
        Self::OpenAi,
        Self::Azure,
        Self::Anthropic,
        Self::Gemini,
        Self::Vertex,
        Self::Groq,
        Self::Mistral,
        Self::OpenRouter,
        Self::DeepSeek,
        Self::Cohere,
        Self::Bedrock,
        Self::BedrockMantle,
        Self::Compatible,
    ];

    /// Returns the name used in configuration, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Azure => "azure",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Vertex => "vertex",
            Self::Groq => "groq",
            Self::Mistral => "mistral",
            Self::OpenRouter => "openrouter",
            Self::DeepSeek => "deepseek",
            Self::Cohere => "cohere",
            Self::Bedrock => "bedrock",
            Self::BedrockMantle => "bedrock-mantle",
            Self::Compatible => "compatible",
        }
    }

    /// Returns what distinguishes the provider.
    pub const fn profile(self) -> &'static Profile {
        match self {
            Self::OpenAi => &openai::PROFILE,
            Self::Azure => &azure::PROFILE,
            Self::Anthropic => &anthropic::PROFILE,
            Self::Gemini => &gemini::PROFILE,
            Self::Vertex => &gemini::VERTEX,
            Self::Groq => &groq::PROFILE,
            Self::Mistral => &mistral::PROFILE,
            Self::OpenRouter => &openrouter::PROFILE,
            Self::DeepSeek => &deepseek::PROFILE,
            Self::Cohere => &cohere::PROFILE,
            Self::Bedrock => &bedrock::PROFILE,
            Self::BedrockMantle => &bedrock::MANTLE,
            Self::Compatible => &openai::COMPATIBLE,
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name in the configuration that is not a provider's; cut to a readable length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown provider `{0}`: expected one of {names}", names = Provider::ALL.map(Provider::name).join(", "))]
pub struct UnknownProvider(String);

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|provider| provider.name() == text)
            .ok_or_else(|| UnknownProvider(text.chars().take(64).collect()))
    }
}

impl<'de> Deserialize<'de> for Provider {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        for provider in Provider::ALL {
            let name = provider.name();
            assert_eq!(name.parse(), Ok(provider));
            assert_eq!(provider.profile().provider, provider);
            assert_eq!(serde_json::to_value(provider).unwrap(), name);
            let read: Provider = serde_json::from_str(&format!("\"{name}\"")).unwrap();
            assert_eq!(read, provider);
        }
        for name in ["OpenAI", "", "gpt"] {
            let error = name.parse::<Provider>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!(
                    "unknown provider `{name}`: expected one of openai, azure"
                )),
                "{error}"
            );
            assert!(serde_json::from_str::<Provider>(&format!("\"{name}\"")).is_err());
        }
    }

    #[test]
    fn addresses_are_known_where_everybody_has_the_same() {
        let own: Vec<_> = Provider::ALL
            .into_iter()
            .filter(|provider| provider.profile().base_url.is_none())
            .collect();
        assert_eq!(
            own,
            [
                Provider::Azure,
                Provider::Vertex,
                Provider::Bedrock,
                Provider::BedrockMantle,
                Provider::Compatible
            ]
        );
        for provider in Provider::ALL {
            let profile = provider.profile();
            assert!(profile.base_url_example.starts_with("http"), "{provider}");
            let speaks_openai = profile.speaks(Api::OpenAi);
            let has_home = profile
                .openai_roots
                .first()
                .is_some_and(|root| root.text().is_some());
            assert_eq!(speaks_openai, has_home, "{provider}");
        }
    }
}
