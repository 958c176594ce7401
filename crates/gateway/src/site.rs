//! The configuration as the workers use it: what every request would otherwise have to work out again.

use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, crypto};
use rustls_platform_verifier::Verifier;
use thiserror::Error;
use tidegate::StoreProblem;
use tokio_rustls::TlsConnector;

use crate::config::{Authorities, Config, Http2, Scheme, Upstream};
use crate::keys::Key;
use crate::metrics::{MetricTable, Metrics};
use crate::pool::{Endpoint, Pool, PoolBounds, Protocol};
use crate::prices;
use crate::provider::{AuthStyle, Profile, Root};
use crate::tenants::TenantBook;

/// A configuration that is in force.
pub(crate) struct Site {
    /// What is configured.
    pub(crate) config: Arc<Config>,
    /// One for each upstream, in the same order.
    pub(crate) targets: Arc<[Target]>,
    /// The counters of every quota group.
    pub(crate) metrics: MetricTable,
    /// Who may ask, and how they are known.
    pub(crate) tenants: TenantBook,
}

/// How one upstream is reached.
pub(crate) struct Target {
    /// What distinguishes its provider.
    pub(crate) profile: &'static Profile,
    endpoint: Endpoint,
    tls: Option<TlsConnector>,
    bounds: PoolBounds,
    /// The `host` header.
    pub(crate) host: HeaderValue,
    /// The header with the upstream's own key: where the provider expects it, and where it does under OpenAI's API.
    key: Option<[(HeaderName, HeaderValue); 2]>,
}

/// Why a configuration cannot be put in force.
#[derive(Debug, Error)]
pub enum SiteError {
    /// A key holds bytes that no header may hold.
    #[error("upstream `{upstream}`: its api_key holds characters that cannot be sent in a header")]
    Key {
        /// The upstream's name.
        upstream: String,
    },
    /// The host is neither a name nor an address that a certificate could bear.
    #[error("upstream `{upstream}`: the host of its base_url cannot be checked against a certificate")]
    HostName {
        /// The upstream's name.
        upstream: String,
    },
    /// There are no certificates to check upstreams against.
    #[error(
        "no root certificates to check upstreams against: {source}; install the package ca-certificates, \
         set SSL_CERT_FILE, or name a ca_file for the upstream"
    )]
    Tls {
        /// What the platform said.
        source: rustls::Error,
    },
    /// The store cannot be used as it is configured.
    #[error("[store]: {problem}")]
    Store {
        /// What is wrong with it.
        problem: StoreProblem,
    },
    /// Another store cannot be put in force while requests are under way.
    #[error("[store] is another than at the start: start the program anew to change it")]
    StoreChanged,
}

/// The most idle connections of one worker to one upstream.
const IDLE_MAX: usize = 128;

/// How long connections to upstreams are kept unused: less than servers and the balancers before them allow.
const IDLE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Streams on one HTTP/2 connection to an upstream: what servers usually allow.
const STREAMS_MAX: usize = 100;

impl Site {
    /// Prepares a configuration.
    ///
    /// # Errors
    ///
    /// Returns what stands in the way of putting it in force.
    pub(crate) fn new(config: Config, metrics: &Arc<Metrics>) -> Result<Self, SiteError> {
        // Read now, so that no request waits for it.
        prices::known();
        let targets = config
            .upstreams
            .iter()
            .map(Target::new)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            metrics: metrics.table(&config),
            tenants: TenantBook::new(&config),
            config: Arc::new(config),
            targets,
        })
    }

    /// Returns the same with the keys as their file has them now.
    pub(crate) fn with_keys(&self, keys: Vec<Key>) -> Self {
        let mut config = (*self.config).clone();
        config.keys = keys.into();
        Self {
            metrics: self.metrics.clone(),
            tenants: TenantBook::new(&config),
            config: Arc::new(config),
            targets: Arc::clone(&self.targets),
        }
    }
}

impl Target {
    fn new(upstream: &Upstream) -> Result<Self, SiteError> {
        let url = &upstream.base_url;
        let profile = upstream.provider.profile();
        let name = || upstream.name.clone();
        let (tls_name, tls) = match url.scheme() {
            Scheme::Http => (None, None),
            Scheme::Https => {
                let tls_name = ServerName::try_from(url.host().to_owned())
                    .map_err(|_| SiteError::HostName { upstream: name() })?;
                (
                    Some(tls_name),
                    Some(connector(upstream.http2, &upstream.authorities)?),
                )
            }
        };
        let key = match &upstream.api_key {
            None => None,
            Some(key) => {
                let header = |style: AuthStyle| {
                    let header = style.header(key.expose());
                    header.map_err(|_| SiteError::Key { upstream: name() })
                };
                Some([
                    header(profile.auth)?,
                    header(profile.auth.under(Root::V1BetaOpenAi))?,
                ])
            }
        };
        Ok(Self {
            profile,
            endpoint: Endpoint {
                host: url.host().to_owned(),
                port: url.port(),
                tls_name,
                authorities: upstream.authorities.clone(),
                protocol: match upstream.http2 {
                    Http2::Auto => Protocol::Negotiated,
                    Http2::Never => Protocol::Http1,
                    Http2::Always => Protocol::Http2,
                },
            },
            tls,
            bounds: PoolBounds {
                idle_max: IDLE_MAX,
                idle_timeout: IDLE_TIMEOUT,
                connect_timeout: upstream.connect_timeout,
                streams_max: STREAMS_MAX,
            },
            host: HeaderValue::from_str(url.authority().as_str())
                .map_err(|_| SiteError::HostName { upstream: name() })?,
            key,
        })
    }

    /// Returns whether clients' keys are replaced.
    pub(crate) const fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Returns the header with the upstream's own key for paths that begin so.
    pub(crate) fn key(&self, root: Root) -> Option<&(HeaderName, HeaderValue)> {
        let [own, openai] = self.key.as_ref()?;
        let auth = self.profile.auth;
        Some(if auth.under(root) == auth { own } else { openai })
    }

    /// Returns a pool for this upstream: one of `earlier` if it serves the same endpoint, so that a reload keeps warm
    /// connections.
    pub(crate) fn pool(&self, earlier: &[Arc<Pool>]) -> Arc<Pool> {
        let kept = earlier
            .iter()
            .find(|pool| pool.serves(&self.endpoint, &self.bounds));
        kept.map_or_else(
            || Arc::new(Pool::new(self.endpoint.clone(), self.tls.clone(), self.bounds)),
            Arc::clone,
        )
    }
}

/// TLS as upstreams are spoken to: certificates checked as the platform does, with further authorities trusted.
fn connector(http2: Http2, authorities: &Authorities) -> Result<TlsConnector, SiteError> {
    let provider = Arc::new(crypto::ring::default_provider());
    let tls_error = |source| SiteError::Tls { source };
    let verifier = Verifier::new_with_extra_roots(authorities.certificates(), Arc::clone(&provider));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(tls_error)?
        // rustls calls every verifier but its own dangerous; this one is the platform's.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier.map_err(tls_error)?))
        .with_no_client_auth();
    config.alpn_protocols = match http2 {
        Http2::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Http2::Never => vec![b"http/1.1".to_vec()],
        Http2::Always => vec![b"h2".to_vec()],
    };
    Ok(TlsConnector::from(Arc::new(config)))
}
