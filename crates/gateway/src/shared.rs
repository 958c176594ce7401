//! What all workers share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tidegate::Limiter;

use crate::admin::AdminState;
use crate::config::AccountHasher;
use crate::metrics::Metrics;
use crate::phase::Phases;
use crate::site::Site;

/// What all workers share, over all reloads.
pub(crate) struct Shared {
    /// The limiter.
    pub(crate) limiter: Limiter,
    /// Tells accounts apart.
    pub(crate) accounts: AccountHasher,
    /// The phase of the program's life.
    pub(crate) phases: Phases,
    /// Counts the configurations that were put in force; read on every request.
    pub(crate) site_version: AtomicU64,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// What the admin listener tells of.
    pub(crate) admin: Arc<AdminState>,
    site: Mutex<Arc<Site>>,
}

impl Shared {
    /// Puts the first configuration in force.
    pub(crate) fn new(limiter: Limiter, metrics: Arc<Metrics>, site: Site) -> Self {
        let look = limiter.clone();
        let admin = AdminState::new(Arc::clone(&metrics), Arc::clone(&site.config), move || {
            look.snapshot()
        });
        Self {
            limiter,
            metrics,
            admin,
            accounts: AccountHasher::default(),
            phases: Phases::default(),
            site_version: AtomicU64::new(1),
            site: Mutex::new(Arc::new(site)),
        }
    }

    /// Returns the configuration in force and its number.
    pub(crate) fn site(&self) -> (u64, Arc<Site>) {
        let site = self.site.lock().unwrap_or_else(PoisonError::into_inner);
        (self.site_version.load(Ordering::Acquire), Arc::clone(&site))
    }

    /// Puts another configuration in force for requests that come from now on.
    pub(crate) fn replace(&self, site: Site) {
        let mut held = self.site.lock().unwrap_or_else(PoisonError::into_inner);
        self.limiter.reconfigure(site.config.plan());
        self.admin.reloaded(Arc::clone(&site.config));
        *held = Arc::new(site);
        self.site_version.fetch_add(1, Ordering::Release);
    }
}
