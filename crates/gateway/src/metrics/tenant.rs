//! What is counted for each listed tenant. Others are counted together, because their number has no bound that suits labels.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tidegate_core::{TenantPlan, Tokens, Usage};

use super::{OTHER, RequestOutcome, registered};
use crate::config::Config;

/// The counters of all tenants.
#[derive(Debug)]
pub(super) struct TenantCounters {
    requests: IntCounterVec,
    tokens: IntCounterVec,
}

/// The counters of one tenant.
#[derive(Debug, Clone)]
pub(super) struct TenantMetrics {
    requests: [IntCounter; RequestOutcome::ALL.len()],
    input: IntCounter,
    output: IntCounter,
}

impl TenantCounters {
    pub(super) fn new(registry: &Registry) -> Self {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        Self {
            requests: counters(
                "tidegate_tenant_requests_total",
                "Requests by the tenant that asked and by how they ended; tenants that are not listed count as other",
                &["tenant", "outcome"],
            ),
            tokens: counters(
                "tidegate_tenant_tokens_total",
                "Tokens that upstreams reported, by tenant",
                &["tenant", "direction"],
            ),
        }
    }
}

impl TenantMetrics {
    /// Resolves the counters of every listed tenant in order, and last those of all others.
    pub(super) fn table(counters: &TenantCounters, config: &Config) -> Vec<Self> {
        if config.tenants.is_empty() {
            return Vec::new();
        }
        let names = config.tenants.iter().map(|tenant| match tenant.name.as_str() {
            TenantPlan::EACH_OTHER => OTHER,
            name => name,
        });
        names
            .chain([OTHER])
            .map(|name| Self::new(counters, name))
            .collect()
    }

    fn new(counters: &TenantCounters, name: &str) -> Self {
        let tokens = |direction| counters.tokens.with_label_values(&[name, direction]);
        Self {
            requests: RequestOutcome::ALL
                .map(|outcome| counters.requests.with_label_values(&[name, outcome.name()])),
            input: tokens("input"),
            output: tokens("output"),
        }
    }

    /// Counts a request that has ended, and the tokens that the upstream reported for it: input with what its cache held.
    pub(super) fn finished(&self, outcome: RequestOutcome, usage: &Usage) {
        self.requests[outcome as usize].inc();
        let value = |tokens: Option<Tokens>| tokens.unwrap_or_default();
        self.input
            .inc_by((value(usage.input) + usage.cached_input).value());
        self.output.inc_by(value(usage.output).value());
    }
}
