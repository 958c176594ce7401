//! What the engine answers.

use core::fmt;
use core::time::Duration;

use crate::limit::LimitRef;
use crate::time::Timestamp;

/// Identifies a permit until it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PermitId {
    pub(crate) slot: u32,
    pub(crate) turn: u32,
}

/// Identifies a waiting request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId {
    pub(crate) arrival: u64,
    pub(crate) group: u32,
}

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.arrival.fmt(f)
    }
}

impl fmt::Display for PermitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.turn)
    }
}

/// The right to send one request now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    /// Its identifier, for settling.
    pub id: PermitId,
    /// When it was given.
    pub granted: Timestamp,
    /// It is void if the request is not on the wire by then.
    pub valid_until: Timestamp,
    /// How many attempts were made for this request, this one included.
    pub attempt: u32,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Its identifier, for cancelling.
    pub id: TicketId,
    /// When the request is expected to be admitted.
    pub eta: Timestamp,
    /// What it waits for.
    pub reason: WaitReason,
}

/// What a waiting request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitReason {
    /// A limit has no room for it, or for those before it.
    Limit(LimitRef),
    /// Others were here first.
    Line,
    /// The provider told the group to pause.
    Hold,
    /// Its last attempt failed and it pauses before the next.
    Backoff,
    /// The limits are not known yet and the first answers are awaited.
    Learning,
    /// Capacity that everybody shares is short, and less of it is asked for.
    Congestion,
}

impl WaitReason {
    /// Returns the name used in headers, logs and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Limit(limit) => limit.dimension.name(),
            Self::Line => "line",
            Self::Hold => "hold",
            Self::Backoff => "backoff",
            Self::Learning => "learning",
            Self::Congestion => "congestion",
        }
    }
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Send it now.
    Admit(Permit),
    /// Wait for [`crate::Output`].
    Wait(Ticket),
    /// Do not send it.
    Refuse(Refusal),
}

/// A refusal: an answer, not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// The limit that is in the way, where there is one.
    pub limit: Option<LimitRef>,
    /// How long to stay away before the same request would be served; `None` where waiting does not help.
    pub retry_after: Option<Duration>,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// It is larger than a limit: it can never be sent.
    NeverFits,
    /// It cannot be sent before its deadline.
    Deadline,
    /// The queue holds as many requests as it may.
    QueueFull,
    /// The queue holds as many bytes as it may.
    QueueBytes,
    /// Its quota group is not in the plan.
    UnknownQuota,
    /// There are more accounts in use than are kept track of.
    TooManyAccounts,
    /// Its attempts failed and there is no time or budget for another one.
    RetriesSpent,
    /// The provider said that the quota is spent, and until when.
    QuotaSpent,
    /// The program is shutting down.
    Closed,
}

impl RefusalReason {
    /// Returns the name used in headers, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NeverFits => "never_fits",
            Self::Deadline => "deadline",
            Self::QueueFull => "queue_full",
            Self::QueueBytes => "queue_bytes",
            Self::UnknownQuota => "unknown_quota",
            Self::TooManyAccounts => "too_many_accounts",
            Self::RetriesSpent => "retries_spent",
            Self::QuotaSpent => "quota_spent",
            Self::Closed => "closed",
        }
    }
}
