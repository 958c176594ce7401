//! Where API keys are found and put.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};

/// Anthropic's header for API keys.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Where a provider expects the API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthStyle {
    /// `authorization: Bearer KEY`.
    Bearer,
    /// `x-api-key: KEY`; clients may also use `authorization: Bearer TOKEN`.
    ApiKeyHeader,
}

impl AuthStyle {
    /// Returns the key that a client sent, wherever it put it: `x-api-key` or `authorization: Bearer`.
    pub fn client_key(headers: &HeaderMap) -> Option<&str> {
        let api_key = headers.get(X_API_KEY).and_then(|value| value.to_str().ok());
        api_key
            .map(str::trim)
            .filter(|key| !key.is_empty())
            .or_else(|| bearer(headers.get(AUTHORIZATION)?.to_str().ok()?))
    }

    /// Puts the upstream's own key into a request's headers, in place of whatever key was there.
    ///
    /// # Errors
    ///
    /// Returns an error if the key holds bytes that no header may hold.
    pub fn apply(self, headers: &mut HeaderMap, key: &str) -> Result<(), InvalidHeaderValue> {
        let (name, mut value) = match self {
            Self::Bearer => (AUTHORIZATION, HeaderValue::try_from(format!("Bearer {key}"))?),
            Self::ApiKeyHeader => (X_API_KEY, HeaderValue::try_from(key)?),
        };
        value.set_sensitive(true);
        headers.remove(AUTHORIZATION);
        headers.remove(X_API_KEY);
        headers.insert(name, value);
        Ok(())
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, key) = value.trim().split_once(' ')?;
    let key = key.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_either_header() {
        for (name, value, expect) in [
            ("authorization", "Bearer sk-1", Some("sk-1")),
            ("authorization", "bearer  sk-1 ", Some("sk-1")),
            ("authorization", "Basic sk-1", None),
            ("authorization", "Bearer ", None),
            ("authorization", "sk-1", None),
            ("x-api-key", "sk-ant-1", Some("sk-ant-1")),
            ("x-api-key", " ", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(AuthStyle::client_key(&headers), expect, "{name}: {value}");
        }
        assert_eq!(AuthStyle::client_key(&HeaderMap::new()), None);
    }

    #[test]
    fn the_upstream_key_replaces_the_clients() {
        for (style, name, value) in [
            (AuthStyle::Bearer, "authorization", "Bearer own"),
            (AuthStyle::ApiKeyHeader, "x-api-key", "own"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", HeaderValue::from_static("Bearer client"));
            headers.insert("x-api-key", HeaderValue::from_static("client"));
            style.apply(&mut headers, "own").unwrap();
            assert_eq!(headers.len(), 1);
            assert_eq!(headers[name], value);
            assert!(!format!("{headers:?}").contains("own"), "keys never print");
            assert!(style.apply(&mut headers, "a\nb").is_err());
            assert_eq!(headers[name], value, "a bad key leaves the headers alone");
        }
    }
}
