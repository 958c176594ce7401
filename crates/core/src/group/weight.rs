//! What a request weighs: what it takes of each limit and budget, and what it needs of output.

use super::Group;
use crate::allowance::Hold;
use crate::charge::{Charge, InputCharge};
use crate::meter::{AMOUNT_MAX, Meter, Taking};
use crate::projection::Need;
use crate::queue::WINDOW_COST;
use crate::request::{Demand, Request};
use crate::units::{Amount, Dimension, Tokens};

/// The longest output that is taken for usual where a request names no maximum.
const USUAL_OUTPUT_MAX: u64 = 1 << 20;

/// Cost where no limit is known by which it could be measured: a request, and a token.
const UNKNOWN_REQUEST: u64 = WINDOW_COST / 512;
const UNKNOWN_TOKEN: u64 = WINDOW_COST / (1 << 20);

impl Group {
    /// Returns what a request takes when it is admitted, corrected by how far estimates were off.
    pub(super) fn charge_for(&self, demand: &Demand) -> Charge {
        let plain = self.model.at_admission(demand);
        let mut demand = *demand;
        if self.model.input == InputCharge::Counted {
            demand.input = Tokens::new(self.input.apply(demand.class, demand.input.value()));
        }
        let mut charge = self.model.at_admission(&demand);
        for dimension in Dimension::ALL {
            let amount = charge.amount(dimension).min(Amount::new(AMOUNT_MAX));
            charge.set(dimension, amount);
        }
        for meter in self.meters.iter().filter(|meter| meter.is_known()) {
            // A correction is no certain need: it is cut to what fits, or it would lock out those who can be served.
            let (dimension, most) = (meter.dimension(), Amount::new(meter.amount()));
            let estimated = plain.amount(dimension);
            if charge.amount(dimension) > estimated.max(most) {
                charge.set(dimension, estimated.max(most));
            }
        }
        let generated = |meter: &&Meter| meter.taking() == Taking::AsGenerated;
        if let Some(least) = self.meters.iter().filter(generated).map(Meter::amount).min() {
            // Expected, not charged: no certain use, so it is cut to what fits.
            let mean = self.need(&demand).mean.min(least);
            charge.set(Dimension::OutputTokens, Amount::new(mean));
        }
        charge
    }

    /// Returns what a request needs of output that is charged as it is generated.
    pub(super) fn need(&self, demand: &Demand) -> Need {
        if !self.model.as_generated() {
            return Need::default();
        }
        let answers = u64::from(demand.choices.get());
        self.projection
            .need(demand.class, self.model.output_reserve(demand), answers)
    }

    /// Returns the largest part that a charge is of any limit, of a window's cost.
    pub(super) fn cost_of(&self, charge: &Charge) -> u64 {
        let parts = self
            .meters
            .iter()
            .filter_map(|meter| meter.part(charge.amount(meter.dimension()).value(), WINDOW_COST));
        let known = parts.max();
        known
            .unwrap_or_else(|| {
                let tokens = charge
                    .amount(Dimension::Tokens)
                    .max(charge.amount(Dimension::InputTokens));
                let tokens = tokens.value().saturating_mul(UNKNOWN_TOKEN);
                UNKNOWN_REQUEST.saturating_add(tokens).min(WINDOW_COST)
            })
            .max(1)
    }

    /// Returns what a request may use of budgets: its input, and the most output that it asks for; where it asks for none,
    /// what is usual in its class.
    pub(crate) fn hold_of(&self, request: &Request) -> Hold {
        let demand = &request.demand;
        let answers = u64::from(demand.choices.get());
        let output = match demand.max_output {
            _ if !demand.generates => 0,
            Some(most) => most.value().saturating_mul(answers),
            None => {
                let unset = self.model.output_reserve(demand);
                let usual = self.projection.need(demand.class, USUAL_OUTPUT_MAX, answers);
                if usual.samples > 0 { usual.mean } else { unset }
            }
        };
        let input = demand.input;
        Hold {
            tokens: input.value().saturating_add(output),
            cost: request
                .price
                .cost(input, Tokens::ZERO, Tokens::new(output))
                .as_micros(),
        }
    }
}
