//! Many event streams at one time: how late events arrive, and whether they get later and later.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::histogram;
use crate::upstream::{EVENT_INTERVAL, STAMP, STAMP_DIGITS};

/// What was seen of the streams.
pub(crate) struct Streams {
    /// How late events arrived in the first half of the time, in nanoseconds.
    pub(crate) early: Histogram<u64>,
    /// How late they arrived in the second half.
    pub(crate) late: Histogram<u64>,
    /// The share of the events due that arrived.
    pub(crate) arrived: f64,
    /// All events that arrived, those of the time of settling included.
    pub(crate) delivered: u64,
    /// What `probe` returned in the middle of the run.
    pub(crate) probed: Option<u64>,
}

/// Opens `count` streams with `request`, lets them settle for a second and then watches them for `duration`.
pub(crate) fn watch(
    to: SocketAddr,
    request: &[u8],
    count: u32,
    duration: Duration,
    origin: Instant,
    probe: impl Fn() -> Option<u64>,
) -> Result<Streams, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let opening = Duration::from_millis(u64::from(count) * 2);
        let from = Instant::now() + opening + Duration::from_secs(1);
        let window = Window {
            from,
            middle: from + duration / 2,
            end: from + duration,
            origin,
        };
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..count {
            tasks.spawn(watch_one(to, request.to_vec(), window));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep_until(window.middle.into()).await;
        let probed = probe();
        let mut streams = Streams {
            early: histogram(),
            late: histogram(),
            arrived: 0.0,
            delivered: 0,
            probed,
        };
        while let Some(seen) = tasks.join_next().await {
            let (early, late, delivered) = seen.map_err(|error| error.to_string())??;
            streams.delivered += delivered;
            streams.early.add(early).map_err(|error| error.to_string())?;
            streams.late.add(late).map_err(|error| error.to_string())?;
        }
        let due = f64::from(count) * duration.as_secs_f64() / EVENT_INTERVAL.as_secs_f64();
        streams.arrived = (streams.early.len() + streams.late.len()) as f64 / due;
        Ok(streams)
    })
}

#[derive(Clone, Copy)]
struct Window {
    from: Instant,
    middle: Instant,
    end: Instant,
    origin: Instant,
}

async fn watch_one(
    to: SocketAddr,
    request: Vec<u8>,
    window: Window,
) -> Result<(Histogram<u64>, Histogram<u64>, u64), String> {
    let mut connection = TcpStream::connect(to)
        .await
        .map_err(|error| format!("{to}: {error}"))?;
    connection
        .write_all(&request)
        .await
        .map_err(|error| error.to_string())?;
    let (mut early, mut late, mut delivered) = (small_histogram(), small_histogram(), 0);
    let mut bytes = Vec::with_capacity(2048);
    loop {
        let read = tokio::time::timeout_at(window.end.into(), connection.read_buf(&mut bytes)).await;
        let Ok(read) = read else {
            return Ok((early, late, delivered));
        };
        if read.map_err(|error| error.to_string())? == 0 {
            return Err(format!("a stream ended: {}", String::from_utf8_lossy(&bytes)));
        }
        let now = Instant::now();
        if now >= window.end {
            return Ok((early, late, delivered));
        }
        let since_origin = u64::try_from(now.duration_since(window.origin).as_nanos()).unwrap_or(u64::MAX);
        let parsed = stamps(&bytes, |stamp| {
            delivered += 1;
            if now >= window.from {
                let side = if now < window.middle {
                    &mut early
                } else {
                    &mut late
                };
                side.saturating_record(since_origin.saturating_sub(stamp));
            }
        });
        bytes.drain(..parsed);
    }
}

/// Calls `each` with every whole stamp; returns how many bytes need not be looked at again.
fn stamps(bytes: &[u8], mut each: impl FnMut(u64)) -> usize {
    let mut done = 0;
    for at in memchr::memmem::find_iter(bytes, STAMP) {
        let from = at + STAMP.len();
        let Some(digits) = bytes.get(from..from + STAMP_DIGITS) else {
            return at;
        };
        if let Some(stamp) = std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
        {
            each(stamp);
        }
        done = from + STAMP_DIGITS;
    }
    // The first byte of a stamp may have arrived without the second.
    done.max(bytes.len().saturating_sub(1))
}

/// Two digits are enough for one stream: there are many of them.
fn small_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, 60_000_000_000, 2).expect("the bounds are in order")
}
