//! From a permit to the head of an answer: connecting, sending, and trying again where that may help.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{Entry, HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Scheme as UriScheme, Uri};
use http::{Method, Request, response};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tidegate::{Limiter, Permit};
use tidegate_core::provider::{ERROR_BODY_MAX, Headers};
use tidegate_core::{Cause, Failure, Outcome, Refusal, Ticket, Timestamp, Tokens, Verdict};

use tokio::time::Instant;

use super::headers;
use super::keepalive::Line;
use super::unanswered::Unanswered;
use crate::config::{Scheme, Upstream};
use crate::metrics::{GroupMetrics, Refused, RequestOutcome};
use crate::pool::{ConnectError, Lease, Payload, Pool, SendError};
use crate::provider::{Asker, AuthStyle, ErrorReply, Root, StreamFault};
use crate::site::Target;

/// One request as it is sent, perhaps more than once.
pub(super) struct Call<'a> {
    pub(super) limiter: &'a Limiter,
    pub(super) upstream: &'a Upstream,
    pub(super) target: &'a Target,
    pub(super) pool: &'a Arc<Pool>,
    pub(super) method: &'a Method,
    /// Path and query, the upstream's prefix included.
    pub(super) path: PathAndQuery,
    /// The beginning of the path, by which the key's place may differ.
    pub(super) root: Root,
    /// The client's headers.
    pub(super) headers: &'a HeaderMap,
    pub(super) payload: Payload,
    pub(super) metrics: &'a GroupMetrics,
    /// Whether limits are configured, so that a refusal for rate breaks a promise.
    pub(super) is_certain: bool,
    /// Where the keep-alive of its client sees that it waits.
    pub(super) line: Option<&'a Line>,
    /// When the gateway had all of the request.
    pub(super) taken: Instant,
    /// Who asks, for the words of a refusal.
    pub(super) asker: Asker<'a>,
}

/// The head of an answer, and where its body comes from.
pub(super) struct Received {
    pub(super) head: response::Parts,
    /// What was read of the body already.
    pub(super) prefix: Bytes,
    /// Where the rest comes from; `None` if the prefix is all.
    pub(super) rest: Option<(Incoming, Lease)>,
    /// The permit that is to be settled at the answer's end; `None` if the attempt has been reported already.
    pub(super) permit: Option<Permit>,
    /// What the request counts as if the answer reaches the client.
    pub(super) outcome: RequestOutcome,
}

/// What became of the attempts, for headers, log and metrics.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// Requests that were written to an upstream, in whole or in part.
    pub(super) sent: u32,
    /// Time spent waiting for permits.
    pub(super) queued: Duration,
    /// Time spent making connections.
    connecting: Duration,
    /// Whether the gateway's own time was noted.
    is_measured: bool,
    /// The first reason for waiting.
    pub(super) limited_by: Option<&'static str>,
    /// What it was told when it began to wait, if it did.
    pub(super) turn: Option<Turn>,
    /// What last went wrong, in words for the log.
    pub(super) trouble: Option<String>,
}

/// What a request was told when it began to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    /// How many are expected to be served before it, itself included.
    pub(super) place: u64,
    /// How long that is expected to take; `None` where nobody knows, because something under way has to end first.
    pub(super) eta_ms: Option<u64>,
    is_own: bool,
}

impl Turn {
    pub(super) fn of(ticket: &Ticket, now: Timestamp) -> Self {
        let eta = ticket.eta.since(now).as_millis();
        Self {
            place: ticket.place,
            eta_ms: Some(u64::try_from(eta).unwrap_or(u64::MAX)).filter(|eta| *eta > 0),
            is_own: ticket.is_own,
        }
    }

    /// Returns behind whose requests it waits: its own tenant's, or others'. Who those are is no business of the client's.
    pub(super) const fn behind(&self) -> &'static str {
        if self.is_own { "own" } else { "others" }
    }
}

/// Whether SDKs may try again, whatever the status says.
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The answer's own word on how long the provider worked on it (OpenAI).
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");

/// How long the body of an error may take: it is wanted for its words only.
const ERROR_BODY_PATIENCE: Duration = Duration::from_secs(5);

/// A permit that is given back whole if the client leaves before the request is sent.
struct Unsent(Option<Permit>);

impl Unsent {
    fn take(&mut self) -> Permit {
        self.0
            .take()
            .expect("a permit is put back before the loop goes on")
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        if let Some(permit) = self.0.take() {
            permit.not_sent();
        }
    }
}

impl Call<'_> {
    /// Sends the request until an answer comes that is to be relayed.
    ///
    /// # Errors
    ///
    /// Returns the gateway's own answer where no upstream gave one.
    pub(super) async fn forward(
        mut self,
        permit: Permit,
        attempts: &mut Attempts,
    ) -> Result<Received, Unanswered> {
        attempts.limited_by = permit.limited_by().map(|reason| reason.name());
        // Whoever has only asked the store has not been in line.
        attempts.queued = match attempts.limited_by {
            Some(_) => permit.waited(),
            None => Duration::ZERO,
        };
        let mut unsent = Unsent(Some(permit));
        let mut kept: Option<Lease> = None;
        let mut last: Option<Received> = None;
        loop {
            let lease = match kept.take().filter(Lease::is_usable) {
                Some(lease) => Ok(lease),
                None => self.lease(attempts).await,
            };
            let failure = match lease {
                Err(error) => {
                    attempts.trouble = Some(error.to_string());
                    Failure::Transient { sent: false }
                }
                // Connecting may take longer than a permit lasts: then the connection is kept for the next one.
                Ok(lease) if !unsent.0.as_ref().is_some_and(Permit::is_valid) => {
                    kept = Some(lease);
                    Failure::Late
                }
                Ok(lease) => match self.attempt(lease, unsent.take(), attempts).await? {
                    Attempt::Answered(received) => return Ok(received),
                    Attempt::Failed(permit, failure, answer) => {
                        unsent.0 = Some(permit);
                        last = answer.or(last);
                        *failure
                    }
                },
            };
            self.metrics.all().retried(&failure);
            // Boxed, like everything that only failures need: most requests do not carry the room for it.
            let retrying = retry(unsent.take(), failure, self.payload.is_repeatable(), attempts);
            let retrying = Box::pin(retrying);
            if let Some(line) = self.line {
                line.enter(Instant::now());
            }
            let permit = retrying.await;
            if let Some(line) = self.line {
                line.leave();
            }
            match permit {
                Ok(permit) => unsent.0 = Some(permit),
                Err(refusal) => return self.give_up(last, refusal, attempts),
            }
        }
    }

    /// No further attempt: relays the last answer of the upstream, or says why there is none.
    fn give_up(
        &self,
        last: Option<Received>,
        refusal: Option<Refusal>,
        attempts: &Attempts,
    ) -> Result<Received, Unanswered> {
        match (last, refusal) {
            (Some(last), _) => Ok(last),
            (None, Some(refusal)) if attempts.trouble.is_none() => Err(Unanswered::refused(
                ErrorReply::refusal_of(&refusal, self.asker),
                Refused::Limiter(refusal.reason),
            )),
            (None, _) => Err(Unanswered::failed(ErrorReply::upstream_unreachable(
                &self.upstream.name,
            ))),
        }
    }

    /// Returns a connection that is ready for the request: a warm one if there is one.
    async fn lease(&self, attempts: &mut Attempts) -> Result<Lease, ConnectError> {
        if let Some(lease) = self.pool.warm() {
            return Ok(lease);
        }
        let begun = Instant::now();
        // Boxed, so that a request that finds a warm connection does not carry the room for making one.
        let lease = Box::pin(self.pool.fresh()).await;
        attempts.connecting += begun.elapsed();
        lease
    }

    async fn attempt(
        &mut self,
        mut lease: Lease,
        mut permit: Permit,
        attempts: &mut Attempts,
    ) -> Result<Attempt, Unanswered> {
        let request = self.request(&lease);
        if !std::mem::replace(&mut attempts.is_measured, true) {
            let elsewhere = permit.waited().saturating_add(attempts.connecting);
            let overhead = self.taken.elapsed().saturating_sub(elsewhere);
            self.metrics.all().overhead(overhead);
        }
        let first_byte_timeout = self.upstream.first_byte_timeout;
        permit.sent();
        attempts.sent += 1;
        let sending = tokio::time::timeout(first_byte_timeout, lease.send(request));
        match sending.await {
            Ok(Ok(response)) => {
                let (head, body) = response.into_parts();
                self.answered(head, body, lease, permit, attempts).await
            }
            Ok(Err(SendError::NotSent(request, error))) => {
                attempts.sent -= 1;
                attempts.trouble = Some(format!(
                    "the connection closed before the request was sent: {error}"
                ));
                self.payload = request.into_body();
                // A warm connection that the other side has closed meanwhile says nothing about the upstream.
                let failure = if lease.is_fresh() {
                    Failure::Transient { sent: false }
                } else {
                    Failure::Late
                };
                Ok(Attempt::Failed(permit, Box::new(failure), None))
            }
            Ok(Err(SendError::Broken(error))) => {
                attempts.trouble = Some(format!("the connection broke before an answer: {error}"));
                Ok(Attempt::Failed(
                    permit,
                    Box::new(Failure::Transient { sent: true }),
                    None,
                ))
            }
            Err(_elapsed) => {
                attempts.trouble = Some(format!("no answer within {} ms", first_byte_timeout.as_millis()));
                permit.abandon(Tokens::ZERO);
                Err(Unanswered::timeout(ErrorReply::upstream_timeout(
                    &self.upstream.name,
                    first_byte_timeout,
                )))
            }
        }
    }

    async fn answered(
        &mut self,
        head: response::Parts,
        body: Incoming,
        lease: Lease,
        permit: Permit,
        attempts: &mut Attempts,
    ) -> Result<Attempt, Unanswered> {
        let dialect = self.target.profile.dialect;
        let now = self.limiter.now();
        // A provider's limits take two dozen look-ups to read; an answer without any is common behind other gateways.
        let has_readings = head
            .headers
            .keys()
            .any(|name| name.as_str().contains("ratelimit"));
        let processing = processing(&head.headers);
        if has_readings || processing.is_some() {
            let readings = dialect.readings(now, &Texts(&head.headers));
            permit.observe(readings, processing);
        }
        let mut received = Received {
            head,
            prefix: Bytes::new(),
            rest: Some((body, lease)),
            permit: None,
            outcome: RequestOutcome::Success,
        };
        self.metrics.response(received.head.status.as_u16());
        let verdict = if received.head.status.is_success() {
            let fault = if self.target.profile.refuses_in_success {
                Box::pin(received.early_fault(self.upstream.idle_timeout)).await
            } else {
                None
            };
            let Some(fault) = fault else {
                received.permit = Some(permit);
                return Ok(Attempt::Answered(received));
            };
            dialect.classify(now, fault.status, &Texts(&received.head.headers), &fault.body)
        } else {
            Box::pin(received.read_prefix()).await;
            let status = received.head.status.as_u16();
            dialect.classify(now, status, &Texts(&received.head.headers), &received.prefix)
        };
        received.outcome = RequestOutcome::UpstreamError;
        let failure = match verdict {
            Verdict::RateLimited(limited) => {
                received.outcome = RequestOutcome::RateLimited;
                let breaks_promise = self.is_certain && limited.cause == Cause::Rate;
                self.metrics
                    .rate_limited(limited.cause, limited.dimension, breaks_promise);
                Failure::RateLimited(limited)
            }
            Verdict::Overloaded { retry_after } => Failure::Overloaded { retry_after },
            Verdict::Transient => Failure::Transient { sent: true },
            Verdict::QuotaSpent { until } => {
                let last = received.last_word();
                return Ok(last.passed(permit, Outcome::QuotaSpent { until }));
            }
            Verdict::TooLarge(limited) => {
                let last = received.last_word();
                return Ok(last.passed(permit, Outcome::TooLarge(limited)));
            }
            // What it took stays taken, and it shows nothing about limits or quota.
            Verdict::ClientError => {
                let output_seen = Tokens::ZERO;
                return Ok(received.passed(permit, Outcome::Unknown { output_seen }));
            }
            Verdict::Success => {
                received.outcome = RequestOutcome::Success;
                received.permit = Some(permit);
                return Ok(Attempt::Answered(received));
            }
        };
        attempts.trouble = Some(match received.head.status.as_u16() {
            200..300 => "the upstream answered with an error in a success".to_owned(),
            status => format!("the upstream answered {status}"),
        });
        Ok(Attempt::Failed(permit, Box::new(failure), Some(received)))
    }

    fn request(&mut self, lease: &Lease) -> Request<Payload> {
        let payload = match &mut self.payload {
            Payload::Full(bytes) => Payload::Full(bytes.clone()),
            Payload::Stream(_) | Payload::Spent => std::mem::replace(&mut self.payload, Payload::Spent),
        };
        let mut headers = headers::for_upstream(self.headers, 4);
        if let Some((name, value)) = self.target.key(self.root) {
            for name in &AuthStyle::HEADERS {
                headers.remove(name);
            }
            headers.insert(name.clone(), value.clone());
        }
        let mut request = Request::new(payload);
        *request.method_mut() = self.method.clone();
        if lease.is_http2() {
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(match self.upstream.base_url.scheme() {
                Scheme::Http => UriScheme::HTTP,
                Scheme::Https => UriScheme::HTTPS,
            });
            parts.authority = Some(self.upstream.base_url.authority().clone());
            parts.path_and_query = Some(self.path.clone());
            *request.uri_mut() =
                Uri::from_parts(parts).expect("a scheme, an authority and a path make a URI");
        } else {
            headers.insert(HOST, self.target.host.clone());
            *request.uri_mut() = Uri::from(self.path.clone());
        }
        *request.headers_mut() = headers;
        request
    }
}

enum Attempt {
    /// An answer that is to be relayed.
    Answered(Received),
    /// An attempt that failed in a way that another may cure, with the upstream's answer if it gave one.
    Failed(Permit, Box<Failure>, Option<Received>),
}

/// Waits for the permit of the next attempt. `Err(None)`: the request cannot be sent a second time.
async fn retry(
    permit: Permit,
    failure: Failure,
    is_repeatable: bool,
    attempts: &mut Attempts,
) -> Result<Permit, Option<Refusal>> {
    let is_unsent = matches!(failure, Failure::Late | Failure::Transient { sent: false });
    if !is_repeatable && !is_unsent {
        // The engine learns of the failure all the same, but the next permit is not waited for.
        report(permit, failure);
        return Err(None);
    }
    let permit = permit.retry(failure).await.map_err(Some)?;
    attempts.queued = permit.waited();
    attempts.limited_by = attempts
        .limited_by
        .or_else(|| permit.limited_by().map(|reason| reason.name()));
    Ok(permit)
}

/// Tells the limiter of a failure, without another attempt.
pub(super) fn report(permit: Permit, failure: Failure) {
    use std::future::Future;
    let waker = std::task::Waker::noop();
    let mut retrying = std::pin::pin!(permit.retry(failure));
    // The first poll reports the failure; dropping the future leaves the line again.
    if let std::task::Poll::Ready(Ok(permit)) =
        retrying.as_mut().poll(&mut std::task::Context::from_waker(waker))
    {
        permit.not_sent();
    }
}

impl Received {
    /// No further attempt would help: the limiter is told at once, and the client gets the provider's own word.
    fn passed(mut self, permit: Permit, outcome: Outcome) -> Attempt {
        permit.end(outcome);
        self.outcome = RequestOutcome::ClientError;
        Attempt::Answered(self)
    }

    /// Keeps SDKs from trying again what no attempt cures: they retry every 429 unless this header says otherwise, and
    /// nobody else can tell them (clients.md §5). What the provider says itself stands.
    fn last_word(mut self) -> Self {
        if !self.head.status.is_success()
            && let Entry::Vacant(vacant) = self.head.headers.entry(X_SHOULD_RETRY)
        {
            vacant.insert(HeaderValue::from_static("false"));
        }
        self
    }

    /// Reads the first [`ERROR_BODY_MAX`] bytes of the body, as far as they come in time.
    async fn read_prefix(&mut self) {
        self.read(ERROR_BODY_PATIENCE, |_| false).await;
    }

    /// Waits for the first bytes of a success and returns the error that they are, if they are one. They are kept to be
    /// relayed in any case.
    async fn early_fault(&mut self, patience: Duration) -> Option<StreamFault> {
        self.read(patience, |read| !read.is_empty()).await;
        if StreamFault::may_begin(&self.prefix) {
            self.read_prefix().await;
        }
        StreamFault::in_first(&self.prefix)
    }

    /// Reads on until `enough`, until [`ERROR_BODY_MAX`] bytes are there, or for so long.
    async fn read(&mut self, patience: Duration, enough: impl Fn(&[u8]) -> bool) {
        let Some((body, _)) = &mut self.rest else {
            return;
        };
        let mut read = BytesMut::from(std::mem::take(&mut self.prefix));
        let reading = async {
            while read.len() < ERROR_BODY_MAX && !enough(&read) {
                match body.frame().await {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            read.extend_from_slice(&data);
                        }
                    }
                    Some(Err(_)) => return false,
                    None => return true,
                }
            }
            body.is_end_stream()
        };
        let is_whole = tokio::time::timeout(patience, reading).await.unwrap_or(false);
        self.prefix = read.freeze();
        if is_whole && let Some((_, lease)) = self.rest.take() {
            lease.give_back();
        }
    }
}

/// Returns how long the provider says it worked on the request.
fn processing(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(PROCESSING_MS)?.to_str().ok()?;
    Some(Duration::from_millis(text.trim().parse().ok()?))
}

/// Response headers as the core reads them.
struct Texts<'a>(&'a HeaderMap);

impl Headers for Texts<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }
}
