//! What the accounts of models that no group lists are called, the tenants that only a header names, and runs: their keys
//! are hashes, which tell people nothing.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// The most names that are kept.
const NAMES_MAX: usize = 4_096;

/// The longest name, in characters.
const NAME_MAX: usize = 128;

/// The names of accounts, tenants and runs.
#[derive(Debug, Default)]
pub(crate) struct Names(RwLock<HashMap<u64, String>>);

impl Names {
    /// Remembers what an account is called. When too many are known all are forgotten: those that are in use are told
    /// again with their next request.
    pub(crate) fn note(&self, account: u64, name: &str) {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if known.contains_key(&account) {
            return;
        }
        drop(known);
        let name = name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= NAMES_MAX {
            known.clear();
        }
        known.insert(account, name);
    }

    /// Returns what an account is called, if that is known.
    pub(super) fn of(&self, account: u64) -> Option<String> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&account).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_few() {
        let names = Names::default();
        names.note(1, "gpt-4o\n");
        names.note(1, "another");
        assert_eq!(names.of(1).as_deref(), Some("gpt-4o"));
        assert_eq!(names.of(2), None);
        names.note(2, &"m".repeat(10_000));
        assert_eq!(names.of(2).map(|name| name.len()), Some(NAME_MAX));
        for account in 0..2 * NAMES_MAX as u64 {
            names.note(account, "m");
            assert!(names.of(account).is_some());
        }
        assert!(names.0.read().unwrap().len() <= NAMES_MAX);
    }
}
