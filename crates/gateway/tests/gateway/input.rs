//! What clients do wrong, and what they get for it.

use crate::support::*;

const ANTHROPIC: &str = r#"{"type":"error","error":{"#;
const OPENAI: &str = r#"{"error":{"#;

/// Every request, however it ended.
const COUNTED: &str = "tidegate_requests_total{";

#[tokio::test]
async fn bad_bodies_and_paths_are_refused_in_the_shape_of_the_provider() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "body_bytes_max = \"256KiB\"", "", "rpm = 1000");
    let deep = format!(
        r#"{{"model":"m","messages":{}1{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let large = format!(r#"{{"model":"m","x":"{}"}}"#, "a".repeat(256 * 1024));
    let table: Vec<(&str, &str, Vec<u8>, u16, &str)> = vec![
        ("POST", CHAT, Vec::new(), 400, OPENAI),
        ("POST", CHAT, CHAT_BODY.as_bytes()[..40].to_vec(), 400, OPENAI),
        ("POST", CHAT, b"[1,2]".to_vec(), 400, OPENAI),
        ("POST", CHAT, b"{\"model\":\"\xff\"}".to_vec(), 400, OPENAI),
        ("POST", CHAT, deep.into_bytes(), 400, OPENAI),
        ("POST", CHAT, large.clone().into_bytes(), 413, OPENAI),
        ("POST", "/up/v1/messages", large.into_bytes(), 413, ANTHROPIC),
        ("POST", "/up/v1/messages", b"{".to_vec(), 400, ANTHROPIC),
        ("DELETE", CHAT, Vec::new(), 405, OPENAI),
        ("GET", "/v1/embeddings", Vec::new(), 405, OPENAI),
        ("PUT", "/up/v1/messages", Vec::new(), 405, ANTHROPIC),
        ("GET", "/", Vec::new(), 404, OPENAI),
        ("GET", "/nowhere/v1/models", Vec::new(), 404, OPENAI),
        ("POST", "/v1/messages", b"{}".to_vec(), 404, ANTHROPIC),
        ("GET", "/up/v1/../secret", Vec::new(), 400, OPENAI),
        ("GET", "/up/v1/%2e%2E/secret", Vec::new(), 400, OPENAI),
    ];
    let rows = table.len();
    for (method, path, body, status, start) in table {
        let mut request = post(path, body.clone());
        *request.method_mut() = method.parse().unwrap();
        let answer = send(gateway.address(), request).await;
        let shown: String = String::from_utf8_lossy(&body).chars().take(40).collect();
        assert_eq!(
            answer.status,
            status,
            "{method} {path} {shown}: {}",
            answer.text()
        );
        assert!(
            answer.text().starts_with(start),
            "{method} {path}: {}",
            answer.text()
        );
        assert!(answer.header("x-tidegate-request-id").is_some());
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert_eq!(counted(&gateway, COUNTED), rows as f64, "each is counted once");
    assert_eq!(counted(&gateway, "tidegate_refusals_total{"), rows as f64);
    let mut request = chat();
    request
        .headers_mut()
        .insert("content-encoding", "gzip".parse().unwrap());
    assert_eq!(send(gateway.address(), request).await.status, 400);
    let mut request = chat();
    request
        .headers_mut()
        .insert("x-tidegate-max-wait", "soon".parse().unwrap());
    assert_eq!(send(gateway.address(), request).await.status, 400);
    upstream.assert_quiet();
    assert_eq!(waiting(&gateway) + in_flight(&gateway), 0);
}

#[tokio::test]
async fn strange_numbers_pass_on_as_they_are() {
    let address = Upstream::start().await.always(|seen| {
        let body = seen.body.clone();
        seen.answer(200, &[], body);
    });
    let gateway = gateway(address, "", "", "rpm = 1000");
    for body in [
        r#"{"model":"gpt-4o","max_tokens":-1,"messages":[]}"#,
        r#"{"model":"gpt-4o","max_tokens":1e30,"messages":[]}"#,
        r#"{"model":7,"n":"many","messages":null}"#,
        r#"{"model":"nobody-knows-it","stream":"yes"}"#,
    ] {
        let answer = send(gateway.address(), post(CHAT, body)).await;
        assert_eq!((answer.status, answer.text()), (200, body));
    }
}

#[tokio::test]
async fn bad_http_is_refused() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(
        upstream.address,
        "head_bytes_max = \"16KiB\"\nheaders_max = 50",
        "",
        "rpm = 1000",
    );
    let many: String = (0..60).map(|number| format!("x-{number}: 1\r\n")).collect();
    let long = format!("x-long: {}\r\n", "a".repeat(32 * 1024));
    let table = [
        (format!("GET /v1/models HTTP/1.1\r\nhost: g\r\n{many}\r\n"), "431"),
        (format!("GET /v1/models HTTP/1.1\r\nhost: g\r\n{long}\r\n"), "431"),
        (
            format!("GET /{} HTTP/1.1\r\nhost: g\r\n\r\n", "a".repeat(70_000)),
            "4",
        ),
        (
            format!("POST {CHAT} HTTP/1.1\r\nhost: g\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"),
            "400",
        ),
        (
            format!("POST {CHAT} HTTP/1.1\r\nhost: g\r\ncontent-length: -2\r\n\r\n{{}}"),
            "400",
        ),
        (
            format!("POST {CHAT} HTTP/1.1\r\nhost: g\r\ntransfer-encoding: gzip\r\n\r\n{{}}"),
            "400",
        ),
        ("GET /v1/models HTTP/1.1\r\nhost : g\r\n\r\n".to_owned(), "400"),
        ("nonsense\r\n\r\n".to_owned(), "400"),
    ];
    for (request, status) in table {
        let mut client = RawClient::connect(gateway.address()).await;
        // The gateway may answer and close before it has read it all.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.0, request.as_bytes()).await;
        let answer = client.read_to_end().await;
        let start: String = request.chars().take(60).collect();
        assert!(
            answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{start}: {answer}"
        );
    }
    upstream.assert_quiet();
}

#[tokio::test]
async fn old_and_hasty_clients_are_served() {
    let address = Upstream::start().await.always(|seen| {
        let body = seen.body.clone();
        assert_eq!(seen.headers["content-length"], *body.len().to_string());
        assert!(!seen.headers.contains_key("transfer-encoding"));
        seen.answer(200, &[], body);
    });
    let gateway = gateway(address, "", "", "rpm = 1000");
    let length = CHAT_BODY.len();

    let mut client = RawClient::connect(gateway.address()).await;
    client
        .write(format!(
            "POST {CHAT} HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{CHAT_BODY}"
        ))
        .await;
    let answer = client.read_to_end().await;
    assert!(
        answer.starts_with("HTTP/1.0 200") && answer.ends_with(CHAT_BODY),
        "{answer}"
    );

    // Requests one after another without waiting for answers: each has its own, in order.
    let mut client = RawClient::connect(gateway.address()).await;
    for number in 0..20 {
        client
            .post_chat(&format!(r#"{{"model":"m","number":{number}}}"#))
            .await;
    }
    let answers = client.read_until(r#""number":19}"#).await;
    let order: Vec<usize> = (0..20)
        .map(|number| answers.find(&format!(r#""number":{number}}}"#)).unwrap())
        .collect();
    assert!(order.is_sorted(), "{answers}");

    // With two lengths the chunks count (RFC 9112 §6.1), and what goes on has one length.
    let mut client = RawClient::connect(gateway.address()).await;
    client
        .write(format!(
            "POST {CHAT} HTTP/1.1\r\nhost: g\r\nconnection: close\r\ncontent-length: 4\r\n\
             transfer-encoding: chunked\r\n\r\n{length:x}\r\n{CHAT_BODY}\r\n0\r\n\r\n"
        ))
        .await;
    let answer = client.read_to_end().await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with(CHAT_BODY),
        "{answer}"
    );
}

#[tokio::test]
async fn a_large_body_passes_and_one_that_breaks_off_does_not() {
    let address = Upstream::start().await.always(|seen| {
        let length = seen.body.len();
        seen.answer(200, &[], length.to_string());
    });
    let gateway = gateway(address, "", "", "rpm = 1000");
    let text = "tide ".repeat(4_000_000);
    let body = format!(r#"{{"model":"gpt-4o","messages":[{{"role":"user","content":"{text}"}}]}}"#);
    let length = body.len().to_string();
    let answer = send(gateway.address(), post(CHAT, body)).await;
    assert_eq!((answer.status, answer.text()), (200, length.as_str()));

    for rest in [
        "content-length: 200\r\n\r\n{",
        "transfer-encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let mut client = RawClient::connect(gateway.address()).await;
        client
            .write(format!("POST {CHAT} HTTP/1.1\r\nhost: g\r\n{rest}"))
            .await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.0).await.unwrap();
        let answer = client.read_to_end().await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{rest}: {answer}"
        );
    }
    until("nothing is left", || waiting(&gateway) + in_flight(&gateway) == 0).await;
}

#[tokio::test]
async fn a_body_is_counted_even_if_its_length_is_not_announced() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "body_bytes_max = \"4KiB\"", "", "rpm = 1000");
    let mut client = RawClient::connect(gateway.address()).await;
    client
        .write(format!(
            "POST {CHAT} HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n"
        ))
        .await;
    for _ in 0..5 {
        client.write(format!("400\r\n{}\r\n", "a".repeat(1024))).await;
    }
    client.write("0\r\n\r\n").await;
    let answer = client.read_until("\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    upstream.assert_quiet();
}

#[tokio::test]
async fn clients_that_go_to_sleep_are_let_go() {
    let mut upstream = Upstream::start().await;
    let server = "head_timeout = \"100ms\"\nbody_timeout = \"100ms\"\nidle_timeout = \"200ms\"";
    let gateway = gateway(upstream.address, server, "", "rpm = 1000");
    for (sent, answered) in [
        ("", ""),
        ("PRI * HT", ""),
        ("POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nx-slow: ", ""),
        (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-length: 10\r\n\r\n{",
            "HTTP/1.1 408",
        ),
    ] {
        let mut client = RawClient::connect(gateway.address()).await;
        client.write(sent).await;
        let answer = client.read_to_end().await;
        assert!(answer.starts_with(answered), "{sent}: {answer}");
        assert_eq!(answer.is_empty(), answered.is_empty(), "{sent}: {answer}");
    }
    // One byte at a time is sleep as well.
    let mut client = RawClient::connect(gateway.address()).await;
    client.write("POST / HTTP/1.1\r\nx: ").await;
    let dripping = async {
        let mut drip = tokio::time::interval(std::time::Duration::from_millis(10));
        loop {
            drip.tick().await;
            if tokio::io::AsyncWriteExt::write_all(&mut client.0, b"a")
                .await
                .is_err()
            {
                return;
            }
        }
    };
    soon("the drip is cut", dripping).await;
    upstream.assert_quiet();
}
