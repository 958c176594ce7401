//! Several gateways at one store, in process and as programs.

use std::io::Write;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::Full;
use tidegate_core::Standing;
use tidegate_gateway::config::Config;
use tidegate_gateway::serve::Gateway;

use crate::program::Program;
use crate::redis_server::RedisServer;
use crate::support::*;

/// A configuration at a store that is taken to be new.
fn shared(upstream: std::net::SocketAddr, store: &str, key: &str, limits: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nworkers = 1\n\
         [store]\nredis = \"{store}\"\ntrust_empty = true\n\
         [[upstreams]]\nname = \"up\"\nprovider = \"openai\"\nbase_url = \"http://{upstream}\"\n{key}\n\
         [[upstreams.limits]]\nmodels = [\"*\"]\n{limits}\n"
    )
}

fn start(text: &str) -> Gateway {
    let config = Config::from_toml(text, "test").unwrap_or_else(|error| panic!("{error}\n{text}"));
    Gateway::start(config).unwrap()
}

const KEY: &str = "api_key = \"sk-own\"";

/// A request that waits for at most so long.
fn impatient(wait: &'static str) -> Request<Full<bytes::Bytes>> {
    let mut request = chat();
    let wait = http::HeaderValue::from_static(wait);
    request.headers_mut().insert("x-tidegate-max-wait", wait);
    request
}

async fn page(gateway: &Gateway, path: &str) -> String {
    let answer = send(gateway.admin_address().unwrap(), get(path)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text().to_owned()
}

#[tokio::test]
async fn two_gateways_have_the_limit_of_one() {
    let server = RedisServer::start();
    let upstream = Upstream::start().await;
    let address = upstream.always(|seen| seen.answer_json(200, "{}"));
    let text = shared(address, &server.tcp_url(), KEY, "rpm = 4");
    let gateways = [start(&text), start(&text)];
    for round in 0..4 {
        let answer = send(gateways[round % 2].address(), chat()).await;
        assert_eq!(answer.status, 200);
        if round < 2 {
            // Whoever joins others waits until they know of it.
            continue;
        }
        // Nobody was in line: the store was asked, that is all.
        assert_eq!(answer.header("x-tidegate-queue-ms"), Some("0"));
        assert_eq!(answer.header("x-tidegate-limited-by"), None);
        assert_eq!(answer.header("x-tidegate-queue-place"), None);
    }
    for gateway in &gateways {
        let answer = send(gateway.address(), impatient("300ms")).await;
        assert_eq!(answer.status, 429, "{answer:?}");
        let status = page(gateway, "/status").await;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["store"]["state"], "connected", "{status}");
        assert_eq!(status["store"]["replicas"], 2, "{status}");
        let quota = &status["quotas"][0]["store"];
        assert_eq!(quota["standing"], "open", "{status}");
        assert!(quota["epoch"].as_u64() > Some(0), "{status}");
        let metrics = page(gateway, "/metrics").await;
        for line in [
            "tidegate_store_state{state=\"connected\"} 1",
            "tidegate_store_state{state=\"unreachable\"} 0",
            "tidegate_store_errors_total{kind=\"closed\"} 0",
            "tidegate_store_standing{group=\"up/*\",standing=\"open\"} 1",
            "tidegate_store_replicas{group=\"up/*\"} 2",
        ] {
            assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
        }
        assert!(
            metrics.contains("tidegate_store_call_seconds_bucket{le=\"+Inf\"}"),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn two_gateways_have_a_routes_limit_as_one() {
    let server = RedisServer::start();
    let upstream = Upstream::start().await;
    let address = upstream.always(|seen| seen.answer_json(200, "{}"));
    let limits = "rpm = 1000\n[[routes]]\nname = \"chat\"\noperations = [\"chat\"]\nrpm = 4";
    let text = shared(address, &server.tcp_url(), KEY, limits);
    let gateways = [start(&text), start(&text)];
    for round in 0..4 {
        let answer = send(gateways[round % 2].address(), chat()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let mut parts = 0;
    for gateway in &gateways {
        let answer = send(gateway.address(), impatient("500ms")).await;
        assert_eq!(answer.status, 429, "{answer:?}");
        let status = page(gateway, "/status").await;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let own = &status["allowances"][0];
        assert_eq!(own["route"], "chat", "{status}");
        parts += own["escrow"]["limits"][0].as_u64().expect("it has a part");
    }
    assert_eq!(parts, 4);
}

#[tokio::test]
async fn keys_that_are_passed_through_are_the_same_account_everywhere() {
    let server = RedisServer::start();
    let upstream = Upstream::start().await;
    let address = upstream.always(|seen| seen.answer_json(200, "{}"));
    let text = shared(address, &server.tcp_url(), "", "rpm = 2");
    let gateways = [start(&text), start(&text)];
    let with = |key: &'static str| {
        let mut request = impatient("2s");
        let key = http::HeaderValue::from_static(key);
        request.headers_mut().insert("authorization", key);
        request
    };
    for gateway in &gateways {
        assert_eq!(
            send(gateway.address(), with("Bearer canary-one")).await.status,
            200
        );
    }
    for gateway in &gateways {
        assert_eq!(
            send(gateway.address(), with("Bearer canary-one")).await.status,
            429
        );
        assert_eq!(
            send(gateway.address(), with("Bearer canary-two")).await.status,
            200
        );
    }
    // Nothing in the store tells a key.
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut server.connect()).unwrap();
    assert!(
        keys.len() > 2 && !keys.iter().any(|key| key.contains("canary")),
        "{keys:?}"
    );
}

#[tokio::test]
async fn without_the_store_it_stays_ready_and_says_why_it_waits() {
    let mut server = RedisServer::start();
    let upstream = Upstream::start().await;
    let address = upstream.always(|seen| seen.answer_json(200, "{}"));
    let text = shared(address, &server.tcp_url(), KEY, "rpm = 4");
    let gateway = start(&text);
    assert_eq!(send(gateway.address(), chat()).await.status, 200);
    let store = || gateway.limiter().snapshot().quotas[0].store.unwrap();
    until("it has a share", || store().share > 0).await;
    server.kill();
    let standing = || store().standing;
    until("it goes on alone", || standing() == Standing::Sharing).await;
    assert!(page(&gateway, "/readyz").await.contains("ready"));
    let status: serde_json::Value = serde_json::from_str(&page(&gateway, "/status").await).unwrap();
    assert_eq!(status["store"]["state"], "unreachable", "{status}");
    assert!(status["store"]["error"].is_string(), "{status}");
    server.restart();
    until("it is back", || standing() != Standing::Sharing).await;
}

#[tokio::test]
async fn another_store_is_not_taken_over_while_it_runs() {
    let server = RedisServer::start();
    let upstream = Upstream::start().await;
    let text = |limits| shared(upstream.address, &server.tcp_url(), KEY, limits);
    let gateway = start(&text("rpm = 4"));
    let config = |text: &str| Config::from_toml(text, "test").unwrap();
    gateway.reload(config(&text("rpm = 5"))).unwrap();
    let other = text("rpm = 6").replace("[store]\n", "[store]\nprefix = \"other\"\n");
    let error = gateway.reload(config(&other)).unwrap_err().to_string();
    assert!(error.contains("start the program anew"), "{error}");
}

fn program(text: &str) -> (Program, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.flush().unwrap();
    let program = Program::start(&["serve", "--config", file.path().to_str().unwrap()]);
    (program, file)
}

#[tokio::test]
async fn programs_share_say_goodbye_and_never_tell_the_password() {
    let server = RedisServer::start_with(&["--requirepass", "canary-store"]);
    let store = server.tcp_url().replace("redis://", "redis://:canary-store@");
    let upstream = Upstream::start().await;
    let address = upstream.always(|seen| seen.answer_json(200, "{}"));
    let text = shared(address, &store, "", "rpm = 4");
    let mut programs = [program(&text), program(&text)];
    let mut addresses = Vec::new();
    for (program, _) in &mut programs {
        let line = program.out("listening on http://").await;
        let address = line.rsplit('/').next().unwrap().parse().unwrap();
        let line = program.out("admin on http://").await;
        addresses.push((address, line.rsplit('/').next().unwrap().parse().unwrap()));
    }
    for round in 0..4 {
        let answer = send(addresses[round % 2].0, chat()).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    for (address, _) in &addresses {
        assert_eq!(send(*address, impatient("300ms")).await.status, 429);
    }
    let replicas = async |admin| {
        let status = send(admin, get("/status")).await;
        assert!(!status.text().contains("canary"), "{}", status.text());
        let status: serde_json::Value = serde_json::from_str(status.text()).unwrap();
        status["store"]["replicas"].as_u64().unwrap()
    };
    assert_eq!(replicas(addresses[1].1).await, 2);
    let (first, _) = &mut programs[0];
    first.signal("TERM");
    let ended = soon("the end", first.child.wait()).await.unwrap();
    assert!(ended.success());
    soon("it is known to be gone", async {
        let mut look = tokio::time::interval(Duration::from_millis(10));
        while replicas(addresses[1].1).await != 1 {
            look.tick().await;
        }
    })
    .await;
    for (program, _) in &mut programs {
        // Whatever it has said until its end.
        let _ = program.child.start_kill();
        let said = program.rest().await;
        assert!(said.contains("the store is there"), "{said}");
        assert!(!said.contains("canary"), "{said}");
    }
}
