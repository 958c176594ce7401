//! Tests of the engine through its own contract.

mod answers;
mod crash;
mod days;
mod freed;
mod learned;
mod liveness;
mod loops;
mod memory;
mod order;
mod order_properties;
mod properties;
mod refusals;
mod reloads;
mod scenarios;
mod shared;

use alloc::vec;
use alloc::vec::Vec;
use core::num::NonZeroU64;
use core::time::Duration;

use crate::{
    ChargeModel, Decision, Demand, Dimension, Discipline, Engine, Limit, Output, Permit, Plan, QuotaKey,
    QuotaPlan, Request, Timestamp, Tokens,
};

const QUOTA: &str = "test";
const START: Timestamp = Timestamp::from_secs(1_000_000);
const MINUTE: Duration = Duration::from_secs(60);

fn amount(value: u64) -> NonZeroU64 {
    NonZeroU64::new(value).expect("tests use positive amounts")
}

fn limit(dimension: Dimension, value: u64) -> Limit {
    Limit::rolling(dimension, MINUTE, amount(value))
}

fn bucket(dimension: Dimension, value: u64) -> Limit {
    Limit {
        discipline: Discipline::TokenBucket,
        ..limit(dimension, value)
    }
}

fn plan(limits: Vec<Limit>) -> Plan {
    plan_of(limits, ChargeModel::OPENAI)
}

fn plan_of(limits: Vec<Limit>, charge: ChargeModel) -> Plan {
    Plan {
        quotas: vec![QuotaPlan::new(QUOTA, limits, charge)],
        ..Plan::default()
    }
}

/// An engine with its clock, as a driver sees it.
struct World {
    engine: Engine,
    now: Timestamp,
}

impl World {
    fn new(plan: Plan) -> Self {
        Self {
            engine: Engine::new(START, plan, 7),
            now: START,
        }
    }

    fn submit(&mut self, demand: Demand, patience: Duration) -> Decision {
        let deadline = self.now + patience;
        let quota = QuotaKey::named(QUOTA);
        self.engine.submit(
            self.now,
            Request {
                bytes: crate::Bytes::new(100),
                ..Request::new(quota, demand, deadline)
            },
        )
    }

    /// Submits a request for so many tokens in all, with ten minutes of patience.
    fn ask(&mut self, tokens: u64) -> Decision {
        self.submit(Demand::input_only(Tokens::new(tokens)), Duration::from_secs(600))
    }

    fn admit(&mut self, tokens: u64) -> Permit {
        match self.ask(tokens) {
            Decision::Admit(permit) => permit,
            other => panic!("expected to be admitted at {}, got {other:?}", self.now),
        }
    }

    fn outputs(&mut self) -> Vec<Output> {
        core::iter::from_fn(|| self.engine.poll_output()).collect()
    }

    /// Steps to the next time at which the engine wants to be called, and returns what comes of it.
    fn step(&mut self) -> Vec<Output> {
        let Some((at, _)) = self.engine.poll_timeout() else {
            return Vec::new();
        };
        self.now = self.now.max(at);
        self.engine.handle_timeout(self.now);
        self.outputs()
    }

    fn sleep(&mut self, duration: Duration) -> Vec<Output> {
        self.now = self.now + duration;
        self.engine.handle_timeout(self.now);
        self.outputs()
    }
}
