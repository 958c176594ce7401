//! Errors after HTTP 200, as they are handed on: providers.md §2.5, §4.5, §5.1, §6, §11.

use super::*;
use crate::signal::Cause;

/// Classifies an error of a stream by the status that goes with its name.
fn check(dialect: Dialect, name: &str, error: &str, expect: Verdict) {
    let status = name.parse().ok().or_else(|| named_status(name)).unwrap_or(500);
    let body = format!(r#"{{"type":"error","error":{error}}}"#);
    super::check(dialect, status, "", &body, expect);
}

fn limited(dimension: Option<Dimension>) -> Verdict {
    Verdict::RateLimited(RateLimited {
        dimension,
        ..RateLimited::default()
    })
}

#[test]
fn openai_chat_and_responses() {
    let message = "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 29937, \
        Requested 385. Please try again in 644ms. Visit x";
    let numbers = Verdict::RateLimited(RateLimited {
        dimension: Some(Dimension::Tokens),
        named_window: secs(60),
        limit: amount(30_000),
        used: amount(29_937),
        requested: amount(385),
        retry_after: millis(644),
        ..RateLimited::default()
    });
    let overloaded = Verdict::Overloaded { retry_after: None };
    for (name, error, expect) in [
        (
            "rate_limit_exceeded",
            &*format!(
                r#"{{"message":"{message}","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#
            ),
            numbers,
        ),
        // `response.failed` has the code and the message only.
        (
            "rate_limit_exceeded",
            &format!(r#"{{"code":"rate_limit_exceeded","message":"{message}"}}"#),
            numbers,
        ),
        (
            "server_error",
            r#"{"message":"m","type":"server_error","code":null}"#,
            Verdict::Transient,
        ),
        (
            "server_is_overloaded",
            r#"{"message":"m","code":"server_is_overloaded"}"#,
            overloaded,
        ),
        (
            "invalid_request_error",
            r#"{"message":"m","type":"invalid_request_error"}"#,
            Verdict::ClientError,
        ),
        (
            "insufficient_quota",
            r#"{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}"#,
            SPENT,
        ),
        ("error", r#""out of memory""#, Verdict::Transient),
        ("error", "null", Verdict::Transient),
    ] {
        check(Dialect::OpenAi, name, error, expect);
    }
}

#[test]
fn anthropic() {
    for (name, expect) in [
        ("overloaded_error", Verdict::Overloaded { retry_after: None }),
        ("rate_limit_error", limited(None)),
        ("api_error", Verdict::Transient),
        ("timeout_error", Verdict::Transient),
        ("billing_error", SPENT),
        ("authentication_error", Verdict::ClientError),
        ("permission_error", Verdict::ClientError),
        ("not_found_error", Verdict::ClientError),
        ("request_too_large", Verdict::ClientError),
    ] {
        let error = format!(r#"{{"type":"{name}","message":"m"}}"#);
        check(Dialect::Anthropic, name, &error, expect);
    }
}

#[test]
fn gemini_bedrock_and_openrouter() {
    let congested = Verdict::RateLimited(RateLimited {
        cause: Cause::Congestion,
        ..RateLimited::default()
    });
    check(
        Dialect::Gemini,
        "RESOURCE_EXHAUSTED",
        r#"{"code":429,"message":"Resource has been exhausted (e.g. check quota).","status":"RESOURCE_EXHAUSTED"}"#,
        congested,
    );
    check(
        Dialect::Gemini,
        "UNAVAILABLE",
        r#"{"message":"m","status":"UNAVAILABLE"}"#,
        Verdict::Overloaded { retry_after: None },
    );
    // OpenRouter, under HTTP 200 or in a chunk with `finish_reason: "error"`.
    check(
        Dialect::OpenRouter,
        "429",
        r#"{"message":"Provider returned error","code":429,"metadata":{"provider_name":"X","raw":"m"}}"#,
        congested,
    );
    check(
        Dialect::OpenRouter,
        "server_error",
        r#"{"code":"server_error","message":"Provider disconnected"}"#,
        Verdict::Transient,
    );
    // The name of an exception stands in the event's head, and not in its body.
    for (name, body, expect) in [
        (
            "throttlingException",
            r#"{"message":"Too many tokens, please wait before trying again."}"#,
            limited(Some(Dimension::Tokens)),
        ),
        (
            "serviceUnavailableException",
            "{}",
            Verdict::Overloaded { retry_after: None },
        ),
        ("modelStreamErrorException", "{}", Verdict::Transient),
        ("modelTimeoutException", "{}", Verdict::Transient),
        ("internalServerException", "{}", Verdict::Transient),
        ("validationException", "{}", Verdict::ClientError),
    ] {
        let status = named_status(name).unwrap_or(500);
        super::check(Dialect::Bedrock, status, "", body, expect);
    }
}
