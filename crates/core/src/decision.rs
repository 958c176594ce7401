//! What the engine answers.

use core::fmt;
use core::time::Duration;

use crate::limit::LimitRef;
use crate::plan::{BudgetUnit, Period};
use crate::snapshot::Owner;
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
    pub(crate) slot: u32,
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
    /// What it has waited for, if it has waited for anything but the answer of the ledger that replicas share.
    pub reason: Option<WaitReason>,
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
    /// How many are expected to be served before it, itself included: 1 is the next.
    pub place: u64,
    /// Whether it waits for what its own tenant has sent or asked for, rather than for others.
    pub is_own: bool,
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
    /// A limit of its own tenant has no room for it.
    Tenant(LimitRef),
    /// A limit of its route has no room for it.
    Route(LimitRef),
    /// The rest of its tenant's budget is held by requests under way.
    Budget,
    /// The ledger that all replicas share is asked.
    Store,
    /// Its tenant has more than its share, and what is beyond that is spread evenly, so that others find room.
    Share,
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
            Self::Tenant(_) => "tenant",
            Self::Route(_) => "route",
            Self::Budget => "budget",
            Self::Store => "store",
            Self::Share => "share",
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
    /// Whose own that limit is; `None` for the provider's.
    pub owner: Option<Owner>,
    /// How long to stay away before the same request would be served; `None` where waiting does not help.
    pub retry_after: Option<Duration>,
    /// What is used up, where that is why.
    pub spent: Option<Spent>,
    /// What is in the way, where that is no limit.
    pub obstacle: Option<Obstacle>,
}

/// Something other than a limit that a refused request waited for, or would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// The provider told the group to pause.
    Hold,
    /// How much of the quota is in use is not known yet.
    Learning,
    /// The ledger that all replicas share is out of reach.
    Store,
}

impl Obstacle {
    /// Returns the name used in headers, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hold => WaitReason::Hold.name(),
            Self::Learning => WaitReason::Learning.name(),
            Self::Store => WaitReason::Store.name(),
        }
    }

    /// Returns what somebody waits for, if it is no limit.
    pub(crate) const fn of(reason: WaitReason) -> Option<Self> {
        match reason {
            WaitReason::Hold => Some(Self::Hold),
            WaitReason::Learning => Some(Self::Learning),
            WaitReason::Store => Some(Self::Store),
            _ => None,
        }
    }
}

/// Something that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// What.
    pub what: Allotment,
    /// How much of it was used, in its unit: requests, tokens, millionths of a dollar, microseconds, or depth.
    pub used: u64,
    /// The most that may be.
    pub most: u64,
    /// Of a run: how many levels above the one that asks the run is that has used it up; 0: that one itself.
    pub above: u32,
}

/// What can be used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Allotment {
    /// A tenant's budget.
    Budget(BudgetUnit, Period),
    /// Requests of a run.
    RunCalls,
    /// Tokens of a run.
    RunTokens,
    /// Money of a run.
    RunCost,
    /// Time of a run.
    RunTime,
    /// Runs within runs.
    RunDepth,
    /// Repetitions of the same step.
    RunRepeats,
}

impl Allotment {
    /// Everything that can be used up.
    pub const ALL: [Self; 10] = [
        Self::Budget(BudgetUnit::Tokens, Period::Day),
        Self::Budget(BudgetUnit::Tokens, Period::Month),
        Self::Budget(BudgetUnit::Cost, Period::Day),
        Self::Budget(BudgetUnit::Cost, Period::Month),
        Self::RunCalls,
        Self::RunTokens,
        Self::RunCost,
        Self::RunTime,
        Self::RunDepth,
        Self::RunRepeats,
    ];

    /// Returns the name used in headers, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Budget(BudgetUnit::Tokens, Period::Day) => "tokens_per_day",
            Self::Budget(BudgetUnit::Tokens, Period::Month) => "tokens_per_month",
            Self::Budget(BudgetUnit::Cost, Period::Day) => "dollars_per_day",
            Self::Budget(BudgetUnit::Cost, Period::Month) => "dollars_per_month",
            Self::RunCalls => "run_calls",
            Self::RunTokens => "run_tokens",
            Self::RunCost => "run_dollars",
            Self::RunTime => "run_time",
            Self::RunDepth => "run_depth",
            Self::RunRepeats => "run_repeats",
        }
    }
}

impl Refusal {
    /// Makes a refusal that names nothing but its reason.
    pub const fn of(reason: RefusalReason) -> Self {
        Self {
            reason,
            limit: None,
            owner: None,
            retry_after: None,
            spent: None,
            obstacle: None,
        }
    }
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
    /// Its tenant has as many requests waiting as it may, or they hold as many bytes.
    TenantQueueFull,
    /// Its tenant's budget is spent.
    BudgetSpent,
    /// Its run has used what a run may.
    RunSpent,
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
            Self::TenantQueueFull => "tenant_queue_full",
            Self::BudgetSpent => "budget_spent",
            Self::RunSpent => "run_spent",
            Self::UnknownQuota => "unknown_quota",
            Self::TooManyAccounts => "too_many_accounts",
            Self::RetriesSpent => "retries_spent",
            Self::QuotaSpent => "quota_spent",
            Self::Closed => "closed",
        }
    }
}
