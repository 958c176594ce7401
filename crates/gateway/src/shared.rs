//! What all workers share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tidegate::Limiter;
use tidegate_core::QuotaKey;

use crate::admin::AdminState;
use crate::config::{AccountHasher, QuotaRoute, Upstream};
use crate::keys::Key;
use crate::limit_api::LimitBoard;
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
    /// What providers told of their limits when they were asked.
    pub(crate) limits: Arc<LimitBoard>,
    /// What the admin listener tells of.
    pub(crate) admin: Arc<AdminState>,
    site: Mutex<Arc<Site>>,
}

impl Shared {
    /// Puts the first configuration in force.
    pub(crate) fn new(limiter: Limiter, metrics: Arc<Metrics>, site: Site, accounts: AccountHasher) -> Self {
        let (look, status) = (limiter.clone(), limiter.clone());
        let limits = Arc::new(LimitBoard::default());
        let admin = AdminState::with_board(
            Arc::clone(&metrics),
            Arc::clone(&site.config),
            Arc::clone(&limits),
            move || look.snapshot(),
            move || status.store_status(),
        );
        Self {
            limiter,
            metrics,
            limits,
            admin,
            accounts,
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

    /// Returns the account of a request. What no group lists has one for each model, but where the provider itself says
    /// which models share their limits.
    pub(crate) fn quota_key(
        &self,
        upstream: &Upstream,
        route: QuotaRoute,
        client_key: Option<&[u8]>,
        model: Option<&str>,
    ) -> QuotaKey {
        let bucket = match model {
            Some(model) if route.per_model && upstream.limits_key.is_some() => {
                self.limits.bucket(&upstream.name, model)
            }
            _ => None,
        };
        let sharing = bucket.as_deref().or(model);
        let account = self.accounts.account(route, client_key, sharing);
        if route.per_model
            && let Some(name) = route.own.or(sharing)
        {
            self.admin.names().note(account, name);
        }
        QuotaKey {
            id: route.id,
            account,
        }
    }

    /// Puts the keys in force as their file has them now.
    pub(crate) fn replace_keys(&self, keys: Vec<Key>) {
        let mut held = self.site.lock().unwrap_or_else(PoisonError::into_inner);
        let site = held.with_keys(keys);
        self.admin.keys_reloaded(Arc::clone(&site.config));
        *held = Arc::new(site);
        self.site_version.fetch_add(1, Ordering::Release);
    }

    /// Puts another configuration in force for requests that come from now on.
    pub(crate) fn replace(&self, site: Site) {
        let mut held = self.site.lock().unwrap_or_else(PoisonError::into_inner);
        self.limiter.reconfigure(site.config.plan());
        self.admin.reloaded(Arc::clone(&site.config));
        *held = Arc::new(site);
        self.site_version.fetch_add(1, Ordering::Release);
        self.limits.reloaded();
    }
}
