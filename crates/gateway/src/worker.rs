//! One worker: a thread with one current-thread runtime that serves the connections handed to it.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::MissedTickBehavior;

use crate::connection::Listener;
use crate::phase::Phase;
use crate::proxy::Proxy;
use crate::shared::Shared;

/// A client's connection on its way to a worker.
pub(crate) struct Arrival {
    pub(crate) stream: TcpStream,
    /// Its place under the bound on connections.
    pub(crate) place: OwnedSemaphorePermit,
}

/// What a worker serves its connections with.
pub(crate) struct Worker {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) listener: Arc<Listener>,
    pub(crate) shared: Arc<Shared>,
}

/// How often idle connections to upstreams are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

impl Worker {
    /// Serves connections until the program ends.
    pub(crate) async fn run(self, mut arrivals: mpsc::UnboundedReceiver<Arrival>) {
        let proxy = Arc::clone(&self.proxy);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                proxy.sweep();
            }
        });
        let ended = self.shared.phases.reached(Phase::Ended);
        let mut ended = std::pin::pin!(ended);
        loop {
            let arrival = tokio::select! {
                arrival = arrivals.recv() => arrival,
                () = &mut ended => return,
            };
            let Some(arrival) = arrival else {
                // The listener is closed; connections that are open go on.
                ended.await;
                return;
            };
            self.serve(arrival);
        }
    }

    fn serve(&self, Arrival { stream, place }: Arrival) {
        let Ok(stream) = tokio::net::TcpStream::from_std(stream) else {
            return;
        };
        let listener = Arc::clone(&self.listener);
        let proxy = Arc::clone(&self.proxy);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let _counted = shared.metrics.connection();
            listener.serve(stream, &proxy, &shared.phases).await;
            drop(place);
        });
    }
}
