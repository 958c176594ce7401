//! What the gateway adds, with nginx and the bare upstream beside it in the same run.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::http::{Response, chat_request};
use crate::load::{closed_loop, exchange, open_loop};
use crate::process::Process;
use crate::streams::{Streams, watch};
use crate::table::{Row, Verdict};

const BODY_BYTES: usize = 1024;
const ROUNDS: usize = 5;
const CONNECTIONS: usize = 32;
const ROUND: Duration = Duration::from_secs(2);

const PER_SECOND: u32 = 2_000;
const SENDERS: u32 = 16;
const OPEN_ROUND: Duration = Duration::from_secs(4);

const STREAMS: u32 = 1_000;
const STREAM_TIME: Duration = Duration::from_secs(8);

const IDLE_CONNECTIONS: usize = 10_000;
const MIB: f64 = 1024.0 * 1024.0;

/// What is measured against each other.
pub(crate) struct Sides {
    /// The upstream itself.
    pub(crate) direct: SocketAddr,
    /// Tidegate in front of it.
    pub(crate) gateway: Process,
    /// nginx in front of it, or why it is not there.
    pub(crate) nginx: Result<Process, String>,
}

impl Sides {
    /// Starts everything.
    pub(crate) fn start(folder: &Path, direct: SocketAddr) -> Result<Self, String> {
        Ok(Self {
            direct,
            gateway: Process::gateway(folder, direct)?,
            nginx: Process::nginx(folder, direct),
        })
    }
}

/// Requests per second in a closed loop: rounds alternate, so that whatever else the machine does meets all sides alike.
pub(crate) fn throughput(sides: &Sides) -> Result<Row, String> {
    const WHAT: &str = "throughput, 1 KB POST, closed loop, 32 connections";
    const BUDGET: &str = ">= 0.80 x nginx";
    let request = chat_request(BODY_BYTES, false);
    let (mut gateway, mut nginx, mut direct) = (Vec::new(), Vec::new(), Vec::new());
    let mut used_before = None;
    for round in 0..=ROUNDS {
        if round == 1 {
            used_before = Some((
                processor(&sides.gateway),
                sides.nginx.as_ref().map_or(f64::NAN, processor),
            ));
        }
        let duration = if round == 0 { ROUND / 4 } else { ROUND };
        let through_nginx = match &sides.nginx {
            Ok(nginx) => Some(closed_loop(nginx.address, &request, CONNECTIONS, duration)?),
            Err(_) => None,
        };
        let through_gateway = closed_loop(sides.gateway.address, &request, CONNECTIONS, duration)?;
        let bare = closed_loop(sides.direct, &request, CONNECTIONS, duration)?;
        // The first round warms connections and caches up.
        if round > 0 {
            nginx.extend(through_nginx);
            gateway.push(through_gateway);
            direct.push(bare);
        }
    }
    let each = |used: f64, rates: &[f64]| used / (rates.iter().sum::<f64>() * ROUND.as_secs_f64()) * 1e6;
    let (gateway_before, nginx_before) = used_before.unwrap_or((f64::NAN, f64::NAN));
    let gateway_each = each(processor(&sides.gateway) - gateway_before, &gateway);
    if let Err(reason) = &sides.nginx {
        let measured = format!("{:.0}/s; {reason}", median(&mut gateway));
        return Ok(Row::skipped(WHAT, BUDGET, measured));
    }
    let nginx_each = each(
        sides.nginx.as_ref().map_or(f64::NAN, processor) - nginx_before,
        &nginx,
    );
    let mut ratios: Vec<f64> = gateway
        .iter()
        .zip(&nginx)
        .map(|(gateway, nginx)| gateway / nginx)
        .collect();
    let ratio = median(&mut ratios);
    Ok(Row {
        what: WHAT,
        measured: format!(
            "{ratio:.2} x nginx ({:.0}/s, {gateway_each:.1} us CPU each)",
            median(&mut gateway)
        ),
        budget: BUDGET,
        beside: format!(
            "nginx {:.0}/s ({nginx_each:.1} us CPU each), direct {:.0}/s",
            median(&mut nginx),
            median(&mut direct)
        ),
        verdict: Verdict::of(ratio >= 0.80),
    })
}

/// Latency at a constant pace, over the bare upstream's.
pub(crate) fn added_latency(sides: &Sides) -> Result<[Row; 2], String> {
    let request = chat_request(BODY_BYTES, false);
    let run = |to| -> Result<[f64; 2], String> {
        let latencies = open_loop(to, &request, PER_SECOND, SENDERS, OPEN_ROUND)?;
        Ok([0.50, 0.99].map(|quantile| latencies.value_at_quantile(quantile) as f64 / 1_000.0))
    };
    let (mut direct, mut gateway, mut nginx) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let bare = run(sides.direct)?;
        let through_gateway = run(sides.gateway.address)?;
        let through_nginx = sides
            .nginx
            .as_ref()
            .ok()
            .map(|nginx| run(nginx.address))
            .transpose()?;
        if round > 0 {
            direct.push(bare);
            gateway.push(through_gateway);
            nginx.extend(through_nginx);
        }
    }
    let row = |index: usize, what, budget, limit: f64| {
        let over = |side: &[[f64; 2]]| -> f64 {
            let mut added: Vec<f64> = side
                .iter()
                .zip(&direct)
                .map(|(side, direct)| side[index] - direct[index])
                .collect();
            median(&mut added)
        };
        let added = over(&gateway);
        let mut bare: Vec<f64> = direct.iter().map(|quantiles| quantiles[index]).collect();
        let beside_nginx = if nginx.is_empty() {
            String::new()
        } else {
            format!("nginx {:+.0} us, ", over(&nginx))
        };
        Row {
            what,
            measured: format!("{added:+.0} us"),
            budget,
            beside: format!("{beside_nginx}direct {:.0} us", median(&mut bare)),
            verdict: Verdict::of(added <= limit),
        }
    };
    Ok([
        row(0, "added latency at 2,000/s, open loop, p50", "<= 60 us", 60.0),
        row(1, "added latency at 2,000/s, open loop, p99", "<= 500 us", 500.0),
    ])
}

/// Events of many streams at one time, and the memory that each stream takes.
pub(crate) fn streams(sides: &Sides, origin: Instant) -> Result<[Row; 3], String> {
    let request = chat_request(BODY_BYTES, true);
    let before = sides.gateway.resident_bytes();
    let nothing = || None;
    let direct = watch(sides.direct, &request, STREAMS, STREAM_TIME, origin, nothing)?;
    let through = |process: &Process, probe: &dyn Fn() -> Option<u64>| -> Result<(Streams, f64), String> {
        let before = processor(process);
        let streams = watch(process.address, &request, STREAMS, STREAM_TIME, origin, probe)?;
        let each = (processor(process) - before) / streams.delivered as f64 * 1e6;
        Ok((streams, each))
    };
    let (gateway, gateway_each) = through(&sides.gateway, &|| sides.gateway.resident_bytes())?;
    let nginx = sides
        .nginx
        .as_ref()
        .ok()
        .map(|nginx| through(nginx, &nothing))
        .transpose()?;
    let p99 = |streams: &Streams| streams.late.value_at_quantile(0.99) as f64 / 1e6;
    let p50s = |streams: &Streams| {
        [&streams.early, &streams.late].map(|half| half.value_at_quantile(0.50) as f64 / 1e6)
    };
    let added = p99(&gateway) - p99(&direct);
    let beside_nginx = nginx.as_ref().map_or_else(String::new, |(nginx, each)| {
        format!(
            "nginx {:+.2} ms ({each:.1} us CPU each), ",
            p99(nginx) - p99(&direct)
        )
    });
    let [early, late] = p50s(&gateway);
    let steady = gateway.arrived >= 0.99 && late <= early * 2.0 + 1.0;
    let memory = before
        .zip(gateway.probed)
        .map(|(before, during)| during.saturating_sub(before) as f64 / f64::from(STREAMS) / 1024.0);
    Ok([
        Row {
            what: "1,000 streams x 50 events/s, added p99 per event",
            measured: format!("{added:+.2} ms ({gateway_each:.1} us CPU each)"),
            budget: "<= 5 ms",
            beside: format!("{beside_nginx}direct {:.2} ms", p99(&direct)),
            verdict: Verdict::of(added <= 5.0),
        },
        Row {
            what: "1,000 streams x 50 events/s, backlog",
            measured: format!(
                "{:.1} % arrived, p50 {early:.2} then {late:.2} ms",
                gateway.arrived * 100.0
            ),
            budget: "does not grow",
            beside: format!("direct {:.1} % arrived", direct.arrived * 100.0),
            verdict: Verdict::of(steady),
        },
        memory.map_or_else(
            || {
                Row::skipped(
                    "resident memory per active stream",
                    "<= 128 KB",
                    "no /proc".to_owned(),
                )
            },
            |kib| Row {
                what: "resident memory per active stream",
                measured: format!("{kib:.0} KB"),
                budget: "<= 128 KB",
                beside: String::new(),
                verdict: Verdict::of(kib <= 128.0),
            },
        ),
    ])
}

/// Memory of a gateway that has just started.
pub(crate) fn idle_memory(sides: &Sides) -> Row {
    const WHAT: &str = "resident memory, idle";
    const BUDGET: &str = "<= 20 MB";
    let Some(bytes) = sides.gateway.resident_bytes() else {
        return Row::skipped(WHAT, BUDGET, "no /proc".to_owned());
    };
    Row {
        what: WHAT,
        measured: format!("{:.1} MB", bytes as f64 / MIB),
        budget: BUDGET,
        beside: String::new(),
        verdict: Verdict::of(bytes as f64 / MIB <= 20.0),
    }
}

/// Memory with connections that have each served a request and now wait for the next.
pub(crate) fn idle_connections(sides: &Sides) -> Result<Row, String> {
    const WHAT: &str = "resident memory, 10,000 idle connections";
    const BUDGET: &str = "<= 400 MB";
    if open_files_max() < IDLE_CONNECTIONS + 1_000 {
        return Ok(Row::skipped(
            WHAT,
            BUDGET,
            "needs a higher `ulimit -n`".to_owned(),
        ));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let request = chat_request(BODY_BYTES, false);
    let bytes = runtime.block_on(async {
        let mut connections = Vec::with_capacity(IDLE_CONNECTIONS);
        let mut response = Response::default();
        for _ in 0..IDLE_CONNECTIONS {
            let mut connection = TcpStream::connect(sides.gateway.address)
                .await
                .map_err(|error| error.to_string())?;
            exchange(&mut connection, &request, &mut response).await?;
            connections.push(connection);
        }
        Ok::<_, String>(sides.gateway.resident_bytes())
    })?;
    let Some(bytes) = bytes else {
        return Ok(Row::skipped(WHAT, BUDGET, "no /proc".to_owned()));
    };
    Ok(Row {
        what: WHAT,
        measured: format!("{:.0} MB", bytes as f64 / MIB),
        budget: BUDGET,
        beside: String::new(),
        verdict: Verdict::of(bytes as f64 / MIB <= 400.0),
    })
}

/// Returns the processor time of a program so far, in seconds, if the system tells.
fn processor(process: &Process) -> f64 {
    process.processor_seconds().unwrap_or(f64::NAN)
}

fn open_files_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}
