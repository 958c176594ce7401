//! Every sample header, message and body of providers.md, by provider.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::signal::{RateLimited, Reading};
use crate::units::{Amount, Dimension};

mod anthropic;
mod azure;
mod bedrock;
mod events;
mod gemini;
mod groq;
mod mistral;
mod openai;
mod others;

/// 2025-06-02T15:15:32Z, when it was 08:15:32 on the US Pacific coast.
const NOW: Timestamp = Timestamp::from_secs(1_748_877_332);

const SPENT: Verdict = Verdict::QuotaSpent { until: None };

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
        Some((name.trim().to_lowercase(), value.trim().into()))
    };
    Map(lines.lines().filter_map(pair).collect())
}

fn millis(value: u64) -> Option<Duration> {
    Some(Duration::from_millis(value))
}

fn secs(value: u64) -> Option<Duration> {
    Some(Duration::from_secs(value))
}

fn amount(value: u64) -> Option<Amount> {
    Some(Amount::new(value))
}

/// A limit as it was read: its amount, what remains, the reset, and the window.
type Read = (
    Dimension,
    Option<u64>,
    Option<u64>,
    Option<Duration>,
    Option<Duration>,
);

fn check_readings(dialect: Dialect, lines: &str, expect: &[Read]) {
    let readings = dialect.readings(NOW, &headers(lines));
    let read: Vec<Read> = readings
        .iter()
        .map(|(dimension, reading)| {
            (
                dimension,
                reading.limit.map(Amount::value),
                reading.remaining.map(Amount::value),
                reading.reset,
                reading.window,
            )
        })
        .collect();
    assert_eq!(read, expect, "{dialect:?}\n{lines}");
}

fn check(dialect: Dialect, status: u16, lines: &str, body: &str, expect: Verdict) {
    assert_eq!(
        dialect.classify(NOW, status, &headers(lines), body.as_bytes()),
        expect,
        "{dialect:?} {status}\n{lines}\n{body}"
    );
}

/// Statuses that mean the same everywhere.
#[test]
fn plain_statuses() {
    for dialect in Dialect::ALL {
        for (status, expect) in [
            (0, Verdict::Success),
            (200, Verdict::Success),
            (204, Verdict::Success),
            (307, Verdict::Success),
            (400, Verdict::ClientError),
            (401, Verdict::ClientError),
            (402, SPENT),
            (403, Verdict::ClientError),
            (404, Verdict::ClientError),
            (408, Verdict::Transient),
            (409, Verdict::ClientError),
            (413, Verdict::ClientError),
            (422, Verdict::ClientError),
            (500, Verdict::Transient),
            (501, Verdict::ClientError),
            (502, Verdict::Transient),
            (503, Verdict::Overloaded { retry_after: None }),
            (504, Verdict::Transient),
            (520, Verdict::Transient),
            (529, Verdict::Overloaded { retry_after: None }),
            (u16::MAX, Verdict::ClientError),
        ] {
            check(dialect, status, "", "", expect);
        }
        check(
            dialect,
            503,
            "retry-after: 3",
            "",
            Verdict::Overloaded { retry_after: secs(3) },
        );
    }
}

/// The order of waits (providers.md §2.4): `retry-after-ms`, `retry-after` as seconds or a date, the body.
#[test]
fn stated_waits() {
    let body = r#"{"error":{"code":"429","message": "Please try again in 2 seconds."}}"#;
    for dialect in Dialect::ALL {
        for (lines, body, expect) in [
            ("retry-after-ms: 1500\nretry-after: 9", "", millis(1_500)),
            ("retry-after: 2.5", "", millis(2_500)),
            ("retry-after: 16", "", secs(16)),
            ("retry-after: Mon, 02 Jun 2025 15:15:48 GMT", "", secs(16)),
            ("retry-after: -1", "", None),
            ("retry-after: soon", "", None),
            ("retry-after: 9", body, secs(9)),
        ] {
            let verdict = dialect.classify(NOW, 429, &headers(lines), body.as_bytes());
            let Verdict::RateLimited(limited) = verdict else {
                panic!("{dialect:?} {lines}: {verdict:?}")
            };
            assert_eq!(limited.retry_after, expect, "{dialect:?} {lines}");
        }
    }
}

/// Bodies may be cut anywhere: what is left is read, and never taken for a success.
#[test]
fn cut_bodies() {
    for body in [
        r#"[{"error":{"code":429,"message":"m \u00b5\ud83d\ude00","status":"RESOURCE_EXHAUSTED","details":[{"violations":[{"quotaId":"PerMinute","quotaValue":"250000"}]},{"retryDelay":"26s"}]}}]"#,
        r#"{"error":{"message":"Rate limit reached on tokens per min (TPM): Limit 30000, Used 29937, Requested 385. Please try again in 644ms.","code":"rate_limit_exceeded"}}"#,
        r#"{"error":{"message":"free-models-per-min","code":429,"metadata":{"headers":{"X-RateLimit-Reset":"1791331200000"}}}}"#,
    ] {
        for end in 0..=body.len() {
            let cut = &body.as_bytes()[..end];
            for dialect in Dialect::ALL {
                let verdict = dialect.classify(NOW, 429, &headers(""), cut);
                assert!(
                    matches!(verdict, Verdict::RateLimited(_) | Verdict::TooLarge(_)),
                    "{dialect:?} {end}: {verdict:?}"
                );
            }
        }
    }
    // What stands beyond the bound is not looked at.
    let long = format!(
        r#"{{"error":{{"message":"{}","code":"insufficient_quota"}}}}"#,
        "x".repeat(ERROR_BODY_MAX)
    );
    check(
        Dialect::OpenAi,
        429,
        "",
        &long,
        Verdict::RateLimited(RateLimited::default()),
    );
}

proptest! {
    #[test]
    fn nothing_panics(
        now in any::<u64>(),
        status in any::<u16>(),
        names in proptest::collection::vec((0..NAMES.len(), "[0-9]{1,20}|[0-9a-zA-Z:.,µ +-]{0,40}|\\PC{0,40}"), 0..6),
        body in proptest::collection::vec(any::<u8>(), 0..300),
        message in proptest::collection::vec((0..WORDS.len(), "[0-9,]{0,25}"), 0..12),
        json in r#"([\[\]{}:,"\\]|"(error|response|metadata|quotaId|retryDelay|raw|type)":){0,40}"#,
    ) {
        let now = Timestamp::from_micros(now);
        let headers = Map(names.into_iter().map(|(name, value)| (NAMES[name].into(), value)).collect());
        let message: String = message.into_iter().map(|(word, number)| format!("{}{number}", WORDS[word])).collect();
        let told = format!(
            r#"{{"error":{{"message":"{message}","code":"rate_limit_exceeded","details":[{{"quotaId":"{message}","quotaValue":"{message}","retryDelay":"{message}","X-RateLimit-Reset":"{message}"}}]}}}}"#
        );
        for dialect in Dialect::ALL {
            for (_, reading) in dialect.readings(now, &headers).iter() {
                let _ = reading::solve_window(reading);
            }
            let _ = dialect.processing(&headers);
            for status in [status, 400, 413, 429, 498, 503] {
                for body in [&*body, told.as_bytes(), json.as_bytes()] {
                    if let Verdict::RateLimited(limited) = dialect.classify(now, status, &headers, body) {
                        let _ = limited.window();
                    }
                }
            }
        }
    }
}

const NAMES: [&str; 19] = [
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-amzn-errortype",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-remaining-project-tokens",
    "x-ratelimit-limit-req-minute",
    "x-ratelimit-remaining-req-minute",
    "x-ratelimit-reset-req-minute",
    "x-ratelimit-tokens-query-cost",
    "anthropic-ratelimit-input-tokens-limit",
    "anthropic-ratelimit-tokens-limit",
    "anthropic-ratelimit-tokens-reset",
    "openai-processing-ms",
];

const WORDS: [&str; 20] = [
    "input tokens per minute",
    " tokens per minute",
    "(TPM): Limit ",
    "(ASD): Limit ",
    ", Used ",
    ", Requested ",
    "try again in ",
    "retry after ",
    "h",
    "ms",
    "µ",
    "s. ",
    "limit: ",
    "will increase to ",
    "maximum usage increase rate",
    "Quota exceeded for ",
    "PerDay",
    "free-models-per-min",
    "limited to ",
    "per month",
];
