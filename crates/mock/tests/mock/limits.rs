//! Limits over HTTP: who is refused, with which numbers in the text and the headers.

use std::time::Duration;

use serde_json::json;
use tidegate_mock::limits::{Algorithm, Charging, Dimension, Limit, Slice};
use tidegate_mock::{Scope, Settings};
use tokio::time::advance;

use crate::client::{Answer, chat, connect, post, request, send, start};

const MINUTE: Duration = Duration::from_secs(60);

fn limited(limits: Vec<Limit>) -> Settings {
    Settings {
        limits,
        ..Settings::default()
    }
}

fn message(answer: &Answer) -> String {
    answer.json()["error"]["message"].as_str().unwrap().to_owned()
}

fn headers<const N: usize>(answer: &Answer, names: [&str; N]) -> [String; N] {
    names.map(|name| answer.header(name).to_owned())
}

#[tokio::test(start_paused = true)]
async fn openai_bucket_tells_its_numbers() {
    let provider = start(limited(vec![
        Limit::new(Dimension::Requests, MINUTE, 500, Algorithm::TokenBucket),
        Limit::new(
            Dimension::Requests,
            Duration::from_secs(86_400),
            10_000,
            Algorithm::TokenBucket,
        ),
        Limit::new(Dimension::Tokens, MINUTE, 30_000, Algorithm::TokenBucket),
    ]))
    .await;
    // 8 characters: 2 and 3 for the message; 18,923 reserved.
    let answer = post(&provider, "/v1/chat/completions", chat("hello 12", 18_923)).await;
    let names = [
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
        "retry-after",
    ];
    let expect = ["10000", "9999", "8.64s", "30000", "11072", "37.856s", ""];
    assert_eq!(
        headers(&answer, names),
        expect,
        "the day binds, as providers.md §2.4 saw"
    );
    let answer = post(&provider, "/v1/chat/completions", chat("hello 12", 11_154)).await;
    let text = "Rate limit reached for gpt-4o in organization org-tidegatemock0000000000000 on tokens per min (TPM): \
                Limit 30000, Used 18928, Requested 11159. Please try again in 174ms. Visit \
                https://platform.openai.com/account/rate-limits to learn more.";
    assert_eq!((answer.status, message(&answer).as_str()), (429, text));
    assert_eq!(answer.json()["error"]["type"], "tokens");
    assert_eq!(headers(&answer, ["retry-after", "retry-after-ms"]), ["1", "174"]);
    advance(Duration::from_millis(173)).await;
    assert_eq!(
        post(&provider, "/v1/chat/completions", chat("hello 12", 11_154))
            .await
            .status,
        429
    );
    advance(Duration::from_millis(1)).await;
    assert_eq!(
        post(&provider, "/v1/chat/completions", chat("hello 12", 11_154))
            .await
            .status,
        200
    );
    let stats = provider.stats();
    assert_eq!((stats.admitted, stats.rate_limited), (2, 2));
    assert_eq!(stats.refused_by["tokens"], 2);
    assert_eq!(
        stats.peaks[2].peak, 30_087,
        "a bucket lets more through than a window would"
    );
}

#[tokio::test(start_paused = true)]
async fn rolling_window_opens_when_the_oldest_leaves() {
    let provider = start(limited(vec![Limit::new(
        Dimension::Requests,
        MINUTE,
        2,
        Algorithm::Rolling,
    )]))
    .await;
    assert_eq!(
        post(&provider, "/v1/embeddings", r#"{"model":"m","input":"x"}"#)
            .await
            .status,
        200
    );
    advance(Duration::from_secs(20)).await;
    assert_eq!(
        post(&provider, "/v1/chat/completions", chat("x", 1)).await.status,
        200
    );
    let answer = post(&provider, "/v1/responses", r#"{"model":"m","input":"x"}"#).await;
    assert!(
        message(&answer)
            .contains("on requests per min (RPM): Limit 2, Used 2, Requested 1. Please try again in 40s.")
    );
    assert_eq!(answer.json()["error"]["type"], "requests");
    assert_eq!(
        headers(&answer, ["retry-after", "x-ratelimit-reset-requests"]),
        ["40", "1m0s"]
    );
    advance(Duration::from_secs(40)).await;
    assert_eq!(
        post(&provider, "/v1/chat/completions", chat("x", 1)).await.status,
        200
    );
}

#[tokio::test(start_paused = true)]
async fn slices_refuse_as_azure_does() {
    let slice = Duration::from_secs(10);
    let algorithm = Algorithm::Slices {
        slice,
        shape: Slice::Fixed {
            phase: Duration::ZERO,
        },
    };
    let provider = start(limited(vec![Limit::new(
        Dimension::Requests,
        MINUTE,
        6,
        algorithm,
    )]))
    .await;
    advance(Duration::from_millis(8_500)).await;
    assert_eq!(
        post(&provider, "/v1/chat/completions", chat("x", 1)).await.status,
        200
    );
    let answer = post(&provider, "/v1/chat/completions", chat("x", 1)).await;
    assert_eq!(
        (answer.status, message(&answer).as_str()),
        (429, "Rate limit is exceeded. Try again in 2 seconds.")
    );
    assert_eq!(headers(&answer, ["retry-after", "retry-after-ms"]), ["2", "1500"]);
}

#[tokio::test(start_paused = true)]
async fn anthropic_tells_its_limits_in_thousands_and_times() {
    let provider = start(limited(vec![
        Limit::new(Dimension::Requests, MINUTE, 50, Algorithm::TokenBucket),
        Limit::new(Dimension::Input, MINUTE, 30_000, Algorithm::TokenBucket),
        Limit::new(Dimension::Output, MINUTE, 8_000, Algorithm::TokenBucket),
    ]))
    .await;
    // 29,988 characters: 7,500 estimated at admission, 8,572 in truth.
    let text = "x".repeat(29_988);
    let answer = post(&provider, "/v1/messages", chat(&text, 10)).await;
    let names = [
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-input-tokens-limit",
        "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-ratelimit-output-tokens-remaining",
        "anthropic-ratelimit-tokens-limit",
        "anthropic-ratelimit-tokens-remaining",
    ];
    assert_eq!(
        headers(&answer, names),
        ["49", "30000", "23000", "8000", "38000", "31000"]
    );
    let reset = answer.header("anthropic-ratelimit-input-tokens-reset");
    assert!(reset.len() == 20 && reset.ends_with('Z'), "{reset}");
    assert_eq!(post(&provider, "/v1/messages", chat(&text, 10)).await.status, 200);
    assert_eq!(post(&provider, "/v1/messages", chat(&text, 10)).await.status, 200);
    // 3 × 8,572 are used; 4,284 are left of 30,000, and 7,500 are wanted: 3,216 at 500 a second.
    let answer = post(&provider, "/v1/messages", chat(&text, 10)).await;
    assert_eq!(
        headers(&answer, ["retry-after", "x-should-retry", "retry-after-ms"]),
        ["7", "true", ""]
    );
    assert!(message(&answer).starts_with(
        "This request would exceed your organization's rate limit of 30,000 input tokens per minute (org: \
         00000000-0000-4000-8000-000000000000, model: gpt-4o)."
    ));
    let stats = provider.stats();
    assert_eq!((stats.charged_input, stats.charged_output), (3 * 8_572, 30));
}

#[tokio::test(start_paused = true)]
async fn anthropic_output_counts_as_it_is_generated() {
    let settings = Settings {
        tokens_per_second: Some(10.0),
        ..limited(vec![Limit::new(
            Dimension::Output,
            MINUTE,
            20,
            Algorithm::Rolling,
        )])
    };
    let provider = start(settings).await;
    let mut body: serde_json::Value = serde_json::from_str(&chat("x", 1_000)).unwrap();
    body["stream"] = json!(true);
    let streaming = request(http::Method::POST, "/v1/messages", body.to_string());
    let mut connection = connect(&provider).await;
    let response = connection.send_request(streaming).await.unwrap();
    // The stream must be read to go on.
    let reading = tokio::spawn(crate::client::collect(response));
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    assert_eq!(
        provider.stats().charged_output,
        11,
        "one at once, ten in a second"
    );
    assert_eq!(post(&provider, "/v1/messages", chat("x", 1)).await.status, 200);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let answer = post(&provider, "/v1/messages", chat("x", 1)).await;
    assert_eq!(answer.status, 429);
    assert!(message(&answer).contains("rate limit of 20 output tokens per minute"));
    reading.abort();
}

#[tokio::test(start_paused = true)]
async fn settlement_gives_back_what_was_not_used() {
    let settings = Settings {
        charging: Some(Charging::SETTLED),
        ..limited(vec![Limit::new(
            Dimension::Tokens,
            MINUTE,
            1_000,
            Algorithm::Rolling,
        )])
    };
    let provider = start(settings).await;
    let mut body: serde_json::Value = serde_json::from_str(&chat("hello", 900)).unwrap();
    body["x_mock"] = json!({"output_tokens": 10});
    for _ in 0..5 {
        assert_eq!(
            post(&provider, "/v1/chat/completions", body.to_string())
                .await
                .status,
            200
        );
    }
    // 5 characters are 9 tokens in truth.
    let stats = provider.stats();
    assert_eq!((stats.charged_input, stats.charged_output), (45, 50));
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_limited_until_an_answer_is_over() {
    let settings = Settings {
        latency: tidegate_mock::Latency::Fixed(Duration::from_secs(5)),
        ..limited(vec![Limit::concurrency(1)])
    };
    let provider = start(settings).await;
    let mut first = connect(&provider).await;
    let path = "/v1/messages";
    let running = tokio::spawn(first.send_request(request(http::Method::POST, path, chat("x", 1))));
    crate::client::until(&provider, |stats| stats.in_flight == 1).await;
    let answer = post(&provider, path, chat("x", 1)).await;
    assert!(message(&answer).starts_with("Number of concurrent connections has exceeded your rate limit."));
    assert_eq!(answer.header("retry-after"), "1");
    assert_eq!(running.await.unwrap().unwrap().status(), 200);
    assert_eq!(post(&provider, path, chat("x", 1)).await.status, 200);
    assert_eq!(
        (provider.stats().in_flight, provider.stats().in_flight_max),
        (0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn limits_are_shared_within_their_scope() {
    let check = async |scope: Scope, expect: [u16; 4]| {
        let one = vec![Limit::new(Dimension::Requests, MINUTE, 1, Algorithm::Rolling)];
        let provider = start(Settings {
            scope,
            ..limited(one)
        })
        .await;
        let mut statuses = Vec::new();
        for (key, model) in [("a", "m"), ("a", "n"), ("b", "m"), ("b", "n")] {
            let body = chat("x", 1).replace("gpt-4o", model);
            let mut request = request(http::Method::POST, "/v1/chat/completions", body);
            request
                .headers_mut()
                .insert("authorization", format!("Bearer {key}").parse().unwrap());
            statuses.push(send(&provider, request).await.unwrap().status);
        }
        assert_eq!(statuses, expect, "{scope:?}");
    };
    check(Scope::All, [200, 429, 429, 429]).await;
    check(Scope::Key, [200, 429, 200, 429]).await;
    check(Scope::Model, [200, 200, 429, 429]).await;
    check(Scope::KeyAndModel, [200, 200, 200, 200]).await;
}

#[tokio::test(start_paused = true)]
async fn an_amount_may_change_while_the_provider_runs() {
    let provider = start(limited(vec![Limit::new(
        Dimension::Requests,
        MINUTE,
        1,
        Algorithm::Rolling,
    )]))
    .await;
    assert_eq!(
        post(&provider, "/v1/chat/completions", chat("x", 1)).await.status,
        200
    );
    provider.resize(0, 2);
    let answer = post(&provider, "/v1/chat/completions", chat("x", 1)).await;
    assert_eq!(
        (answer.status, answer.header("x-ratelimit-limit-requests")),
        (200, "2")
    );
}
