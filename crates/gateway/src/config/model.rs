//! Which quota group a model belongs to.

use std::collections::HashMap;
use std::fmt;

/// The name of a model, a beginning of names followed by `*`, or an end of names that a `*` precedes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModelPattern {
    /// This name alone.
    Exact(String),
    /// Every name that begins so.
    Prefix(String),
    /// Every name that ends so.
    Suffix(String),
}

impl ModelPattern {
    /// Reads a pattern; `None` if it is empty or has a `*` anywhere but at one of its ends.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        match text.strip_suffix('*') {
            Some(prefix) if !prefix.contains('*') => Some(Self::Prefix(prefix.to_owned())),
            Some(_) => None,
            None => match text.strip_prefix('*') {
                Some(suffix) if !suffix.contains('*') => Some(Self::Suffix(suffix.to_owned())),
                None if !text.is_empty() && !text.contains('*') => Some(Self::Exact(text.to_owned())),
                _ => None,
            },
        }
    }

    /// Returns whether a model's name is one of the pattern's.
    pub fn matches(&self, model: &str) -> bool {
        match self {
            Self::Exact(name) => model == name,
            Self::Prefix(prefix) => model.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => model.ends_with(suffix.as_str()),
        }
    }

    /// Returns the pattern without its `*`.
    pub(super) fn literal(&self) -> String {
        let (Self::Exact(text) | Self::Prefix(text) | Self::Suffix(text)) = self;
        text.clone()
    }

    /// Returns whether every name of `other` is one of this pattern's.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(name), other) => matches!(other, Self::Exact(same) if same == name),
            (Self::Prefix(all), _) if all.is_empty() => true,
            (Self::Prefix(prefix), Self::Exact(text) | Self::Prefix(text)) => {
                text.starts_with(prefix.as_str())
            }
            (Self::Suffix(suffix), Self::Exact(text) | Self::Suffix(text)) => text.ends_with(suffix.as_str()),
            (Self::Prefix(_), Self::Suffix(_)) | (Self::Suffix(_), Self::Prefix(_)) => false,
        }
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// Finds the group of a model: an exact name first, then the longest beginning or end.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModelTable {
    exact: HashMap<String, usize>,
    /// The longest first.
    patterns: Vec<(ModelPattern, usize)>,
}

impl ModelTable {
    /// Makes the table from each group's patterns.
    pub(crate) fn new<'a>(patterns: impl Iterator<Item = (usize, &'a ModelPattern)>) -> Self {
        let mut table = Self::default();
        for (group, pattern) in patterns {
            match pattern {
                ModelPattern::Exact(name) => {
                    table.exact.insert(name.clone(), group);
                }
                pattern => table.patterns.push((pattern.clone(), group)),
            }
        }
        table
            .patterns
            .sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.literal().len()));
        table
    }

    pub(crate) fn find(&self, model: &str) -> Option<usize> {
        let exact = self.exact.get(model).copied();
        exact.or_else(|| {
            self.patterns
                .iter()
                .find(|(pattern, _)| pattern.matches(model))
                .map(|(_, group)| *group)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_names_go_before_longer_patterns_before_shorter_ones() {
        let patterns: Vec<_> = ["*", "gpt-4o*", "gpt-4o-2024-*", "gpt-4o", "*:free"]
            .into_iter()
            .map(|text| ModelPattern::parse(text).unwrap())
            .collect();
        let table = ModelTable::new(patterns.iter().enumerate());
        let check = |model: &str, group: usize| assert_eq!(table.find(model), Some(group), "{model}");
        check("gpt-4o", 3);
        check("gpt-4o-2024-08-06", 2);
        check("gpt-4o-mini", 1);
        check("o3", 0);
        check("meta/llama:free", 4);
        check("gpt-4o:free", 1);
        check("", 0);
        assert_eq!(ModelTable::default().find("o3"), None);
    }

    #[test]
    fn stars_stand_at_one_end_alone() {
        for text in ["", " ", "**", "gpt*4", "*-mini*"] {
            assert_eq!(ModelPattern::parse(text), None, "{text}");
        }
    }

    #[test]
    fn patterns_cover_what_they_match_and_more() {
        let check = |pattern: &str, other: &str, expect: bool| {
            let parsed = |text| ModelPattern::parse(text).unwrap();
            assert_eq!(
                parsed(pattern).covers(&parsed(other)),
                expect,
                "{pattern} {other}"
            );
        };
        check("*", "*:free", true);
        check("gpt-4o*", "gpt-4o", true);
        check("gpt-4o*", "gpt-4o-2024-*", true);
        check("gpt-4o-2024-*", "gpt-4o*", false);
        check("gpt-4o", "gpt-4o*", false);
        check("gpt-4o", "gpt-4o", true);
        check("*:free", "a:free", true);
        check("*:free", "a*", false);
    }
}
