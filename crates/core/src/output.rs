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
    /// A call to the ledger of a quota group is due: [`crate::Engine::call`] makes it.
    Call {
        /// Which group.
        quota: QuotaKey,
    },
    /// A call about the limits of tenants and routes is due: [`crate::Engine::escrow_call`] makes it.
    CallEscrow,
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
    /// The group stands otherwise to the ledger that it shares with other replicas.
    Store {
        /// How it stands now.
        standing: Standing,
    },
    /// Somebody else was found to use the same limits.
    ForeignTraffic {
        /// The dimension in which it was seen.
        dimension: Dimension,
        /// How much of it was new.
        amount: Amount,
    },
}

/// How a quota group stands to the ledger that it shares with other replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Standing {
    /// Nobody has asked for anything yet, or for a long time.
    #[default]
    Idle,
    /// The first answer is awaited.
    Joining,
    /// As it should be: the ledger decides.
    Open,
    /// The ledger does not know what is in use and lets nobody in until it does.
    Learning,
    /// The ledger is out of reach, and the group goes on with its share.
    Sharing,
    /// The ledger is out of reach, and nobody is let in.
    Closed,
}

impl Standing {
    /// Every standing.
    pub const ALL: [Self; 6] = [
        Self::Idle,
        Self::Joining,
        Self::Open,
        Self::Learning,
        Self::Sharing,
        Self::Closed,
    ];

    /// Returns the name used in logs, metrics and status pages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Joining => "joining",
            Self::Open => "open",
            Self::Learning => "learning",
            Self::Sharing => "sharing",
            Self::Closed => "closed",
        }
    }
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
    /// The ledger that is shared with other replicas has to be called, or has been silent for too long.
    Store,
}
