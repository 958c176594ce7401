//! Cohere's refusals; no rate headers are documented (providers.md §9).

use super::json::ErrorFields;
use super::reading::MONTH;
use super::{Headers, message, plain_verdict, text, wait};
use crate::signal::{RateLimited, Verdict};
use crate::time::Timestamp;

pub(super) fn classify(now: Timestamp, status: u16, headers: &impl Headers, error: &ErrorFields) -> Verdict {
    if status != 429 {
        return plain_verdict(now, status, headers, error);
    }
    let limited = message::limited(error);
    if limited.named_window == Some(MONTH) {
        // A trial key's calls; when its month ends is not said.
        return Verdict::QuotaSpent { until: None };
    }
    // "… which is limited to 40 API calls / minute", "… limit is 100000 tokens per minute".
    let limit = ["limited to ", "limit is "]
        .into_iter()
        .find_map(|lead| message::amount(text::after(&error.message, lead)?));
    let limited = RateLimited {
        limit: limited.limit.or(limit),
        ..limited
    };
    message::never(&limited).unwrap_or_else(|| {
        // The official client waits for this, in seconds of Unix time (§13).
        let reset = || text::until_epoch(now, headers.text("x-ratelimit-reset")?);
        Verdict::RateLimited(RateLimited {
            retry_after: wait::stated(now, headers, error).or_else(reset),
            ..limited
        })
    })
}
