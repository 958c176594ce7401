//! What all workers share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tidegate::Limiter;

use crate::config::AccountHasher;
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
    site: Mutex<Arc<Site>>,
    bad_reload: Mutex<Option<String>>,
}

impl Shared {
    /// Puts the first configuration in force.
    pub(crate) fn new(limiter: Limiter, site: Site) -> Self {
        Self {
            limiter,
            accounts: AccountHasher::default(),
            phases: Phases::default(),
            site_version: AtomicU64::new(1),
            site: Mutex::new(Arc::new(site)),
            bad_reload: Mutex::default(),
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
        *held = Arc::new(site);
        self.site_version.fetch_add(1, Ordering::Release);
    }

    /// Remembers why the last reload failed, or that it did not.
    pub(crate) fn note_reload(&self, error: Option<String>) {
        *self.bad_reload.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Returns why the last reload failed, if it did.
    pub(crate) fn bad_reload(&self) -> Option<String> {
        self.bad_reload
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
