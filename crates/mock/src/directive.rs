use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;

use crate::settings::Fault;

/// What a request asks the mock to do; see the table in the crate's documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Directives {
    pub(crate) fault: Option<Fault>,
    pub(crate) trouble: Option<Trouble>,
    pub(crate) delay: Duration,
    pub(crate) output_tokens: Option<u64>,
    pub(crate) cached_tokens: u64,
    /// A field of the body that the provider does not know.
    pub(crate) rejected: Option<&'static str>,
}

/// Refusals that no limit here is the reason of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No credit or budget is left (OpenAI's `insufficient_quota`).
    Quota,
    /// A spend limit is reached.
    Spend,
    /// No balance is left: 402.
    Balance,
    /// The model is not on the plan: its limit is 0.
    LimitZero,
    /// Others use the provider up: not this account's quota.
    Capacity,
    /// "Slow Down": the rate grew too fast (OpenAI).
    SlowDown,
    /// The provider behind the provider refuses; the status is 200 (OpenRouter).
    Upstream,
}

/// The longest delay that can be asked for.
const DELAY_MAX_MS: u64 = 3_600_000;

impl Directives {
    /// Reads the headers `x-mock-…`.
    ///
    /// # Errors
    ///
    /// Returns what is wrong: a directive that is silently ignored would make a test pass for nothing.
    pub(crate) fn read_headers(&mut self, headers: &HeaderMap) -> Result<(), String> {
        for (name, value) in headers {
            if let Some(name) = name.as_str().strip_prefix("x-mock-") {
                self.set(name, &String::from_utf8_lossy(value.as_bytes()))?;
            }
        }
        Ok(())
    }

    /// Reads the object `x_mock` of a request's body.
    ///
    /// # Errors
    ///
    /// Returns what is wrong.
    pub(crate) fn read_body(&mut self, value: &Value) -> Result<(), String> {
        let Value::Object(entries) = value else {
            return Err("x_mock must be an object".to_owned());
        };
        entries.iter().try_for_each(|(name, value)| match value {
            Value::String(text) => self.set(&name.replace('_', "-"), text),
            other => self.set(&name.replace('_', "-"), &other.to_string()),
        })
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let wrong = || format!("x-mock-{name}: the value `{value}` is not known");
        let number = || value.parse::<u64>().map_err(|_| wrong());
        match (name, value) {
            ("status", _) => {
                let status = value
                    .parse()
                    .ok()
                    .filter(|status| (400..600).contains(status))
                    .ok_or_else(wrong)?;
                self.fault = Some(Fault::Status(status));
            }
            ("stall", "head") => self.fault = Some(Fault::StallBeforeHead),
            ("stall", "stream") => self.fault = Some(Fault::StallMidStream),
            ("reset", "head") => self.fault = Some(Fault::ResetBeforeHead),
            ("reset", "stream") => self.fault = Some(Fault::ResetMidStream),
            ("error", _) => {
                self.trouble = Some(match value {
                    "insufficient_quota" => Trouble::Quota,
                    "spend_limit" => Trouble::Spend,
                    "balance" => Trouble::Balance,
                    "limit_zero" => Trouble::LimitZero,
                    "capacity" => Trouble::Capacity,
                    "slow_down" => Trouble::SlowDown,
                    "upstream" => Trouble::Upstream,
                    _ => return Err(wrong()),
                });
            }
            ("delay", _) => self.delay = Duration::from_millis(number()?.min(DELAY_MAX_MS)),
            ("output-tokens", _) => self.output_tokens = Some(number()?),
            ("cached-tokens", _) => self.cached_tokens = number()?,
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_from_both_places() {
        let mut directives = Directives::default();
        let mut headers = HeaderMap::new();
        headers.insert("x-mock-delay", "250".parse().unwrap());
        headers.insert("x-mock-stall", "stream".parse().unwrap());
        directives.read_headers(&headers).unwrap();
        let body = serde_json::json!({"output_tokens": 7, "error": "spend_limit", "cached-tokens": "3"});
        directives.read_body(&body).unwrap();
        let expect = Directives {
            fault: Some(Fault::StallMidStream),
            trouble: Some(Trouble::Spend),
            delay: Duration::from_millis(250),
            output_tokens: Some(7),
            cached_tokens: 3,
            rejected: None,
        };
        assert_eq!(directives, expect);
    }

    #[test]
    fn unknown_directives_are_refused() {
        for (name, value) in [
            ("status", "200"),
            ("status", "x"),
            ("stall", "x"),
            ("foo", "1"),
            ("delay", "-1"),
        ] {
            let body = serde_json::json!({ name: value });
            assert!(Directives::default().read_body(&body).is_err(), "{name}: {value}");
        }
        assert!(Directives::default().read_body(&serde_json::json!([])).is_err());
    }
}
