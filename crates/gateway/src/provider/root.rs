//! The beginning of a path: whose API it belongs to, and which version.

/// The beginning of a path, before the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Root {
    /// Nothing: the client's base URL lacks it, or the provider (DeepSeek, Bedrock) has none.
    Bare,
    /// `/v1`.
    V1,
    /// `/v2` (Cohere).
    V2,
    /// `/v1beta` or `/v1alpha` (Gemini).
    V1Beta,
    /// `/v1beta1` (Vertex).
    V1Beta1,
    /// `/api/v1` (OpenRouter).
    ApiV1,
    /// `/openai/v1` (Groq, Azure, Bedrock).
    OpenAiV1,
    /// `/openai` (Azure, with `?api-version=`).
    OpenAi,
    /// `/openai/deployments/{deployment}` (Azure).
    Deployment,
    /// `/v1beta/openai` (Gemini).
    V1BetaOpenAi,
    /// `/v1beta1/projects/{project}/locations/{location}/endpoints/{endpoint}` (Vertex).
    VertexOpenAi,
    /// `/compatibility/v1` (Cohere).
    CompatibilityV1,
    /// `/anthropic/v1` (DeepSeek, Azure).
    AnthropicV1,
    /// `/beta` (DeepSeek).
    Beta,
}

/// Beginnings that are always the same text, longer ones before those that they begin with.
const FIXED: [(&str, Root); 12] = [
    ("/compatibility/v1", Root::CompatibilityV1),
    ("/v1beta/openai", Root::V1BetaOpenAi),
    ("/anthropic/v1", Root::AnthropicV1),
    ("/openai/v1", Root::OpenAiV1),
    ("/v1beta1", Root::V1Beta1),
    ("/v1alpha", Root::V1Beta),
    ("/v1beta", Root::V1Beta),
    ("/openai", Root::OpenAi),
    ("/api/v1", Root::ApiV1),
    ("/beta", Root::Beta),
    ("/v1", Root::V1),
    ("/v2", Root::V2),
];

impl Root {
    /// Splits a path into its root, what the root names (a deployment), and the rest.
    pub(super) fn split(path: &str) -> (Self, Option<&str>, &str) {
        if let Some(below) = path.strip_prefix("/openai/deployments/")
            && let Some((deployment, _)) = below.split_once('/')
            && !deployment.is_empty()
        {
            return (Self::Deployment, Some(deployment), &below[deployment.len()..]);
        }
        for (text, root) in FIXED {
            let Some(rest) = path.strip_prefix(text) else {
                continue;
            };
            if !rest.is_empty() && !rest.starts_with('/') {
                continue;
            }
            if matches!(root, Self::V1 | Self::V1Beta1)
                && let Some(rest) = below_vertex_endpoint(rest)
            {
                return (Self::VertexOpenAi, None, rest);
            }
            return (root, None, rest);
        }
        (Self::Bare, None, path)
    }

    /// Returns the text of a root that is always the same.
    pub const fn text(self) -> Option<&'static str> {
        Some(match self {
            Self::Bare => "",
            Self::V1 => "/v1",
            Self::V2 => "/v2",
            Self::V1Beta => "/v1beta",
            Self::V1Beta1 => "/v1beta1",
            Self::ApiV1 => "/api/v1",
            Self::OpenAiV1 => "/openai/v1",
            Self::OpenAi => "/openai",
            Self::V1BetaOpenAi => "/v1beta/openai",
            Self::CompatibilityV1 => "/compatibility/v1",
            Self::AnthropicV1 => "/anthropic/v1",
            Self::Beta => "/beta",
            Self::Deployment | Self::VertexOpenAi => return None,
        })
    }
}

/// Returns what follows `/projects/{project}/locations/{location}/endpoints/{endpoint}`, if anything does.
fn below_vertex_endpoint(rest: &str) -> Option<&str> {
    let mut below = rest;
    for name in ["/projects/", "/locations/", "/endpoints/"] {
        below = below.strip_prefix(name)?;
        below = &below[below.find('/')?..];
    }
    Some(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_behind_their_root() {
        for (path, root, named, rest) in [
            ("/v1/chat/completions", Root::V1, None, "/chat/completions"),
            ("/v1", Root::V1, None, ""),
            ("/v1chat/completions", Root::Bare, None, "/v1chat/completions"),
            ("/openai/v1/models", Root::OpenAiV1, None, "/models"),
            ("/openai/responses", Root::OpenAi, None, "/responses"),
            (
                "/openai/deployments/gpt%204/chat/completions",
                Root::Deployment,
                Some("gpt%204"),
                "/chat/completions",
            ),
            ("/openai/deployments/gpt", Root::OpenAi, None, "/deployments/gpt"),
            ("/openai/deployments//x", Root::OpenAi, None, "/deployments//x"),
            ("/v1alpha/models/m:x", Root::V1Beta, None, "/models/m:x"),
            (
                "/v1beta/openai/embeddings",
                Root::V1BetaOpenAi,
                None,
                "/embeddings",
            ),
            (
                "/v1beta1/projects/p/locations/l/endpoints/openapi/chat/completions",
                Root::VertexOpenAi,
                None,
                "/chat/completions",
            ),
            (
                "/v1/projects/p/locations/l/publishers/google/models/m:x",
                Root::V1,
                None,
                "/projects/p/locations/l/publishers/google/models/m:x",
            ),
            ("/model/m/converse", Root::Bare, None, "/model/m/converse"),
            ("", Root::Bare, None, ""),
            ("/", Root::Bare, None, "/"),
        ] {
            assert_eq!(Root::split(path), (root, named, rest), "{path}");
        }
    }

    #[test]
    fn texts_and_roots_belong_together() {
        for (text, root) in FIXED {
            assert_eq!(Root::split(text).0, root, "{text}");
            let own = root.text().unwrap();
            assert_eq!(Root::split(own).0, root, "{own}");
        }
    }
}
