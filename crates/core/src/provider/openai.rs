//! OpenAI's headers and refusals, and those of providers that imitate it (providers.md §2.4, §2.5).

use core::time::Duration;

use super::json::ErrorFields;
use super::reading::{self, Names};
use super::{Headers, message, text, wait};
use crate::signal::{Cause, RateLimited, Reading, Readings, Verdict};
use crate::time::Timestamp;
use crate::units::{Amount, Dimension};

pub(super) const REQUESTS: Names = Names {
    limit: "x-ratelimit-limit-requests",
    remaining: "x-ratelimit-remaining-requests",
    reset: "x-ratelimit-reset-requests",
};

/// "Reduce your request rate to its original level, keep it stable for at least 15 minutes" (providers.md §2.5).
pub(super) const SLOWED: Duration = Duration::from_secs(15 * 60);

pub(super) const TOKENS: Names = Names {
    limit: "x-ratelimit-limit-tokens",
    remaining: "x-ratelimit-remaining-tokens",
    reset: "x-ratelimit-reset-tokens",
};

/// Present only where the project has a token limit of its own beside the organization's.
const PROJECT_TOKENS: Names = Names {
    limit: "x-ratelimit-limit-project-tokens",
    remaining: "x-ratelimit-remaining-project-tokens",
    reset: "x-ratelimit-reset-project-tokens",
};

/// Longer resets without a unit are moments (Unix time), not spans: 400 days.
const PLAIN_RESET_MAX: Duration = Duration::from_secs(400 * 86_400);

pub(super) fn readings(headers: &impl Headers) -> Readings {
    let mut readings = Readings::default();
    if let Some(requests) = solved(headers, &REQUESTS) {
        readings.push(Dimension::Requests, requests);
    }
    if let Some(tokens) = tighter(solved(headers, &TOKENS), solved(headers, &PROJECT_TOKENS)) {
        readings.push(Dimension::Tokens, tokens);
    }
    readings
}

/// Tells what a status means, with a 429 as OpenAI means it.
pub(super) fn classify(now: Timestamp, status: u16, headers: &impl Headers, error: &ErrorFields) -> Verdict {
    match status {
        429 => refusal(now, headers, error),
        500..=599 if error.code == "slow_down" || text::contains(&error.message, "slow down") => {
            Verdict::RateLimited(RateLimited {
                cause: Cause::Congestion,
                retry_after: wait::stated(now, headers, error),
                steady: Some(SLOWED),
                ..RateLimited::default()
            })
        }
        500..=599 if error.code == "server_is_overloaded" => Verdict::Overloaded {
            retry_after: wait::stated(now, headers, error),
        },
        _ => super::plain_verdict(now, status, headers, error),
    }
}

/// Tells what a 429 means.
fn refusal(now: Timestamp, headers: &impl Headers, error: &ErrorFields) -> Verdict {
    let limited = message::limited(error);
    if let Some(never) = never(headers, error, &limited) {
        return never;
    }
    let stated = wait::stated(now, headers, error);
    if error.code == "resource_unavailable" || text::contains(&error.message, "resource unavailable") {
        // Flex processing has no capacity; no limit is involved and nothing is charged.
        return Verdict::Overloaded { retry_after: stated };
    }
    Verdict::RateLimited(RateLimited {
        retry_after: stated.or_else(|| wait::until_reset(&readings(headers), limited.dimension)),
        ..limited
    })
}

/// Returns what no wait cures (providers.md §1, finding 6).
pub(super) fn never(headers: &impl Headers, error: &ErrorFields, limited: &RateLimited) -> Option<Verdict> {
    if let Some(never) = message::never(limited) {
        return Some(never);
    }
    if text::contains(&error.message, "request too large") {
        return Some(Verdict::TooLarge(*limited));
    }
    let unpaid = [&error.code, &error.kind]
        .into_iter()
        .any(|name| name == "insufficient_quota" || name.starts_with("billing_"));
    let none_allowed = headers.text(REQUESTS.limit).and_then(text::integer) == Some(0);
    let spent = unpaid
        || none_allowed
        || headers.text("x-should-retry") == Some("false")
        || text::contains(&error.message, "exceeded your current quota");
    spent.then_some(Verdict::QuotaSpent { until: None })
}

/// Reads a limit and solves its window: `…-requests` may tell of a minute or a day, whichever binds.
///
/// Only a Go duration is what OpenAI itself writes; imitators that write plain seconds mean the end of a fixed window.
fn solved(headers: &impl Headers, names: &Names) -> Option<Reading> {
    let reading = reading::read(headers, names, span)?;
    let is_plain = headers
        .text(names.reset)
        .is_some_and(|value| text::seconds(value).is_some());
    Some(Reading {
        window: reading::solve_window(&reading).filter(|_| !is_plain),
        ..reading
    })
}

/// Reads a reset: a Go duration, or seconds without a unit.
pub(super) fn span(value: &str) -> Option<Duration> {
    text::duration(value).or_else(|| text::seconds(value).filter(|span| *span <= PLAIN_RESET_MAX))
}

/// Joins two limits on one dimension into what is left under both: the smaller amount, and the smaller remainder with
/// its reset.
fn tighter(one: Option<Reading>, other: Option<Reading>) -> Option<Reading> {
    let (Some(one), Some(other)) = (one, other) else {
        return one.or(other);
    };
    let known = |amount: Option<Amount>| amount.unwrap_or(Amount::new(u64::MAX));
    let nearer = if known(other.remaining) < known(one.remaining) {
        other
    } else {
        one
    };
    Some(Reading {
        limit: one.limit.into_iter().chain(other.limit).min(),
        ..nearer
    })
}
