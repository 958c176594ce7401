//! From a request to its quota group.

use tidegate_core::Tokens;

use super::Group;
use super::model::ModelTable;
use crate::provider::Scope;

/// Finds the group of a request among an upstream's.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupTable {
    models: ModelTable,
    /// Groups for long inputs only, by the number of tokens above which they are meant; the largest first.
    long: Vec<(u64, ModelTable)>,
    endpoints: Vec<(&'static str, usize)>,
}

impl GroupTable {
    pub(super) fn new(groups: &[Group]) -> Self {
        let mut thresholds: Vec<_> = groups.iter().filter_map(|group| group.context_over).collect();
        thresholds.sort_unstable_by(|a, b| b.cmp(a));
        thresholds.dedup();
        let table = |over: Option<u64>| {
            let groups = groups
                .iter()
                .enumerate()
                .filter(|(_, group)| group.context_over == over);
            ModelTable::new(groups.flat_map(|(at, group)| group.models.iter().map(move |model| (at, model))))
        };
        let endpoints = groups.iter().enumerate();
        Self {
            models: table(None),
            long: thresholds
                .into_iter()
                .map(|over| (over, table(Some(over))))
                .collect(),
            endpoints: endpoints
                .filter_map(|(at, group)| Some((group.endpoint?, at)))
                .collect(),
        }
    }

    /// Returns the place of the request's group, unless nothing is said about it.
    pub(super) fn find(&self, scope: Scope, model: Option<&str>, input: Tokens) -> Option<usize> {
        if let Scope::Own(name) = scope {
            let own = self.endpoints.iter().find(|(endpoint, _)| *endpoint == name);
            return own.map(|(_, at)| *at);
        }
        let model = model?;
        let long = self.long.iter().filter(|(over, _)| input.value() > *over);
        long.map(|(_, table)| table)
            .chain([&self.models])
            .find_map(|table| table.find(model))
    }
}
