//! Who uses what at one moment: shares of quota groups, allowances of tenants and routes, and runs, for the status page.

use std::collections::HashMap;

use serde::Serialize;
use tidegate_core::{
    AllowanceSnapshot, Amount, BudgetSnapshot, BudgetUnit, EscrowSnapshot, Owner, RunSnapshot, ShareSnapshot,
    Snapshot, Spent, TenantId, Timestamp,
};

use super::quota::{LimitView, limit_view, milliseconds};
use crate::config::Config;
use crate::provider::in_short;

/// What tenants, routes and runs are called.
pub(crate) struct CallerNames<'a> {
    tenants: HashMap<TenantId, &'a str>,
    config: &'a Config,
    /// What else has a name, by its number.
    others: &'a dyn Fn(u64) -> Option<String>,
}

/// What a tenant has of a quota group in one priority tier.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ShareView {
    /// The tenant; absent for nobody in particular.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The tier.
    pub priority: &'static str,
    /// The tenant's weight.
    pub weight: u32,
    /// Requests that wait.
    pub waiting: u64,
    /// Bytes that they hold.
    pub waiting_bytes: u64,
    /// What was sent for it in the last window, as parts of the whole quota in a million.
    pub used_per_million: u64,
}

/// What a tenant or route may use of its own limits and budgets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct AllowanceView {
    /// The tenant, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The route, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Its limits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitView>,
    /// Its budgets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<BudgetView>,
    /// What this gateway has of them, where several share them through a store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escrow: Option<EscrowView>,
}

/// What one gateway has of limits and budgets that several share.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EscrowView {
    /// How much of each limit it may use in all, in the order of `limits`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<u64>,
    /// How much of each budget, in the order of `budgets`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<u64>,
    /// What other gateways have used of each budget, as far as is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spent_elsewhere: Vec<u64>,
    /// Whether other gateways are short of it.
    pub pressed: bool,
    /// When the latest call was sent that the store has answered, in milliseconds before now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact_ms: Option<u64>,
}

/// A budget of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct BudgetView {
    /// `tokens` or `micro_dollars` (millionths of a US dollar).
    pub unit: &'static str,
    /// `day` or `month`.
    pub period: &'static str,
    /// The most of it.
    pub limit: u64,
    /// What was used of it.
    pub used: u64,
    /// What requests under way hold.
    pub held: u64,
    /// When the next period begins, in seconds from now.
    pub renews_s: u64,
}

/// A run of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct RunView {
    /// What it is called, or a hash of that.
    pub run: String,
    /// Requests so far.
    pub calls: u64,
    /// Tokens so far.
    pub tokens: u64,
    /// Money so far, in millionths of a US dollar.
    pub micro_dollars: u64,
    /// Since its first request, in milliseconds.
    pub time_ms: u64,
    /// Its depth.
    pub depth: u32,
    /// How often its latest step was seen lately.
    pub repeats: u32,
    /// What is nearly used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<SpentView>,
}

/// What of a run is nearly used up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SpentView {
    /// What.
    pub what: &'static str,
    /// How much was used.
    pub used: u64,
    /// The most.
    pub most: u64,
    /// The same for people, with units.
    pub text: String,
}

impl<'a> CallerNames<'a> {
    /// Takes the names from a configuration and its keys, and from wherever else.
    pub(crate) fn new(config: &'a Config, others: &'a dyn Fn(u64) -> Option<String>) -> Self {
        let listed = config.tenants.iter().map(|tenant| tenant.name.as_str());
        let names = config.keys.iter().map(|key| key.tenant.as_str()).chain(listed);
        Self {
            tenants: names.map(|name| (TenantId::of(name), name)).collect(),
            config,
            others,
        }
    }

    /// Returns a tenant's name; a number stands for one that is forgotten.
    pub(super) fn tenant(&self, id: TenantId) -> Option<String> {
        if id == TenantId::ANYONE {
            return None;
        }
        let known = self.tenants.get(&id).map(|name| (*name).to_owned());
        Some(known.unwrap_or_else(|| self.other(id.value())))
    }

    /// Returns a route's name, unless it is not configured any more.
    pub(super) fn route(&self, id: tidegate_core::RouteId) -> Option<String> {
        let found = self.config.routes.iter().find(|route| route.id == id);
        found.map(|route| route.name.clone())
    }

    fn other(&self, number: u64) -> String {
        (self.others)(number).unwrap_or_else(|| format!("{number:x}"))
    }
}

pub(super) fn share(share: &ShareSnapshot, names: &CallerNames<'_>) -> ShareView {
    ShareView {
        tenant: names.tenant(share.tenant),
        priority: share.priority.name(),
        weight: share.weight,
        waiting: share.waiting as u64,
        waiting_bytes: share.waiting_bytes.value(),
        used_per_million: share.used_per_million,
    }
}

/// Returns the allowances of a snapshot.
pub(crate) fn allowances(snapshot: &Snapshot, names: &CallerNames<'_>) -> Vec<AllowanceView> {
    let view = |allowance: &AllowanceSnapshot| {
        let (tenant, route) = match allowance.owner {
            Owner::Tenant(id) => (names.tenant(id), None),
            Owner::Route(id) => (None, names.route(id)),
        };
        let limits = allowance.limits.iter();
        let budgets = allowance.budgets.iter();
        AllowanceView {
            tenant,
            route,
            limits: limits.map(|limit| limit_view(snapshot.now, limit)).collect(),
            budgets: budgets.map(|budget| budget_view(snapshot.now, budget)).collect(),
            escrow: allowance
                .escrow
                .as_ref()
                .map(|escrow| escrow_view(snapshot.now, escrow)),
        }
    };
    snapshot.allowances.iter().map(view).collect()
}

fn budget_view(now: Timestamp, budget: &BudgetSnapshot) -> BudgetView {
    BudgetView {
        unit: match budget.budget.unit {
            BudgetUnit::Tokens => "tokens",
            BudgetUnit::Cost => "micro_dollars",
        },
        period: budget.budget.period.name(),
        limit: budget.budget.amount,
        used: budget.used,
        held: budget.held,
        renews_s: budget.renews.since(now).as_secs(),
    }
}

fn escrow_view(now: Timestamp, escrow: &EscrowSnapshot) -> EscrowView {
    let values = |amounts: &[Amount]| amounts.iter().map(|amount| amount.value()).collect();
    EscrowView {
        limits: values(&escrow.limits),
        budgets: values(&escrow.budgets),
        spent_elsewhere: values(&escrow.spent_elsewhere),
        pressed: escrow.is_pressed,
        contact_ms: escrow.contact.map(|contact| milliseconds(now.since(contact))),
    }
}

fn spent_view(spent: &Spent) -> SpentView {
    SpentView {
        what: spent.what.name(),
        used: spent.used,
        most: spent.most,
        text: in_short(spent, None),
    }
}

/// Returns the runs of a snapshot.
pub(crate) fn runs(snapshot: &Snapshot, names: &CallerNames<'_>) -> Vec<RunView> {
    let view = |run: &RunSnapshot| RunView {
        run: names.other(run.run.value()),
        calls: run.calls,
        tokens: run.tokens,
        micro_dollars: run.cost.as_micros(),
        time_ms: milliseconds(run.time),
        depth: run.depth,
        repeats: run.repeats,
        warning: run.warning.map(|spent| spent_view(&spent)),
    };
    snapshot.runs.iter().map(view).collect()
}
