//! Where API keys are found and put.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};

use super::Root;
use crate::keys::OWN_PREFIX;

/// Anthropic's header for API keys.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Azure's.
const API_KEY: HeaderName = HeaderName::from_static("api-key");
/// Google's.
const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

/// The parameters of a query that hold a key or a token: Google's two ways.
const QUERY_KEYS: [&str; 2] = ["key", "access_token"];

/// Where a provider expects the API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthStyle {
    /// `authorization: Bearer KEY`.
    Bearer,
    /// `x-api-key: KEY`; clients may also use `authorization: Bearer TOKEN`.
    ApiKeyHeader,
    /// `api-key: KEY` (Azure); clients may also use `authorization: Bearer TOKEN`.
    AzureKey,
    /// `x-goog-api-key: KEY` (Gemini); clients may also use `?key=KEY`, or `authorization: Bearer TOKEN`.
    GoogleKey,
}

impl AuthStyle {
    /// Every header that holds a client's key.
    pub const HEADERS: [HeaderName; 4] = [AUTHORIZATION, X_API_KEY, API_KEY, X_GOOG_API_KEY];

    /// Returns the key that a client sent, wherever it put it: a header of any provider's, or the query.
    pub fn client_key<'a>(headers: &'a HeaderMap, query: Option<&'a str>) -> Option<&'a str> {
        let named = |name| {
            let key = headers.get(name)?.to_str().ok()?.trim();
            (!key.is_empty()).then_some(key)
        };
        [X_API_KEY, API_KEY, X_GOOG_API_KEY]
            .into_iter()
            .find_map(named)
            .or_else(|| bearer(headers.get(AUTHORIZATION)?.to_str().ok()?))
            .or_else(|| {
                let pairs = query?.split('&').filter(|pair| is_key(pair));
                let mut keys = pairs.filter_map(|pair| Some(pair.split_once('=')?.1));
                keys.find(|key| !key.is_empty())
            })
    }

    /// Returns whether a request holds a key of Tidegate's own anywhere, also beside another one.
    pub fn holds_own_key(headers: &HeaderMap, query: Option<&str>) -> bool {
        let is_own = |key: &str| key.trim().starts_with(OWN_PREFIX);
        let in_header = |name| {
            let mut texts = headers
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok());
            texts.any(|text| is_own(text) || bearer(text).is_some_and(is_own))
        };
        let in_query = |pair: &str| {
            let value = pair.split_once('=').map_or("", |(_, value)| value);
            is_key(pair) && is_own(super::operation::decoded(value).as_deref().unwrap_or(value))
        };
        Self::HEADERS.iter().any(in_header) || query.is_some_and(|query| query.split('&').any(in_query))
    }

    /// Returns a query without the keys in it; `None` if it has none.
    pub fn without_keys(query: &str) -> Option<String> {
        if !query.split('&').any(is_key) {
            return None;
        }
        let kept: Vec<_> = query.split('&').filter(|pair| !is_key(pair)).collect();
        Some(kept.join("&"))
    }

    /// Returns the style of the operations under a root: Gemini takes its key as a bearer token where it speaks
    /// OpenAI's API.
    #[must_use]
    pub fn under(self, root: Root) -> Self {
        match (self, root) {
            (Self::GoogleKey, Root::V1BetaOpenAi) => Self::Bearer,
            _ => self,
        }
    }

    /// Returns the header with the upstream's own key.
    ///
    /// # Errors
    ///
    /// Returns an error if the key holds bytes that no header may hold.
    pub fn header(self, key: &str) -> Result<(HeaderName, HeaderValue), InvalidHeaderValue> {
        let (name, mut value) = match self {
            Self::Bearer => (AUTHORIZATION, HeaderValue::try_from(format!("Bearer {key}"))?),
            Self::ApiKeyHeader => (X_API_KEY, HeaderValue::try_from(key)?),
            Self::AzureKey => (API_KEY, HeaderValue::try_from(key)?),
            Self::GoogleKey => (X_GOOG_API_KEY, HeaderValue::try_from(key)?),
        };
        value.set_sensitive(true);
        Ok((name, value))
    }
}

/// Returns whether a parameter of a query holds a key: by its name, however that is written.
fn is_key(pair: &str) -> bool {
    let name = pair.split('=').next().unwrap_or_default();
    let plain = super::operation::decoded(name);
    QUERY_KEYS.contains(&plain.as_deref().unwrap_or(name))
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
    fn keys_are_found_in_any_header_and_in_the_query() {
        for (name, value, expect) in [
            ("authorization", "Bearer sk-1", Some("sk-1")),
            ("authorization", "bearer  sk-1 ", Some("sk-1")),
            ("authorization", "Basic sk-1", None),
            ("authorization", "Bearer ", None),
            ("authorization", "sk-1", None),
            ("x-api-key", "sk-ant-1", Some("sk-ant-1")),
            ("x-api-key", " ", None),
            ("api-key", "azure", Some("azure")),
            ("x-goog-api-key", "AIza", Some("AIza")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(AuthStyle::client_key(&headers, None), expect, "{name}: {value}");
        }
        let none = HeaderMap::new();
        for (query, expect) in [
            ("key=AIza", Some("AIza")),
            ("alt=sse&key=AIza", Some("AIza")),
            ("%6Bey=AIza", Some("AIza")),
            ("access_token=ya29", Some("ya29")),
            ("key=", None),
            ("key", None),
            ("monkey=AIza", None),
        ] {
            assert_eq!(AuthStyle::client_key(&none, Some(query)), expect, "{query}");
        }
        assert_eq!(AuthStyle::client_key(&none, None), None);
    }

    #[test]
    fn keys_of_our_own_are_found_wherever_they_are() {
        for (name, value, expect) in [
            ("authorization", "Bearer tg-1", true),
            ("authorization", "bearer   tg-1", true),
            ("authorization", "tg-1", true),
            ("x-api-key", " tg-1", true),
            ("x-goog-api-key", "tg-1", true),
            ("x-api-key", "sk-tg-1", false),
            ("x-request-id", "tg-1", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("api-key", HeaderValue::from_static("sk-1"));
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            assert_eq!(
                AuthStyle::holds_own_key(&headers, None),
                expect,
                "{name}: {value}"
            );
        }
        let none = HeaderMap::new();
        for (query, expect) in [
            ("key=tg-1", true),
            ("alt=sse&access_token=%74g-1", true),
            ("key=sk-1&x=tg-1", false),
            ("key", false),
        ] {
            assert_eq!(AuthStyle::holds_own_key(&none, Some(query)), expect, "{query}");
        }
    }

    #[test]
    fn queries_lose_their_keys_and_nothing_else() {
        for (query, expect) in [
            ("alt=sse", None),
            ("", None),
            ("key=AIza", Some("")),
            ("alt=sse&key=AIza&x=%20", Some("alt=sse&x=%20")),
            ("ke%79=AIza&key&alt=sse", Some("alt=sse")),
            ("key=a&access_token=b", Some("")),
        ] {
            assert_eq!(AuthStyle::without_keys(query).as_deref(), expect, "{query}");
        }
    }

    #[test]
    fn the_upstream_key_goes_where_the_provider_expects_it() {
        for (style, name, value) in [
            (AuthStyle::Bearer, "authorization", "Bearer own"),
            (AuthStyle::ApiKeyHeader, "x-api-key", "own"),
            (AuthStyle::AzureKey, "api-key", "own"),
            (AuthStyle::GoogleKey, "x-goog-api-key", "own"),
            (
                AuthStyle::GoogleKey.under(Root::V1BetaOpenAi),
                "authorization",
                "Bearer own",
            ),
            (AuthStyle::GoogleKey.under(Root::V1Beta), "x-goog-api-key", "own"),
        ] {
            let header = style.header("own").unwrap();
            assert_eq!((header.0.as_str(), header.1.as_bytes()), (name, value.as_bytes()));
            assert!(!format!("{header:?}").contains("own"), "keys never print");
            assert!(AuthStyle::HEADERS.contains(&header.0));
            assert!(style.header("a\nb").is_err());
        }
    }
}
