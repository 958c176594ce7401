//! Refusals and headers of every provider, byte for byte where the reference gives bytes (providers.md, the section named
//! at each).

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tidegate_mock::limits::{Algorithm, Applies, Dimension, Level, Limit, Pool, Scope};
use tidegate_mock::{Handle, Latency, Provider, Settings};
use tokio::time::advance;

use crate::client::{Answer, chat, connect, get, post, request, send, start};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// 2026-10-07 00:00 UTC is the reset that §11 shows; the clock starts three hours before.
const BEGAN: Duration = Duration::from_secs(1_791_331_200 - 10_800);

fn settings(provider: Provider, limits: &[(Dimension, Duration, u64)]) -> Settings {
    let limits = limits
        .iter()
        .map(|(dimension, window, amount)| provider.limit(*dimension, *window, *amount));
    Settings {
        provider: Some(provider),
        limits: limits.collect(),
        began: Some(BEGAN),
        ..Settings::default()
    }
}

async fn limited(provider: Provider, limits: &[(Dimension, Duration, u64)]) -> Handle {
    start(settings(provider, limits)).await
}

fn headers<const N: usize>(answer: &Answer, names: [&str; N]) -> [String; N] {
    names.map(|name| answer.header(name).to_owned())
}

fn no_limit_headers(answer: &Answer) -> bool {
    let mut names = answer.headers.keys().map(http::HeaderName::as_str);
    !names.any(|name| name.contains("ratelimit") || name.contains("retry"))
}

/// A chat of 8 characters: 2 tokens and 3 for the message.
fn short_chat(max_tokens: u64) -> String {
    chat("hello 12", max_tokens)
}

/// §8: 15000 − 11972 leaves no room for 4351, which takes 5.29 s at 250 a second.
#[tokio::test(start_paused = true)]
async fn groq_tells_the_arithmetic_of_its_bucket() {
    let limits = [
        (Dimension::Requests, MINUTE, 30),
        (Dimension::Requests, DAY, 14_370),
        (Dimension::Tokens, MINUTE, 15_000),
        (Dimension::Tokens, DAY, 500_000),
    ];
    let provider = limited(Provider::Groq, &limits).await;
    let path = "/openai/v1/chat/completions";
    let answer = post(&provider, path, short_chat(11_967)).await;
    let names = [
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "retry-after",
    ];
    assert_eq!(
        headers(&answer, names),
        ["14370", "14369", "6.012s", "15000", "3028", ""],
        "requests of the day and tokens of the minute"
    );
    let answer = post(&provider, path, short_chat(4_346)).await;
    let text = "Rate limit reached for model `gpt-4o` in organization `org_01tidegatemock000000000000` service tier \
                `on_demand` on tokens per minute (TPM): Limit 15000, Used 11972, Requested 4351. Please try again in \
                5.292s. ";
    let error = &answer.json()["error"];
    assert!(error["message"].as_str().unwrap().starts_with(text), "{error}");
    assert_eq!(
        (answer.status, &error["type"], &error["code"]),
        (429, &json!("tokens"), &json!("rate_limit_exceeded"))
    );
    assert_eq!(headers(&answer, ["retry-after", "retry-after-ms"]), ["6", ""]);
    let answer = post(&provider, path, short_chat(32_974)).await;
    assert_eq!(
        (answer.status, answer.header("x-should-retry")),
        (413, "false"),
        "larger than the limit"
    );
    assert!(answer.body.contains("Limit 15000, Requested 32979"));
    assert_eq!(
        answer.header("x-ratelimit-remaining-tokens"),
        "3028",
        "it takes nothing"
    );
}

/// §3.4: 8,000 tokens and 48 requests a minute are 8 requests in 10 seconds.
#[tokio::test(start_paused = true)]
async fn azure_tells_its_slice_in_whole_seconds() {
    let limits = [
        (Dimension::Requests, MINUTE, 48),
        (Dimension::Tokens, MINUTE, 8_000),
    ];
    let provider = limited(Provider::Azure, &limits).await;
    let path = |version| format!("/openai/deployments/d/chat/completions?api-version={version}");
    let post = async |path: &str, max_tokens| {
        let mut request = request(Method::POST, path, short_chat(max_tokens));
        request.headers_mut().remove("authorization");
        request.headers_mut().insert("api-key", "k".parse().unwrap());
        send(&provider, request).await.unwrap()
    };
    let answer = post(&path("2024-10-21"), 6_981).await;
    let names = [
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
    ];
    assert_eq!(headers(&answer, names), ["8", "7", "10", "8000", "1014", "60"]);
    assert_eq!(answer.status, 200);
    advance(Duration::from_secs(58)).await;
    let answer = post("/openai/v1/chat/completions", 6_981).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (
            429,
            r#"{"error":{"code":"429","message":"Rate limit is exceeded. Try again in 2 seconds."}}"#
        )
    );
    assert_eq!(headers(&answer, ["retry-after", "retry-after-ms"]), ["2", "2000"]);
    // The texts of §3.5; what can never fit is told to come back after a day.
    let too_large = "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-08-01-preview \
                     have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 86400 \
                     seconds. Please go here: https://aka.ms/oai/quotaincrease if you would like to further increase \
                     the default rate limit.";
    let answer = post(&path("2024-08-01-preview"), 9_000).await;
    assert_eq!(answer.json()["error"]["message"], too_large);
    let newer = "Your requests to d for d in East US 2 have exceeded the token rate limit for your current AIServices S0 \
                 pricing tier. This request was for ChatCompletions_Create under Azure OpenAI API version \
                 2025-03-01-preview. Please retry after 2 seconds. ";
    let answer = post(&path("2025-03-01-preview"), 6_981).await;
    assert!(
        answer.json()["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with(newer)
    );
    // Responses know nothing (§3.4).
    let responses = request(
        Method::POST,
        "/openai/v1/responses",
        r#"{"model":"d","input":"x","max_output_tokens":7000}"#,
    );
    let answer = send(&provider, responses).await.unwrap();
    assert_eq!(answer.status, 429);
    assert_eq!(headers(&answer, names), ["-1", "-1", "0", "-1", "-1", "0"]);
    assert_eq!(answer.header("retry-after"), "");
    let answer = get(&provider, "/openai/deployments/d/chat/completions").await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["code"]),
        (404, &json!("404"))
    );
    // A limit is lowered for some hours (§3.4): headers tell it.
    advance(Duration::from_secs(10)).await;
    provider.resize(1, 4_000);
    let answer = post(&path("2024-10-21"), 10).await;
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), "4000");
}

/// §5.1, with the violations' numbers; and the day that ends at midnight in California.
#[tokio::test(start_paused = true)]
async fn gemini_names_the_quota() {
    let limits = [
        (Dimension::Requests, MINUTE, 3),
        (Dimension::Requests, DAY, 4),
        (Dimension::Input, MINUTE, 250_000),
    ];
    let provider = limited(Provider::Gemini, &limits).await;
    let ask = async |method: &str, characters: usize| {
        let path = format!("/v1beta/models/gemini-2.5-flash:{method}?key=k");
        let body = json!({"contents": [{"parts": [{"text": "x".repeat(characters)}]}]}).to_string();
        let mut request = request(Method::POST, &path, body);
        request.headers_mut().remove("authorization");
        send(&provider, request).await.unwrap()
    };
    let violation = |answer: &Answer| {
        let json = answer.json();
        let error = json.get(0).unwrap_or(&json)["error"].clone();
        assert_eq!(
            (error["code"].as_u64(), &error["status"]),
            (Some(429), &json!("RESOURCE_EXHAUSTED"))
        );
        (
            error["details"][0]["violations"][0].clone(),
            error["details"][2]["retryDelay"].clone(),
        )
    };
    assert_eq!(
        ask("generateContent", 999_988).await.status,
        200,
        "249,997 and 3 tokens"
    );
    advance(Duration::from_secs(34)).await;
    let answer = ask("generateContent", 4).await;
    let expect = json!({
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_input_token_count",
        "quotaId": "GenerateContentInputTokensPerModelPerMinute-FreeTier",
        "quotaDimensions": {"location": "global", "model": "gemini-2.5-flash"},
        "quotaValue": "250000",
    });
    assert_eq!(violation(&answer), (expect, json!("26s")));
    assert!(no_limit_headers(&answer));
    advance(MINUTE).await;
    for _ in 0..3 {
        assert_eq!(ask("generateContent", 4).await.status, 200);
    }
    let answer = ask("streamGenerateContent", 4).await;
    assert!(
        answer.body.starts_with("[{\"error\":"),
        "an array where a stream was wanted"
    );
    let (day, delay) = violation(&answer);
    assert_eq!(
        day["quotaId"],
        "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
    );
    // The clock started at 14:00 in California, 94 s ago.
    assert_eq!(delay, json!(format!("{}s", 10 * 3_600 - 94)));
    advance(Duration::from_secs(10 * 3_600 - 94)).await;
    assert_eq!(ask("generateContent", 4).await.status, 200);
    let trouble = async |name: &'static str| {
        let mut request = request(
            Method::POST,
            "/v1beta/models/m:generateContent",
            r#"{"contents":"x"}"#,
        );
        request
            .headers_mut()
            .insert("x-mock-error", name.parse().unwrap());
        send(&provider, request).await.unwrap().json()["error"]["message"].clone()
    };
    assert_eq!(
        trouble("capacity").await,
        "Resource has been exhausted (e.g. check quota)."
    );
    assert!(
        trouble("limit_zero")
            .await
            .as_str()
            .unwrap()
            .contains("limit: 0, model: m")
    );
}

#[tokio::test(start_paused = true)]
async fn vertex_is_congested() {
    let congested = Limit::new(
        Dimension::Requests,
        MINUTE,
        1,
        Algorithm::Congestion {
            swing: 0,
            period: MINUTE,
            seed: 0,
        },
    );
    let provider = start(Settings {
        limits: vec![congested.hidden()],
        ..settings(Provider::Vertex, &[])
    })
    .await;
    let path = "/v1/projects/p/locations/global/publishers/google/models/g:generateContent";
    assert_eq!(post(&provider, path, r#"{"contents":"x"}"#).await.status, 200);
    let answer = post(&provider, path, r#"{"contents":"x"}"#).await;
    let text = "Resource exhausted, please try again later. Please refer to \
                https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429";
    assert_eq!(
        (answer.status, &answer.json()["error"]["message"]),
        (429, &json!(text))
    );
    assert!(no_limit_headers(&answer));
}

/// §7: the charge of a request, and the limits of minute and month.
#[tokio::test(start_paused = true)]
async fn mistral_tells_a_requests_cost() {
    let limits = [
        (Dimension::Requests, MINUTE, 720),
        (Dimension::Tokens, MINUTE, 5_000_000),
        (Dimension::Tokens, 30 * DAY, 1_000_000_000),
    ];
    let provider = limited(Provider::Mistral, &limits).await;
    let path = "/v1/chat/completions";
    // 8 characters are 9 tokens in truth, and 43 are made.
    let answer = post(&provider, path, short_chat(43)).await;
    let names = [
        "x-ratelimit-limit-req-minute",
        "x-ratelimit-remaining-req-minute",
        "x-ratelimit-limit-tokens-minute",
        "x-ratelimit-limit-tokens-month",
        "x-ratelimit-tokens-query-cost",
    ];
    assert_eq!(
        headers(&answer, names),
        ["720", "719", "5000000", "1000000000", "52"]
    );
    for _ in 0..11 {
        assert_eq!(
            post(&provider, path, short_chat(1)).await.status,
            200,
            "twelve a second"
        );
    }
    let answer = post(&provider, path, short_chat(1)).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (429, r#"{"message":"Requests rate limit exceeded"}"#)
    );
    let answer = post(
        &limited(Provider::Mistral, &[(Dimension::Tokens, MINUTE, 4)]).await,
        path,
        short_chat(1),
    )
    .await;
    assert_eq!(
        answer.body,
        r#"{"object":"error","message":"Rate limit exceeded","type":"rate_limited","param":null,"code":"1300","raw_status_code":429}"#
    );
    let strict = start(Settings {
        rejects_stream_options: true,
        ..settings(Provider::Mistral, &[])
    })
    .await;
    let body =
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"stream_options":{}}"#;
    assert_eq!(post(&strict, path, body).await.status, 422);
}

/// §11: the day is UTC's, and its end is told in epoch milliseconds.
#[tokio::test(start_paused = true)]
async fn openrouter_tells_when_the_day_ends() {
    let pool = Pool::new(
        Provider::OpenRouter.charging(),
        vec![
            Provider::OpenRouter.limit(Dimension::Requests, MINUTE, 20),
            Provider::OpenRouter.limit(Dimension::Requests, DAY, 50),
        ],
    );
    let provider = start(Settings {
        pools: vec![pool.for_models(&["*:free"])],
        ..settings(Provider::OpenRouter, &[])
    })
    .await;
    let path = "/api/v1/chat/completions";
    let ask = async |model: &str| post(&provider, path, short_chat(1).replace("gpt-4o", model)).await;
    for _ in 0..20 {
        assert_eq!(ask("a:free").await.status, 200);
    }
    assert_eq!(ask("b").await.status, 200, "paid models have no limit");
    let answer = ask("b:free").await;
    assert!(answer.body.contains("Rate limit exceeded: free-models-per-min."));
    for _ in 0..2 {
        advance(MINUTE).await;
        for _ in 0..15 {
            assert_eq!(ask("a:free").await.status, 200);
        }
    }
    let info = get(&provider, "/api/v1/key").await.json();
    assert_eq!(
        info["data"]["free_model_daily_requests"],
        json!({"used": 50, "limit": 50, "remaining": 0})
    );
    let answer = ask("c:free").await;
    let error = &answer.json()["error"];
    let text =
        "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day";
    assert_eq!(
        (answer.status, &error["message"], &error["code"]),
        (429, &json!(text), &json!(429))
    );
    let told = json!({"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1791331200000"});
    assert_eq!(error["metadata"]["headers"], told);
    assert_eq!(answer.header("x-ratelimit-reset"), "1791331200000");
    // An error under status 200, and one that ends a stream.
    let upstream = async |stream: bool| {
        let body = json!({"model": "b", "stream": stream, "messages": [{"role": "user", "content": "x"}],
            "x_mock": {"error": "upstream"}});
        post(&provider, path, body.to_string()).await
    };
    let answer = upstream(false).await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["message"]),
        (200, &json!("Provider returned error"))
    );
    let answer = upstream(true).await;
    let last = answer.events().pop().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "error");
    assert_eq!(last["error"]["code"], 429);
}

/// §6: 63 bytes, and no word about when.
#[tokio::test(start_paused = true)]
async fn bedrock_throttles() {
    let limits = [
        (Dimension::Requests, MINUTE, 3),
        (Dimension::Tokens, MINUTE, 70_000),
        (Dimension::Tokens, DAY, 140_000),
    ];
    let provider = limited(Provider::Bedrock, &limits).await;
    let path = "/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse";
    let ask = async || {
        // Nothing is said of a maximum: 64,000 are reserved. 8,000 are made, and count five times.
        let body = r#"{"messages":[{"content":[{"text":"x"}]}],"x_mock":{"output_tokens":8000}}"#;
        post(&provider, path, body).await
    };
    assert_eq!(ask().await.status, 200);
    let answer = ask().await;
    assert_eq!((answer.status, answer.header("content-length")), (429, "63"));
    assert_eq!(
        answer.header("x-amzn-errortype"),
        "ThrottlingException:http://internal.amazon.com/coral/com.amazon.bedrock/"
    );
    assert_eq!(
        answer.body,
        r#"{"message":"Too many tokens, please wait before trying again."}"#
    );
    assert!(no_limit_headers(&answer));
    advance(MINUTE).await;
    assert_eq!(ask().await.status, 200);
    advance(MINUTE).await;
    let answer = ask().await;
    assert_eq!(
        answer.body,
        r#"{"message":"Too many tokens per day, please wait before trying again."}"#
    );
}

/// §9 and §12.
#[tokio::test(start_paused = true)]
async fn cohere_and_vllm_refuse_in_few_words() {
    let provider = limited(Provider::Cohere, &[(Dimension::Requests, MINUTE, 1)]).await;
    let body = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
    assert_eq!(post(&provider, "/v2/chat", body).await.status, 200);
    let answer = post(&provider, "/v2/chat", body).await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (
            429,
            r#"{"message":"You are past the per minute request limit, please wait and try again later."}"#
        )
    );
    let provider = start(Settings {
        limits: vec![Limit::concurrency(2)],
        running_max: Some(1),
        latency: Latency::Fixed(Duration::from_secs(5)),
        ..settings(Provider::Vllm, &[])
    })
    .await;
    let path = "/v1/chat/completions";
    let (mut one, mut two) = (connect(&provider).await, connect(&provider).await);
    let began = tokio::time::Instant::now();
    let first = tokio::spawn(one.send_request(request(Method::POST, path, short_chat(1))));
    let second = tokio::spawn(two.send_request(request(Method::POST, path, short_chat(1))));
    crate::client::until(&provider, |stats| stats.in_flight == 2).await;
    assert_eq!(
        post(&provider, path, short_chat(1)).await.status,
        503,
        "one runs, one waits"
    );
    for running in [first, second] {
        assert_eq!(running.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(began.elapsed().as_secs(), 10, "one after the other");
}

/// §10.
#[tokio::test(start_paused = true)]
async fn deepseek_keeps_its_clients_company() {
    let provider = start(Settings {
        latency: Latency::Fixed(Duration::from_secs(12)),
        limits: vec![Limit::concurrency(1)],
        ..settings(Provider::DeepSeek, &[])
    })
    .await;
    let answer = post(&provider, "/chat/completions", short_chat(2)).await;
    assert!(answer.body.starts_with("\n\n{\"id\":"), "{}", answer.body);
    assert_eq!(answer.json()["usage"]["completion_tokens"], 2);
    let body = short_chat(2).replacen('{', r#"{"stream":true,"#, 1);
    let mut waiting = connect(&provider).await;
    let waiting = waiting
        .send_request(request(Method::POST, "/chat/completions", body))
        .await;
    let refused = post(&provider, "/chat/completions", short_chat(2)).await;
    assert_eq!(
        refused.status, 429,
        "the head is sent, and the request still counts"
    );
    let answer = crate::client::collect(waiting.unwrap()).await.unwrap();
    assert!(
        answer.body.starts_with(": keep-alive\n\n: keep-alive\n\ndata: {"),
        "{}",
        answer.body
    );
    crate::client::until(&provider, |stats| stats.in_flight == 0).await;
}

/// §4.5 and §4.6.
#[tokio::test(start_paused = true)]
async fn anthropic_accelerates_and_tells_its_limits() {
    let ramp = Algorithm::Ramp {
        start: 58_276,
        step: 10_000,
        idle: None,
    };
    let limits = vec![
        Provider::Anthropic.limit(Dimension::Input, MINUTE, 200_000),
        Limit::new(Dimension::Input, MINUTE, 200_000, ramp).hidden(),
    ];
    let provider = start(Settings {
        limits,
        ..settings(Provider::Anthropic, &[])
    })
    .await;
    let answer = post(&provider, "/v1/messages", chat(&"x".repeat(240_000), 1)).await;
    let text = "This request would exceed your organization's maximum usage increase rate for input tokens per minute \
                (org: 00000000-0000-4000-8000-000000000000, model: gpt-4o). Your current limit is 58,276 input tokens \
                per minute, and will increase to 68,276 at the next minute boundary. Please scale up your input tokens \
                usage more gradually to stay within the acceleration limit.";
    assert_eq!(
        (answer.status, &answer.json()["error"]["message"]),
        (429, &json!(text))
    );
    assert_eq!(answer.header("anthropic-ratelimit-input-tokens-limit"), "200000");
    let provider = start(Settings {
        pools: Provider::Anthropic.pools(),
        ..settings(Provider::Anthropic, &[])
    })
    .await;
    let path = "/v1/organizations/rate_limits?model=claude-sonnet-4-6";
    let told = send(&provider, request(Method::GET, path, ""))
        .await
        .unwrap()
        .json();
    let expect = json!({"data": [{
        "type": "rate_limit",
        "group_type": "model_group",
        "models": ["claude-sonnet-4-5", "claude-sonnet-4-6"],
        "limits": [
            {"type": "requests_per_minute", "value": 1_000},
            {"type": "input_tokens_per_minute", "value": 2_000_000},
            {"type": "output_tokens_per_minute", "value": 400_000},
        ],
    }], "next_page": null});
    assert_eq!(told, expect);
    let path = "/v1/organizations/workspaces/w/rate_limits";
    let told = send(&provider, request(Method::GET, path, ""))
        .await
        .unwrap()
        .json();
    assert_eq!(told["data"], json!([]));
}

/// §2.1, §2.4: the limits of a project beside those of its organization, and of long contexts.
#[tokio::test(start_paused = true)]
async fn openai_has_limits_of_projects_and_long_contexts() {
    let limit = |amount| Provider::OpenAi.limit(Dimension::Tokens, MINUTE, amount);
    let pool = |limits| Pool::new(Provider::OpenAi.charging(), limits);
    let pools = vec![
        Pool {
            applies: Applies {
                input_up_to: Some(1_000),
                ..Applies::default()
            },
            ..pool(vec![limit(150_000)])
        },
        Pool {
            applies: Applies {
                input_above: Some(1_000),
                ..Applies::default()
            },
            ..pool(vec![limit(200_000)])
        },
        Pool {
            level: Level::Project,
            ..pool(vec![limit(60_000)]).scoped(Scope::Key)
        },
    ];
    let provider = start(Settings {
        pools,
        ..settings(Provider::OpenAi, &[])
    })
    .await;
    let answer = post(&provider, "/v1/chat/completions", short_chat(2_995)).await;
    let names = [
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-limit-project-tokens",
        "x-ratelimit-remaining-project-tokens",
        "x-ratelimit-reset-project-tokens",
    ];
    assert_eq!(
        headers(&answer, names),
        ["150000", "147000", "60000", "57000", "3s"]
    );
    let answer = post(&provider, "/v1/chat/completions", chat(&"x".repeat(4_000), 2)).await;
    assert_eq!(answer.header("x-ratelimit-limit-tokens"), "200000");
    let answer = post(&provider, "/v1/chat/completions", short_chat(58_000)).await;
    assert!(
        answer.body.contains("Limit 60000"),
        "the lowest wins: {}",
        answer.body
    );
}

/// Images, audio and moderation, each with what it is charged in.
#[tokio::test(start_paused = true)]
async fn openais_other_endpoints_are_charged_in_their_own_terms() {
    let limits = [
        (Dimension::Images, MINUTE, 3),
        (Dimension::AudioSeconds, 60 * MINUTE, 2),
    ];
    let provider = limited(Provider::OpenAi, &limits).await;
    let ask = async |n: u64| {
        let body = json!({"model": "gpt-image-1", "prompt": "a tide gate", "n": n}).to_string();
        post(&provider, "/v1/images/generations", body).await
    };
    let answer = ask(2).await;
    assert_eq!(
        (answer.status, answer.json()["data"].as_array().map(Vec::len)),
        (200, Some(2))
    );
    let answer = ask(2).await;
    assert!(
        answer
            .body
            .contains("on images per min (IPM): Limit 3, Used 2, Requested 2."),
        "{}",
        answer.body
    );
    let hear = async |bytes: usize| {
        let file = "x".repeat(bytes);
        let body = format!(
            "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b\r\nContent-Disposition: \
             form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n{file}\r\n--b--\r\n"
        );
        let mut request = request(Method::POST, "/v1/audio/transcriptions", body);
        let kind = "multipart/form-data; boundary=b".parse().unwrap();
        request.headers_mut().insert("content-type", kind);
        send(&provider, request).await.unwrap()
    };
    assert_eq!(hear(64_000).await.json()["usage"]["seconds"], 2);
    assert_eq!(hear(32_000).await.status, 429);
    let answer = post(&provider, "/v1/moderations", r#"{"input":["a","b"]}"#).await;
    assert_eq!(answer.json()["results"].as_array().map(Vec::len), Some(2));
    let body = r#"{"model":"m","prompt":["a","b"],"best_of":3,"n":2,"max_tokens":5}"#;
    let answer = post(&provider, "/v1/completions", body).await;
    assert_eq!(answer.json()["choices"].as_array().map(Vec::len), Some(4));
    assert_eq!(
        provider.stats().charged_output,
        30,
        "all that are written are charged"
    );
    let answer: Value = post(&provider, "/mock/limits", r#"{"limit":0,"amount":4}"#)
        .await
        .json();
    assert_eq!(answer, json!({}));
    assert_eq!(ask(2).await.status, 200);
    assert_eq!(post(&provider, "/mock/limits", "x").await.status, 400);
}
