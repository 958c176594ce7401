//! Who asks: each provider has its own place for the key.

use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};

use crate::problem::Problem;
use crate::provider::Provider;
use crate::route::parameter;
use crate::settings::Key;

/// Returns the key of a request, if it is one that is accepted.
///
/// # Errors
///
/// Returns the provider's answer to a missing or a wrong key.
pub(crate) fn key(
    accepted: &[Key],
    provider: Provider,
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Key, Problem> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = header(AUTHORIZATION.as_str()).map(|value| {
        let bearer = value
            .strip_prefix("Bearer ")
            .or_else(|| value.strip_prefix("bearer "));
        // AWS signs instead; the signature is not checked, only told from another's by its head.
        bearer.or_else(|| {
            value
                .strip_prefix("AWS4-HMAC-SHA256 ")
                .filter(|_| provider == Provider::Bedrock)
        })
    });
    let bearer = bearer.flatten().map(str::to_owned);
    let own = |name: &str| header(name).map(str::to_owned);
    let key = match provider {
        Provider::Anthropic => own("x-api-key").or(bearer),
        Provider::Azure => own("api-key").or(bearer),
        Provider::Gemini | Provider::Vertex => own("x-goog-api-key")
            .or_else(|| parameter(uri.query().unwrap_or_default(), "key"))
            .or(bearer),
        Provider::Bedrock => bearer.or_else(|| own("x-api-key")),
        // Whoever runs vLLM need not ask for a key.
        Provider::Vllm if accepted.is_empty() => Some(bearer.unwrap_or_else(|| "none".to_owned())),
        _ => bearer,
    };
    let key = key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
    let key = Key::new(key.ok_or_else(|| Problem::missing_key(provider))?);
    if !accepted.is_empty() && !accepted.contains(&key) {
        return Err(Problem::wrong_key(provider));
    }
    if provider == Provider::Anthropic && !headers.contains_key("anthropic-version") {
        return Err(Problem::missing_version());
    }
    Ok(key)
}
