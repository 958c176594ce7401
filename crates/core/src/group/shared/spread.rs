//! How much there is at all replicas together of what one of them sees.
//!
//! A replica sees only its own line. What a tenant has waiting elsewhere shows in how much of it is served there: the ledger
//! serves the requests of a tenant in the order in which they came, wherever they wait.

use super::Group;
use crate::charge::Charge;
use crate::queue::Flow;

/// How many times as much there is at all replicas together as here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::group) struct Spread {
    here: u64,
    everywhere: u64,
}

impl Spread {
    /// Everything is here.
    const ALONE: Self = Self {
        here: 1,
        everywhere: 1,
    };

    /// At most so many times as much.
    fn new(here: u64, everywhere: u64, most: u64) -> Self {
        if everywhere > here.saturating_mul(most) {
            return Self {
                here: 1,
                everywhere: most,
            };
        }
        Self {
            here: here.max(1),
            everywhere: everywhere.max(here).max(1),
        }
    }

    /// Returns the charge of what is everywhere.
    pub(in crate::group) fn charge(self, here: &Charge) -> Charge {
        if self.here == self.everywhere {
            *here
        } else {
            here.part(self.everywhere, self.here)
        }
    }

    /// Returns the cost of what is everywhere.
    pub(in crate::group) fn cost(self, here: u64) -> u64 {
        let cost = u128::from(here) * u128::from(self.everywhere) / u128::from(self.here);
        u64::try_from(cost).unwrap_or(u64::MAX)
    }
}

/// A tenant has so many times as much everywhere as here, at most, where little of it is served here.
const MOST: u64 = 64;

impl Group {
    /// Returns how all tenants together are spread: what becomes free is divided as it was in the last window.
    pub(in crate::group) fn spread(&self) -> Spread {
        match &self.shared {
            Some(shared) if shared.decides() && shared.replicas > 1 => {
                let (own, all) = shared.part;
                Spread::new(own, all, shared.replicas)
            }
            _ => Spread::ALONE,
        }
    }

    /// Returns how a flow is spread.
    pub(in crate::group) fn spread_of(&self, now: u64, flow: &Flow) -> Spread {
        let all = self.spread();
        if all == Spread::ALONE {
            return all;
        }
        match self.queue.recent_everywhere(now, flow) {
            0 => all,
            everywhere => {
                // A request more or less here says little.
                let one = flow.cost / u64::from(flow.waiting.max(1));
                Spread::new(self.queue.recent(now, flow) + one, everywhere + one, MOST)
            }
        }
    }

    /// Returns how much more there is of tenants who do not ask here at all.
    pub(in crate::group) fn unseen(&self, now: u64) -> Spread {
        if self.spread() == Spread::ALONE || !self.queue.is_few() {
            return Spread::ALONE;
        }
        let Some(shared) = &self.shared else {
            return Spread::ALONE;
        };
        let (mut here, mut known) = (0_u64, 0_u64);
        for (_, flow) in self.queue.flows() {
            let recent = self.queue.recent(now, flow);
            here = here.saturating_add(recent);
            known = known.saturating_add(self.queue.recent_everywhere(now, flow).max(recent));
        }
        // Of what was charged in the last window this much was ours, at this cost.
        let (own, all) = shared.part;
        let cost = Spread::new(own, all, shared.replicas).cost(here);
        Spread::new(known, cost, shared.replicas)
    }
}
