//! `make replicas`: gateways that share limits through one Redis, as processes, under a real trace, while things go wrong.
//! One table of what the providers and the clients saw.
//!
//! Arguments choose scenarios by a part of their names; `--window SECONDS`, `--speed FACTOR`, `--parallel COUNT` and
//! `--keep FOLDER` (for what the programs say) come before them.

mod load;
mod oracle;
mod process;
mod proxy;
mod scenario;
mod table;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tidegate_gateway::replay::{Span, Trace};
use tokio::sync::Semaphore;

use crate::scenario::{Course, SCENARIOS};

/// What the arguments say.
struct Arguments {
    window: Duration,
    speed: Option<f64>,
    parallel: usize,
    keep: Option<PathBuf>,
    names: Vec<String>,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string());
    match runtime.and_then(|runtime| runtime.block_on(run(arguments()?))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let temporary = tempfile::tempdir().map_err(|error| error.to_string())?;
    let folder = arguments.keep.unwrap_or_else(|| temporary.path().to_owned());
    let course = Arc::new(Course {
        trace: trace()?,
        window: arguments.window,
        // As much in a shorter window.
        speed: arguments
            .speed
            .unwrap_or(6.0 * 60.0 / arguments.window.as_secs_f64()),
    });
    let places = Arc::new(Semaphore::new(arguments.parallel));
    let mut runs = Vec::new();
    for (number, scenario) in SCENARIOS.into_iter().enumerate() {
        let is_chosen = |name: &String| scenario.0.contains(name.as_str());
        if !arguments.names.is_empty() && !arguments.names.iter().any(is_chosen) {
            continue;
        }
        let (course, places) = (Arc::clone(&course), Arc::clone(&places));
        let folder = folder.join(number.to_string());
        runs.push(tokio::spawn(async move {
            let _place = places.acquire().await;
            let result = scenario::run(&folder, &course, scenario).await;
            result.map_err(|error| format!("{}: {error}", scenario.0))
        }));
    }
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    for run in runs {
        match run.await.map_err(|error| error.to_string()).flatten() {
            Ok(more) => {
                table::print(&more);
                rows.extend(more);
            }
            Err(problem) => problems.push(problem),
        }
    }
    println!();
    table::print(&rows);
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems.join("\n"))
    }
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        window: Duration::from_secs(60),
        speed: None,
        parallel: 2,
        keep: None,
        names: Vec::new(),
    };
    // Cargo itself passes `--bench`.
    let mut given = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = given.next() {
        if !argument.starts_with("--") {
            arguments.names.push(argument);
            continue;
        }
        let value = given.next().ok_or(format!("{argument} needs a value"))?;
        let wrong = |_| format!("{argument} {value}: expected a number");
        match argument.as_str() {
            "--window" => arguments.window = Duration::from_secs(value.parse().map_err(wrong)?),
            "--parallel" => arguments.parallel = value.parse().map_err(wrong)?,
            "--speed" => arguments.speed = Some(value.parse().map_err(|_| format!("{argument} {value}"))?),
            "--keep" => arguments.keep = Some(PathBuf::from(value)),
            _ => return Err(format!("{argument} is not known")),
        }
    }
    Ok(arguments)
}

/// Reads the whole trace: when each request comes, its input and its output tokens.
fn trace() -> Result<Vec<(Duration, u64, u64)>, String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/azure_code.csv");
    let requests = Trace::file(path)
        .requests(Span::ALL)
        .map_err(|error| error.to_string())?;
    requests
        .map(|request| {
            let request = request.map_err(|error| error.to_string())?;
            Ok((request.at, request.input_tokens, request.output_tokens))
        })
        .collect()
}
