//! Budgets over days and months of the calendar.

use super::*;
use crate::{Allotment, Budget, BudgetUnit, Cost, Period, RefusalReason, Spent, WaitReason};

/// A token of input costs one millionth of a dollar, a token of output ten.
const PRICE: Price = Price {
    input: 1_000_000,
    cached_input: 100_000,
    output: 10_000_000,
};

/// The engine starts on 1970-01-12: the next midnight and the first of February, in seconds.
const MIDNIGHT: u64 = 12 * 86_400;
const FEBRUARY: u64 = 31 * 86_400;

fn budgeted(budgets: Vec<Budget>) -> Plan {
    let tenants = vec![TenantPlan {
        budgets,
        ..TenantPlan::new("a")
    }];
    Plan {
        tenants,
        ..two_groups()
    }
}

const fn budget(unit: BudgetUnit, period: Period, amount: u64) -> Budget {
    Budget { unit, period, amount }
}

const fn ask(input: u64, output: u64) -> Ask {
    Ask {
        output: Some(output),
        price: PRICE,
        ..of("a", input)
    }
}

#[test]
fn what_is_spent_is_refused_until_it_is_renewed_to_the_moment() {
    for (period, renewed) in [(Period::Day, MIDNIGHT), (Period::Month, FEBRUARY)] {
        for (unit, most) in [(BudgetUnit::Tokens, 100), (BudgetUnit::Cost, 460)] {
            let mut desk = Desk::new(budgeted(vec![budget(unit, period, most)]));
            desk.go(ask(60, 40));
            desk.end(0, used(60, 40));
            let refusal = desk.refuse(Ask {
                quota: OTHER,
                ..ask(1, 0)
            });
            assert_eq!(refusal.reason, RefusalReason::BudgetSpent);
            let what = Allotment::Budget(unit, period);
            assert_eq!(
                refusal.spent,
                Some(Spent {
                    what,
                    used: most,
                    most,
                    above: 0
                })
            );
            let until = Timestamp::from_secs(renewed).since(START);
            assert_eq!(refusal.retry_after, Some(until), "{unit:?} {period:?}");
            // It holds up nobody else.
            desk.go(Ask {
                tenant: "b",
                ..ask(1, 0)
            });
            desk.sleep(until - Duration::from_micros(1));
            desk.refuse(ask(1, 0));
            desk.sleep(Duration::from_micros(1));
            desk.go(ask(60, 40));
        }
    }
}

#[test]
fn a_budget_takes_a_request_that_just_fits_and_none_that_is_one_larger() {
    for (unit, most) in [(BudgetUnit::Tokens, 100), (BudgetUnit::Cost, 460)] {
        let mut desk = Desk::new(budgeted(vec![budget(unit, Period::Day, most)]));
        let refusal = desk.refuse(ask(60, 41));
        assert_eq!(refusal.reason, RefusalReason::BudgetSpent);
        desk.go(ask(60, 40));
    }
}

#[test]
fn what_requests_under_way_hold_is_waited_for() {
    let table = [
        // What ends as the first one does, and what becomes of the second.
        (used(10, 10), true),
        (used(10, 50), false),
        (Outcome::NotSent, true),
        (Outcome::QuotaSpent { until: None }, true),
        (
            Outcome::Unknown {
                output_seen: Tokens::new(30),
            },
            true,
        ),
        (
            Outcome::Unknown {
                output_seen: Tokens::new(31),
            },
            false,
        ),
    ];
    for (outcome, goes) in table {
        let mut desk = Desk::new(budgeted(vec![budget(BudgetUnit::Tokens, Period::Day, 100)]));
        desk.go(ask(10, 50));
        let ticket = desk.wait(Ask {
            quota: OTHER,
            ..ask(10, 50)
        });
        assert_eq!(ticket.reason, WaitReason::Budget);
        desk.sleep(secs(3));
        assert_eq!(desk.order(), [0], "it is held still");
        desk.end(0, outcome);
        assert_eq!(desk.when(1).is_some(), goes, "{outcome:?}");
        if !goes {
            let refusal = desk.refusal(1).expect("what is left is too little for good");
            assert_eq!(refusal.reason, RefusalReason::BudgetSpent);
            assert!(refusal.spent.is_some(), "{refusal:?}");
            assert!(refusal.retry_after.is_some(), "{refusal:?}");
        }
    }
}

#[test]
fn money_counts_every_kind_of_token_at_its_price() {
    let mut desk = Desk::new(budgeted(vec![budget(BudgetUnit::Cost, Period::Month, 10_000)]));
    desk.go(ask(1_000, 100));
    let usage = Usage {
        input: Some(Tokens::new(200)),
        cached_input: Tokens::new(800),
        output: Some(Tokens::new(7)),
    };
    desk.end(0, Outcome::Completed(usage));
    let own = desk.world.engine.snapshot(desk.world.now).allowances;
    assert_eq!(
        (own[0].budgets[0].used, own[0].budgets[0].held),
        (200 + 80 + 70, 0)
    );
    desk.go(ask(1_000, 100));
    let own = desk.world.engine.snapshot(desk.world.now).allowances;
    assert_eq!(
        Cost::from_micros(own[0].budgets[0].held),
        Cost::from_micros(2_000)
    );
}

#[test]
fn a_failed_attempt_uses_nothing_of_a_budget() {
    let mut desk = Desk::new(budgeted(vec![budget(BudgetUnit::Tokens, Period::Day, 100)]));
    desk.go(ask(10, 90));
    let permit = desk.running.remove(&0).expect("it runs");
    let failure = crate::Failure::Transient { sent: true };
    let decision = desk.world.engine.retry(desk.world.now, permit, failure);
    let Decision::Wait(ticket) = decision else {
        panic!("there is time for another: {decision:?}")
    };
    desk.waiting.insert(ticket.id, 0);
    desk.sleep(secs(2));
    assert_eq!(desk.order(), [0, 0]);
    desk.end(0, used(10, 90));
    desk.refuse(ask(1, 0));
}

/// What is under way at midnight is used in the day in which it ends.
#[test]
fn what_is_held_over_midnight_is_used_in_the_new_day() {
    let mut desk = Desk::new(budgeted(vec![budget(BudgetUnit::Tokens, Period::Day, 100)]));
    desk.go(ask(10, 50));
    desk.sleep(Timestamp::from_secs(MIDNIGHT).since(START));
    desk.stays(ask(10, 50));
    desk.end(0, used(10, 50));
    assert_eq!(
        desk.refusal(1).map(|refusal| refusal.reason),
        Some(RefusalReason::BudgetSpent)
    );
}

/// Waiting for the one does not help while the other is spent.
#[test]
fn a_spent_budget_refuses_whatever_else_is_only_held() {
    let budgets = vec![
        budget(BudgetUnit::Tokens, Period::Day, 100),
        budget(BudgetUnit::Cost, Period::Month, 600),
    ];
    let mut desk = Desk::new(budgeted(budgets));
    desk.go(ask(10, 40));
    desk.end(0, used(10, 40));
    // 50 tokens are left, and 190 millionths of a dollar.
    desk.go(ask(30, 5));
    let refusal = desk.refuse(ask(1, 20));
    assert_eq!(refusal.reason, RefusalReason::BudgetSpent);
}

/// An answer that reports no usage counts in money for as many tokens as it counts in tokens.
#[test]
fn an_answer_without_usage_costs_what_its_tokens_count_for() {
    let budgets = vec![
        budget(BudgetUnit::Tokens, Period::Day, 1_000),
        budget(BudgetUnit::Cost, Period::Day, 10_000),
    ];
    let mut desk = Desk::new(budgeted(budgets));
    desk.go(ask(10, 90));
    desk.end(0, Outcome::Completed(Usage::default()));
    let own = desk.world.engine.snapshot(desk.world.now).allowances;
    let used = [0, 1].map(|at| own[0].budgets[at].used);
    assert_eq!(used, [100, 910]);
}
