//! The admin listener, over real connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::{Value, json};
use tidegate_gateway::admin::{AdminServer, AdminState};
use tidegate_gateway::config::Config;
use tidegate_gateway::metrics::Metrics;

use crate::client::request;
use crate::snapshot;

const CANARY: &str = "sk-canary-0b1d6e88";

struct Running {
    state: Arc<AdminState>,
    server: AdminServer,
}

impl Running {
    fn start(text: &str) -> Self {
        let config = config(text);
        let state = AdminState::new(Arc::new(Metrics::new()), config, snapshot::busy);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = AdminServer::start(listener, Arc::clone(&state)).unwrap();
        Self { state, server }
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn status(&self, path: &str) -> u16 {
        request(self.address(), "GET", path, &[]).status
    }

    fn page(&self) -> Value {
        let answer = request(self.address(), "GET", "/status", &[]);
        assert_eq!(answer.status, 200);
        assert!(
            answer.head.contains("content-type: application/json"),
            "{}",
            answer.head
        );
        serde_json::from_str(&answer.body).unwrap()
    }
}

fn config(text: &str) -> Arc<Config> {
    let environment = |_: &str| Ok(CANARY.to_owned());
    Arc::new(Config::from_toml_with(text, "tidegate.toml", environment).unwrap())
}

#[test]
fn readiness_follows_the_program() {
    let running = Running::start("");
    assert_eq!(
        (running.status("/healthz"), running.status("/readyz")),
        (200, 503)
    );
    running.state.listening();
    assert_eq!(
        (running.status("/healthz"), running.status("/readyz")),
        (200, 200)
    );
    running.state.draining();
    assert_eq!(
        (running.status("/healthz"), running.status("/readyz")),
        (200, 503)
    );
    assert_eq!(running.page()["state"], "draining");
}

#[test]
fn the_status_tells_who_waits_for_what() {
    let text = "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nmodels = [\"gpt-4o\"]\nrpm = 500\ntpm = 30000\n\
                [[tenants]]\nname = \"search-team\"\n[[routes]]\nname = \"chat\"\nrpm = 100";
    let page = Running::start(text).page();
    assert_eq!(page["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(page["config"]["source"], "tidegate.toml");
    assert_eq!(page["upstreams"][0]["groups"], json!(["openai/gpt-4o", "openai"]));
    assert_eq!(page["quotas_in_use"], 4);
    let busy = &page["quotas"][0];
    assert_eq!(
        (busy["group"].as_str(), busy["waiting"].as_u64()),
        (Some("openai/gpt-4o"), Some(2))
    );
    assert_eq!(
        busy["limits"][1],
        json!({
            "dimension": "tokens", "window": "60s", "limit": 30_000, "used": 29_000, "held": 0, "foreign": 0,
            "margin_ms": 1_000, "source": "header", "age_s": 1_000,
        })
    );
    assert_eq!(
        busy["line"],
        json!([
            { "place": 1, "reason": "tokens", "limit": "30000 tokens in 60s", "tenant": "search-team",
              "priority": "high", "route": "chat", "waited_ms": 1_500, "eta_ms": 2_500 },
            { "place": 2, "reason": "line", "priority": "normal", "waited_ms": 1_500 },
        ])
    );
    let forgotten = format!("{:x}", tidegate_core::TenantId::of("forgotten").value());
    let shares: Vec<_> = busy["shares"]
        .as_array()
        .unwrap()
        .iter()
        .map(|share| share["tenant"].as_str())
        .collect();
    assert_eq!(shares, [Some("search-team"), None, Some(forgotten.as_str())]);
    assert_eq!(
        busy["shares"][0],
        json!({ "tenant": "search-team", "priority": "high", "weight": 2, "waiting": 1, "waiting_bytes": 2_048,
                "used_per_million": 250_000 })
    );
    assert_eq!(
        page["allowances"][0],
        json!({ "tenant": "search-team", "budgets": [{
            "unit": "micro_dollars", "period": "month", "limit": 500_000_000, "used": 12_500_000, "held": 300,
            "renews_s": 3_600,
        }] })
    );
    assert_eq!(page["allowances"][1]["route"], "chat");
    assert_eq!(page["allowances"][1]["limits"][0]["used"], 7);
    assert_eq!(
        page["runs"],
        json!([{ "run": "abc", "calls": 41, "tokens": 90_000, "micro_dollars": 1_700_000, "time_ms": 60_000, "depth": 2,
                 "repeats": 3, "warning": { "what": "run_calls", "used": 41, "most": 50, "text": "calls 41/50" } }])
    );
    assert_eq!(page["quotas"][1]["hold_ms"], 7_000);
    assert_eq!(page["quotas"][3]["upstream"], "gone");
}

#[test]
fn a_failed_reload_shows_until_one_succeeds() {
    let running = Running::start("");
    assert_eq!(running.page()["config"].get("last_reload_failed"), None);
    let error = Config::from_toml("[server]\nworkers = 0", "tidegate.toml").unwrap_err();
    running.state.reload_failed(&error);
    let failed = running.page()["config"]["last_reload_failed"]["error"].to_string();
    assert!(failed.contains("tidegate.toml:2:11"), "{failed}");
    running
        .state
        .reloaded(config("[[upstreams]]\nprovider = \"anthropic\""));
    let page = running.page();
    assert_eq!(page["config"].get("last_reload_failed"), None);
    assert_eq!(page["upstreams"][0]["name"], "anthropic");
    let metrics = request(running.address(), "GET", "/metrics", &[]).body;
    for outcome in ["success", "failure"] {
        let line = format!("tidegate_config_reloads_total{{outcome=\"{outcome}\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[test]
fn a_token_guards_what_tells_something() {
    let running = Running::start("[server]\nadmin_token = \"env:TOKEN\"");
    running.state.listening();
    let check = |path: &str, header: &str, status: u16| {
        let answer = request(running.address(), "GET", path, &[header]);
        assert_eq!(answer.status, status, "{path} {header}");
    };
    let right = format!("authorization: Bearer {CANARY}");
    for path in ["/metrics", "/status"] {
        check(path, &right, 200);
        check(path, &right.replace("Bearer", "bearer"), 200);
        check(path, "x-nothing: 1", 401);
        check(path, &format!("authorization: {CANARY}"), 401);
        check(path, &format!("authorization: Basic {CANARY}"), 401);
        check(path, &right[..right.len() - 1], 401);
        check(path, &format!("{right}x"), 401);
        check(path, "authorization: Bearer", 401);
        check(path, "authorization: Bearer \u{e4}", 401);
    }
    check("/healthz", "x-nothing: 1", 200);
    check("/readyz", "x-nothing: 1", 200);
}

#[test]
fn other_methods_and_paths_are_told_what_there_is() {
    let running = Running::start("");
    let answer = request(running.address(), "POST", "/status", &[]);
    assert_eq!(answer.status, 405);
    assert!(answer.head.contains("allow: get"), "{}", answer.head);
    let answer = request(running.address(), "GET", "/", &[]);
    assert_eq!(answer.status, 404);
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert!(
        body["error"]["message"].as_str().unwrap().contains("/healthz"),
        "{body}"
    );
    assert_eq!(running.status("/metrics?a=b"), 200);
}

#[test]
fn nothing_that_is_sent_stops_it() {
    let running = Running::start("");
    // As many idle connections as there may be, and then some: the ones too many are closed at once.
    let idle: Vec<_> = (0..80)
        .map(|_| TcpStream::connect(running.address()).unwrap())
        .collect();
    let mut last = &idle[79];
    assert_eq!(last.read(&mut [0]).unwrap(), 0, "closed by the server");
    drop(idle);
    let flood = format!("x: {}", "y".repeat(64 * 1024));
    let mut stream = TcpStream::connect(running.address()).unwrap();
    let _ = stream.write_all(format!("GET /healthz HTTP/1.1\r\n{flood}\r\n\r\n").as_bytes());
    let _ = stream.read_to_end(&mut Vec::new());
    let mut stream = TcpStream::connect(running.address()).unwrap();
    let _ = stream.write_all(b"\x16\x03\x01 not http\r\n\r\n");
    let _ = stream.read_to_end(&mut Vec::new());
    // The server sees the ends of the idle connections in its own time.
    while TcpStream::connect(running.address())
        .and_then(|mut stream| {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(!answer.starts_with("HTTP/1.1 200"))
        })
        .unwrap_or(true)
    {}
}

#[test]
fn dropping_it_frees_the_port() {
    let running = Running::start("");
    let address = running.address();
    let _idle = TcpStream::connect(address).unwrap();
    drop(running);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn secrets_are_on_no_page() {
    let running = Running::start(&format!(
        "[server]\nadmin_token = \"env:TOKEN\"\n[[upstreams]]\nprovider = \"openai\"\napi_key = \"{CANARY}\"\n\
         [[upstreams]]\nprovider = \"anthropic\"\napi_key = \"env:KEY\""
    ));
    let right = format!("authorization: Bearer {CANARY}");
    for path in ["/healthz", "/readyz", "/metrics", "/status", "/other"] {
        let answer = request(running.address(), "GET", path, &[&right]);
        assert!(
            !answer.body.contains(CANARY) && !answer.head.contains(CANARY),
            "{path}: {}",
            answer.body
        );
    }
    let shown = format!("{:?} {:?}", running.state, running.server);
    assert!(!shown.contains(CANARY), "{shown}");
}
