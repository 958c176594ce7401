//! What stands between one gateway and the store: it passes everything on, or stalls, or drops.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Passes everything on.
    Open,
    /// Keeps connections, takes new ones, and passes nothing on until it is open again.
    Stalled,
    /// Ends connections and takes none.
    Dropped,
}

/// A proxy that runs for as long as the value lives.
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    passage: watch::Sender<Passage>,
}

impl Proxy {
    /// Starts one in front of a server.
    pub(crate) async fn start(server: SocketAddr) -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let (passage, watched) = watch::channel(Passage::Open);
        tokio::spawn(accept(listener, server, watched));
        Ok(Self { address, passage })
    }

    /// Changes what it does.
    pub(crate) fn set(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, mut passage: watch::Receiver<Passage>) {
    loop {
        let client = tokio::select! {
            client = listener.accept() => client,
            // The proxy is gone.
            gone = passage.wait_for(|_| false) => match gone { Ok(_) | Err(_) => return },
        };
        let Ok((client, _)) = client else {
            // There are too many sockets now: it must not be gone for good.
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        if *passage.borrow() == Passage::Dropped {
            continue;
        }
        let passage = passage.clone();
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else {
                return;
            };
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::select! {
                () = pass(from_client, to_server, passage.clone()) => {}
                () = pass(from_server, to_client, passage) => {}
            }
        });
    }
}

/// Passes on what comes until an end closes, or the connection is dropped.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut passage: watch::Receiver<Passage>) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            dropped = passage.wait_for(|passage| *passage == Passage::Dropped) => match dropped {
                Ok(_) | Err(_) => return,
            },
            read = from.read(&mut bytes) => read,
        };
        let Ok(len @ 1..) = read else { return };
        match passage.wait_for(|passage| *passage != Passage::Stalled).await {
            Ok(passage) if *passage == Passage::Open => {}
            _ => return,
        }
        if to.write_all(&bytes[..len]).await.is_err() {
            return;
        }
    }
}
