//! Limits that the provider's own interface tells of (Anthropic's organization rate limits, OpenRouter's key).

use alloc::vec::Vec;

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
}
