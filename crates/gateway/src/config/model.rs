//! Which quota group a model belongs to.

use std::collections::HashMap;
use std::fmt;

/// The name of a model, or a beginning of names followed by `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModelPattern {
    /// This name alone.
    Exact(String),
    /// Every name that begins so.
    Prefix(String),
}

impl ModelPattern {
    /// Reads a pattern; `None` if it is empty or has a `*` anywhere but at its end.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        match text.strip_suffix('*') {
            Some(prefix) if !prefix.contains('*') => Some(Self::Prefix(prefix.to_owned())),
            None if !text.is_empty() && !text.contains('*') => Some(Self::Exact(text.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// Finds the group of a model: an exact name first, then the longest beginning.
#[derive(Debug, Clone, Default)]
pub(super) struct ModelTable {
    exact: HashMap<String, usize>,
    /// The longest first.
    prefixes: Vec<(String, usize)>,
}

impl ModelTable {
    /// Makes the table from each group's patterns.
    pub(super) fn new<'a>(patterns: impl Iterator<Item = (usize, &'a ModelPattern)>) -> Self {
        let mut table = Self::default();
        for (group, pattern) in patterns {
            match pattern {
                ModelPattern::Exact(name) => {
                    table.exact.insert(name.clone(), group);
                }
                ModelPattern::Prefix(prefix) => table.prefixes.push((prefix.clone(), group)),
            }
        }
        table
            .prefixes
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        table
    }

    pub(super) fn find(&self, model: &str) -> Option<usize> {
        let exact = self.exact.get(model).copied();
        exact.or_else(|| {
            self.prefixes
                .iter()
                .find(|(prefix, _)| model.starts_with(prefix.as_str()))
                .map(|(_, group)| *group)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_names_go_before_longer_beginnings_before_shorter_ones() {
        let patterns: Vec<_> = ["*", "gpt-4o*", "gpt-4o-2024-*", "gpt-4o"]
            .into_iter()
            .map(|text| ModelPattern::parse(text).unwrap())
            .collect();
        let table = ModelTable::new(patterns.iter().enumerate());
        let check = |model: &str, group: usize| assert_eq!(table.find(model), Some(group), "{model}");
        check("gpt-4o", 3);
        check("gpt-4o-2024-08-06", 2);
        check("gpt-4o-mini", 1);
        check("o3", 0);
        check("", 0);
        assert_eq!(ModelTable::default().find("o3"), None);
    }

    #[test]
    fn stars_stand_at_the_end_alone() {
        for text in ["", " ", "**", "gpt*4", "*-mini"] {
            assert_eq!(ModelPattern::parse(text), None, "{text}");
        }
    }
}
