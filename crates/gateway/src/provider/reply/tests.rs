//! One golden file for every answer in every shape; `TIDEGATE_BLESS=1` writes them anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use tidegate_core::{RouteId, TenantId};

use super::*;

fn refusal(reason: RefusalReason, dimension: Option<Dimension>, retry_after: Option<u64>) -> ErrorReply {
    let limit = dimension.map(|dimension| LimitRef {
        dimension,
        window: Duration::from_secs(60),
        amount: 30_000,
    });
    ErrorReply::refusal(&Refusal {
        reason,
        limit,
        retry_after: retry_after.map(Duration::from_micros),
        ..Refusal::of(reason)
    })
}

fn own_limit(owner: Owner) -> ErrorReply {
    let refusal = Refusal {
        limit: Some(LimitRef {
            dimension: Dimension::Requests,
            window: Duration::from_secs(60),
            amount: 10,
        }),
        owner: Some(owner),
        retry_after: Some(Duration::from_secs(61)),
        ..Refusal::of(RefusalReason::Deadline)
    };
    let asker = Asker {
        tenant: Some("search-team"),
        ..Asker::default()
    };
    ErrorReply::refusal_of(&refusal, asker)
}

fn spent(what: Allotment, used: u64, most: u64) -> ErrorReply {
    spent_above(what, used, most, 0)
}

fn spent_above(what: Allotment, used: u64, most: u64, above: u32) -> ErrorReply {
    let (reason, wait) = match what {
        Allotment::Budget(..) => (RefusalReason::BudgetSpent, Some(Duration::from_secs(93_784))),
        _ => (RefusalReason::RunSpent, None),
    };
    let refusal = Refusal {
        retry_after: wait,
        spent: Some(Spent {
            what,
            used,
            most,
            above,
        }),
        ..Refusal::of(reason)
    };
    let asker = Asker {
        tenant: Some("search-team"),
        run: Some("run-7"),
        parent: Some("run-6"),
    };
    ErrorReply::refusal_of(&refusal, asker)
}

fn every_reply() -> Vec<(&'static str, ErrorReply)> {
    let mut replies = refusals();
    replies.extend(other_replies());
    replies
}

fn refusals() -> Vec<(&'static str, ErrorReply)> {
    use RefusalReason as Reason;
    vec![
        (
            "refusal_never_fits",
            refusal(Reason::NeverFits, Some(Dimension::Tokens), None),
        ),
        (
            "refusal_deadline",
            refusal(Reason::Deadline, Some(Dimension::Tokens), Some(12_345_678)),
        ),
        (
            "refusal_deadline_far",
            refusal(Reason::Deadline, Some(Dimension::Requests), Some(61_000_000)),
        ),
        ("refusal_deadline_unknown", refusal(Reason::Deadline, None, None)),
        (
            "refusal_queue_full",
            refusal(Reason::QueueFull, Some(Dimension::InputTokens), Some(2_000_000)),
        ),
        (
            "refusal_queue_bytes",
            refusal(Reason::QueueBytes, Some(Dimension::Concurrency), Some(1)),
        ),
        (
            "refusal_tenant_limit",
            own_limit(Owner::Tenant(TenantId::of("search-team"))),
        ),
        (
            "refusal_route_limit",
            own_limit(Owner::Route(RouteId::of("chat"))),
        ),
        (
            "refusal_tenant_queue_full",
            refusal(
                Reason::TenantQueueFull,
                Some(Dimension::Requests),
                Some(2_000_000),
            ),
        ),
        (
            "refusal_budget_tokens",
            spent(
                Allotment::Budget(BudgetUnit::Tokens, Period::Day),
                990_000,
                1_000_000,
            ),
        ),
        (
            "refusal_budget_dollars",
            spent(
                Allotment::Budget(BudgetUnit::Cost, Period::Month),
                499_990_000,
                500_000_000,
            ),
        ),
        (
            "refusal_budget_tokens_too_few",
            spent(Allotment::Budget(BudgetUnit::Tokens, Period::Day), 0, 100),
        ),
        (
            "refusal_budget_dollars_too_few",
            spent(Allotment::Budget(BudgetUnit::Cost, Period::Month), 0, 5_000_000),
        ),
        ("refusal_run_tokens_too_few", spent(Allotment::RunTokens, 0, 100)),
        (
            "refusal_run_dollars_too_few",
            spent_above(Allotment::RunCost, 0, 2_000_000, 1),
        ),
        (
            "refusal_run_calls_of_parent",
            spent_above(Allotment::RunCalls, 4, 4, 1),
        ),
        (
            "refusal_run_calls_further_up",
            spent_above(Allotment::RunCalls, 4, 4, 2),
        ),
        ("refusal_run_calls", spent(Allotment::RunCalls, 50, 50)),
        ("refusal_run_tokens", spent(Allotment::RunTokens, 99_000, 100_000)),
        (
            "refusal_run_dollars",
            spent(Allotment::RunCost, 1_999_500, 2_000_000),
        ),
        (
            "refusal_run_time",
            spent(Allotment::RunTime, 901_000_000, 900_000_000),
        ),
        ("refusal_run_depth", spent(Allotment::RunDepth, 4, 3)),
        ("refusal_run_repeats", spent(Allotment::RunRepeats, 6, 5)),
        ("refusal_unknown_quota", refusal(Reason::UnknownQuota, None, None)),
        (
            "refusal_too_many_accounts",
            refusal(Reason::TooManyAccounts, None, Some(60_000_000)),
        ),
        ("refusal_retries_spent", refusal(Reason::RetriesSpent, None, None)),
        ("refusal_closed", refusal(Reason::Closed, None, None)),
    ]
}

fn other_replies() -> Vec<(&'static str, ErrorReply)> {
    vec![
        ("bad_body_empty", ErrorReply::bad_body(&BadBody::Empty)),
        (
            "bad_body_not_utf8",
            ErrorReply::bad_body(&BadBody::NotUtf8 { offset: 17 }),
        ),
        (
            "bad_body_not_an_object",
            ErrorReply::bad_body(&BadBody::NotAnObject),
        ),
        (
            "bad_body_too_deep",
            ErrorReply::bad_body(&BadBody::TooDeep { line: 1, column: 128 }),
        ),
        (
            "bad_body_syntax",
            ErrorReply::bad_body(&BadBody::Syntax {
                reason: "expected `,` or `}`".into(),
                line: 3,
                column: 7,
            }),
        ),
        (
            "bad_request",
            ErrorReply::bad_request("the header x-tidegate-max-wait is not a time"),
        ),
        ("too_large", ErrorReply::too_large(10_485_760)),
        ("unknown_path", ErrorReply::unknown_path("/v2/\n\"chat\"")),
        (
            "method_not_allowed",
            ErrorReply::method_not_allowed(&Method::PUT, "POST"),
        ),
        ("client_timeout", ErrorReply::client_timeout()),
        ("key_missing", ErrorReply::key_missing()),
        ("key_wrong", ErrorReply::key_wrong()),
        (
            "model_not_allowed",
            ErrorReply::model_not_allowed(Some("search-team"), Some("gpt-4o\n")),
        ),
        ("model_not_named", ErrorReply::model_not_allowed(None, None)),
        (
            "upstream_not_allowed",
            ErrorReply::upstream_not_allowed(Some("search-team"), "openai"),
        ),
        ("model_not_priced", ErrorReply::model_not_priced("my-model")),
        ("upstream_has_no_key", ErrorReply::upstream_has_no_key("openai")),
        ("upstream_unreachable", ErrorReply::upstream_unreachable("openai")),
        (
            "upstream_timeout",
            ErrorReply::upstream_timeout("openai", Duration::from_millis(600_500)),
        ),
        (
            "upstream_answered",
            ErrorReply::upstream_answered("openai", StatusCode::NOT_FOUND),
        ),
        ("closing", ErrorReply::closing()),
        ("busy", ErrorReply::busy()),
        ("internal", ErrorReply::internal()),
    ]
}

fn text(reply: &ErrorReply, shape: Shape) -> String {
    let response = reply.render(shape, "req_0123456789abcdef");
    let mut text = format!("{}\n", response.status());
    let headers: BTreeSet<_> = response
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    for header in headers {
        writeln!(text, "{header}").unwrap();
    }
    writeln!(text, "\n{}", str::from_utf8(response.body()).unwrap()).unwrap();
    text
}

/// One file for each answer, with every shape of it.
#[test]
fn answers_match_their_golden_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/errors");
    let bless = std::env::var_os("TIDEGATE_BLESS").is_some();
    for (name, reply) in every_reply() {
        let path = folder.join(format!("{name}.http"));
        let shapes = Shape::ALL.map(|shape| format!("# {shape:?}\n{}", text(&reply, shape)));
        let actual = shapes.join("\n");
        if bless {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &actual).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(actual, golden, "{} (TIDEGATE_BLESS=1 accepts it)", path.display());
    }
    assert_eq!(
        fs::read_dir(&folder).unwrap().count(),
        every_reply().len(),
        "golden files without an answer"
    );
}

#[test]
fn waits_are_rounded_up_and_retried_only_if_sdks_honor_them() {
    for (micros, seconds, millis, retry) in [
        (0, "1", "1", "true"),
        (1, "1", "1", "true"),
        (1_000_001, "2", "1001", "true"),
        (60_000_000, "60", "60000", "true"),
        (60_000_001, "61", "60001", "false"),
        (u64::MAX, "18446744073710", "18446744073709552", "false"),
    ] {
        let reply = refusal(RefusalReason::Deadline, None, Some(micros)).render(Shape::OpenAi, "r");
        let header = |name: &str| reply.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(
            [
                header("retry-after"),
                header("retry-after-ms"),
                header("x-should-retry")
            ],
            [seconds, millis, retry],
            "{micros}"
        );
    }
}

#[test]
fn what_is_nearly_used_up_says_of_which_run() {
    let short = |above, parent| {
        let spent = Spent {
            what: Allotment::RunCalls,
            used: 4,
            most: 4,
            above,
        };
        in_short(&spent, parent)
    };
    assert_eq!(short(0, Some("tide-6")), "calls 4/4");
    assert_eq!(short(1, Some("tide-6")), "calls 4/4 of run tide-6");
    assert_eq!(short(1, Some("tide\n-6")), "calls 4/4 of run tide-6");
    assert_eq!(short(1, None), "calls 4/4 of a run above");
    assert_eq!(short(2, Some("tide-6")), "calls 4/4 of a run above");
    let asker = Asker {
        run: Some("k1"),
        ..Asker::default()
    };
    let spent = Spent {
        what: Allotment::RunCalls,
        used: 4,
        most: 4,
        above: 1,
    };
    assert_eq!(
        used_up(&spent, asker, None),
        "A run above run \"k1\" has made 4 of its 4 calls and is stopped."
    );
}

#[test]
fn windows_have_names() {
    for (secs, dimension, expect) in [
        (60, Dimension::Tokens, "7 tokens per minute"),
        (3_600, Dimension::OutputTokens, "7 output tokens per hour"),
        (86_400, Dimension::Requests, "7 requests per day"),
        (10, Dimension::Requests, "7 requests per 10s"),
        (60, Dimension::Concurrency, "7 requests at one time"),
    ] {
        let limit = LimitRef {
            dimension,
            window: Duration::from_secs(secs),
            amount: 7,
        };
        assert_eq!(describe(&limit), expect);
    }
}

#[test]
fn who_waited_for_the_store_is_told_so() {
    let text = |obstacle| {
        let refusal = Refusal {
            obstacle,
            retry_after: Some(Duration::from_secs(1)),
            ..Refusal::of(RefusalReason::Deadline)
        };
        let reply = ErrorReply::refusal(&refusal);
        assert_eq!(reply.status(), StatusCode::TOO_MANY_REQUESTS);
        let body = reply.render(Shape::OpenAi, "r").into_body();
        String::from_utf8_lossy(&body).into_owned()
    };
    assert!(
        text(Some(Obstacle::Store))
            .contains("The store through which the gateways share their limits is out of reach.")
    );
    assert!(text(Some(Obstacle::Learning)).contains("is not known yet"));
    assert!(text(Some(Obstacle::Hold)).contains("Sending pauses"));
    assert!(!text(None).contains("store"));
}
