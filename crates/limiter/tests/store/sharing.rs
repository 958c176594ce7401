//! Several limiters act as one.

use std::time::Duration;

use tidegate::core::Standing;
use tidegate::{RefusalReason, StoreState};

use super::{RedisServer, impatient, plan, replica, request, soon, standing, until};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn two_have_the_limit_of_one() {
    let server = RedisServer::start();
    let replicas = [replica(&server, plan(10, HOUR)), replica(&server, plan(10, HOUR))];
    let mut permits = Vec::new();
    for round in 0..10 {
        let permit = soon("a permit", replicas[round % 2].acquire(request()))
            .await
            .unwrap();
        permits.push(permit);
    }
    for replica in &replicas {
        let patience = Duration::from_millis(500);
        let refusal = soon("an answer", replica.acquire(impatient(replica, patience))).await;
        let refusal = refusal.expect_err("the limit is used up");
        assert_eq!(refusal.reason, RefusalReason::Deadline, "{refusal:?}");
        assert_eq!(standing(replica), Standing::Open);
        let status = replica.store_status().unwrap();
        assert_eq!(status.state, StoreState::Connected, "{status:?}");
        assert!(status.calls > 0 && status.errors.is_empty(), "{status:?}");
    }
}

#[tokio::test]
async fn who_waits_at_one_is_woken_when_the_other_gives_back() {
    let server = RedisServer::start();
    let (a, b) = (replica(&server, plan(1, HOUR)), replica(&server, plan(1, HOUR)));
    let permit = soon("a permit", a.acquire(request())).await.unwrap();
    let waiter = tokio::spawn({
        let b = b.clone();
        async move { b.acquire(request()).await }
    });
    until("it waits", || {
        b.snapshot()
            .quotas
            .first()
            .is_some_and(|quota| quota.waiting == 1)
    })
    .await;
    permit.not_sent();
    let permit = soon("the other's turn", waiter).await.unwrap().unwrap();
    permit.not_sent();
}

#[tokio::test]
async fn a_window_that_has_passed_is_free_for_both() {
    let server = RedisServer::start();
    let window = Duration::from_secs(2);
    let replicas = [
        replica(&server, plan(2, window)),
        replica(&server, plan(2, window)),
    ];
    let start = replicas[0].now();
    for round in 0..6 {
        soon("a permit", replicas[round % 2].acquire(request()))
            .await
            .unwrap();
    }
    // Two each window: the last two come after two windows.
    assert!(replicas[0].now().since(start) >= window * 2);
}

#[tokio::test]
async fn who_leaves_is_gone_at_once() {
    let server = RedisServer::start();
    let (a, b) = (replica(&server, plan(10, HOUR)), replica(&server, plan(10, HOUR)));
    // Whoever uses nothing would leave by itself.
    let _permits = (
        soon("a permit", a.acquire(request())).await.unwrap(),
        soon("a permit", b.acquire(request())).await.unwrap(),
    );
    let replicas = |limiter: &tidegate::Limiter| limiter.snapshot().quotas[0].store.unwrap().replicas;
    until("they see each other", || replicas(&a) == 2).await;
    assert!(b.leave(Duration::from_secs(10)).await);
    until("it is gone", || replicas(&a) == 1).await;
}
