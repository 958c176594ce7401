//! Anthropic's headers and refusals (providers.md §4.4, §4.5).

use core::time::Duration;

use super::json::ErrorFields;
use super::{Headers, text, wait};
use crate::signal::{RateLimited, Reading, Readings, Verdict};
use crate::time::Timestamp;
use crate::units::{Amount, Dimension};

/// The step to which the remaining tokens are rounded in headers.
const TOKENS_ROUNDING: Amount = Amount::new(1_000);

pub(super) fn readings(now: Timestamp, headers: &impl Headers) -> Readings {
    let mut readings = Readings::default();
    let table = [
        (
            Dimension::Requests,
            "anthropic-ratelimit-requests-limit",
            "anthropic-ratelimit-requests-remaining",
            "anthropic-ratelimit-requests-reset",
        ),
        (
            Dimension::InputTokens,
            "anthropic-ratelimit-input-tokens-limit",
            "anthropic-ratelimit-input-tokens-remaining",
            "anthropic-ratelimit-input-tokens-reset",
        ),
        (
            Dimension::OutputTokens,
            "anthropic-ratelimit-output-tokens-limit",
            "anthropic-ratelimit-output-tokens-remaining",
            "anthropic-ratelimit-output-tokens-reset",
        ),
        (
            Dimension::Tokens,
            "anthropic-ratelimit-tokens-limit",
            "anthropic-ratelimit-tokens-remaining",
            "anthropic-ratelimit-tokens-reset",
        ),
    ];
    for (dimension, limit, remaining, reset) in table {
        let amount = |name| headers.text(name).and_then(text::integer).map(Amount::new);
        let (limit, remaining) = (amount(limit), amount(remaining));
        if limit.is_none() && remaining.is_none() {
            continue;
        }
        if dimension == Dimension::Tokens && limit.is_some() && limit == sum_of_limits(&readings) {
            continue;
        }
        let reading = Reading {
            limit,
            remaining,
            reset: headers
                .text(reset)
                .and_then(|value| text::until_rfc3339(now, value)),
            rounding: if dimension == Dimension::Requests {
                Amount::ZERO
            } else {
                TOKENS_ROUNDING
            },
            ..Reading::default()
        };
        readings.push(dimension, reading);
    }
    readings
}

pub(super) fn classify(now: Timestamp, status: u16, headers: &impl Headers, body: &[u8]) -> Verdict {
    match status {
        429 => refusal(now, headers, &ErrorFields::read(body)),
        503 | 529 => Verdict::Overloaded {
            retry_after: wait::stated(now, headers, ""),
        },
        500..=599 if ErrorFields::read(body).kind == "overloaded_error" => Verdict::Overloaded {
            retry_after: wait::stated(now, headers, ""),
        },
        _ => super::plain_verdict(status),
    }
}

/// Without a workspace limit the header for all tokens only adds up the other two and is no limit of its own.
fn sum_of_limits(readings: &Readings) -> Option<Amount> {
    let limit = |dimension| readings.reading(dimension)?.limit;
    Some(limit(Dimension::InputTokens)? + limit(Dimension::OutputTokens)?)
}

/// Tells what a 429 means.
fn refusal(now: Timestamp, headers: &impl Headers, error: &ErrorFields) -> Verdict {
    let message = &error.message;
    let stated = wait::stated(now, headers, "");
    let spent = error.detail == "enforced_spend_limit_reached"
        || (stated.is_none() && text::contains(message, "usage limits"));
    if spent || headers.text("x-should-retry") == Some("false") {
        return Verdict::QuotaSpent { until: None };
    }
    if text::contains(message, "concurrent connections") {
        return Verdict::RateLimited(RateLimited {
            dimension: Some(Dimension::Concurrency),
            retry_after: stated,
            ..RateLimited::default()
        });
    }
    let (dimension, limit) = named_limit(message);
    if limit == Some(Amount::ZERO) {
        return Verdict::QuotaSpent { until: None };
    }
    let retry_after = if text::contains(message, "next minute boundary") {
        // The acceleration limit rises then (providers.md §4.5); no header tells of it.
        Some(stated.unwrap_or_else(|| until_minute(now)))
    } else {
        stated.or_else(|| wait::until_reset(&readings(now, headers), dimension))
    };
    Verdict::RateLimited(RateLimited {
        dimension,
        limit,
        retry_after,
        ..RateLimited::default()
    })
}

/// Reads `… rate limit of 30,000 input tokens per minute …`: what is limited, and to how much.
fn named_limit(message: &str) -> (Option<Dimension>, Option<Amount>) {
    let mut named = None;
    for (words, dimension) in [
        (" input tokens per minute", Dimension::InputTokens),
        (" output tokens per minute", Dimension::OutputTokens),
        (" requests per minute", Dimension::Requests),
        (" tokens per minute", Dimension::Tokens),
    ] {
        for (at, _) in message.match_indices(words) {
            if let Some(limit) = text::trailing_integer(&message[..at]) {
                return (Some(dimension), Some(Amount::new(limit)));
            }
            named = named.or(Some(dimension));
        }
    }
    (named, None)
}

/// Returns the time until the next whole minute of the clock.
fn until_minute(now: Timestamp) -> Duration {
    const MINUTE_MICROS: u64 = 60_000_000;
    Duration::from_micros(MINUTE_MICROS - now.as_micros() % MINUTE_MICROS)
}
