//! The store's settings, and where they are repeated.

use sha2::{Digest, Sha256};

use crate::files::{read, text, yaml};

/// Returns the words of a setting.
fn setting(name: &str) -> Vec<String> {
    let conf = read("deploy/valkey/valkey.conf");
    let mut lines = conf.lines().map(str::split_whitespace);
    let line = lines.find_map(|mut words| (words.next() == Some(name)).then_some(words));
    line.unwrap().map(ToOwned::to_owned).collect()
}

/// Returns the hash of a user's password and the rest of their rules.
fn user(acl: &str) -> (String, Vec<String>) {
    assert_eq!(acl.lines().next(), Some("user default off"));
    let mut words = acl.lines().nth(1).unwrap().split_whitespace();
    assert_eq!(
        [words.next(), words.next(), words.next()],
        [Some("user"), Some("tidegate"), Some("on")]
    );
    assert_eq!(acl.lines().count(), 2);
    let hash = words.next().unwrap().strip_prefix('#').unwrap().to_owned();
    (hash, words.map(ToOwned::to_owned).collect())
}

#[test]
fn nothing_is_forgotten_for_want_of_memory() {
    assert_eq!(setting("maxmemory-policy"), ["noeviction"]);
    assert_eq!(setting("aclfile"), ["/etc/valkey/users.acl"]);
}

/// No command that reads what is not Tidegate's or changes the server.
#[test]
fn the_gateways_may_do_little() {
    let (_, rules) = user(&read("deploy/valkey/users.acl"));
    assert_eq!(
        rules[..4],
        ["resetchannels", "~tidegate:*", "&tidegate:*", "-@all"]
    );
    for rule in &rules[4..] {
        let command = rule.strip_prefix('+').unwrap();
        assert!(
            !command.starts_with('@'),
            "{rule}: a category grows with the server"
        );
        let dangerous = [
            "keys", "flushall", "flushdb", "config", "acl", "debug", "monitor", "script", "client",
        ];
        assert!(!dangerous.contains(&command), "{rule}");
    }
}

#[test]
fn the_password_of_the_example_is_the_one_that_is_hashed() {
    let env = read("deploy/compose/.env.example");
    let password = env
        .lines()
        .find_map(|line| line.strip_prefix("VALKEY_PASSWORD="))
        .unwrap();
    let digest = Sha256::digest(password);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(user(&read("deploy/valkey/users.acl")).0, hex);
}

#[test]
fn kubernetes_has_the_same() {
    let conf = &yaml("deploy/kubernetes/valkey.yaml")[0];
    assert_eq!(text(conf, "/data/valkey.conf"), read("deploy/valkey/valkey.conf"));
    let secret = &yaml("deploy/kubernetes/secret.example.yaml")[1];
    let (hash, rules) = user(text(secret, "/stringData/users.acl"));
    assert_eq!(hash, "REPLACE_ME");
    assert_eq!(rules, user(&read("deploy/valkey/users.acl")).1);
}
