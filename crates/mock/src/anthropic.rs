//! Anthropic's answers: plain and as event streams.

use std::fmt::Write;

use crate::answer::Answer;
use crate::body::Reply;
use crate::text::quoted;

/// Returns the whole answer to a message.
pub(crate) fn plain(reply: &Reply) -> String {
    let text = reply.answers.first().map(Answer::text).unwrap_or_default();
    let stop = stop_reason(reply);
    let usage = usage(reply, reply.output_tokens());
    format!(
        r#"{{"id":"msg_{}","type":"message","role":"assistant","model":{},"content":[{{"type":"text","text":"{text}"}}],"stop_reason":"{stop}","stop_sequence":null,"usage":{usage}}}"#,
        reply.id, reply.model
    )
}

/// Returns the answer to a count of tokens.
pub(crate) fn counted(tokens: u64) -> String {
    format!(r#"{{"input_tokens":{tokens}}}"#)
}

/// Returns the list of models.
pub(crate) fn models(names: &[String]) -> String {
    let data: Vec<String> = names.iter().map(|name| model(name)).collect();
    let or_null = |name: Option<&String>| name.map_or_else(|| "null".to_owned(), |name| quoted(name));
    let (first, last) = (or_null(names.first()), or_null(names.last()));
    format!(
        r#"{{"data":[{}],"has_more":false,"first_id":{first},"last_id":{last}}}"#,
        data.join(",")
    )
}

/// Returns one model.
pub(crate) fn model(name: &str) -> String {
    let name = quoted(name);
    format!(r#"{{"type":"model","id":{name},"display_name":{name},"created_at":"2026-01-01T00:00:00Z"}}"#)
}

/// Writes what a stream begins with.
pub(crate) fn opening(reply: &Reply, out: &mut String) {
    let usage = usage(reply, 1);
    let message = format!(
        r#""message":{{"id":"msg_{}","type":"message","role":"assistant","model":{},"content":[],"stop_reason":null,"stop_sequence":null,"usage":{usage}}}"#,
        reply.id, reply.model
    );
    event(out, "message_start", &message);
    event(
        out,
        "content_block_start",
        r#""index":0,"content_block":{"type":"text","text":""}"#,
    );
    out.push_str("event: ping\ndata: {\"type\":\"ping\"}\n\n");
}

/// Writes the tokens `from..to`.
pub(crate) fn delta(reply: &Reply, from: u64, to: u64, out: &mut String) {
    let mut text = String::new();
    for answer in &reply.answers {
        answer.write(&mut text, from, to);
    }
    let fields = format!(r#""index":0,"delta":{{"type":"text_delta","text":"{text}"}}"#);
    event(out, "content_block_delta", &fields);
}

/// Writes what a stream ends with.
pub(crate) fn closing(reply: &Reply, out: &mut String) {
    event(out, "content_block_stop", r#""index":0"#);
    let fields = format!(
        r#""delta":{{"stop_reason":"{}","stop_sequence":null}},"usage":{{"output_tokens":{}}}"#,
        stop_reason(reply),
        reply.output_tokens()
    );
    event(out, "message_delta", &fields);
    out.push_str("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}

fn event(out: &mut String, name: &str, fields: &str) {
    let _ = write!(out, "event: {name}\ndata: {{\"type\":\"{name}\",{fields}}}\n\n");
}

fn stop_reason(reply: &Reply) -> &'static str {
    if reply.cut { "max_tokens" } else { "end_turn" }
}

/// `input_tokens` are those that did not come from the cache (providers.md §4.8).
fn usage(reply: &Reply, output: u64) -> String {
    let cached = reply.cached_tokens;
    let input = reply.input_tokens - cached;
    format!(
        r#"{{"input_tokens":{input},"cache_creation_input_tokens":0,"cache_read_input_tokens":{cached},"cache_creation":{{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0}},"output_tokens":{output},"service_tier":"standard"}}"#
    )
}
