//! The store, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::field::{DurationText, Field};
use crate::config::{Secret, defaults};

/// Where several gateways share their limits: Redis from 6.2 or Valkey from 7.2. All that use the same server and prefix share
/// the quota groups of the same name, so they should have the same limits; see the
/// [guide](../guides/replicas.md). It stays as it was at the start when the configuration is read anew.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Store")]
pub struct RawStore {
    /// Its URL, or `"env:NAME"` for a variable with it: `redis://user:password@host:6379`, `rediss://` for TLS, or
    /// `unix:///path` for a socket of this machine.
    pub redis: Field<Secret>,
    /// Further nodes, each as `host:port`: others of a cluster, or other sentinels.
    pub nodes: Field<Vec<String>>,
    /// The nodes are some of a cluster. The rest is found.
    pub cluster: Field<bool>,
    /// The nodes are sentinels, and know the server by this name. User and password are those of the server; sentinels are
    /// asked with the same, or without where they want none.
    pub sentinel: Field<String>,
    /// A file with certificates of authorities, in PEM format, that are trusted besides those of the system.
    pub ca_file: Field<String>,
    /// What the names of all keys begin with. Gateways with other limits need another one.
    #[schemars(extend("default" = defaults::STORE_PREFIX))]
    pub prefix: Field<String>,
    /// What is done while the store is out of reach: `share` (all gateways together go on with a part of each quota, and stay
    /// within the limits) or `closed` (nobody is let in).
    #[schemars(extend("enum" = ["share", "closed"], "default" = "share"))]
    pub on_store_loss: Field<String>,
    /// The part of each quota that all gateways together go on with. What one may use of it, it may also keep from the others
    /// for a while after it was killed.
    #[schemars(extend("default" = defaults::STORE_SHARE, "minimum" = 0, "maximum" = 1))]
    pub share: Field<f64>,
    /// For how long a gateway that is cut off goes on with its share.
    #[schemars(extend("default" = defaults::STORE_SHARE_FOR))]
    pub share_for: Field<DurationText>,
    /// For how long requests in flight at a gateway that is silent count against `concurrent`.
    #[schemars(extend("default" = defaults::STORE_LEASE))]
    pub lease: Field<DurationText>,
    /// Whether an empty store is taken to be new. Else it may have lost what it knew, and nobody is let in until a window has
    /// passed or the provider's headers tell what is in use.
    #[schemars(extend("default" = false))]
    pub trust_empty: Field<bool>,
}
