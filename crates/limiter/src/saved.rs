//! A [`Memory`] in a form that serde writes and reads: JSON, or whatever else a program keeps its state in.
//!
//! Moments are microseconds since 1970, windows microseconds, and names those of status pages.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_core::{
    AllowanceMemory, Amount, BudgetMemory, BudgetUnit, Charged, Dimension, Discipline, Gap, GroupMemory,
    LimitMemory, LimitSource, Memory, Owner, Period, RouteId, TenantId, Timestamp, TrialMemory, Zone,
};

/// A [`Memory`] as it is saved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SavedMemory {
    version: u32,
    at: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<SavedGroup>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allowances: Vec<SavedAllowance>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gap: Option<(u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedGroup {
    name: String,
    account: u64,
    succeeded: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold_until: Option<u64>,
    #[serde(default, skip_serializing_if = "is_default")]
    margin_doublings: u32,
    limits: Vec<SavedLimit>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedLimit {
    dimension: Name<Dimension>,
    window: u64,
    discipline: Name<Discipline>,
    amount: u64,
    source: Name<LimitSource>,
    told: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    charges: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "is_default")]
    unsettled: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    foreign: Vec<(u64, u64)>,
    foreign_known: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_known: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    missing: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    paced_until: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trial: Option<SavedTrial>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    presumed: Option<(u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedTrial {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told: Option<(u64, Name<LimitSource>)>,
    refused: u64,
    agreed: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedAllowance {
    #[serde(flatten)]
    owner: SavedOwner,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    limits: Vec<SavedLimit>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    budgets: Vec<SavedBudget>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SavedOwner {
    Tenant(u64),
    Route(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedBudget {
    unit: Name<BudgetUnit>,
    period: Name<Period>,
    used: u64,
    renews: u64,
}

/// A value that is saved by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
#[serde(bound(serialize = "T: Named + Clone", deserialize = "T: Named"))]
struct Name<T>(T);

/// What has a name that is saved.
trait Named: Copy + 'static {
    /// Every value.
    const ALL: &'static [Self];

    fn saved_name(self) -> &'static str;
}

impl<T: Named> From<Name<T>> for &'static str {
    fn from(name: Name<T>) -> Self {
        name.0.saved_name()
    }
}

impl<T: Named> TryFrom<String> for Name<T> {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let found = T::ALL.iter().find(|value| value.saved_name() == name);
        found
            .map(|value| Self(*value))
            .ok_or_else(|| format!("unknown name `{name}`"))
    }
}

impl Named for Dimension {
    const ALL: &'static [Self] = &Self::ALL;

    fn saved_name(self) -> &'static str {
        self.name()
    }
}

impl Named for LimitSource {
    const ALL: &'static [Self] = &[
        Self::Unknown,
        Self::Config,
        Self::Preset,
        Self::Header,
        Self::Api,
        Self::Refusal,
        Self::Learned,
    ];

    fn saved_name(self) -> &'static str {
        self.name()
    }
}

impl Named for Discipline {
    const ALL: &'static [Self] = &[
        Self::Rolling,
        Self::TokenBucket,
        Self::Day(Zone::Utc),
        Self::Day(Zone::Pacific),
    ];

    fn saved_name(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::TokenBucket => "token_bucket",
            Self::Day(Zone::Utc) => "day_utc",
            Self::Day(Zone::Pacific) => "day_pacific",
        }
    }
}

impl Named for BudgetUnit {
    const ALL: &'static [Self] = &[Self::Tokens, Self::Cost];

    fn saved_name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Cost => "cost",
        }
    }
}

impl Named for Period {
    const ALL: &'static [Self] = &[Self::Day, Self::Month];

    fn saved_name(self) -> &'static str {
        self.name()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const fn saved_charge(charged: &Charged) -> (u64, u64) {
    (charged.stamp.as_micros(), charged.amount.value())
}

const fn charge((stamp, amount): (u64, u64)) -> Charged {
    Charged {
        stamp: Timestamp::from_micros(stamp),
        amount: Amount::new(amount),
    }
}

impl From<&Memory> for SavedMemory {
    fn from(memory: &Memory) -> Self {
        let gap = memory.gap;
        Self {
            version: memory.version,
            at: memory.at.as_micros(),
            groups: memory.groups.iter().map(SavedGroup::from).collect(),
            allowances: memory.allowances.iter().map(SavedAllowance::from).collect(),
            gap: gap.map(|gap| (gap.since.as_micros(), gap.until.as_micros())),
        }
    }
}

impl From<SavedMemory> for Memory {
    fn from(saved: SavedMemory) -> Self {
        Self {
            version: saved.version,
            at: Timestamp::from_micros(saved.at),
            groups: saved.groups.into_iter().map(GroupMemory::from).collect(),
            allowances: saved.allowances.into_iter().map(AllowanceMemory::from).collect(),
            gap: saved.gap.map(|(since, until)| Gap {
                since: Timestamp::from_micros(since),
                until: Timestamp::from_micros(until),
            }),
        }
    }
}

impl From<&GroupMemory> for SavedGroup {
    fn from(group: &GroupMemory) -> Self {
        Self {
            name: group.name.clone(),
            account: group.account,
            succeeded: group.succeeded,
            hold_until: group.hold_until.map(Timestamp::as_micros),
            margin_doublings: group.margin_doublings,
            limits: group.limits.iter().map(SavedLimit::from).collect(),
        }
    }
}

impl From<SavedGroup> for GroupMemory {
    fn from(saved: SavedGroup) -> Self {
        Self {
            name: saved.name,
            account: saved.account,
            succeeded: saved.succeeded,
            hold_until: saved.hold_until.map(Timestamp::from_micros),
            margin_doublings: saved.margin_doublings,
            limits: saved.limits.into_iter().map(LimitMemory::from).collect(),
        }
    }
}

impl From<&LimitMemory> for SavedLimit {
    fn from(limit: &LimitMemory) -> Self {
        Self {
            dimension: Name(limit.dimension),
            window: u64::try_from(limit.window.as_micros()).unwrap_or(u64::MAX),
            discipline: Name(limit.discipline),
            amount: limit.amount.value(),
            source: Name(limit.source),
            told: limit.told.as_micros(),
            charges: limit.charges.iter().map(saved_charge).collect(),
            unsettled: limit.unsettled.value(),
            foreign: limit.foreign.iter().map(saved_charge).collect(),
            foreign_known: limit.foreign_known.as_micros(),
            first_known: limit.first_known.map(Timestamp::as_micros),
            missing: limit.missing.map(Amount::value),
            paced_until: limit.paced_until.map(Timestamp::as_micros),
            trial: limit.trial.map(|trial| SavedTrial {
                told: trial.told.map(|(amount, source)| (amount.value(), Name(source))),
                refused: trial.refused.value(),
                agreed: trial.agreed,
            }),
            presumed: limit.presumed.as_ref().map(saved_charge),
        }
    }
}

impl From<SavedLimit> for LimitMemory {
    fn from(saved: SavedLimit) -> Self {
        Self {
            dimension: saved.dimension.0,
            window: Duration::from_micros(saved.window),
            discipline: saved.discipline.0,
            amount: Amount::new(saved.amount),
            source: saved.source.0,
            told: Timestamp::from_micros(saved.told),
            charges: saved.charges.into_iter().map(charge).collect(),
            unsettled: Amount::new(saved.unsettled),
            foreign: saved.foreign.into_iter().map(charge).collect(),
            foreign_known: Timestamp::from_micros(saved.foreign_known),
            first_known: saved.first_known.map(Timestamp::from_micros),
            missing: saved.missing.map(Amount::new),
            paced_until: saved.paced_until.map(Timestamp::from_micros),
            trial: saved.trial.map(|trial| TrialMemory {
                told: trial.told.map(|(amount, source)| (Amount::new(amount), source.0)),
                refused: Amount::new(trial.refused),
                agreed: trial.agreed,
            }),
            presumed: saved.presumed.map(charge),
        }
    }
}

impl From<&AllowanceMemory> for SavedAllowance {
    fn from(allowance: &AllowanceMemory) -> Self {
        let budget = |budget: &BudgetMemory| SavedBudget {
            unit: Name(budget.unit),
            period: Name(budget.period),
            used: budget.used,
            renews: budget.renews.as_micros(),
        };
        Self {
            owner: match allowance.owner {
                Owner::Tenant(tenant) => SavedOwner::Tenant(tenant.value()),
                Owner::Route(route) => SavedOwner::Route(route.value()),
            },
            limits: allowance.limits.iter().map(SavedLimit::from).collect(),
            budgets: allowance.budgets.iter().map(budget).collect(),
        }
    }
}

impl From<SavedAllowance> for AllowanceMemory {
    fn from(saved: SavedAllowance) -> Self {
        let budget = |budget: SavedBudget| BudgetMemory {
            unit: budget.unit.0,
            period: budget.period.0,
            used: budget.used,
            renews: Timestamp::from_micros(budget.renews),
        };
        Self {
            owner: match saved.owner {
                SavedOwner::Tenant(tenant) => Owner::Tenant(TenantId::from_value(tenant)),
                SavedOwner::Route(route) => Owner::Route(RouteId::from_value(route)),
            },
            limits: saved.limits.into_iter().map(LimitMemory::from).collect(),
            budgets: saved.budgets.into_iter().map(budget).collect(),
        }
    }
}
