//! The quota groups as they are at one moment: for the gauges and the status page.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry};
use serde::{Deserialize, Serialize};
use tidegate_core::{
    Dimension, LimitRef, LimitSnapshot, OutputCharge, OutputSnapshot, QuotaSnapshot, Snapshot, Timestamp,
    Tokens, WaitReason, WaitingSnapshot,
};

use super::store::StandingView;
use super::usage::{self, CallerNames, ShareView};
use super::{OTHER, group_label, registered};
use crate::config::{Config, duration};

/// How much of the line of each group is shown.
const LINE_SHOWN: usize = 100;

/// A quota group, or one account of it, as it is at one moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct QuotaView {
    /// The upstream's name.
    pub upstream: String,
    /// The group's name.
    pub group: String,
    /// The group's label in metrics: its first model or pattern, or `other`.
    pub model: String,
    /// Which account of the group: a keyed hash in hexadecimal digits, `0` where there is only one.
    pub account: String,
    /// The model (or what else has limits of its own) that a group of unlisted ones has this account for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serves: Option<String>,
    /// How many requests wait.
    pub waiting: u64,
    /// How many bytes they hold.
    pub waiting_bytes: u64,
    /// How many requests are in flight.
    pub in_flight: u64,
    /// How long the group still pauses because the provider said so, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
    /// Whether no limit is known yet.
    pub learning: bool,
    /// Requests a minute that slow start lets through now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probing_rpm: Option<u64>,
    /// The pace that shortage of shared capacity leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub congestion: Option<CongestionView>,
    /// How long the quota is still spent, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spent_ms: Option<u64>,
    /// How it stands to the store that is shared with other gateways, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StandingView>,
    /// The limits that are known, configured and learned.
    pub limits: Vec<LimitView>,
    /// How long outputs are, for each model and endpoint that enough is known of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<OutputView>,
    /// Tenants that used it lately or wait, the largest users first; absent where nobody is told apart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<ShareView>,
    /// The first requests of the line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub line: Vec<WaitingView>,
    /// How many wait besides those.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line_more: Option<u64>,
}

/// The pace that shortage of shared capacity leaves to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CongestionView {
    /// Requests a minute that are sent now.
    pub rpm: u64,
    /// That pace over the one at which the provider last refused, in percent.
    pub percent: u32,
    /// How long it stays as it is, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steady_ms: Option<u64>,
}

/// One limit as it is at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LimitView {
    /// What is counted.
    pub dimension: &'static str,
    /// The length of its window, such as `60s`; `-` for requests in flight.
    pub window: String,
    /// The most that may be charged in one window.
    pub limit: u64,
    /// What is in use: charged by Tidegate and by others, and held.
    pub used: u64,
    /// How much of that is held for output that is not generated yet.
    pub held: u64,
    /// How much of that others were found to use.
    pub foreign: u64,
    /// How much of that is presumed, after a crash, until an answer tells.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub presumed: u64,
    /// By how much the window is kept longer than the provider's, in milliseconds.
    pub margin_ms: u64,
    /// Where the amount comes from: `config`, `preset`, `header`, `api`, `refusal` or `learned`.
    pub source: &'static str,
    /// How long ago it was last told, in seconds.
    pub age_s: u64,
    /// By how much it grows at every minute boundary, where use grew too fast.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grows_by: Option<u64>,
}

/// How long the outputs of one model at one endpoint are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutputView {
    /// How many are remembered; older ones fade within about an hour.
    pub samples: u32,
    /// The mean of the maxima that requests ask for.
    pub asked: u64,
    /// Half of them are no longer than this.
    pub p50: u64,
    /// All but one in a hundred are no longer than this.
    pub p99: u64,
    /// What a cap on the maximum output does to the quota, where the provider reserves the maximum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap: Option<CapView>,
}

/// What a cap on the maximum output does to the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CapView {
    /// The cap: `max_tokens_cap` where it is configured, else the length that 99 % of the outputs keep to.
    pub tokens: u64,
    /// Whether it is configured.
    pub configured: bool,
    /// At most this many in a million answers are cut short by it.
    pub cut_per_million: u32,
    /// How many requests the same quota on output carries with it, in percent of those without.
    pub carries_percent: u64,
}

/// One request that waits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct WaitingView {
    /// Its place in the line, from 1.
    pub place: usize,
    /// What it waits for: a dimension, or another reason ([`WaitReason::name`]).
    pub reason: &'static str,
    /// The limit that has no room for it, such as `500 requests in 60s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// The tenant; absent for nobody in particular.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// How urgent it is.
    pub priority: &'static str,
    /// The route that it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// How long it has waited, in milliseconds.
    pub waited_ms: u64,
    /// When it is expected to be sent, in milliseconds from now, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_ms: Option<u64>,
}

/// Returns the quota groups of a snapshot in the words of a configuration. A group that is not configured any more is
/// shown as `other` of the upstream that its name begins with.
pub fn views(snapshot: &Snapshot, config: &Config) -> Vec<QuotaView> {
    named_views(snapshot, config, &CallerNames::new(config, &|_| None))
}

/// The same, with the names of tenants that the configuration does not know.
pub(crate) fn named_views(snapshot: &Snapshot, config: &Config, names: &CallerNames<'_>) -> Vec<QuotaView> {
    let groups: HashMap<&str, (&str, String)> = config
        .groups()
        .map(|(upstream, group)| (group.name.as_str(), (upstream.name.as_str(), group_label(group))))
        .collect();
    let view = |quota: &QuotaSnapshot| {
        let (upstream, model) = groups.get(quota.name.as_str()).cloned().unwrap_or_else(|| {
            let upstream = quota.name.split('/').next().unwrap_or_default();
            (upstream, OTHER.to_owned())
        });
        let shown = quota.first_waiting.len().min(LINE_SHOWN);
        let line_more = quota.waiting.saturating_sub(shown);
        QuotaView {
            upstream: upstream.to_owned(),
            group: quota.name.clone(),
            model,
            account: format!("{:x}", quota.key.account),
            serves: None,
            waiting: quota.waiting as u64,
            waiting_bytes: quota.waiting_bytes.value(),
            in_flight: quota.in_flight as u64,
            hold_ms: quota.hold_until.and_then(|until| ahead(snapshot.now, until)),
            learning: quota.learning,
            probing_rpm: quota.probing,
            congestion: quota.congestion.map(|pace| CongestionView {
                rpm: pace.per_minute,
                percent: pace.percent,
                steady_ms: pace.steady_until.and_then(|until| ahead(snapshot.now, until)),
            }),
            spent_ms: quota.spent_until.and_then(|until| ahead(snapshot.now, until)),
            store: quota
                .store
                .as_ref()
                .map(|store| StandingView::new(snapshot.now, store)),
            limits: quota
                .limits
                .iter()
                .map(|limit| limit_view(snapshot.now, limit))
                .collect(),
            outputs: outputs(quota, config),
            shares: quota
                .shares
                .iter()
                .map(|share| usage::share(share, names))
                .collect(),
            line: quota
                .first_waiting
                .iter()
                .take(LINE_SHOWN)
                .map(|waiting| waiting_view(snapshot.now, waiting, names))
                .collect(),
            line_more: (line_more > 0).then_some(line_more as u64),
        }
    };
    snapshot.quotas.iter().map(view).collect()
}

/// Outputs before anything is said of their lengths.
const OUTPUTS_MIN: u32 = 50;

fn outputs(quota: &QuotaSnapshot, config: &Config) -> Vec<OutputView> {
    let found = config.groups().find(|(_, group)| group.name == quota.name);
    let reserves = found.is_some_and(|(_, group)| {
        matches!(
            group.charge.output,
            OutputCharge::Reserved | OutputCharge::ReservedAsInput
        )
    });
    let configured = found.and_then(|(_, group)| group.max_tokens_cap);
    let view = |output: &OutputSnapshot| {
        let quantile = |per_million| output.quantile(per_million).unwrap_or_default().value();
        let tokens = configured.unwrap_or(quantile(990_000)).max(1);
        let effect = output.effect_of_cap(Tokens::new(tokens));
        OutputView {
            samples: output.samples,
            asked: output.asked.value(),
            p50: quantile(500_000),
            p99: quantile(990_000),
            cap: reserves.then(|| CapView {
                tokens,
                configured: configured.is_some(),
                cut_per_million: effect.cut_per_million,
                carries_percent: effect.reserved.value().saturating_mul(100) / effect.capped.value().max(1),
            }),
        }
    };
    let known = quota
        .outputs
        .iter()
        .filter(|output| output.samples >= OUTPUTS_MIN);
    known.map(view).collect()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
const fn is_zero(amount: &u64) -> bool {
    *amount == 0
}

pub(super) fn limit_view(now: Timestamp, limit: &LimitSnapshot) -> LimitView {
    LimitView {
        dimension: limit.limit.dimension.name(),
        window: window(limit.limit),
        limit: limit.limit.amount,
        used: limit.used.value(),
        held: limit.held.value(),
        foreign: limit.foreign.value(),
        presumed: limit.presumed.value(),
        margin_ms: milliseconds(limit.margin),
        source: limit.source.name(),
        age_s: now.since(limit.told).as_secs(),
        grows_by: limit.growth.map(|growth| growth.step.value()),
    }
}

fn waiting_view(now: Timestamp, waiting: &WaitingSnapshot, names: &CallerNames<'_>) -> WaitingView {
    WaitingView {
        place: waiting.place,
        reason: waiting.reason.name(),
        limit: match waiting.reason {
            WaitReason::Limit(limit) | WaitReason::Tenant(limit) | WaitReason::Route(limit) => {
                Some(limit_text(limit))
            }
            _ => None,
        },
        tenant: names.tenant(waiting.caller.tenant),
        priority: waiting.caller.priority.name(),
        route: names.route(waiting.caller.route),
        waited_ms: milliseconds(waiting.waited),
        eta_ms: waiting.eta.map(|eta| ahead(now, eta).unwrap_or_default()),
    }
}

/// Says a limit: `500 requests in 60s`, `4 requests at one time`.
fn limit_text(limit: LimitRef) -> String {
    match limit.dimension {
        Dimension::Concurrency => format!("{} requests at one time", limit.amount),
        dimension => format!("{} {dimension} in {}", limit.amount, window(limit)),
    }
}

/// Returns the length of a limit's window for people, `-` where it has none.
pub(crate) fn window(limit: LimitRef) -> String {
    match limit.dimension {
        Dimension::Concurrency => "-".to_owned(),
        _ => duration::display(limit.window).to_string(),
    }
}

/// Returns how far `moment` is ahead, in milliseconds; `None` if it is past.
fn ahead(now: Timestamp, moment: Timestamp) -> Option<u64> {
    (moment > now).then(|| milliseconds(moment.since(now)))
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
        let mut totals: BTreeMap<[&str; 2], BTreeMap<(&str, &str), Total>> = BTreeMap::new();
        for quota in quotas {
            let group = [quota.upstream.as_str(), quota.model.as_str()];
            self.depth
                .with_label_values(&group)
                .add(i64::try_from(quota.waiting).unwrap_or(i64::MAX));
            let hold = self.hold.with_label_values(&group);
            hold.set(hold.get().max(quota.hold_ms.unwrap_or_default() as f64 / 1_000.0));
            let limits = totals.entry(group).or_default();
            for limit in &quota.limits {
                let total = limits
                    .entry((limit.dimension, limit.window.as_str()))
                    .or_default();
                total.limit = total.limit.saturating_add(limit.limit);
                total.used = total.used.saturating_add(limit.used);
                total.fullest = total.fullest.max(limit.used as f64 / limit.limit.max(1) as f64);
            }
        }
        for (group, limits) in &totals {
            for ((dimension, window), total) in limits {
                let labels = [group[0], group[1], dimension, window];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_said_as_elsewhere() {
        let text = |dimension, seconds| {
            limit_text(LimitRef {
                dimension,
                window: Duration::from_secs(seconds),
                amount: 4,
            })
        };
        assert_eq!(text(Dimension::Requests, 60), "4 requests in 60s");
        assert_eq!(text(Dimension::InputTokens, 10), "4 input_tokens in 10s");
        assert_eq!(text(Dimension::Concurrency, 0), "4 requests at one time");
    }
}
