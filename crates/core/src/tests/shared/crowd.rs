//! Tenants who all ask for more than their shares, most of each at one replica.

use super::*;

/// Name, weight, and how many times its share each asks for: 1.2 times the quota in all.
const TENANTS: [(&str, u32, f64); 3] = [("steady", 3, 1.1), ("usual", 2, 1.2), ("greedy", 1, 1.5)];

/// Replicas at a limit that so many requests fill, of so many tokens each, for some seconds.
fn crowd(nodes: usize, limit: Limit, (fill, tokens): (f64, u64), seconds: f64) -> Rig {
    let window = limit.window.as_secs_f64();
    let mut plan = shared(vec![limit]);
    for (name, weight, _) in TENANTS {
        plan.tenants.push(TenantPlan {
            weight: core::num::NonZeroU32::new(weight).expect("positive"),
            ..TenantPlan::new(name)
        });
    }
    let mut rig = Rig::new(nodes, &plan);
    for (own, (tenant, weight, demand)) in TENANTS.into_iter().enumerate() {
        let pause = window * 6.0 / (f64::from(weight) * demand * fill);
        let ask = Ask {
            tenant,
            tokens,
            ..ASK
        };
        for number in 0..(seconds / pause) as usize {
            // Half of them at a replica of its own, the others at all.
            let node = if number % 2 == 0 { own } else { number / 2 } % nodes;
            rig.arrive(node, number as f64 * pause, ask);
        }
    }
    rig
}

#[test]
fn tenants_have_their_shares_although_most_of_each_asks_at_one_replica() {
    for nodes in [1, 3, 8] {
        // Of a limit of seconds, as it is used: one after the other.
        let limit = Limit::rolling(Dimension::Requests, Duration::from_secs(10), amount(117));
        let mut rig = crowd(nodes, limit, (117.0, 10), 300.0);
        rig.run(300.0);
        let uses = rig.between(60.0, 300.0);
        assert!(uses.len() >= 2_600, "{} of {nodes} replicas", uses.len());
        for (name, weight, _) in TENANTS {
            let share = uses.iter().filter(|used| used.tenant == name).count() as f64 / uses.len() as f64;
            let fair = f64::from(weight) / 6.0;
            assert!(
                (share - fair).abs() <= 0.01 * fair,
                "{name} has {share} of {fair} with {nodes} replicas"
            );
        }
    }
}

#[test]
fn turns_are_told_although_most_of_a_tenant_waits_at_one_replica() {
    for (nodes, most) in [(1, 10), (3, 40), (8, 40)] {
        let mut rig = crowd(nodes, limit(Dimension::Tokens, 300_000), (500.0, 600), 420.0);
        rig.run(720.0);
        // By how much of the wait, or of ten seconds, what was told was wrong.
        let of_interest = START.as_micros() + 120_000_000..START.as_micros() + 240_000_000;
        let mut errors: Vec<u64> = rig
            .turns
            .values()
            .filter(|turn| of_interest.contains(&turn.came))
            .map(|turn| {
                let went = turn.went.expect("everybody is let in");
                turn.expected.abs_diff(went) * 100 / (went - turn.came).max(10_000_000)
            })
            .collect();
        errors.sort_unstable();
        let at = |percent: usize| errors[errors.len() * percent / 100];
        let (usual, high) = (at(50), at(90));
        assert!(
            usual <= 8 && high <= most,
            "{usual} and {high} % with {nodes} replicas"
        );
    }
}

#[test]
fn who_waits_where_most_of_a_tenant_do_waits_no_longer() {
    for nodes in [3, 8] {
        let limit = Limit::rolling(Dimension::Tokens, Duration::from_secs(20), amount(1_600_000));
        let mut rig = crowd(nodes, limit, (1_600_000.0 / 2_100.0, 2_100), 120.0);
        rig.run(200.0);
        for (own, (tenant, ..)) in TENANTS.into_iter().enumerate() {
            let median = |is_own: bool| {
                let mut waits: Vec<u64> = rig
                    .turns
                    .values()
                    .filter(|turn| turn.who.1 == tenant && (turn.who.0 == own) == is_own)
                    .filter(|turn| turn.came >= START.as_micros() + 60_000_000)
                    .map(|turn| turn.went.expect("everybody is let in") - turn.came)
                    .collect();
                waits.sort_unstable();
                waits[waits.len() / 2] / 1_000
            };
            let (own, others) = (median(true), median(false));
            assert!(
                own * 10 <= others * 13 && others * 10 <= own * 13,
                "{tenant}: {own} ms where most wait, {others} elsewhere, with {nodes} replicas"
            );
        }
    }
}
