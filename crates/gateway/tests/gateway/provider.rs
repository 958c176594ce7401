//! Against the mock provider, which enforces limits as the real ones do and shares no line with the engine.

use std::time::Duration;

use tidegate_gateway::serve::Gateway;
use tidegate_mock::limits::{Algorithm, Dimension, Limit};
use tidegate_mock::{Fault, Handle, Server, Settings};

use crate::support::*;

const WINDOW: Duration = Duration::from_secs(2);

const MESSAGES_BODY: &str =
    r#"{"model":"claude-opus-4","max_tokens":8,"messages":[{"role":"user","content":"Hello, tide"}]}"#;

async fn mock(settings: Settings) -> Handle {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    Server::start(settings, listener).unwrap()
}

fn requests(amount: u64, algorithm: Algorithm) -> Vec<Limit> {
    vec![Limit::new(Dimension::Requests, WINDOW, amount, algorithm)]
}

fn in_front_of(mock: &Handle, limits: &str) -> Gateway {
    gateway(mock.address(), "", "window = \"2s\"", limits)
}

#[tokio::test]
async fn more_requests_than_the_limit_all_succeed_and_none_is_refused() {
    for (limits, algorithm, body) in [
        ("rpm = 40", Algorithm::Rolling, CHAT_BODY),
        ("rpm = 40", Algorithm::TokenBucket, CHAT_STREAM_BODY),
        // Nothing configured: learned from the first answers.
        (
            "",
            Algorithm::Fixed {
                phase: Duration::from_millis(700),
            },
            CHAT_BODY,
        ),
    ] {
        let mock = mock(Settings {
            limits: requests(40, algorithm),
            ..Settings::default()
        })
        .await;
        let gateway = in_front_of(&mock, limits);
        let asking: Vec<_> = (0..60)
            .map(|_| tokio::spawn(send(gateway.address(), post(CHAT, body))))
            .collect();
        let mut waited = 0;
        for answer in asking {
            let answer = answer.await.unwrap();
            assert_eq!(answer.status, 200, "{algorithm:?}: {}", answer.text());
            waited += usize::from(answer.header("x-tidegate-limited-by").is_some());
        }
        let stats = mock.stats();
        assert_eq!((stats.rate_limited, stats.admitted), (0, 60), "{algorithm:?}");
        assert!(waited >= 20, "{algorithm:?}: only {waited} waited");
        until("nothing is in flight", || in_flight(&gateway) == 0).await;
    }
}

#[tokio::test]
async fn answers_are_the_same_as_without_the_gateway() {
    let mock = mock(Settings::default()).await;
    let gateway = in_front_of(&mock, "rpm = 1000");
    for (path, body) in [
        (CHAT, CHAT_BODY),
        (CHAT, CHAT_STREAM_BODY),
        (
            CHAT,
            r#"{"model":"gpt-4o","stream":true,"max_tokens":5,"messages":[{"role":"user","content":"No usage, please"}]}"#,
        ),
        (
            "/v1/embeddings",
            r#"{"model":"text-embedding-3-small","input":["a","b"]}"#,
        ),
        ("/v1/responses", r#"{"model":"gpt-4o","input":"Hello"}"#),
        (
            "/v1/completions",
            r#"{"model":"gpt-3.5-turbo-instruct","prompt":"Hello"}"#,
        ),
    ] {
        let direct = send(mock.address(), post(path, body)).await;
        let through = send(gateway.address(), post(path, body)).await;
        assert_eq!(direct.status, 200, "{}", direct.text());
        assert_eq!(shape(direct.text()), shape(through.text()), "{path} {body}");
        for (name, value) in &direct.headers {
            let changes = ["date", "x-request-id", "content-length", "transfer-encoding"]
                .contains(&name.as_str())
                || name.as_str().starts_with("x-ratelimit");
            assert!(
                changes || through.headers.get(name) == Some(value),
                "{path}: {name}: {value:?}, not {:?}",
                through.headers.get(name)
            );
        }
    }
}

/// An answer without its digits and identifiers: they differ from one to the next.
fn shape(text: &str) -> String {
    let mut shape = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\"id\":\"") {
        let (before, after) = rest.split_at(at + 6);
        shape.push_str(before);
        rest = after.find('"').map_or("", |quote| &after[quote..]);
    }
    shape.push_str(rest);
    shape.chars().filter(|symbol| !symbol.is_ascii_digit()).collect()
}

#[tokio::test]
async fn faults_of_the_provider_are_cured_or_told() {
    let mock = mock(Settings::default()).await;
    let gateway = in_front_of(&mock, "rpm = 1000");
    for fault in [
        Fault::Status(500),
        Fault::Status(503),
        Fault::Status(529),
        Fault::ResetBeforeHead,
    ] {
        mock.script([fault]);
        let answer = send(gateway.address(), chat()).await;
        assert_eq!(
            (answer.status, answer.header("x-tidegate-attempts")),
            (200, Some("2")),
            "{fault:?}"
        );
    }
    mock.script([Fault::ResetMidStream]);
    let mut client = RawClient::connect(gateway.address()).await;
    client.post_chat(CHAT_STREAM_BODY).await;
    let text = client.read_to_end().await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(
        !text.ends_with("0\r\n\r\n"),
        "the stream must not end cleanly: {text}"
    );
    until("nothing is in flight", || in_flight(&gateway) == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_is_a_client_that_left_for_the_provider() {
    for (body, fault) in [
        (CHAT_BODY, Fault::StallBeforeHead),
        (CHAT_STREAM_BODY, Fault::StallBeforeHead),
        (CHAT_STREAM_BODY, Fault::StallMidStream),
    ] {
        let mock = mock(Settings::default()).await;
        let gateway = in_front_of(&mock, "rpm = 1000");
        mock.script([fault]);
        let mut client = RawClient::connect(gateway.address()).await;
        client.post_chat(body).await;
        if fault == Fault::StallMidStream {
            client.read_until("data:").await;
        }
        until("it has reached the provider", || mock.stats().in_flight == 1).await;
        drop(client);
        until("the provider is left alone", || mock.stats().in_flight == 0).await;
        let left = mock.stats().disconnects;
        assert_eq!(left.waiting + left.streaming, 1, "{fault:?}: {left:?}");
        until("nothing is in flight", || in_flight(&gateway) == 0).await;
    }
}

#[tokio::test]
async fn anthropic_is_spoken_too() {
    let mock = mock(Settings::default()).await;
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"off\"\nworkers = 1\n\
         [[upstreams]]\nprovider = \"anthropic\"\nbase_url = \"http://{}\"\n",
        mock.address()
    );
    let config = tidegate_gateway::config::Config::from_toml(&text, "test").unwrap();
    let gateway = Gateway::start(config).unwrap();
    let stream = MESSAGES_BODY.replace("\"max_tokens\"", "\"stream\":true,\"max_tokens\"");
    for (path, body) in [
        ("/v1/messages", MESSAGES_BODY),
        ("/v1/messages", stream.as_str()),
        ("/anthropic/v1/messages", MESSAGES_BODY),
        ("/v1/messages/count_tokens", MESSAGES_BODY),
    ] {
        let mut request = post(path, body.to_owned());
        request.headers_mut().remove("authorization");
        for (name, value) in [("x-api-key", "sk-ant"), ("anthropic-version", "2023-06-01")] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let answer = send(gateway.address(), request).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    let answer = send(gateway.address(), chat()).await;
    assert_eq!(answer.status, 404, "no upstream speaks OpenAI's API");
    until("nothing is in flight", || in_flight(&gateway) == 0).await;
}
