//! Cohere's answers and words (providers.md §9).

use std::fmt::Write;

use crate::answer::{Answer, Digest};
use crate::body::Reply;
use crate::openai::{embedding, join};
use crate::problem::{Context, MINUTE_MAX, Problem, Told, What};
use crate::route::Endpoint;
use crate::text::quoted;

/// Returns the whole answer to a chat.
pub(crate) fn plain(reply: &Reply) -> String {
    let text = reply.answers.first().map(Answer::text).unwrap_or_default();
    let (id, finish, usage) = (&reply.id, finish_reason(reply), usage(reply));
    if reply.endpoint == Endpoint::CohereChatV1 {
        return format!(
            r#"{{"response_id":"{id}","generation_id":"{id}","text":"{text}","chat_history":[],"finish_reason":"{finish}","meta":{{"api_version":{{"version":"1"}},{usage}}}}}"#
        );
    }
    format!(
        r#"{{"id":"{id}","message":{{"role":"assistant","content":[{{"type":"text","text":"{text}"}}]}},"finish_reason":"{finish}","usage":{{{usage}}}}}"#
    )
}

/// Writes what a stream begins with.
pub(crate) fn opening(reply: &Reply, out: &mut String) {
    let id = &reply.id;
    if reply.endpoint == Endpoint::CohereChatV1 {
        let _ = writeln!(
            out,
            r#"{{"is_finished":false,"event_type":"stream-start","generation_id":"{id}"}}"#
        );
        return;
    }
    let message = r#""delta":{"message":{"role":"assistant","content":[],"tool_plan":"","tool_calls":[],"citations":[]}}"#;
    event(out, "message-start", &format!(r#","id":"{id}",{message}"#));
    let start = r#","index":0,"delta":{"message":{"content":{"type":"text","text":""}}}"#;
    event(out, "content-start", start);
}

/// Writes the tokens `from..to`.
pub(crate) fn delta(reply: &Reply, from: u64, to: u64, out: &mut String) {
    let mut text = String::new();
    for answer in &reply.answers {
        answer.write(&mut text, from, to);
    }
    if reply.endpoint == Endpoint::CohereChatV1 {
        let _ = writeln!(
            out,
            r#"{{"is_finished":false,"event_type":"text-generation","text":"{text}"}}"#
        );
        return;
    }
    let fields = format!(r#","index":0,"delta":{{"message":{{"content":{{"text":"{text}"}}}}}}"#);
    event(out, "content-delta", &fields);
}

/// Writes what a stream ends with.
pub(crate) fn closing(reply: &Reply, out: &mut String) {
    let finish = finish_reason(reply);
    if reply.endpoint == Endpoint::CohereChatV1 {
        let _ = writeln!(
            out,
            r#"{{"is_finished":true,"event_type":"stream-end","response":{},"finish_reason":"{finish}"}}"#,
            plain(reply)
        );
        return;
    }
    event(out, "content-end", r#","index":0"#);
    let usage = usage(reply);
    let fields = format!(r#","delta":{{"finish_reason":"{finish}","usage":{{{usage}}}}}"#);
    event(out, "message-end", &fields);
    out.push_str("data: [DONE]\n\n");
}

fn event(out: &mut String, name: &str, fields: &str) {
    let _ = write!(out, "event: {name}\ndata: {{\"type\":\"{name}\"{fields}}}\n\n");
}

fn finish_reason(reply: &Reply) -> &'static str {
    if reply.cut { "MAX_TOKENS" } else { "COMPLETE" }
}

fn usage(reply: &Reply) -> String {
    let (input, output, cached) = (reply.input_tokens, reply.output_tokens(), reply.cached_tokens);
    format!(
        r#""billed_units":{{"input_tokens":{input},"output_tokens":{output}}},"tokens":{{"input_tokens":{input},"output_tokens":{output}}},"cached_tokens":{cached}"#
    )
}

/// Returns embeddings by type.
pub(crate) fn embeddings(id: &str, digests: &[Digest], dimensions: usize, tokens: u64) -> String {
    let all = join(digests.iter(), |text, digest| {
        text.push('[');
        text.push_str(&join(embedding(*digest, dimensions), |text, value| {
            let _ = write!(text, "{value}");
        }));
        text.push(']');
    });
    format!(
        r#"{{"id":"{id}","response_type":"embeddings_by_type","embeddings":{{"float":[{all}]}},"texts":[],"meta":{{"api_version":{{"version":"2"}},"billed_units":{{"input_tokens":{tokens}}}}}}}"#
    )
}

/// Returns documents in an order that their texts alone decide.
pub(crate) fn ranking(id: &str, digests: &[Digest], top: usize) -> String {
    let mut order: Vec<(u64, usize)> = digests
        .iter()
        .enumerate()
        .map(|(index, digest)| (digest.value() >> 44, index))
        .collect();
    order.sort_unstable_by(|one, other| other.cmp(one));
    order.truncate(top);
    let results = join(order.into_iter(), |text, (score, index)| {
        let score = score as f64 / f64::from(1 << 20);
        let _ = write!(text, r#"{{"index":{index},"relevance_score":{score}}}"#);
    });
    format!(
        r#"{{"id":"{id}","results":[{results}],"meta":{{"api_version":{{"version":"2"}},"billed_units":{{"search_units":1}}}}}}"#
    )
}

/// Returns the answer to a request to cut a text into tokens.
pub(crate) fn tokenized(tokens: u64) -> String {
    let tokens = tokens.min(1 << 16);
    let numbers = join(0..tokens, |text, token| {
        let _ = write!(text, "{token}");
    });
    let strings = join(0..tokens, |text, _| text.push_str("\"tide\""));
    format!(
        r#"{{"tokens":[{numbers}],"token_strings":[{strings}],"meta":{{"api_version":{{"version":"1"}}}}}}"#
    )
}

/// Returns an error in Cohere's words.
pub(crate) fn problem(problem: &Problem, context: &Context<'_>) -> Told {
    let (status, message) = match &problem.what {
        What::Denied(denied) if denied.window > MINUTE_MAX => {
            let amount = denied.refused.amount;
            let message = format!(
                "You are using a Trial key, which is limited to {amount} API calls / month. You can continue to use the \
                 Trial key for free or upgrade to a Production key with higher rate limits at \
                 'https://dashboard.cohere.com/api-keys'. Contact us on 'https://discord.gg/XW44jPfYJu' or email us at \
                 support@cohere.com with any questions"
            );
            (429, message)
        }
        What::Denied(_) => (
            429,
            "You are past the per minute request limit, please wait and try again later.".to_owned(),
        ),
        What::Trouble(_) => (
            429,
            "trial token rate limit exceeded, limit is 100000 tokens per minute".to_owned(),
        ),
        What::MissingKey => (401, "no api key supplied".to_owned()),
        What::WrongKey => (401, "invalid api token".to_owned()),
        _ => (problem.status, problem.message.to_string()),
    };
    let id = match problem.what {
        What::Denied(_) => String::new(),
        _ => format!(r#""id":"{}","#, context.request_id),
    };
    Told {
        status,
        headers: Vec::new(),
        body: format!(r#"{{{id}"message":{}}}"#, quoted(&message)),
    }
}
