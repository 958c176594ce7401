//! Checking limits, and making quota groups of them.

use std::num::NonZeroU64;
use std::time::Duration;

use tidegate_core::{ChargeModel, Dimension, Discipline, Limit, LimitSource, OutputCharge, Settlement, Zone};

use super::check::{Checker, Finding, repeated};
use super::field::{Field, Table};
use super::model::ModelPattern;
use super::raw::RawLimits;
use super::{Group, preset};
use crate::provider::{Scope, Slice};

/// A day, over which `rpd` and `tpd` count.
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// A second, over which `rps` counts: also the shortest window, because the ledger counts in steps of 100 ms.
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// The largest amount of a limit; no provider sells a millionth of it.
const AMOUNT_MAX: i64 = 1_000_000_000_000;

/// The largest factor by which output can count.
const BURNDOWN_MAX: i64 = 1_000;

/// How the limits of one upstream are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) window: Duration,
    pub(super) slice: Option<Slice>,
    pub(super) discipline: Discipline,
    /// How slices are kept.
    pub(super) slice_discipline: Discipline,
    pub(super) day: Discipline,
    pub(super) charge: ChargeModel,
    pub(super) source: LimitSource,
}

/// Returns the quota groups of an upstream: those that are configured, then what a preset adds.
pub(super) fn groups(
    checker: &mut Checker<'_>,
    raws: &[Table<RawLimits>],
    at: &str,
    upstream: &str,
    rules: &Rules,
) -> Vec<Group> {
    let mut groups = Vec::new();
    for (number, limits) in raws.iter().enumerate() {
        groups.push(group(
            checker,
            limits,
            &format!("{at}.limits[{number}]"),
            upstream,
            rules,
        ));
    }
    let all = groups.iter().enumerate();
    let all: Vec<_> = all
        .flat_map(|(at, group)| {
            let models = group.models.iter().map(Some);
            let whole = group.endpoint.map(|_| None);
            models
                .chain(whole)
                .map(move |model| (at, group.endpoint, group.context_over, model))
        })
        .collect();
    for (again, before) in repeated(
        all.iter()
            .map(|(_, endpoint, over, model)| (*endpoint, *over, *model)),
    ) {
        let (at_again, endpoint, over, model) = all[again];
        let at_before = all[before].0;
        let field = &raws[at_again].value;
        let Some(model) = model else {
            let endpoint = endpoint.unwrap_or_default();
            let what =
                format!("`{at}.limits[{at_again}]` and limits[{at_before}] are both for \"{endpoint}\"");
            checker.errors.push(
                Finding::new(field.endpoint.origin(), what)
                    .help("write all limits of an endpoint into one table"),
            );
            continue;
        };
        let same = match over {
            Some(over) => format!(" with context_over = {over}"),
            None => String::new(),
        };
        let what = if at_again == at_before {
            format!("`{at}.limits[{at_again}].models` lists \"{model}\" twice")
        } else {
            format!(
                "`{at}.limits[{at_again}].models` lists \"{model}\", which limits[{at_before}] lists too{same}"
            )
        };
        checker.errors.push(
            Finding::new(field.models.origin(), what)
                .help("a model belongs to one quota group: list it once"),
        );
    }
    groups
}

/// Checks one table of limits.
pub(super) fn group(
    checker: &mut Checker<'_>,
    raw: &Table<RawLimits>,
    at: &str,
    upstream: &str,
    rules: &Rules,
) -> Group {
    let fields = &raw.value;
    let key = |name: &str| format!("{at}.{name}");
    let words = Scope::OWN.map(|name| (name, name));
    let endpoint = checker.word(&key("endpoint"), &fields.endpoint, &words);
    let models = if fields.endpoint.is_absent() {
        models(checker, raw, at)
    } else {
        if !fields.models.is_absent() {
            checker.error(
                &fields.models,
                format!("`{}` and `{}` are both given", key("endpoint"), key("models")),
                "leave models out: the limits of such an endpoint are shared by all of them",
            );
        }
        Vec::new()
    };
    let context_over = amount(checker, &key("context_over"), &fields.context_over).map(NonZeroU64::get);
    let max_tokens_cap = amount(checker, &key("max_tokens_cap"), &fields.max_tokens_cap).map(NonZeroU64::get);
    let mut charge = rules.charge;
    if let Some(unset) = amount(checker, &key("default_max_tokens"), &fields.default_max_tokens) {
        charge.unset_output = unset.get();
    }
    if !fields.burndown.is_absent() {
        let factor = checker.number(&key("burndown"), &fields.burndown, 1, 1..=BURNDOWN_MAX);
        charge.output_percent = u32::try_from(factor).unwrap_or(1).saturating_mul(100);
        let is_settled = matches!(charge.settlement, Settlement::Usage | Settlement::Late);
        if !is_settled || charge.output == OutputCharge::Free {
            let what = format!(
                "`{}` has no effect: this provider does not charge output by what it was in the end",
                key("burndown")
            );
            let finding = Finding::new(fields.burndown.origin(), what);
            checker.warnings.push(finding.help("leave it out"));
        }
    }
    let limits = limits(checker, raw, at, rules);
    let first = models.first().map(ToString::to_string);
    let label = match (endpoint, context_over) {
        (Some(endpoint), _) => endpoint.to_owned(),
        (None, Some(over)) => format!("{}>{over}", first.unwrap_or_default()),
        (None, None) => first.unwrap_or_default(),
    };
    Group {
        index: 0,
        name: format!("{upstream}/{label}"),
        label,
        models,
        endpoint,
        context_over,
        limits,
        charge,
        max_tokens_cap,
    }
}

fn models(checker: &mut Checker<'_>, limits: &Table<RawLimits>, at: &str) -> Vec<ModelPattern> {
    let key = format!("{at}.models");
    let field = &limits.value.models;
    if field.is_absent() {
        checker
            .errors
            .push(Finding::new(&limits.origin, format!("`{key}` is missing")).help(
                "list the models that share these limits; models = [\"*\"] means all of them together",
            ));
        return Vec::new();
    }
    patterns(
        checker,
        &key,
        field,
        "list the models that share these limits; [\"*\"] means all of them together",
    )
}

/// Checks a list of models. `empty` says what to do about one without entries.
pub(super) fn patterns(
    checker: &mut Checker<'_>,
    key: &str,
    field: &Field<Vec<String>>,
    empty: &str,
) -> Vec<ModelPattern> {
    let Some(texts) = checker.given(key, field) else {
        return Vec::new();
    };
    if texts.is_empty() {
        checker.error(field, format!("`{key}` is empty"), empty);
    }
    let mut models = Vec::new();
    for text in texts {
        match ModelPattern::parse(text) {
            Some(model) if text.len() <= 256 && !text.contains(char::is_control) => models.push(model),
            _ => checker.error(
                field,
                format!("`{key}` has an entry that is neither a name nor a beginning or end of names"),
                "write names such as \"gpt-4o\", a beginning such as \"gpt-4o-*\", or an end such as \"*:free\"",
            ),
        }
    }
    models
}

/// Checks the amounts of one table.
pub(super) fn limits(
    checker: &mut Checker<'_>,
    raw: &Table<RawLimits>,
    at: &str,
    rules: &Rules,
) -> Vec<Limit> {
    let fields = &raw.value;
    let minute = (rules.window, rules.discipline);
    let days = [
        ("rolling", Discipline::Rolling),
        ("utc", Discipline::Day(Zone::Utc)),
        ("pacific", Discipline::Day(Zone::Pacific)),
    ];
    let day = checker.word(&format!("{at}.day"), &fields.day, &days);
    if !fields.day.is_absent() && fields.rpd.is_absent() && fields.tpd.is_absent() {
        let what = format!("`{at}.day` has no effect: there is neither rpd nor tpd");
        checker
            .warnings
            .push(Finding::new(fields.day.origin(), what).help("leave it out"));
    }
    let day = (DAY, day.unwrap_or(rules.day));
    let second = (SECOND, Discipline::Rolling);
    let table = [
        ("rpm", &fields.rpm, Dimension::Requests, minute),
        ("tpm", &fields.tpm, Dimension::Tokens, minute),
        ("itpm", &fields.itpm, Dimension::InputTokens, minute),
        ("otpm", &fields.otpm, Dimension::OutputTokens, minute),
        ("rps", &fields.rps, Dimension::Requests, second),
        ("rpd", &fields.rpd, Dimension::Requests, day),
        ("tpd", &fields.tpd, Dimension::Tokens, day),
        ("concurrent", &fields.concurrent, Dimension::Concurrency, minute),
    ];
    let mut limits: Vec<Limit> = Vec::new();
    for (name, field, dimension, (window, discipline)) in table {
        let Some(amount) = amount(checker, &format!("{at}.{name}"), field) else {
            continue;
        };
        let of_requests = matches!(dimension, Dimension::Requests | Dimension::Concurrency);
        if let Some(endpoint) = fields.endpoint.value()
            && !of_requests
        {
            let what = format!("`{at}.{name}` has no effect: \"{endpoint}\" takes from requests only");
            let finding = Finding::new(field.origin(), what);
            checker.warnings.push(finding.help("leave it out"));
        }
        let limit = Limit {
            dimension,
            window,
            amount,
            discipline,
            source: rules.source,
        };
        limits.push(limit);
        if name == "rpm"
            && let Some(slice) = rules.slice
            && fields.rps.is_absent()
        {
            let slice = slice.length(amount.get(), window);
            if slice < window {
                limits.push(Limit {
                    window: slice,
                    amount: share(amount, slice, window),
                    discipline: rules.slice_discipline,
                    ..limit
                });
            }
        }
    }
    if table.iter().all(|(_, field, ..)| field.is_absent()) {
        let what = match fields.endpoint.value() {
            Some(endpoint) => format!("`{at}` is for \"{endpoint}\" but has no limits"),
            None => format!("`{at}` has models but no limits"),
        };
        checker.warnings.push(Finding::new(&raw.origin, what).help(
            "its models share one quota group whose limits are learned from the answers; add rpm, tpm …",
        ));
    }
    limits
}

/// Adds what a preset says and the configuration does not: limits of other dimensions or windows to configured groups,
/// and groups of models that no configured group covers. A model that shares its quota with a configured one joins that
/// one's group.
pub(super) fn add_preset(groups: &mut Vec<Group>, preset: Vec<Group>) {
    let table = preset::Lookup::new(&preset);
    for group in groups.iter_mut() {
        let Some(of) = table.find(group).and_then(|at| preset.get(at)) else {
            continue;
        };
        for limit in &of.limits {
            let is_given = |given: &Limit| {
                given.source == LimitSource::Config
                    && given.dimension == limit.dimension
                    && (given.window >= DAY) == (limit.window >= DAY)
            };
            if !group.limits.iter().any(is_given) {
                group.limits.push(*limit);
            }
        }
    }
    let configured = groups.len();
    for mut added in preset {
        let same =
            |other: &Group| other.endpoint == added.endpoint && other.context_over == added.context_over;
        let (mut first, mut kept) = (None, Vec::new());
        for model in std::mem::take(&mut added.models) {
            let covers = |other: &Group| same(other) && other.models.iter().any(|own| own.covers(&model));
            match groups[..configured].iter().position(covers) {
                Some(at) => first = first.or(Some(at)),
                None => kept.push(model),
            }
        }
        if added.endpoint.is_some() {
            first = groups[..configured].iter().position(same);
        }
        match first.and_then(|at| groups.get_mut(at)) {
            // Its models share one quota: what the configuration says of one of them holds for all.
            Some(group) => group.models.extend(kept),
            None => {
                added.models = kept;
                groups.push(added);
            }
        }
    }
}

pub(super) fn amount(checker: &mut Checker<'_>, key: &str, field: &Field<i64>) -> Option<NonZeroU64> {
    let number = *checker.given(key, field)?;
    let amount = u64::try_from(number).ok().and_then(NonZeroU64::new);
    match amount {
        Some(amount) if number <= AMOUNT_MAX => Some(amount),
        Some(_) => {
            checker.error(
                field,
                format!("`{key}` is {number}"),
                &format!("expected at most {AMOUNT_MAX}; leave the limit out where there is none"),
            );
            None
        }
        None => {
            checker.error(
                field,
                format!("`{key}` is {number}"),
                "expected a number above zero; leave the limit out where there is none",
            );
            None
        }
    }
}

/// Returns what of an amount falls into a slice of the window, at least one: with `rpm = 500`, a window of 60 s and
/// slices of 10 s that is ⌊500 × 10 / 60⌋ = 83.
fn share(amount: NonZeroU64, slice: Duration, window: Duration) -> NonZeroU64 {
    let share = u128::from(amount.get()) * slice.as_millis() / window.as_millis().max(1);
    NonZeroU64::new(u64::try_from(share).unwrap_or(u64::MAX)).unwrap_or(NonZeroU64::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_has_its_share_and_at_least_one() {
        let check = |amount: u64, slice: u64, expect: u64| {
            let amount = NonZeroU64::new(amount).unwrap();
            let share = share(amount, Duration::from_secs(slice), Duration::from_secs(60));
            assert_eq!(share.get(), expect, "{amount} in {slice} s");
        };
        check(500, 10, 83);
        check(600, 1, 10);
        check(3, 1, 1);
    }
}
