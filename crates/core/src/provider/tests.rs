//! Every sample header, message and body of providers.md §2.2, §2.4, §2.5, §4.4 and §4.5.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::signal::{RateLimited, Reading};
use crate::units::{Amount, Dimension};

/// 2025-06-02T15:15:32Z.
const NOW: Timestamp = Timestamp::from_secs(1_748_877_332);

struct Map(Vec<(String, String)>);

impl Headers for Map {
    fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(own, _)| own == name)?;
        Some(&found.1)
    }
}

/// Makes headers from lines of `name: value`.
fn headers(lines: &str) -> Map {
    let pair = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().into(), value.trim().into()))
    };
    Map(lines.lines().filter_map(pair).collect())
}

fn millis(value: u64) -> Option<Duration> {
    Some(Duration::from_millis(value))
}

fn read(
    dialect: Dialect,
    lines: &str,
    dimension: Dimension,
) -> Option<(Option<u64>, Option<u64>, Option<Duration>)> {
    let readings = dialect.readings(NOW, &headers(lines));
    let reading = readings.reading(dimension)?;
    Some((
        reading.limit.map(Amount::value),
        reading.remaining.map(Amount::value),
        reading.reset,
    ))
}

#[test]
fn openai_headers() {
    let documented = "x-ratelimit-limit-requests: 60\nx-ratelimit-limit-tokens: 150000\n\
        x-ratelimit-remaining-requests: 59\nx-ratelimit-remaining-tokens: 149984\n\
        x-ratelimit-reset-requests: 1s\nx-ratelimit-reset-tokens: 6m0s";
    let project = "x-ratelimit-limit-project-tokens: 60000\nx-ratelimit-remaining-project-tokens: 57000\n\
        x-ratelimit-reset-project-tokens: 3s";
    let both = format!("{documented}\n{project}");
    let spent_organization = format!(
        "x-ratelimit-limit-tokens: 150000\nx-ratelimit-remaining-tokens: 10\nx-ratelimit-reset-tokens: 59.996s\n{project}"
    );
    let azure = "x-ratelimit-limit-requests: 8\nx-ratelimit-limit-tokens: 8000\nx-ratelimit-remaining-requests: 7\n\
        x-ratelimit-remaining-tokens: 1014\nx-ratelimit-reset-requests: 10\nx-ratelimit-reset-tokens: 300";
    let unknown =
        "x-ratelimit-limit-requests: -1\nx-ratelimit-remaining-requests: -1\nx-ratelimit-reset-requests: 0";
    let moment = "x-ratelimit-remaining-requests: 1\nx-ratelimit-reset-requests: 1791331200";
    let garbage = "x-ratelimit-limit-requests: lots\nx-ratelimit-remaining-requests: \nx-ratelimit-reset-requests: soon";
    for (lines, dimension, expect) in [
        (
            documented,
            Dimension::Requests,
            Some((Some(60), Some(59), millis(1_000))),
        ),
        (
            documented,
            Dimension::Tokens,
            Some((Some(150_000), Some(149_984), millis(360_000))),
        ),
        (documented, Dimension::InputTokens, None),
        (
            project,
            Dimension::Tokens,
            Some((Some(60_000), Some(57_000), millis(3_000))),
        ),
        (
            &both,
            Dimension::Tokens,
            Some((Some(60_000), Some(57_000), millis(3_000))),
        ),
        (
            &spent_organization,
            Dimension::Tokens,
            Some((Some(60_000), Some(10), millis(59_996))),
        ),
        (
            azure,
            Dimension::Requests,
            Some((Some(8), Some(7), millis(10_000))),
        ),
        (
            azure,
            Dimension::Tokens,
            Some((Some(8_000), Some(1_014), millis(300_000))),
        ),
        (unknown, Dimension::Requests, None),
        (moment, Dimension::Requests, Some((None, Some(1), None))),
        (garbage, Dimension::Requests, None),
    ] {
        assert_eq!(
            read(Dialect::OpenAi, lines, dimension),
            expect,
            "{lines}\n{dimension}"
        );
    }
    let processing = headers("openai-processing-ms: 644");
    assert_eq!(Dialect::OpenAi.processing(&processing), millis(644));
    assert_eq!(Dialect::Anthropic.processing(&processing), None);
}

/// The pairs of limit, remaining and reset that were observed: all obey `reset = (limit − remaining) × window / limit`.
#[test]
fn openai_resets_are_times_until_full() {
    for (limit, remaining, reset, window_secs) in [
        (500, 499, "120ms", 60_u64),
        (10_000, 9_999, "8.64s", 86_400),
        (30_000, 29_996, "8ms", 60),
        (10_000, 9_481, "3.114s", 60),
        (1_500_000, 1_495_621, "4m12.172s", 86_400),
        (1_500_000, 1_482_750, "16m33.562s", 86_400),
        (1_500_000, 43_244, "23h18m29.144s", 86_400),
    ] {
        let lines = format!(
            "x-ratelimit-limit-tokens: {limit}\nx-ratelimit-remaining-tokens: {remaining}\nx-ratelimit-reset-tokens: {reset}"
        );
        let (_, _, read) = read(Dialect::OpenAi, &lines, Dimension::Tokens).expect("headers are complete");
        let full_micros = (limit - remaining) * window_secs * 1_000_000 / limit;
        let token_micros = window_secs * 1_000_000 / limit;
        let error = read
            .expect("resets are readable")
            .abs_diff(Duration::from_micros(full_micros));
        assert!(
            error <= Duration::from_micros(token_micros + 1_000),
            "{reset}: {error:?}"
        );
    }
}

#[test]
fn anthropic_headers() {
    let sample = "x-should-retry: true\nretry-after: 16\n\
        anthropic-ratelimit-input-tokens-limit: 200000\nanthropic-ratelimit-input-tokens-remaining: 0\n\
        anthropic-ratelimit-input-tokens-reset: 2025-06-02T15:15:48Z\n\
        anthropic-ratelimit-output-tokens-limit: 80000\nanthropic-ratelimit-output-tokens-remaining: 80000\n\
        anthropic-ratelimit-output-tokens-reset: 2025-06-02T15:14:45Z\n\
        anthropic-ratelimit-requests-limit: 4000\nanthropic-ratelimit-requests-remaining: 4000\n\
        anthropic-ratelimit-requests-reset: 2025-06-02T15:14:45Z";
    let summed = format!(
        "{sample}\nanthropic-ratelimit-tokens-limit: 280000\nanthropic-ratelimit-tokens-remaining: 80000\n\
         anthropic-ratelimit-tokens-reset: 2025-06-02T15:14:45Z"
    );
    let workspace = summed.replace("280000", "100000");
    for (lines, dimension, expect) in [
        (
            sample,
            Dimension::Requests,
            Some((Some(4_000), Some(4_000), millis(0))),
        ),
        (
            sample,
            Dimension::InputTokens,
            Some((Some(200_000), Some(0), millis(16_000))),
        ),
        (
            sample,
            Dimension::OutputTokens,
            Some((Some(80_000), Some(80_000), millis(0))),
        ),
        (sample, Dimension::Tokens, None),
        (&summed, Dimension::Tokens, None),
        (
            &workspace,
            Dimension::Tokens,
            Some((Some(100_000), Some(80_000), millis(0))),
        ),
    ] {
        assert_eq!(
            read(Dialect::Anthropic, lines, dimension),
            expect,
            "{lines}\n{dimension}"
        );
    }
    let readings = Dialect::Anthropic.readings(NOW, &headers(&workspace));
    let rounding = |dimension| {
        readings
            .reading(dimension)
            .map(|reading: &Reading| reading.rounding.value())
    };
    assert_eq!(rounding(Dimension::Requests), Some(0));
    for dimension in [Dimension::InputTokens, Dimension::OutputTokens, Dimension::Tokens] {
        assert_eq!(rounding(dimension), Some(1_000));
    }
}

fn openai_body(message: &str, kind: &str, code: &str) -> String {
    format!(r#"{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":"{code}"}}}}"#)
}

fn limited(dimension: Dimension, numbers: [u64; 3], wait_millis: u64) -> Verdict {
    let [limit, used, requested] = numbers.map(|number| Some(Amount::new(number)));
    Verdict::RateLimited(RateLimited {
        dimension: Some(dimension),
        limit,
        used,
        requested,
        retry_after: millis(wait_millis),
        ..RateLimited::default()
    })
}

#[test]
fn openai_refusals_give_away_the_bucket() {
    let day = 86_400;
    for (model, unit, numbers, wait, wait_millis, window_secs) in [
        (
            "gpt-4",
            "tokens per min (TPM)",
            [10_000, 8_554, 3_082],
            "9.816s",
            9_816,
            60,
        ),
        (
            "gpt-4o",
            "tokens per min (TPM)",
            [30_000, 14_567, 24_754],
            "18.642s",
            18_642,
            60,
        ),
        (
            "o4-mini",
            "tokens per min (TPM)",
            [200_000, 162_960, 42_288],
            "1.574s",
            1_574,
            60,
        ),
        (
            "gpt-4o",
            "tokens per min (TPM)",
            [30_000, 29_937, 385],
            "644ms",
            644,
            60,
        ),
        (
            "gpt-4.1",
            "tokens per min (TPM)",
            [30_000, 28_039, 3_906],
            "3.89s",
            3_890,
            60,
        ),
        (
            "gpt-4.1",
            "tokens per min (TPM)",
            [30_000, 18_928, 11_159],
            "174ms",
            174,
            60,
        ),
        (
            "gpt-4o-mini-realtime",
            "requests per day (RPD)",
            [1_000, 1_000, 1],
            "1m26.4s",
            86_400,
            day,
        ),
        (
            "gpt-4o-mini",
            "tokens per min (TPM)",
            [100_000, 96_749, 19_126],
            "114h18m0s",
            411_480_000,
            30 * day,
        ),
    ] {
        let [limit, used, requested] = numbers;
        let message = format!(
            "Rate limit reached for {model} in organization org-x on {unit}: Limit {limit}, Used {used}, Requested \
             {requested}. Please try again in {wait}. Visit https://platform.openai.com/account/rate-limits to learn more."
        );
        let dimension = if unit.starts_with("tokens") {
            Dimension::Tokens
        } else {
            Dimension::Requests
        };
        let kind = if unit.starts_with("tokens") {
            "tokens"
        } else {
            "requests"
        };
        let body = openai_body(&message, kind, "rate_limit_exceeded");
        let expect = limited(dimension, numbers, wait_millis);
        assert_eq!(
            Dialect::OpenAi.classify(NOW, 429, &headers(""), body.as_bytes()),
            expect,
            "{body}"
        );

        // A header in whole seconds does not spoil the exact wait.
        let rounded = headers(&format!("retry-after: {}", wait_millis.div_ceil(1_000)));
        let verdict = Dialect::OpenAi.classify(NOW, 429, &rounded, body.as_bytes());
        assert_eq!(verdict, expect);
        let Verdict::RateLimited(limited) = verdict else {
            unreachable!("compared above")
        };
        let window = limited.window().expect("all numbers are there");
        // The wait is rounded to the millisecond, which the division magnifies by limit / (used + requested − limit).
        let slack = Duration::from_micros(1_000 * limit / (used + requested - limit) + 1);
        assert!(
            window.abs_diff(Duration::from_secs(window_secs)) <= slack,
            "{message}: {window:?}"
        );
    }
}

#[test]
fn openai_verdicts() {
    let too_large = openai_body(
        "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 30601. The \
         input or output tokens must be reduced in order to run successfully. Visit https://x",
        "tokens",
        "rate_limit_exceeded",
    );
    let quota = openai_body(
        "You exceeded your current quota, please check your plan and billing details. For more information on this error, \
         read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
        "insufficient_quota",
        "insufficient_quota",
    );
    let groq = openai_body(
        "Rate limit reached for model `m` in organization `org_x` service tier `on_demand` on tokens per minute (TPM): \
         Limit 15000, Used 11972, Requested 4351. Please try again in 5.289s. Need more tokens?",
        "tokens",
        "rate_limit_exceeded",
    );
    let zero = openai_body(
        "Rate limit reached for m in organization org-x on requests per min (RPM): Limit 0, Used 0, Requested 1.",
        "requests",
        "rate_limit_exceeded",
    );
    let azure = r#"{"error":{"code":"429","message": "Rate limit is exceeded. Try again in 2 seconds."}}"#;
    let azure_tokens = r#"{"error":{"code":"429","message":"Your requests to gpt-5.1 for gpt-5.1 in East US 2 have exceeded the token rate limit for your current AIServices S0 pricing tier. Please retry after 60 seconds. Please contact"}}"#;
    let mistral = r#"{"object":"error","message":"Rate limit exceeded","type":"rate_limited","param":null,"code":"1300","raw_status_code":429}"#;
    let openrouter =
        r#"{"error":{"message":"Rate limit exceeded: free-models-per-day. Add 10 credits","code":429}}"#;
    let billing = openai_body("m", "billing_not_active", "billing_hard_limit_reached");
    let flex = openai_body("Resource Unavailable", "", "resource_unavailable");
    let resets = "x-ratelimit-limit-tokens: 10\nx-ratelimit-remaining-tokens: 0\nx-ratelimit-reset-tokens: 7s\n\
        x-ratelimit-limit-requests: 10\nx-ratelimit-remaining-requests: 5\nx-ratelimit-reset-requests: 30s";
    let bare = |retry_after| {
        Verdict::RateLimited(RateLimited {
            retry_after,
            ..RateLimited::default()
        })
    };
    let of = |dimension, retry_after| {
        Verdict::RateLimited(RateLimited {
            dimension: Some(dimension),
            retry_after,
            ..RateLimited::default()
        })
    };
    let overloaded = |retry_after| Verdict::Overloaded { retry_after };
    for (status, lines, body, expect) in [
        (429, "", &*too_large, HOPELESS),
        (429, "", &quota, HOPELESS),
        (429, "", &billing, HOPELESS),
        (429, "", &zero, HOPELESS),
        (429, "", openrouter, HOPELESS),
        (429, "x-ratelimit-limit-req-minute: 0", mistral, HOPELESS),
        (429, "x-should-retry: false", "", HOPELESS),
        (
            429,
            "",
            &groq,
            limited(Dimension::Tokens, [15_000, 11_972, 4_351], 5_289),
        ),
        (429, "", azure, bare(millis(2_000))),
        (429, "", azure_tokens, of(Dimension::Tokens, millis(60_000))),
        (429, "", mistral, bare(None)),
        (429, "", "", bare(None)),
        (429, "", "<html>429</html>", bare(None)),
        (
            429,
            "retry-after-ms: 1500\nretry-after: 9",
            "",
            bare(millis(1_500)),
        ),
        (429, "retry-after: 2.5", "", bare(millis(2_500))),
        (
            429,
            "retry-after: Mon, 02 Jun 2025 15:15:48 GMT",
            "",
            bare(millis(16_000)),
        ),
        (429, "retry-after: -1", "", bare(None)),
        (429, "retry-after: 9", azure, bare(millis(9_000))),
        (429, resets, "", bare(millis(7_000))),
        (
            429,
            resets,
            r#"{"error":{"type":"requests"}}"#,
            of(Dimension::Requests, millis(30_000)),
        ),
        (429, "", &flex, overloaded(None)),
        (
            503,
            "",
            "The engine is currently overloaded, please try again later",
            overloaded(None),
        ),
        (503, "", "Slow Down", overloaded(None)),
        (503, "retry-after: 3", "", overloaded(millis(3_000))),
        (529, "", "", overloaded(None)),
        (408, "", "", Verdict::Transient),
        (500, "", "", Verdict::Transient),
        (502, "", "", Verdict::Transient),
        (504, "", "", Verdict::Transient),
        (520, "", "", Verdict::Transient),
        (501, "", "", Verdict::ClientError),
        (400, "", "", Verdict::ClientError),
        (401, "", "", Verdict::ClientError),
        (409, "", "", Verdict::ClientError),
        (413, "x-should-retry: false", &groq, Verdict::ClientError),
        (422, "", "", Verdict::ClientError),
        (200, "", "", Verdict::Success),
        (204, "", "", Verdict::Success),
        (307, "", "", Verdict::Success),
        (0, "", "", Verdict::Success),
        (u16::MAX, "", "", Verdict::ClientError),
    ] {
        assert_eq!(
            Dialect::OpenAi.classify(NOW, status, &headers(lines), body.as_bytes()),
            expect,
            "{status}\n{lines}\n{body}"
        );
    }
}

#[test]
fn anthropic_verdicts() {
    let body = |kind: &str, message: &str| {
        format!(
            r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}},"request_id":"req_1"}}"#
        )
    };
    let input = body(
        "rate_limit_error",
        "This request would exceed your organization's rate limit of 30,000 input tokens per minute (org: x, model: \
         claude-sonnet-4-20250514). For details, refer to: https://docs.claude.com/en/api/rate-limits. You can see the \
         response headers for current usage. Please reduce the prompt length or the maximum tokens requested, or try \
         again later.",
    );
    let output = input.replace("30,000 input", "8,000 output");
    let requests = input.replace("30,000 input tokens", "50 requests");
    let none = input.replace("30,000 input", "0 input");
    let acceleration = body(
        "rate_limit_error",
        "This request would exceed your organization's maximum usage increase rate for input tokens per minute (org: x, \
         model: y). Your current limit is 58,276 input tokens per minute, and will increase to 68,276 at the next minute \
         boundary. Please scale up your input tokens usage more gradually to stay within the acceleration limit.",
    );
    let connections = body(
        "rate_limit_error",
        "Number of concurrent connections has exceeded your rate limit. Please try again later or contact sales",
    );
    let spend = r#"{"type":"error","error":{"type":"rate_limit_error","message":"You have reached your API usage limits: x","details":{"error_code":"enforced_spend_limit_reached"}}}"#;
    let spend_text = body("rate_limit_error", "You have reached your API usage limits: x");
    let own_spend = body(
        "invalid_request_error",
        "You have reached your specified API usage limits",
    );
    let overloaded_body = body("overloaded_error", "Overloaded");
    let of = |dimension, limit: Option<u64>, retry_after| {
        Verdict::RateLimited(RateLimited {
            dimension,
            limit: limit.map(Amount::new),
            retry_after,
            ..RateLimited::default()
        })
    };
    let overloaded = |retry_after| Verdict::Overloaded { retry_after };
    let resets = "anthropic-ratelimit-input-tokens-limit: 200000\nanthropic-ratelimit-input-tokens-remaining: 0\n\
        anthropic-ratelimit-input-tokens-reset: 2025-06-02T15:15:48Z";
    for (status, lines, body, expect) in [
        (
            429,
            "retry-after: 16",
            &*input,
            of(Some(Dimension::InputTokens), Some(30_000), millis(16_000)),
        ),
        (
            429,
            resets,
            &input,
            of(Some(Dimension::InputTokens), Some(30_000), millis(16_000)),
        ),
        (429, resets, "", of(None, None, millis(16_000))),
        (
            429,
            "",
            &output,
            of(Some(Dimension::OutputTokens), Some(8_000), None),
        ),
        (429, "", &requests, of(Some(Dimension::Requests), Some(50), None)),
        (429, "", &none, HOPELESS),
        // 15:15:32 is 28 seconds before the minute.
        (
            429,
            "",
            &acceleration,
            of(Some(Dimension::InputTokens), Some(58_276), millis(28_000)),
        ),
        (
            429,
            "retry-after: 5",
            &acceleration,
            of(Some(Dimension::InputTokens), Some(58_276), millis(5_000)),
        ),
        (
            429,
            "",
            &connections,
            of(Some(Dimension::Concurrency), None, None),
        ),
        (
            429,
            "retry-after: 1",
            &connections,
            of(Some(Dimension::Concurrency), None, millis(1_000)),
        ),
        (429, "", spend, HOPELESS),
        (429, "retry-after: 9", spend, HOPELESS),
        (429, "", &spend_text, HOPELESS),
        (429, "x-should-retry: false", &input, HOPELESS),
        (400, "", &own_spend, Verdict::ClientError),
        (402, "", "", Verdict::ClientError),
        (413, "", "", Verdict::ClientError),
        (529, "", &overloaded_body, overloaded(None)),
        (529, "retry-after: 2", &overloaded_body, overloaded(millis(2_000))),
        (500, "", &overloaded_body, overloaded(None)),
        (503, "", "", overloaded(None)),
        (500, "", "", Verdict::Transient),
        (504, "", "", Verdict::Transient),
        (200, "", "", Verdict::Success),
    ] {
        assert_eq!(
            Dialect::Anthropic.classify(NOW, status, &headers(lines), body.as_bytes()),
            expect,
            "{status}\n{lines}\n{body}"
        );
    }
}

proptest! {
    #[test]
    fn nothing_panics(
        now in any::<u64>(),
        status in any::<u16>(),
        name in 0_usize..NAMES.len(),
        value in "[0-9a-zA-Z:.,µ +-]{0,40}|\\PC{0,40}",
        body in proptest::collection::vec(any::<u8>(), 0..300),
        message in "((input|output)? ?tokens per minute|\\(TPM\\): Limit |[0-9,]{1,25}|, Used |, Requested |try again in |[hms.µ\" ]){0,12}",
    ) {
        let now = Timestamp::from_micros(now);
        let headers = Map(alloc::vec![(NAMES[name].into(), value)]);
        let message = openai_body(&message, "tokens", "rate_limit_exceeded");
        for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
            let _ = dialect.readings(now, &headers);
            for status in [status, 429, 503] {
                let _ = dialect.classify(now, status, &headers, &body);
                if let Verdict::RateLimited(limited) = dialect.classify(now, status, &headers, message.as_bytes()) {
                    let _ = limited.window();
                }
            }
        }
    }
}

const NAMES: [&str; 8] = [
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-project-tokens",
    "x-ratelimit-reset-requests",
    "anthropic-ratelimit-input-tokens-limit",
    "anthropic-ratelimit-tokens-reset",
    "openai-processing-ms",
];

const HOPELESS: Verdict = Verdict::QuotaSpent { until: None };
