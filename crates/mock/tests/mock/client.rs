//! A plain client, and a provider to talk to.

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tidegate_mock::{Handle, Server, Settings};
use tokio::net::{TcpListener, TcpStream};

pub(crate) async fn start(settings: Settings) -> Handle {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Server::start(settings, listener).unwrap()
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The data of a stream's events, `[DONE]` left out.
    pub(crate) fn events(&self) -> Vec<Value> {
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }
}

/// Opens a connection of its own.
pub(crate) async fn connect(provider: &Handle) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(provider.address()).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async {
        // Its end is seen by whoever waits for an answer.
        let _ = connection.await;
    });
    sender
}

pub(crate) fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "provider")
        .header("authorization", "Bearer test-key")
        .header("anthropic-version", "2023-06-01")
        .body(Full::new(body.into()))
        .unwrap()
}

pub(crate) async fn send(provider: &Handle, request: Request<Full<Bytes>>) -> hyper::Result<Answer> {
    let response = connect(provider).await.send_request(request).await?;
    collect(response).await
}

pub(crate) async fn collect(response: http::Response<Incoming>) -> hyper::Result<Answer> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8(body.into()).unwrap(),
    })
}

pub(crate) async fn post(provider: &Handle, path: &str, body: impl Into<Bytes>) -> Answer {
    send(provider, request(Method::POST, path, body)).await.unwrap()
}

pub(crate) async fn get(provider: &Handle, path: &str) -> Answer {
    let mut request = request(Method::GET, path, "");
    request.headers_mut().remove("anthropic-version");
    send(provider, request).await.unwrap()
}

/// A chat of one message with this much output at most.
pub(crate) fn chat(content: &str, max_tokens: u64) -> String {
    serde_json::json!({
        "model": "gpt-4o",
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": content}],
    })
    .to_string()
}

/// Waits until the statistics say so; they are written by other tasks of the same runtime.
pub(crate) async fn until(provider: &Handle, mut reached: impl FnMut(&tidegate_mock::Stats) -> bool) {
    while !reached(&provider.stats()) {
        tokio::task::yield_now().await;
    }
}
