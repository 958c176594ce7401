//! Every source of a run's name, and what is refused as one.

use proptest::prelude::*;

use super::*;

fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

/// Returns the name and its parent's.
fn found(lines: &[(&'static str, &str)], body: &str, is_limited: bool) -> Option<(String, Option<String>)> {
    RunName::of(&map(lines), body.as_bytes(), is_limited)
        .unwrap_or_else(|reply| panic!("{lines:?}: {reply:?}"))
        .map(|run| (run.text, run.parent))
}

#[test]
fn names_are_found_in_their_order() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const IN_BODY: &str = r#"{"metadata":{"session_id":"m","user_id":"user_1_account_2_session_u"}}"#;
    const OF_USER: &str = r#"{"messages":[],"metadata":{"user_id":"user_1_account_2_session_5f-e"}}"#;
    // Each row has everything that the rows below it have.
    let all = [
        ("x-tidegate-run-id", "own"),
        ("x-litellm-trace-id", "lt"),
        ("x-litellm-session-id", "ls"),
        ("x-claude-code-session-id", "claude-code-1"),
        ("user-agent", "codex_cli_rs/0.9"),
        ("session-id", "c1"),
        ("session_id", "c2"),
        ("thread-id", "c3"),
        ("conversation_id", "c4"),
        ("x-session-id", "s"),
    ];
    let expected = [
        "own",
        "lt",
        "ls",
        "claude-code-1",
        "c1",
        "c1",
        "c2",
        "c3",
        "c4",
        "s",
        "m",
    ];
    for (from, expect) in expected.into_iter().enumerate() {
        let mut lines = all[from..].to_vec();
        lines.extend([
            ("user-agent", "codex_cli_rs/0.9"),
            ("baggage", "session.id=b"),
            ("traceparent", TRACE),
        ]);
        let name = found(&lines, IN_BODY, true).map(|(name, _)| name);
        assert_eq!(name.as_deref(), Some(expect), "{lines:?}");
    }
    for (lines, body, expect) in [
        (
            &[("baggage", "session.id=b"), ("traceparent", TRACE)][..],
            OF_USER,
            Some("5f-e"),
        ),
        (
            &[
                ("baggage", "a=b, session.id = b ;p=1,c=d"),
                ("traceparent", TRACE),
            ],
            "{}",
            Some("b"),
        ),
        (
            &[("traceparent", TRACE)],
            "not json",
            Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        ),
        (&[("baggage", "user.session.id=b,session.id=")], "", None),
        (
            &[("x-b-session-id", "bbbbbbbb"), ("x-a-session-id", "aaaaaaaa")],
            "",
            Some("aaaaaaaa"),
        ),
        (
            &[("x-a-session-id", "short"), ("x-b-session-id", "bbbbbbbb")],
            "",
            Some("bbbbbbbb"),
        ),
        (&[("x-a-session-id", "no spaces")], "", None),
        (&[("x-parent-session-id", "parent-session")], "", None),
        (&[("x-opencode-parent-session-id", "parent-session")], "", None),
        (&[("session-id", "c1"), ("user-agent", "curl/8")], "", None),
        (
            &[("session-id", "c1"), ("user-agent", "Codex Desktop/1")],
            "",
            Some("c1"),
        ),
        (&[("x-session-id", " s ")], "", Some("s")),
        (&[], r#"{"metadata":{"user_id":"user_1"}}"#, None),
        (&[], r#"{"metadata":{"user_id":"user_session_"}}"#, None),
        (&[], r#"{"metadata":{"session_id":7}}"#, None),
        (&[], r#"{"metadata":null}"#, None),
        (&[], r#"{"metadata":{"session_id":"é"}}"#, None),
        (&[], "[]", None),
    ] {
        let name = found(lines, body, true).map(|(name, _)| name);
        assert_eq!(name.as_deref(), expect, "{lines:?} {body}");
        assert_eq!(found(lines, body, false), None, "looked for in vain: {lines:?}");
    }
    assert_eq!(found(&all, IN_BODY, false), Some(("own".to_owned(), None)));
}

#[test]
fn traces_are_read_as_w3c_writes_them() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    for (value, is_trace) in [
        (format!("00-{TRACE}-00f067aa0ba902b7-00"), true),
        (format!("cc-{TRACE}-00f067aa0ba902b7-01-more"), true),
        (format!("ff-{TRACE}-00f067aa0ba902b7-01"), false),
        (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
        (format!("00-{TRACE}-0000000000000000-01"), false),
        (format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()), false),
        (format!("00-{TRACE}-00f067aa0ba902b7"), false),
        (format!("00-{}-00f067aa0ba902b7-01", &TRACE[1..]), false),
        (String::new(), false),
    ] {
        let name = found(&[("traceparent", &value)], "", true).map(|(name, _)| name);
        assert_eq!(name.as_deref(), is_trace.then_some(TRACE), "{value}");
    }
}

#[test]
fn parents_are_found() {
    let own = ("x-tidegate-run-id", "own");
    for (lines, is_limited, expect) in [
        (&[own, ("x-tidegate-parent-run-id", "p")][..], false, Some("p")),
        (
            &[
                own,
                ("x-tidegate-parent-run-id", "p"),
                ("x-parent-session-id", "q"),
            ],
            true,
            Some("p"),
        ),
        (&[own, ("x-parent-session-id", "q")], true, Some("q")),
        (&[own, ("x-parent-session-id", "q")], false, None),
        (
            &[own, ("x-opencode-parent-session-id", "opencode-1")],
            true,
            Some("opencode-1"),
        ),
        (&[own, ("x-opencode-parent-session-id", "short")], true, None),
        (&[own, ("x-tidegate-parent-run-id", "own")], true, None),
        (&[own], true, None),
    ] {
        let (name, parent) = found(lines, "", is_limited).unwrap();
        assert_eq!((name.as_str(), parent.as_deref()), ("own", expect), "{lines:?}");
    }
    assert_eq!(
        found(&[("x-tidegate-parent-run-id", "p")], "", true),
        None,
        "no run of its own"
    );
}

#[test]
fn names_of_the_clients_own_must_be_names() {
    let most = "r".repeat(NAME_BYTES_MAX);
    let longer = "r".repeat(NAME_BYTES_MAX + 1);
    for name in ["x-tidegate-run-id", "x-tidegate-parent-run-id"] {
        for (value, is_name) in [
            ("a", true),
            ("my run, the 7th", true),
            (most.as_str(), true),
            (longer.as_str(), false),
            ("", false),
            ("  ", false),
            ("é", false),
            ("a\tb", false),
        ] {
            let lines = [(name, value), ("x-litellm-trace-id", "lt")];
            let run = RunName::of(&map(&lines), b"", true);
            assert_eq!(run.is_ok(), is_name, "{name}: {value:?}");
            assert!(run.is_ok_and(|run| run.is_some()) == is_name);
        }
        let other = RunName::of(&map(&[("x-litellm-trace-id", &longer)]), b"", true);
        assert_eq!(
            other.ok(),
            Some(None),
            "what a tool says is no fault of the client's"
        );
    }
}

#[test]
fn runs_are_their_tenants_own() {
    let hasher = AccountHasher::default();
    let run = |text: &str, parent: Option<&str>| RunName {
        text: text.to_owned(),
        parent: parent.map(str::to_owned),
    };
    let [a, b] = ["a", "b"].map(TenantId::of);
    let step = |run: RunName, tenant| run.step(&hasher, tenant, None);
    assert_eq!(step(run("1", None), a), step(run("1", None), a));
    assert_ne!(step(run("1", None), a).run, step(run("1", None), b).run);
    assert_ne!(step(run("1", None), a).run, step(run("2", None), a).run);
    let child = step(run("1", Some("2")), a);
    assert_eq!(child.parent, Some(step(run("2", None), a).run));
}

#[test]
fn what_an_sdk_tries_again_is_no_step() {
    let body = br#"{"messages":[{"role":"user","content":"Hello"}]}"#;
    let of = |retries| fingerprint(Endpoint::ChatCompletions, None, body, retries);
    assert!(of(None).is_some());
    assert_eq!(of(Some(0)), of(None));
    assert_eq!(of(Some(1)), None);
}

#[test]
fn the_client_is_told() {
    let spent = |what, used, most| Spent {
        what,
        used,
        most,
        above: 0,
    };
    use tidegate_core::Allotment::{RunCalls, RunCost, RunTime, RunTokens};
    for (warning, expect) in [
        (None, None),
        (Some(spent(RunCalls, 41, 50)), Some("calls 41/50")),
        (
            Some(spent(RunTokens, 80_000, 100_000)),
            Some("tokens 80000/100000"),
        ),
        (
            Some(spent(RunCost, 4_100_000, 5_000_000)),
            Some("dollars $4.10/$5.00"),
        ),
        (
            Some(spent(RunTime, 482_000_000, 600_000_000)),
            Some("time 8m 2s/10m"),
        ),
    ] {
        let trace = RunTrace {
            name: "run-7".to_owned(),
            parent: None,
            warning,
        };
        let mut headers = HeaderMap::new();
        trace.mark(&mut headers);
        assert_eq!(headers[RUN_ID], "run-7");
        let words = headers.get(RUN_WARNING).map(|value| value.to_str().unwrap());
        assert_eq!(words, expect);
    }
}

proptest! {
    #[test]
    fn no_headers_and_no_body_panic(
        names in proptest::collection::vec((0_usize..8, "[ -~]{0,140}"), 0..8),
        body in proptest::collection::vec(any::<u8>(), 0..256),
    ) {
        const NAMES: [&str; 8] = [
            "x-tidegate-run-id", "x-tidegate-parent-run-id", "x-a-session-id", "x--session-id", "user-agent",
            "session_id", "baggage", "traceparent",
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in &names {
            headers.append(NAMES[*name], HeaderValue::try_from(value).unwrap());
        }
        for is_limited in [false, true] {
            if let Ok(Some(run)) = RunName::of(&headers, &body, is_limited) {
                prop_assert!((1..=NAME_BYTES_MAX).contains(&run.text.len()));
                let mut marked = HeaderMap::new();
                run.into_trace().mark(&mut marked);
                prop_assert!(marked.contains_key(RUN_ID));
            }
        }
    }
}
