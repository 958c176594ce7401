//! What a path asks for, at each provider.

use http::{HeaderMap, Method, Uri};

use crate::problem::Problem;
use crate::provider::Provider;
use crate::text::percent_decoded;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Generate(Target),
    Models(Provider),
    Model(Provider, String),
    /// OpenRouter's account of a key.
    KeyInfo,
    /// Anthropic's limits, of a workspace if one is named.
    RateLimits {
        workspace: bool,
    },
    Stats,
    Reset,
    Resize,
}

/// An endpoint where models work, and what the path alone says of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) provider: Provider,
    pub(crate) endpoint: Endpoint,
    /// The model or deployment, where the path names it.
    pub(crate) model: Option<String>,
    /// How the answer is streamed, where the path says that it is.
    pub(crate) framing: Option<Framing>,
    /// Bedrock's two houses: `runtime/`, `mantle/`; empty elsewhere.
    pub(crate) house: &'static str,
    /// Azure's `api-version`.
    pub(crate) version: Option<String>,
}

/// Where models work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Responses,
    Completions,
    Embeddings,
    Images,
    Transcriptions,
    Moderations,
    Messages,
    CountTokens,
    GenerateContent,
    GeminiCount,
    EmbedContent,
    BatchEmbed,
    Predict,
    CohereChat,
    CohereChatV1,
    CohereEmbed,
    Rerank,
    Tokenize,
    Converse,
    Invoke,
}

/// How parts of an answer are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Server-sent events.
    Events,
    /// An array whose elements come one by one (Gemini without `alt=sse`).
    Array,
    /// One JSON value on each line (Cohere's first version).
    Lines,
}

impl Endpoint {
    /// The name in statistics, and in the patterns of limits.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Responses => "responses",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Images => "images/generations",
            Self::Transcriptions => "audio/transcriptions",
            Self::Moderations => "moderations",
            Self::Messages => "messages",
            Self::CountTokens => "messages/count_tokens",
            Self::GenerateContent => "generateContent",
            Self::GeminiCount => "countTokens",
            Self::EmbedContent => "embedContent",
            Self::BatchEmbed => "batchEmbedContents",
            Self::Predict => "predict",
            Self::CohereChat | Self::CohereChatV1 => "chat",
            Self::CohereEmbed => "embed",
            Self::Rerank => "rerank",
            Self::Tokenize => "tokenize",
            Self::Converse => "converse",
            Self::Invoke => "invoke",
        }
    }

    /// Whether it only counts tokens: such endpoints have limits of their own or none.
    pub(crate) const fn counts(self) -> bool {
        matches!(self, Self::CountTokens | Self::GeminiCount | Self::Tokenize)
    }

    /// Whether the answer is text that a model writes.
    pub(crate) const fn writes(self) -> bool {
        matches!(
            self,
            Self::Chat
                | Self::Responses
                | Self::Completions
                | Self::Messages
                | Self::GenerateContent
                | Self::CohereChat
                | Self::CohereChatV1
                | Self::Converse
                | Self::Invoke
        )
    }

    /// OpenAI's and Anthropic's paths, without the version.
    fn of_path(path: &str) -> Option<Self> {
        Some(match path {
            "/chat/completions" => Self::Chat,
            "/responses" => Self::Responses,
            "/completions" => Self::Completions,
            "/embeddings" => Self::Embeddings,
            "/images/generations" => Self::Images,
            "/audio/transcriptions" => Self::Transcriptions,
            "/moderations" => Self::Moderations,
            "/messages" => Self::Messages,
            "/messages/count_tokens" => Self::CountTokens,
            _ => return None,
        })
    }

    /// Where a provider's models usually write.
    pub(crate) const fn usual(provider: Provider) -> Self {
        match provider {
            Provider::Anthropic => Self::Messages,
            Provider::Gemini | Provider::Vertex => Self::GenerateContent,
            Provider::Cohere => Self::CohereChat,
            _ => Self::Chat,
        }
    }

    const fn is_anthropics(self) -> bool {
        matches!(self, Self::Messages | Self::CountTokens)
    }
}

impl Target {
    pub(crate) fn new(provider: Provider, endpoint: Endpoint) -> Self {
        Self {
            provider,
            endpoint,
            model: None,
            framing: None,
            house: "",
            version: None,
        }
    }

    /// The name that limits know the endpoint by.
    pub(crate) fn place(&self) -> String {
        format!("{}{}", self.house, self.endpoint.name())
    }
}

impl Route {
    /// Finds what a path asks for; OpenAI's paths also without `/v1`.
    ///
    /// # Errors
    ///
    /// Returns the answer to an unknown path or a wrong method, in the provider's shape.
    pub(crate) fn find(
        only: Option<Provider>,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Self, (Provider, Problem)> {
        let path = uri.path();
        let short = path.trim_end_matches('/');
        let speaks_anthropic = headers.contains_key("anthropic-version") || short.contains("/messages");
        let provider = only.unwrap_or(if speaks_anthropic {
            Provider::Anthropic
        } else {
            Provider::OpenAi
        });
        let route = match short {
            "/mock/stats" => Some(Self::Stats),
            "/mock/reset" => Some(Self::Reset),
            "/mock/limits" => Some(Self::Resize),
            _ => Self::at(provider, only.is_some(), short, uri.query().unwrap_or_default()),
        };
        let Some(route) = route else {
            return Err((provider, Problem::unknown_url(provider, method, path)));
        };
        let expected = match route {
            Self::Generate(_) | Self::Reset | Self::Resize => Method::POST,
            _ => Method::GET,
        };
        if *method == expected {
            Ok(route)
        } else {
            Err((provider, Problem::wrong_method(method, path)))
        }
    }

    fn at(provider: Provider, alone: bool, path: &str, query: &str) -> Option<Self> {
        match provider {
            Provider::OpenAi | Provider::Anthropic => Self::openai_or_anthropic(provider, alone, path),
            Provider::Mistral | Provider::DeepSeek | Provider::Vllm => {
                Self::openai_like(provider, path.strip_prefix("/v1").unwrap_or(path))
            }
            Provider::Groq => Self::openai_like(provider, path.strip_prefix("/openai/v1")?),
            Provider::OpenRouter => match path.strip_prefix("/api/v1")? {
                "/key" => Some(Self::KeyInfo),
                "/messages" => Some(Self::Generate(Target::new(provider, Endpoint::Messages))),
                short => Self::openai_like(provider, short),
            },
            Provider::Azure => Self::azure(path, query),
            Provider::Gemini => match path
                .strip_prefix("/v1beta")
                .or_else(|| path.strip_prefix("/v1alpha"))
                .or_else(|| path.strip_prefix("/v1"))?
            {
                "/models" => Some(Self::Models(provider)),
                short => match short.strip_prefix("/openai") {
                    Some(short) => Self::openai_like(provider, short),
                    None => Self::gemini(provider, short.strip_prefix("/models/")?, query),
                },
            },
            Provider::Vertex => Self::vertex(path, query),
            Provider::Cohere => Self::cohere(path),
            Provider::Bedrock => Self::bedrock(path),
        }
    }

    fn openai_or_anthropic(provider: Provider, alone: bool, path: &str) -> Option<Self> {
        let short = path.strip_prefix("/v1").unwrap_or(path);
        if short == "/models" {
            return Some(Self::Models(provider));
        }
        if let Some(model) = short.strip_prefix("/models/") {
            return Some(Self::Model(provider, model.to_owned()));
        }
        if provider == Provider::Anthropic || !alone {
            if short == "/organizations/rate_limits" {
                return Some(Self::RateLimits { workspace: false });
            }
            let workspace = short.strip_prefix("/organizations/workspaces/");
            if workspace.is_some_and(|rest| rest.ends_with("/rate_limits")) {
                return Some(Self::RateLimits { workspace: true });
            }
        }
        let endpoint = Endpoint::of_path(short)?;
        let whose = if endpoint.is_anthropics() {
            Provider::Anthropic
        } else {
            Provider::OpenAi
        };
        (!alone || whose == provider).then(|| Self::Generate(Target::new(whose, endpoint)))
    }

    fn openai_like(provider: Provider, short: &str) -> Option<Self> {
        if short == "/models" {
            return Some(Self::Models(provider));
        }
        if let Some(model) = short.strip_prefix("/models/") {
            return Some(Self::Model(provider, model.to_owned()));
        }
        let endpoint = Endpoint::of_path(short).filter(|endpoint| !endpoint.is_anthropics())?;
        Some(Self::Generate(Target::new(provider, endpoint)))
    }

    /// Azure's two styles: the deployment in the path and a version in the query, or OpenAI's own paths.
    fn azure(path: &str, query: &str) -> Option<Self> {
        let short = path.strip_prefix("/openai")?;
        if let Some(short) = short.strip_prefix("/v1") {
            return Self::openai_like(Provider::Azure, short);
        }
        let version = parameter(query, "api-version")?;
        let target = |endpoint, model| Target {
            model,
            version: Some(version.clone()),
            ..Target::new(Provider::Azure, endpoint)
        };
        if short == "/responses" {
            return Some(Self::Generate(target(Endpoint::Responses, None)));
        }
        if short == "/models" {
            return Some(Self::Models(Provider::Azure));
        }
        let (deployment, rest) = short.strip_prefix("/deployments/")?.split_once('/')?;
        let endpoint = Endpoint::of_path(&format!("/{rest}")).filter(|endpoint| !endpoint.is_anthropics())?;
        let deployment = percent_decoded(deployment);
        Some(Self::Generate(target(endpoint, Some(deployment))))
    }

    /// `{model}:{method}`, or a model alone.
    fn gemini(provider: Provider, named: &str, query: &str) -> Option<Self> {
        let Some((model, method)) = named.rsplit_once(':') else {
            return Some(Self::Model(provider, percent_decoded(named)));
        };
        let endpoint = match method {
            "generateContent" | "streamGenerateContent" => Endpoint::GenerateContent,
            "countTokens" => Endpoint::GeminiCount,
            "embedContent" => Endpoint::EmbedContent,
            "batchEmbedContents" => Endpoint::BatchEmbed,
            "predict" => Endpoint::Predict,
            _ => return None,
        };
        let framing = (method == "streamGenerateContent").then(|| {
            if parameter(query, "alt").as_deref() == Some("sse") {
                Framing::Events
            } else {
                Framing::Array
            }
        });
        Some(Self::Generate(Target {
            model: Some(percent_decoded(model)),
            framing,
            ..Target::new(provider, endpoint)
        }))
    }

    /// `/v1/projects/{p}/locations/{l}/…`, or without project and location.
    fn vertex(path: &str, query: &str) -> Option<Self> {
        let short = path
            .strip_prefix("/v1beta1/")
            .or_else(|| path.strip_prefix("/v1/"))?;
        let short = match short.strip_prefix("projects/") {
            None => short,
            Some(rest) => rest.split_once("/locations/")?.1.split_once('/')?.1,
        };
        if let Some((_, model)) = short
            .strip_prefix("publishers/")
            .and_then(|rest| rest.split_once("/models/"))
        {
            return Self::gemini(Provider::Vertex, model, query);
        }
        let (_, rest) = short.strip_prefix("endpoints/")?.split_once('/')?;
        Self::openai_like(Provider::Vertex, &format!("/{rest}"))
    }

    fn cohere(path: &str) -> Option<Self> {
        let endpoint = match path {
            "/v2/chat" => Endpoint::CohereChat,
            "/v1/chat" => Endpoint::CohereChatV1,
            "/v2/embed" | "/v1/embed" => Endpoint::CohereEmbed,
            "/v2/rerank" | "/v1/rerank" => Endpoint::Rerank,
            "/v1/tokenize" => Endpoint::Tokenize,
            "/v1/models" => return Some(Self::Models(Provider::Cohere)),
            _ => {
                let short = path.strip_prefix("/compatibility/v1")?;
                return Self::openai_like(Provider::Cohere, short);
            }
        };
        Some(Self::Generate(Target::new(Provider::Cohere, endpoint)))
    }

    /// Runtime under `/openai/v1` and `/model/{id}`, mantle under `/v1` and `/anthropic/v1`: at home they have addresses of
    /// their own.
    fn bedrock(path: &str) -> Option<Self> {
        let in_house = |endpoint, house, model| {
            Some(Self::Generate(Target {
                house,
                model,
                ..Target::new(Provider::Bedrock, endpoint)
            }))
        };
        if let Some(named) = path.strip_prefix("/model/") {
            let (model, method) = named.rsplit_once('/')?;
            let endpoint = match method {
                "converse" => Endpoint::Converse,
                "invoke" => Endpoint::Invoke,
                _ => return None,
            };
            return in_house(endpoint, "runtime/", Some(percent_decoded(model)));
        }
        if let Some(short) = path.strip_prefix("/openai/v1") {
            let endpoint = Endpoint::of_path(short).filter(|endpoint| !endpoint.is_anthropics())?;
            return in_house(endpoint, "runtime/", None);
        }
        let short = path.strip_prefix("/anthropic").unwrap_or(path);
        let short = short.strip_prefix("/v1")?;
        if short == "/models" {
            return Some(Self::Models(Provider::Bedrock));
        }
        in_house(Endpoint::of_path(short)?, "mantle/", None)
    }
}

/// Returns a parameter of a query.
pub(crate) fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(found, _)| *found == name)
        .map(|(_, value)| percent_decoded(value))
        .find(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_providers_paths_are_found() {
        let check = |provider: Provider, path: &str, expect: &str| {
            let uri: Uri = path.parse().unwrap();
            let found = match Route::find(Some(provider), &Method::POST, &uri, &HeaderMap::new()) {
                Ok(Route::Generate(target)) => {
                    format!("{} {}", target.place(), target.model.unwrap_or_default())
                }
                Ok(other) => format!("{other:?}"),
                Err((_, problem)) => problem.status.to_string(),
            };
            assert_eq!(found, expect, "{provider} {path}");
        };
        use Provider::{Azure, Bedrock, Cohere, Gemini, Groq, OpenRouter, Vertex};
        let azure = "/openai/deployments/my%20gpt/chat/completions";
        check(
            Azure,
            &format!("{azure}?api-version=2024-10-21"),
            "chat/completions my gpt",
        );
        check(Azure, azure, "404");
        check(Azure, "/openai/v1/responses", "responses ");
        check(Azure, "/openai/responses?api-version=x", "responses ");
        check(
            Gemini,
            "/v1beta/models/gemini-2.5-flash:generateContent",
            "generateContent gemini-2.5-flash",
        );
        check(Gemini, "/v1beta/models/m:countTokens?key=k", "countTokens m");
        check(Gemini, "/v1beta/openai/chat/completions", "chat/completions ");
        check(Gemini, "/v1beta/models/m:destroy", "404");
        let vertex = "/v1/projects/p/locations/us-central1/publishers/google/models/g:streamGenerateContent";
        check(Vertex, vertex, "generateContent g");
        check(
            Vertex,
            "/v1beta1/projects/p/locations/global/endpoints/openapi/chat/completions",
            "chat/completions ",
        );
        check(Groq, "/openai/v1/chat/completions", "chat/completions ");
        check(Groq, "/v1/chat/completions", "404");
        check(OpenRouter, "/api/v1/chat/completions", "chat/completions ");
        check(Cohere, "/v2/chat", "chat ");
        check(Cohere, "/compatibility/v1/embeddings", "embeddings ");
        check(
            Bedrock,
            "/model/anthropic.claude%3A0/converse",
            "runtime/converse anthropic.claude:0",
        );
        check(
            Bedrock,
            "/openai/v1/chat/completions",
            "runtime/chat/completions ",
        );
        check(Bedrock, "/v1/messages", "mantle/messages ");
        check(Bedrock, "/anthropic/v1/messages", "mantle/messages ");
        check(Bedrock, "/model/x/destroy", "404");
    }
}
