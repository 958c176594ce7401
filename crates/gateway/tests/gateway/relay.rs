//! What crosses the gateway, and what does not.

use http_body_util::BodyExt;

use crate::support::*;

#[tokio::test]
async fn a_plain_request_and_its_answer_cross_byte_for_byte() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "", "", "rpm = 100");
    let mut client = Client::connect(gateway.address()).await;
    let odd = "{ \"model\":\"gpt-4o\" ,\n\"messages\":[{\"content\":\"\\u00e9\u{e9}\",\"role\":\"user\"}],\"x\":1e0 }";
    let mut request = post("/v1/chat/completions?beta=1", odd);
    request
        .headers_mut()
        .insert("x-forwarded-for", "10.0.0.1".parse().unwrap());
    request
        .headers_mut()
        .insert("accept-encoding", "gzip".parse().unwrap());
    let answering = tokio::spawn(async move { (client.send(request).await, client) });
    let seen = upstream.request().await;
    assert_eq!(seen.method, "POST");
    assert_eq!(seen.uri, "/v1/chat/completions?beta=1");
    assert_eq!(seen.body, odd);
    assert_eq!(seen.headers["authorization"], "Bearer sk-client");
    assert_eq!(seen.headers["host"], upstream.address.to_string());
    assert_eq!(seen.headers["content-length"], odd.len().to_string());
    for absent in ["x-forwarded-for", "accept-encoding", "connection"] {
        assert!(!seen.headers.contains_key(absent), "{absent}");
    }
    let first = seen.connection;
    let body = "{\"id\": \"x\",  \"usage\": {\"prompt_tokens\": 3, \"completion_tokens\": 1}}";
    seen.answer(
        200,
        &[
            ("content-type", "application/json"),
            ("x-ratelimit-remaining-requests", "99"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("keep-alive", "timeout=5"),
        ],
        body,
    );
    let (answer, mut client) = answering.await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, body));
    assert_eq!(
        answer.header("content-length"),
        Some(body.len().to_string().as_str())
    );
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some("99"));
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
    assert!(!answer.headers.contains_key("keep-alive"));
    assert_eq!(answer.header("x-tidegate-queue-ms"), Some("0"));
    assert_eq!(answer.header("x-tidegate-attempts"), Some("1"));
    assert_eq!(answer.header("x-tidegate-limited-by"), None);
    let id = answer.header("x-tidegate-request-id").unwrap();
    assert!(id.starts_with("tg-") && id.len() == 19, "{id}");
    assert_eq!(in_flight(&gateway), 0);

    let answering = tokio::spawn(async move { client.send(chat()).await });
    let seen = upstream.request().await;
    assert_eq!(seen.connection, first, "the connection is kept");
    seen.answer_json(200, "{}");
    assert_eq!(answering.await.unwrap().text(), "{}");
}

#[tokio::test]
async fn a_stream_is_relayed_part_by_part() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "", "", "rpm = 100");
    let mut client = Client::connect(gateway.address()).await;
    let answering = tokio::spawn(async move { client.open(post(CHAT, CHAT_STREAM_BODY)).await });
    let stream = upstream.request().await.stream_events();
    let mut body = answering.await.unwrap().into_body();
    let parts = [
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
        ": a comment\r\n\r\nda",
        "ta: {\"choices\":[]}\r\n\r\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n",
    ];
    for part in parts {
        stream.send(part).await;
        let mut got = String::new();
        while got.len() < part.len() {
            let frame = soon("a part comes", body.frame()).await.unwrap().unwrap();
            got.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
        assert_eq!(got, part);
    }
    drop(stream);
    assert!(soon("the end comes", body.frame()).await.is_none());
    until("the permit is settled", || in_flight(&gateway) == 0).await;
    upstream.assert_quiet();
}

#[tokio::test]
async fn other_paths_pass_through_and_take_a_request_each() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "", "", "rpm = 100");
    for (method, path, seen_path) in [
        ("GET", "/v1/models", "/v1/models"),
        ("GET", "/models/gpt-4o", "/v1/models/gpt-4o"),
        (
            "GET",
            "/v1/chat/completions?limit=2",
            "/v1/chat/completions?limit=2",
        ),
        ("DELETE", "/v1/files/file-1", "/v1/files/file-1"),
        ("POST", "/v1/files", "/v1/files"),
        ("GET", "/up/any/thing?a=b", "/any/thing?a=b"),
        (
            "POST",
            "/up/v1/responses/resp_1/cancel",
            "/v1/responses/resp_1/cancel",
        ),
        ("POST", "/chat/completions", "/v1/chat/completions"),
        ("POST", "/up/v1/chat/completions", "/v1/chat/completions"),
    ] {
        let body = if method == "POST" { CHAT_BODY } else { "" };
        let mut request = post(path, body);
        *request.method_mut() = method.parse().unwrap();
        let answering = tokio::spawn(send(gateway.address(), request));
        let seen = upstream.request().await;
        assert_eq!(
            (seen.method.as_str(), seen.uri.to_string().as_str()),
            (method, seen_path)
        );
        assert_eq!(seen.body, body, "{method} {path}");
        seen.answer(
            200,
            &[("content-type", "application/octet-stream")],
            vec![0, 255, 10],
        );
        let answer = answering.await.unwrap();
        assert_eq!(
            (answer.status, &answer.body[..]),
            (200, &[0, 255, 10][..]),
            "{method} {path}"
        );
    }
    until("nothing is in flight", || in_flight(&gateway) == 0).await;
    let admitted: u64 = gateway
        .limiter()
        .snapshot()
        .quotas
        .iter()
        .map(|quota| quota.totals.admitted)
        .sum();
    assert_eq!(admitted, 9);
}
