//! Configuration on the command line: a file, or one upstream in flags. Both take the same path from there.

use std::path::PathBuf;

use super::field::{DurationText, Field, Origin, Table};
use super::raw::{RawConfig, RawLimits, RawUpstream};
use super::{Config, ConfigError, Secret};

/// Where the configuration comes from: a file, flags, or nothing at all.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// Read the configuration from this file.
    #[arg(long, short, value_name = "FILE", env = "TIDEGATE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where clients connect, such as 127.0.0.1:8080; goes before what the file says.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Where the admin listener is, or `off`; goes before what the file says.
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<String>,
    /// Serve this provider alone: openai, anthropic, gemini, groq, mistral, compatible …
    #[arg(long, value_name = "PROVIDER", conflicts_with = "config")]
    pub upstream: Option<String>,
    /// Where the upstream is, if not at the provider's own address.
    #[arg(long, value_name = "URL", requires = "upstream")]
    pub base_url: Option<String>,
    /// The environment variable with the key to send, as env:NAME; without it clients' keys are passed through.
    #[arg(long, value_name = "env:NAME", requires = "upstream")]
    pub api_key: Option<String>,
    /// Requests in a minute, over all models together.
    #[arg(
        long,
        value_name = "NUMBER",
        requires = "upstream",
        allow_negative_numbers = true
    )]
    pub rpm: Option<i64>,
    /// Tokens in a minute, over all models together.
    #[arg(
        long,
        value_name = "NUMBER",
        requires = "upstream",
        allow_negative_numbers = true
    )]
    pub tpm: Option<i64>,
    /// Input tokens in a minute, over all models together.
    #[arg(
        long,
        value_name = "NUMBER",
        requires = "upstream",
        allow_negative_numbers = true
    )]
    pub itpm: Option<i64>,
    /// Output tokens in a minute, over all models together.
    #[arg(
        long,
        value_name = "NUMBER",
        requires = "upstream",
        allow_negative_numbers = true
    )]
    pub otpm: Option<i64>,
    /// Requests in flight at one time.
    #[arg(
        long,
        value_name = "NUMBER",
        requires = "upstream",
        allow_negative_numbers = true
    )]
    pub concurrent: Option<i64>,
    /// The length of the provider's "minute".
    #[arg(long, value_name = "TIME", requires = "upstream")]
    pub window: Option<String>,
    /// For providers that also enforce rpm over a shorter time, such as 10s.
    #[arg(long, value_name = "TIME", requires = "upstream")]
    pub slice: Option<String>,
    /// How limits are kept: rolling or token-bucket.
    #[arg(long, value_name = "WORD", requires = "upstream")]
    pub algorithm: Option<String>,
}

impl ConfigArgs {
    /// Reads and checks what the arguments name. A reload calls it again.
    ///
    /// # Errors
    ///
    /// Returns everything that is wrong, worded for the person who wrote it.
    pub fn load(&self) -> Result<Config, ConfigError> {
        match &self.config {
            Some(path) => Config::load_with(path, |raw| self.apply_server(raw)),
            None => {
                let source = if self.upstream.is_some() {
                    "flags"
                } else {
                    "defaults"
                };
                Config::from_raw(&self.raw(), source)
            }
        }
    }

    fn raw(&self) -> RawConfig {
        let mut raw = RawConfig::default();
        self.apply_server(&mut raw);
        if self.upstream.is_some() {
            raw.upstreams.push(Table {
                value: self.raw_upstream(),
                origin: Origin::Flag("--upstream"),
            });
        }
        raw
    }

    fn apply_server(&self, raw: &mut RawConfig) {
        if self.listen.is_some() {
            raw.server.listen = Field::flag("--listen", self.listen.clone());
        }
        if self.admin.is_some() {
            raw.server.admin = Field::flag("--admin", self.admin.clone());
        }
    }

    fn raw_upstream(&self) -> RawUpstream {
        let time = |text: &Option<String>| text.clone().map(DurationText);
        let limits = RawLimits {
            models: Field::flag("--upstream", Some(vec!["*".to_owned()])),
            rpm: Field::flag("--rpm", self.rpm),
            tpm: Field::flag("--tpm", self.tpm),
            itpm: Field::flag("--itpm", self.itpm),
            otpm: Field::flag("--otpm", self.otpm),
            concurrent: Field::flag("--concurrent", self.concurrent),
            ..RawLimits::default()
        };
        let limited = [self.rpm, self.tpm, self.itpm, self.otpm, self.concurrent]
            .iter()
            .any(Option::is_some);
        let limits = Table {
            value: limits,
            origin: Origin::Flag("--upstream"),
        };
        RawUpstream {
            provider: Field::flag("--upstream", self.upstream.clone()),
            base_url: Field::flag("--base-url", self.base_url.clone()),
            api_key: Field::flag("--api-key", self.api_key.clone().map(Secret::new)),
            window: Field::flag("--window", time(&self.window)),
            slice: Field::flag("--slice", time(&self.slice)),
            algorithm: Field::flag("--algorithm", self.algorithm.clone()),
            limits: if limited { vec![limits] } else { Vec::new() },
            ..RawUpstream::default()
        }
    }
}
