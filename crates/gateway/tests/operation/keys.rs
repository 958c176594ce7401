//! `tidegate keys` as a person runs it.

use std::path::Path;
use std::process::{Command, Output};

use tidegate_gateway::keys::{self, KeyDigest};

fn tidegate(args: &[&str], file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("keys")
        .args(args)
        .arg("--file")
        .arg(file)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn keys_are_made_listed_and_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    let made = tidegate(&["new", "--tenant", "search-team", "--expires", "90d"], &file);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let key = text(&made.stdout).strip_suffix('\n').unwrap().to_owned();
    assert!(
        key.starts_with("tg-") && key.len() == 46 && !key.contains('\n'),
        "{key}"
    );
    assert!(!text(&made.stderr).contains(&key));
    let again = tidegate(&["new", "--tenant", "other"], &file);
    assert!(again.status.success(), "{}", text(&again.stderr));

    let known = keys::read(&file).unwrap();
    assert_eq!(known.len(), 2);
    assert!(known[0].digest.matches(&KeyDigest::of(key.as_bytes())));
    let (created, expires) = (known[0].created, known[0].expires.unwrap());
    assert_eq!(expires.unix() - created.unix(), 90 * 86_400);
    assert_eq!(known[1].expires, None);
    let page = std::fs::read_to_string(&file).unwrap();
    assert!(
        page.starts_with("# Hashes of the keys") && !page.contains(&key),
        "{page}"
    );

    let listed = tidegate(&["list"], &file);
    let table = text(&listed.stdout);
    assert!(table.starts_with("ID") && table.lines().count() == 3, "{table}");
    assert!(
        table.contains("search-team") && table.contains(&expires.to_string()),
        "{table}"
    );
    let whole = page
        .lines()
        .find_map(|line| line.strip_prefix("sha256 = "))
        .unwrap();
    assert!(!table.contains(&whole[1..30]), "{table}");

    let config = folder.path().join("tidegate.toml");
    let tenants = "[[tenants]]\nname = \"search-team\"\n[[tenants]]\nname = \"*\"\n";
    std::fs::write(
        &config,
        format!("[server]\nkeys_file = \"{}\"\n{tenants}", file.display()),
    )
    .unwrap();
    let checked = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["check", "--config", config.to_str().unwrap()])
        .output()
        .unwrap();
    let page = text(&checked.stdout);
    for line in [
        format!("  2 keys in {}", file.display()).as_str(),
        "tenant search-team: priority normal, weight 1, 1 key, no limits of its own",
        "every other tenant: priority normal, weight 1, no limits of its own",
    ] {
        assert!(page.lines().any(|of_page| of_page == line), "{line}: {page}");
    }

    let revoked = tidegate(&["revoke", &known[0].id], &file);
    assert!(revoked.status.success(), "{}", text(&revoked.stderr));
    assert_eq!(keys::read(&file).unwrap(), known[1..]);
    let nobody = tidegate(&["revoke", &known[0].id], &file);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        text(&nobody.stderr).contains("there is no key of that id"),
        "{}",
        text(&nobody.stderr)
    );
}

#[test]
fn what_is_wrong_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.toml");
    for (args, expect) in [
        (
            vec!["new", "--tenant", "Search Team"],
            "--tenant: cannot be a name",
        ),
        (
            vec!["new", "--tenant", "a", "--expires", "90"],
            "--expires: is not a length of time",
        ),
        (
            vec!["new", "--tenant", "a", "--expires", "0s"],
            "would be refused at once",
        ),
        (vec!["list"], "keys.toml: cannot be read"),
        (vec!["revoke", "tg-canary"], "keys.toml: cannot be read"),
    ] {
        let output = tidegate(&args, &file);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert_eq!(text(&output.stdout), "", "{args:?}");
        let error = text(&output.stderr);
        assert!(
            error.contains(expect) && !error.contains("canary"),
            "{args:?}: {error}"
        );
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is left behind"
    );
}
