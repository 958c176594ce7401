//! Where an upstream is.

use std::fmt;

use http::Uri;
use http::uri::{Authority, PathAndQuery};

/// How an upstream is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Clear text.
    Http,
    /// TLS.
    Https,
}

/// The address of an upstream: scheme, host, port, and a path that goes before every request's path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
    prefix: String,
}

/// Why a text is not the address of an upstream. The text is not in the error: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BaseUrlError {
    /// It cannot be read as a URL.
    #[error("it is not a URL")]
    Unreadable,
    /// It does not begin with `http://` or `https://`.
    #[error("it must begin with http:// or https://")]
    Scheme,
    /// It has a user's name or password in it.
    #[error("it must not have a user name or password in it")]
    UserInfo,
    /// It has a `?` or a `#` in it.
    #[error("it must end before any ? or #")]
    Query,
    /// The port is not a number from 1 to 65535.
    #[error("its port is not a number from 1 to 65535")]
    Port,
}

impl BaseUrl {
    /// Reads an address. A slash at the end and a last segment `/v1` are left out, because requests bring theirs:
    /// `https://host`, `https://host/v1` and `https://host/v1/` are the same.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, BaseUrlError> {
        let text = text.trim();
        if text.contains(['?', '#']) {
            return Err(BaseUrlError::Query);
        }
        let scheme = match text.split_once("://") {
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
            _ => return Err(BaseUrlError::Scheme),
        };
        let uri: Uri = text.parse().map_err(|_| BaseUrlError::Unreadable)?;
        let authority = uri.authority().ok_or(BaseUrlError::Unreadable)?.clone();
        if authority.as_str().contains('@') {
            return Err(BaseUrlError::UserInfo);
        }
        if authority.host().is_empty() {
            return Err(BaseUrlError::Unreadable);
        }
        let after_host = authority
            .as_str()
            .get(authority.host().len()..)
            .unwrap_or_default();
        if !after_host.is_empty() && !matches!(authority.port_u16(), Some(1..)) {
            return Err(BaseUrlError::Port);
        }
        let path = uri.path().trim_end_matches('/');
        let prefix = path
            .strip_suffix("/v1")
            .unwrap_or(path)
            .trim_end_matches('/')
            .to_owned();
        Ok(Self {
            scheme,
            authority,
            prefix,
        })
    }

    /// Returns the address without an end that every request's path brings along.
    #[must_use]
    pub(super) fn without_end(mut self, ends: &[&str]) -> Self {
        let shorter = ends.iter().find_map(|end| self.prefix.strip_suffix(end));
        if let Some(shorter) = shorter {
            self.prefix = shorter.trim_end_matches('/').to_owned();
        }
        self
    }

    /// Returns how to connect.
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Returns the host without brackets or port: a name or an address.
    pub fn host(&self) -> &str {
        let host = self.authority.host();
        host.strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host)
    }

    /// Returns the port, the scheme's own if none is written.
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(match self.scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        })
    }

    /// Returns host and port as they are written: what goes into the `Host` header.
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns the path that goes before every request's path: empty, or beginning with a slash and not ending in one.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns path and query of an upstream request: the prefix, then `path_and_query`, which begins with a slash.
    ///
    /// # Errors
    ///
    /// Returns an error if the two do not make a valid path.
    pub fn join(&self, path_and_query: &PathAndQuery) -> Result<PathAndQuery, http::uri::InvalidUri> {
        if self.prefix.is_empty() {
            return Ok(path_and_query.clone());
        }
        PathAndQuery::try_from(format!("{}{path_and_query}", self.prefix))
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses() {
        let check = |text: &str, shown: &str, host: &str, port: u16, prefix: &str| {
            let url = BaseUrl::parse(text).unwrap();
            assert_eq!(
                (url.to_string().as_str(), url.host(), url.port(), url.prefix()),
                (shown, host, port, prefix)
            );
        };
        check(
            "https://api.openai.com",
            "https://api.openai.com",
            "api.openai.com",
            443,
            "",
        );
        check(
            "https://api.openai.com/v1/",
            "https://api.openai.com",
            "api.openai.com",
            443,
            "",
        );
        check(
            "HTTP://127.0.0.1:9001/",
            "http://127.0.0.1:9001",
            "127.0.0.1",
            9001,
            "",
        );
        check("http://[::1]:9001", "http://[::1]:9001", "::1", 9001, "");
        check("http://[::1]", "http://[::1]", "::1", 80, "");
        check("https://h/api/v1", "https://h/api", "h", 443, "/api");
        check("https://h/v1beta", "https://h/v1beta", "h", 443, "/v1beta");
    }

    #[test]
    fn ends_that_paths_bring_along_are_left_out() {
        let check = |text: &str, expect: &str| {
            let url = BaseUrl::parse(text).unwrap();
            let url = url.without_end(&["/v1beta/openai", "/openai"]);
            assert_eq!(url.to_string(), expect);
        };
        check("https://h/openai/v1/", "https://h");
        check("https://h/openai", "https://h");
        check("https://h/x/v1beta/openai", "https://h/x");
        check("https://h/x", "https://h/x");
    }

    #[test]
    fn refuses_what_is_no_address() {
        let check = |text: &str, error| assert_eq!(BaseUrl::parse(text), Err(error), "{text}");
        check("", BaseUrlError::Scheme);
        check("api.openai.com", BaseUrlError::Scheme);
        check("ftp://host", BaseUrlError::Scheme);
        check("unix:///run/socket", BaseUrlError::Scheme);
        check("http://", BaseUrlError::Unreadable);
        check("http://ho st", BaseUrlError::Unreadable);
        check("https://user:password@host", BaseUrlError::UserInfo);
        check("https://host?x=1", BaseUrlError::Query);
        check("https://host/#top", BaseUrlError::Query);
        check("https://host:", BaseUrlError::Port);
        check("https://host:0", BaseUrlError::Port);
        check("https://host:65536", BaseUrlError::Port);
    }

    #[test]
    fn joins_paths() {
        let path = PathAndQuery::from_static("/v1/models?a=b");
        let check = |base: &str, expect: &str| {
            assert_eq!(
                BaseUrl::parse(base).unwrap().join(&path).unwrap().as_str(),
                expect
            );
        };
        check("https://h", "/v1/models?a=b");
        check("https://h/api/v1", "/api/v1/models?a=b");
    }
}
