//! The Dockerfile.

use crate::files::{check_command, path, read};

/// Returns the instructions, a line each.
fn instructions() -> Vec<(String, String)> {
    let text = read("deploy/docker/Dockerfile");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let lines = joined.lines().filter(|line| !line.trim().is_empty());
    let split = lines.map(|line| line.split_once(' ').unwrap());
    split
        .map(|(word, rest)| (word.to_owned(), rest.to_owned()))
        .collect()
}

fn list(word: &str) -> Vec<String> {
    let all = instructions();
    let (_, rest) = all.iter().find(|(found, _)| found == word).unwrap();
    serde_json::from_str(rest).unwrap()
}

#[test]
fn its_instructions_are_known() {
    let known = [
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "USER",
        "EXPOSE",
        "ENTRYPOINT",
        "CMD",
    ];
    for (word, rest) in instructions() {
        assert!(known.contains(&word.as_str()), "{word} {rest}");
    }
}

#[test]
fn what_it_copies_is_there_and_not_ignored() {
    let ignored = read(".dockerignore");
    let let_through: Vec<_> = ignored
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .collect();
    assert!(ignored.lines().any(|line| line == "*"));
    let mut copied = Vec::new();
    for (word, rest) in instructions() {
        if word != "COPY" || rest.starts_with("--from=") {
            continue;
        }
        let mut words: Vec<_> = rest.split_whitespace().map(ToOwned::to_owned).collect();
        words.pop();
        copied.append(&mut words);
    }
    for source in &copied {
        assert!(path(source).exists(), "{source}");
    }
    assert_eq!(copied, reordered(&let_through, &copied), ".dockerignore");
}

/// Returns `names` in the order of `like`, with what is not there at the end.
fn reordered(names: &[&str], like: &[String]) -> Vec<String> {
    let mut names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    names.sort_by_key(|name| like.iter().position(|other| other == name).unwrap_or(usize::MAX));
    names
}

/// The program is built by the compiler that the workspace asks for at least, on the Debian that it will run on.
#[test]
fn its_compiler_and_its_libc_fit() {
    let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    let rust = manifest["workspace"]["package"]["rust-version"].as_str().unwrap();
    let images: Vec<_> = instructions()
        .into_iter()
        .filter_map(|(word, rest)| (word == "FROM").then_some(rest))
        .collect();
    assert_eq!(
        images,
        [
            format!("rust:{rust}-slim-bookworm AS build"),
            "debian:12-slim".to_owned()
        ]
    );
}

#[test]
fn it_builds_the_program_as_make_does_and_runs_it() {
    let makefile = read("Makefile");
    let build = "cargo build --locked --release --package tidegate-gateway";
    assert!(makefile.contains(build));
    let all = instructions();
    assert!(
        all.iter()
            .any(|(word, rest)| word == "RUN" && rest.contains(build))
    );

    assert_eq!(list("ENTRYPOINT"), ["/usr/local/bin/tidegate"]);
    check_command(&list("CMD"));
    let (_, user) = all.iter().find(|(word, _)| word == "USER").unwrap();
    let (user, group) = user.split_once(':').unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0);
}
