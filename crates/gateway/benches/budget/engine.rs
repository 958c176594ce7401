//! What a decision costs, and how soon freed capacity is used.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use tidegate::{Limiter, core};
use tidegate_core::{
    Bytes, Caller, ChargeModel, Decision, Demand, Dimension, Engine, Limit, Outcome, Output, PermitId, Plan,
    QueueBounds, QuotaKey, QuotaPlan, Request, TenantId, Timestamp, Tokens, Usage,
};

use crate::load::{histogram, nanos};
use crate::table::{Row, Verdict};

const NAME: &str = "openai/gpt-4o";
const MINUTE: Duration = Duration::from_secs(60);
const START: Timestamp = Timestamp::from_secs(1_700_000_000);

/// Two dimensions, limits that are never reached: the cost of a request that does not wait.
pub(crate) fn uncontended() -> Row {
    const BATCHES: usize = 60;
    const BATCH: u32 = 20_000;
    let mut engine = Engine::new(START, plan(1_000_000_000, 1_000_000_000_000), 1);
    let mut now = START;
    let mut nanos_each = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let start = Instant::now();
        for _ in 0..BATCH {
            now = now + Duration::from_micros(20);
            let Decision::Admit(permit) = engine.submit(now, request(now)) else {
                panic!("an ample limit made a request wait");
            };
            settle(&mut engine, now + Duration::from_micros(10), permit.id);
            assert!(engine.poll_output().is_none(), "nobody waits");
        }
        nanos_each.push(nanos(start.elapsed()) as f64 / f64::from(BATCH));
    }
    row(
        "engine: submit + settle, uncontended",
        "<= 500 ns",
        500.0,
        nanos_each,
    )
}

/// The same with 10,000 requests waiting all the time, of this many tenants in turn: as many come as may go.
pub(crate) fn crowded(what: &'static str, tenants: u64) -> Row {
    const EACH_TICK: u64 = 100;
    const WAITING: u64 = 10_000;
    const TICKS: u64 = 3_000;
    let per_minute = EACH_TICK * 600;
    let mut engine = Engine::new(START, plan(per_minute, 1_000_000_000_000), 1);
    let mut now = START;
    let names: Vec<String> = (0..tenants).map(|number| format!("tenant {number}")).collect();
    let (mut waiting, mut asked) = (0_u64, 0_usize);
    let mut tick = |engine: &mut Engine, arrivals: u64| -> (u64, Duration) {
        let start = Instant::now();
        let mut admitted = 0;
        now = now + Duration::from_millis(100);
        engine.handle_timeout(now);
        for _ in 0..arrivals {
            asked += 1;
            let caller = Caller {
                tenant: TenantId::of(&names[asked % names.len()]),
                ..Caller::default()
            };
            match engine.submit(
                now,
                Request {
                    caller,
                    ..request(now)
                },
            ) {
                Decision::Admit(permit) => {
                    admitted += 1;
                    settle(engine, now, permit.id);
                }
                Decision::Wait(_) => waiting += 1,
                Decision::Refuse(refusal) => panic!("a request was refused: {refusal:?}"),
            }
        }
        while let Some(output) = engine.poll_output() {
            if let Output::Admit { permit, .. } = output {
                admitted += 1;
                waiting -= 1;
                settle(engine, now, permit.id);
            }
        }
        assert!(
            engine.poll_timeout().is_some() || waiting == 0,
            "those who wait are woken"
        );
        (admitted, start.elapsed())
    };
    // A minute of even traffic fills the window, so that from then on capacity frees at the same pace.
    for _ in 0..650 {
        tick(&mut engine, EACH_TICK);
    }
    tick(&mut engine, WAITING);
    let mut nanos_each = Vec::new();
    for _ in 0..TICKS {
        let (admitted, took) = tick(&mut engine, EACH_TICK);
        if admitted > 0 {
            nanos_each.push(nanos(took) as f64 / admitted as f64);
        }
    }
    row(what, "<= 1 us", 1_000.0, nanos_each)
}

/// What each of 100,000 waiting requests holds beside its body.
pub(crate) fn waiting_memory() -> Row {
    const WHAT: &str = "engine: memory per waiting request";
    const BUDGET: &str = "<= 1 KB beside its body";
    const WAITING: u64 = 100_000;
    let mut plan = plan(1, 1_000_000_000_000);
    plan.queue.requests_max = usize::MAX;
    plan.queue.wait_max = Duration::from_secs(u64::MAX / 1_000_000);
    let mut engine = Engine::new(START, plan, 1);
    let names: Vec<String> = (0..1_000).map(|number| format!("tenant {number}")).collect();
    let mut ask = |place: u64| {
        let tenant = TenantId::of(&names[usize::try_from(place).unwrap_or(0) % names.len()]);
        let caller = Caller {
            tenant,
            ..Caller::default()
        };
        let patient = Request {
            caller,
            deadline: Timestamp::from_micros(u64::MAX),
            ..request(START)
        };
        engine.submit(START, patient);
    };
    // What is made once for each tenant is made first.
    (0..2_000).for_each(&mut ask);
    let Some(before) = crate::process::own_resident_bytes() else {
        return Row::skipped(WHAT, BUDGET, "this system does not tell".to_owned());
    };
    (0..WAITING).for_each(&mut ask);
    let after = crate::process::own_resident_bytes().unwrap_or(before);
    let each = after.saturating_sub(before) / WAITING;
    Row {
        what: WHAT,
        measured: format!("{each} B"),
        budget: BUDGET,
        beside: "100,000 of 1,000 tenants".to_owned(),
        verdict: Verdict::of(each <= 1_024),
    }
}

/// One permit at a time: from the moment at which it is given back to the moment at which the next caller has it.
pub(crate) fn dispatch() -> Result<Row, String> {
    const TURNS: usize = 2_000;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let latencies = runtime.block_on(async {
        let limiter = Limiter::builder().concurrent(1).build();
        let mut latencies = histogram();
        let mut permit = acquire(&limiter).await?;
        for _ in 0..TURNS {
            let next = tokio::spawn({
                let limiter = limiter.clone();
                async move { (acquire(&limiter).await, Instant::now()) }
            });
            // Two turns of the runtime, and the next caller stands in the queue.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            let freed = Instant::now();
            permit.settle(Usage::default());
            let (next, got) = next.await.map_err(|error| error.to_string())?;
            latencies.saturating_record(nanos(got.saturating_duration_since(freed)));
            permit = next?;
        }
        Ok::<_, String>(latencies)
    })?;
    let p99 = latencies.value_at_quantile(0.99) as f64 / 1e6;
    Ok(Row {
        what: "dispatch after capacity frees, p99",
        measured: format!("{p99:.3} ms"),
        budget: "<= 5 ms",
        beside: format!("p50 {:.3} ms", latencies.value_at_quantile(0.5) as f64 / 1e6),
        verdict: Verdict::of(p99 <= 5.0),
    })
}

async fn acquire(limiter: &Limiter) -> Result<tidegate::Permit, String> {
    let permit = limiter.acquire_tokens(core::Tokens::new(100), None).await;
    permit.map_err(|refusal| format!("{refusal:?}"))
}

fn plan(requests: u64, tokens: u64) -> Plan {
    let limits = [(Dimension::Requests, requests), (Dimension::Tokens, tokens)]
        .into_iter()
        .map(|(dimension, amount)| {
            Limit::rolling(
                dimension,
                MINUTE,
                NonZeroU64::new(amount).unwrap_or(NonZeroU64::MIN),
            )
        })
        .collect();
    Plan {
        quotas: vec![QuotaPlan::new(NAME, limits, ChargeModel::OPENAI)],
        queue: QueueBounds {
            requests_max: 20_000,
            ..QueueBounds::default()
        },
        ..Plan::default()
    }
}

fn request(now: Timestamp) -> Request {
    Request {
        bytes: Bytes::new(2_048),
        ..Request::new(
            QuotaKey::named(NAME),
            Demand::generating(Tokens::new(500), Some(Tokens::new(100))),
            now + Duration::from_secs(300),
        )
    }
}

fn settle(engine: &mut Engine, now: Timestamp, permit: PermitId) {
    let usage = Usage {
        input: Some(Tokens::new(480)),
        cached_input: Tokens::ZERO,
        output: Some(Tokens::new(60)),
    };
    engine.settle(now, permit, Outcome::Completed(usage));
}

/// The fastest batch tells what the code costs; the median tells what the machine made of it.
fn row(what: &'static str, budget: &'static str, limit: f64, mut nanos_each: Vec<f64>) -> Row {
    nanos_each.sort_by(f64::total_cmp);
    let least = nanos_each.first().copied().unwrap_or(f64::NAN);
    let median = nanos_each.get(nanos_each.len() / 2).copied().unwrap_or(f64::NAN);
    Row {
        what,
        measured: format!("{least:.0} ns"),
        budget,
        beside: format!("median {median:.0} ns"),
        verdict: Verdict::of(least <= limit),
    }
}
