//! The checked configuration as the engine sees it.

use alloc::string::String;
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::time::Duration;

use crate::caller::{RouteId, TenantId};
use crate::charge::ChargeModel;
use crate::limit::{Discipline, Limit};
use crate::margin::MarginPolicy;

/// Identifies a quota group of the plan by its name, so that a reload may reorder groups freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaId(u64);

impl QuotaId {
    /// Returns the identifier of the group called `name` (FNV-1a, 64 bits).
    pub const fn of(name: &str) -> Self {
        Self(fnv64(name))
    }

    /// Returns the identifier as a number.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// Returns the identifier whose number this is, as [`QuotaId::value`] gives it.
    pub const fn from_value(value: u64) -> Self {
        Self(value)
    }
}

/// Hashes a name (FNV-1a, 64 bits).
pub(crate) const fn fnv64(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash ^= bytes[at] as u64;
        hash = hash.wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// One quota group at run time: a group of the plan, and which account uses it.
///
/// With an upstream key of Tidegate's own there is one account (0). Where clients' keys are passed through, each key
/// (and, where no limits are configured, each model) has limits of its own: `account` is then a keyed hash of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaKey {
    /// The group of the plan.
    pub id: QuotaId,
    /// Which account of it.
    pub account: u64,
}

impl QuotaKey {
    /// The only account of the group called `name`.
    pub const fn named(name: &str) -> Self {
        Self {
            id: QuotaId::of(name),
            account: 0,
        }
    }
}

/// How limits become known that are not configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Learning {
    /// They do not: what is not configured is not limited.
    Off,
    /// From response headers, refusals and the provider's limit interface; until then few requests are in flight.
    #[default]
    Answers,
    /// As [`Learning::Answers`], and where nobody tells anything by slow start, additive increase and multiplicative
    /// decrease (Gemini, Vertex, Bedrock, DeepSeek).
    Probe,
}

/// How sure it must be that output which is charged as it is generated stays within its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guarantee {
    /// The chance of exceeding it stays below this many in a million, judging by outputs seen so far.
    Statistical {
        /// The chance, in millionths.
        per_million: u32,
    },
    /// Every request may generate all it may.
    Hard,
}

impl Default for Guarantee {
    /// One in a thousand: 3.09 standard deviations (theory.md §2.3).
    fn default() -> Self {
        Self::Statistical { per_million: 1_000 }
    }
}

/// All limits that one request must pass together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaPlan {
    /// The group's name, unique in the plan; shown in status and metrics.
    pub name: String,
    /// The configured limits; may be empty.
    pub limits: Vec<Limit>,
    /// What a request takes from each dimension, and when.
    pub charge: ChargeModel,
    /// How limits become known that are not configured.
    pub learning: Learning,
    /// How learned limits over the provider's minute are kept.
    pub discipline: Discipline,
    /// A shorter time over which the provider enforces its limit on requests too, each in its share. Whatever is learned of
    /// the limit holds for its shares, those among `limits` included.
    pub slice: Option<Duration>,
    /// How sure it must be that output which is charged as it is generated stays within its limit.
    pub guarantee: Guarantee,
    /// The length of the provider's "minute": the window of limits that headers tell of.
    pub window: Duration,
    /// How long a permit is valid (τ): it is void if the request is not on the wire by then.
    pub permit_ttl: Duration,
    /// How far apart our stamp and the provider's may be (J).
    pub margin: MarginPolicy,
}

impl QuotaPlan {
    /// Makes a group with the defaults: a 60 s minute, permits valid for 100 ms, limits learned where none are given.
    pub fn new(name: impl Into<String>, limits: Vec<Limit>, charge: ChargeModel) -> Self {
        Self {
            name: name.into(),
            limits,
            charge,
            learning: Learning::Answers,
            discipline: Discipline::Rolling,
            slice: None,
            guarantee: Guarantee::default(),
            window: Duration::from_secs(60),
            permit_ttl: Duration::from_millis(100),
            margin: MarginPolicy::Learned,
        }
    }

    /// Returns the group's identifier.
    pub fn id(&self) -> QuotaId {
        QuotaId::of(&self.name)
    }
}

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueBounds {
    /// The most requests waiting in one quota group.
    pub requests_max: usize,
    /// The most bytes held by requests waiting in all quota groups.
    pub bytes_max: u64,
    /// The longest that one request may wait, whatever its deadline says.
    pub wait_max: Duration,
}

impl Default for QueueBounds {
    fn default() -> Self {
        Self {
            requests_max: 10_000,
            bytes_max: 1 << 30,
            wait_max: Duration::from_secs(600),
        }
    }
}

/// When and how often a failed attempt is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The first pause after an overload or a transient fault.
    pub backoff_min: Duration,
    /// The longest pause; pauses double up to it.
    pub backoff_max: Duration,
    /// Pauses vary at random by this many percent either way.
    pub jitter_percent: u8,
    /// How long after its arrival a request may still be tried again.
    pub horizon: Duration,
    /// Retries allowed for every hundred requests of the last ten seconds…
    pub budget_percent: u32,
    /// … and in any case this many in ten seconds.
    pub budget_floor: u32,
}

impl Default for RetryPolicy {
    /// 1 s doubling to 60 s, ±25 %, for 90 s; a fifth of the requests and 100 in ten seconds besides (theory.md §5).
    fn default() -> Self {
        Self {
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            jitter_percent: 25,
            horizon: Duration::from_secs(90),
            budget_percent: 20,
            budget_floor: 100,
        }
    }
}

/// How quota groups are shared with other replicas, through a ledger that all of them call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedPlan {
    /// The part of every quota that all replicas together go on using while the ledger is out of reach, in millionths; 0:
    /// nobody is let in then. What one replica may use of it, it may also keep from the others for `share_life` and a window
    /// after it was killed (theory.md §4.6).
    pub share: u32,
    /// For how long a replica that is cut off goes on with its share.
    pub share_life: Duration,
    /// For how long the requests in flight of a silent replica count: its lease.
    pub lease: Duration,
    /// Whether a ledger of which nobody knows anything is taken to be new. Else it may have been lost, and nobody is let in
    /// until a window has passed or the provider's headers tell what is in use.
    pub trusts_empty: bool,
    /// How long a permit is valid at least: it was given by the ledger one round trip before it is known. Where answers come
    /// later, up to 250 ms: every limit's window is kept longer by as much.
    pub permit_ttl: Duration,
}

impl Default for SharedPlan {
    /// Half of the quota, for 45 s: a killed replica of three strands a sixth of it until its share ends and the window has
    /// passed, less than two windows in all.
    fn default() -> Self {
        Self {
            share: 500_000,
            share_life: Duration::from_secs(45),
            lease: Duration::from_secs(30),
            trusts_empty: false,
            permit_ttl: Duration::from_millis(100),
        }
    }
}

/// In which order the requests of one tenant and tier are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Order {
    /// First come, first served.
    #[default]
    Arrival,
    /// The earliest deadline first.
    Deadline,
}

/// A span of the calendar, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the first of the next.
    Month,
}

impl Period {
    /// Returns the name used in configuration and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BudgetUnit {
    /// Tokens, input and output together.
    Tokens,
    /// Money, in millionths of a US dollar ([`crate::Cost`]).
    Cost,
}

/// The most that a tenant may use in each span of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Budget {
    /// What is counted.
    pub unit: BudgetUnit,
    /// Over which span.
    pub period: Period,
    /// The most of it.
    pub amount: u64,
}

/// What one tenant may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantPlan {
    /// Its name, unique in the plan. [`TenantPlan::EACH_OTHER`] stands for every tenant that is not listed, each with
    /// limits of its own.
    pub name: String,
    /// Its share next to others of its tier: twice the weight is twice the quota.
    pub weight: NonZeroU32,
    /// In which order its own requests are served.
    pub order: Order,
    /// Limits of its own, over all quota groups.
    pub limits: Vec<Limit>,
    /// What it may use in a day or month.
    pub budgets: Vec<Budget>,
    /// The most of its requests that wait in one quota group.
    pub waiting_max: usize,
    /// The most bytes that its waiting requests hold in one quota group.
    pub waiting_bytes_max: u64,
}

impl TenantPlan {
    /// The name of what holds for every tenant that is not listed.
    pub const EACH_OTHER: &'static str = "*";

    /// Makes a tenant with the usual weight and no limits.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            weight: NonZeroU32::MIN,
            order: Order::Arrival,
            limits: Vec::new(),
            budgets: Vec::new(),
            waiting_max: usize::MAX,
            waiting_bytes_max: u64::MAX,
        }
    }

    /// Returns the tenant's identifier.
    pub fn id(&self) -> TenantId {
        TenantId::of(&self.name)
    }
}

/// Limits on what goes by one route, over all quota groups and tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutePlan {
    /// Its name, unique in the plan.
    pub name: String,
    /// Its limits.
    pub limits: Vec<Limit>,
}

impl RoutePlan {
    /// Returns the route's identifier.
    pub fn id(&self) -> RouteId {
        RouteId::of(&self.name)
    }
}

/// What a priority tier is guaranteed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TierPlan {
    /// At least this part of the quota goes to it while it waits, in percent.
    pub share_percent: u8,
}

impl TierPlan {
    /// The usual: nothing starves, but what is only to take what others leave (theory.md §3.2).
    pub const USUAL: [Self; 4] = [
        Self { share_percent: 5 },
        Self { share_percent: 5 },
        Self { share_percent: 5 },
        Self { share_percent: 0 },
    ];
}

/// What one run of an agent may use. `None`: as much as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunPlan {
    /// Requests.
    pub calls: Option<u64>,
    /// Tokens, input and output together.
    pub tokens: Option<u64>,
    /// Money, in millionths of a US dollar.
    pub cost: Option<u64>,
    /// Time since its first request.
    pub time: Option<Duration>,
    /// Runs within runs: a run that nobody started has depth 1.
    pub depth: Option<u32>,
    /// The same step, among the last twenty.
    pub repeats: Option<u32>,
    /// A run is forgotten when nothing was heard of it for so long.
    pub idle: Duration,
}

impl Default for RunPlan {
    fn default() -> Self {
        Self {
            calls: None,
            tokens: None,
            cost: None,
            time: None,
            depth: None,
            repeats: None,
            idle: Duration::from_secs(3_600),
        }
    }
}

/// Everything that is configured about limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The quota groups, each with a name of its own.
    pub quotas: Vec<QuotaPlan>,
    /// How much may wait.
    pub queue: QueueBounds,
    /// When failed attempts are tried again.
    pub retry: RetryPolicy,
    /// The tenants that are known by name.
    pub tenants: Vec<TenantPlan>,
    /// Routes with limits of their own.
    pub routes: Vec<RoutePlan>,
    /// What each tier is guaranteed, in the order of [`crate::Priority::ALL`].
    pub tiers: [TierPlan; 4],
    /// What a run of an agent may use.
    pub runs: RunPlan,
    /// How quota groups are shared with other replicas; `None`: this process is the only one.
    pub shared: Option<SharedPlan>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            quotas: Vec::new(),
            queue: QueueBounds::default(),
            retry: RetryPolicy::default(),
            tenants: Vec::new(),
            routes: Vec::new(),
            tiers: TierPlan::USUAL,
            runs: RunPlan::default(),
            shared: None,
        }
    }
}
