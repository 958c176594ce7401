//! AWS Bedrock's refusals: exceptions named by a header, with neither numbers nor waits (providers.md §6).

use super::json::ErrorFields;
use super::{Headers, openai, text, wait};
use crate::signal::{RateLimited, Verdict};
use crate::time::Timestamp;
use crate::units::Dimension;

pub(super) fn classify(now: Timestamp, status: u16, headers: &impl Headers, error: &ErrorFields) -> Verdict {
    let named = headers.text("x-amzn-errortype").unwrap_or(&error.exception);
    match exception(named) {
        "ThrottlingException" => throttled(now, headers, error),
        "ModelNotReadyException" | "ServiceUnavailableException" => Verdict::Overloaded {
            retry_after: wait::stated(now, headers, error),
        },
        _ if status == 429 && text::contains(&error.message, "too many ") => throttled(now, headers, error),
        // The endpoint that is compatible with OpenAI speaks as OpenAI does.
        _ => openai::classify(now, status, headers, error),
    }
}

/// Returns the bare name of an exception, which may stand between a namespace and a source:
/// `com.amazon.bedrock#ThrottlingException`, `ThrottlingException:http://internal.amazon.com/…`.
fn exception(name: &str) -> &str {
    let name = name.split_once(':').map_or(name, |(name, _)| name);
    name.rsplit_once('#').map_or(name, |(_, name)| name).trim()
}

fn throttled(now: Timestamp, headers: &impl Headers, error: &ErrorFields) -> Verdict {
    let says = |words| text::contains(&error.message, words);
    if says("per day") {
        // When the day ends is not said.
        return Verdict::QuotaSpent { until: None };
    }
    let dimension = if says("too many tokens") {
        Some(Dimension::Tokens)
    } else if says("too many requests") {
        Some(Dimension::Requests)
    } else {
        None
    };
    Verdict::RateLimited(RateLimited {
        dimension,
        retry_after: wait::stated(now, headers, error),
        ..RateLimited::default()
    })
}
