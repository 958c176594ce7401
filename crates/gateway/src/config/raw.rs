//! What the file or the flags say, before it is checked. The doc comments here become the schema and the reference.

use schemars::JsonSchema;
use serde::Deserialize;

use super::field::{ByteText, DurationText, Field, Table};
use super::{Secret, defaults};
use crate::provider::Provider;

/// The configuration file.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Tidegate configuration")]
pub struct RawConfig {
    /// The listeners and the clients' side.
    pub server: RawServer,
    /// When failed attempts are tried again.
    pub retry: RawRetry,
    /// The accounts or deployments that requests go to. Without any there are two, `openai` and `anthropic`, which pass
    /// clients' own keys through and learn their limits from the answers.
    pub upstreams: Vec<Table<RawUpstream>>,
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
    /// The length of the provider's "minute", over which `rpm`, `tpm`, `itpm` and `otpm` count.
    #[schemars(extend("default" = defaults::WINDOW))]
    pub window: Field<DurationText>,
    /// How limits over `window` are kept. `rolling` is safe whatever the provider does; `token-bucket` is for providers
    /// that are known to refill continuously.
    #[schemars(extend("default" = defaults::ALGORITHM, "enum" = ["rolling", "token-bucket"]))]
    pub algorithm: Field<String>,
    /// For providers that also enforce the share of `rpm` that falls into a shorter time, such as `"10s"` or `"1s"`.
    pub slice: Field<DurationText>,
    /// What a request takes from token limits: `openai` (input and the maximum output, never given back), `anthropic`
    /// (input, then output as it is generated), `settled` (both at first, then what was really used). The default is
    /// the provider's own way; `settled` for `compatible`.
    #[schemars(extend("enum" = ["openai", "anthropic", "settled"]))]
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
    /// The models that share these limits: names, or beginnings of names followed by `*`. An exact name goes before a
    /// pattern, a longer pattern before a shorter one. Required.
    pub models: Field<Vec<String>>,
    /// Requests in a minute.
    pub rpm: Field<i64>,
    /// Tokens in a minute, input and output together.
    pub tpm: Field<i64>,
    /// Input tokens in a minute.
    pub itpm: Field<i64>,
    /// Output tokens in a minute.
    pub otpm: Field<i64>,
    /// Requests in a day.
    pub rpd: Field<i64>,
    /// Tokens in a day, input and output together.
    pub tpd: Field<i64>,
    /// Requests in flight at one time.
    pub concurrent: Field<i64>,
}
