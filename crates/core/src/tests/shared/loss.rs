//! What replicas do when the ledger, or the way to it, is lost.

use super::*;

/// A world of three replicas whose callers want 1.2 times the quota all the time, for some minutes.
fn busy(nodes: usize, minutes: u64) -> Rig {
    busy_with(nodes, minutes, true)
}

fn busy_with(nodes: usize, minutes: u64, trusts_empty: bool) -> Rig {
    let mut plan = shared(vec![limit(Dimension::Requests, 600)]);
    if let Some(shared) = &mut plan.shared {
        shared.trusts_empty = trusts_empty;
    }
    let mut rig = Rig::new(nodes, &plan);
    for number in 0..minutes * 720 {
        let seconds = number as f64 * 60.0 / 720.0;
        rig.arrive(number as usize % nodes, seconds, ASK);
    }
    rig
}

fn check(rig: &Rig, what: &str) {
    let most = rig.most(|_| 1);
    assert!(most <= 600, "{what}: {most} in a minute");
}

fn used(rig: &Rig, from: f64, to: f64) -> f64 {
    rig.between(from, to).len() as f64 / ((to - from) * 10.0)
}

#[test]
fn an_empty_ledger_is_not_taken_for_a_new_one() {
    let mut rig = busy_with(3, 6, false);
    rig.run(360.0);
    check(&rig, "at first");
    // One was let in to see what the provider says, every ten seconds, and then a whole window had passed.
    let early = rig.between(0.0, 60.0).len();
    assert!((1..=7).contains(&early), "{early} in the first minute");
    let used = used(&rig, 120.0, 360.0);
    assert!(used >= 0.98, "{used}");
}

#[test]
fn a_ledger_that_is_frozen() {
    let mut rig = busy(3, 10);
    rig.befall(200.0, Deed::Freeze);
    rig.befall(205.0, Deed::Thaw);
    rig.run(600.0);
    check(&rig, "frozen for 5 s");
    let used = used(&rig, 325.0, 565.0);
    assert!(used >= 0.95, "{used}");
    assert!(rig.nodes[0].standings.contains(&Standing::Sharing));
    assert!(rig.refused.is_empty());
}

#[test]
fn a_ledger_that_is_gone_for_long() {
    let mut rig = busy(3, 12);
    rig.befall(200.0, Deed::Freeze);
    rig.befall(300.0, Deed::Thaw);
    rig.run(720.0);
    check(&rig, "frozen for 100 s");
    let during = used(&rig, 203.0, 245.0);
    assert!((0.4..=0.55).contains(&during), "{during} of the quota by shares");
    assert!(rig.nodes[0].standings.contains(&Standing::Closed));
    let used = used(&rig, 420.0, 720.0);
    assert!(used >= 0.95, "{used}");
}

#[test]
fn a_replica_that_is_cut_off() {
    for seconds in [1.5, 3.0, 20.0, 100.0, 250.0] {
        let mut rig = busy(3, 14);
        rig.befall(200.0, Deed::Cut(1));
        rig.befall(200.0 + seconds, Deed::Join(1));
        rig.run(840.0);
        check(&rig, "one cut off");
        let used = used(&rig, 320.0 + seconds, 500.0 + seconds);
        assert!(used >= 0.95, "{used} after {seconds} s");
    }
}

#[test]
fn a_replica_that_is_killed() {
    let mut rig = busy(3, 12);
    rig.befall(200.0, Deed::Kill(1));
    // Its callers go to the others.
    for number in 0..12 * 240 {
        let node = if number % 2 == 0 { 0 } else { 2 };
        rig.arrive(node, 200.0 + f64::from(number) / 4.0, ASK);
    }
    rig.run(720.0);
    check(&rig, "one killed");
    let used = used(&rig, 320.0, 440.0);
    assert!(used >= 0.95, "{used}");
}

#[test]
fn a_ledger_that_is_wiped() {
    let mut rig = busy(3, 10);
    rig.befall(200.0, Deed::Wipe);
    rig.run(600.0);
    check(&rig, "wiped");
    let soon = used(&rig, 205.0, 265.0);
    assert!(soon >= 0.9, "{soon}: whoever knows says so at once");
}

#[test]
fn a_ledger_that_is_wiped_while_one_is_cut_off() {
    let mut rig = busy(3, 12);
    rig.befall(200.0, Deed::Cut(2));
    rig.befall(210.0, Deed::Wipe);
    rig.befall(230.0, Deed::Join(2));
    rig.run(720.0);
    check(&rig, "wiped, one cut off");
    let used = used(&rig, 360.0, 600.0);
    assert!(used >= 0.95, "{used}");
}

#[test]
fn a_clock_that_steps() {
    for by in [3_600_000_000, -3_600_000_000, 400_000, -400_000] {
        let mut rig = busy(3, 10);
        rig.befall(200.0, Deed::Step(by));
        rig.run(600.0);
        check(&rig, "a clock that steps");
        let used = used(&rig, 320.0, 560.0);
        assert!(used >= 0.95, "{used} after a step of {by} µs");
    }
}

#[test]
fn what_the_first_answer_tells_is_enough() {
    let mut plan = shared(vec![limit(Dimension::Requests, 600)]);
    if let Some(shared) = &mut plan.shared {
        shared.trusts_empty = false;
    }
    let mut rig = Rig::new(2, &plan);
    rig.tells = true;
    for number in 0..20 {
        rig.arrive(number % 2, 0.0, ASK);
    }
    rig.run(3.0);
    // The limit on tokens, which nobody knows, is not waited for.
    assert_eq!(rig.uses.len(), 20);
}

#[test]
fn a_ledger_that_comes_back_empty_after_some_seconds_is_open_soon() {
    for away in [3.0, 8.0, 15.0] {
        let mut rig = busy_with(3, 8, false);
        for node in 0..3 {
            rig.befall(200.0, Deed::Cut(node));
            rig.befall(200.0 + away, Deed::Join(node));
        }
        rig.befall(200.0 + away / 2.0, Deed::Wipe);
        rig.run(400.0);
        check(&rig, "out of reach, and then empty");
        // Whoever was away for long does not know who else may have come.
        let soon = used(&rig, 202.0 + away, 262.0 + away);
        assert_eq!(soon >= 0.85, away < 10.0, "{soon} after {away} s");
    }
}

#[test]
fn whoever_was_cut_off_and_then_idle_begins_anew() {
    let mut rig = Rig::new(2, &shared(vec![limit(Dimension::Requests, 600)]));
    rig.arrive(1, 0.0, ASK);
    rig.befall(5.0, Deed::Cut(1));
    for number in 0..100 {
        rig.arrive(1, 6.0 + f64::from(number), ASK);
    }
    rig.befall(330.0, Deed::Join(1));
    rig.run(400.0);
    assert!(rig.nodes[1].standings.contains(&Standing::Closed));
    assert_eq!(rig.nodes[1].standings.last(), Some(&Standing::Idle));
    let (before, refused) = (rig.uses.len(), rig.refused.len());
    let impatient = Ask {
        patience: Duration::from_secs(1),
        ..ASK
    };
    rig.arrive(1, 400.0, impatient);
    rig.run(401.0);
    assert_eq!((rig.uses.len(), rig.refused.len()), (before + 1, refused));
}

#[test]
fn nobody_is_refused_for_an_outage_that_may_end_in_time() {
    for share in [0, 500_000] {
        let mut plan = shared(vec![limit(Dimension::Requests, 60)]);
        if let Some(shared) = &mut plan.shared {
            (shared.share, shared.trusts_empty) = (share, false);
        }
        let mut rig = Rig::new(2, &plan);
        rig.tells = true;
        for number in 0..30 {
            rig.arrive(number % 2, number as f64 * 0.1, ASK);
        }
        for node in 0..2 {
            rig.befall(5.0, Deed::Cut(node));
            rig.befall(8.5, Deed::Join(node));
        }
        rig.befall(7.0, Deed::Wipe);
        let patient = Ask {
            patience: Duration::from_secs(20),
            ..ASK
        };
        for number in 0..20 {
            rig.arrive(number % 2, 5.0 + number as f64 * 0.2, patient);
        }
        rig.run(12.0);
        assert!(rig.refused.is_empty(), "{:?}", rig.refused);
        assert_eq!(
            rig.uses.len(),
            50,
            "open again after a second, with a share of {share}"
        );
    }
}

#[test]
fn who_comes_to_a_store_that_is_gone_is_told_so() {
    let mut plan = shared(vec![limit(Dimension::Requests, 60)]);
    if let Some(shared) = &mut plan.shared {
        shared.trusts_empty = true;
    }
    let mut rig = Rig::new(1, &plan);
    rig.befall(0.5, Deed::Freeze);
    rig.befall(20.0, Deed::Thaw);
    let impatient = Ask {
        patience: Duration::from_secs(10),
        ..ASK
    };
    rig.arrive(0, 1.0, impatient);
    rig.arrive(0, 15.0, ASK);
    rig.run(40.0);
    let standings = &rig.nodes[0].standings;
    assert!(standings.contains(&Standing::Closed), "{standings:?}");
    assert_eq!(rig.refused.len(), 1);
    assert_eq!(rig.refused[0].1.obstacle, Some(crate::Obstacle::Store));
    assert_eq!(rig.between(20.0, 22.0).len(), 1, "who waits on is let in");
}

/// An engine whose driver has no way to the store, as far as it has timers, until a moment.
fn pass(engine: &mut Engine, until: Timestamp) {
    while let Some((at, _)) = engine.poll_timeout().filter(|(at, _)| *at <= until) {
        engine.handle_timeout(at);
        while engine.poll_output().is_some() {}
    }
    engine.handle_timeout(until);
    while engine.poll_output().is_some() {}
}

fn standing(engine: &mut Engine, now: Timestamp) -> Standing {
    let store = engine.snapshot(now).quotas[0].store;
    store.expect("it is shared").standing
}

#[test]
fn who_left_while_the_store_was_gone_leaves_nothing_behind() {
    let key = QuotaKey::named(QUOTA);
    for leaves in [true, false] {
        let mut engine = Engine::new(START, shared(vec![limit(Dimension::Tokens, 30_000)]), 7);
        let second = Duration::from_secs(1);
        let request = |deadline| Request::new(key, Demand::input_only(Tokens::new(1_000)), deadline);
        let Decision::Wait(ticket) = engine.submit(START, request(START + second * 10)) else {
            panic!("nobody goes without the store");
        };
        let mut now = START + second * 5;
        pass(&mut engine, now);
        assert_eq!(standing(&mut engine, now), Standing::Closed);
        if leaves {
            engine.cancel(now, ticket.id);
        } else {
            now = START + second * 11;
            pass(&mut engine, now);
        }
        assert_eq!(standing(&mut engine, now), Standing::Idle);
        // The store is there, and who comes is let in.
        let deadline = now + second;
        assert!(matches!(engine.submit(now, request(deadline)), Decision::Wait(_)));
        let call = engine.call(now, key).expect("a call is due");
        let (reply, _) = Ledger::new().call(now.as_micros(), &call);
        engine.answer(now, key, call.key(), &reply);
        let outputs: Vec<Output> = core::iter::from_fn(|| engine.poll_output()).collect();
        let is_let_in = |output: &Output| matches!(output, Output::Admit { .. });
        assert!(outputs.iter().any(is_let_in), "{outputs:?}");
    }
}

#[test]
fn a_reload_while_the_store_is_gone_makes_no_share_larger() {
    let mut sent = Vec::new();
    for limits in [
        vec![],
        vec![limit(Dimension::Requests, 600)],
        vec![limit(Dimension::Requests, 6_000)],
        vec![Limit::rolling(
            Dimension::Requests,
            Duration::from_secs(10),
            amount(600),
        )],
        vec![
            limit(Dimension::Requests, 600),
            limit(Dimension::OutputTokens, 60_000),
        ],
    ] {
        let mut rig = busy(3, 5);
        rig.befall(120.0, Deed::Freeze);
        rig.run(130.0);
        if !limits.is_empty() {
            for number in 0..3 {
                let now = at(rig.now);
                rig.nodes[number].engine.reconfigure(now, shared(limits.clone()));
                rig.drain(number);
            }
        }
        rig.run(160.0);
        check(&rig, "without the store");
        sent.push(rig.between(130.0, 160.0).len());
    }
    assert!(sent.iter().all(|count| *count <= sent[0]), "{sent:?}");
}
