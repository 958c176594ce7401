//! Where a server is, and the URLs that say so.

use std::fmt;
use std::path::PathBuf;

use super::options::StoreProblem;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Address {
    /// A host, by name or number, and a port; 0: the usual one.
    Tcp(String, u16),
    /// A socket of this machine.
    Unix(PathBuf),
}

impl Address {
    /// Reads `host`, `host:port` or `[address]:port`.
    pub(super) fn parse(text: &str) -> Result<Self, StoreProblem> {
        let wrong = || StoreProblem::Node(text.to_owned());
        let (host, rest) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(wrong)?,
            None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(is_plain) {
            return Err(wrong());
        }
        let port = match rest.strip_prefix(':') {
            Some(digits) => digits.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?,
            None if rest.is_empty() => 0,
            None => return Err(wrong()),
        };
        Ok(Self::Tcp(host.to_owned(), port))
    }

    /// Returns the same with this port if none was said.
    pub(super) fn or_port(&self, usual: u16) -> Self {
        match self {
            Self::Tcp(host, 0) => Self::Tcp(host.clone(), usual),
            other => other.clone(),
        }
    }

    /// Returns the host, where there is one.
    pub(super) fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp(host, _) => Some(host),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What a URL says.
pub(super) struct Url {
    pub(super) address: Address,
    pub(super) is_tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: u32,
}

impl Url {
    /// Reads a URL. No part of it is in what is said to be wrong: it may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, StoreProblem> {
        let (scheme, rest) = url.split_once("://").ok_or(StoreProblem::Scheme)?;
        let is_tls = match scheme {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            "unix" | "redis+unix" | "valkey+unix" => {
                let path = rest.split(['?', '#']).next().unwrap_or_default();
                if !path.starts_with('/') {
                    return Err(StoreProblem::Host);
                }
                return Ok(Self {
                    address: Address::Unix(path.into()),
                    is_tls: false,
                    user: None,
                    password: None,
                    database: 0,
                });
            }
            _ => return Err(StoreProblem::Scheme),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if path.contains(['?', '#']) || authority.contains(['?', '#']) {
            return Err(StoreProblem::Parameters);
        }
        let (credentials, host) = match authority.rsplit_once('@') {
            Some((credentials, host)) => (Some(credentials), host),
            None => (None, authority),
        };
        let (user, password) = match credentials.map(|text| text.split_once(':').unwrap_or((text, ""))) {
            None => (None, None),
            Some((user, password)) => (decode(user)?, decode(password)?),
        };
        let address = Address::parse(host).map_err(|_| match host.rsplit_once(':') {
            Some((name, _)) if Address::parse(name).is_ok() => StoreProblem::Port,
            _ => StoreProblem::Host,
        })?;
        let database = match path {
            "" => 0,
            digits => digits.parse().map_err(|_| StoreProblem::Database)?,
        };
        Ok(Self {
            address,
            is_tls,
            user,
            password,
            database,
        })
    }
}

/// Reads a part of a URL in which signs may stand as `%40`; nothing is none.
fn decode(text: &str) -> Result<Option<String>, StoreProblem> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err(StoreProblem::Credentials);
        };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    let text = String::from_utf8(bytes).map_err(|_| StoreProblem::Credentials)?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}
