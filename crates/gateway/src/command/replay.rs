//! `tidegate replay`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::CommandError;
use crate::config::duration;
use crate::replay::{
    Dialect, PlayError, Player, Progress, QuotaLimits, Report, SdkRetries, Settings, Span, Trace, mock_answer,
};

/// Arguments of `tidegate replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A trace is a CSV file that starts with the line TIMESTAMP,ContextTokens,GeneratedTokens, or a log of JSON lines with \
ts (RFC 3339 or epoch seconds), input_tokens, output_tokens and optionally model and stream.

Requests start at the times of the trace, whatever becomes of the ones before (open loop). Every latency counts from \
the time at which the request was to start.")]
pub(super) struct ReplayArgs {
    /// The trace: CSV or JSON lines.
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// The server, with or without /v1: Tidegate, a provider or `tidegate mock`.
    #[arg(long, value_name = "URL")]
    base_url: String,
    /// Leave out what comes before this time of the trace.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration::parse)]
    from: Duration,
    /// Leave out what comes at or after this time of the trace.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    to: Option<Duration>,
    /// Requests arrive this many times faster than in the trace.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    speed: f64,
    /// The whole world runs this many times faster: arrivals, pauses and timeouts are shorter, and all times are
    /// reported in the time of the trace. For a server whose windows are shortened alike.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    time_scale: f64,
    /// The share of requests that ask for a stream, where the trace does not say.
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    stream: f64,
    /// How the server speaks.
    #[arg(long, value_enum, default_value_t)]
    dialect: Dialect,
    /// The model to ask, where the trace does not say.
    #[arg(long, default_value = "gpt-4o")]
    model: String,
    /// The variable that holds the API key, as env:NAME. Without it a key is made up, which mocks and Tidegate with a
    /// key of its own accept.
    #[arg(long, value_name = "env:NAME")]
    api_key: Option<String>,
    /// Retries that the official SDKs would make: their default is 2.
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
    /// How long to wait for an answer to begin, and to go on.
    #[arg(long, value_name = "TIME", default_value = "600s", value_parser = duration::parse)]
    timeout: Duration,
    /// The most requests in flight at once.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_in_flight: usize,
    /// Report how much of this many requests per window was used.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rpm: Option<u64>,
    /// Report how much of this many tokens per window was used.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    tpm: Option<u64>,
    /// The window of --rpm and --tpm, in the time of the trace.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse)]
    window: Duration,
    /// Also report the share of --rpm that a shorter window may hold, such as 10s.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    slice: Option<Duration>,
    /// Decides which requests stream.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The provider is `tidegate mock`: check that every answer is the one to its request, word for word. Otherwise
    /// answers are checked for being whole.
    #[arg(long)]
    mock: bool,
    /// Write the report to this file as JSON (- for standard output, instead of the tables).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: Box<ReplayArgs>) -> Result<ExitCode, CommandError> {
    let args = *args;
    let settings = Settings {
        dialect: args.dialect,
        model: args.model,
        api_key: api_key(args.api_key.as_deref())?,
        speed: args.speed,
        time_scale: args.time_scale,
        stream_share: args.stream,
        retries: SdkRetries { max: args.retries },
        timeout: args.timeout,
        max_in_flight: args.max_in_flight,
        seed: args.seed,
        expect: args.mock.then_some(mock_answer),
        limits: QuotaLimits {
            requests: args.rpm,
            tokens: args.tpm,
            window: args.window,
            slice: args.slice,
        },
        ..Settings::new(args.base_url)
    };
    let span = Span {
        from: args.from,
        to: args.to.unwrap_or(Duration::MAX),
    };
    let player = Player::new(Trace::file(args.trace), span, settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = runtime.block_on(watched(player))?;
    let tables = match args.json {
        Some(path) => write_json(&report, &path)?,
        None => true,
    };
    if tables {
        print(&report.to_string())?;
    }
    Ok(if report.all_answered() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Writes to standard output; whoever reads it may stop reading at any point (`| head`).
pub(super) fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes to the file, or to standard output for `-`; returns whether standard output is still free for tables.
pub(super) fn write_json(value: &impl Serialize, path: &Path) -> Result<bool, CommandError> {
    let text = serde_json::to_string_pretty(value)?;
    if path.as_os_str() == "-" {
        print(&(text + "\n"))?;
        return Ok(false);
    }
    fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(true)
}

/// Plays with a progress bar (where there is a terminal) until the end or the first interrupt.
async fn watched(player: Player) -> Result<Report, PlayError> {
    let progress = Arc::new(Progress::default());
    let bar = ProgressBar::new(player.summary().requests).with_style(bar_style());
    let play = player.play(Arc::clone(&progress));
    tokio::pin!(play);
    let mut redraw = tokio::time::interval(Duration::from_millis(100));
    let mut listening = true;
    let report = loop {
        tokio::select! {
            report = &mut play => break report,
            _ = redraw.tick() => show(&bar, &progress),
            interrupt = tokio::signal::ctrl_c(), if listening => {
                listening = false;
                if interrupt.is_ok() {
                    progress.stop();
                }
            }
        }
    };
    bar.finish_and_clear();
    report
}

pub(super) fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("  {prefix:22} [{bar:24}] {pos:>5}/{len} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

pub(super) fn show(bar: &ProgressBar, progress: &Progress) {
    let done = progress.answered() + progress.failed();
    bar.set_position(progress.started());
    bar.set_message(format!(
        "started, {} open, {} failed, {} × 429",
        progress.started().saturating_sub(done),
        progress.failed(),
        progress.refused()
    ));
}

/// Reads `env:NAME`: keys on a command line would be seen by every other user of the machine.
fn api_key(argument: Option<&str>) -> Result<HeaderValue, CommandError> {
    let value = match argument {
        None => "sk-replay".to_owned(),
        Some(argument) => {
            let name = argument
                .strip_prefix("env:")
                .ok_or("--api-key names a variable: env:OPENAI_API_KEY")?;
            std::env::var(name).map_err(|_| format!("--api-key: the variable {name} is not set"))?
        }
    };
    let mut value = HeaderValue::from_str(value.trim())
        .map_err(|_| "--api-key: the key holds characters that no header can carry")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_the_environment_and_are_never_shown() {
        let error = api_key(Some("sk-canary")).expect_err("a key in the open");
        assert!(!error.to_string().contains("sk-canary"));
        let error = api_key(Some("env:TIDEGATE_NO_SUCH_VARIABLE")).expect_err("not set");
        assert!(error.to_string().contains("TIDEGATE_NO_SUCH_VARIABLE is not set"));
        let settings = Settings {
            api_key: api_key(None).expect("made up"),
            ..Settings::new("http://127.0.0.1:1")
        };
        assert!(!format!("{settings:?}").contains("sk-replay"));
    }
}
