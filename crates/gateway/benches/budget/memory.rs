//! Memory over many requests of every kind: what is forgotten must be given back.

use std::net::SocketAddr;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::http::{Response, chat_request};
use crate::load::exchange;
use crate::process::Process;
use crate::table::{Row, Verdict};

const CONNECTIONS: usize = 32;
const WARM_UP: usize = 20_000;
const REQUESTS: usize = 100_000;
const MIB: f64 = 1024.0 * 1024.0;
const GROWTH_MIB_MAX: f64 = 2.0;

/// Requests of every kind, in this order over and over: most are good.
const KINDS: [Kind; 10] = [
    Kind::Good,
    Kind::Good,
    Kind::HalfBody,
    Kind::Good,
    Kind::LeavesStream,
    Kind::Good,
    Kind::UnknownPath,
    Kind::Good,
    Kind::Good,
    Kind::LeavesBeforeAnswer,
];

#[derive(Debug, Clone, Copy)]
enum Kind {
    Good,
    /// JSON that ends in the middle.
    HalfBody,
    /// A path that leads nowhere.
    UnknownPath,
    /// The client reads the beginning of a stream and leaves.
    LeavesStream,
    /// The client sends a request and leaves.
    LeavesBeforeAnswer,
}

/// Memory after [`REQUESTS`] of every kind over memory after the first [`WARM_UP`].
pub(crate) fn growth(folder: &Path, upstream: SocketAddr) -> Result<Row, String> {
    const WHAT: &str = "resident memory, growth over 100,000 mixed requests";
    const BUDGET: &str = "<= 2 MB";
    // A gateway of its own: what other measurements have left behind is none of these requests' doing.
    let folder = folder.join("memory");
    std::fs::create_dir(&folder).map_err(|error| error.to_string())?;
    let gateway = Process::gateway(&folder, upstream)?;
    let resident = |requests| {
        load(gateway.address, requests)?;
        Ok::<_, String>(gateway.resident_bytes())
    };
    let (Some(before), Some(after)) = (resident(WARM_UP)?, resident(REQUESTS)?) else {
        return Ok(Row::skipped(WHAT, BUDGET, "no /proc".to_owned()));
    };
    let [before, after] = [before, after].map(|bytes| bytes as f64 / MIB);
    Ok(Row {
        what: WHAT,
        measured: format!("{:+.2} MB", after - before),
        budget: BUDGET,
        beside: format!("{before:.1} then {after:.1} MB"),
        verdict: Verdict::of(after - before <= GROWTH_MIB_MAX),
    })
}

fn load(to: SocketAddr, requests: usize) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut clients = JoinSet::new();
        for first in 0..CONNECTIONS {
            clients.spawn(client(to, first, requests / CONNECTIONS));
        }
        while let Some(client) = clients.join_next().await {
            client.map_err(|error| error.to_string())??;
        }
        Ok(())
    })
}

async fn client(to: SocketAddr, first: usize, requests: usize) -> Result<(), String> {
    let good = chat_request(1024, false);
    let stream = chat_request(1024, true);
    let half = request("/v1/chat/completions", r#"{"model":"gpt-4o","max_tok"#);
    let nowhere = request("/nowhere", "{}");
    let mut kept = None;
    let mut response = Response::default();
    for number in first..first + requests {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => TcpStream::connect(to).await.map_err(|error| error.to_string())?,
        };
        let kind = KINDS[number % KINDS.len()];
        let (bytes, status) = match kind {
            Kind::Good => (&good, 200),
            Kind::HalfBody => (&half, 400),
            Kind::UnknownPath => (&nowhere, 404),
            Kind::LeavesStream | Kind::LeavesBeforeAnswer => {
                connection
                    .write_all(&stream)
                    .await
                    .map_err(|error| error.to_string())?;
                if matches!(kind, Kind::LeavesStream) {
                    let _ = connection.read(&mut [0; 512]).await;
                }
                continue;
            }
        };
        match exchange(&mut connection, bytes, &mut response).await {
            Ok(()) => {}
            Err(_) if response.status() == Some(status) => {}
            Err(error) => return Err(format!("{kind:?}: {error}")),
        }
        kept = Some(connection);
    }
    Ok(())
}

fn request(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
