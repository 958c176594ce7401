//! The end, as gentle as there is time for.

use http_body_util::BodyExt;
use tokio::net::TcpStream;

use crate::support::*;

#[tokio::test]
async fn what_is_open_or_waits_is_finished() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "", "", "concurrent = 1");
    let _idle = TcpStream::connect(gateway.address()).await.unwrap();
    let mut client = Client::connect(gateway.address()).await;
    let streaming = tokio::spawn(async move { client.open(post(CHAT, CHAT_STREAM_BODY)).await });
    let stream = upstream.request().await.stream_events();
    stream.send("data: 1\n\n").await;
    let streaming = streaming.await.unwrap();
    let queued = tokio::spawn(send(gateway.address(), chat()));
    until("the second waits", || waiting(&gateway) == 1).await;

    gateway.drain();
    soon("the listener closes", async {
        while TcpStream::connect(gateway.address()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stream.send("data: 2\n\n").await;
    drop(stream);
    let body = soon("the stream ends", streaming.into_body().collect())
        .await
        .unwrap();
    assert_eq!(body.to_bytes(), "data: 1\n\ndata: 2\n\n");
    upstream.request().await.answer_json(200, "{}");
    assert_eq!(queued.await.unwrap().status, 200);
    soon("the drain is over", gateway.drained()).await;
}

#[tokio::test]
async fn what_takes_too_long_is_refused_then_cut() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(
        upstream.address,
        "drain_timeout = \"50ms\"\nstream_drain_timeout = \"100ms\"",
        "",
        "concurrent = 1",
    );
    let mut client = Client::connect(gateway.address()).await;
    let streaming = tokio::spawn(async move { client.open(post(CHAT, CHAT_STREAM_BODY)).await });
    let stream = upstream.request().await.stream_events();
    stream.send("data: 1\n\n").await;
    let streaming = streaming.await.unwrap();
    let queued = tokio::spawn(send(gateway.address(), chat()));
    until("the second waits", || waiting(&gateway) == 1).await;

    gateway.drain();
    let refused = queued.await.unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(
        soon("the stream is cut", streaming.into_body().collect())
            .await
            .is_err()
    );
    upstream.gone().await;
    soon("the drain is over", gateway.drained()).await;
    drop(stream);
}

#[tokio::test]
async fn stopping_cuts_everything_at_once() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "", "", "rpm = 10");
    let mut client = RawClient::connect(gateway.address()).await;
    client.post_chat(CHAT_BODY).await;
    let _seen = upstream.request().await;
    gateway.stop();
    assert_eq!(client.read_to_end().await, "");
    upstream.gone().await;
}
