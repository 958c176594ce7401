//! `tidegate schema`.

use std::process::ExitCode;

use super::CommandError;

/// Arguments of `tidegate schema`.
#[derive(Debug, clap::Args)]
pub struct SchemaArgs {}

pub(super) fn run(_args: SchemaArgs) -> Result<ExitCode, CommandError> {
    Err("not built yet".into())
}
