//! How long a client will wait: what it says itself, or what its SDK says for it.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::config::duration;
use crate::provider::ErrorReply;

/// Longest wait in seconds: a number, or a length of time such as `2m`.
const MAX_WAIT: HeaderName = HeaderName::from_static("x-tidegate-max-wait");

/// The timeouts of the official SDKs in seconds: of OpenAI's, Anthropic's and Groq's for Python, of the same for Node, and
/// of Google's, which sends one if it is set. Cohere's and Mistral's do not tell theirs (providers.md §13).
const SDK_TIMEOUTS: [HeaderName; 3] = [
    HeaderName::from_static("x-stainless-read-timeout"),
    HeaderName::from_static("x-stainless-timeout"),
    HeaderName::from_static("x-server-timeout"),
];

/// The part of an SDK's timeout that is kept for the answer's way back, and its least.
const MARGIN_DIVISOR: u32 = 10;
const MARGIN_MIN: Duration = Duration::from_secs(1);

/// Longer than anybody waits; keeps sums of times far from overflow.
const WAIT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a client says that it will wait, itself and by its SDK.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Patience {
    asked: Option<Duration>,
    /// The shortest timeout of its SDK.
    sdk: Option<Duration>,
}

impl Patience {
    /// Reads what the headers say.
    ///
    /// # Errors
    ///
    /// Returns the answer for a `x-tidegate-max-wait` that cannot be read: whoever sets it relies on it. An SDK's header
    /// that cannot be read counts as absent.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ErrorReply> {
        let asked = headers.get(MAX_WAIT).map(|value| {
            value.to_str().ok().and_then(read).ok_or_else(|| {
                ErrorReply::bad_request(
                    "x-tidegate-max-wait must be a number of seconds or a length of time such as \"90s\" or \"2m\"",
                )
            })
        });
        let timeout = |name: &HeaderName| headers.get(name)?.to_str().ok().and_then(read);
        Ok(Self {
            asked: asked.transpose()?,
            sdk: SDK_TIMEOUTS.iter().filter_map(timeout).min(),
        })
    }

    /// Returns how long the request may wait, `wait_max` at most. A client that gets a byte every `keepalive` does not time
    /// out, if its SDK waits for longer than that.
    pub(super) fn wait(&self, wait_max: Duration, keepalive: Option<Duration>) -> Duration {
        let mut wait = wait_max.min(WAIT_MAX);
        if let Some(asked) = self.asked {
            wait = wait.min(asked);
        }
        let is_kept = |timeout| keepalive.is_some_and(|interval| less_margin(timeout) > interval);
        if let Some(timeout) = self.sdk.filter(|timeout| !is_kept(*timeout)) {
            wait = wait.min(less_margin(timeout));
        }
        wait
    }
}

/// A tenth is kept for the way back, a second at least, and never more than half.
fn less_margin(timeout: Duration) -> Duration {
    let margin = (timeout / MARGIN_DIVISOR).max(MARGIN_MIN).min(timeout / 2);
    timeout.saturating_sub(margin)
}

fn read(text: &str) -> Option<Duration> {
    let text = text.trim();
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds)
            .ok()
            .map(|wait| wait.min(WAIT_MAX)),
        Err(_) => duration::parse(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_patience_counts() {
        let check = |lines: &[(&'static str, &'static str)], expect_ms: Option<u64>| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.insert(*name, http::HeaderValue::from_static(value));
            }
            let patience = Patience::of(&headers);
            let wait = patience.map(|patience| patience.wait(Duration::from_secs(600), None));
            assert_eq!(wait.ok(), expect_ms.map(Duration::from_millis), "{lines:?}");
        };
        check(&[], Some(600_000));
        check(&[("x-tidegate-max-wait", "5")], Some(5_000));
        check(&[("x-tidegate-max-wait", "0.25")], Some(250));
        check(&[("x-tidegate-max-wait", "2m")], Some(120_000));
        check(&[("x-tidegate-max-wait", "0")], Some(0));
        check(&[("x-tidegate-max-wait", "1e300")], None);
        check(&[("x-tidegate-max-wait", "9999999")], Some(600_000));
        for bad in ["", "-1", "NaN", "inf", "soon", "1 day"] {
            check(&[("x-tidegate-max-wait", bad)], None);
            check(&[("x-stainless-read-timeout", bad)], Some(600_000));
        }
        check(&[("x-stainless-read-timeout", "600")], Some(540_000));
        check(&[("x-stainless-read-timeout", "600.0")], Some(540_000));
        check(&[("x-stainless-read-timeout", "5")], Some(4_000));
        check(&[("x-stainless-read-timeout", "1")], Some(500));
        check(&[("x-stainless-read-timeout", "59.5")], Some(53_550));
        check(&[("x-stainless-read-timeout", "None")], Some(600_000));
        check(&[("x-stainless-timeout", "60")], Some(54_000));
        // Node's whole seconds of a timeout below one.
        check(&[("x-stainless-timeout", "0")], Some(0));
        check(&[("x-server-timeout", "30")], Some(27_000));
        check(
            &[("x-stainless-read-timeout", "600"), ("x-stainless-timeout", "60")],
            Some(54_000),
        );
        check(
            &[("x-tidegate-max-wait", "10"), ("x-stainless-read-timeout", "600")],
            Some(10_000),
        );
    }

    #[test]
    fn a_client_that_is_kept_alive_does_not_time_out() {
        let patience = Patience {
            asked: None,
            sdk: Some(Duration::from_secs(30)),
        };
        let wait = |keepalive| patience.wait(Duration::from_secs(600), keepalive).as_secs();
        assert_eq!(wait(None), 27);
        assert_eq!(wait(Some(Duration::from_secs(15))), 600);
        assert_eq!(
            wait(Some(Duration::from_secs(28))),
            27,
            "a comment would come too late"
        );
        let asked = Patience {
            asked: Some(Duration::from_secs(5)),
            ..patience
        };
        assert_eq!(
            asked
                .wait(Duration::from_secs(600), Some(Duration::from_secs(1)))
                .as_secs(),
            5
        );
    }
}
