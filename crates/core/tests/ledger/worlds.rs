//! Random worlds: whatever happens to replicas, network, server and clock, nothing is let through beyond a limit, and once it
//! is over everybody gets what they asked for.

use super::world::World;
use super::*;

/// Limits on tokens and on requests.
fn limits() -> Vec<Terms> {
    vec![
        terms(100),
        Terms {
            name: LimitName::of(Dimension::Requests, 4 * SECOND),
            life: 5 * SECOND,
            ..terms(12)
        },
    ]
}

fn ask_for(world: &mut World, at: usize) {
    let take = 1 + world.random.below(16);
    world.asked += 1;
    world.places[at].replica.queue.push(vec![take, 1]);
}

/// Which misfortunes a world knows.
#[derive(Clone, Copy, Debug)]
struct Faults {
    cuts: bool,
    crashes: bool,
    losses: bool,
    clocks: bool,
}

fn strike(world: &mut World, faults: Faults) {
    let count = world.places.len() as u64;
    let at = usize::try_from(world.random.below(count)).expect("a small number");
    let now = world.now;
    // Somebody has to be there who knows what is lost.
    let is_calm = |world: &World| world.places.iter().any(|place| place.is_in_touch(now));
    if now < world.steady_until {
        return;
    }
    let what = world.random.below(9);
    world.tell(|| format!("strike {what} at {}", world.places[at].replica.id));
    match what {
        0 | 1 if faults.cuts => {
            let most = if world.random.percent(30) { 30 } else { 5 };
            let until = now + world.random.below(most * SECOND);
            world.places[at].cut_until = until;
            world.places[at].cut_loses = world.random.percent(50);
        }
        2 if faults.cuts && world.random.percent(40) => {
            let until = now + world.random.below(12 * SECOND);
            let loses = world.random.percent(50);
            for place in &mut world.places {
                (place.cut_until, place.cut_loses) = (until, loses);
            }
        }
        3 if faults.cuts => world.frozen_until = now + world.random.below(5 * SECOND),
        4 if faults.crashes => world.crash(at),
        5 if faults.crashes => world.places[at].replica.leaving = true,
        6 if faults.losses && is_calm(world) => world.wipe(),
        7 if faults.losses && is_calm(world) => {
            world.fail_over();
            if faults.clocks {
                world.server_ahead = step(world);
            }
        }
        8 if faults.clocks && is_calm(world) => world.server_ahead = step(world),
        _ => {}
    }
}

fn step(world: &mut World) -> i64 {
    world.steady_until = world.now + 3 * SECOND;
    let size = [200_000, 1_000_000, 30_000_000, 3_600_000_000]
        [usize::try_from(world.random.below(4)).expect("a small number")];
    world.random.below(2 * size) as i64 - size as i64
}

/// Runs a world with faults, then without, and looks at what was used.
fn live(seed: u64, faults: Faults) -> World {
    let mut draw = super::world::Random(seed ^ 0xABCD);
    let replicas = 1 + usize::try_from(draw.below(8)).expect("a small number");
    let shares = [500_000, 1_000_000, 0, 250_000][usize::try_from(draw.below(4)).expect("a small number")];
    let mut world = World::new(seed, limits(), shares, replicas);
    world.refunds = draw.below(60);
    let (load, pace) = (1 + draw.below(20), 1 + draw.below(40));
    world.run(START + 6 * SECOND, |world| {
        if world.random.percent(load) {
            ask_for(world, 0);
        }
    });
    world.loss = draw.below(5);
    world.is_slow = draw.below(2) == 0;
    let end = world.now + 60 * SECOND;
    world.run(end, |world| {
        let at = usize::try_from(world.random.below(replicas as u64)).expect("a small number");
        if world.random.percent(load * 2) && world.places[at].replica.queue.len() < 20 {
            ask_for(world, at);
        }
        if world.random.below(1_000) < pace {
            strike(world, faults);
        }
    });
    (world.loss, world.is_slow, world.frozen_until) = (0, false, 0);
    for place in &mut world.places {
        place.cut_until = 0;
        place.replica.queue.truncate(1);
    }
    // Shares of those who crashed are kept until what they may have let in is over, and half of the limit is enough for all.
    let waiting = 16 * 3 * replicas as u64;
    let calm = world.now + SHARE_LIFE + 2 * LIFE + 2 * WINDOW + waiting * LIFE / 45;
    if shares <= 500_000 {
        world.run(calm, |_| {});
        for place in &world.places {
            assert!(
                place.replica.queue.is_empty(),
                "Liveness: seed {seed}, {faults:?}: {} wants {:?}\n{:?}\n{:?}",
                place.replica.id,
                place.replica.queue,
                place.replica,
                world.ledger,
            );
        }
    }
    world.check();
    world
}

/// Runs so many worlds, or as many times more as `TIDEGATE_LEDGER_WORLDS` says, or the one of `TIDEGATE_LEDGER_SEED`.
fn all(count: u64, faults: Faults) {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|value| value.parse::<u64>().ok())
    };
    let count = count * number("TIDEGATE_LEDGER_WORLDS").unwrap_or(1);
    let seeds = number("TIDEGATE_LEDGER_SEED").map_or(0..count, |first| first..first + 1);
    let used: u64 = seeds.map(|seed| live(seed, faults).used).sum();
    println!("{count} worlds with {faults:?}: {used} requests let through");
}

const NONE: Faults = Faults {
    cuts: false,
    crashes: false,
    losses: false,
    clocks: false,
};

#[test]
fn worlds_without_misfortune() {
    all(30, NONE);
}

#[test]
fn worlds_with_cuts() {
    all(40, Faults { cuts: true, ..NONE });
}

#[test]
fn worlds_with_crashes() {
    all(
        30,
        Faults {
            crashes: true,
            ..NONE
        },
    );
}

#[test]
fn worlds_with_cuts_and_crashes() {
    all(
        40,
        Faults {
            cuts: true,
            crashes: true,
            ..NONE
        },
    );
}

#[test]
fn worlds_with_losses() {
    all(30, Faults { losses: true, ..NONE });
}

#[test]
fn worlds_with_clocks() {
    all(30, Faults { clocks: true, ..NONE });
}

#[test]
fn worlds_with_everything() {
    all(
        60,
        Faults {
            cuts: true,
            crashes: true,
            losses: true,
            clocks: true,
        },
    );
}

#[test]
fn a_world_is_the_same_every_time() {
    let faults = Faults {
        cuts: true,
        crashes: true,
        losses: true,
        clocks: true,
    };
    for seed in 0..5 {
        let (one, other) = (live(seed, faults), live(seed, faults));
        assert_eq!(one.log, other.log, "{seed}");
        assert_eq!(one.ledger, other.ledger, "{seed}");
    }
}

/// A backlog at every replica uses all that a ledger with such lives of charges can let through.
#[test]
fn a_backlog_uses_the_limit() {
    for seed in 0..4 {
        let minute = vec![Terms {
            name: LimitName::of(Dimension::Tokens, 60 * SECOND),
            life: 61 * SECOND,
            ..terms(6_000)
        }];
        let mut world = World::new(seed, minute, 500_000, 4);
        let fill = |world: &mut World| {
            for at in 0..world.places.len() {
                while world.places[at].replica.queue.len() < 8 {
                    let take = 1 + world.random.below(40);
                    world.places[at].replica.queue.push(vec![take]);
                }
            }
        };
        world.run(START + 200 * SECOND, fill);
        let (begin, end) = (world.now - 61 * SECOND, world.now);
        let used: u64 = world
            .log
            .iter()
            .filter(|(at, _)| *at > begin && *at <= end)
            .map(|(_, used)| used[0])
            .sum();
        assert!(used * 100 >= 6_000 * 98, "seed {seed}: {used} of 6000");
        world.check();
    }
}
