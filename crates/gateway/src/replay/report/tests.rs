use super::*;
use crate::replay::Failure;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn record(intended: u64, admitted: Option<u64>, finished: u64, statuses: &[u16], tokens: u64) -> Record {
    Record {
        intended: s(intended),
        sent: s(intended),
        admitted: admitted.map(s),
        finished: s(finished),
        statuses: statuses.to_vec(),
        tokens,
        result: match statuses.last() {
            Some(200) => Ok(()),
            Some(0) => Err(Failure::Connection),
            Some(&status) => Err(Failure::Status(status)),
            None => Err(Failure::Timeout),
        },
    }
}

fn sample() -> Report {
    let records = vec![
        record(0, Some(0), 2, &[200], 100),
        record(1, Some(4), 6, &[429, 429, 200], 50),
        record(2, None, 9, &[429, 429, 429], 70),
        record(61, Some(63), 65, &[200], 30),
        record(62, None, 62, &[0], 10),
        record(62, Some(64), 66, &[500, 200], 20),
    ];
    let limits = QuotaLimits {
        requests: Some(4),
        tokens: Some(150),
        window: s(60),
        slice: None,
    };
    Report::new(records, 7, s(66), &limits)
}

#[test]
fn counts_add_up() {
    let report = sample();
    assert_eq!(
        (report.requests, report.answered, report.failed, report.unfinished),
        (7, 4, 2, 1)
    );
    assert_eq!((report.retried, report.refused), (3, 5));
    assert_eq!(
        report.statuses,
        BTreeMap::from([(0, 1), (200, 4), (429, 5), (500, 1)])
    );
    let failures = [("no connection".to_owned(), 1), ("status 429".to_owned(), 1)];
    assert_eq!(report.failures, BTreeMap::from(failures));
    assert_eq!((report.tokens, report.tokens_answered), (280, 200));
    assert!(!report.all_answered());
}

#[test]
fn waits_and_latencies_count_from_the_intended_start() {
    let report = sample();
    // Waits 0, 3, 2, 2; latencies 2, 5, 4, 4.
    let wait = report.wait.expect("four answers");
    assert_eq!([wait.p50, wait.p90, wait.p99, wait.max], [s(2), s(3), s(3), s(3)]);
    let latency = report.latency.expect("four answers");
    assert_eq!([latency.p50, latency.p90, latency.max], [s(4), s(5), s(5)]);
}

#[test]
fn use_is_averaged_over_the_time_in_which_requests_waited() {
    let report = sample();
    let intervals: Vec<_> = report.waiting.iter().map(|i| (i.from, i.to)).collect();
    // The one that was admitted at once and the ones that never were do not count.
    assert_eq!(intervals, [(s(1), s(4)), (s(61), s(64))]);
    assert_eq!(report.waiting_total, s(6));
    // Tokens in the last 60 s: 1..4 s 100; 61..63 s 50 (the first has expired); 63..64 s 80.
    let [requests, tokens] = &report.limits[..] else {
        panic!("two limits")
    };
    assert_eq!((requests.peak, tokens.peak), (2, 150));
    let share = tokens.share_while_waiting.expect("waited");
    assert!(
        (share - (300.0 + 100.0 + 80.0) / 6.0 / 150.0).abs() < 1e-9,
        "{share}"
    );
    // Requests: 1 for three seconds, 1 for two, 2 for one.
    let share = requests.share_while_waiting.expect("waited");
    assert!((share - (3.0 + 2.0 + 2.0) / 6.0 / 4.0).abs() < 1e-9, "{share}");
}

#[test]
fn minutes_add_up() {
    let report = sample();
    let row = |started, tokens_started, admitted, tokens_admitted, failed| MinuteRow {
        started,
        tokens_started,
        admitted,
        tokens_admitted,
        failed,
    };
    assert_eq!(report.minutes, [row(3, 220, 2, 150, 1), row(3, 60, 2, 50, 1)]);
}

#[test]
fn an_empty_run_has_a_report() {
    let report = Report::new(Vec::new(), 0, s(0), &QuotaLimits::default());
    assert!(report.wait.is_none() && report.limits.is_empty() && report.minutes.is_empty());
    assert!(report.to_string().starts_with("0 requests, 0 tokens, in 0 s\n"));
}

#[test]
fn a_long_gap_does_not_make_a_long_table() {
    let records = vec![
        record(0, Some(0), 1, &[200], 1),
        record(u64::MAX / 4, None, 1, &[429], 1),
    ];
    assert!(
        Report::new(records, 2, s(0), &QuotaLimits::default())
            .minutes
            .len()
            <= 100_000
    );
}

#[test]
fn quantiles_are_nearest_ranks() {
    let q = Quantiles::of((1..=100).rev().map(s).collect()).expect("values");
    assert_eq!([q.p50, q.p90, q.p99, q.max], [s(50), s(90), s(99), s(100)]);
    let q = Quantiles::of(vec![s(7)]).expect("a value");
    assert_eq!([q.p50, q.p90, q.p99, q.max], [s(7); 4]);
    assert_eq!(Quantiles::of(Vec::new()), None);
}

#[test]
fn json_names_its_units() {
    let value = serde_json::to_value(sample()).expect("serializes");
    assert_eq!(value["wait"]["p50_s"], 2.0);
    assert_eq!(value["wall_s"], 66.0);
    assert_eq!(value["statuses"]["429"], 5);
    assert_eq!(value["limits"][1]["dimension"], "tokens");
    assert!(value.get("records").is_none());
}

#[test]
fn the_table_fits_a_terminal() {
    for line in sample().to_string().lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
}
