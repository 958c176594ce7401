//! What an engine knows, as plain data: for whoever keeps it over a restart.
//!
//! Every moment in it is absolute, so that it grows old by itself: what has expired meanwhile is dropped when it is
//! [recalled](crate::Engine::recall), and a moment in the future (somebody set the clock back) is taken to be now.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::limit::{Discipline, LimitSource};
use crate::plan::{BudgetUnit, Period};
use crate::snapshot::Owner;
use crate::time::Timestamp;
use crate::units::{Amount, Dimension};

/// The most charges that are remembered of one limit: neighbors are joined, which makes them seem up to half a second
/// later in a window of a minute.
const CHARGES_MAX: usize = 120;
/// The fewest of them, where there are many limits …
const CHARGES_MIN: usize = 4;
/// … and about how many are remembered of all limits together.
const CHARGES_ALL: usize = 1 << 16;

/// What an engine knows at a moment: charges, what was learned of limits, and budgets. Neither requests that wait nor runs
/// are part of it, and no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// The version of its form, [`Memory::VERSION`].
    pub version: u32,
    /// The moment.
    pub at: Timestamp,
    /// The quota groups in use.
    pub groups: Vec<GroupMemory>,
    /// Tenants and routes with limits or budgets of their own, as far as they used any.
    pub allowances: Vec<AllowanceMemory>,
    /// A time before of which nobody knew, while anything may have been sent in it that still counts.
    pub gap: Option<Gap>,
}

impl Memory {
    /// The version that this crate makes and understands.
    pub const VERSION: u32 = 1;
}

/// What is known of one quota group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMemory {
    /// Its name in the plan.
    pub name: String,
    /// Which of its accounts it is ([`crate::QuotaKey::account`]).
    pub account: u64,
    /// Whether the provider ever accepted a request of it.
    pub succeeded: bool,
    /// Until when the provider told it to pause.
    pub hold_until: Option<Timestamp>,
    /// How often the margin was doubled because of refusals.
    pub margin_doublings: u32,
    /// Its limits, also those that nobody has told yet: what was charged counts once they are known.
    pub limits: Vec<LimitMemory>,
}

/// What is known of one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitMemory {
    /// What it counts.
    pub dimension: Dimension,
    /// The length of its window.
    pub window: Duration,
    /// How it is kept.
    pub discipline: Discipline,
    /// Its amount.
    pub amount: Amount,
    /// Where the amount comes from.
    pub source: LimitSource,
    /// When the source last told it.
    pub told: Timestamp,
    /// What was charged and still counts, earliest first: by us and by others.
    pub charges: Vec<Charged>,
    /// How much of that is of requests under way: it may yet be given back.
    pub unsettled: Amount,
    /// What others charged of that.
    pub foreign: Vec<Charged>,
    /// The latest moment at which the provider's use was known.
    pub foreign_known: Timestamp,
    /// When the provider's use was first known.
    pub first_known: Option<Timestamp>,
    /// What is missing from its bucket, where one is kept.
    pub missing: Option<Amount>,
    /// Until when traffic is spread out.
    pub paced_until: Option<Timestamp>,
    /// How its amount was found, where it was by trying.
    pub trial: Option<TrialMemory>,
    /// What is taken for charged beside that because nobody knows better.
    pub presumed: Option<Charged>,
}

/// An amount and when it was charged, at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charged {
    /// When.
    pub stamp: Timestamp,
    /// How much.
    pub amount: Amount,
}

/// How an amount was found by trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrialMemory {
    /// What was told before a refusal contradicted it.
    pub told: Option<(Amount, LimitSource)>,
    /// What was in use at the last refusal.
    pub refused: Amount,
    /// How many refusals in a row agreed on it.
    pub agreed: u32,
}

/// What one tenant or route used of limits and budgets of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowanceMemory {
    /// Whose.
    pub owner: Owner,
    /// Its limits.
    pub limits: Vec<LimitMemory>,
    /// Its budgets.
    pub budgets: Vec<BudgetMemory>,
}

/// What was used of one budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetMemory {
    /// What is counted.
    pub unit: BudgetUnit,
    /// Over which span of the calendar.
    pub period: Period,
    /// What was used in the span that now is, in its unit: tokens, or millionths of a dollar.
    pub used: u64,
    /// When the next span begins.
    pub renews: Timestamp,
}

/// A memory of a version that this crate does not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownMemory {
    /// Its version.
    pub version: u32,
}

impl fmt::Display for UnknownMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (version, known) = (self.version, Memory::VERSION);
        write!(
            f,
            "it is of version {version}; this program knows version {known}"
        )
    }
}

impl core::error::Error for UnknownMemory {}

/// A time of which nobody knows what was sent in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// When the last [`Memory`] was made; [`Timestamp::ZERO`], if there is none.
    pub since: Timestamp,
    /// When nothing was sent any more, at the latest.
    pub until: Timestamp,
}

impl Gap {
    /// Returns its length in microseconds.
    pub(crate) const fn length(self) -> u64 {
        self.until.as_micros().saturating_sub(self.since.as_micros())
    }
}

/// Returns how many charges are remembered of each of so many limits.
pub(crate) fn charges_each(limits: usize) -> usize {
    (CHARGES_ALL / limits.max(1)).clamp(CHARGES_MIN, CHARGES_MAX)
}

/// Joins charges in the order of their stamps until there are no more than `most` of them. Those that are joined have the
/// stamp of their last: no charge is forgotten too early.
pub(crate) fn joined(charges: impl Iterator<Item = (u64, u64)>, most: usize) -> Vec<Charged> {
    let mut all: Vec<(u64, u64)> = charges.filter(|(_, amount)| *amount > 0).collect();
    let each = all.len().div_ceil(most.max(1)).max(1);
    if each > 1 {
        let join = |part: &[(u64, u64)]| {
            let amount = part
                .iter()
                .fold(0_u64, |sum, (_, amount)| sum.saturating_add(*amount));
            (part.last().map_or(0, |(stamp, _)| *stamp), amount)
        };
        all = all.chunks(each).map(join).collect();
    }
    let charged = |(stamp, amount)| Charged {
        stamp: Timestamp::from_micros(stamp),
        amount: Amount::new(amount),
    };
    all.into_iter().map(charged).collect()
}
