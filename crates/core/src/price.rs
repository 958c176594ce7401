//! What requests cost in money.

use crate::units::Tokens;

/// An amount of money in millionths of a US dollar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cost(u64);

impl Cost {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Makes an amount from millionths of a dollar.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Returns the millionths of a dollar.
    pub const fn as_micros(self) -> u64 {
        self.0
    }
}

/// Prices of a model's tokens in millionths of a US dollar for a million tokens: $2.50 is 2,500,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Price {
    /// Of input that was not read from the provider's cache.
    pub input: u64,
    /// Of input that was.
    pub cached_input: u64,
    /// Of output.
    pub output: u64,
}

impl Price {
    /// Nothing costs anything, as far as is known.
    pub const NONE: Self = Self {
        input: 0,
        cached_input: 0,
        output: 0,
    };

    /// Returns what so many tokens cost, rounded up to a millionth of a dollar.
    pub fn cost(&self, input: Tokens, cached_input: Tokens, output: Tokens) -> Cost {
        if *self == Self::NONE {
            return Cost::ZERO;
        }
        let part = |tokens: Tokens, price: u64| u128::from(tokens.value()) * u128::from(price);
        let sum = part(input, self.input) + part(cached_input, self.cached_input) + part(output, self.output);
        Cost(u64::try_from(sum.div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_rounded_up_and_saturate() {
        let price = Price {
            input: 2_500_000,
            cached_input: 1_250_000,
            output: 10_000_000,
        };
        let cost = |input, cached, output| {
            price
                .cost(Tokens::new(input), Tokens::new(cached), Tokens::new(output))
                .as_micros()
        };
        assert_eq!(cost(1_000_000, 0, 0), 2_500_000);
        assert_eq!(cost(0, 1_000_000, 100_000), 1_250_000 + 1_000_000);
        assert_eq!(cost(1, 0, 0), 3);
        assert_eq!(cost(0, 0, 0), 0);
        assert_eq!(cost(u64::MAX, u64::MAX, u64::MAX), u64::MAX);
        assert_eq!(
            Price::NONE.cost(Tokens::new(1 << 40), Tokens::ZERO, Tokens::ZERO),
            Cost::ZERO
        );
    }
}
