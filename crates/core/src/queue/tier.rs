//! One priority tier: whose turn it is among its flows, and what it has earned by waiting.

use alloc::collections::BTreeSet;

use super::{Flow, WINDOW_COST};
use crate::charge::Charge;
use crate::plan::TierPlan;

/// The flows of one tier.
#[derive(Debug, Clone)]
pub(crate) struct Tier {
    /// Flows with somebody in line who may go: service so far, the number of their last dispatch, and the flow.
    pub(crate) ready: BTreeSet<(u64, u64, u32)>,
    /// The service of the flow that was served last, before it was: newcomers begin here.
    pub(crate) virtual_time: u64,
    pub(crate) share_percent: u8,
    /// What the tier has earned while it waited and others were served.
    pub(super) credit: u64,
    /// What everybody in line will take.
    pub(crate) demand: Charge,
    /// The same as a cost.
    pub(crate) cost: u64,
    pub(crate) in_line: usize,
    /// The weights of all flows with somebody in line.
    pub(crate) weights: u64,
    /// Flows that are present, and those of them with somebody in line.
    pub(super) present: usize,
    pub(super) active: usize,
    /// What is kept free for its flows that do not wait, next to others of the tier and of lower tiers.
    pub(super) kept: u64,
    pub(super) kept_from_lower: u64,
    /// Since when somebody has always been in line.
    pub(crate) since: Option<u64>,
}

impl Tier {
    pub(super) fn new(plan: TierPlan) -> Self {
        Self {
            ready: BTreeSet::new(),
            virtual_time: 0,
            share_percent: plan.share_percent,
            credit: 0,
            demand: Charge::ZERO,
            cost: 0,
            in_line: 0,
            weights: 0,
            present: 0,
            active: 0,
            kept: 0,
            kept_from_lower: 0,
            since: None,
        }
    }

    /// Returns the service with which a flow begins that becomes active: no less than those who are.
    pub(super) fn floor(&self) -> u64 {
        match self.ready.first() {
            Some((tag, ..)) => (*tag).max(self.virtual_time),
            None => self.virtual_time,
        }
    }

    /// Keeps less free for a flow.
    pub(super) fn keep_less(&mut self, flow: &mut Flow, cost: u64) {
        let (kept, kept_from_lower) = (cost.min(flow.kept), cost.min(flow.kept_from_lower));
        flow.kept -= kept;
        flow.kept_from_lower -= kept_from_lower;
        self.kept = self.kept.saturating_sub(kept);
        self.kept_from_lower = self.kept_from_lower.saturating_sub(kept_from_lower);
    }

    /// Others were served while this tier waits.
    pub(super) fn earn(&mut self, cost: u64) {
        if self.in_line > 0 {
            let earned = cost * u64::from(self.share_percent) / 100;
            self.credit = (self.credit + earned).min(WINDOW_COST);
        }
    }

    /// This tier was served.
    pub(super) fn spend(&mut self, cost: u64) {
        self.credit = self.credit.saturating_sub(cost);
    }

    /// Returns whether it has earned to go before higher tiers with a request of this cost.
    pub(super) fn has_earned(&self, cost: u64) -> bool {
        self.share_percent > 0 && self.credit >= cost.min(WINDOW_COST)
    }
}
