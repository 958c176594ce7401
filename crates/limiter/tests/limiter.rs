//! The limiter through its public API, under tokio's paused clock: waits of minutes take no time.

use std::time::Duration;

use tidegate::core::QueueBounds;
use tidegate::{
    Demand, Failure, Limiter, Permit, Plan, QuotaKey, Refusal, RefusalReason, Request, Tokens, Usage,
    WaitReason,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

fn request(limiter: &Limiter, patience: Duration) -> Request {
    Request::new(
        QuotaKey::named("default"),
        Demand::REQUEST_ONLY,
        limiter.now() + patience,
    )
}

async fn acquire(limiter: &Limiter) -> Permit {
    limiter
        .acquire(request(limiter, Duration::from_secs(3_600)))
        .await
        .expect("an hour is enough")
}

fn waiting(limiter: &Limiter) -> usize {
    limiter.snapshot().quotas.iter().map(|quota| quota.waiting).sum()
}

fn in_flight(limiter: &Limiter) -> usize {
    limiter
        .snapshot()
        .quotas
        .iter()
        .map(|quota| quota.in_flight)
        .sum()
}

/// Lets every other task run until it waits.
async fn settle_down() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_at_once_are_served_in_order_and_never_above_the_limit() {
    let limiter = Limiter::builder().requests_per_minute(30).build();
    let start = Instant::now();
    let mut callers = JoinSet::new();
    for place in 0..100 {
        let limiter = limiter.clone();
        callers.spawn(async move {
            let permit = acquire(&limiter).await;
            let waited = permit.waited();
            permit.settle(Usage::default());
            (place, start.elapsed(), waited)
        });
        settle_down().await;
    }
    let mut served = callers.join_all().await;
    served.sort_by_key(|(place, ..)| *place);
    assert!(
        served.is_sorted_by_key(|(_, at, _)| *at),
        "first come, first served: {served:?}"
    );
    for (index, (_, at, waited)) in served.iter().enumerate() {
        let window = index as u32 / 30;
        let least = Duration::from_secs(61) * window;
        let most = least + Duration::from_millis(110) * (window + 1);
        assert!(
            *at >= least && *at <= most,
            "caller {index} was served after {at:?}, not {least:?}..{most:?}"
        );
        assert!(
            waited.abs_diff(*at) < Duration::from_millis(5),
            "it knows how long it waited"
        );
    }
    assert_eq!((waiting(&limiter), in_flight(&limiter)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_leaves_the_line_at_once() {
    let limiter = Limiter::builder().requests_per_minute(1).build();
    let _first = acquire(&limiter).await;
    let impatient = tokio::time::timeout(Duration::from_secs(1), acquire(&limiter)).await;
    assert!(impatient.is_err());
    assert_eq!(waiting(&limiter), 0);
    let start = Instant::now();
    acquire(&limiter).await;
    assert!(
        start.elapsed() < Duration::from_millis(60_100),
        "nobody stood before it: {:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_arrives_as_its_caller_leaves_is_given_back() {
    let limiter = Limiter::builder().concurrent(1).build();
    let first = acquire(&limiter).await;
    let waiter = tokio::spawn({
        let limiter = limiter.clone();
        async move { acquire(&limiter).await.settle(Usage::default()) }
    });
    settle_down().await;
    assert_eq!(waiting(&limiter), 1);
    // The permit goes to the waiter, which is ended before it can run.
    first.settle(Usage::default());
    waiter.abort();
    assert!(waiter.await.is_err());
    assert_eq!((waiting(&limiter), in_flight(&limiter)), (0, 0));
    acquire(&limiter).await.settle(Usage::default());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_permit_counts_as_sent_unless_it_says_that_it_is_pending() {
    let limiter = Limiter::builder().requests_per_minute(2).build();
    let mut pending = acquire(&limiter).await;
    pending.pending();
    drop(pending);
    drop(acquire(&limiter).await);
    let mut sent = acquire(&limiter).await;
    sent.pending();
    sent.sent();
    drop(sent);
    let used = limiter.snapshot().quotas[0].limits[0].used.value();
    assert_eq!((used, in_flight(&limiter)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_kept_to_the_moment_and_told_in_advance_where_it_can_be() {
    let limiter = Limiter::builder().requests_per_minute(1).build();
    drop(acquire(&limiter).await);
    let start = Instant::now();
    let refusal = limiter
        .acquire(request(&limiter, Duration::from_secs(10)))
        .await
        .expect_err("61 s are needed");
    assert_eq!(refusal.reason, RefusalReason::Deadline);
    assert_eq!(start.elapsed(), Duration::ZERO, "it is told at once");
    tokio::time::sleep(refusal.retry_after.expect("time helps")).await;
    limiter
        .acquire(request(&limiter, Duration::ZERO))
        .await
        .expect("it came back when it was told to");

    let limiter = Limiter::builder().concurrent(1).build();
    let _running = acquire(&limiter).await;
    let start = Instant::now();
    let refusal = limiter
        .acquire(request(&limiter, Duration::from_secs(10)))
        .await
        .expect_err("nobody knows how long");
    assert_eq!(refusal.reason, RefusalReason::Deadline);
    assert!(start.elapsed().abs_diff(Duration::from_secs(10)) < Duration::from_millis(5));
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_waits_its_pause_and_keeps_its_place() {
    let limiter = Limiter::builder().requests_per_minute(10).build();
    let permit = acquire(&limiter).await;
    let start = Instant::now();
    let again = permit
        .retry(Failure::Transient { sent: true })
        .await
        .expect("there is time for another attempt");
    assert_eq!(
        (again.attempt(), again.limited_by()),
        (2, Some(WaitReason::Backoff))
    );
    let pause = start.elapsed();
    assert!(
        pause >= Duration::from_millis(750) && pause <= Duration::from_millis(1_255),
        "{pause:?}"
    );
    let late = again.retry(Failure::Late).await.expect("nothing was written");
    assert_eq!(late.attempt(), 2, "a late permit is no attempt");
    late.settle(Usage::default());
}

#[tokio::test(start_paused = true)]
async fn closing_ends_every_wait() {
    let limiter = Limiter::builder().requests_per_minute(1).build();
    drop(acquire(&limiter).await);
    let waiter = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.acquire(request(&limiter, Duration::from_secs(600))).await }
    });
    settle_down().await;
    limiter.close();
    let closed = |answer: Result<Permit, Refusal>| {
        answer.is_err_and(|refusal| refusal.reason == RefusalReason::Closed)
    };
    assert!(closed(waiter.await.expect("it does not panic")));
    assert!(closed(
        limiter.acquire(request(&limiter, Duration::from_secs(600))).await
    ));
}

#[tokio::test(start_paused = true)]
async fn a_reload_lets_those_go_who_fit_now() {
    let limiter = Limiter::builder().requests_per_minute(1).build();
    drop(acquire(&limiter).await);
    let waiter = tokio::spawn({
        let limiter = limiter.clone();
        async move { acquire(&limiter).await.waited() }
    });
    settle_down().await;
    let mut quota = tidegate::QuotaPlan::new("default", Vec::new(), tidegate::ChargeModel::OPENAI);
    let two = std::num::NonZeroU64::new(2).expect("two is not zero");
    quota.limits.push(tidegate::Limit::rolling(
        tidegate::core::Dimension::Requests,
        Duration::from_secs(60),
        two,
    ));
    limiter.reconfigure(Plan {
        quotas: vec![quota],
        queue: QueueBounds::default(),
        ..Plan::default()
    });
    let waited = waiter.await.expect("it does not panic");
    assert_eq!(waited, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_limited_with_requests() {
    let limiter = Limiter::builder()
        .requests_per_minute(100)
        .tokens_per_minute(1_000)
        .build();
    let first = limiter
        .acquire_tokens(Tokens::new(600), Some(Tokens::new(300)))
        .await
        .expect("it fits");
    first.settle(Usage {
        input: Some(Tokens::new(500)),
        output: Some(Tokens::new(10)),
        ..Usage::default()
    });
    let start = Instant::now();
    let second = limiter
        .acquire_tokens(Tokens::new(200), None)
        .await
        .expect("it waits");
    assert!(matches!(second.limited_by(), Some(WaitReason::Limit(limit)) if limit.amount == 1_000));
    assert!(
        start.elapsed() >= Duration::from_secs(61),
        "OpenAI gives nothing back"
    );
    let refusal = limiter
        .acquire_tokens(Tokens::new(1_001), None)
        .await
        .expect_err("it never fits");
    assert_eq!(refusal.reason, RefusalReason::NeverFits);
}

#[test]
fn it_may_be_used_from_threads_and_runtimes_other_than_its_own() {
    let home = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime");
    let limiter = home.block_on(async { Limiter::builder().concurrent(2).build() });
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let limiter = limiter.clone();
            std::thread::spawn(move || {
                let away = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .expect("a runtime");
                away.block_on(async {
                    for _ in 0..500 {
                        let permit = acquire(&limiter).await;
                        assert!(in_flight(&limiter) <= 2);
                        permit.settle(Usage::default());
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no thread panics");
    }
    assert_eq!((waiting(&limiter), in_flight(&limiter)), (0, 0));
}
