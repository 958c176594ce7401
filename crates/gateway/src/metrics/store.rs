//! The store that gateways share, as it is at one moment: for the metrics and the status page.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use tidegate::{RoundTrips, StoreError, StoreState, StoreStatus};
use tidegate_core::{Standing, StoreSnapshot, Timestamp};

use super::QuotaView;
use super::quota::milliseconds;

/// The store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreView {
    /// How it is: `connected`, `slow`, `unreachable` …
    pub state: &'static str,
    /// For how long, in seconds.
    pub seconds: u64,
    /// What went wrong, while something does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it is, without user and password.
    pub server: String,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// The servers in use: one, but for a cluster.
    pub nodes: Vec<NodeView>,
    /// How many gateways share a group, this one included: the most of any group.
    pub replicas: u64,
    /// How many groups and accounts stand how to it.
    pub groups: BTreeMap<&'static str, u64>,
    /// Calls that were answered.
    pub calls: u64,
    /// Connections that were made.
    pub connections: u64,
    /// What went wrong, and how often.
    pub errors: BTreeMap<&'static str, u64>,
    /// How long answers take, in microseconds: the mean, and the last one.
    pub round_trip_us: [u64; 2],
    #[serde(skip)]
    times: RoundTrips,
}

/// A server of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeView {
    /// Its address.
    pub address: String,
    /// How it is.
    pub state: &'static str,
    /// For how long, in seconds.
    pub seconds: u64,
    /// What it says that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Its version is known to have holes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub vulnerable: bool,
}

/// How a quota group stands to the store.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StandingView {
    /// `idle`, `joining`, `open`, `learning`, `sharing` or `closed`.
    pub standing: &'static str,
    /// How many gateways share it, this one included; 0: it is not known.
    pub replicas: u64,
    /// What this gateway goes on with when the store is out of reach, in percent of what it then sees in use.
    pub share_percent: f64,
    /// Another one after every loss; 0: it is not known.
    pub epoch: u64,
    /// How long ago it was surely in touch, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact_ms: Option<u64>,
    /// Calls so far.
    pub calls: u64,
}

impl StandingView {
    pub(super) fn new(now: Timestamp, store: &StoreSnapshot) -> Self {
        Self {
            standing: store.standing.name(),
            replicas: store.replicas,
            share_percent: store.share as f64 / 1e4,
            epoch: store.epoch,
            contact_ms: store.contact.map(|at| milliseconds(now.since(at))),
            calls: store.calls,
        }
    }
}

impl StoreView {
    /// Makes the view of a status.
    pub(crate) fn new(now: Timestamp, status: StoreStatus, quotas: &[QuotaView]) -> Self {
        let seconds = |since: Timestamp| now.since(since).as_secs();
        let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let standings = || quotas.iter().filter_map(|quota| quota.store.as_ref());
        let mut groups = BTreeMap::new();
        for standing in standings() {
            *groups.entry(standing.standing).or_default() += 1;
        }
        Self {
            state: status.state.name(),
            seconds: seconds(status.since),
            error: status.error,
            server: status.server,
            prefix: status.prefix,
            nodes: status
                .nodes
                .into_iter()
                .map(|node| NodeView {
                    address: node.address,
                    state: node.state.name(),
                    seconds: seconds(node.since),
                    server: node.server,
                    vulnerable: node.is_vulnerable,
                })
                .collect(),
            replicas: standings().map(|standing| standing.replicas).max().unwrap_or(0),
            groups,
            calls: status.calls,
            connections: status.connections,
            errors: status
                .errors
                .iter()
                .map(|(error, count)| (error.name(), *count))
                .collect(),
            round_trip_us: [micros(status.round_trips.mean()), micros(status.round_trips.last)],
            times: status.round_trips,
        }
    }
}

/// Writes what is counted of the store, in Prometheus' text format.
pub(super) fn write(page: &mut String, store: &StoreView, quotas: &[QuotaView]) {
    let mut out = Page(page);
    out.family("tidegate_store_state", "gauge", "How the store is: 1 for the state that it is in");
    for state in StoreState::ALL {
        let is = u64::from(state.name() == store.state);
        out.line("tidegate_store_state", &[("state", state.name())], is);
    }
    out.family("tidegate_store_calls_total", "counter", "Calls that the store answered");
    out.line("tidegate_store_calls_total", &[], store.calls);
    out.family("tidegate_store_connections_total", "counter", "Connections to the store that were made");
    out.line("tidegate_store_connections_total", &[], store.connections);
    out.family("tidegate_store_errors_total", "counter", "What went wrong with the store, by kind");
    for error in StoreError::ALL {
        let count = store.errors.get(error.name()).copied().unwrap_or(0);
        out.line("tidegate_store_errors_total", &[("kind", error.name())], count);
    }
    out.family("tidegate_store_call_seconds", "histogram", "How long the store took to answer");
    let mut so_far = 0;
    for (bound, count) in RoundTrips::BOUNDS.iter().zip(store.times.counts) {
        so_far += count;
        let bound = (*bound as f64 / 1e6).to_string();
        out.line("tidegate_store_call_seconds_bucket", &[("le", &bound)], so_far);
    }
    out.line("tidegate_store_call_seconds_bucket", &[("le", "+Inf")], store.times.count);
    let _ = writeln!(out.0, "tidegate_store_call_seconds_sum {}", store.times.sum.as_secs_f64());
    out.line("tidegate_store_call_seconds_count", &[], store.times.count);
    let mut standings: BTreeMap<&str, (BTreeMap<&str, u64>, u64)> = BTreeMap::new();
    for (quota, view) in quotas.iter().filter_map(|quota| Some((quota, quota.store.as_ref()?))) {
        let (standings, replicas) = standings.entry(&quota.group).or_default();
        *standings.entry(view.standing).or_default() += 1;
        *replicas = view.replicas.max(*replicas);
    }
    out.family(
        "tidegate_store_standing",
        "gauge",
        "How many accounts of a quota group stand so to the store",
    );
    for (group, (standings, _)) in &standings {
        for standing in Standing::ALL {
            let count = standings.get(standing.name()).copied().unwrap_or(0);
            let labels = [("group", *group), ("standing", standing.name())];
            out.line("tidegate_store_standing", &labels, count);
        }
    }
    out.family("tidegate_store_replicas", "gauge", "How many gateways share a quota group, this one included");
    for (group, (_, replicas)) in &standings {
        out.line("tidegate_store_replicas", &[("group", *group)], *replicas);
    }
}

struct Page<'a>(&'a mut String);

impl Page<'_> {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.0.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let before = if at == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{before}{label}=\"{escaped}\"");
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{after} {value}");
    }
}
