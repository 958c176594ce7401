//! Reports of every provider.

use super::*;

fn usage(input: Option<u64>, cached: u64, output: Option<u64>) -> Usage {
    Usage {
        input: input.map(Tokens::new),
        cached_input: Tokens::new(cached),
        output: output.map(Tokens::new),
    }
}

fn answer(body: &str) -> Option<Usage> {
    in_answer(body.as_bytes())?.usage.map(|fields| fields.usage())
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of samples is long")]
fn every_shape_is_read() {
    for (body, expect) in [
        // Chat.
        (
            r#"{"id":"x","usage":{"prompt_tokens":12,"completion_tokens":163,"total_tokens":175,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":1}}}"#,
            Some(usage(Some(8), 4, Some(163))),
        ),
        // Responses.
        (
            r#"{"usage":{"input_tokens":12,"input_tokens_details":{"cached_tokens":3},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":17},"user":null}"#,
            Some(usage(Some(9), 3, Some(5))),
        ),
        // Embeddings.
        (
            r#"{"data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}"#,
            Some(usage(Some(8), 0, None)),
        ),
        // Transcriptions: by tokens, or by time.
        (
            r#"{"text":"a","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":0,"audio_tokens":14},"output_tokens":45,"total_tokens":59}}"#,
            Some(usage(Some(14), 0, Some(45))),
        ),
        (
            r#"{"text":"a","usage":{"type":"duration","seconds":3}}"#,
            Some(usage(None, 0, None)),
        ),
        // Anthropic.
        (
            r#"{"usage":{"input_tokens":10,"cache_creation_input_tokens":200,"cache_read_input_tokens":3000,"cache_creation":{"ephemeral_5m_input_tokens":200},"output_tokens":7,"service_tier":"standard"}}"#,
            Some(usage(Some(210), 3_000, Some(7))),
        ),
        // Gemini: what is cached is among the prompt, thoughts stand beside the candidates.
        (
            r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}],"usageMetadata":{"promptTokenCount":100,"cachedContentTokenCount":60,"candidatesTokenCount":7,"thoughtsTokenCount":20,"toolUsePromptTokenCount":5,"totalTokenCount":132,"promptTokensDetails":[{"modality":"TEXT","tokenCount":100}]}}"#,
            Some(usage(Some(45), 60, Some(27))),
        ),
        (
            r#"{"usageMetadata":{"promptTokenCount":100,"totalTokenCount":100}}"#,
            Some(usage(Some(100), 0, None)),
        ),
        // A Gemini stream without `alt=sse`: the last report counts, what it leaves out stays.
        (
            r#"[{"usageMetadata":{"promptTokenCount":100,"cachedContentTokenCount":1,"candidatesTokenCount":1}},
{"usageMetadata":{"promptTokenCount":100,"candidatesTokenCount":9}}]"#,
            Some(usage(Some(99), 1, Some(9))),
        ),
        // DeepSeek.
        (
            r#"{"usage":{"prompt_tokens":100,"completion_tokens":2,"prompt_cache_hit_tokens":64,"prompt_cache_miss_tokens":36,"prompt_tokens_details":{"cached_tokens":64}}}"#,
            Some(usage(Some(36), 64, Some(2))),
        ),
        (
            r#"{"usage":{"prompt_cache_hit_tokens":64,"prompt_tokens_details":null,"prompt_tokens":100}}"#,
            Some(usage(Some(36), 64, None)),
        ),
        // Groq: beside its own fields.
        (
            r#"{"usage":{"queue_time":0.1,"prompt_tokens":18,"prompt_time":0.0007,"completion_tokens":5,"total_time":1.2},"x_groq":{"id":"req_1"}}"#,
            Some(usage(Some(18), 0, Some(5))),
        ),
        (
            r#"{"x_groq":{"id":"req_1","usage":{"prompt_tokens":18,"completion_tokens":5}}}"#,
            Some(usage(Some(18), 0, Some(5))),
        ),
        // OpenRouter.
        (
            r#"{"usage":{"prompt_tokens":194,"completion_tokens":2,"cost":0.95,"cost_details":{"upstream_inference_cost":19},"prompt_tokens_details":{"cached_tokens":100,"cache_write_tokens":0}}}"#,
            Some(usage(Some(94), 100, Some(2))),
        ),
        // Cohere: version 2, version 1, and where only billed units are told.
        (
            r#"{"usage":{"billed_units":{"input_tokens":5,"output_tokens":418},"tokens":{"input_tokens":71,"output_tokens":420}}}"#,
            Some(usage(Some(71), 0, Some(420))),
        ),
        (
            r#"{"text":"a","meta":{"api_version":{"version":"1"},"tokens":{"input_tokens":71,"output_tokens":420},"billed_units":{"input_tokens":5,"output_tokens":418}}}"#,
            Some(usage(Some(71), 0, Some(420))),
        ),
        (
            r#"{"embeddings":{},"meta":{"billed_units":{"input_tokens":5}}}"#,
            Some(usage(Some(5), 0, None)),
        ),
        (
            r#"{"results":[],"meta":{"billed_units":{"search_units":1}}}"#,
            Some(usage(None, 0, None)),
        ),
        // Bedrock: cached input is told beside the rest.
        (
            r#"{"output":{},"usage":{"inputTokens":30,"outputTokens":628,"totalTokens":658,"cacheReadInputTokens":1000,"cacheWriteInputTokens":20}}"#,
            Some(usage(Some(50), 1_000, Some(628))),
        ),
        (
            r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":8,"outputTokenCount":12,"invocationLatency":500,"cacheReadInputTokenCount":3}}"#,
            Some(usage(Some(8), 3, Some(12))),
        ),
        // Nonsense counts as absent; the last of several fields of a name counts.
        (
            r#"{"usage":{"prompt_tokens":-1,"completion_tokens":"7","prompt_tokens_details":null}}"#,
            Some(usage(None, 0, None)),
        ),
        (
            r#"{"usage":{"prompt_tokens":1e30,"completion_tokens":7.0}}"#,
            Some(usage(Some(u64::MAX), 0, Some(7))),
        ),
        (
            r#"{"usage":{"prompt_tokens":1,"prompt_tokens":2,"prompt_tokens_details":{"cached_tokens":9}}}"#,
            Some(usage(Some(0), 2, None)),
        ),
        (r#"{"usage":null}"#, None),
        (r#"{"usage":7}"#, None),
        (r#"{"choices":[{"usage":{"prompt_tokens":1}}]}"#, None),
        ("[]", None),
        ("", None),
        (r#"{"usage":{"prompt_tokens":1}"#, None),
    ] {
        assert_eq!(answer(body), expect, "{body}");
    }
}

#[test]
fn errors_are_found_in_answers() {
    for (body, expect) in [
        (
            r#"{"error":{"code":429,"message":"m"},"user_id":"u"}"#,
            Some(r#"{"code":429,"message":"m"}"#),
        ),
        (
            r#"{"choices":[{"message":{"content":""},"finish_reason":"error","error":{"code":502}}]}"#,
            Some(r#"{"code":502}"#),
        ),
        (
            r#"[{"candidates":[]},{"error":{"code":503}}]"#,
            Some(r#"{"code":503}"#),
        ),
        (r#"{"error":null,"choices":[{"error":null}]}"#, None),
        (r#"{"choices":[{"message":{"content":"\"error\":1"}}]}"#, None),
    ] {
        let report = in_answer(body.as_bytes()).unwrap();
        assert_eq!(report.error.map(RawValue::get), expect, "{body}");
    }
}

#[test]
fn the_end_of_an_answer_suffices() {
    for (tail, expect) in [
        (
            r#"0.1,0.2]}],"model":"m","usage": {"prompt_tokens":8,"total_tokens":8}}"#,
            Some(usage(Some(8), 0, None)),
        ),
        (
            r#"says \"usage\" {\"usage\": 1}"}],"usage" :{"prompt_tokens":1,"completion_tokens":2},"service_tier":"default"}"#,
            Some(usage(Some(1), 0, Some(2))),
        ),
        (
            r#""usageMetadata":{"promptTokenCount":1}},{"candidates":[],"usageMetadata": {"promptTokenCount":8,"candidatesTokenCount":2}}]"#,
            Some(usage(Some(8), 0, Some(2))),
        ),
        (
            r#"0.2]]},"meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":8}}}"#,
            Some(usage(Some(8), 0, None)),
        ),
        (r#"says \"usage\": {\"prompt_tokens\": 1}"}]}"#, None),
        (r#""usage":{"prompt_tokens":8"#, None),
        (r#""usage""#, None),
        ("", None),
    ] {
        let found = in_tail(tail.as_bytes()).map(|fields| fields.usage());
        assert_eq!(found, expect, "{tail}");
    }
}
