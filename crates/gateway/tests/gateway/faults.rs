//! What goes wrong at the upstream, and what the client gets to see of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt;
use tokio::net::TcpListener;

use crate::support::*;

const RATE_LIMITED: &str =
    r#"{"error":{"message":"Slow down","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;
const NO_QUOTA: &str = r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;

#[tokio::test]
async fn what_another_attempt_cures_is_tried_again() {
    for (status, headers, body) in [
        (500, &[][..], r#"{"error":{"message":"oops"}}"#),
        (502, &[], "<html>"),
        (503, &[], "overloaded"),
        (504, &[], ""),
        (529, &[], "{}"),
        (429, &[("retry-after-ms", "10")], RATE_LIMITED),
    ] {
        let mut upstream = Upstream::start().await;
        let gateway = gateway(upstream.address, "", "", "rpm = 1000");
        let answer = tokio::spawn(send(gateway.address(), chat()));
        let seen = upstream.request().await;
        seen.answer(status, headers, body);
        let seen = upstream.request().await;
        assert_eq!(seen.body, CHAT_BODY, "the same again");
        assert_eq!(seen.headers["authorization"], "Bearer sk-client");
        seen.answer_json(200, "{}");
        let answer = answer.await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, "{}"), "after {status}");
        assert_eq!(answer.header("x-tidegate-attempts"), Some("2"), "after {status}");
        assert!(answer.header("x-tidegate-limited-by").is_some(), "after {status}");
        until("the permit is settled", || in_flight(&gateway) == 0).await;
    }
}

#[tokio::test]
async fn what_time_does_not_cure_passes_at_once() {
    for (status, body) in [
        (400, r#"{"error":{"message":"bad"}}"#),
        (401, r#"{"error":{"message":"no key"}}"#),
        (403, "no"),
        (404, "{}"),
        (413, "{}"),
        (422, "{}"),
        (429, NO_QUOTA),
    ] {
        let mut upstream = Upstream::start().await;
        let gateway = gateway(upstream.address, "", "", "rpm = 1000");
        let answer = tokio::spawn(send(gateway.address(), chat()));
        upstream.request().await.answer(
            status,
            &[("content-type", "application/json"), ("x-request-id", "req_1")],
            body,
        );
        let answer = answer.await.unwrap();
        assert_eq!((answer.status, answer.text()), (status, body));
        assert_eq!(answer.header("x-request-id"), Some("req_1"));
        assert_eq!(answer.header("x-tidegate-attempts"), Some("1"));
        // SDKs retry every 429, but for this header.
        let expect = (status == 429).then_some("false");
        assert_eq!(answer.header("x-should-retry"), expect, "{status} {body}");
        upstream.assert_quiet();
        assert_eq!(in_flight(&gateway), 0);
    }
}

/// Ten of the provider's own words are enough; then one request a second asks whether it still means them.
#[tokio::test]
async fn broken_billing_is_not_asked_about_by_everybody() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let address = Upstream::start().await.always(move |seen| {
        count.fetch_add(1, Ordering::Relaxed);
        seen.answer(429, &[("content-type", "application/json")], NO_QUOTA);
    });
    let gateway = gateway(address, "", "", "rpm = 1000");
    let mut refused = 0;
    for turn in 0..60 {
        let answer = send(gateway.address(), chat()).await;
        assert_eq!(answer.status, 429, "{turn}");
        if answer.text() == NO_QUOTA {
            continue;
        }
        refused += 1;
        assert_eq!(answer.header("x-should-retry"), Some("false"), "{turn}");
        assert_eq!(answer.header("retry-after"), None, "{turn}: nobody knows when");
        assert!(answer.text().contains("quota is spent"), "{}", answer.text());
    }
    assert_eq!(asked.load(Ordering::Relaxed) + refused, 60);
    assert!(refused > 0, "everybody was sent to ask");
}

#[tokio::test]
async fn the_last_answer_is_relayed_when_there_is_no_time_for_another() {
    let body: String = "0123456789abcdef".repeat(8 * 1024);
    let sent = body.clone();
    let address = Upstream::start().await.always(move |seen| {
        seen.answer(500, &[("x-request-id", "req_last")], sent.clone());
    });
    let gateway = gateway(address, "", "", "rpm = 1000");
    let mut request = chat();
    request
        .headers_mut()
        .insert("x-tidegate-max-wait", "0.1".parse().unwrap());
    let answer = send(gateway.address(), request).await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.header("x-request-id"), Some("req_last"));
    assert_eq!(answer.text(), body);
    assert_eq!(in_flight(&gateway), 0);
}

#[tokio::test]
async fn a_connection_cut_before_the_answer_is_tried_again() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "", "", "rpm = 1000");
    let answer = tokio::spawn(send(gateway.address(), chat()));
    upstream.request().await.reset();
    upstream.request().await.answer_json(200, "{}");
    let answer = answer.await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-tidegate-attempts"), Some("2"));
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_meanwhile_is_not_used() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "workers = 1", "", "rpm = 1000");
    let mut client = Client::connect(gateway.address()).await;
    for _ in 0..20 {
        let answering = tokio::spawn(async move { (client.send(chat()).await, client) });
        upstream
            .request()
            .await
            .answer(200, &[("connection", "close")], "{}");
        let (answer, back) = answering.await.unwrap();
        client = back;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-tidegate-attempts"), Some("1"));
        assert_eq!(answer.header("connection"), None);
    }
}

#[tokio::test]
async fn nobody_there_is_a_502_in_the_shape_of_the_provider() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let gateway = gateway(address, "", "", "rpm = 1");
    for _ in 0..2 {
        let mut request = chat();
        request
            .headers_mut()
            .insert("x-tidegate-max-wait", "0.1".parse().unwrap());
        let answer = send(gateway.address(), request).await;
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert_eq!(answer.header("x-tidegate-attempts"), Some("0"));
        assert!(answer.text().starts_with(r#"{"error":{"#), "{}", answer.text());
    }
}

#[tokio::test]
async fn no_answer_in_time_is_a_504_and_not_tried_again() {
    for (path, start) in [(CHAT, r#"{"error":{"#), ("/up/v1/messages", r#"{"type":"error""#)] {
        let mut upstream = Upstream::start().await;
        let gateway = gateway(
            upstream.address,
            "",
            "first_byte_timeout = \"50ms\"",
            "rpm = 1000",
        );
        let answer = tokio::spawn(send(gateway.address(), post(path, CHAT_BODY)));
        let _seen = upstream.request().await;
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, 504);
        assert!(answer.text().starts_with(start), "{}", answer.text());
        upstream.gone().await;
        upstream.assert_quiet();
        assert_eq!(in_flight(&gateway), 0);
    }
}

#[tokio::test]
async fn a_broken_stream_reaches_the_client_as_broken() {
    for body in [CHAT_BODY, CHAT_STREAM_BODY] {
        let mut upstream = Upstream::start().await;
        let gateway = gateway(upstream.address, "", "", "rpm = 1000");
        let mut client = Client::connect(gateway.address()).await;
        let answering = tokio::spawn(async move { client.open(post(CHAT, body)).await });
        let stream = upstream.request().await.stream_events();
        stream.send("data: {\"a\":1}\n\n").await;
        let mut answer = answering.await.unwrap().into_body();
        let first = soon("a part", answer.frame()).await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "data: {\"a\":1}\n\n");
        stream.break_off().await;
        assert!(soon("the end", answer.frame()).await.unwrap().is_err());
        upstream.assert_quiet();
        until("the permit is settled", || in_flight(&gateway) == 0).await;
    }
}

#[tokio::test]
async fn an_answer_that_stands_still_is_broken_off() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "", "idle_timeout = \"50ms\"", "rpm = 1000");
    let mut client = Client::connect(gateway.address()).await;
    let answering = tokio::spawn(async move { client.open(post(CHAT, CHAT_STREAM_BODY)).await });
    let stream = upstream.request().await.stream_events();
    stream.send("data: {\"a\":1}\n\n").await;
    let answer = answering.await.unwrap().into_body();
    assert!(soon("the end", answer.collect()).await.is_err());
    upstream.gone().await;
    until("the permit is settled", || in_flight(&gateway) == 0).await;
    drop(stream);
}

#[tokio::test]
async fn a_body_that_cannot_be_sent_twice_is_sent_once() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "", "", "rpm = 1000");
    let answer = tokio::spawn(send(gateway.address(), post("/v1/files", "a file")));
    let seen = upstream.request().await;
    assert_eq!(seen.body, "a file");
    seen.answer(503, &[], "busy");
    let answer = answer.await.unwrap();
    assert_eq!((answer.status, answer.text()), (503, "busy"));
    upstream.assert_quiet();
    until("nothing waits", || waiting(&gateway) + in_flight(&gateway) == 0).await;
}
