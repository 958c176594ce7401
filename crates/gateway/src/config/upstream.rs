//! Checking the upstreams, their limits and their quota groups.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use tidegate_core::{ChargeModel, Discipline, Guarantee, Learning, LimitSource};

use super::check::{Checker, Finding, repeated};
use super::field::{Field, Origin, Table};
use super::groups::GroupTable;
use super::limits::{self, Rules, SECOND};
use super::preset::{self, Preset};
use super::raw::RawUpstream;
use super::{Authorities, BaseUrl, Group, Http2, Scheme, Secret, Upstream, defaults};
use crate::provider::{Profile, Provider, Slice};

/// The longest window.
const DAY: Duration = Duration::from_secs(86_400);

/// How often limits may be asked for.
const LIMITS_REFRESH: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(3_600);

/// The most upstreams, and the most quota groups in each.
const UPSTREAMS_MAX: usize = 1_000;

/// The longest name.
const NAME_MAX: usize = 64;

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
    let profile = provider.profile();
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
    let rules = rules(checker, raw, at, profile);
    let mut groups = limits::groups(checker, &raw.limits, at, &name, &rules);
    let preset = preset(checker, raw, &key("preset"), given, &name, &rules);
    limits::add_preset(&mut groups, preset.groups);
    let learnings = [
        ("answers", Learning::Answers),
        ("probe", Learning::Probe),
        ("off", Learning::Off),
    ];
    let learning = checker.word(&key("learn"), &raw.learn, &learnings);
    let versions = [
        ("auto", Http2::Auto),
        ("never", Http2::Never),
        ("always", Http2::Always),
    ];
    let http2 = checker.word(&key("http2"), &raw.http2, &versions);
    let stream_usage = checker.given(&key("stream_usage"), &raw.stream_usage);
    let ttl = Duration::from_millis(1)..=Duration::from_secs(10);
    let timeout =
        |checker: &mut Checker<'_>, name, field, default| checker.timeout(&key(name), field, default);
    Upstream {
        table: GroupTable::new(&groups),
        unlisted: Group::unlisted(&name, preset.unlisted, rules.charge),
        groups,
        limits_key: limits_key(checker, raw, at, given),
        limits_workspace: checker
            .given(&key("limits_workspace"), &raw.limits_workspace)
            .cloned(),
        limits_refresh: checker.duration(
            &key("limits_refresh"),
            &raw.limits_refresh,
            defaults::LIMITS_REFRESH,
            LIMITS_REFRESH,
        ),
        name,
        provider,
        base_url,
        authorities,
        api_key,
        window: rules.window,
        discipline: rules.discipline,
        slice: rules.slice,
        charge: rules.charge,
        learning: learning.unwrap_or(profile.learning),
        guarantee: guarantee(checker, raw, &key("guarantee"), &key("epsilon")),
        stream_usage: stream_usage.copied().unwrap_or(profile.stream_usage_optional),
        http2: http2.unwrap_or_default(),
        permit_ttl: checker.duration(&key("permit_ttl"), &raw.permit_ttl, defaults::PERMIT_TTL, ttl),
        connect_timeout: timeout(
            checker,
            "connect_timeout",
            &raw.connect_timeout,
            defaults::CONNECT_TIMEOUT,
        ),
        first_byte_timeout: timeout(
            checker,
            "first_byte_timeout",
            &raw.first_byte_timeout,
            defaults::FIRST_BYTE_TIMEOUT,
        ),
        idle_timeout: timeout(
            checker,
            "idle_timeout",
            &raw.idle_timeout,
            defaults::UPSTREAM_IDLE_TIMEOUT,
        ),
    }
}

/// Returns how limits are made.
fn rules(checker: &mut Checker<'_>, raw: &RawUpstream, at: &str, profile: &Profile) -> Rules {
    let key = |name: &str| format!("{at}.{name}");
    let window = checker.duration(&key("window"), &raw.window, defaults::WINDOW, SECOND..=DAY);
    let slice = slice(checker, raw, &key("slice"), window, profile.slice);
    let algorithms = [
        ("rolling", Discipline::Rolling),
        ("token-bucket", Discipline::TokenBucket),
    ];
    let charges = [
        ("openai", ChargeModel::OPENAI),
        ("azure", ChargeModel::AZURE),
        ("anthropic", ChargeModel::ANTHROPIC),
        ("gemini", ChargeModel::GEMINI),
        ("groq", ChargeModel::GROQ),
        ("settled", ChargeModel::SETTLED),
        ("bedrock", ChargeModel::BEDROCK),
        ("bedrock-mantle", ChargeModel::BEDROCK_MANTLE),
    ];
    let discipline = checker
        .word(&key("algorithm"), &raw.algorithm, &algorithms)
        .unwrap_or(profile.discipline);
    // What somebody knows of the minute says nothing about shorter times.
    let slice_discipline = if discipline == profile.discipline {
        discipline
    } else {
        Discipline::Rolling
    };
    Rules {
        window,
        slice,
        discipline,
        slice_discipline,
        day: profile.day,
        charge: checker
            .word(&key("charge"), &raw.charge, &charges)
            .unwrap_or(profile.charge),
        source: LimitSource::Config,
    }
}

/// Returns the key with which the provider is asked for its limits.
fn limits_key(
    checker: &mut Checker<'_>,
    raw: &RawUpstream,
    at: &str,
    provider: Option<Provider>,
) -> Option<Secret> {
    let key = format!("{at}.limits_key");
    let limits_key = checker.secret(
        &key,
        &raw.limits_key,
        "leave limits_key out: limits are then not asked for",
    )?;
    match provider {
        Some(Provider::Anthropic | Provider::OpenRouter) if raw.api_key.is_absent() => checker.error(
            &raw.limits_key,
            format!("`{key}` is given, but not `{at}.api_key`"),
            "set api_key too: nobody knows whose limits those of a client's key are",
        ),
        None | Some(Provider::Anthropic | Provider::OpenRouter) => {}
        Some(provider) => checker.error(
            &raw.limits_key,
            format!("`{key}` has no effect: {provider} does not tell its limits"),
            "leave it out; anthropic and openrouter tell theirs",
        ),
    }
    Some(limits_key)
}

/// Returns what a preset says.
fn preset(
    checker: &mut Checker<'_>,
    raw: &RawUpstream,
    key: &str,
    provider: Option<Provider>,
    upstream: &str,
    rules: &Rules,
) -> Preset {
    let Some(name) = checker.given(key, &raw.preset) else {
        return Preset::default();
    };
    let name = name.trim();
    let names: Vec<_> = preset::presets().into_iter().map(|info| info.name).collect();
    let Some(found) = preset::read(name, upstream, rules) else {
        // Those of the provider are what was meant, if it has any.
        let own = |name: &&String| preset::provider(name) == provider;
        let mut known: Vec<_> = names.iter().filter(own).map(String::as_str).collect();
        if known.is_empty() {
            known = names.iter().map(String::as_str).collect();
        }
        checker.unknown_word(key, &raw.preset, &known);
        return Preset::default();
    };
    if let (Some(own), Some(of)) = (provider, preset::provider(name))
        && own != of
    {
        checker.error(
            &raw.preset,
            format!("`{key}` is one of {of}'s, but the provider is {own}"),
            "choose one of the provider's own, or leave it out",
        );
        return Preset::default();
    }
    found
}

fn guarantee(checker: &mut Checker<'_>, raw: &RawUpstream, key: &str, epsilon_key: &str) -> Guarantee {
    let words = [("statistical", false), ("hard", true)];
    let is_hard = checker.word(key, &raw.guarantee, &words).unwrap_or_default();
    let epsilon = checker.given(epsilon_key, &raw.epsilon).copied();
    if is_hard {
        if epsilon.is_some() {
            let what = format!("`{epsilon_key}` has no effect: `guarantee` is \"hard\"");
            let finding = Finding::new(raw.epsilon.origin(), what);
            checker.warnings.push(finding.help("leave one of them out"));
        }
        return Guarantee::Hard;
    }
    match epsilon {
        None => Guarantee::default(),
        Some(epsilon) if (0.000_001..=0.5).contains(&epsilon) => Guarantee::Statistical {
            // Within bounds, so neither sign nor size is lost.
            per_million: (epsilon * 1_000_000.0).round() as u32,
        },
        Some(epsilon) => {
            checker.error(
                &raw.epsilon,
                format!("`{epsilon_key}` is {epsilon}"),
                "expected a chance from 0.000001 to 0.5, such as 0.001",
            );
            Guarantee::default()
        }
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
    if !is_name(name) {
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

/// Returns whether a text may be the name of an upstream, a tenant or a route.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(plain)
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

fn slice(
    checker: &mut Checker<'_>,
    raw: &RawUpstream,
    key: &str,
    window: Duration,
    own: Option<Slice>,
) -> Option<Slice> {
    if raw.slice.is_absent() {
        return own;
    }
    if raw.slice.value().is_some_and(|text| text.0.trim() == "off") {
        return None;
    }
    let slice = checker.optional_duration(key, &raw.slice, SECOND..=DAY)?;
    if slice >= window {
        checker.error(
            &raw.slice,
            format!("`{key}` is not shorter than `window`"),
            "leave it out unless the provider also enforces a share of rpm over a shorter time",
        );
        return None;
    }
    Some(Slice::Of(slice))
}
