//! The log: one structured line for each request, and lines about the program itself.
//!
//! Lines are written by a thread of their own from a bounded channel, so that a slow terminal or pipe never holds up a
//! request; what does not fit is dropped and counted. No header, body or key gets into a line.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::IntCounter;
use tracing::{Dispatch, Level, enabled, info};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::metrics::RequestOutcome;

/// How many lines may wait to be written.
const LINES_MAX: usize = 8_192;

/// How long the end of the program waits for the last lines: nobody may be reading them.
const END_MAX: Duration = Duration::from_secs(2);

/// The target of the lines about requests: `--log warn,tidegate::request=info` shows them alone.
const REQUEST_TARGET: &str = "tidegate::request";

/// How many characters of the name of a model, tenant or run are shown: it is the client's text, or a proxy's.
const NAME_CHARS_MAX: usize = 80;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// What is logged: a level (error, warn, info, debug, trace) or a list such as warn,tidegate::request=info.
    #[arg(
        long,
        value_name = "FILTER",
        env = "RUST_LOG",
        default_value = "info,hyper=error"
    )]
    pub log: String,
    /// How lines look.
    #[arg(
        long,
        value_name = "FORMAT",
        env = "TIDEGATE_LOG_FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
}

/// A filter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "--log: cannot be read ({0}); write a level such as \"info\", or a list such as \"warn,tidegate::request=info\""
)]
pub struct BadFilter(#[from] tracing_subscriber::filter::ParseError);

/// What is said about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestRecord<'a> {
    /// The request's identifier, which the client sees in `x-tidegate-request-id`.
    pub request_id: &'a str,
    /// The upstream's name.
    pub upstream: &'a str,
    /// The tenant's name; nobody in particular has none.
    pub tenant: Option<&'a str>,
    /// How urgent it was; absent where that was not decided any more.
    pub priority: Option<&'a str>,
    /// The route that it took.
    pub route: Option<&'a str>,
    /// The model, as the client named it.
    pub model: Option<&'a str>,
    /// The operation ([`crate::provider::Endpoint::name`]).
    pub endpoint: &'a str,
    /// The status that the client got; 0 if it left before.
    pub status: u16,
    /// How the request ended.
    pub outcome: RequestOutcome,
    /// How long it waited for limits.
    pub queued: Duration,
    /// How many attempts were made.
    pub attempts: u32,
    /// What it waited for first, or why it was refused.
    pub limited_by: Option<&'a str>,
    /// Its place in line when it began to wait: 1 is the next.
    pub queue_place: Option<u64>,
    /// How long it was then expected to wait, in milliseconds.
    pub queue_eta_ms: Option<u64>,
    /// Whose requests were before it: `own` or `others`.
    pub queue_behind: Option<&'a str>,
    /// The input tokens that the upstream reported, without those that it read from its cache.
    pub input_tokens: Option<u64>,
    /// The input tokens that the upstream read from its cache; absent if it read none.
    pub cached_input_tokens: Option<u64>,
    /// The output tokens that the upstream reported.
    pub output_tokens: Option<u64>,
    /// The maximum output that was set on the client's behalf.
    pub max_tokens: Option<u64>,
    /// From the request's head to the end of its answer.
    pub duration: Duration,
    /// Whether the client asked for a stream.
    pub stream: bool,
    /// The code of Tidegate's own answer, where it gave one.
    pub error: Option<&'a str>,
    /// What went wrong with the upstream, in the gateway's words: never the upstream's body.
    pub trouble: Option<&'a str>,
    /// How often the client says that it has tried before (`x-stainless-retry-count`).
    pub client_retries: Option<u32>,
    /// What the client calls the run of its agent.
    pub run: Option<&'a str>,
    /// Whether the answer was begun while the request waited.
    pub kept_alive: bool,
}

impl RequestRecord<'_> {
    /// Returns whether anybody listens: if not, the record need not be made.
    pub fn wanted() -> bool {
        enabled!(target: REQUEST_TARGET, Level::INFO)
    }

    /// Writes the line.
    pub fn emit(&self) {
        if !Self::wanted() {
            return;
        }
        info!(
            target: REQUEST_TARGET,
            request_id = self.request_id,
            upstream = self.upstream,
            tenant = self.tenant.map(shortened),
            priority = self.priority,
            route = self.route,
            model = self.model.map(shortened),
            endpoint = self.endpoint,
            stream = self.stream,
            status = self.status,
            outcome = self.outcome.name(),
            queue_ms = milliseconds(self.queued),
            attempts = self.attempts,
            limited_by = self.limited_by,
            queue_place = self.queue_place,
            queue_eta_ms = self.queue_eta_ms,
            queue_behind = self.queue_behind,
            input_tokens = self.input_tokens,
            cached_input_tokens = self.cached_input_tokens,
            output_tokens = self.output_tokens,
            max_tokens = self.max_tokens,
            duration_ms = milliseconds(self.duration),
            error = self.error,
            trouble = self.trouble,
            client_retries = self.client_retries,
            run = self.run.map(shortened),
            kept_alive = self.kept_alive.then_some(true),
            "request",
        );
    }
}

fn shortened(name: &str) -> &str {
    let end = name
        .char_indices()
        .nth(NAME_CHARS_MAX)
        .map_or(name.len(), |(at, _)| at);
    &name[..end]
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Starts the log of the program, to standard error. Lines stop when the guard is dropped, after those that wait.
///
/// # Errors
///
/// Returns an error if the filter cannot be read, or a log was started before.
pub fn start(args: &LogArgs) -> Result<LogGuard, Box<dyn std::error::Error>> {
    let (dispatch, guard) = dispatch(args, io::stderr())?;
    tracing::dispatcher::set_global_default(dispatch)?;
    Ok(guard)
}

/// Makes a log that writes to `sink`.
///
/// # Errors
///
/// Returns an error if the filter cannot be read.
pub fn dispatch(
    args: &LogArgs,
    sink: impl Write + Send + 'static,
) -> Result<(Dispatch, LogGuard), Box<dyn std::error::Error>> {
    let filter = EnvFilter::try_new(&args.log).map_err(BadFilter)?;
    let (lines, receiver) = sync_channel(LINES_MAX);
    let dropped = Arc::new(Dropped::default());
    let writer = LineWriter {
        lines: lines.clone(),
        dropped: Arc::clone(&dropped),
    };
    let ending = Arc::new(AtomicBool::new(false));
    let (done_sender, done) = sync_channel(1);
    std::thread::Builder::new().name("log".to_owned()).spawn({
        let ending = Arc::clone(&ending);
        move || {
            write_lines(&receiver, &ending, sink);
            // Nobody may be waiting for it.
            let _ = done_sender.send(());
        }
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    let dispatch = match args.log_format {
        LogFormat::Text => Dispatch::new(builder.with_ansi(false).finish()),
        LogFormat::Json => Dispatch::new(builder.json().flatten_event(true).finish()),
    };
    let guard = LogGuard {
        lines,
        ending,
        done,
        dropped,
    };
    Ok((dispatch, guard))
}

/// Keeps the log going.
#[derive(Debug)]
pub struct LogGuard {
    lines: SyncSender<Option<Vec<u8>>>,
    ending: Arc<AtomicBool>,
    done: Receiver<()>,
    dropped: Arc<Dropped>,
}

impl LogGuard {
    /// Also counts lost lines in a metric.
    pub fn count_dropped(&self, counter: IntCounter) {
        counter.inc_by(self.dropped.lines.load(Ordering::Relaxed));
        // A second counter changes nothing.
        let _ = self.dropped.counter.set(counter);
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        // The thread ends at the mark, or where there is no room for one, when it has written all there was.
        self.ending.store(true, Ordering::Release);
        let _ = self.lines.try_send(None);
        let _ = self.done.recv_timeout(END_MAX);
    }
}

#[derive(Debug, Default)]
struct Dropped {
    lines: AtomicU64,
    counter: OnceLock<IntCounter>,
}

/// Takes whole lines: the subscriber writes each with one call.
struct LineWriter {
    lines: SyncSender<Option<Vec<u8>>>,
    dropped: Arc<Dropped>,
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = &'a LineWriter;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.lines.try_send(Some(line.to_vec())) {
            self.dropped.lines.fetch_add(1, Ordering::Relaxed);
            if let Some(counter) = self.dropped.counter.get() {
                counter.inc();
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How long lines are gathered before they are written together.
const GATHER: Duration = Duration::from_millis(5);

fn write_lines(lines: &Receiver<Option<Vec<u8>>>, ending: &AtomicBool, sink: impl Write) {
    let mut sink = io::BufWriter::with_capacity(64 * 1024, sink);
    while let Ok(Some(line)) = lines.recv() {
        // A log that cannot be written ends nothing else.
        let _ = sink.write_all(&line);
        // Lines that come meanwhile wake nobody: under load a wake-up for each would cost more than the line.
        std::thread::park_timeout(GATHER);
        loop {
            match lines.try_recv() {
                Ok(Some(line)) => {
                    let _ = sink.write_all(&line);
                }
                Ok(None) => return,
                Err(_) => break,
            }
        }
        let _ = sink.flush();
        if ending.load(Ordering::Acquire) {
            return;
        }
    }
}
