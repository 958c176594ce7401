//! Limits that the provider's own interface tells of (Anthropic's organization rate limits, OpenRouter's key).

use alloc::vec::Vec;
use core::num::NonZeroU64;

use super::Group;
use super::answer::METERS_MAX;
use crate::limit::{Limit, LimitSource};
use crate::meter::{AMOUNT_MAX, Meter, Taking};
use crate::output::Notice;
use crate::units::Dimension;

impl Group {
    /// Adopts what the provider's interface tells.
    ///
    /// It counts where nothing is configured, and where it is lower than what is. What a preset said, or was learned by
    /// trying, it replaces; what a header or a refusal told, it only lowers, since those speak of this very key.
    pub(crate) fn inform(&mut self, now: u64, limits: &[Limit], notices: &mut Vec<Notice>) {
        for limit in limits {
            let window = crate::time::micros(limit.window);
            let same = |meter: &&mut Meter| {
                meter.dimension() == limit.dimension
                    && !meter.is_passing()
                    && (meter.window() == window || limit.dimension == Dimension::Concurrency)
            };
            let told = limit.amount.get().min(AMOUNT_MAX);
            if let Some(meter) = self.meters.iter_mut().find(same) {
                if meter.is_told(now, told) {
                    notices.push(Notice::LimitChanged(meter.name()));
                }
            } else if self.learns && self.meters.len() < METERS_MAX {
                let limit = Limit {
                    source: LimitSource::Api,
                    ..*limit
                };
                let taking = Taking::of(&self.model, limit.dimension);
                let mut meter = Meter::new(now, limit, taking, &self.margin);
                meter.catch_up(&self.meters, self.in_flight);
                notices.push(Notice::LimitChanged(meter.name()));
                self.meters.push(meter);
            }
        }
        self.end_slow_start();
    }

    /// Makes a meter for a limit that another replica was told of.
    pub(super) fn adopt_fact(&mut self, now: u64, fact: &crate::ledger::Fact, source: LimitSource) {
        let (Some(dimension), Some(amount)) = (fact.name.dimension(), NonZeroU64::new(fact.amount)) else {
            return;
        };
        if !self.learns || self.meters.len() >= METERS_MAX {
            return;
        }
        let window = core::time::Duration::from_micros(fact.name.window());
        let limit = Limit {
            source,
            ..Limit::rolling(dimension, window, amount)
        };
        let mut meter = Meter::new(now, limit, Taking::of(&self.model, dimension), &self.margin);
        meter.catch_up(&self.meters, self.in_flight);
        meter.keep_journal();
        self.meters.push(meter);
    }
}
