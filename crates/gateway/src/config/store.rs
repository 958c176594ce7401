//! The store that several gateways share.

use std::path::Path;
use std::time::Duration;

use tidegate::{StoreOptions, StoreProblem};

use super::check::{Checker, Finding};
use super::field::{Field, Table};
use super::raw::{RawConfig, RawStore};
use super::{Secret, defaults};

/// The largest file of certificates that is read.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Where limits are shared.
#[derive(Debug, Clone, PartialEq)]
pub struct Store {
    /// How it is reached and used.
    pub options: StoreOptions,
    /// What the names of all keys begin with.
    pub prefix: String,
    /// The part of each quota that goes on without it; 0: nothing does.
    pub share: f64,
    /// For how long.
    pub share_for: Duration,
}

/// Checks `[store]`; `None` where there is none.
pub(super) fn check(checker: &mut Checker<'_>, raw: &RawConfig) -> Option<Store> {
    let Table { value, origin } = &raw.store;
    if *origin == super::field::Origin::Nowhere {
        return None;
    }
    if value.redis.is_absent() {
        let finding = Finding::new(origin, "`store.redis` is missing".to_owned());
        checker
            .errors
            .push(finding.help("say where the store is, such as redis = \"redis://127.0.0.1:6379\""));
    }
    let prefix = checker.given("store.prefix", &value.prefix);
    let prefix = prefix.map_or(defaults::STORE_PREFIX, String::as_str).to_owned();
    let (share, share_for) = share(checker, value);
    let second = Duration::from_secs(1)..=Duration::from_secs(3_600);
    let lease = checker.duration("store.lease", &value.lease, defaults::STORE_LEASE, second);
    let trusts_empty = checker.given("store.trust_empty", &value.trust_empty);
    let trusts_empty = trusts_empty.copied().unwrap_or_default();
    let authorities = authorities(checker, &value.ca_file);
    let url = url(checker, &value.redis)?;
    let options = match StoreOptions::redis(url.expose()) {
        Ok(options) => topology(checker, value, options),
        Err(problem) => {
            checker.error(&value.redis, format!("`store.redis`: {problem}"), EXAMPLE);
            return None;
        }
    };
    let mut options = options
        .prefix(&prefix)
        .share(share, share_for)
        .lease(lease)
        .trust_empty(trusts_empty);
    if let Some(pem) = authorities {
        options = options.authorities(&pem);
    }
    if let Err(problem) = options.check() {
        let field = match problem {
            StoreProblem::Prefix => &value.prefix,
            StoreProblem::Certificates(_) | StoreProblem::NoTls => &value.ca_file,
            StoreProblem::SentinelName => &value.sentinel,
            _ => {
                let (nodes, redis) = (value.nodes.origin(), value.redis.origin());
                let origin = if value.nodes.is_absent() { redis } else { nodes };
                let finding = Finding::new(origin, format!("[store]: {problem}"));
                checker.errors.push(finding.help(HELP));
                return None;
            }
        };
        checker.error(field, format!("[store]: {problem}"), HELP);
        return None;
    }
    Some(Store {
        options,
        prefix,
        share,
        share_for,
    })
}

const EXAMPLE: &str = "write redis://user:password@host:6379, best into an environment variable that \"env:NAME\" names";

const HELP: &str = "docs/guides/replicas.md has examples";

/// Returns the URL. One without a password may stand in the file.
fn url(checker: &mut Checker<'_>, field: &Field<Secret>) -> Option<Secret> {
    let text = checker.given("store.redis", field)?.expose().trim();
    let has_secret = text.starts_with("env:") || text.contains('@');
    if has_secret {
        return checker.secret("store.redis", field, "leave [store] out");
    }
    Some(Secret::new(text))
}

/// Returns the part of each quota that goes on without the store, and for how long.
fn share(checker: &mut Checker<'_>, raw: &RawStore) -> (f64, Duration) {
    let words = [("share", false), ("closed", true)];
    let is_closed = checker.word("store.on_store_loss", &raw.on_store_loss, &words);
    let share = checker.given("store.share", &raw.share).copied();
    if is_closed == Some(true) && (share.is_some() || !raw.share_for.is_absent()) {
        let what = "`store.share` and `store.share_for` have no effect: on_store_loss is \"closed\"".to_owned();
        let field = if share.is_some() { raw.share.origin() } else { raw.share_for.origin() };
        checker
            .warnings
            .push(Finding::new(field, what).help("leave them out, or set on_store_loss = \"share\""));
    }
    let second = Duration::from_secs(1)..=Duration::from_secs(3_600);
    let share_for = checker.duration("store.share_for", &raw.share_for, defaults::STORE_SHARE_FOR, second);
    let share = match share {
        Some(share) if !(0.0..=1.0).contains(&share) => {
            let what = format!("`store.share` is {share}");
            checker.error(&raw.share, what, "expected a part of the quota: a number from 0 to 1");
            defaults::STORE_SHARE
        }
        Some(share) => share,
        None => defaults::STORE_SHARE,
    };
    (if is_closed == Some(true) { 0.0 } else { share }, share_for)
}

fn topology(checker: &mut Checker<'_>, raw: &RawStore, options: StoreOptions) -> StoreOptions {
    let nodes = checker.given("store.nodes", &raw.nodes);
    let options = options.nodes(nodes.into_iter().flatten());
    let is_cluster = checker.given("store.cluster", &raw.cluster).copied() == Some(true);
    let sentinel = checker.given("store.sentinel", &raw.sentinel);
    match (is_cluster, sentinel) {
        (true, Some(_)) => {
            checker.error(
                &raw.sentinel,
                "`store.sentinel` and `store.cluster` exclude each other".to_owned(),
                "a cluster finds its first servers by itself: leave sentinel out",
            );
            options
        }
        (true, None) => options.cluster(),
        (false, Some(name)) => options.sentinel(name),
        (false, None) => options,
    }
}

/// Returns what the file of certificates holds.
fn authorities(checker: &mut Checker<'_>, field: &Field<String>) -> Option<Vec<u8>> {
    use std::io::Read;
    let path = checker.given("store.ca_file", field)?;
    let mut pem = Vec::new();
    let read = std::fs::File::open(Path::new(path))
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut pem));
    if let Err(error) = read {
        checker.error(
            field,
            format!("`store.ca_file`: the file cannot be read: {error}"),
            "name a PEM file: certificates between lines of -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----",
        );
        return None;
    }
    Some(pem)
}
