//! `tidegate mock`.

use std::process::ExitCode;

use super::CommandError;

/// Arguments of `tidegate mock`.
#[derive(Debug, clap::Args)]
pub struct MockArgs {}

pub(super) fn run(_args: MockArgs) -> Result<ExitCode, CommandError> {
    Err("not built yet".into())
}
