//! How much may wait, and who has to leave when it is more.

use super::*;
use crate::RefusalReason;

/// One request a minute, of which the first goes; `requests` and `bytes` may wait.
fn bounded(requests: usize, bytes: u64) -> Desk {
    let mut plan = plan(vec![per_minute(1)]);
    plan.queue.requests_max = requests;
    plan.queue.bytes_max = bytes;
    plan.queue.wait_max = secs(100_000);
    let mut desk = Desk::quick(plan);
    desk.go(of("x", 1));
    desk
}

const fn held(tenant: &'static str, bytes: u64) -> Ask {
    Ask {
        tenant,
        bytes,
        patience: secs(100_000),
        ..ASK
    }
}

fn reasons(desk: &Desk) -> Vec<(usize, RefusalReason)> {
    desk.refused
        .iter()
        .map(|(number, refusal)| (*number, refusal.reason))
        .collect()
}

#[test]
fn at_the_bound_in_count_the_newest_of_the_largest_backlog_leaves() {
    let mut desk = bounded(4, 1 << 30);
    for tenant in ["a", "a", "b", "a"] {
        desk.stays(held(tenant, 100));
    }
    // `a` has three and asks for a fourth: nobody else leaves for it.
    assert_eq!(desk.refuse(held("a", 100)).reason, RefusalReason::QueueFull);
    // `c` has none: the newest of `a` leaves.
    desk.stays(held("c", 100));
    assert_eq!(
        reasons(&desk),
        [(5, RefusalReason::QueueFull), (4, RefusalReason::QueueFull)]
    );
    // `a` has two, `b` and `c` one each: with one more `b` has as many as `a`.
    assert_eq!(desk.refuse(held("b", 100)).reason, RefusalReason::QueueFull);
    desk.stays(held("d", 100));
    assert_eq!(reasons(&desk)[3..], [(2, RefusalReason::QueueFull)]);
    for (number, refusal) in &desk.refused {
        assert!(
            refusal.retry_after.is_some(),
            "{number} is told when to come back"
        );
    }
    assert_eq!(desk.waiting.len(), 4);
}

#[test]
fn at_the_bound_in_bytes_the_newest_of_who_holds_the_most_leaves() {
    let mut desk = bounded(100, 1_000);
    for (tenant, bytes) in [("a", 300), ("b", 100), ("a", 300), ("b", 300)] {
        desk.stays(held(tenant, bytes));
    }
    assert_eq!(desk.refuse(held("a", 1)).reason, RefusalReason::QueueBytes);
    desk.stays(held("c", 200));
    assert_eq!(
        reasons(&desk),
        [(5, RefusalReason::QueueBytes), (3, RefusalReason::QueueBytes)]
    );
    // 900 are held: a hundred more is as many as may be, and one more than that is not.
    desk.stays(held("d", 100));
    assert_eq!(desk.refuse(held("e", 1_001)).reason, RefusalReason::QueueBytes);
    assert_eq!(
        desk.world.engine.snapshot(desk.world.now).waiting_bytes,
        Bytes::new(1_000)
    );
}

#[test]
fn a_tenant_has_bounds_of_its_own_in_each_group() {
    for (waiting_max, waiting_bytes_max) in [(2, u64::MAX), (usize::MAX, 200)] {
        let mut desk = Desk::quick(Plan {
            tenants: vec![TenantPlan {
                waiting_max,
                waiting_bytes_max,
                ..tenant("a", vec![per_minute(1)])
            }],
            ..two_groups()
        });
        desk.go(of("a", 1));
        desk.stays(of("a", 1));
        desk.stays(Ask {
            priority: Priority::Low,
            ..of("a", 1)
        });
        let refusal = desk.refuse(of("a", 1));
        assert_eq!(refusal.reason, RefusalReason::TenantQueueFull);
        assert!(
            refusal.retry_after.is_some_and(|wait| wait >= secs(60)),
            "{refusal:?}"
        );
        desk.stays(Ask {
            quota: OTHER,
            ..of("a", 1)
        });
        desk.go(of("b", 1));
        desk.cancel(1);
        desk.stays(of("a", 1));
    }
}

/// Nobody leaves for a request that is refused all the same.
#[test]
fn nobody_is_pushed_out_in_vain() {
    let mut desk = bounded(100, 100);
    for tenant in ["a", "a", "a", "a", "b", "b", "b", "b", "c", "c"] {
        desk.stays(held(tenant, 10));
    }
    let refusal = desk.refuse(held("d", 30));
    assert_eq!(refusal.reason, RefusalReason::QueueBytes);
    assert_eq!(reasons(&desk), [(11, RefusalReason::QueueBytes)]);
}

/// The head of one group leaves because somebody comes to another one: those behind it are served in their time.
#[test]
fn those_behind_a_head_that_is_pushed_out_are_served_in_time() {
    let limits = || vec![per_minute(1)];
    let mut desk = Desk::quick(Plan {
        quotas: vec![
            QuotaPlan::new(QUOTA, limits(), ChargeModel::OPENAI),
            QuotaPlan::new(OTHER, limits(), ChargeModel::OPENAI),
        ],
        queue: crate::QueueBounds {
            bytes_max: 1_000,
            ..crate::QueueBounds::default()
        },
        ..Plan::default()
    });
    desk.go(of("x", 1));
    desk.go(Ask {
        quota: OTHER,
        ..of("x", 1)
    });
    desk.stays(held("a", 900));
    let behind = desk.stays(Ask {
        patience: secs(500),
        ..held("b", 50)
    });
    desk.stays(Ask {
        quota: OTHER,
        ..held("c", 200)
    });
    assert_eq!(reasons(&desk), [(2, RefusalReason::QueueBytes)]);
    desk.sleep(secs(62));
    assert!(
        desk.when(behind).is_some(),
        "its window has passed; refused: {:?}",
        reasons(&desk)
    );
}

#[test]
fn closing_refuses_who_waits_in_every_way() {
    let mut desk = Desk::new(Plan {
        tenants: vec![tenant("a", vec![concurrent(1)])],
        ..plan(vec![per_minute(3)])
    });
    desk.go(of("a", 1));
    desk.stays(of("a", 1));
    desk.passes(of("b", 1));
    desk.passes(of("b", 1));
    desk.stays(of("b", 1));
    desk.world.engine.close(desk.world.now);
    desk.drain();
    assert_eq!(
        reasons(&desk),
        [1, 4].map(|number| (number, RefusalReason::Closed))
    );
    assert_eq!(desk.refuse(of("c", 1)).reason, RefusalReason::Closed);
    let permit = desk.running.remove(&0).expect("it runs");
    let failure = crate::Failure::Late;
    let decision = desk.world.engine.retry(desk.world.now, permit, failure);
    assert!(matches!(decision, Decision::Refuse(refusal) if refusal.reason == RefusalReason::Closed));
    assert_eq!(desk.world.engine.poll_timeout(), None);
    let own = desk.world.engine.snapshot(desk.world.now).allowances;
    assert_eq!(own[0].limits[0].held.value(), 0);
}
