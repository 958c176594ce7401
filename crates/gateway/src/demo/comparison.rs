//! What the three runs show, side by side.

use std::fmt;

use serde::Serialize;

use super::{Algorithm, DemoSettings};
use crate::replay::{LimitUse, Report, TextTable, binding_share, human_count, human_duration, percent};

/// One of the three runs.
#[derive(Debug, Serialize)]
pub struct DemoRun {
    /// How the requests went to the provider.
    pub name: &'static str,
    /// Requests that the provider refused with 429, as the provider counted them.
    pub refused_by_provider: u64,
    /// How much of the limits was used while there was more to do than the limits allow: while requests waited in
    /// Tidegate's queue in the run through Tidegate. All runs are measured over these same stretches of time.
    pub limits: Vec<LimitUse>,
    /// What the callers saw.
    pub report: Report,
}

/// The three runs and what they were made with.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// What was played.
    pub trace: &'static str,
    /// How many times faster than in the trace everything ran; all times are in the time of the trace.
    pub time_scale: f64,
    /// Requests that the provider allowed in a minute.
    pub rpm: u64,
    /// Tokens that the provider allowed in a minute.
    pub tpm: u64,
    /// How the provider counted.
    pub algorithm: Algorithm,
    /// The seed.
    pub seed: u64,
    /// Directly, directly with retries, through Tidegate.
    pub runs: Vec<DemoRun>,
}

impl Comparison {
    /// Puts the runs side by side; each comes with the number of requests that its provider refused, and the last is
    /// the one through Tidegate.
    pub fn new(settings: &DemoSettings, runs: Vec<(&'static str, Report, u64)>) -> Self {
        let busy = runs.last().map(|(_, report, _)| report.waiting.clone());
        let busy = busy.unwrap_or_default();
        let runs = runs
            .into_iter()
            .map(|(name, report, refused_by_provider)| DemoRun {
                name,
                refused_by_provider,
                limits: report.use_during(&busy, &settings.limits()),
                report,
            });
        Self {
            trace: settings.trace_name,
            time_scale: settings.time_scale,
            rpm: settings.rpm,
            tpm: settings.tpm,
            algorithm: settings.algorithm,
            seed: settings.seed,
            runs: runs.collect(),
        }
    }

    /// Returns whether the run through Tidegate kept the promise: nothing refused, everything answered.
    pub fn promise_kept(&self) -> bool {
        let last = self.runs.last();
        last.is_some_and(|run| run.refused_by_provider == 0 && run.report.all_answered())
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = TextTable::new([
            "",
            "requests",
            "429s",
            "failed",
            "wait p50",
            "wait p99",
            "quota used",
            "took",
        ]);
        for run in &self.runs {
            let report = &run.report;
            let failed = report.requests - report.answered;
            let share = failed as f64 / report.requests.max(1) as f64;
            let wait = |pick: fn(&crate::replay::Quantiles) -> std::time::Duration| {
                let wait = report.wait.as_ref().map(pick);
                wait.map_or_else(|| "none".to_owned(), human_duration)
            };
            table.row([
                run.name.to_owned(),
                human_count(report.requests),
                human_count(run.refused_by_provider),
                match failed {
                    0 => "0".to_owned(),
                    failed => format!("{} ({:.0} %)", human_count(failed), share * 100.0),
                },
                wait(|q| q.p50),
                wait(|q| q.p99),
                binding_share(&run.limits).map_or_else(|| "no queue".to_owned(), percent),
                human_duration(report.wall),
            ]);
        }
        writeln!(f, "{table}")?;
        let scale = self.time_scale;
        writeln!(f, "  429s        sent by the provider, by its own count")?;
        writeln!(
            f,
            "  failed      for the caller, after the retries of its SDK where it makes them"
        )?;
        writeln!(
            f,
            "  wait        from a request's start until the provider accepted it, of those answered"
        )?;
        writeln!(
            f,
            "  quota used  of the busier limit, while requests waited in Tidegate's queue"
        )?;
        writeln!(
            f,
            "  all times are in the time of the trace: on the clock everything ran {scale} times faster"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::replay::{Failure, QuotaLimits, Record};

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn record(at: u64, admitted: Option<u64>, statuses: &[u16]) -> Record {
        Record {
            intended: s(at),
            sent: s(at),
            admitted: admitted.map(s),
            finished: s(admitted.unwrap_or(at) + 1),
            statuses: statuses.to_vec(),
            tokens: 100,
            result: admitted.map(|_| ()).ok_or(Failure::Status(429)),
        }
    }

    fn sample() -> Comparison {
        let settings = DemoSettings {
            rpm: 2,
            tpm: 150,
            ..DemoSettings::default()
        };
        let limits = QuotaLimits::default();
        let direct = vec![record(0, Some(0), &[200]), record(10, None, &[429])];
        let guarded = vec![record(0, Some(0), &[200]), record(10, Some(60), &[200])];
        let runs = vec![
            ("direct", Report::new(direct, 2, s(70), &limits), 1),
            ("through Tidegate", Report::new(guarded, 2, s(120), &limits), 0),
        ];
        Comparison::new(&settings, runs)
    }

    #[test]
    fn all_runs_are_measured_over_the_same_time() {
        let comparison = sample();
        for run in &comparison.runs {
            // From 10 s to 60 s the first request's 100 of 150 tokens are in use, and 1 of 2 requests.
            let share = binding_share(&run.limits).expect("a queue");
            assert!((share - 100.0 / 150.0).abs() < 1e-9, "{}: {share}", run.name);
        }
        assert!(comparison.promise_kept());
    }

    #[test]
    fn a_refusal_breaks_the_promise() {
        let mut comparison = sample();
        comparison.runs[1].refused_by_provider = 1;
        assert!(!comparison.promise_kept());
        let mut comparison = sample();
        comparison.runs.remove(1);
        assert!(!comparison.promise_kept());
    }

    #[test]
    fn the_table_says_what_happened_in_a_hundred_columns() {
        let mut comparison = sample();
        comparison.runs[0].name = "direct, SDK retries";
        comparison.runs[0].refused_by_provider = 12_345;
        comparison.runs[0].report.requests = 12_345;
        comparison.runs[0].report.answered = 1;
        let text = comparison.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        assert!(text.contains("12,344 (100 %)"), "{text}");
        assert!(text.contains("66.7 %") && text.contains("50 s"), "{text}");
        assert!(text.contains("4 times faster"), "{text}");
    }
}
