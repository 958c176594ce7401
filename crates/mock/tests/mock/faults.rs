//! Faults, time, and clients that leave.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use serde_json::json;
use tidegate_mock::{Fault, Faults, Latency, Settings};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::client::{chat, connect, post, request, send, start, until};

fn streaming(content: &str, tokens: u64) -> String {
    let mut body: serde_json::Value = serde_json::from_str(&chat(content, tokens)).unwrap();
    body["stream"] = json!(true);
    body.to_string()
}

#[tokio::test(start_paused = true)]
async fn faults_are_played_in_order() {
    let provider = start(Settings::default()).await;
    provider.script([
        Fault::Status(500),
        Fault::Status(503),
        Fault::ResetBeforeHead,
        Fault::Status(529),
    ]);
    let path = "/v1/chat/completions";
    let answer = post(&provider, path, chat("x", 1)).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["type"]),
        (500, &json!("server_error"))
    );
    let answer = post(&provider, path, chat("x", 1)).await;
    assert_eq!(
        answer.json()["error"]["message"],
        "The engine is currently overloaded, please try again later"
    );
    send(&provider, request(Method::POST, path, chat("x", 1)))
        .await
        .unwrap_err();
    let answer = post(&provider, "/v1/messages", chat("x", 1)).await;
    let expect = json!({"type": "overloaded_error", "message": "Overloaded"});
    assert_eq!((answer.status, &answer.json()["error"]), (529, &expect));
    assert_eq!(post(&provider, path, chat("x", 1)).await.status, 200);
    let stats = provider.stats();
    assert_eq!(
        (stats.faults, stats.admitted, stats.in_flight),
        (4, 5, 0),
        "faults come after admission"
    );
    assert_eq!(stats.disconnects, tidegate_mock::stats::Disconnects::default());
}

#[tokio::test(start_paused = true)]
async fn answers_break_off_in_the_middle() {
    let provider = start(Settings::default()).await;
    for body in [chat("x", 10), streaming("x", 10)] {
        provider.script([Fault::ResetMidStream]);
        let mut connection = connect(&provider).await;
        let response = connection
            .send_request(request(Method::POST, "/v1/chat/completions", body))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(!first.is_empty());
        body.frame().await.unwrap().expect_err("the rest never comes");
    }
    assert_eq!(provider.stats().in_flight, 0);
    assert_eq!(provider.stats().disconnects.streaming, 0, "it was not the client");
}

#[tokio::test(start_paused = true)]
async fn chance_is_seeded() {
    let statuses = async |seed| {
        let faults = Faults {
            status_500: 0.3,
            status_529: 0.2,
            ..Faults::default()
        };
        let provider = start(Settings {
            seed,
            faults,
            ..Settings::default()
        })
        .await;
        let mut statuses = Vec::new();
        for _ in 0..60 {
            statuses.push(post(&provider, "/v1/chat/completions", chat("x", 1)).await.status);
        }
        statuses
    };
    let first = statuses(7).await;
    assert_eq!(first, statuses(7).await);
    assert_ne!(first, statuses(8).await);
    for status in [200, 500, 529] {
        assert!(first.contains(&status), "{first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn time_passes_as_it_is_set() {
    let settings = Settings {
        latency: Latency::Fixed(Duration::from_secs(2)),
        tokens_per_second: Some(10.0),
        ..Settings::default()
    };
    let provider = start(settings).await;
    let began = Instant::now();
    post(&provider, "/v1/chat/completions", chat("x", 21)).await;
    let plain = began.elapsed();
    assert!(
        (4_000..4_100).contains(&plain.as_millis()),
        "2 s and 20 tokens more: {plain:?}"
    );

    let began = Instant::now();
    let mut connection = connect(&provider).await;
    let request = request(Method::POST, "/v1/chat/completions", streaming("x", 21));
    let response = connection.send_request(request).await.unwrap();
    let head = began.elapsed();
    assert!((2_000..2_100).contains(&head.as_millis()), "{head:?}");
    let mut body = response.into_body();
    let mut frames = 0;
    while let Some(frame) = body.frame().await {
        frame.unwrap();
        frames += 1;
    }
    assert!((15..=22).contains(&frames), "token by token: {frames}");
    let whole = began.elapsed();
    assert!((4_000..4_100).contains(&whole.as_millis()), "{whole:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_noticed_in_every_phase() {
    let settings = Settings {
        tokens_per_second: Some(1.0),
        ..Settings::default()
    };
    let provider = start(settings).await;

    let mut raw = TcpStream::connect(provider.address()).await.unwrap();
    let half = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\ncontent-length: 100\r\n\r\n{";
    raw.write_all(half.as_bytes()).await.unwrap();
    until(&provider, |stats| stats.connections == 1).await;
    // Under the paused clock this ends when nobody has anything left to do: the head has been read.
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(raw);
    until(&provider, |stats| stats.disconnects.sending == 1).await;

    let mut connection = connect(&provider).await;
    let stalled = chat("x", 5).replace("{\"max", "{\"x_mock\":{\"stall\":\"head\"},\"max");
    let waiting = tokio::spawn(connection.send_request(request(Method::POST, "/v1/messages", stalled)));
    until(&provider, |stats| stats.in_flight == 1).await;
    waiting.abort();
    drop(connection);
    until(&provider, |stats| stats.disconnects.waiting == 1).await;

    let mut connection = connect(&provider).await;
    let request = request(Method::POST, "/v1/chat/completions", streaming("x", 1_000));
    let mut body = connection.send_request(request).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    drop(connection);
    until(&provider, |stats| stats.disconnects.streaming == 1).await;
    let stats = provider.stats();
    assert_eq!(stats.in_flight, 0);
    assert!(stats.generated_tokens < 1_000);
}
