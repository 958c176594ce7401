use http::HeaderValue;

use super::*;

/// One upstream of every provider, each called as its provider; those of `order` alone where it is not empty.
fn config(order: &[&str], with_keys: bool) -> Config {
    let mut text = String::new();
    for provider in Provider::ALL {
        let name = provider.name();
        if !order.is_empty() && !order.contains(&name) {
            continue;
        }
        text.push_str(&format!(
            "[[upstreams]]\nprovider = \"{name}\"\nbase_url = \"https://{name}.example\"\n"
        ));
        if with_keys {
            text.push_str("api_key = \"env:KEY\"\n");
        }
    }
    Config::from_toml_with(&text, "test", |_| Ok("own-key".to_owned())).unwrap()
}

/// Returns the upstream's name and the path that it is sent.
fn go(config: &Config, method: &str, uri: &str, headers: &HeaderMap) -> Option<(String, String)> {
    let uri: Uri = uri.parse().unwrap();
    let method = method.parse().unwrap();
    let sight = Sight::of(config, &method, uri.path(), headers);
    let route = sight.route(config, &method, &uri).ok()?;
    let upstream = &config.upstreams[route.upstream];
    assert_eq!(
        route.root,
        Operation::of(&method, route.path.path()).root,
        "{uri}"
    );
    Some((upstream.name.clone(), route.path.to_string()))
}

fn check(config: &Config, uri: &str, expect: Option<(&str, &str)>) {
    let found = go(config, "POST", uri, &HeaderMap::new());
    let found = found.as_ref().map(|(name, path)| (name.as_str(), path.as_str()));
    assert_eq!(found, expect, "{uri}");
}

#[test]
#[expect(clippy::too_many_lines, reason = "tables of samples are long")]
fn the_official_clients_reach_their_provider_by_base_url_alone() {
    let config = config(&[], false);
    for (uri, name, path) in [
        // openai: base_url = http://gw/NAME or http://gw/NAME/v1
        ("/openai/v1/chat/completions", "openai", "/v1/chat/completions"),
        ("/openai/chat/completions", "openai", "/v1/chat/completions"),
        ("/compatible/v1/responses", "compatible", "/v1/responses"),
        ("/compatible/v3/x", "compatible", "/v3/x"),
        (
            "/compatible/openai/v1/embeddings",
            "compatible",
            "/openai/v1/embeddings",
        ),
        // openai.AzureOpenAI: azure_endpoint = http://gw/azure
        (
            "/azure/openai/deployments/d/chat/completions?api-version=2024-10-21",
            "azure",
            "/openai/deployments/d/chat/completions?api-version=2024-10-21",
        ),
        ("/azure/openai/v1/responses", "azure", "/openai/v1/responses"),
        ("/azure/v1/responses", "azure", "/openai/v1/responses"),
        (
            "/azure/openai/responses?api-version=x",
            "azure",
            "/openai/responses?api-version=x",
        ),
        ("/azure/anthropic/v1/messages", "azure", "/anthropic/v1/messages"),
        // anthropic: base_url = http://gw/anthropic
        ("/anthropic/v1/messages", "anthropic", "/v1/messages"),
        ("/anthropic/messages", "anthropic", "/v1/messages"),
        (
            "/anthropic/v1/messages/count_tokens?beta=true",
            "anthropic",
            "/v1/messages/count_tokens?beta=true",
        ),
        // google-genai: http_options.base_url = http://gw/gemini
        (
            "/gemini/v1beta/models/g:generateContent",
            "gemini",
            "/v1beta/models/g:generateContent",
        ),
        (
            "/gemini/v1/models/g:embedContent",
            "gemini",
            "/v1/models/g:embedContent",
        ),
        (
            "/gemini/v1beta/openai/chat/completions",
            "gemini",
            "/v1beta/openai/chat/completions",
        ),
        (
            "/gemini/v1/chat/completions",
            "gemini",
            "/v1beta/openai/chat/completions",
        ),
        ("/gemini/v1beta/files", "gemini", "/v1beta/files"),
        (
            "/vertex/v1beta1/projects/p/locations/l/publishers/google/models/g:generateContent",
            "vertex",
            "/v1beta1/projects/p/locations/l/publishers/google/models/g:generateContent",
        ),
        (
            "/vertex/v1/projects/p/locations/l/endpoints/openapi/chat/completions",
            "vertex",
            "/v1/projects/p/locations/l/endpoints/openapi/chat/completions",
        ),
        // groq: base_url = http://gw/groq
        (
            "/groq/openai/v1/chat/completions",
            "groq",
            "/openai/v1/chat/completions",
        ),
        ("/groq/v1/chat/completions", "groq", "/openai/v1/chat/completions"),
        ("/groq/v1/files", "groq", "/openai/v1/files"),
        ("/groq/chat/completions/", "groq", "/openai/v1/chat/completions/"),
        // mistralai: server_url = http://gw/mistral
        ("/mistral/v1/fim/completions", "mistral", "/v1/fim/completions"),
        ("/mistral/v1/ocr", "mistral", "/v1/ocr"),
        (
            "/openrouter/api/v1/chat/completions",
            "openrouter",
            "/api/v1/chat/completions",
        ),
        (
            "/openrouter/v1/chat/completions",
            "openrouter",
            "/api/v1/chat/completions",
        ),
        ("/deepseek/chat/completions", "deepseek", "/chat/completions"),
        (
            "/deepseek/v1/chat/completions",
            "deepseek",
            "/v1/chat/completions",
        ),
        ("/deepseek/beta/completions", "deepseek", "/beta/completions"),
        (
            "/deepseek/anthropic/v1/messages",
            "deepseek",
            "/anthropic/v1/messages",
        ),
        // cohere: base_url = http://gw/cohere
        ("/cohere/v2/chat", "cohere", "/v2/chat"),
        ("/cohere/v1/embed", "cohere", "/v1/embed"),
        ("/cohere/v2/rerank", "cohere", "/v2/rerank"),
        (
            "/cohere/compatibility/v1/chat/completions",
            "cohere",
            "/compatibility/v1/chat/completions",
        ),
        (
            "/cohere/v1/chat/completions",
            "cohere",
            "/compatibility/v1/chat/completions",
        ),
        // boto3 and plain HTTP: endpoint = http://gw/bedrock
        (
            "/bedrock/model/m%3A0/converse",
            "bedrock",
            "/model/m%3A0/converse",
        ),
        (
            "/bedrock/openai/v1/chat/completions",
            "bedrock",
            "/openai/v1/chat/completions",
        ),
        (
            "/bedrock/v1/chat/completions",
            "bedrock",
            "/openai/v1/chat/completions",
        ),
        ("/bedrock-mantle/v1/responses", "bedrock-mantle", "/v1/responses"),
        (
            "/bedrock-mantle/anthropic/v1/messages",
            "bedrock-mantle",
            "/anthropic/v1/messages",
        ),
    ] {
        check(&config, uri, Some((name, path)));
    }
}

#[test]
fn paths_without_a_name_go_to_whom_they_belong() {
    let all = config(&[], false);
    for (uri, name, path) in [
        ("/v1/chat/completions", "openai", "/v1/chat/completions"),
        ("/chat/completions", "openai", "/v1/chat/completions"),
        ("/v1/whatever?a=b", "openai", "/v1/whatever?a=b"),
        (
            "/openai/deployments/d/embeddings",
            "azure",
            "/openai/deployments/d/embeddings",
        ),
        ("/v1/messages", "anthropic", "/v1/messages"),
        ("/messages", "anthropic", "/v1/messages"),
        (
            "/v1beta/models/g:streamGenerateContent?alt=sse",
            "gemini",
            "/v1beta/models/g:streamGenerateContent?alt=sse",
        ),
        ("/v1beta/openai/embeddings", "gemini", "/v1beta/openai/embeddings"),
        (
            "/v1/projects/p/locations/l/publishers/anthropic/models/c:rawPredict",
            "vertex",
            "/v1/projects/p/locations/l/publishers/anthropic/models/c:rawPredict",
        ),
        (
            "/api/v1/chat/completions",
            "openrouter",
            "/api/v1/chat/completions",
        ),
        ("/v2/embed", "cohere", "/v2/embed"),
        ("/v1/rerank", "cohere", "/v1/rerank"),
        (
            "/compatibility/v1/embeddings",
            "cohere",
            "/compatibility/v1/embeddings",
        ),
        ("/model/m/invoke", "bedrock", "/model/m/invoke"),
    ] {
        check(&all, uri, Some((name, path)));
    }
    for (order, uri, expect) in [
        // The only upstream that speaks OpenAI's API serves it, under its own paths.
        (
            ["groq"],
            "/v1/chat/completions",
            Some("/openai/v1/chat/completions"),
        ),
        (
            ["groq"],
            "/openai/v1/chat/completions",
            Some("/openai/v1/chat/completions"),
        ),
        (["gemini"], "/v1/embeddings", Some("/v1beta/openai/embeddings")),
        (
            ["mistral"],
            "/openai/v1/chat/completions",
            Some("/v1/chat/completions"),
        ),
        (
            ["compatible"],
            "/openai/v1/chat/completions",
            Some("/v1/chat/completions"),
        ),
        (["compatible"], "/v1/rerank", Some("/v1/rerank")),
        (
            ["azure"],
            "/chat/completions",
            Some("/openai/v1/chat/completions"),
        ),
        (
            ["bedrock"],
            "/v1/chat/completions",
            Some("/openai/v1/chat/completions"),
        ),
        (
            ["bedrock-mantle"],
            "/v1/chat/completions",
            Some("/v1/chat/completions"),
        ),
        (["vertex"], "/v1/chat/completions", None),
        (["anthropic"], "/v1/chat/completions", None),
        (["openai"], "/v1/messages", None),
        (["openai"], "/v1beta/models/g:generateContent", None),
        (["openai"], "/api/v1/whatever", None),
        (["openai"], "/whatever", None),
        (["openai"], "/model/m/converse", None),
    ] {
        let config = config(&order, false);
        check(&config, uri, expect.map(|path| (order[0], path)));
    }
}

#[test]
fn models_and_unknown_paths_follow_the_version_header() {
    let config = config(&["openai", "anthropic"], false);
    let mut versioned = HeaderMap::new();
    versioned.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
    for (method, uri, headers, expect) in [
        ("GET", "/v1/models", &HeaderMap::new(), "openai"),
        ("GET", "/v1/models", &versioned, "anthropic"),
        ("GET", "/v1/messages/batches", &versioned, "anthropic"),
        ("POST", "/v1/files", &HeaderMap::new(), "openai"),
    ] {
        assert_eq!(go(&config, method, uri, headers).unwrap().0, expect, "{uri}");
    }
    let models = go(&config, "GET", "/models", &HeaderMap::new()).unwrap();
    assert_eq!(models.1, "/v1/models");
}

#[test]
fn keys_in_the_query_are_replaced_by_the_upstreams_own() {
    let uri = "/gemini/v1beta/models/g:generateContent?key=AIza-client&alt=sse";
    let passed = "/v1beta/models/g:generateContent?key=AIza-client&alt=sse";
    check(&config(&["gemini"], false), uri, Some(("gemini", passed)));
    let bare = "/v1beta/models/g:generateContent?alt=sse";
    check(&config(&["gemini"], true), uri, Some(("gemini", bare)));
    check(
        &config(&["gemini"], true),
        "/v1beta/models/g:generateContent?key=AIza-client",
        Some(("gemini", "/v1beta/models/g:generateContent")),
    );
}

#[test]
fn shapes_are_those_of_whom_the_client_talks_to() {
    let config = config(&[], false);
    let plain = HeaderMap::new();
    for (method, path, expect) in [
        ("POST", "/v1/chat/completions", Shape::OpenAi),
        ("GET", "/v1/responses", Shape::OpenAi),
        ("POST", "/anthropic/v1/whatever", Shape::Anthropic),
        ("POST", "/gemini/v1beta/models/g:generateContent", Shape::Google),
        ("POST", "/gemini/v1beta/openai/chat/completions", Shape::OpenAi),
        ("POST", "/gemini/v1beta/whatever", Shape::Google),
        ("POST", "/mistral/v1/chat/completions", Shape::Mistral),
        ("POST", "/cohere/v2/chat", Shape::Cohere),
        ("POST", "/deepseek/anthropic/v1/messages", Shape::Anthropic),
        ("DELETE", "/bedrock/model/m/converse", Shape::Bedrock),
        ("POST", "/nowhere", Shape::OpenAi),
    ] {
        let method = method.parse().unwrap();
        assert_eq!(Sight::of(&config, &method, path, &plain).shape, expect, "{path}");
    }
}
