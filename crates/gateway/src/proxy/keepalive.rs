//! Answers that begin while their request waits in line: comments until the upstream's events come.
//!
//! Clients, and proxies between, give up on a connection without a byte. Once a request for a stream has waited long
//! enough, its answer begins with status 200 and a comment, which every reader of event streams skips. The exchange goes
//! on inside the answer's body: it is polled when the body is, and dropped with it, so that a client that leaves takes
//! everything with it as ever.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use tidegate_core::{Tokens, Usage};
use tokio::time::{Instant, Sleep};

use super::record::Record;
use super::relay::{Answer, Relay, RelayError};
use super::request_id::RequestId;
use super::{Ended, REQUEST_ID, Relayed};
use crate::connection::OpenRequest;
use crate::metrics::RequestOutcome;
use crate::provider::{ErrorReply, Shape, error_event};

/// What is sent while there is nothing else. It is not about places or times: those change with every request.
const COMMENT: Bytes = Bytes::from_static(b": waiting\n\n");

/// What an exchange and the keep-alive around it tell each other.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Since when the request waits in line, while it does.
    since: Mutex<Option<Instant>>,
    has_begun: AtomicBool,
}

/// An exchange that owns what it needs.
type Exchanging = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// The body of an answer that began while its request waited.
pub(crate) struct KeptAlive {
    stage: Stage,
    interval: Duration,
}

enum Stage {
    Waiting(Waiting),
    Relaying(Box<Relay>),
    /// An error as the last event.
    Last(Bytes, OpenRequest),
    Done,
}

struct Waiting {
    exchange: Exchanging,
    timer: Pin<Box<Sleep>>,
    open: OpenRequest,
}

impl Line {
    /// The request waits in line from now on.
    pub(super) fn enter(&self, now: Instant) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// The request does not wait any more.
    pub(super) fn leave(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns whether the answer was begun while the request waited.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    fn since(&self) -> Option<Instant> {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers a request when its exchange has ended, or when it has waited in line for `interval`.
pub(super) async fn answer(
    mut exchange: Exchanging,
    line: Arc<Line>,
    interval: Duration,
    id: RequestId,
    open: OpenRequest,
) -> Response<Answer> {
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = exchange.as_mut().poll(cx) {
            return Poll::Ready(Some(ended));
        }
        let Some(since) = line.since() else {
            timer = None;
            return Poll::Pending;
        };
        let due = since + interval;
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await;
    if let Some(ended) = ended {
        return ended.answer(open);
    }
    line.has_begun.store(true, Ordering::Relaxed);
    // The first comment is due at once.
    let timer = timer.unwrap_or_else(|| Box::pin(tokio::time::sleep(Duration::ZERO)));
    let waiting = Waiting {
        exchange,
        timer,
        open,
    };
    let mut response = Response::new(Answer::KeptAlive(Box::new(KeptAlive {
        stage: Stage::Waiting(waiting),
        interval,
    })));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(REQUEST_ID, id.header());
    response
}

impl KeptAlive {
    /// Returns the next part of the answer.
    pub(super) fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        if let Stage::Waiting(waiting) = &mut self.stage {
            let Some(ended) = ready!(waiting.poll(cx, self.interval)) else {
                return Poll::Ready(Some(Ok(Frame::data(COMMENT))));
            };
            if let Stage::Waiting(Waiting { open, .. }) = std::mem::replace(&mut self.stage, Stage::Done) {
                self.stage = goes_on(ended, open);
            }
        }
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Relaying(mut relay) => {
                let part = relay.poll_part(cx);
                self.stage = Stage::Relaying(relay);
                part
            }
            Stage::Last(event, mut open) => {
                open.part_ready();
                Poll::Ready(Some(Ok(Frame::data(event))))
            }
            Stage::Waiting(_) | Stage::Done => Poll::Ready(None),
        }
    }

    /// Returns whether nothing more comes.
    pub(super) fn is_done(&self) -> bool {
        match &self.stage {
            Stage::Waiting(_) | Stage::Last(..) => false,
            Stage::Relaying(relay) => relay.is_done(),
            Stage::Done => true,
        }
    }
}

impl Waiting {
    /// Ready with how the exchange ended, or with `None` when another comment is due.
    fn poll(&mut self, cx: &mut Context<'_>, interval: Duration) -> Poll<Option<Ended>> {
        self.open.part_taken();
        if let Poll::Ready(ended) = self.exchange.as_mut().poll(cx) {
            return Poll::Ready(Some(ended));
        }
        if !self.timer.is_elapsed() {
            ready!(self.timer.as_mut().poll(cx));
        }
        self.timer.as_mut().reset(Instant::now() + interval);
        self.open.part_ready();
        Poll::Ready(None)
    }
}

/// What follows the comments: the upstream's events, or an error as the last event, since the status is gone.
fn goes_on(ended: Ended, open: OpenRequest) -> Stage {
    let Ended {
        result,
        mut record,
        shape,
    } = ended;
    let event = match result {
        Ok(relayed) if relayed.received.head.status.is_success() && relayed.tap.is_events() => {
            record.status = Some(StatusCode::OK);
            return Stage::Relaying(Box::new(Relay::new(relayed, record, open)));
        }
        Ok(relayed) => upstream_error(relayed, record, shape),
        Err(unanswered) => {
            let event = unanswered.reply.event(shape, record.id.as_str());
            record.error = Some(unanswered.reply.code());
            record.finish(unanswered.outcome, &Usage::default());
            event
        }
    };
    Stage::Last(event, open)
}

/// Makes an event of an upstream's answer that is no stream: in its own words, where they are there in full.
fn upstream_error(relayed: Relayed, mut record: Record, shape: Shape) -> Bytes {
    let received = relayed.received;
    let status = received.head.status;
    let own_words = (!status.is_success() && received.rest.is_none())
        .then(|| error_event(shape, &received.prefix))
        .flatten();
    let event = own_words.unwrap_or_else(|| {
        let upstream = record
            .upstream
            .and_then(|at| record.site.config.upstreams.get(at))
            .map_or("", |upstream| upstream.name.as_str());
        ErrorReply::upstream_answered(upstream, status).event(shape, record.id.as_str())
    });
    let outcome = if status.is_success() {
        RequestOutcome::UpstreamError
    } else {
        received.outcome
    };
    if let Some(permit) = received.permit {
        permit.abandon(Tokens::ZERO);
    }
    let trouble = || {
        format!(
            "the upstream answered {} and no stream of events",
            status.as_u16()
        )
    };
    record.attempts.trouble.get_or_insert_with(trouble);
    record.finish(outcome, &Usage::default());
    event
}
