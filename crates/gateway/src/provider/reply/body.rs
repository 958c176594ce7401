//! The bodies of errors, in each provider's shape.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use super::super::Shape;
use super::ErrorReply;

impl ErrorReply {
    /// Returns the body in a provider's shape. Official SDKs tell errors apart by the status and show the message; what
    /// else is in here is for those who look (providers.md §2.5, §3.5, §4.5, §5.1, §6, §7, §9, §11).
    pub(super) fn body(&self, shape: Shape, request_id: &str) -> Bytes {
        let status = self.status.as_u16();
        match shape {
            Shape::OpenAi => to_json(&OpenAiBody {
                error: OpenAiError {
                    message: &self.message,
                    kind: self.openai_kind(),
                    param: None,
                    code: self.code,
                },
            }),
            Shape::Azure => to_json(&CodeBody {
                error: CodeError {
                    code: status.to_string(),
                    message: &self.message,
                },
            }),
            Shape::OpenRouter => to_json(&CodeBody {
                error: CodeError {
                    code: status,
                    message: &self.message,
                },
            }),
            Shape::Mistral => to_json(&MistralBody {
                object: "error",
                message: &self.message,
                kind: self.mistral_kind(),
                param: None,
                code: if status == 429 { "1300" } else { self.code },
                raw_status_code: status,
            }),
            Shape::Anthropic => to_json(&AnthropicBody {
                kind: "error",
                error: AnthropicError {
                    kind: self.anthropic_kind(),
                    message: &self.message,
                },
                request_id,
            }),
            Shape::Google => to_json(&self.google()),
            Shape::GoogleList => to_json(&[self.google()]),
            Shape::Cohere | Shape::Bedrock => to_json(&json!({ "message": self.message })),
        }
    }

    fn google(&self) -> GoogleBody<'_> {
        let mut details = vec![json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": self.code.to_ascii_uppercase(),
            "domain": "tidegate",
        })];
        if let Some(wait) = self.retry_after {
            details.push(json!({
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": super::seconds(wait.max(Duration::from_millis(1))),
            }));
        }
        GoogleBody {
            error: GoogleError {
                code: self.status.as_u16(),
                message: &self.message,
                status: self.google_status(),
                details,
            },
        }
    }

    fn openai_kind(&self) -> &'static str {
        match self.status.as_u16() {
            429 => self.limited,
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    fn mistral_kind(&self) -> &'static str {
        match self.status.as_u16() {
            429 => "rate_limited",
            500.. => "internal_server_error",
            _ => "invalid_request_error",
        }
    }

    /// Returns Anthropic's name for errors of this status.
    fn anthropic_kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            408 | 504 => "timeout_error",
            503 | 529 => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        }
    }

    /// Returns Google's name for errors of this status.
    fn google_status(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "UNAUTHENTICATED",
            402 => "FAILED_PRECONDITION",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            429 => "RESOURCE_EXHAUSTED",
            408 | 504 => "DEADLINE_EXCEEDED",
            502 | 503 => "UNAVAILABLE",
            500.. => "INTERNAL",
            _ => "INVALID_ARGUMENT",
        }
    }

    /// Returns AWS's name for errors of this status.
    pub(super) fn bedrock_kind(&self) -> &'static str {
        match self.status.as_u16() {
            401..=403 => "AccessDeniedException",
            404 => "ResourceNotFoundException",
            429 => "ThrottlingException",
            408 | 504 => "ModelTimeoutException",
            502 | 503 => "ServiceUnavailableException",
            500.. => "InternalServerException",
            _ => "ValidationException",
        }
    }
}

#[derive(Serialize)]
struct OpenAiBody<'a> {
    error: OpenAiError<'a>,
}

#[derive(Serialize)]
struct OpenAiError<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: &'a str,
}

/// Azure's and OpenRouter's: a status as text or as number.
#[derive(Serialize)]
struct CodeBody<'a, C> {
    error: CodeError<'a, C>,
}

#[derive(Serialize)]
struct CodeError<'a, C> {
    code: C,
    message: &'a str,
}

#[derive(Serialize)]
struct MistralBody<'a> {
    object: &'a str,
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: &'a str,
    raw_status_code: u16,
}

#[derive(Serialize)]
struct AnthropicBody<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    error: AnthropicError<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct AnthropicError<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
struct GoogleBody<'a> {
    error: GoogleError<'a>,
}

#[derive(Serialize)]
struct GoogleError<'a> {
    code: u16,
    message: &'a str,
    status: &'a str,
    details: Vec<serde_json::Value>,
}

fn to_json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("texts always serialize").into()
}
