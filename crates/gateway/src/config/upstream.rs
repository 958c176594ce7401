//! Checking the upstreams, their limits and their quota groups.

use std::num::NonZeroU64;
use std::path::Path;
use std::time::Duration;

use tidegate_core::{ChargeModel, Dimension, Discipline, Limit, LimitSource};

use super::check::{Checker, Finding, repeated};
use super::field::{Field, Origin, Table};
use super::model::{ModelPattern, ModelTable};
use super::raw::{RawLimits, RawUpstream};
use super::{Authorities, BaseUrl, Group, Http2, Scheme, Upstream, defaults};
use crate::provider::Provider;

/// A day, over which `rpd` and `tpd` count.
const DAY: Duration = Duration::from_secs(86_400);

/// The shortest window: the ledger counts in steps of 100 ms.
const WINDOW_MIN: Duration = Duration::from_secs(1);

/// The largest amount of a limit; no provider sells a millionth of it.
const AMOUNT_MAX: i64 = 1_000_000_000_000;

/// The most upstreams, and the most quota groups in each.
const UPSTREAMS_MAX: usize = 1_000;

/// Checks all upstreams; without any there are two that pass clients' keys through and learn their limits.
pub(super) fn check(checker: &mut Checker<'_>, raws: &[Table<RawUpstream>]) -> Vec<Upstream> {
    if raws.len() > UPSTREAMS_MAX {
        let what = format!("there are {} upstreams", raws.len());
        let help = format!("expected at most {UPSTREAMS_MAX}");
        checker
            .errors
            .push(Finding::new(&Origin::Nowhere, what).help(&help));
        return Vec::new();
    }
    let mut upstreams: Vec<Upstream> = if raws.is_empty() {
        [Provider::OpenAi, Provider::Anthropic]
            .map(|provider| {
                let raw = RawUpstream {
                    provider: Field::flag("", Some(provider.name().to_owned())),
                    ..RawUpstream::default()
                };
                one(
                    checker,
                    &Table {
                        value: raw,
                        origin: Origin::Nowhere,
                    },
                    "upstreams",
                )
            })
            .into()
    } else {
        raws.iter()
            .enumerate()
            .map(|(at, raw)| one(checker, raw, &format!("upstreams[{at}]")))
            .collect()
    };
    for (at, before) in repeated(upstreams.iter().map(|upstream| upstream.name.as_str())) {
        let Some(raw) = raws.get(at) else { continue };
        let origin = if raw.value.name.is_absent() {
            &raw.origin
        } else {
            raw.value.name.origin()
        };
        let what = format!(
            "upstreams[{at}] and upstreams[{before}] are both called \"{}\"",
            upstreams[at].name
        );
        checker
            .errors
            .push(Finding::new(origin, what).help("give each a `name` of its own"));
    }
    let mut next = 0..;
    for upstream in &mut upstreams {
        for group in upstream.groups.iter_mut().chain([&mut upstream.unlisted]) {
            group.index = next.next().unwrap_or_default();
        }
    }
    upstreams
}

fn one(checker: &mut Checker<'_>, raw: &Table<RawUpstream>, at: &str) -> Upstream {
    let key = |name: &str| format!("{at}.{name}");
    let given = provider(checker, raw, &key("provider"));
    let provider = given.unwrap_or(Provider::Compatible);
    let origin = &raw.origin;
    let raw = &raw.value;
    // Where nothing says its name, the upstream's place keeps it apart from the others: the provider is the error then.
    let fallback = given.map_or(at, |provider| provider.name());
    let name = name(checker, raw, &key("name"), fallback);
    let base_url = base_url(checker, raw, &key("base_url"), given, origin);
    let api_key = checker.secret(
        &key("api_key"),
        &raw.api_key,
        "leave api_key out to pass the clients' keys through",
    );
    if api_key.is_some() && base_url.scheme() == Scheme::Http && !is_local(base_url.host()) {
        let what = format!("`{}` goes to {} in clear text", key("api_key"), base_url.host());
        checker
            .warnings
            .push(Finding::new(raw.base_url.origin(), what).help("use https:// if the upstream can"));
    }
    let authorities = authorities(checker, raw, &key("ca_file"), base_url.scheme());
    let window = checker.duration(&key("window"), &raw.window, defaults::WINDOW, WINDOW_MIN..=DAY);
    let slice = slice(checker, raw, &key("slice"), window);
    let algorithms = [
        ("rolling", Discipline::Rolling),
        ("token-bucket", Discipline::TokenBucket),
    ];
    let discipline = checker
        .word(&key("algorithm"), &raw.algorithm, &algorithms)
        .unwrap_or_default();
    let charges = [
        ("openai", ChargeModel::OPENAI),
        ("anthropic", ChargeModel::ANTHROPIC),
        ("settled", ChargeModel::SETTLED),
    ];
    let charge = checker
        .word(&key("charge"), &raw.charge, &charges)
        .unwrap_or(provider.profile().charge);
    let versions = [
        ("auto", Http2::Auto),
        ("never", Http2::Never),
        ("always", Http2::Always),
    ];
    let http2 = checker
        .word(&key("http2"), &raw.http2, &versions)
        .unwrap_or_default();
    let rules = Rules {
        window,
        slice,
        discipline,
    };
    let groups = groups(checker, raw, at, &name, &rules);
    let patterns = groups.iter().enumerate();
    let models =
        ModelTable::new(patterns.flat_map(|(at, group)| group.models.iter().map(move |model| (at, model))));
    Upstream {
        unlisted: Group {
            index: 0,
            name: name.clone(),
            models: Vec::new(),
            limits: Vec::new(),
        },
        name,
        provider,
        base_url,
        authorities,
        api_key,
        window,
        discipline,
        charge,
        permit_ttl: checker.duration(
            &key("permit_ttl"),
            &raw.permit_ttl,
            defaults::PERMIT_TTL,
            Duration::from_millis(1)..=Duration::from_secs(10),
        ),
        connect_timeout: checker.timeout(
            &key("connect_timeout"),
            &raw.connect_timeout,
            defaults::CONNECT_TIMEOUT,
        ),
        first_byte_timeout: checker.timeout(
            &key("first_byte_timeout"),
            &raw.first_byte_timeout,
            defaults::FIRST_BYTE_TIMEOUT,
        ),
        idle_timeout: checker.timeout(
            &key("idle_timeout"),
            &raw.idle_timeout,
            defaults::UPSTREAM_IDLE_TIMEOUT,
        ),
        http2,
        groups,
        models,
    }
}

fn provider(checker: &mut Checker<'_>, raw: &Table<RawUpstream>, key: &str) -> Option<Provider> {
    let field = &raw.value.provider;
    if field.is_absent() {
        checker.errors.push(
            Finding::new(&raw.origin, format!("`{key}` is missing")).help(&format!(
                "add one of: {}",
                Provider::ALL.map(Provider::name).join(", ")
            )),
        );
        return None;
    }
    let parsed = checker.given(key, field)?.trim().parse();
    if parsed.is_err() {
        checker.unknown_word(key, field, &Provider::ALL.map(Provider::name));
    }
    parsed.ok()
}

fn name(checker: &mut Checker<'_>, raw: &RawUpstream, key: &str, fallback: &str) -> String {
    let Some(name) = checker.given(key, &raw.name) else {
        return fallback.to_owned();
    };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        checker.error(
            &raw.name,
            format!("`{key}` cannot be a name"),
            "use at most 64 lower-case letters, digits, - and _: it is the first part of the path /name/…",
        );
    } else if ["v1", "v2", "v1alpha", "v1beta", "v1beta1"].contains(&name.as_str()) {
        checker.error(
            &raw.name,
            format!("`{key}` is \"{name}\", which means something else at the beginning of a path"),
            "choose another name",
        );
    }
    name.clone()
}

fn base_url(
    checker: &mut Checker<'_>,
    raw: &RawUpstream,
    key: &str,
    provider: Option<Provider>,
    origin: &Origin,
) -> BaseUrl {
    let fallback = provider
        .and_then(|provider| provider.profile().base_url)
        .unwrap_or("http://127.0.0.1");
    let profile = provider.map(Provider::profile);
    if let Some(text) = checker.given(key, &raw.base_url) {
        match BaseUrl::parse(text) {
            Ok(url) => return url.without_end(profile.map_or(&[], |profile| profile.base_url_ends)),
            Err(error) => checker.error(
                &raw.base_url,
                format!("`{key}`: {error}"),
                "write scheme, host and, if needed, port and path, such as \"https://api.openai.com\"",
            ),
        }
    } else if raw.base_url.is_absent()
        && let Some(profile) = profile.filter(|profile| profile.base_url.is_none())
    {
        checker
            .errors
            .push(Finding::new(origin, format!("`{key}` is missing")).help(&format!(
                "say where the upstream is, such as base_url = \"{}\"",
                profile.base_url_example
            )));
    }
    BaseUrl::parse(fallback).expect("the built-in addresses are addresses")
}

fn authorities(checker: &mut Checker<'_>, raw: &RawUpstream, key: &str, scheme: Scheme) -> Authorities {
    let Some(path) = checker.given(key, &raw.ca_file) else {
        return Authorities::default();
    };
    if scheme == Scheme::Http {
        checker.warnings.push(
            Finding::new(
                raw.ca_file.origin(),
                format!("`{key}` has no effect: base_url is http://"),
            )
            .help("leave it out, or use https:// if the upstream can"),
        );
    }
    Authorities::read(Path::new(path)).unwrap_or_else(|error| {
        checker.error(
            &raw.ca_file,
            format!("`{key}`: the file {error}"),
            "name a PEM file: certificates between lines of -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----",
        );
        Authorities::default()
    })
}

fn is_local(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn slice(checker: &mut Checker<'_>, raw: &RawUpstream, key: &str, window: Duration) -> Option<Duration> {
    let slice = checker.optional_duration(key, &raw.slice, WINDOW_MIN..=DAY)?;
    if slice >= window {
        checker.error(
            &raw.slice,
            format!("`{key}` is not shorter than `window`"),
            "leave it out unless the provider also enforces a share of rpm over a shorter time",
        );
        return None;
    }
    Some(slice)
}

/// How the limits of one upstream are made.
struct Rules {
    window: Duration,
    slice: Option<Duration>,
    discipline: Discipline,
}

fn groups(
    checker: &mut Checker<'_>,
    raw: &RawUpstream,
    at: &str,
    upstream: &str,
    rules: &Rules,
) -> Vec<Group> {
    let mut groups = Vec::new();
    for (number, limits) in raw.limits.iter().enumerate() {
        let at = format!("{at}.limits[{number}]");
        let models = models(checker, limits, &at);
        let limits = limits_of(checker, limits, &at, rules);
        let first = models.first().map(ToString::to_string).unwrap_or_default();
        groups.push(Group {
            index: 0,
            name: format!("{upstream}/{first}"),
            models,
            limits,
        });
    }
    let all = groups.iter().enumerate();
    let all: Vec<_> = all
        .flat_map(|(at, group)| group.models.iter().map(move |model| (at, model)))
        .collect();
    for (again, before) in repeated(all.iter().map(|(_, model)| *model)) {
        let ((at_again, model), (at_before, _)) = (all[again], all[before]);
        let what = if at_again == at_before {
            format!("`{at}.limits[{at_again}].models` lists \"{model}\" twice")
        } else {
            format!("`{at}.limits[{at_again}].models` lists \"{model}\", which limits[{at_before}] lists too")
        };
        let origin = raw.limits[at_again].value.models.origin();
        checker
            .errors
            .push(Finding::new(origin, what).help("a model belongs to one quota group: list it once"));
    }
    groups
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
    let Some(texts) = checker.given(&key, field) else {
        return Vec::new();
    };
    if texts.is_empty() {
        checker.error(
            field,
            format!("`{key}` is empty"),
            "list the models that share these limits; [\"*\"] means all of them together",
        );
    }
    let mut models = Vec::new();
    for text in texts {
        match ModelPattern::parse(text) {
            Some(model) if text.len() <= 256 && !text.contains(char::is_control) => models.push(model),
            _ => checker.error(
                field,
                format!("`{key}` has an entry that is neither a name nor a beginning of names"),
                "write names such as \"gpt-4o\", or a beginning and one * at the end, such as \"gpt-4o-*\"",
            ),
        }
    }
    models
}

fn limits_of(checker: &mut Checker<'_>, raw: &Table<RawLimits>, at: &str, rules: &Rules) -> Vec<Limit> {
    let fields = &raw.value;
    let minute = (rules.window, rules.discipline);
    // Providers count days from some midnight; a rolling day is safe against all of them.
    let day = (DAY, Discipline::Rolling);
    let table = [
        ("rpm", &fields.rpm, Dimension::Requests, minute),
        ("tpm", &fields.tpm, Dimension::Tokens, minute),
        ("itpm", &fields.itpm, Dimension::InputTokens, minute),
        ("otpm", &fields.otpm, Dimension::OutputTokens, minute),
        ("rpd", &fields.rpd, Dimension::Requests, day),
        ("tpd", &fields.tpd, Dimension::Tokens, day),
        ("concurrent", &fields.concurrent, Dimension::Concurrency, minute),
    ];
    let mut limits = Vec::new();
    for (name, field, dimension, (window, discipline)) in table {
        let Some(amount) = amount(checker, &format!("{at}.{name}"), field) else {
            continue;
        };
        limits.push(Limit {
            dimension,
            window,
            amount,
            discipline,
            source: LimitSource::Config,
        });
        if name == "rpm"
            && let Some(slice) = rules.slice
        {
            limits.push(Limit::rolling(dimension, slice, share(amount, slice, window)));
        }
    }
    if table.iter().all(|(_, field, ..)| field.is_absent()) {
        let what = format!("`{at}` has models but no limits");
        checker.warnings.push(Finding::new(&raw.origin, what).help(
            "its models share one quota group whose limits are learned from the answers; add rpm, tpm …",
        ));
    }
    limits
}

fn amount(checker: &mut Checker<'_>, key: &str, field: &Field<i64>) -> Option<NonZeroU64> {
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
