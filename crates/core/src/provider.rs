//! How each provider speaks about its limits: header codecs and the classification of refusals.
//!
//! Everything here is a pure function from text to values; which limits follow from it is the engine's business.

mod anthropic;
mod json;
mod openai;
#[cfg(test)]
#[allow(clippy::too_many_lines, reason = "tables of samples are long")]
mod tests;
mod text;
mod wait;

use core::time::Duration;

use crate::signal::{Readings, Verdict};
use crate::time::Timestamp;

/// The largest part of an error body that is looked at.
pub const ERROR_BODY_MAX: usize = 16 * 1024;

/// The dialect in which a provider speaks about limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// OpenAI and everything that imitates it without a dialect of its own.
    OpenAi,
    /// Azure OpenAI.
    Azure,
    /// Anthropic.
    Anthropic,
    /// Gemini (AI Studio) and Vertex AI.
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
    /// AWS Bedrock.
    Bedrock,
}

/// Response headers, as far as they are text. Names are lower case.
pub trait Headers {
    /// Returns the first value of the header called `name`, if it is visible text.
    fn text(&self, name: &str) -> Option<&str>;
}

impl Dialect {
    /// Reads what the headers of a response say about limits. Unreadable values count as absent.
    pub fn readings(self, now: Timestamp, headers: &impl Headers) -> Readings {
        match self {
            Self::OpenAi
            | Self::Azure
            | Self::Gemini
            | Self::Groq
            | Self::Mistral
            | Self::OpenRouter
            | Self::DeepSeek
            | Self::Cohere
            | Self::Bedrock => openai::readings(headers),
            Self::Anthropic => anthropic::readings(now, headers),
        }
    }

    /// Tells what an answer with this status, these headers and (the first [`ERROR_BODY_MAX`] bytes of) this body means.
    pub fn classify(self, now: Timestamp, status: u16, headers: &impl Headers, body: &[u8]) -> Verdict {
        match self {
            Self::OpenAi
            | Self::Azure
            | Self::Gemini
            | Self::Groq
            | Self::Mistral
            | Self::OpenRouter
            | Self::DeepSeek
            | Self::Cohere
            | Self::Bedrock => openai::classify(now, status, headers, body),
            Self::Anthropic => anthropic::classify(now, status, headers, body),
        }
    }

    /// Returns the time the provider says it spent on the request before answering.
    pub fn processing(self, headers: &impl Headers) -> Option<Duration> {
        match self {
            Self::OpenAi => headers.text("openai-processing-ms").and_then(text::milliseconds),
            _ => None,
        }
    }
}

/// Tells what a status means that needs neither headers nor body.
fn plain_verdict(status: u16) -> Verdict {
    match status {
        ..=399 => Verdict::Success,
        // "Not implemented" and "version not supported" stay true however often one asks.
        408 | 500 | 502 | 504 | 506..=599 => Verdict::Transient,
        _ => Verdict::ClientError,
    }
}
