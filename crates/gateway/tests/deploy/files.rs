//! Where the files are, and what is common to them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use serde_json::Value;
use tidegate_gateway::command::Cli;
use tidegate_gateway::config::{Config, duration};

/// How much longer than the drain whoever ends the program waits before it is killed, at least.
pub(crate) const END_ROOM: Duration = Duration::from_secs(10);

/// Returns a path from the root of the repository.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// Returns the text of a file, by its path from the root of the repository.
pub(crate) fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns the documents of a YAML file.
pub(crate) fn yaml(name: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns what is at a JSON pointer, which must be there.
pub(crate) fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    let found = value.pointer(pointer);
    found.unwrap_or_else(|| panic!("there is nothing at {pointer} of {value}"))
}

/// Returns the text at a JSON pointer.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let found = at(value, pointer).as_str();
    found.unwrap_or_else(|| panic!("{pointer} is no text in {value}"))
}

/// Returns the texts of a list at a JSON pointer.
pub(crate) fn texts(value: &Value, pointer: &str) -> Vec<String> {
    let list = at(value, pointer).as_array();
    let list = list.unwrap_or_else(|| panic!("{pointer} is no list in {value}"));
    list.iter()
        .map(|item| item.as_str().unwrap().to_owned())
        .collect()
}

/// Checks a command line of the program, without its name.
pub(crate) fn check_command(args: &[String]) {
    let line = std::iter::once("tidegate").chain(args.iter().map(String::as_str));
    Cli::try_parse_from(line).unwrap_or_else(|error| panic!("{args:?}: {error}"));
}

/// Checks a configuration with the program's own check, every variable set, and returns what it means.
pub(crate) fn check_config(toml: &str, name: &str) -> Config {
    let config = Config::from_toml_with(toml, name, |variable| {
        Ok(match variable {
            "REDIS_URL" => "redis://tidegate:password@valkey:6379".to_owned(),
            _ => format!("sk-{variable}"),
        })
    });
    config.unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the names of the environment variables that a configuration wants.
pub(crate) fn variables(toml: &str) -> BTreeSet<String> {
    let found = toml.split("\"env:").skip(1);
    found
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect()
}

/// Reads a length of time.
pub(crate) fn time(text: &str) -> Duration {
    duration::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Reads an amount of memory, such as `512Mi` or `512m`.
pub(crate) fn memory(text: &str) -> usize {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "Mi" | "m" | "mb" => 1 << 20,
        "Gi" | "g" | "gb" => 1 << 30,
        other => panic!("{text}: {other} is no unit"),
    };
    digits.parse::<usize>().unwrap() * unit
}

/// Returns how much memory a gateway may come to need, by the figures of `deploy/README.md`: the program, connections of
/// which each has a stream, and what waits.
pub(crate) fn memory_needed(config: &Config) -> usize {
    const PROGRAM: usize = 10 << 20;
    const CONNECTION: usize = (15 + 29) << 10;
    PROGRAM + config.server.connections_max * CONNECTION + usize::try_from(config.queue.bytes_max).unwrap()
}

#[test]
fn every_file_has_a_format_and_a_test() {
    let mut folders = vec![path("deploy")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let shown = path.display().to_string();
            let name = shown.rsplit("deploy/").next().unwrap();
            // What people fill in themselves.
            if matches!(name, "compose/.env" | "kubernetes/secret.yaml") {
                continue;
            }
            seen += 1;
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("yaml" | "yml") => assert!(!yaml(&format!("deploy/{name}")).is_empty(), "{name}"),
                Some("toml") => assert!(
                    name.starts_with("examples/") || name == "compose/tidegate.toml",
                    "{name}: no test checks it"
                ),
                _ => assert!(
                    matches!(
                        name,
                        "README.md"
                            | "compose/.env.example"
                            | "compose/haproxy.cfg"
                            | "docker/Dockerfile"
                            | "systemd/tidegate.service"
                            | "valkey/users.acl"
                            | "valkey/valkey.conf"
                    ),
                    "{name}: no test reads it"
                ),
            }
        }
    }
    assert!(seen > 30, "{seen} files");
}
