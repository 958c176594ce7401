//! Presets: what the providers' tables said of each tier, as data with its date.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::LazyLock;

use serde::Deserialize;
use tidegate_core::LimitSource;

use super::check::{Checker, Environment, Findings};
use super::field::{Field, Table};
use super::limits::{self, Rules};
use super::model::ModelTable;
use super::raw::RawLimits;
use super::{Group, ModelPattern};
use crate::provider::Provider;

/// The file of presets.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    limits: Vec<Row>,
}

/// Limits that some models share, by tier.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    provider: String,
    /// None: every model that no other row names, each for itself.
    #[serde(default)]
    models: Vec<String>,
    /// An operation with limits of its own, instead of models.
    endpoint: Option<String>,
    /// When the table said so, as `YYYY-MM-DD`.
    date: String,
    /// Which table, in the words of providers.md.
    source: String,
    tiers: BTreeMap<String, RawLimits>,
}

/// A preset: its name and the date of its newest row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PresetInfo {
    /// `provider/tier`.
    pub name: String,
    /// When the provider's tables said so; the oldest date of its rows.
    pub date: String,
    /// Which tables.
    pub sources: Vec<String>,
}

/// What a preset says about an upstream.
#[derive(Debug, Default)]
pub(super) struct Preset {
    pub(super) groups: Vec<Group>,
    /// The limits of every other model, each for itself.
    pub(super) unlisted: Vec<tidegate_core::Limit>,
}

static FILE: LazyLock<File> =
    LazyLock::new(|| toml::from_str(include_str!("presets.toml")).expect("the tests read the same file"));

/// Returns every preset, in the order of their names.
pub fn presets() -> Vec<PresetInfo> {
    let mut presets: BTreeMap<String, PresetInfo> = BTreeMap::new();
    for row in &FILE.limits {
        for tier in row.tiers.keys() {
            let name = format!("{}/{tier}", row.provider);
            let info = presets.entry(name.clone()).or_insert_with(|| PresetInfo {
                name,
                date: row.date.clone(),
                sources: Vec::new(),
            });
            info.date = info.date.clone().min(row.date.clone());
            if !info.sources.contains(&row.source) {
                info.sources.push(row.source.clone());
            }
        }
    }
    presets.into_values().collect()
}

/// Returns the page of presets as Markdown.
pub fn presets_page() -> String {
    let mut page = String::from(
        "# Presets\n\n\
         Written from the program (`make bless`). `preset = \"NAME\"` of an upstream takes these limits over; those of\n\
         `[[upstreams.limits]]` go before them, dimension by dimension and model by model, and a response header that\n\
         tells less goes before both. A table that is out of date costs a slow or a refused start and nothing else:\n\
         headers, refusals and the providers' limit interfaces correct it.\n",
    );
    for info in presets() {
        let _ = write!(
            page,
            "\n## `{}`\n\n| Models | Limits | As of | From |\n|---|---|---|---|\n",
            info.name
        );
        let Some((provider, tier)) = info.name.split_once('/') else {
            continue;
        };
        for row in FILE.limits.iter().filter(|row| row.provider == provider) {
            let Some(amounts) = row.tiers.get(tier) else {
                continue;
            };
            let models = match &row.endpoint {
                Some(endpoint) => format!("endpoint `{endpoint}`"),
                None if row.models.is_empty() => "every other model, each for itself".to_owned(),
                None => row
                    .models
                    .iter()
                    .map(|model| format!("`{model}`"))
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            let amounts: Vec<_> = amounts
                .amounts()
                .iter()
                .filter_map(|(name, field)| Some(format!("{name} {}", field.value()?)))
                .collect();
            let (amounts, date, source) = (amounts.join(", "), &row.date, &row.source);
            let _ = writeln!(page, "| {models} | {amounts} | {date} | {source} |");
        }
    }
    page
}

/// Returns what the preset called `name` says of an upstream; `None` if there is no such preset.
pub(super) fn read(name: &str, upstream: &str, rules: &Rules) -> Option<Preset> {
    let (provider, tier) = name.split_once('/')?;
    let rules = Rules {
        source: LimitSource::Preset,
        ..*rules
    };
    let nothing: Environment<'_> = &|_| Err(std::env::VarError::NotPresent);
    let mut checker = Checker {
        environment: nothing,
        errors: Findings::default(),
        warnings: Findings::default(),
    };
    let mut preset = None;
    for row in &FILE.limits {
        if row.provider != provider {
            continue;
        }
        let Some(amounts) = row.tiers.get(tier) else {
            continue;
        };
        let preset = preset.get_or_insert_with(Preset::default);
        let mut value = amounts.clone();
        value.endpoint = Field::preset(row.endpoint.clone());
        if row.endpoint.is_none() && row.models.is_empty() {
            let table = Table {
                value,
                ..Table::default()
            };
            preset.unlisted = limits::limits(&mut checker, &table, name, &rules);
            continue;
        }
        value.models = Field::preset((!row.models.is_empty()).then(|| row.models.clone()));
        let table = Table {
            value,
            ..Table::default()
        };
        preset
            .groups
            .push(limits::group(&mut checker, &table, name, upstream, &rules));
    }
    debug_assert!(checker.errors.is_empty(), "{name}: {:?}", checker.errors);
    preset
}

/// Returns whose preset it is.
pub(super) fn provider(name: &str) -> Option<Provider> {
    name.split_once('/')?.0.parse().ok()
}

/// Finds the preset's group that says what a configured group does not.
pub(super) struct Lookup<'a> {
    groups: &'a [Group],
}

impl<'a> Lookup<'a> {
    pub(super) const fn new(groups: &'a [Group]) -> Self {
        Self { groups }
    }

    pub(super) fn find(&self, group: &Group) -> Option<usize> {
        let same =
            |other: &Group| other.endpoint == group.endpoint && other.context_over == group.context_over;
        if group.endpoint.is_some() {
            return self.groups.iter().position(same);
        }
        let patterns = self.groups.iter().enumerate().filter(|(_, other)| same(other));
        let table = ModelTable::new(
            patterns.flat_map(|(at, other)| other.models.iter().map(move |model| (at, model))),
        );
        group.models.iter().find_map(|model| {
            if let ModelPattern::Exact(name) = model {
                return table.find(name);
            }
            let groups = || self.groups.iter().enumerate().filter(|(_, other)| same(other));
            let whole = groups().find(|(_, other)| other.models.iter().any(|other| other.covers(model)));
            // What is said of one of several quotas holds for none of them together.
            let mut parts =
                groups().filter(|(_, other)| other.models.iter().any(|other| model.covers(other)));
            let part = parts.next().filter(|_| parts.next().is_none());
            whole.or(part).map(|(at, _)| at)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_core::Discipline;

    use super::*;

    fn rules(provider: Provider) -> Rules {
        let profile = provider.profile();
        Rules {
            window: Duration::from_secs(60),
            slice: profile.slice,
            discipline: Discipline::Rolling,
            slice_discipline: Discipline::Rolling,
            day: profile.day,
            charge: profile.charge,
            source: LimitSource::Config,
        }
    }

    #[test]
    fn every_row_is_dated_sourced_and_right() {
        for row in &FILE.limits {
            let what = format!("{} {:?} {:?}", row.provider, row.models, row.endpoint);
            assert!(row.provider.parse::<Provider>().is_ok(), "{what}");
            assert!(!row.source.is_empty() && !row.tiers.is_empty(), "{what}");
            let digits: Vec<_> = row.date.split('-').map(str::len).collect();
            assert_eq!(digits, [4, 2, 2], "{what}: {}", row.date);
            assert!(
                row.date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'),
                "{what}"
            );
            assert!(row.models.is_empty() || row.endpoint.is_none(), "{what}");
        }
    }

    #[test]
    fn every_preset_has_limits_and_names_no_model_twice() {
        let presets = presets();
        assert!(presets.len() >= 25, "{presets:?}");
        for info in presets {
            let provider = provider(&info.name).unwrap();
            let preset = read(&info.name, "up", &rules(provider)).unwrap();
            let mut names = Vec::new();
            for group in &preset.groups {
                assert!(!group.limits.is_empty(), "{}: {group:?}", info.name);
                assert!(
                    group
                        .limits
                        .iter()
                        .all(|limit| limit.source == LimitSource::Preset),
                    "{}",
                    info.name
                );
                names.push(group.name.clone());
                names.extend(group.models.iter().skip(1).map(ToString::to_string));
            }
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{}", info.name);
        }
        assert!(read("openai/tier-9", "up", &rules(Provider::OpenAi)).is_none());
        assert!(read("openai", "up", &rules(Provider::OpenAi)).is_none());
    }
}
