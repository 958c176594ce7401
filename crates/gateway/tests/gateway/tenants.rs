//! Who asks: keys that are known and unknown, what tenants may use, and what never leaves the gateway.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tidegate_core::{Priority, RouteId, TenantId};
use tidegate_gateway::config::Config;
use tidegate_gateway::keys::{self, Date, Key};
use tidegate_gateway::serve::Gateway;

use crate::support::*;

const OK: &str = r#"{"model":"gpt-4o","usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}}"#;

/// Never to be seen in anything but what the client itself sends, and sealed for the upstream.
const CANARY: &str = "tg-canary-5d0f1c77";

/// Starts a gateway in front of an upstream, called `own` if it has a key and `through` if clients' keys are passed through.
fn start(address: std::net::SocketAddr, text: &str) -> Gateway {
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 2\n{text}\n\
         [[upstreams]]\nname = \"own\"\nprovider = \"openai\"\nbase_url = \"http://{address}\"\napi_key = \"env:UPSTREAM\"\n\
         [[upstreams]]\nname = \"through\"\nprovider = \"openai\"\nbase_url = \"http://{address}\"\n\
         [[upstreams]]\nname = \"claude\"\nprovider = \"anthropic\"\nbase_url = \"http://{address}\"\napi_key = \"env:UPSTREAM\"\n"
    );
    let environment = |name: &str| {
        Ok(match name {
            "UPSTREAM" => "sk-upstream".to_owned(),
            "CANARY" => CANARY.to_owned(),
            _ => format!("sk-{}", name.to_lowercase()),
        })
    };
    let config = Config::from_toml_with(&text, "test", environment);
    Gateway::start(config.unwrap_or_else(|error| panic!("{error}\n{text}"))).unwrap()
}

/// A chat request with these headers and no others that matter.
fn chat_with(path: &str, model: &str, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let body = format!(
        r#"{{"model":"{model}","max_tokens":10,"messages":[{{"role":"user","content":"Hello, tide"}}]}}"#
    );
    let mut request = Request::post(path)
        .header("host", "gateway")
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::from(body))).unwrap()
}

fn key(key: &str) -> String {
    format!("Bearer {key}")
}

const TEAM: &str = "[[tenants]]\nname = \"team\"\nkey = \"env:CANARY\"";

#[tokio::test]
async fn who_has_no_known_key_is_refused_in_the_shape_of_the_provider() {
    let mut upstream = Upstream::start().await;
    let gateway = start(upstream.address, TEAM);
    for (headers, code) in [
        (vec![], "missing_api_key"),
        (vec![("authorization", "Bearer sk-wrong")], "invalid_api_key"),
        (vec![("x-api-key", "tg-canary-5d0f1c7")], "invalid_api_key"),
    ] {
        let answer = send(gateway.address(), chat_with(CHAT, "gpt-4o", &headers)).await;
        assert_eq!(answer.status, 401, "{}", answer.text());
        assert_eq!(answer.header("x-tidegate-code"), Some(code));
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["error"]["code"], code);
        let answer = send(
            gateway.address(),
            chat_with("/v1/messages", "claude-opus-4", &headers),
        )
        .await;
        assert_eq!(
            (answer.status, answer.header("x-tidegate-code")),
            (401, Some(code))
        );
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["error"]["type"], "authentication_error");
    }
    assert_eq!(
        counted(&gateway, "tidegate_refusals_total{reason=\"unknown_key\"}"),
        6.0
    );
    upstream.assert_quiet();
}

#[tokio::test]
async fn a_tenants_key_is_replaced_and_its_requests_are_its_own() {
    let mut upstream = Upstream::start().await;
    let text = "[[tenants]]\nname = \"team\"\nkey = \"env:CANARY\"\npriority = \"high\"\n\
                [[routes]]\nname = \"nightly\"\ntags = [\"nightly\"]\npriority = \"low\"";
    let gateway = start(upstream.address, text);
    let bearer = key(CANARY);
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-tidegate-tags", "a, nightly"),
        ("x-tidegate-priority", "batch"),
    ];
    let asking = tokio::spawn(send(gateway.address(), chat_with(CHAT, "gpt-4o", &headers)));
    let seen = upstream.request().await;
    assert_eq!(seen.headers["authorization"], "Bearer sk-upstream");
    assert!(!format!("{:?} {}", seen.headers, seen.uri).contains("canary"));
    assert!(
        seen.headers
            .keys()
            .all(|name| !name.as_str().starts_with("x-tidegate-"))
    );
    seen.answer_json(200, OK);
    assert_eq!(asking.await.unwrap().status, 200);
    assert_eq!(
        counted(
            &gateway,
            "tidegate_tenant_requests_total{outcome=\"success\",tenant=\"team\"}"
        ),
        1.0
    );
    assert_eq!(
        counted(
            &gateway,
            "tidegate_tenant_tokens_total{direction=\"input\",tenant=\"team\"}"
        ),
        4.0
    );
}

#[tokio::test]
async fn what_waits_is_known_by_tenant_priority_and_route() {
    let mut upstream = Upstream::start().await;
    let text = "tenant_header = \"x-tenant\"\n[[tenants]]\nname = \"a\"\npriority = \"high\"\ndefault_priority = \"low\"\n\
                [[tenants]]\nname = \"b\"\n\
                [[routes]]\nname = \"embed\"\noperations = [\"embeddings\"]\n\
                [[routes]]\nname = \"night\"\ntags = [\"night\"]\npriority = \"batch\"";
    let gateway = {
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\n{text}\n\
             [[upstreams]]\nprovider = \"openai\"\nbase_url = \"http://{}\"\napi_key = \"sk-own\"\n[[upstreams.limits]]\nmodels = [\"*\"]\nconcurrent = 1\n",
            upstream.address
        );
        Gateway::start(Config::from_toml(&text, "test").unwrap()).unwrap()
    };
    let first = tokio::spawn(send(gateway.address(), chat()));
    let seen = upstream.request().await;
    for (at, (headers, tenant, priority, route)) in [
        (vec![("x-tenant", "a")], "a", Priority::Low, RouteId::NONE),
        (
            vec![("x-tenant", "A"), ("x-tidegate-priority", "HIGH")],
            "a",
            Priority::High,
            RouteId::NONE,
        ),
        // Above what it may have: the highest that it may.
        (
            vec![("x-tenant", "b"), ("x-tidegate-priority", "high")],
            "b",
            Priority::Normal,
            RouteId::NONE,
        ),
        (
            vec![("x-tenant", "b"), ("x-tidegate-tags", "night")],
            "b",
            Priority::Batch,
            RouteId::of("night"),
        ),
        (
            vec![
                ("x-tenant", "c"),
                ("x-tidegate-tags", "night"),
                ("x-tidegate-priority", "normal"),
            ],
            "c",
            Priority::Normal,
            RouteId::of("night"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let asking = tokio::spawn(send(gateway.address(), chat_with(CHAT, "gpt-4o", &headers)));
        until("it waits", || waiting(&gateway) == 1).await;
        let caller = gateway.limiter().snapshot().quotas[0].first_waiting[0].caller;
        assert_eq!(
            (caller.tenant, caller.priority, caller.route),
            (TenantId::of(tenant), priority, route),
            "{at}"
        );
        asking.abort();
        until("it has left", || waiting(&gateway) == 0).await;
    }
    let last = tokio::spawn(send(gateway.address(), chat()));
    until("it waits", || waiting(&gateway) == 1).await;
    let page = send(gateway.admin_address().unwrap(), get("/status")).await;
    let page: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
    let quota = &page["quotas"][0];
    assert_eq!(quota["line"][0]["limit"], "1 requests at one time");
    assert_eq!(quota.get("line_more"), None);
    seen.answer_json(200, OK);
    assert_eq!(first.await.unwrap().status, 200);
    upstream.request().await.answer_json(200, OK);
    let last = last.await.unwrap();
    assert_eq!(last.header("x-tidegate-queue-place"), Some("1"));
    assert_eq!(
        last.header("x-tidegate-queue-eta-ms"),
        None,
        "nobody knows when the first one ends"
    );
}

#[tokio::test]
async fn names_of_tenants_that_are_none_are_refused() {
    let mut upstream = Upstream::start().await;
    let gateway = start(upstream.address, "tenant_header = \"x-tenant\"");
    let longer = "n".repeat(65);
    for name in ["a b", "a,b", "*", "\u{e9}", longer.as_str()] {
        let answer = send(
            gateway.address(),
            chat_with(CHAT, "gpt-4o", &[("x-tenant", name)]),
        )
        .await;
        assert_eq!(
            (answer.status, answer.header("x-tidegate-code")),
            (400, Some("bad_request")),
            "{name}"
        );
        assert!(answer.text().contains("at most 64"), "{}", answer.text());
    }
    upstream.assert_quiet();
}

#[tokio::test]
async fn priorities_that_are_none_are_refused() {
    let mut upstream = Upstream::start().await;
    let gateway = start(upstream.address, "");
    for value in ["urgent", "", "1"] {
        let headers = [("x-tidegate-priority", value)];
        let answer = send(gateway.address(), chat_with(CHAT, "gpt-4o", &headers)).await;
        assert_eq!(
            (answer.status, answer.header("x-tidegate-code")),
            (400, Some("bad_request"))
        );
        assert!(
            answer.text().contains("high, normal, low and batch"),
            "{}",
            answer.text()
        );
    }
    upstream.assert_quiet();
}

#[tokio::test]
async fn tenants_use_what_they_may_use() {
    let mut upstream = Upstream::start().await;
    let text = "tenant_header = \"x-tenant\"\n[[tenants]]\nname = \"a\"\nmodels = [\"gpt-4o-mini*\"]\n\
                [[tenants]]\nname = \"b\"\nupstreams = [\"own\"]\n\
                [[tenants]]\nname = \"poor\"\ndollars_per_day = 1\n\
                [[prices]]\nmodels = [\"mine\"]\ninput = 1\noutput = 1";
    let gateway = start(upstream.address, text);
    for (tenant, path, model, code) in [
        ("a", CHAT, "gpt-4o", "model_not_allowed"),
        ("a", "/v1/batches", "gpt-4o-mini", "model_not_allowed"),
        (
            "b",
            "/through/v1/chat/completions",
            "gpt-4o",
            "upstream_not_allowed",
        ),
        ("b", "/v1/messages", "claude-opus-4", "upstream_not_allowed"),
        ("poor", CHAT, "unheard-of", "model_not_priced"),
    ] {
        let answer = send(gateway.address(), chat_with(path, model, &[("x-tenant", tenant)])).await;
        assert_eq!(
            (answer.status, answer.header("x-tidegate-code")),
            (403, Some(code)),
            "{tenant} {path}: {}",
            answer.text()
        );
    }
    upstream.assert_quiet();
    assert_eq!(
        counted(&gateway, "tidegate_refusals_total{reason=\"not_allowed\"}"),
        5.0
    );
    let address = gateway.address();
    for (tenant, path, model) in [
        ("a", CHAT, "gpt-4o-mini"),
        ("b", "/own/v1/chat/completions", "gpt-4o"),
        ("poor", CHAT, "gpt-4o"),
        ("poor", CHAT, "mine"),
        ("poor", "/v1/batches", "unheard-of"),
    ] {
        let asking = tokio::spawn(send(address, chat_with(path, model, &[("x-tenant", tenant)])));
        upstream.request().await.answer_json(200, OK);
        assert_eq!(asking.await.unwrap().status, 200, "{tenant} {path} {model}");
    }
    let listing = Request::get("/v1/models")
        .header("host", "gateway")
        .header("x-tenant", "a")
        .body(Full::default())
        .unwrap();
    let asking = tokio::spawn(send(address, listing));
    upstream.request().await.answer_json(200, "{}");
    assert_eq!(
        asking.await.unwrap().status,
        200,
        "asking what there is does no harm"
    );
    let names = send(
        address,
        chat_with(CHAT, "gpt-4o", &[("x-tenant", "a"), ("x-tenant", "b")]),
    )
    .await;
    assert_eq!(
        (names.status, names.header("x-tidegate-code")),
        (400, Some("bad_request"))
    );
}

#[tokio::test]
async fn keys_of_our_own_never_go_upstream() {
    let mut upstream = Upstream::start().await;
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let text = format!(
        "auth = \"open\"\n{TEAM}\n[[tenants]]\nname = \"hashed\"\nkey_sha256 = [\"{hash}\"]\n\
         [[tenants]]\nname = \"provider\"\nkey = \"env:PROVIDER\""
    );
    let gateway = start(upstream.address, &text);
    let through = "/through/v1/chat/completions";
    for headers in [
        vec![("authorization", key(CANARY))],
        vec![("authorization", key("abc"))],
        vec![("x-api-key", "tg-unknown".to_owned())],
        vec![
            ("x-api-key", "sk-1".to_owned()),
            ("authorization", key("tg-unknown")),
        ],
    ] {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = send(gateway.address(), chat_with(through, "gpt-4o", &headers)).await;
        assert_eq!(
            (answer.status, answer.header("x-tidegate-code")),
            (403, Some("upstream_has_no_key")),
            "{headers:?}: {}",
            answer.text()
        );
        assert!(answer.text().contains("through") && !answer.text().contains("canary"));
    }
    let answer = send(
        gateway.address(),
        chat_with(&format!("{through}?key={CANARY}"), "gpt-4o", &[]),
    )
    .await;
    assert_eq!(answer.header("x-tidegate-code"), Some("upstream_has_no_key"));
    upstream.assert_quiet();
    // The provider's own keys are passed through as ever, also those that say who asks.
    let address = gateway.address();
    for secret in ["sk-provider", "sk-anybody"] {
        let bearer = key(secret);
        let headers = [("authorization", bearer.as_str())];
        let asking = tokio::spawn(send(address, chat_with(through, "gpt-4o", &headers)));
        let seen = upstream.request().await;
        assert_eq!(seen.headers["authorization"], bearer.as_str());
        seen.answer_json(200, OK);
        assert_eq!(asking.await.unwrap().status, 200);
    }
    assert_eq!(
        counted(
            &gateway,
            "tidegate_tenant_requests_total{outcome=\"success\",tenant=\"provider\"}"
        ),
        1.0
    );
}

#[tokio::test]
async fn keys_of_a_file_come_and_go_while_the_gateway_runs() {
    let upstream = Upstream::start().await.always(|seen| seen.answer_json(200, OK));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let add = |tenant: &str, expires: Option<Date>| {
        let (text, key) = Key::generate(tenant, Date::from_unix(0), expires).unwrap();
        keys::change(&path, true, |keys| keys.push(key.clone())).unwrap();
        (text, key)
    };
    let (expired, _) = add("team", Some(Date::from_unix(1)));
    let (first, first_key) = add("team", None);
    let gateway = start(upstream, &format!("keys_file = {:?}", path.to_str().unwrap()));
    let address = gateway.address();
    let status = async |secret: &str| {
        let bearer = key(secret);
        let request = chat_with(CHAT, "gpt-4o", &[("authorization", bearer.as_str())]);
        send(address, request).await.status
    };
    assert_eq!(status(first.expose()).await, 200);
    assert_eq!(status(expired.expose()).await, 401);

    let (second, _) = add("other-team", None);
    assert_eq!(status(second.expose()).await, 401, "not known yet");
    assert_eq!(gateway.reload_keys().unwrap(), 3);
    assert_eq!(status(second.expose()).await, 200);

    keys::change(&path, false, |keys| keys.retain(|key| key.id != first_key.id)).unwrap();
    gateway.reload_keys().unwrap();
    assert_eq!(status(first.expose()).await, 401, "revoked");
    assert_eq!(status(second.expose()).await, 200);

    std::fs::write(&path, "[[keys]]\nid = 1").unwrap();
    let error = gateway.reload_keys().unwrap_err().to_string();
    assert!(error.contains("keys.toml:2"), "{error}");
    assert_eq!(status(second.expose()).await, 200, "the old keys stay in force");
    let page = send(gateway.admin_address().unwrap(), get("/status")).await;
    let page: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
    let keys = &page["config"]["keys"];
    assert_eq!(keys["count"], 2);
    assert!(
        keys["last_reload_failed"]["error"]
            .as_str()
            .unwrap()
            .contains("keys.toml:2"),
        "{keys}"
    );
}

#[tokio::test]
async fn keys_are_in_nothing_that_is_shown() {
    let upstream = Upstream::start().await.always(|seen| seen.answer_json(200, OK));
    let gateway = start(upstream, &format!("tenant_header = \"x-tenant\"\n{TEAM}"));
    let bearer = key(CANARY);
    let mut shown = String::new();
    for headers in [
        vec![("authorization", bearer.as_str())],
        vec![("x-api-key", CANARY), ("x-tidegate-priority", "?")],
        vec![("authorization", "Bearer tg-canary-wrong")],
        vec![("x-tenant", "somebody"), ("x-api-key", CANARY)],
    ] {
        for path in [CHAT, "/through/v1/chat/completions", "/v1/messages", "/nowhere"] {
            let answer = send(gateway.address(), chat_with(path, "gpt-4o", &headers)).await;
            shown.push_str(&format!("{:?} {}\n", answer.headers, answer.text()));
        }
    }
    let admin = gateway.admin_address().unwrap();
    for path in ["/status", "/metrics"] {
        shown.push_str(send(admin, get(path)).await.text());
    }
    assert!(!shown.contains("canary"), "{shown}");
    assert!(shown.contains("tenant=\"team\""), "{shown}");
}
