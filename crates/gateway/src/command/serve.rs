//! `tidegate serve`.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::CommandError;
use crate::config::{Auth, Config, ConfigArgs};
use crate::log::{self, LogArgs};
use crate::phase::Phase;
use crate::provider::Api;
use crate::serve::Gateway;

/// Arguments of `tidegate serve`.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// How often the configuration file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn run(args: &ServeArgs) -> Result<ExitCode, CommandError> {
    let mut config = args.config.load()?;
    if config.server.state_file.is_none() {
        config.server.state_file = state_file(std::env::var_os("STATE_DIRECTORY"));
    }
    let log = log::start(&args.log)?;
    for warning in &config.warnings {
        tracing::warn!(%warning, "configuration");
    }
    let greeting = config.clone();
    let gateway = Gateway::start(config)?;
    log.count_dropped(gateway.metrics().log_lines_dropped());
    print!("{}", greet(&gateway, &greeting));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(attend(&gateway, &args.config))?;
    gateway.stop();
    Ok(ExitCode::SUCCESS)
}

/// Returns the file for the state in the folder that systemd made for it; where it made several, in the first.
fn state_file(folders: Option<OsString>) -> Option<PathBuf> {
    let folders = folders?;
    let first = folders.as_bytes().split(|byte| *byte == b':').next()?;
    (!first.is_empty()).then(|| Path::new(OsStr::from_bytes(first)).join("tidegate.state"))
}

/// Returns what a person wants to know at the start: where to connect, and what happens there.
fn greet(gateway: &Gateway, config: &Config) -> String {
    let mut text = String::new();
    let address = gateway.address();
    let _ = writeln!(text, "listening on http://{address}");
    if let Some(admin) = gateway.admin_address() {
        let _ = writeln!(text, "admin on http://{admin}");
    }
    for upstream in &config.upstreams {
        let key = match upstream.api_key {
            Some(_) => "its own key",
            None => "clients' keys passed through",
        };
        let _ = writeln!(
            text,
            "upstream {}: {} at {}, {key}",
            upstream.name,
            upstream.provider.name(),
            upstream.base_url
        );
    }
    let speaks = |api| {
        let mut upstreams = config.upstreams.iter();
        upstreams.any(|upstream| upstream.provider.profile().speaks(api))
    };
    if config.server.auth == Auth::Keys {
        let _ = writeln!(text, "clients need the key of a tenant");
    }
    let _ = writeln!(text, "point clients here:");
    if speaks(Api::OpenAi) {
        let _ = writeln!(text, "  export OPENAI_BASE_URL=http://{address}/v1");
        let _ = writeln!(text, "  export OPENAI_API_BASE=http://{address}/v1");
    }
    if speaks(Api::Anthropic) {
        let _ = writeln!(text, "  export ANTHROPIC_BASE_URL=http://{address}");
    }
    for upstream in &config.upstreams {
        let _ = writeln!(
            text,
            "  the paths of {0} alone: http://{address}/{0}/…",
            upstream.name
        );
    }
    text
}

/// Attends to signals and to the configuration file until the gateway has ended.
async fn attend(gateway: &Gateway, args: &ConfigArgs) -> Result<(), CommandError> {
    let mut calls = Calls::new()?;
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = args.config.as_deref().and_then(modified);
    let keys_modified = || gateway.keys_file().as_deref().and_then(modified);
    let mut keys_seen = keys_modified();
    loop {
        tokio::select! {
            () = gateway.drained() => return Ok(()),
            call = calls.next() => match call {
                Call::End if gateway.phase() == Phase::Serving => {
                    tracing::info!("draining: no new connections; a second signal ends at once");
                    gateway.drain();
                }
                Call::End => {
                    tracing::warn!("second signal: ending at once");
                    return Ok(());
                }
                Call::Reload => reload(gateway, args),
            },
            _ = look.tick() => {
                let now = args.config.as_deref().and_then(modified);
                if now.is_some() && now != seen {
                    seen = now;
                    reload(gateway, args);
                }
                let now = keys_modified();
                if now.is_some() && now != keys_seen {
                    keys_seen = now;
                    reload_keys(gateway);
                }
            }
        }
    }
}

/// Puts the configuration in force as it is now; a bad one leaves the old one running and says so.
fn reload(gateway: &Gateway, args: &ConfigArgs) {
    let loaded = args.load().map_err(|error| error.to_string());
    match loaded.and_then(|config| gateway.reload(config).map_err(|error| error.to_string())) {
        Ok(()) => tracing::info!("configuration reloaded"),
        Err(error) => {
            gateway.reload_failed(&error);
            tracing::error!(%error, "configuration not reloaded: the old one stays in force");
        }
    }
}

/// Puts the keys in force as their file has them now; a bad one leaves the old ones in force and says so.
fn reload_keys(gateway: &Gateway) {
    match gateway.reload_keys() {
        Ok(keys) => tracing::info!(keys, "keys reloaded"),
        Err(error) => tracing::error!(%error, "keys not reloaded: the old ones stay in force"),
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}

/// The signals that the program listens to.
struct Calls {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Calls {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Call {
        tokio::select! {
            _ = self.terminate.recv() => Call::End,
            _ = self.interrupt.recv() => Call::End,
            _ = self.reload.recv() => Call::Reload,
        }
    }
}

/// What a signal asks for.
enum Call {
    End,
    Reload,
}
