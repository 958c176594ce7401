//! `tidegate replay`.

use std::process::ExitCode;

use super::CommandError;

/// Arguments of `tidegate replay`.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {}

pub(super) fn run(_args: ReplayArgs) -> Result<ExitCode, CommandError> {
    Err("not built yet".into())
}
