//! Azure OpenAI's headers and refusals (providers.md §3.4, §3.5).

use core::time::Duration;

use super::json::ErrorFields;
use super::openai::{self, REQUESTS, TOKENS, span};
use super::reading::{self, HOUR, MINUTE, TEN_SECONDS};
use super::{Headers, message, text, wait};
use crate::signal::{RateLimited, Reading, Readings, Verdict};
use crate::time::Timestamp;
use crate::units::{Amount, Dimension};

/// Tokens a minute for each request in ten seconds, of deployments with 1, 6 and 10 requests a minute for a thousand tokens
/// (providers.md §3.1).
const TOKENS_PER_REQUEST: [u64; 3] = [6_000, 1_000, 600];

/// Reads the limits. A limit on tokens below the configured one is a temporary adjustment and holds for hours.
pub(super) fn readings(headers: &impl Headers) -> Readings {
    let mut readings = Readings::default();
    let requests = reading::read(headers, &REQUESTS, span);
    let tokens = reading::read(headers, &TOKENS, span);
    if let Some(requests) = requests {
        let reading = Reading {
            window: requests_window(&requests, tokens.as_ref()),
            ..requests
        };
        readings.push(Dimension::Requests, reading);
    }
    if let Some(tokens) = tokens {
        let reading = Reading {
            window: Some(MINUTE),
            ..tokens
        };
        readings.push(Dimension::Tokens, reading);
    }
    readings
}

pub(super) fn classify(now: Timestamp, status: u16, headers: &impl Headers, error: &ErrorFields) -> Verdict {
    if status != 429 {
        return openai::classify(now, status, headers, error);
    }
    let retry_after = wait::stated(now, headers, error);
    let short_of_capacity = [
        "temporarily unable to process your request",
        "experiencing high demand",
    ]
    .into_iter()
    .any(|words| text::contains(&error.message, words));
    if short_of_capacity {
        return Verdict::Overloaded { retry_after };
    }
    let limited = RateLimited {
        retry_after,
        ..message::limited(error)
    };
    openai::never(headers, error, &limited)
        .or_else(|| hopeless(headers, &limited))
        .unwrap_or_else(|| {
            let resets = || wait::until_reset(&readings(headers), limited.dimension);
            Verdict::RateLimited(RateLimited {
                retry_after: retry_after.or_else(resets),
                ..limited
            })
        })
}

/// Tells what a wait of an hour or more means: all limits here are of a minute or less, so waiting is no cure, and
/// Azure's "retry after 86400 seconds" says just that. Of tokens the request itself asks for too many. One call is never
/// too many of a limit that allows any: that quota is gone until then.
fn hopeless(headers: &impl Headers, limited: &RateLimited) -> Option<Verdict> {
    let wait = limited.retry_after.filter(|wait| *wait >= HOUR)?;
    if limited.dimension == Some(Dimension::Requests) {
        return Some(Verdict::QuotaSpent { until: Some(wait) });
    }
    Some(Verdict::TooLarge(RateLimited {
        limit: headers
            .text(TOKENS.limit)
            .and_then(text::integer)
            .map(Amount::new),
        retry_after: None,
        ..*limited
    }))
}

/// Returns ten seconds where the limit on requests is the slice of that length that belongs to the limit on tokens: 8 and
/// 8,000, which is 48 requests a minute; 166 and 1,000,000, which is 1,000 a minute.
///
/// A deployment with one request a minute for a thousand tokens (gpt-4.1, gpt-5-mini …) would show the former pair, and one
/// with a sixth of that (o1) the latter, if its header counted minutes; a reset above ten seconds tells that it does, and
/// that the window is not known.
fn requests_window(requests: &Reading, tokens: Option<&Reading>) -> Option<Duration> {
    let (requests_most, tokens_most) = (requests.limit?.value(), tokens?.limit?.value());
    let is_slice = TOKENS_PER_REQUEST
        .iter()
        .any(|each| requests_most > 0 && requests_most == tokens_most / each);
    let may_be_slice = requests.reset.is_none_or(|reset| reset <= TEN_SECONDS);
    (is_slice && may_be_slice).then_some(TEN_SECONDS)
}
