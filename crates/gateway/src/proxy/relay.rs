//! The body of an answer on its way to the client: byte for byte, no faster than the client reads.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;
use tidegate::Permit;
use tidegate_core::provider::{Dialect, Headers};
use tidegate_core::{Cause, Failure, Outcome, Tokens, Usage, Verdict};
use tokio::time::{Instant, Sleep};

use super::Relayed;
use super::forward::report;
use super::keepalive::KeptAlive;
use super::record::Record;
use crate::connection::OpenRequest;
use crate::metrics::RequestOutcome;
use crate::pool::Lease;
use crate::provider::{ResponseTap, StreamFault};

/// The body of an answer to a client.
pub(crate) enum Answer {
    /// Known in full.
    Full(Bytes),
    /// Relayed from an upstream.
    Relay(Box<Relay>),
    /// Begun while the request waits.
    KeptAlive(Box<KeptAlive>),
}

/// Why a relayed answer breaks off. hyper then aborts the connection or stream, so that the client cannot take what it
/// has for the whole.
#[derive(Debug, Error)]
pub(crate) enum RelayError {
    /// The upstream broke off.
    #[error("the upstream broke off in the middle of its answer: {0}")]
    Broken(hyper::Error),
    /// The upstream stood still.
    #[error("the upstream stood still for {} ms in the middle of its answer", .0.as_millis())]
    Stalled(Duration),
}

/// Output tokens between two reports to the limiter, where limits count output while it is generated: each report takes
/// its lock.
const PROGRESS_TOKENS: u64 = 16;

/// An answer that is being relayed. Dropped before its end, it takes the upstream's request with it.
pub(crate) struct Relay {
    prefix: Bytes,
    rest: Option<(Incoming, Lease)>,
    tap: ResponseTap,
    permit: Option<Permit>,
    record: Record,
    open: OpenRequest,
    /// What the request counts as if the answer reaches the client.
    outcome: RequestOutcome,
    /// How errors inside the answer are read.
    dialect: Dialect,
    /// Whether limits are configured, so that a refusal for rate breaks a promise.
    is_certain: bool,
    /// How long the upstream may stand still.
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether anything came since the timer was set.
    has_moved: bool,
    /// Output tokens reported to the limiter; `None` once it has no use for reports.
    reported: Option<u64>,
    is_done: bool,
}

impl Relay {
    /// Begins to relay an answer.
    pub(super) fn new(relayed: Relayed, record: Record, open: OpenRequest) -> Self {
        let received = relayed.received;
        Self {
            prefix: received.prefix,
            rest: received.rest,
            tap: relayed.tap,
            permit: received.permit,
            record,
            open,
            outcome: received.outcome,
            dialect: relayed.dialect,
            is_certain: relayed.is_certain,
            patience: relayed.patience,
            timer: None,
            has_moved: false,
            reported: Some(0),
            is_done: false,
        }
    }

    /// Returns whether there is nothing to relay.
    pub(super) fn is_empty(&self) -> bool {
        let is_end = |(body, _): &(Incoming, Lease)| body.is_end_stream();
        self.prefix.is_empty() && self.rest.as_ref().is_none_or(is_end)
    }

    /// Returns whether nothing more comes.
    pub(super) const fn is_done(&self) -> bool {
        self.is_done
    }

    /// Returns the next bytes and notes that they go to the client.
    pub(super) fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        self.poll_next(cx).map_ok(|data| {
            self.open.part_ready();
            Frame::data(data)
        })
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, RelayError>>> {
        self.open.part_taken();
        loop {
            if self.is_done {
                return Poll::Ready(None);
            }
            if !self.prefix.is_empty() {
                let prefix = std::mem::take(&mut self.prefix);
                let out = self.tap(prefix);
                if !out.is_empty() {
                    return Poll::Ready(Some(Ok(out)));
                }
                continue;
            }
            let Some((body, _)) = &mut self.rest else {
                let left = self.finish();
                return Poll::Ready((!left.is_empty()).then_some(Ok(left)));
            };
            match Pin::new(body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.has_moved = true;
                    // Trailers belong to the connection, and no provider sends any.
                    let Ok(data) = frame.into_data() else { continue };
                    let out = self.tap(data);
                    if !out.is_empty() {
                        return Poll::Ready(Some(Ok(out)));
                    }
                }
                Poll::Ready(None) => {
                    let left = self.finish();
                    return Poll::Ready((!left.is_empty()).then_some(Ok(left)));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.record.attempts.trouble = Some(format!("the answer broke off: {error}"));
                    self.break_off(RequestOutcome::Broken);
                    return Poll::Ready(Some(Err(RelayError::Broken(error))));
                }
                Poll::Pending => {
                    if self.poll_stall(cx).is_ready() {
                        self.record.attempts.trouble = Some("the answer stood still".to_owned());
                        self.break_off(RequestOutcome::Broken);
                        return Poll::Ready(Some(Err(RelayError::Stalled(self.patience))));
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Shows bytes to the tap. What ends with these bytes is finished with them: hyper does not ask again after the last
    /// byte of a known length.
    fn tap(&mut self, data: Bytes) -> Bytes {
        let mut out = self.tap.push(data);
        let is_end =
            self.prefix.is_empty() && self.rest.as_ref().is_none_or(|(body, _)| body.is_end_stream());
        if is_end {
            let left = self.finish();
            if !left.is_empty() {
                let mut joined = BytesMut::with_capacity(out.len() + left.len());
                joined.extend_from_slice(&out);
                joined.extend_from_slice(&left);
                out = joined.freeze();
            }
            return out;
        }
        if let Some(reported) = self.reported
            && let Some(permit) = &self.permit
        {
            let seen = self.tap.output_seen();
            if seen.value() >= reported.saturating_add(PROGRESS_TOKENS) {
                self.reported = permit.progress(seen).then_some(seen.value());
            }
        }
        out
    }

    /// The upstream's answer is complete.
    pub(super) fn finish(&mut self) -> Bytes {
        let left = self.tap.finish();
        self.is_done = true;
        if let Some((_, lease)) = self.rest.take() {
            lease.give_back();
        }
        let usage = self.tap.usage();
        if let Some(permit) = self.permit.take() {
            self.settle(permit, usage);
        }
        self.record.finish(self.outcome, &usage);
        left
    }

    fn break_off(&mut self, outcome: RequestOutcome) {
        self.is_done = true;
        self.rest = None;
        if let Some(permit) = self.permit.take() {
            permit.abandon(self.tap.output_seen());
        }
        self.note_fault();
        self.record.finish(outcome, &self.tap.usage());
    }

    /// Settles the permit of a complete answer. An error in it is what the status would have said, had the provider known
    /// it before it began: the limiter learns of a refusal for rate, but the answer is on its way and nothing is tried
    /// again.
    fn settle(&mut self, permit: Permit, usage: Usage) {
        let Some(fault) = self.fault() else {
            permit.settle(usage);
            return;
        };
        let verdict = self
            .dialect
            .classify(permit.now(), fault.status, &NoHeaders, &fault.body);
        let output = self.tap.output_seen();
        let has_begun = output > Tokens::ZERO;
        self.note_fault();
        self.outcome = match verdict {
            _ if has_begun => RequestOutcome::Broken,
            Verdict::RateLimited(_) => RequestOutcome::RateLimited,
            Verdict::Overloaded { .. } | Verdict::Transient => RequestOutcome::UpstreamError,
            _ => RequestOutcome::ClientError,
        };
        if let Verdict::RateLimited(limited) = verdict {
            if let Some(metrics) = self.record.metrics() {
                let breaks_promise = self.is_certain && limited.cause == Cause::Rate;
                metrics.rate_limited(limited.cause, limited.dimension, breaks_promise);
            }
            if !has_begun {
                report(permit, Failure::RateLimited(limited));
                return;
            }
        }
        let refused = match verdict {
            Verdict::QuotaSpent { until } => Some(Outcome::QuotaSpent { until }),
            Verdict::TooLarge(limited) => Some(Outcome::TooLarge(limited)),
            _ => None,
        };
        if let Some(refused) = refused.filter(|_| !has_begun) {
            permit.end(refused);
        } else if usage.output.is_some() {
            permit.settle(usage);
        } else {
            permit.abandon(output);
        }
    }

    /// Returns the error inside an answer that began as a success.
    fn fault(&self) -> Option<&StreamFault> {
        let began_well = self.record.status.is_some_and(|status| status.is_success());
        self.tap.fault().filter(|_| began_well)
    }

    /// Remembers the name of an error inside the answer.
    fn note_fault(&mut self) {
        let Some(fault) = self.fault() else { return };
        let trouble = format!("the answer ended with the error {:?}", fault.kind);
        if let Some(metrics) = self.record.metrics() {
            metrics.fault();
        }
        self.record.attempts.trouble = Some(trouble);
    }

    /// Ready when the upstream has stood still for its patience, and for twice that at most: the timer is set anew only
    /// when it fires.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let patience = self.patience;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        while timer.as_mut().poll(cx).is_ready() {
            if !self.has_moved {
                return Poll::Ready(());
            }
            self.has_moved = false;
            timer.as_mut().reset(Instant::now() + patience);
        }
        Poll::Pending
    }
}

/// An error inside an answer has no headers of its own.
struct NoHeaders;

impl Headers for NoHeaders {
    fn text(&self, _name: &str) -> Option<&str> {
        None
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if !self.is_done {
            self.break_off(RequestOutcome::Canceled);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Relay(relay) => relay.poll_part(cx),
            Self::KeptAlive(kept) => kept.poll_part(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Relay(relay) => relay.is_done,
            Self::KeptAlive(kept) => kept.is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Relay(relay) if relay.is_done => SizeHint::with_exact(0),
            Self::Relay(_) | Self::KeptAlive(_) => SizeHint::default(),
        }
    }
}
