//! OpenAI's answers: plain and as event streams.

use std::fmt::Write;

use crate::answer::{Answer, Digest};
use crate::body::Reply;
use crate::provider::Provider;
use crate::route::Endpoint;
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
            let Ways {
                prefix,
                message,
                choice,
                ..
            } = ways(reply.provider);
            let tail = plain_tail(reply);
            let choices = join(reply.answers.iter().enumerate(), |text, (index, answer)| {
                let _ = write!(
                    text,
                    r#"{{"index":{index},"message":{{"role":"assistant","content":"{}"{message}}},{choice}"finish_reason":"{finish}"}}"#,
                    answer.text()
                );
            });
            let usage = completion_usage(reply);
            format!(
                r#"{{"id":"{prefix}{id}","object":"chat.completion","created":{created},"model":{model},"choices":[{choices}],"usage":{usage}{tail}}}"#
            )
        }
    }
}

/// How the chat of those who are compatible differs from OpenAI's.
struct Ways {
    /// What the id begins with.
    prefix: &'static str,
    /// What follows the content of a message.
    message: &'static str,
    /// What stands in a choice before its end.
    choice: &'static str,
    /// What stands in a chunk before its choices.
    chunk: &'static str,
    /// The first delta of a choice.
    first: &'static str,
}

const OPENAI: Ways = Ways {
    prefix: "chatcmpl-",
    message: r#","refusal":null,"annotations":[]"#,
    choice: r#""logprobs":null,"#,
    chunk: r#""service_tier":"default","system_fingerprint":"fp_mock","#,
    first: r#"{"role":"assistant","content":"","refusal":null}"#,
};

const COMPATIBLE: Ways = Ways {
    message: "",
    chunk: r#""system_fingerprint":"fp_mock","#,
    first: r#"{"role":"assistant","content":""}"#,
    ..OPENAI
};

const AZURE_FILTERS: &str = r#""hate":{"filtered":false,"severity":"safe"},"self_harm":{"filtered":false,"severity":"safe"},"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}"#;

fn ways(provider: Provider) -> Ways {
    match provider {
        Provider::OpenAi | Provider::Anthropic => OPENAI,
        Provider::Azure => Ways {
            choice: r#""content_filter_results":{"hate":{"filtered":false,"severity":"safe"}},"logprobs":null,"#,
            chunk: r#""system_fingerprint":"fp_mock","#,
            ..OPENAI
        },
        Provider::Mistral => Ways {
            prefix: "",
            message: r#","tool_calls":null,"prefix":false"#,
            choice: "",
            chunk: "",
            ..COMPATIBLE
        },
        Provider::OpenRouter => Ways {
            prefix: "gen-",
            choice: r#""native_finish_reason":null,"logprobs":null,"#,
            chunk: r#""provider":"Mock","#,
            ..COMPATIBLE
        },
        Provider::Gemini | Provider::Vertex | Provider::Cohere => Ways {
            prefix: "",
            choice: "",
            chunk: "",
            ..COMPATIBLE
        },
        Provider::Vllm => Ways {
            chunk: "",
            ..COMPATIBLE
        },
        Provider::Groq | Provider::DeepSeek | Provider::Bedrock => COMPATIBLE,
    }
}

/// What a whole chat ends with.
fn plain_tail(reply: &Reply) -> String {
    let id = &reply.id;
    match reply.provider {
        Provider::OpenAi => r#","service_tier":"default","system_fingerprint":"fp_mock""#.to_owned(),
        Provider::Azure => format!(
            r#","system_fingerprint":"fp_mock","prompt_filter_results":[{{"prompt_index":0,"content_filter_results":{{{AZURE_FILTERS}}}}}]"#
        ),
        Provider::Groq => {
            format!(
                r#","system_fingerprint":"fp_mock","service_tier":"on_demand","x_groq":{{"id":"req_{id}"}}"#
            )
        }
        Provider::DeepSeek => r#","system_fingerprint":"fp_mock""#.to_owned(),
        Provider::OpenRouter => r#","provider":"Mock""#.to_owned(),
        _ => String::new(),
    }
}

/// What the last chunk of a choice ends with: some tell the use there, asked or not.
fn last_tail(reply: &Reply) -> String {
    let usage = completion_usage(reply);
    match reply.provider {
        Provider::Mistral | Provider::OpenRouter => format!(r#","usage":{usage}"#),
        Provider::Groq => format!(r#","x_groq":{{"id":"req_{}","usage":{usage}}}"#, reply.id),
        _ => String::new(),
    }
}

/// Returns the answer to a request for pictures: as many as were asked for, of one dot.
pub(crate) fn images(created: u64, count: u64, tokens: u64) -> String {
    const DOT: &str =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let data = join(0..count.min(10), |text, _| {
        let _ = write!(text, r#"{{"b64_json":"{DOT}"}}"#);
    });
    format!(
        r#"{{"created":{created},"data":[{data}],"usage":{{"total_tokens":{tokens},"input_tokens":{tokens},"output_tokens":0,"input_tokens_details":{{"text_tokens":{tokens},"image_tokens":0}}}}}}"#
    )
}

/// Returns what was heard.
pub(crate) fn transcription(digest: Digest, seconds: u64) -> String {
    let text = Answer::of(digest, 0, 8).text();
    format!(r#"{{"text":"{text}","usage":{{"type":"duration","seconds":{seconds}}}}}"#)
}

/// Returns that nothing is wrong with any text.
pub(crate) fn moderation(id: &str, model: &str, count: usize) -> String {
    const CATEGORIES: [&str; 13] = [
        "harassment",
        "harassment/threatening",
        "hate",
        "hate/threatening",
        "illicit",
        "illicit/violent",
        "self-harm",
        "self-harm/instructions",
        "self-harm/intent",
        "sexual",
        "sexual/minors",
        "violence",
        "violence/graphic",
    ];
    let each = |value: &str| {
        join(CATEGORIES.iter(), |text, name| {
            let _ = write!(text, r#""{name}":{value}"#);
        })
    };
    let result = format!(
        r#"{{"flagged":false,"categories":{{{}}},"category_scores":{{{}}},"category_applied_input_types":{{{}}}}}"#,
        each("false"),
        each("0.0"),
        each(r#"["text"]"#)
    );
    let results = join(0..count, |text, _| text.push_str(&result));
    format!(
        r#"{{"id":"modr-{id}","model":{},"results":[{results}]}}"#,
        quoted(model)
    )
}

/// Returns the answer to a request for embeddings.
pub(crate) fn embeddings(
    id: Option<&str>,
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
    let id = id.map_or_else(String::new, |id| format!(r#""id":"{id}","#));
    format!(
        r#"{{{id}"object":"list","data":[{data}],"model":{model},"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}"#
    )
}

/// A vector of length one that depends on the text alone.
pub(crate) fn embedding(digest: Digest, dimensions: usize) -> impl Iterator<Item = f32> {
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
            if reply.provider == Provider::Azure {
                let _ = write!(
                    out,
                    "data: {{\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\",\"object\":\"\",\"prompt_filter_results\":[{{\"prompt_index\":0,\"content_filter_results\":{{{AZURE_FILTERS}}}}}]}}\n\n"
                );
            }
            for index in 0..reply.answers.len() {
                chat_chunk(reply, index, ways(reply.provider).first, None, out);
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
                let delta = match reply.provider {
                    Provider::Mistral => r#"{"content":""}"#,
                    _ => "{}",
                };
                chat_chunk(reply, index, delta, Some(finish), out);
            }
        }
    }
    let told = matches!(reply.provider, Provider::Mistral | Provider::OpenRouter);
    if reply.include_usage && !told {
        let Reply {
            id, created, model, ..
        } = reply;
        let (prefix, object) = match reply.endpoint {
            Endpoint::Completions => ("cmpl-", "text_completion"),
            _ => (ways(reply.provider).prefix, "chat.completion.chunk"),
        };
        let usage = completion_usage(reply);
        let _ = write!(
            out,
            "data: {{\"id\":\"{prefix}{id}\",\"object\":\"{object}\",\"created\":{created},\"model\":{model},\"choices\":[],\"usage\":{usage}}}\n\n"
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
    let deepseek = match reply.provider {
        Provider::DeepSeek => format!(
            r#","prompt_cache_hit_tokens":{cached},"prompt_cache_miss_tokens":{}"#,
            input - cached
        ),
        _ => String::new(),
    };
    format!(
        r#"{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{total}{deepseek},"prompt_tokens_details":{{"cached_tokens":{cached},"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}"#
    )
}

fn chat_chunk(reply: &Reply, index: usize, delta: &str, finish: Option<&str>, out: &mut String) {
    let Reply {
        id, created, model, ..
    } = reply;
    let last = finish.is_some();
    let finish = finish.map_or_else(|| "null".to_owned(), quoted);
    let Ways {
        prefix,
        choice,
        chunk,
        ..
    } = ways(reply.provider);
    let usage = match reply.provider {
        Provider::Mistral | Provider::OpenRouter => "",
        _ if reply.include_usage => r#","usage":null"#,
        _ => "",
    };
    let tail = if last { last_tail(reply) } else { String::new() };
    let _ = write!(
        out,
        "data: {{\"id\":\"{prefix}{id}\",\"object\":\"chat.completion.chunk\",\"created\":{created},\"model\":{model},{chunk}\"choices\":[{{\"index\":{index},\"delta\":{delta},{choice}\"finish_reason\":{finish}}}]{usage}{tail}}}\n\n"
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
pub(crate) fn join<T>(items: impl Iterator<Item = T>, mut write: impl FnMut(&mut String, T)) -> String {
    let mut text = String::new();
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push(',');
        }
        write(&mut text, item);
    }
    text
}
