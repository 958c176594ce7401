//! Load in a closed loop (how much goes through) and in an open one (how long it takes at a given pace).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as BlockingStream};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::Response;

/// How long before its moment a sender wakes and spins: sleeping alone is late by tens of microseconds.
const SPIN: Duration = Duration::from_micros(100);

/// Sends `request` over and over on each of `connections` connections; returns answers per second.
pub(crate) fn closed_loop(
    to: SocketAddr,
    request: &[u8],
    connections: usize,
    duration: Duration,
) -> Result<f64, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let start = Instant::now();
    let end = start + duration;
    let answers = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..connections {
            tasks.spawn(one_after_another(to, request.to_vec(), end));
        }
        let mut answers = 0;
        while let Some(count) = tasks.join_next().await {
            answers += count.map_err(|error| error.to_string())??;
        }
        Ok::<u64, String>(answers)
    })?;
    Ok(answers as f64 / start.elapsed().as_secs_f64())
}

async fn one_after_another(to: SocketAddr, request: Vec<u8>, end: Instant) -> Result<u64, String> {
    let mut connection = TcpStream::connect(to)
        .await
        .map_err(|error| format!("{to}: {error}"))?;
    connection.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut answers = 0;
    let mut response = Response::default();
    while Instant::now() < end {
        exchange(&mut connection, &request, &mut response).await?;
        answers += 1;
    }
    Ok(answers)
}

/// Sends one request and reads its answer, which must be a 200.
pub(crate) async fn exchange(
    connection: &mut TcpStream,
    request: &[u8],
    response: &mut Response,
) -> Result<(), String> {
    response.clear();
    connection
        .write_all(request)
        .await
        .map_err(|error| error.to_string())?;
    let mut buffer = [0; 4096];
    loop {
        let count = connection
            .read(&mut buffer)
            .await
            .map_err(|error| error.to_string())?;
        match response.feed(&buffer[..count]) {
            Some(200) => return Ok(()),
            Some(status) => return Err(format!("answered with {status}")),
            None if count == 0 => return Err("closed in the middle of an answer".to_owned()),
            None => {}
        }
    }
}

/// Sends `per_second` requests a second at constant distances over `connections` connections; returns latencies in
/// nanoseconds.
///
/// Each latency counts from the moment at which the request was due, sent late or not, so that a pause of the server
/// counts for all the requests it delays (no coordinated omission).
pub(crate) fn open_loop(
    to: SocketAddr,
    request: &[u8],
    per_second: u32,
    connections: u32,
    duration: Duration,
) -> Result<Histogram<u64>, String> {
    let interval = Duration::from_secs(1) / per_second;
    let start = Instant::now() + Duration::from_millis(50);
    let senders: Vec<_> = (0..connections)
        .map(|index| {
            let request = request.to_vec();
            thread::spawn(move || {
                let first = start + interval * index;
                on_schedule(to, &request, first, interval * connections, start + duration)
            })
        })
        .collect();
    let mut all = histogram();
    for sender in senders {
        let latencies = sender.join().map_err(|_| "a sender panicked".to_owned())??;
        all.add(latencies).map_err(|error| error.to_string())?;
    }
    Ok(all)
}

fn on_schedule(
    to: SocketAddr,
    request: &[u8],
    first: Instant,
    interval: Duration,
    end: Instant,
) -> Result<Histogram<u64>, String> {
    let mut connection = BlockingStream::connect(to).map_err(|error| format!("{to}: {error}"))?;
    connection.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut latencies = histogram();
    let mut response = Response::default();
    let mut buffer = [0; 4096];
    let mut due = first;
    while due < end {
        wait_until(due);
        response.clear();
        connection.write_all(request).map_err(|error| error.to_string())?;
        loop {
            let count = connection.read(&mut buffer).map_err(|error| error.to_string())?;
            match response.feed(&buffer[..count]) {
                Some(200) => break,
                Some(status) => return Err(format!("answered with {status}")),
                None if count == 0 => return Err("closed in the middle of an answer".to_owned()),
                None => {}
            }
        }
        latencies.saturating_record(nanos(due.elapsed()));
        due += interval;
    }
    Ok(latencies)
}

fn wait_until(due: Instant) {
    if let Some(rest) = due.checked_duration_since(Instant::now()) {
        thread::sleep(rest.saturating_sub(SPIN));
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

/// Returns an empty histogram of nanoseconds up to a minute, three digits precise.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

/// Returns a duration in whole nanoseconds.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
