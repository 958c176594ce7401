//! Who asks for what: a trace, played through all gateways at once, and what became of each request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// A tenant whose share of the quota is its weight's, and who asks for more than that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tenant {
    pub(crate) name: &'static str,
    pub(crate) weight: u32,
    /// What it asks for, as a multiple of its share.
    pub(crate) demand: f64,
}

/// Together they ask for 1.2 times the quota: in the order of arrival, they would get other shares than their weights'.
pub(crate) const TENANTS: [Tenant; 3] = [
    Tenant {
        name: "steady",
        weight: 3,
        demand: 1.1,
    },
    Tenant {
        name: "usual",
        weight: 2,
        demand: 1.2,
    },
    Tenant {
        name: "greedy",
        weight: 1,
        demand: 1.5,
    },
];

/// How much more is asked for than the quota.
pub(crate) const EXCESS: f64 = 1.2;

/// A request before anybody has sent it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    /// When it comes, counted from the beginning of the load.
    pub(crate) at: Duration,
    pub(crate) upstream: usize,
    pub(crate) tenant: usize,
    pub(crate) gateway: usize,
    pub(crate) input: u64,
    pub(crate) output: u64,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// With a whole answer.
    Answered,
    /// With a whole answer that says that it was not sent.
    Refused(u16),
    /// With another status.
    Failed(u16),
    /// Without any.
    Lost,
}

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fate {
    pub(crate) planned: Planned,
    /// When it ended, counted from the beginning of the load.
    pub(crate) ended: Duration,
    pub(crate) end: End,
    /// How many times it went to another gateway, since the one it was at was gone.
    pub(crate) moves: u32,
}

/// What is asked of one upstream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Demand {
    /// Its place among them.
    pub(crate) upstream: usize,
    /// What its limit counts: requests, or tokens.
    pub(crate) counts_requests: bool,
}

/// Chooses who asks for what. `trace` is played in a circle, so many times as fast, until `until`; it begins where it never
/// falls behind its mean.
pub(crate) fn plan(
    trace: &[(Duration, u64, u64)],
    speed: f64,
    until: Duration,
    gateways: usize,
    demand: Demand,
) -> Vec<Planned> {
    let amount = |(_, input, output): &(Duration, u64, u64)| {
        if demand.counts_requests { 1 } else { input + output }
    };
    let length = trace.last().map_or(Duration::ZERO, |(at, ..)| *at) + Duration::from_secs(1);
    let mean = trace.iter().map(amount).sum::<u64>() as f64 / length.as_secs_f64();
    // Of all beginnings, the one before which the trace is furthest behind its mean.
    let (mut sum, mut begin, mut least) = (0.0, 0, f64::INFINITY);
    for (index, request) in trace.iter().enumerate() {
        let behind = sum - mean * request.0.as_secs_f64();
        if behind < least {
            (begin, least) = (index, behind);
        }
        sum += amount(request) as f64;
    }
    let origin = trace[begin].0;
    let (mut offered, mut counts) = ([0.0_f64; TENANTS.len()], [0_usize; TENANTS.len()]);
    let mut requests = Vec::new();
    for (round, request) in (0..).map(|n| ((begin + n) / trace.len(), &trace[(begin + n) % trace.len()])) {
        let laps = length * u32::try_from(round).unwrap_or(u32::MAX);
        let at = (request.0 + laps - origin).div_f64(speed);
        if at >= until {
            return requests;
        }
        let due = |tenant: &usize| {
            offered[*tenant] / (f64::from(TENANTS[*tenant].weight) * TENANTS[*tenant].demand)
        };
        let tenant = (0..TENANTS.len())
            .min_by(|one, other| due(one).total_cmp(&due(other)))
            .unwrap_or_default();
        offered[tenant] += amount(request) as f64;
        // Half of what a tenant asks for goes to a gateway of its own, the rest to all in turn.
        let count = counts[tenant];
        counts[tenant] += 1;
        let gateway = if count % 2 == 0 { tenant } else { count / 2 } % gateways;
        requests.push(Planned {
            at,
            upstream: demand.upstream,
            tenant,
            gateway,
            input: request.1,
            output: request.2.max(1),
        });
    }
    requests
}

/// Where requests go.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    pub(crate) gateways: Vec<SocketAddr>,
    /// The names of the upstreams.
    pub(crate) upstreams: Vec<&'static str>,
    /// How long a request may take before it counts as lost.
    pub(crate) patience: Duration,
}

/// Requests under way.
pub(crate) struct Load {
    /// When it began.
    pub(crate) began: Instant,
    fates: mpsc::UnboundedReceiver<Fate>,
    stop: Arc<Notify>,
}

impl Load {
    /// Sends requests, each at its time.
    pub(crate) fn start(targets: Targets, mut requests: Vec<Planned>) -> Self {
        requests.sort_by_key(|request| request.at);
        let began = Instant::now();
        let (sender, fates) = mpsc::unbounded_channel();
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let targets = Arc::new(targets);
        tokio::spawn(async move {
            for (number, planned) in requests.into_iter().enumerate() {
                tokio::select! {
                    biased;
                    () = stopped.notified() => return,
                    () = sleep_until(began + planned.at) => {}
                }
                let (targets, sender) = (Arc::clone(&targets), sender.clone());
                tokio::spawn(async move {
                    let (end, moves) = send(&targets, planned, number).await;
                    // Whoever does not care any more is gone.
                    let _ = sender.send(Fate {
                        planned,
                        ended: began.elapsed(),
                        end,
                        moves,
                    });
                });
            }
        });
        Self { began, fates, stop }
    }

    /// Sends no more, and waits until everything sent has ended.
    pub(crate) async fn end(mut self) -> Vec<Fate> {
        self.stop.notify_one();
        let mut fates = Vec::new();
        while let Some(fate) = self.fates.recv().await {
            fates.push(fate);
        }
        fates
    }

    /// Waits for the next request that ends.
    #[allow(dead_code, reason = "the benchmark does not wait for single requests")]
    pub(crate) async fn next(&mut self) -> Option<Fate> {
        self.fates.recv().await
    }
}

/// Sends one request until somebody answers it.
pub(crate) async fn send(targets: &Targets, planned: Planned, number: usize) -> (End, u32) {
    let mut moves = 0;
    let asking = async {
        let request = request(targets, planned, number);
        for gateway in planned.gateway.. {
            let address = targets.gateways[gateway % targets.gateways.len()];
            match exchange(address, &request).await {
                Some(200) => return End::Answered,
                Some(status @ (402 | 429 | 503)) => return End::Refused(status),
                Some(status) => return End::Failed(status),
                None => {
                    moves += 1;
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
        End::Lost
    };
    let end = timeout(targets.patience, asking).await.unwrap_or(End::Lost);
    (end, moves)
}

/// Returns the status of a whole answer; `None` if the connection is refused or ends early.
async fn exchange(address: SocketAddr, request: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(request).await.ok()?;
    let mut answer = Vec::with_capacity(4096);
    stream.read_to_end(&mut answer).await.ok()?;
    let head_len = memchr::memmem::find(&answer, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..head_len]).to_ascii_lowercase();
    let body = &answer[head_len + 4..];
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let is_whole = match length {
        Some(length) => body.len() == length,
        None => body.ends_with(b"0\r\n\r\n"),
    };
    is_whole.then(|| head.get(9..12)?.parse().ok()).flatten()
}

/// Returns a chat completion of so many tokens, in the place where it goes.
fn request(targets: &Targets, planned: Planned, number: usize) -> Vec<u8> {
    const FILLER: &str =
        "the tide comes in and the tide goes out and the gate lets through what there is room for; ";
    let mut text = format!("[{number}] ");
    // Three tokens for the message itself, and four characters for each of the others.
    let length = usize::try_from(planned.input.saturating_sub(3) * 4).unwrap_or(usize::MAX);
    while text.len() < length {
        let missing = length - text.len();
        text.push_str(&FILLER[..missing.min(FILLER.len())]);
    }
    // Every third answer is a stream.
    let stream = if number.is_multiple_of(3) {
        r#""stream":true,"#
    } else {
        ""
    };
    let body = format!(
        r#"{{"model":"gpt-4o","max_tokens":{},{stream}"messages":[{{"role":"user","content":"{text}"}}]}}"#,
        planned.output
    );
    format!(
        "POST /{}/v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer sk-any\r\n\
         x-tidegate-tenant: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        targets.upstreams[planned.upstream],
        TENANTS[planned.tenant].name,
        body.len()
    )
    .into_bytes()
}
