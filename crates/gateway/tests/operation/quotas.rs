//! Which quota group a request belongs to, and whose limits hold there: the configuration's, a preset's, a provider's own.

use tidegate_core::{Dimension, Discipline, Learning, LimitSource, Tokens, Zone};
use tidegate_gateway::config::{AccountHasher, Config};
use tidegate_gateway::provider::Scope;

use crate::config::{EVERYTHING, read};

/// Returns the limits of the group that a request belongs to: dimension, amount, seconds, source.
fn limits_for(
    config: &Config,
    scope: Scope,
    model: &str,
    input: u64,
) -> (String, Vec<(Dimension, u64, u64, LimitSource)>) {
    let upstream = &config.upstreams[0];
    let route = upstream.route_for(scope, Some(model), Tokens::new(input));
    let (_, group) = config.groups().nth(route.index).unwrap();
    let limits = group.limits.iter();
    let limits = limits.map(|limit| {
        (
            limit.dimension,
            limit.amount.get(),
            limit.window.as_secs(),
            limit.source,
        )
    });
    (group.name.clone(), limits.collect())
}

#[test]
fn requests_find_their_group_by_endpoint_length_and_model() {
    let config = read(EVERYTHING).unwrap();
    let group = |scope, model, input| limits_for(&config, scope, model, input).0;
    assert_eq!(group(Scope::Model, "m", 200_000), "a/m");
    assert_eq!(group(Scope::Model, "m", 200_001), "a/m>200000");
    assert_eq!(group(Scope::Model, "n2", 200_001), "a/m");
    assert_eq!(group(Scope::Model, "x:free", 0), "a/m");
    assert_eq!(group(Scope::Model, "x", 0), "a");
    assert_eq!(group(Scope::ModelRequests, "m", 0), "a/m");
    assert_eq!(group(Scope::Own("count_tokens"), "m", 0), "a/count_tokens");
    assert_eq!(group(Scope::Own("other"), "m", 0), "a");
    let upstream = &config.upstreams[0];
    assert_eq!(
        (upstream.stream_usage, upstream.limits_refresh.as_secs()),
        (false, 120)
    );
    let route = upstream.route(Some("m"));
    assert_eq!(route.max_tokens_cap, Some(200));
    assert_eq!(upstream.route(Some("x")).max_tokens_cap, None);
    let hasher = AccountHasher::default();
    let account = |scope, model: Option<&str>| {
        let route = upstream.route_for(scope, model, Tokens::ZERO);
        hasher.account(route, None, model)
    };
    assert_ne!(
        account(Scope::Own("tokenize"), Some("m")),
        account(Scope::Own("other"), Some("m"))
    );
    assert_eq!(
        account(Scope::Own("tokenize"), Some("m")),
        account(Scope::Own("tokenize"), Some("n"))
    );
}

#[test]
fn configured_limits_go_before_a_preset_by_dimension_and_model() {
    use Dimension::{InputTokens, OutputTokens, Requests, Tokens};
    use LimitSource::{Config as Given, Preset};
    let config = read(
        r#"
        [[upstreams]]
        provider = "openai"
        preset = "openai/tier-1"
        [[upstreams.limits]]
        models = ["gpt-4o"]
        rpm = 300
        [[upstreams.limits]]
        models = ["gpt-5*"]
        tpm = 7
        "#,
    )
    .unwrap();
    assert_eq!(config.warnings, []);
    let check = |model: &str, name: &str, expect: &[(Dimension, u64, u64, LimitSource)]| {
        let found = limits_for(&config, Scope::Model, model, 0);
        assert_eq!(found, (name.to_owned(), expect.to_vec()), "{model}");
    };
    let four = [(Requests, 300, 60, Given), (Tokens, 30_000, 60, Preset)];
    check("gpt-4o", "openai/gpt-4o", &four);
    // It shares its quota with gpt-4o, so what is said of that one holds.
    check("gpt-4o-2024-08-06", "openai/gpt-4o", &four);
    check(
        "gpt-4o-mini",
        "openai/gpt-4o-mini",
        &[
            (Requests, 500, 60, Preset),
            (Tokens, 200_000, 60, Preset),
            (Requests, 10_000, 86_400, Preset),
        ],
    );
    // The pattern covers two quotas of the preset, so neither says anything about it.
    check("gpt-5-mini", "openai/gpt-5*", &[(Tokens, 7, 60, Given)]);
    check("o3", "openai", &[]);

    let config = read("[[upstreams]]\nprovider = \"anthropic\"\npreset = \"anthropic/start\"").unwrap();
    let (name, limits) = limits_for(&config, Scope::Model, "claude-opus-4-7", 0);
    assert_eq!(name, "anthropic/claude-opus-4-8*");
    assert_eq!(
        limits,
        [
            (Requests, 1_000, 60, Preset),
            (Requests, 166, 10, Preset),
            (InputTokens, 2_000_000, 60, Preset),
            (OutputTokens, 400_000, 60, Preset)
        ]
    );
    let (name, limits) = limits_for(&config, Scope::Own("count_tokens"), "claude", 0);
    assert_eq!(
        (name.as_str(), limits),
        (
            "anthropic/count_tokens",
            vec![(Requests, 2_000, 60, Preset), (Requests, 333, 10, Preset)]
        )
    );

    // Every model for itself, and no more than one request in a second.
    let config = read("[[upstreams]]\nprovider = \"mistral\"\npreset = \"mistral/free\"").unwrap();
    let (name, limits) = limits_for(&config, Scope::Model, "mistral-large", 0);
    assert_eq!(name, "mistral");
    assert_eq!(limits, [(Tokens, 500_000, 60, Preset), (Requests, 1, 1, Preset)]);
    assert!(config.upstreams[0].route(Some("mistral-large")).per_model);

    // `*` is about everything.
    let config = read(
        "[[upstreams]]\nprovider = \"groq\"\npreset = \"groq/free\"\n[[upstreams.limits]]\nmodels = [\"*\"]\nrpm = 3",
    )
    .unwrap();
    let (name, limits) = limits_for(&config, Scope::Model, "qwen/qwen3-32b", 0);
    assert_eq!(
        (name.as_str(), limits),
        ("groq/*", vec![(Requests, 3, 60, Given)])
    );
}

#[test]
fn providers_have_defaults_of_their_own() {
    let limits = |provider: &str, more: &str| {
        let text = format!(
            "[[upstreams]]\nprovider = \"{provider}\"\nbase_url = \"https://host\"\n{more}\n\
             [[upstreams.limits]]\nmodels = [\"*\"]\nrpm = 60\nrpd = 1000"
        );
        let plan = read(&text).unwrap().plan();
        let limits = plan.quotas[0].limits.iter();
        let limits: Vec<_> = limits
            .map(|limit| (limit.amount.get(), limit.window.as_secs(), limit.discipline))
            .collect();
        (plan.quotas[0].learning, limits)
    };
    let (rolling, bucket) = (Discipline::Rolling, Discipline::TokenBucket);
    let minute = (60, 60, rolling);
    let day = |discipline| (1_000, 86_400, discipline);
    assert_eq!(
        limits("openai", ""),
        (Learning::Answers, vec![minute, day(bucket)])
    );
    assert_eq!(
        limits("groq", ""),
        (Learning::Answers, vec![(60, 60, bucket), day(bucket)])
    );
    assert_eq!(
        limits("anthropic", ""),
        (
            Learning::Answers,
            vec![(60, 60, bucket), (10, 10, bucket), day(rolling)]
        )
    );
    // Whoever says how a minute is kept says nothing of shorter times.
    assert_eq!(
        limits("azure", "algorithm = \"token-bucket\""),
        (
            Learning::Answers,
            vec![(60, 60, bucket), (10, 10, rolling), day(rolling)]
        )
    );
    assert_eq!(
        limits("azure", ""),
        (Learning::Answers, vec![minute, (10, 10, rolling), day(rolling)])
    );
    assert_eq!(
        limits("azure", "slice = \"off\""),
        (Learning::Answers, vec![minute, day(rolling)])
    );
    assert_eq!(
        limits("mistral", ""),
        (Learning::Answers, vec![minute, (1, 1, rolling), day(rolling)])
    );
    assert_eq!(
        limits("gemini", ""),
        (Learning::Probe, vec![minute, day(Discipline::Day(Zone::Pacific))])
    );
    assert_eq!(
        limits("openrouter", "learn = \"off\""),
        (Learning::Off, vec![minute, day(Discipline::Day(Zone::Utc))])
    );
}
