//! `tidegate check` and `tidegate schema` as a person runs them.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use tidegate_gateway::admin::{AdminServer, AdminState};
use tidegate_gateway::config::Config;
use tidegate_gateway::metrics::Metrics;

use crate::{golden, snapshot};

fn tidegate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(args)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples"))
        .env_remove("TIDEGATE_CONFIG")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn check_says_what_a_configuration_means() {
    let output = tidegate(&["check", "--config", "tidegate.toml"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    golden::check("crates/gateway/tests/golden/check.txt", text(&output.stdout));
    let output = tidegate(&["check", "--config", "replicas.toml"]);
    let line =
        "  limits shared through 127.0.0.1:6379, prefix tidegate; without it 50 % of each quota for 45s\n";
    assert!(text(&output.stdout).contains(line), "{}", text(&output.stdout));
}

#[test]
fn check_fails_with_every_error_and_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    std::fs::write(
        &file,
        "[server]\nworkers = 0\n[[upstreams]]\nprovider = \"opanai\"\n",
    )
    .unwrap();
    let output = tidegate(&["check", "--config", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    let expect = format!(
        "{0}:2:11: `server.workers` is 0\n    help: expected a number from 1 to 1024\n\
         {0}:4:12: `upstreams[0].provider` is \"opanai\"\n    help: did you mean \"openai\"?\n",
        file.display()
    );
    assert_eq!(text(&output.stderr), expect);
}

#[test]
fn flags_are_named_in_errors_as_they_were_typed() {
    let output = tidegate(&["check", "--upstream", "openai", "--rpm", "-5", "--window", "60"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = text(&output.stderr);
    assert!(
        errors.contains("--rpm: ") && errors.contains("--window: "),
        "{errors}"
    );
}

#[test]
fn limits_say_what_is_configured_where_no_gateway_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidegate.toml");
    std::fs::write(
        &file,
        r#"
        [server]
        admin = "off"
        [[upstreams]]
        provider = "groq"
        preset = "groq/free"
        [[upstreams.limits]]
        models = ["qwen/*"]
        rpm = 10
        [[upstreams]]
        provider = "deepseek"
        preset = "deepseek/default"
        [[upstreams]]
        name = "azure-east"
        provider = "azure"
        base_url = "https://resource.openai.azure.com"
        [[upstreams.limits]]
        models = ["chat"]
        rpm = 600
        tpm = 1_000_000
        "#,
    )
    .unwrap();
    let output = tidegate(&["limits", "--config", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    golden::check(
        "crates/gateway/tests/golden/limits-configured.txt",
        text(&output.stdout),
    );
    let output = tidegate(&["limits", "--config", file.to_str().unwrap(), "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["from"], "configuration");
    let last = json["limits"].as_array().unwrap().last().unwrap();
    assert_eq!(
        *last,
        serde_json::json!({ "upstream": "azure-east", "group": "azure-east" })
    );
}

#[test]
fn limits_come_from_the_gateway_that_runs() {
    let config = "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nmodels = [\"gpt-4o\"]\nrpm = 500\n\
                  [[upstreams.limits]]\nmodels = [\"gpt-5\"]\nrpm = 7\n[[upstreams]]\nprovider = \"anthropic\"";
    let config = Arc::new(Config::from_toml(config, "tidegate.toml").unwrap());
    let state = AdminState::new(Arc::new(Metrics::new()), config, snapshot::busy);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = AdminServer::start(listener, state).unwrap();
    let address = server.address().to_string();
    let output = tidegate(&["limits", "--admin", &address]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    golden::check(
        "crates/gateway/tests/golden/limits-running.txt",
        text(&output.stdout),
    );
    let url = format!("http://{address}");
    let output = tidegate(&["limits", "--admin", &url, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["from"], url.as_str());
    assert_eq!(
        json["limits"][1],
        serde_json::json!({
            "upstream": "openai",
            "group": "openai/gpt-4o",
            "limit": { "dimension": "tokens", "window": "60s", "limit": 30_000, "source": "header", "age_s": 1_000 },
        })
    );
}

#[test]
fn limits_say_why_a_gateway_does_not_tell_them() {
    // Nobody listens on a port that was just given back, but for another test that may get it: then it is no Tidegate.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    for (args, expect) in [
        (vec!["limits", "--admin", &address], address.as_str()),
        (
            vec!["limits", "--admin", "https://127.0.0.1:1"],
            "the admin listener speaks http://",
        ),
        (
            vec!["limits", "--admin", "127.0.0.1:1", "--admin-token", "secret"],
            "write env:NAME",
        ),
        (
            vec![
                "limits",
                "--admin",
                "127.0.0.1:1",
                "--admin-token",
                "env:TIDEGATE_NONE",
            ],
            "TIDEGATE_NONE is not set",
        ),
    ] {
        let output = tidegate(&args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let errors = text(&output.stderr);
        assert!(errors.contains(expect), "{args:?}: {errors}");
    }
}

#[test]
fn schema_prints_the_schema_that_the_reference_holds() {
    let output = tidegate(&["schema"]);
    assert!(output.status.success());
    golden::check("docs/reference/config.schema.json", text(&output.stdout));
}
