//! providers.md §8.

use super::*;
use crate::signal::Cause;

#[test]
fn days_of_requests_and_minutes_of_tokens() {
    check_readings(
        Dialect::Groq,
        "retry-after: 2
        x-ratelimit-limit-requests: 14400
        x-ratelimit-limit-tokens: 18000
        x-ratelimit-remaining-requests: 14370
        x-ratelimit-remaining-tokens: 17997
        x-ratelimit-reset-requests: 2m59.56s
        x-ratelimit-reset-tokens: 7.66s",
        &[
            (
                Dimension::Requests,
                Some(14_400),
                Some(14_370),
                millis(179_560),
                secs(86_400),
            ),
            (
                Dimension::Tokens,
                Some(18_000),
                Some(17_997),
                millis(7_660),
                secs(60),
            ),
        ],
    );
}

fn body(message: &str) -> String {
    format!(r#"{{"error":{{"message":"{message}","type":"tokens","code":"rate_limit_exceeded"}}}}"#)
}

/// The three messages whose waits are given, and the fourth, of an immediate retry, whose use is.
#[test]
fn refusals_give_away_the_bucket() {
    for (unit, numbers, wait, wait_millis, window_secs) in [
        (
            "tokens per minute (TPM)",
            [15_000, 11_972, 4_351],
            "5.289s",
            5_289,
            60,
        ),
        (
            "tokens per minute (TPM)",
            [6_000, 5_034, 1_443],
            "4.77s",
            4_770,
            60,
        ),
        (
            "tokens per day (TPD)",
            [100_000, 97_050, 3_619],
            "9m38.016s",
            578_016,
            86_400,
        ),
        (
            "tokens per minute (TPM)",
            [15_000, 11_390, 4_351],
            "2.964s",
            2_964,
            60,
        ),
    ] {
        let [limit, used, requested] = numbers;
        let message = format!(
            "Rate limit reached for model `m` in organization `org_x` service tier `on_demand` on {unit}: Limit {limit}, \
             Used {used}, Requested {requested}. Please try again in {wait}. Need more tokens? Upgrade"
        );
        let expect = RateLimited {
            dimension: Some(Dimension::Tokens),
            limit: amount(limit),
            used: amount(used),
            requested: amount(requested),
            named_window: secs(window_secs),
            retry_after: millis(wait_millis),
            ..RateLimited::default()
        };
        for lines in ["", &*format!("retry-after: {}", wait_millis.div_ceil(1_000))] {
            check(
                Dialect::Groq,
                429,
                lines,
                &body(&message),
                Verdict::RateLimited(expect),
            );
        }
        let exact = Duration::from_micros((used + requested - limit) * window_secs * 1_000_000 / limit);
        let error = exact.abs_diff(expect.retry_after.unwrap());
        assert!(error <= Duration::from_millis(3), "{message}: {error:?}");
        let slack = Duration::from_micros(3_000 * limit / (used + requested - limit) + 1);
        let window = expect.window().unwrap();
        assert!(
            window.abs_diff(Duration::from_secs(window_secs)) <= slack,
            "{message}: {window:?}"
        );
    }
}

#[test]
fn too_large_is_413() {
    let sample = body(
        "Request too large for model `m` in organization `org_x` service tier `on_demand` on tokens per minute (TPM): Limit \
         8000, Requested 32979, please reduce your message size and try again. x",
    );
    let expect = Verdict::TooLarge(RateLimited {
        dimension: Some(Dimension::Tokens),
        named_window: secs(60),
        limit: amount(8_000),
        requested: amount(32_979),
        ..RateLimited::default()
    });
    check(Dialect::Groq, 413, "x-should-retry: false", &sample, expect);
    check(
        Dialect::Groq,
        413,
        "",
        r#"{"error":{"message":"Request Entity Too Large","type":"invalid_request_error","code":"request_too_large"}}"#,
        Verdict::ClientError,
    );
}

#[test]
fn flex_over_capacity() {
    check(
        Dialect::Groq,
        498,
        "",
        r#"{"error":{"message":"capacity_exceeded"}}"#,
        Verdict::RateLimited(RateLimited {
            cause: Cause::Congestion,
            ..RateLimited::default()
        }),
    );
}
