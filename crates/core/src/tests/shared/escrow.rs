//! What replicas share of the limits and budgets of tenants and routes.

use super::*;
use crate::escrow::{Call, Reply};
use crate::snapshot::Owner;
use crate::{Budget, BudgetUnit, Period, RefusalReason, WaitReason};

/// A permit may be sent so long after it was given, in microseconds: what is exact about the permits is exact about what is
/// sent but for that.
const LATE: u64 = 100_000;

#[derive(Debug, Clone)]
pub(super) enum Event {
    Reach {
        node: usize,
        life: u32,
        number: u64,
        call: Call,
    },
    Return {
        node: usize,
        life: u32,
        number: u64,
        sequence: u64,
        reply: Reply,
    },
    Wakened {
        node: usize,
        owner: Owner,
    },
    Lost {
        node: usize,
        life: u32,
        number: u64,
    },
}

/// What carries the calls of one replica.
#[derive(Debug, Default)]
pub(super) struct Driver {
    waits_for: Option<u64>,
    numbers: u64,
    calls: u64,
}

impl Rig {
    /// Draws a number below `most`, where there is noise.
    fn draw(&mut self, most: u64) -> Option<u64> {
        let noise = self.noise.as_mut()?;
        *noise ^= *noise << 13;
        *noise ^= *noise >> 7;
        *noise ^= *noise << 17;
        Some((*noise >> 11) % most)
    }

    /// Sends something one way: once and soon, or, where there is noise, late, twice or not at all.
    fn send(&mut self, event: Event) {
        let times = match self.draw(100) {
            Some(0..8) => 0,
            Some(8..16) => 2,
            _ => 1,
        };
        for _ in 0..times {
            let way = match self.draw(100) {
                None => WAY,
                Some(0..80) => WAY + self.draw(2_000).unwrap_or(0),
                Some(80..98) => self.draw(1_500_000).unwrap_or(0),
                Some(_) => self.draw(20_000_000).unwrap_or(0),
            };
            self.after(way, super::Event::Escrow(event.clone()));
        }
    }

    pub(super) fn call_book(&mut self, number: usize) {
        let now = self.now;
        let node = &mut self.nodes[number];
        if !node.is_alive || node.book.waits_for.is_some() {
            return;
        }
        let call = if node.is_cut {
            None
        } else {
            let Some(call) = node.engine.escrow_call(at(now)) else {
                return;
            };
            node.book.calls += 1;
            Some(call)
        };
        node.book.numbers += 1;
        let (life, count) = (node.life, node.book.numbers);
        node.book.waits_for = Some(count);
        let lost = super::Event::Escrow(Event::Lost {
            node: number,
            life,
            number: count,
        });
        match call {
            Some(call) => {
                self.after(PATIENCE, lost);
                self.send(Event::Reach {
                    node: number,
                    life,
                    number: count,
                    call,
                });
            }
            None => self.after(AGAIN, lost),
        }
        self.drain(number);
    }

    pub(super) fn happen_in_escrow(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Reach {
                node,
                life,
                number,
                call,
            } => {
                let (reply, wakenings) = self.books.call(now.saturating_add_signed(self.clock), &call);
                for wakening in wakenings {
                    let mut nodes = self.nodes.iter();
                    let is_it = |node: &Node| node.is_alive && node.engine.process() == wakening.replica;
                    if let Some(node) = nodes.position(is_it) {
                        let owner = wakening.owner;
                        self.send(Event::Wakened { node, owner });
                    }
                }
                let sequence = call.sequence;
                self.send(Event::Return {
                    node,
                    life,
                    number,
                    sequence,
                    reply,
                });
            }
            Event::Return {
                node,
                life,
                number,
                sequence,
                reply,
            } => {
                let of = &mut self.nodes[node];
                if of.life != life || of.is_cut || !of.is_alive {
                    return;
                }
                of.engine.escrow_answer(at(now), sequence, &reply);
                if of.book.waits_for == Some(number) {
                    of.book.waits_for = None;
                    self.call_book(node);
                }
                self.drain(node);
            }
            Event::Wakened { node, owner } => {
                if self.nodes[node].is_alive && !self.nodes[node].is_cut {
                    self.nodes[node].engine.escrow_wakened(at(now), owner);
                    self.drain(node);
                }
            }
            Event::Lost { node, life, number } => {
                if self.nodes[node].life == life && self.nodes[node].book.waits_for == Some(number) {
                    self.nodes[node].book.waits_for = None;
                    self.call_book(node);
                }
            }
        }
    }
}

/// A tenant with limits of its own in a group that has room for all.
fn tenant(limits: Vec<Limit>, budgets: Vec<Budget>) -> Plan {
    let mut plan = shared(vec![limit(Dimension::Requests, 1_000_000)]);
    plan.tenants.push(TenantPlan {
        limits,
        budgets,
        ..TenantPlan::new("a")
    });
    plan
}

const OF_A: Ask = Ask { tenant: "a", ..ASK };

/// Requests at an even pace, each at a replica that is chosen for it.
fn arrive_evenly(rig: &mut Rig, per_minute: usize, minutes: usize, node: impl Fn(usize) -> usize, ask: Ask) {
    for number in 0..per_minute * minutes {
        let seconds = number as f64 * 60.0 / per_minute as f64;
        rig.arrive(node(number), seconds + 0.0123, ask);
    }
}

#[test]
fn a_tenants_limit_holds_over_all_replicas_and_is_used() {
    let few = Duration::from_secs(20);
    type Choice = fn(usize) -> usize;
    let choices: [(&str, Choice); 3] = [
        ("one after the other", |number| number % 3),
        ("all at one", |_| 1),
        ("each for ten minutes", |number| (number / 300) % 3),
    ];
    for (what, choice) in choices {
        let limits = vec![limit(Dimension::Requests, 10)];
        let mut rig = Rig::new(3, &tenant(limits, Vec::new()));
        let ask = Ask {
            patience: few,
            ..OF_A
        };
        arrive_evenly(&mut rig, 30, 30, choice, ask);
        rig.run(1_800.0);
        let most = rig.most_within(60_000_000 - LATE, |_| 1);
        assert!(most <= 10, "{what}: {most} in a minute");
        let used = rig.between(60.0, 1_800.0).len();
        assert!(used * 10 >= 29 * 95, "{what}: {used} in 29 minutes");
    }
}

#[test]
fn tokens_are_divided_whatever_requests_need() {
    let mut sums = Vec::new();
    for nodes in [1, 3] {
        let mut rig = Rig::new(nodes, &tenant(vec![limit(Dimension::Tokens, 1_000)], Vec::new()));
        for number in 0..900 {
            let tokens = [50, 1_000, 333, 700][number % 4];
            rig.arrive(number % nodes, number as f64 * 2.0, Ask { tokens, ..OF_A });
        }
        rig.run(1_800.0);
        let most = rig.most_within(60_000_000 - LATE, |used| used.tokens);
        assert!(most <= 1_000, "{most} in a minute");
        let used = rig.between(60.0, 1_800.0);
        let sum: u64 = used.iter().map(|used| used.tokens).sum();
        // One alone uses no more: a request for the whole limit waits until nothing is in use.
        sums.push(sum);
        for node in 0..nodes {
            assert!(used.iter().filter(|used| used.node == node).count() >= 10);
        }
    }
    assert!(sums[1] * 100 >= sums[0] * 90, "{sums:?}");
}

#[test]
fn more_tenants_than_one_call_may_speak_of_are_all_served() {
    let names: Vec<&'static str> = (0..300)
        .map(|number| &*alloc::format!("tenant-{number}").leak())
        .collect();
    let mut plan = tenant(Vec::new(), Vec::new());
    plan.tenants = names
        .iter()
        .map(|name| TenantPlan {
            limits: vec![limit(Dimension::Requests, 4)],
            ..TenantPlan::new(*name)
        })
        .collect();
    let mut rig = Rig::new(2, &plan);
    for (number, tenant) in names.iter().copied().cycle().take(6 * names.len()).enumerate() {
        rig.arrive(number % 2, 1.0, Ask { tenant, ..OF_A });
    }
    rig.run(50.0);
    for tenant in &names {
        let served = rig.uses.iter().filter(|used| used.tenant == *tenant).count();
        assert_eq!(served, 4, "{tenant}");
    }
}

#[test]
fn one_place_goes_round() {
    let mut rig = Rig::new(3, &tenant(vec![limit(Dimension::Concurrency, 1)], Vec::new()));
    for number in 0..600 {
        rig.arrive(number % 3, 0.0, OF_A);
    }
    rig.run(40.0);
    let mut turns = [0; 3];
    for pair in rig.uses.windows(2) {
        assert!(
            pair[1].at >= pair[0].at + OF_A.runs,
            "one after the other: {pair:?}"
        );
        turns[pair[0].node] += 1;
    }
    // Each runs for 50 ms, and goes on to another within a few.
    assert_eq!(rig.uses.len(), 600, "all in 40 s: {turns:?}");
    let middle = rig.between(3.0, 20.0);
    for node in 0..3 {
        let own = middle.iter().filter(|used| used.node == node).count();
        assert!(own * 4 >= middle.len(), "{own} of {}", middle.len());
    }
}

#[test]
fn the_usual_request_asks_nobody() {
    let mut rig = Rig::new(3, &tenant(vec![limit(Dimension::Requests, 600)], Vec::new()));
    arrive_evenly(&mut rig, 240, 5, |number| number % 3, OF_A);
    let mut waited = 0;
    for step in 0..3_000 {
        rig.run(f64::from(step) * 0.1);
        let store = rig.nodes.iter().filter(|node| !node.asks.is_empty());
        waited += store.count();
    }
    assert_eq!(rig.uses.len(), 240 * 5);
    assert!(waited <= 10, "{waited}");
    let calls: u64 = rig.nodes.iter().map(|node| node.book.calls).sum();
    assert!(calls <= 900, "{calls} calls for 1,200 requests");
}

#[test]
fn a_budget_is_one_for_all_and_spent_when_all_have_used_it() {
    let budget = Budget {
        unit: BudgetUnit::Tokens,
        period: Period::Month,
        amount: 5_000,
    };
    let mut rig = Rig::new(3, &tenant(Vec::new(), vec![budget]));
    for number in 0..200 {
        rig.arrive(number % 3, number as f64 * 0.2, Ask { tokens: 50, ..OF_A });
    }
    rig.run(120.0);
    let used: u64 = rig.uses.iter().map(|used| used.tokens).sum();
    assert_eq!(used, 5_000);
    assert_eq!(rig.refused.len(), 100);
    for (_, refusal) in &rig.refused {
        assert_eq!(refusal.reason, RefusalReason::BudgetSpent);
        let spent = refusal.spent.expect("it says of what");
        assert_eq!((spent.used, spent.most), (5_000, 5_000));
    }
}

#[test]
fn what_a_killed_replica_had_is_kept_and_then_free() {
    let mut rig = Rig::new(3, &tenant(vec![limit(Dimension::Requests, 10)], Vec::new()));
    let ask = Ask {
        patience: Duration::from_secs(20),
        ..OF_A
    };
    arrive_evenly(&mut rig, 60, 20, |number| number % 3, ask);
    rig.befall(303.0, Deed::Kill(2));
    rig.run(1_200.0);
    assert!(rig.most_within(60_000_000 - LATE, |_| 1) <= 10);
    let after = rig.between(450.0, 1_200.0).len();
    assert!(after * 60 * 100 >= 10 * 750 * 95, "{after} in 750 s by two");
}

#[test]
fn who_leaves_gives_back_at_once_what_it_does_not_use() {
    let mut rig = Rig::new(2, &tenant(vec![limit(Dimension::Requests, 10)], Vec::new()));
    for number in 0..4 {
        rig.arrive(0, f64::from(number), OF_A);
    }
    rig.befall(5.0, Deed::Leave(0));
    for _ in 0..12 {
        rig.arrive(1, 6.0, OF_A);
    }
    rig.run(10.0);
    assert_eq!(rig.uses.len(), 10, "all that the other has not used");
    rig.run(200.0);
    assert!(rig.most_within(60_000_000 - LATE, |_| 1) <= 10);
    assert_eq!(rig.uses.len(), 16);
}

#[test]
fn who_is_cut_off_uses_what_it_has_until_its_time_is_over() {
    let mut rig = Rig::new(3, &tenant(vec![limit(Dimension::Requests, 12)], Vec::new()));
    arrive_evenly(&mut rig, 60, 20, |number| number % 3, OF_A);
    rig.befall(303.0, Deed::Cut(2));
    rig.befall(700.0, Deed::Join(2));
    rig.run(1_200.0);
    assert!(rig.most_within(60_000_000 - LATE, |_| 1) <= 12);
    let of_two = |rig: &Rig, from, to| rig.between(from, to).iter().filter(|used| used.node == 2).count();
    assert_eq!(of_two(&rig, 352.0, 700.0), 0, "its time is over");
    let after = rig.between(450.0, 700.0).len();
    assert!(after * 60 * 100 >= 12 * 250 * 95, "{after} in 250 s by two");
    assert!(of_two(&rig, 720.0, 1_200.0) >= 20, "it is back");
}

#[test]
fn nobody_uses_anything_without_the_store_where_that_is_closed() {
    let mut plan = tenant(vec![limit(Dimension::Requests, 100)], Vec::new());
    if let Some(shared) = &mut plan.shared {
        shared.share = 0;
    }
    let mut rig = Rig::new(2, &plan);
    arrive_evenly(&mut rig, 60, 3, |number| number % 2, OF_A);
    rig.befall(60.0, Deed::Freeze);
    rig.befall(120.0, Deed::Thaw);
    rig.run(180.0);
    assert!(rig.between(62.1, 120.0).is_empty());
    assert!(rig.between(0.0, 60.0).len() >= 59);
    assert!(rig.most_within(60_000_000 - LATE, |_| 1) <= 100);
}

#[test]
fn a_request_larger_than_its_part_waits_and_one_larger_than_the_limit_never_goes() {
    let mut rig = Rig::new(2, &tenant(vec![limit(Dimension::Tokens, 100)], Vec::new()));
    let of = |tokens| Ask { tokens, ..OF_A };
    rig.arrive(0, 0.0, of(101));
    rig.arrive(1, 0.0, of(10));
    rig.arrive(0, 1.0, of(90));
    rig.run(0.5);
    assert_eq!(rig.refused.len(), 1);
    assert_eq!(rig.refused[0].1.reason, RefusalReason::NeverFits);
    rig.run(1.000_05);
    let shot = rig.snapshot(0);
    let first = shot.first_waiting.first().expect("it waits");
    assert!(matches!(first.reason, WaitReason::Tenant(_)), "{first:?}");
    // Whoever joins the group's ledger waits for half a second.
    rig.run(2.0);
    assert_eq!(rig.uses.len(), 2);
    let own = rig.nodes[0].engine.snapshot(at(rig.now)).allowances[0].clone();
    assert_eq!(own.limits[0].limit.amount, 100);
    assert_eq!(own.escrow.expect("it has a part").limits[0].value(), 90);
}

/// Whatever is lost, late or doubled, and whoever ends, is cut off or leaves: never is more in use than the limits allow.
#[test]
fn nothing_is_used_twice_whatever_happens_to_messages_and_replicas() {
    let mut all = 0;
    for seed in 1..=40_u64 {
        let limits = vec![
            limit(Dimension::Requests, [1, 5, 12, 40][seed as usize % 4]),
            limit(Dimension::Tokens, 700),
        ];
        let mut rig = Rig::new(3 + seed as usize % 2, &tenant(limits.clone(), Vec::new()));
        rig.noise = Some(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let patience = Duration::from_secs(30);
        let mut at = 0.0;
        while at < 900.0 {
            at += rig.draw(2_000_000).unwrap_or(0) as f64 / 1e6;
            let node = rig.draw(4).unwrap_or(0) as usize % rig.nodes.len();
            let tokens = 1 + rig.draw(if seed % 3 == 0 { 60 } else { 400 }).unwrap_or(0);
            rig.arrive(
                node,
                at,
                Ask {
                    tokens,
                    patience,
                    ..OF_A
                },
            );
            match rig.draw(300) {
                Some(0) => {
                    let until = at + rig.draw(150).unwrap_or(0) as f64;
                    rig.befall(at, Deed::Cut(node));
                    rig.befall(until, Deed::Join(node));
                }
                Some(1) if node == 0 => rig.befall(at, Deed::Kill(0)),
                Some(2) => rig.befall(at, Deed::Leave(node)),
                Some(3) => {
                    let step = rig.draw(20_000_000).unwrap_or(0) as i64 - 10_000_000;
                    rig.befall(at, Deed::Step(step));
                }
                _ => {}
            }
        }
        rig.run(1_000.0);
        let most = rig.most_within(60_000_000 - LATE, |_| 1);
        assert!(most <= limits[0].amount.get(), "seed {seed}: {most} requests");
        let most = rig.most_within(60_000_000 - LATE, |used| used.tokens);
        assert!(most <= 700, "seed {seed}: {most} tokens");
        all += rig.uses.len();
    }
    assert!(all > 3_000, "{all}");
}

#[test]
fn what_a_book_keeps_is_not_recalled_besides() {
    let budget = Budget {
        unit: BudgetUnit::Tokens,
        period: Period::Month,
        amount: 100,
    };
    let plan = tenant(vec![limit(Dimension::Requests, 10)], vec![budget]);
    let mut rig = Rig::new(1, &plan);
    rig.arrive(0, 0.0, OF_A);
    rig.run(2.0);
    assert_eq!(rig.uses.len(), 1);
    let memory = rig.nodes[0].engine.remember(at(rig.now));
    assert_eq!(memory.allowances.len(), 1);
    let mut alone = Engine::new(
        at(rig.now),
        Plan {
            shared: None,
            ..plan.clone()
        },
        1,
    );
    let mut shared = Engine::new(at(rig.now), plan, 1);
    for (engine, own) in [(&mut alone, 1), (&mut shared, 0)] {
        engine
            .recall(at(rig.now), &memory)
            .expect("it is of this version");
        assert_eq!(engine.snapshot(at(rig.now)).allowances.len(), own);
    }
}
