//! Limits of tenants and routes, over all groups.

use super::*;
use crate::{Limit, RoutePlan, WaitReason};

const DAY: Duration = secs(86_400);

/// Days of patience.
fn patient(mut plan: Plan) -> Plan {
    plan.queue.wait_max = secs(1_000_000);
    plan
}

/// Each limit is used up by the first request, in one group; the second waits for it in the other.
#[test]
fn a_limit_of_a_tenant_holds_over_all_groups_and_holds_up_nobody_else() {
    let day = Limit::rolling(Dimension::Requests, DAY, amount(1));
    let table = [
        (per_minute(1), secs(60)),
        (tokens(100), secs(60)),
        (limit(Dimension::InputTokens, 100), secs(60)),
        (day, DAY),
    ];
    for (limit, window) in table {
        let mut desk = Desk::quick(Plan {
            tenants: vec![tenant("a", vec![limit])],
            ..patient(two_groups())
        });
        let patience = secs(500_000);
        desk.go(Ask {
            patience,
            ..of("a", 100)
        });
        let ticket = desk.wait(Ask {
            patience,
            quota: OTHER,
            ..of("a", 100)
        });
        assert!(
            matches!(ticket.reason, WaitReason::Tenant(of) if of == limit.name()),
            "{ticket:?}"
        );
        assert!(ticket.is_own);
        for quota in [QUOTA, OTHER, OTHER] {
            desk.go(Ask {
                quota,
                ..of("b", 100)
            });
        }
        desk.sleep(window * 2);
        let at = desk.when(1).expect("its window has passed");
        // There is nobody whose clock differs, so there is no margin: only a bucket's width.
        assert!(at >= window && at <= window + window / 500, "{limit:?}: {at:?}");
        assert_eq!(ticket.eta.since(START), at, "the announced time is the true one");
    }
}

#[test]
fn what_a_tenant_runs_in_one_group_keeps_it_waiting_in_another_and_its_end_wakes_it() {
    for (outcome, what) in [
        (used(1, 1), "an answer"),
        (Outcome::NotSent, "nothing"),
        (
            Outcome::Unknown {
                output_seen: Tokens::ZERO,
            },
            "a broken stream",
        ),
    ] {
        let mut desk = Desk::new(Plan {
            tenants: vec![tenant("a", vec![concurrent(1)])],
            ..two_groups()
        });
        desk.go(of("a", 1));
        let ticket = desk.wait(Ask {
            quota: OTHER,
            ..of("a", 1)
        });
        assert!(matches!(ticket.reason, WaitReason::Tenant(_)), "{ticket:?}");
        desk.sleep(Duration::from_millis(7_300));
        desk.end(0, outcome);
        assert_eq!(
            desk.when(1),
            Some(Duration::from_millis(7_300)),
            "{what} frees its place"
        );
    }
}

#[test]
fn a_failed_attempt_gives_its_place_to_whoever_waits_in_another_group() {
    let mut desk = Desk::new(Plan {
        tenants: vec![tenant("a", vec![concurrent(1)])],
        ..two_groups()
    });
    desk.go(of("a", 1));
    desk.wait(Ask {
        quota: OTHER,
        ..of("a", 1)
    });
    let permit = desk.running.remove(&0).expect("it runs");
    let now = desk.world.now;
    let failure = crate::Failure::Transient { sent: false };
    assert!(matches!(
        desk.world.engine.retry(now, permit, failure),
        Decision::Wait(_)
    ));
    desk.drain();
    assert_eq!(desk.when(1), Some(Duration::ZERO));
}

#[test]
fn a_limit_of_a_route_holds_up_that_route_and_no_other_not_even_of_the_same_tenant() {
    let routes = vec![RoutePlan {
        name: "slow".into(),
        limits: vec![per_minute(1)],
    }];
    let mut desk = Desk::quick(Plan {
        routes,
        ..two_groups()
    });
    let slow = |tenant| Ask {
        route: "slow",
        ..of(tenant, 1)
    };
    desk.go(slow("a"));
    let ticket = desk.wait(Ask {
        quota: OTHER,
        ..slow("a")
    });
    assert!(matches!(ticket.reason, WaitReason::Route(_)), "{ticket:?}");
    desk.stays(slow("b"));
    desk.passes(of("a", 1));
    desk.passes(Ask {
        route: "fast",
        ..of("b", 1)
    });
    desk.sleep(secs(61));
    let served = desk.order().len();
    assert_eq!(served, 4, "one more of the slow ones: {:?}", desk.order());
}

/// All of them fit as soon as one ends: nobody waits for a time that does not matter any more.
#[test]
fn everybody_who_fits_goes_when_a_route_has_room_again() {
    let routes = vec![RoutePlan {
        name: "r".into(),
        limits: vec![tokens(1_000)],
    }];
    let mut desk = Desk::new(Plan {
        routes,
        ..two_groups()
    });
    desk.go(Ask {
        route: "r",
        ..of("a", 1_000)
    });
    for tenant in ["b", "c", "d", "e", "f", "g", "h", "i", "j", "k"] {
        desk.stays(Ask {
            route: "r",
            ..of(tenant, 10)
        });
    }
    desk.sleep(secs(5));
    desk.end(0, Outcome::NotSent);
    assert_eq!(desk.order().len(), 11, "{:?}", desk.admitted);
}

#[test]
fn each_tenant_that_is_not_listed_has_limits_of_its_own() {
    let mut desk = Desk::quick(Plan {
        tenants: vec![tenant(TenantPlan::EACH_OTHER, vec![per_minute(1)])],
        ..two_groups()
    });
    for name in ["x", "y", ""] {
        desk.go(of(name, 1));
        let ticket = desk.wait(Ask {
            quota: OTHER,
            ..of(name, 1)
        });
        assert!(matches!(ticket.reason, WaitReason::Tenant(_)), "{ticket:?}");
    }
    let mut desk = Desk::quick(Plan {
        tenants: vec![
            tenant(TenantPlan::EACH_OTHER, vec![per_minute(1)]),
            TenantPlan::new("listed"),
        ],
        ..two_groups()
    });
    for _ in 0..5 {
        desk.go(of("listed", 1));
    }
}

#[test]
fn settlement_is_to_what_was_really_used() {
    let mut desk = Desk::new(Plan {
        tenants: vec![tenant("a", vec![tokens(1_000)])],
        ..two_groups()
    });
    let ask = Ask {
        output: Some(890),
        ..of("a", 10)
    };
    desk.go(ask);
    desk.stays(ask);
    desk.sleep(secs(1));
    desk.end(0, used(10, 40));
    assert_eq!(desk.when(1), Some(secs(1)), "50 of 1,000 are in use");
    desk.end(1, used(10, 90));
    desk.go(Ask {
        output: Some(840),
        ..of("a", 10)
    });
    // More than it said: what is too much is waited for.
    desk.end(2, used(10, 1_500));
    let next = desk.stays(of("a", 1));
    desk.sleep(secs(70));
    assert!(
        desk.when(next).is_some_and(|at| at > secs(60)),
        "{:?}",
        desk.admitted
    );
}

#[test]
fn a_request_larger_than_a_limit_of_its_tenant_is_refused_for_good() {
    let mut desk = Desk::quick(Plan {
        tenants: vec![tenant("a", vec![tokens(100)])],
        ..two_groups()
    });
    desk.go(of("a", 100));
    let refusal = desk.refuse(of("a", 101));
    assert_eq!(refusal.reason, crate::RefusalReason::NeverFits);
    assert_eq!(
        (refusal.retry_after, refusal.limit),
        (None, Some(tokens(100).name()))
    );
}

#[test]
fn who_waits_for_a_limit_of_the_tenant_beyond_the_deadline_is_told_the_time() {
    let mut desk = Desk::quick(Plan {
        tenants: vec![tenant("a", vec![per_minute(1)])],
        ..two_groups()
    });
    desk.go(of("a", 1));
    let refusal = desk.refuse(Ask {
        patience: secs(10),
        ..of("a", 1)
    });
    assert_eq!(refusal.reason, crate::RefusalReason::Deadline);
    assert_eq!(refusal.limit, Some(per_minute(1).name()));
    desk.sleep(refusal.retry_after.expect("time helps"));
    desk.go(Ask {
        patience: secs(10),
        ..of("a", 1)
    });
}

/// All or none: a request that its route or tenant holds up takes nothing of the others.
#[test]
fn a_request_takes_from_group_tenant_and_route_at_once_or_from_none() {
    let routes = vec![RoutePlan {
        name: "r".into(),
        limits: vec![concurrent(1)],
    }];
    let mut desk = Desk::new(Plan {
        routes,
        tenants: vec![tenant("a", vec![per_minute(5)]), tenant("b", vec![per_minute(5)])],
        ..two_groups()
    });
    desk.go(Ask {
        route: "r",
        ..of("b", 1)
    });
    desk.stays(Ask {
        route: "r",
        ..of("a", 1)
    });
    let snapshot = desk.world.engine.snapshot(desk.world.now);
    assert_eq!(snapshot.quotas[0].limits[0].used.value(), 1);
    let used: Vec<u64> = snapshot
        .allowances
        .iter()
        .map(|own| own.limits[0].used.value())
        .collect();
    assert_eq!(used, [1, 1, 0], "of b, of the route, of a");
}

/// Many who came once and never again are no reason to treat those who come later alike.
#[test]
fn who_uses_nothing_makes_room_for_a_new_tenant() {
    let mut plan = Plan {
        tenants: vec![tenant(TenantPlan::EACH_OTHER, vec![per_minute(1)])],
        ..two_groups()
    };
    plan.quotas[0].limits = vec![limit(Dimension::Requests, 1_000_000)];
    plan.quotas[1].limits = vec![Limit::rolling(Dimension::Requests, secs(600), amount(2))];
    let mut desk = Desk::quick(patient(plan));
    let elsewhere = |tenant| Ask {
        quota: OTHER,
        patience: secs(5_000),
        ..of(tenant, 1)
    };
    desk.go(elsewhere("x"));
    desk.go(elsewhere("y"));
    let queued = [desk.stays(elsewhere("queued")), desk.stays(elsewhere("queued"))];
    for number in 0..9_997 {
        desk.go(of(alloc::format!("visitor {number}").leak(), 1));
    }
    // Who waits in line has used nothing yet; beyond that place there is one that all the others share.
    desk.go(of("in the place of who waits", 1));
    desk.go(of("one too many", 1));
    desk.stays(of("another", 1));
    desk.sleep(secs(70));
    for number in 0..100 {
        let name = alloc::format!("late {number}").leak();
        desk.go(of(name, 1));
        desk.stays(of(name, 1));
    }
    desk.sleep(secs(700));
    let [first, second] = queued.map(|number| desk.when(number).expect("there is room for both"));
    assert!(first >= secs(600) && first < secs(605), "{first:?}");
    assert!(
        second >= first + secs(60),
        "a limit holds for {second:?} whoever had its place"
    );
}

/// When something ends is not known, but how long such things take is.
#[test]
fn who_waits_for_a_place_is_told_how_long_that_usually_takes() {
    let group = |limits, tenants| Plan {
        quotas: vec![QuotaPlan::new(QUOTA, limits, ChargeModel::OPENAI)],
        tenants,
        ..Plan::default()
    };
    let of_the_provider = group(vec![concurrent(2)], Vec::new());
    let own = group(vec![per_minute(1_000)], vec![tenant("a", vec![concurrent(2)])]);
    for plan in [of_the_provider, own] {
        let mut desk = Desk::new(plan);
        desk.go(of("a", 1));
        desk.sleep(secs(10));
        desk.end(0, used(1, 0));
        desk.go(of("a", 1));
        desk.go(of("a", 1));
        let mut told = [5, 10, 15].map(|seconds| (seconds, desk.wait(of("a", 1))));
        told.iter_mut().for_each(|(seconds, ticket)| {
            assert_eq!(ticket.eta.since(desk.world.now), secs(*seconds), "{ticket:?}");
            assert!(ticket.is_own);
        });
        // It would take twenty seconds, which is not certain: eleven are given a try, nine are not.
        let refusal = desk.refuse(Ask {
            patience: secs(9),
            ..of("a", 1)
        });
        assert_eq!(refusal.reason, crate::RefusalReason::Deadline);
        assert!(
            refusal.retry_after.is_some_and(|after| after >= secs(20)),
            "{refusal:?}"
        );
        desk.wait(Ask {
            patience: secs(11),
            ..of("a", 1)
        });
    }
}

#[test]
fn who_is_alone_waits_for_nobody_else() {
    let mut desk = Desk::quick(Plan {
        quotas: vec![QuotaPlan::new(QUOTA, vec![per_minute(2)], ChargeModel::OPENAI)],
        ..Plan::default()
    });
    desk.go(of("a", 1));
    desk.go(of("a", 1));
    for place in 1..4 {
        let ticket = desk.wait(of("a", 1));
        assert!(ticket.is_own && ticket.place == place, "{ticket:?}");
    }
}
