//! providers.md §5.1, §5.2.

use super::*;
use crate::signal::Cause;

const MODEL: &str = r#"{"quotaMetric":"generativelanguage.googleapis.com/generate_content_free_tier_input_token_count","quotaId":"GenerateContentInputTokensPerModelPerMinute-FreeTier","quotaDimensions":{"location":"global","model":"gemini-2.5-flash"},"quotaValue":"250000"}"#;

fn body(message: &str, violations: &str) -> String {
    format!(
        r#"{{"error":{{"code":429,"message":"{message}","status":"RESOURCE_EXHAUSTED","details":[
 {{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{violations}]}},
 {{"@type":"type.googleapis.com/google.rpc.Help","links":[{{"description":"Learn more","url":"https://x"}}]}},
 {{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"26s"}}]}}}}"#
    )
}

fn violation(id: &str, value: &str) -> String {
    format!(r#"{{"quotaId":"{id}","quotaMetric":"m","quotaValue":"{value}"}}"#)
}

const QUOTA: &str = "You exceeded your current quota, please check your plan and billing details. x";

fn limited(dimension: Dimension, limit: Option<u64>, wait: Option<Duration>) -> RateLimited {
    RateLimited {
        dimension: Some(dimension),
        limit: limit.map(Amount::new),
        named_window: secs(60),
        retry_after: wait,
        ..RateLimited::default()
    }
}

/// From 08:15:32 on the US Pacific coast.
const TO_MIDNIGHT: Verdict = Verdict::QuotaSpent {
    until: Some(Duration::from_secs(15 * 3_600 + 44 * 60 + 28)),
};

#[test]
fn quotas_of_a_minute() {
    let expect = Verdict::RateLimited(limited(Dimension::InputTokens, Some(250_000), secs(26)));
    let sample = body(QUOTA, MODEL);
    check(Dialect::Gemini, 429, "", &sample, expect);
    // Streaming endpoints answer with an array.
    check(Dialect::Gemini, 429, "", &format!("[{sample}]"), expect);
    check(Dialect::Gemini, 429, "", &format!("[{sample}\n,"), expect);
    for (id, dimension, limit) in [
        (
            "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
            Dimension::Requests,
            10,
        ),
        (
            "GenerateContentPaidTierInputTokensPerModelPerMinute-PaidTier2",
            Dimension::InputTokens,
            3_000_000,
        ),
    ] {
        check(
            Dialect::Gemini,
            429,
            "",
            &body(QUOTA, &violation(id, &format!("{limit}"))),
            Verdict::RateLimited(limited(dimension, Some(limit), secs(26))),
        );
    }
    // The first of several quotas is told, with its own amount.
    let several = format!(
        "{MODEL},{}",
        violation("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "10")
    );
    check(Dialect::Gemini, 429, "", &body(QUOTA, &several), expect);
}

#[test]
fn waits_in_body_and_headers() {
    let exact = format!("{QUOTA}\\nPlease retry in 26.04466179s.");
    let far = format!("{QUOTA}\\nPlease retry in 20.04466179s.");
    for (lines, message, wait) in [
        ("", &*exact, Duration::from_micros(26_044_662)),
        ("", &far, Duration::from_secs(26)),
        ("retry-after: 40", &exact, Duration::from_secs(40)),
    ] {
        let expect = limited(Dimension::InputTokens, Some(250_000), Some(wait));
        check(
            Dialect::Gemini,
            429,
            lines,
            &body(message, MODEL),
            Verdict::RateLimited(expect),
        );
    }
    check(
        Dialect::Gemini,
        429,
        "",
        r#"{"error":{"code":429,"message":"Please retry in 20.04466179s.","status":"RESOURCE_EXHAUSTED"}}"#,
        Verdict::RateLimited(RateLimited {
            cause: Cause::Congestion,
            retry_after: Some(Duration::from_micros(20_044_662)),
            ..RateLimited::default()
        }),
    );
    check(
        Dialect::Gemini,
        429,
        "",
        r#"{"error":{"code":429,"details":[{"retryDelay":"0.5s"}]}}"#,
        Verdict::RateLimited(RateLimited {
            cause: Cause::Congestion,
            retry_after: millis(500),
            ..RateLimited::default()
        }),
    );
}

#[test]
fn quotas_of_a_day() {
    let day = violation("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "250");
    for violations in [&*day, &format!("{MODEL},{day}"), &format!("{day},{MODEL}")] {
        check(
            Dialect::Gemini,
            429,
            "retry-after: 26",
            &body(QUOTA, violations),
            TO_MIDNIGHT,
        );
    }
}

#[test]
fn models_that_are_not_on_the_plan() {
    let message = format!(
        "{QUOTA}\\n* Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_free_tier_requests, \
         limit: 20, model: x\\n* Quota exceeded for metric: \
         generativelanguage.googleapis.com/generate_content_free_tier_input_token_count, limit: 0, model: gemini-2.5-pro"
    );
    let day = violation("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "");
    for violations in ["", &*day, MODEL] {
        check(Dialect::Gemini, 429, "", &body(&message, violations), SPENT);
    }
    let named = format!(
        "{QUOTA}\\n* Quota exceeded for metric: x/generate_content_free_tier_requests, limit: 20, model: x"
    );
    check(
        Dialect::Gemini,
        429,
        "",
        &body(&named, ""),
        Verdict::RateLimited(RateLimited {
            named_window: None,
            ..limited(Dimension::Requests, Some(20), secs(26))
        }),
    );
}

#[test]
fn shared_capacity() {
    for message in [
        "Resource has been exhausted (e.g. check quota).",
        "Resource exhausted, please try again later. Please refer to https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429",
    ] {
        let body =
            format!(r#"{{"error":{{"code":429,"message":"{message}","status":"RESOURCE_EXHAUSTED"}}}}"#);
        check(
            Dialect::Gemini,
            429,
            "",
            &body,
            Verdict::RateLimited(RateLimited {
                cause: Cause::Congestion,
                ..RateLimited::default()
            }),
        );
    }
    check(
        Dialect::Gemini,
        503,
        "",
        r#"{"error":{"code":503,"message":"The model is overloaded. Please try again later.","status":"UNAVAILABLE"}}"#,
        Verdict::Overloaded { retry_after: None },
    );
}

#[test]
fn vertex_quotas_of_ones_own() {
    let body = |message: &str| {
        format!(r#"{{"error":{{"code":429,"message":"{message}","status":"RESOURCE_EXHAUSTED"}}}}"#)
    };
    check(
        Dialect::Gemini,
        429,
        "",
        &body(
            "Quota exceeded for aiplatform.googleapis.com/generate_content_requests_per_minute_per_project_per_base_model \
             with base model: gemini-pro",
        ),
        Verdict::RateLimited(limited(Dimension::Requests, None, None)),
    );
    check(
        Dialect::Gemini,
        429,
        "",
        &body("Too many requests. Exceeded the Provisioned Throughput."),
        Verdict::RateLimited(RateLimited::default()),
    );
}
