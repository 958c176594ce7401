//! `make bench`: one table of what Tidegate costs, each line against its budget, with nginx beside it in the same run.
//!
//! Load generator, gateway, nginx and upstream share the machine, so only ratios and differences within one run mean
//! anything.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures real time and paces its load by it"
)]

mod engine;
mod estimate;
mod gateway;
mod http;
mod load;
mod memory;
mod process;
mod streams;
mod table;
mod upstream;

use std::process::ExitCode;
use std::time::Instant;

use crate::gateway::Sides;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the benchmark failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The parts of the table. Their names, given as arguments, choose some of them.
const PARTS: [&str; 6] = [
    "engine",
    "throughput",
    "latency",
    "streams",
    "connections",
    "memory",
];

fn run() -> Result<(), String> {
    // Cargo itself passes `--bench`.
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    if let Some(unknown) = chosen.iter().find(|name| !PARTS.contains(&name.as_str())) {
        return Err(format!(
            "there is no part `{unknown}`; the parts are {}",
            PARTS.join(", ")
        ));
    }
    let origin = Instant::now();
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let sides = Sides::start(folder.path(), upstream::start(origin))?;
    let mut rows = vec![gateway::idle_memory(&sides)];
    for part in PARTS {
        if !chosen.is_empty() && !chosen.iter().any(|name| name == part) {
            continue;
        }
        eprintln!("{part} …");
        match part {
            "engine" => {
                rows.extend([
                    engine::waiting_memory(),
                    engine::uncontended(),
                    engine::crowded("engine: submit + settle, 10,000 waiting", 1),
                    engine::crowded("engine: the same, of 1,000 tenants", 1_000),
                    engine::dispatch()?,
                    estimate::row(),
                    estimate::tokens_row(),
                ]);
            }
            "throughput" => rows.push(gateway::throughput(&sides)?),
            "latency" => rows.extend(gateway::added_latency(&sides)?),
            "streams" => rows.extend(gateway::streams(&sides, origin)?),
            "connections" => rows.push(gateway::idle_connections(&sides)?),
            _ => rows.push(memory::growth(folder.path(), sides.direct)?),
        }
    }
    table::print(&rows);
    Ok(())
}
