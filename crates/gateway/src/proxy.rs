//! The life of a request: read, weighed, admitted, sent, relayed.
//!
//! The phases follow each other in [`Exchange::run`]; each has a module below. Nothing is spawned for a request: when
//! the client leaves, hyper drops the future or body at whatever await it stands, and with it go the place in the queue,
//! the permit and the upstream's connection.

mod deadline;
mod forward;
mod headers;
mod intake;
mod record;
mod relay;
mod request_id;
mod route;
mod unanswered;

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{Request, Response, request};
use http_body::Body;
use hyper::body::Incoming;
use tidegate_core::provider::Dialect;
use tidegate_core::{Bytes as ByteCount, Demand, QuotaKey, Request as LimiterRequest, Usage};
use tokio::time::Instant;

use self::forward::{Call, Received};
use self::intake::{IntakeBounds, IntakeError};
use self::record::Record;
pub(crate) use self::relay::Answer;
use self::relay::Relay;
use self::request_id::RequestIds;
use self::route::Sight;
use self::unanswered::Unanswered;
use crate::connection::OpenRequest;
use crate::metrics::Refused;
use crate::pool::{Payload, Pool};
use crate::provider::{AuthStyle, ErrorReply, RequestFacts, ResponseTap, Scope, Shape, ensure_usage};
use crate::shared::Shared;
use crate::site::Site;

const QUEUE_MS: HeaderName = HeaderName::from_static("x-tidegate-queue-ms");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-tidegate-attempts");
const LIMITED_BY: HeaderName = HeaderName::from_static("x-tidegate-limited-by");
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
        let (head, body) = request.into_parts();
        let sight = Sight::of(&bench.site.config, &head.method, head.uri.path(), &head.headers);
        let mut record = Record::begin(self.ids.next(), Arc::clone(&bench.site), sight.endpoint);
        let shape = sight.shape;
        let exchange = Exchange {
            shared: &self.shared,
            bench: &bench,
            head: &head,
            sight: &sight,
            record: &mut record,
        };
        Ok(match AssertUnwindSafe(exchange.run(body)).catch_unwind().await {
            Ok(Ok(relayed)) => relay(relayed, record, open),
            Ok(Err(unanswered)) => {
                if let Some(reason) = unanswered.refused {
                    self.shared.metrics.refused(reason);
                }
                refuse(&unanswered, shape, record)
            }
            // What a panic has to say went to the error output; the client learns where to look.
            Err(_panic) => refuse(&Unanswered::failed(ErrorReply::internal()), shape, record),
        })
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
    async fn run(self, body: Incoming) -> Result<Relayed, Unanswered> {
        let (head, site) = (self.head, &self.bench.site);
        let route = self
            .sight
            .route(&site.config, &head.method, &head.headers, &head.uri)
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
        let wait = deadline::wait(&head.headers, site.config.queue.wait_max)
            .map_err(|reply| Unanswered::refused(reply, Refused::BadHead))?;
        self.record.client_retries = client_retries(&head.headers);

        let mut weighed = self.weigh(body).await?;
        // Where the path names a model, deployment or endpoint, that is what the provider counts by.
        weighed.model = route.model.or(weighed.model);
        let scope = route.endpoint.scope();
        if scope != Scope::Model {
            weighed.demand = Demand::REQUEST_ONLY;
        }
        let model = weighed.model.as_deref();
        let taken = Instant::now();
        let quota = upstream.route_for(scope, model, weighed.demand.input);
        self.record.group = Some(quota.index);
        let client_key = (!target.has_key()).then(|| {
            let key = AuthStyle::client_key(&head.headers, head.uri.query());
            key.unwrap_or_default().as_bytes()
        });
        let limiter = &self.shared.limiter;
        let asked = LimiterRequest {
            quota: QuotaKey {
                id: quota.id,
                account: self.shared.accounts.account(quota, client_key, model),
            },
            demand: weighed.demand,
            bytes: ByteCount::new(BYTES_PER_REQUEST.saturating_add(weighed.bytes)),
            deadline: limiter.now() + wait,
        };
        self.record.model = weighed.model;
        self.record.stream = weighed.stream;
        self.record.estimated_input = weighed.demand.input.value();
        self.record.in_line_since = Some(taken);
        let admission = limiter.acquire(asked).await;
        self.record.in_line_since = None;
        let permit = match admission {
            Ok(permit) => permit,
            Err(refusal) => {
                self.record.attempts.limited_by = refusal.limit.map(|limit| limit.dimension.name());
                return Err(Unanswered::refused(
                    ErrorReply::refusal(&refusal),
                    Refused::Limiter(refusal.reason),
                ));
            }
        };

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
            taken,
        };
        let received = call.forward(permit, &mut self.record.attempts).await?;
        Ok(Relayed {
            tap: ResponseTap::new(route.endpoint, &received.head.headers, weighed.strip),
            received,
            dialect: target.profile.dialect,
            is_certain: !quota.per_model,
            patience: upstream.idle_timeout,
        })
    }

    /// Reads the body and says what it may consume. Bodies of unknown operations are passed on as they come.
    async fn weigh(&self, body: Incoming) -> Result<Weighed, Unanswered> {
        if !self.sight.endpoint.has_facts() {
            let payload = if body.is_end_stream() {
                Payload::Full(Bytes::new())
            } else {
                Payload::Stream(body)
            };
            return Ok(Weighed {
                payload,
                demand: Demand::REQUEST_ONLY,
                bytes: 0,
                model: None,
                stream: false,
                strip: false,
            });
        }
        let is_encoded = |value: &HeaderValue| value != "identity";
        if self.head.headers.get(CONTENT_ENCODING).is_some_and(is_encoded) {
            let reply = ErrorReply::bad_request(
                "the request body is compressed (content-encoding); send it as it is",
            );
            return Err(Unanswered::refused(reply, Refused::BadBody));
        }
        let server = &self.bench.site.config.server;
        let bounds = IntakeBounds {
            bytes_max: server.body_bytes_max,
            patience: server.body_timeout,
        };
        let bytes = intake::read(body, bounds).await.map_err(|error| match error {
            IntakeError::TooLarge => {
                let reply = ErrorReply::too_large(bounds.bytes_max as u64);
                Unanswered::refused(reply, Refused::BodyTooLarge)
            }
            IntakeError::TooSlow => Unanswered::refused(ErrorReply::client_timeout(), Refused::Slow),
            IntakeError::Broken => {
                let reply = ErrorReply::bad_request("the request body broke off");
                Unanswered::refused(reply, Refused::BadBody)
            }
        })?;
        let facts = RequestFacts::read(self.sight.endpoint, &bytes)
            .map_err(|error| Unanswered::refused(ErrorReply::bad_body(&error), Refused::BadBody))?;
        let with_usage = ensure_usage(&bytes, &facts);
        let strip = with_usage.is_some();
        let bytes = with_usage.unwrap_or(bytes);
        Ok(Weighed {
            demand: facts.demand(),
            bytes: bytes.len() as u64,
            payload: Payload::Full(bytes),
            model: facts.model,
            stream: facts.stream,
            strip,
        })
    }
}

/// A request's body and what it may consume.
struct Weighed {
    payload: Payload,
    demand: Demand,
    /// The memory that the body holds.
    bytes: u64,
    model: Option<String>,
    stream: bool,
    /// Whether usage was asked for on the client's behalf, to be taken out of the answer again.
    strip: bool,
}

/// The upstream's answer.
fn relay(relayed: Relayed, mut record: Record, open: OpenRequest) -> Response<Answer> {
    let Relayed {
        received,
        tap,
        dialect,
        is_certain,
        patience,
    } = relayed;
    let mut head = received.head;
    headers::for_client(&mut head.headers);
    if tap.may_change_length() {
        head.headers.remove(CONTENT_LENGTH);
    }
    record.status = Some(head.status);
    mark(&mut head.headers, &record);
    let is_empty = received.prefix.is_empty()
        && received
            .rest
            .as_ref()
            .is_none_or(|(body, _)| body.is_end_stream());
    let mut relay = Relay {
        prefix: received.prefix,
        rest: received.rest,
        tap,
        permit: received.permit,
        record,
        open,
        outcome: received.outcome,
        dialect,
        is_certain,
        patience,
        timer: None,
        has_moved: false,
        reported: Some(0),
        is_done: false,
    };
    let body = if is_empty {
        Answer::Full(relay.finish())
    } else {
        Answer::Relay(Box::new(relay))
    };
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
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
    if let Some(reason) = record.attempts.limited_by {
        headers.insert(LIMITED_BY, HeaderValue::from_static(reason));
    } else {
        headers.remove(LIMITED_BY);
    }
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
