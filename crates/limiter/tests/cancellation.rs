//! A future may be dropped wherever it stands: the limiter is then as if it had never asked.
//!
//! Futures are polled by hand, and what stays behind is seen in snapshots; nothing sleeps but by the paused clock.

use std::future::Future;
use std::num::NonZeroU64;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tidegate::core::{
    Budget, BudgetUnit, Bytes, Caller, ChargeModel, Dimension, Failure, Limit, Outcome, Period, Price, RunId,
    RunPlan, RunStep, TenantId, TenantPlan,
};
use tidegate::{Demand, Limiter, Permit, Plan, QuotaKey, QuotaPlan, Refusal, Request, Tokens, Usage};

/// More polls than any wait has places to stand at.
const POLLS: usize = 6;

const QUOTA: &str = "default";
const RUN: RunId = RunId::of(7);

/// What holds the request up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocked {
    Nothing,
    /// The group's limit in flight.
    Group,
    /// Its tenant's.
    Tenant,
    /// Its tenant's budget is held.
    Budget,
    /// The group's requests of the minute.
    Minute,
}

const EVERY: [Blocked; 5] = [
    Blocked::Nothing,
    Blocked::Group,
    Blocked::Tenant,
    Blocked::Budget,
    Blocked::Minute,
];

fn limit(dimension: Dimension, amount: u64) -> Limit {
    let amount = NonZeroU64::new(amount).expect("limits are positive");
    Limit::rolling(dimension, Duration::from_secs(60), amount)
}

fn plan(blocked: Blocked) -> Plan {
    let mut group = vec![limit(Dimension::Requests, 1_000)];
    let mut tenant = TenantPlan::new("a");
    tenant.limits = vec![limit(Dimension::Tokens, 100_000)];
    let mut budget = 1_000_000;
    match blocked {
        Blocked::Nothing => {}
        Blocked::Group => group.push(limit(Dimension::Concurrency, 1)),
        Blocked::Tenant => tenant.limits.push(limit(Dimension::Concurrency, 1)),
        Blocked::Budget => budget = 150,
        Blocked::Minute => group[0] = limit(Dimension::Requests, 1),
    }
    tenant.budgets = vec![Budget {
        unit: BudgetUnit::Tokens,
        period: Period::Month,
        amount: budget,
    }];
    Plan {
        quotas: vec![QuotaPlan::new(QUOTA, group, ChargeModel::OPENAI)],
        tenants: vec![tenant],
        runs: RunPlan {
            calls: Some(100),
            ..RunPlan::default()
        },
        ..Plan::default()
    }
}

fn request(limiter: &Limiter, run: Option<RunId>) -> Request {
    let demand = Demand::generating(Tokens::new(10), Some(Tokens::new(90)));
    Request {
        caller: Caller {
            tenant: TenantId::of("a"),
            ..Caller::default()
        },
        price: Price::NONE,
        run: run.map(|run| RunStep {
            run,
            parent: None,
            fingerprint: None,
        }),
        ..Request::new(
            QuotaKey::named(QUOTA),
            demand,
            limiter.now() + Duration::from_secs(500),
        )
    }
}

/// Polls a future so many times, with a waker that does nothing.
fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Everything that a request could leave behind.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    waiting: usize,
    waiting_bytes: u64,
    in_flight: usize,
    /// Used and held of every limit of the group, then of the tenant.
    limits: Vec<(u64, u64)>,
    budgets: Vec<(u64, u64)>,
    /// Calls and tokens of the run.
    run: (u64, u64),
}

fn left(limiter: &Limiter) -> Left {
    let snapshot = limiter.snapshot();
    let own = snapshot.allowances.iter().flat_map(|own| &own.limits);
    let all = snapshot.quotas.iter().flat_map(|quota| &quota.limits).chain(own);
    let budgets = snapshot.allowances.iter().flat_map(|own| &own.budgets);
    Left {
        waiting: snapshot.quotas.iter().map(|quota| quota.waiting).sum(),
        waiting_bytes: snapshot.waiting_bytes.value(),
        in_flight: snapshot.quotas.iter().map(|quota| quota.in_flight).sum(),
        limits: all
            .map(|limit| (limit.used.value(), limit.held.value()))
            .collect(),
        budgets: budgets.map(|budget| (budget.used, budget.held)).collect(),
        run: limiter.run(RUN).map_or((0, 0), |run| (run.calls, run.tokens)),
    }
}

/// Lets every other task run until it waits.
async fn settle_down() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Makes a limiter in which one request runs already, so that another one is held up.
async fn held_up(blocked: Blocked) -> (Limiter, Permit) {
    let limiter = Limiter::new(plan(blocked));
    let first = limiter
        .acquire(request(&limiter, None))
        .await
        .expect("it is the first");
    settle_down().await;
    (limiter, first)
}

/// What a first request that ends this way leaves behind where nobody else ever asked.
async fn alone(blocked: Blocked, ends: bool) -> Left {
    let (limiter, first) = held_up(blocked).await;
    if ends {
        first.end(Outcome::NotSent);
        return left(&limiter);
    }
    let left = left(&limiter);
    first.settle(Usage::default());
    left
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_while_it_waits_leaves_nothing() {
    for blocked in EVERY {
        let expected = alone(blocked, false).await;
        for polls in 0..POLLS {
            let (limiter, _first) = held_up(blocked).await;
            {
                let mut waits = pin!(limiter.acquire(request(&limiter, Some(RUN))));
                for _ in 0..polls {
                    if let Poll::Ready(permit) = poll(waits.as_mut()) {
                        assert_eq!(blocked, Blocked::Nothing, "it was held up");
                        // Granted and unused.
                        permit.expect("nothing is in its way").not_sent();
                        break;
                    }
                    settle_down().await;
                }
            }
            assert_eq!(
                left(&limiter),
                expected,
                "{blocked:?}, dropped after {polls} polls"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_comes_as_its_request_is_dropped_is_given_back() {
    for blocked in EVERY.into_iter().filter(|blocked| *blocked != Blocked::Nothing) {
        let expected = alone(blocked, true).await;
        for (polls, is_polled_after) in [(0, false), (1, false), (2, false), (1, true), (3, true)] {
            let (limiter, first) = held_up(blocked).await;
            {
                let mut waits = pin!(limiter.acquire(request(&limiter, Some(RUN))));
                for _ in 0..polls {
                    assert!(poll(waits.as_mut()).is_pending());
                }
                // The permit is sent to it in the same moment.
                first.end(Outcome::NotSent);
                if polls > 0 {
                    assert_eq!(left(&limiter).in_flight, 1, "{blocked:?}: it was sent its permit");
                }
                if is_polled_after && let Poll::Ready(permit) = poll(waits.as_mut()) {
                    let mut permit = permit.expect("it was granted");
                    permit.pending();
                }
            }
            assert_eq!(
                left(&limiter),
                expected,
                "{blocked:?}, dropped after {polls} polls"
            );
            // And whoever comes next finds the place free.
            let mut next = pin!(limiter.acquire(request(&limiter, None)));
            assert!(poll(next.as_mut()).is_ready(), "{blocked:?}");
        }
    }
}

/// The permit comes by the timer this time, long after the request began to wait.
#[tokio::test(start_paused = true)]
async fn a_permit_that_the_timer_sends_to_nobody_is_given_back() {
    let (limiter, first) = held_up(Blocked::Minute).await;
    first.settle(Usage::default());
    let mut waits = Box::pin(limiter.acquire(request(&limiter, Some(RUN))));
    assert!(poll(waits.as_mut()).is_pending());
    tokio::time::advance(Duration::from_secs(62)).await;
    settle_down().await;
    assert_eq!(left(&limiter).in_flight, 1, "its permit was sent");
    drop(waits);
    let after = left(&limiter);
    assert_eq!((after.waiting, after.in_flight, after.run), (0, 0, (0, 0)));
    assert_eq!(after.limits[0], (0, 0), "{after:?}");
    let mut next = pin!(limiter.acquire(request(&limiter, None)));
    assert!(poll(next.as_mut()).is_ready());
}

/// Every failure of which the provider takes nothing, dropped at every moment of the pause and of what comes after it.
#[tokio::test(start_paused = true)]
async fn a_retry_that_is_dropped_leaves_nothing() {
    let failures = [Failure::Late, Failure::Transient { sent: false }];
    for blocked in EVERY {
        let mut expected = None;
        for failure in failures {
            // Not polled at all it is a permit that is dropped, which counts as sent.
            for polls in 1..POLLS {
                let limiter = Limiter::new(plan(blocked));
                if expected.is_none() {
                    // A limiter in which one request was given up before it was sent.
                    let permit = limiter
                        .acquire(request(&limiter, Some(RUN)))
                        .await
                        .expect("it is the first");
                    permit.not_sent();
                    expected = Some(left(&limiter));
                }
                let permit = limiter
                    .acquire(request(&limiter, Some(RUN)))
                    .await
                    .expect("nothing runs");
                {
                    let mut again = pin!(permit.retry(failure));
                    for _ in 0..polls {
                        if let Poll::Ready(permit) = poll(again.as_mut()) {
                            let mut permit: Permit = permit.expect("there is time");
                            permit.pending();
                            break;
                        }
                        tokio::time::advance(Duration::from_millis(400)).await;
                        settle_down().await;
                    }
                }
                assert_eq!(
                    Some(left(&limiter)),
                    expected,
                    "{blocked:?}, {failure:?}, dropped after {polls} polls"
                );
            }
        }
    }
}

/// A retry that is never polled told nobody of the failure: its permit was dropped, and counts as sent.
#[tokio::test(start_paused = true)]
async fn a_retry_that_is_never_polled_ends_its_attempt() {
    let limiter = Limiter::new(plan(Blocked::Group));
    let permit = limiter
        .acquire(request(&limiter, Some(RUN)))
        .await
        .expect("nothing runs");
    drop(permit.retry(Failure::Transient { sent: true }));
    let after = left(&limiter);
    assert_eq!((after.waiting, after.in_flight), (0, 0), "{after:?}");
    assert_eq!(after.limits[1].1, 0, "it is in flight no more: {after:?}");
}

/// A task that is aborted drops its future somewhere: many tasks, ended in every order.
#[tokio::test(start_paused = true)]
async fn tasks_that_are_ended_in_any_order_leave_nothing() {
    for blocked in EVERY {
        for ended_first in 0..4 {
            let (limiter, first) = held_up(blocked).await;
            let tasks: Vec<_> = (0..4)
                .map(|_| {
                    let limiter = limiter.clone();
                    tokio::spawn(async move {
                        let permit = limiter.acquire(request(&limiter, Some(RUN))).await;
                        if let Ok(mut permit) = permit {
                            permit.pending();
                            std::future::pending::<()>().await;
                        }
                    })
                })
                .collect();
            settle_down().await;
            tasks[ended_first].abort();
            first.end(Outcome::NotSent);
            for task in &tasks {
                task.abort();
                settle_down().await;
            }
            assert_eq!(
                left(&limiter),
                alone(blocked, true).await,
                "{blocked:?}, {ended_first} first"
            );
        }
    }
}

/// Whoever is refused in favor of somebody else is told at once, though nothing else happens.
#[tokio::test(start_paused = true)]
async fn who_is_pushed_out_is_told_at_once() {
    let mut plan = plan(Blocked::Group);
    plan.queue.requests_max = 2;
    let limiter = Limiter::new(plan);
    let _first = limiter
        .acquire(request(&limiter, None))
        .await
        .expect("it is the first");
    let mut waits = Vec::new();
    for _ in 0..2 {
        let mut wait = Box::pin(limiter.acquire(request(&limiter, None)));
        assert!(poll(wait.as_mut()).is_pending());
        waits.push(wait);
    }
    let other = Request {
        caller: Caller::default(),
        ..request(&limiter, None)
    };
    let mut other = pin!(limiter.acquire(other));
    assert!(poll(other.as_mut()).is_pending());
    let answer = poll(waits[1].as_mut());
    assert!(matches!(answer, Poll::Ready(Err(Refusal { .. }))), "{answer:?}");
}

/// As above, where there is not enough room all the same.
#[tokio::test(start_paused = true)]
async fn who_is_pushed_out_in_vain_is_told_at_once_or_not_pushed_out() {
    let mut plan = plan(Blocked::Group);
    plan.queue.bytes_max = 100;
    let limiter = Limiter::new(plan);
    let _first = limiter
        .acquire(request(&limiter, None))
        .await
        .expect("it is the first");
    let of = |name: &str, bytes| Request {
        caller: Caller {
            tenant: TenantId::of(name),
            ..Caller::default()
        },
        bytes: Bytes::new(bytes),
        ..request(&limiter, None)
    };
    let mut waits = Vec::new();
    for name in ["x", "x", "x", "x", "y", "y", "y", "y", "z", "z"] {
        let mut wait = Box::pin(limiter.acquire(of(name, 10)));
        assert!(poll(wait.as_mut()).is_pending());
        waits.push(wait);
    }
    let mut other = pin!(limiter.acquire(of("other", 30)));
    assert!(poll(other.as_mut()).is_ready(), "there is no room for it");
    let ended = waits.iter_mut().filter_map(|wait| match poll(wait.as_mut()) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    });
    let ended = ended.count();
    let waiting = left(&limiter).waiting;
    assert_eq!(ended + waiting, 10, "whoever waits no more was told");
}
