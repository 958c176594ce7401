//! The one table that is printed.

use std::time::Duration;

/// What came of one scenario at one provider.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    pub(crate) gateways: usize,
    pub(crate) algorithm: &'static str,
    pub(crate) requests: usize,
    pub(crate) answered: usize,
    pub(crate) refused: usize,
    pub(crate) failed: usize,
    pub(crate) lost: usize,
    pub(crate) moved: usize,
    pub(crate) upstream_429: u64,
    /// Before the fault, in the two windows after it, and in the two after those.
    pub(crate) used: [f64; 3],
    /// How long after the fault the first window began that was used as it should be; absent without a fault.
    pub(crate) back: Option<Option<Duration>>,
    pub(crate) share_error: f64,
    /// Of the store, in a second, over all providers.
    pub(crate) calls: f64,
    pub(crate) grants: f64,
    pub(crate) beats: f64,
}

const HEAD: [&str; 16] = [
    "scenario",
    "gateways",
    "provider",
    "requests",
    "answered",
    "refused",
    "failed",
    "lost",
    "moved",
    "429",
    "before",
    "during",
    "after",
    "back after",
    "shares",
    "calls/s (grants + beats)",
];

/// Prints the table.
pub(crate) fn print(rows: &[Row]) {
    println!("| {} |", HEAD.join(" | "));
    println!("|{}", "---|".repeat(HEAD.len()));
    for row in rows {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let back = match row.back {
            None => "–".to_owned(),
            Some(None) => "not".to_owned(),
            Some(Some(after)) => format!("{} s", after.as_secs()),
        };
        let cells = [
            row.scenario.to_owned(),
            row.gateways.to_string(),
            row.algorithm.to_owned(),
            row.requests.to_string(),
            row.answered.to_string(),
            row.refused.to_string(),
            row.failed.to_string(),
            row.lost.to_string(),
            row.moved.to_string(),
            row.upstream_429.to_string(),
            percent(row.used[0]),
            percent(row.used[1]),
            percent(row.used[2]),
            back,
            percent(row.share_error),
            format!("{:.0} ({:.0} + {:.0})", row.calls, row.grants, row.beats),
        ];
        println!("| {} |", cells.join(" | "));
    }
}
