//! What is remembered of one request for its log line and the metrics.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tidegate_core::Usage;
use tokio::time::Instant;

use super::request_id::RequestId;
use crate::provider::{Endpoint, StreamFault};
use crate::site::Site;

/// How a request ended, from the client's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The answer was handed over to its end.
    Complete,
    /// The client left before that.
    ClientGone,
    /// The upstream broke off in the middle of its answer.
    Broken,
    /// The upstream stood still in the middle of its answer.
    Stalled,
}

impl Ending {
    /// Returns the name used in logs and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::Broken => "broken",
            Self::Stalled => "stalled",
        }
    }
}

/// What is remembered of one request. Dropped before it was finished, it says that the client left.
pub(crate) struct Record {
    pub(crate) id: RequestId,
    pub(crate) begun: Instant,
    pub(crate) site: Arc<Site>,
    pub(crate) endpoint: Endpoint,
    pub(crate) upstream: Option<usize>,
    pub(crate) model: Option<String>,
    pub(crate) stream: bool,
    pub(crate) queued: Duration,
    pub(crate) limited_by: Option<&'static str>,
    /// Requests that were written to the upstream for this one.
    pub(crate) attempts: u32,
    pub(crate) status: Option<StatusCode>,
    /// The code of the gateway's own answer, where it gave one.
    pub(crate) error: Option<&'static str>,
    /// What went wrong with the upstream, in words for the log.
    pub(crate) trouble: Option<String>,
    is_finished: bool,
}

impl Record {
    /// Begins the record of a request.
    pub(crate) fn begin(id: RequestId, site: Arc<Site>) -> Self {
        Self {
            id,
            begun: Instant::now(),
            site,
            endpoint: Endpoint::Other,
            upstream: None,
            model: None,
            stream: false,
            queued: Duration::ZERO,
            limited_by: None,
            attempts: 0,
            status: None,
            error: None,
            trouble: None,
            is_finished: false,
        }
    }

    /// Ends the record: writes the log line.
    pub(crate) fn finish(&mut self, ending: Ending, usage: Usage, fault: Option<&StreamFault>) {
        if std::mem::replace(&mut self.is_finished, true) {
            return;
        }
        let upstream = self
            .upstream
            .and_then(|at| self.site.config.upstreams.get(at))
            .map(|upstream| upstream.name.as_str());
        tracing::info!(
            id = self.id.as_str(),
            endpoint = self.endpoint.name(),
            upstream,
            model = self.model.as_deref(),
            stream = self.stream,
            status = self.status.map(|status| status.as_u16()),
            outcome = ending.name(),
            error = self.error,
            queue_ms = u64::try_from(self.queued.as_millis()).unwrap_or(u64::MAX),
            duration_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            attempts = self.attempts,
            limited_by = self.limited_by,
            input_tokens = usage.input.map(tidegate_core::Tokens::value),
            output_tokens = usage.output.map(tidegate_core::Tokens::value),
            stream_fault = fault.map(|fault| fault.kind.as_str()),
            trouble = self.trouble.as_deref(),
            "request"
        );
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.finish(Ending::ClientGone, Usage::default(), None);
    }
}
