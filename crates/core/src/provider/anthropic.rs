//! Anthropic's headers and refusals (providers.md §4.4, §4.5).

use core::time::Duration;

use super::json::ErrorFields;
use super::reading::{self, MINUTE, Names};
use super::{Headers, message, text, wait};
use crate::calendar;
use crate::signal::{Cause, RateLimited, Reading, Readings, Verdict};
use crate::time::Timestamp;
use crate::units::{Amount, Dimension};

/// The step to which the remaining tokens are rounded in headers.
const TOKENS_ROUNDING: Amount = Amount::new(1_000);

/// Not read: `anthropic-priority-…` and `anthropic-fast-…`, which are pools of their own that the standard limits do not
/// know, and `anthropic-ratelimit-unified-…`, which tells of a subscription.
const LIMITS: [(Dimension, Names); 4] = [
    (
        Dimension::Requests,
        Names {
            limit: "anthropic-ratelimit-requests-limit",
            remaining: "anthropic-ratelimit-requests-remaining",
            reset: "anthropic-ratelimit-requests-reset",
        },
    ),
    (
        Dimension::InputTokens,
        Names {
            limit: "anthropic-ratelimit-input-tokens-limit",
            remaining: "anthropic-ratelimit-input-tokens-remaining",
            reset: "anthropic-ratelimit-input-tokens-reset",
        },
    ),
    (
        Dimension::OutputTokens,
        Names {
            limit: "anthropic-ratelimit-output-tokens-limit",
            remaining: "anthropic-ratelimit-output-tokens-remaining",
            reset: "anthropic-ratelimit-output-tokens-reset",
        },
    ),
    (
        Dimension::Tokens,
        Names {
            limit: "anthropic-ratelimit-tokens-limit",
            remaining: "anthropic-ratelimit-tokens-remaining",
            reset: "anthropic-ratelimit-tokens-reset",
        },
    ),
];

pub(super) fn readings(now: Timestamp, headers: &impl Headers) -> Readings {
    let mut readings = Readings::default();
    for (dimension, names) in &LIMITS {
        let Some(reading) = reading::read(headers, names, |value| text::until_rfc3339(now, value)) else {
            continue;
        };
        let is_sum = reading.limit.is_some() && reading.limit == sum_of_limits(&readings);
        if *dimension == Dimension::Tokens && is_sum {
            continue;
        }
        let rounding = match dimension {
            Dimension::Requests => Amount::ZERO,
            _ => TOKENS_ROUNDING,
        };
        let reading = Reading {
            rounding,
            window: Some(MINUTE),
            ..reading
        };
        readings.push(*dimension, reading);
    }
    readings
}

/// Without a workspace limit the header for all tokens only adds up the other two and is no limit of its own.
fn sum_of_limits(readings: &Readings) -> Option<Amount> {
    let limit = |dimension| readings.reading(dimension)?.limit;
    Some(limit(Dimension::InputTokens)? + limit(Dimension::OutputTokens)?)
}

pub(super) fn classify(now: Timestamp, status: u16, headers: &impl Headers, error: &ErrorFields) -> Verdict {
    match status {
        429 => refusal(now, headers, error),
        // A spend limit that the customer set.
        400 if text::contains(&error.message, "specified api usage limits") => {
            Verdict::QuotaSpent { until: None }
        }
        500..=599 if error.kind == "overloaded_error" => Verdict::Overloaded {
            retry_after: wait::in_headers(now, headers),
        },
        _ => super::plain_verdict(now, status, headers, error),
    }
}

/// Tells what a 429 means.
fn refusal(now: Timestamp, headers: &impl Headers, error: &ErrorFields) -> Verdict {
    let message = &error.message;
    let stated = wait::in_headers(now, headers);
    if error.detail == "enforced_spend_limit_reached"
        || (stated.is_none() && text::contains(message, "usage limits"))
    {
        // The month of the bill ends at midnight UTC.
        return Verdict::QuotaSpent {
            until: Some(calendar::next_month(now).since(now)),
        };
    }
    if headers.text("x-should-retry") == Some("false") {
        return Verdict::QuotaSpent { until: None };
    }
    if text::contains(message, "concurrent connections") {
        return Verdict::RateLimited(RateLimited {
            cause: Cause::Concurrency,
            dimension: Some(Dimension::Concurrency),
            retry_after: stated,
            ..RateLimited::default()
        });
    }
    let (dimension, limit) = named_limit(message);
    if limit == Some(Amount::ZERO) {
        return Verdict::QuotaSpent { until: None };
    }
    let limited = RateLimited {
        dimension,
        limit,
        named_window: dimension.map(|_| MINUTE),
        ..RateLimited::default()
    };
    if text::contains(message, "usage increase rate") || text::contains(message, "acceleration limit") {
        return Verdict::RateLimited(RateLimited {
            cause: Cause::Acceleration,
            next_limit: text::after(message, "will increase to ").and_then(message::amount),
            // The limit rises then; no header tells of it.
            retry_after: Some(stated.unwrap_or_else(|| until_minute(now))),
            ..limited
        });
    }
    Verdict::RateLimited(RateLimited {
        retry_after: stated.or_else(|| wait::until_reset(&readings(now, headers), dimension)),
        ..limited
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
