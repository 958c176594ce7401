//! What a server says of itself.

use super::fault::{Fault, StoreError};

/// What a server says of itself when it is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// `redis` or `valkey`.
    kind: &'static str,
    version: String,
    /// What it evicts when its memory is full; `None`: nothing, or its memory has no bound.
    evicts: Option<String>,
    is_replica: bool,
    is_loading: bool,
}

impl Server {
    /// Reads the answer to `INFO`.
    pub(super) fn parse(info: &str) -> Self {
        let of = |name: &str| {
            let mut lines = info.lines().filter_map(|line| line.trim_end().split_once(':'));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let (kind, version) = match of("valkey_version") {
            Some(version) => ("valkey", version),
            None => ("redis", of("redis_version").unwrap_or("unknown")),
        };
        let has_bound = of("maxmemory").is_some_and(|bytes| bytes != "0");
        let policy = of("maxmemory_policy").filter(|policy| has_bound && *policy != "noeviction");
        Self {
            kind,
            version: version.to_owned(),
            evicts: policy.map(str::to_owned),
            is_replica: of("role") == Some("slave"),
            is_loading: of("loading") == Some("1"),
        }
    }

    /// Returns what it is, and which version.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.kind, self.version)
    }

    /// Returns what it evicts keys by, if it may.
    pub(super) fn evicts(&self) -> Option<&str> {
        self.evicts.as_deref()
    }

    /// Returns why it cannot be used, if it says so itself.
    pub(super) fn fault(&self) -> Option<Fault> {
        if self.is_loading {
            return Some(Fault::new(StoreError::Loading, "it reads its data from disk"));
        }
        self.is_replica.then(|| {
            Fault::new(
                StoreError::ReadOnly,
                "it is the replica of another server and takes no writes",
            )
        })
    }

    /// Returns whether its version is older than the one in which holes of the script engine were mended that let whoever
    /// may run scripts run anything (CVE-2025-49844 and its like).
    pub(super) fn is_vulnerable(&self) -> bool {
        let mut numbers = self.version.split('.').map(|part| part.parse::<u32>().ok());
        let mut next = || numbers.next().flatten();
        let (Some(major), Some(minor), Some(patch)) = (next(), next(), next()) else {
            return false;
        };
        let mended: &[(u32, u32, u32)] = match self.kind {
            "valkey" => &[(7, 2, 11), (8, 0, 6), (8, 1, 4)],
            _ => &[(6, 2, 20), (7, 2, 11), (7, 4, 6), (8, 0, 4), (8, 2, 2)],
        };
        match mended.iter().find(|(a, b, _)| (*a, *b) == (major, minor)) {
            Some((_, _, least)) => patch < *least,
            None => (major, minor) < (mended[mended.len() - 1].0, mended[mended.len() - 1].1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_with_holes_are_known() {
        let is = |kind: &str, version: &str| {
            let line = format!("{kind}_version:{version}\r\n");
            Server::parse(&line).is_vulnerable()
        };
        for (version, expected) in [
            ("6.2.19", true),
            ("6.2.20", false),
            ("7.0.15", true),
            ("7.2.11", false),
            ("7.4.5", true),
            ("8.0.4", false),
            ("8.2.1", true),
            ("8.4.0", false),
            ("unknown", false),
        ] {
            assert_eq!(is("redis", version), expected, "{version}");
        }
        for (version, expected) in [
            ("8.0.5", true),
            ("8.0.6", false),
            ("8.1.3", true),
            ("9.0.0", false),
        ] {
            assert_eq!(is("valkey", version), expected, "{version}");
        }
    }

    #[test]
    fn what_it_evicts_and_whether_it_writes() {
        let server = Server::parse(
            "redis_version:7.4.6\r\nmaxmemory:1000\r\nmaxmemory_policy:allkeys-lru\r\nrole:master\r\n",
        );
        assert_eq!(
            (server.evicts(), server.fault().is_none()),
            (Some("allkeys-lru"), true)
        );
        let server = Server::parse(
            "redis_version:7.4.6\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\nrole:slave\r\n",
        );
        assert_eq!(server.evicts(), None);
        assert_eq!(
            server.fault().map(|fault| fault.error),
            Some(StoreError::ReadOnly)
        );
    }
}
