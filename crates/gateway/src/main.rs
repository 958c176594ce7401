//! The `tidegate` program: reads arguments and runs one command.

use std::process::ExitCode;

use clap::Parser;
use tidegate_gateway::command::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tidegate: {error}");
            ExitCode::FAILURE
        }
    }
}
