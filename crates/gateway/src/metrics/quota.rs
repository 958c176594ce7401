//! The quota groups as they are at one moment: for the gauges and the status page.

use std::collections::BTreeMap;

use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry};
use serde::Serialize;

use super::registered;

/// A quota group, or one account of it, as it is at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct QuotaView {
    /// The upstream's name.
    pub upstream: String,
    /// The group's name.
    pub group: String,
    /// The group's label in metrics: its first model or pattern, or `other`.
    pub model: String,
    /// Which account of the group: a keyed hash in hexadecimal digits, `0` where there is only one.
    pub account: String,
    /// How many requests wait.
    pub waiting: u64,
    /// How many requests are in flight.
    pub in_flight: u64,
    /// How long the provider told the group to pause from now on, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
    /// The limits, configured and learned.
    pub limits: Vec<LimitView>,
    /// The first requests of the line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub line: Vec<WaitingView>,
}

/// One limit as it is at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LimitView {
    /// What is counted.
    pub dimension: &'static str,
    /// The length of its window, in milliseconds; 0 for requests in flight.
    pub window_ms: u64,
    /// The most that may be charged in one window.
    pub limit: u64,
    /// What is charged now.
    pub used: u64,
    /// Whether the limit was learned from answers.
    pub learned: bool,
}

/// One request that waits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct WaitingView {
    /// What it waits for: a dimension, `line`, `hold`, `backoff` or `learning`.
    pub reason: &'static str,
    /// The limit that has no room for it, such as `500 requests in 60s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// How long it has waited, in milliseconds.
    pub waited_ms: u64,
    /// When it is expected to be sent, in milliseconds from now.
    pub eta_ms: u64,
}

impl LimitView {
    fn window_label(&self) -> String {
        crate::config::duration::display(std::time::Duration::from_millis(self.window_ms)).to_string()
    }
}

/// Gauges that are filled when somebody asks.
#[derive(Debug)]
pub(super) struct QuotaGauges {
    depth: IntGaugeVec,
    hold: GaugeVec,
    limit: GaugeVec,
    used: GaugeVec,
    remaining: GaugeVec,
    utilization: GaugeVec,
}

/// What the accounts of a group have of one limit together.
#[derive(Default)]
struct Total {
    limit: u64,
    used: u64,
    fullest: f64,
}

impl QuotaGauges {
    pub(super) fn new(registry: &Registry) -> Self {
        let group = ["upstream", "model"];
        let limit = ["upstream", "model", "dimension", "window"];
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, GaugeVec::new(Opts::new(name, help), labels))
        };
        Self {
            depth: registered(
                registry,
                IntGaugeVec::new(Opts::new("tidegate_queue_depth", "Requests that wait"), &group),
            ),
            hold: gauges(
                "tidegate_hold_seconds",
                "How long the group still pauses because its upstream said so",
                &group,
            ),
            limit: gauges(
                "tidegate_quota_limit",
                "The amount of each limit, summed over accounts",
                &limit,
            ),
            used: gauges(
                "tidegate_quota_used",
                "What is charged now, summed over accounts",
                &limit,
            ),
            remaining: gauges(
                "tidegate_quota_remaining",
                "What is left now, summed over accounts",
                &limit,
            ),
            utilization: gauges(
                "tidegate_quota_utilization_ratio",
                "What is charged over the amount, of the account that is nearest to its limit",
                &limit,
            ),
        }
    }

    /// Sets all gauges. Accounts of one group are taken together, because their number has no bound that suits labels.
    pub(super) fn fill(&mut self, quotas: &[QuotaView]) {
        self.depth.reset();
        for gauges in [
            &self.hold,
            &self.limit,
            &self.used,
            &self.remaining,
            &self.utilization,
        ] {
            gauges.reset();
        }
        let mut totals: BTreeMap<[&str; 2], BTreeMap<(&str, String), Total>> = BTreeMap::new();
        for quota in quotas {
            let group = [quota.upstream.as_str(), quota.model.as_str()];
            self.depth
                .with_label_values(&group)
                .add(i64::try_from(quota.waiting).unwrap_or(i64::MAX));
            let hold = self.hold.with_label_values(&group);
            hold.set(hold.get().max(quota.hold_ms.unwrap_or_default() as f64 / 1_000.0));
            let limits = totals.entry(group).or_default();
            for limit in &quota.limits {
                let total = limits.entry((limit.dimension, limit.window_label())).or_default();
                total.limit = total.limit.saturating_add(limit.limit);
                total.used = total.used.saturating_add(limit.used);
                total.fullest = total.fullest.max(limit.used as f64 / limit.limit.max(1) as f64);
            }
        }
        for (group, limits) in &totals {
            for ((dimension, window), total) in limits {
                let labels = [group[0], group[1], dimension, window.as_str()];
                self.limit.with_label_values(&labels).set(total.limit as f64);
                self.used.with_label_values(&labels).set(total.used as f64);
                self.remaining
                    .with_label_values(&labels)
                    .set(total.limit.saturating_sub(total.used) as f64);
                self.utilization.with_label_values(&labels).set(total.fullest);
            }
        }
    }
}
