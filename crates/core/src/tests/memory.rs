//! What an engine knows over a restart.

use proptest::prelude::*;

use super::answers::readings;
use super::scenarios::secs;
use super::*;
use crate::{
    Budget, BudgetUnit, Caller, Failure, LimitSource, Memory, Outcome, Period, Price, RateLimited, Readings,
    RoutePlan, TenantId, TenantPlan, UpstreamSignal, Usage,
};

/// Stops an engine and starts another one with what it knew, so much later.
pub(super) fn restart(world: &mut World, plan: &Plan, later: Duration) -> Memory {
    let memory = world.engine.remember(world.now);
    world.now = world.now + later;
    world.engine = Engine::new(world.now, plan.clone(), 8);
    world.engine.recall(world.now, &memory).unwrap();
    memory
}

/// Admits as many as go now, each for one token.
pub(super) fn admitted(world: &mut World) -> u64 {
    let mut count = 0;
    while count < 1_000
        && let Decision::Admit(_) = world.submit(Demand::input_only(Tokens::new(1)), Duration::ZERO)
    {
        count += 1;
    }
    count
}

pub(super) fn observe(world: &mut World, permit: &Permit, readings: Readings) {
    let signal = UpstreamSignal {
        permit: permit.id,
        readings,
        processing: None,
    };
    world.engine.observe(world.now, signal);
}

pub(super) fn complete(world: &mut World, permit: &Permit) {
    let outcome = Outcome::Completed(Usage::default());
    world.engine.settle(world.now, permit.id, outcome);
}

pub(super) fn used(world: &mut World, at: usize) -> u64 {
    let snapshot = world.engine.snapshot(world.now);
    snapshot.quotas[0].limits[at].used.value()
}

pub(super) fn window(seconds: u64, value: u64) -> Limit {
    Limit {
        window: secs(seconds),
        ..limit(Dimension::Requests, value)
    }
}

#[test]
fn charges_outlive_a_restart_and_expire_in_time() {
    let plan = plan(vec![limit(Dimension::Requests, 10)]);
    let mut world = World::new(plan.clone());
    for _ in 0..6 {
        world.admit(1);
        world.sleep(secs(1));
    }
    restart(&mut world, &plan, secs(10));
    assert_eq!(admitted(&mut world), 4, "six of ten were used, in flight or not");
    // The first of the six was stamped 16 s ago; its life is a minute and a second, rounded up to a tenth.
    world.sleep(Duration::from_millis(44_900));
    assert_eq!(admitted(&mut world), 0);
    world.sleep(Duration::from_millis(300));
    assert_eq!(admitted(&mut world), 1);
    restart(&mut world, &plan, secs(3_600));
    assert_eq!(used(&mut world, 0), 0, "all that has expired is gone");
}

#[test]
fn a_bucket_goes_on_where_it_was() {
    let plan = plan(vec![bucket(Dimension::Requests, 61)]);
    let mut world = World::new(plan.clone());
    let all = admitted(&mut world);
    assert!(all >= 59, "{all}");
    restart(&mut world, &plan, Duration::ZERO);
    assert_eq!(admitted(&mut world), 0);
    restart(&mut world, &plan, secs(10));
    let some = admitted(&mut world);
    assert!((9..=10).contains(&some), "{some} flowed in meanwhile");
}

#[test]
fn stamps_in_the_future_are_taken_to_be_now() {
    for one in [limit(Dimension::Requests, 10), bucket(Dimension::Requests, 10)] {
        let plan = plan(vec![one]);
        let mut world = World::new(plan.clone());
        let all = admitted(&mut world);
        let memory = world.engine.remember(world.now);
        world.now = START - secs(86_400);
        world.engine = Engine::new(world.now, plan, 8);
        world.engine.recall(world.now, &memory).unwrap();
        assert_eq!(admitted(&mut world), 0);
        world.sleep(secs(62));
        assert_eq!(admitted(&mut world), all, "they expire a window from now");
    }
}

#[test]
fn what_answers_told_is_remembered_with_its_source() {
    let plan = plan(vec![]);
    let mut world = World::new(plan.clone());
    let permit = world.admit(1);
    observe(&mut world, &permit, readings(Dimension::Requests, 10, 5));
    restart(&mut world, &plan, secs(1));
    let snapshot = world.engine.snapshot(world.now);
    let limit = &snapshot.quotas[0].limits[0];
    assert_eq!((limit.limit.amount, limit.source), (10, LimitSource::Header));
    assert_eq!((limit.used.value(), limit.foreign.value()), (5, 4));
    assert_eq!(limit.told, START);
}

#[test]
fn an_amount_found_by_trying_goes_on_being_tried() {
    let mut plan = plan(vec![limit(Dimension::Requests, 100)]);
    plan.quotas[0].learning = crate::Learning::Probe;
    let mut world = World::new(plan.clone());
    let permits: Vec<Permit> = (0..50).map(|_| world.admit(1)).collect();
    let last = permits[permits.len() - 1];
    for permit in &permits[..40] {
        complete(&mut world, permit);
    }
    let refused = RateLimited {
        dimension: Some(Dimension::Requests),
        ..RateLimited::default()
    };
    world
        .engine
        .retry(world.now, last.id, Failure::RateLimited(refused));
    let learned = |world: &mut World| {
        let snapshot = world.engine.snapshot(world.now);
        let limit = snapshot.quotas[0].limits[0];
        (limit.limit.amount, limit.source)
    };
    let before = learned(&mut world);
    assert_eq!(before.1, LimitSource::Learned, "{before:?}");
    let hold = world.engine.snapshot(world.now).quotas[0].hold_until;
    restart(&mut world, &plan, Duration::ZERO);
    assert_eq!(learned(&mut world), before);
    assert_eq!(world.engine.snapshot(world.now).quotas[0].hold_until, hold);
}

#[test]
fn budgets_and_allowances_are_remembered() {
    let tenant = TenantPlan {
        limits: vec![limit(Dimension::Requests, 5)],
        budgets: vec![
            Budget {
                unit: BudgetUnit::Tokens,
                period: Period::Day,
                amount: 1_000,
            },
            Budget {
                unit: BudgetUnit::Cost,
                period: Period::Month,
                amount: 1 << 40,
            },
        ],
        ..TenantPlan::new("a")
    };
    let route = RoutePlan {
        name: "r".into(),
        limits: vec![limit(Dimension::Requests, 7)],
    };
    let plan = Plan {
        tenants: vec![tenant],
        routes: vec![route],
        ..plan(vec![limit(Dimension::Requests, 100)])
    };
    let mut world = World::new(plan.clone());
    let submit = |world: &mut World| {
        let demand = Demand::input_only(Tokens::new(100));
        let request = Request {
            caller: Caller {
                tenant: TenantId::of("a"),
                route: crate::RouteId::of("r"),
                ..Caller::default()
            },
            price: Price {
                input: 1_000_000,
                ..Price::default()
            },
            ..Request::new(QuotaKey::named(QUOTA), demand, world.now)
        };
        world.engine.submit(world.now, request)
    };
    let used = |world: &mut World| {
        let snapshot = world.engine.snapshot(world.now);
        let mut used: Vec<_> = snapshot
            .allowances
            .iter()
            .map(|allowance| {
                let limits = allowance.limits.iter().map(|limit| limit.used.value());
                let budgets = allowance.budgets.iter().map(|budget| budget.used);
                (allowance.owner, limits.chain(budgets).collect::<Vec<_>>())
            })
            .collect();
        used.sort();
        used
    };
    for _ in 0..3 {
        let Decision::Admit(permit) = submit(&mut world) else {
            panic!("there is room")
        };
        complete(&mut world, &permit);
    }
    // One is in flight: what it may use is used.
    assert!(matches!(submit(&mut world), Decision::Admit(_)));
    restart(&mut world, &plan, secs(5));
    let after = used(&mut world);
    assert_eq!(after.len(), 2);
    assert_eq!(after[0].1[..2], [4, 400], "{after:?}");
    assert!(after[0].1[2] > 0, "{after:?}");
    assert_eq!(after[1].1, [4]);
    assert!(matches!(submit(&mut world), Decision::Admit(_)));
    assert!(!matches!(submit(&mut world), Decision::Admit(_)), "five a minute");
    restart(&mut world, &plan, secs(86_400));
    let after = used(&mut world);
    assert!(after.iter().all(|(_, used)| used[0] == 0), "{after:?}");
}

#[test]
fn another_version_is_not_recalled() {
    let plan = plan(vec![limit(Dimension::Requests, 10)]);
    let mut world = World::new(plan);
    admitted(&mut world);
    let memory = Memory {
        version: 2,
        ..world.engine.remember(world.now)
    };
    let error = world.engine.recall(world.now, &memory).unwrap_err();
    assert_eq!(error.version, 2);
}

#[test]
fn a_plan_that_changed_meanwhile_holds() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 10)]));
    admitted(&mut world);
    restart(&mut world, &plan(vec![window(30, 12)]), secs(1));
    assert_eq!(admitted(&mut world), 2);
    restart(
        &mut world,
        &Plan {
            quotas: vec![],
            ..Plan::default()
        },
        secs(1),
    );
    assert!(world.engine.snapshot(world.now).quotas.is_empty());
}

#[test]
fn output_under_way_counts_as_generated() {
    let plan = plan_of(
        vec![
            limit(Dimension::Requests, 50),
            limit(Dimension::OutputTokens, 1_000),
        ],
        ChargeModel::ANTHROPIC,
    );
    let mut world = World::new(plan.clone());
    let demand = Demand::generating(Tokens::new(10), Some(Tokens::new(300)));
    let Decision::Admit(permit) = world.submit(demand, Duration::ZERO) else {
        panic!("there is room")
    };
    world.engine.progress(world.now, permit.id, Tokens::new(100));
    let memory = restart(&mut world, &plan, secs(1));
    let output = memory.groups[0]
        .limits
        .iter()
        .find(|limit| limit.dimension == Dimension::OutputTokens)
        .unwrap();
    let charged: u64 = output.charges.iter().map(|charged| charged.amount.value()).sum();
    assert_eq!(charged, 300);
    let Decision::Wait(_) = world.submit(
        Demand::generating(Tokens::new(10), Some(Tokens::new(900))),
        secs(600),
    ) else {
        panic!("1,000 a minute, of which 300 may be generated")
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Under the same load an engine that was restarted has let no more through at any moment than one that was not.
    #[test]
    fn a_restart_lets_no_more_through_than_going_on(
        before in prop::collection::vec(0_u64..3_000_000, 1..100), is_bucket in any::<bool>(),
        after in prop::collection::vec(1_u64..3_000_000, 1..100),
    ) {
        let one = if is_bucket { bucket(Dimension::Requests, 20) } else { limit(Dimension::Requests, 20) };
        let plan = plan(vec![one]);
        let mut going = World::new(plan.clone());
        for pause in before {
            let _ = going.submit(Demand::REQUEST_ONLY, Duration::ZERO);
            going.sleep(Duration::from_micros(pause));
        }
        let mut again = World { engine: going.engine.clone(), now: going.now };
        restart(&mut again, &plan, Duration::ZERO);
        let mut counts = [0_u64; 2];
        for pause in after {
            for (world, count) in [&mut going, &mut again].into_iter().zip(&mut counts) {
                world.sleep(Duration::from_micros(pause));
                *count += admitted(world);
            }
            prop_assert!(counts[1] <= counts[0], "{counts:?}");
        }
    }
}
