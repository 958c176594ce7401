//! DeepSeek's and vLLM's words (providers.md §10, §12): limits on concurrency alone.

use crate::directive::Trouble;
use crate::problem::{Context, Problem, Told, What};
use crate::provider::Provider;

/// Returns an error in DeepSeek's or vLLM's words.
pub(crate) fn problem(problem: &Problem, context: &Context<'_>) -> Told {
    let body = |message: &str, kind: &str, code: &str| {
        format!(r#"{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":{code}}}}}"#)
    };
    let told = |status, body| Told {
        status,
        headers: Vec::new(),
        body,
    };
    match (context.provider, &problem.what) {
        (Provider::Vllm, What::Denied(_) | What::Trouble(_)) => told(
            503,
            body(
                "The server is overloaded: too many requests are queued. Please try again later.",
                "ServiceUnavailableError",
                "503",
            ),
        ),
        (_, What::Denied(_)) => told(
            429,
            body(
                "Too many concurrent requests. Please wait until some of them are complete.",
                "rate_limit_error",
                "\"rate_limit_exceeded\"",
            ),
        ),
        (_, What::Trouble(Trouble::Quota | Trouble::Spend | Trouble::Balance | Trouble::LimitZero)) => told(
            402,
            body(
                "Insufficient Balance",
                "unknown_error",
                "\"invalid_request_error\"",
            ),
        ),
        (_, What::Trouble(_)) => told(
            503,
            body(
                "The server is overloaded.",
                "service_unavailable_error",
                "\"server_overloaded\"",
            ),
        ),
        _ => problem.told_by_openai(),
    }
}
