//! The player against servers that do as they are told.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Barrier;

use super::*;
use crate::replay::Interval;

const TRACE: &[u8] = b"ts,input_tokens,output_tokens\n100.000,20,2\n100.001,30,3\n100.002,40,4\n";
const ANSWER: &str = r#"{"choices":[{"message":{"content":"yes"}}]}"#;

type Answered = Response<Full<Bytes>>;

/// Serves on a free port of the loopback address for as long as the runtime lives.
async fn serve<F, R>(handle: F) -> SocketAddr
where
    F: Fn(Request<Bytes>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Answered> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handle = handle.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let handle = handle.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.expect("a whole body").to_bytes();
                    Ok::<_, Infallible>(handle(Request::from_parts(head, body)).await)
                }
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    address
}

fn answer(status: u16, headers: &[(&'static str, &'static str)], body: impl Into<Bytes>) -> Answered {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for &(name, value) in headers {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

fn settings(address: SocketAddr) -> Settings {
    Settings {
        stream_share: 0.0,
        ..Settings::new(format!("http://{address}/v1"))
    }
}

async fn play(settings: Settings) -> Report {
    let player = Player::new(Trace::embedded("t", TRACE), Span::ALL, settings).expect("playable");
    player.play(Arc::default()).await.expect("played")
}

#[tokio::test]
async fn requests_are_as_large_as_the_trace_says_and_all_different() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&seen);
    let address = serve(move |request| {
        let value: serde_json::Value = serde_json::from_slice(request.body()).expect("JSON");
        let authorized = request.headers()["authorization"] == "Bearer sk-replay";
        keep.lock().expect("no panic").push((
            request.uri().path().to_owned(),
            authorized,
            value["max_tokens"].as_u64(),
            value["messages"][0]["content"].as_str().map(str::to_owned),
        ));
        async { answer(200, &[("x-tidegate-queue-ms", "250.5")], ANSWER) }
    })
    .await;
    let report = play(settings(address)).await;
    assert!(report.all_answered(), "{report}");
    assert_eq!((report.requests, report.tokens), (3, 99));
    // What Tidegate says about its queue counts as wait.
    let wait = report.wait.expect("answers");
    assert!(wait.p50 >= Duration::from_micros(250_500), "{wait:?}");
    let mut seen = seen.lock().expect("no panic").clone();
    seen.sort_by_key(|seen| seen.2);
    let sizes: Vec<_> = seen
        .iter()
        .map(|(path, authorized, most, text)| {
            assert!(path == "/v1/chat/completions" && *authorized);
            (most.expect("named"), text.as_ref().expect("text").len() / 4 + 3)
        })
        .collect();
    assert_eq!(sizes, [(2, 20), (3, 30), (4, 40)]);
    assert_ne!(
        seen[0].3.as_deref().map(|t| &t[..14]),
        seen[1].3.as_deref().map(|t| &t[..14])
    );
}

/// No request is answered before all have come: a player that waited for answers would hang.
#[tokio::test]
async fn requests_do_not_wait_for_answers() {
    let all = Arc::new(Barrier::new(3));
    let address = serve(move |_| {
        let all = Arc::clone(&all);
        async move {
            all.wait().await;
            answer(200, &[], ANSWER)
        }
    })
    .await;
    assert!(play(settings(address)).await.all_answered());
}

#[tokio::test]
async fn no_more_requests_are_in_flight_than_allowed() {
    let open = Arc::new(AtomicU64::new(0));
    let address = serve(move |_| {
        let open = Arc::clone(&open);
        async move {
            let others = open.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            open.fetch_sub(1, Ordering::SeqCst);
            answer(if others == 0 { 200 } else { 500 }, &[], ANSWER)
        }
    })
    .await;
    let one = Settings {
        max_in_flight: 1,
        ..settings(address)
    };
    assert!(play(one).await.all_answered());
}

/// Refuses every request twice, told apart by the header in which the SDKs count their retries.
async fn refusing() -> SocketAddr {
    serve(|request| {
        let retries = request.headers()["x-stainless-retry-count"].clone();
        async move {
            match retries.as_bytes() {
                b"0" | b"1" => answer(429, &[("retry-after-ms", "1")], "{}"),
                _ => answer(200, &[], ANSWER),
            }
        }
    })
    .await
}

#[tokio::test]
async fn refused_requests_fail_without_retries_and_succeed_with_them() {
    let address = refusing().await;
    let report = play(settings(address)).await;
    assert_eq!(
        (report.answered, report.failed, report.refused, report.retried),
        (0, 3, 3, 0)
    );
    assert_eq!(report.failures, [("status 429".to_owned(), 3)].into());
    let retrying = Settings {
        retries: SdkRetries { max: 2 },
        ..settings(address)
    };
    let report = play(retrying).await;
    assert_eq!(
        (report.answered, report.failed, report.refused, report.retried),
        (3, 0, 6, 3)
    );
    assert_eq!(report.statuses, [(200, 3), (429, 6)].into());
    assert_eq!(report.waiting_total, Interval::total(&report.waiting));
    assert!(!report.waiting.is_empty());
}

#[tokio::test]
async fn answers_are_read_to_the_end_and_checked() {
    let address = serve(|_| async { answer(200, &[], ANSWER) }).await;
    let check = async |expect: fn(&str, u64) -> String, failures: &[(String, u64)]| {
        let checked = Settings {
            expect: Some(expect),
            ..settings(address)
        };
        let report = play(checked).await;
        assert_eq!(report.failures.into_iter().collect::<Vec<_>>(), failures);
    };
    check(|_, _| "yes".to_owned(), &[]).await;
    check(|_, _| "no".to_owned(), &[("wrong answer".to_owned(), 3)]).await;
    // A plain answer where a stream was asked for is no stream.
    let streaming = Settings {
        stream_share: 1.0,
        ..settings(address)
    };
    let report = play(streaming).await;
    assert_eq!(report.failures, [("broken answer".to_owned(), 3)].into());
    assert_eq!(report.statuses, [(200, 3)].into());
}

#[tokio::test]
async fn silence_ends_by_timeout() {
    let address = serve(|_| std::future::pending()).await;
    let hasty = Settings {
        timeout: Duration::from_millis(200),
        time_scale: 10.0,
        ..settings(address)
    };
    let report = play(hasty).await;
    assert_eq!(report.failures, [("timeout".to_owned(), 3)].into());
    assert_eq!(report.statuses, [(0, 3)].into());
}

#[tokio::test]
async fn nobody_there_is_a_failure_of_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let report = play(settings(address)).await;
    assert_eq!(report.failures, [("no connection".to_owned(), 3)].into());
}

#[tokio::test]
async fn a_stopped_run_reports_what_was_left() {
    let progress = Arc::new(Progress::default());
    let stop = Arc::clone(&progress);
    let arrived = Arc::new(AtomicU64::new(0));
    let address = serve(move |_| {
        if arrived.fetch_add(1, Ordering::SeqCst) == 2 {
            stop.stop();
        }
        std::future::pending()
    })
    .await;
    let player = Player::new(Trace::embedded("t", TRACE), Span::ALL, settings(address)).expect("playable");
    let report = player.play(progress).await.expect("played");
    assert_eq!((report.requests, report.unfinished), (3, 3));
}

#[test]
fn settings_out_of_range_are_refused() {
    let check = |change: fn(&mut Settings), expect: &str| {
        let mut settings = Settings::new("http://127.0.0.1:1");
        change(&mut settings);
        let player = Player::new(Trace::embedded("t", TRACE), Span::ALL, settings);
        let error = player.err().expect("refused").to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(|s| s.speed = 0.0, "--speed");
    check(|s| s.speed = f64::NAN, "--speed");
    check(|s| s.time_scale = -1.0, "--time-scale");
    check(|s| s.stream_share = 1.5, "--stream");
    check(|s| s.max_in_flight = 0, "--max-in-flight");
    check(|s| s.timeout = Duration::ZERO, "--timeout");
    check(|s| s.base_url = "localhost:8080".to_owned(), "--base-url");
    check(|s| s.base_url = "ftp://x".to_owned(), "--base-url");
}
