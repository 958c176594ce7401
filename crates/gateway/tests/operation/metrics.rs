//! Metrics: their names, their labels, and what they count.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::{Cause, Dimension, Failure, RefusalReason, Tokens, Usage};
use tidegate_gateway::config::Config;
use tidegate_gateway::metrics::{Metrics, Refused, RequestOutcome, views};

use crate::{golden, snapshot};

fn config() -> Config {
    let text = "[[upstreams]]\nprovider = \"openai\"\n[[upstreams.limits]]\nmodels = [\"gpt-4o\"]\nrpm = 500\ntpm = 30000\n\
                [[tenants]]\nname = \"*\"\n[[tenants]]\nname = \"search-team\"";
    Config::from_toml(text, "test").unwrap()
}

#[test]
fn everything_is_counted_under_its_name() {
    let metrics = Arc::new(Metrics::new());
    let config = config();
    let table = metrics.table(&config);
    let listed = table.group(config.upstreams[0].route(Some("gpt-4o")).index);
    let unlisted = table.group(config.upstreams[0].route(Some("something \"else\"\n")).index);
    assert_eq!(
        (listed.upstream(), listed.model(), unlisted.model()),
        ("openai", "gpt-4o", "other")
    );

    listed.finished(RequestOutcome::Success);
    unlisted.finished(RequestOutcome::Refused);
    for status in [200, 200, 429, 418, 0, 999] {
        listed.response(status);
    }
    listed.rate_limited(Cause::Rate, Some(Dimension::Tokens), true);
    listed.rate_limited(Cause::Congestion, None, false);
    listed.waited(Duration::from_millis(700));
    let usage = Usage {
        input: Some(Tokens::new(100)),
        cached_input: Tokens::new(20),
        output: Some(Tokens::new(50)),
    };
    listed.usage(&usage, 110);
    listed.usage(&Usage::default(), 110);
    table.of_tenant(Some(0), RequestOutcome::Success, &usage);
    table.of_tenant(Some(1), RequestOutcome::Success, &usage);
    table.of_tenant(Some(1), RequestOutcome::Refused, &Usage::default());
    table.of_tenant(None, RequestOutcome::Canceled, &usage);
    metrics.overhead(Duration::from_micros(40));
    metrics.refused(Refused::Limiter(RefusalReason::Deadline));
    metrics.refused(Refused::BodyTooLarge);
    metrics.retried(&Failure::Transient { sent: true });
    metrics.reloaded(Ok(()));
    let in_flight = listed.in_flight();
    drop(listed.in_flight());
    let connection = metrics.connection();

    let page = metrics.render(&views(&snapshot::busy(), &config), None);
    drop((in_flight, connection));
    let page = page.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    golden::check("crates/gateway/tests/golden/metrics.txt", &page);
}

#[test]
fn a_reload_goes_on_counting() {
    let metrics = Arc::new(Metrics::new());
    for _ in 0..2 {
        metrics
            .table(&config())
            .group(0)
            .finished(RequestOutcome::Success);
    }
    let page = metrics.render(&[], None);
    let line = "tidegate_requests_total{model=\"gpt-4o\",outcome=\"success\",upstream=\"openai\"} 2";
    assert!(page.lines().any(|got| got == line), "{page}");
}

#[test]
fn quota_gauges_show_the_moment_alone() {
    let metrics = Metrics::new();
    let busy = metrics.render(&views(&snapshot::busy(), &config()), None);
    assert!(busy.contains("tidegate_quota_used"), "{busy}");
    let idle = metrics.render(&[], None);
    assert!(!idle.contains("tidegate_quota_used{"), "{idle}");
}

#[test]
fn the_status_says_what_a_cap_on_outputs_would_do() {
    let mut snapshot = snapshot::busy();
    let lengths = [(100, 600_000), (400, 400_000), (800, 9_000), (1_000, 0)];
    let outputs = |samples| tidegate_core::OutputSnapshot {
        class: tidegate_core::RequestClass::of(&["gpt-4o"]),
        samples,
        asked: tidegate_core::Tokens::new(4_000),
        per_second: Some(60),
        longer: lengths
            .map(|(length, longer)| (tidegate_core::Tokens::new(length), longer))
            .to_vec(),
    };
    snapshot.quotas[0].outputs = vec![outputs(200), outputs(10)];
    let views = views(&snapshot, &config());
    let [output] = views[0].outputs[..] else {
        panic!("ten outputs say nothing: {:?}", views[0].outputs);
    };
    assert_eq!((output.asked, output.p50, output.p99), (4_000, 400, 800));
    let cap = output.cap.unwrap();
    assert_eq!((cap.tokens, cap.configured), (800, false));
    assert_eq!((cap.cut_per_million, cap.carries_percent), (9_000, 500));
}

/// The status lists the first of a line only, so it says how many there are besides.
#[test]
fn the_status_says_how_long_the_rest_of_the_line_is() {
    let mut snapshot = snapshot::busy();
    let more = |snapshot: &_| {
        let quota = views(snapshot, &config()).swap_remove(0);
        (quota.line.len(), quota.line_more)
    };
    assert_eq!(more(&snapshot), (2, None));
    let first = snapshot.quotas[0].first_waiting[0];
    snapshot.quotas[0].first_waiting = vec![first; 100];
    snapshot.quotas[0].waiting = 5_000;
    assert_eq!(more(&snapshot), (100, Some(4_900)));
}
