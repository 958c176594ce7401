//! The commands of the program, one module each.

mod check;
mod demo;
mod keys;
mod limits;
mod mock;
mod replay;
mod schema;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The limiter and gateway that ends "rate limit exceeded in production" for calls to language models.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Serve(serve::ServeArgs),
    /// Run a provider that charges, limits and refuses as the real ones do.
    Mock(Box<mock::MockArgs>),
    /// Play a trace of requests against a base URL and print what happened.
    Replay(Box<replay::ReplayArgs>),
    /// Show what Tidegate does: a real trace against a limited provider, without and with it.
    Demo(demo::DemoArgs),
    /// Say what is wrong with a configuration file, and how to mend it.
    Check(check::CheckArgs),
    /// Print every limit that is known, where it comes from, and how old that is.
    Limits(limits::LimitsArgs),
    /// Make, list and revoke the keys by which tenants are known.
    Keys(keys::KeysArgs),
    /// Print the JSON schema of the configuration file.
    Schema(schema::SchemaArgs),
}

/// Any failure of a command, in words for the person who ran it.
pub type CommandError = Box<dyn std::error::Error>;

impl Cli {
    /// Runs the command that the arguments name.
    ///
    /// # Errors
    ///
    /// Returns the command's own error, worded for the person who ran it.
    pub fn run(self) -> Result<ExitCode, CommandError> {
        match self.command {
            Command::Serve(args) => serve::run(&args),
            Command::Mock(args) => mock::run(*args),
            Command::Replay(args) => replay::run(args),
            Command::Demo(args) => demo::run(args),
            Command::Check(args) => check::run(&args),
            Command::Limits(args) => limits::run(&args),
            Command::Keys(args) => keys::run(&args),
            Command::Schema(schema::SchemaArgs {}) => schema::run(),
        }
    }
}
