//! Which upstream a request goes to, and under which path.

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri};

use crate::config::{Config, Upstream};
use crate::provider::{Api, AuthStyle, Endpoint, ErrorReply, Operation, Provider, Root, Shape};

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Route {
    /// The upstream's place in [`Config::upstreams`].
    pub(super) upstream: usize,
    /// The operation.
    pub(super) endpoint: Endpoint,
    /// The model, deployment or endpoint that the path names.
    pub(super) model: Option<String>,
    /// The beginning of the path as it is sent.
    pub(super) root: Root,
    /// Path and query below the upstream's base URL, without keys that the upstream's own replaces.
    pub(super) path: PathAndQuery,
}

/// What a path looks like before it is known whether it leads anywhere.
#[derive(Debug)]
pub(super) struct Sight<'a> {
    /// Whether the path names its upstream.
    is_named: bool,
    /// The upstream that the path names, or the default for its operation.
    upstream: Option<usize>,
    /// The path below the upstream's name, without the query.
    path: &'a str,
    operation: Operation<'a>,
    /// The operation that it names.
    pub(super) endpoint: Endpoint,
    /// The shape of errors that the client expects.
    pub(super) shape: Shape,
}

impl<'a> Sight<'a> {
    /// Looks at a request's head.
    pub(super) fn of(config: &Config, method: &Method, path: &'a str, headers: &HeaderMap) -> Self {
        let (named, below) = below_upstream(config, path);
        let operation = Operation::of(method, below);
        let mut spoken = operation.endpoint;
        // The operation is not known by a wrong method; its shape is.
        if spoken == Endpoint::Other {
            spoken = Operation::of(&Method::POST, below).endpoint;
        }
        let upstream = named.or_else(|| default_upstream(config, &operation, headers));
        let profile = upstream
            .and_then(|at| config.upstreams.get(at))
            .map(|upstream| upstream.provider.profile());
        let shape = match profile {
            Some(profile) => profile.shape_of(spoken),
            None => Shape::of(spoken, headers),
        };
        Self {
            is_named: named.is_some(),
            upstream,
            path: below,
            endpoint: operation.endpoint,
            operation,
            shape,
        }
    }

    /// Finds the upstream.
    ///
    /// # Errors
    ///
    /// Returns the answer for a path that leads nowhere, or a method that its operation does not take.
    pub(super) fn route(&self, config: &Config, method: &Method, uri: &Uri) -> Result<Route, ErrorReply> {
        if has_dot_segment(self.path) {
            return Err(ErrorReply::bad_request(
                "the path must not contain `.` or `..` segments",
            ));
        }
        if self.takes_only_post(method) {
            return Err(ErrorReply::method_not_allowed(method, "POST"));
        }
        let at = self.upstream.ok_or_else(|| ErrorReply::unknown_path(self.path))?;
        let upstream = config
            .upstreams
            .get(at)
            .ok_or_else(|| ErrorReply::unknown_path(self.path))?;
        let (root, path) = self.upstream_path(upstream, uri)?;
        Ok(Route {
            upstream: at,
            endpoint: self.endpoint,
            model: self.operation.model.clone(),
            root,
            path,
        })
    }

    /// `GET /v1/chat/completions` is an operation of its own (it lists stored completions) and passes through.
    fn takes_only_post(&self, method: &Method) -> bool {
        if *method == Method::POST {
            return false;
        }
        let posted = Operation::of(&Method::POST, self.path).endpoint;
        posted.has_facts() && !(posted == Endpoint::ChatCompletions && *method == Method::GET)
    }

    /// Clients may leave out the beginning of the provider's paths, or use another's; they mean it all the same.
    fn upstream_path(&self, upstream: &Upstream, uri: &Uri) -> Result<(Root, PathAndQuery), ErrorReply> {
        let profile = upstream.provider.profile();
        let operation = &self.operation;
        // What a compatible server has under other beginnings is its own affair.
        let is_own_affair =
            upstream.provider == Provider::Compatible && self.is_named && operation.root != Root::Bare;
        let instead = if is_own_affair {
            None
        } else {
            profile.root_instead(operation)
        };
        let query = uri.query();
        let bare_query = query
            .filter(|_| upstream.api_key.is_some())
            .and_then(AuthStyle::without_keys);
        if !self.is_named
            && instead.is_none()
            && bare_query.is_none()
            && let Some(whole) = uri.path_and_query()
        {
            return Ok((operation.root, whole.clone()));
        }
        let query = bare_query.as_deref().or(query).filter(|query| !query.is_empty());
        let path = match instead {
            None if self.path.is_empty() => "/".to_owned(),
            None => self.path.to_owned(),
            Some(instead) => {
                let own = operation.root.text();
                let rest = own.and_then(|own| self.path.strip_prefix(own));
                format!("{instead}{}", rest.unwrap_or(operation.rest))
            }
        };
        let joined = match query {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let root = Operation::of(&Method::POST, joined.split('?').next().unwrap_or_default()).root;
        let path =
            PathAndQuery::try_from(joined).map_err(|_| ErrorReply::bad_request("the path cannot be read"))?;
        Ok((root, path))
    }
}

/// The upstream of a path without an upstream's name: the first to which paths of this beginning belong and which
/// speaks the operation's API; else the first that speaks it at all.
fn default_upstream(config: &Config, operation: &Operation<'_>, headers: &HeaderMap) -> Option<usize> {
    let Operation {
        root, rest, endpoint, ..
    } = *operation;
    let api = Api::of(endpoint, root, rest, headers)?;
    let first = |matches: &dyn Fn(&Upstream) -> bool| config.upstreams.iter().position(matches);
    let own = first(&|upstream| {
        let profile = upstream.provider.profile();
        let has_root =
            profile.has_root(root) || (root == Root::Bare && profile.openai_roots.contains(&Root::V1));
        profile.speaks(api) && has_root
    });
    let is_unknown = endpoint == Endpoint::Other && root != Root::V1;
    if own.is_some() || is_unknown {
        return own;
    }
    let speaks = |api| first(&move |upstream: &Upstream| upstream.provider.profile().speaks(api));
    // Servers that imitate OpenAI have operations of others under the same beginning (`/v1/rerank`).
    speaks(api).or_else(|| (root == Root::V1 && api == Api::Cohere).then(|| speaks(Api::OpenAi))?)
}

/// Splits an upstream's name off the path.
fn below_upstream<'a>(config: &Config, path: &'a str) -> (Option<usize>, &'a str) {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let (first, rest) = match inner.find('/') {
        Some(slash) => inner.split_at(slash),
        None => (inner, ""),
    };
    match config.upstream(first) {
        // `/openai/deployments/…` is Azure's own path, whatever an upstream of OpenAI is called.
        Some((_, upstream))
            if first == "openai"
                && rest.starts_with("/deployments/")
                && upstream.provider != Provider::Azure =>
        {
            (None, path)
        }
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

#[cfg(test)]
mod tests;
