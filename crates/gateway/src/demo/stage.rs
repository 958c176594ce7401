//! The stage of the demo: three mock providers, one gateway, three players.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tidegate_mock as mock;
use tidegate_mock::limits::Dimension;

use super::{Algorithm, Comparison, DemoSettings};
use crate::config::{Config, ConfigError, duration};
use crate::replay::{
    PlayError, Player, Progress, Report, SdkRetries, Settings, Span, TraceSummary, mock_answer,
};
use crate::serve::{Gateway, StartError};

/// The retries that the official SDKs make unless told otherwise.
const SDK_RETRIES: u32 = 2;
/// A coding assistant's model: time to the first token, and tokens a second after it.
const FIRST_TOKEN: Duration = Duration::from_millis(400);
const TOKENS_PER_SECOND: f64 = 80.0;
/// Tokens in one event of a stream: fewer events leave the machine to what is measured.
const TOKENS_PER_EVENT: u64 = 8;

/// Why the demo cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The trace, or how it is played, is wrong.
    #[error(transparent)]
    Play(#[from] PlayError),
    /// A mock provider cannot start.
    #[error("cannot start the mock provider: {0}")]
    Mock(io::Error),
    /// The limits cannot be configured.
    #[error("the gateway cannot be configured: {0}")]
    Config(#[from] ConfigError),
    /// The gateway cannot start.
    #[error("cannot start the gateway: {0}")]
    Gateway(#[from] StartError),
}

/// Everything started, nothing played yet.
pub struct Stage {
    settings: DemoSettings,
    acts: Vec<Act>,
    summary: TraceSummary,
    _gateway: Gateway,
}

struct Act {
    name: &'static str,
    provider: mock::Handle,
    player: Player,
    progress: Arc<Progress>,
}

impl Stage {
    /// Starts the three providers and the gateway, on free ports of the loopback address.
    ///
    /// # Errors
    ///
    /// Returns what stands in the way; nothing is left running then.
    pub fn set(settings: DemoSettings) -> Result<Self, DemoError> {
        let provider = || {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            mock::Server::spawn(provider(&settings), listener)
        };
        let provider = || provider().map_err(DemoError::Mock);
        let (direct, retried, guarded) = (provider()?, provider()?, provider()?);
        let gateway = Gateway::start(gateway(&settings, &guarded.base_url())?)?;
        let act = |name, base_url: String, provider: mock::Handle, retries| {
            let play = Settings {
                time_scale: settings.time_scale,
                retries: SdkRetries { max: retries },
                expect: Some(mock_answer),
                seed: settings.seed,
                limits: settings.limits(),
                ..Settings::new(base_url)
            };
            Ok::<_, DemoError>(Act {
                name,
                provider,
                player: Player::new(settings.trace.clone(), Span::ALL, play)?,
                progress: Arc::default(),
            })
        };
        let acts = vec![
            act("direct", direct.base_url(), direct, 0)?,
            act("direct, SDK retries", retried.base_url(), retried, SDK_RETRIES)?,
            act(
                "through Tidegate",
                format!("http://{}", gateway.address()),
                guarded,
                0,
            )?,
        ];
        let summary = acts.first().map(|act| act.player.summary()).unwrap_or_default();
        Ok(Self {
            settings,
            acts,
            summary,
            _gateway: gateway,
        })
    }

    /// What each of the three plays.
    pub fn summary(&self) -> TraceSummary {
        self.summary
    }

    /// The runs' names, and how far they are.
    pub fn progress(&self) -> impl Iterator<Item = (&'static str, Arc<Progress>)> {
        self.acts.iter().map(|act| (act.name, Arc::clone(&act.progress)))
    }

    /// Plays all three at once and compares them.
    ///
    /// # Errors
    ///
    /// Returns [`DemoError`] if the trace can no longer be read.
    pub async fn play(self) -> Result<Comparison, DemoError> {
        let mut running = Vec::new();
        for act in self.acts {
            let play = act.player.play(act.progress);
            running.push((act.name, act.provider, play));
        }
        let played = running.into_iter().map(|(name, provider, play)| async move {
            let report: Report = play.await?;
            let refused = provider.stats().rate_limited + provider.stats().too_large;
            Ok::<_, DemoError>((name, report, refused))
        });
        let played = futures_util::future::try_join_all(played).await?;
        Ok(Comparison::new(&self.settings, played))
    }
}

/// A provider with the demo's limits, all of whose times are shortened alike.
fn provider(settings: &DemoSettings) -> mock::Settings {
    use mock::limits::Algorithm as Enforced;
    let window = settings.window();
    let algorithm = match settings.algorithm {
        Algorithm::Rolling => Enforced::Rolling,
        Algorithm::TokenBucket => Enforced::TokenBucket,
        Algorithm::Fixed => {
            let micros = u64::try_from(window.as_micros()).unwrap_or(u64::MAX).max(1);
            let phase = settings.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % micros;
            Enforced::Fixed {
                phase: Duration::from_micros(phase),
            }
        }
    };
    mock::Settings {
        limits: vec![
            mock::limits::Limit::new(Dimension::Requests, window, settings.rpm, algorithm),
            mock::limits::Limit::new(Dimension::Tokens, window, settings.tpm, algorithm),
        ],
        latency: mock::Latency::LogNormal {
            median: FIRST_TOKEN.div_f64(settings.time_scale),
            sigma: 0.5,
        },
        tokens_per_second: Some(TOKENS_PER_SECOND * settings.time_scale),
        tokens_per_event: TOKENS_PER_EVENT,
        seed: settings.seed,
        ..mock::Settings::default()
    }
}

/// The gateway as anybody would configure it, but for the length of the minute.
fn gateway(settings: &DemoSettings, base_url: &str) -> Result<Config, ConfigError> {
    let window = duration::display(settings.window());
    let (rpm, tpm) = (settings.rpm, settings.tpm);
    let text = format!(
        "[server]\n\
         listen = \"127.0.0.1:0\"\n\
         admin = \"off\"\n\
         workers = 1\n\
         [[upstreams]]\n\
         provider = \"openai\"\n\
         base_url = \"{base_url}\"\n\
         window = \"{window}\"\n\
         [[upstreams.limits]]\n\
         models = [\"*\"]\n\
         rpm = {rpm}\n\
         tpm = {tpm}\n"
    );
    Config::from_toml(&text, "demo")
}
