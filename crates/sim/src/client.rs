//! The side that limits itself: Tidegate's engine, or what people use today.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU64;
use std::time::Duration;

use tidegate_core::{
    Amount, ChargeModel, Decision, Demand, Dimension, Discipline as Keeping, Engine, Failure, Limit,
    MarginPolicy, Outcome, Output, PermitId, Plan, QueueBounds, QuotaKey, QuotaPlan, RateLimited, Readings,
    Request, TicketId, Timestamp, Tokens, UpstreamSignal, Usage,
};

use crate::baseline::{Baseline, Kind};
use crate::setting::{Algorithms, Delay, MINUTE, SLICE, Setting};

/// Who limits the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discipline {
    /// Tidegate with its default discipline, the rolling window of W + J.
    Tidegate,
    /// Tidegate with the token-bucket discipline.
    TidegateBucket,
    /// Something else.
    Baseline(Kind),
}

impl Discipline {
    /// Returns the name printed in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tidegate => "Tidegate",
            Self::TidegateBucket => "Tidegate, token bucket",
            Self::Baseline(Kind::None) => "no limiter",
            Self::Baseline(Kind::TokenBucket) => "token bucket",
            Self::Baseline(Kind::Fixed) => "fixed window",
            Self::Baseline(Kind::Rolling) => "rolling, no margin",
        }
    }
}

/// What a response head says, in the simulation's own words: limit and remaining of requests and tokens.
pub type Heads = Option<[(u64, u64); 2]>;

/// The limiting side of a world.
#[derive(Debug)]
pub enum Client {
    /// The engine, and which request holds which ticket or permit.
    Engine(Box<EngineClient>),
    /// A baseline and its line.
    Baseline(Baseline, VecDeque<(u64, u64)>, u64),
}

/// The engine with its bookkeeping.
#[derive(Debug)]
pub struct EngineClient {
    engine: Engine,
    tickets: BTreeMap<TicketId, u64>,
    permits: BTreeMap<u64, PermitId>,
}

const QUOTA: &str = "world";

impl Client {
    /// Makes the limiting side for a world.
    pub fn new(now: u64, discipline: Discipline, setting: &Setting) -> Self {
        let keeping = match discipline {
            Discipline::Tidegate => Keeping::Rolling,
            Discipline::TidegateBucket => Keeping::TokenBucket,
            Discipline::Baseline(kind) => {
                let window = u64::try_from(MINUTE.as_micros()).unwrap_or(u64::MAX);
                return Self::Baseline(
                    Baseline::new(now, kind, window, [setting.rpm, setting.tpm]),
                    VecDeque::new(),
                    0,
                );
            }
        };
        let limit = |dimension, window, amount: u64, discipline| Limit {
            dimension,
            window,
            amount: NonZeroU64::new(amount.max(1)).unwrap_or(NonZeroU64::MIN),
            discipline,
            source: tidegate_core::LimitSource::Config,
        };
        let mut limits = vec![
            limit(Dimension::Requests, MINUTE, setting.rpm, keeping),
            limit(Dimension::Tokens, MINUTE, setting.tpm, keeping),
        ];
        if setting.algorithm == Algorithms::Slices {
            limits.push(limit(
                Dimension::Requests,
                SLICE,
                (setting.rpm / 6).max(1),
                Keeping::Rolling,
            ));
        }
        let mut quota = QuotaPlan::new(QUOTA, limits, ChargeModel::OPENAI);
        if setting.delay == Delay::Extreme || !setting.headers {
            // Nothing can be learned of such delays in time; the margin is what was promised.
            quota.margin = MarginPolicy::Fixed(Duration::from_micros(setting.delay_max()));
        }
        let queue = QueueBounds {
            requests_max: 100_000,
            wait_max: Duration::from_secs(1 << 30),
            ..QueueBounds::default()
        };
        let plan = Plan {
            quotas: vec![quota],
            queue,
            ..Plan::default()
        };
        let engine = Engine::new(Timestamp::from_micros(now), plan, setting.seed);
        Self::Engine(Box::new(EngineClient {
            engine,
            tickets: BTreeMap::new(),
            permits: BTreeMap::new(),
        }))
    }

    /// Takes a new request; those that may be sent are added to `sent`.
    pub fn offer(&mut self, now: u64, id: u64, tokens: u64, sent: &mut Vec<u64>) {
        match self {
            Self::Engine(client) => {
                let request = Request::new(
                    QuotaKey::named(QUOTA),
                    Demand::input_only(Tokens::new(tokens)),
                    Timestamp::from_micros(u64::MAX),
                );
                match client.engine.submit(Timestamp::from_micros(now), request) {
                    Decision::Admit(permit) => {
                        client.permits.insert(id, permit.id);
                        sent.push(id);
                    }
                    Decision::Wait(ticket) => {
                        client.tickets.insert(ticket.id, id);
                    }
                    Decision::Refuse(_) => {}
                }
                client.drain(sent);
            }
            Self::Baseline(_, line, _) => {
                line.push_back((id, tokens));
                self.wake(now, sent);
            }
        }
    }

    /// Does what is due.
    pub fn wake(&mut self, now: u64, sent: &mut Vec<u64>) {
        match self {
            Self::Engine(client) => {
                client.engine.handle_timeout(Timestamp::from_micros(now));
                client.drain(sent);
            }
            Self::Baseline(limiter, line, next) => {
                while let Some((id, tokens)) = line.front().copied() {
                    match limiter.take(now, [1, tokens]) {
                        Ok(()) => {
                            line.pop_front();
                            sent.push(id);
                        }
                        Err(at) => {
                            *next = at.max(now + 1);
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Returns when it wants to be woken.
    pub fn next(&self) -> Option<u64> {
        match self {
            Self::Engine(client) => client.engine.poll_timeout().map(|(at, _)| at.as_micros()),
            Self::Baseline(_, line, next) => (!line.is_empty()).then_some(*next),
        }
    }

    /// The head of an answer arrived, on which the provider worked so many microseconds.
    pub fn head(&mut self, now: u64, id: u64, heads: Heads, work: u64, sent: &mut Vec<u64>) {
        let Self::Engine(client) = self else { return };
        let Some(permit) = client.permits.get(&id).copied() else {
            return;
        };
        let mut readings = Readings::default();
        if let Some(heads) = heads {
            for (dimension, (limit, remaining)) in
                [Dimension::Requests, Dimension::Tokens].into_iter().zip(heads)
            {
                let reading = readings.entry(dimension);
                reading.limit = Some(Amount::new(limit));
                reading.remaining = Some(Amount::new(remaining));
            }
        }
        let processing = Some(Duration::from_micros(work));
        let signal = UpstreamSignal {
            permit,
            readings,
            processing,
        };
        client.engine.observe(Timestamp::from_micros(now), signal);
        client.drain(sent);
    }

    /// An answer is complete.
    pub fn end(&mut self, now: u64, id: u64, sent: &mut Vec<u64>) {
        let Self::Engine(client) = self else { return };
        if let Some(permit) = client.permits.remove(&id) {
            let outcome = Outcome::Completed(Usage::default());
            client.engine.settle(Timestamp::from_micros(now), permit, outcome);
            client.drain(sent);
        }
    }

    /// The provider refused for rate. A baseline sends it again when the provider says so: it goes to the end.
    pub fn refused(&mut self, now: u64, id: u64, tokens: u64, refused: RateLimited, sent: &mut Vec<u64>) {
        match self {
            Self::Engine(client) => {
                let Some(permit) = client.permits.remove(&id) else {
                    return;
                };
                let failure = Failure::RateLimited(refused);
                if let Decision::Wait(ticket) =
                    client.engine.retry(Timestamp::from_micros(now), permit, failure)
                {
                    client.tickets.insert(ticket.id, id);
                }
                client.drain(sent);
            }
            Self::Baseline(limiter, line, _) => {
                // Without a limiter there is no line to go back to: the caller sees the failure.
                if limiter.kind() != Kind::None {
                    line.push_back((id, tokens));
                }
            }
        }
    }
}

impl EngineClient {
    fn drain(&mut self, sent: &mut Vec<u64>) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Admit { ticket, permit } => {
                    if let Some(id) = self.tickets.remove(&ticket) {
                        self.permits.insert(id, permit.id);
                        sent.push(id);
                    }
                }
                Output::Refuse { ticket, .. } => {
                    self.tickets.remove(&ticket);
                }
                Output::Notice { .. } | Output::Call { .. } | Output::CallEscrow => {}
            }
        }
    }
}
