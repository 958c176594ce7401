//! What the provider says when all is well.

use http::Method;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tidegate_mock::answer::Answer;
use tidegate_mock::{Provider, Server, Settings};

use crate::client::{chat, get, post, request, send, start};

#[tokio::test(start_paused = true)]
async fn chat_is_answered_with_what_its_texts_say() {
    let provider = start(Settings::default()).await;
    for path in ["/v1/chat/completions", "/chat/completions"] {
        let answer = post(&provider, path, chat("hello there", 5)).await;
        assert_eq!(answer.status, 200);
        let expect = json!({
            "index": 0,
            "message": {
                "role": "assistant",
                "content": Answer::to(&["hello there"], 0, 5).text(),
                "refusal": null,
                "annotations": [],
            },
            "logprobs": null,
            "finish_reason": "stop",
        });
        let body = answer.json();
        assert_eq!(body["choices"], json!([expect]));
        assert_eq!(body["object"], "chat.completion");
        assert_eq!(
            body["usage"]["prompt_tokens"], 10,
            "11 / 4 rounded up, 4 a message, 3 to begin"
        );
        assert_eq!(body["usage"]["total_tokens"], 15);
        assert!(answer.header("x-request-id").starts_with("req_"));
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_is_cut_at_the_maximum() {
    let provider = start(Settings::default()).await;
    let body = json!({"model": "m", "max_completion_tokens": 4, "n": 2, "x_mock": {"output_tokens": 9},
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]});
    let body = post(&provider, "/v1/chat/completions", body.to_string())
        .await
        .json();
    assert_eq!(body["choices"][1]["finish_reason"], "length");
    assert_eq!(
        body["choices"][1]["message"]["content"],
        Answer::to(&["a"], 1, 4).text()
    );
    assert_eq!(body["usage"]["completion_tokens"], 8);
}

fn streamed(events: &[Value], pointer: &str) -> String {
    events
        .iter()
        .filter_map(|event| event.pointer(pointer)?.as_str())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn chat_streams_usage_only_when_asked() {
    let provider = start(Settings::default()).await;
    let mut body: Value = serde_json::from_str(&chat("hello", 6)).unwrap();
    body["stream"] = json!(true);
    let plain = post(&provider, "/v1/chat/completions", body.to_string()).await;
    let events = plain.events();
    assert_eq!(plain.header("content-type"), "text/event-stream; charset=utf-8");
    assert!(plain.body.ends_with("data: [DONE]\n\n"));
    assert_eq!(events.len(), 8, "one to begin, one for each token, one to end");
    assert_eq!(
        streamed(&events, "/choices/0/delta/content"),
        Answer::to(&["hello"], 0, 6).text()
    );
    assert_eq!(events[7]["choices"][0]["finish_reason"], "stop");
    assert!(events.iter().all(|event| event.get("usage").is_none()));

    body["stream_options"] = json!({"include_usage": true});
    let events = post(&provider, "/v1/chat/completions", body.to_string())
        .await
        .events();
    let (last, others) = events.split_last().unwrap();
    assert!(others.iter().all(|event| event["usage"].is_null()));
    assert_eq!(
        (&last["choices"], &last["usage"]["completion_tokens"]),
        (&json!([]), &json!(6))
    );
}

#[tokio::test(start_paused = true)]
async fn responses_are_whole_and_streamed_alike() {
    let provider = start(Settings::default()).await;
    let mut body =
        json!({"model": "m", "input": "hello", "instructions": "be brief", "max_output_tokens": 3});
    let whole = post(&provider, "/v1/responses", body.to_string()).await.json();
    let text = Answer::to(&["be brief", "hello"], 0, 3).text();
    assert_eq!(whole["output"][0]["content"][0]["text"], text);
    assert_eq!(
        (&whole["status"], &whole["usage"]["output_tokens"]),
        (&json!("completed"), &json!(3))
    );
    body["stream"] = json!(true);
    let events = post(&provider, "/v1/responses", body.to_string()).await.events();
    let types: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    let expect = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(types, expect);
    let numbers: Vec<u64> = events
        .iter()
        .map(|event| event["sequence_number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (0..11).collect::<Vec<u64>>());
    assert_eq!(streamed(&events, "/delta"), text);
    assert_eq!(events[10]["response"]["usage"], whole["usage"]);
    body["x_mock"] = json!({"output_tokens": 100});
    let events = post(&provider, "/v1/responses", body.to_string()).await.events();
    assert_eq!(events[10]["type"], "response.incomplete");
}

#[tokio::test(start_paused = true)]
async fn completions_answer_every_prompt() {
    let provider = start(Settings::default()).await;
    let body = json!({"model": "m", "prompt": ["a", "b"], "n": 2, "max_tokens": 2});
    let body = post(&provider, "/v1/completions", body.to_string()).await.json();
    let texts: Vec<&str> = body["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["text"].as_str().unwrap())
        .collect();
    let expect = [("a", 0), ("a", 1), ("b", 0), ("b", 1)].map(|(text, n)| Answer::to(&[text], n, 2).text());
    assert_eq!(texts, expect);
    assert_eq!(body["usage"]["completion_tokens"], 8);
}

#[tokio::test(start_paused = true)]
async fn embeddings_are_vectors_of_length_one() {
    let provider = start(Settings::default()).await;
    let mut body = json!({"model": "m", "input": ["a", "bcdef", [1, 2]], "dimensions": 256});
    let numbers = post(&provider, "/v1/embeddings", body.to_string()).await.json();
    assert_eq!(
        numbers["usage"],
        json!({"prompt_tokens": 5, "total_tokens": 5}),
        "1, 2 and 2"
    );
    for index in 0..3 {
        let vector = numbers["data"][index]["embedding"].as_array().unwrap();
        let square: f64 = vector.iter().map(|value| value.as_f64().unwrap().powi(2)).sum();
        assert!(vector.len() == 256 && (square - 1.0).abs() < 0.2, "{square}");
    }
    body["encoding_format"] = json!("base64");
    let encoded = post(&provider, "/v1/embeddings", body.to_string()).await.json();
    assert_eq!(
        encoded["data"][1]["embedding"].as_str().unwrap().len(),
        (256usize * 4).div_ceil(3) * 4
    );
}

#[tokio::test(start_paused = true)]
async fn messages_are_whole_and_streamed_alike() {
    let provider = start(Settings::default()).await;
    let mut body = json!({"model": "claude", "max_tokens": 3, "system": [{"type": "text", "text": "s"}],
        "messages": [{"role": "user", "content": "hello"}], "x_mock": {"cached_tokens": 4}});
    let whole = post(&provider, "/v1/messages", body.to_string()).await.json();
    let text = Answer::to(&["s", "hello"], 0, 3).text();
    assert_eq!(whole["content"], json!([{"type": "text", "text": text}]));
    assert_eq!(whole["usage"]["cache_read_input_tokens"], 4);
    assert_eq!(
        whole["usage"]["input_tokens"], 6,
        "6 × 2/7 rounded up, 4 a message, less 4 from the cache"
    );
    body["stream"] = json!(true);
    let events = post(&provider, "/v1/messages", body.to_string()).await.events();
    let types: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    let expect = [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(types, expect);
    assert_eq!(streamed(&events, "/delta/text"), text);
    assert_eq!(events[0]["message"]["usage"]["input_tokens"], 6);
    assert_eq!(
        (&events[7]["delta"]["stop_reason"], &events[7]["usage"]),
        (&json!("end_turn"), &json!({"output_tokens": 3}))
    );
    let counted = post(&provider, "/v1/messages/count_tokens", body.to_string()).await;
    assert_eq!(counted.body, r#"{"input_tokens":10}"#);
}

#[tokio::test(start_paused = true)]
async fn models_are_listed_in_either_shape() {
    let models = vec!["one".to_owned(), "two".to_owned()];
    let provider = start(Settings {
        models,
        ..Settings::default()
    })
    .await;
    let list = get(&provider, "/v1/models").await.json();
    assert_eq!(
        (&list["object"], &list["data"][1]["id"]),
        (&json!("list"), &json!("two"))
    );
    assert_eq!(get(&provider, "/v1/models/two").await.json()["id"], "two");
    let missing = get(&provider, "/v1/models/three").await;
    assert_eq!(
        (missing.status, &missing.json()["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    let list = send(&provider, request(Method::GET, "/v1/models", ""))
        .await
        .unwrap()
        .json();
    assert_eq!(
        (&list["has_more"], &list["last_id"]),
        (&json!(false), &json!("two"))
    );
}

#[tokio::test(start_paused = true)]
async fn statistics_can_be_read_and_reset() {
    let provider = start(Settings::default()).await;
    post(&provider, "/v1/chat/completions", chat("hello", 5)).await;
    post(&provider, "/v1/chat/completions", "{").await;
    let stats = get(&provider, "/mock/stats").await.json();
    assert_eq!(
        stats["endpoints"],
        json!({"chat/completions": {"200": 1, "400": 1}})
    );
    assert_eq!(
        (&stats["requests"], &stats["generated_tokens"]),
        (&json!(2), &json!(5))
    );
    assert_eq!(
        (&stats["charged_input"], &stats["charged_output"]),
        (&json!(5), &json!(5))
    );
    assert_eq!(
        stats["series"],
        json!([{"second": 0, "admitted": 1, "refused": 0, "tokens": 10}])
    );
    assert_eq!(post(&provider, "/mock/reset", "").await.status, 200);
    assert_eq!(provider.stats().requests, 0);
}

#[tokio::test(start_paused = true)]
async fn http_2_is_spoken_too() {
    let provider = start(Settings::default()).await;
    let stream = tokio::net::TcpStream::connect(provider.address()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let mut request = request(
        Method::POST,
        "http://provider/v1/chat/completions",
        chat("hello", 5),
    );
    request.headers_mut().remove("host");
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(
        body.windows(16)
            .any(|part| *part == Answer::to(&["hello"], 0, 1).text().as_bytes()[..])
    );
}

#[tokio::test]
async fn a_provider_may_have_a_thread_of_its_own() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings {
        provider: Some(Provider::OpenAi),
        ..Settings::default()
    };
    let provider = Server::spawn(settings, listener).unwrap();
    assert_eq!(
        post(&provider, "/v1/chat/completions", chat("hello", 5))
            .await
            .status,
        200
    );
    assert_eq!(
        post(&provider, "/v1/messages", chat("hello", 5)).await.status,
        404
    );
    let address = provider.address();
    assert_eq!(provider.shutdown().statuses[&200], 1);
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "it has stopped"
    );
}
