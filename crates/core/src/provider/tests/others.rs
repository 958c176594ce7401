//! OpenRouter, DeepSeek, Cohere: providers.md §9, §10, §11.

use super::*;
use crate::signal::Cause;

/// 2026-10-06T12:00:00Z, 12 h before the reset of the sample.
const OCTOBER: Timestamp = Timestamp::from_secs(1_791_288_000);

const FREE_DAY: &str = r#"{"error":{"message":"Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day","code":429,"metadata":{"headers":{"X-RateLimit-Limit":"50","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"1791331200000"},"limit_source":"openrouter_free_tier_daily"}}}"#;

fn check_openrouter(status: u16, lines: &str, body: &str, expect: Verdict) {
    let verdict = Dialect::OpenRouter.classify(OCTOBER, status, &headers(lines), body.as_bytes());
    assert_eq!(verdict, expect, "{status}\n{lines}\n{body}");
}

#[test]
fn openrouter_days_of_free_models() {
    let lines = "X-RateLimit-Limit: 50\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 1791331200000";
    let bare =
        r#"{"error":{"message":"Rate limit exceeded: free-models-per-day. Add 10 credits","code":429}}"#;
    let sourced =
        r#"{"error":{"message":"m","code":429,"metadata":{"limit_source":"openrouter_free_tier_daily"}}}"#;
    let until = Verdict::QuotaSpent {
        until: secs(12 * 3_600),
    };
    for (lines, body) in [
        ("", FREE_DAY),
        (lines, FREE_DAY),
        (lines, bare),
        ("", bare),
        ("", sourced),
    ] {
        check_openrouter(429, lines, body, until);
    }
    let readings = Dialect::OpenRouter.readings(OCTOBER, &headers(lines));
    assert_eq!(
        readings.reading(Dimension::Requests),
        Some(&Reading {
            limit: amount(50),
            remaining: amount(0),
            reset: secs(12 * 3_600),
            window: secs(86_400),
            ..Reading::default()
        })
    );
}

#[test]
fn openrouter_minutes_of_free_models() {
    let body = r#"{"error":{"message":"Rate limit exceeded: free-models-per-min. ","code":429,"metadata":{"headers":{"X-RateLimit-Limit":"20","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"1791288040000"}}}}"#;
    let bare = r#"{"error":{"message":"Rate limit exceeded: free-models-per-min.","code":429}}"#;
    let lines = "X-RateLimit-Limit: 20\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 1791288040000";
    let expect = Verdict::RateLimited(RateLimited {
        dimension: Some(Dimension::Requests),
        limit: amount(20),
        named_window: secs(60),
        retry_after: secs(40),
        ..RateLimited::default()
    });
    for (lines, body) in [("", body), (lines, body), (lines, bare)] {
        check_openrouter(429, lines, body, expect);
    }
    let readings = Dialect::OpenRouter.readings(OCTOBER, &headers(lines));
    let reading = readings.reading(Dimension::Requests).unwrap();
    assert_eq!((reading.reset, reading.window), (secs(40), None));
}

#[test]
fn openrouter_upstream_and_credits() {
    let congested = |retry_after| {
        Verdict::RateLimited(RateLimited {
            cause: Cause::Congestion,
            retry_after,
            ..RateLimited::default()
        })
    };
    let upstream = r#"{"error":{"message":"Provider returned error","code":429,"metadata":{"raw":"m is temporarily rate-limited upstream. Please retry shortly.","provider_name":"Chutes"}}}"#;
    check_openrouter(429, "", upstream, congested(None));
    let raw = r#"{"error":{"message":"Provider returned error","code":429,"metadata":{"raw":"{\"error\":{\"message\":\"Please try again in 1.5s.\"}}","provider_name":"X"}}}"#;
    check_openrouter(429, "", raw, congested(millis(1_500)));
    for source in [
        "openrouter_credits",
        "openrouter_key_limit",
        "openrouter_in_flight_budget",
    ] {
        let body = format!(
            r#"{{"error":{{"message":"Insufficient credits","code":402,"metadata":{{"limit_source":"{source}"}}}}}}"#
        );
        check_openrouter(402, "", &body, SPENT);
    }
    check_openrouter(
        429,
        "",
        r#"{"error":{"message":"m","code":429}}"#,
        Verdict::RateLimited(RateLimited::default()),
    );
}

#[test]
fn deepseek_counts_what_is_in_flight() {
    let of = |retry_after| {
        Verdict::RateLimited(RateLimited {
            cause: Cause::Concurrency,
            dimension: Some(Dimension::Concurrency),
            retry_after,
            ..RateLimited::default()
        })
    };
    let balance = r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}"#;
    for (status, lines, body, expect) in [
        (429, "", "", of(None)),
        (
            429,
            "",
            r#"{"error":{"message":"Rate limit reached","code":"rate_limit_reached"}}"#,
            of(None),
        ),
        (429, "retry-after: 2", "", of(secs(2))),
        (402, "", balance, SPENT),
        (503, "", "", Verdict::Overloaded { retry_after: None }),
    ] {
        check(Dialect::DeepSeek, status, lines, body, expect);
    }
}

#[test]
fn cohere_names_its_limits() {
    let of = |dimension, limit: Option<u64>| {
        Verdict::RateLimited(RateLimited {
            dimension: Some(dimension),
            limit: limit.map(Amount::new),
            named_window: secs(60),
            ..RateLimited::default()
        })
    };
    for (body, expect) in [
        (
            r#"{"message":"You are past the per minute request limit, please wait and try again later."}"#,
            of(Dimension::Requests, None),
        ),
        (
            r#"{"message":"You are using a Trial key, which is limited to 40 API calls / minute. You can continue to use the Trial key for free or upgrade"}"#,
            of(Dimension::Requests, Some(40)),
        ),
        (
            r#"{"message":"trial token rate limit exceeded, limit is 100000 tokens per minute"}"#,
            of(Dimension::Tokens, Some(100_000)),
        ),
        (
            r#"{"message":"You are using a Trial key, which is limited to 1000 API calls / month. x"}"#,
            SPENT,
        ),
    ] {
        check(Dialect::Cohere, 429, "", body, expect);
    }
    // Waits that only the client library knows of.
    check(
        Dialect::Cohere,
        429,
        "x-ratelimit-reset: 1748877342",
        "",
        Verdict::RateLimited(RateLimited {
            retry_after: secs(10),
            ..RateLimited::default()
        }),
    );
}
