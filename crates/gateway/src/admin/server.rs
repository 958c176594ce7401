//! The listener itself, on a thread and a runtime of its own.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{AdminState, Readiness, status};

/// The most connections at one time; more are closed at once.
const CONNECTIONS_MAX: usize = 64;

/// How long a head may take to arrive, also between two requests of a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may last, whatever is done with it.
const CONNECTION_MAX: Duration = Duration::from_secs(120);

/// The pause after a failed accept: the system has no room for another socket, and asking at once would not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The largest head, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The paths that there are.
const PATHS: &str = "/healthz, /readyz, /metrics, /status";

/// The admin listener while it runs. It ends when this is dropped.
#[derive(Debug)]
pub struct AdminServer {
    address: SocketAddr,
    end: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// Serves on a listener, until dropped.
    ///
    /// # Errors
    ///
    /// Returns an error if the listener cannot be used or no thread can be made.
    pub fn start(listener: TcpListener, state: Arc<AdminState>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (end, ended) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    match tokio::net::TcpListener::from_std(listener) {
                        Ok(listener) => serve(&listener, &state, ended).await,
                        Err(error) => warn!(%error, "the admin listener cannot be used"),
                    }
                });
            })?;
        Ok(Self {
            address,
            end,
            thread: Some(thread),
        })
    }

    /// Returns where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.end.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: &tokio::net::TcpListener,
    state: &Arc<AdminState>,
    mut ended: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            _ = ended.wait_for(|ended| *ended) => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "the admin listener could not accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            continue;
        };
        let state = Arc::clone(state);
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let response = respond(&state, request.method(), request.uri().path(), request.headers());
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // What goes wrong with a connection here is its client's affair.
            let _ = timeout(CONNECTION_MAX, connection).await;
            drop(permit);
        });
    }
}

fn respond(state: &AdminState, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
    let open = matches!(path, "/healthz" | "/readyz");
    if !open && !matches!(path, "/metrics" | "/status") {
        return error(
            StatusCode::NOT_FOUND,
            &format!("there is no such path; there are {PATHS}"),
        );
    }
    if method != Method::GET {
        let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    if !open && !authorized(state, headers) {
        let help = "send the admin token as `Authorization: Bearer …`";
        let mut response = error(StatusCode::UNAUTHORIZED, help);
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    match path {
        "/healthz" => json_page(StatusCode::OK, json!({ "status": "ok" }).to_string()),
        "/readyz" => {
            let readiness = state.readiness();
            let ready = readiness == Readiness::Ready;
            let status = if ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            json_page(status, json!({ "status": readiness.name() }).to_string())
        }
        "/metrics" => page(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            state.metrics_page(),
        ),
        _ => match status::page(state) {
            Ok(text) => json_page(StatusCode::OK, text),
            Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the status cannot be written"),
        },
    }
}

fn authorized(state: &AdminState, headers: &HeaderMap) -> bool {
    let config = state.config();
    let Some(token) = config
        .server
        .admin
        .as_ref()
        .and_then(|admin| admin.token.as_ref())
    else {
        return true;
    };
    let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let bearer = given.and_then(|value| {
        let (scheme, rest) = value.split_at_checked(b"Bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then(|| rest.trim_ascii())
    });
    bearer.is_some_and(|candidate| token.matches(candidate))
}

fn error(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    json_page(status, json!({ "error": { "message": message } }).to_string())
}

fn json_page(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    page(status, "application/json", text)
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
