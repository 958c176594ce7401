//! What a scene of the tables is played with: one quota, those who share it, and what they ask.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use tidegate_core::{
    ChargeModel, Dimension, Discipline, Learning, Limit, MarginPolicy, Plan, Priority, QueueBounds,
    QuotaPlan, TenantPlan, Timestamp, Tokens,
};

use super::window::MARGIN;
use crate::setting::MINUTE;

/// The name of the only quota group.
pub const QUOTA: &str = "order";

/// The most of a minute that everybody may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Requests a minute; `None`: as many as they like.
    pub requests: Option<u64>,
    /// Tokens a minute; `None`: as many as they like.
    pub tokens: Option<u64>,
    /// How the engine keeps the limits. The baselines know only the rolling window.
    pub discipline: Discipline,
}

/// A part of a quota, in millionths of a millionth, so that service is added up exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Part(pub u64);

impl Part {
    /// The whole quota of one minute.
    pub const WHOLE: Self = Self(1_000_000_000_000);

    /// Returns the part over a weight.
    #[must_use]
    pub fn over(self, weight: NonZeroU32) -> Self {
        Self(self.0 / u64::from(weight.get()))
    }

    /// Returns how many times the whole quota it is.
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn ratio(self) -> f64 {
        self.0 as f64 / Self::WHOLE.0 as f64
    }
}

impl Quota {
    /// A quota of tokens only, kept as a rolling window.
    pub const fn tokens(tokens: u64) -> Self {
        Self {
            requests: None,
            tokens: Some(tokens),
            discipline: Discipline::Rolling,
        }
    }

    /// A quota of requests and tokens, kept as rolling windows.
    pub const fn both(requests: u64, tokens: u64) -> Self {
        Self {
            requests: Some(requests),
            tokens: Some(tokens),
            discipline: Discipline::Rolling,
        }
    }

    /// Returns the dominant cost of a request: the largest part that it takes of any limit.
    pub fn cost(&self, tokens: Tokens) -> Part {
        let part = |taken: u64, limit: Option<u64>| {
            limit.map_or(0, |limit| taken.saturating_mul(Part::WHOLE.0) / limit.max(1))
        };
        Part(part(1, self.requests).max(part(tokens.value(), self.tokens)))
    }

    /// Returns the plan of an engine that keeps this quota for these tenants. Nothing is learned, the margin is that of
    /// the baselines, and the line is as long as anybody likes.
    pub fn plan(&self, tenants: &[Tenant]) -> Plan {
        let limit = |dimension, amount: u64| Limit {
            discipline: self.discipline,
            ..Limit::rolling(
                dimension,
                MINUTE,
                NonZeroU64::new(amount).unwrap_or(NonZeroU64::MIN),
            )
        };
        let requests = self.requests.map(|amount| limit(Dimension::Requests, amount));
        let tokens = self.tokens.map(|amount| limit(Dimension::Tokens, amount));
        let limits = requests.into_iter().chain(tokens).collect();
        let listed = tenants.iter().filter(|tenant| tenant.is_listed);
        Plan {
            quotas: vec![QuotaPlan {
                learning: Learning::Off,
                margin: MarginPolicy::Fixed(MARGIN),
                ..QuotaPlan::new(QUOTA, limits, ChargeModel::OPENAI)
            }],
            queue: QueueBounds {
                requests_max: 1_000_000,
                bytes_max: u64::MAX,
                wait_max: Duration::from_secs(1 << 30),
            },
            tenants: listed
                .map(|tenant| TenantPlan {
                    weight: tenant.weight,
                    ..TenantPlan::new(tenant.name.clone())
                })
                .collect(),
            ..Plan::default()
        }
    }
}

/// One of those who share a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Its weight.
    pub weight: NonZeroU32,
    /// Whether it is in the plan. One that is not has weight 1 and is known from its first request on.
    pub is_listed: bool,
}

impl Tenant {
    /// Makes a tenant of the plan.
    pub fn new(name: impl Into<String>, weight: u32) -> Self {
        Self {
            name: name.into(),
            weight: NonZeroU32::new(weight).unwrap_or(NonZeroU32::MIN),
            is_listed: true,
        }
    }
}

/// One request in the words of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Who asks, by their place among the tenants.
    pub tenant: usize,
    /// How urgent it is.
    pub priority: Priority,
    /// What it takes of the limit on tokens.
    pub tokens: Tokens,
    /// The moment after which nobody waits for it any more.
    pub deadline: Timestamp,
    /// How long the provider takes to answer it.
    pub lasts: Duration,
    /// What the same call has in common each time that it is made.
    pub identity: Option<u64>,
}

impl Call {
    /// Makes a call of the usual tier that waits as long as it takes and is answered at once.
    pub const fn patient(tenant: usize, tokens: u64) -> Self {
        Self {
            tenant,
            priority: Priority::Normal,
            tokens: Tokens::new(tokens),
            deadline: Timestamp::from_micros(u64::MAX),
            lasts: Duration::ZERO,
            identity: None,
        }
    }
}
