//! `tidegate check`.

use std::process::ExitCode;

use super::CommandError;

/// Arguments of `tidegate check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {}

pub(super) fn run(_args: CheckArgs) -> Result<ExitCode, CommandError> {
    Err("not built yet".into())
}
