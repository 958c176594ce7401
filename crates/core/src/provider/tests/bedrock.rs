//! providers.md §6.

use super::*;

const THROTTLING: &str =
    "x-amzn-ErrorType: ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/
    Content-Length: 63";

#[test]
fn throttling() {
    let tokens = r#"{"message":"Too many tokens, please wait before trying again."}"#;
    // The very length that was seen.
    assert_eq!(tokens.len(), 63);
    let requests = r#"{"message":"Too many requests, please wait before trying again."}"#;
    let of = |dimension| {
        Verdict::RateLimited(RateLimited {
            dimension,
            ..RateLimited::default()
        })
    };
    let day = r#"{"message":"Too many tokens per day, please wait before trying again."}"#;
    let named = r#"{"__type":"com.amazon.bedrock#ThrottlingException","message":"Too many tokens, please wait before trying again."}"#;
    for (status, lines, body, expect) in [
        (429, THROTTLING, tokens, of(Some(Dimension::Tokens))),
        (429, "", tokens, of(Some(Dimension::Tokens))),
        (400, "", named, of(Some(Dimension::Tokens))),
        (429, THROTTLING, requests, of(Some(Dimension::Requests))),
        (429, THROTTLING, "", of(None)),
        (429, THROTTLING, day, SPENT),
        (429, "", day, SPENT),
    ] {
        check(Dialect::Bedrock, status, lines, body, expect);
    }
    check_readings(Dialect::Bedrock, THROTTLING, &[]);
}

#[test]
fn other_exceptions() {
    let overloaded = Verdict::Overloaded { retry_after: None };
    for (status, name, expect) in [
        (429, "ModelNotReadyException", overloaded),
        (503, "ServiceUnavailableException", overloaded),
        (400, "ValidationException", Verdict::ClientError),
        (403, "AccessDeniedException", Verdict::ClientError),
        (500, "InternalServerException", Verdict::Transient),
    ] {
        let lines = format!("x-amzn-errortype: {name}:http://internal.amazon.com/coral/com.amazon.bedrock/");
        check(Dialect::Bedrock, status, &lines, r#"{"message":"m"}"#, expect);
    }
    // The compatible endpoint speaks as OpenAI does.
    check(
        Dialect::Bedrock,
        429,
        "",
        r#"{"error":{"message":"m","type":"insufficient_quota","code":"insufficient_quota"}}"#,
        SPENT,
    );
}
