//! OpenRouter's headers and refusals (providers.md §11).

use core::time::Duration;

use super::json::ErrorFields;
use super::reading::{self, DAY, MINUTE, Names};
use super::{Headers, message, openai, text, wait};
use crate::limit::Zone;
use crate::signal::{Cause, RateLimited, Reading, Readings, Verdict};
use crate::time::Timestamp;
use crate::units::{Amount, Dimension};

/// Of whichever limit on free models refused; paid models have none.
const REQUESTS: Names = Names {
    limit: "x-ratelimit-limit",
    remaining: "x-ratelimit-remaining",
    reset: "x-ratelimit-reset",
};

/// A reset that is farther away than a minute, by more than clocks differ, is a day's.
const MINUTE_RESET_MAX: Duration = Duration::from_secs(90);

pub(super) fn readings(now: Timestamp, headers: &impl Headers) -> Readings {
    let mut readings = Readings::default();
    if let Some(reading) = reading::read(headers, &REQUESTS, |value| text::until_epoch(now, value)) {
        let is_day = reading.reset.is_some_and(|reset| reset > MINUTE_RESET_MAX);
        let window = is_day.then_some(DAY);
        readings.push(Dimension::Requests, Reading { window, ..reading });
    }
    readings
}

pub(super) fn classify(now: Timestamp, status: u16, headers: &impl Headers, error: &ErrorFields) -> Verdict {
    if status != 429 {
        return openai::classify(now, status, headers, error);
    }
    let metadata = &error.metadata;
    let of_day = text::contains(&error.message, "free-models-per-day")
        || metadata.limit_source == "openrouter_free_tier_daily";
    let reset = headers
        .text(REQUESTS.reset)
        .and_then(|value| text::until_epoch(now, value))
        .or_else(|| text::until_epoch(now, &metadata.reset));
    if of_day {
        // All free models share one day, which is UTC's.
        let midnight = || Zone::Utc.next_midnight(now).since(now);
        return Verdict::QuotaSpent {
            until: Some(reset.unwrap_or_else(midnight)),
        };
    }
    let stated = wait::stated(now, headers, error);
    if text::contains(&error.message, "free-models-per-min") {
        // What is used and asked for says nothing about the window: nobody knows that it refills as a bucket does.
        return Verdict::RateLimited(RateLimited {
            dimension: Some(Dimension::Requests),
            limit: number(headers, REQUESTS.limit, &metadata.limit),
            named_window: Some(MINUTE),
            retry_after: stated.or(reset),
            ..RateLimited::default()
        });
    }
    if !metadata.provider.is_empty() || text::contains(&error.message, "provider returned error") {
        // The capacity that OpenRouter shares among all its customers is used up at the provider behind it.
        return Verdict::RateLimited(RateLimited {
            cause: Cause::Congestion,
            retry_after: stated.or_else(|| wait::in_message(&metadata.raw)),
            ..RateLimited::default()
        });
    }
    let limited = message::limited(error);
    openai::never(headers, error, &limited).unwrap_or(Verdict::RateLimited(RateLimited {
        retry_after: stated.or(reset),
        ..limited
    }))
}

/// Returns a number of a header, or of the header's copy in the body.
fn number(headers: &impl Headers, name: &str, copy: &str) -> Option<Amount> {
    headers
        .text(name)
        .and_then(text::integer)
        .or_else(|| text::integer(copy))
        .map(Amount::new)
}
