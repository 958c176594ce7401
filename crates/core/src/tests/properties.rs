//! Properties against a naive exact log.

use proptest::prelude::*;

use super::*;
use crate::window::{Bucket, Rolling};
use crate::{Bytes, Failure, Outcome, Usage};

/// Every charge with its stamp, kept for ever.
#[derive(Default)]
struct Log(Vec<(u64, u64)>);

impl Log {
    fn sum_after(&self, from: u64) -> u64 {
        self.0
            .iter()
            .filter(|(stamp, _)| *stamp > from)
            .map(|(_, amount)| amount)
            .sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// The ring never forgets what the exact log still counts, and never remembers it longer than one bucket more.
    #[test]
    fn the_ring_errs_on_the_safe_side_by_at_most_a_bucket(
        window in prop_oneof![Just(1_000_000_u64), Just(10_000_000), Just(60_000_000), 1_000_u64..200_000_000],
        margin in 0_u64..2_000_000,
        steps in prop::collection::vec((0_u64..20_000_000, 0_u64..1_000), 1..200),
    ) {
        let mut now = 5_000_000_000;
        let mut ring = Rolling::new(now, window, margin, margin);
        let mut log = Log::default();
        let window = window.max(1_000);
        let bucket = (window / 600).max(1_000);
        let life = ring.life();
        for (pause, amount) in steps {
            now += pause;
            ring.advance(now);
            let least = log.sum_after(now - life);
            let most = log.sum_after(now - life - bucket - 1);
            prop_assert!(ring.live() >= least && ring.live() <= most, "{} not in {least}..={most}", ring.live());
            if let Some(at) = ring.freed_at(ring.live()) {
                prop_assert!(ring.live() == 0 || (at > now && at <= now + life + bucket));
            }
            ring.charge(amount);
            log.0.push((now, amount));
        }
    }

    /// Whatever is taken, a bucket's level follows the exact integral.
    #[test]
    fn the_bucket_refills_exactly(
        amount in 1_u64..1_000_000, window in 1_000_u64..100_000_000,
        steps in prop::collection::vec((0_u64..10_000_000, 0_u64..1_000), 1..100),
    ) {
        let mut now = 77;
        let mut bucket = Bucket::full(now, amount, window, amount);
        for (pause, taken) in steps {
            now += pause;
            bucket.advance(now);
            let ready = bucket.ready_at(taken);
            let mut then = bucket.clone();
            then.advance(ready);
            if taken <= amount {
                prop_assert!(then.level() >= i64::try_from(taken).unwrap());
            }
            if ready > now {
                let mut before = bucket.clone();
                before.advance(ready - 1);
                prop_assert!(before.level() < i64::try_from(taken).unwrap(), "ready_at is the first moment");
            }
            bucket.take(taken);
        }
    }

    /// No rolling window of the provider, of exact charges stamped with any delay up to the margin, exceeds the limit;
    /// and the same calls give the same answers.
    #[test]
    fn no_window_of_the_provider_exceeds_the_limit(ops in prop::collection::vec(op(), 1..300), tokens in 50_u64..5_000) {
        let run = || drive(&ops, tokens);
        let (stamps, trace) = run();
        let (_, again) = run();
        prop_assert_eq!(&trace, &again, "two runs of one history differ");
        for (dimension, most) in [(0, 20), (1, tokens)] {
            let mut charges: Vec<(u64, u64)> = stamps.iter().map(|(stamp, charge)| (*stamp, charge[dimension])).collect();
            charges.sort_unstable();
            let mut first = 0;
            let mut sum = 0;
            for (at, amount) in &charges {
                sum += amount;
                while charges[first].0 + 60_000_000 <= *at {
                    sum -= charges[first].1;
                    first += 1;
                }
                prop_assert!(sum <= most, "{sum} of {most} in the window that ends at {at}");
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Ask { tokens: u64, patience: u64 },
    Sleep(u64),
    Settle(usize),
    NotSent(usize),
    Fail(usize, bool),
    Cancel(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1_u64..2_000, 0_u64..200_000_000).prop_map(|(tokens, patience)| Op::Ask { tokens, patience }),
        3 => (0_u64..15_000_000).prop_map(Op::Sleep),
        2 => any::<usize>().prop_map(Op::Settle),
        1 => any::<usize>().prop_map(Op::NotSent),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(which, sent)| Op::Fail(which, sent)),
        1 => any::<usize>().prop_map(Op::Cancel),
    ]
}

/// A provider that stamps each request up to a second after us, in a fixed pattern.
#[derive(Default)]
struct Provider {
    stamps: Vec<(u64, [u64; 2])>,
    delay: u64,
}

/// A request under way: its permit, its tokens, and its place among the stamps.
type Running = (crate::PermitId, u64, usize);

impl Provider {
    fn send(&mut self, now: Timestamp, permit: crate::PermitId, tokens: u64) -> Running {
        self.delay = (self.delay * 7 + 311_357) % 1_000_000;
        self.stamps.push((now.as_micros() + self.delay, [1, tokens]));
        (permit, tokens, self.stamps.len() - 1)
    }

    /// Forgets one that was never sent.
    fn forget(&mut self, stamp: usize) {
        self.stamps[stamp].1 = [0, 0];
    }
}

/// Runs a history; returns what the provider stamped and a trace.
fn drive(ops: &[Op], tokens: u64) -> (Vec<(u64, [u64; 2])>, Vec<alloc::string::String>) {
    let mut world = World::new(plan(vec![
        limit(Dimension::Requests, 20),
        limit(Dimension::Tokens, tokens),
    ]));
    let mut provider = Provider::default();
    let mut running: Vec<Running> = Vec::new();
    let mut waiting: Vec<(crate::TicketId, u64)> = Vec::new();
    let mut trace = Vec::new();
    for op in ops {
        match op {
            Op::Ask { tokens, patience } => {
                let demand = Demand::input_only(Tokens::new(*tokens));
                let decision = world.submit(demand, Duration::from_micros(*patience));
                trace.push(alloc::format!("{decision:?}"));
                match decision {
                    Decision::Admit(permit) => running.push(provider.send(world.now, permit.id, *tokens)),
                    Decision::Wait(ticket) => waiting.push((ticket.id, *tokens)),
                    Decision::Refuse(_) => {}
                }
            }
            Op::Sleep(pause) => world.now = world.now + Duration::from_micros(*pause),
            Op::Settle(which) if !running.is_empty() => {
                let (id, ..) = running.swap_remove(which % running.len());
                world
                    .engine
                    .settle(world.now, id, Outcome::Completed(Usage::default()));
            }
            Op::NotSent(which) if !running.is_empty() => {
                let (id, _, stamp) = running.swap_remove(which % running.len());
                provider.forget(stamp);
                world.engine.settle(world.now, id, Outcome::NotSent);
            }
            Op::Fail(which, sent) if !running.is_empty() => {
                let (id, tokens, stamp) = running.swap_remove(which % running.len());
                if !sent {
                    provider.forget(stamp);
                }
                let decision = world
                    .engine
                    .retry(world.now, id, Failure::Transient { sent: *sent });
                trace.push(alloc::format!("{decision:?}"));
                if let Decision::Wait(ticket) = decision {
                    waiting.push((ticket.id, tokens));
                }
            }
            Op::Cancel(which) if !waiting.is_empty() => {
                let (id, _) = waiting.swap_remove(which % waiting.len());
                world.engine.cancel(world.now, id);
            }
            Op::Settle(_) | Op::NotSent(_) | Op::Fail(..) | Op::Cancel(_) => {}
        }
        world.engine.handle_timeout(world.now);
        for output in world.outputs() {
            trace.push(alloc::format!("{output:?}"));
            match output {
                Output::Admit { ticket, permit } => {
                    let at = waiting
                        .iter()
                        .position(|(id, _)| *id == ticket)
                        .expect("only those who wait are admitted");
                    let (_, tokens) = waiting.swap_remove(at);
                    running.push(provider.send(world.now, permit.id, tokens));
                }
                Output::Refuse { ticket, .. } => waiting.retain(|(id, _)| *id != ticket),
                Output::Notice { .. } | Output::Call { .. } | Output::CallEscrow => {}
            }
        }
    }
    let snapshot = world.engine.snapshot(world.now);
    let bytes = snapshot
        .quotas
        .iter()
        .map(|quota| quota.waiting_bytes)
        .sum::<Bytes>();
    assert_eq!(bytes, snapshot.waiting_bytes);
    assert_eq!(
        bytes.value(),
        100 * waiting.len() as u64,
        "everyone who waits is counted, nobody else"
    );
    (provider.stamps, trace)
}
