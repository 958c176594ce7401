//! What is counted, for Prometheus.
//!
//! Counters live as long as the program; a reload makes a new [`MetricTable`] over the same ones. On the path of a
//! request nothing is looked up by label: every quota group's handles are resolved beforehand and found by
//! [`crate::config::Group::index`]. Labels come from the configuration and from enums, never from a request.

mod quota;
mod store;
mod tenant;
mod usage;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector,
};
use tidegate_core::{Cause, Dimension, Failure, RefusalReason, Usage};

use crate::config::{Config, Group};
use quota::QuotaGauges;
pub use quota::{CapView, LimitView, OutputView, QuotaView, WaitingView, views};
pub(crate) use quota::{named_views, window};
pub use store::{NodeView, StandingView, StoreView};
use tenant::{TenantCounters, TenantMetrics};
pub use usage::{AllowanceView, BudgetView, RunView, ShareView, SpentView};
pub(crate) use usage::{CallerNames, allowances, runs};

/// The label of everything that no configured quota group names.
const OTHER: &str = "other";

/// The upstream's label of requests whose path leads to none.
const NONE: &str = "none";

/// Status codes that have a handle of their own; any other is resolved when it comes.
const STATUSES: [u16; 14] = [
    200, 201, 400, 401, 403, 404, 408, 413, 422, 429, 500, 502, 503, 529,
];

/// How long a request may have waited, in seconds: from a millisecond to the longest wait.
const WAIT_BUCKETS: [f64; 14] = [
    0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0, 600.0,
];

/// What Tidegate itself adds to a request, in seconds.
const OVERHEAD_BUCKETS: [f64; 11] = [
    10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 20e-3, 100e-3,
];

/// The estimate of the input tokens over what the provider reported.
const ESTIMATE_BUCKETS: [f64; 12] = [0.25, 0.5, 0.75, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0];

/// How a request ended, as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestOutcome {
    /// The provider's success was relayed in full.
    Success,
    /// The provider found the request itself at fault (4xx), and that was relayed.
    ClientError,
    /// The provider refused for rate and that was relayed, because no retry could help in time.
    RateLimited,
    /// The provider failed (5xx, no connection) and no retry helped in time.
    UpstreamError,
    /// The provider was silent for longer than it may be.
    Timeout,
    /// The provider's answer broke off after it had begun.
    Broken,
    /// Tidegate did not send it.
    Refused,
    /// The client left.
    Canceled,
}

impl RequestOutcome {
    /// Every outcome, in the order of declaration.
    pub const ALL: [Self; 8] = [
        Self::Success,
        Self::ClientError,
        Self::RateLimited,
        Self::UpstreamError,
        Self::Timeout,
        Self::Broken,
        Self::Refused,
        Self::Canceled,
    ];

    /// Returns the name used in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ClientError => "client_error",
            Self::RateLimited => "rate_limited",
            Self::UpstreamError => "upstream_error",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Refused => "refused",
            Self::Canceled => "canceled",
        }
    }
}

/// Why Tidegate did not send a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The limiter said so.
    Limiter(RefusalReason),
    /// Its body is larger than it may be.
    BodyTooLarge,
    /// Its head or body did not arrive in time.
    Slow,
    /// Its body could not be read as what its path asks for.
    BadBody,
    /// Its head says something that cannot be read.
    BadHead,
    /// Its path names no upstream.
    NoUpstream,
    /// Nobody knows who asks.
    Unknown,
    /// Its tenant may not use what it asks for, or a price is missing.
    NotAllowed,
}

impl Refused {
    /// Returns the name used in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Limiter(reason) => reason.name(),
            Self::BodyTooLarge => "body_too_large",
            Self::Slow => "slow",
            Self::BadBody => "bad_body",
            Self::BadHead => "bad_head",
            Self::NoUpstream => "no_upstream",
            Self::Unknown => "unknown_key",
            Self::NotAllowed => "not_allowed",
        }
    }
}

/// Returns the name of a failure in metrics.
const fn failure_name(failure: &Failure) -> &'static str {
    match failure {
        Failure::Late => "late",
        Failure::RateLimited(_) => "rate_limited",
        Failure::Overloaded { .. } => "overloaded",
        Failure::Transient { .. } => "transient",
    }
}

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    responses: IntCounterVec,
    rate_limited: IntCounterVec,
    refused: IntCounterVec,
    violations: IntCounterVec,
    queue_wait: HistogramVec,
    in_flight: IntGaugeVec,
    tokens: IntCounterVec,
    tenants: TenantCounters,
    estimate: HistogramVec,
    overhead: Histogram,
    faults: IntCounterVec,
    client_retries: IntCounterVec,
    retries: IntCounterVec,
    refusals: IntCounterVec,
    connections: IntGauge,
    log_lines_dropped: IntCounter,
    reloads: IntCounterVec,
    quota: Mutex<QuotaGauges>,
}

impl Metrics {
    /// Makes the counters, all at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let group = ["upstream", "model"];
        let and = |more: &'static str| [group[0], group[1], more];
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registered(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let histograms = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            registered(&registry, HistogramVec::new(opts, labels))
        };
        tell_build(&registry);
        let retries = counters(
            "tidegate_retries_total",
            "Attempts after the first, by what had failed",
            &["reason"],
        );
        let reloads = counters(
            "tidegate_config_reloads_total",
            "Reloads of the configuration",
            &["outcome"],
        );
        // Series that are known beforehand stand at zero from the start, so that the first event shows as a rise.
        begin(&retries, &["late", "rate_limited", "overloaded", "transient"]);
        begin(&reloads, &["success", "failure"]);
        Self {
            requests: counters("tidegate_requests_total", "Requests of clients, by how they ended", &and("outcome")),
            responses: counters(
                "tidegate_upstream_responses_total",
                "Answers of upstreams, by status; every attempt counts",
                &and("status"),
            ),
            rate_limited: counters(
                "tidegate_upstream_rate_limited_total",
                "Refusals for rate by upstreams, by the dimension that refused",
                &and("dimension"),
            ),
            refused: counters(
                "tidegate_upstream_refusals_total",
                "Refusals by upstreams that time cures, by their cause: only those for rate can break the promise",
                &and("cause"),
            ),
            violations: counters(
                "tidegate_promise_violations_total",
                "Refusals for rate of requests that were sent in the certainty that they would be accepted",
                &group,
            ),
            queue_wait: histograms(
                "tidegate_queue_wait_seconds",
                "How long requests waited before they were sent, all attempts together",
                &WAIT_BUCKETS,
                &group,
            ),
            in_flight: registered(
                &registry,
                IntGaugeVec::new(
                    Opts::new("tidegate_in_flight_requests", "Requests sent upstream whose answer is not complete"),
                    &group,
                ),
            ),
            tokens: counters("tidegate_tokens_total", "Tokens that upstreams reported, by type", &and("type")),
            tenants: TenantCounters::new(&registry),
            estimate: histograms(
                "tidegate_estimate_error_ratio",
                "Estimated over reported input tokens",
                &ESTIMATE_BUCKETS,
                &group,
            ),
            overhead: registered(
                &registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "tidegate_overhead_seconds",
                        "Time that requests spent in the gateway itself: neither waiting for a limit nor for an upstream",
                    )
                    .buckets(OVERHEAD_BUCKETS.to_vec()),
                ),
            ),
            faults: counters(
                "tidegate_answer_faults_total",
                "Errors of upstreams inside answers that had begun as successes",
                &group,
            ),
            client_retries: counters(
                "tidegate_client_retries_total",
                "Requests that a client says it has tried before (x-stainless-retry-count)",
                &group,
            ),
            retries,
            refusals: counters("tidegate_refusals_total", "Requests that were not sent, by reason", &["reason"]),
            connections: registered(&registry, IntGauge::new("tidegate_connections", "Open connections of clients")),
            log_lines_dropped: registered(
                &registry,
                IntCounter::new("tidegate_log_lines_dropped_total", "Log lines lost because nobody read them in time"),
            ),
            reloads,
            quota: Mutex::new(QuotaGauges::new(&registry)),
            registry,
        }
    }

    /// Resolves the handles of every quota group of a configuration.
    pub fn table(self: &Arc<Self>, config: &Config) -> MetricTable {
        let groups = config
            .groups()
            .map(|(upstream, group)| GroupMetrics::new(self, &upstream.name, group))
            .collect();
        let unrouted = RequestOutcome::ALL
            .map(|outcome| self.requests.with_label_values(&[NONE, OTHER, outcome.name()]));
        MetricTable {
            groups,
            unrouted,
            tenants: TenantMetrics::table(&self.tenants, config),
        }
    }

    /// Counts a request that was not sent. With a group's, [`GroupMetrics::finished`] counts its end as well.
    pub fn refused(&self, reason: Refused) {
        self.refusals.with_label_values(&[reason.name()]).inc();
    }

    /// Counts another attempt after a failure.
    pub fn retried(&self, failure: &Failure) {
        self.retries.with_label_values(&[failure_name(failure)]).inc();
    }

    /// Notes the time that a request spent in the gateway itself.
    pub fn overhead(&self, time: Duration) {
        self.overhead.observe(time.as_secs_f64());
    }

    /// Counts an open connection until the guard is dropped.
    pub fn connection(&self) -> GaugeGuard {
        GaugeGuard::new(&self.connections)
    }

    /// Counts a reload.
    pub fn reloaded(&self, outcome: Result<(), ()>) {
        let outcome = if outcome.is_ok() { "success" } else { "failure" };
        self.reloads.with_label_values(&[outcome]).inc();
    }

    /// Returns the counter of log lines that were lost.
    pub fn log_lines_dropped(&self) -> IntCounter {
        self.log_lines_dropped.clone()
    }

    /// Writes everything in Prometheus' text format, with the quota groups and the store as they are now.
    pub fn render(&self, quotas: &[QuotaView], store: Option<&StoreView>) -> String {
        let mut gauges = self.quota.lock().unwrap_or_else(PoisonError::into_inner);
        gauges.fill(quotas);
        let families = self.registry.gather();
        drop(gauges);
        let mut page = String::new();
        for family in families {
            // A family that cannot be written is left out; none of ours can fail, but a page is better than no page.
            let before = page.len();
            if TextEncoder::new()
                .encode_utf8(std::slice::from_ref(&family), &mut page)
                .is_err()
            {
                page.truncate(before);
            }
        }
        if let Some(store) = store {
            store::write(&mut page, store, quotas);
        }
        page
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// Makes the series of counters with one label, at zero.
fn begin(counters: &IntCounterVec, labels: &[&str]) {
    for label in labels {
        counters.with_label_values(&[label]);
    }
}

/// Tells the version that runs.
fn tell_build(registry: &Registry) {
    let build = IntGaugeVec::new(
        Opts::new("tidegate_build_info", "The version that runs"),
        &["version"],
    );
    registered(registry, build)
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
}

/// Returns a group's label: its first model or pattern, its endpoint, or `other`.
fn group_label(group: &Group) -> String {
    group.label.clone()
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("the names and labels are constants that keep Prometheus' rules");
    registry
        .register(Box::new(collector.clone()))
        .expect("every name is registered once");
    collector
}

/// The handles of every quota group of one configuration.
#[derive(Debug, Clone)]
pub struct MetricTable {
    groups: Vec<Arc<GroupMetrics>>,
    /// Requests that reached no upstream's quota group.
    unrouted: [IntCounter; RequestOutcome::ALL.len()],
    /// One for each listed tenant in the order of the configuration, and last one for all others; none where nobody is
    /// listed.
    tenants: Vec<TenantMetrics>,
}

impl MetricTable {
    /// Counts a request that has ended for the tenant at `listed`, or for those that are not listed.
    pub fn of_tenant(&self, listed: Option<usize>, outcome: RequestOutcome, usage: &Usage) {
        let at = listed
            .unwrap_or(usize::MAX)
            .min(self.tenants.len().saturating_sub(1));
        if let Some(tenant) = self.tenants.get(at) {
            tenant.finished(outcome, usage);
        }
    }

    /// Returns the handles of the group at `index` ([`crate::config::QuotaRoute::index`]).
    ///
    /// # Panics
    ///
    /// Panics if the index is not one of the configuration that the table was made from.
    pub fn group(&self, index: usize) -> &Arc<GroupMetrics> {
        &self.groups[index]
    }

    /// Counts a request that has ended without an upstream.
    pub fn unrouted(&self, outcome: RequestOutcome) {
        self.unrouted[outcome as usize].inc();
    }
}

/// The handles of one quota group.
pub struct GroupMetrics {
    metrics: Arc<Metrics>,
    upstream: String,
    model: String,
    requests: [IntCounter; RequestOutcome::ALL.len()],
    responses: [OnceLock<IntCounter>; STATUSES.len()],
    /// By dimension, and last where the refusal did not say which.
    rate_limited: [IntCounter; Dimension::ALL.len() + 1],
    refused: [IntCounter; Cause::ALL.len()],
    violations: IntCounter,
    queue_wait: Histogram,
    in_flight: IntGauge,
    input: IntCounter,
    cached_input: IntCounter,
    output: IntCounter,
    estimate: Histogram,
    faults: IntCounter,
    client_retries: IntCounter,
}

impl GroupMetrics {
    fn new(metrics: &Arc<Metrics>, upstream: &str, group: &Group) -> Arc<Self> {
        let model = group
            .models
            .first()
            .map_or_else(|| OTHER.to_owned(), ToString::to_string);
        let labels = [upstream, model.as_str()];
        let labels_and = |more: &'static str| [upstream, model.as_str(), more];
        let tokens = |kind| metrics.tokens.with_label_values(&labels_and(kind));
        let dimension = |at: usize| {
            Dimension::ALL
                .get(at)
                .map_or("unknown", |dimension| dimension.name())
        };
        Arc::new(Self {
            requests: RequestOutcome::ALL
                .map(|outcome| metrics.requests.with_label_values(&labels_and(outcome.name()))),
            responses: std::array::from_fn(|_| OnceLock::new()),
            rate_limited: std::array::from_fn(|at| {
                metrics.rate_limited.with_label_values(&labels_and(dimension(at)))
            }),
            refused: Cause::ALL.map(|cause| metrics.refused.with_label_values(&labels_and(cause.name()))),
            violations: metrics.violations.with_label_values(&labels),
            queue_wait: metrics.queue_wait.with_label_values(&labels),
            in_flight: metrics.in_flight.with_label_values(&labels),
            input: tokens("input"),
            cached_input: tokens("cached_input"),
            output: tokens("output"),
            estimate: metrics.estimate.with_label_values(&labels),
            faults: metrics.faults.with_label_values(&labels),
            client_retries: metrics.client_retries.with_label_values(&labels),
            upstream: upstream.to_owned(),
            model,
            metrics: Arc::clone(metrics),
        })
    }

    /// Returns the upstream's name.
    pub fn upstream(&self) -> &str {
        &self.upstream
    }

    /// Returns the group's label: its first model or pattern, or `other`.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Returns what is counted for all groups together.
    pub fn all(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts a request that has ended.
    pub fn finished(&self, outcome: RequestOutcome) {
        self.requests[outcome as usize].inc();
    }

    /// Counts an answer of the upstream.
    pub fn response(&self, status: u16) {
        let make = |status: u16| {
            let text = if (100..600).contains(&status) {
                status.to_string()
            } else {
                OTHER.to_owned()
            };
            self.metrics
                .responses
                .with_label_values(&[self.upstream.as_str(), &self.model, &text])
        };
        match STATUSES.iter().position(|known| *known == status) {
            Some(at) => self.responses[at].get_or_init(|| make(status)).inc(),
            None => make(status).inc(),
        }
    }

    /// Counts a refusal that time cures, and where it breaks the promise, that.
    pub fn rate_limited(&self, cause: Cause, dimension: Option<Dimension>, breaks_promise: bool) {
        self.refused[cause as usize].inc();
        self.rate_limited[dimension.map_or(Dimension::ALL.len(), Dimension::index)].inc();
        if breaks_promise {
            self.violations.inc();
        }
    }

    /// Counts an error inside an answer that had begun as a success.
    pub fn fault(&self) {
        self.faults.inc();
    }

    /// Counts a request that its client has tried before.
    pub fn client_retried(&self) {
        self.client_retries.inc();
    }

    /// Notes how long a request waited before it was sent.
    pub fn waited(&self, time: Duration) {
        self.queue_wait.observe(time.as_secs_f64());
    }

    /// Counts a request as in flight until the guard is dropped.
    pub fn in_flight(&self) -> GaugeGuard {
        GaugeGuard::new(&self.in_flight)
    }

    /// Counts the tokens that the upstream reported, and compares its input with what was estimated.
    pub fn usage(&self, usage: &Usage, estimated_input: u64) {
        let value = |tokens: Option<tidegate_core::Tokens>| tokens.map_or(0, tidegate_core::Tokens::value);
        let (input, output) = (value(usage.input), value(usage.output));
        self.input.inc_by(input);
        self.output.inc_by(output);
        self.cached_input.inc_by(usage.cached_input.value());
        // The estimate knows nothing of the provider's cache.
        let all_input = input.saturating_add(usage.cached_input.value());
        if all_input > 0 && estimated_input > 0 {
            self.estimate.observe(estimated_input as f64 / all_input as f64);
        }
    }
}

impl std::fmt::Debug for GroupMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GroupMetrics({}/{})", self.upstream, self.model)
    }
}

/// One more in a gauge for as long as it lives.
#[derive(Debug)]
pub struct GaugeGuard(IntGauge);

impl GaugeGuard {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcomes_stand_in_the_order_of_their_numbers() {
        for (at, outcome) in RequestOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, at);
        }
    }
}
