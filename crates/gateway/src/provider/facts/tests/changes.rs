//! Changes to bodies: usage asked for, output capped.

use bytes::Bytes;

use super::*;

/// Asks for usage, as for a client that did not.
pub(super) fn ensure_usage(body: &Bytes, facts: &RequestFacts) -> Option<Bytes> {
    let wishes = Wishes {
        provider: Provider::OpenAi,
        usage: true,
        output_max: None,
    };
    let edited = facts.clone().edit(body, wishes);
    assert_eq!(edited.asks_usage, edited.body != *body);
    edited.asks_usage.then_some(edited.body)
}

#[test]
fn usage_is_asked_for_with_the_smallest_change() {
    use Endpoint::{ChatCompletions, Completions, Messages, Responses};
    for (endpoint, body, expect) in [
        (
            ChatCompletions,
            r#"{"stream":true}"#,
            Some(r#"{"stream_options":{"include_usage":true},"stream":true}"#),
        ),
        (
            Completions,
            " {\n \"stream\": true\n}",
            Some(" {\"stream_options\":{\"include_usage\":true},\n \"stream\": true\n}"),
        ),
        (
            ChatCompletions,
            r#"{"stream":true,"stream_options":null}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        ),
        (
            ChatCompletions,
            r#"{"stream":true,"stream_options": { }}"#,
            Some(r#"{"stream":true,"stream_options": {"include_usage":true }}"#),
        ),
        (
            ChatCompletions,
            r#"{"stream":true,"stream_options":{"x":1}}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true,"x":1}}"#),
        ),
        (
            ChatCompletions,
            r#"{"stream_options":{"include_usage": false},"stream":true}"#,
            Some(r#"{"stream_options":{"include_usage": true},"stream":true}"#),
        ),
        (
            ChatCompletions,
            r#"{"stream":true,"stream_options":{"include_usage":null}}"#,
            Some(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
        ),
        (
            ChatCompletions,
            r#"{"stream_options":{"include_usage":true},"stream":true,"stream_options":{"include_usage":false}}"#,
            Some(
                r#"{"stream_options":{"include_usage":true},"stream":true,"stream_options":{"include_usage":true}}"#,
            ),
        ),
        (
            ChatCompletions,
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            None,
        ),
        (
            ChatCompletions,
            r#"{"stream":true,"stream_options":{"include_usage":"yes"}}"#,
            None,
        ),
        (ChatCompletions, r#"{"stream":true,"stream_options":7}"#, None),
        (ChatCompletions, r#"{"stream":true,"stream_options":[]}"#, None),
        (ChatCompletions, r#"{"stream":false}"#, None),
        (ChatCompletions, r#"{}"#, None),
        (Responses, r#"{"stream":true}"#, None),
        (Messages, r#"{"stream":true}"#, None),
    ] {
        let facts = read(endpoint, body);
        let body = Bytes::copy_from_slice(body.as_bytes());
        assert_eq!(
            ensure_usage(&body, &facts).as_deref(),
            expect.map(str::as_bytes),
            "{body:?}"
        );
    }
}

/// Caps the output, as a group does.
pub(super) fn capped(
    endpoint: Endpoint,
    provider: Provider,
    body: &str,
    cap: u64,
) -> (String, Option<u64>, RequestFacts) {
    let mut facts = read(endpoint, body);
    let wishes = Wishes {
        provider,
        usage: false,
        output_max: Some(Tokens::new(cap)),
    };
    let edited = facts.edit(&Bytes::copy_from_slice(body.as_bytes()), wishes);
    let text = String::from_utf8(edited.body.to_vec()).unwrap();
    (text, edited.output_max.map(Tokens::value), facts)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of samples is long")]
fn the_maximum_output_is_capped_with_the_smallest_change() {
    use Endpoint::{
        ChatCompletions, CohereChat, Completions, Converse, Embeddings, GenerateContent, InvokeModel,
        Messages, Responses, StreamGenerateContent,
    };
    for (endpoint, provider, body, expect) in [
        (
            ChatCompletions,
            Provider::OpenAi,
            r#"{"max_tokens": 512,"n":1}"#,
            Some(r#"{"max_tokens": 100,"n":1}"#),
        ),
        (ChatCompletions, Provider::OpenAi, r#"{"max_tokens":100}"#, None),
        (ChatCompletions, Provider::OpenAi, r#"{"max_tokens":0}"#, None),
        (
            ChatCompletions,
            Provider::OpenAi,
            r#"{}"#,
            Some(r#"{"max_completion_tokens":100}"#),
        ),
        (
            ChatCompletions,
            Provider::Compatible,
            " { } ",
            Some(" {\"max_tokens\":100 } "),
        ),
        (
            ChatCompletions,
            Provider::Mistral,
            r#"{"model":"m"}"#,
            Some(r#"{"max_tokens":100,"model":"m"}"#),
        ),
        (
            ChatCompletions,
            Provider::Groq,
            r#"{"max_tokens":512,"max_completion_tokens":1e30}"#,
            Some(r#"{"max_tokens":100,"max_completion_tokens":100}"#),
        ),
        (
            ChatCompletions,
            Provider::OpenAi,
            r#"{"max_tokens":null,"max_completion_tokens":null}"#,
            Some(r#"{"max_tokens":null,"max_completion_tokens":100}"#),
        ),
        (
            ChatCompletions,
            Provider::OpenAi,
            r#"{"max_tokens":null}"#,
            Some(r#"{"max_completion_tokens":100,"max_tokens":null}"#),
        ),
        // What a provider refuses is left for it to refuse; what it ignores caps nothing.
        (ChatCompletions, Provider::OpenAi, r#"{"max_tokens":"512"}"#, None),
        (ChatCompletions, Provider::OpenAi, r#"{"max_tokens":-1}"#, None),
        (
            ChatCompletions,
            Provider::Compatible,
            r#"{"max_output_tokens":1}"#,
            Some(r#"{"max_tokens":100,"max_output_tokens":1}"#),
        ),
        (
            Completions,
            Provider::OpenAi,
            r#"{"n":1}"#,
            Some(r#"{"max_tokens":100,"n":1}"#),
        ),
        (
            Responses,
            Provider::Azure,
            r#"{"n":1}"#,
            Some(r#"{"max_output_tokens":100,"n":1}"#),
        ),
        (
            Messages,
            Provider::Anthropic,
            r#"{"max_tokens":512}"#,
            Some(r#"{"max_tokens":100}"#),
        ),
        (Messages, Provider::Anthropic, r#"{"n":1}"#, None),
        (
            CohereChat,
            Provider::Cohere,
            r#"{"n":1}"#,
            Some(r#"{"max_tokens":100,"n":1}"#),
        ),
        (
            GenerateContent,
            Provider::Gemini,
            r#"{"contents":[]}"#,
            Some(r#"{"generationConfig":{"maxOutputTokens":100},"contents":[]}"#),
        ),
        (
            StreamGenerateContent,
            Provider::Vertex,
            r#"{"generationConfig":{"temperature":1}}"#,
            Some(r#"{"generationConfig":{"maxOutputTokens":100,"temperature":1}}"#),
        ),
        (
            GenerateContent,
            Provider::Gemini,
            r#"{"generationConfig": { }}"#,
            Some(r#"{"generationConfig": {"maxOutputTokens":100 }}"#),
        ),
        (
            GenerateContent,
            Provider::Gemini,
            r#"{"generation_config":{"max_output_tokens":512}}"#,
            Some(r#"{"generation_config":{"max_output_tokens":100}}"#),
        ),
        (
            GenerateContent,
            Provider::Gemini,
            r#"{"generationConfig":null}"#,
            Some(r#"{"generationConfig":{"maxOutputTokens":100}}"#),
        ),
        (
            GenerateContent,
            Provider::Gemini,
            r#"{"generationConfig":7}"#,
            None,
        ),
        (
            Converse,
            Provider::Bedrock,
            r#"{"messages":[]}"#,
            Some(r#"{"inferenceConfig":{"maxTokens":100},"messages":[]}"#),
        ),
        (
            Converse,
            Provider::Bedrock,
            r#"{"inferenceConfig":{"maxTokens":512}}"#,
            Some(r#"{"inferenceConfig":{"maxTokens":100}}"#),
        ),
        (
            InvokeModel,
            Provider::Bedrock,
            r#"{"max_gen_len":512}"#,
            Some(r#"{"max_gen_len":100}"#),
        ),
        (InvokeModel, Provider::Bedrock, r#"{"prompt":"a"}"#, None),
        (Embeddings, Provider::OpenAi, r#"{"max_tokens":512}"#, None),
    ] {
        let (text, output_max, facts) = capped(endpoint, provider, body, 100);
        assert_eq!(text, expect.unwrap_or(body), "{body}");
        assert_eq!(output_max, expect.map(|_| 100), "{body}");
        if expect.is_some() {
            assert_eq!(facts.max_output, Some(Tokens::new(100)), "{body}");
            assert_eq!(facts.demand().max_output, Some(Tokens::new(100)), "{body}");
        }
    }
}

#[test]
fn usage_is_asked_for_and_output_capped_in_one_body() {
    let body = r#"{"stream":true,"max_tokens":512}"#;
    let mut facts = read(Endpoint::ChatCompletions, body);
    let edited = facts.edit(
        &Bytes::from_static(body.as_bytes()),
        Wishes {
            provider: Provider::OpenAi,
            usage: true,
            output_max: Some(Tokens::new(100)),
        },
    );
    assert!(edited.asks_usage);
    assert_eq!(edited.output_max, Some(Tokens::new(100)));
    assert_eq!(
        edited.body,
        r#"{"stream_options":{"include_usage":true},"stream":true,"max_tokens":100}"#
    );
}
