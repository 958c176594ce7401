//! The status page: what is configured, what is in force, and what waits for what.

use std::borrow::Cow;
use std::sync::PoisonError;

use serde::Serialize;
use tidegate_core::Limit;
use tokio::time::Instant;

use super::{AdminState, Readiness};
use crate::config::Upstream;
use crate::limit_api::LimitBoard;
use crate::metrics::{AllowanceView, QuotaView, RunView, StoreView, window};
use crate::state::StateStatus;

/// The most groups and accounts on one page.
const QUOTAS_SHOWN: usize = 500;

/// The most allowances on one page.
const ALLOWANCES_SHOWN: usize = 500;

#[derive(Debug, Serialize)]
struct Status<'a> {
    version: &'static str,
    state: &'static str,
    uptime_seconds: u64,
    config: ConfigStatus<'a>,
    /// What survives a restart; absent where nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    state_file: Option<StateFileStatus<'a>>,
    /// Where limits are shared with other gateways; absent where they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<&'a StoreView>,
    upstreams: Vec<UpstreamStatus<'a>>,
    /// How many groups and accounts there are; `quotas` lists those with the most waiting requests first.
    quotas_in_use: usize,
    quotas: Vec<&'a QuotaView>,
    /// Tenants and routes with limits or budgets of their own, as far as they were used: the first of them.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    allowances: &'a [AllowanceView],
    /// The runs that were heard of last.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    runs: &'a [RunView],
}

#[derive(Debug, Serialize)]
struct ConfigStatus<'a> {
    source: &'a str,
    loaded_seconds_ago: u64,
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_reload_failed: Option<Failed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<KeysStatus>,
}

#[derive(Debug, Serialize)]
struct StateFileStatus<'a> {
    path: Cow<'a, str>,
    /// What was known at the start: `fresh`, `restored` or `presumed used until …`.
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    written_seconds_ago: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_write_failed: Option<Failed>,
}

#[derive(Debug, Serialize)]
struct KeysStatus {
    /// How many keys the file has.
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_reload_failed: Option<Failed>,
}

#[derive(Debug, Serialize)]
struct Failed {
    seconds_ago: u64,
    error: String,
}

#[derive(Debug, Serialize)]
struct UpstreamStatus<'a> {
    name: &'a str,
    provider: &'static str,
    base_url: String,
    key: &'static str,
    groups: Vec<&'a str>,
    /// What the configuration and its preset say of each group.
    configured: Vec<ConfiguredGroup<'a>>,
    /// What became of asking the provider for its limits; absent where it is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<LimitsStatus>,
}

#[derive(Debug, Serialize)]
struct ConfiguredGroup<'a> {
    group: &'a str,
    limits: Vec<ConfiguredLimit>,
}

#[derive(Debug, Serialize)]
struct ConfiguredLimit {
    dimension: &'static str,
    window: String,
    limit: u64,
    source: &'static str,
}

#[derive(Debug, Serialize)]
struct LimitsStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    told_seconds_ago: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<Failed>,
}

impl Failed {
    fn new((at, error): (Instant, String)) -> Self {
        Self {
            seconds_ago: at.elapsed().as_secs(),
            error,
        }
    }
}

impl Readiness {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

/// Returns the page as JSON.
pub(super) fn page(state: &AdminState) -> serde_json::Result<String> {
    let look = state.look();
    let quotas = &look.quotas;
    let loaded = state.loaded.lock().unwrap_or_else(PoisonError::into_inner);
    let (since, failed) = (loaded.since, loaded.failed.clone());
    let keys_failed = loaded.keys_failed.clone();
    let config = std::sync::Arc::clone(&loaded.config);
    drop(loaded);
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        state: state.readiness().name(),
        uptime_seconds: state.started.elapsed().as_secs(),
        config: ConfigStatus {
            source: &config.source,
            loaded_seconds_ago: since.elapsed().as_secs(),
            warnings: config.warnings.iter().map(ToString::to_string).collect(),
            last_reload_failed: failed.map(Failed::new),
            keys: config.server.keys_file.as_ref().map(|_| KeysStatus {
                count: config.keys.len(),
                last_reload_failed: keys_failed.map(Failed::new),
            }),
        },
        state_file: state.state.get().map(|status| state_file(status)),
        store: look.store.as_ref(),
        upstreams: config
            .upstreams
            .iter()
            .map(|of| upstream(of, &state.board))
            .collect(),
        quotas_in_use: quotas.len(),
        quotas: shown(quotas),
        allowances: look
            .allowances
            .get(..ALLOWANCES_SHOWN)
            .unwrap_or(&look.allowances),
        runs: &look.runs,
    };
    serde_json::to_string_pretty(&status)
}

fn state_file(status: &StateStatus) -> StateFileStatus<'_> {
    let written = status.written();
    StateFileStatus {
        path: status.path.to_string_lossy(),
        state: status.start().to_string(),
        written_seconds_ago: written.at.map(|at| at.elapsed().as_secs()),
        last_write_failed: written.failed.map(Failed::new),
    }
}

fn shown(quotas: &[QuotaView]) -> Vec<&QuotaView> {
    let mut shown: Vec<_> = quotas.iter().collect();
    shown.sort_by_key(|quota| std::cmp::Reverse(quota.waiting));
    shown.truncate(QUOTAS_SHOWN);
    shown
}

fn upstream<'a>(upstream: &'a Upstream, board: &LimitBoard) -> UpstreamStatus<'a> {
    UpstreamStatus {
        name: &upstream.name,
        provider: upstream.provider.name(),
        base_url: upstream.base_url.to_string(),
        key: if upstream.api_key.is_some() {
            "own"
        } else {
            "passed through"
        },
        groups: upstream.all_groups().map(|group| group.name.as_str()).collect(),
        configured: upstream
            .all_groups()
            .map(|group| ConfiguredGroup {
                group: &group.name,
                limits: group.limits.iter().map(configured).collect(),
            })
            .collect(),
        limits: board.asked(&upstream.name).map(|asked| LimitsStatus {
            told_seconds_ago: asked.told.map(|at| at.elapsed().as_secs()),
            failed: asked.failed.map(Failed::new),
        }),
    }
}

fn configured(limit: &Limit) -> ConfiguredLimit {
    ConfiguredLimit {
        dimension: limit.dimension.name(),
        window: window(limit.name()),
        limit: limit.amount.get(),
        source: limit.source.name(),
    }
}
