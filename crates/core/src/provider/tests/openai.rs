//! providers.md §2.2, §2.4, §2.5.

use super::*;
use crate::signal::Cause;

const DOCUMENTED: &str = "x-ratelimit-limit-requests: 60
    x-ratelimit-limit-tokens: 150000
    x-ratelimit-remaining-requests: 59
    x-ratelimit-remaining-tokens: 149984
    x-ratelimit-reset-requests: 1s
    x-ratelimit-reset-tokens: 6m0s";

const PROJECT: &str = "x-ratelimit-limit-project-tokens: 60000
    x-ratelimit-remaining-project-tokens: 57000
    x-ratelimit-reset-project-tokens: 3s";

#[test]
fn headers_of_both_limits() {
    check_readings(
        Dialect::OpenAi,
        DOCUMENTED,
        &[
            (Dimension::Requests, Some(60), Some(59), secs(1), secs(60)),
            // The documented pair does not satisfy the law of the bucket: no window follows.
            (Dimension::Tokens, Some(150_000), Some(149_984), secs(360), None),
        ],
    );
    let project = (Dimension::Tokens, Some(60_000), Some(57_000), secs(3), secs(60));
    check_readings(Dialect::OpenAi, PROJECT, &[project]);
    // Of two limits on tokens the tighter amount and the smaller remainder count.
    let requests = (Dimension::Requests, Some(60), Some(59), secs(1), secs(60));
    check_readings(
        Dialect::OpenAi,
        &format!("{DOCUMENTED}\n{PROJECT}"),
        &[requests, project],
    );
    check_readings(
        Dialect::OpenAi,
        &format!(
            "x-ratelimit-limit-tokens: 150000\nx-ratelimit-remaining-tokens: 10\nx-ratelimit-reset-tokens: 59.996s\n{PROJECT}"
        ),
        &[(
            Dimension::Tokens,
            Some(60_000),
            Some(10),
            millis(59_996),
            secs(60),
        )],
    );
}

#[test]
fn headers_that_say_little() {
    check_readings(
        Dialect::OpenAi,
        "x-ratelimit-remaining-requests: 1\nx-ratelimit-reset-requests: 1791331200",
        &[(Dimension::Requests, None, Some(1), None, None)],
    );
    // An imitator's fixed window, at whose end it is whole: the law of the bucket would make it a day.
    check_readings(
        Dialect::OpenAi,
        "x-ratelimit-limit-tokens: 100000\nx-ratelimit-remaining-tokens: 99940\nx-ratelimit-reset-tokens: 52",
        &[(Dimension::Tokens, Some(100_000), Some(99_940), secs(52), None)],
    );
    for lines in [
        "",
        "x-ratelimit-limit-requests: -1\nx-ratelimit-remaining-requests: -1\nx-ratelimit-reset-requests: 0",
        "x-ratelimit-limit-requests: lots\nx-ratelimit-remaining-requests: \nx-ratelimit-reset-requests: soon",
        "x-request-id: req_1\nopenai-organization: o\nopenai-project: p\nopenai-version: 2020-10-01",
    ] {
        check_readings(Dialect::OpenAi, lines, &[]);
    }
    let processing = headers("openai-processing-ms: 644");
    assert_eq!(Dialect::OpenAi.processing(&processing), millis(644));
    assert_eq!(Dialect::Anthropic.processing(&processing), None);
}

/// The triples of limit, remaining and reset that were observed (§2.2): all obey `reset = (limit − remaining) × window /
/// limit`, and so tell their window. Of requests it tells which of two limits binds.
#[test]
fn observed_resets_tell_the_window() {
    let day = 86_400;
    for (kind, limit, remaining, reset, reset_millis, window) in [
        ("requests", 500, 499, "120ms", 120, 60),
        ("requests", 10_000, 9_999, "8.64s", 8_640, day),
        ("tokens", 30_000, 29_996, "8ms", 8, 60),
        ("tokens", 10_000, 9_481, "3.114s", 3_114, 60),
        ("tokens", 1_500_000, 1_495_621, "4m12.172s", 252_172, day),
        ("tokens", 1_500_000, 1_482_750, "16m33.562s", 993_562, day),
        ("tokens", 1_500_000, 43_244, "23h18m29.144s", 83_909_144, day),
    ] {
        let lines = format!(
            "x-ratelimit-limit-{kind}: {limit}\nx-ratelimit-remaining-{kind}: {remaining}\nx-ratelimit-reset-{kind}: {reset}"
        );
        let dimension = match kind {
            "requests" => Dimension::Requests,
            _ => Dimension::Tokens,
        };
        check_readings(
            Dialect::OpenAi,
            &lines,
            &[(
                dimension,
                Some(limit),
                Some(remaining),
                millis(reset_millis),
                secs(window),
            )],
        );
    }
}

/// Observations A, B and C of §2.3: limit and remaining alone.
#[test]
fn observed_charges() {
    for (limit, remaining, charge) in [
        (10_000, 9_481, 519),
        (200_000, 199_978, 22),
        (150_000_000, 149_999_990, 10),
    ] {
        let lines = format!("x-ratelimit-limit-tokens: {limit}\nx-ratelimit-remaining-tokens: {remaining}");
        let readings = Dialect::OpenAi.readings(NOW, &headers(&lines));
        let tokens = readings.reading(Dimension::Tokens).unwrap();
        assert_eq!(
            tokens.limit.unwrap().saturating_sub(tokens.remaining.unwrap()),
            Amount::new(charge)
        );
    }
}

fn body(message: &str, kind: &str, code: &str) -> String {
    format!(r#"{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":"{code}"}}}}"#)
}

/// A message of §2.2: model, unit, the three numbers, the wait, and the window as it is named and as it is.
type Message = (&'static str, &'static str, [u64; 3], &'static str, u64, u64, u64);

const DAY: u64 = 86_400;

/// All eight messages of §2.2.
const MESSAGES: [Message; 8] = [
    (
        "gpt-4",
        "tokens per min (TPM)",
        [10_000, 8_554, 3_082],
        "9.816s",
        9_816,
        60,
        60,
    ),
    (
        "gpt-4o",
        "tokens per min (TPM)",
        [30_000, 14_567, 24_754],
        "18.642s",
        18_642,
        60,
        60,
    ),
    (
        "o4-mini",
        "tokens per min (TPM)",
        [200_000, 162_960, 42_288],
        "1.574s",
        1_574,
        60,
        60,
    ),
    (
        "gpt-4o",
        "tokens per min (TPM)",
        [30_000, 29_937, 385],
        "644ms",
        644,
        60,
        60,
    ),
    (
        "gpt-4.1",
        "tokens per min (TPM)",
        [30_000, 28_039, 3_906],
        "3.89s",
        3_890,
        60,
        60,
    ),
    (
        "gpt-4.1",
        "tokens per min (TPM)",
        [30_000, 18_928, 11_159],
        "174ms",
        174,
        60,
        60,
    ),
    (
        "gpt-4o-mini-realtime",
        "requests per day (RPD)",
        [1_000, 1_000, 1],
        "1m26.4s",
        86_400,
        DAY,
        DAY,
    ),
    // The text says a minute; the numbers say 30 days.
    (
        "gpt-4o-mini",
        "tokens per min (TPM)",
        [100_000, 96_749, 19_126],
        "114h18m0s",
        411_480_000,
        60,
        30 * DAY,
    ),
];

#[test]
fn refusals_give_away_the_bucket() {
    for (model, unit, numbers, wait, wait_millis, named_secs, window_secs) in MESSAGES {
        let [limit, used, requested] = numbers;
        let message = format!(
            "Rate limit reached for {model} in organization org-x on {unit}: Limit {limit}, Used {used}, Requested \
             {requested}. Please try again in {wait}. Visit https://platform.openai.com/account/rate-limits to learn more."
        );
        let (kind, dimension) = match unit.split_once(' ') {
            Some(("tokens", _)) => ("tokens", Dimension::Tokens),
            _ => ("requests", Dimension::Requests),
        };
        let expect = RateLimited {
            dimension: Some(dimension),
            limit: amount(limit),
            used: amount(used),
            requested: amount(requested),
            named_window: secs(named_secs),
            retry_after: millis(wait_millis),
            ..RateLimited::default()
        };
        let body = body(&message, kind, "rate_limit_exceeded");
        check(Dialect::OpenAi, 429, "", &body, Verdict::RateLimited(expect));
        // A header in whole seconds does not spoil the exact wait.
        let rounded = format!("retry-after: {}", wait_millis.div_ceil(1_000));
        check(
            Dialect::OpenAi,
            429,
            &rounded,
            &body,
            Verdict::RateLimited(expect),
        );

        // The law: wait = (used + requested − limit) × window / limit, within 3 ms.
        let exact = Duration::from_micros((used + requested - limit) * window_secs * 1_000_000 / limit);
        let error = exact.abs_diff(expect.retry_after.unwrap());
        assert!(error <= Duration::from_millis(3), "{message}: {error:?}");
        // The wait is rounded to the millisecond, which the division magnifies by limit / (used + requested − limit).
        let slack = Duration::from_micros(1_000 * limit / (used + requested - limit) + 1);
        let window = expect.window().unwrap();
        assert!(
            window.abs_diff(Duration::from_secs(window_secs)) <= slack,
            "{message}: {window:?}"
        );
    }
}

/// The units of §2.5, of which images and seconds of audio are no dimension here.
#[test]
fn units_name_their_window() {
    for (unit, dimension, window_secs) in [
        ("RPM", Some(Dimension::Requests), 60),
        ("RPD", Some(Dimension::Requests), 86_400),
        ("TPM", Some(Dimension::Tokens), 60),
        ("TPD", Some(Dimension::Tokens), 86_400),
        ("IPM", None, 60),
        ("ASH", None, 3_600),
        ("ASD", None, 86_400),
        ("ITPM", Some(Dimension::InputTokens), 60),
        ("OTPM", Some(Dimension::OutputTokens), 60),
    ] {
        let message =
            format!("Rate limit reached on x ({unit}): Limit 10, Used 9, Requested 2. Please try again");
        check(
            Dialect::OpenAi,
            429,
            "",
            &body(&message, "", "rate_limit_exceeded"),
            Verdict::RateLimited(RateLimited {
                dimension,
                named_window: secs(window_secs),
                limit: amount(10),
                used: amount(9),
                requested: amount(2),
                ..RateLimited::default()
            }),
        );
    }
}

#[test]
fn requests_that_never_fit() {
    let message = "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 30601. The \
         input or output tokens must be reduced in order to run successfully. Visit https://x";
    let numbers = RateLimited {
        dimension: Some(Dimension::Tokens),
        named_window: secs(60),
        limit: amount(30_000),
        requested: amount(30_601),
        ..RateLimited::default()
    };
    let too_large = body(message, "tokens", "rate_limit_exceeded");
    check(Dialect::OpenAi, 429, "", &too_large, Verdict::TooLarge(numbers));
    check(
        Dialect::OpenAi,
        429,
        "x-should-retry: false",
        &too_large,
        Verdict::TooLarge(numbers),
    );
    check(
        Dialect::OpenAi,
        429,
        "",
        &body("Request too large.", "requests", ""),
        Verdict::TooLarge(RateLimited {
            dimension: Some(Dimension::Requests),
            ..RateLimited::default()
        }),
    );
}

#[test]
fn quota_that_is_spent() {
    let quota = body(
        "You exceeded your current quota, please check your plan and billing details. For more information on this error, \
         read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
        "insufficient_quota",
        "insufficient_quota",
    );
    let zero = body(
        "Rate limit reached for m in organization org-x on requests per min (RPM): Limit 0, Used 0, Requested 1.",
        "requests",
        "rate_limit_exceeded",
    );
    for (lines, body) in [
        ("", &*quota),
        ("retry-after: 9", &quota),
        ("", &body("m", "", "billing_not_active")),
        ("", &body("m", "billing_hard_limit_reached", "")),
        ("", &zero),
        ("x-ratelimit-limit-requests: 0", ""),
        ("x-should-retry: false", ""),
    ] {
        check(Dialect::OpenAi, 429, lines, body, SPENT);
    }
}

#[test]
fn refusals_without_numbers() {
    let resets = "x-ratelimit-limit-tokens: 10\nx-ratelimit-remaining-tokens: 0\nx-ratelimit-reset-tokens: 7s\n\
        x-ratelimit-limit-requests: 10\nx-ratelimit-remaining-requests: 5\nx-ratelimit-reset-requests: 30s";
    let requests = r#"{"error":{"type":"requests"}}"#;
    for (lines, body, dimension, retry_after) in [
        ("", "", None, None),
        ("", "<html>429</html>", None, None),
        // Without a wait anywhere, the limit that has nothing left tells it.
        (resets, "", None, secs(7)),
        (resets, requests, Some(Dimension::Requests), secs(30)),
        ("", requests, Some(Dimension::Requests), None),
        (
            "",
            r#"{"error":{"type":"tokens"}}"#,
            Some(Dimension::Tokens),
            None,
        ),
    ] {
        let limited = RateLimited {
            dimension,
            retry_after,
            ..RateLimited::default()
        };
        check(Dialect::OpenAi, 429, lines, body, Verdict::RateLimited(limited));
    }
}

/// §2.5 "Overload", and vLLM's full queue (§12), which only has its status.
#[test]
fn overload_and_congestion() {
    let overloaded = Verdict::Overloaded { retry_after: None };
    let congested = Verdict::RateLimited(RateLimited {
        cause: Cause::Congestion,
        steady: secs(900),
        ..RateLimited::default()
    });
    let unavailable = body("Resource Unavailable", "", "resource_unavailable");
    for (status, body, expect) in [
        (
            503,
            "The engine is currently overloaded, please try again later",
            overloaded,
        ),
        (
            503,
            &body(
                "The engine is currently overloaded, please try again later",
                "",
                "",
            ),
            overloaded,
        ),
        (503, &body("m", "", "server_is_overloaded"), overloaded),
        (500, &body("m", "", "server_is_overloaded"), overloaded),
        (503, &body("The request queue is full", "", "503"), overloaded),
        (503, "Slow Down", congested),
        (503, &body("Slow Down", "", ""), congested),
        (503, &body("m", "", "slow_down"), congested),
        // The flex tier.
        (429, &unavailable, overloaded),
        (429, "Resource Unavailable", overloaded),
    ] {
        check(Dialect::OpenAi, status, "", body, expect);
    }
    check(
        Dialect::OpenAi,
        503,
        "retry-after: 900",
        "Slow Down",
        Verdict::RateLimited(RateLimited {
            cause: Cause::Congestion,
            retry_after: secs(900),
            steady: secs(900),
            ..RateLimited::default()
        }),
    );
}
