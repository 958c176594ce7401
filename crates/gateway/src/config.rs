//! Configuration, read in two steps: what the file or the flags say ([`RawConfig`]), then what it means ([`Config`]).
//!
//! Everything that asks "what is configured?" asks a [`Config`]: every default is filled in, every value is checked,
//! and nothing in it is an `Option` that means "default". The first start, a reload and `tidegate check` take one path.

mod allowance;
mod args;
mod authorities;
mod base_url;
mod check;
pub mod defaults;
pub mod duration;
mod field;
mod groups;
mod limits;
mod model;
mod preset;
mod problem;
mod raw;
mod read;
mod routes;
mod schema;
mod secret;
mod store;
mod tenants;
mod upstream;

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use sha2::{Digest, Sha256};
use tidegate_core::{
    ChargeModel, Discipline, Guarantee, Learning, Limit, MarginPolicy, Plan, Price, QueueBounds, QuotaId,
    QuotaPlan, RetryPolicy, RunId, RunPlan, TenantId, TenantPlan, TierPlan, Tokens,
};

use crate::keys::Key;
use crate::prices::{self, PriceTable};

use crate::provider::{Provider, Scope, Slice};
pub use args::ConfigArgs;
pub use authorities::Authorities;
pub use base_url::{BaseUrl, BaseUrlError, Scheme};
use check::{Checker, Environment, Findings};
use groups::GroupTable;
pub use model::ModelPattern;
pub(crate) use model::ModelTable;
pub use preset::{PresetInfo, presets, presets_page};
pub use problem::{ConfigError, Problem};
pub use raw::{
    RawConfig, RawLimits, RawPrice, RawPriorities, RawRetry, RawRoute, RawRuns, RawServer, RawStore,
    RawTenant, RawUpstream,
};
pub use routes::{Route, RouteClues};
pub use schema::{reference, schema};
pub use secret::Secret;
pub use store::Store;
pub use tenants::{Tenant, TenantKey};
pub(crate) use upstream::is_name;

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// What concerns the listeners and the clients' side.
    pub server: Server,
    /// The upstreams in the order of the file; never empty, each with a name of its own.
    pub upstreams: Vec<Upstream>,
    /// How much may wait.
    pub queue: QueueBounds,
    /// When failed attempts are tried again.
    pub retry: RetryPolicy,
    /// The tenants that are listed, each with a name of its own; the template for others may be among them.
    pub tenants: Vec<Tenant>,
    /// The keys of [`Server::keys_file`], as it was last read.
    pub keys: Arc<[Key]>,
    /// Kinds of requests, in the order in which they are tried.
    pub routes: Vec<Route>,
    /// What each priority is guaranteed.
    pub tiers: [TierPlan; 4],
    /// What a run of an agent may use.
    pub runs: RunPlan,
    /// Where limits are shared with other gateways; `None`: nowhere.
    pub store: Option<Store>,
    /// The prices that go before the program's own.
    prices: PriceTable,
    /// Where the configuration came from, in words: a file's name, `flags` or `defaults`.
    pub source: String,
    /// What is allowed but doubtful: for `tidegate check` and the log at start.
    pub warnings: Vec<Problem>,
}

/// What concerns the listeners and the clients' side.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The admin listener; `None` when it is switched off.
    pub admin: Option<Admin>,
    /// Worker threads, each with a runtime of its own.
    pub workers: NonZeroUsize,
    /// The largest request head, in bytes.
    pub head_bytes_max: usize,
    /// The most headers in one request.
    pub headers_max: usize,
    /// The largest request body, in bytes.
    pub body_bytes_max: usize,
    /// The most client connections at one time, over all workers.
    pub connections_max: usize,
    /// How long a client may take to send a request's head.
    pub head_timeout: Duration,
    /// How long a request's body may stand still while it is being read.
    pub body_timeout: Duration,
    /// How long a client's connection may stay idle between requests.
    pub idle_timeout: Duration,
    /// How long a drain waits for answers that are not streams.
    pub drain_timeout: Duration,
    /// How long a drain waits for streams.
    pub stream_drain_timeout: Duration,
    /// How long a request for a stream waits in line before its answer is begun with a comment, and how often another
    /// follows; `None` where answers begin when the provider's do.
    pub queue_keepalive: Option<Duration>,
    /// Who may ask.
    pub auth: Auth,
    /// The header in which a trusted proxy names the tenant.
    pub tenant_header: Option<HeaderName>,
    /// The file with the hashes of Tidegate's own keys.
    pub keys_file: Option<PathBuf>,
    /// The file in which charges outlive a restart.
    pub state_file: Option<PathBuf>,
}

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Whoever has a tenant's key, or is named by a trusted proxy.
    Keys,
    /// Everybody.
    Open,
}

/// The admin listener.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What callers must send as `Authorization: Bearer …`; always there when the address is not loopback.
    pub token: Option<Secret>,
}

/// Which version of HTTP an upstream is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Http2 {
    /// What the server chooses in the TLS handshake; HTTP/1.1 without TLS.
    #[default]
    Auto,
    /// HTTP/1.1 always.
    Never,
    /// HTTP/2 always, also without TLS (prior knowledge).
    Always,
}

/// One account or deployment of a provider.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name, unique: the first segment of `/{name}/…` and the label in metrics.
    pub name: String,
    /// The provider behind it.
    pub provider: Provider,
    /// Where it is.
    pub base_url: BaseUrl,
    /// Whose certificates are trusted besides those of the system.
    pub authorities: Authorities,
    /// The key that replaces the client's; `None` passes the client's key through.
    pub api_key: Option<Secret>,
    /// The length of the provider's "minute".
    pub window: Duration,
    /// How limits are kept.
    pub discipline: Discipline,
    /// The shorter time over which the provider also enforces its limits on requests.
    pub slice: Option<Slice>,
    /// What a request takes, and when.
    pub charge: ChargeModel,
    /// How long a permit is valid.
    pub permit_ttl: Duration,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// How long the provider may take until the head of its answer.
    pub first_byte_timeout: Duration,
    /// How long an answer may stand still once it has begun.
    pub idle_timeout: Duration,
    /// How limits become known that are not configured.
    pub learning: Learning,
    /// How sure it must be that output which is charged as it is generated stays within its limit.
    pub guarantee: Guarantee,
    /// Whether usage is asked for in streams whose client did not ask.
    pub stream_usage: bool,
    /// The key with which the provider is asked for its limits; `None` where it is not asked.
    pub limits_key: Option<Secret>,
    /// The workspace whose limits hold, where they are lower (Anthropic).
    pub limits_workspace: Option<String>,
    /// How often the provider is asked for its limits.
    pub limits_refresh: Duration,
    /// Which version of HTTP is spoken.
    pub http2: Http2,
    /// The quota groups: those of the file in its order, then those of a preset.
    pub groups: Vec<Group>,
    /// The group of everything that no configured group names: without limits of its own, it learns them, for each
    /// model apart.
    pub unlisted: Group,
    table: GroupTable,
}

/// A quota group: models that share limits.
#[derive(Debug, Clone)]
pub struct Group {
    /// Its place among all groups of the configuration, which is also its place in [`Plan::quotas`]: for tables of
    /// pre-resolved things, such as metrics.
    pub index: usize,
    /// Its name, unique in the configuration: `upstream/label`, or the upstream's name for the unlisted group.
    pub name: String,
    /// What tells it apart in its upstream: its first model, `model>N` for inputs of more than N tokens, or its endpoint.
    pub label: String,
    /// The models in it; empty for the unlisted group and for endpoints.
    pub models: Vec<ModelPattern>,
    /// The operations with limits of their own that it is for, whatever their model ([`Scope::Own`]).
    pub endpoint: Option<&'static str>,
    /// The estimated input tokens above which a request belongs to it.
    pub context_over: Option<u64>,
    /// Its limits; for the unlisted group those of a preset that says so of every model.
    pub limits: Vec<Limit>,
    /// What a request takes, and when.
    pub charge: ChargeModel,
    /// The largest maximum output that a request may ask for; a larger or missing one is replaced by it.
    pub max_tokens_cap: Option<u64>,
}

impl Group {
    /// The label of what no group lists.
    pub const UNLISTED: &'static str = "other";

    fn unlisted(upstream: &str, limits: Vec<Limit>, charge: ChargeModel) -> Self {
        Self {
            index: 0,
            name: upstream.to_owned(),
            label: Self::UNLISTED.to_owned(),
            models: Vec::new(),
            endpoint: None,
            context_over: None,
            limits,
            charge,
            max_tokens_cap: None,
        }
    }
}

/// Where a request's quota is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaRoute {
    /// The group of the plan.
    pub id: QuotaId,
    /// The group's place in [`Plan::quotas`].
    pub index: usize,
    /// Whether each model has an account of its own in the group: then the model is part of the account.
    pub per_model: bool,
    /// What has an account of its own in the unlisted group instead of a model.
    pub own: Option<&'static str>,
    /// [`Group::max_tokens_cap`].
    pub max_tokens_cap: Option<u64>,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// Returns everything that is wrong with it, worded for the person who wrote it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with(path, |_| ())
    }

    /// Reads and checks the text of a file called `source`.
    ///
    /// # Errors
    ///
    /// Returns everything that is wrong with it.
    pub fn from_toml(text: &str, source: &str) -> Result<Self, ConfigError> {
        Self::read(text, source, &|name| std::env::var(name), |_| ())
    }

    /// Reads and checks the text of a file, with environment variables of the caller's.
    ///
    /// # Errors
    ///
    /// Returns everything that is wrong with it.
    pub fn from_toml_with(
        text: &str,
        source: &str,
        environment: impl Fn(&str) -> Result<String, std::env::VarError>,
    ) -> Result<Self, ConfigError> {
        Self::read(text, source, &environment, |_| ())
    }

    fn load_with(path: &Path, change: impl FnOnce(&mut RawConfig)) -> Result<Self, ConfigError> {
        let text = read::text(path)?;
        Self::read(
            &text,
            &path.display().to_string(),
            &|name| std::env::var(name),
            change,
        )
    }

    fn from_raw(raw: &RawConfig, source: &str) -> Result<Self, ConfigError> {
        Self::check(raw, source, "", &|name| std::env::var(name), Findings::default())
    }

    fn read(
        text: &str,
        source: &str,
        environment: Environment<'_>,
        change: impl FnOnce(&mut RawConfig),
    ) -> Result<Self, ConfigError> {
        let mut findings = Findings::default();
        let mut raw = read::raw(text, &mut findings);
        change(&mut raw);
        Self::check(&raw, source, text, environment, findings)
    }

    fn check(
        raw: &RawConfig,
        source: &str,
        text: &str,
        environment: Environment<'_>,
        errors: Findings,
    ) -> Result<Self, ConfigError> {
        let mut checker = Checker {
            environment,
            errors,
            warnings: Findings::default(),
        };
        let mut config = checker.config(raw, source);
        if !checker.errors.is_empty() {
            let problems = checker.errors.problems(source, text);
            return Err(ConfigError::Invalid { problems });
        }
        config.warnings = checker.warnings.problems(source, text);
        Ok(config)
    }

    /// Returns what the engine needs to know. Group `i` of the plan is the group whose [`Group::index`] is `i`.
    pub fn plan(&self) -> Plan {
        let quotas = self
            .upstreams
            .iter()
            .flat_map(|upstream| upstream.all_groups().map(|group| upstream.quota(group)))
            .collect();
        Plan {
            quotas,
            queue: self.queue,
            retry: self.retry,
            tenants: self.tenants.iter().map(Tenant::plan).collect(),
            routes: self.routes.iter().map(Route::plan).collect(),
            tiers: self.tiers,
            runs: self.runs,
            // The limiter knows how, by its store.
            shared: None,
        }
    }

    /// Returns whether a run of an agent may use only so much of anything.
    pub fn limits_runs(&self) -> bool {
        let RunPlan {
            calls,
            tokens,
            cost,
            time,
            depth,
            repeats,
            idle: _,
        } = self.runs;
        calls.or(tokens).or(cost).is_some() || time.is_some() || depth.or(repeats).is_some()
    }

    /// Returns every quota group in the order of [`Group::index`], with its upstream.
    pub fn groups(&self) -> impl Iterator<Item = (&Upstream, &Group)> {
        self.upstreams
            .iter()
            .flat_map(|upstream| upstream.all_groups().map(move |group| (upstream, group)))
    }

    /// Returns what a model's tokens cost: what the configuration says, else what the program's own table says.
    pub fn price(&self, model: &str) -> Option<Price> {
        self.prices.find(model).or_else(|| prices::known().find(model))
    }

    /// Returns the place in [`Config::tenants`] of what holds for tenants that are not listed.
    pub fn each_other(&self) -> Option<usize> {
        self.tenants
            .iter()
            .position(|tenant| tenant.name == TenantPlan::EACH_OTHER)
    }

    /// Returns the first route that a request takes.
    pub fn route_of(&self, clues: RouteClues<'_>) -> Option<usize> {
        self.routes.iter().position(|route| route.fits(clues))
    }

    /// Returns the upstream called `name`, with its place in [`Config::upstreams`].
    pub fn upstream(&self, name: &str) -> Option<(usize, &Upstream)> {
        self.upstreams
            .iter()
            .enumerate()
            .find(|(_, upstream)| upstream.name == name)
    }
}

impl Upstream {
    /// Returns the quota group of a request for `model`, or of one that names no model, as
    /// [`Upstream::route_for`] does for what most operations belong to.
    pub fn route(&self, model: Option<&str>) -> QuotaRoute {
        self.route_for(Scope::Model, model, Tokens::ZERO)
    }

    /// Returns the quota group of a request.
    ///
    /// An exact name goes before a pattern, a longer pattern before a shorter one; a group for long inputs before one
    /// for all. What no group lists goes to the unlisted group.
    pub fn route_for(&self, scope: Scope, model: Option<&str>, input: Tokens) -> QuotaRoute {
        let listed = self
            .table
            .find(scope, model, input)
            .and_then(|at| self.groups.get(at));
        let group = listed.unwrap_or(&self.unlisted);
        QuotaRoute {
            id: QuotaId::of(&group.name),
            index: group.index,
            per_model: listed.is_none(),
            own: match scope {
                Scope::Model | Scope::ModelRequests => None,
                Scope::Own(name) => Some(name),
            },
            max_tokens_cap: group.max_tokens_cap,
        }
    }

    /// Returns the configured groups and, last, the unlisted one.
    pub fn all_groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().chain(std::iter::once(&self.unlisted))
    }

    fn quota(&self, group: &Group) -> QuotaPlan {
        QuotaPlan {
            name: group.name.clone(),
            limits: group.limits.clone(),
            charge: group.charge,
            learning: self.learning,
            discipline: self.discipline,
            slice: self.slice.map(Slice::shortest),
            guarantee: self.guarantee,
            window: self.window,
            permit_ttl: self.permit_ttl,
            margin: MarginPolicy::Learned,
        }
    }
}

/// So much of a body's beginning and of its end tells it from others.
const IDENTITY_BYTES: usize = 512;

/// Tells accounts apart without keeping what identifies them: a keyed hash, whose salt a state file keeps over restarts.
///
/// Make one at the start of the program and keep it over reloads, or every account begins anew.
#[derive(Clone)]
pub struct AccountHasher {
    /// For what nobody needs to know again after a restart.
    local: RandomState,
    salt: Salt,
    /// The hash of the salt alone.
    salted: Sha256,
}

/// What the hashes of accounts are salted with.
pub type Salt = [u8; 32];

impl Default for AccountHasher {
    /// Makes one with a salt of its own.
    fn default() -> Self {
        let mut salt = Salt::default();
        for part in salt.chunks_exact_mut(8) {
            // The standard library draws the keys of each from the system's randomness.
            part.copy_from_slice(&RandomState::new().hash_one(0).to_le_bytes());
        }
        Self::with_salt(salt)
    }
}

impl std::fmt::Debug for AccountHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccountHasher")
    }
}

impl AccountHasher {
    /// Makes one that tells accounts apart as another one with this salt did.
    pub fn with_salt(salt: Salt) -> Self {
        // A whole block, so that it is hashed once and for all.
        let salted = Sha256::new().chain_update(salt).chain_update(salt);
        Self {
            local: RandomState::new(),
            salt,
            salted,
        }
    }

    /// Makes the one that all gateways have which share their limits under this prefix.
    pub fn of_store(prefix: &str) -> Self {
        let hash = Sha256::new().chain_update("tidegate accounts of ").chain_update(prefix);
        Self::with_salt(hash.finalize().into())
    }

    /// Returns the salt.
    pub const fn salt(&self) -> &Salt {
        &self.salt
    }

    /// Returns what the same request has in common each time that it is sent: who sends it, to where, and what it says, of
    /// a long body its beginning and end.
    pub fn identity(&self, tenant: TenantId, path: &str, body: &[u8]) -> u64 {
        let first = &body[..body.len().min(IDENTITY_BYTES)];
        let last = &body[body.len().saturating_sub(IDENTITY_BYTES)..];
        self.local.hash_one((tenant, path, body.len(), first, last))
    }

    /// Returns the account of a request: 0 where Tidegate's own key is used for a group with limits.
    ///
    /// `client_key` is the key that is passed through (`None` where the upstream has a key of Tidegate's own), `model`
    /// counts where the route says that each model has an account of its own.
    pub fn account(&self, route: QuotaRoute, client_key: Option<&[u8]>, model: Option<&str>) -> u64 {
        match (client_key, route.per_model) {
            (None, false) => 0,
            (key, false) => self.salted([key, None]),
            (key, true) => self.salted([key, route.own.or(model).map(str::as_bytes)]),
        }
    }

    /// Returns the identifier of a run: what one tenant calls a run says nothing about another's.
    pub fn run(&self, tenant: TenantId, name: &str) -> RunId {
        RunId::of(self.local.hash_one((tenant.value(), name)))
    }

    /// Hashes what may be there, each part with its length.
    fn salted(&self, parts: [Option<&[u8]>; 2]) -> u64 {
        let mut hash = self.salted.clone();
        for part in parts {
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hash.update(length.to_le_bytes());
            hash.update(part.unwrap_or_default());
        }
        let digest = hash.finalize();
        let first = digest.iter().take(8);
        first.fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}
