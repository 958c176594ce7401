//! Limits asked of the providers that tell them.

use tidegate_core::{Dimension, LimitSource};
use tidegate_gateway::config::Config;
use tidegate_gateway::serve::Gateway;

use crate::support::*;

const MESSAGES: &str = "/v1/messages";

const TOLD: &str = r#"{"data":[{"type":"rate_limit","group_type":"model_group",
    "models":["claude-opus-4-8","claude-opus-4-7"],"limits":[
        {"type":"requests_per_minute","value":40},{"type":"input_tokens_per_minute","value":20000}]},
    {"type":"rate_limit","group_type":"model_group","models":["claude-sonnet-5"],"limits":[
        {"type":"requests_per_minute","value":7}]}],"next_page":null}"#;

fn start(upstream: &Upstream, provider: &str, limits: &str) -> Gateway {
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\n\
         [[upstreams]]\nname = \"up\"\nprovider = \"{provider}\"\nbase_url = \"http://{}\"\n\
         api_key = \"env:KEY\"\nlimits_key = \"env:LIMITS_KEY\"\n{limits}",
        upstream.address
    );
    let environment = |name: &str| Ok(format!("canary-{}", name.to_ascii_lowercase()));
    Gateway::start(Config::from_toml_with(&text, "test", environment).unwrap()).unwrap()
}

fn message(model: &str) -> String {
    format!(r#"{{"model":"{model}","max_tokens":8,"messages":[{{"role":"user","content":"Hello"}}]}}"#)
}

/// Dimension, amount and source of every limit that is known, in the order of amounts; not their shares of shorter times.
fn known(gateway: &Gateway) -> Vec<(Dimension, u64, LimitSource)> {
    let snapshot = gateway.limiter().snapshot();
    let limits = snapshot.quotas.iter().flat_map(|quota| &quota.limits);
    let limits = limits.filter(|limit| limit.limit.window.as_secs() >= 60);
    let mut limits: Vec<_> = limits
        .map(|limit| (limit.limit.dimension, limit.limit.amount, limit.source))
        .collect();
    limits.sort_by_key(|(_, amount, _)| *amount);
    limits
}

async fn status(gateway: &Gateway) -> String {
    let address = gateway.admin_address().unwrap();
    send(address, get("/status")).await.text().to_owned()
}

#[tokio::test]
async fn anthropic_is_asked_and_nothing_waits_for_its_answer() {
    let mut upstream = Upstream::start().await;
    let gateway = start(
        &upstream,
        "anthropic",
        "[[upstreams.limits]]\nmodels = [\"claude-sonnet-5\"]\nrpm = 100\n",
    );
    let asked = upstream.request().await;
    assert_eq!(asked.uri.path(), "/v1/organizations/rate_limits");
    assert_eq!(asked.headers["x-api-key"], "canary-limits_key");
    assert_eq!(asked.headers["anthropic-version"], "2023-06-01");

    // Not answered yet: requests go their way.
    let first = tokio::spawn(send(
        gateway.address(),
        post(MESSAGES, message("claude-opus-4-8")),
    ));
    let seen = upstream.request().await;
    assert_eq!(
        (seen.uri.path(), &seen.headers["x-api-key"]),
        (MESSAGES, &http::HeaderValue::from_static("canary-key"))
    );
    seen.answer_json(200, "{}");
    assert_eq!(first.await.unwrap().status, 200);

    asked.answer_json(200, TOLD);
    until("the limits are adopted", || known(&gateway).len() == 3).await;
    assert_eq!(
        known(&gateway),
        [
            (Dimension::Requests, 7, LimitSource::Api),
            (Dimension::Requests, 40, LimitSource::Api),
            (Dimension::InputTokens, 20_000, LimitSource::Api),
        ]
    );
    // Both models, whatever their dates, draw from one account.
    for model in ["claude-opus-4-8", "claude-opus-4-7-20260801"] {
        let sent = tokio::spawn(send(gateway.address(), post(MESSAGES, message(model))));
        upstream.request().await.answer_json(200, "{}");
        assert_eq!(sent.await.unwrap().status, 200);
    }
    let snapshot = gateway.limiter().snapshot();
    let shared = snapshot.quotas.iter().find(|quota| {
        let mut limits = quota.limits.iter();
        limits.any(|limit| limit.limit.dimension == Dimension::InputTokens)
    });
    // The one from before was in it already: the account is called as the first of the models.
    assert_eq!(shared.unwrap().totals.admitted, 3);
    let page = status(&gateway).await;
    assert!(page.contains("\"told_seconds_ago\""), "{page}");
    assert!(!page.contains("canary"), "{page}");
    upstream.assert_quiet();
}

#[tokio::test]
async fn openrouter_tells_of_its_free_models() {
    let mut upstream = Upstream::start().await;
    let gateway = start(&upstream, "openrouter", "");
    let asked = upstream.request().await;
    assert_eq!(asked.uri.path(), "/api/v1/key");
    assert_eq!(asked.headers["authorization"], "Bearer canary-limits_key");
    asked.answer_json(
        200,
        r#"{"data":{"is_free_tier":true,"free_model_daily_requests":{"used":1,"limit":50,"remaining":49}}}"#,
    );
    until("the limits are adopted", || known(&gateway).len() == 2).await;
    for model in ["a/b:free", "c/d:free"] {
        let body = format!(r#"{{"model":"{model}","messages":[]}}"#);
        let sent = tokio::spawn(send(gateway.address(), post("/up/v1/chat/completions", body)));
        let seen = upstream.request().await;
        assert_eq!(seen.uri.path(), "/api/v1/chat/completions");
        seen.answer_json(200, "{}");
        assert_eq!(sent.await.unwrap().status, 200);
    }
    let snapshot = gateway.limiter().snapshot();
    assert_eq!(snapshot.quotas.len(), 1, "{snapshot:?}");
    assert_eq!(snapshot.quotas[0].totals.admitted, 2);
}

#[tokio::test]
async fn failures_are_shown_and_change_nothing() {
    for (status_code, body, expect) in [
        (401, "{\"secret\":\"canary\"}", "the upstream answered 401"),
        (200, "no JSON", "not of the form"),
    ] {
        let mut upstream = Upstream::start().await;
        let gateway = start(
            &upstream,
            "anthropic",
            "[[upstreams.limits]]\nmodels = [\"*\"]\nrpm = 5\n",
        );
        upstream.request().await.answer_json(status_code, body);
        let mut page = String::new();
        for _ in 0..1_000 {
            page = status(&gateway).await;
            if page.contains(expect) {
                break;
            }
        }
        assert!(page.contains(expect), "{page}");
        assert!(!page.contains("canary"), "{page}");
        let sent = tokio::spawn(send(gateway.address(), post(MESSAGES, message("claude"))));
        upstream.request().await.answer_json(200, "{}");
        assert_eq!(sent.await.unwrap().status, 200);
        assert_eq!(known(&gateway), [(Dimension::Requests, 5, LimitSource::Config)]);
    }
}
