//! providers.md §7.

use super::*;
use crate::signal::Cause;

const SUCCESS: &str = "x-ratelimit-limit-req-minute: 720
    x-ratelimit-remaining-req-minute: 717
    x-ratelimit-limit-tokens-minute: 5000000
    x-ratelimit-remaining-tokens-minute: 4999911
    x-ratelimit-tokens-query-cost: 52";

#[test]
fn windows_in_names_and_the_query_cost() {
    let requests = (Dimension::Requests, Some(720), Some(717), None, secs(60));
    let tokens = (
        Dimension::Tokens,
        Some(5_000_000),
        Some(4_999_911),
        None,
        secs(60),
    );
    check_readings(Dialect::Mistral, SUCCESS, &[requests, tokens]);
    let readings = Dialect::Mistral.readings(NOW, &headers(SUCCESS));
    assert_eq!(readings.cost, amount(52));
    let only_cost = Dialect::Mistral.readings(NOW, &headers("x-ratelimit-tokens-query-cost: 52"));
    assert!(!only_cost.is_empty());
    check_readings(
        Dialect::Mistral,
        &format!(
            "{SUCCESS}\nx-ratelimit-limit-tokens-month: 1000000000\nx-ratelimit-remaining-tokens-month: 999999948\n\
             x-ratelimit-reset-tokens-minute: 12"
        ),
        &[
            requests,
            (
                Dimension::Tokens,
                Some(5_000_000),
                Some(4_999_911),
                secs(12),
                secs(60),
            ),
            (
                Dimension::Tokens,
                Some(1_000_000_000),
                Some(999_999_948),
                None,
                secs(30 * 86_400),
            ),
        ],
    );
    // Other keys: 4 requests a minute.
    check_readings(
        Dialect::Mistral,
        "x-ratelimit-limit-req-minute: 4\nx-ratelimit-remaining-req-minute: 0\nx-ratelimit-reset-req-minute: 31",
        &[(Dimension::Requests, Some(4), Some(0), secs(31), secs(60))],
    );
}

const LIMITED: &str = r#"{"object":"error","message":"Rate limit exceeded","type":"rate_limited","param":null,"code":"1300","raw_status_code":429}"#;

#[test]
fn rate() {
    check(
        Dialect::Mistral,
        429,
        "",
        LIMITED,
        Verdict::RateLimited(RateLimited::default()),
    );
    let requests = RateLimited {
        dimension: Some(Dimension::Requests),
        ..RateLimited::default()
    };
    let text = r#"{"message":"Requests rate limit exceeded"}"#;
    check(Dialect::Mistral, 429, "", text, Verdict::RateLimited(requests));
    // The one limit that has nothing left is the one that refused.
    let empty = "x-ratelimit-limit-req-minute: 4\nx-ratelimit-remaining-req-minute: 0\nx-ratelimit-reset-req-minute: 31";
    let blamed = RateLimited {
        limit: amount(4),
        named_window: secs(60),
        retry_after: secs(31),
        ..requests
    };
    for body in [LIMITED, text] {
        check(Dialect::Mistral, 429, empty, body, Verdict::RateLimited(blamed));
    }
}

#[test]
fn plan_and_capacity() {
    check(
        Dialect::Mistral,
        429,
        "x-ratelimit-limit-req-minute: 0",
        LIMITED,
        SPENT,
    );
    for body in [
        r#"{"object":"error","message":"Service tier capacity exceeded for this model.","type":"invalid_request_error","param":null,"code":null}"#,
        r#"{"object":"error","message":"m","type":"x","param":null,"code":"3505"}"#,
    ] {
        check(
            Dialect::Mistral,
            429,
            "",
            body,
            Verdict::RateLimited(RateLimited {
                cause: Cause::Congestion,
                ..RateLimited::default()
            }),
        );
    }
}
