//! How each provider speaks about its limits: header codecs and the classification of refusals.
//!
//! Everything here is a pure function from text to values; which limits follow from it is the engine's business.
//!
//! # Seven different things
//!
//! A provider that does not serve a request may mean any of seven things, and each asks for something else. Numbers in
//! brackets are sections of providers.md.
//!
//! | | Meaning | [`Verdict`] |
//! |---|---|---|
//! | rate | a limit over a window is in use | `RateLimited`, [`Cause::Rate`](crate::Cause::Rate) |
//! | quota spent | credits, a spend limit, a plan without the model, a day's allowance | `QuotaSpent`, with the time to its return if known |
//! | too large | the request alone exceeds a limit | `TooLarge`, with the numbers if known |
//! | overload | the provider is short of capacity; nobody need use less of it | `Overloaded` |
//! | acceleration | use grew faster than allowed | `RateLimited`, [`Cause::Acceleration`](crate::Cause::Acceleration) |
//! | concurrency | too many requests are in flight | `RateLimited`, [`Cause::Concurrency`](crate::Cause::Concurrency) |
//! | congestion | shared capacity is short, and less of it must be used | `RateLimited`, [`Cause::Congestion`](crate::Cause::Congestion) |
//!
//! | Dialect | Rate | Quota spent | Too large | Overload | Acceleration, concurrency | Congestion |
//! |---|---|---|---|---|---|---|
//! | OpenAI (2.5) | 429 "Rate limit reached … Limit, Used, Requested" | 429 `insufficient_quota`, `billing_…`; `Limit 0`; 402 | 429 "Request too large", Requested > Limit | 503, 529; 429 `resource_unavailable` (flex) | – | 503 `slow_down` |
//! | Azure (3.5) | 429 with a wait below an hour | as OpenAI; 429 "call rate limit" with a wait of an hour or more | 429 "token rate limit", or no dimension, with such a wait | 503; 429 "temporarily unable", "high demand" | – | 503 `slow_down` |
//! | Anthropic (4.5) | 429 `rate_limit_error` | 429 `enforced_spend_limit_reached`; 402; 400 "usage limits" | – | 529, 503, `overloaded_error` | 429 "maximum usage increase rate"; 429 "concurrent connections" | – |
//! | Gemini, Vertex (5.1, 5.2) | 429 with a quota per minute; "Quota exceeded for …"; "Provisioned Throughput" | 429 with a quota `PerDay`: until midnight Pacific; `limit: 0` | – | 503 `UNAVAILABLE` | – | 429 "Resource exhausted" without details |
//! | Groq (8) | as OpenAI | as OpenAI | 413 `rate_limit_exceeded`, and as OpenAI | 503 | – | 498 |
//! | Mistral (7) | 429 | 429 with `x-ratelimit-limit-req-minute: 0`; 402 | – | 503 | – | 429 "Service tier capacity exceeded", `3505` |
//! | OpenRouter (11) | 429 `free-models-per-min` | 429 `free-models-per-day`; 402 | – | 503 | – | 429 "Provider returned error" |
//! | DeepSeek (10) | – | 402 | – | 503 | every 429: concurrency | – |
//! | Cohere (9) | 429 | 429 "… / month"; 402 | – | 503 | – | – |
//! | Bedrock (6) | 429 `ThrottlingException` | "Too many tokens per day" | as OpenAI, on its compatible endpoint | `ServiceUnavailableException`, `ModelNotReadyException`, 503 | – | – |
//!
//! What imitates OpenAI without a dialect of its own (vLLM's 503 of a full queue included, 12) is read as OpenAI.
//!
//! # Errors under a success's status
//!
//! A refusal may come after HTTP 200: as an event of a stream, or (OpenRouter) as the whole body. [`named_status`] tells
//! the status it would have had; with that, [`Dialect::classify`] reads it like any other, wrapped as `{"error": …}`.

mod anthropic;
mod azure;
mod bedrock;
mod cohere;
mod deepseek;
mod gemini;
mod groq;
mod json;
mod message;
mod mistral;
mod openai;
mod openrouter;
mod reading;
#[cfg(test)]
mod tests;
mod text;
mod wait;

use core::time::Duration;

use crate::signal::{Readings, Verdict};
use crate::time::Timestamp;
use json::ErrorFields;

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
    /// Every dialect.
    pub const ALL: [Self; 10] = [
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
    ];

    /// Reads what the headers of a response say about limits. Unreadable values count as absent.
    pub fn readings(self, now: Timestamp, headers: &impl Headers) -> Readings {
        match self {
            Self::OpenAi => openai::readings(headers),
            Self::Azure => azure::readings(headers),
            Self::Anthropic => anthropic::readings(now, headers),
            Self::Groq => groq::readings(headers),
            Self::Mistral => mistral::readings(headers),
            Self::OpenRouter => openrouter::readings(now, headers),
            // They send no rate headers (providers.md §5.1, §6, §9, §10).
            Self::Gemini | Self::DeepSeek | Self::Cohere | Self::Bedrock => Readings::default(),
        }
    }

    /// Tells what an answer with this status, these headers and (the first [`ERROR_BODY_MAX`] bytes of) this body means.
    pub fn classify(self, now: Timestamp, status: u16, headers: &impl Headers, body: &[u8]) -> Verdict {
        if status < 400 {
            return Verdict::Success;
        }
        let error = &ErrorFields::read(&body[..body.len().min(ERROR_BODY_MAX)]);
        match self {
            Self::OpenAi => openai::classify(now, status, headers, error),
            Self::Azure => azure::classify(now, status, headers, error),
            Self::Anthropic => anthropic::classify(now, status, headers, error),
            Self::Gemini => gemini::classify(now, status, headers, error),
            Self::Groq => groq::classify(now, status, headers, error),
            Self::Mistral => mistral::classify(now, status, headers, error),
            Self::OpenRouter => openrouter::classify(now, status, headers, error),
            Self::DeepSeek => deepseek::classify(now, status, headers, error),
            Self::Cohere => cohere::classify(now, status, headers, error),
            Self::Bedrock => bedrock::classify(now, status, headers, error),
        }
    }

    /// Returns the time the provider says it spent on the request before answering.
    pub fn processing(self, headers: &impl Headers) -> Option<Duration> {
        match self {
            Self::OpenAi | Self::Azure => headers.text("openai-processing-ms").and_then(text::milliseconds),
            _ => None,
        }
    }
}

/// Returns the status that goes with a provider's name for an error (its `code`, `type`, `status` or exception), which is
/// all that tells it where the error comes after the head of an answer (providers.md §2.5, §4.5, §5.1, §6). An unknown
/// name is best taken for a fault of the server: a client's mistakes are found before an answer begins.
pub fn named_status(name: &str) -> Option<u16> {
    Some(match name {
        "rate_limit_exceeded"
        | "rate_limit_error"
        | "rate_limited"
        | "insufficient_quota"
        | "resource_unavailable"
        | "RESOURCE_EXHAUSTED"
        | "ThrottlingException"
        | "throttlingException" => 429,
        "slow_down" | "server_is_overloaded" | "UNAVAILABLE" | "serviceUnavailableException" => 503,
        "overloaded_error" => 529,
        "timeout_error" | "DEADLINE_EXCEEDED" | "modelTimeoutException" => 504,
        "invalid_request_error" | "invalid_prompt" | "INVALID_ARGUMENT" | "validationException" => 400,
        "authentication_error" | "UNAUTHENTICATED" => 401,
        "billing_error" => 402,
        "permission_error" | "PERMISSION_DENIED" => 403,
        "not_found_error" | "NOT_FOUND" => 404,
        "request_too_large" => 413,
        _ => return None,
    })
}

/// Tells what a status means that is no provider's own way to refuse.
fn plain_verdict(now: Timestamp, status: u16, headers: &impl Headers, error: &ErrorFields) -> Verdict {
    match status {
        ..=399 => Verdict::Success,
        // Payment required.
        402 => Verdict::QuotaSpent { until: None },
        503 | 529 => Verdict::Overloaded {
            retry_after: wait::stated(now, headers, error),
        },
        // "Not implemented" and "version not supported" stay true however often one asks.
        408 | 500 | 502 | 504 | 506..=599 => Verdict::Transient,
        _ => Verdict::ClientError,
    }
}
