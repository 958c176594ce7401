//! What the providers told, and when: for requests, and for people.

use std::collections::{BTreeMap, HashMap};
use std::sync::{PoisonError, RwLock};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

/// The name under which models that share limits have their account.
pub(super) type Bucket = String;

/// Which models share their limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Buckets {
    by_name: HashMap<String, Bucket>,
    endings: Vec<&'static str>,
}

/// What every upstream told, by its name.
#[derive(Debug, Default)]
pub(crate) struct LimitBoard {
    entries: RwLock<BTreeMap<String, Entry>>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Entry {
    told: Option<Instant>,
    failed: Option<(Instant, String)>,
    buckets: Buckets,
}

/// What became of asking one upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Since when the last answer holds.
    pub(crate) told: Option<Instant>,
    /// Why there was none since, and when that was.
    pub(crate) failed: Option<(Instant, String)>,
}

impl Buckets {
    pub(super) fn add(&mut self, bucket: &str, models: &[String]) {
        for model in models {
            self.by_name.insert(model.clone(), bucket.to_owned());
        }
    }

    pub(super) fn add_ending(&mut self, end: &'static str) {
        self.endings.push(end);
    }

    /// Finds the bucket of a model: by its name, by that name without what follows a `-` (a date, mostly), or by its end.
    fn find(&self, model: &str) -> Option<&str> {
        if let Some(bucket) = self.by_name.get(model) {
            return Some(bucket);
        }
        let mut shorter = model;
        while let Some((before, _)) = shorter.rsplit_once(['-', '@']) {
            if let Some(bucket) = self.by_name.get(before) {
                return Some(bucket);
            }
            shorter = before;
        }
        let ends = |end: &&&str| model.ends_with(**end);
        self.endings.iter().find(ends).copied()
    }
}

impl LimitBoard {
    /// Returns what a model shares its limits with, by an upstream's own word.
    pub(crate) fn bucket(&self, upstream: &str, model: &str) -> Option<String> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(upstream)?.buckets.find(model).map(str::to_owned)
    }

    /// Returns what became of asking an upstream; `None` if it is not asked.
    pub(crate) fn asked(&self, upstream: &str) -> Option<Asked> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(upstream).map(|entry| Asked {
            told: entry.told,
            failed: entry.failed.clone(),
        })
    }

    /// Says that another configuration is in force.
    pub(crate) fn reloaded(&self) {
        self.changed.notify_waiters();
    }

    /// Returns a future that is ready after the next reload.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Notes an answer. Returns whether it is news that there is one.
    pub(super) fn told(&self, upstream: &str, buckets: Buckets) -> bool {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(upstream.to_owned()).or_default();
        let is_news = entry.told.is_none() || entry.failed.is_some();
        *entry = Entry {
            told: Some(Instant::now()),
            failed: None,
            buckets,
        };
        is_news
    }

    /// Notes a failure; what was told before holds on. Returns whether it is another than the last.
    pub(super) fn failed(&self, upstream: &str, error: &str) -> bool {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(upstream.to_owned()).or_default();
        let is_news = entry.failed.as_ref().is_none_or(|(_, last)| last != error);
        entry.failed = Some((Instant::now(), error.to_owned()));
        is_news
    }

    /// Forgets upstreams that are not asked any more.
    pub(super) fn retain(&self, keep: impl Fn(&str) -> bool) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|name, _| keep(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_find_their_bucket_by_name_date_and_end() {
        let mut buckets = Buckets::default();
        buckets.add(
            "claude-opus-4-8",
            &["claude-opus-4-8".to_owned(), "claude-opus-4-7".to_owned()],
        );
        buckets.add("claude-opus-5", &["claude-opus-5".to_owned()]);
        buckets.add_ending(":free");
        for (model, expect) in [
            ("claude-opus-4-7", Some("claude-opus-4-8")),
            ("claude-opus-4-7-20260101", Some("claude-opus-4-8")),
            ("claude-opus-4-7@20260101", Some("claude-opus-4-8")),
            ("claude-opus-5-20260801", Some("claude-opus-5")),
            ("claude-opus-4", None),
            ("claude-opus", None),
            ("meta/llama:free", Some(":free")),
            ("", None),
        ] {
            assert_eq!(buckets.find(model), expect, "{model}");
        }
    }

    #[test]
    fn only_news_is_news() {
        let board = LimitBoard::default();
        assert!(board.failed("a", "down"));
        assert!(!board.failed("a", "down"));
        assert!(board.failed("a", "away"));
        assert!(board.told("a", Buckets::default()));
        assert!(!board.told("a", Buckets::default()));
        assert!(board.failed("a", "away"));
        let asked = board.asked("a").unwrap();
        assert!(asked.told.is_some() && asked.failed.is_some());
        board.retain(|name| name != "a");
        assert_eq!(board.asked("a"), None);
        assert_eq!(board.bucket("a", "m"), None);
    }
}
