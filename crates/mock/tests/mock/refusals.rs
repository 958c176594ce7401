//! Every error's status and body.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method};
use serde_json::{Value, json};
use tidegate_mock::limits::{Algorithm, Dimension, Limit};
use tidegate_mock::{Handle, Key, Settings};

use crate::client::{chat, post, request, send, start};

/// The message and the rest of an error in OpenAI's shape.
fn openai(kind: &str, param: Value, code: Value, message: &str) -> Value {
    json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
}

async fn check_openai(
    provider: &Handle,
    body: impl Into<Bytes>,
    status: u16,
    param: Value,
    code: Value,
    starts: &str,
) {
    let answer = post(provider, "/v1/chat/completions", body).await;
    let json = answer.json();
    let message = json["error"]["message"].as_str().unwrap();
    assert!(message.starts_with(starts), "{message}");
    assert_eq!(
        (answer.status, &json),
        (status, &openai("invalid_request_error", param, code, message))
    );
}

#[tokio::test(start_paused = true)]
async fn bad_bodies_are_refused_as_openai_does() {
    let provider = start(Settings {
        body_bytes_max: 10_000,
        ..Settings::default()
    })
    .await;
    let null = Value::Null;
    let not_json = "We could not parse the JSON body of your request.";
    let deep = format!("{}{}", "[".repeat(4_000), "]".repeat(4_000));
    for body in [
        Bytes::new(),
        "{".into(),
        "[]".into(),
        "1".into(),
        Bytes::from_static(b"{\"a\":\"\xff\"}"),
        deep.into(),
    ] {
        check_openai(&provider, body, 400, null.clone(), null.clone(), not_json).await;
    }
    check_openai(
        &provider,
        "x".repeat(10_001),
        413,
        null.clone(),
        null.clone(),
        "The request body is too large",
    )
    .await;
    check_openai(
        &provider,
        "{}",
        400,
        null.clone(),
        null.clone(),
        "you must provide a model parameter",
    )
    .await;
    let missing = json!("missing_required_parameter");
    check_openai(
        &provider,
        r#"{"model":"m"}"#,
        400,
        json!("messages"),
        missing,
        "Missing required parameter",
    )
    .await;
    assert_eq!(provider.stats().admitted, 0);
}

#[tokio::test(start_paused = true)]
async fn bad_values_are_refused_as_openai_does() {
    let provider = start(Settings::default()).await;
    let with = |name: &str, value: &str| {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],"{name}":{value}}}"#)
    };
    let cases = [
        (
            "max_tokens",
            "-1",
            "integer_below_min_value",
            "Invalid 'max_tokens': integer below minimum value",
        ),
        (
            "max_tokens",
            "0",
            "integer_below_min_value",
            "Invalid 'max_tokens': integer below minimum value",
        ),
        (
            "max_tokens",
            "1e30",
            "integer_above_max_value",
            "Invalid 'max_tokens': integer above maximum value",
        ),
        (
            "max_tokens",
            "1.5",
            "invalid_type",
            "Invalid type for 'max_tokens'",
        ),
        (
            "max_tokens",
            "\"9\"",
            "invalid_type",
            "Invalid type for 'max_tokens'",
        ),
        (
            "max_completion_tokens",
            "-1",
            "integer_below_min_value",
            "Invalid 'max_completion_tokens'",
        ),
        (
            "n",
            "129",
            "integer_above_max_value",
            "Invalid 'n': integer above maximum value",
        ),
        ("stream", "1", "invalid_type", "Invalid type for 'stream'"),
        (
            "x_mock",
            "{\"status\":7}",
            "invalid_value",
            "x-mock-status: the value `7` is not known",
        ),
    ];
    for (name, value, code, starts) in cases {
        check_openai(
            &provider,
            with(name, value),
            400,
            json!(name),
            json!(code),
            starts,
        )
        .await;
    }
    assert_eq!(provider.stats().admitted, 0);
}

#[tokio::test(start_paused = true)]
async fn bad_bodies_are_refused_as_anthropic_does() {
    let provider = start(Settings {
        body_bytes_max: 10_000,
        ..Settings::default()
    })
    .await;
    let check = async |body: String, status: u16, kind: &str, message: &str| {
        let answer = post(&provider, "/v1/messages", body).await;
        let expect = json!({"type": "error", "error": {"type": kind, "message": message},
            "request_id": answer.header("request-id")});
        assert_eq!((answer.status, answer.json()), (status, expect));
    };
    let invalid = "invalid_request_error";
    let messages = r#""messages":[{"role":"user","content":"x"}]"#;
    check("{".into(), 400, invalid, "The request body is not valid JSON.").await;
    check("{}".into(), 400, invalid, "model: Field required").await;
    check(
        r#"{"model":"m"}"#.into(),
        400,
        invalid,
        "messages: Field required",
    )
    .await;
    check(
        format!(r#"{{"model":"m",{messages}}}"#),
        400,
        invalid,
        "max_tokens: Field required",
    )
    .await;
    let negative = format!(r#"{{"model":"m","max_tokens":-1,{messages}}}"#);
    check(
        negative,
        400,
        invalid,
        "max_tokens: Input should be greater than or equal to 1",
    )
    .await;
    let large = "Request exceeds the maximum allowed number of bytes.";
    check("x".repeat(10_001), 413, "request_too_large", large).await;
}

/// Sends without the headers that the client usually adds.
async fn bare(provider: &Handle, path: &str, headers: &[(&'static str, &'static str)]) -> (u16, Value) {
    let mut request = request(Method::POST, path, chat("x", 1));
    *request.headers_mut() = HeaderMap::new();
    for (name, value) in headers.iter().chain([&("host", "provider")]) {
        request
            .headers_mut()
            .insert(HeaderName::from_static(name), value.parse().unwrap());
    }
    let answer = send(provider, request).await.unwrap();
    (answer.status, answer.json()["error"].clone())
}

#[tokio::test(start_paused = true)]
async fn keys_are_checked() {
    let keys = vec![Key::new("right")];
    let provider = start(Settings {
        keys,
        ..Settings::default()
    })
    .await;
    let (status, error) = bare(&provider, "/v1/chat/completions", &[]).await;
    assert_eq!((status, &error["type"]), (401, &json!("invalid_request_error")));
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .starts_with("You didn't provide an API key.")
    );
    let (status, error) = bare(
        &provider,
        "/v1/chat/completions",
        &[("authorization", "Bearer wrong")],
    )
    .await;
    assert_eq!((status, &error["code"]), (401, &json!("invalid_api_key")));
    assert!(!error.to_string().contains("wrong"), "a key is never repeated");
    let (status, _) = bare(
        &provider,
        "/v1/chat/completions",
        &[("authorization", "Bearer right")],
    )
    .await;
    assert_eq!(status, 200);
    let (status, error) = bare(&provider, "/v1/messages", &[]).await;
    assert_eq!(
        (status, &error["message"]),
        (401, &json!("x-api-key header is required"))
    );
    let (status, error) = bare(&provider, "/v1/messages", &[("x-api-key", "wrong")]).await;
    assert_eq!((status, &error["type"]), (401, &json!("authentication_error")));
    let (status, error) = bare(&provider, "/v1/messages", &[("x-api-key", "right")]).await;
    assert_eq!(
        (status, &error["message"]),
        (400, &json!("anthropic-version: header is required"))
    );
    let headers = [("x-api-key", "right"), ("anthropic-version", "2023-06-01")];
    assert_eq!(bare(&provider, "/v1/messages", &headers).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn keys_are_never_printed() {
    let keys = vec![Key::new("canary")];
    let provider = start(Settings {
        keys,
        scope: tidegate_mock::Scope::Key,
        ..Settings::default()
    })
    .await;
    let headers = [("authorization", "Bearer canary")];
    assert_eq!(bare(&provider, "/v1/chat/completions", &headers).await.0, 200);
    let (_, error) = bare(
        &provider,
        "/v1/chat/completions",
        &[("authorization", "Bearer canary2")],
    )
    .await;
    assert!(!format!("{provider:?} {error}").contains("canary"));
}

#[tokio::test(start_paused = true)]
async fn unknown_places_methods_and_models_are_refused() {
    let models = vec!["known".to_owned()];
    let provider = start(Settings {
        models,
        ..Settings::default()
    })
    .await;
    let answer = post(&provider, "/v1/chat/completions", chat("x", 1)).await;
    let message = "The model `gpt-4o` does not exist or you do not have access to it.";
    let expect = openai(
        "invalid_request_error",
        Value::Null,
        json!("model_not_found"),
        message,
    );
    assert_eq!((answer.status, answer.json()), (404, expect));
    let answer = post(&provider, "/v1/messages", chat("x", 1)).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["message"]),
        (404, &json!("model: gpt-4o"))
    );
    let mut get = request(Method::GET, "/v1/chat/completions", "");
    get.headers_mut().remove("anthropic-version");
    let answer = send(&provider, get).await.unwrap();
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (405, &json!("method_not_supported"))
    );
    let mut nowhere = request(Method::POST, "/v1/nowhere", "");
    nowhere.headers_mut().remove("anthropic-version");
    let answer = send(&provider, nowhere).await.unwrap();
    let message = "Invalid URL (POST /v1/nowhere)";
    assert_eq!(
        (answer.status, &answer.json()["error"]["message"]),
        (404, &json!(message))
    );
    let answer = post(&provider, "/v1/messages/nowhere", "").await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["type"]),
        (404, &json!("not_found_error"))
    );
}

#[tokio::test(start_paused = true)]
async fn what_time_does_not_cure_says_so() {
    let provider = start(Settings::default()).await;
    let with = |name: &'static str| {
        let mut request = request(Method::POST, "/", chat("x", 1));
        request
            .headers_mut()
            .insert("x-mock-error", name.parse().unwrap());
        request
    };
    let mut openai_quota = with("insufficient_quota");
    *openai_quota.uri_mut() = "/v1/chat/completions".parse().unwrap();
    let answer = send(&provider, openai_quota).await.unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (429, ""));
    let message = "You exceeded your current quota, please check your plan and billing details. For more information \
                   on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.";
    let code = json!("insufficient_quota");
    assert_eq!(
        answer.json(),
        openai("insufficient_quota", Value::Null, code, message)
    );
    let mut spend = with("spend_limit");
    *spend.uri_mut() = "/v1/messages".parse().unwrap();
    let answer = send(&provider, spend).await.unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (429, ""));
    let error = answer.json()["error"].clone();
    assert_eq!(error["details"]["error_code"], "enforced_spend_limit_reached");
    assert_eq!(error["type"], "rate_limit_error");
}

#[tokio::test(start_paused = true)]
async fn a_request_larger_than_its_limit_is_told_so() {
    let minute = std::time::Duration::from_secs(60);
    let limits = vec![
        Limit::new(Dimension::Tokens, minute, 100, Algorithm::TokenBucket),
        Limit::new(Dimension::Input, minute, 100, Algorithm::TokenBucket),
    ];
    let provider = start(Settings {
        limits,
        ..Settings::default()
    })
    .await;
    let answer = post(&provider, "/v1/chat/completions", chat("hello", 500)).await;
    let message = "Request too large for gpt-4o in organization org-tidegatemock0000000000000 on tokens per min \
                   (TPM): Limit 100, Requested 505. The input or output tokens must be reduced in order to run \
                   successfully. Visit https://platform.openai.com/account/rate-limits to learn more.";
    assert_eq!(
        answer.json(),
        openai("tokens", Value::Null, json!("rate_limit_exceeded"), message)
    );
    assert_eq!((answer.status, answer.header("retry-after")), (429, ""));
    let answer = post(&provider, "/v1/messages", chat(&"x".repeat(4_000), 5)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, ""));
    assert_eq!(answer.header("x-should-retry"), "false");
    let stats = provider.stats();
    assert_eq!((stats.too_large, stats.rate_limited, stats.admitted), (2, 0, 0));
}
