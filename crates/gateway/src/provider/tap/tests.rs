//! Streams and answers of every provider, in pieces of every size.

use http::HeaderValue;
use proptest::prelude::*;

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
        (chat(true), usage(12, 4, 7), 9),
        (RESPONSES.to_owned(), usage(9, 2, 5), 5),
        (ANTHROPIC.to_owned(), usage(30, 300, 25), 25),
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
            assert_eq!(tap.usage(), usage(12, 4, 7));
            assert!(tap.may_change_length());
        }
    }
    // A stream without a trace of usage is left alone, and so are other providers' streams.
    for text in [&chat(false), RESPONSES, ANTHROPIC] {
        assert_eq!(stream(text, true, 50).0, text);
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
        assert_eq!(tap.usage(), usage(12, 4, 7));
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
