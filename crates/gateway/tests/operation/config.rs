//! Configuration: what parses, what does not, and what is said then.

use std::env::VarError;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use tidegate_core::{
    BudgetUnit, ChargeModel, Dimension, Discipline, Guarantee, Learning, Order, Period, Priority, QuotaId,
    RunPlan, TierPlan, Zone,
};
use tidegate_gateway::config::{
    self, AccountHasher, Auth, Config, ConfigArgs, ConfigError, Http2, RouteClues,
};
use tidegate_gateway::prices;
use tidegate_gateway::provider::{Endpoint, Provider};

use crate::golden;

/// Never to be seen in anything that is printed.
const CANARY: &str = "sk-canary-7f3a9c51";

fn environment(name: &str) -> Result<String, VarError> {
    match name {
        "KEY" | "TOKEN" => Ok(format!(" {CANARY}\n")),
        "OTHER" => Ok("tg-other".to_owned()),
        "EMPTY" => Ok(String::new()),
        "BROKEN" => Ok(format!("{CANARY} \"quoted\"")),
        _ => Err(VarError::NotPresent),
    }
}

pub(crate) fn read(text: &str) -> Result<Config, ConfigError> {
    Config::from_toml_with(text, "tidegate.toml", environment)
}

fn flags(args: &[&str]) -> Result<Config, ConfigError> {
    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        config: ConfigArgs,
    }
    let args = std::iter::once("tidegate").chain(args.iter().copied());
    <Flags as clap::Parser>::parse_from(args).config.load()
}

#[test]
fn nothing_configured_serves_both_providers_with_the_clients_keys() {
    for config in [
        read("").unwrap(),
        flags(&[]).unwrap(),
        read("[server]\nworkers = 1").unwrap(),
    ] {
        let names: Vec<_> = config
            .upstreams
            .iter()
            .map(|upstream| upstream.name.as_str())
            .collect();
        assert_eq!(names, ["openai", "anthropic"]);
        assert!(config.upstreams.iter().all(|upstream| upstream.api_key.is_none()));
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(
            config.server.admin.as_ref().unwrap().listen.to_string(),
            "127.0.0.1:9090"
        );
        let plan = config.plan();
        assert_eq!(plan.quotas.len(), 2);
        assert!(
            plan.quotas
                .iter()
                .all(|quota| quota.limits.is_empty() && quota.learning == tidegate_core::Learning::Answers)
        );
        assert_eq!(plan.quotas[1].charge, ChargeModel::ANTHROPIC);
        assert_eq!(config.upstreams[1].provider, Provider::Anthropic);
    }
}

#[test]
fn the_defaults_of_the_core_and_of_the_configuration_are_the_same() {
    let plan = read("").unwrap().plan();
    assert_eq!(plan.queue, tidegate_core::QueueBounds::default());
    assert_eq!(plan.retry, tidegate_core::RetryPolicy::default());
    assert_eq!((plan.tiers, plan.runs), (TierPlan::USUAL, RunPlan::default()));
    let quota = &plan.quotas[0];
    assert_eq!(
        *quota,
        tidegate_core::QuotaPlan::new("openai", vec![], ChargeModel::OPENAI)
    );
}

#[test]
fn every_example_parses_without_a_warning() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let config = Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(config.warnings, [], "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 14, "one for every provider, and two besides");
}

/// What people copy from the guides must work. The first block of a page stands for itself; the others are parts.
#[test]
fn every_configuration_in_the_guides_parses() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides");
    let keys = tempfile::NamedTempFile::new().unwrap();
    let keys_file = format!("keys_file = \"{}\"", keys.path().display());
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let page = std::fs::read_to_string(&path).unwrap();
        let blocks = page.split("```toml\n").skip(1);
        for (at, block) in blocks.enumerate() {
            let text = block.split("```").next().unwrap();
            let text = text.replace("keys_file = \"keys.toml\"", &keys_file);
            let name = format!("{}, block {at}", path.display());
            let config = Config::from_toml_with(&text, &name, |variable| {
                Ok(match (variable, text.contains("rediss://")) {
                    ("REDIS_URL", true) => "rediss://user:password@host:6380".to_owned(),
                    ("REDIS_URL", false) => "redis://user:password@host:6379".to_owned(),
                    _ => "sk-test".to_owned(),
                })
            });
            let config = config.unwrap_or_else(|error| panic!("{error}"));
            if at == 0 {
                assert_eq!(config.warnings, [], "{name}");
            }
            seen += 1;
        }
    }
    assert!(
        seen >= 5,
        "the guides have their configurations in blocks of toml"
    );
}

/// Every key, none with its default.
pub(crate) const EVERYTHING: &str = r#"
[server]
listen = "0.0.0.0:0"
admin = "0.0.0.0:0"
admin_token = "env:TOKEN"
workers = 3
connections_max = 5
head_bytes_max = 2048
headers_max = 7
body_bytes_max = "1MiB"
head_timeout = "1s"
body_timeout = "2s"
idle_timeout = "3s"
drain_timeout = "4s"
stream_drain_timeout = "5s"
queue_requests_max = 6
queue_bytes_max = "2MiB"
max_wait = "7s"
auth = "keys"
tenant_header = "X-Tenant"
[store]
redis = "redis://host"
nodes = ["other:6379"]
cluster = true
prefix = "other"
on_store_loss = "share"
share = 0.25
share_for = "7s"
lease = "8s"
trust_empty = true
[[tenants]]
name = "a"
key = "env:KEY"
keys = ["env:OTHER"]
key_sha256 = ["ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]
weight = 7
priority = "high"
default_priority = "low"
order = "deadline"
rpm = 1
tpm = 2
itpm = 3
otpm = 4
rps = 5
rpd = 6
tpd = 7
concurrent = 8
tokens_per_day = 9
tokens_per_month = 10
dollars_per_day = 0.15
dollars_per_month = 11
models = ["m", "n*"]
upstreams = ["a"]
queue_requests_max = 12
queue_bytes_max = "3MiB"
[[tenants]]
name = "*"
rpm = 13
[[routes]]
name = "r"
operations = ["chat", "completions"]
paths = ["/v1/*"]
tags = ["eval", "nightly"]
models = ["m"]
priority = "batch"
max_wait = "9s"
rpm = 1
tpm = 2
itpm = 3
otpm = 4
rps = 5
rpd = 6
tpd = 7
concurrent = 8
[priorities]
high = 40
normal = 30
low = 20
batch = 10
[runs]
calls = 1
tokens = 2
dollars = 3.5
time = "4m"
depth = 5
repeats = 6
idle = "7m"
[[prices]]
models = ["m"]
input = 2.5
cached_input = 0.5
output = 10
[retry]
backoff_min = "10ms"
backoff_max = "20ms"
horizon = "30ms"
budget_percent = 0
budget_floor = 0
[[upstreams]]
name = "a"
provider = "compatible"
base_url = "https://host:8443/api/v1/"
api_key = "env:KEY"
window = "6s"
algorithm = "token-bucket"
slice = "1s"
charge = "openai"
http2 = "always"
connect_timeout = "11s"
first_byte_timeout = "12s"
idle_timeout = "13s"
permit_ttl = "14ms"
learn = "probe"
guarantee = "statistical"
epsilon = 0.01
stream_usage = false
limits_refresh = "2m"
[[upstreams.limits]]
models = ["m", "n*", "*:free"]
default_max_tokens = 100
max_tokens_cap = 200
burndown = 5
day = "utc"
rpm = 60
tpm = 1_000
itpm = 800
otpm = 200
rpd = 5_000
tpd = 6_000
rps = 7
concurrent = 3
[[upstreams.limits]]
models = ["m"]
context_over = 200_000
tpm = 500
[[upstreams.limits]]
endpoint = "count_tokens"
rpm = 40
"#;

#[test]
fn everything_that_can_be_said_arrives() {
    let config = read(EVERYTHING).unwrap();
    let server = &config.server;
    let admin = server.admin.as_ref().unwrap();
    assert!(admin.token.as_ref().unwrap().matches(CANARY.as_bytes()));
    assert_eq!(
        (
            server.workers.get(),
            server.connections_max,
            server.head_bytes_max
        ),
        (3, 5, 2048)
    );
    assert_eq!((server.headers_max, server.body_bytes_max), (7, 1 << 20));
    let seconds = [
        server.head_timeout,
        server.body_timeout,
        server.idle_timeout,
        server.drain_timeout,
        server.stream_drain_timeout,
    ];
    assert_eq!(seconds.map(|timeout| timeout.as_secs()), [1, 2, 3, 4, 5]);
    assert_eq!((config.queue.requests_max, config.queue.bytes_max), (6, 2 << 20));
    assert_eq!(config.queue.wait_max, Duration::from_secs(7));
    assert_eq!((config.retry.budget_percent, config.retry.budget_floor), (0, 0));
    let upstream = &config.upstreams[0];
    assert_eq!(
        (upstream.provider, upstream.http2),
        (Provider::Compatible, Http2::Always)
    );
    assert_eq!(upstream.base_url.to_string(), "https://host:8443/api");
    assert_eq!(upstream.api_key.as_ref().unwrap().expose(), CANARY);
    let times = [
        upstream.connect_timeout,
        upstream.first_byte_timeout,
        upstream.idle_timeout,
    ];
    assert_eq!(times.map(|time| time.as_secs()), [11, 12, 13]);
}

#[test]
fn who_asks_becomes_a_plan() {
    let config = read(EVERYTHING).unwrap();
    assert_eq!(config.server.auth, Auth::Keys);
    assert_eq!(config.server.tenant_header.as_ref().unwrap(), "x-tenant");
    let [tenant, each_other] = &config.tenants[..] else {
        panic!("{:?}", config.tenants);
    };
    let own: Vec<_> = tenant.keys.iter().map(|key| key.is_own).collect();
    assert_eq!(own, [false, true, true]);
    assert_eq!(
        (tenant.priority, tenant.default_priority),
        (Priority::High, Priority::Low)
    );
    assert!(tenant.may_use("m") && tenant.may_use("no") && !tenant.may_use("mm"));
    assert_eq!(tenant.upstreams.as_deref(), Some(&[0][..]));
    assert_eq!(each_other.priority, Priority::Normal);
    assert_eq!(config.each_other(), Some(1));
    let plan = config.plan();
    let [tenant, each_other] = &plan.tenants[..] else {
        panic!("{:?}", plan.tenants);
    };
    let limits = [
        (Dimension::Requests, 60, 1),
        (Dimension::Tokens, 60, 2),
        (Dimension::InputTokens, 60, 3),
        (Dimension::OutputTokens, 60, 4),
        (Dimension::Requests, 1, 5),
        (Dimension::Requests, 86_400, 6),
        (Dimension::Tokens, 86_400, 7),
        (Dimension::Concurrency, 60, 8),
    ];
    let shown = |limits: &[tidegate_core::Limit]| {
        let shown = limits.iter().map(|limit| {
            assert_eq!(limit.discipline, Discipline::Rolling);
            (limit.dimension, limit.window.as_secs(), limit.amount.get())
        });
        shown.collect::<Vec<_>>()
    };
    assert_eq!(shown(&tenant.limits), limits);
    assert_eq!((tenant.weight.get(), tenant.order), (7, Order::Deadline));
    assert_eq!((tenant.waiting_max, tenant.waiting_bytes_max), (12, 3 << 20));
    let budgets: Vec<_> = tenant
        .budgets
        .iter()
        .map(|of| (of.unit, of.period, of.amount))
        .collect();
    assert_eq!(
        budgets,
        [
            (BudgetUnit::Tokens, Period::Day, 9),
            (BudgetUnit::Tokens, Period::Month, 10),
            (BudgetUnit::Cost, Period::Day, 150_000),
            (BudgetUnit::Cost, Period::Month, 11_000_000),
        ]
    );
    assert_eq!(
        (each_other.name.as_str(), each_other.waiting_max),
        ("*", usize::MAX)
    );
    assert_eq!(plan.routes[0].name, "r");
    assert_eq!(shown(&plan.routes[0].limits), limits);
    let route = &config.routes[0];
    assert_eq!(
        (route.priority, route.max_wait),
        (Some(Priority::Batch), Some(Duration::from_secs(9)))
    );
    assert_eq!(plan.tiers.map(|tier| tier.share_percent), [40, 30, 20, 10]);
    let runs = RunPlan {
        calls: Some(1),
        tokens: Some(2),
        cost: Some(3_500_000),
        time: Some(Duration::from_secs(240)),
        depth: Some(5),
        repeats: Some(6),
        idle: Duration::from_secs(420),
    };
    assert_eq!(plan.runs, runs);
    let price = config.price("m").unwrap();
    assert_eq!(
        (price.input, price.cached_input, price.output),
        (2_500_000, 500_000, 10_000_000)
    );
    assert!(config.price("gpt-4o").is_some() && config.price("unheard-of").is_none());
}

#[test]
fn a_request_takes_the_first_route_whose_conditions_all_hold() {
    let config = read(
        r#"
        [[routes]]
        name = "nightly"
        tags = ["nightly", "eval"]
        operations = ["chat"]
        [[routes]]
        name = "small"
        models = ["*-mini"]
        operations = ["chat", "embeddings"]
        [[routes]]
        name = "azure"
        paths = ["/openai/*", "/azure/openai/*"]
        "#,
    )
    .unwrap();
    let check = |endpoint, path, tags: &[&str], model, expect: Option<&str>| {
        let clues = RouteClues {
            endpoint,
            path,
            tags,
            model,
        };
        let route = config.route_of(clues).map(|at| config.routes[at].name.as_str());
        assert_eq!(route, expect, "{clues:?}");
    };
    let chat = Endpoint::ChatCompletions;
    check(
        chat,
        "/v1/chat/completions",
        &["a, eval"],
        Some("o3-mini"),
        Some("nightly"),
    );
    check(
        chat,
        "/v1/chat/completions",
        &["a", "x,nightly "],
        None,
        Some("nightly"),
    );
    check(
        chat,
        "/v1/chat/completions",
        &["evaluation"],
        Some("o3-mini"),
        Some("small"),
    );
    check(
        Endpoint::Messages,
        "/v1/messages",
        &[],
        Some("o3-mini"),
        Some("small"),
    );
    check(
        Endpoint::CohereEmbed,
        "/v2/embed",
        &["eval"],
        Some("e-mini"),
        Some("small"),
    );
    check(
        Endpoint::Other,
        "/openai/files",
        &["eval"],
        Some("o3-mini"),
        Some("azure"),
    );
    check(chat, "/openai/v1/chat/completions", &[], None, Some("azure"));
    check(chat, "/v1/chat/completions", &[], Some("o3"), None);
    check(Endpoint::Other, "/v1/files", &["nightly"], None, None);
}

#[test]
fn keys_are_needed_as_soon_as_there_are_any() {
    for (text, expect) in [
        ("", Auth::Open),
        ("[[tenants]]\nname = \"a\"", Auth::Open),
        ("[[tenants]]\nname = \"a\"\nkey = \"env:KEY\"", Auth::Keys),
        ("[server]\ntenant_header = \"x-tenant\"", Auth::Open),
        (
            "[server]\nauth = \"keys\"\ntenant_header = \"x-tenant\"",
            Auth::Keys,
        ),
        (
            "[server]\nauth = \"open\"\n[[tenants]]\nname = \"a\"\nkey = \"env:KEY\"",
            Auth::Open,
        ),
    ] {
        assert_eq!(read(text).unwrap().server.auth, expect, "{text}");
    }
}

#[test]
fn a_file_of_certificates_is_read_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = rcgen::generate_simple_self_signed(["tide.example".to_owned()]).unwrap();
    let pem = certificate.cert.pem();
    let text = |scheme: &str, name: &str| {
        let path = folder.path().join(name);
        format!(
            "[[upstreams]]\nprovider = \"compatible\"\nbase_url = \"{scheme}://host\"\nca_file = {:?}\n",
            path.to_str().unwrap()
        )
    };
    for (name, content, expect) in [
        ("one.pem", pem.clone(), ""),
        ("two.pem", format!("a comment\n{pem}\n{pem}"), ""),
        (
            "none.pem",
            "nothing".to_owned(),
            "`upstreams[0].ca_file`: the file holds no certificate",
        ),
        (
            "key.pem",
            certificate.signing_key.serialize_pem(),
            "holds no certificate",
        ),
        (
            "broken.pem",
            format!("{pem}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "holds something that is not a certificate, as number 2",
        ),
    ] {
        std::fs::write(folder.path().join(name), content).unwrap();
        match read(&text("https", name)) {
            Ok(config) => {
                assert_eq!(expect, "", "{name}");
                assert_eq!(config.warnings, [], "{name}");
                let authorities = &config.upstreams[0].authorities;
                assert_eq!(
                    authorities.certificates().count(),
                    usize::from(name == "two.pem") + 1
                );
            }
            Err(error) => {
                let error = error.to_string();
                assert!(!expect.is_empty() && error.contains(expect), "{name}: {error}");
                assert!(error.contains("tidegate.toml:4:11"), "{name}: {error}");
            }
        }
    }
    let error = read(&text("https", "missing.pem")).unwrap_err().to_string();
    assert!(error.contains("the file cannot be read: No such file"), "{error}");
    let config = read(&text("http", "one.pem")).unwrap();
    assert_eq!(config.warnings.len(), 1);
    assert!(config.upstreams[0].authorities.certificates().next().is_some());
    assert!(read("").unwrap().upstreams[0].authorities.is_empty());
}

#[test]
fn limits_become_a_plan() {
    let plan = read(EVERYTHING).unwrap().plan();
    let quota = &plan.quotas[0];
    let charge = ChargeModel {
        unset_output: 100,
        output_percent: 500,
        ..ChargeModel::OPENAI
    };
    assert_eq!((quota.name.as_str(), quota.charge), ("a/m", charge));
    assert_eq!(
        (quota.learning, quota.guarantee),
        (Learning::Probe, Guarantee::Statistical { per_million: 10_000 })
    );
    let names: Vec<_> = plan.quotas.iter().map(|quota| quota.name.as_str()).collect();
    assert_eq!(names, ["a/m", "a/m>200000", "a/count_tokens", "a"]);
    assert_eq!(
        (quota.window, quota.permit_ttl),
        (Duration::from_secs(6), Duration::from_millis(14))
    );
    let limits: Vec<_> = quota
        .limits
        .iter()
        .map(|limit| {
            (
                limit.dimension,
                limit.amount.get(),
                limit.window.as_secs(),
                limit.discipline,
            )
        })
        .collect();
    let (rolling, bucket, day) = (
        Discipline::Rolling,
        Discipline::TokenBucket,
        Discipline::Day(Zone::Utc),
    );
    assert_eq!(
        limits,
        [
            (Dimension::Requests, 60, 6, bucket),
            (Dimension::Tokens, 1_000, 6, bucket),
            (Dimension::InputTokens, 800, 6, bucket),
            (Dimension::OutputTokens, 200, 6, bucket),
            (Dimension::Requests, 7, 1, rolling),
            (Dimension::Requests, 5_000, 86_400, day),
            (Dimension::Tokens, 6_000, 86_400, day),
            (Dimension::Concurrency, 3, 6, bucket),
        ]
    );
}

#[test]
fn flags_say_the_same_as_a_file() {
    let flags = flags(&[
        "--upstream=openai",
        "--rpm=500",
        "--tpm=30000",
        "--base-url=http://127.0.0.1:9001",
        "--listen=127.0.0.1:0",
        "--admin=off",
        "--window=6s",
    ])
    .unwrap();
    let file = read(
        r#"
        server = { listen = "127.0.0.1:0", admin = "off" }
        [[upstreams]]
        provider = "openai"
        base_url = "http://127.0.0.1:9001"
        window = "6s"
        [[upstreams.limits]]
        models = ["*"]
        rpm = 500
        tpm = 30000
        "#,
    )
    .unwrap();
    let shown = |config: &Config| format!("{config:?}").replace(&config.source, "");
    assert_eq!(flags.plan(), file.plan());
    assert_eq!(shown(&flags), shown(&file));
}

#[test]
fn listen_and_admin_flags_go_before_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[server]\nlisten = \"127.0.0.1:1\"\nworkers = 2").unwrap();
    let config = flags(&[
        "--config",
        file.path().to_str().unwrap(),
        "--listen",
        "127.0.0.1:2",
    ])
    .unwrap();
    assert_eq!((config.server.listen.port(), config.server.workers.get()), (2, 2));
}

#[test]
fn models_find_their_group_and_clients_their_account() {
    let config = read(
        r#"
        [[upstreams]]
        name = "through"
        provider = "openai"
        [[upstreams.limits]]
        models = ["gpt-4o", "gpt-4o-2024-*"]
        rpm = 1
        [[upstreams]]
        name = "own"
        provider = "anthropic"
        api_key = "env:KEY"
        [[upstreams.limits]]
        models = ["*"]
        rpm = 1
        "#,
    )
    .unwrap();
    let names: Vec<_> = config
        .groups()
        .map(|(_, group)| (group.index, group.name.as_str()))
        .collect();
    assert_eq!(
        names,
        [(0, "through/gpt-4o"), (1, "through"), (2, "own/*"), (3, "own")]
    );
    let plan = config.plan();
    for (at, (_, name)) in names.iter().enumerate() {
        assert_eq!(plan.quotas[at].name, *name);
    }

    let (_, through) = config.upstream("through").unwrap();
    let shared = through.route(Some("gpt-4o-2024-08-06"));
    assert_eq!(
        (shared.id, shared.per_model),
        (QuotaId::of("through/gpt-4o"), false)
    );
    assert_eq!(shared, through.route(Some("gpt-4o")));
    let unlisted = through.route(Some("o3"));
    assert_eq!(
        (unlisted.id, unlisted.index, unlisted.per_model),
        (QuotaId::of("through"), 1, true)
    );
    assert_eq!(unlisted, through.route(None));

    let hasher = AccountHasher::default();
    let account = |route, key: Option<&str>, model| hasher.account(route, key.map(str::as_bytes), model);
    let one = account(shared, Some("k1"), Some("gpt-4o"));
    assert_eq!(
        one,
        account(shared, Some("k1"), Some("gpt-4o-2024-08-06")),
        "models share the key's limits"
    );
    assert_ne!(one, account(shared, Some("k2"), Some("gpt-4o")), "keys do not");
    let one = account(unlisted, Some("k1"), Some("o3"));
    assert_ne!(
        one,
        account(unlisted, Some("k1"), Some("o4")),
        "unlisted models have limits of their own"
    );
    assert_ne!(one, account(unlisted, Some("k2"), Some("o3")));
    let (_, own) = config.upstream("own").unwrap();
    assert_eq!(account(own.route(Some("claude")), None, Some("claude")), 0);
}

/// One text for each thing that can be wrong.
const WRONG: &[&str] = &[
    // the form
    "server = 3",
    "upstreams = \"openai\"",
    "[upstreams]\nprovider = \"openai\"",
    "upstreams = [1]",
    "[server\nlisten = 1",
    "[server]\nlisten = ",
    "[server]\nlisten = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"",
    "[[upstreams]]\napi_key = sk-canary-7f3a9c51",
    "[[upstreams]]\nprovider = \"openai\"\napi_key = \"sk-canary-7f3a9c51",
    "[servers]\nlisten = \"127.0.0.1:1\"",
    "[server]\nlistn = \"127.0.0.1:1\"\nport = 3\nzebra = 1",
    "[[upstreams]]\nprovider = \"openai\"\nurl = \"https://host\"\n[[upstreams.limits]]\nmodels = [\"*\"]\nrequests_per_minute = 3",
    // the store
    "store = \"redis://127.0.0.1\"",
    "[store]",
    "[store]\nredis = 6379",
    "[store]\nredis = \"127.0.0.1:6379\"",
    "[store]\nurl = \"redis://127.0.0.1\"\nsentinels = [\"a\"]",
    "[store]\nredis = \"http://user:sk-canary-7f3a9c51@host\"",
    "[store]\nredis = \"redis://user:sk-canary-7f3a9c51@/0\"",
    "[store]\nredis = \"redis://user:sk-canary-7f3a9c51%zz@host\"",
    "[store]\nredis = \"redis://user:sk-canary-7f3a9c51@host:port\"",
    "[store]\nredis = \"redis://user:sk-canary-7f3a9c51@host/a\"",
    "[store]\nredis = \"redis://user:sk-canary-7f3a9c51@host?a=b\"",
    "[store]\nredis = \"env:NONE\"",
    "[store]\nredis = \"env:EMPTY\"",
    "[store]\nredis = \"redis://host\"\nnodes = [\"b:6379\"]",
    "[store]\nredis = \"redis://host\"\nnodes = [\"b:0\"]\ncluster = true",
    "[store]\nredis = \"redis://host\"\nnodes = [\"redis://user:sk-canary-7f3a9c51@b:6379\"]\ncluster = true",
    "[store]\nredis = \"redis://host/1\"\ncluster = true",
    "[store]\nredis = \"unix:///run/redis\"\ncluster = true",
    "[store]\nredis = \"redis://host\"\ncluster = true\nsentinel = \"main\"",
    "[store]\nredis = \"redis://host\"\nsentinel = \"\"",
    "[store]\nredis = \"redis://host\"\nprefix = \"{a}\"",
    "[store]\nredis = \"redis://host\"\nca_file = \"none.pem\"",
    "[store]\nredis = \"redis://host\"\non_store_loss = \"open\"\nshare = 2\nshare_for = \"0s\"\nlease = \"2h\"\ntrust_empty = \"no\"",
    "tenants = \"a\"\n[routes]\nname = \"a\"\n[[runs]]\ncalls = 1",
    // the server
    "[server]\nlisten = 8080",
    "[server]\nlisten = \"localhost:8080\"",
    "[server]\nlisten = \":8080\"",
    "[server]\nlisten = \"127.0.0.1:9090\"",
    "[server]\nlisten = \"0.0.0.0:9000\"\nadmin = \"127.0.0.1:9000\"",
    "[server]\nadmin = \"0.0.0.0:9090\"",
    "[server]\nadmin = \"of\"",
    "[server]\nadmin_token = \"env:NONE\"",
    "[server]\nadmin_token = \"env:EMPTY\"",
    "[server]\nadmin_token = \"env:BROKEN\"",
    "[server]\nadmin_token = 3",
    "[server]\nworkers = 0",
    "[server]\nworkers = 2000",
    "[server]\nworkers = 1.5",
    "[server]\nconnections_max = -1",
    "[server]\nheaders_max = \"many\"",
    "[server]\nhead_bytes_max = \"64 kilobytes\"",
    "[server]\nhead_bytes_max = 10",
    "[server]\nbody_bytes_max = \"9999999999GiB\"",
    "[server]\nbody_bytes_max = 99999999999999999999999999",
    "[server]\nhead_timeout = 10",
    "[server]\nhead_timeout = \"10\"",
    "[server]\nbody_timeout = \"0s\"",
    "[server]\nidle_timeout = \"2d\"",
    "[server]\nmax_wait = \"99999999999999999999s\"",
    "[server]\ndrain_timeout = \"-1s\"",
    // retries
    "[retry]\nbackoff_min = \"2m\"",
    "[retry]\nbudget_percent = -1",
    // upstreams
    "[[upstreams]]",
    "[[upstreams]]\nprovider = \"gpt4\"",
    "[[upstreams]]\nprovider = \"OpenAi\"",
    "[[upstreams]]\nprovider = \"sk-canary-7f3a9c51\"",
    "[[upstreams]]\nprovider = \"azure\"\n[[upstreams]]\nprovider = \"vertex\"\n[[upstreams]]\nprovider = \"bedrock\"\n[[upstreams]]\nprovider = \"bedrock-mantle\"",
    "[[upstreams]]\nprovider = \"gemeni\"",
    "[[upstreams]]\nprovider = \"compatible\"",
    "[[upstreams]]\nprovider = \"openai\"\nname = \"Open AI\"",
    "[[upstreams]]\nprovider = \"openai\"\nname = \"v1\"",
    "[[upstreams]]\nprovider = \"openai\"\n[[upstreams]]\nprovider = \"openai\"",
    "[[upstreams]]\nprovider = \"openai\"\nname = \"a\"\n[[upstreams]]\nprovider = \"anthropic\"\nname = \"a\"",
    "[[upstreams]]\nprovider = \"openai\"\nbase_url = \"api.openai.com\"",
    "[[upstreams]]\nprovider = \"openai\"\nbase_url = \"ftp://host\"",
    "[[upstreams]]\nprovider = \"openai\"\nbase_url = \"https://user:sk-canary-7f3a9c51@host\"",
    "[[upstreams]]\nprovider = \"openai\"\nbase_url = \"https://host?key=sk-canary-7f3a9c51\"",
    "[[upstreams]]\nprovider = \"openai\"\nbase_url = \"https://host:0\"",
    "[[upstreams]]\nprovider = \"openai\"\nbase_url = \"https://\"",
    "[[upstreams]]\nprovider = \"openai\"\napi_key = \"env:OPENAI_API_KEY\"",
    "[[upstreams]]\nprovider = \"openai\"\napi_key = \"env:sk-canary-7f3a9c51\"",
    "[[upstreams]]\nprovider = \"openai\"\napi_key = \"env:\"",
    "[[upstreams]]\nprovider = \"openai\"\napi_key = [\"sk-canary-7f3a9c51\"]",
    "[[upstreams]]\nprovider = \"openai\"\nwindow = \"0s\"",
    "[[upstreams]]\nprovider = \"openai\"\nwindow = 60",
    "[[upstreams]]\nprovider = \"openai\"\nwindow = \"10s\"\nslice = \"10s\"",
    "[[upstreams]]\nprovider = \"openai\"\nalgorithm = \"token_bucket\"\ncharge = \"free\"\nhttp2 = true",
    "[[upstreams]]\nprovider = \"openai\"\npermit_ttl = \"1m\"",
    "[[upstreams]]\nprovider = \"openai\"\nlearn = \"guess\"\nguarantee = \"soft\"\nepsilon = 2.0\nstream_usage = \"no\"\nlimits_refresh = \"1s\"",
    "[[upstreams]]\nprovider = \"anthropic\"\nepsilon = 0",
    "[[upstreams]]\nprovider = \"openai\"\nepsilon = \"1%\"\nlimits_key = \"env:KEY\"",
    "[[upstreams]]\nprovider = \"anthropic\"\nlimits_key = \"env:KEY\"",
    "[[upstreams]]\nprovider = \"openai\"\npreset = \"openai/teir-1\"",
    "[[upstreams]]\nprovider = \"openai\"\npreset = \"anthropic/start\"",
    "[[upstreams]]\nprovider = \"vertex\"\nbase_url = \"https://host\"\npreset = \"sk-canary-7f3a9c51\"",
    // limits
    "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nendpoint = \"chat\"\nday = \"gmt\"\nrpd = 1",
    "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nendpoint = \"other\"\nmodels = [\"*\"]\nrpm = 1",
    "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nendpoint = \"other\"\nrpm = 1\n[[upstreams.limits]]\nendpoint = \"other\"\nrpm = 1",
    "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nmodels = [\"a\"]\ncontext_over = 5\nrpm = 1\n[[upstreams.limits]]\nmodels = [\"a\"]\ncontext_over = 5\nrpm = 1",
    "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nmodels = [\"a\"]\nrps = 0\ncontext_over = 0\nburndown = 0\nmax_tokens_cap = -1\ndefault_max_tokens = 0",
    "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nrpm = 1",
    "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nmodels = []\nrpm = 1",
    "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nmodels = \"gpt-4o\"\nrpm = 1",
    "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nmodels = [1]\nrpm = 1",
    "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nmodels = [\"\", \"gpt-*-mini\"]\nrpm = 1",
    "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nmodels = [\"a\", \"a\"]\nrpm = 1",
    "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nmodels = [\"a\"]\nrpm = 1\n[[upstreams.limits]]\nmodels = [\"b\", \"a\"]\nrpm = 1",
    "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nmodels = [\"a\"]\nrpm = 0\ntpm = -1\nitpm = 1.5\notpm = \"1\"\nrpd = 9223372036854775807\ntpd = 99999999999999999999\nconcurrent = true",
    // who asks
    "[[tenants]]\nkey = \"env:KEY\"",
    "[[tenants]]\nname = \"Search Team\"\n[[tenants]]\nname = 3",
    "[[tenants]]\nname = \"a\"\n[[tenants]]\nname = \"a\"\n",
    "[[tenants]]\nname = \"*\"\nkey = \"env:KEY\"",
    "[[tenants]]\nname = \"a\"\nkey = \"env:NONE\"\nkeys = [\"env:EMPTY\", \"env:BROKEN\"]",
    "[[tenants]]\nname = \"a\"\nkey = 3\nkeys = \"env:KEY\"\nkey_sha256 = [1]",
    "[[tenants]]\nname = \"a\"\nkey = \"env:KEY\"\n[[tenants]]\nname = \"b\"\nkeys = [\"env:KEY\"]",
    "[[tenants]]\nname = \"a\"\nkeys = [\"env:KEY\", \"env:TOKEN\"]",
    "[[tenants]]\nname = \"a\"\nkey_sha256 = [\"sk-canary-7f3a9c51\"]",
    "[[tenants]]\nname = \"a\"\nweight = 0\npriority = \"urgent\"\ndefault_priority = \"hihg\"\norder = \"random\"",
    "[[tenants]]\nname = \"a\"\npriority = \"low\"\ndefault_priority = \"high\"",
    "[[tenants]]\nname = \"a\"\nrpm = 0\ntpm = -1\nitpm = 1.5\notpm = \"1\"\nrps = 0\nrpd = 0\ntpd = 0\nconcurrent = 0",
    "[[tenants]]\nname = \"a\"\ntokens_per_day = 0\ntokens_per_month = \"1M\"\ndollars_per_day = 0\ndollars_per_month = 1e10",
    "[[tenants]]\nname = \"a\"\ndollars_per_day = -0.5\ndollars_per_month = nan",
    "[[tenants]]\nname = \"a\"\nmodels = []\nupstreams = []",
    "[[tenants]]\nname = \"a\"\nmodels = [\"gpt-*-mini\"]\nupstreams = [\"openia\", \"sk-canary-7f3a9c51\"]",
    "[[tenants]]\nname = \"a\"\nqueue_requests_max = 0\nqueue_bytes_max = 10",
    "[[tenants]]\nname = \"a\"\nbudget = 5\nallowed_models = [\"m\"]\napi_key = \"env:KEY\"\nzebra = 1",
    "[server]\nauth = \"key\"\ntenant_header = \"x tenant\"\nkeys_file = 3",
    "[server]\nauth = \"keys\"",
    "[server]\ntenant_header = \"Authorization\"",
    "[server]\nkeys_file = \"/nonexistent/keys.toml\"",
    "[server]\nstate_file = \"\"",
    "[server]\nstate_file = 1",
    // routes
    "[[routes]]\nrpm = 1",
    "[[routes]]\nname = \"a\"\n[[routes]]\nname = \"A\"\n[[routes]]\nname = \"a\"\n",
    "[[routes]]\nname = \"a\"\noperations = [\"chats\"]\npaths = [\"v1/embeddings\"]\ntags = [\"a b\"]\nmodels = [\"a*b\"]",
    "[[routes]]\nname = \"a\"\noperations = []\npaths = []\ntags = []\nmodels = []",
    "[[routes]]\nname = \"a\"\noperations = \"chat\"\npath = \"/v1\"\npriority = 1\nmax_wait = \"0s\"\nrpm = 0\nconcurrent = true",
    // priorities, runs, prices
    "[priorities]\nhigh = 101\nlow = -1\nbatch = \"5\"\nurgent = 1",
    "[priorities]\nnormal = 60\nlow = 40",
    "[runs]\ncalls = 0\ntokens = -1\ndollars = 0\ntime = \"31d\"\ndepth = 0\nrepeats = 20\nidle = \"8d\"",
    "[runs]\nmax_steps = 5\nbudget = 3\ntimeout = \"1h\"",
    "[[prices]]\ninput = 1\noutput = 1",
    "[[prices]]\nmodels = [\"m\"]\n[[prices]]\nmodels = []\ninput = -1\ncached_input = 1e7\noutput = \"2\"",
    "[[prices]]\nmodels = [\"m\"]\ninput = 1\noutput = 1\n[[prices]]\nmodels = [\"n\", \"m\"]\ninput = 1\noutput = 1",
];

/// Allowed, but doubtful.
const DOUBTFUL: &[&str] = &[
    "[store]\nredis = \"redis://user:sk-canary-7f3a9c51@host\"\non_store_loss = \"closed\"\nshare = 0.5",
    "[[tenants]]\nname = \"a\"\nmodels = [\"gpt-4o\", \"unheard-of\", \"a*\"]\ndollars_per_day = 1",
    "[[upstreams]]\nprovider = \"openai\"\napi_key = \"sk-canary-7f3a9c51\"",
    "[[upstreams]]\nprovider = \"openai\"\napi_key = \"env:KEY\"\nbase_url = \"http://far.example\"",
    "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nmodels = [\"a\"]",
    "[[upstreams]]\nprovider = \"openai\"\nguarantee = \"hard\"\nepsilon = 0.1\n[[upstreams.limits]]\nendpoint = \"other\"\nday = \"utc\"",
    "[[upstreams]]\nprovider = \"groq\"\n[[upstreams.limits]]\nmodels = [\"a\"]\nrpm = 1\nburndown = 5",
    "[[upstreams]]\nprovider = \"anthropic\"\n[[upstreams.limits]]\nendpoint = \"count_tokens\"\nrpm = 1\nitpm = 1",
    "[server]\nauth = \"open\"\n[[tenants]]\nname = \"a\"\nkey = \"env:KEY\"",
    "[[tenants]]\nname = \"a\"\nkey = \"sk-canary-7f3a9c51\"",
    "[[tenants]]\nname = \"a\"\nkey_sha256 = [\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"]\n[[upstreams]]\nprovider = \"openai\"\n[[upstreams]]\nprovider = \"anthropic\"\napi_key = \"env:KEY\"",
    "[[routes]]\nname = \"a\"\nrpm = 1\n[[routes]]\nname = \"b\"\nrpm = 1",
];

#[test]
fn everything_wrong_is_said_with_its_place_and_its_cure() {
    let mut page = String::new();
    for text in WRONG {
        let error = read(text).expect_err(text);
        let _ = writeln!(page, "{}\n----\n{error}\n", text.replace(CANARY, "<secret>"));
    }
    for text in DOUBTFUL {
        let config = read(text).expect(text);
        let _ = writeln!(
            page,
            "{}\n---- allowed, with a warning",
            text.replace(CANARY, "<secret>")
        );
        for warning in &config.warnings {
            let _ = writeln!(page, "{warning}\n");
        }
    }
    assert!(!page.contains(CANARY), "a secret is shown:\n{page}");
    golden::check("crates/gateway/tests/golden/config-errors.txt", &page);
}

#[test]
fn secrets_are_not_in_what_is_printed() {
    let text = format!(
        "[server]\nadmin_token = \"env:TOKEN\"\n[[upstreams]]\nprovider = \"openai\"\napi_key = \"{CANARY}\"\n\
         [[upstreams]]\nprovider = \"anthropic\"\napi_key = \"env:KEY\"\n\
         [store]\nredis = \"rediss://{CANARY}:{CANARY}@host\""
    );
    let config = read(&text).unwrap();
    assert_eq!(config.upstreams[0].api_key.as_ref().unwrap().expose(), CANARY);
    let shown = format!("{config:?} {config:#?} {:?} {:?}", config.plan(), config.warnings);
    assert!(!shown.contains(CANARY), "{shown}");

    for wrong in WRONG {
        let error = read(wrong).expect_err(wrong);
        let shown = format!("{error} {error:?} {error:#?}");
        assert!(!shown.contains(CANARY), "{shown}");
    }
}

#[test]
fn everything_wrong_is_said_at_once() {
    let error = read(
        "[server]\nworkers = 0\nheaders_max = 0\n[[upstreams]]\n[[upstreams]]\nprovider = \"x\"\nbase = 1",
    );
    let Err(ConfigError::Invalid { problems }) = error else {
        panic!("{error:?}");
    };
    let places: Vec<_> = problems.iter().map(|problem| problem.place.as_str()).collect();
    let expect = ["2:11", "3:15", "4:1", "6:12", "7:1"].map(|place| format!("tidegate.toml:{place}"));
    assert_eq!(places, expect);
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, content: Option<&[u8]>, expect: &str| {
        let path = folder.path().join(name);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let error = Config::load(&path).expect_err(name).to_string();
        assert!(error.contains(name) && error.contains(expect), "{error}");
    };
    check("none.toml", None, "cannot be read");
    check("latin.toml", Some(b"# fine\n# caf\xe9\n"), ":2: is not UTF-8");
    check(
        "large.toml",
        Some(&vec![b' '; (1 << 20) + 1]),
        "larger than 1048576 bytes",
    );
    check("nul.toml", Some(b"\0"), ":1:1");
    let deep = format!("x = {}", "[".repeat(100_000));
    check("deep.toml", Some(deep.as_bytes()), ":1:");
    let error = Config::load(folder.path()).unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
}

#[test]
fn the_reference_is_what_the_program_reads() {
    golden::check("docs/reference/config.md", &config::reference());
    let schema = serde_json::to_string_pretty(&config::schema()).unwrap() + "\n";
    golden::check("docs/reference/config.schema.json", &schema);
    golden::check("docs/reference/presets.md", &config::presets_page());
    golden::check("docs/reference/prices.md", &prices::page());
}

#[test]
fn the_schema_states_the_defaults_that_are_used() {
    // The defaults that the schema shows, written into a file, change nothing.
    let schema = config::schema();
    let mut text = String::new();
    for (section, name) in [
        ("[server]", "Server"),
        ("[retry]", "Retry"),
        ("[[upstreams]]\nprovider = \"openai\"", "Upstream"),
        ("[[tenants]]\nname = \"a\"", "Tenant"),
        ("[priorities]", "Priorities"),
        ("[runs]", "Runs"),
    ] {
        let _ = writeln!(text, "{section}");
        let fields = schema
            .as_value()
            .pointer(&format!("/$defs/{name}/properties"))
            .unwrap();
        for (key, field) in fields.as_object().unwrap() {
            if let Some(default) = field.get("default").filter(|default| !default.is_array()) {
                let _ = writeln!(text, "{key} = {default}");
            }
        }
    }
    assert!(text.lines().count() > 25, "{text}");
    let shown = |config: &Config| {
        let whole = (
            &config.server,
            config.queue,
            config.retry,
            &config.tenants,
            config.tiers,
            config.runs,
        );
        format!("{whole:?}")
    };
    let (written, silent) = (
        read(&text).unwrap(),
        read("[[upstreams]]\nprovider = \"openai\"\n[[tenants]]\nname = \"a\"").unwrap(),
    );
    assert_eq!(shown(&written), shown(&silent));
    assert_eq!(
        format!("{:?}", written.upstreams),
        format!("{:?}", silent.upstreams)
    );
}

/// Pieces that files are made of, right and wrong ones.
const PIECES: &[&str] = &[
    "[server]\n",
    "[retry]\n",
    "[[upstreams]]\n",
    "[[upstreams.limits]]\n",
    "[upstreams]\n",
    "[[tenants]]\n",
    "[[routes]]\n",
    "[runs]\n",
    "[priorities]\n",
    "[[prices]]\n",
    "name = ",
    "key = ",
    "keys = ",
    "key_sha256 = ",
    "operations = ",
    "paths = ",
    "upstreams = ",
    "priority = ",
    "dollars_per_day = ",
    "dollars = ",
    "input = ",
    "high = ",
    "provider = ",
    "models = ",
    "window = ",
    "slice = ",
    "rpm = ",
    "tpm = ",
    "listen = ",
    "admin = ",
    "api_key = ",
    "base_url = ",
    "preset = ",
    "endpoint = ",
    "context_over = ",
    "epsilon = ",
    "\"openai/tier-1\"\n",
    "\"other\"\n",
    "queue_bytes_max = ",
    "\"openai\"\n",
    "\"env:KEY\"\n",
    "[\"*\", \"gpt-4o*\"]\n",
    "\"60s\"\n",
    "\"10s\"\n",
    "\"0.0.0.0:1\"\n",
    "\"https://[::1\"\n",
    "\"9223372036854775807GiB\"\n",
    "1\n",
    "-9223372036854775808\n",
    "1e400\n",
    "nan\n",
    "1979-05-27T07:32:00Z\n",
    "{ a = 1, b.c = [[[]]] }\n",
    "\"ä\u{1f600}\u{0}\"\n",
    "'''",
    "\"",
    "\\u",
    "=",
    "\n",
    "\u{feff}",
];

proptest::proptest! {
    #[test]
    fn no_text_reaches_a_panic(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..24)) {
        let text = pieces.concat();
        match read(&text) {
            Ok(config) => drop((config.plan(), format!("{config:?}"))),
            Err(error) => proptest::prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn no_bytes_reach_a_panic(text in ".{0,200}") {
        if let Err(error) = read(&text) {
            proptest::prop_assert!(!error.to_string().is_empty());
        }
    }
}
