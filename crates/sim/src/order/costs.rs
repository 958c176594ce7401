//! What the order costs: time of the processor for each request, and memory for each that waits. These are the only figures
//! of the simulation that are measured and not computed, so nothing is ever asserted of them.

use std::fmt;
use std::time::Duration;

use tidegate_core::{
    Caller, Decision, Demand, Engine, Outcome, Output, PermitId, Plan, Priority, QuotaKey, Request, RouteId,
    TenantId, Timestamp, Tokens, Usage,
};

use super::course::{SECOND, START};
use super::quota::{QUOTA, Quota, Tenant};

/// Requests in one batch, of which the time is taken.
const BATCH: usize = 1_000;
/// The width of a bucket of the rolling window, in microseconds: as much is given back at a time.
const BUCKET: u64 = 100_000;
/// Requests a minute under which a batch is served in every bucket.
const LIMIT: u64 = 610_500;
/// Tenants in the crowd, and how many of each wait.
const CROWD: (usize, usize) = (1_000, 10);
/// Requests that wait while their memory is measured.
const WAITING: usize = 100_000;
/// Tokens of each request.
const TOKENS: u64 = 1_000;

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// A submission and its settlement with nobody waiting.
    pub alone: Duration,
    /// A submission, a dispatch and a settlement in the crowd.
    pub crowd: Duration,
    /// Bytes for each that waits; `None` where the system does not tell.
    pub memory: Option<u64>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tenants, each) = CROWD;
        writeln!(
            f,
            "submit and settle, nobody waits                                 {:>6} ns",
            self.alone.as_nanos()
        )?;
        writeln!(
            f,
            "submit, dispatch and settle, {:>6} waiting in {tenants} tenants      {:>6} ns",
            tenants * each,
            self.crowd.as_nanos()
        )?;
        let memory = self
            .memory
            .map_or_else(|| "–".to_owned(), |bytes| bytes.to_string());
        write!(
            f,
            "memory for each of {WAITING} waiting requests, beside its body  {memory:>6} bytes"
        )
    }
}

/// Measures everything. Times are medians of batches, so that what else the machine does matters little; memory comes first
/// and should be measured before anything else is done, because what was freed is used again and would not be seen.
pub fn measure(seed: u64) -> Figures {
    let memory = memory(seed);
    Figures {
        alone: alone(seed),
        crowd: crowd(seed),
        memory,
    }
}

fn alone(seed: u64) -> Duration {
    let mut counter = Counter::new(seed, 1_000_000_000);
    let batches = (0..200).map(|_| {
        timed(|| {
            for _ in 0..BATCH {
                counter.now += 10;
                if let Some(permit) = counter.submit(0) {
                    counter.settle(permit);
                }
            }
        })
    });
    median(batches.collect()) / u32::try_from(BATCH).unwrap_or(u32::MAX)
}

fn crowd(seed: u64) -> Duration {
    let (tenants, each) = CROWD;
    let mut counter = Counter::new(seed, LIMIT);
    // The window is filled evenly first, so that it gives back evenly.
    for _ in 0..700 {
        counter.now += BUCKET;
        counter.wake();
        for tenant in 0..BATCH {
            if let Some(permit) = counter.submit(tenant % tenants) {
                counter.settle(permit);
            }
        }
    }
    for place in 0..tenants * each {
        if let Some(permit) = counter.submit(place % tenants) {
            counter.settle(permit);
        }
    }
    let mut served = 0_usize;
    let mut batches = Vec::new();
    for _ in 0..300 {
        counter.now += BUCKET;
        let mut count = 0;
        let time = timed(|| {
            counter.wake();
            count = counter.started.len();
            // As many come as were served; which tenants these are matters little to the cost.
            for _ in 0..count {
                served += 1;
                if let Some(permit) = counter.submit(served % tenants) {
                    counter.settle(permit);
                }
            }
        });
        counter.started.clear();
        if let Some(each) = u32::try_from(count)
            .ok()
            .and_then(|count| time.checked_div(count))
        {
            batches.push(each);
        }
    }
    median(batches)
}

fn memory(seed: u64) -> Option<u64> {
    let mut counter = Counter::new(seed, 1_000);
    // The first ones are sent, and what is made once for each tenant is made.
    for place in 0..2_000 {
        counter.submit(place % CROWD.0);
    }
    let before = resident()?;
    for place in 0..WAITING {
        counter.submit(place % CROWD.0);
    }
    let after = resident()?;
    Some(after.saturating_sub(before) / WAITING as u64)
}

/// Returns the memory of this process, in bytes, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kilobytes * 1_024)
}

/// An engine that is asked and keeps nothing of what it answers.
struct Counter {
    engine: Engine,
    tenants: Vec<TenantId>,
    now: u64,
    started: Vec<PermitId>,
}

impl Counter {
    fn new(seed: u64, requests: u64) -> Self {
        let tenants: Vec<Tenant> = (0..CROWD.0)
            .map(|index| Tenant {
                is_listed: false,
                ..Tenant::new(format!("tenant {index}"), 1)
            })
            .collect();
        let plan: Plan = Quota::both(requests, requests * TOKENS).plan(&tenants);
        Self {
            engine: Engine::new(Timestamp::from_micros(START), plan, seed),
            tenants: tenants.iter().map(|tenant| TenantId::of(&tenant.name)).collect(),
            now: START + SECOND,
            started: Vec::new(),
        }
    }

    fn submit(&mut self, tenant: usize) -> Option<PermitId> {
        let request = Request {
            caller: Caller {
                tenant: self.tenants[tenant],
                priority: Priority::Normal,
                route: RouteId::NONE,
            },
            ..Request::new(
                QuotaKey::named(QUOTA),
                Demand::input_only(Tokens::new(TOKENS)),
                Timestamp::from_micros(u64::MAX),
            )
        };
        let decision = self.engine.submit(Timestamp::from_micros(self.now), request);
        if let Decision::Admit(permit) = decision {
            Some(permit.id)
        } else {
            None
        }
    }

    fn settle(&mut self, permit: PermitId) {
        let outcome = Outcome::Completed(Usage::default());
        self.engine
            .settle(Timestamp::from_micros(self.now), permit, outcome);
    }

    /// Lets everybody start for whom there is room, and ends them.
    fn wake(&mut self) {
        self.engine.handle_timeout(Timestamp::from_micros(self.now));
        while let Some(output) = self.engine.poll_output() {
            if let Output::Admit { permit, .. } = output {
                self.started.push(permit.id);
                self.settle(permit.id);
            }
        }
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured here is the processor's time, which no virtual clock tells"
)]
fn timed(work: impl FnOnce()) -> Duration {
    let start = std::time::Instant::now();
    work();
    start.elapsed()
}
