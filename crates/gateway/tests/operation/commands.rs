//! `tidegate check` and `tidegate schema` as a person runs them.

use std::path::Path;
use std::process::{Command, Output};

use crate::golden;

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
fn schema_prints_the_schema_that_the_reference_holds() {
    let output = tidegate(&["schema"]);
    assert!(output.status.success());
    golden::check("docs/reference/config.schema.json", text(&output.stdout));
}
