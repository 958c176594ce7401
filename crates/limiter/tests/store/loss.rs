//! The store goes away, comes back, or cannot be used.

use std::time::Duration;

use tidegate::core::{Dimension, Standing};
use tidegate::{Limiter, StoreError, StoreOptions, StoreState};

use super::tenants::{limit, of_a, tenant};
use super::{RedisServer, ask, plan, replica, request, soon, standing, until};

const MINUTE: Duration = Duration::from_secs(60);

fn state(limiter: &Limiter) -> StoreState {
    limiter.store_status().unwrap().state
}

#[tokio::test]
async fn a_connection_that_is_lost_is_made_anew() {
    let server = RedisServer::start();
    let limiter = replica(&server, plan(100, MINUTE));
    soon("a permit", limiter.acquire(request())).await.unwrap();
    ask(&server, &["CLIENT", "KILL", "TYPE", "pubsub"]);
    until("another connection", || {
        limiter.store_status().unwrap().connections == 2
    })
    .await;
    soon("a permit", limiter.acquire(request())).await.unwrap();
    assert_eq!(standing(&limiter), Standing::Open);
    let errors = limiter.store_status().unwrap().errors;
    assert!(
        errors.iter().any(|(error, _)| *error == StoreError::Closed),
        "{errors:?}"
    );
}

#[tokio::test]
async fn without_the_store_a_share_goes_on_and_with_it_the_rest() {
    let mut server = RedisServer::start();
    let limiter = replica(&server, plan(4, Duration::from_secs(3)));
    for _ in 0..4 {
        soon("a permit", limiter.acquire(request())).await.unwrap();
    }
    server.kill();
    // Half of what expires may be used again, by the only replica.
    let permit = soon("a permit of the share", limiter.acquire(request()))
        .await
        .unwrap();
    assert_eq!(standing(&limiter), Standing::Sharing);
    assert_eq!(state(&limiter), StoreState::Unreachable);
    server.restart();
    until("the store is there again", || {
        standing(&limiter) == Standing::Open
    })
    .await;
    assert_eq!(state(&limiter), StoreState::Connected);
    // Whoever uses nothing would leave by itself.
    drop(permit);
    soon("a permit", limiter.acquire(request())).await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_not_there_yet_is_waited_for() {
    let mut server = RedisServer::start();
    server.kill();
    let limiter = replica(&server, plan(4, MINUTE));
    let waiter = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.acquire(request()).await }
    });
    until("it is missed", || state(&limiter) == StoreState::Unreachable).await;
    server.restart();
    soon("a permit", waiter).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_named_and_not_shown() {
    let server = RedisServer::start_with(&["--requirepass", "correct"]);
    let url = format!("redis://:canary-7@127.0.0.1:{}", server.port());
    let limiter = Limiter::with_store(plan(4, MINUTE), StoreOptions::redis(&url).unwrap()).unwrap();
    until("it is refused", || state(&limiter) == StoreState::Denied).await;
    let status = limiter.store_status().unwrap();
    assert!(
        status
            .error
            .as_ref()
            .is_some_and(|error| error.contains("WRONGPASS")),
        "{status:?}"
    );
    assert!(!format!("{status:?}").contains("canary"));
}

#[tokio::test]
async fn a_user_with_the_documented_rights_can_do_everything() {
    let acl = include_str!("../../../../deploy/valkey/users.acl");
    let rights = acl
        .lines()
        .find(|line| line.starts_with("user tidegate"))
        .unwrap();
    let rights = rights
        .split_once("#8f343facd512c49885935c19057d85dfc889706b243f6fda07a8ec321e2f7d27")
        .unwrap()
        .1;
    let rule = format!("--user tidegate on >secret {rights}");
    let rule: Vec<&str> = rule.split_whitespace().collect();
    let server = RedisServer::start_with(&rule);
    let url = format!("redis://tidegate:secret@127.0.0.1:{}", server.port());
    let options = StoreOptions::redis(&url).unwrap().trust_empty(true);
    let limiter = Limiter::with_store(plan(1, MINUTE), options).unwrap();
    let permit = soon("a permit", limiter.acquire(request())).await.unwrap();
    permit.not_sent();
    soon("another", limiter.acquire(request())).await.unwrap();
    let status = limiter.store_status().unwrap();
    assert!(
        status.errors.is_empty() && status.nodes[0].server.is_some(),
        "{status:?}"
    );
    assert!(limiter.leave(Duration::from_secs(10)).await);
    // And so it is with what tenants may use: one is told to give back, the other that there is something for it.
    let replicas = [0, 1].map(|_| {
        let options = StoreOptions::redis(&url).unwrap().trust_empty(true);
        Limiter::with_store(
            tenant(vec![limit(Dimension::Concurrency, 1)], Vec::new()),
            options,
        )
        .unwrap()
    });
    for round in 0..4 {
        let permit = soon("a permit", replicas[round % 2].acquire(of_a()))
            .await
            .unwrap();
        permit.not_sent();
    }
    for replica in &replicas {
        let status = replica.store_status().unwrap();
        assert!(status.errors.is_empty(), "{status:?}");
    }
}

#[tokio::test]
async fn a_user_without_rights_is_named() {
    let rule = "--user weak on >secret ~* &* +@connection +info +subscribe +script";
    let rule: Vec<&str> = rule.split_whitespace().collect();
    let server = RedisServer::start_with(&rule);
    let url = format!("redis://weak:secret@127.0.0.1:{}", server.port());
    let limiter = Limiter::with_store(plan(1, MINUTE), StoreOptions::redis(&url).unwrap()).unwrap();
    let waiter = limiter.acquire(request());
    tokio::select! {
        _ = waiter => panic!("nobody is let in"),
        () = until("it is refused", || state(&limiter) == StoreState::Denied) => {}
    }
}

#[tokio::test]
async fn a_full_store_is_named_and_takes_over_when_it_has_room() {
    let server = RedisServer::start();
    let limiter = replica(&server, plan(2, MINUTE));
    soon("a permit", limiter.acquire(request())).await.unwrap();
    ask(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    let waiter = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.acquire(request()).await }
    });
    until("it is full", || state(&limiter) == StoreState::OutOfMemory).await;
    ask(&server, &["CONFIG", "SET", "maxmemory", "0"]);
    soon("a permit", waiter).await.unwrap().unwrap();
    assert_eq!(
        state(&limiter),
        StoreState::Connected,
        "{:?}",
        limiter.store_status()
    );
}

#[tokio::test]
async fn a_store_that_evicts_is_named() {
    let server = RedisServer::start_with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let limiter = replica(&server, plan(1, MINUTE));
    soon("a permit", limiter.acquire(request())).await.unwrap();
    assert_eq!(state(&limiter), StoreState::Evicting);
}

#[tokio::test]
async fn a_replica_of_a_store_is_named() {
    let first = RedisServer::start();
    let port = first.port().to_string();
    let second = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port, "--save", ""]);
    let limiter = replica(&second, plan(1, MINUTE));
    until("it takes no writes", || state(&limiter) == StoreState::ReadOnly).await;
    ask(&second, &["REPLICAOF", "NO", "ONE"]);
    soon("a permit", limiter.acquire(request())).await.unwrap();
}

#[tokio::test]
async fn scripts_that_were_thrown_away_are_loaded_again() {
    let server = RedisServer::start();
    let limiter = replica(&server, plan(4, MINUTE));
    soon("a permit", limiter.acquire(request())).await.unwrap();
    ask(&server, &["SCRIPT", "FLUSH"]);
    soon("a permit", limiter.acquire(request())).await.unwrap();
    assert!(limiter.store_status().unwrap().errors.is_empty());
}
