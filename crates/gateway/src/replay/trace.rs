//! Traces: who asked for how much, and when.
//!
//! A trace is a CSV file with a header line (`TIMESTAMP,ContextTokens,GeneratedTokens`, as the Azure LLM inference
//! traces have it) or a log of JSON lines with `ts` (or `timestamp`), `input_tokens`, `output_tokens` and optionally
//! `model` and `stream`. It is read as a stream: memory does not grow with the file.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

mod timestamp;

#[cfg(test)]
mod tests;

use timestamp::UnixNanos;

/// The longest line that is read.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// How many requests are held to put them in order: logs are often written when a request ends, not when it starts.
const REORDER_REQUESTS: usize = 10_000;
/// The most tokens that one request of a trace may have, in or out: far above every context window.
const TOKENS_MAX: u64 = 10_000_000;

/// One request of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceRequest {
    /// When it starts, counted from the start of the trace.
    pub at: Duration,
    /// Tokens of its prompt.
    pub input_tokens: u64,
    /// Tokens of its answer.
    pub output_tokens: u64,
    /// The model it asks, where the trace says so.
    pub model: Option<String>,
    /// Whether it wants a stream, where the trace says so.
    pub stream: Option<bool>,
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened or read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line says something that cannot be used.
    #[error("{path}:{line}: {what}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong and how to mend it.
        what: String,
    },
    /// There is nothing to play.
    #[error("{path}: {what}")]
    Empty {
        /// The file.
        path: PathBuf,
        /// What is missing and how to mend it.
        what: String,
    },
}

/// The part of a trace that is played: from (included) to (excluded), counted from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first moment that is played; it becomes the start.
    pub from: Duration,
    /// The first moment that is no longer played.
    pub to: Duration,
}

impl Span {
    /// The whole trace.
    pub const ALL: Self = Self {
        from: Duration::ZERO,
        to: Duration::MAX,
    };
}

/// What a span of a trace holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TraceSummary {
    /// Requests.
    pub requests: u64,
    /// Tokens of all prompts.
    pub input_tokens: u64,
    /// Tokens of all answers.
    pub output_tokens: u64,
    /// When the last request starts, counted from the start of the span.
    pub last: Duration,
}

/// A trace that can be read more than once.
#[derive(Debug, Clone)]
pub struct Trace {
    source: Source,
    path: PathBuf,
}

#[derive(Debug, Clone)]
enum Source {
    File,
    Text(&'static [u8]),
}

impl Trace {
    /// A trace in a file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            source: Source::File,
            path: path.into(),
        }
    }

    /// A trace that is part of the program; `name` stands for the path in messages.
    pub fn embedded(name: &str, text: &'static [u8]) -> Self {
        Self {
            source: Source::Text(text),
            path: PathBuf::from(name),
        }
    }

    /// The path, or the name of an embedded trace.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the span once and says what it holds, so that a bad line is known before the first request is sent.
    ///
    /// # Errors
    ///
    /// Returns [`TraceError`] if the file cannot be read, a line is wrong or the span holds no request.
    pub fn summary(&self, span: Span) -> Result<TraceSummary, TraceError> {
        let mut summary = TraceSummary::default();
        for request in self.requests(span)? {
            let request = request?;
            summary.requests += 1;
            summary.input_tokens = summary.input_tokens.saturating_add(request.input_tokens);
            summary.output_tokens = summary.output_tokens.saturating_add(request.output_tokens);
            summary.last = request.at;
        }
        if summary.requests == 0 {
            return Err(TraceError::Empty {
                path: self.path.clone(),
                what: "no request starts in the chosen span; widen --from and --to".to_owned(),
            });
        }
        Ok(summary)
    }

    /// Streams the requests of the span, ordered by start, starts counted from the span's own start.
    ///
    /// # Errors
    ///
    /// Returns [`TraceError`] if the file cannot be opened or its head tells no known form; the items carry the rest.
    pub fn requests(
        &self,
        span: Span,
    ) -> Result<impl Iterator<Item = Result<TraceRequest, TraceError>> + Send + 'static, TraceError> {
        let reader: Box<dyn BufRead + Send> = match self.source {
            Source::File => {
                let file = File::open(&self.path).map_err(|source| TraceError::Io {
                    path: self.path.clone(),
                    source,
                })?;
                Box::new(BufReader::with_capacity(1 << 16, file))
            }
            Source::Text(text) => Box::new(text),
        };
        let rows = Rows::new(Lines::new(reader, self.path.clone()))?;
        Ok(Ordered::new(rows).filter_map(move |item| match item {
            Ok(request) if request.at < span.from || request.at >= span.to => None,
            Ok(mut request) => {
                request.at -= span.from;
                Some(Ok(request))
            }
            Err(error) => Some(Err(error)),
        }))
    }
}

/// Lines of bounded length, with their numbers; blank ones are skipped.
struct Lines {
    reader: Box<dyn BufRead + Send>,
    path: PathBuf,
    number: u64,
}

impl Lines {
    fn new(reader: Box<dyn BufRead + Send>, path: PathBuf) -> Self {
        Self {
            reader,
            path,
            number: 0,
        }
    }

    fn wrong(&self, what: impl Into<String>) -> TraceError {
        TraceError::Line {
            path: self.path.clone(),
            line: self.number,
            what: what.into(),
        }
    }

    fn next(&mut self) -> Result<Option<String>, TraceError> {
        loop {
            let mut bytes = Vec::new();
            self.number += 1;
            let read = (&mut self.reader)
                .take(LINE_BYTES_MAX + 1)
                .read_until(b'\n', &mut bytes)
                .map_err(|source| TraceError::Io {
                    path: self.path.clone(),
                    source,
                })?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 > LINE_BYTES_MAX {
                return Err(self.wrong("the line is longer than 1 MiB; is this a trace?"));
            }
            let text = String::from_utf8(bytes)
                .map_err(|_| self.wrong("not UTF-8; convert the file, or is it compressed?"))?;
            let text = if self.number == 1 {
                text.strip_prefix('\u{feff}').unwrap_or(&text)
            } else {
                &text
            };
            let text = text.trim();
            if !text.is_empty() {
                return Ok(Some(text.to_owned()));
            }
        }
    }
}

/// Requests in file order, with absolute times.
struct Rows {
    lines: Lines,
    form: Form,
    /// The first line, if it is itself a request.
    first: Option<String>,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    /// Which column holds what.
    Csv {
        at: usize,
        input: usize,
        output: usize,
    },
    Json,
}

/// A request with its absolute start; ordered by start, then by line.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    at: UnixNanos,
    line: u64,
    input: u64,
    output: u64,
    model: Option<String>,
    stream: Option<bool>,
}

#[derive(Deserialize)]
struct JsonRow {
    #[serde(alias = "timestamp")]
    ts: Option<serde_json::Value>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    model: Option<String>,
    stream: Option<bool>,
}

impl Rows {
    fn new(mut lines: Lines) -> Result<Self, TraceError> {
        let Some(head) = lines.next()? else {
            return Err(TraceError::Empty {
                path: lines.path,
                what: "the file is empty; a trace has a header line and one line a request".to_owned(),
            });
        };
        if head.starts_with('{') {
            return Ok(Self {
                lines,
                form: Form::Json,
                first: Some(head),
            });
        }
        let names: Vec<&str> = fields(&head).collect();
        let column = |wanted: &[&str]| {
            names
                .iter()
                .position(|name| wanted.iter().any(|w| name.eq_ignore_ascii_case(w)))
                .ok_or_else(|| {
                    lines.wrong(format!(
                        "no column {}; a CSV trace starts with the line TIMESTAMP,ContextTokens,GeneratedTokens \
                         and a JSON trace with {{",
                        wanted[0]
                    ))
                })
        };
        let form = Form::Csv {
            at: column(&["TIMESTAMP", "ts"])?,
            input: column(&["ContextTokens", "input_tokens"])?,
            output: column(&["GeneratedTokens", "output_tokens"])?,
        };
        Ok(Self {
            lines,
            form,
            first: None,
        })
    }

    fn next(&mut self) -> Result<Option<Row>, TraceError> {
        let line = match self.first.take() {
            Some(line) => line,
            None => match self.lines.next()? {
                Some(line) => line,
                None => return Ok(None),
            },
        };
        let row = match self.form {
            Form::Csv { at, input, output } => {
                let fields: Vec<&str> = fields(&line).collect();
                self.csv_row(&fields, at, input, output)?
            }
            Form::Json => self.json_row(&line)?,
        };
        Ok(Some(row))
    }

    fn csv_row(&self, fields: &[&str], at: usize, input: usize, output: usize) -> Result<Row, TraceError> {
        let field = |index: usize, name: &str| {
            fields.get(index).copied().ok_or_else(|| {
                self.lines.wrong(format!(
                    "{} fields, but {name} is field {}; complete or remove the line",
                    fields.len(),
                    index + 1
                ))
            })
        };
        let tokens = |index: usize, name: &str| {
            let text = field(index, name)?;
            let count = text.parse::<u64>().map_err(|_| {
                self.lines
                    .wrong(format!("{name} is {text:?}, not a whole number of tokens"))
            })?;
            self.checked(count, name)
        };
        let text = field(at, "TIMESTAMP")?;
        Ok(Row {
            at: UnixNanos::parse(text)
                .map_err(|what| self.lines.wrong(format!("TIMESTAMP {text:?}: {what}")))?,
            line: self.lines.number,
            input: tokens(input, "ContextTokens")?,
            output: tokens(output, "GeneratedTokens")?,
            model: None,
            stream: None,
        })
    }

    fn json_row(&self, line: &str) -> Result<Row, TraceError> {
        let row: JsonRow = serde_json::from_str(line).map_err(|error| self.lines.wrong(error.to_string()))?;
        let missing = |name: &str| self.lines.wrong(format!("no {name}; add it or remove the line"));
        let at = match row.ts.ok_or_else(|| missing("ts (or timestamp)"))? {
            serde_json::Value::String(text) => {
                UnixNanos::parse(&text).map_err(|what| self.lines.wrong(format!("ts {text:?}: {what}")))?
            }
            // The digits as they are written: a float would lose the nanoseconds.
            serde_json::Value::Number(number) => UnixNanos::parse(&number.to_string())
                .map_err(|what| self.lines.wrong(format!("ts {number}: {what}")))?,
            _ => {
                return Err(self
                    .lines
                    .wrong("ts is neither an RFC 3339 text nor a number of epoch seconds"));
            }
        };
        let input = row.input_tokens.ok_or_else(|| missing("input_tokens"))?;
        let output = row.output_tokens.ok_or_else(|| missing("output_tokens"))?;
        Ok(Row {
            at,
            line: self.lines.number,
            input: self.checked(input, "input_tokens")?,
            output: self.checked(output, "output_tokens")?,
            model: row.model,
            stream: row.stream,
        })
    }

    fn checked(&self, count: u64, name: &str) -> Result<u64, TraceError> {
        if count > TOKENS_MAX {
            return Err(self.lines.wrong(format!(
                "{name} is {count}, more than {TOKENS_MAX}; no model reads that much"
            )));
        }
        Ok(count)
    }
}

/// The fields of a CSV line. Times and counts hold neither commas nor quotes, so none are looked for inside quotes.
fn fields(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(|field| field.trim().trim_matches('"').trim())
}

/// Puts requests that are a little out of order in order, within a bounded buffer.
struct Ordered {
    rows: Rows,
    held: BinaryHeap<Reverse<Row>>,
    ended: bool,
    /// The start of the trace: its earliest request.
    start: Option<UnixNanos>,
    last: UnixNanos,
}

impl Ordered {
    fn new(rows: Rows) -> Self {
        Self {
            rows,
            held: BinaryHeap::new(),
            ended: false,
            start: None,
            last: UnixNanos::ZERO,
        }
    }

    fn fill(&mut self) -> Result<(), TraceError> {
        while !self.ended && self.held.len() < REORDER_REQUESTS {
            match self.rows.next()? {
                Some(row) if row.at < self.last => {
                    return Err(self.rows.lines.wrong(format!(
                        "the request starts earlier than one that stands more than {REORDER_REQUESTS} lines before; \
                         sort the file by time"
                    )));
                }
                Some(row) => self.held.push(Reverse(row)),
                None => self.ended = true,
            }
        }
        Ok(())
    }
}

impl Iterator for Ordered {
    type Item = Result<TraceRequest, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.fill() {
            self.ended = true;
            self.held.clear();
            return Some(Err(error));
        }
        let Reverse(row) = self.held.pop()?;
        self.last = row.at;
        let start = *self.start.get_or_insert(row.at);
        Some(Ok(TraceRequest {
            at: row.at.since(start),
            input_tokens: row.input,
            output_tokens: row.output,
            model: row.model,
            stream: row.stream,
        }))
    }
}
