//! What is remembered of one request for its log line and the metrics.

use std::sync::Arc;

use http::StatusCode;
use tidegate_core::{Priority, Tokens, Usage};
use tokio::time::Instant;

use super::forward::{Attempts, Turn};
use super::keepalive::Line;
use super::request_id::RequestId;
use super::run::RunTrace;
use super::weighed::Weighed;
use crate::log::RequestRecord;
use crate::metrics::{GaugeGuard, GroupMetrics, RequestOutcome};
use crate::provider::Endpoint;
use crate::site::Site;
use crate::tenants::Who;

/// What is remembered of one request. Dropped before it was finished, it says that the client left.
pub(crate) struct Record {
    pub(super) id: RequestId,
    pub(super) site: Arc<Site>,
    pub(super) endpoint: Endpoint,
    /// The upstream's place in the configuration.
    pub(super) upstream: Option<usize>,
    /// The quota group's place in the configuration.
    pub(super) group: Option<usize>,
    /// Who asks.
    pub(super) who: Option<Who>,
    pub(super) priority: Option<Priority>,
    /// The route's place in the configuration.
    pub(super) route: Option<usize>,
    pub(super) model: Option<String>,
    pub(super) stream: bool,
    /// Since when the request waits for its first permit, while it does.
    pub(super) in_line_since: Option<Instant>,
    /// What became of the attempts. They are kept here, so that a request whose client leaves tells of them as well.
    pub(super) attempts: Attempts,
    /// The status that the client got.
    pub(super) status: Option<StatusCode>,
    /// The code of the gateway's own answer, where it gave one.
    pub(super) error: Option<&'static str>,
    pub(super) estimated_input: u64,
    pub(super) client_retries: Option<u32>,
    /// The maximum output that was set on the client's behalf.
    pub(super) max_tokens: Option<u64>,
    /// The run of an agent that it belongs to.
    pub(super) run: Option<Box<RunTrace>>,
    /// Tells whether the answer was begun while the request waited.
    pub(super) line: Option<Arc<Line>>,
    /// Counts the request as in flight.
    pub(super) in_flight: Option<GaugeGuard>,
    begun: Instant,
    is_finished: bool,
}

impl Record {
    /// Begins the record of a request.
    pub(super) fn begin(id: RequestId, site: Arc<Site>, endpoint: Endpoint) -> Self {
        Self {
            id,
            site,
            endpoint,
            upstream: None,
            group: None,
            who: None,
            priority: None,
            route: None,
            model: None,
            stream: false,
            in_line_since: None,
            attempts: Attempts::default(),
            status: None,
            error: None,
            estimated_input: 0,
            client_retries: None,
            max_tokens: None,
            run: None,
            line: None,
            in_flight: None,
            begun: Instant::now(),
            is_finished: false,
        }
    }

    /// Takes note of what the request's body says.
    pub(super) fn note(&mut self, model: Option<String>, weighed: &Weighed) {
        self.model = model;
        self.stream = weighed.stream;
        self.max_tokens = weighed.output_max.map(Tokens::value);
        self.estimated_input = weighed.demand.input.value();
    }

    /// Returns the counters of the request's quota group; while that is not known, of the group of what is not listed.
    pub(super) fn metrics(&self) -> Option<&Arc<GroupMetrics>> {
        let unlisted = || {
            let upstream = self.site.config.upstreams.get(self.upstream?)?;
            Some(upstream.unlisted.index)
        };
        self.group
            .or_else(unlisted)
            .map(|group| self.site.metrics.group(group))
    }

    /// Ends the record: counts the request and writes its log line.
    pub(super) fn finish(&mut self, outcome: RequestOutcome, usage: &Usage) {
        if std::mem::replace(&mut self.is_finished, true) {
            return;
        }
        self.in_flight = None;
        let kept_alive = self.line.as_ref().is_some_and(|line| line.has_begun());
        if kept_alive {
            self.status = Some(StatusCode::OK);
        }
        if let Some(since) = self.in_line_since {
            self.attempts.queued = since.elapsed();
        }
        let attempts = &self.attempts;
        if let Some(metrics) = self.metrics() {
            metrics.finished(outcome);
            if self.client_retries.is_some_and(|retries| retries > 0) {
                metrics.client_retried();
            }
            if attempts.sent > 0 {
                metrics.waited(attempts.queued);
                metrics.usage(usage, self.estimated_input);
            }
        } else {
            self.site.metrics.unrouted(outcome);
        }
        if let Some(who) = &self.who {
            self.site.metrics.of_tenant(who.rules, outcome, usage);
        }
        if !RequestRecord::wanted() {
            return;
        }
        let upstream = self
            .upstream
            .and_then(|at| self.site.config.upstreams.get(at))
            .map_or("", |upstream| upstream.name.as_str());
        let record = RequestRecord {
            request_id: self.id.as_str(),
            upstream,
            tenant: self.who.as_ref().and_then(|who| who.name.as_deref()),
            priority: self.priority.map(Priority::name),
            route: self
                .route
                .and_then(|at| self.site.config.routes.get(at))
                .map(|route| route.name.as_str()),
            model: self.model.as_deref(),
            endpoint: self.endpoint.name(),
            status: self.status.map_or(0, |status| status.as_u16()),
            outcome,
            queued: attempts.queued,
            attempts: attempts.sent,
            limited_by: attempts.limited_by,
            queue_place: attempts.turn.map(|turn| turn.place),
            queue_eta_ms: attempts.turn.and_then(|turn| turn.eta_ms),
            queue_behind: attempts.turn.as_ref().map(Turn::behind),
            input_tokens: usage.input.map(Tokens::value),
            cached_input_tokens: Some(usage.cached_input.value()).filter(|cached| *cached > 0),
            output_tokens: usage.output.map(Tokens::value),
            max_tokens: self.max_tokens,
            duration: self.begun.elapsed(),
            stream: self.stream,
            error: self.error,
            trouble: attempts.trouble.as_deref(),
            client_retries: self.client_retries,
            run: self.run.as_ref().map(|run| run.name.as_str()),
            kept_alive,
        };
        record.emit();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.finish(RequestOutcome::Canceled, &Usage::default());
    }
}
