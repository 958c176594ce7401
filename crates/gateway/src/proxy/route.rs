//! Which upstream a request goes to, and under which path.

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri};
use tidegate_core::provider::Dialect;

use crate::config::Config;
use crate::provider::{Endpoint, ErrorReply, Shape};

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Route {
    /// The upstream's place in [`Config::upstreams`].
    pub(super) upstream: usize,
    /// The operation.
    pub(super) endpoint: Endpoint,
    /// Path and query below the upstream's base URL.
    pub(super) path: PathAndQuery,
}

/// What a path looks like before it is known whether it leads anywhere.
#[derive(Debug)]
pub(super) struct Sight<'a> {
    named: Option<usize>,
    /// The path below the upstream's name, without the query.
    path: &'a str,
    /// The operation that it names.
    pub(super) endpoint: Endpoint,
    /// The shape of errors that the client expects.
    pub(super) shape: Shape,
}

impl<'a> Sight<'a> {
    /// Looks at a request's head.
    pub(super) fn of(config: &Config, method: &Method, path: &'a str, headers: &HeaderMap) -> Self {
        let (named, below) = below_upstream(config, path);
        let endpoint = Endpoint::of(method, below);
        let mut shape = Shape::of(endpoint, headers);
        // The operation is not known by a wrong method; its shape is.
        if endpoint == Endpoint::Other {
            let posted = Endpoint::of(&Method::POST, below);
            if posted.has_facts() {
                shape = Shape::of(posted, headers);
            }
        }
        Self {
            named,
            path: below,
            endpoint,
            shape,
        }
    }

    /// Finds the upstream.
    ///
    /// # Errors
    ///
    /// Returns the answer for a path that leads nowhere, or a method that its operation does not take.
    pub(super) fn route(
        &self,
        config: &Config,
        method: &Method,
        headers: &HeaderMap,
        uri: &Uri,
    ) -> Result<Route, ErrorReply> {
        if has_dot_segment(self.path) {
            return Err(ErrorReply::bad_request(
                "the path must not contain `.` or `..` segments",
            ));
        }
        if self.takes_only_post(method) {
            return Err(ErrorReply::method_not_allowed(method, "POST"));
        }
        let upstream = match self.named {
            Some(named) => named,
            None => self.default_upstream(config, headers)?,
        };
        Ok(Route {
            upstream,
            endpoint: self.endpoint,
            path: self.upstream_path(uri)?,
        })
    }

    /// `GET /v1/chat/completions` is an operation of its own (it lists stored completions) and passes through.
    fn takes_only_post(&self, method: &Method) -> bool {
        if *method == Method::POST {
            return false;
        }
        let posted = Endpoint::of(&Method::POST, self.path);
        posted.has_facts() && !(posted == Endpoint::ChatCompletions && *method == Method::GET)
    }

    /// The upstream of a path without an upstream's name: by the operation, else by the shape that the client speaks.
    fn default_upstream(&self, config: &Config, headers: &HeaderMap) -> Result<usize, ErrorReply> {
        let is_api = self.path.starts_with("/v1/") || self.endpoint != Endpoint::Other;
        let dialect = match self.endpoint.provider() {
            Some(provider) => provider.profile().dialect,
            None if headers.contains_key("anthropic-version") => Dialect::Anthropic,
            None => Dialect::OpenAi,
        };
        config
            .first_speaking(dialect)
            .filter(|_| is_api)
            .map(|(at, _)| at)
            .ok_or_else(|| ErrorReply::unknown_path(self.path))
    }

    /// Clients whose base URL lacks `/v1` mean it all the same.
    fn upstream_path(&self, uri: &Uri) -> Result<PathAndQuery, ErrorReply> {
        let is_versioned = self.endpoint == Endpoint::Other || self.path.starts_with("/v1/");
        if self.named.is_none()
            && is_versioned
            && let Some(whole) = uri.path_and_query()
        {
            return Ok(whole.clone());
        }
        let version = if is_versioned { "" } else { "/v1" };
        let path = if self.path.is_empty() { "/" } else { self.path };
        let joined = match uri.query() {
            Some(query) => format!("{version}{path}?{query}"),
            None => format!("{version}{path}"),
        };
        PathAndQuery::try_from(joined).map_err(|_| ErrorReply::bad_request("the path cannot be read"))
    }
}

/// Splits an upstream's name off the path.
fn below_upstream<'a>(config: &Config, path: &'a str) -> (Option<usize>, &'a str) {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let (first, rest) = match inner.find('/') {
        Some(slash) => inner.split_at(slash),
        None => (inner, ""),
    };
    match config.upstream(first) {
        Some((at, _)) => (Some(at), rest),
        None => (None, path),
    }
}

fn has_dot_segment(path: &str) -> bool {
    if !path.contains("/.") && !path.contains('%') {
        return false;
    }
    path.split('/').any(|segment| {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        plain == "." || plain == ".."
    })
}
