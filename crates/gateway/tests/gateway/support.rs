//! What the tests share: an upstream that does what it is told, clients, and waiting without sleeping.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tidegate_gateway::config::Config;
use tidegate_gateway::serve::Gateway;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsAcceptor;

/// Longer than anything here takes on the slowest machine; no test waits for it unless it fails.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Waits for what must happen soon.
pub(crate) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(SOON, future).await {
        Ok(output) => output,
        Err(_) => panic!("did not happen: {what}"),
    }
}

/// Waits until a condition holds that nobody reports.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, async {
        let mut look = tokio::time::interval(Duration::from_millis(1));
        while !holds() {
            look.tick().await;
        }
    })
    .await;
}

/// A request as the upstream saw it, and the means to answer it.
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The number of the connection it came on.
    pub(crate) connection: usize,
    reply: oneshot::Sender<Script>,
    events: mpsc::UnboundedSender<Event>,
}

/// What the upstream does with a request.
enum Script {
    Answer(Box<Response<ScriptedBody>>),
    Reset,
}

type ScriptedBody = BoxBody<Bytes, Broken>;

/// What happens at the upstream.
pub(crate) enum Event {
    Request(Box<Seen>),
    /// The gateway went away before the answer was complete.
    Gone,
}

/// An upstream that does what a test tells it to.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    events: mpsc::UnboundedReceiver<Event>,
}

#[derive(Debug, thiserror::Error)]
#[error("broken on purpose")]
pub(crate) struct Broken;

impl Upstream {
    pub(crate) async fn start() -> Self {
        Self::listen(None).await
    }

    /// Starts an upstream behind TLS.
    pub(crate) async fn start_tls(config: std::sync::Arc<rustls::ServerConfig>) -> Self {
        Self::listen(Some(TlsAcceptor::from(config))).await
    }

    async fn listen(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, events) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                stream.set_nodelay(true).unwrap();
                let (tls, sender) = (tls.clone(), sender.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, connection, sender).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, connection, sender).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, events }
    }

    async fn next(&mut self, what: &str) -> Event {
        soon(what, self.events.recv()).await.expect("the upstream runs")
    }

    /// Waits for the next request.
    pub(crate) async fn request(&mut self) -> Seen {
        match self.next("a request reaches the upstream").await {
            Event::Request(seen) => *seen,
            Event::Gone => panic!("the gateway went away instead of sending a request"),
        }
    }

    /// Waits until the gateway goes away from a request that is not answered to the end.
    pub(crate) async fn gone(&mut self) {
        match self.next("the gateway leaves the upstream").await {
            Event::Gone => (),
            Event::Request(seen) => panic!("a request came instead: {} {}", seen.method, seen.uri),
        }
    }

    /// Asserts that nothing has happened that was not waited for.
    pub(crate) fn assert_quiet(&mut self) {
        assert!(
            self.events.try_recv().is_err(),
            "something else reached the upstream"
        );
    }

    /// Answers every request the same way from now on.
    pub(crate) fn always(mut self, answer: impl Fn(Seen) + Send + 'static) -> SocketAddr {
        tokio::spawn(async move {
            while let Some(event) = self.events.recv().await {
                if let Event::Request(seen) = event {
                    answer(*seen);
                }
            }
        });
        self.address
    }
}

async fn serve<S>(stream: S, connection: usize, events: mpsc::UnboundedSender<Event>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let events = events.clone();
        async move {
            let mut going = Going(Some(events.clone()));
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await else {
                return Err(Broken);
            };
            let (reply, script) = oneshot::channel();
            let _ = events.send(Event::Request(Box::new(Seen {
                method: head.method,
                uri: head.uri,
                version: head.version,
                headers: head.headers,
                body: body.to_bytes(),
                connection,
                reply,
                events: events.clone(),
            })));
            let script = script.await;
            going.0 = None;
            match script {
                Ok(Script::Answer(response)) => Ok(*response),
                Ok(Script::Reset) | Err(_) => Err(Broken),
            }
        }
    });
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Says that the gateway went away unless it is disarmed.
struct Going(Option<mpsc::UnboundedSender<Event>>);

impl Drop for Going {
    fn drop(&mut self) {
        if let Some(events) = self.0.take() {
            let _ = events.send(Event::Gone);
        }
    }
}

/// A body that the test sends part by part.
struct StreamedBody {
    parts: mpsc::Receiver<Result<Bytes, Broken>>,
    going: Going,
}

impl Body for StreamedBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let part = std::task::ready!(self.parts.poll_recv(cx));
        if !matches!(part, Some(Ok(_))) {
            self.going.0 = None;
        }
        Poll::Ready(part.map(|part| part.map(Frame::data)))
    }
}

/// The rest of an answer that is being streamed; dropped, it is complete.
pub(crate) struct Streaming(mpsc::Sender<Result<Bytes, Broken>>);

impl Streaming {
    pub(crate) async fn send(&self, part: &str) {
        let part = Bytes::copy_from_slice(part.as_bytes());
        soon("the part is taken", self.0.send(Ok(part))).await.ok();
    }

    pub(crate) async fn break_off(self) {
        self.0.send(Err(Broken)).await.ok();
    }
}

impl Seen {
    /// Answers in full.
    pub(crate) fn answer(
        self,
        status: u16,
        headers: &[(&'static str, &'static str)],
        body: impl Into<Bytes>,
    ) {
        let body = Full::new(body.into()).map_err(|never| match never {}).boxed();
        self.script(Script::Answer(Box::new(response(status, headers, body))));
    }

    pub(crate) fn answer_json(self, status: u16, body: &'static str) {
        self.answer(status, &[("content-type", "application/json")], body);
    }

    /// Begins an answer.
    pub(crate) fn stream(self, headers: &[(&'static str, &'static str)]) -> Streaming {
        let (sender, parts) = mpsc::channel(1);
        let going = Going(Some(self.events.clone()));
        let body = StreamedBody { parts, going }.boxed();
        self.script(Script::Answer(Box::new(response(200, headers, body))));
        Streaming(sender)
    }

    pub(crate) fn stream_events(self) -> Streaming {
        self.stream(&[("content-type", "text/event-stream")])
    }

    /// Cuts the connection.
    pub(crate) fn reset(self) {
        self.script(Script::Reset);
    }

    fn script(self, script: Script) {
        let _ = self.reply.send(script);
    }
}

fn response(
    status: u16,
    headers: &[(&'static str, &'static str)],
    body: ScriptedBody,
) -> Response<ScriptedBody> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response
            .headers_mut()
            .append(*name, http::HeaderValue::from_static(value));
    }
    response
}

/// Starts a gateway in front of one OpenAI upstream; `server`, `upstream` and `limits` are lines of those tables.
pub(crate) fn gateway(address: SocketAddr, server: &str, upstream: &str, limits: &str) -> Gateway {
    let config = config(&format!("http://{address}"), server, upstream, limits);
    Gateway::start(config).unwrap()
}

pub(crate) fn config(base_url: &str, server: &str, upstream: &str, limits: &str) -> Config {
    let workers = if server.contains("workers") {
        ""
    } else {
        "workers = 2"
    };
    let mut text = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"off\"\n{workers}\n{server}\n\
         [retry]\nbackoff_min = \"10ms\"\nbackoff_max = \"20ms\"\n\
         [[upstreams]]\nname = \"up\"\nprovider = \"openai\"\nbase_url = \"{base_url}\"\n{upstream}\n"
    );
    if !limits.is_empty() {
        text.push_str(&format!("[[upstreams.limits]]\nmodels = [\"*\"]\n{limits}\n"));
    }
    Config::from_toml(&text, "test").unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A client's connection.
pub(crate) struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    /// Sends a request and returns the head of the answer.
    pub(crate) async fn open(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        soon("the connection takes a request", self.sender.ready())
            .await
            .unwrap();
        soon("an answer begins", self.sender.send_request(request))
            .await
            .unwrap()
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        let (head, body) = self.open(request).await.into_parts();
        let body = soon("the answer ends", body.collect()).await.unwrap();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.to_bytes(),
        }
    }
}

/// Sends one request on a connection of its own.
pub(crate) async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    Client::connect(address).await.send(request).await
}

pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("host", "gateway")
        .header("content-type", "application/json")
        .header("authorization", "Bearer sk-client")
        .body(Full::new(body.into()))
        .unwrap()
}

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path)
        .header("host", "gateway")
        .body(Full::default())
        .unwrap()
}

pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const CHAT_BODY: &str =
    r#"{"model":"gpt-4o","max_tokens":10,"messages":[{"role":"user","content":"Hello, tide"}]}"#;
pub(crate) const CHAT_STREAM_BODY: &str = r#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},"max_tokens":10,"messages":[{"role":"user","content":"Hello, tide"}]}"#;

pub(crate) fn chat() -> Request<Full<Bytes>> {
    post(CHAT, CHAT_BODY)
}

/// A client that speaks bytes, to leave or to misbehave at any moment.
pub(crate) struct RawClient(pub(crate) TcpStream);

impl RawClient {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.unwrap())
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a chat request with this body.
    pub(crate) async fn post_chat(&mut self, body: &str) {
        self.post(CHAT, body).await;
    }

    /// Sends a request with this body.
    pub(crate) async fn post(&mut self, path: &str, body: &str) {
        self.write(format!(
            "POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n\
             authorization: Bearer sk-client\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    }

    /// Reads until the bytes read contain `text`.
    pub(crate) async fn read_until(&mut self, text: &str) -> String {
        let mut read = Vec::new();
        soon("the text comes", async {
            while !String::from_utf8_lossy(&read).contains(text) {
                let got = self.0.read_buf(&mut read).await.unwrap();
                assert!(
                    got > 0,
                    "closed before {text:?} came: {}",
                    String::from_utf8_lossy(&read)
                );
            }
        })
        .await;
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Reads to the end of the connection, however it ends.
    pub(crate) async fn read_to_end(&mut self) -> String {
        let mut read = Vec::new();
        soon("the connection ends", async {
            while matches!(self.0.read_buf(&mut read).await, Ok(got) if got > 0) {}
        })
        .await;
        String::from_utf8_lossy(&read).into_owned()
    }
}

/// Adds up the series of the metrics page that begin with `start`.
pub(crate) fn counted(gateway: &Gateway, start: &str) -> f64 {
    let page = gateway.metrics().render(&[], None);
    let series = page.lines().filter(|line| line.starts_with(start));
    series
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Requests that wait in the gateway, over all quota groups.
pub(crate) fn waiting(gateway: &Gateway) -> usize {
    let snapshot = gateway.limiter().snapshot();
    snapshot.quotas.iter().map(|quota| quota.waiting).sum()
}

/// Permits of the gateway that are not settled.
pub(crate) fn in_flight(gateway: &Gateway) -> usize {
    let snapshot = gateway.limiter().snapshot();
    snapshot.quotas.iter().map(|quota| quota.in_flight).sum()
}
