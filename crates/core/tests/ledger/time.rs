//! The ledger's time, whatever the server's clock does.

use super::*;
use tidegate_core::ledger::CLOCK_SLACK;

/// Steps of a clock.
const STEPS: [i64; 8] = [
    3_600_000_000,
    -3_600_000_000,
    10_000_000,
    -10_000_000,
    1_000_000,
    -1_000_000,
    300_000,
    -300_000,
];

#[test]
fn no_step_of_the_servers_clock_moves_time() {
    for step in STEPS {
        let (mut bench, mut peers) = Bench::with(100, 2);
        assert!(bench.gets(&mut peers[0], 100));
        let granted = bench.now;
        bench.beats(&mut peers, SECOND);
        bench.ahead = step;
        while bench.now < granted + LIFE {
            bench.beat(&mut peers[0]);
            let reply = bench.beat(&mut peers[1]);
            assert!(reply.now.abs_diff(bench.now) <= 300_000, "{step}: {}", reply.now);
            assert_eq!(reply.totals, [100], "{step}");
            bench.now += 300_000;
        }
        // And none keeps it from going on.
        bench.now += 500_000;
        bench.beat(&mut peers[0]);
        assert_eq!(bench.beat(&mut peers[1]).totals, [0], "{step}");
    }
}

#[test]
fn a_newcomer_does_not_see_the_step_first() {
    for step in STEPS {
        let (mut bench, mut peers) = Bench::with(100, 2);
        assert!(bench.gets(&mut peers[0], 100));
        bench.now += 100_000;
        bench.ahead = step;
        let mut joiner = Peer::new(3);
        let mut call = bench.next(&mut joiner);
        call.time = 0;
        let first = bench.send(&call);
        for _ in 0..4 {
            bench.now += 300_000;
            bench.beat(&mut peers[0]);
            assert_eq!(bench.beat(&mut peers[1]).totals, [100], "{step}");
        }
        if first.now == 0 {
            let reply = bench.send(&call);
            assert!(reply.now.abs_diff(bench.now) <= 300_000, "{step}: {}", reply.now);
        }
    }
}

#[test]
fn time_stays_when_everybody_is_replaced_after_a_step() {
    for step in STEPS {
        let (mut bench, mut peers) = Bench::with(100, 1);
        assert!(bench.gets(&mut peers[0], 100));
        bench.ahead = step;
        bench.beats(&mut peers, SECOND);
        bench.sends(&mut peers[0], |call| call.leaves = true);
        let mut joiner = Peer::new(2);
        let reply = bench.sends(&mut joiner, |call| call.time = 0);
        assert_eq!(reply.totals, [100], "{step}");
        assert!(reply.now.abs_diff(bench.now) <= 300_000, "{step}: {}", reply.now);
    }
}

#[test]
fn a_clock_that_jumped_is_believed_when_nobody_else_is_there() {
    let (mut bench, _) = Bench::with(100, 1);
    bench.now += 3_600 * SECOND;
    let mut joiner = Peer::new(2);
    let mut call = bench.next(&mut joiner);
    call.time = 0;
    let doubt = bench.send(&call);
    assert_eq!((doubt.now, doubt.status), (0, Status::Learning));
    bench.now += 300_000;
    assert_eq!(bench.send(&call).now, 0);
    bench.now += 800_000;
    assert_eq!(bench.send(&call).now, bench.now);
}

#[test]
fn late_calls_do_not_move_time() {
    let (mut bench, mut peers) = Bench::with(100, 2);
    let late = [bench.next(&mut peers[0]), bench.next(&mut peers[1])];
    bench.now += 5 * SECOND;
    for call in &late {
        bench.send(call);
    }
    let mut joiner = Peer::new(3);
    let mut call = bench.next(&mut joiner);
    call.time = 0;
    let first = bench.send(&call);
    assert!(first.now == 0 || first.now == bench.now, "{first:?}");
    assert_eq!(bench.beat(&mut peers[0]).now, bench.now);
    assert_eq!(bench.send(&call).now, bench.now);
}

#[test]
fn a_server_behind_begins_where_the_replicas_are() {
    let (mut bench, mut peers) = Bench::with(100, 1);
    let names = [1];
    bench.ledger = Ledger::new();
    bench.ahead = -3_600_000_000;
    let granted = bench.now;
    bench.seeds(&mut peers[0], &[(granted, 100)], &names);
    bench.beats(&mut peers, LIFE - SECOND);
    assert_eq!(bench.beat(&mut peers[0]).totals, [100]);
    bench.beats(&mut peers, 2 * SECOND);
    assert_eq!(bench.beat(&mut peers[0]).totals, [0]);
}

#[test]
fn few_calls_show_that_a_clock_has_jumped() {
    for (step, late) in [
        (-30_000_000, None),
        (30_000_000, Some(240_000)),
        (3_600_000_000, Some(900_000)),
    ] {
        let (mut bench, mut peers) = Bench::with(100, 1);
        assert!(bench.gets(&mut peers[0], 100));
        bench.ahead = step;
        // One call, and where the clock is ahead another that was late.
        if let Some(late) = late {
            let call = bench.next(&mut peers[0]);
            bench.now += late;
            bench.send(&call);
        }
        bench.beat(&mut peers[0]);
        bench.sends(&mut peers[0], |call| call.leaves = true);
        let reply = bench.sends(&mut Peer::new(2), |call| call.time = 0);
        assert_eq!(reply.totals, [100], "{step}");
        assert!(
            reply.now.abs_diff(bench.now) <= CLOCK_SLACK,
            "{step}: {}",
            reply.now
        );
    }
}
