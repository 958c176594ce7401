//! OpenAI's headers and refusals, and those of providers that imitate it (providers.md §2.4, §2.5, §3.4).

use core::time::Duration;

use super::json::ErrorFields;
use super::{Headers, text, wait};
use crate::signal::{RateLimited, Reading, Readings, Verdict};
use crate::time::Timestamp;
use crate::units::{Amount, Dimension};

/// Longer resets without a unit are moments (Unix time), not spans: 400 days.
const PLAIN_RESET_MAX: Duration = Duration::from_secs(400 * 86_400);

pub(super) fn readings(headers: &impl Headers) -> Readings {
    let mut readings = Readings::default();
    let requests = reading(
        headers,
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    );
    let tokens = reading(
        headers,
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
    );
    // Present only where the project has a token limit of its own beside the organization's.
    let project = reading(
        headers,
        "x-ratelimit-limit-project-tokens",
        "x-ratelimit-remaining-project-tokens",
        "x-ratelimit-reset-project-tokens",
    );
    if let Some(requests) = requests {
        readings.push(Dimension::Requests, requests);
    }
    if let Some(tokens) = tighter(tokens, project) {
        readings.push(Dimension::Tokens, tokens);
    }
    readings
}

pub(super) fn classify(now: Timestamp, status: u16, headers: &impl Headers, body: &[u8]) -> Verdict {
    match status {
        429 => refusal(now, headers, &ErrorFields::read(body)),
        503 | 529 => Verdict::Overloaded {
            retry_after: wait::stated(now, headers, &ErrorFields::read(body).message),
        },
        _ => super::plain_verdict(status),
    }
}

fn reading(headers: &impl Headers, limit: &str, remaining: &str, reset: &str) -> Option<Reading> {
    let amount = |name| headers.text(name).and_then(text::integer).map(Amount::new);
    let reading = Reading {
        limit: amount(limit),
        remaining: amount(remaining),
        reset: headers.text(reset).and_then(span),
        ..Reading::default()
    };
    // A reset alone says nothing: Azure sends limit -1, remaining -1, reset 0 for "unknown".
    (reading.limit.is_some() || reading.remaining.is_some()).then_some(reading)
}

/// Reads a reset: a Go duration, or seconds without a unit (Azure).
fn span(value: &str) -> Option<Duration> {
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

/// Tells what a 429 means.
fn refusal(now: Timestamp, headers: &impl Headers, error: &ErrorFields) -> Verdict {
    if headers.text("x-should-retry") == Some("false") || is_hopeless(headers, error) {
        return Verdict::QuotaSpent { until: None };
    }
    let stated = wait::stated(now, headers, &error.message);
    if error.code == "resource_unavailable" || text::contains(&error.message, "resource unavailable") {
        // Flex processing has no capacity; no limit is involved and nothing is charged.
        return Verdict::Overloaded { retry_after: stated };
    }
    let mut limited = numbers(&error.message);
    limited.dimension = limited.dimension.or_else(|| named_dimension(error));
    let never_fits = match (limited.limit, limited.requested) {
        (Some(limit), Some(requested)) => requested > limit,
        _ => false,
    };
    if limited.limit == Some(Amount::ZERO) {
        return Verdict::QuotaSpent { until: None };
    }
    if never_fits {
        return Verdict::TooLarge(limited);
    }
    limited.retry_after = stated.or_else(|| wait::until_reset(&readings(headers), limited.dimension));
    Verdict::RateLimited(limited)
}

/// Returns whether a 429 is one that time does not cure (providers.md §1, finding 6).
fn is_hopeless(headers: &impl Headers, error: &ErrorFields) -> bool {
    let named = [&error.code, &error.kind]
        .into_iter()
        .any(|name| name == "insufficient_quota" || name.starts_with("billing_"));
    // Mistral's sign, and anybody's, for a model that is not on the plan.
    let none_allowed = ["x-ratelimit-limit-req-minute", "x-ratelimit-limit-requests"]
        .into_iter()
        .any(|name| headers.text(name).and_then(text::integer) == Some(0));
    named
        || none_allowed
        || text::contains(&error.message, "request too large")
        || text::contains(&error.message, "exceeded your current quota")
        || text::contains(&error.message, "free-models-per-day")
}

/// Reads `… on tokens per min (TPM): Limit 200000, Used 162960, Requested 42288 …`.
fn numbers(message: &str) -> RateLimited {
    let mut limited = RateLimited::default();
    let Some((head, rest)) = message.split_once("): Limit ") else {
        return limited;
    };
    let unit = head.rsplit_once('(').map_or("", |(_, unit)| unit);
    limited.dimension = match unit {
        "RPM" | "RPD" => Some(Dimension::Requests),
        "TPM" | "TPD" => Some(Dimension::Tokens),
        "ITPM" => Some(Dimension::InputTokens),
        "OTPM" => Some(Dimension::OutputTokens),
        _ => None,
    };
    limited.limit = amount(rest);
    // Only this sentence: nothing that comes later is about the limit.
    let sentence = rest.split_once(". ").map_or(rest, |(sentence, _)| sentence);
    limited.used = text::after(sentence, ", used ").and_then(amount);
    limited.requested = text::after(sentence, ", requested ").and_then(amount);
    limited
}

fn amount(digits: &str) -> Option<Amount> {
    let (value, _) = text::leading_integer(digits)?;
    value.map(Amount::new)
}

/// Returns the dimension that an error names without numbers.
fn named_dimension(error: &ErrorFields) -> Option<Dimension> {
    let message = &error.message;
    if error.kind == "requests" || text::contains(message, "call rate limit") {
        return Some(Dimension::Requests);
    }
    let tokens = error.kind == "tokens"
        || text::contains(message, "token rate limit")
        || text::contains(message, "tokens per min");
    if tokens {
        return Some(Dimension::Tokens);
    }
    text::contains(message, "requests per min").then_some(Dimension::Requests)
}
