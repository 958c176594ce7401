//! HTTP/2 on either side.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::*;

async fn http2_client(gateway: &tidegate_gateway::serve::Gateway) -> http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(gateway.address()).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn chat_http2(body: &'static str) -> Request<Full<Bytes>> {
    let mut request = post(&format!("http://gateway{CHAT}"), body);
    request.headers_mut().remove("host");
    request
}

#[tokio::test]
async fn requests_share_an_http2_connection_on_both_sides() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "workers = 1", "http2 = \"always\"", "rpm = 100");
    let mut client = http2_client(&gateway).await;
    let mut answers = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..5 {
        answers.push(tokio::spawn(client.send_request(chat_http2(CHAT_BODY))));
        seen.push(upstream.request().await);
    }
    let connection = seen[0].connection;
    for one in seen {
        assert_eq!(one.connection, connection);
        assert_eq!(one.uri.to_string(), format!("http://{}{CHAT}", upstream.address));
        assert_eq!(one.body, CHAT_BODY);
        assert!(!one.headers.contains_key("host"));
        one.answer_json(200, "{}");
    }
    for answer in answers {
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "{}");
    }
    until("nothing is in flight", || in_flight(&gateway) == 0).await;
}

#[tokio::test]
async fn a_reset_stream_takes_its_upstream_stream_with_it_and_no_other() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "workers = 1", "http2 = \"always\"", "rpm = 100");
    let mut client = http2_client(&gateway).await;
    // Before the head of the answer …
    let kept = tokio::spawn(client.send_request(chat_http2(CHAT_BODY)));
    let kept_seen = upstream.request().await;
    let dropped = tokio::spawn(client.send_request(chat_http2(CHAT_BODY)));
    let _dropped_seen = upstream.request().await;
    dropped.abort();
    upstream.gone().await;
    until("one is in flight", || in_flight(&gateway) == 1).await;
    // … and in the middle of it.
    let dropped = tokio::spawn(client.send_request(chat_http2(CHAT_STREAM_BODY)));
    let stream = upstream.request().await.stream_events();
    stream.send("data: 1\n\n").await;
    let mut body = dropped.await.unwrap().unwrap().into_body();
    soon("a part comes", body.frame()).await.unwrap().unwrap();
    drop(body);
    upstream.gone().await;
    kept_seen.answer_json(200, "{}");
    assert_eq!(kept.await.unwrap().unwrap().status(), 200);
    until("nothing is in flight", || in_flight(&gateway) == 0).await;
    drop(stream);
}
