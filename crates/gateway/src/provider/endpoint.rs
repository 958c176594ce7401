//! Which operation a path names.

use http::{HeaderMap, Method};

use super::Provider;

/// An operation whose bodies are understood; everything else passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`.
    ChatCompletions,
    /// `POST /v1/responses`.
    Responses,
    /// `POST /v1/completions`.
    Completions,
    /// `POST /v1/embeddings`.
    Embeddings,
    /// `POST /v1/messages`.
    Messages,
    /// `POST /v1/messages/count_tokens`.
    CountTokens,
    /// `GET /v1/models` and `GET /v1/models/{model}`.
    Models,
    /// Anything else: limited by requests only.
    Other,
}

/// The shape of error bodies that a client expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// `{"error":{"message","type","param","code"}}`.
    OpenAi,
    /// `{"type":"error","error":{"type","message"},"request_id"}`.
    Anthropic,
}

impl Endpoint {
    /// Returns the operation that a method and a path name. The path is the one below the upstream's name, with or
    /// without its leading `/v1`, and without the query.
    pub fn of(method: &Method, path: &str) -> Self {
        let path = path.strip_suffix('/').unwrap_or(path);
        let path = path
            .strip_prefix("/v1")
            .filter(|rest| rest.starts_with('/'))
            .unwrap_or(path);
        if *method == Method::POST {
            return match path {
                "/chat/completions" => Self::ChatCompletions,
                "/responses" => Self::Responses,
                "/completions" => Self::Completions,
                "/embeddings" => Self::Embeddings,
                "/messages" => Self::Messages,
                "/messages/count_tokens" => Self::CountTokens,
                _ => Self::Other,
            };
        }
        let model = path.strip_prefix("/models/");
        if *method == Method::GET && (path == "/models" || model.is_some_and(|model| !model.contains('/'))) {
            return Self::Models;
        }
        Self::Other
    }

    /// Returns the name used in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Responses => "responses",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
            Self::Models => "models",
            Self::Other => "other",
        }
    }

    /// Returns whose operation it is, for paths that do not name an upstream; `None` if several providers have it.
    pub const fn provider(self) -> Option<Provider> {
        match self {
            Self::ChatCompletions | Self::Responses | Self::Completions | Self::Embeddings => {
                Some(Provider::OpenAi)
            }
            Self::Messages | Self::CountTokens => Some(Provider::Anthropic),
            Self::Models | Self::Other => None,
        }
    }

    /// Returns whether the body is read for [`super::RequestFacts`].
    pub const fn has_facts(self) -> bool {
        self.provider().is_some()
    }

    /// Returns whether tokens are generated.
    pub const fn generates(self) -> bool {
        matches!(
            self,
            Self::ChatCompletions | Self::Responses | Self::Completions | Self::Messages
        )
    }
}

impl Shape {
    /// Returns the shape that a client expects: by the operation, else by Anthropic's version header.
    pub fn of(endpoint: Endpoint, headers: &HeaderMap) -> Self {
        match endpoint.provider() {
            Some(Provider::Anthropic) => Self::Anthropic,
            Some(_) => Self::OpenAi,
            None if headers.contains_key("anthropic-version") => Self::Anthropic,
            None => Self::OpenAi,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_operations() {
        let table = [
            (
                "POST",
                "/v1/chat/completions",
                Endpoint::ChatCompletions,
                Some(Provider::OpenAi),
            ),
            (
                "POST",
                "/chat/completions",
                Endpoint::ChatCompletions,
                Some(Provider::OpenAi),
            ),
            (
                "POST",
                "/v1/chat/completions/",
                Endpoint::ChatCompletions,
                Some(Provider::OpenAi),
            ),
            ("GET", "/v1/chat/completions", Endpoint::Other, None),
            (
                "POST",
                "/v1/responses",
                Endpoint::Responses,
                Some(Provider::OpenAi),
            ),
            ("POST", "/v1/responses/resp_1/cancel", Endpoint::Other, None),
            (
                "POST",
                "/v1/completions",
                Endpoint::Completions,
                Some(Provider::OpenAi),
            ),
            (
                "POST",
                "/v1/embeddings",
                Endpoint::Embeddings,
                Some(Provider::OpenAi),
            ),
            (
                "POST",
                "/v1/messages",
                Endpoint::Messages,
                Some(Provider::Anthropic),
            ),
            (
                "POST",
                "/v1/messages/count_tokens",
                Endpoint::CountTokens,
                Some(Provider::Anthropic),
            ),
            ("POST", "/v1/messages/batches", Endpoint::Other, None),
            ("GET", "/v1/models", Endpoint::Models, None),
            ("GET", "/v1/models/gpt-4o", Endpoint::Models, None),
            ("GET", "/v1/models/a/b", Endpoint::Other, None),
            ("DELETE", "/v1/models/gpt-4o", Endpoint::Other, None),
            ("POST", "/v1chat/completions", Endpoint::Other, None),
            ("POST", "/v1/v1/messages", Endpoint::Other, None),
            ("GET", "/", Endpoint::Other, None),
            ("GET", "", Endpoint::Other, None),
        ];
        for (method, path, endpoint, provider) in table {
            let method = method.parse().unwrap();
            assert_eq!(Endpoint::of(&method, path), endpoint, "{method} {path}");
            assert_eq!(endpoint.provider(), provider);
        }
    }

    #[test]
    fn shapes_follow_the_operation_then_the_version_header() {
        let plain = HeaderMap::new();
        let mut versioned = HeaderMap::new();
        versioned.insert("anthropic-version", http::HeaderValue::from_static("2023-06-01"));
        for (endpoint, headers, expect) in [
            (Endpoint::Messages, &plain, Shape::Anthropic),
            (Endpoint::ChatCompletions, &versioned, Shape::OpenAi),
            (Endpoint::Models, &plain, Shape::OpenAi),
            (Endpoint::Models, &versioned, Shape::Anthropic),
            (Endpoint::Other, &versioned, Shape::Anthropic),
        ] {
            assert_eq!(Shape::of(endpoint, headers), expect, "{endpoint:?}");
        }
    }
}
