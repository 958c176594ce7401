//! A limiter for one account, described in a few words.

use std::num::NonZeroU64;
use std::time::Duration;

use tidegate_core::{ChargeModel, Dimension, Discipline, Limit, Plan, QueueBounds, QuotaPlan};

use crate::limiter::Limiter;

/// The name of the only quota group of a limiter made by [`Builder`].
pub(crate) const DEFAULT_QUOTA: &str = "default";

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// Describes a limiter for one provider account. Amounts of zero are ignored: they limit nothing.
#[derive(Debug, Clone)]
pub struct Builder {
    limits: Vec<Limit>,
    charge: ChargeModel,
    discipline: Discipline,
    queue: QueueBounds,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            limits: Vec::new(),
            charge: ChargeModel::OPENAI,
            discipline: Discipline::Rolling,
            queue: QueueBounds {
                wait_max: DAY,
                ..QueueBounds::default()
            },
        }
    }
}

impl Builder {
    /// Limits requests in any minute.
    #[must_use]
    pub fn requests_per_minute(self, amount: u64) -> Self {
        self.limit(Dimension::Requests, MINUTE, amount)
    }

    /// Limits input and output tokens together in any minute.
    #[must_use]
    pub fn tokens_per_minute(self, amount: u64) -> Self {
        self.limit(Dimension::Tokens, MINUTE, amount)
    }

    /// Limits requests in any day.
    #[must_use]
    pub fn requests_per_day(self, amount: u64) -> Self {
        self.limit(Dimension::Requests, DAY, amount)
    }

    /// Limits requests in flight.
    #[must_use]
    pub fn concurrent(self, amount: u64) -> Self {
        self.limit(Dimension::Concurrency, Duration::ZERO, amount)
    }

    /// Limits any dimension over any window.
    #[must_use]
    pub fn limit(mut self, dimension: Dimension, window: Duration, amount: u64) -> Self {
        if let Some(amount) = NonZeroU64::new(amount) {
            self.limits.push(Limit {
                dimension,
                window,
                amount,
                discipline: self.discipline,
                source: tidegate_core::LimitSource::Config,
            });
        }
        self
    }

    /// Chooses how the provider charges; OpenAI's way if not said.
    #[must_use]
    pub fn charge(mut self, charge: ChargeModel) -> Self {
        self.charge = charge;
        self
    }

    /// Keeps all limits as continuous token buckets, for providers known to do the same.
    #[must_use]
    pub fn token_bucket(mut self) -> Self {
        self.discipline = Discipline::TokenBucket;
        for limit in &mut self.limits {
            limit.discipline = Discipline::TokenBucket;
        }
        self
    }

    /// Bounds what may wait; 10,000 requests for at most a day if not said.
    #[must_use]
    pub fn queue(mut self, queue: QueueBounds) -> Self {
        self.queue = queue;
        self
    }

    /// Makes the limiter and starts its timer task.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime with time enabled.
    pub fn build(self) -> Limiter {
        Limiter::new(self.plan())
    }

    /// Makes a limiter that shares its limits with all others at the same store, and starts its tasks, as
    /// [`Limiter::with_store`] does.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the options.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime with time and IO enabled.
    #[cfg(feature = "redis")]
    pub fn build_with(self, store: crate::StoreOptions) -> Result<Limiter, crate::StoreProblem> {
        Limiter::with_store(self.plan(), store)
    }

    fn plan(self) -> Plan {
        let quota = QuotaPlan::new(DEFAULT_QUOTA, self.limits, self.charge);
        Plan {
            quotas: vec![quota],
            queue: self.queue,
            ..Plan::default()
        }
    }
}
