//! What a path says: the operation, and the model where it is named there.

use http::Method;

use super::{Endpoint, Root};

/// The longest name of a model in a path; a longer one counts as absent, and the provider judges it.
const MODEL_BYTES_MAX: usize = 256;

/// What a method and a path say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation<'a> {
    /// The beginning of the path.
    pub root: Root,
    /// The operation.
    pub endpoint: Endpoint,
    /// The path behind its beginning.
    pub rest: &'a str,
    /// The model, deployment or endpoint that the path names, decoded.
    pub model: Option<String>,
}

impl<'a> Operation<'a> {
    /// Reads a path: the one below the upstream's name, without the query. What is not known is [`Endpoint::Other`].
    pub fn of(method: &Method, path: &'a str) -> Self {
        let path = path.strip_suffix('/').unwrap_or(path);
        let (root, deployment, rest) = Root::split(path);
        let (endpoint, model) = match Endpoint::named_model(root, rest) {
            Some((endpoint, model)) if *method == Method::POST => (endpoint, Some(model)),
            Some(_) => (Endpoint::Other, None),
            None => (Endpoint::of_rest(method, root, rest), deployment),
        };
        Self {
            root,
            endpoint,
            rest,
            model: model.and_then(decoded),
        }
    }
}

/// Decodes `%XX`; `None` if that does not make a text of a sensible length.
pub(super) fn decoded(text: &str) -> Option<String> {
    if text.is_empty() || text.len() > 3 * MODEL_BYTES_MAX {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| {
            char::from(byte?)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        bytes.push(digit(rest.next())? * 16 + digit(rest.next())?);
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|model| model.len() <= MODEL_BYTES_MAX && !model.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, endpoint: Endpoint, model: Option<&str>) {
        let method = method.parse().unwrap();
        let read = Operation::of(&method, path);
        assert_eq!(
            (read.endpoint, read.model.as_deref()),
            (endpoint, model),
            "{method} {path}"
        );
    }

    #[test]
    fn paths_name_operations_of_openai_and_its_imitators() {
        for (path, endpoint) in [
            ("/chat/completions", Endpoint::ChatCompletions),
            ("/responses", Endpoint::Responses),
            ("/responses/input_tokens", Endpoint::ResponseTokens),
            ("/completions", Endpoint::Completions),
            ("/embeddings", Endpoint::Embeddings),
            ("/moderations", Endpoint::Moderations),
            ("/images/generations", Endpoint::Images),
            ("/images/edits", Endpoint::ImageEdits),
            ("/audio/speech", Endpoint::Speech),
            ("/audio/transcriptions", Endpoint::Transcriptions),
            ("/responses/resp_1/cancel", Endpoint::Other),
            ("/batches", Endpoint::Other),
        ] {
            for root in [
                "/v1",
                "",
                "/openai/v1",
                "/api/v1",
                "/v1beta/openai",
                "/openai",
                "/compatibility/v1",
                "/beta",
            ] {
                check("POST", &format!("{root}{path}"), endpoint, None);
                check("POST", &format!("{root}{path}/"), endpoint, None);
            }
            check(
                "POST",
                &format!("/openai/deployments/my%2Dgpt{path}"),
                endpoint,
                Some("my-gpt"),
            );
            let vertex = format!("/v1beta1/projects/p/locations/l/endpoints/openapi{path}");
            check("POST", &vertex, endpoint, None);
        }
        for (method, path, endpoint) in [
            ("GET", "/v1/chat/completions", Endpoint::Other),
            ("GET", "/v1/models", Endpoint::Models),
            ("GET", "/openai/v1/models/gpt-4o", Endpoint::Models),
            ("GET", "/v1/models/a/b", Endpoint::Other),
            ("DELETE", "/v1/models/gpt-4o", Endpoint::Other),
            ("POST", "/v1chat/completions", Endpoint::Other),
            ("POST", "/v1/v1/messages", Endpoint::Other),
            ("GET", "/", Endpoint::Other),
            ("GET", "", Endpoint::Other),
        ] {
            check(method, path, endpoint, None);
        }
    }

    #[test]
    fn paths_name_operations_of_the_others() {
        for (path, endpoint, model) in [
            ("/v1/messages", Endpoint::Messages, None),
            ("/anthropic/v1/messages", Endpoint::Messages, None),
            ("/v1/messages/count_tokens", Endpoint::CountTokens, None),
            ("/v1/messages/batches", Endpoint::Other, None),
            ("/v1/fim/completions", Endpoint::Completions, None),
            ("/v1/agents/completions", Endpoint::ChatCompletions, None),
            ("/v1/chat/moderations", Endpoint::Moderations, None),
            ("/v1/classifications", Endpoint::Moderations, None),
            ("/v1/ocr", Endpoint::Ocr, None),
            ("/v2/chat", Endpoint::CohereChat, None),
            ("/v1/chat", Endpoint::CohereChat, None),
            ("/v2/embed", Endpoint::CohereEmbed, None),
            ("/v2/rerank", Endpoint::Rerank, None),
            ("/v1/rerank", Endpoint::Rerank, None),
            ("/v1/tokenize", Endpoint::Tokenize, None),
            (
                "/v1beta/models/gemini-2.5-flash:generateContent",
                Endpoint::GenerateContent,
                Some("gemini-2.5-flash"),
            ),
            (
                "/v1/models/g:streamGenerateContent",
                Endpoint::StreamGenerateContent,
                Some("g"),
            ),
            (
                "/v1beta/models/g:countTokens",
                Endpoint::CountContentTokens,
                Some("g"),
            ),
            ("/v1beta/models/g:embedContent", Endpoint::EmbedContent, Some("g")),
            (
                "/v1beta/models/g:batchEmbedContents",
                Endpoint::BatchEmbedContents,
                Some("g"),
            ),
            (
                "/v1beta/tunedModels/t:generateContent",
                Endpoint::GenerateContent,
                Some("t"),
            ),
            ("/v1beta/models/g:batchGenerateContent", Endpoint::Other, None),
            ("/v1beta/models/g", Endpoint::Other, None),
            ("/v1beta/models/:generateContent", Endpoint::Other, None),
            (
                "/v1/projects/p/locations/l/publishers/google/models/g:streamGenerateContent",
                Endpoint::StreamGenerateContent,
                Some("g"),
            ),
            (
                "/v1beta1/publishers/google/models/g:generateContent",
                Endpoint::GenerateContent,
                Some("g"),
            ),
            (
                "/v1/projects/p/locations/l/endpoints/42:generateContent",
                Endpoint::GenerateContent,
                Some("42"),
            ),
            (
                "/v1/projects/p/locations/l/publishers/anthropic/models/claude@2:streamRawPredict",
                Endpoint::Messages,
                Some("claude@2"),
            ),
            (
                "/v1/projects/p/locations/l/publishers/mistralai/models/m:rawPredict",
                Endpoint::ChatCompletions,
                Some("m"),
            ),
            (
                "/v1/projects/p/locations/l/publishers/google/models/text-embedding-005:predict",
                Endpoint::Predict,
                Some("text-embedding-005"),
            ),
            (
                "/model/anthropic.claude%3A0/converse",
                Endpoint::Converse,
                Some("anthropic.claude:0"),
            ),
            ("/model/m/converse-stream", Endpoint::ConverseStream, Some("m")),
            ("/model/m/invoke", Endpoint::InvokeModel, Some("m")),
            (
                "/model/m/invoke-with-response-stream",
                Endpoint::InvokeModelStream,
                Some("m"),
            ),
            ("/model/m/count-tokens", Endpoint::CountModelTokens, Some("m")),
            (
                "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fx/converse",
                Endpoint::Converse,
                Some("arn:aws:bedrock:us-east-1:1:inference-profile/x"),
            ),
            ("/model/m/other", Endpoint::Other, None),
        ] {
            check("POST", path, endpoint, model);
        }
        check("GET", "/v1beta/models", Endpoint::Models, None);
        check("GET", "/v1beta/models/g", Endpoint::Models, None);
        check("GET", "/v1beta/models/g:generateContent", Endpoint::Other, None);
    }

    #[test]
    fn strange_names_of_models_count_as_absent() {
        let long = "m".repeat(257);
        let longer = "%41".repeat(300);
        for name in ["a%2", "a%zz", "%ff", "a%0ab", &long, &longer] {
            check(
                "POST",
                &format!("/model/{name}/converse"),
                Endpoint::Converse,
                None,
            );
        }
        let most = "%41".repeat(256);
        let path = format!("/model/{most}/converse");
        assert!(Operation::of(&Method::POST, &path).model.is_some());
    }
}
