//! What the gateway knows of each provider: paths, authentication, bodies, usage, errors.
//!
//! Everything here is a pure function or a small state machine over bytes; nothing here does IO or knows a limit.

mod anthropic;
mod auth;
mod aws_events;
mod endpoint;
mod facts;
mod fault;
mod openai;
mod output;
mod reply;
mod sse;
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
use tidegate_core::ChargeModel;
use tidegate_core::provider::Dialect;

pub use auth::AuthStyle;
pub use endpoint::{Endpoint, Shape};
pub use facts::{BadBody, RequestFacts};
pub use fault::StreamFault;
pub use reply::ErrorReply;
pub use tap::ResponseTap;
pub use usage_option::ensure_usage;

/// A provider of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename_all = "lowercase")]
pub enum Provider {
    /// OpenAI.
    OpenAi,
    /// Anthropic.
    Anthropic,
    /// Anything that speaks OpenAI's API: vLLM, Ollama, Mistral, OpenRouter, DeepSeek, together …
    Compatible,
}

/// What distinguishes a provider from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// The provider.
    pub provider: Provider,
    /// Where its API lives when the configuration does not say; `None` where it has to.
    pub base_url: Option<&'static str>,
    /// How its headers and refusals are read.
    pub dialect: Dialect,
    /// How it charges requests.
    pub charge: ChargeModel,
    /// Where it expects the API key.
    pub auth: AuthStyle,
    /// The shape of its errors.
    pub shape: Shape,
    /// Whether usage has to be asked for in streams (`stream_options.include_usage`).
    pub stream_usage_optional: bool,
}

impl Provider {
    /// Every provider that can be configured.
    pub const ALL: [Self; 3] = [Self::OpenAi, Self::Anthropic, Self::Compatible];

    /// Returns the name used in configuration, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Compatible => "compatible",
        }
    }

    /// Returns what distinguishes the provider.
    pub const fn profile(self) -> &'static Profile {
        match self {
            Self::OpenAi => &openai::PROFILE,
            Self::Anthropic => &anthropic::PROFILE,
            Self::Compatible => &openai::COMPATIBLE,
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name in the configuration that is not a provider's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownProvider {
    /// A provider that is planned, but has no rules yet.
    #[error(
        "provider `{name}` has no rules of its own yet; where it offers an OpenAI-compatible API, \
         use provider = \"compatible\" with its base_url"
    )]
    Planned {
        /// The provider's name.
        name: &'static str,
    },
    /// Nothing that is known.
    #[error("unknown provider `{name}`: expected one of openai, anthropic, compatible")]
    Unknown {
        /// The name as given, cut to a readable length.
        name: String,
    },
}

/// Providers that have a name in the configuration, but no rules yet.
const PLANNED: [&str; 6] = ["azure", "gemini", "groq", "mistral", "openrouter", "bedrock"];

impl FromStr for Provider {
    type Err = UnknownProvider;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(provider) = Self::ALL.into_iter().find(|provider| provider.name() == text) {
            return Ok(provider);
        }
        Err(match PLANNED.into_iter().find(|name| *name == text) {
            Some(name) => UnknownProvider::Planned { name },
            None => UnknownProvider::Unknown {
                name: text.chars().take(64).collect(),
            },
        })
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
        for (name, expect) in [
            ("openai", Ok(Provider::OpenAi)),
            ("anthropic", Ok(Provider::Anthropic)),
            ("compatible", Ok(Provider::Compatible)),
            (
                "azure",
                Err(
                    "provider `azure` has no rules of its own yet; where it offers an OpenAI-compatible API, \
                     use provider = \"compatible\" with its base_url",
                ),
            ),
            (
                "OpenAI",
                Err("unknown provider `OpenAI`: expected one of openai, anthropic, compatible"),
            ),
            (
                "",
                Err("unknown provider ``: expected one of openai, anthropic, compatible"),
            ),
        ] {
            let parsed = name.parse::<Provider>().map_err(|error| error.to_string());
            assert_eq!(parsed, expect.map_err(str::to_owned), "{name}");
            let json = serde_json::to_string(name).unwrap();
            let read = serde_json::from_str::<Provider>(&json);
            assert_eq!(read.ok(), expect.ok(), "{name}");
        }
    }

    #[test]
    fn profiles_belong_to_their_providers() {
        for provider in Provider::ALL {
            assert_eq!(provider.profile().provider, provider);
            assert_eq!(serde_json::to_value(provider).unwrap(), provider.name());
            let has_home = provider.profile().base_url.is_some();
            assert_eq!(has_home, provider != Provider::Compatible);
        }
    }
}
