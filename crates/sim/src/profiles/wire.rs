//! From the mock's limits to the engine's readings, by way of text.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tidegate_core::provider::Headers;
use tidegate_mock::Provider;
use tidegate_mock::limits::{Account, PoolState, Refusal};
use tidegate_mock::speech::{self, Spoken};

use super::catalog::Profile;

/// Headers of an answer, as the gateway shows them to the codecs.
#[derive(Debug)]
pub struct Texts<'a>(pub &'a HeaderMap);

impl Headers for Texts<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }
}

impl Texts<'_> {
    /// Returns whether there is anything to read; the gateway looks no further if there is not.
    pub fn tell(&self) -> bool {
        self.0.keys().any(|name| name.as_str().contains("ratelimit"))
    }
}

/// What the provider sends with a success that it worked on for so long before its head.
pub fn success(profile: &Profile, states: &[PoolState], unix: Duration, worked: Duration) -> HeaderMap {
    let mut headers = speech::headers(profile.provider, states, unix);
    if profile.provider == Provider::OpenAi {
        let millis = u64::try_from(worked.as_millis()).unwrap_or(u64::MAX);
        headers.insert(PROCESSING, HeaderValue::from(millis.max(1)));
    }
    headers
}

const PROCESSING: HeaderName = HeaderName::from_static("openai-processing-ms");

/// What the provider sends with a refusal.
pub fn refusal(
    profile: &Profile,
    account: &Account,
    refusal: &Refusal,
    states: &[PoolState],
    unix: Duration,
) -> Spoken {
    let limits = account
        .pools()
        .get(refusal.pool)
        .map(|pool| pool.limits.as_slice());
    let window = limits
        .and_then(|limits| limits.get(refusal.refused.limit))
        .map_or(refusal.refused.window, |limit| limit.window);
    speech::refusal(
        profile.provider,
        &refusal.refused,
        window,
        profile.model,
        states,
        unix,
    )
}
