//! Sections about who asks: tenants, routes, priorities, runs and prices.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::field::{ByteText, DurationText, Field};
use super::super::{Secret, defaults};

/// Who asks, and what it may use. `name = "*"` is a template for every tenant that is not listed, each with limits of its
/// own.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Tenant")]
pub struct RawTenant {
    /// Its name: lower-case letters, digits, `-` and `_`; or `"*"`. Required.
    pub name: Field<String>,
    /// What its clients send as their API key, as `"env:NAME"`.
    pub key: Field<Secret>,
    /// More such keys, so that one can take another's place.
    pub keys: Field<Vec<Secret>>,
    /// SHA-256 of keys, 64 hexadecimal digits each. Keys that are known by their hash alone are never sent upstream.
    pub key_sha256: Field<Vec<String>>,
    /// Its share next to others of its priority, from 1 to 1000: twice the weight is twice the quota.
    #[schemars(extend("default" = defaults::WEIGHT))]
    pub weight: Field<i64>,
    /// The highest priority that its requests may have, and the one that they have unless `default_priority`, their route
    /// or they themselves (`x-tidegate-priority`) say another.
    #[schemars(extend("default" = defaults::PRIORITY, "enum" = defaults::PRIORITIES))]
    pub priority: Field<String>,
    /// The priority of its requests that say none, not above `priority`.
    #[schemars(extend("enum" = defaults::PRIORITIES))]
    pub default_priority: Field<String>,
    /// In which order its own requests of one priority are served: by `arrival`, or by `deadline`.
    #[schemars(extend("default" = defaults::ORDER, "enum" = ["arrival", "deadline"]))]
    pub order: Field<String>,
    /// Requests in a minute, over all upstreams and models.
    pub rpm: Field<i64>,
    /// Tokens in a minute, input and output together.
    pub tpm: Field<i64>,
    /// Input tokens in a minute.
    pub itpm: Field<i64>,
    /// Output tokens in a minute.
    pub otpm: Field<i64>,
    /// Requests in a second.
    pub rps: Field<i64>,
    /// Requests in any 24 hours.
    pub rpd: Field<i64>,
    /// Tokens in any 24 hours, input and output together.
    pub tpd: Field<i64>,
    /// Requests in flight at one time.
    pub concurrent: Field<i64>,
    /// Tokens in a day, from midnight UTC; once they are used, requests are refused with 402.
    pub tokens_per_day: Field<i64>,
    /// Tokens in a month, UTC.
    pub tokens_per_month: Field<i64>,
    /// US dollars in a day, from midnight UTC. Models without a price are refused (`[[prices]]`).
    pub dollars_per_day: Field<f64>,
    /// US dollars in a month, UTC.
    pub dollars_per_month: Field<f64>,
    /// The models that it may use: names, beginnings before a `*`, or ends after one. The default is all. With it,
    /// requests other than `GET`, `HEAD` and `DELETE` have to name a model.
    pub models: Field<Vec<String>>,
    /// The names of the upstreams that it may use. The default is all.
    pub upstreams: Field<Vec<String>>,
    /// The most of its requests that wait in one quota group.
    pub queue_requests_max: Field<i64>,
    /// The most memory that its waiting requests hold in one quota group.
    pub queue_bytes_max: Field<ByteText>,
}

/// A kind of requests. Each condition that is given must hold: one of its entries must fit. A limit is shared by
/// everything that takes the route.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Route")]
pub struct RawRoute {
    /// Its name: lower-case letters, digits, `-` and `_`. Required.
    pub name: Field<String>,
    /// Operations: `chat` (chat completions, responses, messages, `generateContent`, `converse` and their like),
    /// `embeddings` (every provider's), or the name of a single one as the log has it, such as `completions`.
    pub operations: Field<Vec<String>>,
    /// Paths as clients send them, without the query; a `*` at the end stands for any rest.
    pub paths: Field<Vec<String>>,
    /// Tags, one of which the request has in `x-tidegate-tags: a, b`.
    pub tags: Field<Vec<String>>,
    /// Models: names, beginnings before a `*`, or ends after one.
    pub models: Field<Vec<String>>,
    /// The priority of its requests that say none, as far as their tenant may have it.
    #[schemars(extend("enum" = defaults::PRIORITIES))]
    pub priority: Field<String>,
    /// The longest that its requests may wait.
    pub max_wait: Field<DurationText>,
    /// Requests in a minute, over all upstreams, models and tenants.
    pub rpm: Field<i64>,
    /// Tokens in a minute, input and output together.
    pub tpm: Field<i64>,
    /// Input tokens in a minute.
    pub itpm: Field<i64>,
    /// Output tokens in a minute.
    pub otpm: Field<i64>,
    /// Requests in a second.
    pub rps: Field<i64>,
    /// Requests in any 24 hours.
    pub rpd: Field<i64>,
    /// Tokens in any 24 hours, input and output together.
    pub tpd: Field<i64>,
    /// Requests in flight at one time.
    pub concurrent: Field<i64>,
}

/// What each priority tier is guaranteed while it waits, in percent of the quota; together at most 100. What is not
/// guaranteed goes to the highest tier that waits. Where nobody is told apart, by keys, tenants or a header, a request may have
/// any priority (`x-tidegate-priority`).
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Priorities")]
pub struct RawPriorities {
    /// For `high`.
    #[schemars(extend("default" = defaults::SHARES[0], "minimum" = 0, "maximum" = 100))]
    pub high: Field<i64>,
    /// For `normal`.
    #[schemars(extend("default" = defaults::SHARES[1], "minimum" = 0, "maximum" = 100))]
    pub normal: Field<i64>,
    /// For `low`.
    #[schemars(extend("default" = defaults::SHARES[2], "minimum" = 0, "maximum" = 100))]
    pub low: Field<i64>,
    /// For `batch`.
    #[schemars(extend("default" = defaults::SHARES[3], "minimum" = 0, "maximum" = 100))]
    pub batch: Field<i64>,
}

/// What one run of an agent may use; what is not given is not bounded.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Runs")]
pub struct RawRuns {
    /// Requests.
    pub calls: Field<i64>,
    /// Tokens, input and output together.
    pub tokens: Field<i64>,
    /// US dollars. Models without a price are refused (`[[prices]]`).
    pub dollars: Field<f64>,
    /// Time since its first request, up to 30 days.
    pub time: Field<DurationText>,
    /// Runs within runs: a run that no other started has depth 1.
    pub depth: Field<i64>,
    /// The same step, among the last twenty.
    pub repeats: Field<i64>,
    /// A run is forgotten when nothing was heard of it for so long, up to 7 days.
    #[schemars(extend("default" = defaults::RUN_IDLE))]
    pub idle: Field<DurationText>,
}

/// What some models cost, in US dollars for a million tokens.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Price")]
pub struct RawPrice {
    /// The models (azure: deployments): names, beginnings before a `*`, or ends after one. An exact name goes before a
    /// pattern, a longer pattern before a shorter one. Required.
    pub models: Field<Vec<String>>,
    /// Of input. Required.
    pub input: Field<f64>,
    /// Of input that the provider read from its cache. The default is that of all input.
    pub cached_input: Field<f64>,
    /// Of output; 0 where nothing is generated. Required.
    pub output: Field<f64>,
}

impl RawTenant {
    /// Returns the amounts, in the order in which they are listed everywhere.
    pub(in super::super) const fn amounts(&self) -> [(&'static str, &Field<i64>); 8] {
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

impl RawRoute {
    /// Returns the amounts, in the order in which they are listed everywhere.
    pub(in super::super) const fn amounts(&self) -> [(&'static str, &Field<i64>); 8] {
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
