//! Gemini's and Vertex AI's refusals; no rate headers are documented (providers.md §5.1, §5.2).

use core::time::Duration;

use super::json::{ErrorFields, Violation};
use super::reading::{DAY, HOUR, MINUTE, SECOND};
use super::{Headers, message, plain_verdict, text, wait};
use crate::limit::Zone;
use crate::signal::{Cause, RateLimited, Verdict};
use crate::time::Timestamp;
use crate::units::{Amount, Dimension};

pub(super) fn classify(now: Timestamp, status: u16, headers: &impl Headers, error: &ErrorFields) -> Verdict {
    if status != 429 {
        return plain_verdict(now, status, headers, error);
    }
    if named_amounts(&error.message).any(|limit| limit == Amount::ZERO) {
        // The model is not on the plan; that a day or a minute is named beside it says nothing.
        return Verdict::QuotaSpent { until: None };
    }
    let violations = || {
        error
            .violations
            .iter()
            .filter(|violation| **violation != Violation::default())
            .map(quota)
    };
    // Any day that is used up must end; `retryDelay` does not know of it.
    if violations().any(|quota| quota.named_window == Some(DAY)) {
        return day_spent(now);
    }
    let told = violations()
        .next()
        .or_else(|| named_metric(&error.message))
        .map(|quota| RateLimited {
            limit: quota.limit.or_else(|| named_amounts(&error.message).next()),
            ..quota
        });
    if told.is_some_and(|quota| quota.named_window == Some(DAY)) {
        return day_spent(now);
    }
    // Without details: the pool that all customers share, or a limit against abuse. Provisioned throughput is one's own.
    let own = text::contains(&error.message, "provisioned throughput");
    let limited = told.unwrap_or(RateLimited {
        cause: if own { Cause::Rate } else { Cause::Congestion },
        ..RateLimited::default()
    });
    if let Some(never) = message::never(&limited) {
        return never;
    }
    Verdict::RateLimited(RateLimited {
        retry_after: wait::stated(now, headers, error),
        ..limited
    })
}

/// The requests of a day come back at midnight Pacific.
fn day_spent(now: Timestamp) -> Verdict {
    Verdict::QuotaSpent {
        until: Some(Zone::Pacific.next_midnight(now).since(now)),
    }
}

/// Reads one violation: `GenerateContentInputTokensPerModelPerMinute-FreeTier`, 250000.
fn quota(violation: &Violation) -> RateLimited {
    let (id, metric) = (&violation.id, &violation.metric);
    RateLimited {
        dimension: dimension(id).or_else(|| dimension(metric)),
        named_window: quota_window(id).or_else(|| message::window(metric)),
        limit: text::integer(&violation.value).map(Amount::new),
        ..RateLimited::default()
    }
}

/// Reads `Quota exceeded for …/generate_content_requests_per_minute_per_project_per_base_model with …`, and the
/// same "for metric: …".
fn named_metric(message: &str) -> Option<RateLimited> {
    let rest = text::after(message, "quota exceeded for ")?;
    let rest = text::after(rest, "metric: ").unwrap_or(rest);
    let metric = rest.split([' ', ',', '\n']).next()?;
    Some(RateLimited {
        dimension: dimension(metric),
        named_window: message::window(metric),
        ..RateLimited::default()
    })
}

/// Reads `…, limit: 250000, …`, of which there is one for each quota.
fn named_amounts(message: &str) -> impl Iterator<Item = Amount> {
    message
        .match_indices("limit: ")
        .filter_map(|(at, lead)| message::amount(&message[at + lead.len()..]))
}

/// Returns what a quota counts, by its identifier or its metric. Only prompts are counted by the token (§5.1).
fn dimension(name: &str) -> Option<Dimension> {
    let says = |words| text::contains(name, words);
    if says("inputtoken") || says("input_token") {
        Some(Dimension::InputTokens)
    } else if says("outputtoken") || says("output_token") {
        Some(Dimension::OutputTokens)
    } else if says("token") {
        Some(Dimension::Tokens)
    } else if says("request") {
        Some(Dimension::Requests)
    } else {
        None
    }
}

fn quota_window(id: &str) -> Option<Duration> {
    [
        ("PerSecond", SECOND),
        ("PerMinute", MINUTE),
        ("PerHour", HOUR),
        ("PerDay", DAY),
    ]
    .into_iter()
    .find_map(|(words, window)| id.contains(words).then_some(window))
}
