//! The running gateway: its threads, and what can be asked of it from outside.
//!
//! One thread accepts and hands sockets to the workers in turn; each worker is one thread with one current-thread
//! runtime, its own connections and nothing shared but the limiter. The limiter's timer has a thread of its own, so
//! that no request's work ever delays another's turn.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use tidegate::Limiter;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, mpsc};

use crate::admin::AdminServer;
use crate::config::{AccountHasher, Config};
use crate::connection::Listener;
use crate::keys::{self, KeysError};
use crate::limit_api;
use crate::metrics::Metrics;
use crate::phase::Phase;
use crate::proxy::Proxy;
use crate::shared::Shared;
use crate::site::{Site, SiteError};
use crate::state::{StateError, StateKeeper};
use crate::worker::{Arrival, Worker};

/// A running gateway. Dropped, it ends at once and takes its connections with it.
pub struct Gateway {
    address: SocketAddr,
    admin: Option<AdminServer>,
    shared: Arc<Shared>,
    connections: Arc<Semaphore>,
    connections_max: u32,
    threads: Vec<JoinHandle<()>>,
    /// Where charges outlive a restart; once the program is said to run.
    state: Option<Arc<StateKeeper>>,
}

/// Why the gateway could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The configuration cannot be put in force.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// The file for the state is somebody else's, or cannot be written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The system gave no thread or no runtime.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
    /// A thread ended before it had begun its work.
    #[error("a thread of the gateway ended at its start")]
    Lost,
}

/// How long the accepting thread rests when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Gateway {
    /// Starts a gateway with this configuration. It takes connections when this returns.
    ///
    /// # Errors
    ///
    /// Returns what stands in its way; nothing is left running then.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let server = config.server.clone();
        let address = server.listen;
        let listen_error = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(listen_error)?;
        listener.set_nonblocking(true).map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;

        let connections_max = u32::try_from(server.connections_max)
            .unwrap_or(u32::MAX)
            .min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        let connections = Arc::new(Semaphore::new(connections_max as usize));
        let metrics = Arc::new(Metrics::new());
        let site = Site::new(config, &metrics)?;
        let state = server.state_file.as_deref().map(StateKeeper::open).transpose()?;
        let accounts = match (&site.config.store, &state) {
            // The same for all gateways.
            (Some(store), _) => AccountHasher::of_store(&store.prefix),
            (None, Some((state, _))) => state.accounts(),
            (None, None) => AccountHasher::default(),
        };
        let (shared, keeper) =
            start_keeper(site, metrics, accounts, Arc::clone(&connections), connections_max)?;
        let state = state.map(|(state, past)| {
            state.recall(&shared.limiter, past);
            shared.admin.keeps_state(state.status());
            Arc::new(state)
        });
        let admin = match &server.admin {
            None => None,
            Some(admin) => {
                let address = admin.listen;
                let listener =
                    TcpListener::bind(address).map_err(|source| StartError::Listen { address, source });
                match listener {
                    Ok(listener) => Some(AdminServer::start(listener, Arc::clone(&shared.admin))?),
                    Err(error) => {
                        shared.phases.advance(Phase::Ended);
                        return Err(error);
                    }
                }
            }
        };
        let mut gateway = Self {
            address,
            admin,
            shared,
            connections,
            connections_max,
            threads: vec![keeper],
            state: None,
        };
        if let Some(state) = state {
            gateway.keep_state(state)?;
        }
        gateway
            .threads
            .push(limit_api::start(Arc::clone(&gateway.shared))?);
        let mut workers = Vec::new();
        for number in 0..server.workers.get() {
            workers.push(gateway.start_worker(number, &server)?);
        }
        gateway.start_acceptor(listener, workers)?;
        gateway.shared.admin.listening();
        Ok(gateway)
    }

    /// Returns where clients connect.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where the admin listener is, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(AdminServer::address)
    }

    /// Returns the limiter that all workers share.
    pub fn limiter(&self) -> &Limiter {
        &self.shared.limiter
    }

    /// Returns the phase of the gateway's life.
    pub fn phase(&self) -> Phase {
        self.shared.phases.now()
    }

    /// Puts another configuration in force for requests that come from now on. Listeners, workers and connection bounds
    /// stay as they were at the start; one with another store is refused.
    ///
    /// # Errors
    ///
    /// Returns what stands in its way; the old configuration stays in force then.
    pub fn reload(&self, config: Config) -> Result<(), SiteError> {
        if self.shared.site().1.config.store != config.store {
            return Err(SiteError::StoreChanged);
        }
        self.shared.replace(Site::new(config, &self.shared.metrics)?);
        Ok(())
    }

    /// Puts the keys in force as their file has them now.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the file; the old keys stay in force then, and the status page says so.
    pub fn reload_keys(&self) -> Result<usize, KeysError> {
        let Some(path) = self.keys_file() else {
            return Ok(0);
        };
        match keys::read(&path) {
            Ok(keys) => {
                let count = keys.len();
                self.shared.replace_keys(keys);
                Ok(count)
            }
            Err(error) => {
                self.shared.admin.keys_failed(&error);
                Err(error)
            }
        }
    }

    /// Returns where the keys are, by the configuration in force.
    pub fn keys_file(&self) -> Option<PathBuf> {
        self.shared.site().1.config.server.keys_file.clone()
    }

    /// Notes that a configuration was not put in force, for the status page.
    pub fn reload_failed(&self, error: &dyn std::fmt::Display) {
        self.shared.admin.reload_failed(error);
    }

    /// Returns what is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Begins the end: no new connections; what is open is finished within the drain's times.
    pub fn drain(&self) {
        self.shared.admin.draining();
        self.shared.phases.advance(Phase::Draining);
    }

    /// Waits until the drain is over, and other gateways at the same store know it.
    pub async fn drained(&self) {
        self.shared.phases.reached(Phase::Ended).await;
    }

    /// Ends at once and waits for the threads.
    pub fn stop(self) {
        drop(self);
    }

    /// Says in the state file that the program runs, and goes on saying so.
    fn keep_state(&mut self, state: Arc<StateKeeper>) -> Result<(), StartError> {
        state.begin(&self.shared.limiter)?;
        self.state = Some(Arc::clone(&state));
        let shared = Arc::clone(&self.shared);
        let runtime = runtime()?;
        self.spawn("tidegate-state".to_owned(), move || {
            runtime.block_on(state.keep(&shared.limiter, &shared.phases));
        })
    }

    fn start_worker(
        &mut self,
        number: usize,
        server: &crate::config::Server,
    ) -> Result<mpsc::UnboundedSender<Arrival>, StartError> {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let shared = Arc::clone(&self.shared);
        let listener = Listener::new(server);
        let runtime = runtime()?;
        self.spawn(format!("tidegate-{number}"), move || {
            let worker = Worker {
                proxy: Arc::new(Proxy::new(Arc::clone(&shared))),
                listener: Arc::new(listener),
                shared,
            };
            runtime.block_on(worker.run(arrivals));
        })?;
        Ok(sender)
    }

    fn start_acceptor(
        &mut self,
        listener: TcpListener,
        workers: Vec<mpsc::UnboundedSender<Arrival>>,
    ) -> Result<(), StartError> {
        let runtime = runtime()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let shared = Arc::clone(&self.shared);
        let connections = Arc::clone(&self.connections);
        self.spawn("tidegate-accept".to_owned(), move || {
            runtime.block_on(async {
                tokio::select! {
                    () = shared.phases.reached(Phase::Draining) => {}
                    () = accept(listener, workers, connections) => {}
                }
            });
        })
    }

    fn spawn(&mut self, name: String, run: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
        let thread = std::thread::Builder::new().name(name).spawn(run)?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shared.phases.advance(Phase::Ended);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so on the error output already.
            let _ = thread.join();
        }
        if let Some(state) = self.state.take() {
            state.end(&self.shared.limiter);
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    // Threads of a runtime besides its own only resolve names.
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
}

/// Starts the thread of the limiter, which also keeps the drain's times.
fn start_keeper(
    site: Site,
    metrics: Arc<Metrics>,
    accounts: AccountHasher,
    connections: Arc<Semaphore>,
    connections_max: u32,
) -> Result<(Arc<Shared>, JoinHandle<()>), StartError> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let runtime = runtime()?;
    let thread = std::thread::Builder::new()
        .name("tidegate-limiter".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let limiter = match &site.config.store {
                    None => Ok(Limiter::new(site.config.plan())),
                    Some(store) => Limiter::with_store(site.config.plan(), store.options.clone()),
                };
                let limiter = match limiter {
                    Ok(limiter) => limiter,
                    Err(problem) => {
                        let _ = sender.send(Err(SiteError::Store { problem }));
                        return;
                    }
                };
                let shared = Arc::new(Shared::new(limiter, metrics, site, accounts));
                if sender.send(Ok(Arc::clone(&shared))).is_ok() {
                    keep(&shared, &connections, connections_max).await;
                }
            });
        })?;
    let shared = receiver.recv().map_err(|_| StartError::Lost)??;
    Ok((shared, thread))
}

/// How long the store may take to hear that this gateway leaves.
const LEAVE_PATIENCE: Duration = Duration::from_millis(500);

/// Waits for the drain and keeps its times: first the queue is closed, then streams are cut.
async fn keep(shared: &Shared, connections: &Semaphore, connections_max: u32) {
    shared.phases.reached(Phase::Draining).await;
    let server = shared.site().1.config.server.clone();
    let all_closed = async {
        let _ = connections.acquire_many(connections_max).await;
    };
    let mut all_closed = std::pin::pin!(all_closed);
    let ended = shared.phases.reached(Phase::Ended);
    let times = async {
        if tokio::time::timeout(server.drain_timeout, all_closed.as_mut())
            .await
            .is_ok()
        {
            return;
        }
        shared.limiter.close();
        let rest = server.stream_drain_timeout.saturating_sub(server.drain_timeout);
        let _ = tokio::time::timeout(rest, all_closed.as_mut()).await;
    };
    tokio::select! {
        () = ended => {}
        () = times => {
            let has_store = shared.limiter.store_status().is_some();
            if has_store && !shared.limiter.leave(LEAVE_PATIENCE).await {
                tracing::warn!("the store did not hear that this gateway leaves: its share is kept for a while");
            }
            shared.phases.advance(Phase::Ended);
        }
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    workers: Vec<mpsc::UnboundedSender<Arrival>>,
    connections: Arc<Semaphore>,
) {
    let mut turn = 0_usize;
    loop {
        // At the bound, clients wait in the system's backlog until a connection ends.
        let Ok(place) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // A socket that fails here is gone already.
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let Ok(stream) = stream.into_std() else { continue };
        turn = (turn + 1) % workers.len().max(1);
        if let Some(worker) = workers.get(turn) {
            let _ = worker.send(Arrival { stream, place });
        }
    }
}
