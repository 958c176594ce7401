//! `tidegate limits`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tidegate_core::Limit;
use tokio::net::TcpStream;

use super::CommandError;
use crate::config::{BaseUrl, Config, ConfigArgs, Group, Scheme, Secret, duration};
use crate::metrics::{OutputView, window};
use crate::replay::human_count;

/// Arguments of `tidegate limits`.
#[derive(Debug, clap::Args)]
pub(super) struct LimitsArgs {
    /// Read the configuration from this file.
    #[arg(long, short, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    config: Option<PathBuf>,
    /// Ask the gateway whose admin listener is here, or `off` to ask none. Without it the one that the configuration
    /// names is asked, if it runs.
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// The environment variable with the admin listener's token, as env:NAME; without it the configuration's own.
    #[arg(long, value_name = "env:NAME")]
    admin_token: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How long the admin listener may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest status page that is read.
const PAGE_BYTES_MAX: usize = 64 << 20;

pub(super) fn run(args: &LimitsArgs) -> Result<ExitCode, CommandError> {
    let config = ConfigArgs {
        config: args.config.clone(),
        ..ConfigArgs::default()
    };
    let config = config.load()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(report(args, &config))?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", page(&report));
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything that is known of limits, and from whom.
#[derive(Debug, Serialize)]
struct Report {
    /// `configuration`, or the address of the gateway that was asked.
    from: String,
    limits: Vec<Row>,
    /// What people should know besides.
    notes: Vec<String>,
}

/// One limit of one quota group, or that none is known of it.
#[derive(Debug, Clone, Serialize)]
struct Row {
    upstream: String,
    group: String,
    /// A keyed hash of whose limit it is, where each key or model has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    /// The model that a group of unlisted ones has this account for.
    #[serde(skip_serializing_if = "Option::is_none")]
    serves: Option<String>,
    /// Requests a minute that slow start lets through, while no limit is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    probing_rpm: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<LimitRow>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct LimitRow {
    dimension: String,
    window: String,
    limit: u64,
    source: String,
    /// How long ago its source told it; absent for what was configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_s: Option<u64>,
}

/// The status page, as far as it is about limits.
#[derive(Debug, Deserialize)]
struct Status {
    upstreams: Vec<UpstreamStatus>,
    quotas: Vec<QuotaStatus>,
}

#[derive(Debug, Deserialize)]
struct UpstreamStatus {
    name: String,
    configured: Vec<Configured>,
    limits: Option<Asked>,
}

#[derive(Debug, Deserialize)]
struct Configured {
    group: String,
    limits: Vec<LimitRow>,
}

#[derive(Debug, Deserialize)]
struct Asked {
    told_seconds_ago: Option<u64>,
    failed: Option<Failed>,
}

#[derive(Debug, Deserialize)]
struct Failed {
    seconds_ago: u64,
    error: String,
}

#[derive(Debug, Deserialize)]
struct QuotaStatus {
    upstream: String,
    group: String,
    account: String,
    serves: Option<String>,
    probing_rpm: Option<u64>,
    limits: Vec<LimitRow>,
    #[serde(default)]
    outputs: Vec<OutputView>,
}

async fn report(args: &LimitsArgs, config: &Config) -> Result<Report, CommandError> {
    let own = config.server.admin.as_ref();
    let (asked, is_meant) = match (args.admin.as_deref(), own) {
        (Some("off"), _) | (None, None) => return Ok(configured(config, Vec::new())),
        (Some(url), _) => {
            let whole = if url.contains("://") {
                url.to_owned()
            } else {
                format!("http://{url}")
            };
            (whole, true)
        }
        (None, Some(admin)) => (format!("http://{}", admin.listen), false),
    };
    let token = match &args.admin_token {
        Some(name) => Some(token(name)?),
        None => own.and_then(|admin| admin.token.clone()),
    };
    let answer = tokio::time::timeout(PATIENCE, ask(&asked, token.as_ref())).await;
    match answer.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()).into())) {
        Ok(status) => Ok(running(asked, status)),
        Err(error) if is_meant => Err(format!("{asked}: {error}").into()),
        Err(_) => {
            let note = format!(
                "No gateway tells its limits at {asked}: this is what the configuration says. Name a running one with \
                 --admin URL."
            );
            Ok(configured(config, vec![note]))
        }
    }
}

/// Reads a token from the environment.
fn token(name: &str) -> Result<Secret, CommandError> {
    let name = name
        .strip_prefix("env:")
        .ok_or("--admin-token: write env:NAME, and put the token into that environment variable")?;
    let token = std::env::var(name)
        .map_err(|_| format!("--admin-token: the environment variable {name} is not set"))?;
    Ok(Secret::new(token.trim()))
}

/// Asks a running gateway.
async fn ask(admin: &str, token: Option<&Secret>) -> Result<Status, CommandError> {
    let url = BaseUrl::parse(admin)?;
    if url.scheme() == Scheme::Https {
        return Err("the admin listener speaks http://".into());
    }
    let stream = TcpStream::connect((url.host(), url.port())).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::get("/status").body(Empty::<bytes::Bytes>::new())?;
    let host = HeaderValue::from_str(url.authority().as_str())?;
    request.headers_mut().insert(HOST, host);
    if let Some(token) = token {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()))?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
    }
    let response = sender.send_request(request).await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            return Err(
                "it wants its token: --admin-token env:NAME, or --config with its admin_token".into(),
            );
        }
        status => return Err(format!("it answered {status}; is it Tidegate's admin listener?").into()),
    }
    let body = Limited::new(response.into_body(), PAGE_BYTES_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|_| "its status cannot be read; is it a Tidegate of this version?".into())
}

/// Returns what the configuration says.
fn configured(config: &Config, notes: Vec<String>) -> Report {
    let mut limits = Vec::new();
    for upstream in &config.upstreams {
        for group in upstream.all_groups() {
            push(
                &mut limits,
                Row::unused(&upstream.name, &group.name),
                group.limits.iter().map(LimitRow::of).collect(),
            );
        }
    }
    Report {
        from: "configuration".to_owned(),
        limits,
        notes,
    }
}

/// Returns what a running gateway says: of groups that nobody has used yet, what is configured.
fn running(admin: String, status: Status) -> Report {
    let (mut limits, mut notes) = (Vec::new(), Vec::new());
    let mut quotas = status.quotas;
    for quota in &quotas {
        notes.extend(
            quota
                .outputs
                .iter()
                .filter_map(|output| lengths(&quota.group, output)),
        );
    }
    quotas.sort_by(|a, b| (&a.upstream, &a.group, &a.account).cmp(&(&b.upstream, &b.group, &b.account)));
    for upstream in &status.upstreams {
        for Configured { group, limits: given } in &upstream.configured {
            let (used, rest): (Vec<_>, Vec<_>) = quotas
                .into_iter()
                .partition(|quota| quota.upstream == upstream.name && quota.group == *group);
            quotas = rest;
            if used.is_empty() {
                push(&mut limits, Row::unused(&upstream.name, group), given.clone());
            }
            for quota in used {
                push_used(&mut limits, quota);
            }
        }
        if let Some(asked) = &upstream.limits {
            notes.push(asked.note(&upstream.name));
        }
    }
    // Groups of an earlier configuration.
    for quota in quotas {
        push_used(&mut limits, quota);
    }
    Report {
        from: admin,
        limits,
        notes,
    }
}

/// Says how long outputs are and what a cap on them does to the quota, where the provider reserves the maximum and asking
/// for less would carry more.
fn lengths(group: &str, output: &OutputView) -> Option<String> {
    let cap = output
        .cap
        .filter(|cap| cap.configured || cap.carries_percent >= 120)?;
    let OutputView { asked, p50, p99, .. } = output;
    let permille = cap.cut_per_million.div_ceil(1_000);
    let cut = format!("{}.{} % of the answers", permille / 10, permille % 10);
    Some(if cap.configured {
        format!(
            "{group}: half of the outputs have at most {p50} tokens, 99 % at most {p99}; max_tokens_cap = {} cuts at most \
             {cut} short.",
            cap.tokens
        )
    } else {
        let times = format!("{}.{}", cap.carries_percent / 100, cap.carries_percent % 100 / 10);
        format!(
            "{group}: half of the outputs have at most {p50} tokens, 99 % at most {p99}, but {asked} are asked for on \
             average and reserved. With max_tokens_cap = {} the quota on output would carry {times} times as many \
             requests, and at most {cut} would be cut short.",
            cap.tokens
        )
    })
}

/// Adds the rows of a group that is in use.
fn push_used(rows: &mut Vec<Row>, quota: QuotaStatus) {
    let row = Row {
        upstream: quota.upstream,
        group: quota.group,
        account: (quota.account != "0").then_some(quota.account),
        serves: quota.serves,
        probing_rpm: quota.probing_rpm.filter(|_| quota.limits.is_empty()),
        limit: None,
    };
    push(rows, row, quota.limits);
}

/// Adds a row for each limit, or one that says that there are none.
fn push(rows: &mut Vec<Row>, row: Row, limits: Vec<LimitRow>) {
    if limits.is_empty() {
        rows.push(row);
        return;
    }
    rows.extend(limits.into_iter().map(|limit| Row {
        limit: Some(limit),
        ..row.clone()
    }));
}

impl Row {
    /// A group that nobody has used yet.
    fn unused(upstream: &str, group: &str) -> Self {
        Self {
            upstream: upstream.to_owned(),
            group: group.to_owned(),
            account: None,
            serves: None,
            probing_rpm: None,
            limit: None,
        }
    }
}

impl LimitRow {
    fn of(limit: &Limit) -> Self {
        Self {
            dimension: limit.dimension.name().to_owned(),
            window: window(limit.name()),
            limit: limit.amount.get(),
            source: limit.source.name().to_owned(),
            age_s: None,
        }
    }
}

impl Asked {
    fn note(&self, upstream: &str) -> String {
        let ago = |seconds| duration::display(Duration::from_secs(seconds));
        let told = match self.told_seconds_ago {
            Some(seconds) => format!("told its limits {} ago", ago(seconds)),
            None => "has not told its limits yet".to_owned(),
        };
        match &self.failed {
            Some(failed) => format!(
                "{upstream} {told}; asking failed {} ago: {}",
                ago(failed.seconds_ago),
                failed.error
            ),
            None => format!("{upstream} {told}"),
        }
    }
}

/// What stands in the table where a limit's own words do not say it.
const NOTHING: &str = "-";

/// Returns the report for people.
fn page(report: &Report) -> String {
    let mut rows = vec![
        [
            "upstream",
            "quota group",
            "account",
            "limit",
            "of",
            "in",
            "source",
            "age",
        ]
        .map(str::to_owned),
    ];
    for row in &report.limits {
        let account = row.account.as_deref().map_or(NOTHING, short).to_owned();
        let label = match (row.group.split_once('/'), &row.serves) {
            (Some((_, label)), _) => label.to_owned(),
            (None, Some(serves)) if serves != Group::UNLISTED => format!("{}: {serves}", Group::UNLISTED),
            (None, _) => Group::UNLISTED.to_owned(),
        };
        let (amount, of, window, source, age) = match (&row.limit, row.probing_rpm) {
            (None, Some(pace)) => (
                human_count(pace),
                "requests",
                "60s",
                "probing",
                NOTHING.to_owned(),
            ),
            (None, None) => (
                "not known yet".to_owned(),
                NOTHING,
                NOTHING,
                NOTHING,
                NOTHING.to_owned(),
            ),
            (Some(limit), _) => {
                let age = match (limit.source.as_str(), limit.age_s) {
                    // What was configured does not age.
                    ("config" | "preset", _) | (_, None) => NOTHING.to_owned(),
                    (_, Some(age)) => duration::display(Duration::from_secs(age)).to_string(),
                };
                (
                    human_count(limit.limit),
                    limit.dimension.as_str(),
                    limit.window.as_str(),
                    limit.source.as_str(),
                    age,
                )
            }
        };
        rows.push([
            row.upstream.clone(),
            label,
            account,
            amount,
            of.replace('_', " "),
            window.to_owned(),
            source.to_owned(),
            age,
        ]);
    }
    let mut text = table(&rows);
    for note in &report.notes {
        text.push_str(&format!("{note}\n"));
    }
    text
}

/// Returns rows with their columns aligned: amounts and ages to the right. A column that says nothing is left out.
fn table(rows: &[[String; 8]]) -> String {
    const RIGHT: [bool; 8] = [false, false, false, true, false, true, false, true];
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    let says = |column: usize| rows.iter().skip(1).any(|row| row[column] != NOTHING);
    let shown: Vec<usize> = (0..8).filter(|column| *column != 2 || says(2)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = shown
            .iter()
            .map(|&column| {
                let (cell, width) = (&row[column], widths[column]);
                if RIGHT[column] {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The first digits of an account, which tell accounts apart well enough for people.
fn short(account: &str) -> &str {
    account.get(..6).unwrap_or(account)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::CapView;

    #[test]
    fn a_cap_is_suggested_where_it_would_carry_more_and_explained_where_it_is_configured() {
        let output = |asked, cap| OutputView {
            samples: 900,
            asked,
            p50: 210,
            p99: 1_500,
            cap,
        };
        let cap = |configured, carries_percent| CapView {
            tokens: 1_500,
            configured,
            cut_per_million: 9_500,
            carries_percent,
        };
        let suggested = lengths("openai/gpt-4o", &output(4_096, Some(cap(false, 273)))).unwrap();
        assert_eq!(
            suggested,
            "openai/gpt-4o: half of the outputs have at most 210 tokens, 99 % at most 1500, but 4096 are asked for on \
             average and reserved. With max_tokens_cap = 1500 the quota on output would carry 2.7 times as many \
             requests, and at most 1.0 % of the answers would be cut short."
        );
        let configured = lengths("openai/gpt-4o", &output(1_500, Some(cap(true, 100)))).unwrap();
        assert_eq!(
            configured,
            "openai/gpt-4o: half of the outputs have at most 210 tokens, 99 % at most 1500; max_tokens_cap = 1500 cuts \
             at most 1.0 % of the answers short."
        );
        assert_eq!(
            lengths("openai/gpt-4o", &output(1_600, Some(cap(false, 106)))),
            None
        );
        // Anthropic reserves nothing.
        assert_eq!(lengths("claude", &output(4_096, None)), None);
    }
}
