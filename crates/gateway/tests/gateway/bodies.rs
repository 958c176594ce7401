//! What the gateway reads in bodies and changes in them, provider by provider.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tidegate_gateway::config::Config;
use tidegate_gateway::serve::Gateway;

use crate::support::*;

/// Starts a gateway in front of one upstream of a provider.
fn in_front_of(upstream: &Upstream, provider: &str, limits: &str) -> Gateway {
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"off\"\nworkers = 1\n\
         [retry]\nbackoff_min = \"10ms\"\nbackoff_max = \"20ms\"\n\
         [[upstreams]]\nname = \"up\"\nprovider = \"{provider}\"\nbase_url = \"http://{}\"\n\
         [[upstreams.limits]]\nmodels = [\"*\"]\nrpm = 600\n{limits}\n",
        upstream.address
    );
    let config = Config::from_toml(&text, "test").unwrap_or_else(|error| panic!("{error}\n{text}"));
    Gateway::start(config).unwrap()
}

/// Sends a request while the upstream does as it is told.
async fn exchange(
    gateway: &Gateway,
    upstream: &mut Upstream,
    request: Request<Full<Bytes>>,
    answer: impl FnOnce(Seen),
) -> Answer {
    let answering = tokio::spawn(send(gateway.address(), request));
    answer(upstream.request().await);
    soon("the answer comes", answering).await.unwrap()
}

const EVENTS: &[(&str, &str)] = &[("content-type", "text/event-stream")];

#[tokio::test]
async fn the_maximum_output_is_capped_as_the_group_says() {
    for (provider, path, body, sent) in [
        (
            "openai",
            CHAT,
            r#"{"model":"m","max_tokens":512}"#,
            r#"{"model":"m","max_tokens":64}"#,
        ),
        (
            "mistral",
            CHAT,
            r#"{"model":"m"}"#,
            r#"{"max_tokens":64,"model":"m"}"#,
        ),
        (
            "gemini",
            "/v1beta/models/m:generateContent",
            r#"{"contents":[]}"#,
            r#"{"generationConfig":{"maxOutputTokens":64},"contents":[]}"#,
        ),
        (
            "bedrock",
            "/model/m/converse",
            r#"{"inferenceConfig":{"maxTokens":65},"messages":[]}"#,
            r#"{"inferenceConfig":{"maxTokens":64},"messages":[]}"#,
        ),
        (
            "cohere",
            "/v2/chat",
            r#"{"max_tokens":63,"messages":[]}"#,
            r#"{"max_tokens":63,"messages":[]}"#,
        ),
    ] {
        let mut upstream = Upstream::start().await;
        let gateway = in_front_of(&upstream, provider, "max_tokens_cap = 64");
        let answer = exchange(&gateway, &mut upstream, post(path, body), |seen| {
            assert_eq!(seen.body, sent, "{provider}");
            assert_eq!(seen.headers["content-length"], sent.len().to_string());
            seen.answer_json(200, "{}");
        })
        .await;
        let is_capped = (sent != body).then_some("64");
        assert_eq!(answer.header("x-tidegate-max-tokens"), is_capped, "{provider}");
    }
}

#[tokio::test]
async fn usage_is_asked_for_where_that_is_possible() {
    let body = r#"{"model":"m","stream":true}"#;
    let asking = r#"{"stream_options":{"include_usage":true},"model":"m","stream":true}"#;
    for (provider, path, sent) in [
        ("openai", CHAT, asking),
        ("azure", "/openai/deployments/m/chat/completions", asking),
        ("deepseek", CHAT, asking),
        ("mistral", CHAT, body),
        ("openrouter", "/api/v1/chat/completions", body),
        ("openai", "/v1/responses", body),
        ("cohere", "/v2/chat", body),
    ] {
        let mut upstream = Upstream::start().await;
        let gateway = in_front_of(&upstream, provider, "");
        let chunk = r#"data: {"choices":[{"delta":{"content":"a"}}],"usage":null}"#;
        let usage = r#"data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
        let end = "data: [DONE]";
        let answer = exchange(&gateway, &mut upstream, post(path, body), |seen| {
            assert_eq!(seen.body, sent, "{provider} {path}");
            seen.answer(200, EVENTS, format!("{chunk}\n\n{usage}\n\n{end}\n\n"));
        })
        .await;
        let expect = if sent == body {
            format!("{chunk}\n\n{usage}\n\n{end}\n\n")
        } else {
            format!("{}\n\n{end}\n\n", chunk.replace(",\"usage\":null", ""))
        };
        assert_eq!(answer.text(), expect, "{provider} {path}");
        let tokens = counted(&gateway, "tidegate_tokens_total{model=\"*\",type=\"input\"");
        assert_eq!(tokens, 3.0, "{provider} {path}: usage is read in any case");
    }
}

#[tokio::test]
async fn keep_alives_before_an_answer_cross_byte_for_byte() {
    for (content_type, body) in [
        ("application/json", "\n\n\n{\"usage\":{\"prompt_tokens\":3}}"),
        (
            "text/event-stream",
            ": keep-alive\n\n: keep-alive\n\ndata: [DONE]\n\n",
        ),
    ] {
        let mut upstream = Upstream::start().await;
        let gateway = in_front_of(&upstream, "deepseek", "");
        let request = post(CHAT, r#"{"model":"m","stream":true}"#);
        let answer = exchange(&gateway, &mut upstream, request, |seen| {
            seen.answer(200, &[("content-type", content_type)], body);
        })
        .await;
        assert_eq!(answer.text(), body);
    }
}

#[tokio::test]
async fn a_refusal_in_a_success_is_tried_again_before_anything_is_relayed() {
    let refusal = r#"{"error":{"message":"Rate limit exceeded: free-models-per-min.","code":429}}"#;
    for (headers, first) in [
        (&[("content-type", "application/json")][..], refusal.to_owned()),
        (EVENTS, format!("data: {refusal}\n\n")),
    ] {
        let mut upstream = Upstream::start().await;
        let gateway = in_front_of(&upstream, "openrouter", "");
        let answering = tokio::spawn(send(
            gateway.address(),
            post("/api/v1/chat/completions", CHAT_BODY),
        ));
        upstream.request().await.answer(200, headers, first);
        upstream.request().await.answer_json(200, "{\"choices\":[]}");
        let answer = soon("the answer comes", answering).await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, "{\"choices\":[]}"));
        assert_eq!(answer.header("x-tidegate-attempts"), Some("2"));
        assert_eq!(in_flight(&gateway), 0);
    }
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_is_relayed_and_counted() {
    let content = "data: {\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n";
    let error = "data: {\"error\":{\"code\":429,\"message\":\"m\"},\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}\n\n";
    for (provider, path, body, outcome) in [
        (
            "openrouter",
            "/api/v1/chat/completions",
            format!("{content}{error}"),
            "broken",
        ),
        ("openai", CHAT, error.to_owned(), "rate_limited"),
        (
            "openai",
            CHAT,
            "data: {\"error\":{\"type\":\"server_error\",\"message\":\"m\"}}\n\n".to_owned(),
            "upstream_error",
        ),
        (
            "anthropic",
            "/v1/messages",
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"m\"}}\n\n"
                .to_owned(),
            "rate_limited",
        ),
    ] {
        let mut upstream = Upstream::start().await;
        let gateway = in_front_of(&upstream, provider, "");
        let sent = body.clone();
        let answer = exchange(&gateway, &mut upstream, post(path, CHAT_STREAM_BODY), |seen| {
            seen.answer(200, EVENTS, sent);
        })
        .await;
        assert_eq!((answer.status, answer.text()), (200, &*body), "{provider}");
        upstream.assert_quiet();
        assert_eq!(counted(&gateway, "tidegate_answer_faults_total"), 1.0, "{body}");
        let counted = counted(
            &gateway,
            &format!("tidegate_requests_total{{model=\"*\",outcome=\"{outcome}\""),
        );
        assert_eq!(counted, 1.0, "{body}");
        assert_eq!(in_flight(&gateway), 0);
    }
}

#[tokio::test]
async fn an_error_with_its_own_status_is_no_fault_in_an_answer() {
    let mut upstream = Upstream::start().await;
    let gateway = in_front_of(&upstream, "openai", "");
    let answer = exchange(&gateway, &mut upstream, chat(), |seen| {
        seen.answer_json(400, r#"{"error":{"type":"invalid_request_error","message":"m"}}"#);
    })
    .await;
    assert_eq!(answer.status, 400);
    assert_eq!(counted(&gateway, "tidegate_answer_faults_total"), 0.0);
}

#[tokio::test]
async fn refusals_have_the_shape_that_the_path_asks_for() {
    for (provider, path, expect) in [
        (
            "gemini",
            "/v1beta/models/m:streamGenerateContent",
            "[{\"error\":{\"code\":400",
        ),
        (
            "gemini",
            "/v1beta/models/m:streamGenerateContent?alt=sse",
            "{\"error\":{\"code\":400",
        ),
        ("mistral", CHAT, "{\"object\":\"error\""),
        (
            "azure",
            "/openai/deployments/m/chat/completions",
            "{\"error\":{\"code\":\"400\"",
        ),
        (
            "openrouter",
            "/api/v1/chat/completions",
            "{\"error\":{\"code\":400",
        ),
        ("cohere", "/v2/chat", "{\"message\":"),
        ("bedrock", "/model/m/converse", "{\"message\":"),
        ("groq", "/openai/v1/chat/completions", "{\"error\":{\"message\":"),
    ] {
        let upstream = Upstream::start().await;
        let gateway = in_front_of(&upstream, provider, "");
        for prefix in ["", "/up"] {
            let answer = send(gateway.address(), post(&format!("{prefix}{path}"), "nonsense")).await;
            assert_eq!(answer.status, 400);
            assert!(
                answer.text().starts_with(expect),
                "{provider} {prefix}{path}: {}",
                answer.text()
            );
        }
    }
}

#[tokio::test]
async fn what_clients_tried_before_is_counted() {
    let mut upstream = Upstream::start().await;
    let gateway = in_front_of(&upstream, "openai", "");
    for retries in ["0", "1", "2", "nonsense"] {
        let mut request = chat();
        let headers = request.headers_mut();
        headers.insert("x-stainless-retry-count", retries.parse().unwrap());
        exchange(&gateway, &mut upstream, request, |seen| {
            assert_eq!(seen.headers["x-stainless-retry-count"], retries);
            seen.answer_json(200, "{}");
        })
        .await;
    }
    assert_eq!(counted(&gateway, "tidegate_client_retries_total"), 2.0);
}

#[tokio::test]
async fn forms_name_their_model() {
    let mut upstream = Upstream::start().await;
    let gateway = in_front_of(&upstream, "groq", "");
    let body = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-large-v3\r\n\
                --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\naudio\r\n--b--\r\n";
    let mut request = post("/openai/v1/audio/transcriptions", body);
    let form = "multipart/form-data; boundary=b".parse().unwrap();
    request.headers_mut().insert("content-type", form);
    exchange(&gateway, &mut upstream, request, |seen| {
        assert_eq!(seen.body, body);
        seen.answer_json(200, "{}");
    })
    .await;
    let counted = counted(
        &gateway,
        "tidegate_requests_total{model=\"*\",outcome=\"success\"",
    );
    assert_eq!(counted, 1.0, "it belongs to the group of its model");
}
