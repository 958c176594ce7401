//! The life of a request: read, weighed, admitted, sent, relayed.
//!
//! The phases follow each other in [`Exchange::run`]; each has a module below. Nothing is spawned for a request: when
//! the client leaves, hyper drops the future or body at whatever await it stands, and with it go the place in the queue,
//! the permit and the upstream's connection.

mod caller;
mod deadline;
mod forward;
mod headers;
mod intake;
mod keepalive;
mod record;
mod relay;
mod request_id;
mod route;
mod run;
mod unanswered;
mod weighed;

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{Request, Response, request};
use hyper::body::Incoming;
use tidegate::Permit;
use tidegate_core::provider::Dialect;
use tidegate_core::{
    Bytes as ByteCount, Demand, Obstacle, Owner, Refusal, Request as LimiterRequest, RequestClass, RunStep,
    TenantId, Tokens, Usage, WaitReason,
};
use tokio::time::Instant;

use self::caller::{Asking, Terms};
use self::deadline::Patience;
use self::forward::{Call, Received, Turn};
use self::keepalive::Line;
use self::record::Record;
pub(crate) use self::relay::Answer;
use self::relay::Relay;
use self::request_id::{RequestId, RequestIds};
use self::route::Sight;
use self::run::{RunName, RunTrace};
use self::unanswered::Unanswered;
use crate::connection::OpenRequest;
use crate::metrics::Refused;
use crate::pool::{Payload, Pool};
use crate::provider::{AuthStyle, ErrorReply, ResponseTap, Scope, Shape, Wishes};
use crate::shared::Shared;
use crate::site::Site;

const QUEUE_MS: HeaderName = HeaderName::from_static("x-tidegate-queue-ms");
/// The place in line at first, how long it was expected to take from there (where that is known), and behind whose requests.
const QUEUE_PLACE: HeaderName = HeaderName::from_static("x-tidegate-queue-place");
const QUEUE_ETA_MS: HeaderName = HeaderName::from_static("x-tidegate-queue-eta-ms");
const QUEUE_BEHIND: HeaderName = HeaderName::from_static("x-tidegate-queue-behind");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-tidegate-attempts");
const LIMITED_BY: HeaderName = HeaderName::from_static("x-tidegate-limited-by");
const MAX_TOKENS: HeaderName = HeaderName::from_static("x-tidegate-max-tokens");
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-tidegate-request-id");

/// What a request holds beside its body while it waits: head, future, connection buffers.
const BYTES_PER_REQUEST: u64 = 8 * 1024;

/// What one worker answers requests with.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    bench: Mutex<Arc<Bench>>,
    ids: RequestIds,
}

/// The configuration in force and this worker's connections for it.
struct Bench {
    version: u64,
    site: Arc<Site>,
    /// One for each upstream, in the same order.
    pools: Vec<Arc<Pool>>,
}

/// A request under way: what its phases share.
struct Exchange<'a> {
    shared: &'a Shared,
    bench: &'a Bench,
    head: &'a request::Parts,
    sight: &'a Sight<'a>,
    record: &'a mut Record,
    /// Where the keep-alive of the client sees that the request waits; `None` where none is configured.
    line: Option<&'a Line>,
}

/// How an exchange ended: with an answer that is to be relayed, or with one of the gateway's own.
struct Ended {
    result: Result<Relayed, Unanswered>,
    record: Record,
    /// The shape of errors that the client expects.
    shape: Shape,
}

/// An answer whose body is still to be relayed.
struct Relayed {
    received: Received,
    tap: ResponseTap,
    dialect: Dialect,
    is_certain: bool,
    patience: std::time::Duration,
}

impl Proxy {
    /// Makes what one worker answers requests with.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let bench = Mutex::new(Arc::new(Bench::new(&shared, &[])));
        Self {
            shared,
            bench,
            ids: RequestIds::new(),
        }
    }

    /// Answers one request. A panic on the way is answered with a 500 and ends nothing else.
    pub(crate) async fn answer(
        self: Arc<Self>,
        open: OpenRequest,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Infallible> {
        let bench = self.bench();
        let id = self.ids.next();
        Ok(match bench.site.config.server.queue_keepalive {
            None => self.exchange(bench, id, request, None).await.answer(open),
            Some(interval) => {
                let line = Arc::new(Line::default());
                let exchange = Box::pin(self.exchange(bench, id, request, Some(Arc::clone(&line))));
                keepalive::answer(exchange, line, interval, id, open).await
            }
        })
    }

    /// Brings a request to the head of its answer. The future owns all that it needs, so that it may go on within the
    /// body of an answer that has begun.
    fn exchange(
        self: Arc<Self>,
        bench: Arc<Bench>,
        id: RequestId,
        request: Request<Incoming>,
        line: Option<Arc<Line>>,
    ) -> impl Future<Output = Ended> + Send {
        // Taken apart here, so that the future holds the parts only.
        let (head, body) = request.into_parts();
        async move {
            let sight = Sight::of(&bench.site.config, &head.method, head.uri.path(), &head.headers);
            let mut record = Record::begin(id, Arc::clone(&bench.site), sight.endpoint);
            record.line.clone_from(&line);
            let shape = sight.shape.with_query(sight.endpoint, head.uri.query());
            let exchange = Exchange {
                shared: &self.shared,
                bench: &bench,
                head: &head,
                sight: &sight,
                record: &mut record,
                line: line.as_deref(),
            };
            let result = match AssertUnwindSafe(exchange.run(body, shape)).catch_unwind().await {
                Ok(result) => result,
                // What a panic has to say went to the error output; the client learns where to look.
                Err(_panic) => Err(Unanswered::failed(ErrorReply::internal())),
            };
            if let Err(unanswered) = &result
                && let Some(reason) = unanswered.refused
            {
                self.shared.metrics.refused(reason);
            }
            Ended {
                result,
                record,
                shape,
            }
        }
    }

    /// Closes idle connections to upstreams.
    pub(crate) fn sweep(&self) {
        for pool in &self.bench().pools {
            pool.sweep();
        }
    }

    /// Returns the bench of the configuration in force.
    fn bench(&self) -> Arc<Bench> {
        let mut bench = self.bench.lock().unwrap_or_else(PoisonError::into_inner);
        if bench.version != self.shared.site_version.load(Ordering::Acquire) {
            *bench = Arc::new(Bench::new(&self.shared, &bench.pools));
        }
        Arc::clone(&bench)
    }
}

impl Bench {
    fn new(shared: &Shared, earlier: &[Arc<Pool>]) -> Self {
        let (version, site) = shared.site();
        let pools = site.targets.iter().map(|target| target.pool(earlier)).collect();
        Self { version, site, pools }
    }
}

impl Exchange<'_> {
    async fn run(mut self, body: Incoming, shape: Shape) -> Result<Relayed, Unanswered> {
        let (head, site) = (self.head, &self.bench.site);
        let asking = self.asking()?;
        let route = self
            .sight
            .route(&site.config, &head.method, &head.uri)
            .map_err(|reply| Unanswered::refused(reply, Refused::NoUpstream))?;
        self.record.upstream = Some(route.upstream);
        let (Some(upstream), Some(target), Some(pool)) = (
            site.config.upstreams.get(route.upstream),
            site.targets.get(route.upstream),
            self.bench.pools.get(route.upstream),
        ) else {
            let reply = ErrorReply::unknown_path(head.uri.path());
            return Err(Unanswered::refused(reply, Refused::NoUpstream));
        };
        let path = upstream.base_url.join(&route.path).map_err(|_| {
            let reply = ErrorReply::bad_request("the path cannot be read");
            Unanswered::refused(reply, Refused::NoUpstream)
        })?;
        let patience =
            Patience::of(&head.headers).map_err(|reply| Unanswered::refused(reply, Refused::BadHead))?;
        self.record.client_retries = client_retries(&head.headers);

        let mut weighed = self.weigh(body).await?;
        // Where the path names a model, deployment or endpoint, that is what the provider counts by.
        let in_body = weighed.take_model();
        let named = route.model.or(in_body);
        let model = named.as_deref();
        weighed.count(upstream.provider, model);
        let scope = route.endpoint.scope();
        if scope != Scope::Model {
            weighed.demand = Demand::REQUEST_ONLY;
        }
        let taken = Instant::now();
        weighed.demand.class = RequestClass::of(&[model.unwrap_or_default(), self.sight.endpoint.name()]);
        let quota = upstream.route_for(scope, model, weighed.demand.input);
        self.record.group = Some(quota.index);
        weighed.edit(Wishes {
            provider: upstream.provider,
            usage: upstream.stream_usage,
            output_max: quota.max_tokens_cap.map(Tokens::new),
        });
        let run = self.run_step(&weighed.payload, model, asking.tenant())?;
        let terms = self.terms(&asking, (route.upstream, route.endpoint), model, run.is_some())?;
        let keeps = self.line.is_some() && weighed.stream && self.sight.endpoint.streams_events(shape);
        let (line, wait) = (self.line.filter(|_| keeps), self.wait(patience, &terms, keeps));
        let client_key = (!target.has_key()).then(|| {
            let key = AuthStyle::client_key(&head.headers, head.uri.query());
            key.unwrap_or_default().as_bytes()
        });
        let limiter = &self.shared.limiter;
        let asked = LimiterRequest {
            run,
            bytes: ByteCount::new(BYTES_PER_REQUEST.saturating_add(weighed.bytes())),
            caller: terms.caller,
            price: terms.price,
            identity: weighed.body().map(|body| {
                self.shared
                    .accounts
                    .identity(terms.caller.tenant, path.as_str(), body)
            }),
            ..LimiterRequest::new(
                self.shared.quota_key(upstream, quota, client_key, model),
                weighed.demand,
                limiter.now() + wait,
            )
        };
        self.record.note(named, &weighed);
        let permit = self.admit(asked, taken, line, &asking).await?;

        let metrics = site.metrics.group(quota.index);
        self.record.in_flight = Some(metrics.in_flight());
        let call = Call {
            limiter,
            upstream,
            target,
            pool,
            method: &head.method,
            path,
            root: route.root,
            headers: &head.headers,
            payload: weighed.payload,
            metrics,
            is_certain: !quota.per_model,
            line,
            taken,
            asker: RunTrace::asker(self.record.run.as_deref(), asking.asker()),
        };
        let received = call.forward(permit, &mut self.record.attempts).await?;
        Ok(Relayed {
            tap: ResponseTap::new(route.endpoint, &received.head.headers, weighed.asks_usage),
            received,
            dialect: target.profile.dialect,
            is_certain: !quota.per_model,
            patience: upstream.idle_timeout,
        })
    }

    /// Returns how long the request may wait: as its client says, its route and the configuration.
    fn wait(&self, patience: Patience, terms: &Terms, is_kept_alive: bool) -> Duration {
        let config = &self.bench.site.config;
        let keepalive = config.server.queue_keepalive.filter(|_| is_kept_alive);
        let wait_max = config.queue.wait_max;
        let wait_max = terms.max_wait.map_or(wait_max, |of_route| wait_max.min(of_route));
        patience.wait(wait_max, keepalive)
    }

    /// Waits in line for the first permit.
    async fn admit(
        &mut self,
        asked: LimiterRequest,
        taken: Instant,
        line: Option<&Line>,
        asking: &Asking,
    ) -> Result<Permit, Unanswered> {
        let limiter = &self.shared.limiter;
        self.record.in_line_since = Some(taken);
        if let Some(line) = line {
            line.enter(taken);
        }
        let attempts = &mut self.record.attempts;
        let now = limiter.now();
        let admission = limiter
            .acquire_noting(asked, |ticket| {
                if ticket.reason == WaitReason::Store {
                    // It is the next, and its turn is as soon as the store has answered.
                    return;
                }
                attempts.turn = Some(Turn::of(ticket, now));
                attempts.limited_by = Some(ticket.reason.name());
            })
            .await;
        if let Some(line) = line {
            line.leave();
        }
        self.record.in_line_since = None;
        let run = self.record.run.as_deref_mut();
        match admission {
            Ok(permit) => {
                if self.bench.site.config.limits_runs()
                    && let (Some(trace), Some(step)) = (run, asked.run)
                {
                    trace.warning = limiter.run(step.run).and_then(|run| run.warning);
                }
                Ok(permit)
            }
            Err(refusal) => {
                self.record.attempts.queued = taken.elapsed();
                self.record.attempts.limited_by = limited_by(&refusal).or(self.record.attempts.limited_by);
                let asker = RunTrace::asker(run.as_deref(), asking.asker());
                Err(Unanswered::refused(
                    ErrorReply::refusal_of(&refusal, asker),
                    Refused::Limiter(refusal.reason),
                ))
            }
        }
    }

    /// Finds the run that the request belongs to, and what it does in it.
    fn run_step(
        &mut self,
        payload: &Payload,
        model: Option<&str>,
        tenant: TenantId,
    ) -> Result<Option<RunStep>, Unanswered> {
        let config = &self.bench.site.config;
        let body: &[u8] = match payload {
            Payload::Full(body) => body,
            Payload::Stream(_) | Payload::Spent => &[],
        };
        let name = RunName::of(&self.head.headers, body, config.limits_runs())
            .map_err(|reply| Unanswered::refused(reply, Refused::BadHead))?;
        let Some(name) = name else {
            return Ok(None);
        };
        let fingerprint = config
            .runs
            .repeats
            .and_then(|_| run::fingerprint(self.sight.endpoint, model, body, self.record.client_retries));
        let step = name.step(&self.shared.accounts, tenant, fingerprint);
        name.note(self.shared.admin.names(), &step);
        self.record.run = Some(name.into_trace());
        Ok(Some(step))
    }
}

impl Ended {
    /// Makes the answer of it.
    fn answer(self, open: OpenRequest) -> Response<Answer> {
        match self.result {
            Ok(relayed) => relay(relayed, self.record, open),
            Err(unanswered) => refuse(&unanswered, self.shape, self.record),
        }
    }
}

/// The upstream's answer.
fn relay(mut relayed: Relayed, mut record: Record, open: OpenRequest) -> Response<Answer> {
    let mut response = Response::new(());
    *response.status_mut() = relayed.received.head.status;
    let headers = response.headers_mut();
    std::mem::swap(headers, &mut relayed.received.head.headers);
    headers::for_client(headers);
    if relayed.tap.may_change_length() {
        headers.remove(CONTENT_LENGTH);
    }
    record.status = Some(relayed.received.head.status);
    mark(headers, &record);
    let mut relay = Relay::new(relayed, record, open);
    response.map(|()| {
        if relay.is_empty() {
            Answer::Full(relay.finish())
        } else {
            Answer::Relay(Box::new(relay))
        }
    })
}

/// The gateway's own answer.
fn refuse(unanswered: &Unanswered, shape: Shape, mut record: Record) -> Response<Answer> {
    let reply = &unanswered.reply;
    let mut response = reply.render(shape, record.id.as_str()).map(Answer::Full);
    record.status = Some(reply.status());
    record.error = Some(reply.code());
    mark(response.headers_mut(), &record);
    record.finish(unanswered.outcome, &Usage::default());
    response
}

/// Says what the gateway did.
fn mark(headers: &mut http::HeaderMap, record: &Record) {
    headers.reserve(4);
    let queued = u64::try_from(record.attempts.queued.as_millis()).unwrap_or(u64::MAX);
    headers.insert(QUEUE_MS, number(queued));
    headers.insert(ATTEMPTS, number(record.attempts.sent.into()));
    headers.insert(REQUEST_ID, record.id.header());
    if let Some(max_tokens) = record.max_tokens {
        headers.insert(MAX_TOKENS, number(max_tokens));
    }
    if let Some(run) = &record.run {
        run.mark(headers);
    }
    if let Some(turn) = &record.attempts.turn {
        headers.insert(QUEUE_PLACE, number(turn.place));
        if let Some(eta_ms) = turn.eta_ms {
            headers.insert(QUEUE_ETA_MS, number(eta_ms));
        }
        headers.insert(QUEUE_BEHIND, HeaderValue::from_static(turn.behind()));
    }
    if let Some(reason) = record.attempts.limited_by {
        headers.insert(LIMITED_BY, HeaderValue::from_static(reason));
    } else {
        headers.remove(LIMITED_BY);
    }
}

/// Returns what a refusal is about: what is used up, whose own limit has no room, which of the provider's, or what else is
/// in the way.
fn limited_by(refusal: &Refusal) -> Option<&'static str> {
    let spent = refusal.spent.map(|spent| spent.what.name());
    let owner = refusal.owner.map(|owner| match owner {
        Owner::Tenant(_) => "tenant",
        Owner::Route(_) => "route",
    });
    let limit = || refusal.limit.map(|limit| limit.dimension.name());
    let obstacle = || refusal.obstacle.map(Obstacle::name);
    spent.or(owner).or_else(limit).or_else(obstacle)
}

/// How often the client's SDK says that it has tried before.
fn client_retries(headers: &http::HeaderMap) -> Option<u32> {
    headers.get(RETRY_COUNT)?.to_str().ok()?.parse().ok()
}

/// Returns a number as the value of a header; the two that nearly every answer has cost nothing.
fn number(number: u64) -> HeaderValue {
    match number {
        0 => HeaderValue::from_static("0"),
        1 => HeaderValue::from_static("1"),
        _ => HeaderValue::from(number),
    }
}
