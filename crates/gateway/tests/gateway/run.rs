//! Runs of agents, as clients name them.

use tidegate_gateway::config::Config;
use tidegate_gateway::serve::Gateway;

use crate::support::*;

#[tokio::test]
async fn a_run_is_told_back() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "", "", "rpm = 100");
    for (name, value, expect) in [
        ("x-tidegate-run-id", "run 7", Some("run 7")),
        // What tools say is looked for only where runs are limited.
        ("x-litellm-trace-id", "trace", None),
    ] {
        let mut request = chat();
        request.headers_mut().insert(name, value.parse().unwrap());
        let answering = tokio::spawn(send(gateway.address(), request));
        let seen = upstream.request().await;
        assert!(!seen.headers.contains_key("x-tidegate-run-id"));
        seen.answer_json(200, "{}");
        let answer = answering.await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-tidegate-run-id"), expect);
        assert_eq!(answer.header("x-tidegate-run-warning"), None);
    }
}

#[tokio::test]
async fn a_name_that_is_none_is_refused() {
    let mut upstream = Upstream::start().await;
    let gateway = gateway(upstream.address, "", "", "rpm = 100");
    let longer = "r".repeat(129);
    for (name, value) in [
        ("x-tidegate-run-id", longer.as_str()),
        ("x-tidegate-run-id", ""),
        ("x-tidegate-parent-run-id", longer.as_str()),
    ] {
        let mut request = chat();
        if name.contains("parent") {
            request
                .headers_mut()
                .insert("x-tidegate-run-id", "r".parse().unwrap());
        }
        request.headers_mut().insert(name, value.parse().unwrap());
        let answer = send(gateway.address(), request).await;
        assert_eq!(answer.status, 400, "{name}: {value}");
        assert!(
            answer.text().contains("\"bad_request\"") && answer.text().contains("printable"),
            "{}",
            answer.text()
        );
    }
    upstream.assert_quiet();
}

/// Where runs are limited, what tools say of them counts as well: in headers, and in the body.
#[tokio::test]
async fn tools_are_heard_where_runs_are_limited() {
    let mut upstream = Upstream::start().await;
    let mut config = config(&format!("http://{}", upstream.address), "", "", "rpm = 100");
    config.runs.calls = Some(50);
    let gateway = Gateway::start(config).unwrap();
    let in_body = r#"{"model":"m","metadata":{"session_id":"of-body"},"messages":[]}"#;
    for (name, value, body, expect) in [
        ("x-litellm-trace-id", "trace", CHAT_BODY, Some("trace")),
        (
            "x-claude-code-session-id",
            "0f-session",
            in_body,
            Some("0f-session"),
        ),
        ("x-tidegate-run-id", "own", in_body, Some("own")),
        ("x-other", "1", in_body, Some("of-body")),
        ("x-other", "1", CHAT_BODY, None),
    ] {
        let mut request = post(CHAT, body);
        request.headers_mut().insert(name, value.parse().unwrap());
        let answering = tokio::spawn(send(gateway.address(), request));
        let seen = upstream.request().await;
        assert_eq!(seen.body, body);
        seen.answer_json(200, "{}");
        let answer = answering.await.unwrap();
        assert_eq!((answer.status, answer.header("x-tidegate-run-id")), (200, expect));
    }
}

/// The engine knows runs by their hashes; people know them by their names.
#[tokio::test]
async fn the_status_page_calls_runs_by_their_names() {
    let mut upstream = Upstream::start().await;
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\n\
         [[upstreams]]\nprovider = \"openai\"\nbase_url = \"http://{}\"",
        upstream.address
    );
    let gateway = Gateway::start(Config::from_toml(&text, "test").unwrap()).unwrap();
    let mut request = chat();
    let headers = request.headers_mut();
    headers.insert("x-tidegate-run-id", "tide-7".parse().unwrap());
    headers.insert("x-tidegate-parent-run-id", "tide-6".parse().unwrap());
    let answering = tokio::spawn(send(gateway.address(), request));
    upstream.request().await.answer_json(200, "{}");
    assert_eq!(answering.await.unwrap().status, 200);
    let page = send(gateway.admin_address().unwrap(), get("/status")).await;
    let page: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
    let runs = page["runs"].as_array().unwrap().iter();
    let mut names: Vec<_> = runs.map(|run| run["run"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["tide-6", "tide-7"]);
}

/// What a run uses, the one that started it uses too; who reads the refusal of the child must look at the right one.
#[tokio::test]
async fn a_refusal_names_the_run_that_is_used_up() {
    let mut upstream = Upstream::start().await;
    let mut config = config(&format!("http://{}", upstream.address), "", "", "rpm = 100");
    config.runs.calls = Some(4);
    let gateway = Gateway::start(config).unwrap();
    let request = |run: &str, parent: &str| {
        let mut request = chat();
        let headers = request.headers_mut();
        headers.insert("x-tidegate-run-id", run.parse().unwrap());
        if !parent.is_empty() {
            headers.insert("x-tidegate-parent-run-id", parent.parse().unwrap());
        }
        request
    };
    for (run, parent, warning) in [
        ("P", "", None),
        ("k1", "P", None),
        ("k1", "P", None),
        ("k2", "P", Some("calls 4/4 of run P")),
    ] {
        let answering = tokio::spawn(send(gateway.address(), request(run, parent)));
        upstream.request().await.answer_json(200, "{}");
        let answer = answering.await.unwrap();
        assert_eq!(
            (answer.status, answer.header("x-tidegate-run-warning")),
            (200, warning),
            "{run}"
        );
    }
    for (run, parent, expect) in [
        ("P", "", r#"Run \"P\" has made 4 of its 4 calls and is stopped."#),
        (
            "k1",
            "P",
            r#"Run \"P\", which started run \"k1\", has made 4 of its 4 calls and is stopped."#,
        ),
        // Its parent is known from before, but it does not say so itself.
        (
            "k1",
            "",
            r#"A run above run \"k1\" has made 4 of its 4 calls and is stopped."#,
        ),
        (
            "g",
            "k1",
            r#"A run above run \"g\" has made 4 of its 4 calls and is stopped."#,
        ),
    ] {
        let answer = send(gateway.address(), request(run, parent)).await;
        assert_eq!(answer.status, 402, "{run}");
        assert!(answer.text().contains(expect), "{}", answer.text());
    }
    upstream.assert_quiet();
}
