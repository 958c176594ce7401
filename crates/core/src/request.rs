//! What a caller asks of the engine.

use core::num::NonZeroU32;

use crate::caller::{Caller, Priority, RouteId, TenantId};
use crate::plan::QuotaKey;
use crate::price::Price;
use crate::run::RunStep;
use crate::time::Timestamp;
use crate::units::{Bytes, Tokens};

/// One request that wants to go upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The quota group whose limits it must pass.
    pub quota: QuotaKey,
    /// What it may consume.
    pub demand: Demand,
    /// The memory that it holds while it waits.
    pub bytes: Bytes,
    /// The moment after which nobody waits for it any more.
    pub deadline: Timestamp,
    /// Who asks, how urgent it is, and by which route.
    pub caller: Caller,
    /// What its tokens cost.
    pub price: Price,
    /// The run of an agent that it belongs to.
    pub run: Option<RunStep>,
    /// What the same request has in common each time that it is sent, and no other has: a hash of its caller and content.
    /// By it a caller is known that comes back when it was told to.
    pub identity: Option<u64>,
}

impl Request {
    /// Makes a request of nobody in particular.
    pub const fn new(quota: QuotaKey, demand: Demand, deadline: Timestamp) -> Self {
        Self {
            quota,
            demand,
            bytes: Bytes::ZERO,
            deadline,
            caller: Caller {
                tenant: TenantId::ANYONE,
                priority: Priority::Normal,
                route: RouteId::NONE,
            },
            price: Price::NONE,
            run: None,
            identity: None,
        }
    }
}

/// What a request may consume, before any provider's charge model has looked at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// The estimated input tokens.
    pub input: Tokens,
    /// The most output tokens per choice, if the request says so.
    pub max_output: Option<Tokens>,
    /// How many choices are generated (`n` or `best_of`).
    pub choices: NonZeroU32,
    /// Whether any tokens are generated at all (`false` for embeddings, moderation, token counting).
    pub generates: bool,
    /// Which requests it resembles: in the length of outputs, and in how far estimates are off.
    pub class: RequestClass,
}

/// Requests that are alike in the length of their outputs and in how their texts become tokens: those of one model,
/// tenant and route, say.
///
/// Both are learned class by class. A quota group keeps the classes that were used last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RequestClass(u32);

impl RequestClass {
    /// Makes the class of everything that has these names in common, in this order.
    pub fn of(names: &[&str]) -> Self {
        // FNV-1a with a separator that no name contains.
        let bytes = names
            .iter()
            .flat_map(|name| name.bytes().chain(core::iter::once(0xff)));
        Self(bytes.fold(0x811c_9dc5, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        }))
    }

    /// Returns the number that stands for it.
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl Demand {
    /// A request that counts as one request and nothing else.
    pub const REQUEST_ONLY: Self = Self {
        input: Tokens::ZERO,
        max_output: None,
        choices: NonZeroU32::MIN,
        generates: false,
        class: RequestClass(0),
    };

    /// A request with a known number of input tokens and no generated output (an embedding, say).
    pub const fn input_only(input: Tokens) -> Self {
        Self {
            input,
            max_output: None,
            choices: NonZeroU32::MIN,
            generates: false,
            class: RequestClass(0),
        }
    }

    /// A request with estimated input and at most `max_output` generated tokens.
    pub const fn generating(input: Tokens, max_output: Option<Tokens>) -> Self {
        Self {
            input,
            max_output,
            choices: NonZeroU32::MIN,
            generates: true,
            class: RequestClass(0),
        }
    }
}
