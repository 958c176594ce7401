//! Bedrock's answers and words (providers.md §6).

use crate::answer::Answer;
use crate::body::Reply;
use crate::directive::Trouble;
use crate::limits::Dimension;
use crate::problem::{Problem, Told, What};
use crate::text::quoted;

/// Returns the whole answer to a Converse request.
pub(crate) fn converse(reply: &Reply) -> String {
    let text = reply.answers.first().map(Answer::text).unwrap_or_default();
    let stop = if reply.cut { "max_tokens" } else { "end_turn" };
    let (cached, output) = (reply.cached_tokens, reply.output_tokens());
    let input = reply.input_tokens - cached;
    let total = reply.input_tokens + output;
    format!(
        r#"{{"metrics":{{"latencyMs":1}},"output":{{"message":{{"content":[{{"text":"{text}"}}],"role":"assistant"}}}},"stopReason":"{stop}","usage":{{"cacheReadInputTokens":{cached},"cacheWriteInputTokens":0,"inputTokens":{input},"outputTokens":{output},"totalTokens":{total}}}}}"#
    )
}

/// Returns an error in AWS's words: no `retry-after`, no remaining.
pub(crate) fn problem(problem: &Problem) -> Told {
    let throttled = |message: &str| (429, "ThrottlingException", message.to_owned());
    let (status, kind, message) = match &problem.what {
        What::Denied(denied) => match denied.refused.dimension {
            Dimension::Requests | Dimension::Concurrency => {
                throttled("Too many requests, please wait before trying again.")
            }
            _ if denied.per_day() => throttled("Too many tokens per day, please wait before trying again."),
            _ => throttled("Too many tokens, please wait before trying again."),
        },
        What::Trouble(Trouble::Capacity | Trouble::SlowDown | Trouble::Upstream) => (
            503,
            "ServiceUnavailableException",
            "Bedrock is unable to process your request.".to_owned(),
        ),
        What::Trouble(_) => throttled("Too many tokens per day, please wait before trying again."),
        What::MissingKey | What::WrongKey => (
            403,
            "AccessDeniedException",
            "Authentication failed: Please make sure your API Key is valid.".to_owned(),
        ),
        What::UnknownModel => (
            404,
            "ResourceNotFoundException",
            "The model identifier is not known.".to_owned(),
        ),
        What::UnknownUrl => (404, "UnknownOperationException", problem.message.to_string()),
        What::Status | What::Invalid => {
            let kind = match problem.status {
                429 => "ThrottlingException",
                503 => "ServiceUnavailableException",
                500.. => "InternalServerException",
                _ => "ValidationException",
            };
            (problem.status, kind, problem.message.to_string())
        }
    };
    let kind = format!("{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/");
    Told {
        status,
        headers: vec![("x-amzn-errortype", kind)],
        body: format!(r#"{{"message":{}}}"#, quoted(&message)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_throttling_body_has_63_bytes() {
        let body = r#"{"message":"Too many tokens, please wait before trying again."}"#;
        assert_eq!(body.len(), 63);
    }
}
