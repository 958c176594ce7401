//! What goes wrong with a store.

use std::fmt;
use std::io;

use redis::{ErrorKind, RedisError};

use super::address::Address;
use super::status::StoreState;

/// A kind of thing that goes wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreError {
    /// Its name is not known.
    Unresolved,
    /// Nobody listens there.
    Refused,
    /// No connection can be made for another reason.
    Unreachable,
    /// It does not speak TLS, or has a certificate that is not trusted.
    Tls,
    /// It did not answer in time.
    Timeout,
    /// The connection ended.
    Closed,
    /// User or password are wrong, or the user may not do what is needed.
    Denied,
    /// It takes no writes: it is a replica.
    ReadOnly,
    /// Its memory is full.
    OutOfMemory,
    /// It reads its data from disk.
    Loading,
    /// It cannot write to its disk.
    Misconfigured,
    /// It runs a script that does not end.
    Busy,
    /// It has too few replicas, or a replica has lost its server.
    NoReplicas,
    /// The cluster does not work as a whole, or moves keys just now.
    ClusterDown,
    /// The keys are at another node.
    Moved,
    /// The sentinels know no server of this name.
    NotFound,
    /// It has no database of this number.
    Database,
    /// It is too old, or something that speaks only some of its language.
    Unsupported,
    /// The script failed, or it said something else.
    Script,
    /// Its answer is not understood.
    Reply,
}

impl StoreError {
    /// Every kind.
    pub const ALL: [Self; 20] = [
        Self::Unresolved,
        Self::Refused,
        Self::Unreachable,
        Self::Tls,
        Self::Timeout,
        Self::Closed,
        Self::Denied,
        Self::ReadOnly,
        Self::OutOfMemory,
        Self::Loading,
        Self::Misconfigured,
        Self::Busy,
        Self::NoReplicas,
        Self::ClusterDown,
        Self::Moved,
        Self::NotFound,
        Self::Database,
        Self::Unsupported,
        Self::Script,
        Self::Reply,
    ];

    /// Returns the name used in logs, metrics and status pages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Denied => "denied",
            Self::ReadOnly => "read_only",
            Self::OutOfMemory => "out_of_memory",
            Self::Loading => "loading",
            Self::Misconfigured => "misconfigured",
            Self::Busy => "busy",
            Self::NoReplicas => "no_replicas",
            Self::ClusterDown => "cluster_down",
            Self::Moved => "moved",
            Self::NotFound => "not_found",
            Self::Database => "database",
            Self::Unsupported => "unsupported",
            Self::Script => "script",
            Self::Reply => "reply",
        }
    }

    /// Returns how the store is while this goes wrong.
    pub const fn state(self) -> StoreState {
        match self {
            Self::Unresolved
            | Self::Refused
            | Self::Unreachable
            | Self::Tls
            | Self::Timeout
            | Self::Closed
            | Self::NotFound => StoreState::Unreachable,
            Self::Denied => StoreState::Denied,
            Self::ReadOnly => StoreState::ReadOnly,
            Self::OutOfMemory => StoreState::OutOfMemory,
            Self::Loading => StoreState::Loading,
            Self::Misconfigured => StoreState::Misconfigured,
            Self::Busy => StoreState::Busy,
            Self::NoReplicas => StoreState::NoReplicas,
            Self::ClusterDown | Self::Moved => StoreState::ClusterDown,
            Self::Database | Self::Unsupported | Self::Script | Self::Reply => StoreState::Failing,
        }
    }

    /// Returns whether the connection is of no use after it.
    pub(super) const fn ends_connection(self) -> bool {
        matches!(self, Self::Timeout | Self::Closed | Self::ReadOnly)
    }

    /// Returns whether other groups at the same node fare the same.
    pub(super) const fn is_of_node(self) -> bool {
        !matches!(self, Self::Script | Self::Reply | Self::Moved | Self::ClusterDown)
    }
}

/// Something that went wrong.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) error: StoreError,
    detail: String,
    /// Where the keys are: slot, node, and whether only this call should go there.
    pub(super) redirect: Option<(u16, Address, bool)>,
    /// The script is not known there.
    pub(super) wants_script: bool,
}

/// The longest text of a server that is written down.
const DETAIL_MAX: usize = 200;

impl Fault {
    pub(super) fn new(error: StoreError, detail: impl Into<String>) -> Self {
        let mut detail: String = detail.into();
        if let Some((at, _)) = detail.char_indices().nth(DETAIL_MAX) {
            detail.truncate(at);
        }
        Self {
            error,
            detail,
            redirect: None,
            wants_script: false,
        }
    }

    /// Returns whether the user is known, but may not do this.
    pub(super) fn is_about_rights(&self) -> bool {
        self.detail.starts_with("NOPERM")
    }

    /// What a failed socket means.
    pub(super) fn of_io(error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => StoreError::Refused,
            io::ErrorKind::TimedOut => StoreError::Timeout,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionAborted => StoreError::Closed,
            _ => StoreError::Unreachable,
        };
        Self::new(kind, error.to_string())
    }

    /// What an error that was answered, or that the connection gave, means.
    pub(super) fn of(error: &RedisError) -> Self {
        let detail = error.detail().unwrap_or_default();
        let code = match error.code() {
            // Before Redis 7, what a command said inside of a script is somewhere in what the script says.
            Some("ERR") | None => CODES.iter().map(|(code, _)| *code).find(|code| {
                let at = detail.find(code);
                at.is_some_and(|at| detail[..at].ends_with('-') || detail[..at].ends_with(": "))
            }),
            code => code,
        };
        let known = code.and_then(|code| CODES.iter().find(|(known, _)| *known == code));
        let kind = match (known, error.kind()) {
            (Some((_, kind)), _) => *kind,
            (None, ErrorKind::AuthenticationFailed) => StoreError::Denied,
            (None, ErrorKind::RESP3NotSupported) => StoreError::Unsupported,
            (None, ErrorKind::Io) if error.is_timeout() => StoreError::Timeout,
            (None, ErrorKind::Io) => StoreError::Closed,
            (None, ErrorKind::Parse | ErrorKind::UnexpectedReturnType) => StoreError::Reply,
            _ if detail.contains("no permissions") => StoreError::Denied,
            _ if detail.contains("DB index") || error.to_string().contains("switch database") => {
                StoreError::Database
            }
            _ if detail.contains("ACL failure in script") => StoreError::Denied,
            _ if detail.starts_with("unknown command") => StoreError::Unsupported,
            _ => StoreError::Script,
        };
        let words = match error.code() {
            Some(code) => format!("{code} {detail}"),
            None if error.kind() == ErrorKind::Parse => {
                format!(
                    "neither Redis nor Valkey answers like this: {}",
                    error.to_string().trim_end()
                )
            }
            None => error.to_string(),
        };
        let redirect = error.redirect_node().and_then(|(node, slot)| {
            let address = Address::parse(node).ok()?;
            Some((slot, address, code == Some("ASK")))
        });
        Self {
            redirect,
            wants_script: code == Some("NOSCRIPT"),
            ..Self::new(kind, words)
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error.name(), self.detail)
    }
}

/// What servers call what goes wrong.
const CODES: [(&str, StoreError); 19] = [
    ("NOAUTH", StoreError::Denied),
    ("WRONGPASS", StoreError::Denied),
    ("NOPERM", StoreError::Denied),
    ("READONLY", StoreError::ReadOnly),
    ("OOM", StoreError::OutOfMemory),
    ("LOADING", StoreError::Loading),
    ("MISCONF", StoreError::Misconfigured),
    ("BUSY", StoreError::Busy),
    ("NOREPLICAS", StoreError::NoReplicas),
    ("MASTERDOWN", StoreError::NoReplicas),
    ("CLUSTERDOWN", StoreError::ClusterDown),
    ("TRYAGAIN", StoreError::ClusterDown),
    ("CROSSSLOT", StoreError::ClusterDown),
    ("MOVED", StoreError::Moved),
    ("ASK", StoreError::Moved),
    ("UNBLOCKED", StoreError::ReadOnly),
    ("NOPROTO", StoreError::Unsupported),
    ("NOSCRIPT", StoreError::Script),
    ("UNKILLABLE", StoreError::Busy),
];
