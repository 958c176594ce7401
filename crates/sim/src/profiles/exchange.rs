//! A trial from its first moment to its last: callers, the engine, and one provider.

mod client;
mod measure;
mod provider;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU64;
use std::time::Duration;

use http::HeaderMap;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tidegate_core::{Engine, PermitId, Plan, QueueBounds, QuotaKey, QuotaPlan, TicketId, Timestamp as At};
use tidegate_mock::Key;
use tidegate_mock::limits::{Account, Limit, Timestamp};

use super::catalog::Profile;
use super::figures::{Figures, Use};
use super::load::Asked;
use crate::setting::exponential;

/// What the engine is told of the limits beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// What the provider enforces.
    Told,
    /// Nothing.
    Unknown,
    /// Twice what the provider enforces.
    Doubled,
}

/// The provider changes a limit while everything runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// When, in minutes from the beginning.
    pub minute: u64,
    /// The pool's place in the profile's list.
    pub pool: usize,
    /// The limit's place in the pool's list.
    pub limit: usize,
    /// The new amount.
    pub amount: u64,
}

/// What is tried with a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The seed of everything that is drawn.
    pub seed: u64,
    /// How long it lasts.
    pub minutes: u64,
    /// What the engine is told.
    pub knowledge: Knowledge,
    /// What the provider changes, in order.
    pub changes: Vec<Change>,
}

impl Trial {
    /// Tries a profile as it is configured.
    pub const fn told(seed: u64, minutes: u64) -> Self {
        Self {
            seed,
            minutes,
            knowledge: Knowledge::Told,
            changes: Vec::new(),
        }
    }
}

/// Something that is going to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A request comes to us.
    Come,
    /// The provider decides on a request.
    Stamp(u32),
    /// The provider has generated more of an answer.
    Generate(u32),
    /// The head of an answer reaches us.
    Head(u32),
    /// So many tokens of a streamed answer have reached us.
    Progress(u32, u64),
    /// An answer is complete.
    Done(u32),
    /// A refusal reaches us.
    Refused(u32),
    /// The engine wants to be woken.
    Wake,
    /// The provider changes a limit.
    Change(u32),
}

/// A request from its arrival to its end.
#[derive(Debug)]
struct Call {
    asked: Asked,
    came: u64,
    permit: Option<PermitId>,
    granted: u64,
    attempts: u32,
    /// When the provider stamped it.
    stamped: u64,
    /// When it is answered whole: the provider's side.
    generated: u64,
    /// The last thing of it that reached us, or will.
    arrives: u64,
    /// Whether anybody counts output while it is generated.
    provider_counts: bool,
    engine_counts: bool,
    is_observed: bool,
    answer: Answer,
}

/// What the provider says, on its way.
#[derive(Debug, Default)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
    /// Whether it refuses the request for good.
    never: bool,
}

struct World<'a> {
    profile: &'a Profile,
    trial: &'a Trial,
    rng: Pcg64Mcg,
    start: u64,
    now: u64,
    end: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    engine: Engine,
    quota: QuotaKey,
    account: Account,
    key: Key,
    /// The place of each pool's first limit among all uses.
    places: Vec<usize>,
    limits: Vec<Limit>,
    calls: Vec<Option<Call>>,
    free: Vec<u32>,
    tickets: BTreeMap<TicketId, u32>,
    sent: Vec<u32>,
    in_flight: usize,
    /// Callers that wait for others to finish before they ask.
    shy: usize,
    woken_at: Option<u64>,
    /// When the first answer came: since the beginning, and since the last change of a limit.
    told: Option<u64>,
    told_change: Option<u64>,
    changed: Option<u64>,
    concurrent: (u64, u64),
    figures: Figures,
}

/// Microseconds.
const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 1_440 * MINUTE;
/// 2026-11-01 and 2026-03-08, midnight in California: the days on which its clocks change, of 25 and of 23 hours.
const CLOCK_CHANGES: [u64; 2] = [1_793_516_400 * SECOND, 1_772_956_800 * SECOND];
/// Requests that wait in line at any time.
const LINE: usize = 24;
/// Callers that wait for an answer at any time, at most.
const CALLERS_MAX: usize = 2_000;
/// The time in which the engine gets to know what is asked for.
const WARM: u64 = 2 * MINUTE;
/// Between two looks at what was generated.
const LOOK: u64 = SECOND / 2;

/// Runs a trial to its end.
pub fn run(profile: &Profile, trial: &Trial) -> Figures {
    let mut world = World::new(profile, trial);
    for _ in 0..LINE {
        world.at(world.start, Event::Come);
    }
    for (index, change) in trial.changes.iter().enumerate() {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        world.at(world.start + change.minute * MINUTE, Event::Change(index));
    }
    world.live();
    world.close();
    world.figures
}

/// Returns the plan as the gateway makes it with this knowledge.
fn plan(profile: &Profile, knowledge: Knowledge) -> QuotaPlan {
    let mut quota = profile.plan.clone();
    match knowledge {
        Knowledge::Told => {}
        Knowledge::Unknown => quota.limits.clear(),
        Knowledge::Doubled => {
            for limit in &mut quota.limits {
                limit.amount = limit
                    .amount
                    .saturating_mul(NonZeroU64::new(2).unwrap_or(NonZeroU64::MIN));
            }
        }
    }
    quota
}

impl<'a> World<'a> {
    fn new(profile: &'a Profile, trial: &'a Trial) -> Self {
        let mut rng = Pcg64Mcg::seed_from_u64(trial.seed ^ 0x7161);
        // The clocks change six to seven days after the beginning, back or forth.
        let change = CLOCK_CHANGES[usize::try_from(trial.seed % 2).unwrap_or(0)];
        let start = change - 7 * DAY + rng.random_range(0..DAY);
        let end = start + trial.minutes * MINUTE;
        let quota = plan(profile, trial.knowledge);
        let key = QuotaKey::named(&quota.name);
        let queue = QueueBounds {
            wait_max: Duration::from_secs(1 << 30),
            ..QueueBounds::default()
        };
        let plan = Plan {
            quotas: vec![quota],
            queue,
            ..Plan::default()
        };
        let mut account = Account::new(profile.pools.clone(), Duration::from_micros(start));
        if profile.counts_failures {
            account = account.counting_failures();
        }
        let limits: Vec<Limit> = profile
            .pools
            .iter()
            .flat_map(|pool| pool.limits.clone())
            .collect();
        let mut places = Vec::new();
        let mut next = 0;
        for pool in &profile.pools {
            places.push(next);
            next += pool.limits.len();
        }
        let minutes = usize::try_from(trial.minutes).unwrap_or(0);
        let uses = limits.iter().map(|limit| Use {
            name: measure::name(limit),
            is_long: limit.window > Duration::from_secs(3_600),
            taken: vec![0; minutes],
            allowed: vec![0.0; minutes],
        });
        let figures = Figures {
            minutes: trial.minutes,
            uses: uses.collect(),
            ..Figures::default()
        };
        Self {
            profile,
            trial,
            rng,
            start,
            now: start,
            end,
            events: BinaryHeap::new(),
            order: 0,
            engine: Engine::new(At::from_micros(start), plan, trial.seed),
            quota: key,
            account,
            key: Key::new("key"),
            places,
            limits,
            calls: Vec::new(),
            free: Vec::new(),
            tickets: BTreeMap::new(),
            sent: Vec::new(),
            in_flight: 0,
            shy: 0,
            woken_at: None,
            told: None,
            told_change: None,
            changed: None,
            concurrent: (0, start),
            figures,
        }
    }

    fn live(&mut self) {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at >= self.end {
                break;
            }
            self.now = at;
            self.note(at);
            match event {
                Event::Come => self.come(),
                Event::Stamp(id) => self.stamp(id),
                Event::Generate(id) => self.generate(id),
                Event::Head(id) => self.head(id),
                Event::Progress(id, tokens) => self.progress(id, tokens),
                Event::Done(id) => self.done(id),
                Event::Refused(id) => self.refused(id),
                Event::Wake => {
                    if self.woken_at == Some(at) {
                        self.woken_at = None;
                        self.engine.handle_timeout(At::from_micros(at));
                    }
                }
                Event::Change(index) => self.change(index),
            }
            self.drain();
            self.send();
            self.arm();
        }
    }

    fn call(&self, id: u32) -> Option<&Call> {
        self.calls.get(id as usize)?.as_ref()
    }

    fn forget(&mut self, id: u32) {
        self.calls[id as usize] = None;
        self.free.push(id);
    }

    /// Draws how long something is under way: 5 ms and a tail that is cut at 200 ms.
    fn delay(&mut self, mean: u64) -> u64 {
        5_000 + exponential(&mut self.rng, mean).min(200_000)
    }

    const fn provider_now(&self) -> Timestamp {
        Timestamp(self.now - self.start)
    }

    fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    fn note(&mut self, value: u64) {
        self.figures.digest = (self.figures.digest ^ value)
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(17);
    }
}
