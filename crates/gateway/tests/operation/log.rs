//! The log line of a request.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::Value;
use tidegate_gateway::log::{LogArgs, LogFormat, RequestRecord, dispatch};
use tidegate_gateway::metrics::{Metrics, RequestOutcome};

/// Keeps what is written.
#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Page {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn args(log: &str, log_format: LogFormat) -> LogArgs {
    LogArgs {
        log: log.to_owned(),
        log_format,
    }
}

fn record() -> RequestRecord<'static> {
    RequestRecord {
        request_id: "tg-1",
        upstream: "openai",
        tenant: Some("search-team"),
        priority: Some("high"),
        route: Some("chat"),
        model: Some("gpt-4o"),
        endpoint: "chat_completions",
        stream: true,
        status: 200,
        outcome: RequestOutcome::Success,
        queued: Duration::from_millis(1_234),
        attempts: 2,
        queue_place: Some(3),
        queue_eta_ms: Some(1_500),
        queue_behind: Some("others"),
        limited_by: Some("tokens"),
        input_tokens: Some(100),
        output_tokens: None,
        duration: Duration::from_millis(2_345),
        error: None,
        trouble: None,
        client_retries: Some(1),
        cached_input_tokens: Some(4),
        max_tokens: Some(512),
        run: Some("run-7"),
        kept_alive: true,
    }
}

/// Returns what the log holds after `emit` has run.
fn logged(args: &LogArgs, emit: impl FnOnce()) -> String {
    let page = Page::default();
    let (dispatch, guard) = dispatch(args, page.clone()).unwrap();
    tracing::dispatcher::with_default(&dispatch, emit);
    drop(guard);
    page.text()
}

#[test]
fn a_request_is_one_json_line() {
    let text = logged(&args("info", LogFormat::Json), || record().emit());
    assert_eq!(text.lines().count(), 1, "{text}");
    let mut line: Value = serde_json::from_str(&text).unwrap();
    let object = line.as_object_mut().unwrap();
    assert!(object.remove("timestamp").is_some());
    assert_eq!(
        line,
        serde_json::json!({
            "level": "INFO", "target": "tidegate::request", "message": "request", "request_id": "tg-1",
            "upstream": "openai", "tenant": "search-team", "priority": "high", "route": "chat", "model": "gpt-4o", "endpoint": "chat_completions", "stream": true, "status": 200,
            "outcome": "success", "queue_ms": 1_234, "queue_place": 3, "queue_eta_ms": 1_500, "queue_behind": "others", "attempts": 2, "limited_by": "tokens", "input_tokens": 100,
            "duration_ms": 2_345, "client_retries": 1, "cached_input_tokens": 4, "max_tokens": 512, "run": "run-7",
            "kept_alive": true,
        })
    );
}

#[test]
fn a_clients_text_stays_in_its_line_and_in_bounds() {
    let model = format!("a\nb\u{1b}[31m\"{}", "ä".repeat(10_000));
    for format in [LogFormat::Text, LogFormat::Json] {
        let emit = || {
            let record = RequestRecord {
                model: Some(&model),
                run: Some(&model),
                ..record()
            };
            record.emit();
        };
        let text = logged(&args("info", format), emit);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.len() < 1_000 && !text.contains('\u{1b}'), "{text}");
    }
}

#[test]
fn nothing_is_written_that_nobody_wants() {
    let wanted = |filter: &str| {
        let mut wanted = None;
        let text = logged(&args(filter, LogFormat::Text), || {
            wanted = Some(RequestRecord::wanted());
            record().emit();
        });
        (wanted.unwrap(), text.lines().count())
    };
    assert_eq!(wanted("warn"), (false, 0));
    assert_eq!(wanted("off"), (false, 0));
    assert_eq!(wanted("warn,tidegate::request=info"), (true, 1));
    assert_eq!(wanted("info"), (true, 1));
}

#[test]
fn a_filter_that_cannot_be_read_says_so() {
    let error = dispatch(&args("info,=x=", LogFormat::Text), io::sink())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("--log: ") && error.contains("write a level"),
        "{error}"
    );
}

/// Lets nothing through until it is opened.
#[derive(Clone, Default)]
struct Dam(Arc<(Mutex<bool>, Condvar)>);

impl Dam {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

impl Write for Dam {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut is_open = self.0.0.lock().unwrap();
        while !*is_open {
            is_open = self.0.1.wait(is_open).unwrap();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_nobody_and_counts_what_is_lost() {
    let dam = Dam::default();
    let (dispatch, guard) = dispatch(&args("info", LogFormat::Text), dam.clone()).unwrap();
    let dropped = Metrics::new().log_lines_dropped();
    guard.count_dropped(dropped.clone());
    tracing::dispatcher::with_default(&dispatch, || {
        for _ in 0..20_000 {
            record().emit();
        }
    });
    assert!(dropped.get() > 0, "20 000 lines fit into no bound of this log");
    dam.open();
    drop(guard);
}
