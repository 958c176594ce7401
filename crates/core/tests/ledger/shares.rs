//! Shares: what is kept for replicas that are silent, so that they can go on.

use tidegate_core::ledger::NAMES_KEPT;

use super::*;

/// Two replicas with a share each, and how much of the limit of 100 is used, by the first.
fn half_used() -> (Bench, Vec<Peer>) {
    let (mut bench, mut peers) = Bench::with(100, 2);
    assert!(bench.gets(&mut peers[0], 80));
    bench.beats(&mut peers, SECOND);
    (bench, peers)
}

#[test]
fn shares_never_sum_to_more_than_they_may() {
    let mut bench = Bench::new(100);
    let mut first = Peer::new(1);
    assert_eq!(bench.beat(&mut first).share, 500_000);
    let mut second = Peer::new(2);
    assert_eq!(bench.beat(&mut second).share, 0, "the first has it all");
    assert_eq!(bench.beat(&mut first).share, 250_000);
    assert_eq!(
        bench.beat(&mut second).share,
        0,
        "the first may not have heard of its smaller share"
    );
    assert_eq!(bench.beat(&mut first).share, 250_000);
    assert_eq!(bench.beat(&mut second).share, 250_000);
}

#[test]
fn a_share_that_was_not_heard_of_counts_as_the_one_before() {
    let mut bench = Bench::new(100);
    let (mut first, mut second) = (Peer::new(1), Peer::new(2));
    bench.beat(&mut first);
    bench.beat(&mut second);
    // The answer is lost and given up.
    let lost = bench.next(&mut first);
    assert_eq!(bench.send(&lost).share, 250_000);
    let missed = Missed {
        sequence: lost.sequence,
        ..Default::default()
    };
    let mut call = bench.next(&mut first);
    call.missed = vec![missed];
    bench.send(&call);
    assert_eq!(bench.beat(&mut second).share, 0);
}

#[test]
fn what_a_silent_replica_may_use_is_kept() {
    let (mut bench, mut peers) = half_used();
    bench.now += 900_000;
    bench.beat(&mut peers[0]);
    bench.now += 900_000;
    // A quarter of the 80 that it knows.
    assert_eq!(bench.beat(&mut peers[0]).totals, [100]);
    assert!(!bench.gets(&mut peers[0], 1));
}

#[test]
fn a_late_call_of_a_silent_replica_does_not_free_its_share() {
    let (mut bench, mut peers) = half_used();
    let late = bench.next(&mut peers[1]);
    bench.now += SECOND;
    bench.beat(&mut peers[0]);
    bench.now += SECOND;
    bench.beat(&mut peers[0]);
    // Its answer comes to nobody: the replica is cut off by now.
    bench.send(&late);
    assert_eq!(bench.beat(&mut peers[0]).totals, [100]);
}

#[test]
fn a_call_whose_answer_was_given_up_does_not_free_its_share() {
    let (mut bench, mut peers) = half_used();
    bench.now += 1_900_000;
    let lost = bench.next(&mut peers[1]);
    bench.send(&lost);
    bench.beat(&mut peers[0]);
    bench.now += 200_000;
    // The replica is cut off for two seconds: whether the ledger has its last call does not matter.
    assert_eq!(bench.beat(&mut peers[0]).totals, [100]);
}

#[test]
fn what_is_refunded_is_kept_from_others_until_everybody_knows() {
    let (mut bench, mut peers) = Bench::with(100, 2);
    bench.beats(&mut peers, SECOND);
    assert!(bench.gets(&mut peers[0], 100));
    let stamp = bench.now;
    bench.beat(&mut peers[1]);
    bench.beat(&mut peers[1]);
    let refund = [Entry::Refund {
        limit: 0,
        stamp,
        amount: 40,
    }];
    // The other still counts on a quarter of the 40 to expire, should it be cut off now; so may the teller.
    assert_eq!(bench.tells(&mut peers[0], &refund).totals, [80]);
    bench.beat(&mut peers[1]);
    assert_eq!(bench.beat(&mut peers[1]).totals, [70]);
    bench.beat(&mut peers[0]);
    assert_eq!(bench.beat(&mut peers[0]).totals, [60]);
}

#[test]
fn a_repeated_call_was_shown_nothing() {
    let (mut bench, mut peers) = half_used();
    // More is charged, and shown to the second, but the answer is lost; the repeated one shows nothing.
    let call = bench.next(&mut peers[1]);
    assert!(bench.send(&call).view.is_some());
    assert!(bench.send(&call).view.is_none());
    // All expires, and the second, which has not seen that, still counts on its quarter of the 80.
    bench.beat(&mut peers[1]);
    for _ in 0..14 {
        bench.now += 900_000;
        bench.beat(&mut peers[0]);
    }
    assert_eq!(bench.beat(&mut peers[0]).totals, [20]);
}

#[test]
fn a_share_is_kept_until_what_it_let_in_has_expired() {
    let (mut bench, mut peers) = half_used();
    let silent = bench.now;
    let mut last = 0;
    while bench.now < silent + SHARE_LIFE + LIFE + 10 * SECOND {
        bench.now += 500_000;
        if bench.beat(&mut peers[0]).totals[0] > 0 {
            last = bench.now;
        }
    }
    let kept = last - silent;
    assert!(kept >= SHARE_LIFE + LIFE + SECOND, "{kept}");
    assert!(kept <= SHARE_LIFE + LIFE + 3 * SECOND, "{kept}");
    // Its share goes to the others.
    assert_eq!(bench.beat(&mut peers[0]).share, 500_000);
}

#[test]
fn a_long_window_does_not_keep_a_share_of_a_short_one() {
    let mut bench = Bench::new(100);
    let day = 86_400 * SECOND;
    bench.limits.push(Terms {
        name: LimitName::of(Dimension::Requests, day),
        life: day,
        ..terms(100)
    });
    let mut peers = [Peer::new(1), Peer::new(2)];
    bench.beats(&mut peers, SECOND);
    let both = Ask {
        take: vec![80, 8],
        hold: vec![0, 0],
        ..ask(80)
    };
    assert_eq!(bench.asks(&mut peers[0], &[both]).granted, [true]);
    bench.beats(&mut peers, SECOND);
    bench.now += SHARE_LIFE + LIFE + 5 * SECOND;
    bench.beat(&mut peers[0]);
    assert_eq!(bench.beat(&mut peers[0]).totals, [0, 10]);
}

#[test]
fn who_leaves_frees_its_share_and_what_it_holds() {
    let (mut bench, mut peers) = half_used();
    bench.sends(&mut peers[1], |call| call.leaves = true);
    bench.now += 5 * SECOND;
    bench.beat(&mut peers[0]);
    let reply = bench.beat(&mut peers[0]);
    assert_eq!((reply.totals, reply.share), (vec![80], 500_000));
    // It is gone for good: a late call of it changes nothing.
    let late = bench.next(&mut peers[1]);
    assert_eq!(bench.send(&late).status, Status::Stale);
}

#[test]
fn holds_stay_for_the_lease() {
    let (mut bench, mut peers) = Bench::with(100, 2);
    bench.sends(&mut peers[1], |call| call.limits[0].held = 30);
    bench.now += LEASE - SECOND;
    assert_eq!(bench.beat(&mut peers[0]).totals, [30]);
    bench.now += 2 * SECOND;
    assert_eq!(bench.beat(&mut peers[0]).totals, [0]);
}

#[test]
fn nobody_is_let_in_before_the_others_know_of_it() {
    let (mut bench, mut peers) = Bench::with(100, 2);
    let mut joiner = Peer::new(3);
    assert!(!bench.gets(&mut joiner, 10));
    bench.now += 1;
    assert!(bench.gets(&mut peers[0], 10));
    bench.beat(&mut peers[1]);
    // They were told; that they heard of it is known by their next calls.
    assert!(!bench.gets(&mut joiner, 10));
    bench.beat(&mut peers[0]);
    bench.beat(&mut peers[1]);
    assert!(bench.gets(&mut joiner, 10));
    // The newcomer holds up nobody.
    assert!(bench.gets(&mut peers[1], 10));
}

#[test]
fn nobody_waits_for_those_who_cannot_say_any_more_who_is_there() {
    let (mut bench, _) = Bench::with(100, 2);
    let mut joiner = Peer::new(3);
    bench.now += 2 * SECOND;
    // Whether the clock has jumped is in doubt, until nobody has called for a second.
    let mut call = bench.next(&mut joiner);
    call.asks = vec![ask(10)];
    assert_eq!(bench.send(&call).now, 0);
    bench.now += NAMES_KEPT - 2 * SECOND;
    assert_eq!(bench.send(&call).granted, [false]);
    joiner.epoch = bench.ledger.clone().call(bench.now, &call).0.epoch;
    bench.now += SECOND + 1;
    assert!(bench.gets(&mut joiner, 10));
}

#[test]
fn a_share_that_may_have_been_renewed_goes_to_nobody_else() {
    let (mut bench, mut peers) = half_used();
    // It is back just before its share is over, and silent again: whether it got its answer nobody knows.
    let mut other = vec![peers.remove(0)];
    bench.beats(&mut other, SHARE_LIFE);
    let share = bench.beat(&mut peers[0]).share;
    assert_eq!(share, 250_000);
    bench.beats(&mut other, 5 * SECOND);
    assert_eq!(bench.beat(&mut other[0]).share, 250_000);
    bench.beats(&mut other, SHARE_LIFE);
    assert_eq!(bench.beat(&mut other[0]).share, 500_000);
}

#[test]
fn nothing_is_kept_for_who_was_told_nothing() {
    let (mut bench, mut peers) = half_used();
    let stamp = bench.now - SECOND;
    for _ in 0..3 {
        // Far more is refunded than the limit, in all.
        let entry = |kind: fn(usize, u64, u64) -> Entry, amount| kind(0, stamp, amount);
        let refund = entry(|limit, stamp, amount| Entry::Refund { limit, stamp, amount }, 80);
        let charge = entry(|limit, stamp, amount| Entry::Charge { limit, stamp, amount }, 80);
        bench.tells(&mut peers[0], &[refund, charge]);
    }
    bench.beats(&mut peers, SECOND);
    let mut third = Peer::new(3);
    bench.tells(
        &mut peers[0],
        &[Entry::Refund {
            limit: 0,
            stamp,
            amount: 80,
        }],
    );
    bench.beats(&mut peers, SECOND);
    assert_eq!(bench.beat(&mut third).totals, [0]);
    // Nor for who does not have the limit any more.
    let other = Terms {
        name: LimitName::of(Dimension::Requests, WINDOW),
        ..terms(10)
    };
    bench.sends(&mut peers[1], |call| call.limits = vec![other]);
    bench.sends(&mut peers[1], |call| call.limits = vec![other]);
    assert!(bench.gets(&mut peers[0], 80));
    let stamp = bench.now;
    bench.beat(&mut peers[0]);
    bench.beat(&mut peers[0]);
    bench.tells(
        &mut peers[0],
        &[Entry::Refund {
            limit: 0,
            stamp,
            amount: 80,
        }],
    );
    bench.beat(&mut peers[0]);
    bench.beat(&mut third);
    bench.beat(&mut third);
    assert_eq!(bench.beat(&mut peers[0]).totals, [0]);
}
