//! `tidegate schema`.

use std::process::ExitCode;

use super::CommandError;
use crate::config;

/// Arguments of `tidegate schema`.
#[derive(Debug, clap::Args)]
pub(super) struct SchemaArgs {}

pub(super) fn run() -> Result<ExitCode, CommandError> {
    println!("{}", serde_json::to_string_pretty(&config::schema())?);
    Ok(ExitCode::SUCCESS)
}
