//! Google's answers and words: Gemini and Vertex (providers.md §5).

use std::fmt::Write;
use std::time::Duration;

use crate::answer::{Answer, Digest};
use crate::body::Reply;
use crate::directive::Trouble;
use crate::limits::Dimension;
use crate::openai::{embedding, join};
use crate::problem::{Context, Problem, Told, What, whole_seconds};
use crate::provider::Provider;
use crate::route::{Endpoint, Framing};
use crate::state::Denied;
use crate::text::quoted;

/// Returns the whole answer to a request for content.
pub(crate) fn plain(reply: &Reply) -> String {
    let texts = reply.answers.iter().map(Answer::text);
    response(reply, texts, true, reply.output_tokens())
}

/// Writes the tokens `from..to` of every candidate; every part of a stream tells the use so far.
pub(crate) fn delta(reply: &Reply, event: u64, from: u64, to: u64, out: &mut String) {
    let texts = reply.answers.iter().map(|answer| {
        let mut text = String::new();
        answer.write(&mut text, from, to);
        text
    });
    let made = to.saturating_mul(reply.answers.len() as u64);
    part(reply, event == 0, &response(reply, texts, false, made), out);
}

/// Writes what a stream ends with.
pub(crate) fn closing(reply: &Reply, events: u64, out: &mut String) {
    let texts = reply.answers.iter().map(|_| String::new());
    let last = response(reply, texts, true, reply.output_tokens());
    part(reply, events == 0, &last, out);
    if reply.framing == Some(Framing::Array) {
        out.push_str("\n]");
    }
}

fn part(reply: &Reply, first: bool, json: &str, out: &mut String) {
    let _ = match reply.framing {
        Some(Framing::Array) => write!(out, "{}{json}", if first { "[" } else { "\n,\n" }),
        _ => write!(out, "data: {json}\r\n\r\n"),
    };
}

fn response(reply: &Reply, texts: impl Iterator<Item = String>, ends: bool, made: u64) -> String {
    let finish = match (ends, reply.cut) {
        (false, _) => "",
        (true, false) => r#","finishReason":"STOP""#,
        (true, true) => r#","finishReason":"MAX_TOKENS""#,
    };
    let candidates = join(texts.enumerate(), |out, (index, text)| {
        let _ = write!(
            out,
            r#"{{"content":{{"parts":[{{"text":"{text}"}}],"role":"model"}}{finish},"index":{index}}}"#
        );
    });
    let input = reply.input_tokens;
    let total = input + made;
    let cached = match reply.cached_tokens {
        0 => String::new(),
        cached => format!(r#""cachedContentTokenCount":{cached},"#),
    };
    let Reply { id, model, .. } = reply;
    format!(
        r#"{{"candidates":[{candidates}],"usageMetadata":{{"promptTokenCount":{input},"candidatesTokenCount":{made},"totalTokenCount":{total},{cached}"promptTokensDetails":[{{"modality":"TEXT","tokenCount":{input}}}]}},"modelVersion":{model},"responseId":"{id}"}}"#
    )
}

/// Returns the answer to a count of tokens.
pub(crate) fn counted(tokens: u64) -> String {
    format!(
        r#"{{"totalTokens":{tokens},"promptTokensDetails":[{{"modality":"TEXT","tokenCount":{tokens}}}]}}"#
    )
}

/// Returns embeddings in the shape of the endpoint.
pub(crate) fn embeddings(endpoint: Endpoint, digests: &[Digest], dimensions: usize, tokens: u64) -> String {
    let values = |digest: &Digest| {
        join(embedding(*digest, dimensions), |text, value| {
            let _ = write!(text, "{value}");
        })
    };
    let each = tokens / (digests.len().max(1) as u64);
    let all = join(digests.iter(), |text, digest| {
        let values = values(digest);
        let _ = match endpoint {
            Endpoint::Predict => write!(
                text,
                r#"{{"embeddings":{{"values":[{values}],"statistics":{{"token_count":{each},"truncated":false}}}}}}"#
            ),
            _ => write!(text, r#"{{"values":[{values}]}}"#),
        };
    });
    match endpoint {
        Endpoint::Predict => format!(r#"{{"predictions":[{all}]}}"#),
        Endpoint::BatchEmbed => format!(r#"{{"embeddings":[{all}]}}"#),
        _ => format!(r#"{{"embedding":{all}}}"#),
    }
}

/// Returns the list of models.
pub(crate) fn models(names: &[String]) -> String {
    let models = join(names.iter(), |text, name| text.push_str(&model(name)));
    format!(r#"{{"models":[{models}]}}"#)
}

/// Returns one model.
pub(crate) fn model(name: &str) -> String {
    let (path, name) = (quoted(&format!("models/{name}")), quoted(name));
    format!(
        r#"{{"name":{path},"version":"001","displayName":{name},"inputTokenLimit":1048576,"outputTokenLimit":65536,"supportedGenerationMethods":["generateContent","countTokens","embedContent"]}}"#
    )
}

/// Returns an error in Google's words, in an array where the answer was to be a stream and on the paths that are
/// compatible with OpenAI's.
pub(crate) fn problem(problem: &Problem, context: &Context<'_>) -> Told {
    let (status, message, details) = match &problem.what {
        What::Denied(denied) => (429, denied_message(denied, context), denied_details(denied, context)),
        What::Trouble(Trouble::LimitZero) => (429, limit_zero(context.model), String::new()),
        What::Trouble(Trouble::Capacity | Trouble::SlowDown | Trouble::Upstream) => {
            let message = match context.provider {
                Provider::Vertex => CONGESTED,
                _ => "Resource has been exhausted (e.g. check quota).",
            };
            (429, message.to_owned(), String::new())
        }
        What::Trouble(_) => (429, format!("{QUOTA} {RATE_LIMITS}"), String::new()),
        What::MissingKey if context.provider == Provider::Vertex => (401, UNAUTHENTICATED.to_owned(), String::new()),
        What::WrongKey if context.provider == Provider::Vertex => (401, UNAUTHENTICATED.to_owned(), String::new()),
        What::MissingKey => (403, NO_KEY.to_owned(), String::new()),
        What::WrongKey => (
            400,
            "API key not valid. Please pass a valid API key.".to_owned(),
            r#"{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"}"#
                .to_owned(),
        ),
        What::Status if problem.status == 503 => (
            503,
            "The model is overloaded. Please try again later.".to_owned(),
            String::new(),
        ),
        _ => (problem.status, problem.message.to_string(), String::new()),
    };
    let name = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500.. => "INTERNAL",
        _ => "FAILED_PRECONDITION",
    };
    let details = match details.as_str() {
        "" => String::new(),
        details => format!(r#","details":[{details}]"#),
    };
    let body = format!(
        r#"{{"error":{{"code":{status},"message":{},"status":"{name}"{details}}}}}"#,
        quoted(&message)
    );
    let native = context
        .target
        .is_none_or(|target| target.endpoint != Endpoint::Chat && target.endpoint != Endpoint::Embeddings);
    Told {
        status,
        headers: Vec::new(),
        body: if context.stream || !native {
            format!("[{body}]")
        } else {
            body
        },
    }
}

const QUOTA: &str = "You exceeded your current quota, please check your plan and billing details.";
const RATE_LIMITS: &str =
    "For more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits.";
const CONGESTED: &str = "Resource exhausted, please try again later. Please refer to \
                         https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429";
const NO_KEY: &str = "Method doesn't allow unregistered callers (callers without established identity). Please use \
                      API Key or other form of API consumer identity to call this API.";
const UNAUTHENTICATED: &str = "Request had invalid authentication credentials. Expected OAuth 2 access token, login \
                               cookie or other valid authentication credential.";

/// A quota's metric and id.
fn quota(denied: &Denied) -> (&'static str, &'static str) {
    match (denied.refused.dimension, denied.per_day()) {
        (Dimension::Requests, true) => (
            "generate_content_free_tier_requests",
            "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
        ),
        (Dimension::Requests, false) => (
            "generate_content_free_tier_requests",
            "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
        ),
        (_, true) => (
            "generate_content_free_tier_input_token_count",
            "GenerateContentInputTokensPerModelPerDay-FreeTier",
        ),
        (_, false) => (
            "generate_content_free_tier_input_token_count",
            "GenerateContentInputTokensPerModelPerMinute-FreeTier",
        ),
    }
}

fn denied_message(denied: &Denied, context: &Context<'_>) -> String {
    let model = context.model;
    if context.provider == Provider::Vertex {
        if denied.refused.congested {
            return CONGESTED.to_owned();
        }
        let what = match denied.refused.dimension {
            Dimension::Requests => "generate_content_requests_per_minute_per_project_per_base_model",
            _ => "generate_content_input_tokens_per_minute_per_base_model",
        };
        return format!("Quota exceeded for aiplatform.googleapis.com/{what} with base model: {model}.");
    }
    let (metric, _) = quota(denied);
    let amount = denied.refused.amount;
    let retry = denied.wait().map_or_else(String::new, |wait| {
        format!("\nPlease retry in {}s.", seconds(wait))
    });
    format!(
        "{QUOTA} {RATE_LIMITS} \n* Quota exceeded for metric: generativelanguage.googleapis.com/{metric}, limit: \
         {amount}, model: {model}{retry}"
    )
}

fn limit_zero(model: &str) -> String {
    format!(
        "{QUOTA} {RATE_LIMITS} \n* Quota exceeded for metric: \
         generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 0, model: {model}"
    )
}

fn denied_details(denied: &Denied, context: &Context<'_>) -> String {
    if context.provider == Provider::Vertex {
        return String::new();
    }
    let (metric, id) = quota(denied);
    let (model, amount) = (quoted(context.model), denied.refused.amount);
    let mut details = format!(
        r#"{{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{{"quotaMetric":"generativelanguage.googleapis.com/{metric}","quotaId":"{id}","quotaDimensions":{{"location":"global","model":{model}}},"quotaValue":"{amount}"}}]}},{{"@type":"type.googleapis.com/google.rpc.Help","links":[{{"description":"Learn more about Gemini API quotas","url":"https://ai.google.dev/gemini-api/docs/rate-limits"}}]}}"#
    );
    if let Some(wait) = denied.wait() {
        let _ = write!(
            details,
            r#",{{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"{}s"}}"#,
            whole_seconds(wait)
        );
    }
    details
}

/// Seconds with as many digits as there are.
fn seconds(wait: Duration) -> String {
    format!("{}", wait.as_millis() as f64 / 1_000.0)
}
