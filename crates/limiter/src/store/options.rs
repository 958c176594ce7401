//! How a store is reached and used.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, crypto};
use rustls_platform_verifier::Verifier;
use tidegate_core::SharedPlan;
use tokio_rustls::TlsConnector;

use super::address::{Address, Url};

/// How replicas share their limits: where the Redis or Valkey server is, and what is done without it.
///
/// All replicas that use the same prefix at the same server share the quota groups that have the same name. They should have
/// the same limits configured.
///
/// ```
/// use std::time::Duration;
/// use tidegate::StoreOptions;
///
/// # fn main() -> Result<(), tidegate::StoreProblem> {
/// let options = StoreOptions::redis("rediss://tidegate:secret@cache.internal:6380")?
///     .prefix("production")
///     .share(0.5, Duration::from_secs(45));
/// options.check()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq)]
pub struct StoreOptions {
    nodes: Vec<Address>,
    problem: Option<StoreProblem>,
    pub(super) topology: Topology,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: u32,
    is_tls: bool,
    authorities: Vec<CertificateDer<'static>>,
    pub(super) prefix: String,
    pub(super) call_timeout: Duration,
    pub(super) connect_timeout: Duration,
    share: f64,
    share_for: Duration,
    lease: Duration,
    trusts_empty: bool,
}

/// How several servers work together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Topology {
    /// There is one.
    Single,
    /// The nodes are sentinels, which know where the one of this name is.
    Sentinel(String),
    /// The nodes are some of a cluster.
    Cluster,
}

/// What is wrong with [`StoreOptions`]. No password and no URL is in what is shown of it.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreProblem {
    /// The URL has no scheme, or one that is not known.
    Scheme,
    /// The URL names no host and port.
    Host,
    /// The URL names a port that is none.
    Port,
    /// The URL has parameters, of which none is known.
    Parameters,
    /// User or password in the URL are not well encoded.
    Credentials,
    /// The database in the URL is not a number.
    Database,
    /// A further node is not `host:port`. What stands there may be a URL with a password, so it is shown only if it cannot be.
    Node(String),
    /// There are several nodes, but neither a cluster nor sentinels.
    Nodes,
    /// A cluster has the database 0 only.
    ClusterDatabase,
    /// A socket of this machine is neither a cluster nor a sentinel.
    UnixSocket,
    /// The name of the server that sentinels watch is empty.
    SentinelName,
    /// The prefix is empty, too long, or holds signs that keys should not.
    Prefix,
    /// The share is not between 0 and 1.
    Share,
    /// A time is too short or too long; which, and its bounds in seconds.
    Time(&'static str, u64, u64),
    /// The certificates of authorities could not be read, or there are none to check the server against.
    Certificates(String),
    /// Certificates were given for a server that is not spoken to over TLS.
    NoTls,
}

impl fmt::Display for StoreProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => f.write_str(
                "a store's URL begins with redis://, rediss:// (TLS) or unix:// (a socket of this machine)",
            ),
            Self::Host => f.write_str("a store's URL names a host, as in redis://user:password@host:6379"),
            Self::Port => f.write_str("the port in a store's URL is between 1 and 65535"),
            Self::Parameters => {
                f.write_str("a store's URL has no parameters: say everything else in the options")
            }
            Self::Credentials => f.write_str(
                "user and password in a store's URL have to be percent-encoded: `@` is %40, `/` is %2F",
            ),
            Self::Database => {
                f.write_str("after the host, a store's URL has the number of a database: 0 to 65535")
            }
            // It may be a URL with a password.
            Self::Node(node) if node.contains(['@', '/']) || node.len() > 100 => {
                f.write_str("a further node is `host:port`, without scheme, user and password")
            }
            Self::Node(node) => write!(f, "`{node}` is not a node: write host:port"),
            Self::Nodes => f.write_str("several nodes are either a cluster or sentinels: say which"),
            Self::ClusterDatabase => f.write_str("a cluster has no database but 0"),
            Self::UnixSocket => f.write_str("a socket of this machine is no cluster and no sentinel"),
            Self::SentinelName => f.write_str("sentinels know a server by a name, which is missing"),
            Self::Prefix => f.write_str(
                "a prefix has 1 to 64 letters, digits or any of . _ - : (it begins the names of all keys)",
            ),
            Self::Share => f.write_str("the share is a part of the quota: between 0 and 1"),
            Self::Time(name, least, most) => write!(f, "{name} has to be between {least} s and {most} s"),
            Self::Certificates(why) => write!(f, "certificates to check the store against: {why}"),
            Self::NoTls => {
                f.write_str("certificates are given, but the store's URL does not begin with rediss://")
            }
        }
    }
}

impl fmt::Debug for StoreProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreProblem({self})")
    }
}

impl std::error::Error for StoreProblem {}

impl StoreOptions {
    /// The store at a URL: `redis://user:password@host:port/database`, `rediss://` for TLS, or `unix:///path` for a socket
    /// of this machine.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the URL.
    pub fn redis(url: &str) -> Result<Self, StoreProblem> {
        let url = Url::parse(url)?;
        let plan = SharedPlan::default();
        Ok(Self {
            problem: None,
            topology: Topology::Single,
            nodes: vec![url.address],
            user: url.user,
            password: url.password,
            database: url.database,
            is_tls: url.is_tls,
            authorities: Vec::new(),
            prefix: "tidegate".to_owned(),
            call_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(2),
            share: f64::from(plan.share) / SHARES,
            share_for: plan.share_life,
            lease: plan.lease,
            trusts_empty: plan.trusts_empty,
        })
    }

    /// Adds nodes beside the one in the URL, each as `host:port`: others of a cluster, or other sentinels.
    #[must_use]
    pub fn nodes<I: IntoIterator<Item = T>, T: AsRef<str>>(mut self, nodes: I) -> Self {
        for node in nodes {
            match Address::parse(node.as_ref()) {
                Ok(address) if self.nodes.contains(&address) => {}
                Ok(address) => self.nodes.push(address),
                Err(problem) => self.problem = Some(problem),
            }
        }
        self
    }

    /// The nodes are some of a cluster; the rest is found.
    #[must_use]
    pub fn cluster(mut self) -> Self {
        self.topology = Topology::Cluster;
        self
    }

    /// The nodes are sentinels that watch a server of this name. They are asked with the user and password of the server,
    /// or without where they want none.
    #[must_use]
    pub fn sentinel(mut self, name: impl Into<String>) -> Self {
        self.topology = Topology::Sentinel(name.into());
        self
    }

    /// Says who one is, instead of the URL. Without a user, the password is that of the server's default user.
    #[must_use]
    pub fn credentials(mut self, user: Option<String>, password: String) -> Self {
        self.user = user;
        self.password = Some(password);
        self
    }

    /// Trusts these certificates too, in PEM, besides those that the system trusts. Only with `rediss://`.
    #[must_use]
    pub fn authorities(mut self, pem: &[u8]) -> Self {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => self.authorities.extend(certificates),
            Ok(_) => self.problem = Some(StoreProblem::Certificates("there are none in it".to_owned())),
            Err(error) => self.problem = Some(StoreProblem::Certificates(error.to_string())),
        }
        self
    }

    /// What all keys begin with; `tidegate` if not said. Replicas share what has the same prefix.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// While the store is out of reach, all replicas together go on with this part of every quota (0.5 if not said), each
    /// with its part, for so long (45 s if not said). They never exceed the limit by it.
    #[must_use]
    pub fn share(mut self, share: f64, share_for: Duration) -> Self {
        (self.share, self.share_for) = (share, share_for);
        self
    }

    /// While the store is out of reach, nobody is let in.
    #[must_use]
    pub fn closed_on_loss(mut self) -> Self {
        self.share = 0.0;
        self
    }

    /// For how long requests in flight of a replica count that is silent; 30 s if not said.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Whether an empty store is taken to be new. Else, which is usual, it may have lost what it knew, and nobody is let in
    /// until a window has passed or the provider's headers tell what is in use.
    #[must_use]
    pub fn trust_empty(mut self, trusts_empty: bool) -> Self {
        self.trusts_empty = trusts_empty;
        self
    }

    /// How long an answer is awaited before the connection is taken to be broken (1 s if not said), and how long making a
    /// connection may take (2 s).
    #[must_use]
    pub fn timeouts(mut self, call: Duration, connect: Duration) -> Self {
        (self.call_timeout, self.connect_timeout) = (call, connect);
        self
    }

    /// Checks the options.
    ///
    /// # Errors
    ///
    /// Returns the first thing that is wrong.
    pub fn check(&self) -> Result<(), StoreProblem> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        let has_socket = self.nodes.iter().any(|node| node.host().is_none());
        match &self.topology {
            Topology::Single if self.nodes.len() > 1 => return Err(StoreProblem::Nodes),
            Topology::Single => {}
            _ if has_socket => return Err(StoreProblem::UnixSocket),
            Topology::Cluster if self.database != 0 => return Err(StoreProblem::ClusterDatabase),
            Topology::Sentinel(name) if name.is_empty() => return Err(StoreProblem::SentinelName),
            _ => {}
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
        if !(1..=64).contains(&self.prefix.len()) || !self.prefix.chars().all(is_plain) {
            return Err(StoreProblem::Prefix);
        }
        if !(0.0..=1.0).contains(&self.share) {
            return Err(StoreProblem::Share);
        }
        let times = [
            ("the time for which a share is used", self.share_for, 1, 3_600),
            ("the lease", self.lease, 1, 3_600),
            ("the time for an answer", self.call_timeout, 0, 60),
            ("the time for a connection", self.connect_timeout, 0, 60),
        ];
        for (name, time, least, most) in times {
            if time.is_zero() || time < Duration::from_secs(least) || time > Duration::from_secs(most) {
                return Err(StoreProblem::Time(name, least, most));
            }
        }
        if !self.authorities.is_empty() && !self.is_tls {
            return Err(StoreProblem::NoTls);
        }
        self.tls().map(drop)
    }

    /// Returns what the server is, for people, without user and password.
    pub fn describe(&self) -> String {
        let nodes: Vec<String> = self.addresses().iter().map(ToString::to_string).collect();
        let nodes = nodes.join(", ");
        let tls = if self.is_tls { " over TLS" } else { "" };
        match &self.topology {
            Topology::Single => format!("{nodes}{tls}"),
            Topology::Cluster => format!("cluster at {nodes}{tls}"),
            Topology::Sentinel(name) => format!("`{name}` of the sentinels at {nodes}{tls}"),
        }
    }

    /// Returns the addresses that are known from the beginning.
    pub(super) fn addresses(&self) -> Vec<Address> {
        let usual = match self.topology {
            Topology::Sentinel(_) => 26_379,
            _ => 6_379,
        };
        self.nodes.iter().map(|node| node.or_port(usual)).collect()
    }

    /// Returns how the engine shares its groups.
    pub(crate) fn plan(&self) -> SharedPlan {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 1, as was checked"
        )]
        let share = (self.share * SHARES).round() as u32;
        SharedPlan {
            share,
            share_life: self.share_for,
            lease: self.lease,
            trusts_empty: self.trusts_empty,
            ..SharedPlan::default()
        }
    }

    /// Returns how TLS is spoken; `None` where it is not.
    pub(super) fn tls(&self) -> Result<Option<TlsConnector>, StoreProblem> {
        if !self.is_tls {
            return Ok(None);
        }
        let wrong = |error: rustls::Error| StoreProblem::Certificates(error.to_string());
        let provider = Arc::new(crypto::ring::default_provider());
        let verifier =
            Verifier::new_with_extra_roots(self.authorities.iter().cloned(), Arc::clone(&provider));
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            // rustls calls every verifier but its own dangerous; this one is the platform's.
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier.map_err(wrong)?))
            .with_no_client_auth();
        Ok(Some(TlsConnector::from(Arc::new(config))))
    }
}

/// Shares are in millionths.
const SHARES: f64 = 1e6;

impl fmt::Debug for StoreOptions {
    /// Without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("server", &self.describe())
            .field("prefix", &self.prefix)
            .field("share", &self.share)
            .finish_non_exhaustive()
    }
}
