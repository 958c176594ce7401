//! Connections to one upstream, kept warm. Framing is hyper's alone; this module only decides which connection a
//! request goes on, and when one is closed.
//!
//! Every worker has a pool of its own for every upstream, so nothing here is contended. HTTP/1.1 connections are lent to
//! one request at a time and come back when its answer has been read to the end; an HTTP/2 connection is shared up to a
//! bounded number of streams.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::config::Authorities;

/// The body of a request to an upstream.
#[derive(Debug)]
pub(crate) enum Payload {
    /// Known in full: its length is announced, and it can be sent again.
    Full(Bytes),
    /// Passed on as it arrives.
    Stream(Incoming),
    /// Passed on already; stands where a stream was.
    Spent,
}

impl Payload {
    /// Returns whether the same body can be sent a second time.
    pub(crate) const fn is_repeatable(&self) -> bool {
        matches!(self, Self::Full(_))
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Spent => Poll::Ready(None),
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(body) => body.is_end_stream(),
            Self::Spent => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(body) => body.size_hint(),
            Self::Spent => SizeHint::with_exact(0),
        }
    }
}

/// Where an upstream is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The host name or address to connect to.
    pub(crate) host: String,
    /// The TCP port.
    pub(crate) port: u16,
    /// The name its certificate must bear; `None` for plain TCP.
    pub(crate) tls_name: Option<ServerName<'static>>,
    /// Whom its certificate may come from, besides those the system trusts.
    pub(crate) authorities: Authorities,
    /// Which version of HTTP is spoken.
    pub(crate) protocol: Protocol,
}

/// Which version of HTTP an endpoint is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without TLS by prior knowledge.
    Http2,
    /// What the server chooses in the TLS handshake; HTTP/1.1 without TLS.
    Negotiated,
}

/// The bounds of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PoolBounds {
    /// The most HTTP/1.1 connections kept while nobody uses them.
    pub(crate) idle_max: usize,
    /// How long a connection is kept while nobody uses it.
    pub(crate) idle_timeout: Duration,
    /// How long a connection may take to be made, TLS included.
    pub(crate) connect_timeout: Duration,
    /// The most streams at a time on one HTTP/2 connection.
    pub(crate) streams_max: usize,
}

/// Why no connection could be made.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    /// The name could not be resolved, or nobody listens there.
    #[error("cannot connect to {host}:{port}: {source}")]
    Tcp {
        host: String,
        port: u16,
        source: io::Error,
    },
    /// The connection was made but TLS was not.
    #[error("TLS with {host}:{port} failed: {source}")]
    Tls {
        host: String,
        port: u16,
        source: io::Error,
    },
    /// Nothing came of it in time.
    #[error("no connection to {host}:{port} within {} ms", .after.as_millis())]
    Timeout {
        host: String,
        port: u16,
        after: Duration,
    },
    /// The HTTP handshake failed.
    #[error("HTTP handshake with {host}:{port} failed: {source}")]
    Handshake {
        host: String,
        port: u16,
        source: hyper::Error,
    },
}

/// The connections of one worker to one upstream.
pub(crate) struct Pool {
    endpoint: Endpoint,
    tls: Option<TlsConnector>,
    bounds: PoolBounds,
    /// Whether the endpoint is known to speak HTTP/1.1 only: then connections are not shared, and made side by side.
    is_http1: AtomicBool,
    state: Mutex<State>,
    /// Held while a connection is made to an upstream that may speak HTTP/2, so that a burst makes one and shares it.
    making: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    shared: Vec<Shared>,
}

struct Idle {
    sender: http1::SendRequest<Payload>,
    since: Instant,
}

struct Shared {
    sender: http2::SendRequest<Payload>,
    streams: Arc<AtomicUsize>,
    since: Instant,
}

/// What ALPN calls HTTP/2.
const ALPN_HTTP2: &[u8] = b"h2";

/// The largest response head that is read; what exceeds it is an upstream fault.
const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;

/// Receive windows of HTTP/2: what one slow client can make us hold is bounded by the stream's (theory.md §6.2).
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// How often an HTTP/2 connection with open streams is asked whether it still lives.
const PING_INTERVAL: Duration = Duration::from_secs(20);

impl Pool {
    /// Makes an empty pool; `tls` must be given if the endpoint has a TLS name.
    pub(crate) fn new(endpoint: Endpoint, tls: Option<TlsConnector>, bounds: PoolBounds) -> Self {
        let is_http1 = match endpoint.protocol {
            Protocol::Http1 => true,
            Protocol::Http2 => false,
            Protocol::Negotiated => endpoint.tls_name.is_none(),
        };
        Self {
            endpoint,
            tls,
            bounds,
            is_http1: AtomicBool::new(is_http1),
            state: Mutex::default(),
            making: tokio::sync::Mutex::new(()),
        }
    }

    /// Returns a warm connection if there is one.
    pub(crate) fn warm(self: &Arc<Self>) -> Option<Lease> {
        let mut state = self.state();
        if let Some(lease) = self.warm_http1(&mut state) {
            return Some(lease);
        }
        self.warm_http2(&mut state)
    }

    /// Returns a connection made for this call, or an HTTP/2 connection that another call made meanwhile.
    ///
    /// # Errors
    ///
    /// Returns why no connection could be made. Nothing was sent in that case.
    pub(crate) async fn fresh(self: &Arc<Self>) -> Result<Lease, ConnectError> {
        let making = tokio::time::timeout(self.bounds.connect_timeout, async {
            if self.is_http1.load(Ordering::Relaxed) {
                return self.connect().await;
            }
            let _making = self.making.lock().await;
            if let Some(lease) = self.warm_http2(&mut self.state()) {
                return Ok(lease);
            }
            self.connect().await
        });
        match making.await {
            Ok(made) => made,
            Err(_elapsed) => Err(ConnectError::Timeout {
                host: self.endpoint.host.clone(),
                port: self.endpoint.port,
                after: self.bounds.connect_timeout,
            }),
        }
    }

    /// Closes connections that nobody has used for the idle timeout, and forgets dead ones.
    pub(crate) fn sweep(&self) {
        let Some(oldest) = Instant::now().checked_sub(self.bounds.idle_timeout) else {
            return;
        };
        let mut state = self.state();
        state
            .idle
            .retain(|idle| !idle.sender.is_closed() && idle.since >= oldest);
        state.shared.retain(|shared| {
            !shared.sender.is_closed()
                && (shared.since >= oldest || shared.streams.load(Ordering::Relaxed) > 0)
        });
    }

    /// Returns whether the pool serves this endpoint within these bounds, so that a reload can keep it.
    pub(crate) fn serves(&self, endpoint: &Endpoint, bounds: &PoolBounds) -> bool {
        self.endpoint == *endpoint && self.bounds == *bounds
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes the connection that was used last: it is the least likely to have been closed by the other side.
    fn warm_http1(self: &Arc<Self>, state: &mut State) -> Option<Lease> {
        let mut at = state.idle.len();
        while at > 0 {
            at -= 1;
            let idle = &state.idle[at];
            if idle.sender.is_closed() || idle.since.elapsed() >= self.bounds.idle_timeout {
                state.idle.remove(at);
            } else if idle.sender.is_ready() {
                let idle = state.idle.remove(at);
                return Some(Lease {
                    pool: Arc::clone(self),
                    line: Some(Line::Http1(idle.sender)),
                    is_fresh: false,
                });
            }
        }
        None
    }

    fn warm_http2(self: &Arc<Self>, state: &mut State) -> Option<Lease> {
        state.shared.retain(|shared| !shared.sender.is_closed());
        let streams_max = self.bounds.streams_max;
        let shared = state.shared.iter_mut().find(|shared| {
            shared.sender.is_ready() && shared.streams.load(Ordering::Relaxed) < streams_max
        })?;
        shared.since = Instant::now();
        Some(Lease {
            pool: Arc::clone(self),
            line: Some(Line::Http2 {
                sender: shared.sender.clone(),
                _stream: Stream::open(&shared.streams),
            }),
            is_fresh: false,
        })
    }

    async fn connect(self: &Arc<Self>) -> Result<Lease, ConnectError> {
        let Endpoint {
            host,
            port,
            tls_name,
            authorities: _,
            protocol,
        } = &self.endpoint;
        let tcp_error = |source| ConnectError::Tcp {
            host: host.clone(),
            port: *port,
            source,
        };
        let stream = TcpStream::connect((host.as_str(), *port))
            .await
            .map_err(tcp_error)?;
        stream.set_nodelay(true).map_err(tcp_error)?;
        let (Some(name), Some(connector)) = (tls_name, &self.tls) else {
            return match protocol {
                Protocol::Http2 => self.handshake_http2(stream).await,
                Protocol::Http1 | Protocol::Negotiated => self.handshake_http1(stream).await,
            };
        };
        let stream = connector
            .connect(name.clone(), stream)
            .await
            .map_err(|source| ConnectError::Tls {
                host: host.clone(),
                port: *port,
                source,
            })?;
        let chosen = stream.get_ref().1.alpn_protocol();
        if *protocol == Protocol::Http2 || chosen == Some(ALPN_HTTP2) {
            self.handshake_http2(stream).await
        } else {
            self.is_http1.store(true, Ordering::Relaxed);
            self.handshake_http1(stream).await
        }
    }

    async fn handshake_http1<S>(self: &Arc<Self>, stream: S) -> Result<Lease, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(RESPONSE_HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.handshake_error(source))?;
        // The connection ends by itself: when its sender is dropped, or the other side closes. Its errors reach the
        // request that they concern.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Lease {
            pool: Arc::clone(self),
            line: Some(Line::Http1(sender)),
            is_fresh: true,
        })
    }

    async fn handshake_http2<S>(self: &Arc<Self>, stream: S) -> Result<Lease, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(PING_INTERVAL)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.handshake_error(source))?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let streams = Arc::new(AtomicUsize::new(0));
        let lease = Lease {
            pool: Arc::clone(self),
            line: Some(Line::Http2 {
                sender: sender.clone(),
                _stream: Stream::open(&streams),
            }),
            is_fresh: true,
        };
        self.state().shared.push(Shared {
            sender,
            streams,
            since: Instant::now(),
        });
        Ok(lease)
    }

    fn handshake_error(&self, source: hyper::Error) -> ConnectError {
        ConnectError::Handshake {
            host: self.endpoint.host.clone(),
            port: self.endpoint.port,
            source,
        }
    }
}

/// A connection lent to one request. Dropped before [`Lease::give_back`], it is closed (HTTP/1.1) or its stream reset
/// (HTTP/2, with the response): so a client that leaves takes its upstream request with it.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    line: Option<Line>,
    is_fresh: bool,
}

enum Line {
    Http1(http1::SendRequest<Payload>),
    Http2 {
        sender: http2::SendRequest<Payload>,
        /// Held for its drop.
        _stream: Stream,
    },
}

/// One of the streams of an HTTP/2 connection.
struct Stream(Arc<AtomicUsize>);

impl Stream {
    fn open(streams: &Arc<AtomicUsize>) -> Self {
        streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(streams))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there was no answer.
#[derive(Debug)]
pub(crate) enum SendError {
    /// Not one byte of the request was written: here it is again.
    NotSent(Box<Request<Payload>>, hyper::Error),
    /// The connection broke after bytes were (perhaps) written.
    Broken(hyper::Error),
}

impl Lease {
    /// Returns whether the connection speaks HTTP/2, which wants the authority in the URI instead of a `host` header.
    pub(crate) const fn is_http2(&self) -> bool {
        matches!(self.line, Some(Line::Http2 { .. }))
    }

    /// Returns whether the connection was made for this request.
    pub(crate) const fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    /// Sends the request and waits for the head of the answer.
    ///
    /// # Errors
    ///
    /// Tells whether any byte was written.
    pub(crate) async fn send(&mut self, request: Request<Payload>) -> Result<Response<Incoming>, SendError> {
        let sent = match self.line.as_mut() {
            Some(Line::Http1(sender)) => sender.try_send_request(request).await,
            Some(Line::Http2 { sender, .. }) => sender.try_send_request(request).await,
            None => unreachable!("a lease has its line until it is given back, which consumes it"),
        };
        sent.map_err(|mut error| match error.take_message() {
            Some(request) => SendError::NotSent(Box::new(request), error.into_error()),
            None => SendError::Broken(error.into_error()),
        })
    }

    /// Returns the connection to its pool; only after the answer was read to its end.
    pub(crate) fn give_back(mut self) {
        let Some(Line::Http1(sender)) = self.line.take() else {
            return;
        };
        if sender.is_closed() {
            return;
        }
        let mut state = self.pool.state();
        if state.idle.len() < self.pool.bounds.idle_max {
            state.idle.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }

    /// Returns whether a connection that was kept for a while still takes a request.
    pub(crate) fn is_usable(&self) -> bool {
        match &self.line {
            Some(Line::Http1(sender)) => sender.is_ready() || self.is_fresh && !sender.is_closed(),
            Some(Line::Http2 { sender, .. }) => sender.is_ready(),
            None => false,
        }
    }
}
