//! `tidegate check`.

use std::fmt::Write;
use std::process::ExitCode;

use tidegate_core::{Dimension, Limit};

use super::CommandError;
use crate::config::{Config, ConfigArgs, Upstream, duration};

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
    for upstream in &config.upstreams {
        upstream_lines(&mut page, upstream);
    }
    page
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
        let limits: Vec<_> = group.limits.iter().map(limit).collect();
        let limits = if limits.is_empty() {
            "limits learned from the answers".to_owned()
        } else {
            limits.join(", ")
        };
        let _ = writeln!(
            page,
            "  group {}: {} share {limits}",
            group.name,
            models.join(", ")
        );
    }
    let _ = writeln!(
        page,
        "  group {}: every other model learns its limits from the answers",
        upstream.unlisted.name
    );
}

fn limit(limit: &Limit) -> String {
    if limit.dimension == Dimension::Concurrency {
        return format!("{} requests at one time", limit.amount);
    }
    let dimension = limit.dimension.name().replace('_', " ");
    format!(
        "{} {dimension} in {}",
        limit.amount,
        duration::display(limit.window)
    )
}
