//! A world from its first moment to its last.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tidegate_core::{Amount, Dimension, RateLimited};
use tidegate_mock::limits::{
    Charging, Dimension as Counted, Enforcer, Limit, Refused, Timestamp, Wait, Weights,
};

use crate::baseline::Kind;
use crate::client::{Client, Discipline};
use crate::setting::{Algorithms, Load, MINUTE, Setting, exponential};

/// What came of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Requests that reached the provider.
    pub sent: u64,
    /// Those of them that it refused for rate.
    pub refused: u64,
    /// Requests and tokens admitted while a line was always there, after the first two minutes.
    pub used: [u64; 2],
    /// What the limits allow in that time.
    pub allowed: [u64; 2],
    /// The longest wait of any request, in microseconds.
    pub longest_wait: u64,
    /// A digest of everything that happened, in order.
    pub digest: u64,
}

impl Outcome {
    /// Returns the share of the binding limit that was used, if the world had a line all the time.
    #[allow(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn utilization(&self) -> Option<f64> {
        let share = |index: usize| self.used[index] as f64 / self.allowed[index].max(1) as f64;
        (self.allowed[0] > 0).then(|| share(0).max(share(1)))
    }
}

/// Something that is going to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A request comes to us.
    Come(u64),
    /// The provider sees a request.
    Stamp(u64),
    /// Many requests come to us at once.
    Burst,
    /// Somebody else's request reaches the provider.
    Foreign,
    /// The head of an answer reaches us, with what was left of requests and tokens, and how long the provider worked.
    Head(u64, u64, u64, u64),
    /// An answer is complete.
    End(u64),
    /// A refusal reaches us.
    Refusal(u64, RefusalNote),
    /// The limiter wants to be woken.
    Wake,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RefusalNote {
    requests: bool,
    amount: u64,
    used: u64,
    requested: u64,
    wait: u64,
}

struct World<'a> {
    setting: &'a Setting,
    rng: Pcg64Mcg,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    client: Client,
    provider: Enforcer,
    tokens: BTreeMap<u64, (u64, u64)>,
    next_id: u64,
    woken_at: Option<u64>,
    outcome: Outcome,
    measured_from: u64,
    end: u64,
    /// The pause before another request takes the place of one that was sent.
    pause: u64,
}

/// The first moment of every world, in microseconds.
const START: u64 = 1_000_000_000_000;
/// Requests waiting at any time under backlog.
const LINE: u64 = 24;

/// Runs a world to its end.
pub fn run(setting: &Setting, discipline: Discipline) -> Outcome {
    let minute = u64::try_from(MINUTE.as_micros()).unwrap_or(u64::MAX);
    let (requests, tokens) = setting.algorithms();
    let limits = vec![
        Limit::new(Counted::Requests, MINUTE, setting.rpm, requests),
        Limit::new(Counted::Tokens, MINUTE, setting.tpm, tokens),
    ];
    let mut world = World {
        setting,
        rng: Pcg64Mcg::seed_from_u64(setting.seed ^ 0x5eed),
        now: START,
        events: BinaryHeap::new(),
        order: 0,
        client: Client::new(START, discipline, setting),
        provider: Enforcer::new(Charging::ESTIMATE, limits),
        tokens: BTreeMap::new(),
        next_id: 0,
        woken_at: None,
        outcome: Outcome::default(),
        measured_from: START + 2 * minute,
        end: START + setting.minutes * minute,
        // Without a limiter there would be no end of it in one moment.
        pause: if discipline == Discipline::Baseline(Kind::None) {
            5_000_000
        } else {
            0
        },
    };
    world.begin();
    world.live();
    world.outcome
}

impl World<'_> {
    fn begin(&mut self) {
        match self.setting.load {
            Load::Backlog => {
                for _ in 0..LINE {
                    self.come_at(START);
                }
            }
            Load::Poisson(_) => self.come_at(START),
            Load::Bursts => self.at(START, Event::Burst),
        }
        if self.setting.foreign_percent > 0 {
            self.at(START, Event::Foreign);
        }
    }

    fn live(&mut self) {
        let mut sent = Vec::new();
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at >= self.end {
                break;
            }
            self.now = at;
            self.note(at);
            match event {
                Event::Come(id) => self.come(id, &mut sent),
                Event::Stamp(id) => self.stamp(id),
                Event::Burst => self.burst(),
                Event::Foreign => self.foreign(),
                Event::Head(id, requests_left, tokens_left, work) => {
                    let heads = self
                        .setting
                        .headers
                        .then_some([(self.setting.rpm, requests_left), (self.setting.tpm, tokens_left)]);
                    self.client.head(at, id, heads, work, &mut sent);
                    let rest = self.rng.random_range(0..5_000_000);
                    self.at(at + rest, Event::End(id));
                }
                Event::End(id) => {
                    self.client.end(at, id, &mut sent);
                    self.tokens.remove(&id);
                }
                Event::Refusal(id, note) => self.refusal(id, note, &mut sent),
                Event::Wake => {
                    if self.woken_at == Some(at) {
                        self.woken_at = None;
                        self.client.wake(at, &mut sent);
                    }
                }
            }
            self.send(&mut sent);
            self.arm();
        }
        if self.setting.load == Load::Backlog {
            let span = self.end.saturating_sub(self.measured_from);
            let minute = u64::try_from(MINUTE.as_micros()).unwrap_or(u64::MAX);
            let rpm = if self.setting.algorithm == Algorithms::Slices {
                self.setting.rpm / 6 * 6
            } else {
                self.setting.rpm
            };
            self.outcome.allowed = [rpm.max(1) * span / minute, self.setting.tpm * span / minute];
        }
    }

    fn come(&mut self, id: u64, sent: &mut Vec<u64>) {
        let tokens = self.setting.tokens(&mut self.rng);
        self.tokens.insert(id, (tokens, self.now));
        self.client.offer(self.now, id, tokens, sent);
        if let Load::Poisson(percent) = self.setting.load {
            let minute = u64::try_from(MINUTE.as_micros()).unwrap_or(u64::MAX);
            let mean = minute * 100 / (self.setting.rpm * percent).max(1);
            let pause = exponential(&mut self.rng, mean);
            self.come_at(self.now + pause);
        }
    }

    /// Lets one to three minutes' worth of requests come at once, and the next burst some minutes later.
    fn burst(&mut self) {
        for _ in 0..self.setting.rpm * self.rng.random_range(1..=3) {
            self.come_at(self.now);
        }
        let pause = self.rng.random_range(60_000_000..360_000_000_u64);
        self.at(self.now + pause, Event::Burst);
    }

    /// Sends what may be sent.
    fn send(&mut self, sent: &mut Vec<u64>) {
        for id in sent.drain(..) {
            let (_, came) = self.tokens.get(&id).copied().unwrap_or_default();
            self.outcome.longest_wait = self.outcome.longest_wait.max(self.now - came);
            let delay = self.setting.delay(&mut self.rng);
            self.order += 1;
            self.events
                .push(Reverse((self.now + delay, self.order, Event::Stamp(id))));
            match self.setting.load {
                Load::Backlog => {
                    self.next_id += 1;
                    self.order += 1;
                    let come = Event::Come(self.next_id);
                    self.events
                        .push(Reverse((self.now + self.pause, self.order, come)));
                }
                Load::Bursts | Load::Poisson(_) => {}
            }
        }
    }

    /// The provider decides.
    fn stamp(&mut self, id: u64) {
        let (tokens, _) = self.tokens.get(&id).copied().unwrap_or((1, self.now));
        self.outcome.sent += 1;
        let back = 1_000 + self.setting.delay(&mut self.rng) / 4;
        match self
            .provider
            .admit(Timestamp(self.now), id, &Weights::request(tokens, 0))
        {
            Ok(()) => {
                if self.now >= self.measured_from && self.now < self.end {
                    self.outcome.used[0] += 1;
                    self.outcome.used[1] += tokens;
                }
                let states = self.provider.state(Timestamp(self.now));
                // Most heads come at once; those of answers that do not stream come when all is generated.
                let work = if self.rng.random_range(0..8) == 0 {
                    self.rng.random_range(0..90_000_000)
                } else {
                    0
                };
                let head = Event::Head(id, states[0].remaining, states[1].remaining, work);
                self.at(self.now + work + back, head);
            }
            Err(refused) => {
                self.outcome.refused += 1;
                self.note(id.wrapping_mul(31));
                let note = note(&refused);
                self.at(self.now + back, Event::Refusal(id, note));
            }
        }
    }

    fn foreign(&mut self) {
        let tokens = self.setting.tokens(&mut self.rng);
        self.next_id += 1;
        // Its refusals are its own business.
        let _ = self
            .provider
            .admit(Timestamp(self.now), self.next_id, &Weights::request(tokens, 0));
        let minute = u64::try_from(MINUTE.as_micros()).unwrap_or(u64::MAX);
        let per_minute = (self.setting.rpm * self.setting.foreign_percent / 100)
            .min(self.setting.tpm * self.setting.foreign_percent / 100 / self.setting.mean_tokens)
            .max(1);
        let pause = exponential(&mut self.rng, minute / per_minute);
        self.at(self.now + pause, Event::Foreign);
    }

    fn refusal(&mut self, id: u64, note: RefusalNote, sent: &mut Vec<u64>) {
        let (tokens, _) = self.tokens.get(&id).copied().unwrap_or((1, self.now));
        let refused = RateLimited {
            dimension: Some(if note.requests {
                Dimension::Requests
            } else {
                Dimension::Tokens
            }),
            limit: Some(Amount::new(note.amount)),
            used: Some(Amount::new(note.used)),
            requested: Some(Amount::new(note.requested)),
            retry_after: Some(Duration::from_micros(note.wait)),
            ..RateLimited::default()
        };
        self.client.refused(self.now, id, tokens, refused, sent);
        // A baseline looks again when the provider says so.
        self.at(self.now + note.wait.max(1), Event::Wake);
        if self.woken_at.is_none() {
            self.woken_at = Some(self.now + note.wait.max(1));
        }
    }

    /// Sees to it that the limiter is woken when it wants to be.
    fn arm(&mut self) {
        let Some(next) = self.client.next() else { return };
        let next = next.max(self.now);
        if self.woken_at.is_none_or(|at| next < at || at < self.now) {
            self.woken_at = Some(next);
            self.at(next, Event::Wake);
        }
    }

    fn come_at(&mut self, at: u64) {
        self.next_id += 1;
        self.at(at, Event::Come(self.next_id));
    }

    fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    fn note(&mut self, value: u64) {
        self.outcome.digest = (self.outcome.digest ^ value)
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(17);
    }
}

fn note(refused: &Refused) -> RefusalNote {
    let wait = match refused.wait {
        Wait::For(wait) => u64::try_from(wait.as_micros()).unwrap_or(u64::MAX),
        Wait::Unknown | Wait::Never => 1_000_000,
    };
    RefusalNote {
        requests: refused.dimension == Counted::Requests,
        amount: refused.amount,
        used: refused.used,
        requested: refused.requested,
        wait,
    }
}
