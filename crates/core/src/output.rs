//! What the engine wants done, and when it wants to be called again.

use crate::decision::{Permit, Refusal, TicketId};
use crate::limit::LimitRef;
use crate::plan::QuotaKey;
use crate::signal::Cause;
use crate::time::Timestamp;
use crate::units::{Amount, Dimension};

/// Something that the driver has to pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// A waiting request may be sent now.
    Admit {
        /// Whose turn it is.
        ticket: TicketId,
        /// The permit.
        permit: Permit,
    },
    /// A waiting request will not be sent.
    Refuse {
        /// Whose wait is over.
        ticket: TicketId,
        /// Why.
        refusal: Refusal,
    },
    /// Something that people want to know.
    Notice {
        /// The quota group that it is about.
        quota: QuotaKey,
        /// What happened.
        notice: Notice,
    },
}

/// Something that people want to know about a quota group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// A limit was learned, lowered or restored from what the provider says.
    LimitChanged(LimitRef),
    /// The provider refused for rate in spite of everything: a broken promise.
    PromiseBroken {
        /// The dimension that refused, if it said so.
        dimension: Option<Dimension>,
    },
    /// The provider refused for now where nobody had promised that it would not: a limit that nobody told, use that grew
    /// too fast, too many requests in flight, or capacity that everybody shares.
    Refused {
        /// Why.
        cause: Cause,
        /// The dimension that refused, if it said so.
        dimension: Option<Dimension>,
    },
    /// Capacity that everybody shares is short: so many requests a minute are sent from now on.
    Slowed {
        /// Requests a minute.
        per_minute: u64,
    },
    /// The provider said that the quota is spent.
    QuotaSpent {
        /// When it comes back, if that is known: nobody is let in until then.
        until: Option<Timestamp>,
    },
    /// Somebody else was found to use the same limits.
    ForeignTraffic {
        /// The dimension in which it was seen.
        dimension: Dimension,
        /// How much of it was new.
        amount: Amount,
    },
}

/// Why the engine wants to be called at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wake {
    /// A limit has room for the head of a line then.
    Capacity,
    /// Somebody's deadline passes.
    Deadline,
    /// A pause that the provider asked for ends.
    Hold,
    /// A pause between attempts ends.
    Backoff,
}
