//! Who asks, how urgent it is, and by which route: what the order of the line depends on.

use crate::plan::fnv64;

/// Identifies a tenant by its name, so that a reload may reorder tenants freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TenantId(u64);

impl TenantId {
    /// Everybody who has no tenant of their own.
    pub const ANYONE: Self = Self(0);

    /// Returns the identifier of the tenant called `name` (FNV-1a, 64 bits).
    pub const fn of(name: &str) -> Self {
        Self(fnv64(name))
    }

    /// Returns the number that stands for it.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// Returns the tenant that such a number stands for.
    pub const fn from_value(value: u64) -> Self {
        Self(value)
    }
}

/// Identifies a route of the plan by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RouteId(u64);

impl RouteId {
    /// No route: the request is under no route's limits.
    pub const NONE: Self = Self(0);

    /// Returns the identifier of the route called `name` (FNV-1a, 64 bits).
    pub const fn of(name: &str) -> Self {
        Self(fnv64(name))
    }

    /// Returns the number that stands for it.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// Returns the route that such a number stands for.
    pub const fn from_value(value: u64) -> Self {
        Self(value)
    }
}

/// The priority tiers. A request of a higher tier goes before every one of a lower tier, but for the share that each
/// tier is guaranteed ([`crate::TierPlan`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Before everything else.
    High,
    /// The usual.
    #[default]
    Normal,
    /// After the usual.
    Low,
    /// Only what others leave, evenly spread, so that others find room whenever they come.
    Batch,
}

impl Priority {
    /// Every tier, the most urgent first.
    pub const ALL: [Self; 4] = [Self::High, Self::Normal, Self::Low, Self::Batch];

    /// Returns the name used in configuration, headers, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
            Self::Batch => "batch",
        }
    }

    /// Returns the position of the tier in [`Priority::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns the tier of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.name() == name)
    }
}

/// Who asks, how urgent it is, and by which route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Caller {
    /// Who asks.
    pub tenant: TenantId,
    /// How urgent it is.
    pub priority: Priority,
    /// By which route.
    pub route: RouteId,
}
