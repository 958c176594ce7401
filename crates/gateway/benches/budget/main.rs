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

fn run() -> Result<(), String> {
    let origin = Instant::now();
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let sides = Sides::start(folder.path(), upstream::start(origin))?;
    let mut rows = Vec::new();
    rows.push(gateway::idle_memory(&sides));
    eprintln!("engine …");
    rows.push(engine::uncontended());
    rows.push(engine::crowded());
    rows.push(engine::dispatch()?);
    rows.push(estimate::row());
    eprintln!("throughput …");
    rows.push(gateway::throughput(&sides)?);
    eprintln!("added latency …");
    rows.extend(gateway::added_latency(&sides)?);
    eprintln!("streams …");
    rows.extend(gateway::streams(&sides, origin)?);
    eprintln!("idle connections …");
    rows.push(gateway::idle_connections(&sides)?);
    table::print(&rows);
    Ok(())
}
