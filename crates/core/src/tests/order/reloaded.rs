//! Another plan while people wait and run.

use core::num::NonZeroU32;

use super::*;
use crate::{Budget, BudgetUnit, Period, RefusalReason};

fn weighing(name: &str, weight: u32) -> TenantPlan {
    TenantPlan {
        weight: NonZeroU32::new(weight).expect("weights are positive"),
        ..TenantPlan::new(name)
    }
}

fn limited(tenants: Vec<TenantPlan>) -> Plan {
    Plan {
        tenants,
        ..two_groups()
    }
}

#[test]
fn weights_change_for_those_who_wait() {
    let with = |weight| Plan {
        tenants: vec![weighing("a", weight), weighing("b", 1)],
        ..plan(vec![per_minute(12)])
    };
    let mut desk = Desk::quick(with(1));
    desk.ask_all([of("x", 1); 12]);
    for _ in 0..30 {
        desk.stays(of("a", 1));
        desk.stays(of("b", 1));
    }
    desk.reconfigure(with(3));
    desk.sleep(secs(62));
    let of_a = desk.order()[12..]
        .iter()
        .filter(|number| **number % 2 == 0)
        .count();
    assert!((8..=10).contains(&of_a), "{of_a} of 12 at three to one");
}

#[test]
fn a_weight_may_change_by_as_much_as_it_likes() {
    let with = |weight| Plan {
        tenants: vec![weighing("a", weight)],
        ..plan(vec![per_minute(1)])
    };
    let mut desk = Desk::quick(with(1));
    desk.go(of("a", 1));
    desk.stays(of("a", 1));
    desk.stays(of("a", 1));
    for weight in [10_000, 1, 1_000_000] {
        desk.reconfigure(with(weight));
    }
    desk.sleep(secs(62));
    assert_eq!(desk.order(), [0, 1]);
}

#[test]
fn a_budget_keeps_its_use_and_may_have_another_amount() {
    let with = |amount| {
        let budgets = vec![Budget {
            unit: BudgetUnit::Tokens,
            period: Period::Day,
            amount,
        }];
        limited(vec![TenantPlan {
            budgets,
            ..TenantPlan::new("a")
        }])
    };
    let mut desk = Desk::new(with(100));
    desk.go(of("a", 60));
    desk.end(0, used(60, 0));
    desk.go(of("a", 40));
    desk.reconfigure(with(90));
    let own = desk.world.engine.snapshot(desk.world.now).allowances;
    assert_eq!((own[0].budgets[0].used, own[0].budgets[0].held), (60, 40));
    desk.end(1, Outcome::NotSent);
    assert_eq!(desk.refuse(of("a", 31)).reason, RefusalReason::BudgetSpent);
    desk.reconfigure(with(1_000));
    desk.go(of("a", 940));
    desk.stays(of("a", 1));
}

#[test]
fn limits_keep_what_was_used_and_a_lower_one_holds_from_then_on() {
    let with = |value| limited(vec![tenant("a", vec![per_minute(value)])]);
    let mut desk = Desk::quick(with(10));
    for _ in 0..5 {
        desk.go(of("a", 1));
    }
    desk.reconfigure(with(5));
    desk.stays(of("a", 1));
    desk.reconfigure(with(6));
    assert_eq!(
        desk.when(5),
        Some(Duration::ZERO),
        "it goes as soon as there is room"
    );
}

#[test]
fn a_higher_limit_lets_everybody_go_who_fits_now() {
    let with = |value| limited(vec![tenant("a", vec![per_minute(value)])]);
    let mut desk = Desk::quick(with(1));
    desk.go(of("a", 1));
    for _ in 0..3 {
        desk.stays(of("a", 1));
    }
    desk.sleep(secs(5));
    desk.reconfigure(with(100));
    assert_eq!(desk.order(), [0, 1, 2, 3]);
    // And where the limit is no more.
    let mut desk = Desk::quick(with(1));
    desk.go(of("a", 1));
    for _ in 0..3 {
        desk.stays(of("a", 1));
    }
    desk.reconfigure(limited(vec![TenantPlan::new("a")]));
    assert_eq!(desk.order(), [0, 1, 2, 3]);
}

#[test]
fn a_new_limit_on_concurrency_counts_those_who_run() {
    let rate = per_minute(1_000);
    for before in [vec![rate], vec![]] {
        let mut desk = Desk::new(limited(vec![tenant("a", before)]));
        for _ in 0..2 {
            desk.go(of("a", 1));
        }
        desk.reconfigure(limited(vec![tenant("a", vec![rate, concurrent(2)])]));
        desk.stays(of("a", 1));
        desk.end(0, used(1, 0));
        assert_eq!(desk.when(2), Some(Duration::ZERO));
        desk.stays(of("a", 1));
        assert_eq!(desk.running.len(), 2);
    }
}

#[test]
fn a_new_budget_is_not_given_back_what_was_never_taken_of_it() {
    let budgets = |amount| {
        vec![Budget {
            unit: BudgetUnit::Tokens,
            period: Period::Day,
            amount,
        }]
    };
    let mut desk = Desk::new(limited(vec![tenant("a", vec![per_minute(1_000)])]));
    desk.go(of("a", 50));
    desk.reconfigure(limited(vec![TenantPlan {
        budgets: budgets(100),
        ..tenant("a", vec![per_minute(1_000)])
    }]));
    desk.ask(of("a", 50));
    desk.end(0, Outcome::NotSent);
    assert!(desk.when(1).is_some(), "a hundred are enough for both of them");
    let own = desk.world.engine.snapshot(desk.world.now).allowances;
    assert_eq!(own[0].budgets[0].held, 50, "of the one that runs");
}

/// The other plan has no such tenant any more, and the third has it again.
#[test]
fn a_tenant_that_vanishes_is_one_like_any_other_and_its_requests_stay() {
    let with = limited(vec![tenant("a", vec![per_minute(1)])]);
    let mut desk = Desk::quick(with.clone());
    desk.go(of("a", 1));
    desk.stays(of("a", 1));
    desk.reconfigure(two_groups());
    assert_eq!(desk.when(1), Some(Duration::ZERO), "nothing limits it any more");
    for _ in 0..10 {
        desk.go(of("a", 1));
    }
    desk.reconfigure(with);
    desk.go(Ask {
        tenant: "b",
        ..of("a", 1)
    });
}

#[test]
fn a_tenant_that_appears_is_limited_from_then_on() {
    let mut desk = Desk::quick(two_groups());
    desk.go(of("a", 1));
    desk.reconfigure(limited(vec![tenant("a", vec![per_minute(1)])]));
    desk.go(of("a", 1));
    desk.stays(of("a", 1));
    desk.go(of("b", 1));
}

#[test]
fn tiers_get_other_shares() {
    let mut desk = Desk::quick(Plan {
        tiers: NO_SHARES,
        ..plan(vec![per_minute(10)])
    });
    for _ in 0..45 {
        desk.ask(Ask {
            priority: Priority::High,
            ..ASK
        });
    }
    let low = desk.stays(Ask {
        priority: Priority::Low,
        ..ASK
    });
    let mut tiers = NO_SHARES;
    tiers[Priority::Low.index()].share_percent = 50;
    desk.reconfigure(Plan {
        tiers,
        ..plan(vec![per_minute(10)])
    });
    desk.sleep(secs(62));
    assert!(
        desk.when(low).is_some(),
        "half of the second window is more than it needs"
    );
}

#[test]
fn the_group_that_vanishes_gives_its_runs_and_allowances_back() {
    let runs = crate::RunPlan {
        calls: Some(5),
        ..crate::RunPlan::default()
    };
    let step = RunStep {
        run: crate::RunId::of(1),
        parent: None,
        fingerprint: None,
    };
    let with = Plan {
        runs,
        tenants: vec![tenant("a", vec![concurrent(1)])],
        ..two_groups()
    };
    let mut desk = Desk::new(with.clone());
    let ask = Ask {
        run: Some(step),
        ..of("a", 1)
    };
    desk.go(ask);
    desk.stays(ask);
    let mut without = with;
    without.quotas.remove(0);
    desk.reconfigure(without);
    assert_eq!(
        desk.refusal(1).map(|refusal| refusal.reason),
        Some(RefusalReason::UnknownQuota)
    );
    let permit = desk.running.remove(&0).expect("it runs");
    let decision = desk
        .world
        .engine
        .retry(desk.world.now, permit, crate::Failure::Late);
    assert!(matches!(decision, Decision::Refuse(_)), "{decision:?}");
    let run = desk
        .world
        .engine
        .run(desk.world.now, step.run)
        .expect("it was heard of");
    assert_eq!((run.calls, run.tokens), (0, 0));
    desk.go(Ask {
        quota: OTHER,
        ..of("a", 1)
    });
}
