//! A ledger that has lost something, or does not know whether it has.

use super::*;

/// A ledger that is lost, with its replicas, of which the first had charged so much of 100.
fn lost(count: u64, used: u64) -> (Bench, Vec<Peer>, u64) {
    let (mut bench, mut peers) = Bench::with(100, count);
    assert!(bench.gets(&mut peers[0], used));
    let stamp = bench.now;
    bench.now += 300_000;
    bench.ledger = Ledger::new();
    (bench, peers, stamp)
}

fn status(bench: &mut Bench, peer: &mut Peer) -> Status {
    bench.beat(peer).status
}

#[test]
fn it_is_over_after_a_second_once_everybody_has_said_what_they_know() {
    let (mut bench, mut peers, stamp) = lost(2, 60);
    assert_eq!(
        bench.seeds(&mut peers[0], &[(stamp, 60)], &[1, 2]).status,
        Status::Learning
    );
    bench.now += 90_000;
    assert_eq!(bench.seeds(&mut peers[1], &[], &[1, 2]).status, Status::Learning);
    bench.now += 510_000;
    assert!(!bench.gets(&mut peers[0], 10));
    bench.now += 500_000;
    let reply = bench.beat(&mut peers[0]);
    assert_eq!((reply.status, reply.totals), (Status::Open, vec![60]));
    assert!(bench.gets(&mut peers[0], 40));
    bench.beat(&mut peers[1]);
    assert!(!bench.gets(&mut peers[1], 1));
}

#[test]
fn it_waits_for_whom_somebody_knew() {
    let (mut bench, mut peers, stamp) = lost(2, 60);
    let began = bench.now;
    bench.seeds(&mut peers[0], &[(stamp, 60)], &[1, 2]);
    while bench.now < began + LIFE {
        assert_eq!(status(&mut bench, &mut peers[0]), Status::Learning);
        assert!(!bench.gets(&mut peers[0], 1));
        bench.now += 300_000;
    }
    let reply = bench.beat(&mut peers[0]);
    // Who is missing may go on with the shares of all.
    assert_eq!((reply.status, reply.totals), (Status::Open, vec![50]));
    assert_eq!(reply.share, 0);
    // It comes, and what it had let in counts.
    let stamp = bench.now;
    let reply = bench.seeds(&mut peers[1], &[(stamp, 20)], &[]);
    assert_eq!(reply.totals, [20]);
    bench.now += 300_000;
    assert!(bench.beat(&mut peers[0]).share > 0);
}

#[test]
fn who_is_missing_for_good_keeps_nobody_waiting_for_ever() {
    let (mut bench, mut peers, _) = lost(2, 60);
    let began = bench.now;
    bench.seeds(&mut peers[0], &[], &[1, 2]);
    while bench.now < began + SHARE_LIFE + LIFE + SECOND {
        bench.beat(&mut peers[0]);
        bench.now += 300_000;
    }
    assert_eq!(bench.beat(&mut peers[0]).totals, [50]);
    bench.now += 2 * SECOND;
    bench.beat(&mut peers[0]);
    let reply = bench.beat(&mut peers[0]);
    assert_eq!((reply.totals, reply.share), (vec![0], 500_000));
}

#[test]
fn who_was_cut_off_does_not_know_who_is_missing() {
    let (mut bench, mut peers, stamp) = lost(1, 60);
    let began = bench.now;
    bench.seeds(&mut peers[0], &[(stamp, 60)], &[]);
    bench.now = began + LIFE - SECOND;
    assert_eq!(status(&mut bench, &mut peers[0]), Status::Learning);
    bench.now += 2 * SECOND;
    assert_eq!(status(&mut bench, &mut peers[0]), Status::Open);
}

#[test]
fn the_silent_and_those_who_left_lately_are_named() {
    let (mut bench, mut peers) = Bench::with(100, 3);
    bench.sends(&mut peers[2], |call| call.leaves = true);
    bench.now += 5 * SECOND;
    assert_eq!(bench.beat(&mut peers[0]).names, [1, 2, 3]);
    bench.now += LIFE;
    assert_eq!(bench.beat(&mut peers[0]).names, [1, 2]);
    bench.now += SHARE_LIFE + SECOND;
    assert_eq!(bench.beat(&mut peers[0]).names, [1]);
}

#[test]
fn a_second_loss_forgets_nobody() {
    let (mut bench, mut peers, _) = lost(2, 60);
    let seeded = bench.seeds(&mut peers[0], &[], &[1, 2]);
    assert_eq!(seeded.names, [1, 2], "though only one has come yet");
    bench.ledger = Ledger::new();
    bench.seeds(&mut peers[0], &[], &seeded.names);
    bench.now += 2 * SECOND;
    assert_eq!(status(&mut bench, &mut peers[0]), Status::Learning);
    bench.seeds(&mut peers[1], &[], &seeded.names);
    assert_eq!(status(&mut bench, &mut peers[0]), Status::Open);
}

#[test]
fn nobody_has_a_share_while_it_learns() {
    let (mut bench, mut peers, _) = lost(2, 60);
    assert_eq!(bench.seeds(&mut peers[0], &[], &[1, 2]).share, 0);
    assert_eq!(bench.beat(&mut peers[0]).share, 0);
    bench.seeds(&mut peers[1], &[], &[1, 2]);
    bench.now += SECOND;
    bench.beat(&mut peers[0]);
    assert_eq!(bench.beat(&mut peers[0]).share, 250_000);
}

#[test]
fn a_gap_is_a_loss() {
    let (mut bench, mut peers) = Bench::with(100, 2);
    let older = bench.clone();
    bench.now += 300_000;
    assert!(bench.gets(&mut peers[0], 100));
    bench.ledger = older.ledger;
    bench.now += 300_000;
    let lost = bench.beat(&mut peers[0]);
    assert_eq!(lost.status, Status::Lost);
    assert_ne!(lost.epoch, peers[0].epoch);
    assert_eq!(status(&mut bench, &mut peers[1]), Status::Lost);
}

#[test]
fn calls_of_another_epoch_do_nothing() {
    let (mut bench, mut peers, _) = lost(2, 60);
    let old = bench.next(&mut peers[1].clone());
    bench.seeds(&mut peers[0], &[], &[1]);
    bench.now += 2 * SECOND;
    assert_eq!(status(&mut bench, &mut peers[0]), Status::Open);
    let mut asking = old;
    asking.asks = vec![ask(50)];
    asking.time += 3_600 * SECOND;
    let reply = bench.send(&asking);
    assert_eq!((reply.status, reply.granted.len()), (Status::Lost, 0));
    let reply = bench.beat(&mut peers[0]);
    assert_eq!((reply.totals, reply.now), (vec![0], bench.now));
}

#[test]
fn a_new_ledger_that_is_trusted_is_open_at_once() {
    let mut bench = Bench::new(100);
    assert!(bench.gets(&mut Peer::new(1), 100));
}

/// A ledger of which nobody knows anything, and which is not taken to be new.
fn fresh() -> (Bench, Peer) {
    let (mut bench, mut peer) = (Bench::new(100), Peer::new(1));
    let first = bench.sends(&mut peer, |call| call.trusts_empty = false);
    assert_eq!(first.status, Status::Learning);
    (bench, peer)
}

#[test]
fn a_new_ledger_lets_one_request_through_at_a_time_and_opens_when_its_window_is_over() {
    let (mut bench, mut peer) = fresh();
    assert!(bench.gets(&mut peer, 10));
    assert!(!bench.gets(&mut peer, 10));
    bench.now += 9 * SECOND;
    assert!(!bench.gets(&mut peer, 10));
    bench.now += SECOND;
    assert!(bench.gets(&mut peer, 10));
    bench.now += SECOND;
    assert_eq!(status(&mut bench, &mut peer), Status::Open);
}

#[test]
fn a_new_ledger_opens_when_the_provider_says_what_is_in_use() {
    let (mut bench, mut peer) = fresh();
    assert!(bench.gets(&mut peer, 10));
    let used = [Entry::Used { limit: 0, amount: 70 }];
    let reply = bench.tells(&mut peer, &used);
    assert_eq!((reply.status, reply.totals), (Status::Open, vec![70]));
    assert!(bench.gets(&mut peer, 30));
    assert!(!bench.gets(&mut peer, 1));
}

#[test]
fn who_knows_of_an_earlier_ledger_ends_the_trials() {
    let (mut bench, mut peers, stamp) = lost(1, 60);
    let mut joiner = Peer::new(9);
    bench.sends(&mut joiner, |call| call.trusts_empty = false);
    bench.seeds(&mut peers[0], &[(stamp, 60)], &[1]);
    assert!(!bench.gets(&mut joiner, 1));
    bench.now += SECOND;
    let reply = bench.beat(&mut peers[0]);
    assert_eq!((reply.status, reply.totals), (Status::Open, vec![60]));
}

#[test]
fn what_somebody_saw_and_nobody_owns_counts() {
    let (mut bench, mut peers, _) = lost(1, 10);
    let lost = bench.beat(&mut peers[0]);
    (peers[0].epoch, peers[0].sequence) = (lost.epoch, 0);
    let slot = bench.now / WIDTH / 10 - 1;
    let seed = Seed {
        own: vec![(0, slot * WIDTH * 10, 10)],
        seen: vec![(0, slot, 35)],
        names: vec![1],
    };
    bench.sends(&mut peers[0], |call| call.seed = Some(seed));
    bench.now += SECOND;
    assert_eq!(bench.beat(&mut peers[0]).totals, [35]);
}

#[test]
fn what_another_server_has_kept_may_lack_something() {
    let (mut bench, mut peers) = Bench::with(100, 1);
    assert_eq!(
        bench.sends(&mut peers[0], |call| call.server = 7).status,
        Status::Open
    );
    assert_eq!(
        bench.sends(&mut peers[0], |call| call.server = 7).status,
        Status::Open
    );
    let mut joiner = bench.clone();
    // Whether a replica that was there calls first, or one that has just come.
    assert_eq!(
        bench.sends(&mut peers[0], |call| call.server = 8).status,
        Status::Lost
    );
    let reply = joiner.sends(&mut Peer::new(9), |call| {
        call.server = 8;
        call.asks = vec![ask(1)];
    });
    assert_eq!((reply.status, reply.granted), (Status::Learning, vec![false]));
    assert_eq!(
        joiner.sends(&mut peers[0], |call| call.server = 8).status,
        Status::Lost
    );
}
