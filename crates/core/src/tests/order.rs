//! Who goes next, and what of: the order of the line, what passes in it, and what tenants, routes and runs may use.
//!
//! A [`Desk`] is a driver that does what the contract says and nothing else: it sleeps until the engine wants to be called,
//! and writes down when each request was admitted or refused. Requests are known by their numbers, from 0.

mod allowances;
mod bounds;
mod budgets;
mod fair;
mod passing;
mod reloaded;
mod runs;

use alloc::collections::BTreeMap;

use super::*;
use crate::{
    Bytes, Caller, Outcome, PermitId, Price, Priority, Refusal, RouteId, RunStep, TenantId, TenantPlan,
    Ticket, TicketId, TierPlan, Usage,
};

/// The other group of plans that have two.
const OTHER: &str = "other";

/// No tier has anything for certain.
const NO_SHARES: [TierPlan; 4] = [TierPlan { share_percent: 0 }; 4];

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn per_minute(value: u64) -> Limit {
    limit(Dimension::Requests, value)
}

fn tokens(value: u64) -> Limit {
    limit(Dimension::Tokens, value)
}

fn concurrent(value: u64) -> Limit {
    Limit::rolling(Dimension::Concurrency, Duration::ZERO, amount(value))
}

/// Two groups without limits that anybody reaches.
fn two_groups() -> Plan {
    let limits = || vec![per_minute(10_000)];
    Plan {
        quotas: vec![
            QuotaPlan::new(QUOTA, limits(), ChargeModel::OPENAI),
            QuotaPlan::new(OTHER, limits(), ChargeModel::OPENAI),
        ],
        ..Plan::default()
    }
}

fn tenant(name: &str, limits: Vec<Limit>) -> TenantPlan {
    TenantPlan {
        limits,
        ..TenantPlan::new(name)
    }
}

/// One request, in words.
#[derive(Debug, Clone, Copy)]
struct Ask {
    tenant: &'static str,
    priority: Priority,
    route: &'static str,
    quota: &'static str,
    input: u64,
    output: Option<u64>,
    patience: Duration,
    bytes: u64,
    price: Price,
    run: Option<RunStep>,
}

/// One token of nobody in particular, with ten minutes of patience.
const ASK: Ask = Ask {
    tenant: "",
    priority: Priority::Normal,
    route: "",
    quota: QUOTA,
    input: 1,
    output: None,
    patience: secs(600),
    bytes: 100,
    price: Price::NONE,
    run: None,
};

const fn of(tenant: &'static str, input: u64) -> Ask {
    Ask { tenant, input, ..ASK }
}

struct Desk {
    world: World,
    asked: usize,
    waiting: BTreeMap<TicketId, usize>,
    running: BTreeMap<usize, PermitId>,
    /// Who was admitted when, in order.
    admitted: Vec<(usize, Duration)>,
    refused: Vec<(usize, Refusal)>,
    /// Whether those who are admitted end at once, having used what they said.
    is_quick: bool,
}

impl Desk {
    fn new(plan: Plan) -> Self {
        Self {
            world: World::new(plan),
            asked: 0,
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            admitted: Vec::new(),
            refused: Vec::new(),
            is_quick: false,
        }
    }

    fn quick(plan: Plan) -> Self {
        Self {
            is_quick: true,
            ..Self::new(plan)
        }
    }

    fn ask(&mut self, ask: Ask) -> Decision {
        let number = self.asked;
        self.asked += 1;
        let demand = match ask.output {
            Some(output) => Demand::generating(Tokens::new(ask.input), Some(Tokens::new(output))),
            None => Demand::input_only(Tokens::new(ask.input)),
        };
        let named = |name: &str| (!name.is_empty()).then_some(());
        let request = Request {
            bytes: Bytes::new(ask.bytes),
            caller: Caller {
                tenant: named(ask.tenant).map_or(TenantId::ANYONE, |()| TenantId::of(ask.tenant)),
                priority: ask.priority,
                route: named(ask.route).map_or(RouteId::NONE, |()| RouteId::of(ask.route)),
            },
            price: ask.price,
            run: ask.run,
            ..Request::new(QuotaKey::named(ask.quota), demand, self.world.now + ask.patience)
        };
        let decision = self.world.engine.submit(self.world.now, request);
        match decision {
            Decision::Admit(permit) => self.admit(number, permit.id),
            Decision::Wait(ticket) => {
                self.waiting.insert(ticket.id, number);
            }
            Decision::Refuse(refusal) => self.refused.push((number, refusal)),
        }
        self.drain();
        decision
    }

    /// Asks for many of the same.
    fn ask_all(&mut self, asks: impl IntoIterator<Item = Ask>) -> Vec<Decision> {
        asks.into_iter().map(|ask| self.ask(ask)).collect()
    }

    fn wait(&mut self, ask: Ask) -> Ticket {
        match self.ask(ask) {
            Decision::Wait(ticket) => ticket,
            other => panic!("{ask:?} was to wait: {other:?}"),
        }
    }

    fn go(&mut self, ask: Ask) -> usize {
        match self.ask(ask) {
            Decision::Admit(_) => self.asked - 1,
            other => panic!("{ask:?} was to go at {}: {other:?}", self.world.now),
        }
    }

    /// Asks while others wait; the request is admitted at the same moment.
    fn passes(&mut self, ask: Ask) -> usize {
        self.ask(ask);
        let (number, now) = (self.asked - 1, self.world.now.since(START));
        assert_eq!(self.when(number), Some(now), "{ask:?} was to pass");
        number
    }

    /// Asks; the request waits and is not admitted at the same moment.
    fn stays(&mut self, ask: Ask) -> usize {
        self.wait(ask);
        let number = self.asked - 1;
        assert_eq!(self.when(number), None, "{ask:?} was to wait");
        assert_eq!(self.refusal(number), None, "{ask:?} was to wait");
        number
    }

    fn refuse(&mut self, ask: Ask) -> Refusal {
        match self.ask(ask) {
            Decision::Refuse(refusal) => refusal,
            other => panic!("{ask:?} was to be refused: {other:?}"),
        }
    }

    fn end(&mut self, number: usize, outcome: Outcome) {
        let permit = self.running.remove(&number).expect("it runs");
        self.world.engine.settle(self.world.now, permit, outcome);
        self.drain();
    }

    fn cancel(&mut self, number: usize) {
        let ticket = self.waiting.iter().find(|(_, other)| **other == number);
        let ticket = *ticket.expect("it waits").0;
        self.waiting.remove(&ticket);
        self.world.engine.cancel(self.world.now, ticket);
        self.drain();
    }

    fn reconfigure(&mut self, plan: Plan) {
        self.world.engine.reconfigure(self.world.now, plan);
        self.drain();
    }

    /// Lets time pass, awake whenever the engine wants to be called and at no other time.
    fn sleep(&mut self, pause: Duration) {
        let until = self.world.now + pause;
        while let Some((at, _)) = self.world.engine.poll_timeout()
            && at <= until
        {
            self.world.now = self.world.now.max(at);
            self.world.engine.handle_timeout(self.world.now);
            self.drain();
        }
        self.world.now = until;
    }

    fn admit(&mut self, number: usize, permit: PermitId) {
        self.admitted.push((number, self.world.now.since(START)));
        self.running.insert(number, permit);
    }

    fn drain(&mut self) {
        loop {
            let outputs = self.world.outputs();
            for output in &outputs {
                match output {
                    Output::Admit { ticket, permit } => {
                        let number = self.waiting.remove(ticket).expect("only who waits is admitted");
                        self.admit(number, permit.id);
                    }
                    Output::Refuse { ticket, refusal } => {
                        let number = self.waiting.remove(ticket).expect("only who waits is refused");
                        self.refused.push((number, *refusal));
                    }
                    Output::Notice { .. } | Output::Call { .. } | Output::CallEscrow => {}
                }
            }
            if self.is_quick {
                for (_, permit) in core::mem::take(&mut self.running) {
                    let outcome = Outcome::Completed(Usage::default());
                    self.world.engine.settle(self.world.now, permit, outcome);
                }
            }
            if outputs.is_empty() {
                break;
            }
        }
    }

    /// Returns who was admitted, in order.
    fn order(&self) -> Vec<usize> {
        self.admitted.iter().map(|(number, _)| *number).collect()
    }

    /// Returns when somebody was admitted, since the start.
    fn when(&self, number: usize) -> Option<Duration> {
        let found = self.admitted.iter().find(|(other, _)| *other == number);
        found.map(|(_, at)| *at)
    }

    fn refusal(&self, number: usize) -> Option<Refusal> {
        let found = self.refused.iter().find(|(other, _)| *other == number);
        found.map(|(_, refusal)| *refusal)
    }
}

fn used(input: u64, output: u64) -> Outcome {
    Outcome::Completed(Usage {
        input: Some(Tokens::new(input)),
        cached_input: Tokens::ZERO,
        output: Some(Tokens::new(output)),
    })
}
