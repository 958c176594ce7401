//! OpenAI's answers: plain and as event streams.

use std::fmt::Write;

use crate::answer::{Answer, Digest};
use crate::body::Reply;
use crate::call::Endpoint;
use crate::text::{base64, quoted};

/// Returns the whole answer of a generating endpoint.
pub(crate) fn plain(reply: &Reply) -> String {
    let Reply {
        id, created, model, ..
    } = reply;
    match reply.endpoint {
        Endpoint::Responses => response_object(reply, Stage::End),
        Endpoint::Completions => {
            let finish = finish_reason(reply);
            let choices = join(reply.answers.iter().enumerate(), |text, (index, answer)| {
                let _ = write!(
                    text,
                    r#"{{"text":"{}","index":{index},"logprobs":null,"finish_reason":"{finish}"}}"#,
                    answer.text()
                );
            });
            let usage = completion_usage(reply);
            format!(
                r#"{{"id":"cmpl-{id}","object":"text_completion","created":{created},"model":{model},"choices":[{choices}],"usage":{usage}}}"#
            )
        }
        _ => {
            let finish = finish_reason(reply);
            let choices = join(reply.answers.iter().enumerate(), |text, (index, answer)| {
                let _ = write!(
                    text,
                    r#"{{"index":{index},"message":{{"role":"assistant","content":"{}","refusal":null,"annotations":[]}},"logprobs":null,"finish_reason":"{finish}"}}"#,
                    answer.text()
                );
            });
            let usage = completion_usage(reply);
            format!(
                r#"{{"id":"chatcmpl-{id}","object":"chat.completion","created":{created},"model":{model},"choices":[{choices}],"usage":{usage},"service_tier":"default","system_fingerprint":"fp_mock"}}"#
            )
        }
    }
}

/// Returns the answer to a request for embeddings.
pub(crate) fn embeddings(
    digests: &[Digest],
    model: &str,
    dimensions: usize,
    as_base64: bool,
    tokens: u64,
) -> String {
    let data = join(digests.iter().enumerate(), |text, (index, digest)| {
        let _ = write!(text, r#"{{"object":"embedding","index":{index},"embedding":"#);
        let values = embedding(*digest, dimensions);
        if as_base64 {
            let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
            text.push('"');
            base64(text, &bytes);
            text.push('"');
        } else {
            text.push('[');
            text.push_str(&join(values, |text, value| {
                let _ = write!(text, "{value}");
            }));
            text.push(']');
        }
        text.push('}');
    });
    let model = quoted(model);
    format!(
        r#"{{"object":"list","data":[{data}],"model":{model},"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}"#
    )
}

/// A vector of length one that depends on the text alone.
fn embedding(digest: Digest, dimensions: usize) -> impl Iterator<Item = f32> {
    let scale = (3.0 / dimensions as f32).sqrt();
    let mut word = digest.value() | 1;
    std::iter::repeat_with(move || {
        word = word
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        ((word >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
    })
    .take(dimensions)
}

/// Returns the list of models.
pub(crate) fn models(names: &[String], created: u64) -> String {
    let data = join(names.iter(), |text, name| text.push_str(&model(name, created)));
    format!(r#"{{"object":"list","data":[{data}]}}"#)
}

/// Returns one model.
pub(crate) fn model(name: &str, created: u64) -> String {
    format!(
        r#"{{"id":{},"object":"model","created":{created},"owned_by":"tidegate-mock"}}"#,
        quoted(name)
    )
}

/// Writes what a stream begins with.
pub(crate) fn opening(reply: &Reply, out: &mut String) {
    match reply.endpoint {
        Endpoint::Completions => {}
        Endpoint::Responses => {
            let response = response_object(reply, Stage::Start);
            response_event(out, 0, "response.created", &format!(r#""response":{response}"#));
            response_event(
                out,
                1,
                "response.in_progress",
                &format!(r#""response":{response}"#),
            );
            let item = message_item(reply, Stage::Start);
            response_event(
                out,
                2,
                "response.output_item.added",
                &format!(r#""output_index":0,"item":{item}"#),
            );
            let part = part(reply, Stage::Start);
            let place = place(reply);
            response_event(
                out,
                3,
                "response.content_part.added",
                &format!(r#"{place},"part":{part}"#),
            );
        }
        _ => {
            for index in 0..reply.answers.len() {
                chat_chunk(
                    reply,
                    index,
                    r#"{"role":"assistant","content":"","refusal":null}"#,
                    None,
                    out,
                );
            }
        }
    }
}

/// Writes the tokens `from..to` of every choice; `event` counts such calls from 0.
pub(crate) fn delta(reply: &Reply, event: u64, from: u64, to: u64, out: &mut String) {
    for (index, answer) in reply.answers.iter().enumerate() {
        let mut text = String::new();
        answer.write(&mut text, from, to);
        match reply.endpoint {
            Endpoint::Completions => completion_chunk(reply, index, &text, None, out),
            Endpoint::Responses => {
                let fields = format!(r#"{},"delta":"{text}","logprobs":[]"#, place(reply));
                response_event(out, 4 + event, "response.output_text.delta", &fields);
            }
            _ => chat_chunk(reply, index, &format!(r#"{{"content":"{text}"}}"#), None, out),
        }
    }
}

/// Writes what a stream ends with; `events` is the number of deltas before.
pub(crate) fn closing(reply: &Reply, events: u64, out: &mut String) {
    let finish = finish_reason(reply);
    match reply.endpoint {
        Endpoint::Responses => return response_closing(reply, events, out),
        Endpoint::Completions => {
            for index in 0..reply.answers.len() {
                completion_chunk(reply, index, "", Some(finish), out);
            }
        }
        _ => {
            for index in 0..reply.answers.len() {
                chat_chunk(reply, index, "{}", Some(finish), out);
            }
        }
    }
    if reply.include_usage {
        let Reply {
            id, created, model, ..
        } = reply;
        let (prefix, object) = match reply.endpoint {
            Endpoint::Completions => ("cmpl", "text_completion"),
            _ => ("chatcmpl", "chat.completion.chunk"),
        };
        let usage = completion_usage(reply);
        let _ = write!(
            out,
            "data: {{\"id\":\"{prefix}-{id}\",\"object\":\"{object}\",\"created\":{created},\"model\":{model},\"choices\":[],\"usage\":{usage}}}\n\n"
        );
    }
    out.push_str("data: [DONE]\n\n");
}

fn response_closing(reply: &Reply, events: u64, out: &mut String) {
    let text = reply.answers.first().map(Answer::text).unwrap_or_default();
    let place = place(reply);
    let next = 4 + events;
    response_event(
        out,
        next,
        "response.output_text.done",
        &format!(r#"{place},"text":"{text}","logprobs":[]"#),
    );
    let part = part(reply, Stage::End);
    response_event(
        out,
        next + 1,
        "response.content_part.done",
        &format!(r#"{place},"part":{part}"#),
    );
    let item = message_item(reply, Stage::End);
    response_event(
        out,
        next + 2,
        "response.output_item.done",
        &format!(r#""output_index":0,"item":{item}"#),
    );
    let response = response_object(reply, Stage::End);
    let last = if reply.cut {
        "response.incomplete"
    } else {
        "response.completed"
    };
    response_event(out, next + 3, last, &format!(r#""response":{response}"#));
}

fn finish_reason(reply: &Reply) -> &'static str {
    if reply.cut { "length" } else { "stop" }
}

fn completion_usage(reply: &Reply) -> String {
    let (input, output, cached) = (reply.input_tokens, reply.output_tokens(), reply.cached_tokens);
    let total = input + output;
    format!(
        r#"{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{total},"prompt_tokens_details":{{"cached_tokens":{cached},"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}"#
    )
}

fn chat_chunk(reply: &Reply, index: usize, delta: &str, finish: Option<&str>, out: &mut String) {
    let Reply {
        id, created, model, ..
    } = reply;
    let finish = finish.map_or_else(|| "null".to_owned(), quoted);
    let usage = if reply.include_usage {
        r#","usage":null"#
    } else {
        ""
    };
    let _ = write!(
        out,
        "data: {{\"id\":\"chatcmpl-{id}\",\"object\":\"chat.completion.chunk\",\"created\":{created},\"model\":{model},\"service_tier\":\"default\",\"system_fingerprint\":\"fp_mock\",\"choices\":[{{\"index\":{index},\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}]{usage}}}\n\n"
    );
}

fn completion_chunk(reply: &Reply, index: usize, text: &str, finish: Option<&str>, out: &mut String) {
    let Reply {
        id, created, model, ..
    } = reply;
    let finish = finish.map_or_else(|| "null".to_owned(), quoted);
    let usage = if reply.include_usage {
        r#","usage":null"#
    } else {
        ""
    };
    let _ = write!(
        out,
        "data: {{\"id\":\"cmpl-{id}\",\"object\":\"text_completion\",\"created\":{created},\"model\":{model},\"choices\":[{{\"text\":\"{text}\",\"index\":{index},\"logprobs\":null,\"finish_reason\":{finish}}}]{usage}}}\n\n"
    );
}

/// Whether a part of a response is still empty or finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Start,
    End,
}

fn response_event(out: &mut String, sequence: u64, name: &str, fields: &str) {
    let _ = write!(
        out,
        "event: {name}\ndata: {{\"type\":\"{name}\",\"sequence_number\":{sequence},{fields}}}\n\n"
    );
}

fn place(reply: &Reply) -> String {
    format!(
        r#""item_id":"msg_{}","output_index":0,"content_index":0"#,
        reply.id
    )
}

fn part(reply: &Reply, stage: Stage) -> String {
    let text = match stage {
        Stage::Start => String::new(),
        Stage::End => reply.answers.first().map(Answer::text).unwrap_or_default(),
    };
    format!(r#"{{"type":"output_text","annotations":[],"logprobs":[],"text":"{text}"}}"#)
}

fn message_item(reply: &Reply, stage: Stage) -> String {
    let (status, content) = match stage {
        Stage::Start => ("in_progress", String::new()),
        Stage::End if reply.cut => ("incomplete", part(reply, stage)),
        Stage::End => ("completed", part(reply, stage)),
    };
    format!(
        r#"{{"id":"msg_{}","type":"message","status":"{status}","content":[{content}],"role":"assistant"}}"#,
        reply.id
    )
}

fn response_object(reply: &Reply, stage: Stage) -> String {
    let Reply {
        id, created, model, ..
    } = reply;
    let (status, details, output, usage) = match stage {
        Stage::Start => ("in_progress", "null", String::new(), "null".to_owned()),
        Stage::End => {
            let (input, output, cached) = (reply.input_tokens, reply.output_tokens(), reply.cached_tokens);
            let total = input + output;
            let usage = format!(
                r#"{{"input_tokens":{input},"input_tokens_details":{{"cached_tokens":{cached},"cache_write_tokens":0}},"output_tokens":{output},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{total}}}"#
            );
            let (status, details) = if reply.cut {
                ("incomplete", r#"{"reason":"max_output_tokens"}"#)
            } else {
                ("completed", "null")
            };
            (status, details, message_item(reply, stage), usage)
        }
    };
    let maximum = reply
        .max_output
        .map_or_else(|| "null".to_owned(), |max| max.to_string());
    format!(
        r#"{{"id":"resp_{id}","object":"response","created_at":{created},"status":"{status}","background":false,"error":null,"incomplete_details":{details},"instructions":null,"max_output_tokens":{maximum},"max_tool_calls":null,"model":{model},"output":[{output}],"parallel_tool_calls":true,"previous_response_id":null,"reasoning":{{"effort":null,"summary":null}},"service_tier":"default","store":true,"temperature":1.0,"text":{{"format":{{"type":"text"}},"verbosity":"medium"}},"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":1.0,"truncation":"disabled","usage":{usage},"user":null,"metadata":{{}}}}"#
    )
}

/// Joins what `write` makes of every item with commas.
fn join<T>(items: impl Iterator<Item = T>, mut write: impl FnMut(&mut String, T)) -> String {
    let mut text = String::new();
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push(',');
        }
        write(&mut text, item);
    }
    text
}
