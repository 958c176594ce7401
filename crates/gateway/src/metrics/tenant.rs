//! What is counted for each listed tenant. Others are counted together, because their number has no bound that suits labels.

use prometheus::IntCounter;
use tidegate_core::{TenantPlan, Tokens, Usage};

use super::{Metrics, OTHER, RequestOutcome};
use crate::config::Config;

/// The counters of one tenant.
#[derive(Debug, Clone)]
pub(super) struct TenantMetrics {
    requests: [IntCounter; RequestOutcome::ALL.len()],
    input: IntCounter,
    output: IntCounter,
}

impl TenantMetrics {
    /// Resolves the counters of every listed tenant in order, and last those of all others.
    pub(super) fn table(metrics: &Metrics, config: &Config) -> Vec<Self> {
        if config.tenants.is_empty() {
            return Vec::new();
        }
        let names = config.tenants.iter().map(|tenant| match tenant.name.as_str() {
            TenantPlan::EACH_OTHER => OTHER,
            name => name,
        });
        names
            .chain([OTHER])
            .map(|name| Self::new(metrics, name))
            .collect()
    }

    fn new(metrics: &Metrics, name: &str) -> Self {
        let tokens = |direction| metrics.tenant_tokens.with_label_values(&[name, direction]);
        Self {
            requests: RequestOutcome::ALL
                .map(|outcome| metrics.tenant_requests.with_label_values(&[name, outcome.name()])),
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
