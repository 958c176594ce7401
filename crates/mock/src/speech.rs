//! What a provider says about its limits, as text and without a server: for limiters that are tried in virtual time.

use std::time::Duration;

use http::HeaderMap;

use crate::limits::{PoolState, Refused};
use crate::problem::Problem;
use crate::provider::Provider;
use crate::rate_headers;
use crate::settings::Dialect;

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
    rate_headers::write(dialect(provider), states, unix, &mut headers);
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
    let dialect = dialect(provider);
    let problem = Problem::refused(dialect, refused, window, model);
    let mut headers = headers(provider, states, unix);
    problem.write_headers(dialect, &mut headers);
    Spoken {
        status: problem.status,
        headers,
        body: problem.body(dialect, "req_0"),
    }
}

const fn dialect(provider: Provider) -> Dialect {
    match provider {
        Provider::Anthropic => Dialect::Anthropic,
        _ => Dialect::OpenAi,
    }
}
