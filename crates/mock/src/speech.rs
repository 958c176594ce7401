//! What a provider says about its limits, as text and without a server: for limiters that are tried in virtual time.

use std::time::Duration;

use http::HeaderMap;

use crate::limits::{PoolState, Refused};
use crate::problem::{Context, Problem, write_headers};
use crate::provider::Provider;
use crate::rate_headers;
use crate::route::{Endpoint, Target};
use crate::state::Denied;

/// A refusal as it goes over the wire.
#[derive(Debug, Clone)]
pub struct Spoken {
    /// The status.
    pub status: u16,
    /// All headers that concern limits.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
}

/// Returns the headers about limits that a success carries; `unix` is the time since 1970.
pub fn headers(provider: Provider, states: &[PoolState], unix: Duration) -> HeaderMap {
    let mut headers = HeaderMap::new();
    rate_headers::write(&target(provider), states, unix, None, &mut headers);
    headers
}

/// Returns a refusal; `window` is that of the whole limit, `unix` the time since 1970.
pub fn refusal(
    provider: Provider,
    refused: &Refused,
    window: Duration,
    model: &str,
    states: &[PoolState],
    unix: Duration,
) -> Spoken {
    let target = target(provider);
    let denied = Denied {
        refused: *refused,
        window,
    };
    let context = Context {
        provider,
        request_id: "req_0",
        target: Some(&target),
        model,
        stream: false,
        unix,
    };
    let told = Problem::denied(provider, denied, model).told(&context);
    let mut headers = headers(provider, states, unix);
    write_headers(&told, &mut headers);
    Spoken {
        status: told.status,
        headers,
        body: told.body,
    }
}

fn target(provider: Provider) -> Target {
    Target::new(provider, Endpoint::usual(provider))
}
