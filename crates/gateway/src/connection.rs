//! One client connection: HTTP served on it, and a watch over it that ends it when the client goes to sleep.
//!
//! hyper's own timer for request heads starts anew with every request and would end idle keep-alive connections with
//! the same patience as half-sent heads. The watch here tells the two apart and costs a request a few counters instead
//! of a timer.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::config::Server;
use crate::phase::{Phase, Phases};
use crate::proxy::Proxy;

/// How patient a connection is with its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// From the first byte of a request's head to its last.
    pub(crate) head: Duration,
    /// Without a byte, between requests.
    pub(crate) idle: Duration,
    /// While an answer is ready for a client that does not read.
    pub(crate) reader: Duration,
}

/// What happens on a connection, as its watch sees it.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Requests that have begun so far.
    begun: AtomicU32,
    /// Requests that are not answered to the end.
    open: AtomicU32,
    /// Reads that brought bytes since the last request began or ended.
    reads: AtomicU32,
    /// Parts of answers handed to hyper so far.
    parts: AtomicU32,
    /// Answers of which a part was handed to hyper that it has not come back from.
    unread: AtomicU32,
}

/// What the watch waits for to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standstill {
    /// Nobody has to do anything but us.
    None,
    /// A request's head has begun to arrive.
    Head { begun: u32 },
    /// Nothing has arrived since the last request.
    Idle { begun: u32 },
    /// The client does not read what it was sent.
    Reader { parts: u32 },
}

impl Activity {
    /// Notes that a request has begun; it ends when what is returned is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> OpenRequest {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        self.reads.store(0, Ordering::Relaxed);
        OpenRequest {
            activity: Arc::clone(self),
            is_unread: false,
        }
    }

    fn standstill(&self) -> Standstill {
        let begun = self.begun.load(Ordering::Relaxed);
        if self.open.load(Ordering::Relaxed) == 0 {
            if self.reads.load(Ordering::Relaxed) == 0 {
                Standstill::Idle { begun }
            } else {
                Standstill::Head { begun }
            }
        } else if self.unread.load(Ordering::Relaxed) > 0 {
            let parts = self.parts.load(Ordering::Relaxed);
            Standstill::Reader { parts }
        } else {
            Standstill::None
        }
    }
}

/// A request that is not answered to the end yet.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    activity: Arc<Activity>,
    is_unread: bool,
}

impl OpenRequest {
    /// A part of the answer goes to the client.
    pub(crate) fn part_ready(&mut self) {
        self.activity.parts.fetch_add(1, Ordering::Relaxed);
        if !self.is_unread {
            self.is_unread = true;
            self.activity.unread.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The client has taken what there was.
    pub(crate) fn part_taken(&mut self) {
        if self.is_unread {
            self.is_unread = false;
            self.activity.unread.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.part_taken();
        self.activity.reads.store(0, Ordering::Relaxed);
        self.activity.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What every HTTP/2 connection begins with (RFC 9113 §3.4).
const HTTP2_PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A version of HTTP that a client may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

/// A client's byte stream that notes when bytes arrive.
struct WatchedIo {
    stream: TcpStream,
    activity: Arc<Activity>,
    /// The first bytes, which tell the version.
    opening: [u8; HTTP2_PREFACE.len()],
    /// How many of them were read.
    opening_len: usize,
    /// How many of them were passed on.
    opening_passed: usize,
}

impl WatchedIo {
    const fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            activity,
            opening: [0; HTTP2_PREFACE.len()],
            opening_len: 0,
            opening_passed: 0,
        }
    }

    /// Reads as much as it takes to tell the version. A client that leaves before that is HTTP/1.1's to deal with.
    fn poll_version(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Version>> {
        loop {
            let len = self.opening_len;
            if self.opening[..len] != HTTP2_PREFACE[..len] {
                return Poll::Ready(Ok(Version::Http1));
            }
            if len == HTTP2_PREFACE.len() {
                return Poll::Ready(Ok(Version::Http2));
            }
            let mut buffer = ReadBuf::new(&mut self.opening[len..]);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let read = buffer.filled().len();
            if read == 0 {
                return Poll::Ready(Ok(Version::Http1));
            }
            self.opening_len += read;
            self.activity.reads.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Passes on what is left of the first bytes.
    fn pass_opening(&mut self, buffer: &mut ReadBuf<'_>) {
        let left = &self.opening[self.opening_passed..self.opening_len];
        let part = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..part]);
        self.opening_passed += part;
    }
}

impl AsyncRead for WatchedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Together with what follows them: hyper enlarges its buffer for a head that comes in two reads.
        let is_opening = this.opening_passed < this.opening_len;
        if is_opening {
            this.pass_opening(buffer);
            if buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if buffer.filled().len() != before {
            this.activity.reads.fetch_add(1, Ordering::Relaxed);
        }
        // An end or error of the stream comes again with the next read.
        if is_opening { Poll::Ready(Ok(())) } else { read }
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, buffers)
    }
}

/// What every client connection is served with.
pub(crate) struct Listener {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    patience: Patience,
}

/// How far a connection is. Boxed, so that its task does not carry the room for both versions.
enum Stage<H1, H2> {
    /// The version is not known yet; `None` once it does not matter any more.
    Opening(Option<WatchedIo>),
    Http1(Pin<Box<H1>>),
    Http2(Pin<Box<H2>>),
}

impl<H1: GracefulConnection, H2: GracefulConnection> Stage<H1, H2> {
    /// Lets the connection end after the requests that are open.
    fn shut_down(&mut self) {
        match self {
            Self::Opening(io) => *io = None,
            Self::Http1(connection) => connection.as_mut().graceful_shutdown(),
            Self::Http2(connection) => connection.as_mut().graceful_shutdown(),
        }
    }

    /// Serves. How a connection ends concerns nobody but its requests, which have said so themselves.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Opening(_) => Poll::Pending,
            Self::Http1(connection) => connection.as_mut().poll(cx).map(drop),
            Self::Http2(connection) => connection.as_mut().poll(cx).map(drop),
        }
    }
}

/// Streams that one HTTP/2 client may have open (theory.md §6.2).
const STREAMS_MAX: u32 = 100;

/// Receive windows of HTTP/2: what one client can make us hold (theory.md §6.2).
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Streams that a client opened and reset before we looked at them: more of them end the connection (CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;

/// How often an HTTP/2 client with open streams is asked whether it still lives.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// The smallest buffer that hyper works with.
const HEAD_BYTES_MIN: usize = 8 * 1024;

impl Listener {
    /// Makes what serves connections within the bounds of `server`.
    pub(crate) fn new(server: &Server) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_headers(server.headers_max)
            .max_buf_size(server.head_bytes_max.max(HEAD_BYTES_MIN));
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(u32::try_from(server.head_bytes_max).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .keep_alive_interval(PING_INTERVAL);
        Self {
            http1,
            http2,
            patience: Patience {
                head: server.head_timeout,
                idle: server.idle_timeout,
                reader: READER_TIMEOUT,
            },
        }
    }

    /// Serves one connection until it ends, the client goes to sleep on it, or the program ends.
    pub(crate) async fn serve(&self, stream: TcpStream, proxy: &Arc<Proxy>, phases: &Phases) {
        let activity = Arc::new(Activity::default());
        // Boxed, so that a connection without a request does not carry the room for one.
        let answer = |request: Request<Incoming>| {
            let open = activity.begin();
            Box::pin(Proxy::answer(Arc::clone(proxy), open, request))
        };
        let mut stage = Stage::Opening(Some(WatchedIo::new(stream, Arc::clone(&activity))));
        let mut watch = Watch::new(self.patience);
        let mut tick = pin!(tokio::time::sleep(watch.period()));
        let mut changed = pin!(phases.changed());
        let mut seen = Phase::Serving;
        let mut is_registered = false;
        poll_fn(|cx| {
            // Neither future is polled again until it has fired: the waker of a task stays the same, and most polls
            // are about bytes.
            if !is_registered {
                is_registered = true;
                let _ = changed.as_mut().poll(cx);
                let _ = tick.as_mut().poll(cx);
            }
            let phase = phases.now();
            if phase == Phase::Ended {
                return Poll::Ready(());
            }
            if phase != seen {
                seen = phase;
                changed.set(phases.changed());
                is_registered = false;
                stage.shut_down();
            }
            if tick.is_elapsed() {
                if watch.is_over(&activity, Instant::now()) {
                    return Poll::Ready(());
                }
                tick.as_mut().reset(Instant::now() + watch.period());
                is_registered = false;
            }
            if !is_registered {
                cx.waker().wake_by_ref();
            }
            if let Stage::Opening(io) = &mut stage {
                let version = match io.as_mut().map(|io| io.poll_version(cx)) {
                    Some(Poll::Ready(Ok(version))) => version,
                    Some(Poll::Pending) => return Poll::Pending,
                    Some(Poll::Ready(Err(_))) | None => return Poll::Ready(()),
                };
                let Some(io) = io.take().map(TokioIo::new) else {
                    return Poll::Ready(());
                };
                stage = match version {
                    Version::Http1 => {
                        Stage::Http1(Box::pin(self.http1.serve_connection(io, service_fn(answer))))
                    }
                    Version::Http2 => {
                        Stage::Http2(Box::pin(self.http2.serve_connection(io, service_fn(answer))))
                    }
                };
            }
            stage.poll(cx)
        })
        .await;
    }
}

/// How long an answer may wait for a client that does not read it (theory.md §6.2).
const READER_TIMEOUT: Duration = Duration::from_secs(60);

/// Ends connections that have stood still for longer than patience allows.
struct Watch {
    patience: Patience,
    last: Standstill,
    since: Option<Instant>,
}

impl Watch {
    const fn new(patience: Patience) -> Self {
        Self {
            patience,
            last: Standstill::None,
            since: None,
        }
    }

    /// How often to look: a standstill ends at most this much later than patience does.
    fn period(&self) -> Duration {
        let shortest = self
            .patience
            .head
            .min(self.patience.idle)
            .min(self.patience.reader);
        (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(5))
    }

    fn is_over(&mut self, activity: &Activity, now: Instant) -> bool {
        let standstill = activity.standstill();
        let patience = match standstill {
            Standstill::None => {
                self.since = None;
                return false;
            }
            Standstill::Head { .. } => self.patience.head,
            Standstill::Idle { .. } => self.patience.idle,
            Standstill::Reader { .. } => self.patience.reader,
        };
        match self.since {
            Some(since) if standstill == self.last => now.duration_since(since) >= patience,
            _ => {
                self.last = standstill;
                self.since = Some(now);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        reader: Duration::from_secs(30),
    };

    fn lasts(activity: &Activity, expect: Option<u64>) {
        let start = Instant::now();
        let mut watch = Watch::new(PATIENCE);
        let over =
            (0..1_000_u64).find(|seconds| watch.is_over(activity, start + Duration::from_secs(*seconds)));
        assert_eq!(over, expect, "{activity:?}");
    }

    #[test]
    fn each_standstill_has_its_own_patience() {
        let activity = Arc::new(Activity::default());
        lasts(&activity, Some(60));
        activity.reads.store(1, Ordering::Relaxed);
        lasts(&activity, Some(10));
        let mut open = activity.begin();
        lasts(&activity, None);
        open.part_ready();
        lasts(&activity, Some(30));
        open.part_taken();
        lasts(&activity, None);
        activity.reads.store(7, Ordering::Relaxed);
        drop(open);
        lasts(&activity, Some(60));
    }

    #[tokio::test]
    async fn the_version_is_told_and_no_byte_is_lost() {
        for (sent, expect) in [
            ("", Version::Http1),
            ("PRI", Version::Http1),
            ("POST / HTTP/1.1\r\n\r\n", Version::Http1),
            ("PRI * HTTP/1.1\r\n\r\n", Version::Http1),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Version::Http2),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nand frames", Version::Http2),
        ] {
            for piece in [1, 5, 24, 100] {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
                let mut io = WatchedIo::new(listener.accept().await.unwrap().0, Arc::default());
                let send = async move {
                    for part in sent.as_bytes().chunks(piece) {
                        client.write_all(part).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                };
                let read = async {
                    let version = poll_fn(|cx| io.poll_version(cx)).await.unwrap();
                    let mut all = String::new();
                    io.read_to_string(&mut all).await.unwrap();
                    (version, all)
                };
                let ((), (version, all)) = tokio::join!(send, read);
                assert_eq!(
                    (version, all.as_str()),
                    (expect, sent),
                    "{sent:?} in pieces of {piece}"
                );
            }
        }
    }

    #[test]
    fn progress_starts_the_clock_anew() {
        let activity = Arc::new(Activity::default());
        let start = Instant::now();
        let mut watch = Watch::new(PATIENCE);
        for seconds in 0..1_000 {
            drop(activity.begin());
            assert!(!watch.is_over(&activity, start + Duration::from_secs(seconds * 59)));
        }
    }
}
