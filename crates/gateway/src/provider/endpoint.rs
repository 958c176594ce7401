//! The operations whose bodies are understood, and what each is charged for.

use http::{HeaderMap, Method};

use super::Root;

/// An operation whose bodies are understood; everything else passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`, and Mistral's `/v1/agents/completions`.
    ChatCompletions,
    /// `POST /v1/responses`.
    Responses,
    /// `POST /v1/responses/input_tokens`.
    ResponseTokens,
    /// `POST /v1/completions`, and Mistral's `/v1/fim/completions`.
    Completions,
    /// `POST /v1/embeddings`.
    Embeddings,
    /// `POST /v1/moderations`, and Mistral's `/v1/chat/moderations` and `/v1/classifications`.
    Moderations,
    /// `POST /v1/images/generations`.
    Images,
    /// `POST /v1/images/edits` and `/v1/images/variations`: the body is a form.
    ImageEdits,
    /// `POST /v1/audio/speech`.
    Speech,
    /// `POST /v1/audio/transcriptions` and `/v1/audio/translations`: the body is a form.
    Transcriptions,
    /// Mistral's `POST /v1/ocr`.
    Ocr,
    /// `POST /v1/rerank` or `/v2/rerank` (Cohere, vLLM).
    Rerank,
    /// `POST /v1/messages`, and Vertex's `…/publishers/anthropic/models/{m}:rawPredict`.
    Messages,
    /// `POST /v1/messages/count_tokens`.
    CountTokens,
    /// `POST /v1beta/models/{m}:generateContent` (Gemini, Vertex).
    GenerateContent,
    /// `POST /v1beta/models/{m}:streamGenerateContent`.
    StreamGenerateContent,
    /// `POST /v1beta/models/{m}:countTokens`.
    CountContentTokens,
    /// `POST /v1beta/models/{m}:embedContent`.
    EmbedContent,
    /// `POST /v1beta/models/{m}:batchEmbedContents`.
    BatchEmbedContents,
    /// Vertex's `POST …/models/{m}:predict`: embeddings and images.
    Predict,
    /// Cohere's `POST /v2/chat` and `/v1/chat`.
    CohereChat,
    /// Cohere's `POST /v2/embed` and `/v1/embed`.
    CohereEmbed,
    /// Cohere's `POST /v1/tokenize` and `/v1/detokenize`.
    Tokenize,
    /// Bedrock's `POST /model/{m}/converse`.
    Converse,
    /// Bedrock's `POST /model/{m}/converse-stream`.
    ConverseStream,
    /// Bedrock's `POST /model/{m}/invoke`: the body is the model maker's own.
    InvokeModel,
    /// Bedrock's `POST /model/{m}/invoke-with-response-stream`.
    InvokeModelStream,
    /// Bedrock's `POST /model/{m}/count-tokens`.
    CountModelTokens,
    /// `GET /v1/models` and `GET /v1/models/{model}`.
    Models,
    /// Anything else: limited by requests only.
    Other,
}

/// Whose API an operation belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Api {
    /// OpenAI's, which nearly every provider also speaks.
    OpenAi,
    /// Anthropic's.
    Anthropic,
    /// Gemini's, with an API key.
    Gemini,
    /// Gemini's, under a project of Google Cloud.
    Vertex,
    /// Cohere's.
    Cohere,
    /// Bedrock's.
    Bedrock,
}

/// The shape of error bodies that a client expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// `{"error":{"message","type","param","code"}}`.
    OpenAi,
    /// `{"type":"error","error":{"type","message"},"request_id"}`.
    Anthropic,
    /// `{"error":{"code","message"}}`, with the status as the code, in quotes.
    Azure,
    /// `{"error":{"code","message"}}`, with the status as the code.
    OpenRouter,
    /// `{"error":{"code","message","status","details"}}` (Gemini, Vertex).
    Google,
    /// The same in a list, as streams without `alt=sse` are.
    GoogleList,
    /// `{"object":"error","message","type","param","code"}`.
    Mistral,
    /// `{"message"}`.
    Cohere,
    /// `{"message"}` and the header `x-amzn-errortype`.
    Bedrock,
}

/// Which quota group an operation belongs to, and what of it is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The group of its model, in every dimension.
    Model,
    /// The group of its model, as one request without tokens.
    ModelRequests,
    /// A group of its own, as one request: `[[upstreams.limits]] endpoint = "…"` names its limits, which are learned
    /// otherwise.
    Own(&'static str),
}

impl Endpoint {
    /// Every operation.
    pub const ALL: [Self; 30] = [
        Self::ChatCompletions,
        Self::Responses,
        Self::ResponseTokens,
        Self::Completions,
        Self::Embeddings,
        Self::Moderations,
        Self::Images,
        Self::ImageEdits,
        Self::Speech,
        Self::Transcriptions,
        Self::Ocr,
        Self::Rerank,
        Self::Messages,
        Self::CountTokens,
        Self::GenerateContent,
        Self::StreamGenerateContent,
        Self::CountContentTokens,
        Self::EmbedContent,
        Self::BatchEmbedContents,
        Self::Predict,
        Self::CohereChat,
        Self::CohereEmbed,
        Self::Tokenize,
        Self::Converse,
        Self::ConverseStream,
        Self::InvokeModel,
        Self::InvokeModelStream,
        Self::CountModelTokens,
        Self::Models,
        Self::Other,
    ];

    /// Returns the operation whose name follows a root; the model is in the body.
    pub(super) fn of_rest(method: &Method, root: Root, rest: &str) -> Self {
        if *method == Method::POST {
            return match rest {
                "/chat/completions" | "/agents/completions" => Self::ChatCompletions,
                "/responses" => Self::Responses,
                "/responses/input_tokens" => Self::ResponseTokens,
                "/completions" | "/fim/completions" => Self::Completions,
                "/embeddings" => Self::Embeddings,
                "/moderations" | "/chat/moderations" | "/classifications" | "/chat/classifications" => {
                    Self::Moderations
                }
                "/images/generations" => Self::Images,
                "/images/edits" | "/images/variations" => Self::ImageEdits,
                "/audio/speech" => Self::Speech,
                "/audio/transcriptions" | "/audio/translations" => Self::Transcriptions,
                "/ocr" => Self::Ocr,
                "/rerank" => Self::Rerank,
                "/messages" => Self::Messages,
                "/messages/count_tokens" => Self::CountTokens,
                "/chat" if matches!(root, Root::V1 | Root::V2) => Self::CohereChat,
                "/embed" if matches!(root, Root::V1 | Root::V2) => Self::CohereEmbed,
                "/tokenize" | "/detokenize" if root == Root::V1 => Self::Tokenize,
                _ => Self::Other,
            };
        }
        let model = rest.strip_prefix("/models/");
        if *method == Method::GET && (rest == "/models" || model.is_some_and(|model| !model.contains('/'))) {
            return Self::Models;
        }
        Self::Other
    }

    /// Returns the operation of a path that names the model, and that name as it is written.
    pub(super) fn named_model(root: Root, rest: &str) -> Option<(Self, &str)> {
        if root == Root::Bare {
            let (model, verb) = rest.strip_prefix("/model/")?.split_once('/')?;
            let endpoint = match verb {
                "converse" => Self::Converse,
                "converse-stream" => Self::ConverseStream,
                "invoke" => Self::InvokeModel,
                "invoke-with-response-stream" => Self::InvokeModelStream,
                "count-tokens" => Self::CountModelTokens,
                _ => return None,
            };
            return (!model.is_empty()).then_some((endpoint, model));
        }
        if !matches!(root, Root::V1 | Root::V1Beta | Root::V1Beta1) {
            return None;
        }
        let (path, verb) = rest.rsplit_once(':')?;
        let (folder, model) = path.rsplit_once('/')?;
        let (above, kind) = folder.rsplit_once('/')?;
        if model.is_empty() || !matches!(kind, "models" | "tunedModels" | "endpoints") {
            return None;
        }
        let endpoint = match verb {
            "generateContent" => Self::GenerateContent,
            "streamGenerateContent" => Self::StreamGenerateContent,
            "countTokens" => Self::CountContentTokens,
            "embedContent" => Self::EmbedContent,
            "batchEmbedContents" => Self::BatchEmbedContents,
            "predict" => Self::Predict,
            "rawPredict" | "streamRawPredict" if above.ends_with("/publishers/anthropic") => {
                if model.starts_with("count-tokens") {
                    Self::CountTokens
                } else {
                    Self::Messages
                }
            }
            "rawPredict" | "streamRawPredict" => Self::ChatCompletions,
            _ => return None,
        };
        Some((endpoint, model))
    }

    /// Returns the name used in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Responses => "responses",
            Self::ResponseTokens => "response_tokens",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Moderations => "moderations",
            Self::Images => "images",
            Self::ImageEdits => "image_edits",
            Self::Speech => "speech",
            Self::Transcriptions => "transcriptions",
            Self::Ocr => "ocr",
            Self::Rerank => "rerank",
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
            Self::GenerateContent => "generate_content",
            Self::StreamGenerateContent => "stream_generate_content",
            Self::CountContentTokens => "count_content_tokens",
            Self::EmbedContent => "embed_content",
            Self::BatchEmbedContents => "batch_embed_contents",
            Self::Predict => "predict",
            Self::CohereChat => "cohere_chat",
            Self::CohereEmbed => "cohere_embed",
            Self::Tokenize => "tokenize",
            Self::Converse => "converse",
            Self::ConverseStream => "converse_stream",
            Self::InvokeModel => "invoke_model",
            Self::InvokeModelStream => "invoke_model_stream",
            Self::CountModelTokens => "count_model_tokens",
            Self::Models => "models",
            Self::Other => "other",
        }
    }

    /// Returns whose operation it is; `None` if several APIs have it.
    pub const fn api(self) -> Option<Api> {
        Some(match self {
            Self::ChatCompletions
            | Self::Responses
            | Self::ResponseTokens
            | Self::Completions
            | Self::Embeddings
            | Self::Moderations
            | Self::Images
            | Self::ImageEdits
            | Self::Speech
            | Self::Transcriptions
            | Self::Ocr => Api::OpenAi,
            Self::Messages | Self::CountTokens => Api::Anthropic,
            Self::GenerateContent
            | Self::StreamGenerateContent
            | Self::CountContentTokens
            | Self::EmbedContent
            | Self::BatchEmbedContents => Api::Gemini,
            Self::Predict => Api::Vertex,
            Self::CohereChat | Self::CohereEmbed | Self::Tokenize | Self::Rerank => Api::Cohere,
            Self::Converse
            | Self::ConverseStream
            | Self::InvokeModel
            | Self::InvokeModelStream
            | Self::CountModelTokens => Api::Bedrock,
            Self::Models | Self::Other => return None,
        })
    }

    /// Returns whether it is a conversation, in whoever's API.
    pub const fn is_chat(self) -> bool {
        self.generates() && !matches!(self, Self::Completions)
    }

    /// Returns whether texts become vectors, in whoever's API.
    pub const fn is_embedding(self) -> bool {
        matches!(
            self,
            Self::Embeddings | Self::EmbedContent | Self::BatchEmbedContents | Self::CohereEmbed
        )
    }

    /// Returns whether the body is read for [`super::RequestFacts`]: it is a JSON object of a known kind.
    pub const fn has_facts(self) -> bool {
        !matches!(
            self,
            Self::ImageEdits | Self::Transcriptions | Self::Models | Self::Other
        )
    }

    /// Returns whether the body is a form, of which only the model is read.
    pub const fn has_form(self) -> bool {
        matches!(self, Self::ImageEdits | Self::Transcriptions)
    }

    /// Returns whether tokens are generated.
    pub const fn generates(self) -> bool {
        matches!(
            self,
            Self::ChatCompletions
                | Self::Responses
                | Self::Completions
                | Self::Messages
                | Self::GenerateContent
                | Self::StreamGenerateContent
                | Self::CohereChat
                | Self::Converse
                | Self::ConverseStream
                | Self::InvokeModel
                | Self::InvokeModelStream
        )
    }

    /// Returns whether the path itself asks for a stream.
    pub const fn streams(self) -> bool {
        matches!(
            self,
            Self::StreamGenerateContent | Self::ConverseStream | Self::InvokeModelStream
        )
    }

    /// Returns whether a stream that is asked for comes as server-sent events, in which readers skip comments. `shape` is
    /// that of the errors that the client expects.
    pub fn streams_events(self, shape: Shape) -> bool {
        match self {
            Self::ChatCompletions | Self::Responses | Self::Completions | Self::Messages => true,
            Self::StreamGenerateContent => shape == Shape::Google,
            _ => false,
        }
    }

    /// Returns the quota group that most providers count an operation in: what counts tokens has limits of its own,
    /// forms are counted as requests, and what names no model belongs to nobody's limits.
    pub const fn scope(self) -> Scope {
        match self {
            Self::CountTokens | Self::ResponseTokens | Self::CountContentTokens | Self::CountModelTokens => {
                Scope::Own("count_tokens")
            }
            Self::Tokenize => Scope::Own("tokenize"),
            Self::ImageEdits | Self::Transcriptions => Scope::ModelRequests,
            Self::Models | Self::Other => Scope::Own("other"),
            _ => Scope::Model,
        }
    }
}

impl Scope {
    /// The names of groups that operations have for themselves.
    pub const OWN: [&str; 3] = ["count_tokens", "tokenize", "other"];
}

impl Api {
    /// Returns the API of an operation under a root: some have it under their own root only.
    pub fn of(endpoint: Endpoint, root: Root, rest: &str, headers: &HeaderMap) -> Option<Self> {
        let is_vertex = root == Root::V1Beta1
            || root == Root::VertexOpenAi
            || rest.starts_with("/projects/")
            || rest.starts_with("/publishers/");
        match (endpoint, root) {
            _ if is_vertex => Some(Self::Vertex),
            (_, Root::V2) => Some(Self::Cohere),
            (Endpoint::Models | Endpoint::Other, Root::V1Beta) => Some(Self::Gemini),
            (Endpoint::Models | Endpoint::Other, Root::AnthropicV1) => Some(Self::Anthropic),
            (Endpoint::Models | Endpoint::Other, Root::Bare) if endpoint == Endpoint::Other => None,
            (Endpoint::Models | Endpoint::Other, _) if headers.contains_key("anthropic-version") => {
                Some(Self::Anthropic)
            }
            (Endpoint::Models | Endpoint::Other, _) => Some(Self::OpenAi),
            _ => endpoint.api(),
        }
    }

    /// Returns the shape of its errors.
    pub const fn shape(self) -> Shape {
        match self {
            Self::OpenAi => Shape::OpenAi,
            Self::Anthropic => Shape::Anthropic,
            Self::Gemini | Self::Vertex => Shape::Google,
            Self::Cohere => Shape::Cohere,
            Self::Bedrock => Shape::Bedrock,
        }
    }
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 9] = [
        Self::OpenAi,
        Self::Azure,
        Self::OpenRouter,
        Self::Mistral,
        Self::Anthropic,
        Self::Google,
        Self::GoogleList,
        Self::Cohere,
        Self::Bedrock,
    ];

    /// Returns the shape in answers to a path with this query.
    #[must_use]
    pub fn with_query(self, endpoint: Endpoint, query: Option<&str>) -> Self {
        let is_events = || query.is_some_and(|query| query.split('&').any(|part| part == "alt=sse"));
        if self == Self::Google && endpoint == Endpoint::StreamGenerateContent && !is_events() {
            return Self::GoogleList;
        }
        self
    }

    /// Returns the shape that a client expects of an operation, where no upstream says more: by whose operation it is,
    /// else by Anthropic's version header.
    pub fn of(endpoint: Endpoint, headers: &HeaderMap) -> Self {
        match endpoint.api() {
            Some(api) => api.shape(),
            None if headers.contains_key("anthropic-version") => Self::Anthropic,
            None => Self::OpenAi,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_all_are_listed() {
        let mut names: Vec<_> = Endpoint::ALL.map(Endpoint::name).into();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Endpoint::ALL.len());
        for endpoint in Endpoint::ALL {
            if endpoint.generates() {
                assert_eq!(
                    (endpoint.scope(), endpoint.has_facts()),
                    (Scope::Model, true),
                    "{endpoint:?}"
                );
            }
            if let Scope::Own(name) = endpoint.scope() {
                assert!(Scope::OWN.contains(&name));
                assert!(!endpoint.generates());
            }
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
            (Endpoint::GenerateContent, &plain, Shape::Google),
            (Endpoint::CohereChat, &plain, Shape::Cohere),
            (Endpoint::Converse, &plain, Shape::Bedrock),
            (Endpoint::Models, &plain, Shape::OpenAi),
            (Endpoint::Models, &versioned, Shape::Anthropic),
            (Endpoint::Other, &versioned, Shape::Anthropic),
        ] {
            assert_eq!(Shape::of(endpoint, headers), expect, "{endpoint:?}");
        }
    }

    #[test]
    fn googles_errors_are_lists_in_streams_that_are() {
        for (endpoint, query, expect) in [
            (Endpoint::StreamGenerateContent, None, Shape::GoogleList),
            (Endpoint::StreamGenerateContent, Some("key=k"), Shape::GoogleList),
            (Endpoint::StreamGenerateContent, Some("alt=sse"), Shape::Google),
            (
                Endpoint::StreamGenerateContent,
                Some("key=k&alt=sse"),
                Shape::Google,
            ),
            (Endpoint::GenerateContent, None, Shape::Google),
        ] {
            assert_eq!(
                Shape::Google.with_query(endpoint, query),
                expect,
                "{endpoint:?} {query:?}"
            );
            assert_eq!(Shape::OpenAi.with_query(endpoint, query), Shape::OpenAi);
        }
    }
}
