//! How an attempt ended.

use core::time::Duration;

use crate::signal::RateLimited;
use crate::units::Tokens;

/// The usage that the provider reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Input tokens that were not read from the provider's cache, cache writes among them.
    pub input: Option<Tokens>,
    /// Input tokens that were read from the provider's cache; not among `input`.
    pub cached_input: Tokens,
    /// Output tokens.
    pub output: Option<Tokens>,
}

/// How an attempt ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The provider answered; this is the usage it reported, as far as it did.
    Completed(Usage),
    /// The request was sent and its usage is not known (the client left, the stream broke): what it took stays taken.
    Unknown {
        /// Output tokens seen before the end.
        output_seen: Tokens,
    },
    /// The provider refused, and no time cures it soon: its quota is spent. The refusal is passed through.
    QuotaSpent {
        /// When the quota comes back, if that is known.
        until: Option<Duration>,
    },
    /// The provider refused because the request alone is larger than a limit, of which it may have told. The refusal is
    /// passed through.
    TooLarge(RateLimited),
    /// Not one byte was written to the provider: everything is given back.
    NotSent,
}

/// Why an attempt failed in a way that another attempt may cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The permit was void before the request was on the wire; nothing was written.
    Late,
    /// The provider refused for rate in spite of everything.
    RateLimited(RateLimited),
    /// The provider is overloaded (503, 529); it may say for how long.
    Overloaded {
        /// The wait the provider asks for.
        retry_after: Option<Duration>,
    },
    /// The connection failed or a server error came before the first byte of an answer.
    Transient {
        /// Whether any byte was written to the provider, so that it may have charged the request.
        sent: bool,
    },
}
