//! Streams and answers of every provider, in pieces of every size.

use http::HeaderValue;
use proptest::prelude::*;

use super::super::aws_events::message;
use super::events::EVENT_BYTES_MAX;
use super::*;

const CHAT: &str = concat!(
    "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]USAGE_NULL}\n\n",
    ": keep-alive\n\n",
    "data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello there, \\\"usage\\\":null\"}}]USAGE_NULL,\"obfuscation\":\"xyz\"}\n\n",
    "data: {\"id\":\"c1\", \"choices\": [{\"index\": 0, \"delta\": {}, \"finish_reason\": \"stop\"}]USAGE_NULL_SPACED}\n\n",
    "USAGE_CHUNKdata: [DONE]\n\n",
);

const USAGE_CHUNK: &str = "data: {\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":7,\"total_tokens\":19,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n";

/// The stream as a provider sends it, with usage or without.
fn chat(with_usage: bool) -> String {
    let (null, spaced, chunk) = if with_usage {
        (",\"usage\":null", ", \"usage\": null", USAGE_CHUNK)
    } else {
        ("", "", "")
    };
    CHAT.replace("USAGE_NULL_SPACED", spaced)
        .replace("USAGE_NULL", null)
        .replace("USAGE_CHUNK", chunk)
}

const RESPONSES: &str = concat!(
    "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"usage\":null}}\n\n",
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hello, \\u00e4\"}\n\n",
    "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"usage\":{\"input_tokens\":9,\"input_tokens_details\":{\"cached_tokens\":2},\"output_tokens\":5,\"total_tokens\":14}}}\n\n",
);

const ANTHROPIC: &str = concat!(
    "event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{\"input_tokens\":10,\"cache_creation_input_tokens\":20,\"cache_read_input_tokens\":300,\"output_tokens\":1}}}\r\n\r\n",
    "event: ping\r\ndata: {\"type\": \"ping\"}\r\n\r\n",
    "event: content_block_delta\r\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello there\"}}\r\n\r\n",
    "event: message_delta\r\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":null},\"usage\":{\"output_tokens\":15}}\r\n\r\n",
    "event: message_delta\r\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":25}}\r\n\r\n",
    "event: message_stop\r\ndata: {\"type\":\"message_stop\"}\r\n\r\n",
);

const GEMINI: &str = concat!(
    "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"Hello\"}],\"role\": \"model\"},\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 40,\"cachedContentTokenCount\": 30,\"totalTokenCount\": 40},\"modelVersion\": \"g\"}\r\n\r\n",
    "data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \" there, you\"}]},\"finishReason\": \"STOP\"}],\"usageMetadata\": {\"promptTokenCount\": 40,\"candidatesTokenCount\": 3,\"thoughtsTokenCount\": 20,\"totalTokenCount\": 63}}\r\n\r\n",
);

const COHERE: &str = concat!(
    "event: message-start\ndata: {\"id\":\"x\",\"type\":\"message-start\",\"delta\":{\"message\":{\"role\":\"assistant\",\"content\":[],\"tool_plan\":\"\",\"tool_calls\":[]}}}\n\n",
    "event: content-delta\ndata: {\"type\":\"content-delta\",\"index\":0,\"delta\":{\"message\":{\"content\":{\"text\":\"Hello there\"}}}}\n\n",
    "event: tool-call-delta\ndata: {\"type\":\"tool-call-delta\",\"index\":0,\"delta\":{\"message\":{\"tool_calls\":{\"function\":{\"arguments\":\"{}\"}}}}}\n\n",
    "event: message-end\ndata: {\"type\":\"message-end\",\"delta\":{\"finish_reason\":\"COMPLETE\",\"usage\":{\"billed_units\":{\"input_tokens\":3,\"output_tokens\":9},\"tokens\":{\"input_tokens\":69,\"output_tokens\":9}}}}\n\n",
    "data: [DONE]\n\n",
);

/// Usage without having been asked, beside the last choice.
const MISTRAL: &str = concat!(
    "data: {\"id\":\"m\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":4,\"total_tokens\":10,\"completion_tokens\":6}}\n\n",
    "data: [DONE]\n\n",
);

const GROQ: &str = concat!(
    "data: {\"id\":\"g\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"x_groq\":{\"id\":\"req_1\"}}\n\n",
    "data: {\"id\":\"g\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"x_groq\":{\"id\":\"req_1\",\"usage\":{\"queue_time\":0.01,\"prompt_tokens\":18,\"completion_tokens\":5,\"total_time\":0.1}}}\n\n",
    "data: [DONE]\n\n",
);

const DEEPSEEK: &str = concat!(
    ": keep-alive\n\n: keep-alive\n\n",
    "data: {\"id\":\"d\",\"choices\":[{\"index\":0,\"delta\":{\"content\":null,\"reasoning_content\":\"Hello there\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"d\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":9,\"prompt_cache_hit_tokens\":64,\"prompt_cache_miss_tokens\":36}}\n\n",
    "data: [DONE]\n\n",
);

/// Usage in a last chunk without choices, whether it was asked for or not.
const OPENROUTER: &str = concat!(
    ": OPENROUTER PROCESSING\n\n",
    "data: {\"id\":\"gen-1\",\"provider\":\"P\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"reasoning\":\"Hm, \"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"gen-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":14,\"completion_tokens\":8,\"cost\":0.1,\"prompt_tokens_details\":{\"cached_tokens\":0}}}\n\n",
    "data: [DONE]\n\n",
);

fn headers(content_type: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers
}

fn usage(input: u64, cached: u64, output: u64) -> Usage {
    Usage {
        input: Some(Tokens::new(input)),
        cached_input: Tokens::new(cached),
        output: Some(Tokens::new(output)),
    }
}

/// Relays an answer in pieces and returns what came out with the tap.
fn relay<'a>(tap: ResponseTap, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, ResponseTap) {
    let mut tap = tap;
    let mut relayed = Vec::new();
    for piece in pieces {
        relayed.extend_from_slice(&tap.push(Bytes::copy_from_slice(piece)));
    }
    relayed.extend_from_slice(&tap.finish());
    (relayed, tap)
}

fn stream_tap(strip: bool) -> ResponseTap {
    ResponseTap::new(
        Endpoint::ChatCompletions,
        &headers("text/event-stream; charset=utf-8"),
        strip,
    )
}

fn stream(text: &str, strip: bool, piece: usize) -> (String, ResponseTap) {
    let (relayed, tap) = relay(stream_tap(strip), text.as_bytes().chunks(piece));
    (String::from_utf8(relayed).unwrap(), tap)
}

#[test]
fn streams_are_relayed_as_they_are_and_tell_their_usage() {
    for (text, expect, output_seen) in [
        (chat(true), usage(8, 4, 7), 9),
        (RESPONSES.to_owned(), usage(7, 2, 5), 5),
        (ANTHROPIC.to_owned(), usage(30, 300, 25), 25),
        (COHERE.to_owned(), usage(69, 0, 9), 9),
        (MISTRAL.to_owned(), usage(4, 0, 6), 6),
        (GROQ.to_owned(), usage(18, 0, 5), 5),
        (DEEPSEEK.to_owned(), usage(36, 64, 9), 9),
        (OPENROUTER.to_owned(), usage(14, 0, 8), 8),
        // Gemini says nowhere that a stream is complete.
        (format!("{GEMINI}data: [DONE]\n\n"), usage(10, 30, 23), 23),
    ] {
        for piece in [1, 2, 3, 7, 64, 1_000, text.len()] {
            let (relayed, tap) = stream(&text, false, piece);
            assert_eq!(relayed, text);
            assert_eq!(tap.usage(), expect, "pieces of {piece}");
            assert_eq!(tap.output_seen(), Tokens::new(output_seen), "pieces of {piece}");
            assert!(tap.is_complete() && tap.is_stream() && tap.fault().is_none());
        }
    }
}

#[test]
fn usage_that_nobody_asked_for_is_taken_out() {
    for ends in ["\n", "\r\n", "\r"] {
        let sent = chat(true).replace('\n', ends);
        let expect = chat(false).replace('\n', ends);
        for piece in 1..=sent.len() {
            let (relayed, tap) = stream(&sent, true, piece);
            assert_eq!(relayed, expect, "{ends:?}, pieces of {piece}");
            assert_eq!(tap.usage(), usage(8, 4, 7));
            assert!(tap.may_change_length());
        }
    }
    // A stream without a trace of usage is left alone, and so are other providers' streams.
    for text in [
        &chat(false),
        RESPONSES,
        ANTHROPIC,
        GEMINI,
        COHERE,
        MISTRAL,
        GROQ,
        DEEPSEEK,
        OPENROUTER,
    ] {
        for piece in [1, 50, text.len()] {
            assert_eq!(stream(text, true, piece).0, text);
        }
    }
}

/// Azure sends a chunk without choices of its own, which has `usage: null` with the option and none without.
#[test]
fn azures_first_chunk_stays() {
    let azure = |null: &str, chunk: &str| {
        format!(
            "data: {{\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\",\"object\":\"\",\"prompt_filter_results\":[{{\"prompt_index\":0,\"content_filter_results\":{{\"hate\":{{\"filtered\":false}}}}}}]{null}}}\n\n\
             data: {{\"choices\":[{{\"content_filter_results\":{{}},\"delta\":{{\"content\":\"Hi\"}},\"finish_reason\":null,\"index\":0}}],\"id\":\"c\"{null}}}\n\n\
             {chunk}data: [DONE]\n\n"
        )
    };
    let sent = azure(",\"usage\":null", USAGE_CHUNK);
    let expect = azure("", "");
    for piece in 1..=sent.len() {
        let (relayed, tap) = stream(&sent, true, piece);
        assert_eq!(relayed, expect, "pieces of {piece}");
        assert_eq!(tap.usage(), usage(8, 4, 7));
    }
}

#[test]
fn bedrocks_messages_are_read() {
    let event = |name: &str, payload: &str| {
        message(
            &[(":event-type", name), (":message-type", "event")],
            payload.as_bytes(),
        )
    };
    let converse = [
        event("messageStart", r#"{"p":"abc","role":"assistant"}"#),
        event(
            "contentBlockDelta",
            r#"{"contentBlockIndex":0,"delta":{"text":"Hello there"},"p":"ab"}"#,
        ),
        event(
            "contentBlockDelta",
            r#"{"contentBlockIndex":1,"delta":{"toolUse":{"input":"{\"city\":"}}}"#,
        ),
        event("messageStop", r#"{"stopReason":"end_turn"}"#),
        event(
            "metadata",
            r#"{"metrics":{"latencyMs":1},"usage":{"inputTokens":30,"outputTokens":4,"totalTokens":34,"cacheReadInputTokens":1000,"cacheWriteInputTokens":20}}"#,
        ),
    ];
    let chunk = |json: &str| event("chunk", &format!(r#"{{"bytes":"{}","p":"x"}}"#, encoded(json)));
    let invoke = [
        chunk(r#"{"type":"message_start","message":{"usage":{"input_tokens":10,"output_tokens":1}}}"#),
        chunk(
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello there"}}"#,
        ),
        chunk(r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":12}}"#),
        chunk(
            r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":10,"outputTokenCount":12}}"#,
        ),
    ];
    for (messages, expect, seen_before_the_end) in [
        (converse.as_slice(), usage(50, 1_000, 4), 5),
        (&invoke, usage(10, 0, 12), 12),
    ] {
        let whole = messages.concat();
        let tap = || {
            ResponseTap::new(
                Endpoint::ChatCompletions,
                &headers("application/vnd.amazon.eventstream"),
                true,
            )
        };
        for piece in [1, 7, 100, whole.len()] {
            let (relayed, tap) = relay(tap(), whole.chunks(piece));
            assert_eq!(relayed, whole);
            assert_eq!(tap.usage(), expect);
            assert!(tap.is_complete() && tap.is_stream() && !tap.may_change_length());
        }
        let (_, tap) = relay(tap(), messages[..messages.len() - 1].iter().map(Vec::as_slice));
        assert_eq!(tap.output_seen(), Tokens::new(seen_before_the_end));
    }
    let exception = message(
        &[
            (":exception-type", "throttlingException"),
            (":message-type", "exception"),
        ],
        br#"{"message":"Too many tokens, please wait before trying again."}"#,
    );
    let tap = ResponseTap::new(
        Endpoint::ChatCompletions,
        &headers("application/vnd.amazon.eventstream"),
        false,
    );
    let (_, tap) = relay(tap, [&exception[..]]);
    let fault = tap.fault().unwrap();
    assert_eq!((&*fault.kind, fault.status), ("throttlingException", 429));
}

/// Base64, as slow as may be.
fn encoded(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: String = text.bytes().map(|byte| format!("{byte:08b}")).collect();
    let mut digits: String = bits
        .as_bytes()
        .chunks(6)
        .map(|six| {
            let six = format!("{:0<6}", str::from_utf8(six).unwrap());
            char::from(DIGITS[usize::from_str_radix(&six, 2).unwrap()])
        })
        .collect();
    digits.extend(std::iter::repeat_n('=', (4 - digits.len() % 4) % 4));
    digits
}

#[test]
fn errors_that_come_as_successes_are_seen() {
    for (content_type, body, kind, status) in [
        (
            "application/json",
            r#"{"error":{"message":"Rate limit exceeded: free-models-per-min.","code":429,"metadata":{"headers":{"X-RateLimit-Limit":"20"}}},"user_id":"u"}"#,
            "429",
            429,
        ),
        (
            "application/json",
            r#"{"id":"gen","choices":[{"message":{"content":""},"finish_reason":"error","error":{"code":502,"message":"Provider returned error"}}]}"#,
            "502",
            502,
        ),
        (
            "application/json; charset=UTF-8",
            r#"[{"candidates":[{}]},{"error":{"code":503,"status":"UNAVAILABLE","message":"The model is overloaded."}}]"#,
            "UNAVAILABLE",
            503,
        ),
        (
            "text/event-stream",
            "data: {\"id\":\"gen\",\"error\":{\"code\":\"server_error\",\"message\":\"Provider disconnected\"},\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}]}\n\n",
            "server_error",
            500,
        ),
        (
            "text/event-stream",
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"error\",\"error\":{\"code\":429}}]}\n\n",
            "429",
            429,
        ),
        (
            "text/event-stream",
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"error\"}]}\n\n",
            "error",
            500,
        ),
        (
            "text/event-stream",
            "data: {\"error\":{\"code\":429,\"message\":\"m\",\"status\":\"RESOURCE_EXHAUSTED\"}}\r\n\r\n",
            "RESOURCE_EXHAUSTED",
            429,
        ),
    ] {
        let tap = ResponseTap::new(Endpoint::ChatCompletions, &headers(content_type), false);
        let (relayed, tap) = relay(tap, body.as_bytes().chunks(9));
        assert_eq!(relayed, body.as_bytes());
        let fault = tap.fault().map(|fault| (&*fault.kind, fault.status));
        assert_eq!(fault, Some((kind, status)), "{body}");
    }
}

#[test]
fn bedrock_tells_usage_in_headers_where_a_body_does_not() {
    let mut told = headers("application/json");
    for (name, value) in [
        ("x-amzn-bedrock-input-token-count", "25"),
        ("x-amzn-bedrock-output-token-count", "7"),
    ] {
        told.insert(name, HeaderValue::from_static(value));
    }
    for (endpoint, body, expect) in [
        (
            Endpoint::InvokeModel,
            r#"{"generation":"a","stop_reason":"stop"}"#,
            usage(25, 0, 7),
        ),
        (
            Endpoint::InvokeModel,
            r#"{"usage":{"input_tokens":3,"output_tokens":1}}"#,
            usage(3, 0, 1),
        ),
        (
            Endpoint::Converse,
            r#"{"usage":{"inputTokens":3,"outputTokens":1}}"#,
            usage(3, 0, 1),
        ),
    ] {
        let (_, tap) = relay(ResponseTap::new(endpoint, &told, false), [body.as_bytes()]);
        assert_eq!(tap.usage(), expect, "{body}");
    }
}

#[test]
fn lists_and_lines_of_json_tell_their_usage() {
    for (content_type, body, expect) in [
        (
            "application/json; charset=UTF-8",
            "[{\"candidates\": [],\"usageMetadata\": {\"promptTokenCount\": 4,\"candidatesTokenCount\": 1}}\n,\r\n{\"candidates\": [],\"usageMetadata\": {\"promptTokenCount\": 4,\"candidatesTokenCount\": 9}}\n]",
            usage(4, 0, 9),
        ),
        (
            "application/stream+json",
            "{\"event_type\":\"stream-start\"}\n{\"event_type\":\"text-generation\",\"text\":\"a\"}\n{\"event_type\":\"stream-end\",\"response\":{\"text\":\"a\",\"meta\":{\"billed_units\":{\"input_tokens\":4,\"output_tokens\":9}}}}\n",
            usage(4, 0, 9),
        ),
    ] {
        let tap = ResponseTap::new(Endpoint::ChatCompletions, &headers(content_type), false);
        let (relayed, tap) = relay(tap, body.as_bytes().chunks(10));
        assert_eq!(relayed, body.as_bytes());
        assert_eq!(tap.usage(), expect, "{body}");
        assert!(tap.fault().is_none());
    }
}

#[test]
fn only_what_the_option_adds_is_taken_out() {
    for (sent, expect) in [
        (r#"{"usage":null,"choices":[1]}"#, r#"{"choices":[1]}"#),
        (r#"{"usage": null, "choices":[]}"#, r#"{"choices":[]}"#),
        (
            r#"{"choices":[], "usage" : null , "x":1}"#,
            r#"{"choices":[] , "x":1}"#,
        ),
        (
            r#"{"choices":[],"prompt_filter_results":[{}]}"#,
            r#"{"choices":[],"prompt_filter_results":[{}]}"#,
        ),
        // Usage beside choices is sent unasked by some providers.
        (
            r#"{"choices":[{}],"usage":{"prompt_tokens":1}}"#,
            r#"{"choices":[{}],"usage":{"prompt_tokens":1}}"#,
        ),
        (r#"{"usage":null}"#, r#"{"usage":null}"#),
        (
            r#"{"\u0075sage":null,"choices":[]}"#,
            r#"{"\u0075sage":null,"choices":[]}"#,
        ),
        (
            r#"{"choices":[{"usage":null}]}"#,
            r#"{"choices":[{"usage":null}]}"#,
        ),
        (r#"{"choices":[],"usage":7}"#, r#"{"choices":[],"usage":7}"#),
        ("not json, \"usage\":null", "not json, \"usage\":null"),
    ] {
        let (relayed, _) = stream(&format!("data: {sent}\n\n"), true, 1_000);
        assert_eq!(relayed, format!("data: {expect}\n\n"));
    }
    let multiline = "data: {\"choices\":[],\ndata: \"usage\":{\"prompt_tokens\":1}}\n\ndata: x\n\n";
    assert_eq!(stream(multiline, true, 1_000).0, "data: x\n\n");
    let unterminated = format!("data: x\n\n{}", USAGE_CHUNK.trim_end());
    assert_eq!(stream(&unterminated, true, 10).0, "data: x\n\n");
    assert_eq!(
        stream("data: {\"choi", true, 3).0,
        "data: {\"choi",
        "a broken stream stays as it broke"
    );
}

#[test]
fn nothing_is_copied_or_held_back_without_need() {
    let text = Bytes::from(chat(false));
    for strip in [false, true] {
        let relayed = stream_tap(strip).push(text.clone());
        assert_eq!(relayed.as_ptr(), text.as_ptr());
        assert_eq!(relayed.len(), text.len());
    }
    let part = text.slice(..text.len() - 3);
    assert_eq!(stream_tap(false).push(part.clone()), part, "bytes go out at once");
    assert!(
        stream_tap(true).push(part.clone()).len() < part.len(),
        "an open event may have to go"
    );
}

#[test]
fn faults_in_the_middle_of_a_stream_are_seen() {
    for (data, kind) in [
        (
            r#"{"error":{"message":"m","type":"server_error","code":"rate_limit_exceeded"}}"#,
            "rate_limit_exceeded",
        ),
        (
            r#"{"error":{"message":"m","type":"server_error","code":null}}"#,
            "server_error",
        ),
        (
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            "overloaded_error",
        ),
        (
            r#"{"type":"error","code":"server_is_overloaded","message":"m"}"#,
            "server_is_overloaded",
        ),
        (
            r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded"}}}"#,
            "rate_limit_exceeded",
        ),
        (r#"{"error":"text"}"#, "error"),
        (r#"{"type":"error"}"#, "error"),
    ] {
        let (_, tap) = stream(&format!("event: error\ndata: {data}\n\n"), false, 20);
        assert_eq!(tap.fault().map(|fault| &*fault.kind), Some(kind), "{data}");
    }
    let long = format!("data: {{\"error\":{{\"code\":\"{}\"}}}}\n\n", "x".repeat(1_000));
    let (_, tap) = stream(&long, false, 100);
    assert_eq!(tap.fault().map(|fault| fault.kind.len()), Some(64));
    let (_, tap) = stream("data: {\"error\":null,\"choices\":[]}\n\n", false, 100);
    assert_eq!(tap.fault(), None);
}

#[test]
fn an_endless_event_passes_through_unread() {
    let long = format!("data: {{\"x\":\"{}\"}}\n\n", "x".repeat(2 * EVENT_BYTES_MAX));
    let text = format!("{long}{}", chat(true));
    for strip in [false, true] {
        let (relayed, tap) = stream(&text, strip, 10_000);
        assert_eq!(relayed, format!("{long}{}", chat(!strip)));
        assert_eq!(tap.usage(), usage(8, 4, 7));
        let Body::Events(events) = &tap.body else {
            panic!("a stream")
        };
        assert!(events.held.capacity() <= EVENT_BYTES_MAX);
    }
}

#[test]
fn answers_tell_their_usage_however_long() {
    for filler in [0, 1_000, ANSWER_BYTES_MAX + 1, 3 * ANSWER_BYTES_MAX] {
        let text = format!(
            r#"{{"data":[{}1],"usage":{{"prompt_tokens":8,"completion_tokens":3}}}}"#,
            "0,".repeat(filler / 2)
        );
        for piece in [1_001, 65_536, text.len()] {
            let tap = ResponseTap::new(Endpoint::Embeddings, &headers("application/json"), true);
            let (relayed, tap) = relay(tap, text.as_bytes().chunks(piece));
            assert!(relayed == text.as_bytes(), "relayed as it is");
            assert_eq!(tap.usage(), usage(8, 0, 3), "{filler} in pieces of {piece}");
            assert!(!tap.may_change_length() && !tap.is_stream());
            let Body::Json(json) = &tap.body else {
                panic!("an answer")
            };
            assert!(json.kept.len() <= ANSWER_BYTES_MAX);
        }
    }
}

#[test]
fn what_cannot_be_read_passes_through() {
    let mut compressed = headers("text/event-stream");
    compressed.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let mut identity = headers("text/event-stream");
    identity.insert(CONTENT_ENCODING, HeaderValue::from_static("identity"));
    for (endpoint, headers, reads) in [
        (Endpoint::ChatCompletions, compressed, false),
        (Endpoint::ChatCompletions, identity, true),
        (Endpoint::ChatCompletions, headers("text/html"), false),
        (Endpoint::Other, headers("text/event-stream"), false),
    ] {
        let text = chat(true);
        let (relayed, tap) = relay(ResponseTap::new(endpoint, &headers, false), [text.as_bytes()]);
        assert_eq!(relayed, text.as_bytes());
        assert_eq!(tap.usage() != Usage::default(), reads, "{headers:?}");
    }
}

/// Cuts bytes at the given places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn every_cut_of_a_stream_gives_the_same(
        parts in proptest::collection::vec(0_usize..9, 0..12),
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
        strip in any::<bool>(),
    ) {
        let vocabulary = [
            "\n", "\r", "\r\n", ": x", "data: ", "{\"choices\":[],\"usage\":null}",
            "{\"choices\":[],\"usage\":{\"prompt_tokens\":1}}", USAGE_CHUNK, "data: [DONE]\n\n",
        ];
        let text: String = parts.iter().map(|part| vocabulary[*part]).collect();
        let (whole, whole_tap) = relay(stream_tap(strip), [text.as_bytes()]);
        let (cut, cut_tap) = relay(stream_tap(strip), pieces(text.as_bytes(), &cuts));
        prop_assert_eq!(&cut, &whole);
        prop_assert_eq!(cut_tap.usage(), whole_tap.usage());
        prop_assert_eq!(cut_tap.is_complete(), whole_tap.is_complete());
        if !strip {
            prop_assert_eq!(&cut, text.as_bytes());
        }
    }

    #[test]
    fn no_bytes_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        json in r#"(data: )?[\[\]{}:,"\\a-fnrtu0-9\n\r ]{0,200}"#,
        cuts in proptest::collection::vec(any::<usize>(), 0..5),
    ) {
        for bytes in [&bytes[..], json.as_bytes()] {
            let (relayed, _) = relay(stream_tap(false), pieces(bytes, &cuts));
            prop_assert_eq!(relayed, bytes);
            let _ = relay(stream_tap(true), pieces(bytes, &cuts));
            let tap = ResponseTap::new(Endpoint::Messages, &headers("application/json"), false);
            let _ = relay(tap, pieces(bytes, &cuts));
        }
    }
}
