//! Groq's headers and refusals: OpenAI's words, with fixed windows and a status of its own (providers.md §8).

use super::json::ErrorFields;
use super::openai::{self, REQUESTS, TOKENS, span};
use super::reading::{self, DAY, MINUTE};
use super::{Headers, message, wait};
use crate::signal::{Cause, RateLimited, Reading, Readings, Verdict};
use crate::time::Timestamp;
use crate::units::Dimension;

/// Reads the limits on requests per day and tokens per minute; those on requests per minute and tokens per day show in
/// no header.
pub(super) fn readings(headers: &impl Headers) -> Readings {
    let mut readings = Readings::default();
    for (dimension, names, window) in [
        (Dimension::Requests, &REQUESTS, DAY),
        (Dimension::Tokens, &TOKENS, MINUTE),
    ] {
        if let Some(reading) = reading::read(headers, names, span) {
            let window = Some(window);
            readings.push(dimension, Reading { window, ..reading });
        }
    }
    readings
}

pub(super) fn classify(now: Timestamp, status: u16, headers: &impl Headers, error: &ErrorFields) -> Verdict {
    match status {
        // The request alone is larger than a limit; other 413s are about bytes.
        413 if error.code == "rate_limit_exceeded" => Verdict::TooLarge(message::limited(error)),
        // The flex tier has no capacity.
        498 => Verdict::RateLimited(RateLimited {
            cause: Cause::Congestion,
            retry_after: wait::stated(now, headers, error),
            ..RateLimited::default()
        }),
        _ => openai::classify(now, status, headers, error),
    }
}
