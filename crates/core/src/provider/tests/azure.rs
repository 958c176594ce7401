//! providers.md §3.4, §3.5, §3.6.

use super::*;

const DUMP: &str = "apim-request-id: x
    x-ms-region: North Central US
    x-envoy-upstream-service-time: 68
    x-ratelimit-limit-requests: 8
    x-ratelimit-limit-tokens: 8000
    x-ratelimit-remaining-requests: 7
    x-ratelimit-remaining-tokens: 1014";

#[test]
fn seconds_without_a_unit() {
    let tokens = (Dimension::Tokens, Some(8_000), Some(1_014), None, secs(60));
    check_readings(
        Dialect::Azure,
        DUMP,
        &[(Dimension::Requests, Some(8), Some(7), None, secs(10)), tokens],
    );
    check_readings(
        Dialect::Azure,
        &format!("{DUMP}\nx-ratelimit-reset-requests: 10\nx-ratelimit-reset-tokens: 300"),
        &[
            (Dimension::Requests, Some(8), Some(7), secs(10), secs(10)),
            (Dimension::Tokens, Some(8_000), Some(1_014), secs(300), secs(60)),
        ],
    );
    // Longer than a slice takes: the limit is one of minutes.
    check_readings(
        Dialect::Azure,
        &format!("{DUMP}\nx-ratelimit-reset-requests: 45"),
        &[(Dimension::Requests, Some(8), Some(7), secs(45), None), tokens],
    );
    check_readings(
        Dialect::Azure,
        "x-ratelimit-limit-requests: 10000\nx-ratelimit-limit-tokens: 1000000",
        &[
            (Dimension::Requests, Some(10_000), None, None, None),
            (Dimension::Tokens, Some(1_000_000), None, None, secs(60)),
        ],
    );
    // One request a minute for a thousand tokens, and ten: a sixth of them in ten seconds.
    for requests in [166, 1_666] {
        check_readings(
            Dialect::Azure,
            &format!("x-ratelimit-limit-requests: {requests}\nx-ratelimit-limit-tokens: 1000000"),
            &[
                (Dimension::Requests, Some(requests), None, None, secs(10)),
                (Dimension::Tokens, Some(1_000_000), None, None, secs(60)),
            ],
        );
    }
    // The Responses API, 2025-11: unknown.
    check_readings(
        Dialect::Azure,
        "x-ratelimit-limit-tokens: -1\nx-ratelimit-remaining-tokens: -1\nx-ratelimit-reset-tokens: 0",
        &[],
    );
}

fn old(kind: &str, wait: u64) -> String {
    format!(
        r#"{{"error":{{"code":"429","message":"Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-08-01-preview have exceeded {kind} rate limit of your current OpenAI S0 pricing tier. Please retry after {wait} seconds. Please go here: https://aka.ms/oai/quotaincrease if you would like to further increase the default rate limit."}}}}"#
    )
}

#[test]
fn rate() {
    let new = r#"{"error":{"code":"429","message":"Your requests to gpt-5.1 for gpt-5.1 in East US 2 have exceeded the token rate limit for your current AIServices S0 pricing tier. This request was for ChatCompletions_Create under Azure OpenAI API version 2025-03-01-preview. Please retry after 60 seconds. x"}}"#;
    let short = r#"{"error":{"code":"429","message": "Rate limit is exceeded. Try again in 2 seconds."}}"#;
    for (lines, body, dimension, retry_after) in [
        ("", &*old("token", 42), Some(Dimension::Tokens), secs(42)),
        ("", &old("call", 7), Some(Dimension::Requests), secs(7)),
        ("", new, Some(Dimension::Tokens), secs(60)),
        ("", short, None, secs(2)),
        (DUMP, short, None, secs(2)),
        ("retry-after-ms: 2000\nretry-after: 2", "", None, secs(2)),
        ("retry-after-ms: 1834\nretry-after: 2", short, None, secs(2)),
        // Provisioned throughput at 100 % utilization.
        ("retry-after-ms: 350\nretry-after: 1", "", None, millis(350)),
    ] {
        let limited = RateLimited {
            dimension,
            retry_after,
            ..RateLimited::default()
        };
        check(Dialect::Azure, 429, lines, body, Verdict::RateLimited(limited));
    }
}

#[test]
fn waits_of_a_day_are_no_waits() {
    let too_large = |dimension, limit| {
        Verdict::TooLarge(RateLimited {
            dimension,
            limit,
            ..RateLimited::default()
        })
    };
    let tokens = Some(Dimension::Tokens);
    check(
        Dialect::Azure,
        429,
        "",
        &old("token", 86_400),
        too_large(tokens, None),
    );
    check(
        Dialect::Azure,
        429,
        DUMP,
        &old("token", 86_400),
        too_large(tokens, amount(8_000)),
    );
    check(
        Dialect::Azure,
        429,
        "",
        "Rate limit is exceeded. Try again in 86400 seconds.",
        too_large(None, None),
    );
    check(
        Dialect::Azure,
        429,
        "",
        &old("call", 86_400),
        Verdict::QuotaSpent { until: secs(86_400) },
    );
}

#[test]
fn capacity() {
    for status in [429, 503] {
        for message in [
            "The service is temporarily unable to process your request. Please try again later.",
            "System is experiencing high demand",
        ] {
            let body = format!(r#"{{"error":{{"code":"{status}","message":"{message}"}}}}"#);
            check(
                Dialect::Azure,
                status,
                "",
                &body,
                Verdict::Overloaded { retry_after: None },
            );
        }
    }
    check(
        Dialect::Azure,
        500,
        "",
        r#"{"error":{"code":"InternalServerError","message":"Backend returned unexpected response."}}"#,
        Verdict::Transient,
    );
}
