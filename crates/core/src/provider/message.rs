//! What the sentences of refusals name: limit, use, dimension, window.

use core::time::Duration;

use super::json::ErrorFields;
use super::reading::{DAY, HOUR, MINUTE, MONTH, SECOND};
use super::text;
use crate::signal::{RateLimited, Verdict};
use crate::units::{Amount, Dimension};

/// Returns what a refusal says of the limit: its numbers, else at least its dimension and window.
pub(super) fn limited(error: &ErrorFields) -> RateLimited {
    let mut limited = numbers(&error.message);
    if limited.limit.is_none() {
        limited.dimension = limited.dimension.or_else(|| dimension(error));
        limited.named_window = limited.named_window.or_else(|| window(&error.message));
    }
    limited
}

/// Returns what numbers tell that no wait cures: a limit of nothing, or a request above the limit.
pub(super) fn never(limited: &RateLimited) -> Option<Verdict> {
    let limit = limited.limit?;
    if limit == Amount::ZERO {
        return Some(Verdict::QuotaSpent { until: None });
    }
    (limited.requested? > limit).then_some(Verdict::TooLarge(*limited))
}

/// Reads `… on tokens per min (TPM): Limit 200000, Used 162960, Requested 42288 …` (providers.md §2.5, §8).
fn numbers(message: &str) -> RateLimited {
    let mut limited = RateLimited::default();
    let Some((head, rest)) = message.split_once("): Limit ") else {
        return limited;
    };
    let unit = head.rsplit_once('(').map_or("", |(_, unit)| unit);
    let (dimension, window) = unit_of(unit);
    limited.dimension = dimension;
    limited.named_window = window;
    limited.limit = amount(rest);
    // Only this sentence: nothing that comes later is about the limit.
    let sentence = rest.split_once(". ").map_or(rest, |(sentence, _)| sentence);
    limited.used = text::after(sentence, ", used ").and_then(amount);
    limited.requested = text::after(sentence, ", requested ").and_then(amount);
    limited
}

/// Returns what OpenAI's and Groq's abbreviations stand for. Images and seconds of audio are counted in no dimension
/// that is kept here.
fn unit_of(unit: &str) -> (Option<Dimension>, Option<Duration>) {
    let (dimension, window) = match unit {
        "RPM" => (Some(Dimension::Requests), MINUTE),
        "RPD" => (Some(Dimension::Requests), DAY),
        "TPM" => (Some(Dimension::Tokens), MINUTE),
        "TPD" => (Some(Dimension::Tokens), DAY),
        "ITPM" => (Some(Dimension::InputTokens), MINUTE),
        "OTPM" => (Some(Dimension::OutputTokens), MINUTE),
        "IPM" => (None, MINUTE),
        "ASH" => (None, HOUR),
        "ASD" => (None, DAY),
        _ => return (None, None),
    };
    (dimension, Some(window))
}

/// Returns the number at the start of a text, with or without thousands commas.
pub(super) fn amount(digits: &str) -> Option<Amount> {
    let (value, _) = text::leading_integer(digits)?;
    value.map(Amount::new)
}

/// Returns the dimension that an error names without numbers.
fn dimension(error: &ErrorFields) -> Option<Dimension> {
    let message = &error.message;
    let says = |words: &[&str]| words.iter().any(|words| text::contains(message, words));
    if error.kind == "requests"
        || says(&[
            "call rate limit",
            "request limit",
            "requests rate limit",
            "api calls",
        ])
    {
        Some(Dimension::Requests)
    } else if says(&["input tokens per"]) {
        Some(Dimension::InputTokens)
    } else if says(&["output tokens per"]) {
        Some(Dimension::OutputTokens)
    } else if error.kind == "tokens" || says(&["token rate limit", "tokens per"]) {
        Some(Dimension::Tokens)
    } else if says(&["requests per"]) {
        Some(Dimension::Requests)
    } else {
        None
    }
}

/// Returns the window that a text names, be it a sentence or the name of a quota (`requests_per_minute`, `PerDay`).
pub(super) fn window(text: &str) -> Option<Duration> {
    [
        ("second", SECOND),
        ("min", MINUTE),
        ("hour", HOUR),
        ("day", DAY),
        ("month", MONTH),
    ]
    .into_iter()
    .find_map(|(unit, window)| {
        let named = text.match_indices(unit).any(|(at, _)| {
            let before = text[..at].trim_end_matches([' ', '_', '-']);
            before.ends_with("per") || before.ends_with('/')
        });
        named.then_some(window)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows() {
        for (text, expect) in [
            ("tokens per min (TPM)", Some(MINUTE)),
            ("past the per minute request limit", Some(MINUTE)),
            ("limited to 40 API calls / minute.", Some(MINUTE)),
            ("limited to 1000 API calls / month", Some(MONTH)),
            ("requests per day", Some(DAY)),
            ("too many tokens per day", Some(DAY)),
            ("free-models-per-min", Some(MINUTE)),
            ("generate_content_requests_per_minute_per_project", Some(MINUTE)),
            ("60 requests/second", Some(SECOND)),
            ("48 per hour", Some(HOUR)),
            ("at the next minute boundary", None),
            ("a day per week", None),
            ("Administration", None),
            ("", None),
        ] {
            assert_eq!(window(text), expect, "{text}");
        }
    }
}
