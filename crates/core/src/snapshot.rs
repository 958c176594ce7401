//! What the engine looks like at a moment, for people and tests.

use alloc::string::String;
use alloc::vec::Vec;

use crate::caller::{Caller, Priority, RouteId, TenantId};
use crate::decision::{Spent, WaitReason};
use crate::limit::{Discipline, LimitRef, LimitSource};
use crate::output::Standing;
use crate::plan::{Budget, QuotaKey};
use crate::price::Cost;
use crate::request::RequestClass;
use crate::run::RunId;
use crate::time::Timestamp;
use crate::units::{Amount, Bytes, Tokens};
use core::time::Duration;

/// The engine at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The moment.
    pub now: Timestamp,
    /// Every quota group in use, in the order of their keys.
    pub quotas: Vec<QuotaSnapshot>,
    /// Bytes held by all waiting requests.
    pub waiting_bytes: Bytes,
    /// Tenants and routes with limits or budgets of their own, as far as they were used.
    pub allowances: Vec<AllowanceSnapshot>,
    /// The runs that were heard of last, at most [`RUNS_SHOWN`].
    pub runs: Vec<RunSnapshot>,
}

/// The most runs that a snapshot lists.
pub const RUNS_SHOWN: usize = 100;

/// A quota group at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaSnapshot {
    /// Its key.
    pub key: QuotaKey,
    /// Its name in the plan.
    pub name: String,
    /// Its limits, as far as they are known.
    pub limits: Vec<LimitSnapshot>,
    /// Requests that wait, in line or pausing.
    pub waiting: usize,
    /// Bytes that they hold.
    pub waiting_bytes: Bytes,
    /// The first of them in the order in which they are to be served, at most [`WAITING_SHOWN`].
    pub first_waiting: Vec<WaitingSnapshot>,
    /// Tenants that used it lately or wait, the largest users first, at most [`SHARES_SHOWN`].
    pub shares: Vec<ShareSnapshot>,
    /// Permits that are not settled.
    pub in_flight: usize,
    /// Until when the provider told the group to pause.
    pub hold_until: Option<Timestamp>,
    /// Whether no limit is known yet.
    pub learning: bool,
    /// What is known of the lengths of outputs, class by class.
    pub outputs: Vec<OutputSnapshot>,
    /// Requests a minute that slow start lets through now, while no limit is known.
    pub probing: Option<u64>,
    /// The pace that shortage of shared capacity leaves, while it does.
    pub congestion: Option<CongestionSnapshot>,
    /// Until when the provider said that the quota is spent.
    pub spent_until: Option<Timestamp>,
    /// How it stands to the ledger that it shares with other replicas, if it does.
    pub store: Option<StoreSnapshot>,
    /// What happened since the group came into use.
    pub totals: Totals,
}

/// How a quota group stands to the ledger that it shares with other replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSnapshot {
    /// How it stands.
    pub standing: Standing,
    /// How many replicas share it, this one included; 0: it is not known.
    pub replicas: u64,
    /// What this replica may use when the ledger is out of reach, in millionths of what it then sees in use.
    pub share: u64,
    /// The ledger's epoch: another one after every loss. 0: it is not known.
    pub epoch: u64,
    /// When the ledger was surely in touch for the last time.
    pub contact: Option<Timestamp>,
    /// Requests of which it is being asked.
    pub asked: usize,
    /// Calls to the ledger so far.
    pub calls: u64,
}

/// The pace that shortage of shared capacity leaves to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CongestionSnapshot {
    /// Requests a minute that are sent now.
    pub per_minute: u64,
    /// That pace over the one at which the provider last refused, in percent.
    pub percent: u32,
    /// Until when it stays as it is.
    pub steady_until: Option<Timestamp>,
}

/// How a temporary limit grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// By how much, each time.
    pub step: Amount,
    /// When next.
    pub next: Timestamp,
}

/// The most tenants that a snapshot lists for each group.
pub const SHARES_SHOWN: usize = 100;

/// The most waiting requests that a snapshot lists for each group.
pub const WAITING_SHOWN: usize = 100;

/// A limit at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSnapshot {
    /// The limit, with the amount that holds now.
    pub limit: LimitRef,
    /// How it is kept.
    pub discipline: Discipline,
    /// Where its amount comes from.
    pub source: LimitSource,
    /// When the source last told it.
    pub told: Timestamp,
    /// What is in use: charged by us and by others, and held.
    pub used: Amount,
    /// What is held for output that is not generated yet (for concurrency: requests in flight).
    pub held: Amount,
    /// What others were found to use.
    pub foreign: Amount,
    /// What is presumed to be in use, after a crash.
    pub presumed: Amount,
    /// The margin J.
    pub margin: Duration,
    /// How it grows, where it is the temporary limit of an acceleration.
    pub growth: Option<Growth>,
}

/// A waiting request at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingSnapshot {
    /// Its place, from 1.
    pub place: usize,
    /// How long it has been waiting.
    pub waited: Duration,
    /// When nobody waits for it any more.
    pub deadline: Timestamp,
    /// What it waits for.
    pub reason: WaitReason,
    /// When it is expected to be admitted, where that is known.
    pub eta: Option<Timestamp>,
    /// Who asks, how urgent it is, and by which route.
    pub caller: Caller,
}

/// What a tenant has of a quota group, in one priority tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareSnapshot {
    /// Whose.
    pub tenant: TenantId,
    /// In which tier.
    pub priority: Priority,
    /// Its weight.
    pub weight: u32,
    /// Requests that wait.
    pub waiting: usize,
    /// Bytes that they hold.
    pub waiting_bytes: Bytes,
    /// What was sent for it in the last window, as parts of the whole quota in a million.
    pub used_per_million: u64,
}

/// What a tenant or route may use of limits and budgets of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowanceSnapshot {
    /// Whose.
    pub owner: Owner,
    /// Its limits.
    pub limits: Vec<LimitSnapshot>,
    /// Its budgets.
    pub budgets: Vec<BudgetSnapshot>,
    /// What this replica has of them, where several share them and it has asked for any.
    pub escrow: Option<EscrowSnapshot>,
}

/// What one replica has of limits and budgets that several share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EscrowSnapshot {
    /// How much of each limit it may use in all, in their order. The limits' own amounts are those of all replicas together.
    pub limits: Vec<Amount>,
    /// How much of each budget, in their order and units.
    pub budgets: Vec<Amount>,
    /// What other replicas have used of each budget, as far as is known.
    pub spent_elsewhere: Vec<Amount>,
    /// Whether others are short of it.
    pub is_pressed: bool,
    /// When the latest call was sent that the store has answered.
    pub contact: Option<Timestamp>,
}

/// Who has limits of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// A tenant.
    Tenant(TenantId),
    /// A route.
    Route(RouteId),
}

/// A budget at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetSnapshot {
    /// The budget.
    pub budget: Budget,
    /// What was used of it in this period.
    pub used: u64,
    /// What requests under way hold.
    pub held: u64,
    /// When the next period begins.
    pub renews: Timestamp,
}

/// A run of an agent at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunSnapshot {
    /// Which.
    pub run: RunId,
    /// Requests so far.
    pub calls: u64,
    /// Tokens so far, those of requests under way by their estimate.
    pub tokens: u64,
    /// Money so far, likewise.
    pub cost: Cost,
    /// Since its first request.
    pub time: Duration,
    /// Its depth: 1 if no other run started it.
    pub depth: u32,
    /// How often its latest step was seen among the last twenty.
    pub repeats: u32,
    /// What is used to 80 % or more, the fullest first.
    pub warning: Option<Spent>,
}

/// Counters of one quota group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Permits given, retries included.
    pub admitted: u64,
    /// Requests refused.
    pub refused: u64,
    /// Requests whose caller left while they waited.
    pub cancelled: u64,
    /// Attempts after the first.
    pub retried: u64,
    /// Refusals for rate by the provider against limits that were known.
    pub promises_broken: u64,
    /// Refusals for rate by the provider that were the price of finding limits that nobody told.
    pub probed: u64,
    /// Refusals because use grew too fast.
    pub accelerated: u64,
    /// Refusals because too many requests were in flight.
    pub crowded: u64,
    /// Refusals because capacity that everybody shares was short.
    pub congested: u64,
    /// Answers that said that the quota is spent.
    pub quota_spent: u64,
    /// Answers that said that the request alone is larger than a limit.
    pub too_large: u64,
}

/// The outputs of one class at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSnapshot {
    /// The class.
    pub class: RequestClass,
    /// The outputs that are remembered; older ones fade within about an hour.
    pub samples: u32,
    /// The mean of the maxima that requests asked for lately.
    pub asked: Tokens,
    /// The rate at which they are generated, in tokens a second, once known.
    pub per_second: Option<u64>,
    /// Lengths in ascending order, and how many in a million outputs are longer.
    pub longer: Vec<(Tokens, u32)>,
}

/// What a cap on the maximum output would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapEffect {
    /// At most this many in a million answers would be cut short.
    pub cut_per_million: u32,
    /// What a request reserves of the output quota now, on average, where a provider charges the maximum.
    pub reserved: Tokens,
    /// What it would reserve.
    pub capped: Tokens,
}

impl OutputSnapshot {
    /// Returns the shortest listed length that all but `per_million` of the outputs keep to.
    pub fn quantile(&self, per_million: u32) -> Option<Tokens> {
        let above = 1_000_000_u32.saturating_sub(per_million);
        let fits = |(_, longer): &&(Tokens, u32)| *longer <= above;
        self.longer.iter().find(fits).map(|(length, _)| *length)
    }

    /// Returns what a cap on the maximum output would do, judging by the outputs seen so far. Where a provider charges the
    /// maximum at admission, `reserved / capped` is how many times as many requests the same quota would carry.
    pub fn effect_of_cap(&self, cap: Tokens) -> CapEffect {
        let below = self.longer.iter().rev().find(|(length, _)| *length <= cap);
        CapEffect {
            cut_per_million: below.map_or(1_000_000, |(_, longer)| *longer),
            reserved: self.asked,
            capped: self.asked.min(cap),
        }
    }
}
