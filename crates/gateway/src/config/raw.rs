//! What the file or the flags say, before it is checked. The doc comments here become the schema and the reference.

use schemars::JsonSchema;
use serde::Deserialize;

use super::field::{ByteText, DurationText, Field, Table};
use super::{Secret, defaults};
use crate::provider::{Provider, Scope};

mod callers;
mod store;

pub use callers::{RawPrice, RawPriorities, RawRoute, RawRuns, RawTenant};
pub use store::RawStore;

/// The configuration file.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Tidegate configuration")]
pub struct RawConfig {
    /// The listeners and the clients' side.
    pub server: RawServer,
    /// When failed attempts are tried again.
    pub retry: RawRetry,
    /// Where several gateways share their limits. Without it limits live in this process alone.
    pub store: Table<RawStore>,
    /// The accounts or deployments that requests go to. Without any there are two, `openai` and `anthropic`, which pass
    /// clients' own keys through and learn their limits from the answers.
    pub upstreams: Vec<Table<RawUpstream>>,
    /// Who asks, and what each may use. Without any all clients share each upstream's limits as one.
    pub tenants: Vec<Table<RawTenant>>,
    /// Kinds of requests with limits of their own; a request takes the first route whose conditions all hold.
    pub routes: Vec<Table<RawRoute>>,
    /// What each priority tier is guaranteed while it waits, in percent of the quota.
    pub priorities: RawPriorities,
    /// What one run of an agent may use.
    pub runs: RawRuns,
    /// Prices of models, for budgets in dollars. They go before those that the program brings along.
    pub prices: Vec<Table<RawPrice>>,
}

/// The listeners and the clients' side.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Server")]
pub struct RawServer {
    /// Where clients connect: an IP address and a port; port 0 takes any free one.
    #[schemars(extend("default" = defaults::LISTEN))]
    pub listen: Field<String>,
    /// Where the admin listener is (`/healthz`, `/readyz`, `/metrics`, `/status`), or `"off"`.
    #[schemars(extend("default" = defaults::ADMIN))]
    pub admin: Field<String>,
    /// What callers of the admin listener must send as `Authorization: Bearer …`, as `"env:NAME"`. Needed when `admin`
    /// is not a loopback address.
    pub admin_token: Field<Secret>,
    /// Worker threads. The default is the number of processors.
    pub workers: Field<i64>,
    /// The most client connections at one time.
    #[schemars(extend("default" = defaults::CONNECTIONS_MAX))]
    pub connections_max: Field<i64>,
    /// The largest request head.
    #[schemars(extend("default" = "64KiB"))]
    pub head_bytes_max: Field<ByteText>,
    /// The most headers in one request.
    #[schemars(extend("default" = defaults::HEADERS_MAX))]
    pub headers_max: Field<i64>,
    /// The largest request body.
    #[schemars(extend("default" = "32MiB"))]
    pub body_bytes_max: Field<ByteText>,
    /// How long a client may take to send the head of a request.
    #[schemars(extend("default" = defaults::HEAD_TIMEOUT))]
    pub head_timeout: Field<DurationText>,
    /// How long the body of a request may stand still while it is being read.
    #[schemars(extend("default" = defaults::BODY_TIMEOUT))]
    pub body_timeout: Field<DurationText>,
    /// How long a client's connection may stay idle between requests.
    #[schemars(extend("default" = defaults::SERVER_IDLE_TIMEOUT))]
    pub idle_timeout: Field<DurationText>,
    /// How long a shutdown waits for answers that are not streams.
    #[schemars(extend("default" = defaults::DRAIN_TIMEOUT))]
    pub drain_timeout: Field<DurationText>,
    /// How long a shutdown waits for streams.
    #[schemars(extend("default" = defaults::STREAM_DRAIN_TIMEOUT))]
    pub stream_drain_timeout: Field<DurationText>,
    /// The most requests waiting in one quota group.
    #[schemars(extend("default" = defaults::QUEUE_REQUESTS_MAX))]
    pub queue_requests_max: Field<i64>,
    /// The most memory held by requests that wait, over all quota groups.
    #[schemars(extend("default" = "1GiB"))]
    pub queue_bytes_max: Field<ByteText>,
    /// The longest that a request may wait, whatever the client says.
    #[schemars(extend("default" = defaults::MAX_WAIT))]
    pub max_wait: Field<DurationText>,
    /// How long a request for a stream of events waits in line before its answer is begun for it: with status 200 and a
    /// comment, and another one as often until the provider's answer comes. For clients, and for proxies between, that give
    /// up on a connection without a byte; readers of event streams skip comments. What is known only later cannot be told
    /// any more: the provider's headers and Tidegate's own (`x-tidegate-queue-ms`, `x-tidegate-attempts` …) are missing
    /// but for `x-tidegate-request-id`, and an error comes as an event in the stream, which SDKs raise but do not try
    /// again. From 10ms; without it every answer begins when the provider's does.
    pub queue_keepalive: Field<DurationText>,
    /// Who may ask: `keys` (whoever has a key of a tenant) or `open` (everybody; keys still say who asks). The default is
    /// `keys` as soon as a tenant has a key or there is a `keys_file`, else `open`.
    #[schemars(extend("enum" = ["keys", "open"]))]
    pub auth: Field<String>,
    /// A header with the name of the tenant, such as `"x-tidegate-tenant"`, that a proxy before Tidegate sets after it has
    /// made sure who asks, and that clients cannot set past it. It goes before any key. Names there are
    /// at most 64 letters, digits and `-_.@:`; capitals count as small letters. Without it headers name no tenant.
    pub tenant_header: Field<String>,
    /// The file with the hashes of keys that `tidegate keys` makes. It is read anew when it changes.
    pub keys_file: Field<String>,
    /// The file in which charges, learned limits and budgets outlive a restart, for one process. Its folder must be there and
    /// writable: two more files stand beside it, with `.lock` and `.new` at the end of their names. After a crash every limit
    /// counts as used up until its window has passed or an answer tells what is left. It is opened at the start only. Without
    /// it, it is `tidegate.state` in the folder that `STATE_DIRECTORY` names (systemd sets it where the unit says
    /// `StateDirectory=`), or there is none, and a restart begins anew.
    pub state_file: Field<String>,
}

/// When failed attempts are tried again.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Retry")]
pub struct RawRetry {
    /// The first pause after an overload or a fault; it doubles with every attempt, give or take a quarter.
    #[schemars(extend("default" = defaults::BACKOFF_MIN))]
    pub backoff_min: Field<DurationText>,
    /// The longest pause.
    #[schemars(extend("default" = defaults::BACKOFF_MAX))]
    pub backoff_max: Field<DurationText>,
    /// How long after its arrival a request may still be tried again, as far as its own deadline allows: after an
    /// overload or a fault, and where the upstream cannot be reached at all.
    #[schemars(extend("default" = defaults::RETRY_HORIZON))]
    pub horizon: Field<DurationText>,
    /// Retries allowed for every hundred requests of the last ten seconds.
    #[schemars(extend("default" = defaults::RETRY_BUDGET_PERCENT))]
    pub budget_percent: Field<i64>,
    /// Retries allowed in ten seconds in any case.
    #[schemars(extend("default" = defaults::RETRY_BUDGET_FLOOR))]
    pub budget_floor: Field<i64>,
}

/// One account or deployment of a provider.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Upstream")]
pub struct RawUpstream {
    /// Its name: lower-case letters, digits, `-` and `_`. Every path under `/{name}/` goes to it; the paths without a
    /// name (`/v1/chat/completions`, `/v1/messages`) go to the first upstream that speaks that API. The default is the
    /// provider's name.
    pub name: Field<String>,
    /// What is behind it. `gemini` is AI Studio, `vertex` Google Cloud; `compatible` is everything else that speaks
    /// OpenAI's API. Required.
    #[schemars(extend("enum" = Provider::ALL.map(Provider::name)))]
    pub provider: Field<String>,
    /// Where it is, without `/v1`. The default is the provider's own address; required for `compatible`.
    pub base_url: Field<String>,
    /// A PEM file with the certificates of authorities that are trusted besides the system's: a company's own, or that
    /// of a proxy which opens TLS. It is read at the start and at every reload.
    pub ca_file: Field<String>,
    /// The key to send, as `"env:NAME"`. Without it the clients' own keys are passed through, and every key has limits
    /// of its own.
    pub api_key: Field<Secret>,
    /// Limits as the provider's own tables have them, such as `"openai/tier-1"`, `"anthropic/start"` or `"groq/free"`:
    /// docs/reference/presets.md lists all, each with its date. `[[upstreams.limits]]` go before them, dimension by
    /// dimension and model by model, and a response header that tells less goes before both.
    pub preset: Field<String>,
    /// How limits become known that are not configured: `answers` (from headers and refusals), `probe` (the same, and by
    /// slow start where nothing is told), `off` (not at all: what is not configured is not limited). The default is the
    /// provider's: `probe` for gemini, vertex, bedrock, deepseek and cohere, else `answers`.
    #[schemars(extend("enum" = ["answers", "probe", "off"]))]
    pub learn: Field<String>,
    /// A key with which the provider is asked for its limits from time to time, as `"env:NAME"`: an admin key for
    /// anthropic, the key itself for openrouter. No other provider tells them. Needs `api_key`: nobody knows whose limits
    /// those of a client's key are.
    pub limits_key: Field<Secret>,
    /// The workspace of `api_key`, such as `"wrkspc_…"`, whose limits may be lower than the organization's (anthropic).
    pub limits_workspace: Field<String>,
    /// How often the provider is asked for its limits, from 1 minute to 1 hour.
    #[schemars(extend("default" = defaults::LIMITS_REFRESH))]
    pub limits_refresh: Field<DurationText>,
    /// How sure it must be that output which is charged as it is generated (anthropic, bedrock-mantle) stays within its
    /// limit: `statistical` judges by outputs seen so far, `hard` reserves every request's maximum.
    #[schemars(extend("default" = defaults::GUARANTEE, "enum" = ["statistical", "hard"]))]
    pub guarantee: Field<String>,
    /// The chance of exceeding such a limit that `guarantee = "statistical"` accepts.
    #[schemars(extend("default" = defaults::EPSILON))]
    pub epsilon: Field<f64>,
    /// Whether usage is asked for in streams (`stream_options.include_usage`) whose client did not ask; what comes of it
    /// is taken out of the answer again. Servers that refuse the option need `false`, which is the default for those
    /// that tell usage unasked.
    pub stream_usage: Field<bool>,
    /// The length of the provider's "minute", over which `rpm`, `tpm`, `itpm` and `otpm` count.
    #[schemars(extend("default" = defaults::WINDOW))]
    pub window: Field<DurationText>,
    /// How limits over `window` are kept. `rolling` is safe whatever the provider does; `token-bucket` is for providers
    /// that are known to refill continuously, and is given up where the provider refuses all the same. The default is
    /// `token-bucket` for `anthropic` and `groq`, else `rolling`.
    #[schemars(extend("enum" = ["rolling", "token-bucket"]))]
    pub algorithm: Field<String>,
    /// For providers that also enforce the share of `rpm` that falls into a shorter time, such as `"10s"` or `"1s"`. The
    /// default is `"10s"` for azure and anthropic, for mistral one second or the time between two requests, else `"off"`.
    #[schemars(extend("pattern" = r"^\s*(off|(\d+h)?(\d+m)?(\d+s)?(\d+ms)?)\s*$"))]
    pub slice: Field<DurationText>,
    /// What a request takes from token limits: `openai` (input and the maximum output, never given back; `azure` the
    /// same), `anthropic` (input, then output as it is generated), `gemini` (input), `groq` (as `openai`, but cached input
    /// is given back), `settled` (input and the maximum output at first, then what was really used), `bedrock` (the same
    /// with `burndown`), `bedrock-mantle` (input and the maximum output against `itpm`, output as it is generated against
    /// `otpm`). The default is the provider's own way; `settled` for those that are not named here.
    #[schemars(extend("enum" = ["openai", "azure", "anthropic", "gemini", "groq", "settled", "bedrock", "bedrock-mantle"]))]
    pub charge: Field<String>,
    /// Which version of HTTP is spoken: `auto` (what the server chooses under TLS, else HTTP/1.1), `never` or `always`.
    #[schemars(extend("default" = defaults::HTTP2, "enum" = ["auto", "never", "always"]))]
    pub http2: Field<String>,
    /// How long connecting may take, TLS included.
    #[schemars(extend("default" = defaults::CONNECT_TIMEOUT))]
    pub connect_timeout: Field<DurationText>,
    /// How long the provider may take until the head of its answer.
    #[schemars(extend("default" = defaults::FIRST_BYTE_TIMEOUT))]
    pub first_byte_timeout: Field<DurationText>,
    /// How long an answer may stand still once it has begun.
    #[schemars(extend("default" = defaults::UPSTREAM_IDLE_TIMEOUT))]
    pub idle_timeout: Field<DurationText>,
    /// How long a permit is valid: a request that is not on the wire by then gets a new one.
    #[schemars(extend("default" = defaults::PERMIT_TTL))]
    pub permit_ttl: Field<DurationText>,
    /// Limits, each for the models that share it. A model that is not listed learns its limits from the answers.
    pub limits: Vec<Table<RawLimits>>,
}

/// Limits that some models share.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Limits")]
pub struct RawLimits {
    /// The models (azure: deployments) that share these limits: names, beginnings of names followed by `*`, or ends of
    /// names after a `*`. An exact name goes before a pattern, a longer pattern before a shorter one. Required unless
    /// `endpoint` is given.
    pub models: Field<Vec<String>>,
    /// Operations with limits of their own, whatever their model: `count_tokens`, `tokenize` (cohere), or `other` (what
    /// names no model: lists, files, batches). They take from requests only.
    #[schemars(extend("enum" = Scope::OWN))]
    pub endpoint: Field<String>,
    /// These limits are for requests whose estimated input is above so many tokens.
    pub context_over: Field<i64>,
    /// Requests in a minute.
    pub rpm: Field<i64>,
    /// Tokens in a minute, input and output together.
    pub tpm: Field<i64>,
    /// Input tokens in a minute.
    pub itpm: Field<i64>,
    /// Output tokens in a minute.
    pub otpm: Field<i64>,
    /// Requests in a second.
    pub rps: Field<i64>,
    /// Requests in a day.
    pub rpd: Field<i64>,
    /// Tokens in a day, input and output together.
    pub tpd: Field<i64>,
    /// When the day of `rpd` and `tpd` begins: at midnight `utc` or `pacific`, or `rolling`, which is safe for both. The
    /// default is the provider's: `pacific` for gemini, `utc` for openrouter, else `rolling`.
    #[schemars(extend("enum" = ["rolling", "utc", "pacific"]))]
    pub day: Field<String>,
    /// Requests in flight at one time.
    pub concurrent: Field<i64>,
    /// The output tokens that are assumed where output is reserved and a request names no maximum. The default is the
    /// provider's: 16 for openai, azure and groq, 64000 for bedrock, else 4096.
    pub default_max_tokens: Field<i64>,
    /// The largest maximum output that a request may ask for: a larger or missing one is replaced by it on the way.
    /// Where the maximum is reserved, requests take that much less from the quota.
    pub max_tokens_cap: Field<i64>,
    /// How many tokens an output token counts as at the end (bedrock: 1, 5, 10 or 15 by model).
    pub burndown: Field<i64>,
}

impl RawLimits {
    /// Returns the amounts, in the order in which they are listed everywhere.
    pub(super) const fn amounts(&self) -> [(&'static str, &Field<i64>); 8] {
        [
            ("rpm", &self.rpm),
            ("tpm", &self.tpm),
            ("itpm", &self.itpm),
            ("otpm", &self.otpm),
            ("rps", &self.rps),
            ("rpd", &self.rpd),
            ("tpd", &self.tpd),
            ("concurrent", &self.concurrent),
        ]
    }
}
