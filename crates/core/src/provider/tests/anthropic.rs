//! providers.md §4.4, §4.5.

use super::*;
use crate::signal::Cause;

/// The 429 of 2025-06-02.
const DUMP: &str = "x-should-retry: true
    retry-after: 16
    anthropic-ratelimit-input-tokens-limit: 200000
    anthropic-ratelimit-input-tokens-remaining: 0
    anthropic-ratelimit-input-tokens-reset: 2025-06-02T15:15:48Z
    anthropic-ratelimit-output-tokens-limit: 80000
    anthropic-ratelimit-output-tokens-remaining: 80000
    anthropic-ratelimit-output-tokens-reset: 2025-06-02T15:14:45Z
    anthropic-ratelimit-requests-limit: 4000
    anthropic-ratelimit-requests-remaining: 4000
    anthropic-ratelimit-requests-reset: 2025-06-02T15:14:45Z
    anthropic-ratelimit-tokens-limit: 280000
    anthropic-ratelimit-tokens-remaining: 80000
    anthropic-ratelimit-tokens-reset: 2025-06-02T15:14:45Z";

const EXPECT: [Read; 3] = [
    (
        Dimension::Requests,
        Some(4_000),
        Some(4_000),
        Some(Duration::ZERO),
        Some(Duration::from_secs(60)),
    ),
    (
        Dimension::InputTokens,
        Some(200_000),
        Some(0),
        Some(Duration::from_secs(16)),
        Some(Duration::from_secs(60)),
    ),
    (
        Dimension::OutputTokens,
        Some(80_000),
        Some(80_000),
        Some(Duration::ZERO),
        Some(Duration::from_secs(60)),
    ),
];

#[test]
fn dates_and_rounding() {
    // The sum of two limits is none.
    check_readings(Dialect::Anthropic, DUMP, &EXPECT);
    let workspace = DUMP.replace("280000", "100000");
    let [requests, input, output] = EXPECT;
    let tokens = (
        Dimension::Tokens,
        Some(100_000),
        Some(80_000),
        Some(Duration::ZERO),
        secs(60),
    );
    check_readings(Dialect::Anthropic, &workspace, &[requests, input, output, tokens]);
    let readings = Dialect::Anthropic.readings(NOW, &headers(&workspace));
    for (dimension, reading) in readings.iter() {
        let exact = dimension == Dimension::Requests;
        assert_eq!(
            reading.rounding.value(),
            if exact { 0 } else { 1_000 },
            "{dimension}"
        );
    }
}

/// In 2024-03 every limit was whole again at the same minute of the clock (§4.2).
#[test]
fn fixed_minutes() {
    let now = Timestamp::from_secs(1_711_483_172); // 2024-03-26T19:59:32Z
    let lines = "anthropic-ratelimit-requests-limit: 50\nanthropic-ratelimit-requests-remaining: 49\n\
        anthropic-ratelimit-requests-reset: 2024-03-26T20:00:00Z";
    let readings = Dialect::Anthropic.readings(now, &headers(lines));
    assert_eq!(
        readings.reading(Dimension::Requests).unwrap().reset,
        secs(28),
        "{lines}"
    );
}

#[test]
fn other_pools_are_not_read() {
    let mut others = String::new();
    for pool in ["anthropic-priority", "anthropic-fast"] {
        for side in ["input", "output"] {
            others += &format!(
                "\n{pool}-{side}-tokens-limit: 10000\n{pool}-{side}-tokens-remaining: 9000\n{pool}-{side}-tokens-reset: \
                 2025-06-02T15:15:48Z"
            );
        }
    }
    others += "\nanthropic-ratelimit-unified-status: allowed\nanthropic-ratelimit-unified-reset: 1748880000\n\
        anthropic-organization-id: x\nanthropic-workspace-id: y\nrequest-id: req_1";
    check_readings(Dialect::Anthropic, &others, &[]);
    check_readings(Dialect::Anthropic, &format!("{DUMP}{others}"), &EXPECT);
    // Claude hosted elsewhere sends none.
    check_readings(Dialect::Anthropic, "", &[]);
}

fn body(kind: &str, message: &str) -> String {
    format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}},"request_id":"req_1"}}"#)
}

fn rate(amount: &str) -> String {
    body(
        "rate_limit_error",
        &format!(
            "This request would exceed your organization's rate limit of {amount} per minute (org: x, model: \
             claude-sonnet-4-20250514). For details, refer to: https://docs.claude.com/en/api/rate-limits. You can see the \
             response headers for current usage. Please reduce the prompt length or the maximum tokens requested, or try \
             again later. x"
        ),
    )
}

#[test]
fn rates() {
    let resets = "anthropic-ratelimit-input-tokens-limit: 200000\nanthropic-ratelimit-input-tokens-remaining: 0\n\
        anthropic-ratelimit-input-tokens-reset: 2025-06-02T15:15:48Z";
    let of = |dimension, limit, retry_after| {
        Verdict::RateLimited(RateLimited {
            dimension: Some(dimension),
            limit: amount(limit),
            named_window: secs(60),
            retry_after,
            ..RateLimited::default()
        })
    };
    let bare = Verdict::RateLimited(RateLimited {
        retry_after: secs(16),
        ..RateLimited::default()
    });
    for (lines, body, expect) in [
        (
            DUMP,
            &*rate("200,000 input tokens"),
            of(Dimension::InputTokens, 200_000, secs(16)),
        ),
        (
            "retry-after: 16",
            &rate("30,000 input tokens"),
            of(Dimension::InputTokens, 30_000, secs(16)),
        ),
        (
            resets,
            &rate("30,000 input tokens"),
            of(Dimension::InputTokens, 30_000, secs(16)),
        ),
        (
            "",
            &rate("8,000 output tokens"),
            of(Dimension::OutputTokens, 8_000, None),
        ),
        ("", &rate("50 requests"), of(Dimension::Requests, 50, None)),
        ("", &rate("0 input tokens"), SPENT),
        (resets, "", bare),
        ("retry-after: 16", "", bare),
        ("x-should-retry: false", &rate("30,000 input tokens"), SPENT),
    ] {
        check(Dialect::Anthropic, 429, lines, body, expect);
    }
}

#[test]
fn acceleration() {
    let body = body(
        "rate_limit_error",
        "This request would exceed your organization's maximum usage increase rate for input tokens per minute (org: x, \
         model: y). Your current limit is 58,276 input tokens per minute, and will increase to 68,276 at the next minute \
         boundary. Please scale up your input tokens usage more gradually to stay within the acceleration limit.",
    );
    // 15:15:32 is 28 seconds before the minute.
    for (lines, wait) in [("", 28), ("retry-after: 5", 5)] {
        check(
            Dialect::Anthropic,
            429,
            lines,
            &body,
            Verdict::RateLimited(RateLimited {
                cause: Cause::Acceleration,
                dimension: Some(Dimension::InputTokens),
                limit: amount(58_276),
                next_limit: amount(68_276),
                named_window: secs(60),
                retry_after: secs(wait),
                ..RateLimited::default()
            }),
        );
    }
}

#[test]
fn concurrency() {
    let body = body(
        "rate_limit_error",
        "Number of concurrent connections has exceeded your rate limit. Please try again later or contact sales x",
    );
    for (lines, retry_after) in [("", None), ("retry-after: 1", secs(1))] {
        check(
            Dialect::Anthropic,
            429,
            lines,
            &body,
            Verdict::RateLimited(RateLimited {
                cause: Cause::Concurrency,
                dimension: Some(Dimension::Concurrency),
                retry_after,
                ..RateLimited::default()
            }),
        );
    }
}

#[test]
fn spend_limits() {
    // From 2025-06-02T15:15:32Z to 2025-07-01T00:00:00Z.
    let next_month = Verdict::QuotaSpent {
        until: secs(28 * 86_400 + 8 * 3_600 + 44 * 60 + 28),
    };
    let enforced = r#"{"type":"error","error":{"type":"rate_limit_error","message":"You have reached your API usage limits: x","details":{"error_code":"enforced_spend_limit_reached"}}}"#;
    let text = body("rate_limit_error", "You have reached your API usage limits: x");
    let own = body(
        "invalid_request_error",
        "You have reached your specified API usage limits",
    );
    for (status, lines, body, expect) in [
        (429, "", enforced, next_month),
        (429, "retry-after: 9", enforced, next_month),
        (429, "x-should-retry: false", enforced, next_month),
        (429, "", &*text, next_month),
        (400, "", &own, SPENT),
        (400, "", &body("invalid_request_error", "m"), Verdict::ClientError),
        (402, "", &body("billing_error", "m"), SPENT),
    ] {
        check(Dialect::Anthropic, status, lines, body, expect);
    }
}

#[test]
fn faults() {
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let of = |retry_after| Verdict::Overloaded { retry_after };
    for (status, lines, body, expect) in [
        (529, "", overloaded, of(None)),
        (529, "retry-after: 2", overloaded, of(secs(2))),
        (500, "", overloaded, of(None)),
        (500, "", &*body("api_error", "m"), Verdict::Transient),
        (504, "", &body("timeout_error", "m"), Verdict::Transient),
        // Bytes, not tokens: 32 MB, from the edge.
        (413, "", &body("request_too_large", "m"), Verdict::ClientError),
    ] {
        check(Dialect::Anthropic, status, lines, body, expect);
    }
}
