//! Mistral's headers and refusals (providers.md §7).

use core::time::Duration;

use super::json::ErrorFields;
use super::openai::span;
use super::reading::{self, MINUTE, MONTH, Names, SECOND};
use super::{Headers, message, plain_verdict, text, wait};
use crate::signal::{Cause, RateLimited, Reading, Readings, Verdict};
use crate::time::Timestamp;
use crate::units::{Amount, Dimension};

const REQUESTS_A_MINUTE: Names = Names {
    limit: "x-ratelimit-limit-req-minute",
    remaining: "x-ratelimit-remaining-req-minute",
    reset: "x-ratelimit-reset-req-minute",
};

/// The limits; the tightest windows first, since there is room for only so many.
const LIMITS: [(Dimension, Duration, Names); 5] = [
    (
        Dimension::Requests,
        SECOND,
        Names {
            limit: "x-ratelimit-limit-req-second",
            remaining: "x-ratelimit-remaining-req-second",
            reset: "x-ratelimit-reset-req-second",
        },
    ),
    (Dimension::Requests, MINUTE, REQUESTS_A_MINUTE),
    (
        Dimension::Tokens,
        MINUTE,
        Names {
            limit: "x-ratelimit-limit-tokens-minute",
            remaining: "x-ratelimit-remaining-tokens-minute",
            reset: "x-ratelimit-reset-tokens-minute",
        },
    ),
    (
        Dimension::Requests,
        MONTH,
        Names {
            limit: "x-ratelimit-limit-req-month",
            remaining: "x-ratelimit-remaining-req-month",
            reset: "x-ratelimit-reset-req-month",
        },
    ),
    (
        Dimension::Tokens,
        MONTH,
        Names {
            limit: "x-ratelimit-limit-tokens-month",
            remaining: "x-ratelimit-remaining-tokens-month",
            reset: "x-ratelimit-reset-tokens-month",
        },
    ),
];

pub(super) fn readings(headers: &impl Headers) -> Readings {
    let mut readings = Readings::default();
    readings.cost = headers
        .text("x-ratelimit-tokens-query-cost")
        .and_then(text::integer)
        .map(Amount::new);
    for (dimension, window, names) in &LIMITS {
        if let Some(reading) = reading::read(headers, names, span) {
            let window = Some(*window);
            readings.push(*dimension, Reading { window, ..reading });
        }
    }
    readings
}

pub(super) fn classify(now: Timestamp, status: u16, headers: &impl Headers, error: &ErrorFields) -> Verdict {
    if status != 429 {
        return plain_verdict(now, status, headers, error);
    }
    // The model is not on the plan.
    if headers.text(REQUESTS_A_MINUTE.limit).and_then(text::integer) == Some(0) {
        return Verdict::QuotaSpent { until: None };
    }
    let retry_after = wait::stated(now, headers, error);
    if error.code == "3505" || text::contains(&error.message, "service tier capacity exceeded") {
        return Verdict::RateLimited(RateLimited {
            cause: Cause::Congestion,
            retry_after,
            ..RateLimited::default()
        });
    }
    let readings = readings(headers);
    let limited = blamed(message::limited(error), &readings);
    Verdict::RateLimited(RateLimited {
        retry_after: retry_after.or_else(|| wait::until_reset(&readings, limited.dimension)),
        ..limited
    })
}

/// Names the limit that has nothing left, where the message names none and there is just one.
fn blamed(limited: RateLimited, readings: &Readings) -> RateLimited {
    let mut empty = readings.iter().filter(|(dimension, reading)| {
        reading.remaining == Some(Amount::ZERO) && limited.dimension.is_none_or(|own| own == *dimension)
    });
    let (Some((dimension, reading)), None) = (empty.next(), empty.next()) else {
        return limited;
    };
    RateLimited {
        dimension: Some(dimension),
        named_window: limited.named_window.or(reading.window),
        limit: limited.limit.or(reading.limit),
        ..limited
    }
}
