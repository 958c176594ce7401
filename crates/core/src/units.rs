//! Quantities with their unit.

use core::fmt;
use core::iter::Sum;
use core::ops::{Add, AddAssign};

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// Nothing of it.
            pub const ZERO: Self = Self(0);

            /// Makes the quantity from its number of units.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// Returns the number of units.
            pub const fn value(self) -> u64 {
                self.0
            }

            /// Returns the difference, or zero if `other` is larger.
            #[must_use]
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl Add for $name {
            type Output = Self;

            /// Adds, saturating at the largest value.
            fn add(self, rhs: Self) -> Self {
                Self(self.0.saturating_add(rhs.0))
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, rhs: Self) {
                *self = *self + rhs;
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
                iter.fold(Self::ZERO, Add::add)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

quantity! {
    /// A number of tokens.
    Tokens
}
quantity! {
    /// A number of bytes held in memory for a waiting request.
    Bytes
}
quantity! {
    /// A quantity in the unit of the dimension it belongs to: requests, tokens, or requests in flight.
    Amount
}

impl From<Tokens> for Amount {
    fn from(tokens: Tokens) -> Self {
        Self(tokens.0)
    }
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// Requests in a window.
    Requests,
    /// Tokens in a window, input and output together.
    Tokens,
    /// Input (prompt) tokens in a window.
    InputTokens,
    /// Output (generated) tokens in a window.
    OutputTokens,
    /// Requests in flight at one time; such a limit has no window.
    Concurrency,
}

impl Dimension {
    /// Every dimension, in the order in which they are listed everywhere.
    pub const ALL: [Self; 5] = [
        Self::Requests,
        Self::Tokens,
        Self::InputTokens,
        Self::OutputTokens,
        Self::Concurrency,
    ];

    /// Returns the position of the dimension in [`Dimension::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns the name used in metrics, headers and status pages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Concurrency => "concurrency",
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
