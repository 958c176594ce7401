//! One attempt at one request, as an SDK would make it.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, timeout};

use super::connection::{Connections, ServerError};
use super::wire::AnswerReader;
use crate::config::{BaseUrl, BaseUrlError};

/// How a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Dialect {
    /// `/v1/chat/completions`, as OpenAI and the many who are compatible with it.
    #[default]
    #[value(name = "openai")]
    OpenAi,
    /// `/v1/messages`.
    Anthropic,
}

/// Why a request was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The server answered with this status.
    Status(u16),
    /// No connection, or it ended before the head of the response.
    Connection,
    /// Nothing came for longer than the timeout.
    Timeout,
    /// The answer ended early, or it is not one.
    Broken,
    /// The answer is whole, but to another request.
    Wrong,
}

impl Failure {
    /// Returns the name used in reports.
    pub fn name(self) -> String {
        match self {
            Self::Status(status) => format!("status {status}"),
            Self::Connection => "no connection".to_owned(),
            Self::Timeout => "timeout".to_owned(),
            Self::Broken => "broken answer".to_owned(),
            Self::Wrong => "wrong answer".to_owned(),
        }
    }
}

/// What became of one attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    /// When it was handed to the connection.
    pub(super) sent: Instant,
    /// The head of the response, if one came.
    pub(super) head: Option<(StatusCode, HeaderMap)>,
    /// How long Tidegate says it held the request.
    pub(super) queued: Option<Duration>,
    /// The text of the whole answer, or what went wrong.
    pub(super) result: Result<String, Failure>,
}

/// A client of one base URL.
pub(super) struct Client {
    connections: Connections,
    dialect: Dialect,
    uri: Uri,
    headers: HeaderMap,
    /// How long to wait for the head of a response, and for each next part of its body.
    timeout: Duration,
}

const QUEUE_MS: HeaderName = HeaderName::from_static("x-tidegate-queue-ms");

impl Client {
    pub(super) fn new(
        base_url: &str,
        dialect: Dialect,
        api_key: &HeaderValue,
        timeout: Duration,
    ) -> Result<Self, ServerError> {
        let base = BaseUrl::parse(base_url)?;
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| BaseUrlError::Unreadable);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, value(base.authority().as_str())?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let path = match dialect {
            Dialect::OpenAi => {
                let mut bearer = HeaderValue::from_bytes(&[b"Bearer ", api_key.as_bytes()].concat())
                    .expect("what follows is a header's value itself");
                bearer.set_sensitive(true);
                headers.insert(AUTHORIZATION, bearer);
                "chat/completions"
            }
            Dialect::Anthropic => {
                headers.insert(HeaderName::from_static("x-api-key"), api_key.clone());
                let version = HeaderValue::from_static("2023-06-01");
                headers.insert(HeaderName::from_static("anthropic-version"), version);
                "messages"
            }
        };
        let uri = format!("{}/v1/{path}", base.prefix()).parse();
        Ok(Self {
            connections: Connections::to(&base)?,
            dialect,
            uri: uri.map_err(|_| BaseUrlError::Unreadable)?,
            headers,
            timeout,
        })
    }

    pub(super) async fn attempt(&self, body: Bytes, stream: bool, retries: u32) -> Attempt {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let count = HeaderValue::from(retries);
        request.headers_mut().insert("x-stainless-retry-count", count);
        let sent = Instant::now();
        let failed = |failure| Attempt {
            sent,
            head: None,
            queued: None,
            result: Err(failure),
        };
        let (response, sender) = match timeout(self.timeout, self.connections.send(request)).await {
            Err(_) => return failed(Failure::Timeout),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no response");
                return failed(Failure::Connection);
            }
            Ok(Ok(answered)) => answered,
        };
        let (head, mut body) = response.into_parts();
        let mut attempt = Attempt {
            sent,
            queued: queued(&head.headers),
            result: Err(Failure::Status(head.status.as_u16())),
            head: Some((head.status, head.headers)),
        };
        let mut reader = AnswerReader::new(self.dialect, stream);
        let ok = head.status.is_success();
        loop {
            match timeout(self.timeout, body.frame()).await {
                Err(_) => {
                    attempt.result = Err(Failure::Timeout);
                    return attempt;
                }
                Ok(None) => break,
                Ok(Some(Err(_))) => {
                    attempt.result = Err(Failure::Broken);
                    return attempt;
                }
                Ok(Some(Ok(frame))) => {
                    let Some(data) = frame.data_ref() else { continue };
                    // An error's body is read as well, so that the connection can be kept.
                    if reader.push(data).is_err() {
                        attempt.result = Err(Failure::Broken);
                        return attempt;
                    }
                }
            }
        }
        self.connections.keep(sender);
        if ok {
            attempt.result = reader.finish().map_err(|_| Failure::Broken);
        }
        attempt
    }
}

fn queued(headers: &HeaderMap) -> Option<Duration> {
    let ms: f64 = headers.get(QUEUE_MS)?.to_str().ok()?.parse().ok()?;
    Duration::try_from_secs_f64(ms / 1000.0).ok()
}
