//! Several limiters have a tenant's limits and budgets as one.

use std::time::Duration;

use tidegate::core::{
    Amount, Budget, BudgetUnit, Caller, Dimension, Discipline, Limit, LimitSource, Owner, Period, TenantId,
    TenantPlan,
};
use tidegate::{Limiter, Plan, RefusalReason, Request};

use super::{RedisServer, plan, replica, request, soon, until};

const HOUR: Duration = Duration::from_secs(3_600);

/// A plan in which a tenant has limits of its own, and its group has room for all.
pub(super) fn tenant(limits: Vec<Limit>, budgets: Vec<Budget>) -> Plan {
    let tenant = TenantPlan {
        limits,
        budgets,
        ..TenantPlan::new("a")
    };
    Plan {
        tenants: vec![tenant],
        ..plan(100_000, HOUR)
    }
}

pub(super) fn limit(dimension: Dimension, amount: u64) -> Limit {
    Limit {
        dimension,
        window: HOUR,
        amount: amount.try_into().unwrap(),
        discipline: Discipline::Rolling,
        source: LimitSource::Config,
    }
}

pub(super) fn of_a() -> Request {
    Request {
        caller: Caller {
            tenant: TenantId::of("a"),
            ..Caller::default()
        },
        ..request()
    }
}

/// The same, refused if it has to wait longer than so.
fn impatient(limiter: &Limiter, patience: Duration) -> Request {
    Request {
        deadline: limiter.now() + patience,
        ..of_a()
    }
}

/// Returns how much of its first limit a limiter has.
fn part(limiter: &Limiter) -> u64 {
    let snapshot = limiter.snapshot();
    let own = snapshot.allowances.iter();
    let mut own = own.filter(|own| own.owner == Owner::Tenant(TenantId::of("a")));
    own.find_map(|own| own.escrow.as_ref()?.limits.first().copied())
        .map_or(0, Amount::value)
}

#[tokio::test]
async fn three_have_a_tenants_limit_together_and_all_of_it() {
    let server = RedisServer::start();
    let plan = || tenant(vec![limit(Dimension::Requests, 20)], Vec::new());
    let replicas = [plan(), plan(), plan()].map(|plan| replica(&server, plan));
    for round in 0..20 {
        soon("a permit", replicas[round % 3].acquire(of_a()))
            .await
            .unwrap();
    }
    for replica in &replicas {
        let patience = Duration::from_millis(700);
        let refusal = soon("an answer", replica.acquire(impatient(replica, patience))).await;
        let refusal = refusal.expect_err("the limit is used up");
        assert_eq!(refusal.reason, RefusalReason::Deadline, "{refusal:?}");
        let status = replica.store_status().unwrap();
        assert!(status.errors.is_empty(), "{status:?}");
    }
    let parts: u64 = replicas.iter().map(part).sum();
    assert_eq!(parts, 20);
}

#[tokio::test]
async fn a_place_goes_from_one_to_the_other() {
    let server = RedisServer::start();
    let plan = || tenant(vec![limit(Dimension::Concurrency, 1)], Vec::new());
    let (a, b) = (replica(&server, plan()), replica(&server, plan()));
    for _ in 0..5 {
        let permit = soon("a permit", a.acquire(of_a())).await.unwrap();
        let waiter = tokio::spawn({
            let b = b.clone();
            async move { b.acquire(of_a()).await }
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
}

#[tokio::test]
async fn a_budget_is_spent_for_all() {
    let server = RedisServer::start();
    let budget = Budget {
        unit: BudgetUnit::Tokens,
        period: Period::Month,
        amount: 200,
    };
    let plan = || tenant(Vec::new(), vec![budget]);
    let (a, b) = (replica(&server, plan()), replica(&server, plan()));
    for round in 0..10 {
        let replica = [&a, &b][round % 2];
        let permit = soon("a permit", replica.acquire(of_a())).await.unwrap();
        permit.settle(tidegate::Usage {
            input: Some(tidegate::Tokens::new(10)),
            output: Some(tidegate::Tokens::new(10)),
            ..tidegate::Usage::default()
        });
    }
    for replica in [&a, &b] {
        let refusal = soon("an answer", replica.acquire(of_a())).await;
        let refusal = refusal.expect_err("it is spent");
        assert_eq!(refusal.reason, RefusalReason::BudgetSpent, "{refusal:?}");
    }
}

#[tokio::test]
async fn who_leaves_gives_back_what_it_has_not_used() {
    let server = RedisServer::start();
    let plan = || tenant(vec![limit(Dimension::Requests, 10)], Vec::new());
    let (a, b) = (replica(&server, plan()), replica(&server, plan()));
    for _ in 0..4 {
        soon("a permit", a.acquire(of_a())).await.unwrap();
    }
    assert!(a.leave(Duration::from_secs(10)).await);
    for _ in 0..6 {
        soon("a permit", b.acquire(of_a())).await.unwrap();
    }
    let patience = Duration::from_millis(700);
    let refusal = soon("an answer", b.acquire(impatient(&b, patience))).await;
    assert_eq!(refusal.unwrap_err().reason, RefusalReason::Deadline);
}

/// Whoever has something says so when the store is there again, and a newcomer gets no more than what is left.
#[tokio::test]
async fn an_emptied_store_is_told_what_is_used() {
    let mut server = RedisServer::start();
    let plan = || tenant(vec![limit(Dimension::Requests, 10)], Vec::new());
    let a = replica(&server, plan());
    for _ in 0..8 {
        soon("a permit", a.acquire(of_a())).await.unwrap();
    }
    server.restart_empty();
    let books = || {
        let count: i64 = redis::cmd("EXISTS")
            .arg(format!("tidegate:{{escrow}}:t{:x}", TenantId::of("a").value()))
            .query(&mut server.connect())
            .unwrap();
        count
    };
    until("it is told", || books() == 1).await;
    let b = replica(&server, plan());
    let mut sent = 0;
    for _ in 0..4 {
        let patience = Duration::from_millis(700);
        sent += u32::from(
            soon("an answer", b.acquire(impatient(&b, patience)))
                .await
                .is_ok(),
        );
    }
    assert!(sent <= 2, "{sent}");
}
