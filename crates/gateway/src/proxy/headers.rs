//! Which headers cross the gateway. Requests are built anew from an allow-list; answers pass but for what belongs to
//! one connection only (theory.md §6.2).

use http::header::{
    ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LANGUAGE, CONTENT_TYPE,
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, PROXY_AUTHENTICATE, RANGE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};

/// Headers of requests that go upstream, beside those of [`ALLOWED_PREFIXES`].
///
/// Deliberately absent: `accept-encoding` (usage is read from the answer, so it must come uncompressed), `host`,
/// everything that belongs to the client's connection, everything by which proxies tell of each other, and cookies.
const ALLOWED: [HeaderName; 11] = [
    CONTENT_TYPE,
    ACCEPT,
    AUTHORIZATION,
    USER_AGENT,
    ACCEPT_LANGUAGE,
    CACHE_CONTROL,
    CONTENT_LANGUAGE,
    IF_MATCH,
    IF_MODIFIED_SINCE,
    IF_NONE_MATCH,
    RANGE,
];

/// Further names, which are not among HTTP's own.
const ALLOWED_NAMES: [&str; 12] = [
    "api-key",
    "baggage",
    "http-referer",
    "idempotency-key",
    "traceparent",
    "tracestate",
    "x-api-key",
    "x-client-name",
    "x-client-request-id",
    "x-request-id",
    "x-server-timeout",
    "x-title",
];

/// Beginnings of names that belong to providers and their SDKs.
const ALLOWED_PREFIXES: [&str; 11] = [
    "x-stainless-",
    "anthropic-",
    "openai-",
    "x-goog-",
    "x-vertex-ai-",
    "x-ms-",
    "groq-",
    "x-openrouter-",
    "x-fern-",
    "x-amzn-bedrock-",
    "amz-sdk-",
];

/// Headers that belong to one connection.
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The same, by names that are not among HTTP's own.
const HOP_BY_HOP_NAMES: [&str; 3] = ["keep-alive", "proxy-connection", "proxy-authentication-info"];

/// Returns the headers of a request that go upstream, with room for `extra` more.
pub(super) fn for_upstream(client: &HeaderMap, extra: usize) -> HeaderMap {
    let named = named_by_connection(client);
    let mut headers = HeaderMap::with_capacity(client.len() + extra);
    for (name, value) in client {
        if is_allowed(name) && !named.contains(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

/// Takes out of an answer's headers what belongs to the upstream's connection.
pub(super) fn for_client(headers: &mut HeaderMap) {
    // Most answers have nothing of the kind, and looking is cheaper than removing.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    let named = named_by_connection(headers);
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    for name in HOP_BY_HOP_NAMES {
        headers.remove(name);
    }
    for name in &named.0 {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name) || HOP_BY_HOP_NAMES.contains(&name.as_str())
}

fn is_allowed(name: &HeaderName) -> bool {
    if ALLOWED.contains(name) {
        return true;
    }
    let name = name.as_str();
    ALLOWED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || ALLOWED_NAMES.contains(&name)
}

/// The headers that a `connection` header names.
struct Named(Vec<HeaderName>);

impl Named {
    fn contains(&self, name: &HeaderName) -> bool {
        self.0.contains(name)
    }
}

fn named_by_connection(headers: &HeaderMap) -> Named {
    let mut named = Vec::new();
    for value in headers.get_all(CONNECTION) {
        let Ok(text) = value.to_str() else { continue };
        for token in text.split(',') {
            let token = token.trim();
            // These two name no header, and nearly every client sends one of them.
            if token.eq_ignore_ascii_case("keep-alive") || token.eq_ignore_ascii_case("close") {
                continue;
            }
            named.extend(HeaderName::try_from(token));
        }
    }
    Named(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::from_static(name),
                http::HeaderValue::from_static(value),
            );
        }
        headers
    }

    #[test]
    fn requests_are_built_from_the_allow_list() {
        let kept = [
            ("content-type", "application/json"),
            ("authorization", "Bearer k"),
            ("x-api-key", "k"),
            ("anthropic-version", "2023-06-01"),
            ("anthropic-beta", "a"),
            ("anthropic-beta", "b"),
            ("openai-organization", "org"),
            ("x-stainless-lang", "python"),
            ("x-goog-api-client", "google-genai-sdk/1"),
            ("x-ms-client-request-id", "1"),
            ("x-fern-language", "Python"),
            ("x-amzn-bedrock-trace", "ENABLED"),
            ("user-agent", "x"),
            ("traceparent", "00-0-0-00"),
        ];
        let dropped = [
            ("host", "h"),
            ("connection", "keep-alive, X-Title"),
            ("x-title", "named by connection"),
            ("keep-alive", "5"),
            ("content-length", "7"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("accept-encoding", "gzip"),
            ("proxy-authorization", "secret"),
            ("forwarded", "for=1"),
            ("x-forwarded-for", "1"),
            ("x-tidegate-max-wait", "1"),
            ("cookie", "c"),
            ("x-unknown", "1"),
        ];
        let mut client = map(&kept);
        client.extend(map(&dropped));
        assert_eq!(for_upstream(&client, 0), map(&kept));
    }

    #[test]
    fn answers_keep_all_but_the_connections_own() {
        let kept = [
            ("content-type", "text/event-stream"),
            ("x-ratelimit-limit-requests", "60"),
            ("x-request-id", "req_1"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("retry-after", "1"),
        ];
        let mut headers = map(&kept);
        headers.extend(map(&[
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("transfer-encoding", "chunked"),
        ]));
        for_client(&mut headers);
        assert_eq!(headers, map(&kept));
    }
}
