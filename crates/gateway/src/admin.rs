//! The admin listener: `/healthz`, `/readyz`, `/metrics` and `/status`.
//!
//! It has a thread and a runtime of its own, so that nothing done here takes a worker's time, and bounds of its own, so
//! that nobody who reaches it can take the program's. `/healthz` and `/readyz` need no token: they tell nothing, and the
//! probes of orchestrators carry none.

mod names;
mod server;
mod status;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tidegate::StoreStatus;
use tidegate_core::Snapshot;
use tokio::time::Instant;

pub(crate) use self::names::Names;
use crate::config::Config;
use crate::limit_api::LimitBoard;
use crate::metrics::{
    AllowanceView, CallerNames, Metrics, QuotaView, RunView, StoreView, allowances, named_views, runs,
};
use crate::state::StateStatus;

pub use server::AdminServer;

/// For how long one look at the quota groups serves everybody who asks: looking takes the engine's lock.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What the admin listener tells of.
pub struct AdminState {
    metrics: Arc<Metrics>,
    look: Box<dyn Fn() -> Snapshot + Send + Sync>,
    store: Box<dyn Fn() -> Option<StoreStatus> + Send + Sync>,
    looked: Mutex<Option<(Instant, Arc<Look>)>>,
    started: Instant,
    listening: AtomicBool,
    draining: AtomicBool,
    loaded: Mutex<Loaded>,
    board: Arc<LimitBoard>,
    /// What accounts are called.
    names: Names,
    /// What is told of the state file, where there is one.
    state: OnceLock<Arc<StateStatus>>,
}

/// What one look at the engine showed.
struct Look {
    quotas: Vec<QuotaView>,
    allowances: Vec<AllowanceView>,
    runs: Vec<RunView>,
    store: Option<StoreView>,
}

/// The configuration that is in force, and what became of the last attempt to replace it.
struct Loaded {
    config: Arc<Config>,
    since: Instant,
    failed: Option<(Instant, String)>,
    /// What became of the last attempt to read the keys anew.
    keys_failed: Option<(Instant, String)>,
}

/// Whether requests are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Starting,
    Ready,
    Draining,
}

impl AdminState {
    /// Makes the state of a program that has read its configuration and does not listen yet. `look` is the limiter's
    /// [`snapshot`](tidegate::Limiter::snapshot); it is called at most 50 times a second.
    pub fn new(
        metrics: Arc<Metrics>,
        config: Arc<Config>,
        look: impl Fn() -> Snapshot + Send + Sync + 'static,
    ) -> Arc<Self> {
        Self::with_board(metrics, config, Arc::default(), look, || None)
    }

    /// The same, with what providers told of their limits, and with the store.
    pub(crate) fn with_board(
        metrics: Arc<Metrics>,
        config: Arc<Config>,
        board: Arc<LimitBoard>,
        look: impl Fn() -> Snapshot + Send + Sync + 'static,
        store: impl Fn() -> Option<StoreStatus> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            metrics,
            look: Box::new(look),
            store: Box::new(store),
            looked: Mutex::new(None),
            started: now,
            listening: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            loaded: Mutex::new(Loaded {
                config,
                since: now,
                failed: None,
                keys_failed: None,
            }),
            board,
            names: Names::default(),
            state: OnceLock::new(),
        })
    }

    /// Returns what accounts are called.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Says that there is a state file.
    pub(crate) fn keeps_state(&self, status: Arc<StateStatus>) {
        // There is one start of the program.
        let _ = self.state.set(status);
    }

    /// Says that requests are served from now on.
    pub fn listening(&self) {
        self.listening.store(true, Ordering::Release);
    }

    /// Says that the program is about to end: `/readyz` answers 503 from now on.
    pub fn draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Says that another configuration is in force.
    pub fn reloaded(&self, config: Arc<Config>) {
        self.metrics.reloaded(Ok(()));
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Loaded {
            config,
            since: Instant::now(),
            failed: None,
            keys_failed: None,
        };
    }

    /// Says that the keys of the configuration in force were read anew.
    pub(crate) fn keys_reloaded(&self, config: Arc<Config>) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.config = config;
        loaded.keys_failed = None;
    }

    /// Says that the file of keys was wrong and the keys before are still in force.
    pub(crate) fn keys_failed(&self, error: &dyn std::fmt::Display) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.keys_failed = Some((Instant::now(), error.to_string()));
    }

    /// Says that another configuration was wrong and the one before is still in force.
    pub fn reload_failed(&self, error: &dyn std::fmt::Display) {
        self.metrics.reloaded(Err(()));
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.failed = Some((Instant::now(), error.to_string()));
    }

    fn readiness(&self) -> Readiness {
        if self.draining.load(Ordering::Acquire) {
            Readiness::Draining
        } else if self.listening.load(Ordering::Acquire) {
            Readiness::Ready
        } else {
            Readiness::Starting
        }
    }

    fn config(&self) -> Arc<Config> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&loaded.config)
    }

    fn metrics_page(&self) -> String {
        let look = self.look();
        self.metrics.render(&look.quotas, look.store.as_ref())
    }

    fn look(&self) -> Arc<Look> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, look)) = &*looked
            && at.elapsed() < LOOK_AGAIN
        {
            return Arc::clone(look);
        }
        let snapshot = (self.look)();
        let config = self.config();
        let others = |number| self.names.of(number);
        let names = CallerNames::new(&config, &others);
        let mut quotas = named_views(&snapshot, &config, &names);
        for (view, quota) in quotas.iter_mut().zip(&snapshot.quotas) {
            view.serves = self.names.of(quota.key.account);
        }
        let store = (self.store)().map(|status| StoreView::new(snapshot.now, status, &quotas));
        let look = Arc::new(Look {
            store,
            quotas,
            allowances: allowances(&snapshot, &names),
            runs: runs(&snapshot, &names),
        });
        *looked = Some((Instant::now(), Arc::clone(&look)));
        look
    }
}

impl std::fmt::Debug for AdminState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AdminState({:?})", self.readiness())
    }
}
