//! The demo: one trace against one limited provider three times: directly, directly with an SDK's retries, and
//! through Tidegate.
//!
//! Each of the three has a mock provider of its own, and all play at the same time: the load is far below what one
//! core can take (some hundred small requests a second), so none disturbs the others.

mod comparison;
mod stage;

use std::time::Duration;

pub use comparison::{Comparison, DemoRun};
pub use stage::{DemoError, Stage};

use crate::replay::{QuotaLimits, Trace};

/// The busiest two minutes of a coding assistant's traffic: seconds 840 to 960 of the Azure LLM inference trace of 2023
/// (code), a part of `data/azure_code.csv`.
const BUSIEST: &[u8] = include_bytes!("demo/busiest.csv");

/// How the mock provider enforces its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// An exact rolling window.
    #[default]
    Rolling,
    /// A bucket that refills continuously, as OpenAI's and Anthropic's do.
    TokenBucket,
    /// A counter that starts anew every window, at a phase that the seed decides.
    Fixed,
}

impl Algorithm {
    /// Returns its name in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rolling => "rolling windows",
            Self::TokenBucket => "token buckets",
            Self::Fixed => "fixed windows",
        }
    }
}

/// What the demo plays, and against what.
#[derive(Debug, Clone)]
pub struct DemoSettings {
    /// The requests.
    pub trace: Trace,
    /// What they are, in words.
    pub trace_name: &'static str,
    /// How many times faster than in the trace everything runs.
    pub time_scale: f64,
    /// Requests that the provider allows in a minute.
    pub rpm: u64,
    /// Tokens that the provider allows in a minute.
    pub tpm: u64,
    /// How the provider counts.
    pub algorithm: Algorithm,
    /// The seed of everything random.
    pub seed: u64,
}

impl Default for DemoSettings {
    /// Two minutes of requests, and the time that the queue needs to empty, take a minute at four times their speed. A
    /// provider's minute is then 15 s, whose sixtieth is the least margin that the gateway keeps by itself: what it does
    /// here is what it does to real minutes, and nothing needs to be set for the demo.
    fn default() -> Self {
        Self {
            trace: Trace::embedded("busiest.csv", BUSIEST),
            trace_name: "the busiest two minutes of a coding assistant's traffic (Azure, 2023)",
            time_scale: 4.0,
            rpm: 300,
            tpm: 400_000,
            algorithm: Algorithm::default(),
            seed: 1,
        }
    }
}

impl DemoSettings {
    /// The provider's limits in the time of the trace.
    fn limits(&self) -> QuotaLimits {
        QuotaLimits {
            requests: Some(self.rpm),
            tokens: Some(self.tpm),
            window: MINUTE,
            slice: None,
        }
    }

    /// The length of the provider's minute on the clock.
    fn window(&self) -> Duration {
        MINUTE.div_f64(self.time_scale)
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Span;

    /// The embedded part is the part of the whole that it is said to be, to the last request.
    #[test]
    fn the_embedded_trace_is_a_part_of_the_whole() {
        let whole = Trace::file(concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/azure_code.csv"));
        let span = Span {
            from: Duration::from_secs(840),
            to: Duration::from_secs(960),
        };
        let read = |trace: &Trace, span| -> Vec<_> {
            let requests = trace.requests(span).expect("readable");
            requests.map(|request| request.expect("readable")).collect()
        };
        let mut expect = read(&whole, span);
        let start = expect[0].at;
        for request in &mut expect {
            request.at -= start;
        }
        assert_eq!(read(&DemoSettings::default().trace, Span::ALL), expect);
    }

    /// Twenty requests at once against ten a minute, the minute being a second: real listeners, all the way through.
    #[tokio::test]
    async fn a_small_demo_adds_up() {
        let mut text = "ts,input_tokens,output_tokens\n".to_owned();
        for index in 0..20 {
            text.push_str(&format!("100.{index:02},{},3\n", 20 + index));
        }
        let settings = DemoSettings {
            trace: Trace::embedded("small", text.leak().as_bytes()),
            time_scale: 60.0,
            rpm: 10,
            tpm: 100_000,
            ..DemoSettings::default()
        };
        let stage = Stage::set(settings).expect("a stage");
        assert_eq!(stage.summary().requests, 20);
        let progress: Vec<_> = stage.progress().collect();
        let comparison = stage.play().await.expect("played");
        for (run, (name, progress)) in comparison.runs.iter().zip(&progress) {
            let report = &run.report;
            assert_eq!(run.name, *name);
            assert_eq!((report.requests, report.unfinished), (20, 0), "{name}");
            assert_eq!(
                (progress.started(), progress.answered()),
                (20, report.answered),
                "{name}"
            );
            assert_eq!(report.answered + report.failed, 20, "{name}");
            assert_eq!(
                report.statuses.get(&200).copied().unwrap_or(0),
                report.answered,
                "{name}"
            );
            assert_eq!(report.refused, progress.refused(), "{name}");
            assert_eq!(
                report.tokens,
                (0..20).map(|index| 20 + index + 3).sum::<u64>(),
                "{name}"
            );
            let rows = &report.minutes;
            assert_eq!(rows.iter().map(|row| row.started).sum::<u64>(), 20, "{name}");
            assert_eq!(
                rows.iter().map(|row| row.admitted).sum::<u64>(),
                report.answered,
                "{name}"
            );
        }
        let [direct, retried, guarded] = &comparison.runs[..] else {
            panic!("three runs")
        };
        assert_eq!(direct.report.refused, direct.refused_by_provider);
        assert_eq!(direct.report.failed, direct.refused_by_provider);
        assert!(direct.refused_by_provider > 0);
        assert_eq!(retried.report.refused, retried.refused_by_provider);
        // How few is a matter of the machine's load as well; the promise itself is tested in virtual time.
        assert!(
            guarded.refused_by_provider < direct.refused_by_provider,
            "{comparison}"
        );
        assert!(guarded.report.all_answered(), "{comparison}");
    }
}
