//! Limits asked of the providers that tell them, in the background.
//!
//! One thread asks each upstream that has a `limits_key`, at the start and then from time to time, and hands what it is
//! told to the limiter. Nothing waits for it: until the first answer, and whenever there is none, limits are what the
//! configuration, headers and refusals say.

mod anthropic;
mod board;
mod openrouter;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, HOST, HeaderName, HeaderValue, InvalidHeaderValue, USER_AGENT};
use http::uri::{InvalidUri, PathAndQuery};
use http::{Request, Uri};
use http_body_util::{BodyExt, Limited};
use thiserror::Error;
use tidegate_core::{Limit, LimitSource, QuotaKey};
use tokio::time::Instant;

use self::board::Buckets;
pub(crate) use self::board::LimitBoard;
use crate::config::{Scheme, Upstream};
use crate::phase::Phase;
use crate::pool::{ConnectError, Payload, SendError};
use crate::provider::{AuthStyle, Provider, Scope};
use crate::shared::Shared;
use crate::site::Target;

/// How long one answer may take, from connecting to its last byte.
const PATIENCE: Duration = Duration::from_secs(20);

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The most pages that are read of one list.
const PAGES_MAX: usize = 20;

/// How soon an upstream is asked again that gave no answer, if it is not asked sooner anyway.
const AGAIN: Duration = Duration::from_secs(60);

/// How long nothing is asked when there is nobody to ask; a reload ends it.
const IDLE: Duration = Duration::from_secs(3_600);

/// Limits that a provider told of some models or operations.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    whose: Whose,
    limits: Vec<Limit>,
}

/// Whose limits they are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Whose {
    /// These models share them.
    Models(Vec<String>),
    /// All models whose name ends so share them.
    Ending(&'static str),
    /// An operation with limits of its own has them ([`Scope::Own`]).
    Own(&'static str),
}

/// One page of a provider's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Page {
    told: Vec<Told>,
    next: Option<String>,
}

/// Why there is no answer. Neither key nor body is in it.
#[derive(Debug, Error)]
enum AskError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the connection broke: {0}")]
    Broken(hyper::Error),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Timeout,
    #[error("the upstream answered {0}; is limits_key a key that may read limits?")]
    Status(u16),
    #[error("the answer cannot be read, or is larger than {ANSWER_BYTES_MAX} bytes")]
    Unreadable,
    #[error("the answer is not of the form that the provider documents")]
    Form,
    #[error("limits_key holds characters that cannot be sent in a header")]
    Key(#[from] InvalidHeaderValue),
    #[error("the path cannot be put together: {0}")]
    Path(#[from] InvalidUri),
}

/// How a limit is made of what a provider tells.
#[derive(Debug, Clone, Copy)]
struct Rules {
    window: Duration,
    discipline: tidegate_core::Discipline,
    day: tidegate_core::Discipline,
}

/// Asks until the program ends.
pub(crate) async fn keep(shared: &Shared) {
    let ended = shared.phases.reached(Phase::Ended);
    let mut ended = std::pin::pin!(ended);
    let mut due: HashMap<String, Instant> = HashMap::new();
    loop {
        let changed = shared.limits.changed();
        let mut changed = std::pin::pin!(changed);
        changed.as_mut().enable();
        let round = round(shared, &mut due);
        let next = tokio::select! {
            next = round => next,
            () = &mut ended => return,
        };
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = changed => {}
            () = &mut ended => return,
        }
    }
}

/// Asks everybody whose time has come, and returns when the next one's comes.
async fn round(shared: &Shared, due: &mut HashMap<String, Instant>) -> Instant {
    let (_, site) = shared.site();
    let asked: Vec<_> = site
        .config
        .upstreams
        .iter()
        .zip(site.targets.iter())
        .filter_map(|(upstream, target)| Some((upstream, target, upstream.limits_key.as_ref()?.expose())))
        .collect();
    due.retain(|name, _| asked.iter().any(|(upstream, ..)| upstream.name == *name));
    shared
        .limits
        .retain(|name| asked.iter().any(|(upstream, ..)| upstream.name == name));
    for (upstream, target, key) in &asked {
        if due.get(&upstream.name).is_some_and(|due| *due > Instant::now()) {
            continue;
        }
        let answer = tokio::time::timeout(PATIENCE, ask(upstream, target, key)).await;
        let pause = match answer.unwrap_or(Err(AskError::Timeout)) {
            Ok(told) => {
                let buckets = adopt(shared, upstream, told);
                if shared.limits.told(&upstream.name, buckets) {
                    tracing::info!(upstream = %upstream.name, "the provider tells its limits");
                }
                upstream.limits_refresh
            }
            Err(error) => {
                let error = error.to_string();
                if shared.limits.failed(&upstream.name, &error) {
                    tracing::warn!(upstream = %upstream.name, %error, "cannot ask for limits");
                }
                upstream.limits_refresh.min(AGAIN)
            }
        };
        due.insert(upstream.name.clone(), Instant::now() + jittered(pause));
    }
    let next = due.values().min().copied();
    next.unwrap_or_else(|| Instant::now() + IDLE)
}

/// Asks one upstream.
async fn ask(upstream: &Upstream, target: &Target, key: &str) -> Result<Vec<Told>, AskError> {
    let rules = Rules {
        window: upstream.window,
        discipline: upstream.discipline,
        day: target.profile.day,
    };
    let get = |path: String, headers: Vec<(HeaderName, HeaderValue)>| get(upstream, target, path, headers);
    if upstream.provider == Provider::OpenRouter {
        let headers = vec![AuthStyle::Bearer.header(key)?];
        let body = get(openrouter::PATH.to_owned(), headers).await?;
        return openrouter::read(&body, &rules).ok_or(AskError::Form);
    }
    let mut lists = vec![anthropic::path(None, None)];
    let workspace = upstream.limits_workspace.as_deref();
    lists.extend(workspace.map(|workspace| anthropic::path(Some(workspace), None)));
    let mut told = Vec::new();
    for (at, path) in lists.into_iter().enumerate() {
        let mut path = Some(path);
        for _ in 0..PAGES_MAX {
            let Some(this) = path.take() else { break };
            let headers = vec![AuthStyle::ApiKeyHeader.header(key)?, anthropic::VERSION];
            let body = get(this, headers).await?;
            let page = anthropic::read(&body, &rules).ok_or(AskError::Form)?;
            if at == 0 {
                told.extend(page.told);
            } else {
                anthropic::lower(&mut told, page.told);
            }
            let list = workspace.filter(|_| at > 0);
            path = page.next.map(|next| anthropic::path(list, Some(&next)));
        }
    }
    Ok(told)
}

/// Hands limits to the quota groups that they are for, and returns which models share theirs.
fn adopt(shared: &Shared, upstream: &Upstream, told: Vec<Told>) -> Buckets {
    let mut buckets = Buckets::default();
    for Told { whose, limits } in told {
        let (scope, models, bucket) = match whose {
            Whose::Own(name) => (Scope::Own(name), vec![None], None),
            Whose::Ending(end) => {
                buckets.add_ending(end);
                (
                    Scope::Model,
                    vec![Some(format!("any{end}"))],
                    Some(end.to_owned()),
                )
            }
            Whose::Models(models) => {
                let bucket = models.first().cloned();
                if let Some(bucket) = &bucket {
                    buckets.add(bucket, &models);
                }
                (Scope::Model, models.into_iter().map(Some).collect(), bucket)
            }
        };
        let mut informed: Vec<QuotaKey> = Vec::new();
        for model in models {
            let route = upstream.route_for(scope, model.as_deref(), tidegate_core::Tokens::ZERO);
            let key = QuotaKey {
                id: route.id,
                account: shared.accounts.account(route, None, bucket.as_deref()),
            };
            if !informed.contains(&key) {
                shared.limiter.inform(key, &limits);
                informed.push(key);
            }
        }
    }
    buckets
}

/// Sends one request on a connection of its own and reads the whole answer.
async fn get(
    upstream: &Upstream,
    target: &Target,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
) -> Result<Vec<u8>, AskError> {
    let path = upstream.base_url.join(&PathAndQuery::try_from(path)?)?;
    let mut lease = target.pool(&[]).fresh().await?;
    let mut request = Request::new(Payload::Full(bytes::Bytes::new()));
    if lease.is_http2() {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(match upstream.base_url.scheme() {
            Scheme::Http => http::uri::Scheme::HTTP,
            Scheme::Https => http::uri::Scheme::HTTPS,
        });
        parts.authority = Some(upstream.base_url.authority().clone());
        parts.path_and_query = Some(path);
        *request.uri_mut() = Uri::from_parts(parts).expect("a scheme, an authority and a path make a URI");
    } else {
        request.headers_mut().insert(HOST, target.host.clone());
        *request.uri_mut() = Uri::from(path);
    }
    let agent = concat!("tidegate/", env!("CARGO_PKG_VERSION"));
    request
        .headers_mut()
        .insert(USER_AGENT, HeaderValue::from_static(agent));
    request
        .headers_mut()
        .insert(ACCEPT, HeaderValue::from_static("application/json"));
    request
        .headers_mut()
        .extend(headers.into_iter().map(|(name, value)| (Some(name), value)));
    let response = lease.send(request).await.map_err(|error| match error {
        SendError::NotSent(_, error) | SendError::Broken(error) => AskError::Broken(error),
    })?;
    let status = response.status();
    if !status.is_success() {
        return Err(AskError::Status(status.as_u16()));
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await;
    let body = body.map_err(|_| AskError::Unreadable)?;
    Ok(body.to_bytes().to_vec())
}

/// Returns a limit that the provider's interface told; `None` for no requests at all, which no quota can be made of.
fn limit(
    dimension: tidegate_core::Dimension,
    window: Duration,
    discipline: tidegate_core::Discipline,
    amount: u64,
) -> Option<Limit> {
    Some(Limit {
        dimension,
        window,
        amount: std::num::NonZeroU64::new(amount)?,
        discipline,
        source: LimitSource::Api,
    })
}

/// Varies a pause by a tenth either way, so that replicas do not ask in step.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 2_001;
    pause / 10_000 * u32::try_from(9_000 + random).unwrap_or(10_000)
}

/// Starts the thread that asks.
///
/// # Errors
///
/// Returns an error if the system gives no thread or no runtime.
pub(crate) fn start(shared: Arc<Shared>) -> std::io::Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()?;
    std::thread::Builder::new()
        .name("tidegate-limits".to_owned())
        .spawn(move || runtime.block_on(keep(&shared)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_vary_by_a_tenth() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(100));
            assert!(
                (Duration::from_secs(90)..=Duration::from_secs(110)).contains(&pause),
                "{pause:?}"
            );
        }
    }
}
