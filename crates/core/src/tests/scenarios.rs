//! One story each.

use super::*;
use crate::{Failure, Notice, Outcome, RateLimited, RefusalReason, Usage, WaitReason};

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn a_burst_up_to_the_limit_goes_at_once_and_the_next_one_waits_for_window_and_margin() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 10)]));
    for _ in 0..10 {
        world.admit(1);
    }
    let Decision::Wait(ticket) = world.ask(1) else {
        panic!("the eleventh waits")
    };
    assert!(matches!(ticket.reason, WaitReason::Limit(limit) if limit.dimension == Dimension::Requests));
    let outputs = world.step();
    assert!(
        matches!(outputs[..], [Output::Admit { ticket: id, .. }] if id == ticket.id),
        "{outputs:?}"
    );
    let waited = world.now.since(START);
    assert!(
        waited >= secs(61) && waited <= secs(61) + Duration::from_millis(100),
        "{waited:?}"
    );
    assert_eq!(world.now, ticket.eta, "the announced time is exact");
}

#[test]
fn the_time_announced_for_every_place_in_line_is_exact() {
    let mut world = World::new(plan(vec![
        limit(Dimension::Requests, 5),
        bucket(Dimension::Tokens, 600),
    ]));
    for tokens in [100, 150, 50] {
        world.admit(tokens);
        world.sleep(secs(3));
    }
    let tickets: Vec<_> = [400, 20, 300, 10, 10]
        .into_iter()
        .filter_map(|tokens| match world.ask(tokens) {
            Decision::Wait(ticket) => Some(ticket),
            _ => None,
        })
        .collect();
    let line = world.engine.snapshot(world.now).quotas[0].first_waiting.clone();
    assert_eq!(line.len(), tickets.len());
    assert!(line.len() >= 4, "{line:?}");
    let announced: Vec<_> = line.iter().map(|waiting| waiting.eta).collect();
    let arrivals: Vec<_> = tickets.iter().map(|ticket| Some(ticket.eta)).collect();
    assert_eq!(announced, arrivals, "what each was told when it came still holds");
    let mut admitted = Vec::new();
    while admitted.len() < line.len() {
        let outputs = world.step();
        let admissions = outputs
            .iter()
            .filter(|output| matches!(output, Output::Admit { .. }));
        admitted.extend(admissions.map(|_| Some(world.now)));
    }
    assert_eq!(admitted, announced);
}

#[test]
fn all_dimensions_are_charged_or_none() {
    let mut world = World::new(plan(vec![
        limit(Dimension::Requests, 10),
        limit(Dimension::Tokens, 100),
    ]));
    world.admit(90);
    assert!(matches!(world.ask(20), Decision::Wait(_)));
    let snapshot = world.engine.snapshot(world.now);
    let used: Vec<u64> = snapshot.quotas[0]
        .limits
        .iter()
        .map(|limit| limit.used.value())
        .collect();
    assert_eq!(used, [1, 90], "the one that waits has taken nothing");
}

#[test]
fn what_can_never_fit_is_refused_at_once_and_for_good() {
    let mut world = World::new(plan(vec![limit(Dimension::Tokens, 100)]));
    let Decision::Refuse(refusal) = world.ask(101) else {
        panic!("it can never fit")
    };
    assert_eq!(
        (refusal.reason, refusal.retry_after),
        (RefusalReason::NeverFits, None)
    );
    assert_eq!(refusal.limit.map(|limit| limit.amount), Some(100));
    world.admit(100);
}

#[test]
fn who_cannot_be_served_in_time_is_told_when_to_come_back() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 1)]));
    world.admit(1);
    let Decision::Refuse(refusal) = world.submit(Demand::REQUEST_ONLY, secs(30)) else {
        panic!("too late")
    };
    assert_eq!(refusal.reason, RefusalReason::Deadline);
    let wait = refusal.retry_after.expect("time helps");
    world.sleep(wait);
    assert!(
        matches!(world.submit(Demand::REQUEST_ONLY, secs(30)), Decision::Admit(_)),
        "it came back in time"
    );
}

#[test]
fn the_queue_is_bounded_in_count_and_bytes() {
    let mut plan = plan(vec![limit(Dimension::Requests, 1)]);
    plan.queue.requests_max = 2;
    let mut world = World::new(plan.clone());
    world.admit(1);
    assert!(matches!(world.ask(1), Decision::Wait(_)));
    assert!(matches!(world.ask(1), Decision::Wait(_)));
    assert!(matches!(world.ask(1), Decision::Refuse(refusal) if refusal.reason == RefusalReason::QueueFull));

    plan.queue.bytes_max = 199;
    let mut world = World::new(plan);
    world.admit(1);
    assert!(matches!(world.ask(1), Decision::Wait(_)));
    assert!(matches!(world.ask(1), Decision::Refuse(refusal) if refusal.reason == RefusalReason::QueueBytes));
}

#[test]
fn first_come_first_served_and_a_large_one_holds_the_line_for_its_own_need_only() {
    let mut world = World::new(plan(vec![bucket(Dimension::Tokens, 400_000)]));
    // Use the bucket up, so that everything waits for the flow of 6,667 tokens a second.
    while let Decision::Admit(_) = world.ask(1_000) {}
    let Decision::Wait(large) = world.ask(20_000) else {
        panic!("it waits")
    };
    let Decision::Wait(small) = world.ask(100) else {
        panic!("it waits behind")
    };
    let mut order = Vec::new();
    let mut admitted_at = Vec::new();
    while order.len() < 3 {
        for output in world.step() {
            if let Output::Admit { ticket, .. } = output {
                order.push(ticket);
                admitted_at.push(world.now);
            }
        }
    }
    assert_eq!(order[1..], [large.id, small.id]);
    let own_need = admitted_at[1].since(admitted_at[0]);
    assert!(
        own_need <= Duration::from_millis(3_001),
        "20,000 tokens flow in 3 s, it held the line for {own_need:?}"
    );
}

#[test]
fn a_cancelled_head_lets_the_next_one_go() {
    let mut world = World::new(plan(vec![limit(Dimension::Tokens, 100)]));
    world.admit(50);
    let Decision::Wait(large) = world.ask(100) else {
        panic!("it waits")
    };
    let Decision::Wait(small) = world.ask(50) else {
        panic!("it waits behind")
    };
    world.engine.cancel(world.now, large.id);
    let outputs = world.outputs();
    assert!(
        matches!(outputs[..], [Output::Admit { ticket, .. }] if ticket == small.id),
        "{outputs:?}"
    );
}

#[test]
fn a_deadline_that_passes_in_line_is_told_at_that_moment() {
    let mut world = World::new(plan_of(
        vec![limit(Dimension::Concurrency, 1)],
        ChargeModel::OPENAI,
    ));
    world.admit(1);
    // Nobody knows when a running request ends, so it waits.
    let Decision::Wait(ticket) = world.submit(Demand::REQUEST_ONLY, secs(5)) else {
        panic!("it waits")
    };
    let outputs = world.step();
    assert_eq!(world.now.since(START), secs(5));
    let refused = matches!(outputs[..], [Output::Refuse { ticket: id, refusal }] if id == ticket.id && refusal.reason == RefusalReason::Deadline);
    assert!(refused, "{outputs:?}");
}

#[test]
fn concurrency_is_given_back_when_a_request_ends() {
    let mut world = World::new(plan(vec![limit(Dimension::Concurrency, 2)]));
    let first = world.admit(1);
    world.admit(1);
    let Decision::Wait(ticket) = world.ask(1) else {
        panic!("it waits")
    };
    world
        .engine
        .settle(world.now, first.id, Outcome::Completed(Usage::default()));
    let outputs = world.outputs();
    assert!(
        matches!(outputs[..], [Output::Admit { ticket: id, .. }] if id == ticket.id),
        "{outputs:?}"
    );
    // A permit ends once.
    world
        .engine
        .settle(world.now, first.id, Outcome::Completed(Usage::default()));
    assert!(matches!(world.ask(1), Decision::Wait(_)));
}

#[test]
fn what_was_not_sent_is_given_back_and_what_was_is_not() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 1)]));
    let permit = world.admit(1);
    world.engine.settle(world.now, permit.id, Outcome::NotSent);
    let permit = world.admit(1);
    world.engine.settle(
        world.now,
        permit.id,
        Outcome::Unknown {
            output_seen: Tokens::ZERO,
        },
    );
    assert!(matches!(world.ask(1), Decision::Wait(_)));
}

#[test]
fn openai_keeps_its_reservation_and_settled_providers_give_the_difference_back() {
    let usage = Usage {
        input: Some(Tokens::new(100)),
        output: Some(Tokens::new(50)),
        ..Usage::default()
    };
    let check = |charge, expected| {
        let mut world = World::new(plan_of(vec![limit(Dimension::Tokens, 10_000)], charge));
        let demand = Demand::generating(Tokens::new(100), Some(Tokens::new(900)));
        let Decision::Admit(permit) = world.submit(demand, secs(1)) else {
            panic!("it fits")
        };
        world
            .engine
            .settle(world.now, permit.id, Outcome::Completed(usage));
        assert_eq!(
            world.engine.snapshot(world.now).quotas[0].limits[0].used.value(),
            expected,
            "{charge:?}"
        );
    };
    check(ChargeModel::OPENAI, 1_000);
    check(ChargeModel::SETTLED, 150);
}

#[test]
fn anthropic_settles_input_and_charges_output_as_it_is_generated() {
    let limits = vec![
        limit(Dimension::InputTokens, 10_000),
        limit(Dimension::OutputTokens, 1_000),
    ];
    let mut world = World::new(plan_of(limits, ChargeModel::ANTHROPIC));
    let demand = Demand::generating(Tokens::new(500), Some(Tokens::new(800)));
    let Decision::Admit(permit) = world.submit(demand, secs(1)) else {
        panic!("it fits")
    };
    let used = |world: &mut World| -> Vec<(u64, u64)> {
        let snapshot = world.engine.snapshot(world.now);
        snapshot.quotas[0]
            .limits
            .iter()
            .map(|limit| (limit.used.value(), limit.held.value()))
            .collect()
    };
    assert_eq!(
        used(&mut world),
        [(500, 0), (800, 800)],
        "the output is held, not charged"
    );
    world.engine.progress(world.now, permit.id, Tokens::new(300));
    assert_eq!(used(&mut world), [(500, 0), (800, 500)]);
    assert!(
        matches!(world.submit(demand, secs(10)), Decision::Wait(_)),
        "800 more might not fit"
    );
    let usage = Usage {
        input: Some(Tokens::new(100)),
        cached_input: Tokens::new(400),
        output: Some(Tokens::new(150)),
    };
    world
        .engine
        .settle(world.now, permit.id, Outcome::Completed(usage));
    let outputs = world.outputs();
    assert!(
        matches!(outputs[..], []),
        "300 were seen, so 800 more do not fit yet: {outputs:?}"
    );
    assert_eq!(
        used(&mut world),
        [(100, 0), (300, 0)],
        "cache reads are free, what was seen streaming was generated"
    );
}

#[test]
fn a_max_tokens_larger_than_the_output_limit_is_no_reason_to_refuse_for_anthropic() {
    let mut world = World::new(plan_of(
        vec![limit(Dimension::OutputTokens, 8_000)],
        ChargeModel::ANTHROPIC,
    ));
    let demand = Demand::generating(Tokens::new(10), Some(Tokens::new(64_000)));
    assert!(matches!(world.submit(demand, secs(1)), Decision::Admit(_)));
}

#[test]
fn a_refusal_for_rate_holds_the_group_and_the_request_keeps_its_place() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 100)]));
    let first = world.admit(1);
    let refused = RateLimited {
        retry_after: Some(secs(20)),
        dimension: Some(Dimension::Requests),
        ..RateLimited::default()
    };
    let Decision::Wait(again) = world
        .engine
        .retry(world.now, first.id, Failure::RateLimited(refused))
    else {
        panic!("it waits")
    };
    let outputs = world.outputs();
    assert!(
        matches!(
            outputs[..],
            [Output::Notice {
                notice: Notice::PromiseBroken { .. },
                ..
            }]
        ),
        "{outputs:?}"
    );
    let Decision::Wait(other) = world.ask(1) else {
        panic!("the whole group is held")
    };
    assert_eq!(other.reason, WaitReason::Hold);
    let outputs = world.step();
    assert_eq!(world.now.since(START), secs(20));
    let order: Vec<_> = outputs
        .iter()
        .filter_map(|output| {
            if let Output::Admit { ticket, permit } = output {
                Some((*ticket, permit.attempt))
            } else {
                None
            }
        })
        .collect();
    assert_eq!(order, [(again.id, 2), (other.id, 1)]);
}

#[test]
fn a_late_permit_is_exchanged_at_once_and_counts_as_no_attempt() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 1)]));
    let permit = world.admit(1);
    assert!(matches!(
        world.engine.retry(world.now, permit.id, Failure::Late),
        Decision::Wait(_)
    ));
    let outputs = world.outputs();
    assert!(
        matches!(outputs[..], [Output::Admit { permit, .. }] if permit.attempt == 1),
        "{outputs:?}"
    );
}

#[test]
fn faults_are_retried_with_doubling_pauses_within_the_horizon() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 100)]));
    let mut permit = world.admit(1);
    let mut pauses = Vec::new();
    loop {
        let before = world.now;
        match world
            .engine
            .retry(world.now, permit.id, Failure::Transient { sent: true })
        {
            Decision::Refuse(refusal) => {
                assert_eq!(refusal.reason, RefusalReason::RetriesSpent);
                break;
            }
            Decision::Wait(_) => {}
            Decision::Admit(_) => panic!("permits come as outputs"),
        }
        let outputs = world.step();
        let Some(Output::Admit { permit: next, .. }) = outputs.last() else {
            panic!("{outputs:?}")
        };
        permit = *next;
        pauses.push(world.now.since(before).as_millis());
    }
    assert_eq!(
        pauses.len(),
        6,
        "1 + 2 + 4 + 8 + 16 + 32 s fit into 90 s: {pauses:?}"
    );
    for (index, pause) in pauses.iter().enumerate() {
        let base = 1_000_u128 << index;
        assert!(*pause >= base * 3 / 4 && *pause <= base * 5 / 4 + 1, "{pauses:?}");
    }
}

#[test]
fn retries_have_a_budget() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 10_000)]));
    let permits: Vec<Permit> = (0..1_000).map(|_| world.admit(1)).collect();
    let waits = permits.iter().filter(|permit| {
        let failure = Failure::Overloaded { retry_after: None };
        matches!(
            world.engine.retry(world.now, permit.id, failure),
            Decision::Wait(_)
        )
    });
    assert_eq!(waits.count(), 300, "a fifth of 1,000, and 100");
}

#[test]
fn a_reload_keeps_charges_and_lines() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 2)]));
    world.admit(1);
    world.admit(1);
    let Decision::Wait(ticket) = world.ask(1) else {
        panic!("it waits")
    };
    world
        .engine
        .reconfigure(world.now, plan(vec![limit(Dimension::Requests, 3)]));
    let outputs = world.outputs();
    assert!(
        matches!(outputs[..], [Output::Admit { ticket: id, .. }] if id == ticket.id),
        "{outputs:?}"
    );
    assert!(
        matches!(world.ask(1), Decision::Wait(_)),
        "three of three are used"
    );
    world.engine.reconfigure(world.now, Plan::default());
    let outputs = world.outputs();
    let refused = matches!(outputs[..], [Output::Refuse { refusal, .. }] if refusal.reason == RefusalReason::UnknownQuota);
    assert!(refused, "{outputs:?}");
}

#[test]
fn closing_refuses_everything() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 1)]));
    world.admit(1);
    assert!(matches!(world.ask(1), Decision::Wait(_)));
    world.engine.close(world.now);
    let outputs = world.outputs();
    assert!(
        matches!(outputs[..], [Output::Refuse { refusal, .. }] if refusal.reason == RefusalReason::Closed)
    );
    assert!(matches!(world.ask(1), Decision::Refuse(refusal) if refusal.reason == RefusalReason::Closed));
    assert_eq!(world.engine.poll_timeout(), None);
}

#[test]
fn accounts_are_bounded_and_idle_ones_make_room() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 1)]));
    let ask = |world: &mut World, account| {
        let quota = QuotaKey {
            account,
            ..QuotaKey::named(QUOTA)
        };
        let request = Request::new(quota, Demand::REQUEST_ONLY, world.now);
        world.engine.submit(world.now, request)
    };
    let accounts = crate::ACCOUNTS_MAX as u64;
    for account in 0..accounts {
        let Decision::Admit(permit) = ask(&mut world, account) else {
            panic!("each has its own limit")
        };
        world
            .engine
            .settle(world.now, permit.id, Outcome::Completed(Usage::default()));
    }
    assert!(
        matches!(ask(&mut world, accounts), Decision::Refuse(refusal) if refusal.reason == RefusalReason::TooManyAccounts)
    );
    world.sleep(secs(62));
    assert!(matches!(ask(&mut world, accounts), Decision::Admit(_)));
}

/// Thousands of keys that no provider knows.
#[test]
fn accounts_that_never_succeeded_lock_nobody_out() {
    let mut world = World::new(plan(vec![limit(Dimension::Requests, 1)]));
    for account in 0..2 * crate::ACCOUNTS_MAX as u64 {
        let request = Request::new(
            QuotaKey {
                account,
                ..QuotaKey::named(QUOTA)
            },
            Demand::REQUEST_ONLY,
            world.now,
        );
        let Decision::Admit(permit) = world.engine.submit(world.now, request) else {
            panic!("{account} has a limit of its own")
        };
        let outcome = if account == 0 {
            Outcome::Completed(Usage::default())
        } else {
            // The gateway settles a 401 as an answer without usage.
            Outcome::Unknown {
                output_seen: Tokens::ZERO,
            }
        };
        world.engine.settle(world.now, permit.id, outcome);
    }
    // The one that did is remembered.
    let request = Request::new(QuotaKey::named(QUOTA), Demand::REQUEST_ONLY, world.now);
    assert!(matches!(
        world.engine.submit(world.now, request),
        Decision::Refuse(_)
    ));
}

/// Only input can be read from the cache, whatever a provider reports.
#[test]
fn cached_input_gives_no_output_back() {
    let mut world = World::new(plan_of(vec![limit(Dimension::Tokens, 1_000)], ChargeModel::GROQ));
    let demand = Demand::generating(Tokens::new(500), Some(Tokens::new(400)));
    let Decision::Admit(permit) = world.submit(demand, Duration::ZERO) else {
        panic!("nothing is in use")
    };
    let usage = crate::Usage {
        input: Some(Tokens::ZERO),
        cached_input: Tokens::new(10_000),
        output: Some(Tokens::new(1)),
    };
    world
        .engine
        .settle(world.now, permit.id, crate::Outcome::Completed(usage));
    let large = world.submit(Demand::input_only(Tokens::new(700)), Duration::ZERO);
    assert!(matches!(large, Decision::Refuse(_)), "400 are in use: {large:?}");
}
