//! The player: starts every request at its time and keeps what became of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::client::{Client, Dialect, Failure};
use super::connection::ServerError;
use super::prompt;
use super::report::{QuotaLimits, Report};
use super::retry::SdkRetries;
use super::trace::{Span, Trace, TraceError, TraceRequest, TraceSummary};

#[cfg(test)]
mod tests;

/// The most requests that one run keeps a record of (about 100 bytes each).
const RECORDS_MAX: u64 = 2_000_000;
/// Requests read ahead of their time.
const READ_AHEAD: usize = 256;

/// How a trace is played.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server, with or without `/v1`.
    pub base_url: String,
    /// How it speaks.
    pub dialect: Dialect,
    /// The model to ask where the trace names none.
    pub model: String,
    /// The key to send, marked sensitive.
    pub api_key: HeaderValue,
    /// How many times faster than in the trace requests arrive; nothing else changes.
    pub speed: f64,
    /// How many times faster than in the trace everything runs: arrivals, the retries' pauses and the timeout are
    /// shortened, and the report gives every time in the time of the trace. For servers whose windows are as much
    /// shorter.
    pub time_scale: f64,
    /// The share of requests that want a stream, where the trace does not say.
    pub stream_share: f64,
    /// The retries of the imitated SDK.
    pub retries: SdkRetries,
    /// How long to wait for the head of a response and for each next part of it, in the time of the trace.
    pub timeout: Duration,
    /// The most requests in flight; more are held back, which shows in their latency and in the report.
    pub max_in_flight: usize,
    /// Decides which requests stream, and the retries' jitter.
    pub seed: u64,
    /// What the whole answer to a prompt must be, where the server is a mock: text and most tokens of it.
    pub expect: Option<fn(prompt: &str, output_tokens: u64) -> String>,
    /// The limits whose use is reported.
    pub limits: QuotaLimits,
}

impl Settings {
    /// The settings of `tidegate replay` without flags.
    pub fn new(base_url: impl Into<String>) -> Self {
        let mut api_key = HeaderValue::from_static("sk-replay");
        api_key.set_sensitive(true);
        Self {
            base_url: base_url.into(),
            dialect: Dialect::OpenAi,
            model: "gpt-4o".to_owned(),
            api_key,
            speed: 1.0,
            time_scale: 1.0,
            stream_share: 0.5,
            retries: SdkRetries { max: 0 },
            timeout: Duration::from_secs(600),
            max_in_flight: 10_000,
            seed: 1,
            expect: None,
            limits: QuotaLimits::default(),
        }
    }
}

/// Why a trace is not played.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The server cannot be spoken to.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// A setting is out of its range.
    #[error("{0}")]
    Setting(&'static str),
    /// The span holds more requests than are kept track of.
    #[error("the span holds {0} requests, more than {RECORDS_MAX}; choose a part of it with --from and --to")]
    TooMany(u64),
}

/// What became of one request. Times count from the start of the run, in the time of the trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was to start.
    pub intended: Duration,
    /// When its first attempt was sent; absent if it never was.
    pub sent: Duration,
    /// When the attempt that got through was let through: sent, and held by Tidegate for as long as it says.
    pub admitted: Option<Duration>,
    /// When its answer was complete, or its last failure came.
    pub finished: Duration,
    /// The status of every attempt, 0 where no response came.
    pub statuses: Vec<u16>,
    /// Input and output tokens: what the provider charges.
    pub tokens: u64,
    /// How it ended.
    pub result: Result<(), Failure>,
}

/// How far a run is; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    started: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    stopped: AtomicBool,
    stop: Notify,
}

impl Progress {
    /// Requests started.
    pub fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// Requests answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Requests failed for good.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Answers with status 429.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Ends the run now: requests in flight are given up, and the report says how many.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.stop.notify_one();
    }
}

/// A trace that is ready to be played.
pub struct Player {
    trace: Trace,
    span: Span,
    summary: TraceSummary,
    settings: Settings,
    client: Client,
}

impl Player {
    /// Reads the trace once, so that what is wrong with it is known before anything is sent, and checks the settings.
    ///
    /// # Errors
    ///
    /// Returns [`PlayError`] if the trace, the base URL or a setting cannot be used.
    pub fn new(trace: Trace, span: Span, settings: Settings) -> Result<Self, PlayError> {
        let factor = |value: f64| value.is_finite() && (1e-3..=1e6).contains(&value);
        if !factor(settings.speed) || !factor(settings.time_scale) {
            return Err(PlayError::Setting(
                "--speed and --time-scale lie between 0.001 and 1000000",
            ));
        }
        if !(0.0..=1.0).contains(&settings.stream_share) {
            return Err(PlayError::Setting("--stream is a share between 0 and 1"));
        }
        if settings.max_in_flight == 0 || settings.max_in_flight > Semaphore::MAX_PERMITS {
            return Err(PlayError::Setting("--max-in-flight is at least 1"));
        }
        if settings.timeout.is_zero() {
            return Err(PlayError::Setting("--timeout is more than 0"));
        }
        let timeout = settings.timeout.div_f64(settings.time_scale);
        let client = Client::new(&settings.base_url, settings.dialect, &settings.api_key, timeout)?;
        let summary = trace.summary(span)?;
        if summary.requests > RECORDS_MAX {
            return Err(PlayError::TooMany(summary.requests));
        }
        Ok(Self {
            trace,
            span,
            summary,
            settings,
            client,
        })
    }

    /// What will be played.
    pub fn summary(&self) -> TraceSummary {
        self.summary
    }

    /// Plays the trace and reports. Must be awaited inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// Returns [`PlayError`] if the trace can no longer be read.
    pub async fn play(self, progress: Arc<Progress>) -> Result<Report, PlayError> {
        let (sender, mut requests) = tokio::sync::mpsc::channel(READ_AHEAD);
        let items = self.trace.requests(self.span)?;
        // Files are read on a thread of their own: a slow disk must not delay a request.
        let reader = tokio::task::spawn_blocking(move || {
            for item in items {
                if sender.blocking_send(item).is_err() {
                    return;
                }
            }
        });
        let start = Instant::now();
        let run = Arc::new(Run {
            client: self.client,
            start,
            mark: mix(self.settings.seed) as u32,
            in_flight: Arc::new(Semaphore::new(self.settings.max_in_flight)),
            progress: Arc::clone(&progress),
            settings: self.settings,
        });
        let mut tasks = JoinSet::new();
        let mut records = Vec::new();
        let mut index = 0;
        let mut broken = None;
        while let Some(item) = tokio::select! {
            biased;
            () = progress.stop.notified() => None,
            item = requests.recv() => item,
        } {
            let request = match item {
                Ok(request) => request,
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            };
            let at = start + run.real(request.at).div_f64(run.settings.speed);
            tokio::select! {
                biased;
                () = progress.stop.notified() => break,
                () = sleep_until(at) => {}
            }
            progress.started.fetch_add(1, Ordering::Relaxed);
            tasks.spawn(Arc::clone(&run).request(index, request, at));
            index += 1;
            while let Some(done) = tasks.try_join_next() {
                records.extend(done);
            }
        }
        drop(requests);
        if progress.stopped.load(Ordering::Relaxed) || broken.is_some() {
            tasks.abort_all();
        }
        loop {
            tokio::select! {
                done = tasks.join_next() => match done {
                    Some(done) => records.extend(done),
                    None => break,
                },
                () = progress.stop.notified() => tasks.abort_all(),
            }
        }
        drop(reader.await);
        if let Some(error) = broken {
            return Err(error.into());
        }
        let wall = run.traced(start.elapsed());
        Ok(Report::new(records, index, wall, &run.settings.limits))
    }
}

/// What the tasks of a run share.
struct Run {
    client: Client,
    settings: Settings,
    start: Instant,
    /// Tells the prompts of this run from those of others.
    mark: u32,
    in_flight: Arc<Semaphore>,
    progress: Arc<Progress>,
}

impl Run {
    fn real(&self, traced: Duration) -> Duration {
        traced.div_f64(self.settings.time_scale)
    }

    fn traced(&self, real: Duration) -> Duration {
        real.mul_f64(self.settings.time_scale)
    }

    fn since_start(&self, at: Instant) -> Duration {
        self.traced(at.saturating_duration_since(self.start))
    }

    async fn request(self: Arc<Self>, index: u64, request: TraceRequest, intended: Instant) -> Record {
        let draw = |salt: u64| {
            let bits = mix(self.settings.seed ^ mix(index.wrapping_mul(64).wrapping_add(salt)));
            (bits >> 11) as f64 / (1_u64 << 53) as f64
        };
        // The semaphore is never closed, so what comes back is always a permit.
        let _permit = Arc::clone(&self.in_flight).acquire_owned().await;
        let stream = request
            .stream
            .unwrap_or_else(|| draw(0) < self.settings.stream_share);
        let model = request.model.as_deref().unwrap_or(&self.settings.model);
        let text = prompt::text(self.mark, index, request.input_tokens);
        let output = request.output_tokens.max(1);
        let body = prompt::body(model, &text, output, stream);
        let expect = self.settings.expect.map(|expect| expect(&text, output));
        drop(text);
        let mut record = Record {
            intended: self.since_start(intended),
            sent: self.since_start(Instant::now()),
            admitted: None,
            finished: Duration::ZERO,
            statuses: Vec::with_capacity(1),
            tokens: request.input_tokens.saturating_add(output),
            result: Ok(()),
        };
        for retries in 0.. {
            let attempt = self.client.attempt(body.clone(), stream, retries).await;
            let status = attempt.head.as_ref().map_or(0, |(status, _)| status.as_u16());
            record.statuses.push(status);
            if status == StatusCode::TOO_MANY_REQUESTS.as_u16() {
                self.progress.refused.fetch_add(1, Ordering::Relaxed);
            }
            let head = attempt.head.as_ref().map(|(status, headers)| (*status, headers));
            if head.is_some_and(|(status, _)| status.is_success()) {
                let held = self.traced(attempt.queued.unwrap_or_default());
                record.admitted = Some(self.since_start(attempt.sent) + held);
            }
            record.result = match attempt.result {
                Ok(answer) if expect.as_ref().is_some_and(|expect| *expect != answer) => Err(Failure::Wrong),
                Ok(_) => Ok(()),
                Err(failure) => Err(failure),
            };
            // Like the SDKs: once a good head has come, what follows is not tried again.
            let pause = match record.result {
                Err(Failure::Status(_) | Failure::Connection | Failure::Timeout)
                    if record.admitted.is_none() =>
                {
                    let jitter = draw(1 + u64::from(retries));
                    self.settings
                        .retries
                        .pause(retries, head, jitter, self.settings.time_scale)
                }
                _ => None,
            };
            match pause {
                Some(pause) => sleep(self.real(pause)).await,
                None => break,
            }
        }
        record.finished = self.since_start(Instant::now());
        let counter = match record.result {
            Ok(()) => &self.progress.answered,
            Err(_) => &self.progress.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        record
    }
}

/// The finalizer of SplitMix64: spreads neighbouring numbers over all 64 bits.
fn mix(value: u64) -> u64 {
    let mut bits = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
