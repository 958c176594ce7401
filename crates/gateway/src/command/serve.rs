//! `tidegate serve`.

use std::process::ExitCode;

use super::CommandError;

/// Arguments of `tidegate serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {}

pub(super) fn run(_args: ServeArgs) -> Result<ExitCode, CommandError> {
    Err("not built yet".into())
}
