//! Tiers, weights, and what a flow has had.

use core::num::NonZeroU32;

use super::*;
use crate::{Order, WaitReason};

/// Requests that take more than a sixteenth of a window each, so that nothing but the order decides.
const LARGE: u64 = 15;

fn weighing(name: &str, weight: u32) -> TenantPlan {
    TenantPlan {
        weight: NonZeroU32::new(weight).expect("weights are positive"),
        ..TenantPlan::new(name)
    }
}

/// Keeps sixty of each in line for some windows; returns how many of each were admitted after the first one, in which
/// whoever comes first finds nobody else.
fn compete(desk: &mut Desk, asks: &[Ask], windows: u64) -> Vec<usize> {
    let mut whose = BTreeMap::new();
    let mut waiting = vec![0_usize; asks.len()];
    let mut admitted = vec![0; asks.len()];
    let mut next = desk.admitted.len();
    for second in 0..(windows + 1) * 61 {
        for (at, ask) in asks.iter().enumerate() {
            // More than a window gives back in one lump.
            while waiting[at] < 120 {
                whose.insert(desk.asked, at);
                waiting[at] += 1;
                desk.ask(*ask);
            }
        }
        desk.sleep(secs(1));
        for (number, _) in &desk.admitted[next..] {
            if let Some(at) = whose.get(number) {
                admitted[*at] += usize::from(second >= 61);
                waiting[*at] -= 1;
            }
        }
        next = desk.admitted.len();
    }
    assert!(desk.refused.is_empty(), "{:?}", desk.refused.first());
    admitted
}

/// Hours of patience.
fn patient(plan: Plan) -> Plan {
    let mut plan = plan;
    plan.queue.wait_max = secs(100_000);
    plan
}

const PATIENT: Ask = Ask {
    patience: secs(100_000),
    ..ASK
};

#[test]
fn a_higher_tier_goes_first_whoever_came_before() {
    let mut desk = Desk::quick(Plan {
        tiers: NO_SHARES,
        ..plan(vec![per_minute(4)])
    });
    desk.ask_all([ASK; 4]);
    let tiers = [Priority::Batch, Priority::Low, Priority::Normal, Priority::High];
    for priority in tiers.iter().chain(&tiers) {
        desk.wait(Ask {
            priority: *priority,
            ..ASK
        });
    }
    desk.sleep(secs(130));
    assert_eq!(desk.order()[4..], [7, 11, 6, 10, 5, 9, 4, 8]);
    let second = desk
        .when(10)
        .expect("the second of the normal ones is in the first window");
    assert!(second < secs(62), "{second:?}");
    assert!(desk.when(5).is_some_and(|at| at > secs(121)));
}

#[test]
fn a_lower_tier_has_its_share_while_a_higher_one_never_stops() {
    for (low, percent) in [(Priority::Normal, 5), (Priority::Low, 5), (Priority::Batch, 0)] {
        let mut desk = Desk::quick(patient(plan(vec![per_minute(100)])));
        let high = Ask {
            priority: Priority::High,
            ..PATIENT
        };
        let low = Ask {
            priority: low,
            ..PATIENT
        };
        let admitted = compete(&mut desk, &[high, low], 20);
        let all: usize = admitted.iter().sum();
        assert!(all >= 1_900, "nothing of the quota is lost: {admitted:?}");
        // As much as the first window holds may go before anything was earned.
        let (least, most) = (
            all * percent / 100 - all * percent / 400,
            all * percent / 100 + 20,
        );
        assert!(
            admitted[1] >= least && admitted[1] <= most,
            "{low:?}: {admitted:?}, not {least}..={most}"
        );
    }
}

#[test]
fn twice_the_weight_is_twice_the_quota() {
    for (first, second) in [(1, 1), (2, 1), (3, 1), (1, 7), (1_000, 500)] {
        let mut desk = Desk::quick(Plan {
            tenants: vec![weighing("a", first), weighing("b", second)],
            ..patient(plan(vec![per_minute(LARGE)]))
        });
        let asks = ["a", "b"].map(|tenant| Ask { tenant, ..PATIENT });
        let admitted = compete(&mut desk, &asks, 20);
        let all: usize = admitted.iter().sum();
        let fair = all as u64 * u64::from(first) / u64::from(first + second);
        assert!(
            fair.abs_diff(admitted[0] as u64) <= 3,
            "{first}:{second} became {admitted:?}"
        );
    }
}

/// The largest part of any limit is what counts: who needs many tokens and who needs many requests get equally far.
#[test]
fn service_is_the_dominant_part() {
    let limits = vec![per_minute(15), tokens(15_000)];
    let mut desk = Desk::quick(patient(plan(limits)));
    let large = Ask {
        tenant: "large",
        input: 2_000,
        ..PATIENT
    };
    let small = Ask {
        tenant: "small",
        input: 1,
        ..PATIENT
    };
    let admitted = compete(&mut desk, &[large, small], 20);
    let (large, small) = (admitted[0] * 2_000, admitted[1] * 1_000);
    assert!(large.abs_diff(small) * 10 <= large, "{admitted:?}");
}

#[test]
fn who_was_away_has_saved_nothing_up() {
    let mut desk = Desk::quick(patient(plan(vec![per_minute(LARGE)])));
    let [a, b] = ["a", "b"].map(|tenant| Ask { tenant, ..PATIENT });
    desk.go(b);
    compete(&mut desk, &[a], 10);
    // Sixty of `a` wait when `b` comes with as many.
    let (first, next) = (desk.asked, desk.admitted.len());
    desk.ask_all([b; 60]);
    desk.sleep(secs(4 * 61));
    let now = &desk.admitted[next..];
    let of_b = now.iter().filter(|(number, _)| *number >= first).count();
    let of_a = now.len() - of_b;
    assert!(of_a + of_b >= 58, "{now:?}");
    assert!(of_a.abs_diff(of_b) <= 2, "{of_a} and {of_b} since it came back");
}

/// Whoever names a small maximum and uses more pays for it afterwards.
#[test]
fn settlement_corrects_what_a_flow_has_had() {
    let mut desk = Desk::new(patient(plan_of(vec![tokens(10_000)], ChargeModel::SETTLED)));
    let names = ["honest", "liar"];
    let says = [990, 90];
    let mut whose = Vec::new();
    let mut waiting = [0_u32; 2];
    let mut had = [0_u32; 2];
    let mut seen = 0;
    for _ in 0..40 * 61 {
        for at in [0, 1] {
            // More than a window gives back in one lump.
            while waiting[at] < 120 {
                whose.push(at);
                waiting[at] += 1;
                desk.ask(Ask {
                    tenant: names[at],
                    input: 10,
                    output: Some(says[at]),
                    ..PATIENT
                });
            }
        }
        desk.sleep(secs(1));
        for (number, _) in desk.admitted.split_off(seen.min(desk.admitted.len())) {
            waiting[whose[number]] -= 1;
            had[whose[number]] += 1;
            desk.admitted.push((number, Duration::ZERO));
            desk.end(number, used(10, 990));
        }
        seen = desk.admitted.len();
    }
    let [honest, liar] = had;
    assert!(honest + liar > 300, "{had:?}");
    // One burst of what it said is all it gains: a window of tenths.
    assert!(liar <= honest + 100, "{had:?}");
    assert!(honest <= liar + 100, "{had:?}");
}

#[test]
fn within_a_tenant_first_come_is_first_served() {
    for (order, expected) in [
        (Order::Arrival, [1, 2, 3, 4, 5]),
        // The first was next before the others came, and keeps its place.
        (Order::Deadline, [1, 4, 2, 5, 3]),
    ] {
        let tenants = vec![TenantPlan {
            order,
            ..TenantPlan::new("a")
        }];
        let mut desk = Desk::quick(Plan {
            tenants,
            ..plan(vec![per_minute(1)])
        });
        desk.go(of("a", 1));
        for patience in [450, 420, 500, 400, 430] {
            desk.wait(Ask {
                patience: secs(patience),
                ..of("a", 1)
            });
        }
        desk.sleep(secs(400));
        assert_eq!(desk.order()[1..], expected, "{order:?}");
    }
}

#[test]
fn a_burst_beyond_the_share_is_spread_where_others_are_expected_and_nowhere_else() {
    let mut desk = Desk::quick(Plan {
        tenants: vec![TenantPlan::new("a"), TenantPlan::new("b")],
        ..plan(vec![per_minute(100)])
    });
    for _ in 0..5 {
        desk.go(of("b", 1));
        desk.sleep(secs(1));
    }
    let decisions = desk.ask_all([of("a", 1); 60]);
    let at_once = decisions
        .iter()
        .filter(|decision| matches!(decision, Decision::Admit(_)));
    let at_once = at_once.count();
    assert!((47..=51).contains(&at_once), "{at_once} of a share of 50");
    let reason = decisions.iter().find_map(|decision| match decision {
        Decision::Wait(ticket) => Some(ticket.reason),
        _ => None,
    });
    assert_eq!(reason, Some(WaitReason::Share));
    for _ in 0..40 {
        desk.go(of("b", 1));
    }

    let mut alone = Desk::quick(plan(vec![per_minute(100)]));
    for _ in 0..100 {
        alone.go(of("a", 1));
    }
}

/// A quota of a day is not spread, so a backlog of minutes waits for minutes.
#[test]
fn a_quota_of_a_day_does_not_stretch_what_is_said_of_a_backlog() {
    let day = Limit::rolling(Dimension::Requests, secs(86_400), amount(2_000));
    let mut desk = Desk::quick(Plan {
        tenants: vec![TenantPlan::new("a"), TenantPlan::new("b")],
        ..plan(vec![per_minute(100), day])
    });
    for _ in 0..5 {
        desk.go(of("b", 1));
        desk.sleep(secs(1));
    }
    let asked = desk.world.now;
    for decision in desk.ask_all([of("a", 1); 300]) {
        match decision {
            Decision::Admit(_) => {}
            Decision::Wait(ticket) => {
                assert!(ticket.eta.since(asked) <= secs(300), "{ticket:?}");
            }
            Decision::Refuse(refusal) => panic!("there is time for all: {refusal:?}"),
        }
    }
    desk.sleep(secs(300));
    assert_eq!((desk.admitted.len(), desk.refused.len()), (305, 0));
}

#[test]
fn the_batch_tier_leaves_room_at_every_moment_and_takes_all_the_rest() {
    let mut desk = Desk::quick(patient(plan(vec![per_minute(120)])));
    let batch = Ask {
        tenant: "b",
        priority: Priority::Batch,
        ..PATIENT
    };
    desk.go(of("a", 1));
    desk.ask_all([batch; 1_500]);
    let mut at_once = 0;
    let mut asked = 0;
    for second in 0..610 {
        if second % 5 == 0 {
            asked += 1;
            let decision = desk.ask(of("a", 1));
            at_once += usize::from(matches!(decision, Decision::Admit(_)));
        }
        desk.sleep(secs(1));
    }
    assert!(
        at_once * 100 >= asked * 97,
        "{at_once} of {asked} found room at once"
    );
    let all = desk.admitted.len();
    assert!(all >= 1_000, "{all} of 1,200 were used");
}

/// Neither those who are listed and never came, nor one who asked once a while ago.
#[test]
fn who_is_not_there_holds_nobody_up() {
    let mut desk = Desk::quick(Plan {
        tenants: ["a", "b", "c", "d"].map(TenantPlan::new).into(),
        ..plan(vec![per_minute(20)])
    });
    for _ in 0..20 {
        desk.go(of("a", 1));
    }
    desk.sleep(secs(122));
    desk.go(of("b", 1));
    desk.sleep(secs(62));
    for _ in 0..20 {
        desk.go(of("a", 1));
    }
    // Whoever has just asked for the first time is not known to come again.
    desk.sleep(secs(122));
    desk.go(of("c", 1));
    desk.sleep(secs(10));
    for _ in 0..19 {
        desk.go(of("a", 1));
    }
}

/// Shares are kept for tenants that are only expected, but not so that a newcomer finds nothing in an empty group.
#[test]
fn a_newcomer_next_to_tenants_that_are_only_expected_goes_at_once() {
    let mut desk = Desk::quick(Plan {
        tenants: vec![TenantPlan::new("a"), TenantPlan::new("b"), TenantPlan::new("c")],
        ..plan(vec![per_minute(10_000)])
    });
    desk.go(of("a", 1));
    desk.go(of("unlisted", 1));
    desk.go(of("another", 1));
}
