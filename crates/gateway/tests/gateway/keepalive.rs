//! Streams that wait in line get comments meanwhile, and lose nothing by it but what only a head could tell.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tidegate_gateway::config::Config;
use tidegate_gateway::serve::Gateway;

use crate::support::*;

const COMMENT: &str = ": waiting\n\n";
const KEEPALIVE: &str = "queue_keepalive = \"10ms\"";
const EVENTS: [&str; 3] = [
    "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n: a comment of the provider's\r\n\r\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n",
    "data: [DONE]\n\n",
];

/// A gateway whose only place is taken, and what frees it.
async fn busy(server: &str, provider: &str) -> (Gateway, Upstream, Seen, RawClient) {
    let mut upstream = Upstream::start().await;
    let address = upstream.address;
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"off\"\nworkers = 2\n{server}\n\
         [retry]\nbackoff_min = \"10ms\"\nbackoff_max = \"20ms\"\nbudget_floor = 0\nbudget_percent = 0\n\
         [[upstreams]]\nname = \"up\"\nprovider = \"{provider}\"\nbase_url = \"http://{address}\"\n\
         [[upstreams.limits]]\nmodels = [\"*\"]\nconcurrent = 1\n"
    );
    let config = Config::from_toml(&text, "test").unwrap();
    let gateway = Gateway::start(config).unwrap();
    let mut first = RawClient::connect(gateway.address()).await;
    first.post(path_of(provider), CHAT_BODY).await;
    let seen = upstream.request().await;
    (gateway, upstream, seen, first)
}

fn path_of(provider: &str) -> &'static str {
    match provider {
        "anthropic" => "/v1/messages",
        "gemini" => "/v1beta/models/g:streamGenerateContent?alt=sse",
        _ => CHAT,
    }
}

/// An answer that has begun.
struct Begun {
    status: u16,
    headers: HeaderMap,
    body: Incoming,
    text: String,
    _client: Client,
}

impl Begun {
    /// Sends a request and waits for the head of its answer.
    async fn of(gateway: &Gateway, request: Request<Full<Bytes>>) -> Self {
        let mut client = Client::connect(gateway.address()).await;
        let (head, body) = client.open(request).await.into_parts();
        Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            text: String::new(),
            _client: client,
        }
    }

    async fn part(&mut self) -> bool {
        let Some(frame) = soon("a part comes", self.body.frame()).await else {
            return false;
        };
        let data = frame.unwrap().into_data().unwrap();
        self.text.push_str(std::str::from_utf8(&data).unwrap());
        true
    }

    /// Reads so many comments more.
    async fn comments(&mut self, more: usize) {
        let least = self.text.len() + more * COMMENT.len();
        while self.text.len() < least {
            assert!(self.part().await, "ended: {:?}", self.text);
        }
        assert_eq!(self.text.replace(COMMENT, ""), "");
    }

    /// Reads to the end and returns what follows the comments.
    async fn rest(mut self) -> String {
        while self.part().await {}
        let rest = self.text.trim_start_matches(COMMENT);
        assert!(rest.len() < self.text.len(), "no comments: {:?}", self.text);
        rest.to_owned()
    }
}

/// Answers the request that took the only place.
async fn free(seen: Seen, first: &mut RawClient) {
    seen.answer_json(200, "{}");
    first.read_until("{}").await;
}

#[tokio::test]
async fn a_stream_that_waits_gets_comments_and_then_its_answer_byte_for_byte() {
    let (gateway, mut upstream, seen, mut first) = busy(KEEPALIVE, "openai").await;
    let mut begun = Begun::of(&gateway, post(CHAT, CHAT_STREAM_BODY)).await;
    assert_eq!(begun.status, 200);
    assert_eq!(begun.headers["content-type"], "text/event-stream");
    assert_eq!(begun.headers["cache-control"], "no-cache");
    assert!(
        begun.headers["x-tidegate-request-id"]
            .to_str()
            .unwrap()
            .starts_with("tg-")
    );
    for absent in ["content-length", "x-tidegate-queue-ms", "x-tidegate-attempts"] {
        assert!(!begun.headers.contains_key(absent), "{absent}");
    }
    begun.comments(3).await;
    assert_eq!(waiting(&gateway), 1);
    free(seen, &mut first).await;
    let seen = upstream.request().await;
    assert_eq!(seen.body, CHAT_STREAM_BODY);
    // The upstream has not answered yet, and the comments go on.
    begun.comments(3).await;
    let stream = seen.stream_events();
    for part in EVENTS {
        stream.send(part).await;
    }
    drop(stream);
    assert_eq!(begun.rest().await, EVENTS.concat());
    until("the permit is settled", || in_flight(&gateway) == 0).await;
    let succeeded = || {
        counted(
            &gateway,
            "tidegate_requests_total{model=\"*\",outcome=\"success\"",
        )
    };
    until("it is counted", || succeeded() == 2.0).await;
    assert_eq!(counted(&gateway, "tidegate_queue_wait_seconds_count{"), 2.0);
    assert_eq!(counted(&gateway, "tidegate_tokens_total{"), 9.0);
    upstream.assert_quiet();
}

#[tokio::test]
async fn an_answer_in_time_is_not_touched() {
    let (gateway, mut upstream, seen, mut first) = busy("queue_keepalive = \"10m\"", "openai").await;
    let answering = tokio::spawn(send(gateway.address(), post(CHAT, CHAT_STREAM_BODY)));
    until("it waits", || waiting(&gateway) == 1).await;
    free(seen, &mut first).await;
    let stream = upstream.request().await.stream_events();
    for part in EVENTS {
        stream.send(part).await;
    }
    drop(stream);
    let answer = answering.await.unwrap();
    assert_eq!(answer.text(), EVENTS.concat());
    assert_eq!(answer.header("x-tidegate-attempts"), Some("1"));
    assert!(answer.header("x-tidegate-queue-ms").is_some());
}

#[tokio::test]
async fn usage_that_nobody_asked_for_is_taken_out_all_the_same() {
    let (gateway, mut upstream, seen, mut first) = busy(KEEPALIVE, "openai").await;
    let body = CHAT_STREAM_BODY.replace("\"stream_options\":{\"include_usage\":true},", "");
    let begun = Begun::of(&gateway, post(CHAT, body)).await;
    free(seen, &mut first).await;
    let stream = upstream.request().await.stream_events();
    for part in EVENTS {
        stream.send(part).await;
    }
    drop(stream);
    assert_eq!(begun.rest().await, [EVENTS[0], EVENTS[2]].concat());
    let tokens = || counted(&gateway, "tidegate_tokens_total{");
    until("the usage is counted", || tokens() == 9.0).await;
}

#[tokio::test]
async fn a_refusal_while_waiting_is_an_event() {
    for (provider, body, expect) in [
        (
            "openai",
            CHAT_STREAM_BODY,
            "data: {\"error\":{\"message\":\"Rate limit reached",
        ),
        (
            "anthropic",
            CHAT_STREAM_BODY,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\"",
        ),
        ("gemini", CHAT_BODY, "data: {\"error\":{\"code\":429"),
    ] {
        // Nobody knows when a place is free, so the deadline passes while it waits.
        let server = format!("{KEEPALIVE}\nmax_wait = \"300ms\"");
        let (gateway, mut upstream, _seen, _first) = busy(&server, provider).await;
        let begun = Begun::of(&gateway, post(path_of(provider), body)).await;
        assert_eq!(begun.status, 200);
        let rest = begun.rest().await;
        assert!(rest.starts_with(expect) && rest.ends_with("}\n\n"), "{rest}");
        let refused = || {
            counted(
                &gateway,
                "tidegate_requests_total{model=\"*\",outcome=\"refused\"",
            )
        };
        until("it is counted", || refused() == 1.0).await;
        assert_eq!(counted(&gateway, "tidegate_refusals_total{"), 1.0);
        upstream.assert_quiet();
    }
}

#[tokio::test]
async fn an_error_of_the_upstreams_is_an_event() {
    let own = |status: u16| {
        format!(
            "data: {{\"error\":{{\"message\":\"The upstream up answered {status} and no stream of events.\",\
             \"type\":\"server_error\",\"param\":null,\"code\":\"upstream_failed\"}}}}\n\n"
        )
    };
    let of_anthropic =
        "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"no\"}}";
    for (provider, status, error, expect) in [
        (
            "openai",
            400,
            "{\n  \"error\": {\"message\": \"no\", \"code\": null}\n}\n",
            "data: {   \"error\": {\"message\": \"no\", \"code\": null} }\n\n".to_owned(),
        ),
        (
            "anthropic",
            400,
            of_anthropic,
            format!("event: error\ndata: {of_anthropic}\n\n"),
        ),
        ("openai", 502, "<html>bad gateway</html>", own(502)),
        ("openai", 200, "{\"choices\":[]}", own(200)),
    ] {
        let (gateway, mut upstream, seen, mut first) = busy(KEEPALIVE, provider).await;
        let begun = Begun::of(&gateway, post(path_of(provider), CHAT_STREAM_BODY)).await;
        free(seen, &mut first).await;
        upstream.request().await.answer_json(status, error);
        assert_eq!(begun.rest().await, expect);
        until("nothing is in flight", || in_flight(&gateway) == 0).await;
        let outcome = if status == 400 {
            "client_error"
        } else {
            "upstream_error"
        };
        let series = format!("tidegate_requests_total{{model=\"*\",outcome=\"{outcome}\"");
        until("it is counted", || counted(&gateway, &series) == 1.0).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_gives_up_its_place() {
    let (gateway, mut upstream, seen, mut first) = busy(KEEPALIVE, "openai").await;
    let mut client = RawClient::connect(gateway.address()).await;
    client.post(CHAT, CHAT_STREAM_BODY).await;
    client.read_until(COMMENT).await;
    assert_eq!(waiting(&gateway), 1);
    drop(client);
    until("the place is free", || waiting(&gateway) == 0).await;
    let canceled = || {
        counted(
            &gateway,
            "tidegate_requests_total{model=\"*\",outcome=\"canceled\"",
        )
    };
    until("it is counted", || canceled() == 1.0).await;
    free(seen, &mut first).await;
    until("nothing is in flight", || in_flight(&gateway) == 0).await;
    upstream.assert_quiet();
}

#[tokio::test]
async fn a_client_that_leaves_later_takes_the_upstreams_request_with_it() {
    let (gateway, mut upstream, seen, mut first) = busy(KEEPALIVE, "openai").await;
    let mut client = RawClient::connect(gateway.address()).await;
    client.post(CHAT, CHAT_STREAM_BODY).await;
    client.read_until(COMMENT).await;
    free(seen, &mut first).await;
    let _unanswered = upstream.request().await;
    assert_eq!(in_flight(&gateway), 1);
    drop(client);
    upstream.gone().await;
    until("nothing is in flight", || in_flight(&gateway) == 0).await;
}

#[tokio::test]
async fn who_waits_for_another_attempt_is_kept_alive_too() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, KEEPALIVE, "", "rpm = 100");
    let asking = Begun::of(&gateway, post(CHAT, CHAT_STREAM_BODY));
    let answering = async {
        let headers = [("retry-after-ms", "200"), ("retry-after", "1")];
        upstream.request().await.answer(429, &headers, "{}");
        let stream = upstream.request().await.stream_events();
        stream.send("data: {}\n\n").await;
    };
    let (begun, ()) = tokio::join!(asking, answering);
    assert_eq!(begun.status, 200);
    assert_eq!(begun.rest().await, "data: {}\n\n");
}

#[tokio::test]
async fn only_streams_of_events_are_kept_alive() {
    const INPUT: &str = r#"{"model":"m","input":"a"}"#;
    const INPUT_STREAM: &str = r#"{"model":"m","input":"a","stream":true}"#;
    const GEMINI: &str = "/v1beta/models/g:streamGenerateContent";
    for (provider, path, body, is_kept_alive) in [
        ("openai", CHAT, CHAT_BODY, false),
        ("openai", "/v1/responses", INPUT, false),
        ("openai", "/v1/responses", INPUT_STREAM, true),
        ("gemini", GEMINI, CHAT_BODY, false),
        ("gemini", path_of("gemini"), CHAT_BODY, true),
        ("anthropic", "/v1/messages", CHAT_BODY, false),
        ("anthropic", "/v1/messages", CHAT_STREAM_BODY, true),
    ] {
        let (gateway, mut upstream, seen, mut first) = busy(KEEPALIVE, provider).await;
        let asking = Begun::of(&gateway, post(path, body));
        let watching = async {
            until("it waits", || waiting(&gateway) == 1).await;
            // One that came later is kept alive by now, as this one would be.
            Begun::of(&gateway, post(path_of(provider), CHAT_STREAM_BODY))
                .await
                .comments(3)
                .await;
            free(seen, &mut first).await;
            let headers = [("content-type", "text/event-stream"), ("x-own", "1")];
            let stream = upstream.request().await.stream(&headers);
            stream.send("data: {}\n\n").await;
        };
        let (mut begun, ()) = tokio::join!(asking, watching);
        while begun.part().await {}
        assert_eq!(
            begun.text.contains(COMMENT),
            is_kept_alive,
            "{path} {body}: {}",
            begun.text
        );
        assert_eq!(
            begun.headers.contains_key("x-own"),
            !is_kept_alive,
            "{path} {body}"
        );
        assert_eq!(begun.text.replace(COMMENT, ""), "data: {}\n\n");
    }
}

#[tokio::test]
async fn closing_refuses_with_an_event() {
    let (gateway, _upstream, _seen, _first) = busy(KEEPALIVE, "openai").await;
    let begun = Begun::of(&gateway, post(CHAT, CHAT_STREAM_BODY)).await;
    gateway.limiter().close();
    let rest = begun.rest().await;
    assert!(
        rest.starts_with("data: {\"error\":{") && rest.contains("shutting_down"),
        "{rest}"
    );
}
