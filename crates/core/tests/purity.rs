//! Holds the core to what it promises of itself: no `std`, no dependencies, no `unsafe`, no async, no hash order.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns every source file, except modules of tests (which run on a machine that has `std`).
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the sources are readable") {
        let path = entry.expect("the sources are readable").path();
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default()
            .to_owned();
        if stem == "tests" || stem.ends_with("_tests") {
            continue;
        }
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Returns the numbered lines that are built into the library: those before `mod tests { … }`, without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end]
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .expect("the crate's files are readable")
}

#[test]
fn no_std_and_no_unsafe_are_declared() {
    let lib = read("src/lib.rs");
    for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
        assert!(lib.contains(attribute), "lib.rs lacks {attribute}");
    }
}

#[test]
fn nothing_impure_is_used() {
    let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(files.len() > 5, "the sources were not found: {files:?}");
    for path in files {
        let text = fs::read_to_string(&path).expect("the sources are readable");
        for (number, line) in code(&text) {
            for forbidden in [
                "std::",
                "extern crate std",
                "async fn",
                "HashMap",
                "HashSet",
                "static mut",
            ] {
                assert!(
                    !line.contains(forbidden),
                    "{}:{number}: {forbidden} in {line:?}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn there_are_no_dependencies() {
    let manifest = read("Cargo.toml");
    let listed: Vec<&str> = manifest
        .lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .collect();
    assert!(listed.is_empty(), "the core depends on {listed:?}");
}
