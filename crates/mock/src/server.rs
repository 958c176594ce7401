use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::service::{self, Connection};
use crate::settings::{Fault, Settings};
use crate::state::State;
use crate::stats::{Recorder, Stats};

/// How long accepting rests after an error, such as too many open files.
const ACCEPT_REST: Duration = Duration::from_millis(10);

/// Starts providers.
#[derive(Debug)]
pub struct Server;

/// A running provider. Dropping it stops the provider at once and closes its connections.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Runs a provider on the current runtime.
    ///
    /// # Errors
    ///
    /// Returns the listener's error if it has no address.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime.
    pub fn start(settings: Settings, listener: TcpListener) -> io::Result<Handle> {
        let address = listener.local_addr()?;
        let state = Arc::new(State::new(settings));
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(serve(Arc::clone(&state), listener, stopped));
        Ok(Handle {
            address,
            state,
            stop: Some(stop),
            thread: None,
        })
    }

    /// Runs a provider on a thread of its own, with a runtime of its own.
    ///
    /// # Errors
    ///
    /// Returns what the system says if the listener, the runtime or the thread cannot be had.
    pub fn spawn(settings: Settings, listener: std::net::TcpListener) -> io::Result<Handle> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let state = Arc::new(State::new(settings));
        let (stop, stopped) = oneshot::channel();
        let serving = serve(Arc::clone(&state), listener, stopped);
        let thread = std::thread::Builder::new()
            .name("tidegate-mock".to_owned())
            .spawn(move || runtime.block_on(serving))?;
        Ok(Handle {
            address,
            state,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Handle {
    /// Returns the address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what clients take as their provider: `http://ADDRESS`, without a path.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns what happened so far.
    pub fn stats(&self) -> Stats {
        self.state.stats()
    }

    /// Forgets all charges, counts and faults to come.
    pub fn reset(&self) {
        self.state.reset();
    }

    /// Plays these faults, in order, on the next admitted requests, before any that are left to chance.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.script(faults);
    }

    /// Changes the amount of one limit, by its place in [`Settings::limits`], as providers do without notice.
    pub fn resize(&self, limit: usize, amount: u64) {
        self.state.resize(limit, amount);
    }

    /// Stops the provider, closes its connections and returns the last statistics.
    pub fn shutdown(mut self) -> Stats {
        self.stop();
        self.state.stats()
    }

    fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(state: Arc<State>, listener: TcpListener, mut stopped: oneshot::Receiver<()>) {
    let room = Arc::new(Semaphore::new(
        state.settings.connections_max.min(Semaphore::MAX_PERMITS),
    ));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&room).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            biased;
            _ = &mut stopped => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                state.record(Recorder::connection);
                let serving = serve_connection(Arc::clone(&state), stream);
                connections.spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    connections.shutdown().await;
}

async fn serve_connection(state: Arc<State>, stream: TcpStream) {
    // Small answers must not wait for one another; an old socket that refuses this still works.
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let connection = Arc::new(Connection {
        state,
        reset: Arc::clone(&reset),
    });
    let stream = TokioIo::new(Resettable { stream, reset });
    let service = service_fn(move |request| service::answer(Arc::clone(&connection), request));
    let builder = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = builder.serve_connection(stream, service).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// A connection whose end is a reset once its flag is set.
struct Resettable {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // Where this fails the connection ends all the same, only more politely.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A polite end would come first and spoil the reset.
        if self.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
