//! Errors after HTTP 200: providers.md §2.5, §4.5, §5.1, §6, §11.

use super::*;
use crate::signal::Cause;

fn check(dialect: Dialect, name: &str, data: &str, expect: Option<Verdict>) {
    assert_eq!(
        dialect.classify_event(NOW, name, &(), data.as_bytes()),
        expect,
        "{dialect:?} {name}\n{data}"
    );
}

fn limited(dimension: Option<Dimension>) -> Option<Verdict> {
    Some(Verdict::RateLimited(RateLimited {
        dimension,
        ..RateLimited::default()
    }))
}

#[test]
fn openai_chat_and_responses() {
    let numbers = Some(Verdict::RateLimited(RateLimited {
        dimension: Some(Dimension::Tokens),
        named_window: secs(60),
        limit: amount(30_000),
        used: amount(29_937),
        requested: amount(385),
        retry_after: millis(644),
        ..RateLimited::default()
    }));
    let message = "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 29937, \
        Requested 385. Please try again in 644ms. Visit x";
    for (name, data, expect) in [
        (
            "",
            &*format!(
                r#"{{"error":{{"message":"{message}","type":"tokens","param":null,"code":"rate_limit_exceeded"}}}}"#
            ),
            numbers,
        ),
        (
            "response.failed",
            &format!(
                r#"{{"type":"response.failed","sequence_number":3,"response":{{"id":"resp_1","object":"response","status":"failed","error":{{"code":"rate_limit_exceeded","message":"{message}"}},"output":[]}}}}"#
            ),
            numbers,
        ),
        (
            "error",
            &format!(
                r#"{{"type":"error","code":"rate_limit_exceeded","message":"{message}","param":null,"sequence_number":1}}"#
            ),
            numbers,
        ),
        (
            "",
            r#"{"error":{"message":"m","type":"server_error","code":null}}"#,
            Some(Verdict::Transient),
        ),
        (
            "",
            r#"{"error":{"message":"m","code":"server_is_overloaded"}}"#,
            Some(Verdict::Overloaded { retry_after: None }),
        ),
        (
            "",
            r#"{"error":{"message":"m","type":"invalid_request_error"}}"#,
            Some(Verdict::ClientError),
        ),
        (
            "",
            r#"{"error":{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}}"#,
            Some(SPENT),
        ),
        ("", r#"{"error":"out of memory"}"#, Some(Verdict::Transient)),
        ("error", "", Some(Verdict::Transient)),
    ] {
        check(Dialect::OpenAi, name, data, expect);
    }
}

#[test]
fn successes_hold_no_error() {
    for (name, data) in [
        ("", ""),
        ("", "[DONE]"),
        (
            "",
            r#"{"id":"x","choices":[{"delta":{"content":"\"error\":{\"code\":429}"}}],"usage":null,"error":null}"#,
        ),
        (
            "response.completed",
            r#"{"type":"response.completed","response":{"error":null,"output":[]}}"#,
        ),
        (
            "",
            r#"{"choices":[{"message":{"tool_calls":[{"error":{"code":429,"message":"deep"}}]}}]}"#,
        ),
        ("message_stop", r#"{"type":"message_stop"}"#),
        (
            "",
            r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"response":{"error":{"code":429}}}}}]}}]}"#,
        ),
    ] {
        for dialect in Dialect::ALL {
            check(dialect, name, data, None);
        }
    }
}

#[test]
fn anthropic() {
    check(
        Dialect::Anthropic,
        "error",
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
        Some(Verdict::Overloaded { retry_after: None }),
    );
    check(
        Dialect::Anthropic,
        "error",
        r#"{"type":"error","error":{"type":"rate_limit_error","message":"m"}}"#,
        limited(None),
    );
    check(
        Dialect::Anthropic,
        "error",
        r#"{"type":"error","error":{"type":"api_error","message":"m"}}"#,
        Some(Verdict::Transient),
    );
}

#[test]
fn gemini_and_bedrock() {
    let gemini = r#",{"error":{"code":429,"message":"Resource has been exhausted (e.g. check quota).","status":"RESOURCE_EXHAUSTED"}}]"#;
    let congested = Some(Verdict::RateLimited(RateLimited {
        cause: Cause::Congestion,
        ..RateLimited::default()
    }));
    check(Dialect::Gemini, "", gemini, congested);
    check(
        Dialect::Gemini,
        "",
        r#"[{"error":{"message":"m","status":"UNAVAILABLE"}}]"#,
        Some(Verdict::Overloaded { retry_after: None }),
    );
    let throttled = r#"{"message":"Too many tokens, please wait before trying again."}"#;
    check(
        Dialect::Bedrock,
        "throttlingException",
        throttled,
        limited(Some(Dimension::Tokens)),
    );
    check(
        Dialect::Bedrock,
        "serviceUnavailableException",
        "{}",
        Some(Verdict::Overloaded { retry_after: None }),
    );
    check(
        Dialect::Bedrock,
        "modelStreamErrorException",
        "{}",
        Some(Verdict::Transient),
    );
    check(
        Dialect::Bedrock,
        "validationException",
        "{}",
        Some(Verdict::ClientError),
    );
}

#[test]
fn openrouter_under_http_200() {
    let body = r#"{"error":{"message":"Provider returned error","code":429,"metadata":{"provider_name":"X","raw":"m"}},"user_id":"u"}"#;
    let chunk = r#"{"id":"gen-1","error":{"code":429,"message":"Provider returned error","metadata":{"provider_name":"X"}},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}"#;
    let congested = Some(Verdict::RateLimited(RateLimited {
        cause: Cause::Congestion,
        ..RateLimited::default()
    }));
    check(Dialect::OpenRouter, "", body, congested);
    check(Dialect::OpenRouter, "", chunk, congested);
    check(
        Dialect::OpenRouter,
        "",
        r#"{"error":{"code":"server_error","message":"Provider disconnected"},"choices":[{"finish_reason":"error"}]}"#,
        Some(Verdict::Transient),
    );
    let free = r#"{"error":{"message":"Rate limit exceeded: free-models-per-min.","code":429}}"#;
    let head = headers("x-ratelimit-reset: 1748877352000");
    let verdict = Dialect::OpenRouter.classify_event(NOW, "", &head, free.as_bytes());
    let Some(Verdict::RateLimited(limited)) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(limited.retry_after, secs(20));
}
