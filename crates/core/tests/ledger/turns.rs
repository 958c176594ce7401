//! Whose turn it is among the requests of all replicas, and who is told.

use super::*;
use tidegate_core::ledger::HEADS_MAX;

/// Two replicas, and a ledger that was full at a moment, so that all waits for that to expire.
fn full() -> (Bench, Vec<Peer>, u64) {
    let (mut bench, mut peers) = Bench::unshared(100, 2);
    assert!(bench.gets(&mut peers[0], 100));
    let free = (bench.now / WIDTH + 1) * WIDTH + LIFE;
    (bench, peers, free)
}

/// Lets time pass until a moment, with beats that keep everybody's requests in line.
fn wait(bench: &mut Bench, peers: &mut [Peer], asks: &[Vec<Ask>], until: u64) {
    while bench.now < until {
        for (peer, asks) in peers.iter_mut().zip(asks) {
            assert!(!bench.asks(peer, asks).granted.contains(&true));
        }
        bench.now = (bench.now + 300_000).min(until);
    }
}

#[test]
fn higher_tiers_go_first_wherever_they_wait() {
    let (mut bench, mut peers, free) = full();
    let asks = [vec![ask_of(2, 1, 1, 60)], vec![ask_of(0, 2, 2, 60)]];
    wait(&mut bench, &mut peers, &asks, free);
    let reply = bench.asks(&mut peers[0], &asks[0]);
    assert_eq!(reply.granted, [false]);
    assert_eq!(bench.wakenings, [], "its own answers have told it when");
    assert_eq!(bench.asks(&mut peers[1], &asks[1]).granted, [true]);
}

#[test]
fn equal_ones_go_in_the_order_in_which_they_came() {
    let (mut bench, mut peers, free) = full();
    let asks = [vec![ask_of(1, 1, 2, 60)], vec![ask_of(1, 1, 1, 60)]];
    wait(&mut bench, &mut peers, &asks, free);
    assert_eq!(bench.asks(&mut peers[0], &asks[0]).granted, [false]);
    assert_eq!(bench.asks(&mut peers[1], &asks[1]).granted, [true]);
}

#[test]
fn a_tenants_requests_go_in_the_order_in_which_they_came_wherever_they_wait() {
    // Four at the first replica came before four at the second, and one at the third between the third and the fourth.
    let (mut bench, mut peers) = Bench::unshared(100, 3);
    assert!(bench.gets(&mut peers[0], 100));
    let free = (bench.now / WIDTH + 1) * WIDTH + LIFE;
    let line = |arrivals: &[u64]| -> Vec<Ask> {
        let ask = |arrived: &u64| ask_of(1, 1, *arrived, 25);
        arrivals.iter().map(ask).collect()
    };
    // The first sends its youngest first, as a short one may be.
    let asks = [line(&[4, 1, 2]), line(&[10, 11, 12, 13]), line(&[3])];
    wait(&mut bench, &mut peers, &asks, free);
    let granted = |reply: Reply| reply.granted.iter().filter(|granted| **granted).count();
    assert_eq!(granted(bench.asks(&mut peers[1], &asks[1])), 0);
    assert_eq!(granted(bench.asks(&mut peers[2], &asks[2])), 1);
    assert_eq!(granted(bench.asks(&mut peers[0], &asks[0])), 3);
}

#[test]
fn a_tier_gets_the_share_that_is_guaranteed_to_it() {
    let (mut bench, mut peers) = Bench::unshared(1_100, 2);
    bench.fill(&mut peers[0]);
    let mut served = [0_u64; 4];
    for _ in 0..3_000 {
        for peer in &mut peers {
            let asks = [0, 0, 0, 2, 2, 2].map(|tier| ask_of(tier, 1, 0, 5));
            let reply = bench.sends(peer, |call| {
                call.asks = asks.to_vec();
                call.tiers = [0, 0, 20, 0];
            });
            for (ask, granted) in asks.iter().zip(reply.granted) {
                served[usize::from(ask.tier)] += u64::from(granted);
            }
        }
        bench.now += 50_000;
    }
    let share = served[2] * 100 / (served[0] + served[2]);
    assert!((18..=22).contains(&share), "{served:?}");
}

/// Serves tenants with these weights, in a backlog at each of three replicas, and returns what each was given.
fn serve(weights: [u64; 3], places: [&[usize]; 3]) -> [u64; 3] {
    let (mut bench, mut peers) = Bench::unshared(2_200, 3);
    bench.fill(&mut peers[0]);
    let mut served = [0_u64; 3];
    for round in 0..15_000_u64 {
        let at = usize::try_from(round % 3).expect("a small number");
        // As many as keep their place, in the order in which a replica would send them.
        let mut ahead = [0; 3];
        let asks: Vec<Ask> = (0..HEADS_MAX)
            .map(|nth| {
                let here = places[at].iter().copied();
                let tenant = here
                    .min_by_key(|tenant| ahead[*tenant])
                    .expect("somebody is there");
                let take = 3 + (round + nth as u64) % 5;
                let service = take * 8_192 / weights[tenant];
                ahead[tenant] += service;
                Ask {
                    service,
                    ..ask_of(1, tenant as u64, 0, take)
                }
            })
            .collect();
        let reply = bench.asks(&mut peers[at], &asks);
        for (ask, granted) in asks.iter().zip(reply.granted) {
            served[usize::try_from(ask.tenant).expect("a small number")] += u64::from(granted) * ask.take[0];
        }
        bench.now += 20_000;
    }
    served
}

#[test]
fn tenants_are_served_by_their_weights_however_they_are_spread() {
    let everywhere: &[usize] = &[0, 1, 2];
    for places in [
        [everywhere, everywhere, everywhere],
        [&[0, 1], &[0, 1, 2], &[1]],
        [&[0], &[1], &[2]],
        [everywhere, &[0], &[0]],
    ] {
        for weights in [[1, 1, 1], [1, 2, 5], [8, 1, 3]] {
            let served = serve(weights, places);
            let all: u64 = served.iter().sum();
            for (tenant, weight) in weights.iter().enumerate() {
                let due = all * weight / weights.iter().sum::<u64>();
                let off = served[tenant].abs_diff(due);
                assert!(off * 100 <= due * 3, "{served:?} by {weights:?} at {places:?}");
            }
        }
    }
}

#[test]
fn the_first_in_line_goes_no_later_for_anybody() {
    let (mut bench, mut peers) = Bench::unshared(100, 2);
    let begin = bench.now;
    for _ in 0..5 {
        assert!(bench.gets(&mut peers[0], 12));
        bench.now += SECOND;
    }
    // The large one fits when three of the five have expired.
    let large = [ask_of(1, 1, 1, 70)];
    let moment = bench.asks(&mut peers[0], &large).wake_at;
    assert_eq!(moment, begin + 2 * SECOND + LIFE + WIDTH);
    // Small ones of the other replica pass, as long as that moment stays.
    let mut passed = 0;
    while bench.now < moment {
        let small = ask_of(1, 1, 2, 4);
        passed += u64::from(bench.asks(&mut peers[1], &[small]).granted == [true]);
        let reply = bench.asks(&mut peers[0], &large);
        assert_eq!(reply.wake_at, moment, "after {passed} at {}", bench.now);
        bench.now = (bench.now + 100_000).min(moment);
    }
    assert!(passed >= 1);
    assert_eq!(bench.asks(&mut peers[1], &[ask_of(1, 1, 2, 30)]).granted, [false]);
    assert_eq!(bench.asks(&mut peers[0], &large).granted, [true]);
}

#[test]
fn nobody_new_goes_before_who_waits_elsewhere() {
    let (mut bench, mut peers, free) = full();
    let asks = [vec![ask_of(1, 1, 1, 100)], vec![]];
    wait(&mut bench, &mut peers, &asks, free);
    let reply = bench.asks(&mut peers[1], &[ask_of(1, 1, 2, 1)]);
    assert_eq!((reply.granted, reply.wake_at), (vec![false], 0));
    assert_eq!(bench.asks(&mut peers[0], &asks[0]).granted, [true]);
}

#[test]
fn freed_capacity_wakes_the_one_who_is_entitled_and_once() {
    let (mut bench, mut peers) = Bench::unshared(100, 3);
    assert!(bench.gets(&mut peers[0], 100));
    let stamp = bench.now;
    bench.asks(&mut peers[1], &[ask_of(1, 1, 1, 50)]);
    bench.asks(&mut peers[2], &[ask_of(1, 1, 2, 50)]);
    assert_eq!(bench.wakenings, []);
    let refund = |amount| Entry::Refund {
        limit: 0,
        stamp,
        amount,
    };
    bench.tells(&mut peers[0], &[refund(40)]);
    assert_eq!(bench.wakenings, [], "not enough for the first in line");
    bench.tells(&mut peers[0], &[refund(20)]);
    let woken = Wakening {
        replica: 2,
        at: bench.now,
    };
    // And the third is told for when something more expires.
    assert_eq!(bench.wakenings.first(), Some(&woken));
    assert!(bench.wakenings.iter().skip(1).all(|later| later.at > bench.now));
    bench.tells(&mut peers[0], &[refund(5)]);
    assert_eq!(bench.wakenings, [], "it was told");
    assert_eq!(bench.asks(&mut peers[1], &[ask_of(1, 1, 1, 50)]).granted, [true]);
    assert_eq!(bench.wakenings, [], "there is no room for the third");
    bench.tells(&mut peers[0], &[refund(100)]);
    let woken = Wakening {
        replica: 3,
        at: bench.now,
    };
    assert_eq!(bench.wakenings, [woken]);
}

#[test]
fn who_is_silent_or_gone_holds_up_nobody() {
    let (mut bench, mut peers, free) = full();
    bench.asks(&mut peers[0], &[ask_of(0, 1, 1, 100)]);
    let mut other = vec![peers.remove(1)];
    bench.now = free - 3 * SECOND;
    bench.beats(&mut other, 3 * SECOND);
    assert!(bench.gets(&mut other[0], 50));
    bench.asks(&mut peers[0], &[ask_of(0, 1, 1, 100)]);
    assert!(!bench.gets(&mut other[0], 10));
    bench.sends(&mut peers[0], |call| call.leaves = true);
    assert!(bench.gets(&mut other[0], 10));
}

#[test]
fn so_many_keep_their_place_and_no_more() {
    let (mut bench, mut peers, free) = full();
    let many: Vec<Ask> = (0..=HEADS_MAX as u64).map(|nth| ask_of(1, 1, nth, 6)).collect();
    wait(&mut bench, &mut peers, &[many.clone(), vec![]], free);
    // Sixteen of six are before it: what is left is for who comes now.
    assert_eq!(bench.asks(&mut peers[1], &[ask_of(2, 1, 99, 5)]).granted, [false]);
    assert_eq!(bench.asks(&mut peers[1], &[ask_of(2, 1, 99, 4)]).granted, [true]);
}

#[test]
fn a_flow_that_was_away_has_saved_up_nothing() {
    let (mut bench, mut peers) = Bench::unshared(100, 2);
    // The first tenant is served while others wait.
    for _ in 0..200 {
        bench.asks(&mut peers[0], &[ask_of(1, 1, 0, 5), ask_of(1, 3, 0, 5)]);
        bench.now += 300_000;
    }
    // The second begins where they are.
    let mut served = [0_u64; 2];
    for _ in 0..400 {
        for (at, peer) in peers.iter_mut().enumerate() {
            let asks = vec![ask_of(1, at as u64 + 1, 0, 5); 2];
            let granted = bench.asks(peer, &asks).granted;
            served[at] += granted.iter().filter(|granted| **granted).count() as u64;
        }
        bench.now += 100_000;
    }
    assert!(served[0].abs_diff(served[1]) <= 2, "{served:?}");
}

/// Three replicas: the first has used all, the second waits for 40 of 100, and the first gives 40 back.
fn refunded() -> (Bench, Vec<Peer>, Reply) {
    let (mut bench, mut peers) = Bench::with(100, 3);
    assert!(bench.gets(&mut peers[0], 100));
    let stamp = bench.now;
    bench.beats(&mut peers, SECOND);
    assert!(!bench.gets(&mut peers[1], 40));
    let amount = 40;
    let refund = Entry::Refund {
        limit: 0,
        stamp,
        amount,
    };
    let reply = bench.sends(&mut peers[0], |call| {
        (call.entries, call.wants_view) = (vec![refund], false);
    });
    (bench, peers, reply)
}

#[test]
fn what_is_refunded_is_another_s_as_soon_as_everybody_has_looked() {
    let (mut bench, mut peers, reply) = refunded();
    let now = bench.now;
    // Half is kept for those who may count on it, so the second does not fit.
    assert_eq!(reply.totals, [80]);
    let wakenings = [2, 3].map(|replica| Wakening { replica, at: now });
    assert_eq!(bench.wakenings, wakenings, "all others are to look");
    assert!(reply.view.is_some(), "the first has looked");
    assert_eq!(reply.wake_at, now, "and is to say so");
    let reply = bench.asks(&mut peers[1], &[ask(40)]);
    assert_eq!((reply.granted, reply.wake_at), (vec![false], now));
    assert!(!bench.gets(&mut peers[1], 40), "the others have not said so");
    let silent = |call: &mut Call| call.wants_view = false;
    assert_eq!(bench.sends(&mut peers[0], silent).wake_at, 0, "once is enough");
    let reply = bench.sends(&mut peers[2], silent);
    assert!(reply.view.is_some());
    assert_eq!((reply.wake_at, bench.wakenings.len()), (now, 0));
    bench.sends(&mut peers[2], silent);
    assert_eq!(bench.wakenings, wakenings[..1], "its turn has come");
    assert!(bench.gets(&mut peers[1], 40));
}

#[test]
fn everybody_is_asked_to_look_no_more_often_than_they_call_anyway() {
    let (mut bench, mut peers, _) = refunded();
    let looks = |bench: &Bench| bench.wakenings.iter().any(|wakening| wakening.replica == 3);
    let began = bench.now;
    let stamp = began - SECOND;
    let mut rounds = Vec::new();
    while bench.now < began + 2 * SECOND {
        // Nobody but the first looks, and it gives back more and more.
        bench.now += 50_000;
        let amount = 1;
        bench.tells(
            &mut peers[0],
            &[Entry::Refund {
                limit: 0,
                stamp,
                amount,
            }],
        );
        if looks(&bench) {
            rounds.push(bench.now - began);
        }
        if bench.now - began == 900_000 {
            bench.beat(&mut peers[2]);
            assert!(!bench.gets(&mut peers[1], 80));
        }
    }
    assert_eq!(rounds, [600_000]);
}

#[test]
fn nobody_is_asked_to_look_for_whom_that_is_not_enough() {
    let (mut bench, mut peers) = Bench::with(100, 2);
    assert!(bench.gets(&mut peers[0], 100));
    let stamp = bench.now;
    bench.beats(&mut peers, SECOND);
    assert!(!bench.gets(&mut peers[1], 41));
    let amount = 40;
    let reply = bench.tells(
        &mut peers[0],
        &[Entry::Refund {
            limit: 0,
            stamp,
            amount,
        }],
    );
    assert_eq!((reply.wake_at, reply.totals), (0, vec![80]));
    assert!(bench.wakenings.iter().all(|wakening| wakening.at > bench.now));
}
