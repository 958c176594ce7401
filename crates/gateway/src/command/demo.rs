//! `tidegate demo`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar};

use super::CommandError;
use super::replay::{bar_style, print, show, write_json};
use crate::demo::{Algorithm, Comparison, DemoError, DemoSettings, Stage};
use crate::replay::{Progress, human_count};

/// Arguments of `tidegate demo`.
#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Everything runs this many times faster than in the trace, the provider's minute included.
    #[arg(long, value_name = "FACTOR", default_value_t = DemoSettings::default().time_scale)]
    speed: f64,
    /// Requests that the provider allows in a minute.
    #[arg(long, value_name = "N", default_value_t = DemoSettings::default().rpm)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rpm: u64,
    /// Tokens that the provider allows in a minute.
    #[arg(long, value_name = "N", default_value_t = DemoSettings::default().tpm)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    tpm: u64,
    /// How the provider counts.
    #[arg(long, value_enum, default_value_t)]
    algorithm: Algorithm,
    /// The seed of everything random.
    #[arg(long, default_value_t = DemoSettings::default().seed)]
    seed: u64,
    /// Write what was measured to this file as JSON (- for standard output, instead of the table).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The range of `--speed`: the provider's minute lasts from 60 s to 1 s.
const SPEED: std::ops::RangeInclusive<f64> = 1.0..=60.0;

pub(super) fn run(args: DemoArgs) -> Result<ExitCode, CommandError> {
    if !SPEED.contains(&args.speed) {
        return Err(format!("--speed lies between {} and {}", SPEED.start(), SPEED.end()).into());
    }
    let settings = DemoSettings {
        time_scale: args.speed,
        rpm: args.rpm,
        tpm: args.tpm,
        algorithm: args.algorithm,
        seed: args.seed,
        ..DemoSettings::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let stage = runtime.block_on(async { Stage::set(settings.clone()) })?;
    eprintln!("{}", introduction(&settings, &stage));
    let comparison = runtime.block_on(watched(stage))?;
    let table = match args.json {
        Some(path) => write_json(&comparison, &path)?,
        None => true,
    };
    if table {
        print(&format!("{comparison}\n{}", next_steps(&settings)))?;
    }
    Ok(if comparison.promise_kept() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn introduction(settings: &DemoSettings, stage: &Stage) -> String {
    let summary = stage.summary();
    let tokens = summary.input_tokens + summary.output_tokens;
    let minutes = (summary.last.as_secs_f64() / 60.0)
        .max(summary.requests as f64 / settings.rpm as f64)
        .max(tokens as f64 / settings.tpm as f64);
    format!(
        "\nTidegate demo: {}:\n\
         {} requests with {} tokens, to a mock provider that allows {} requests and {} tokens\n\
         a minute ({}). Three times at once: directly, directly with the official SDKs' retries,\n\
         and through Tidegate. Everything runs {} times faster: a minute of the trace lasts {:.1} s here,\n\
         and so does the provider's. This takes about {:.0} seconds.\n",
        settings.trace_name,
        human_count(summary.requests),
        human_count(tokens),
        human_count(settings.rpm),
        human_count(settings.tpm),
        settings.algorithm.name(),
        settings.time_scale,
        60.0 / settings.time_scale,
        minutes * 60.0 / settings.time_scale,
    )
}

fn next_steps(settings: &DemoSettings) -> String {
    format!(
        "Now your own app; its API key stays where it is:\n\n    \
         tidegate serve --upstream openai --rpm {} --tpm {}\n    \
         OPENAI_BASE_URL=http://127.0.0.1:8080/v1 python your_app.py\n",
        settings.rpm, settings.tpm
    )
}

/// Plays with a progress bar for each run, where there is a terminal.
async fn watched(stage: Stage) -> Result<Comparison, DemoError> {
    let bars = MultiProgress::new();
    let total = stage.summary().requests;
    let shown: Vec<(ProgressBar, Arc<Progress>)> = stage
        .progress()
        .map(|(name, progress)| {
            let bar = ProgressBar::new(total).with_style(bar_style()).with_prefix(name);
            (bars.add(bar), progress)
        })
        .collect();
    let play = stage.play();
    tokio::pin!(play);
    let mut redraw = tokio::time::interval(Duration::from_millis(100));
    let result = loop {
        tokio::select! {
            result = &mut play => break result,
            _ = redraw.tick() => shown.iter().for_each(|(bar, progress)| show(bar, progress)),
        }
    };
    shown.iter().for_each(|(bar, _)| bar.finish_and_clear());
    result
}
