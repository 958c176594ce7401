//! The provider of the benchmark: as fast as can be, so that what is measured is what stands before it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The time between two events of one stream.
pub(crate) const EVENT_INTERVAL: Duration = Duration::from_millis(20);

/// What stands before the moment of sending in each event, as 15 digits of nanoseconds since the origin.
pub(crate) const STAMP: &[u8] = b"t=";

/// The digits of a stamp.
pub(crate) const STAMP_DIGITS: usize = 15;

const ANSWER: &str = concat!(
    r#"{"id":"chatcmpl-0123456789","object":"chat.completion","created":1700000000,"model":"gpt-4o-2024-08-06","#,
    r#""choices":[{"index":0,"message":{"role":"assistant","content":"The tide comes in, the tide goes out, and the "#,
    r#"harbor master writes it down.","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":"#,
    r#"{"prompt_tokens":210,"completion_tokens":16,"total_tokens":226},"system_fingerprint":"fp_0123456789"}"#
);

/// Starts the upstream on a thread of its own, for as long as the process lives.
pub(crate) fn start(origin: Instant) -> SocketAddr {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime starts");
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0")
                .await
                .expect("loopback has a free port");
            sender
                .send(listener.local_addr().expect("it is bound"))
                .expect("the starter waits");
            let turns = Arc::new(AtomicU64::new(0));
            loop {
                if let Ok((connection, _)) = listener.accept().await {
                    tokio::spawn(serve(connection, origin, Arc::clone(&turns)));
                }
            }
        });
    });
    receiver.recv().expect("the upstream starts")
}

/// Answers requests on one connection until it is closed or breaks, which ends nothing else.
async fn serve(mut connection: TcpStream, origin: Instant, turns: Arc<AtomicU64>) {
    let _ = connection.set_nodelay(true);
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    let mut buffer = Vec::with_capacity(4096);
    loop {
        buffer.clear();
        let Some(streams) = read_request(&mut connection, &mut buffer).await else {
            return;
        };
        if streams {
            return stream(connection, origin, &turns).await;
        }
        if connection.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Reads one request; returns whether it asks for a stream, or `None` when the connection ends.
async fn read_request(connection: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<bool> {
    let mut complete_at = None;
    loop {
        if connection.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
        if complete_at.is_none() {
            complete_at = request_len(buffer);
        }
        if complete_at.is_some_and(|length| buffer.len() >= length) {
            return Some(memchr::memmem::find(buffer, br#""stream":true"#).is_some());
        }
    }
}

fn request_len(bytes: &[u8]) -> Option<usize> {
    let head_len = memchr::memmem::find(bytes, b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..head_len]).ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    Some(head_len + 4 + length.unwrap_or(0))
}

/// Sends an event every [`EVENT_INTERVAL`] until the other side hangs up.
async fn stream(mut connection: TcpStream, origin: Instant, turns: &AtomicU64) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    if connection.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    // Streams take turns, or their events would come in bursts that no provider sends.
    let turn = Duration::from_millis(turns.fetch_add(1, Ordering::Relaxed) % 20);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::from_std(origin) + turn, EVENT_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let event = format!(
            "data: {{\"id\":\"chatcmpl-0123456789\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\
             \"model\":\"gpt-4o-2024-08-06\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"t={:0width$}\"}},\
             \"logprobs\":null,\"finish_reason\":null}}]}}\n\n",
            origin.elapsed().as_nanos(),
            width = STAMP_DIGITS,
        );
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        if connection.write_all(chunk.as_bytes()).await.is_err() {
            return;
        }
    }
}
