//! `tidegate serve` as a program: its greeting, signals, reloads, and what it never says.

use std::io::Write;
use std::process::Stdio;

use http_body_util::BodyExt;
use tidegate_gateway::provider::Provider;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::support::*;

/// `tidegate` as a process.
pub(crate) struct Program {
    pub(crate) child: Child,
    out: Lines<BufReader<ChildStdout>>,
    log: Lines<BufReader<ChildStderr>>,
    pub(crate) said: String,
}

impl Program {
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[])
    }

    /// Starts it with more in its environment.
    pub(crate) fn start_with(args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(args)
            .envs(environment.iter().copied())
            .env("TIDEGATE_TEST_KEY", "sk-canary-own")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            out: BufReader::new(child.stdout.take().unwrap()).lines(),
            log: BufReader::new(child.stderr.take().unwrap()).lines(),
            said: String::new(),
            child,
        }
    }

    /// Waits for a line of its output.
    pub(crate) async fn out(&mut self, what: &str) -> String {
        loop {
            let line = soon(what, self.out.next_line()).await.unwrap().unwrap();
            self.said.push_str(&line);
            if line.contains(what) {
                return line;
            }
        }
    }

    /// Waits for a line of its log.
    pub(crate) async fn log(&mut self, what: &str) -> String {
        loop {
            let line = soon(what, self.log.next_line()).await.unwrap().unwrap();
            self.said.push_str(&line);
            if line.contains(what) {
                return line;
            }
        }
    }

    /// Returns everything that it has said, once it has ended.
    pub(crate) async fn rest(&mut self) -> String {
        while let Ok(Some(line)) = soon("its last line", self.out.next_line()).await {
            self.said.push_str(&line);
        }
        while let Ok(Some(line)) = soon("the last line of its log", self.log.next_line()).await {
            self.said.push_str(&line);
        }
        self.said.clone()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let status = std::process::Command::new("kill")
            .args(["-s", name, &pid])
            .status();
        assert!(status.unwrap().success());
    }
}

fn write_config(file: &mut tempfile::NamedTempFile, text: &str) {
    file.as_file_mut().set_len(0).unwrap();
    std::io::Seek::rewind(file.as_file_mut()).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.flush().unwrap();
}

#[tokio::test]
async fn it_greets_reloads_drains_and_keeps_secrets() {
    let mut upstream = Upstream::start().await;
    let good = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\n\
         [retry]\nbackoff_min = \"10ms\"\n\
         [[upstreams]]\nprovider = \"openai\"\nbase_url = \"http://{}\"\napi_key = \"env:TIDEGATE_TEST_KEY\"\n\
         [[upstreams]]\nprovider = \"anthropic\"\nbase_url = \"http://{}\"\n",
        upstream.address, upstream.address
    );
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write_config(&mut file, &good);
    let mut program = Program::start(&["serve", "--config", file.path().to_str().unwrap()]);
    let line = program.out("listening on http://").await;
    let address = line.rsplit('/').next().unwrap().parse().unwrap();
    let line = program.out("admin on http://").await;
    let admin = line.rsplit('/').next().unwrap().parse().unwrap();
    program.out("export OPENAI_BASE_URL=").await;
    program.out("export OPENAI_API_BASE=").await;
    program.out("export ANTHROPIC_BASE_URL=").await;

    // Its own key goes to one upstream and the client's to the other; an upstream that echoes keys is not quoted.
    let answer = tokio::spawn(send(address, chat()));
    let seen = upstream.request().await;
    assert_eq!(seen.headers["authorization"], "Bearer sk-canary-own");
    seen.answer_json(200, "{}");
    assert_eq!(answer.await.unwrap().status, 200);
    let mut request = post("/v1/messages", CHAT_BODY);
    request.headers_mut().remove("authorization");
    request
        .headers_mut()
        .insert("x-api-key", "sk-canary-client".parse().unwrap());
    let answer = tokio::spawn(send(address, request));
    let seen = upstream.request().await;
    assert_eq!(seen.headers["x-api-key"], "sk-canary-client");
    seen.answer_json(500, r#"{"error":"what is sk-canary-client?"}"#);
    upstream
        .request()
        .await
        .answer_json(401, r#"{"error":"bad key sk-canary-client"}"#);
    assert_eq!(answer.await.unwrap().status, 401);
    for page in ["/status", "/metrics"] {
        let answer = send(admin, get(page)).await;
        assert_eq!(answer.status, 200, "{page}");
        assert!(!answer.text().contains("canary"), "{page}: {}", answer.text());
    }
    assert_eq!(send(admin, get("/readyz")).await.status, 200);

    write_config(&mut file, &format!("{good}rpm = \"many\"\n"));
    program.signal("HUP");
    program.log("not reloaded").await;
    let status = send(admin, get("/status")).await;
    assert!(
        status.text().contains("rpm"),
        "the status page tells: {}",
        status.text()
    );
    let answer = tokio::spawn(send(address, chat()));
    upstream.request().await.answer_json(200, "{}");
    assert_eq!(answer.await.unwrap().status, 200, "the old one is in force");
    write_config(&mut file, &good);
    program.signal("HUP");
    program.log("configuration reloaded").await;

    let answer = tokio::spawn(send(address, chat()));
    let seen = upstream.request().await;
    program.signal("TERM");
    program.log("draining").await;
    seen.answer_json(200, "{}");
    assert_eq!(answer.await.unwrap().status, 200);
    let status = soon("it ends", program.child.wait()).await.unwrap();
    assert!(status.success());
    let mut rest = String::new();
    program.out.get_mut().read_to_string(&mut rest).await.unwrap();
    program.log.get_mut().read_to_string(&mut rest).await.unwrap();
    program.said.push_str(&rest);
    assert!(
        program.said.contains("status=200"),
        "requests are logged: {}",
        program.said
    );
    assert!(!program.said.contains("canary"), "{}", program.said);
}

/// Keys travel in four headers and in the query, and providers repeat them in their errors.
#[tokio::test]
async fn the_keys_of_no_provider_are_shown() {
    let upstream = Upstream::start().await.always(|seen| {
        let echo = r#"{"error":{"code":400,"message":"what is sk-canary-client?"}}"#;
        seen.answer_json(400, echo);
    });
    let mut text = "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\n".to_owned();
    for provider in Provider::ALL {
        text += &format!("[[upstreams]]\nprovider = \"{provider}\"\nbase_url = \"http://{upstream}\"\n");
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write_config(&mut file, &text);
    let path = file.path().to_str().unwrap();
    let log = "tidegate=trace,tidegate_gateway=trace";
    let mut program = Program::start(&["serve", "--config", path, "--log", log]);
    let line = program.out("listening on http://").await;
    let address = line.rsplit('/').next().unwrap().parse().unwrap();
    let line = program.out("admin on http://").await;
    let admin = line.rsplit('/').next().unwrap().parse().unwrap();
    for provider in Provider::ALL {
        program.out(&format!("http://{address}/{provider}")).await;
        for name in ["authorization", "x-api-key", "api-key", "x-goog-api-key", "query"] {
            let mut path = format!("/{provider}/v1/chat/completions");
            if name == "query" {
                path += "?key=sk-canary-client";
            }
            let mut request = post(&path, CHAT_BODY);
            request.headers_mut().remove("authorization");
            match name {
                "query" => None,
                "authorization" => request
                    .headers_mut()
                    .insert(name, "Bearer sk-canary-client".parse().unwrap()),
                _ => request
                    .headers_mut()
                    .insert(name, "sk-canary-client".parse().unwrap()),
            };
            let answer = send(address, request).await;
            assert_eq!(answer.status, 400, "{provider}, {name}: {}", answer.text());
        }
        // What Tidegate says itself repeats the path, but not the query.
        let answer = send(
            address,
            post(&format!("/no-{provider}/x?key=sk-canary-client"), "{}"),
        )
        .await;
        assert_eq!(answer.status, 404, "{provider}");
        assert!(!answer.text().contains("canary"), "{}", answer.text());
    }
    for page in ["/status", "/metrics"] {
        let answer = send(admin, get(page)).await;
        assert_eq!(answer.status, 200, "{page}");
        assert!(answer.text().contains("bedrock-mantle"), "{page}");
        assert!(!answer.text().contains("canary"), "{page}: {}", answer.text());
    }
    program.signal("TERM");
    let status = soon("it ends", program.child.wait()).await.unwrap();
    assert!(status.success());
    let mut rest = String::new();
    program.out.get_mut().read_to_string(&mut rest).await.unwrap();
    program.log.get_mut().read_to_string(&mut rest).await.unwrap();
    program.said.push_str(&rest);
    for provider in Provider::ALL {
        let line = format!("upstream=\"{provider}\"");
        assert!(program.said.contains(&line), "{provider}: {}", program.said);
    }
    assert!(!program.said.contains("canary"), "{}", program.said);
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut upstream = Upstream::start().await;
    let url = format!("http://{}", upstream.address);
    let mut program = Program::start(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "off",
        "--upstream",
        "openai",
        "--base-url",
        &url,
        "--rpm",
        "10",
    ]);
    let line = program.out("listening on http://").await;
    let mut client = RawClient::connect(line.rsplit('/').next().unwrap().parse().unwrap()).await;
    client.post_chat(CHAT_BODY).await;
    let _seen = upstream.request().await;
    program.signal("INT");
    program.log("draining").await;
    program.signal("INT");
    soon("it ends", program.child.wait()).await.unwrap();
    assert_eq!(client.read_to_end().await, "");
}

#[tokio::test]
async fn the_log_says_how_a_kept_alive_request_went() {
    let mut upstream = Upstream::start().await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"off\"\nqueue_keepalive = \"10ms\"\n\
         [[upstreams]]\nprovider = \"openai\"\nbase_url = \"http://{}\"\n\
         [[upstreams.limits]]\nmodels = [\"*\"]\nconcurrent = 1\n",
        upstream.address
    );
    write_config(&mut file, &text);
    let path = file.path().to_str().unwrap();
    let mut program = Program::start(&["serve", "--config", path, "--log-format", "json"]);
    let line = program.out("listening on http://").await;
    let address = line.rsplit('/').next().unwrap().parse().unwrap();
    let first = tokio::spawn(send(address, chat()));
    let seen = upstream.request().await;
    let mut request = post(CHAT, CHAT_STREAM_BODY);
    request
        .headers_mut()
        .insert("x-tidegate-run-id", "run-7".parse().unwrap());
    let mut client = Client::connect(address).await;
    let response = client.open(request).await;
    assert_eq!(response.status(), 200);
    seen.answer_json(200, "{}");
    assert_eq!(first.await.unwrap().status, 200);
    let stream = upstream.request().await.stream_events();
    stream.send("data: [DONE]\n\n").await;
    drop(stream);
    soon("the answer ends", response.into_body().collect())
        .await
        .unwrap();
    let line = program.log("kept_alive").await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    for (field, expect) in [
        ("kept_alive", serde_json::json!(true)),
        ("status", serde_json::json!(200)),
        ("outcome", serde_json::json!("success")),
        ("attempts", serde_json::json!(1)),
        ("limited_by", serde_json::json!("concurrency")),
        ("run", serde_json::json!("run-7")),
    ] {
        assert_eq!(line[field], expect, "{field}: {line}");
    }
    assert!(line["queue_ms"].as_u64().unwrap() >= 10, "{line}");
}

/// Runs `tidegate keys` and returns what it printed.
async fn keys(args: &[&str], file: &std::path::Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = command.arg("keys").args(args).arg("--file").arg(file).output();
    let output = soon("the command ends", output).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn keys_are_made_and_revoked_while_it_runs() {
    let upstream = Upstream::start().await.always(|seen| seen.answer_json(200, "{}"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let first = keys(&["new", "--tenant", "team"], &file).await;
    let config = folder.path().join("tidegate.toml");
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"off\"\nworkers = 1\nkeys_file = {:?}\n\
         [[upstreams]]\nprovider = \"openai\"\nbase_url = \"http://{upstream}\"\napi_key = \"env:TIDEGATE_TEST_KEY\"\n\
         [[tenants]]\nname = \"team\"\n",
        file.to_str().unwrap()
    );
    std::fs::write(&config, text).unwrap();
    let mut program = Program::start(&["serve", "--config", config.to_str().unwrap()]);
    let line = program.out("listening on http://").await;
    let address = line.rsplit('/').next().unwrap().parse().unwrap();
    let status = async |key: &str| {
        let mut request = chat();
        let bearer = format!("Bearer {key}").parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
        send(address, request).await.status
    };
    assert_eq!(status(&first).await, 200);
    let line = program.log("status=200").await;
    assert!(
        line.contains("tenant=\"team\"") && line.contains("priority=\"normal\""),
        "{line}"
    );

    let second = keys(&["new", "--tenant", "other-team"], &file).await;
    program.log("keys reloaded").await;
    assert_eq!(status(&second).await, 200);
    program.log("tenant=\"other-team\"").await;

    let id = tidegate_gateway::keys::read(&file).unwrap()[0].id.clone();
    keys(&["revoke", &id], &file).await;
    program.log("keys reloaded").await;
    assert_eq!(status(&first).await, 401);

    std::fs::write(&file, "[[keys]]\nid = 1\n").unwrap();
    program.log("keys not reloaded").await;
    assert_eq!(status(&second).await, 200, "the old ones stay in force");
    for key in [&first, &second] {
        assert!(!program.said.contains(key.as_str()), "{}", program.said);
    }
}
