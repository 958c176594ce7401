//! What is remembered has a bound, whatever comes, and so has what is reckoned.

use super::*;

#[test]
fn what_was_seen_by_a_clock_that_was_ahead_counts_no_longer_than_a_life() {
    let (mut bench, mut peers) = Bench::unshared(100, 1);
    bench.ledger = Ledger::new();
    let peer = &mut peers[0];
    let lost = bench.beat(peer);
    (peer.epoch, peer.sequence) = (lost.epoch, 0);
    // A day ahead, and a moment that no clock shows.
    let slot = |moment: u64| moment / WIDTH / 10;
    let seen = vec![
        (0, slot(bench.now + 86_400 * SECOND), 30),
        (0, u64::MAX / WIDTH, 20),
    ];
    let names = vec![peer.id];
    bench.sends(peer, |call| {
        call.seed = Some(Seed {
            own: Vec::new(),
            seen,
            names,
        });
    });
    bench.now += 1_100_000;
    let reply = bench.beat(peer);
    assert_eq!((reply.status, reply.totals), (Status::Open, vec![50]));
    bench.beats(&mut peers, LIFE + SECOND);
    assert_eq!(bench.beat(&mut peers[0]).totals, [0]);
}

#[test]
fn the_last_to_come_of_very_many_tenants_is_not_remembered() {
    let (mut bench, mut peers) = Bench::unshared(1 << 40, 1);
    // Tenant 0 stays where it is, so all others are ahead of it.
    for first in (1..1_101_u64).step_by(50) {
        let tenants = (first..first + 50).chain([0]);
        let asks: Vec<Ask> = tenants
            .map(|tenant| ask_of(1, tenant, 0, if tenant == 0 { 1 << 41 } else { 8 }))
            .collect();
        bench.asks(&mut peers[0], &asks);
    }
    let known = |bench: &mut Bench, peers: &mut [Peer], tenant: u64| {
        let reply = bench.sends(&mut peers[0], |call| {
            call.asks = vec![ask_of(1, tenant, 0, 1 << 42)];
        });
        reply.tags[0] > 0
    };
    assert!(known(&mut bench, &mut peers, 1_000));
    assert!(!known(&mut bench, &mut peers, 1_100));
}

#[test]
fn shares_of_the_largest_amounts_are_reckoned() {
    let amount = 1 << 52;
    let (mut bench, mut peers) = Bench::with(amount, 2);
    assert!(bench.gets(&mut peers[0], amount / 2));
    bench.beats(&mut peers, SECOND);
    bench.now += 2 * SECOND;
    // The other is silent now, and its quarter of what it saw is kept for it.
    assert_eq!(bench.beat(&mut peers[1]).totals, [amount / 2 + amount / 4]);
}
