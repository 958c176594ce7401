//! A client that leaves takes everything with it: its place in the queue, its permit, the upstream's request.

use tidegate_gateway::serve::Gateway;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::support::*;

const BODIES: [&str; 2] = [CHAT_BODY, CHAT_STREAM_BODY];

#[tokio::test]
async fn while_queued() {
    for body in BODIES {
        let mut upstream = Upstream::start().await;
        let gateway = gateway(upstream.address, "", "", "concurrent = 1");
        let mut first = RawClient::connect(gateway.address()).await;
        first.post_chat(body).await;
        let seen = upstream.request().await;
        let mut second = RawClient::connect(gateway.address()).await;
        second.post_chat(body).await;
        until("the second waits", || waiting(&gateway) == 1).await;
        drop(second);
        until("the second is forgotten", || waiting(&gateway) == 0).await;
        seen.answer_json(200, "{}");
        first.read_until("{}").await;
        until("nothing is in flight", || in_flight(&gateway) == 0).await;
        upstream.assert_quiet();
    }
}

#[tokio::test]
async fn while_connecting_with_a_permit() {
    for body in BODIES {
        // A TLS upstream that accepts and then says nothing: the permit is held, nothing is sent.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let config = config(&format!("https://{address}"), "", "", "rpm = 1");
        let gateway = Gateway::start(config).unwrap();
        let mut client = RawClient::connect(gateway.address()).await;
        client.post_chat(body).await;
        let (mut accepted, _) = soon("the gateway connects", silent.accept()).await.unwrap();
        assert_eq!(in_flight(&gateway), 1);
        drop(client);
        let mut hello = Vec::new();
        let _ = soon("the gateway hangs up", accepted.read_to_end(&mut hello)).await;
        until("nothing is in flight", || in_flight(&gateway) == 0).await;
        let snapshot = gateway.limiter().snapshot();
        let used = snapshot.quotas[0].limits[0].used;
        assert_eq!(used.value(), 0, "what was not sent is given back");
    }
}

#[tokio::test]
async fn while_awaiting_the_first_byte() {
    for body in BODIES {
        let mut upstream = Upstream::start().await;
        let gateway = gateway(upstream.address, "", "", "rpm = 100");
        let mut client = RawClient::connect(gateway.address()).await;
        client.post_chat(body).await;
        let _seen = upstream.request().await;
        assert_eq!(in_flight(&gateway), 1);
        drop(client);
        upstream.gone().await;
        until("nothing is in flight", || in_flight(&gateway) == 0).await;
    }
}

#[tokio::test]
async fn what_was_done_until_then_is_counted() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "", "", "concurrent = 1");
    let mut first = RawClient::connect(gateway.address()).await;
    first.post_chat(CHAT_BODY).await;
    let _seen = upstream.request().await;
    let mut second = RawClient::connect(gateway.address()).await;
    second.post_chat(CHAT_BODY).await;
    until("the second waits", || waiting(&gateway) == 1).await;
    drop(second);
    let canceled = || {
        counted(
            &gateway,
            "tidegate_requests_total{model=\"*\",outcome=\"canceled\"",
        )
    };
    until("the second is counted", || canceled() == 1.0).await;
    let waits = || counted(&gateway, "tidegate_queue_wait_seconds_count{model=\"*\"");
    assert_eq!(waits(), 0.0, "it was not sent");
    drop(first);
    upstream.gone().await;
    until("the first is counted", || canceled() == 2.0).await;
    assert_eq!(waits(), 1.0, "the first was sent");
    assert_eq!(counted(&gateway, "tidegate_requests_total{"), 2.0);
    assert_eq!(counted(&gateway, "tidegate_overhead_seconds_count"), 1.0);
    assert_eq!(counted(&gateway, "tidegate_in_flight_requests{"), 0.0);
}

#[tokio::test]
async fn while_the_answer_is_under_way() {
    for body in BODIES {
        let mut upstream = Upstream::start().await;
        let gateway = gateway(upstream.address, "", "", "rpm = 100");
        let mut client = RawClient::connect(gateway.address()).await;
        client.post_chat(body).await;
        let stream = upstream.request().await.stream_events();
        stream.send("data: {\"first\":1}\n\n").await;
        client.read_until("first").await;
        assert_eq!(in_flight(&gateway), 1);
        drop(client);
        upstream.gone().await;
        until("nothing is in flight", || in_flight(&gateway) == 0).await;
        drop(stream);
    }
}

#[tokio::test]
async fn while_sending_the_body() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "", "", "rpm = 100");
    let mut client = RawClient::connect(gateway.address()).await;
    client
        .write(format!(
            "POST {CHAT} HTTP/1.1\r\nhost: g\r\ncontent-length: 100\r\n\r\nhalf"
        ))
        .await;
    drop(client);
    let answer = tokio::spawn(send(gateway.address(), chat()));
    upstream.request().await.answer_json(200, "{}");
    assert_eq!(answer.await.unwrap().status, 200);
    upstream.assert_quiet();
}
