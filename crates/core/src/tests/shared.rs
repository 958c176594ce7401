//! Engines of several replicas on one ledger, in virtual time: a driver of each, and the way between them.

mod crowd;
mod escrow;
mod loss;
mod together;

use alloc::collections::{BTreeMap, BinaryHeap};
use core::cmp::Reverse;

use super::*;
use crate::escrow::Books;
use crate::ledger::{Call, CallKey, Ledger, Reply};
use crate::{
    Caller, Outcome, PermitId, Priority, QuotaSnapshot, Refusal, SharedPlan, Standing, TenantId, TenantPlan,
    TicketId, Usage,
};

/// The usual way from a replica to the ledger, in microseconds.
const WAY: u64 = 100;
/// A driver takes a call without an answer for lost after this, in microseconds.
const PATIENCE: u64 = 1_000_000;
/// A driver whose call was lost tries again after this, in microseconds.
const AGAIN: u64 = 100_000;

fn at(moment: u64) -> Timestamp {
    Timestamp::from_micros(moment)
}

#[derive(Debug, Clone)]
enum Event {
    Arrive {
        node: usize,
        ask: Ask,
    },
    Reach {
        node: usize,
        life: u32,
        call: Call,
    },
    Return {
        node: usize,
        life: u32,
        key: CallKey,
        reply: Reply,
    },
    Wakened {
        node: usize,
        replica: u64,
        at: u64,
    },
    Lost {
        node: usize,
        life: u32,
        number: u64,
    },
    End {
        node: usize,
        life: u32,
        permit: PermitId,
        outcome: Outcome,
    },
    Escrow(escrow::Event),
    Do(Deed),
}

/// What befalls the world.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Cut(usize),
    Join(usize),
    Kill(usize),
    Leave(usize),
    Freeze,
    Thaw,
    Wipe,
    Step(i64),
}

/// A request: of whom, how large, how long it runs and waits.
#[derive(Debug, Clone, Copy)]
struct Ask {
    tenant: &'static str,
    priority: Priority,
    tokens: u64,
    /// How many of them it turns out not to need.
    spares: u64,
    runs: u64,
    patience: Duration,
}

const ASK: Ask = Ask {
    tenant: "",
    priority: Priority::Normal,
    tokens: 10,
    spares: 0,
    runs: 50_000,
    patience: Duration::from_secs(3_600),
};

struct Node {
    engine: Engine,
    is_alive: bool,
    is_cut: bool,
    life: u32,
    /// The number of the call whose answer the driver waits for.
    waits_for: Option<u64>,
    calls: u64,
    numbers: u64,
    asks: BTreeMap<TicketId, Ask>,
    standings: Vec<Standing>,
    book: escrow::Driver,
}

/// When somebody came who had to wait, was expected to go, and went.
#[derive(Debug, Clone, Copy)]
struct Turn {
    who: (usize, &'static str),
    came: u64,
    expected: u64,
    went: Option<u64>,
}

/// One use of the quota.
#[derive(Debug, Clone, Copy)]
struct Use {
    node: usize,
    tenant: &'static str,
    priority: Priority,
    at: u64,
    tokens: u64,
}

struct Rig {
    now: u64,
    ledger: Ledger,
    books: Books,
    nodes: Vec<Node>,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    details: BTreeMap<u64, Event>,
    count: u64,
    uses: Vec<Use>,
    refused: Vec<(usize, Refusal)>,
    /// What was expected of those who waited, and what came of it.
    turns: BTreeMap<(usize, TicketId), Turn>,
    is_frozen: bool,
    held: Vec<Event>,
    clock: i64,
    /// From a replica to the ledger, one way, in microseconds.
    way: u64,
    server_calls: u64,
    /// Whether the provider's answers tell how many of 600 requests are left, all but those of the last minute.
    tells: bool,
    /// Whether calls to the book, and its answers, are lost, late and doubled: by this number, which changes each time.
    noise: Option<u64>,
}

impl Rig {
    fn new(nodes: usize, plan: &Plan) -> Self {
        let engine = |node: usize| Engine::new(START, plan.clone(), 100 + node as u64);
        let node = |number: usize| Node {
            engine: engine(number),
            is_alive: true,
            is_cut: false,
            life: 0,
            waits_for: None,
            calls: 0,
            numbers: 0,
            asks: BTreeMap::new(),
            standings: Vec::new(),
            book: escrow::Driver::default(),
        };
        Self {
            now: START.as_micros(),
            ledger: Ledger::new(),
            books: Books::new(),
            nodes: (0..nodes).map(node).collect(),
            events: BinaryHeap::new(),
            details: BTreeMap::new(),
            count: 0,
            uses: Vec::new(),
            refused: Vec::new(),
            turns: BTreeMap::new(),
            is_frozen: false,
            held: Vec::new(),
            clock: 0,
            way: WAY,
            server_calls: 0,
            tells: false,
            noise: None,
        }
    }

    fn at(&mut self, moment: u64, event: Event) {
        self.count += 1;
        self.details.insert(self.count, event);
        self.events.push(Reverse((moment, self.count)));
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    fn arrive(&mut self, node: usize, seconds: f64, ask: Ask) {
        let moment = START.as_micros() + (seconds * 1e6) as u64;
        self.at(moment, Event::Arrive { node, ask });
    }

    fn befall(&mut self, seconds: f64, deed: Deed) {
        let moment = START.as_micros() + (seconds * 1e6) as u64;
        self.at(moment, Event::Do(deed));
    }

    fn run(&mut self, seconds: f64) {
        let end = START.as_micros() + (seconds * 1e6) as u64;
        let (mut last, mut turns) = (0, 0);
        loop {
            turns = if self.now == last { turns + 1 } else { 0 };
            last = self.now;
            if turns > 100_000 {
                let shot = self.snapshot(0);
                panic!(
                    "nothing goes on at {}: {:?} {:?} {:?}",
                    self.now,
                    shot.store,
                    shot.limits,
                    self.nodes[0].engine.poll_timeout()
                );
            }
            let event = self.events.peek().map(|Reverse((moment, _))| *moment);
            let timeouts = self.nodes.iter().filter(|node| node.is_alive);
            let timeout = timeouts
                .filter_map(|node| node.engine.poll_timeout())
                .map(|(at, _)| at.as_micros())
                .min();
            let Some(next) = event.into_iter().chain(timeout).min() else {
                break;
            };
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            if event == Some(next) {
                let Some(Reverse((_, number))) = self.events.pop() else {
                    break;
                };
                if let Some(event) = self.details.remove(&number) {
                    self.happen(event);
                }
                continue;
            }
            for number in 0..self.nodes.len() {
                let node = &mut self.nodes[number];
                if node.is_alive
                    && node
                        .engine
                        .poll_timeout()
                        .is_some_and(|(at, _)| at.as_micros() <= self.now)
                {
                    node.engine.handle_timeout(at(self.now));
                    self.drain(number);
                }
            }
        }
        self.now = end;
    }

    #[allow(clippy::too_many_lines, reason = "one arm for everything that happens")]
    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Arrive { node, ask } => {
                if !self.nodes[node].is_alive {
                    return;
                }
                let deadline = at(now) + ask.patience;
                let request = Request {
                    caller: Caller {
                        tenant: if ask.tenant.is_empty() {
                            TenantId::ANYONE
                        } else {
                            TenantId::of(ask.tenant)
                        },
                        priority: ask.priority,
                        ..Caller::default()
                    },
                    ..Request::new(
                        QuotaKey::named(QUOTA),
                        Demand::input_only(Tokens::new(ask.tokens)),
                        deadline,
                    )
                };
                match self.nodes[node].engine.submit(at(now), request) {
                    Decision::Admit(permit) => self.sent(node, ask, permit),
                    Decision::Wait(ticket) => {
                        let turn = Turn {
                            who: (node, ask.tenant),
                            came: now,
                            expected: ticket.eta.as_micros(),
                            went: None,
                        };
                        self.turns.insert((node, ticket.id), turn);
                        self.nodes[node].asks.insert(ticket.id, ask);
                    }
                    Decision::Refuse(refusal) => self.refused.push((node, refusal)),
                }
                self.drain(node);
            }
            Event::Reach { .. } | Event::Escrow(escrow::Event::Reach { .. }) if self.is_frozen => {
                self.held.push(event);
            }
            Event::Reach { node, life, call } => {
                self.server_calls += 1;
                let (reply, wakenings) = self.ledger.call(now.saturating_add_signed(self.clock), &call);
                for wakening in wakenings {
                    let to = self
                        .nodes
                        .iter()
                        .position(|node| node.is_alive && node.engine.process() == wakening.replica / 4_096);
                    if let Some(node) = to {
                        let (replica, at) = (wakening.replica, wakening.at);
                        self.after(self.way, Event::Wakened { node, replica, at });
                    }
                }
                let key = call.key();
                self.after(
                    self.way,
                    Event::Return {
                        node,
                        life,
                        key,
                        reply,
                    },
                );
            }
            Event::Return {
                node,
                life,
                key,
                reply,
            } => {
                if self.nodes[node].life != life || self.nodes[node].is_cut || !self.nodes[node].is_alive {
                    return;
                }
                self.nodes[node].waits_for = None;
                self.nodes[node]
                    .engine
                    .answer(at(now), QuotaKey::named(QUOTA), key, &reply);
                self.drain(node);
            }
            Event::Wakened {
                node,
                replica,
                at: moment,
            } => {
                if self.nodes[node].is_alive && !self.nodes[node].is_cut {
                    self.nodes[node]
                        .engine
                        .wakened(at(now), QuotaKey::named(QUOTA), replica, moment);
                    self.drain(node);
                }
            }
            Event::Lost { node, life, number } => {
                if self.nodes[node].life == life && self.nodes[node].waits_for == Some(number) {
                    self.nodes[node].waits_for = None;
                    self.call(node);
                }
            }
            Event::End {
                node,
                life,
                permit,
                outcome,
            } => {
                if self.nodes[node].life == life && self.nodes[node].is_alive {
                    self.nodes[node].engine.settle(at(now), permit, outcome);
                    self.drain(node);
                }
            }
            Event::Escrow(event) => self.happen_in_escrow(event),
            Event::Do(deed) => self.befallen(deed),
        }
    }

    fn befallen(&mut self, deed: Deed) {
        match deed {
            Deed::Cut(node) => self.nodes[node].is_cut = true,
            Deed::Join(node) => self.nodes[node].is_cut = false,
            Deed::Kill(node) => {
                self.nodes[node].is_alive = false;
                self.nodes[node].life += 1;
            }
            Deed::Leave(node) => {
                self.nodes[node].engine.leave(at(self.now));
                self.drain(node);
            }
            Deed::Freeze => self.is_frozen = true,
            Deed::Thaw => {
                self.is_frozen = false;
                for event in core::mem::take(&mut self.held) {
                    self.happen(event);
                }
            }
            Deed::Wipe => {
                self.ledger = Ledger::new();
                self.books = Books::new();
            }
            Deed::Step(by) => self.clock += by,
        }
    }

    fn drain(&mut self, number: usize) {
        while let Some(output) = self.nodes[number].engine.poll_output() {
            match output {
                Output::Admit { ticket, permit } => {
                    let ask = self.nodes[number]
                        .asks
                        .remove(&ticket)
                        .expect("only who waits is let in");
                    let now = self.now;
                    self.turns
                        .entry((number, ticket))
                        .and_modify(|turn| turn.went = Some(now));
                    self.sent(number, ask, permit);
                }
                Output::Refuse { ticket, refusal } => {
                    self.nodes[number].asks.remove(&ticket);
                    self.refused.push((number, refusal));
                }
                Output::Call { .. } => {
                    if self.nodes[number].waits_for.is_none() {
                        self.call(number);
                    }
                }
                Output::CallEscrow => self.call_book(number),
                Output::Notice { notice, .. } => {
                    if let crate::Notice::Store { standing } = notice {
                        self.nodes[number].standings.push(standing);
                    }
                }
            }
        }
    }

    fn call(&mut self, number: usize) {
        let now = self.now;
        let node = &mut self.nodes[number];
        if !node.is_alive {
            return;
        }
        node.numbers += 1;
        let (life, number_of_call) = (node.life, node.numbers);
        if node.is_cut {
            node.waits_for = Some(number_of_call);
            self.after(
                AGAIN,
                Event::Lost {
                    node: number,
                    life,
                    number: number_of_call,
                },
            );
            return;
        }
        let Some(call) = node.engine.call(at(now), QuotaKey::named(QUOTA)) else {
            self.drain(number);
            return;
        };
        node.calls += 1;
        node.waits_for = Some(number_of_call);
        self.after(
            PATIENCE,
            Event::Lost {
                node: number,
                life,
                number: number_of_call,
            },
        );
        self.after(
            self.way,
            Event::Reach {
                node: number,
                life,
                call,
            },
        );
        self.drain(number);
    }

    fn sent(&mut self, node: usize, ask: Ask, permit: Permit) {
        let now = self.now;
        assert!(
            permit.valid_until >= at(now),
            "a permit is not given when it is void"
        );
        self.uses.push(Use {
            node,
            tenant: ask.tenant,
            priority: ask.priority,
            at: now,
            tokens: ask.tokens,
        });
        let usage = Usage {
            input: Some(Tokens::new(ask.tokens - ask.spares)),
            output: Some(Tokens::ZERO),
            ..Usage::default()
        };
        let life = self.nodes[node].life;
        if self.tells {
            let used = self.uses.iter().filter(|used| used.at + 60_000_000 > now).count() as u64;
            let mut readings = crate::Readings::default();
            readings.push(
                Dimension::Requests,
                crate::Reading {
                    limit: Some(crate::Amount::new(600)),
                    remaining: Some(crate::Amount::new(600_u64.saturating_sub(used))),
                    reset: None,
                    rounding: crate::Amount::ZERO,
                    window: None,
                },
            );
            let signal = crate::UpstreamSignal {
                permit: permit.id,
                readings,
                processing: None,
            };
            self.nodes[node].engine.observe(at(now), signal);
        }
        self.after(
            ask.runs,
            Event::End {
                node,
                life,
                permit: permit.id,
                outcome: Outcome::Completed(usage),
            },
        );
    }

    /// Returns the most that was used in any minute.
    fn most(&self, weigh: impl Fn(&Use) -> u64) -> u64 {
        self.most_within(60_000_000, weigh)
    }

    /// Returns the most that was used in any time of this length, in microseconds.
    fn most_within(&self, length: u64, weigh: impl Fn(&Use) -> u64) -> u64 {
        let (mut first, mut sum, mut most) = (0, 0, 0);
        for used in &self.uses {
            sum += weigh(used);
            while self.uses[first].at + length <= used.at {
                sum -= weigh(&self.uses[first]);
                first += 1;
            }
            most = most.max(sum);
        }
        most
    }

    /// Returns how many were sent between two moments, in seconds.
    fn between(&self, from: f64, to: f64) -> Vec<Use> {
        let moment = |seconds: f64| START.as_micros() + (seconds * 1e6) as u64;
        let within = |used: &&Use| (moment(from)..moment(to)).contains(&used.at);
        self.uses.iter().filter(within).copied().collect()
    }

    fn snapshot(&mut self, node: usize) -> QuotaSnapshot {
        let now = at(self.now);
        self.nodes[node].engine.snapshot(now).quotas[0].clone()
    }
}

fn shared(limits: Vec<Limit>) -> Plan {
    Plan {
        shared: Some(SharedPlan {
            trusts_empty: true,
            ..SharedPlan::default()
        }),
        queue: crate::QueueBounds {
            wait_max: Duration::from_secs(7_200),
            ..crate::QueueBounds::default()
        },
        ..plan(limits)
    }
}
