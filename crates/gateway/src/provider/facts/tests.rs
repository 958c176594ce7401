//! Bodies of every kind, good and bad.

mod changes;
mod properties;

use serde_json::json;

use super::super::fields::MODEL_BYTES_MAX;
use super::*;

fn read(endpoint: Endpoint, body: &str) -> RequestFacts {
    RequestFacts::read(endpoint, body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"))
}

/// Characters, messages and attachments.
fn shape(endpoint: Endpoint, body: &str) -> (u64, u64, u64) {
    let text = read(endpoint, body).text;
    (text.characters, text.messages, text.attachments)
}

#[test]
fn texts_are_counted() {
    use Endpoint::{ChatCompletions, Completions, Embeddings, Messages, Responses};
    for (endpoint, body, expect) in [
        (
            ChatCompletions,
            r#"{"messages":[{"role":"user","content":"Who is Joseph Conrad?"}]}"#,
            (21, 1, 0),
        ),
        (
            ChatCompletions,
            r#"{"messages":[{"role":"system","content":"añ😀"},{"role":"user","content":"b"}]}"#,
            (4, 2, 0),
        ),
        (
            ChatCompletions,
            r#"{"messages":[{"role":"user","content":"a\u00f1\n\ud83d\ude00"}]}"#,
            (4, 1, 0),
        ),
        (
            ChatCompletions,
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"look"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA","detail":"high"}},{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}]}]}"#,
            (4, 1, 2),
        ),
        (
            ChatCompletions,
            r#"{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]}]}"#,
            (8, 1, 0),
        ),
        (
            ChatCompletions,
            r#"{"messages":[{"content":[{"text":"data:text/plain;base64,AAAA"}]}]}"#,
            (0, 1, 1),
        ),
        (ChatCompletions, r#"{"messages":"just text"}"#, (9, 1, 0)),
        (ChatCompletions, r#"{"messages":7,"tools":null}"#, (0, 0, 0)),
        // The last of several counts.
        (
            ChatCompletions,
            r#"{"messages":[{"content":"long text"}],"messages":[{"content":"b"}]}"#,
            (1, 1, 0),
        ),
        // Keys and quotes of a schema count: "type" + 2, "object".
        (ChatCompletions, r#"{"tools":[{"type":"object"}]}"#, (12, 0, 0)),
        (
            ChatCompletions,
            r#"{"tools":[{"enum":[1,-20,true,false,null,0.5]}]}"#,
            (6 + 1 + 3 + 4 + 5 + 24, 0, 0),
        ),
        (Responses, r#"{"input":"abc","instructions":"de"}"#, (5, 2, 0)),
        (
            Responses,
            r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"abc"},{"type":"input_image","image_url":"https://x/y.png"},{"type":"input_file","filename":"f","file_data":"AAAA"}]},{"type":"function_call_output","call_id":"c","output":"42"}]}"#,
            (6, 2, 2),
        ),
        (Embeddings, r#"{"input":"abc"}"#, (3, 1, 0)),
        (Embeddings, r#"{"input":["abc","de"]}"#, (5, 2, 0)),
        (Embeddings, r#"{"input":[1,2,3]}"#, (12, 1, 0)),
        (Embeddings, r#"{"input":[[1,2,3],[4]]}"#, (16, 2, 0)),
        (Embeddings, r#"{"input":[]}"#, (0, 0, 0)),
        (Embeddings, r#"{}"#, (0, 0, 0)),
        (Completions, r#"{"prompt":["abc","de"],"suffix":"f"}"#, (6, 3, 0)),
        (
            Messages,
            r#"{"system":"abc","messages":[{"role":"user","content":"de"}]}"#,
            (5, 2, 0),
        ),
        (
            Messages,
            r#"{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},{"type":"document","source":{"type":"text","media_type":"text/plain","data":"plain"},"title":"t"},{"type":"document","source":{"type":"content","content":[{"type":"text","text":"xyz"}]}}]}]}"#,
            (5 + 1 + 3, 1, 1),
        ),
        // "q" + 2, "go", and a number.
        (
            Messages,
            r#"{"messages":[{"content":[{"type":"tool_use","id":"i","name":"n","input":{"q":"go","k":12}}]}]}"#,
            (1 + 3 + 2 + 3 + 2, 1, 0),
        ),
        (Messages, r#"{"tools":[{"name":"n"}]}"#, (7, 0, 0)),
    ] {
        assert_eq!(shape(endpoint, body), expect, "{body}");
    }
}

#[test]
fn texts_of_every_provider_are_counted() {
    use Endpoint::{
        BatchEmbedContents, CohereChat, CohereEmbed, Converse, EmbedContent, GenerateContent, Images,
        InvokeModel, Moderations, Ocr, Predict, Rerank, Speech,
    };
    for (endpoint, body, expect) in [
        // Gemini: parts, an instruction, inline and linked data, calls and their results, tools, a schema.
        (
            GenerateContent,
            r#"{"contents":[{"role":"user","parts":[{"text":"abc"},{"inlineData":{"mimeType":"image/png","data":"AAAA"}}]},{"role":"model","parts":[{"text":"de","thoughtSignature":"xxxx"}]}],"systemInstruction":{"parts":[{"text":"f"}]}}"#,
            (6, 3, 1),
        ),
        (
            GenerateContent,
            r#"{"contents":[{"parts":[{"fileData":{"mimeType":"video/mp4","fileUri":"gs://bucket/a"}},{"inline_data":{"mime_type":"image/png","data":"AAAA"}}]}],"system_instruction":{"parts":{"text":"f"}}}"#,
            (1, 2, 2),
        ),
        (
            GenerateContent,
            r#"{"contents":{"parts":[{"functionCall":{"name":"n","args":{"q":"go"}}},{"functionResponse":{"name":"n","response":{"r":7}}}]}}"#,
            (1 + 3 + 2 + 1 + 3 + 1, 1, 0),
        ),
        (
            GenerateContent,
            r#"{"tools":[{"type":"object"}],"generationConfig":{"responseSchema":{"type":"object"},"temperature":0.5}}"#,
            (12 + 12, 0, 0),
        ),
        (
            EmbedContent,
            r#"{"model":"models/e","content":{"parts":[{"text":"abc"}]}}"#,
            (3, 1, 0),
        ),
        (
            BatchEmbedContents,
            r#"{"requests":[{"model":"models/e","content":{"parts":[{"text":"abc"}]}},{"model":"models/e","content":{"parts":[{"text":"de"}]}}]}"#,
            (5, 2, 0),
        ),
        (
            Predict,
            r#"{"instances":[{"content":"abc"},{"prompt":"de"}]}"#,
            (5, 2, 0),
        ),
        // Cohere, both versions.
        (
            CohereChat,
            r#"{"messages":[{"role":"user","content":"abc"}],"documents":["de",{"id":"1","data":{"text":"f"}}]}"#,
            (6, 2, 0),
        ),
        (
            CohereChat,
            r#"{"message":"abc","chat_history":[{"role":"USER","message":"de"}],"preamble":"f"}"#,
            (6, 3, 0),
        ),
        (
            CohereEmbed,
            r#"{"texts":["abc","de"],"images":["data:image/png;base64,AAAA"]}"#,
            (5, 3, 1),
        ),
        (
            CohereEmbed,
            r#"{"inputs":[{"content":[{"type":"text","text":"abc"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]}"#,
            (3, 1, 1),
        ),
        (
            Rerank,
            r#"{"query":"abc","documents":["de","f"],"top_n":1}"#,
            (6, 2, 0),
        ),
        // Bedrock.
        (
            Converse,
            r#"{"messages":[{"role":"user","content":[{"text":"abc"},{"image":{"format":"png","source":{"bytes":"AAAA"}}},{"document":{"format":"pdf","name":"n","source":{"bytes":"AAAA"}}},{"cachePoint":{"type":"default"}}]}],"system":[{"text":"de"}]}"#,
            (3 + 1 + 2, 2, 2),
        ),
        (
            Converse,
            r#"{"messages":[{"content":[{"document":{"name":"n","source":{"text":"plain"}}},{"toolUse":{"toolUseId":"t","name":"n","input":{"q":"go"}}},{"toolResult":{"toolUseId":"t","content":[{"json":{"r":7}},{"text":"x"}]}}]}],"toolConfig":{"tools":1}}"#,
            (1 + 5 + 1 + 3 + 2 + 3 + 1 + 1 + 8, 1, 0),
        ),
        (InvokeModel, r#"{"inputText":"abc"}"#, (3, 1, 0)),
        (InvokeModel, r#"{"prompt":"abc","max_gen_len":5}"#, (3, 1, 0)),
        // The rest of OpenAI's and Mistral's.
        (Images, r#"{"prompt":"abc","n":2}"#, (3, 1, 0)),
        (
            Speech,
            r#"{"input":"abc","voice":"alloy","instructions":"de"}"#,
            (5, 2, 0),
        ),
        (
            Moderations,
            r#"{"input":["abc",{"type":"text","text":"de"}]}"#,
            (5, 2, 0),
        ),
        (
            Ocr,
            r#"{"document":{"type":"document_url","document_url":"https://x/y.pdf"}}"#,
            (0, 1, 1),
        ),
    ] {
        assert_eq!(shape(endpoint, body), expect, "{body}");
    }
}

#[test]
fn documents_count_by_their_size() {
    for (characters, attachments) in [(0, 1), (40_000, 1), (40_001, 2), (1_000_000, 25)] {
        let data = "A".repeat(characters);
        let anthropic = json!({"messages": [{"content": [{"type": "document", "source": {
            "type": "base64", "media_type": "application/pdf", "data": data}}]}]});
        let chat = json!({"messages": [{"content": [{"type": "file", "file": {"file_data": data}}]}]});
        for (endpoint, body) in [(Endpoint::Messages, anthropic), (Endpoint::ChatCompletions, chat)] {
            assert_eq!(
                shape(endpoint, &body.to_string()),
                (0, 1, attachments),
                "{characters}"
            );
        }
    }
}

#[test]
fn the_admission_charges_that_were_observed_are_not_above_the_estimate() {
    // providers.md §2.3, A and B: 512 + 7 and 16 + 6 tokens.
    for (body, charged) in [
        (
            r#"{"model":"gpt-4","max_tokens":512,"messages":[{"role":"user","content":"Who is Joseph Conrad?"}]}"#,
            519,
        ),
        (
            r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello, world?"}]}"#,
            22,
        ),
    ] {
        let demand = read(Endpoint::ChatCompletions, body).demand();
        let charge = tidegate_core::ChargeModel::OPENAI.at_admission(&demand);
        let tokens = charge.amount(tidegate_core::Dimension::Tokens).value();
        assert!((charged..charged + 8).contains(&tokens), "{tokens} for {charged}");
    }
}

#[test]
fn numbers_are_taken_as_far_as_they_make_sense() {
    let max = |body: &str| {
        read(Endpoint::ChatCompletions, body)
            .max_output
            .map(Tokens::value)
    };
    for (value, expect) in [
        ("512", Some(512)),
        ("0", Some(0)),
        ("512.0", Some(512)),
        ("5e2", Some(500)),
        ("1e30", Some(u64::MAX)),
        ("1e400", Some(u64::MAX)),
        ("999999999999999999999999", Some(u64::MAX)),
        ("-1", None),
        ("-1e400", None),
        ("1.5", None),
        (r#""512""#, None),
        ("null", None),
        ("true", None),
        ("[1]", None),
        ("{}", None),
    ] {
        assert_eq!(max(&format!(r#"{{"max_tokens":{value}}}"#)), expect, "{value}");
    }
    assert_eq!(
        max(r#"{"max_tokens":1,"max_completion_tokens":7,"max_output_tokens":9}"#),
        Some(7)
    );
    assert_eq!(max(r#"{"max_tokens":9,"max_tokens":1}"#), Some(1));

    use Endpoint::{CohereChat, Converse, GenerateContent, InvokeModel, Responses};
    for (endpoint, body, expect) in [
        (Responses, r#"{"max_output_tokens":7,"max_tokens":9}"#, Some(7)),
        (CohereChat, r#"{"max_tokens":7}"#, Some(7)),
        (
            GenerateContent,
            r#"{"generationConfig":{"maxOutputTokens":7}}"#,
            Some(7),
        ),
        (
            GenerateContent,
            r#"{"generation_config":{"max_output_tokens":7}}"#,
            Some(7),
        ),
        (
            GenerateContent,
            r#"{"generationConfig":{"maxOutputTokens":7},"generationConfig":{}}"#,
            None,
        ),
        (
            GenerateContent,
            r#"{"generationConfig":null,"max_tokens":7}"#,
            None,
        ),
        (
            GenerateContent,
            r#"{"generationConfig":[{"maxOutputTokens":7}]}"#,
            None,
        ),
        (
            Converse,
            r#"{"inferenceConfig":{"temperature":1,"maxTokens":7}}"#,
            Some(7),
        ),
        (InvokeModel, r#"{"max_tokens":7}"#, Some(7)),
        (InvokeModel, r#"{"max_gen_len":7}"#, Some(7)),
        (
            InvokeModel,
            r#"{"inferenceConfig":{"max_new_tokens":7}}"#,
            Some(7),
        ),
        (
            InvokeModel,
            r#"{"textGenerationConfig":{"maxTokenCount":7}}"#,
            Some(7),
        ),
    ] {
        assert_eq!(
            read(endpoint, body).max_output.map(Tokens::value),
            expect,
            "{body}"
        );
    }
    let candidates = read(GenerateContent, r#"{"generationConfig":{"candidateCount":3}}"#);
    assert_eq!(candidates.demand().choices.get(), 3);

    let choices = |body: &str| read(Endpoint::Completions, body).choices.get();
    for (body, expect) in [
        ("{}", 1),
        (r#"{"n":3}"#, 3),
        (r#"{"n":3,"best_of":5}"#, 5),
        (r#"{"n":0}"#, 1),
        (r#"{"n":null}"#, 1),
        (r#"{"n":1e30}"#, u32::MAX),
        (r#"{"n":-4}"#, 1),
    ] {
        assert_eq!(choices(body), expect, "{body}");
    }
}

#[test]
fn plain_fields() {
    let facts = read(
        Endpoint::ChatCompletions,
        r#" {"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},"x":[{}]} "#,
    );
    assert_eq!(facts.model.as_deref(), Some("gpt-4o"));
    assert!(facts.stream && facts.usage_asked);
    for (body, model, stream) in [
        ("{}", None, false),
        (r#"{"model":null,"stream":null}"#, None, false),
        (r#"{"model":7,"stream":"true"}"#, None, false),
        (r#"{"model":"a\u0062","stream":false}"#, Some("ab"), false),
        (
            r#"{"model":"a","model":"b","stream":false,"stream":true}"#,
            Some("b"),
            true,
        ),
        (r#"{"mod\u0065l":"a"}"#, Some("a"), false),
    ] {
        let facts = read(Endpoint::Responses, body);
        assert_eq!((facts.model.as_deref(), facts.stream), (model, stream), "{body}");
    }
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(MODEL_BYTES_MAX + 1));
    assert_eq!(read(Endpoint::Responses, &long).model, None);
}

#[test]
fn demands_follow_the_endpoint() {
    let body = r#"{"max_tokens":100,"input":"abcdefgh","messages":[{"content":"abcdefgh"}],"n":2}"#;
    for (endpoint, input, choices, generates) in [
        (Endpoint::ChatCompletions, 12, 2, true),
        (Endpoint::Messages, 22, 2, true),
        (Endpoint::Embeddings, 6, 1, false),
        (Endpoint::CountTokens, 0, 1, false),
        (Endpoint::GenerateContent, 12, 2, true),
        (Endpoint::CohereChat, 12, 2, true),
        (Endpoint::ConverseStream, 22, 2, true),
        (Endpoint::Moderations, 6, 1, false),
        (Endpoint::Rerank, 6, 1, false),
        (Endpoint::Speech, 12, 1, false),
        (Endpoint::CountContentTokens, 0, 1, false),
    ] {
        let demand = read(endpoint, body).demand();
        assert_eq!(demand.input, Tokens::new(input), "{endpoint:?}");
        assert_eq!(demand.choices.get(), choices, "{endpoint:?}");
        assert_eq!(demand.generates, generates, "{endpoint:?}");
    }
}

#[test]
fn bad_bodies_are_told_where() {
    let deep = format!(r#"{{"messages":{}"#, "[".repeat(1_000));
    let deep_object = format!(r#"{{"tools":{}"#, r#"{"a":"#.repeat(1_000));
    for (body, expect) in [
        ("", "the request body is empty: expected a JSON object"),
        (" \n", "the request body is empty: expected a JSON object"),
        ("[]", "the request body is not a JSON object"),
        ("\"{}\"", "the request body is not a JSON object"),
        ("7", "the request body is not a JSON object"),
        ("null", "the request body is not a JSON object"),
        (
            "nonsense",
            "the request body is not valid JSON: expected ident at line 1, column 2",
        ),
        (
            "{\"a\":1",
            "the request body is not valid JSON: EOF while parsing an object at line 1, column 6",
        ),
        (
            "{\"model\":\"gp",
            "the request body is not valid JSON: EOF while parsing a string at line 1, column 12",
        ),
        (
            "{\"a\":1,}",
            "the request body is not valid JSON: trailing comma at line 1, column 8",
        ),
        (
            "{\n\"a\" 1}",
            "the request body is not valid JSON: expected `:` at line 2, column 5",
        ),
        (
            "{} {}",
            "the request body is not valid JSON: trailing characters at line 1, column 4",
        ),
        (
            "{\"a\":NaN}",
            "the request body is not valid JSON: expected value at line 1, column 6",
        ),
        (
            &deep,
            "the request body is nested deeper than 128 levels, at line 1, column 139",
        ),
        (
            &deep_object,
            "the request body is nested deeper than 128 levels, at line 1, column 640",
        ),
    ] {
        let error = RequestFacts::read(Endpoint::ChatCompletions, body.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), expect, "{}", &body[..body.len().min(40)]);
    }
    assert_eq!(
        RequestFacts::read(Endpoint::ChatCompletions, b"{\"model\":\"\xff\"}"),
        Err(BadBody::NotUtf8 { offset: 10 })
    );
}
