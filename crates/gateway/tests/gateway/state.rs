//! What survives a restart of the program, and what is presumed after its crash.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use tidegate_gateway::serve::{Gateway, StartError};

use crate::program::Program;
use crate::support::*;

/// A folder for configuration and state, and an upstream.
struct Place {
    folder: tempfile::TempDir,
    upstream: Upstream,
}

/// A running program, and where it listens.
struct Running {
    program: Program,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Place {
    /// `limits` are lines of that table.
    async fn new(limits: &str) -> Self {
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
            upstream: Upstream::start().await,
        };
        place.configure(
            &format!("state_file = \"{}\"", place.state().display()),
            limits,
            "api_key = \"env:TIDEGATE_TEST_KEY\"",
        );
        place
    }

    fn configure(&self, server: &str, limits: &str, upstream: &str) {
        let limits = if limits.is_empty() {
            String::new()
        } else {
            format!("[[upstreams.limits]]\nmodels = [\"*\"]\n{limits}\n")
        };
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\n{server}\n\
             [[upstreams]]\nprovider = \"openai\"\nbase_url = \"http://{}\"\n{upstream}\n{limits}",
            self.upstream.address
        );
        std::fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("tidegate.toml")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("tidegate.state")
    }

    async fn start(&self) -> Running {
        self.start_with(&[]).await
    }

    async fn start_with(&self, environment: &[(&str, &str)]) -> Running {
        let config = self.config();
        let args = ["serve", "--config", config.to_str().unwrap()];
        let mut program = Program::start_with(&args, environment);
        let address = |line: String| line.rsplit('/').next().unwrap().parse().unwrap();
        let listening = address(program.out("listening on http://").await);
        let admin = address(program.out("admin on http://").await);
        Running {
            program,
            address: listening,
            admin,
        }
    }

    /// Sends a request and lets the upstream answer it with these headers.
    async fn serve(&mut self, running: &Running, headers: &[(&'static str, &'static str)]) {
        let answer = tokio::spawn(send(running.address, chat()));
        let seen = self.upstream.request().await;
        let body = r#"{"usage":{"prompt_tokens":5,"completion_tokens":5,"total_tokens":10}}"#;
        seen.answer(
            200,
            &[&[("content-type", "application/json")], headers].concat(),
            body,
        );
        assert_eq!(answer.await.unwrap().status, 200);
    }
}

impl Running {
    async fn status(&self) -> Json {
        serde_json::from_str(send(self.admin, get("/status")).await.text()).unwrap()
    }

    /// Waits until the status page shows a limit so: it may be a moment old.
    async fn shows(&self, what: &str, holds: impl Fn(&Json) -> bool) {
        soon(what, async {
            let mut look = tokio::time::interval(std::time::Duration::from_millis(5));
            while !holds(&self.status().await["quotas"][0]["limits"][0]) {
                look.tick().await;
            }
        })
        .await;
    }

    async fn start_of_state(&self) -> String {
        self.status().await["state_file"]["state"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Sends a request that has no time to wait, and is refused.
    async fn refused(&self) -> Answer {
        let mut request = chat();
        let wait = "1s".parse().unwrap();
        request.headers_mut().insert("x-tidegate-max-wait", wait);
        let answer = send(self.address, request).await;
        assert_eq!(answer.status, 429, "{}", answer.text());
        answer
    }

    /// Ends it as systemd does.
    async fn end(mut self) -> String {
        self.program.signal("TERM");
        let status = soon("it ends", self.program.child.wait()).await.unwrap();
        assert!(status.success());
        self.program.said
    }

    /// Kills it.
    async fn kill(mut self) {
        self.program.child.kill().await.unwrap();
    }
}

fn saved(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[tokio::test]
async fn charges_survive_a_graceful_restart() {
    let mut place = Place::new("rpm = 2").await;
    let running = place.start().await;
    assert_eq!(running.start_of_state().await, "fresh");
    assert_eq!(saved(&place.state())["ended"], false, "it says that it runs");
    for _ in 0..2 {
        place.serve(&running, &[]).await;
    }
    running.end().await;
    let page = saved(&place.state());
    assert_eq!(page["ended"], true);
    assert!(!page.to_string().contains("canary"), "no keys: {page}");

    let running = place.start().await;
    assert_eq!(running.start_of_state().await, "restored");
    running.refused().await;
    place.upstream.assert_quiet();
    running.end().await;
}

#[tokio::test]
async fn a_restart_waits_for_the_window_to_pass_and_goes_on() {
    let mut place = Place::new("rpm = 2").await;
    let state = format!("state_file = \"{}\"", place.state().display());
    place.configure(
        &state,
        "rpm = 2",
        "window = \"2s\"\napi_key = \"env:TIDEGATE_TEST_KEY\"",
    );
    let running = place.start().await;
    for _ in 0..2 {
        place.serve(&running, &[]).await;
    }
    running.end().await;
    let running = place.start().await;
    place.serve(&running, &[]).await;
    running.end().await;
}

#[tokio::test]
async fn passed_through_keys_are_known_again_by_their_hash() {
    let mut place = Place::new("rpm = 1").await;
    let state = format!("state_file = \"{}\"", place.state().display());
    place.configure(&state, "rpm = 1", "");
    let running = place.start().await;
    place.serve(&running, &[]).await;
    running.end().await;
    let text = std::fs::read_to_string(place.state()).unwrap();
    assert!(!text.contains("sk-client"), "{text}");
    let running = place.start().await;
    running.refused().await;
    running.end().await;
}

#[tokio::test]
async fn after_a_crash_limits_count_as_used_until_answers_tell() {
    let mut place = Place::new("rpm = 10").await;
    let running = place.start().await;
    place.serve(&running, &[]).await;
    running.kill().await;
    assert_eq!(saved(&place.state())["ended"], false);

    let mut running = place.start().await;
    running.program.log("without saying goodbye").await;
    let start = running.start_of_state().await;
    assert!(start.starts_with("presumed used until 20"), "{start}");
    // One asks, and its answer tells nothing.
    place.serve(&running, &[]).await;
    running
        .shows("it is presumed", |limit| {
            limit["presumed"].as_u64().is_some_and(|presumed| presumed >= 9)
        })
        .await;
    running.refused().await;
    running.kill().await;

    let running = place.start().await;
    let headers = [
        ("x-ratelimit-limit-requests", "10"),
        ("x-ratelimit-remaining-requests", "7"),
    ];
    place.serve(&running, &headers).await;
    running
        .shows("nothing is presumed", |limit| {
            limit["used"].as_u64().is_some_and(|used| used >= 3) && limit["presumed"].is_null()
        })
        .await;
    place.serve(&running, &headers).await;
    running.end().await;
}

#[tokio::test]
async fn a_file_that_is_of_no_use_is_said_and_taken_for_a_crash() {
    let mut place = Place::new("rpm = 10").await;
    let other = r#"{"tidegate_state":99}"#;
    for (text, expect) in [
        ("{\"tidegate_state\":1", "is damaged"),
        (other, "is of version 99"),
    ] {
        std::fs::write(place.state(), text).unwrap();
        let mut running = place.start().await;
        let line = running.program.log(expect).await;
        assert!(line.contains("remove the file"), "{line}");
        let start = running.start_of_state().await;
        assert!(start.starts_with("presumed used until 20"), "{start}");
        place.serve(&running, &[]).await;
        running.refused().await;
        running.end().await;
    }
}

#[tokio::test]
async fn two_processes_do_not_share_a_file() {
    let place = Place::new("rpm = 10").await;
    let running = place.start().await;
    let config = place.config();
    let mut second = Program::start(&["serve", "--config", config.to_str().unwrap()]);
    second.log("another process uses it").await;
    assert!(!soon("it ends", second.child.wait()).await.unwrap().success());
    running.end().await;
    place.start().await.end().await;
}

#[tokio::test]
async fn systemd_says_where_the_state_is() {
    let place = Place::new("rpm = 10").await;
    place.configure("", "rpm = 10", "");
    let folder = place.folder.path().to_str().unwrap();
    let running = place
        .start_with(&[("STATE_DIRECTORY", &format!("{folder}:/nonexistent"))])
        .await;
    assert_eq!(running.start_of_state().await, "fresh");
    running.end().await;
    assert_eq!(saved(&place.state())["ended"], true);
    std::fs::remove_file(place.state()).unwrap();
    let running = place.start_with(&[("STATE_DIRECTORY", "")]).await;
    assert_eq!(running.status().await["state_file"], Json::Null);
    running.end().await;
    assert!(!place.state().exists());
}

#[tokio::test]
async fn a_folder_that_is_not_there_stops_the_start() {
    let upstream = Upstream::start().await;
    let base_url = format!("http://{}", upstream.address);
    let config = config(&base_url, "state_file = \"/nonexistent/a.state\"", "", "rpm = 1");
    let Err(StartError::State(error)) = Gateway::start(config) else {
        panic!("it starts all the same")
    };
    assert!(error.to_string().contains("cannot be locked"), "{error}");
}
