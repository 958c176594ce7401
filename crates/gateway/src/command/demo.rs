//! `tidegate demo`.

use std::process::ExitCode;

use super::CommandError;

/// Arguments of `tidegate demo`.
#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {}

pub(super) fn run(_args: DemoArgs) -> Result<ExitCode, CommandError> {
    Err("not built yet".into())
}
