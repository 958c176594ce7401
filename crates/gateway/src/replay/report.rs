//! What a run shows: counts, waits, latencies, and how much of the quota was used.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::interval::{Interval, RollingUse, Take};
use super::player::Record;
use super::table::{TextTable, human_count, human_duration};

#[cfg(test)]
mod tests;

/// The most minutes that the printed table shows; the JSON has them all.
const MINUTES_SHOWN: usize = 30;

/// The limits whose use is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaLimits {
    /// Requests in a window.
    pub requests: Option<u64>,
    /// Tokens in a window.
    pub tokens: Option<u64>,
    /// The window, in the time of the trace.
    pub window: Duration,
    /// A shorter window over which the provider checks its share of the requests too.
    pub slice: Option<Duration>,
}

impl Default for QuotaLimits {
    fn default() -> Self {
        Self {
            requests: None,
            tokens: None,
            window: Duration::from_secs(60),
            slice: None,
        }
    }
}

impl QuotaLimits {
    /// Returns every limit: what it counts, how much of it, and over which window.
    fn each(&self) -> Vec<(&'static str, u64, Duration)> {
        let slice = self.slice.zip(self.requests).map(|(slice, requests)| {
            let share = u128::from(requests) * slice.as_micros() / self.window.as_micros().max(1);
            (u64::try_from(share).unwrap_or(u64::MAX).max(1), slice)
        });
        let whole = [("requests", self.requests), ("tokens", self.tokens)];
        let whole = whole
            .into_iter()
            .filter_map(|(dimension, limit)| Some((dimension, limit?, self.window)));
        whole
            .chain(slice.map(|(limit, slice)| ("requests", limit, slice)))
            .collect()
    }
}

/// Quantiles by nearest rank: the smallest value that at least that share of all values does not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Quantiles {
    /// Half of all values are no larger.
    #[serde(rename = "p50_s", serialize_with = "seconds")]
    pub p50: Duration,
    /// 90 % of all values are no larger.
    #[serde(rename = "p90_s", serialize_with = "seconds")]
    pub p90: Duration,
    /// 99 % of all values are no larger.
    #[serde(rename = "p99_s", serialize_with = "seconds")]
    pub p99: Duration,
    /// The largest value.
    #[serde(rename = "max_s", serialize_with = "seconds")]
    pub max: Duration,
}

impl Quantiles {
    /// Returns the quantiles of the values, or `None` if there are none.
    pub fn of(mut values: Vec<Duration>) -> Option<Self> {
        values.sort_unstable();
        let max = *values.last()?;
        let rank = |percent: usize| values[(values.len() * percent).div_ceil(100).max(1) - 1];
        Some(Self {
            p50: rank(50),
            p90: rank(90),
            p99: rank(99),
            max,
        })
    }
}

/// One minute of the run, in the time of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct MinuteRow {
    /// Requests that were to start in it.
    pub started: u64,
    /// Their tokens.
    pub tokens_started: u64,
    /// Requests let through in it.
    pub admitted: u64,
    /// Their tokens.
    pub tokens_admitted: u64,
    /// Requests of those that were to start in it that failed for good.
    pub failed: u64,
}

/// How much of one limit was used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LimitUse {
    /// `requests` or `tokens`.
    pub dimension: &'static str,
    /// The most that may be taken in a window.
    pub limit: u64,
    /// The window.
    #[serde(rename = "window_s", serialize_with = "seconds")]
    pub window: Duration,
    /// The most that was let through within any one window.
    pub peak: u64,
    /// The share of the limit that was in use while requests were waiting: the use of the rolling window, averaged
    /// over [`Report::waiting`]. Absent if nothing ever waited.
    pub share_while_waiting: Option<f64>,
}

/// What happened to a trace. All times are in the time of the trace.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Requests started.
    pub requests: u64,
    /// Requests answered, whole and correct.
    pub answered: u64,
    /// Requests that failed for good, after their retries.
    pub failed: u64,
    /// Requests given up because the run was stopped.
    pub unfinished: u64,
    /// The failures by kind.
    pub failures: BTreeMap<String, u64>,
    /// Requests sent more than once.
    pub retried: u64,
    /// Answers by status, of all attempts; 0 where none came.
    pub statuses: BTreeMap<u16, u64>,
    /// Answers with status 429.
    pub refused: u64,
    /// Input and output tokens of all requests, and of those answered.
    pub tokens: u64,
    /// Tokens of the requests answered.
    pub tokens_answered: u64,
    /// From the intended start to being let through, of the requests answered: time in Tidegate's queue, or lost to
    /// refused attempts and pauses between them.
    pub wait: Option<Quantiles>,
    /// From the intended start to the end of the answer, of the requests answered.
    pub latency: Option<Quantiles>,
    /// How late the player itself sent first attempts: large values mean that the player was the bottleneck.
    pub lateness: Option<Quantiles>,
    /// How long the run took.
    #[serde(rename = "wall_s", serialize_with = "seconds")]
    pub wall: Duration,
    /// The time during which at least one request was waiting.
    #[serde(rename = "waiting_s", serialize_with = "seconds")]
    pub waiting_total: Duration,
    /// How much of the limits was used.
    pub limits: Vec<LimitUse>,
    /// The share of whichever limit was fullest at each moment while requests were waiting.
    pub fullest_while_waiting: Option<f64>,
    /// The run by minute.
    pub minutes: Vec<MinuteRow>,
    /// The maximal intervals during which at least one request was waiting: from its first sending to being let
    /// through, of the requests that were let through.
    #[serde(skip)]
    pub waiting: Vec<Interval>,
    #[serde(skip)]
    records: Vec<Record>,
}

impl Report {
    /// Makes the report of a run that started `requests` requests and took `wall`.
    pub fn new(records: Vec<Record>, requests: u64, wall: Duration, limits: &QuotaLimits) -> Self {
        let answered = || records.iter().filter(|record| record.result.is_ok());
        let waiting = records.iter().filter_map(|record| {
            Some(Interval {
                from: record.sent,
                to: record.admitted?,
            })
        });
        let waiting = Interval::merged(waiting.collect());
        let mut failures = BTreeMap::new();
        let mut statuses = BTreeMap::new();
        for record in &records {
            if let Err(failure) = record.result {
                *failures.entry(failure.name()).or_insert(0) += 1;
            }
            for &status in &record.statuses {
                *statuses.entry(status).or_insert(0) += 1;
            }
        }
        let mut report = Self {
            requests,
            answered: answered().count() as u64,
            failed: records.iter().filter(|record| record.result.is_err()).count() as u64,
            unfinished: requests.saturating_sub(records.len() as u64),
            failures,
            retried: records.iter().filter(|record| record.statuses.len() > 1).count() as u64,
            refused: statuses.get(&429).copied().unwrap_or(0),
            statuses,
            tokens: records.iter().map(|record| record.tokens).sum(),
            tokens_answered: answered().map(|record| record.tokens).sum(),
            wait: Quantiles::of(
                answered()
                    .filter_map(|record| Some(record.admitted?.saturating_sub(record.intended)))
                    .collect(),
            ),
            latency: Quantiles::of(
                answered()
                    .map(|record| record.finished.saturating_sub(record.intended))
                    .collect(),
            ),
            lateness: Quantiles::of(
                records
                    .iter()
                    .map(|record| record.sent.saturating_sub(record.intended))
                    .collect(),
            ),
            wall,
            waiting_total: Interval::total(&waiting),
            limits: Vec::new(),
            fullest_while_waiting: None,
            minutes: minutes(&records),
            waiting,
            records,
        };
        report.limits = report.use_during(&report.waiting, limits);
        report.fullest_while_waiting = report
            .fullest_during(&report.waiting, limits)
            .filter(|_| !report.limits.is_empty());
        report
    }

    /// Returns how much of the limits was used during the given (merged) intervals, say those of another run.
    pub fn use_during(&self, intervals: &[Interval], limits: &QuotaLimits) -> Vec<LimitUse> {
        let measured = self
            .used(limits)
            .into_iter()
            .map(|(dimension, used, limit, window)| LimitUse {
                dimension,
                limit,
                window,
                peak: used.peak(),
                share_while_waiting: used.mean_during(intervals).map(|mean| mean / limit.max(1) as f64),
            });
        measured.collect()
    }

    /// Returns the share of whichever limit was fullest at each moment of the given (merged) intervals.
    pub fn fullest_during(&self, intervals: &[Interval], limits: &QuotaLimits) -> Option<f64> {
        let used = self
            .used(limits)
            .into_iter()
            .map(|(_, used, limit, _)| (used, limit));
        let fullest = RollingUse::fullest(&used.collect::<Vec<_>>());
        fullest.mean_during(intervals).map(|mean| mean / 1e6)
    }

    fn used(&self, limits: &QuotaLimits) -> Vec<(&'static str, RollingUse, u64, Duration)> {
        let used = limits.each().into_iter().map(|(dimension, limit, window)| {
            let takes = self.records.iter().filter_map(|record| {
                let amount = if dimension == "tokens" { record.tokens } else { 1 };
                let at = record.admitted?;
                Some(Take { at, amount })
            });
            (dimension, RollingUse::new(takes.collect(), window), limit, window)
        });
        used.collect()
    }

    /// Returns whether every request was answered.
    pub fn all_answered(&self) -> bool {
        self.answered == self.requests
    }
}

/// The share of the limit that was used most.
pub(crate) fn binding_share(limits: &[LimitUse]) -> Option<f64> {
    let shares = limits.iter().filter_map(|limit| limit.share_while_waiting);
    shares.max_by(f64::total_cmp)
}

fn minutes(records: &[Record]) -> Vec<MinuteRow> {
    let minute = |at: Duration| usize::try_from(at.as_secs() / 60).unwrap_or(usize::MAX);
    let mut rows: Vec<MinuteRow> = Vec::new();
    // A trace of many years with two requests must not become a table of millions of empty minutes.
    const ROWS_MAX: usize = 100_000;
    let mut add = |at: Duration, change: &dyn Fn(&mut MinuteRow)| {
        let minute = minute(at).min(ROWS_MAX - 1);
        if rows.len() <= minute {
            rows.resize(minute + 1, MinuteRow::default());
        }
        change(&mut rows[minute]);
    };
    for record in records {
        add(record.intended, &|row| {
            row.started += 1;
            row.tokens_started += record.tokens;
            row.failed += u64::from(record.result.is_err());
        });
        if let Some(admitted) = record.admitted {
            add(admitted, &|row| {
                row.admitted += 1;
                row.tokens_admitted += record.tokens;
            });
        }
    }
    rows
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // Microseconds are more than the clocks are good for.
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e6)
}

/// A share as a percentage: `98.3 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = human_count;
        writeln!(
            f,
            "{} requests, {} tokens, in {}",
            count(self.requests),
            count(self.tokens),
            human_duration(self.wall)
        )?;
        writeln!(
            f,
            "  answered {}, failed {}, retried {}, answers with 429: {}{}",
            count(self.answered),
            count(self.failed),
            count(self.retried),
            count(self.refused),
            match self.unfinished {
                0 => String::new(),
                unfinished => format!(", given up when stopped {}", count(unfinished)),
            }
        )?;
        let listed = |pairs: Vec<String>| pairs.join(", ");
        if !self.failures.is_empty() {
            let pairs = self
                .failures
                .iter()
                .map(|(name, n)| format!("{name}: {}", count(*n)));
            writeln!(f, "  failures by kind: {}", listed(pairs.collect()))?;
        }
        let pairs = self.statuses.iter().map(|(status, n)| match status {
            0 => format!("none: {}", count(*n)),
            status => format!("{status}: {}", count(*n)),
        });
        writeln!(f, "  answers by status: {}", listed(pairs.collect()))?;
        writeln!(f)?;
        let mut table = TextTable::new(["time", "p50", "p90", "p99", "max"]);
        for (name, quantiles) in [
            ("wait until let through", self.wait),
            ("latency", self.latency),
            ("lateness of the player", self.lateness),
        ] {
            if let Some(q) = quantiles {
                let [p50, p90, p99, max] = [q.p50, q.p90, q.p99, q.max].map(human_duration);
                table.row([name.to_owned(), p50, p90, p99, max]);
            }
        }
        writeln!(f, "{table}")?;
        if !self.limits.is_empty() {
            let mut table = TextTable::new(["limit", "in any window", "peak", "used while requests waited"]);
            for limit in &self.limits {
                table.row([
                    format!("{} in {}", limit.dimension, human_duration(limit.window)),
                    count(limit.limit),
                    count(limit.peak),
                    limit
                        .share_while_waiting
                        .map_or_else(|| "nothing waited".to_owned(), percent),
                ]);
            }
            if let Some(share) = self.fullest_while_waiting.filter(|_| self.limits.len() > 1) {
                table.row([
                    "whichever is fullest".to_owned(),
                    String::new(),
                    String::new(),
                    percent(share),
                ]);
            }
            writeln!(f, "{table}")?;
            writeln!(
                f,
                "  requests waited during {}\n",
                human_duration(self.waiting_total)
            )?;
        }
        let mut table = TextTable::new(["minute", "started", "tokens", "let through", "tokens", "failed"]);
        for (number, row) in self.minutes.iter().enumerate().take(MINUTES_SHOWN) {
            table.row([
                number.to_string(),
                count(row.started),
                count(row.tokens_started),
                count(row.admitted),
                count(row.tokens_admitted),
                count(row.failed),
            ]);
        }
        write!(f, "{table}")?;
        let more = self.minutes.len().saturating_sub(MINUTES_SHOWN);
        if more > 0 {
            writeln!(f, "  and {more} minutes more; --json has them all")?;
        }
        Ok(())
    }
}
