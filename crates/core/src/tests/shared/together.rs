//! What replicas do together while nothing is lost.

use super::*;

#[test]
fn one_round_trip_lets_somebody_in() {
    let mut rig = Rig::new(1, &shared(vec![limit(Dimension::Requests, 60)]));
    rig.arrive(0, 0.0, ASK);
    rig.run(0.01);
    assert_eq!(rig.uses.len(), 1);
    assert_eq!(rig.uses[0].at - START.as_micros(), 2 * WAY);
    assert_eq!(rig.nodes[0].calls, 1);
    assert_eq!(rig.nodes[0].standings, [Standing::Open]);
}

#[test]
fn replicas_use_one_quota_and_all_of_it() {
    for nodes in [1, 3, 8] {
        let mut rig = Rig::new(nodes, &shared(vec![limit(Dimension::Requests, 600)]));
        for number in 0..4_000 {
            rig.arrive(number % nodes, 0.0, ASK);
        }
        rig.run(360.0);
        let most = rig.most(|_| 1);
        assert!(most <= 600, "{most} in a minute with {nodes} replicas");
        let used = rig.uses.len();
        assert!(
            used >= 3_528,
            "{used} of 3600 in six minutes with {nodes} replicas"
        );
        let beats = nodes * 360 * 10 / 3;
        let bound = used + beats + 400;
        let calls = rig.server_calls as usize;
        assert!(
            calls <= bound,
            "{calls} calls for {used} grants and {beats} beats of {nodes} replicas"
        );
    }
}

#[test]
fn both_limits_bind_everybody_together() {
    let mut rig = Rig::new(
        3,
        &shared(vec![
            limit(Dimension::Requests, 600),
            limit(Dimension::Tokens, 50_000),
        ]),
    );
    for number in 0..3_000 {
        rig.arrive(
            number % 3,
            0.0,
            Ask {
                tokens: 20 + (number as u64 * 37) % 300,
                ..ASK
            },
        );
    }
    rig.run(240.0);
    assert!(rig.most(|_| 1) <= 600);
    let most = rig.most(|used| used.tokens);
    assert!(most <= 50_000, "{most}");
    let used: u64 = rig.between(60.0, 240.0).iter().map(|used| used.tokens).sum();
    assert!(used >= 147_000, "{used} of 150,000");
}

#[test]
fn tenants_have_their_shares_wherever_they_ask() {
    let tenants = [("one", 1), ("two", 2), ("three", 3)];
    let mut plan = shared(vec![limit(Dimension::Requests, 600)]);
    for (name, weight) in tenants {
        plan.tenants.push(TenantPlan {
            weight: core::num::NonZeroU32::new(weight).expect("positive"),
            ..TenantPlan::new(name)
        });
    }
    let mut rig = Rig::new(3, &plan);
    for number in 0..4_000 {
        // The first asks at one replica alone, the second at two, the third at all.
        rig.arrive(0, 0.0, Ask { tenant: "one", ..ASK });
        rig.arrive(number % 2, 0.0, Ask { tenant: "two", ..ASK });
        rig.arrive(
            number % 3,
            0.0,
            Ask {
                tenant: "three",
                ..ASK
            },
        );
    }
    rig.run(600.0);
    // In the first moment replicas do not know of one another what they wait for, and make up for it in the next windows.
    let uses = rig.between(0.0, 604.0);
    for (name, weight) in tenants {
        let share = uses.iter().filter(|used| used.tenant == name).count() as f64 / uses.len() as f64;
        let fair = f64::from(weight) / 6.0;
        assert!(
            (share - fair).abs() <= 0.03 * fair,
            "{name} has {share} of {fair}"
        );
    }
}

#[test]
fn the_urgent_go_first_wherever_they_ask() {
    let mut rig = Rig::new(2, &shared(vec![limit(Dimension::Requests, 60)]));
    for _ in 0..400 {
        rig.arrive(
            0,
            0.0,
            Ask {
                priority: Priority::Low,
                ..ASK
            },
        );
    }
    for number in 0..30 {
        rig.arrive(
            1,
            70.0 + f64::from(number) / 100.0,
            Ask {
                priority: Priority::High,
                ..ASK
            },
        );
    }
    rig.run(200.0);
    let urgent = rig.uses.iter().filter(|used| used.priority == Priority::High);
    let last = urgent.map(|used| used.at).max().expect("they were sent");
    // Of the minute's sixty that expire together, the low tier keeps its guaranteed share.
    let seconds = (last - START.as_micros()) as f64 / 1e6;
    assert!(seconds < 130.0, "the last of the urgent went after {seconds} s");
}

#[test]
fn what_one_gives_back_another_has_at_once() {
    let mut rig = Rig::new(
        2,
        &shared(vec![Limit::rolling(
            Dimension::Concurrency,
            Duration::ZERO,
            amount(2),
        )]),
    );
    rig.arrive(
        0,
        0.0,
        Ask {
            runs: 5_000_000,
            ..ASK
        },
    );
    rig.arrive(
        0,
        0.0,
        Ask {
            runs: 9_000_000,
            ..ASK
        },
    );
    rig.arrive(1, 1.0, ASK);
    rig.run(20.0);
    assert_eq!(rig.uses.len(), 3);
    let waited = rig.uses[2].at - START.as_micros() - 5_000_000;
    assert!(waited <= 5_000, "it waited {waited} µs after a place was free");
}

#[test]
fn what_one_does_not_need_another_has_at_once() {
    let mut plan = shared(vec![limit(Dimension::Tokens, 1_000)]);
    plan.quotas[0].charge = crate::ChargeModel::SETTLED;
    let mut rig = Rig::new(3, &plan);
    let large = Ask {
        tokens: 900,
        spares: 800,
        runs: 5_000_000,
        ..ASK
    };
    rig.arrive(0, 2.0, large);
    // All of them use the group, and go on to.
    for second in 0..20 {
        for node in 0..3 {
            rig.arrive(
                node,
                f64::from(second) + 0.1 * node as f64,
                Ask { tokens: 1, ..ASK },
            );
        }
    }
    let waits = Ask { tokens: 800, ..ASK };
    rig.arrive(1, 4.0, waits);
    rig.run(20.0);
    let used = rig.uses.iter().find(|used| used.tokens == 800);
    let at = used.expect("it was sent").at - START.as_micros();
    // Six ways: to tell, to be told, to look, to be shown, to say so, and to be told again. And a call a millisecond later.
    assert!((7_000_000..=7_005_000).contains(&at), "it went after {at} µs");
}

#[test]
fn a_killed_replicas_places_come_back_with_its_lease() {
    let mut rig = Rig::new(
        2,
        &shared(vec![Limit::rolling(
            Dimension::Concurrency,
            Duration::ZERO,
            amount(2),
        )]),
    );
    rig.arrive(
        0,
        0.0,
        Ask {
            runs: 500_000_000,
            ..ASK
        },
    );
    rig.arrive(
        0,
        0.0,
        Ask {
            runs: 500_000_000,
            ..ASK
        },
    );
    rig.befall(2.0, Deed::Kill(0));
    rig.arrive(1, 3.0, ASK);
    rig.run(60.0);
    assert_eq!(rig.uses.len(), 3);
    let came = (rig.uses[2].at - START.as_micros()) as f64 / 1e6;
    assert!((31.0..34.0).contains(&came), "at {came} s");
}

#[test]
fn whoever_is_idle_leaves_and_comes_back() {
    let mut rig = Rig::new(2, &shared(vec![limit(Dimension::Requests, 10)]));
    rig.arrive(0, 0.0, ASK);
    rig.run(200.0);
    assert_eq!(
        rig.snapshot(0).store.map(|store| store.standing),
        Some(Standing::Idle)
    );
    let calls = rig.server_calls;
    rig.run(300.0);
    assert_eq!(rig.server_calls, calls, "nobody calls who uses nothing");
    rig.arrive(0, 301.0, ASK);
    rig.arrive(1, 301.0, ASK);
    rig.run(302.0);
    assert_eq!(rig.uses.len(), 3);
}

#[test]
fn who_waits_elsewhere_is_reckoned_with() {
    let mut rig = Rig::new(3, &shared(vec![limit(Dimension::Requests, 600)]));
    for number in 0..2_400 {
        rig.arrive(number % 3, f64::from(number as u32) * 0.05, ASK);
    }
    // In two minutes 2,400 have come and about 1,200 were sent: whoever comes last waits for two minutes.
    rig.run(119.0);
    let now = at(rig.now);
    let request = Request::new(
        QuotaKey::named(QUOTA),
        Demand::input_only(Tokens::new(10)),
        now + Duration::from_secs(3_600),
    );
    let Decision::Wait(ticket) = rig.nodes[0].engine.submit(now, request) else {
        panic!("there is no room");
    };
    let wait = ticket.eta.since(now).as_secs_f64();
    assert!((90.0..150.0).contains(&wait), "{wait} s");
}

#[test]
fn whoever_is_new_waits_for_a_few_round_trips() {
    // Others call all the time, or only as often as they must.
    for pause in [0.05, 20.0] {
        let mut rig = Rig::new(4, &shared(vec![limit(Dimension::Requests, 600)]));
        for number in 0..(30.0 / pause) as usize {
            rig.arrive(number % 3, number as f64 * pause, ASK);
        }
        for node in 0..3 {
            rig.arrive(node, 0.0, ASK);
        }
        let patient = Ask { tokens: 11, ..ASK };
        rig.arrive(3, 10.01, patient);
        rig.run(12.0);
        let new = rig
            .uses
            .iter()
            .find(|one| one.tokens == 11)
            .expect("it was let in");
        let waited = new.at - START.as_micros() - 10_010_000;
        assert!(waited <= 60_000, "{waited} µs, others every {pause} s");
    }
}

#[test]
fn who_will_be_too_late_is_told_so_at_once() {
    let mut rig = Rig::new(2, &shared(vec![limit(Dimension::Requests, 100)]));
    rig.arrive(1, 0.0, ASK);
    for _ in 0..99 {
        rig.arrive(0, 1.0, ASK);
    }
    let impatient = Ask {
        patience: Duration::from_secs(20),
        ..ASK
    };
    rig.arrive(1, 2.05, impatient);
    rig.run(2.06);
    assert_eq!(rig.uses.len(), 100);
    let (_, refusal) = rig.refused.first().expect("there is no room in time");
    assert_eq!(refusal.reason, crate::RefusalReason::Deadline);
    let wait = refusal
        .retry_after
        .expect("it is known when there is")
        .as_secs_f64();
    assert!((55.0..65.0).contains(&wait), "{wait} s");
}

#[test]
fn a_store_that_is_far_away_is_used_nevertheless() {
    let mut rig = Rig::new(3, &shared(vec![limit(Dimension::Requests, 600)]));
    rig.way = 60_000;
    for number in 0..2_400 {
        rig.arrive(number % 3, f64::from(number as u32) * 0.08, ASK);
    }
    rig.run(180.0);
    let most = rig.most(|_| 1);
    assert!(most <= 600, "{most} in a minute");
    let used = rig.between(60.0, 180.0).len();
    assert!(used >= 1_140, "{used} of 1200 in two minutes");
}

#[test]
fn who_has_to_go_soonest_goes_first_wherever_they_wait() {
    for (order, expected) in [(crate::Order::Deadline, 1), (crate::Order::Arrival, 0)] {
        let mut plan = shared(vec![limit(Dimension::Requests, 60)]);
        plan.tenants.push(TenantPlan {
            order,
            ..TenantPlan::new("a")
        });
        let mut rig = Rig::new(2, &plan);
        let patient = Ask { tenant: "a", ..ASK };
        for second in 0..60 {
            rig.arrive(0, f64::from(second), patient);
        }
        for _ in 0..100 {
            rig.arrive(0, 59.5, patient);
        }
        let hurried = Ask {
            patience: Duration::from_secs(5),
            ..patient
        };
        rig.arrive(1, 70.0, hurried);
        rig.run(80.0);
        let soon = rig.between(70.0, 75.0);
        assert_eq!(soon.iter().filter(|used| used.node == 1).count(), expected);
    }
}
