//! A store, providers, and gateways in front of them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::load::{End, Planned, TENANTS, Targets, send};
use crate::process::{Redis, Tidegate};
use crate::proxy::Proxy;

/// A provider, by how it enforces its limits.
#[derive(Debug, Clone)]
pub(crate) struct Provider {
    pub(crate) name: &'static str,
    /// How `tidegate mock` is told so.
    pub(crate) enforcement: Vec<String>,
    /// What a gateway has to know of it besides.
    pub(crate) setting: String,
    pub(crate) requests: u64,
    pub(crate) tokens: u64,
    /// Whether the limit that is reached counts requests.
    pub(crate) counts_requests: bool,
}

impl Provider {
    /// Returns the limit that is reached.
    pub(crate) fn limit(&self) -> u64 {
        if self.counts_requests {
            self.requests
        } else {
            self.tokens
        }
    }
}

/// What a world is made of.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) providers: Vec<Provider>,
    pub(crate) gateways: usize,
    pub(crate) window: Duration,
    /// The longest that a request waits.
    pub(crate) max_wait: Duration,
    /// How long a provider takes to answer.
    pub(crate) answer_time: Duration,
    pub(crate) has_movable_clock: bool,
}

/// Everything that runs.
pub(crate) struct World {
    pub(crate) redis: Redis,
    pub(crate) mocks: Vec<Tidegate>,
    pub(crate) gateways: Vec<Tidegate>,
    /// What stands between the last gateway and the store.
    pub(crate) proxy: Proxy,
    setup: Setup,
}

impl World {
    /// Starts everything; what the programs say goes to the folder.
    pub(crate) async fn start(folder: &Path, setup: Setup) -> Result<Self, String> {
        fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let redis = Redis::start(folder, setup.has_movable_clock).await?;
        let proxy = Proxy::start(redis.address()).await?;
        let mut mocks = Vec::new();
        for provider in &setup.providers {
            let arguments = mock_arguments(&setup, provider);
            mocks.push(Tidegate::start(folder, provider.name, &arguments).await?);
        }
        let mut gateways = Vec::new();
        for number in 0..setup.gateways {
            let store = if number + 1 == setup.gateways {
                proxy.address
            } else {
                redis.address()
            };
            let config = folder.join(format!("gateway-{number}.toml"));
            fs::write(&config, gateway_config(&setup, store, &mocks)).map_err(|error| error.to_string())?;
            let arguments = [
                "serve".to_owned(),
                "--config".to_owned(),
                config.display().to_string(),
            ];
            gateways.push(Tidegate::start(folder, &format!("gateway-{number}"), &arguments).await?);
        }
        Ok(Self {
            redis,
            mocks,
            gateways,
            proxy,
            setup,
        })
    }

    /// Returns where requests go.
    pub(crate) fn targets(&self) -> Targets {
        Targets {
            gateways: self.gateways.iter().map(|gateway| gateway.address).collect(),
            upstreams: self
                .setup
                .providers
                .iter()
                .map(|provider| provider.name)
                .collect(),
            patience: self.setup.max_wait + self.setup.window + Duration::from_secs(30),
        }
    }

    /// Waits until every gateway has been let in to every provider: a store that is new is learned about for a window.
    pub(crate) async fn open(&self) -> Result<(), String> {
        let targets = self.targets();
        let mut firsts = tokio::task::JoinSet::new();
        for gateway in 0..self.setup.gateways {
            for upstream in 0..self.setup.providers.len() {
                let targets = targets.clone();
                let first = Planned {
                    at: Duration::ZERO,
                    upstream,
                    tenant: 0,
                    gateway,
                    input: 16,
                    output: 1,
                };
                firsts.spawn(async move { send(&targets, first, 0).await.0 });
            }
        }
        while let Some(end) = firsts.join_next().await {
            match end {
                Ok(End::Answered) => {}
                other => return Err(format!("a first request was not answered: {other:?}")),
            }
        }
        Ok(())
    }
}

fn seconds(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

fn mock_arguments(setup: &Setup, provider: &Provider) -> Vec<String> {
    let arguments = [
        "mock",
        "--listen",
        "127.0.0.1:0",
        "--ttft-spread",
        "0.4",
        "--tokens-per-second",
        "200",
        "--window",
        &seconds(setup.window),
        "--ttft",
        &seconds(setup.answer_time),
        "--rpm",
        &provider.requests.to_string(),
        "--tpm",
        &provider.tokens.to_string(),
    ]
    .map(str::to_owned);
    arguments
        .into_iter()
        .chain(provider.enforcement.iter().cloned())
        .collect()
}

fn gateway_config(setup: &Setup, store: SocketAddr, mocks: &[Tidegate]) -> String {
    let mut text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"off\"\ntenant_header = \"x-tidegate-tenant\"\nmax_wait = \"{}\"\n\
         workers = 1\n\n[store]\nredis = \"redis://{store}\"\n",
        seconds(setup.max_wait)
    );
    for (provider, mock) in setup.providers.iter().zip(mocks) {
        text += &format!(
            "\n[[upstreams]]\nname = \"{}\"\nprovider = \"openai\"\nbase_url = \"http://{}\"\napi_key = \"env:REPLICAS_KEY\"\n\
             window = \"{}\"\n{}\n\n[[upstreams.limits]]\nmodels = [\"gpt-4o\"]\nrpm = {}\ntpm = {}\n",
            provider.name,
            mock.address,
            seconds(setup.window),
            provider.setting,
            provider.requests,
            provider.tokens
        );
    }
    for tenant in TENANTS {
        text += &format!(
            "\n[[tenants]]\nname = \"{}\"\nweight = {}\n",
            tenant.name, tenant.weight
        );
    }
    text
}
