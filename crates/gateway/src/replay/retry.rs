//! The retries that the official SDKs make on their own.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

/// A pause that a server asks for is obeyed up to this long; a longer one means that the SDK gives up.
const ASKED_MAX: Duration = Duration::from_secs(120);
const BACKOFF_MIN: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// Jitter takes away up to this share of a backoff.
const JITTER: f64 = 0.25;

/// Retries as openai-python makes them (clients.md §1.4): on 408, 409, 429, 5xx, timeouts and connection errors unless
/// `x-should-retry` says otherwise, after `retry-after-ms`, else `retry-after`, else 0.5 s doubling to 8 s less up to a
/// quarter. A `retry-after` that is a date is taken as absent; no provider sends one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SdkRetries {
    /// Retries after the first attempt; the SDKs' default is 2, and 0 turns them off.
    pub max: u32,
}

impl SdkRetries {
    /// Returns the pause before the next attempt, or `None` if this failure is final.
    ///
    /// `retries` are the retries already made; `answer` is absent where no response came; `jitter` lies in 0..1. A
    /// server's pauses are in its own time: `scale` of its seconds are one second of the trace.
    pub fn pause(
        self,
        retries: u32,
        answer: Option<(StatusCode, &HeaderMap)>,
        jitter: f64,
        scale: f64,
    ) -> Option<Duration> {
        if retries >= self.max {
            return None;
        }
        if let Some((status, headers)) = answer {
            if !retried(status, headers) {
                return None;
            }
            if let Some(asked) = asked(headers) {
                let asked = asked * scale;
                if asked > ASKED_MAX.as_secs_f64() {
                    return None;
                }
                if asked > 0.0 {
                    return Some(Duration::from_secs_f64(asked));
                }
            }
        }
        let backoff = BACKOFF_MIN.saturating_mul(1 << retries.min(10)).min(BACKOFF_MAX);
        Some(backoff.mul_f64(1.0 - JITTER * jitter.clamp(0.0, 1.0)))
    }
}

fn retried(status: StatusCode, headers: &HeaderMap) -> bool {
    match headers.get("x-should-retry").map(http::HeaderValue::as_bytes) {
        Some(b"true") => true,
        Some(b"false") => false,
        _ => matches!(status.as_u16(), 408 | 409 | 429 | 500..),
    }
}

/// The seconds that the server asks to stay away.
fn asked(headers: &HeaderMap) -> Option<f64> {
    let number = |name: &str| {
        let value: f64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
        value.is_finite().then_some(value)
    };
    number("retry-after-ms")
        .map(|ms| ms / 1000.0)
        .or_else(|| number("retry-after"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(retries: u32, answer: Option<(u16, &[(&'static str, &'static str)])>, expect: Option<f64>) {
        let answer = answer.map(|(status, pairs)| {
            let headers: HeaderMap = pairs
                .iter()
                .map(|&(name, value)| {
                    let name = http::HeaderName::from_static(name);
                    (name, http::HeaderValue::from_static(value))
                })
                .collect();
            (StatusCode::from_u16(status).unwrap(), headers)
        });
        let answer = answer.as_ref().map(|(status, headers)| (*status, headers));
        let pause = SdkRetries { max: 20 }.pause(retries, answer, 0.0, 1.0);
        assert_eq!(pause.map(|p| p.as_secs_f64()), expect, "{retries} {answer:?}");
    }

    #[test]
    fn pauses_are_those_of_the_sdk() {
        check(0, None, Some(0.5));
        check(1, Some((429, &[])), Some(1.0));
        check(3, Some((500, &[])), Some(4.0));
        check(4, Some((529, &[])), Some(8.0));
        check(19, Some((503, &[])), Some(8.0));
        check(0, Some((408, &[])), Some(0.5));
        check(0, Some((409, &[])), Some(0.5));
        check(0, Some((400, &[])), None);
        check(0, Some((404, &[])), None);
        check(0, Some((400, &[("x-should-retry", "true")])), Some(0.5));
        check(0, Some((429, &[("x-should-retry", "false")])), None);
        check(0, Some((429, &[("x-should-retry", "perhaps")])), Some(0.5));
        check(
            0,
            Some((429, &[("retry-after-ms", "250"), ("retry-after", "9")])),
            Some(0.25),
        );
        check(0, Some((429, &[("retry-after", "9")])), Some(9.0));
        check(0, Some((429, &[("retry-after", "120")])), Some(120.0));
        check(0, Some((429, &[("retry-after", "121")])), None);
        check(0, Some((429, &[("retry-after", "0")])), Some(0.5));
        check(0, Some((429, &[("retry-after", "-3")])), Some(0.5));
        check(0, Some((429, &[("retry-after", "NaN")])), Some(0.5));
        check(0, Some((429, &[("retry-after", "soon")])), Some(0.5));
        check(20, Some((429, &[])), None);
    }

    #[test]
    fn jitter_takes_away_a_quarter_and_retries_end() {
        let retries = SdkRetries { max: 1 };
        assert_eq!(retries.pause(0, None, 1.0, 1.0), Some(Duration::from_millis(375)));
        assert_eq!(retries.pause(1, None, 1.0, 1.0), None);
        assert_eq!(SdkRetries { max: 0 }.pause(0, None, 0.0, 1.0), None);
    }

    #[test]
    fn a_servers_pause_is_read_in_the_time_of_the_trace() {
        let headers: HeaderMap = [(
            http::HeaderName::from_static("retry-after-ms"),
            http::HeaderValue::from_static("100"),
        )]
        .into_iter()
        .collect();
        let answer = Some((StatusCode::TOO_MANY_REQUESTS, &headers));
        let pause = |scale| SdkRetries { max: 2 }.pause(0, answer, 0.0, scale);
        assert_eq!(pause(12.0), Some(Duration::from_millis(1200)));
        assert_eq!(pause(1300.0), None);
    }
}
