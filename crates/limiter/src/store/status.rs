//! What is known of the store, as data.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_core::Timestamp;

use super::address::Address;
use super::fault::{Fault, StoreError};
use super::server::Server;

/// How the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreState {
    /// As it should be.
    Connected,
    /// In use, but it may evict keys when its memory is full: a key that is gone is found to be lost, and nobody is let in
    /// for a window then.
    Evicting,
    /// In use, but answers take more than 50 ms.
    Slow,
    /// The first connection is being made.
    Connecting,
    /// It cannot be connected to, or does not answer.
    Unreachable,
    /// It reads its data from disk.
    Loading,
    /// It runs somebody's script that does not end.
    Busy,
    /// It is a replica, which takes no writes, or was made one.
    ReadOnly,
    /// Its memory is full.
    OutOfMemory,
    /// It cannot write to its disk and therefore takes no writes.
    Misconfigured,
    /// It has too few replicas to take writes.
    NoReplicas,
    /// The cluster has no node for some keys, or none that works.
    ClusterDown,
    /// User or password are wrong, or the user may not do what is needed.
    Denied,
    /// It answers with other errors.
    Failing,
}

impl StoreState {
    /// Every state, the best first.
    pub const ALL: [Self; 14] = [
        Self::Connected,
        Self::Evicting,
        Self::Slow,
        Self::Connecting,
        Self::Unreachable,
        Self::Loading,
        Self::Busy,
        Self::ReadOnly,
        Self::OutOfMemory,
        Self::Misconfigured,
        Self::NoReplicas,
        Self::ClusterDown,
        Self::Denied,
        Self::Failing,
    ];

    /// Returns the name used in logs, metrics and status pages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Evicting => "evicting",
            Self::Slow => "slow",
            Self::Connecting => "connecting",
            Self::Unreachable => "unreachable",
            Self::Loading => "loading",
            Self::Busy => "busy",
            Self::ReadOnly => "read_only",
            Self::OutOfMemory => "out_of_memory",
            Self::Misconfigured => "misconfigured",
            Self::NoReplicas => "no_replicas",
            Self::ClusterDown => "cluster_down",
            Self::Denied => "denied",
            Self::Failing => "failing",
        }
    }

    /// Returns whether calls are answered.
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Connected | Self::Evicting | Self::Slow)
    }
}

/// What is known of the store.
#[derive(Debug, Clone)]
pub struct StoreStatus {
    /// How it is; of several nodes in use, the worst.
    pub state: StoreState,
    /// Since when, by the limiter's clock.
    pub since: Timestamp,
    /// What went wrong, while something does. No password and no URL is in it.
    pub error: Option<String>,
    /// What the store is, as it was configured, without user and password.
    pub server: String,
    /// What all keys begin with.
    pub prefix: String,
    /// The nodes in use: one, but for a cluster.
    pub nodes: Vec<StoreNode>,
    /// Calls that were answered.
    pub calls: u64,
    /// Connections that were made.
    pub connections: u64,
    /// What went wrong, and how often; each kind that did.
    pub errors: Vec<(StoreError, u64)>,
    /// How long answers took.
    pub round_trips: RoundTrips,
}

/// A node of the store.
#[derive(Debug, Clone)]
pub struct StoreNode {
    /// Its address.
    pub address: String,
    /// How it is.
    pub state: StoreState,
    /// Since when.
    pub since: Timestamp,
    /// What it says that it is, such as `redis 7.2.11`; unknown without the right to ask.
    pub server: Option<String>,
    /// Whether that version is known to have holes in its script engine.
    pub is_vulnerable: bool,
}

/// How long answers took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoundTrips {
    /// How many took at most as long as the bound of the same place in [`RoundTrips::BOUNDS`], but longer than the one before.
    pub counts: [u64; Self::BOUNDS.len()],
    /// How many there were, longer ones included.
    pub count: u64,
    /// All of them together.
    pub sum: Duration,
    /// The last one.
    pub last: Duration,
}

impl RoundTrips {
    /// Bounds, in microseconds.
    pub const BOUNDS: [u64; 14] = [
        50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    ];

    /// Returns the mean; zero if there was none.
    pub fn mean(&self) -> Duration {
        u32::try_from(self.count)
            .ok()
            .and_then(|count| self.sum.checked_div(count))
            .unwrap_or_default()
    }

    fn note(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(at) = Self::BOUNDS.iter().position(|bound| micros <= *bound) {
            self.counts[at] += 1;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(took);
        self.last = took;
    }
}

/// What the driver notes and everybody may read.
pub(super) struct Board {
    inner: Mutex<Inner>,
    server: String,
    prefix: String,
}

struct Inner {
    state: StoreState,
    since: Timestamp,
    error: Option<String>,
    /// While it is not known where the nodes are.
    lost: Option<(StoreState, String)>,
    nodes: BTreeMap<Address, Node>,
    calls: u64,
    connections: u64,
    errors: BTreeMap<StoreError, u64>,
    round_trips: RoundTrips,
}

struct Node {
    state: StoreState,
    since: Timestamp,
    error: Option<String>,
    server: Option<Server>,
}

impl Board {
    pub(super) fn new(now: Timestamp, server: String, prefix: String) -> Self {
        Self {
            inner: Mutex::new(Inner {
                state: StoreState::Connecting,
                since: now,
                error: None,
                lost: None,
                nodes: BTreeMap::new(),
                calls: 0,
                connections: 0,
                errors: BTreeMap::new(),
                round_trips: RoundTrips::default(),
            }),
            server,
            prefix,
        }
    }

    /// A call was answered.
    pub(super) fn answered(&self, took: Duration) {
        let mut inner = self.lock();
        inner.calls += 1;
        inner.round_trips.note(took);
    }

    /// Something went wrong.
    pub(super) fn failed(&self, error: StoreError) {
        *self.lock().errors.entry(error).or_default() += 1;
    }

    /// It is not known where the nodes are; or it is, again.
    pub(super) fn lost(&self, now: Timestamp, fault: Option<&Fault>) {
        let mut inner = self.lock();
        inner.lost = fault.map(|fault| (fault.error.state(), fault.to_string()));
        inner.look(now, &self.server);
    }

    /// A node was connected to.
    pub(super) fn met(&self, address: &Address, server: Option<Server>) {
        let mut inner = self.lock();
        inner.connections += 1;
        if let Some(node) = inner.nodes.get_mut(address) {
            node.server = server;
        }
    }

    /// A node is so from now on.
    pub(super) fn set(&self, now: Timestamp, address: &Address, state: StoreState, fault: Option<&Fault>) {
        let mut inner = self.lock();
        let node = inner.nodes.entry(address.clone()).or_insert_with(|| Node {
            state: StoreState::Connecting,
            since: now,
            error: None,
            server: None,
        });
        if node.state != state {
            (node.state, node.since) = (state, now);
        } else if node.error.is_none() && fault.is_none() {
            return;
        }
        node.error = fault.map(ToString::to_string);
        inner.look(now, &self.server);
    }

    /// Only these nodes are in use from now on.
    pub(super) fn keep(&self, now: Timestamp, is_kept: impl Fn(&Address) -> bool) {
        let mut inner = self.lock();
        inner.nodes.retain(|address, _| is_kept(address));
        inner.look(now, &self.server);
    }

    pub(super) fn status(&self) -> StoreStatus {
        let inner = self.lock();
        StoreStatus {
            state: inner.state,
            since: inner.since,
            error: inner.error.clone(),
            server: self.server.clone(),
            prefix: self.prefix.clone(),
            nodes: inner
                .nodes
                .iter()
                .map(|(address, node)| StoreNode {
                    address: address.to_string(),
                    state: node.state,
                    since: node.since,
                    server: node.server.as_ref().map(Server::name),
                    is_vulnerable: node.server.as_ref().is_some_and(Server::is_vulnerable),
                })
                .collect(),
            calls: inner.calls,
            connections: inner.connections,
            errors: inner
                .errors
                .iter()
                .map(|(error, count)| (*error, *count))
                .collect(),
            round_trips: inner.round_trips.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Looks how the store is as a whole, and writes down when that has changed.
    fn look(&mut self, now: Timestamp, server: &str) {
        let nodes = self.nodes.values().map(|node| (node.state, node.error.clone()));
        // A node that nothing is wrong with matters more than not knowing where others are.
        let lost = self.lost.clone().map(|(state, error)| (state, Some(error)));
        let worst = nodes.chain(lost).max_by_key(|(state, _)| *state);
        let (state, error) = worst.unwrap_or((StoreState::Connecting, None));
        self.error.clone_from(&error);
        if state == self.state {
            return;
        }
        let was_usable = self.state.is_usable();
        (self.state, self.since) = (state, now);
        if state.is_usable() {
            let versions: Vec<String> = self
                .nodes
                .values()
                .filter_map(|node| node.server.as_ref().map(Server::name))
                .collect();
            let version = versions.first().cloned();
            if state == StoreState::Connected || !was_usable {
                tracing::info!(
                    store = server,
                    state = state.name(),
                    version,
                    "the store is there"
                );
            }
            if state != StoreState::Connected {
                tracing::warn!(
                    store = server,
                    state = state.name(),
                    "the store is there, but not as it should be"
                );
            }
        } else if state != StoreState::Connecting {
            tracing::warn!(
                store = server,
                state = state.name(),
                error,
                "the store cannot be used"
            );
        }
    }
}
