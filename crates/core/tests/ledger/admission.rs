//! Who is let in, what is charged, and that calls count once.

use super::*;
use tidegate_core::ledger::Denial;

const CONCURRENCY: LimitName = LimitName::of(Dimension::Concurrency, 0);

/// A limit on tokens and one on requests in flight.
fn two_limits() -> Bench {
    let mut bench = Bench::new(100);
    bench.limits.push(Terms {
        name: CONCURRENCY,
        life: 0,
        width: 1,
        ..terms(2)
    });
    bench
}

fn running(take: u64) -> Ask {
    Ask {
        take: vec![take, 0],
        hold: vec![0, 1],
        ..ask(take)
    }
}

#[test]
fn all_limits_or_none() {
    let mut bench = two_limits();
    let mut peer = Peer::new(1);
    let reply = bench.asks(&mut peer, &[running(40), running(40), running(1)]);
    assert_eq!(reply.granted, [true, true, false]);
    assert_eq!(reply.totals, [80, 2], "the third took no tokens either");
    assert_eq!(
        (reply.denial, reply.denied_by),
        (Denial::Limit, CONCURRENCY.number())
    );
    // One ends.
    bench.limits[1].held = 1;
    let reply = bench.asks(&mut peer, &[running(21)]);
    assert_eq!((reply.granted, reply.totals), (vec![false], vec![80, 1]));
    assert_eq!(reply.denied_by, NAME.number());
    assert_eq!(bench.asks(&mut peer, &[running(20)]).granted, [true]);
}

#[test]
fn what_is_larger_than_a_limit_goes_when_all_of_it_is_free() {
    let (mut bench, mut peers) = Bench::unshared(100, 1);
    let (begin, peer) = (bench.now, &mut peers[0]);
    assert!(bench.gets(peer, 1));
    let reply = bench.asks(peer, &[ask(500)]);
    assert_eq!(
        (reply.granted.as_slice(), reply.wake_at),
        (&[false][..], begin + WIDTH + LIFE)
    );
    bench.now = reply.wake_at;
    assert!(bench.gets(peer, 500));
}

#[test]
fn charges_expire_bucket_by_bucket() {
    let mut bench = Bench::new(100);
    let mut peer = Peer::new(1);
    for _ in 0..4 {
        assert!(bench.gets(&mut peer, 25));
        bench.now += SECOND;
    }
    for nth in 0..4 {
        let reply = bench.asks(&mut peer, &[ask(25)]);
        assert_eq!(reply.granted, [false]);
        assert_eq!(reply.wake_at, START + nth * SECOND + WIDTH + LIFE);
        bench.now = reply.wake_at - 1;
        assert!(!bench.gets(&mut peer, 25));
        bench.now += 1;
        assert!(bench.gets(&mut peer, 25));
    }
}

#[test]
fn a_repeated_call_changes_nothing() {
    let (mut bench, mut peers) = Bench::with(100, 2);
    let mut call = bench.next(&mut peers[0]);
    call.asks = vec![ask(30), ask(80)];
    call.entries = vec![Entry::Charge {
        limit: 0,
        stamp: 0,
        amount: 7,
    }];
    let first = bench.send(&call);
    assert_eq!(first.granted, [true, false]);
    for _ in 0..3 {
        bench.now += 200_000;
        let again = bench.send(&call);
        assert_eq!((again.granted, again.now), (first.granted.clone(), first.now));
        assert_eq!(bench.beat(&mut peers[1]).totals, [37]);
    }
}

#[test]
fn an_older_call_does_nothing() {
    let (mut bench, mut peers) = Bench::with(100, 2);
    let mut older = bench.next(&mut peers[0]);
    older.asks = vec![ask(30)];
    bench.send(&older);
    bench.beat(&mut peers[0]);
    older.leaves = true;
    let reply = bench.send(&older);
    assert_eq!((reply.status, reply.granted.len()), (Status::Stale, 0));
    assert_eq!(bench.beat(&mut peers[0]).totals, [30]);
}

#[test]
fn what_a_given_up_call_was_granted_is_given_back_once() {
    let (bench, mut peers) = Bench::unshared(100, 1);
    let mut lost = bench.next(&mut peers[0]);
    lost.asks = vec![ask(30), ask(90)];
    lost.entries = vec![Entry::Charge {
        limit: 0,
        stamp: 0,
        amount: 5,
    }];
    let missed = Missed {
        sequence: lost.sequence,
        entries: lost.entries.clone(),
        asks: vec![vec![30], vec![90]],
    };
    for arrives in [true, false] {
        let (mut bench, mut peer) = (bench.clone(), peers[0].clone());
        if arrives {
            assert_eq!(bench.send(&lost).granted, [true, false]);
        }
        bench.now += 300_000;
        let mut next = bench.next(&mut peer);
        next.missed = vec![missed.clone()];
        assert_eq!(bench.send(&next).totals, [5], "{arrives}");
        assert_eq!(bench.send(&next).totals, [5], "{arrives}");
        assert_eq!(bench.beat(&mut peer).totals, [5], "{arrives}");
        // And if it comes after all, it is too late.
        assert_eq!(bench.send(&lost).status, Status::Stale);
    }
}

#[test]
fn refunds_are_of_what_was_charged_then() {
    let (mut bench, mut peers) = Bench::with(100, 1);
    assert!(bench.gets(&mut peers[0], 50));
    let stamp = bench.now;
    bench.now += SECOND;
    assert!(bench.gets(&mut peers[0], 50));
    let refund = |amount| Entry::Refund {
        limit: 0,
        stamp,
        amount,
    };
    bench.tells(&mut peers[0], &[refund(20)]);
    bench.tells(&mut peers[0], &[refund(80)]);
    bench.beat(&mut peers[0]);
    assert_eq!(bench.beat(&mut peers[0]).totals, [50]);
}

#[test]
fn charges_of_the_past_and_of_others_count() {
    let (mut bench, mut peers) = Bench::with(100, 2);
    let stamp = bench.now - 3 * SECOND;
    let charge = |stamp, amount| Entry::Charge {
        limit: 0,
        stamp,
        amount,
    };
    let reply = bench.tells(
        &mut peers[0],
        &[charge(stamp, 40), charge(bench.now + 99 * SECOND, 10)],
    );
    assert_eq!(reply.totals, [50]);
    // Somebody else uses the account.
    assert_eq!(
        bench
            .tells(&mut peers[1], &[Entry::Used { limit: 0, amount: 70 }])
            .totals,
        [70]
    );
    bench.now = stamp + LIFE + WIDTH;
    bench.beats(&mut peers, SECOND);
    assert_eq!(bench.beat(&mut peers[0]).totals, [30]);
    // What counts no more is not charged.
    assert_eq!(bench.tells(&mut peers[0], &[charge(stamp, 40)]).totals, [30]);
}

#[test]
fn facts_reach_everybody_once() {
    let (mut bench, mut peers) = Bench::with(100, 2);
    let amount = Entry::Amount {
        limit: 0,
        amount: 60,
        source: 2,
    };
    let mut known = [0, 0];
    let mut tell = |bench: &mut Bench, peers: &mut [Peer], at: usize, entries: &[Entry]| {
        let reply = bench.sends(&mut peers[at], |call| {
            call.entries = entries.to_vec();
            call.facts = known[at];
        });
        known[at] = reply.facts_version;
        reply.facts.iter().map(|fact| fact.amount).collect::<Vec<_>>()
    };
    assert_eq!(tell(&mut bench, &mut peers, 0, &[amount]), [60]);
    assert_eq!(tell(&mut bench, &mut peers, 0, &[amount]), []);
    assert_eq!(tell(&mut bench, &mut peers, 1, &[]), [60]);
    assert_eq!(tell(&mut bench, &mut peers, 1, &[]), []);
    assert!(!bench.gets(&mut peers[1], 100) || bench.beat(&mut peers[1]).totals == [100]);
    // A lower amount holds, a higher one than the configuration's does not.
    assert!(!bench.gets(&mut peers[0], 1));
}

#[test]
fn a_pause_holds_everybody() {
    let (mut bench, mut peers) = Bench::with(100, 2);
    let until = bench.now + 5 * SECOND;
    bench.tells(&mut peers[0], &[Entry::Pause { until }]);
    let reply = bench.asks(&mut peers[1], &[ask(1)]);
    assert_eq!((reply.granted, reply.denial), (vec![false], Denial::Pause));
    assert_eq!((reply.paused_until, reply.wake_at), (until, until));
    bench.now = until;
    bench.beats(&mut peers, SECOND);
    assert!(bench.gets(&mut peers[1], 1));
}

#[test]
fn a_day_ends_for_everybody_at_once() {
    let mut bench = Bench::new(100);
    let day = 86_400 * SECOND;
    bench.limits[0] = Terms {
        name: LimitName::of(Dimension::Tokens, day),
        life: 2 * day,
        since: START - SECOND,
        ends: START + 60 * SECOND,
        ..terms(100)
    };
    let yesterday = bench.limits.clone();
    let mut peers = [Peer::new(1), Peer::new(2)];
    bench.beats(&mut peers, SECOND);
    assert!(bench.gets(&mut peers[0], 100));
    bench.beats(&mut peers, 30 * SECOND);
    let reply = bench.asks(&mut peers[1], &[ask(1)]);
    assert_eq!((reply.granted, reply.wake_at), (vec![false], START + 60 * SECOND));
    bench.beats(&mut peers, 30 * SECOND);
    bench.limits[0].since = START + 60 * SECOND;
    bench.limits[0].ends = START + day;
    assert!(bench.gets(&mut peers[0], 100));
    // One still lives in yesterday: nobody is told to come back in the past.
    let today = core::mem::replace(&mut bench.limits, yesterday);
    let reply = bench.asks(&mut peers[1], &[ask(1)]);
    assert_eq!((reply.granted, reply.wake_at), (vec![false], START + day));
    bench.limits = today;
}
