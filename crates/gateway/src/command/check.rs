//! `tidegate check`.

use std::fmt::Write;
use std::process::ExitCode;

use tidegate_core::{
    BudgetUnit, Dimension, Discipline, Learning, Limit, LimitSource, RunPlan, TenantPlan, Zone,
};

use super::CommandError;
use crate::config::{Auth, Config, ConfigArgs, Route, Store, Tenant, Upstream, duration};
use crate::provider::dollars;

/// Arguments of `tidegate check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(args: &CheckArgs) -> Result<ExitCode, CommandError> {
    match args.config.load() {
        Ok(config) => {
            print!("{}", report(&config));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("{error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Returns what a configuration means, for people; no secrets.
fn report(config: &Config) -> String {
    let mut page = String::new();
    for warning in &config.warnings {
        let _ = writeln!(page, "warning: {warning}");
    }
    let server = &config.server;
    let _ = writeln!(page, "ok: {}", config.source);
    let _ = writeln!(page, "  listen {}", server.listen);
    match &server.admin {
        Some(admin) if admin.token.is_some() => {
            let _ = writeln!(page, "  admin {} (with a token)", admin.listen);
        }
        Some(admin) => {
            let _ = writeln!(page, "  admin {}", admin.listen);
        }
        None => page.push_str("  admin off\n"),
    }
    caller_lines(&mut page, config);
    if let Some(store) = &config.store {
        store_line(&mut page, store);
    }
    for upstream in &config.upstreams {
        upstream_lines(&mut page, upstream);
    }
    for tenant in &config.tenants {
        tenant_line(&mut page, config, tenant);
    }
    for route in &config.routes {
        route_line(&mut page, route);
    }
    run_line(&mut page, &config.runs);
    page
}

fn route_line(page: &mut String, route: &Route) {
    let mut parts = vec![route.conditions()];
    parts.extend(
        route
            .priority
            .map(|priority| format!("priority {}", priority.name())),
    );
    parts.extend(
        route
            .max_wait
            .map(|wait| format!("waits at most {}", duration::display(wait))),
    );
    parts.push(listed(&route.limits));
    let _ = writeln!(page, "route {}: {}", route.name, parts.join(", "));
}

/// What one run of an agent may use, if that is bounded.
fn run_line(page: &mut String, runs: &RunPlan) {
    let counts = [
        (runs.calls, "calls"),
        (runs.tokens, "tokens"),
        (runs.depth.map(u64::from), "deep"),
        (runs.repeats.map(u64::from), "times the same step"),
    ];
    let mut parts: Vec<_> = counts
        .into_iter()
        .filter_map(|(most, what)| Some(format!("{} {what}", most?)))
        .collect();
    parts.extend(runs.cost.map(dollars));
    parts.extend(runs.time.map(|time| duration::display(time).to_string()));
    if !parts.is_empty() {
        let _ = writeln!(page, "a run of an agent: at most {}", parts.join(", "));
    }
}

/// Says where limits are shared, and what is done without it.
fn store_line(page: &mut String, store: &Store) {
    let loss = if store.share > 0.0 {
        format!(
            "without it {} % of each quota for {}",
            (store.share * 1e4).round() / 1e2,
            duration::display(store.share_for)
        )
    } else {
        "without it nobody is let in".to_owned()
    };
    let server = store.options.describe();
    let _ = writeln!(page, "  limits shared through {server}, prefix {}; {loss}", store.prefix);
}

/// Says who may ask.
fn caller_lines(page: &mut String, config: &Config) {
    let server = &config.server;
    match server.auth {
        Auth::Keys => page.push_str("  whoever has a key of a tenant may ask\n"),
        Auth::Open => page.push_str("  everybody may ask\n"),
    }
    if let Some(header) = &server.tenant_header {
        let _ = writeln!(
            page,
            "  the header {header} names the tenant: a proxy must set it, not clients"
        );
    }
    if let Some(path) = &server.keys_file {
        let _ = writeln!(page, "  {} keys in {}", config.keys.len(), path.display());
    }
    if let Some(path) = &server.state_file {
        let _ = writeln!(page, "  charges outlive a restart in {}", path.display());
    }
}

fn tenant_line(page: &mut String, config: &Config, tenant: &Tenant) {
    let priority = match (tenant.priority, tenant.default_priority) {
        (highest, default) if highest == default => format!("priority {}", default.name()),
        (highest, default) => format!("priority {}, up to {}", default.name(), highest.name()),
    };
    let mut parts = vec![priority, format!("weight {}", tenant.weight)];
    let is_template = tenant.name == TenantPlan::EACH_OTHER;
    if !is_template {
        let in_file = config.keys.iter().filter(|key| key.tenant == tenant.name).count();
        parts.push(match tenant.keys.len() + in_file {
            1 => "1 key".to_owned(),
            keys => format!("{keys} keys"),
        });
    }
    parts.push(listed(&tenant.limits));
    for budget in &tenant.budgets {
        let (amount, period) = (budget.amount, budget.period.name());
        parts.push(match budget.unit {
            BudgetUnit::Tokens => format!("{amount} tokens a {period}"),
            BudgetUnit::Cost => format!("{} a {period}", dollars(amount)),
        });
    }
    let parts = parts.join(", ");
    let _ = if is_template {
        writeln!(page, "every other tenant: {parts}")
    } else {
        writeln!(page, "tenant {}: {parts}", tenant.name)
    };
}

fn listed(limits: &[Limit]) -> String {
    if limits.is_empty() {
        return "no limits of its own".to_owned();
    }
    let limits: Vec<_> = limits.iter().map(limit).collect();
    limits.join(", ")
}

fn upstream_lines(page: &mut String, upstream: &Upstream) {
    let key = match upstream.api_key {
        Some(_) => "its own key",
        None => "clients' keys passed through",
    };
    let (name, provider, url) = (&upstream.name, upstream.provider.name(), &upstream.base_url);
    let _ = writeln!(page, "upstream {name}: {provider} at {url}, {key}");
    for group in &upstream.groups {
        let models: Vec<_> = group.models.iter().map(ToString::to_string).collect();
        let whose = match (group.endpoint, group.context_over) {
            (Some(endpoint), _) => format!("{endpoint} takes from"),
            (None, Some(over)) => format!("{} above {over} input tokens share", models.join(", ")),
            (None, None) => format!("{} share", models.join(", ")),
        };
        let limits = limits(&group.limits, upstream.learning);
        let _ = writeln!(page, "  group {}: {whose} {limits}", group.name);
    }
    let unlisted = &upstream.unlisted;
    let every = match (unlisted.limits.is_empty(), upstream.learning) {
        (true, Learning::Off) => "is not limited".to_owned(),
        (true, _) => "learns its limits from the answers".to_owned(),
        (false, _) => format!("has {} of its own", limits(&unlisted.limits, upstream.learning)),
    };
    let _ = writeln!(page, "  group {}: every other model {every}", unlisted.name);
}

fn limits(limits: &[Limit], learning: Learning) -> String {
    if limits.is_empty() {
        return match learning {
            Learning::Off => "no limits".to_owned(),
            Learning::Answers | Learning::Probe => "limits learned from the answers".to_owned(),
        };
    }
    let limits: Vec<_> = limits.iter().map(limit).collect();
    limits.join(", ")
}

fn limit(limit: &Limit) -> String {
    let from = match limit.source {
        LimitSource::Preset => " (preset)",
        _ => "",
    };
    if limit.dimension == Dimension::Concurrency {
        return format!("{} requests at one time{from}", limit.amount);
    }
    let dimension = limit.dimension.name().replace('_', " ");
    let day = match limit.discipline {
        Discipline::Day(Zone::Utc) => " from midnight UTC",
        Discipline::Day(Zone::Pacific) => " from midnight Pacific time",
        Discipline::Rolling | Discipline::TokenBucket => "",
    };
    let window = duration::display(limit.window);
    format!("{} {dimension} in {window}{day}{from}", limit.amount)
}
