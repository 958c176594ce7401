//! Output nobody knows yet: what rules of admission make of a limit on output tokens that are charged as they are
//! generated (theory.md §2.3). There is always a line; requests ask for far more than they generate.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tidegate_core::{
    ChargeModel, Decision, Demand, Dimension, Discipline, Engine, Failure, Guarantee, Learning, Limit,
    MarginPolicy, Outcome, Output, PermitId, Plan, QuotaKey, QuotaPlan, RateLimited, Request, RequestClass,
    TicketId, Timestamp, Tokens, Usage,
};
use tidegate_mock::limits::{self, Charging, Dimension as Counted, Enforcer, Weights};

use crate::setting::{Algorithms, MINUTE};

/// How it is decided that a request may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// So many tokens are held for it, less what it has generated, until it ends.
    Hold(u64),
    /// Tidegate's projected window.
    Projected(Guarantee),
    /// The same, next to the token-bucket discipline.
    Bucket(Guarantee),
}

/// A world of requests that generate output.
#[derive(Debug, Clone, Copy)]
pub struct World {
    /// The seed.
    pub seed: u64,
    /// Minutes that are measured, after ten that are not.
    pub minutes: u64,
    /// How the provider enforces its limit.
    pub enforced: Algorithms,
    /// Output tokens a minute.
    pub limit: u64,
    /// The mean length of outputs and its standard deviation: lognormal, cut at `longest`.
    pub length: (f64, f64),
    /// No output is longer.
    pub longest: u64,
    /// What requests name as their maximum.
    pub asked: u64,
    /// Tokens a second.
    pub speed: f64,
    /// How far calls' speeds differ from that, either way, in percent.
    pub uneven: u32,
    /// One call in so many is twice as fast.
    pub hasty: Option<u32>,
    /// The share of calls, in percent, of whose progress nothing is seen.
    pub silent: u32,
    /// From the middle on outputs are so many times as long.
    pub grows: f64,
}

impl World {
    /// Makes the world of theory.md §2.3: 639 tokens on average, deviating by 707, at most 4,096, 60 tokens a second, and
    /// 80,000 a minute allowed.
    pub const fn usual(seed: u64, minutes: u64) -> Self {
        Self {
            seed,
            minutes,
            enforced: Algorithms::Rolling,
            limit: 80_000,
            length: (639.0, 707.0),
            longest: 4_096,
            asked: 4_096,
            speed: 60.0,
            uneven: 0,
            hasty: None,
            silent: 0,
            grows: 1.0,
        }
    }
}

/// What came of a world.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Requests that reached the provider.
    pub sent: u64,
    /// Those of them that it refused for rate.
    pub refused: u64,
    /// Generated tokens over what the limit allows.
    pub utilization: f64,
    /// The most that was generated in any window over the limit; for a bucket, the most that was missing from it.
    pub peak: f64,
    /// The longest time without a start, in seconds.
    pub pause: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>9} {:>6} {:>11.3} {:>10.3} {:>9.1}",
            self.sent, self.refused, self.utilization, self.peak, self.pause
        )
    }
}

/// The heading of the columns of [`Figures`].
pub const COLUMNS: &str = "     sent   429s utilization peak/limit   pause s";

const QUOTA: &str = "output";
/// Requests waiting at any time.
const LINE: usize = 24;
/// The world moves in steps of this many microseconds.
const TICK: u64 = 50_000;
/// Progress is seen in steps of this many microseconds, each call at a time of its own.
const CHUNK: u64 = 250_000;
const START: u64 = 1_000_000_000_000;
const WARM: u64 = 10 * 60_000_000;

/// A request on its way or generating.
#[derive(Debug, Clone)]
struct Call {
    /// When the provider sees it.
    arrives: u64,
    /// When it generates its first token, once it was admitted.
    begins: Option<u64>,
    length: u64,
    speed: f64,
    silent: bool,
    /// When its progress is next seen.
    reports: u64,
    generated: u64,
}

/// Who decides.
enum Limiter {
    Engine {
        engine: Box<Engine>,
        tickets: BTreeMap<TicketId, u64>,
        permits: BTreeMap<u64, PermitId>,
    },
    Hold {
        each: u64,
        limit: u64,
        line: VecDeque<u64>,
        /// What was seen of those who run.
        running: BTreeMap<u64, u64>,
        window: VecDeque<(u64, u64)>,
        used: u64,
        until: u64,
    },
}

/// Runs a world by a rule.
pub fn run(world: &World, rule: Rule) -> Figures {
    let mut course = Course::new(world, rule);
    let end = START + WARM + world.minutes * 60_000_000;
    while course.now < end {
        course.tick();
    }
    course.figures(end)
}

struct Course {
    world: World,
    rng: Pcg64Mcg,
    now: u64,
    limiter: Limiter,
    provider: Enforcer,
    calls: BTreeMap<u64, Call>,
    next: u64,
    waiting: usize,
    peak: Peak,
    figures: Figures,
    generated: u64,
    last_start: u64,
}

/// The most that was ever in the window, or missing from the bucket.
struct Peak {
    bucket: bool,
    limit: u64,
    log: VecDeque<(u64, u64)>,
    /// In the window, or missing; times a minute's microseconds for the bucket.
    level: u128,
    most: u128,
    at: u64,
}

impl Course {
    fn new(world: &World, rule: Rule) -> Self {
        let algorithm = match world.enforced {
            Algorithms::Rolling | Algorithms::Slices => limits::Algorithm::Rolling,
            Algorithms::TokenBucket => limits::Algorithm::TokenBucket,
            Algorithms::Fixed => limits::Algorithm::Fixed {
                phase: Duration::from_millis(world.seed * 7_919 % 60_000),
            },
        };
        let limit = limits::Limit::new(Counted::Output, MINUTE, world.limit, algorithm);
        Self {
            world: *world,
            rng: Pcg64Mcg::seed_from_u64(world.seed),
            now: START,
            limiter: Limiter::new(world, rule),
            provider: Enforcer::new(Charging::AS_GENERATED, vec![limit]),
            calls: BTreeMap::new(),
            next: 0,
            waiting: 0,
            peak: Peak {
                bucket: world.enforced == Algorithms::TokenBucket,
                limit: world.limit,
                log: VecDeque::new(),
                level: 0,
                most: 0,
                at: START,
            },
            figures: Figures::default(),
            generated: 0,
            last_start: START + WARM,
        }
    }

    fn tick(&mut self) {
        let until = self.now + TICK;
        let mut started = Vec::new();
        while self.waiting < LINE {
            self.waiting += 1;
            self.next += 1;
            self.limiter
                .offer(self.now, self.next, self.world.asked, &mut started);
        }
        self.limiter.advance(self.now, until, &mut started);
        for (at, id) in started {
            self.start(at, id);
        }
        self.now = until;
        let ids: Vec<u64> = self.calls.keys().copied().collect();
        for id in ids {
            self.live(id);
        }
    }

    fn start(&mut self, at: u64, id: u64) {
        let world = self.world;
        let halfway = START + WARM + world.minutes * 30_000_000;
        let grows = if at >= halfway { world.grows } else { 1.0 };
        let length = (lognormal(&mut self.rng, world.length) * grows).clamp(1.0, tokens(world.longest));
        let uneven = self.rng.random_range(0..=2 * world.uneven) as f64 - f64::from(world.uneven);
        let hasty = world.hasty.is_some_and(|one| self.rng.random_range(0..one) == 0);
        let call = Call {
            arrives: at + self.rng.random_range(2_000..100_000),
            begins: None,
            length: whole(length),
            speed: world.speed * (1.0 + uneven / 100.0) * if hasty { 2.0 } else { 1.0 },
            silent: self.rng.random_range(0..100) < world.silent,
            reports: 0,
            generated: 0,
        };
        self.waiting -= 1;
        self.calls.insert(id, call);
        if at > START + WARM {
            let pause = at.saturating_sub(self.last_start);
            self.figures.pause = self.figures.pause.max(tokens(pause) / 1e6);
            self.last_start = at;
        }
    }

    fn live(&mut self, id: u64) {
        let now = self.now;
        let Some(call) = self.calls.get_mut(&id) else {
            return;
        };
        let Some(begins) = call.begins else {
            if call.arrives <= now {
                self.arrive(id);
            }
            return;
        };
        let due = whole(tokens(now.saturating_sub(begins)) / 1e6 * call.speed).min(call.length);
        let fresh = due - call.generated;
        call.generated = due;
        let ended = due == call.length;
        let reported = !call.silent && now >= call.reports;
        if reported {
            call.reports = now + CHUNK;
        }
        if fresh > 0 {
            self.provider.generated(limits::Timestamp(now), id, fresh);
            self.peak.take(now, fresh);
            if now > START + WARM {
                self.generated += fresh;
            }
        }
        if ended {
            self.provider.finish(limits::Timestamp(now), id);
            self.calls.remove(&id);
            self.limiter.end(now, id, due);
        } else if reported {
            self.limiter.progress(now, id, due);
        }
    }

    fn arrive(&mut self, id: u64) {
        let now = limits::Timestamp(self.now);
        self.figures.sent += 1;
        match self
            .provider
            .admit(now, id, &Weights::request(10, self.world.asked))
        {
            Ok(()) => {
                let wait = self.rng.random_range(200_000..800_000);
                if let Some(call) = self.calls.get_mut(&id) {
                    call.begins = Some(self.now + wait);
                    call.reports = self.now + wait + self.rng.random_range(0..CHUNK);
                }
            }
            Err(refused) => {
                self.figures.refused += 1;
                self.calls.remove(&id);
                let wait = match refused.wait {
                    limits::Wait::For(wait) => wait,
                    limits::Wait::Unknown | limits::Wait::Never => Duration::from_secs(1),
                };
                self.waiting += 1;
                self.limiter.refused(self.now, id, wait);
            }
        }
    }

    fn figures(mut self, end: u64) -> Figures {
        let allowed = self.world.limit * self.world.minutes;
        self.figures.utilization = tokens(self.generated) / tokens(allowed);
        self.figures.peak = self.peak.share();
        self.figures.pause = self
            .figures
            .pause
            .max(tokens(end.saturating_sub(self.last_start)) / 1e6);
        self.figures
    }
}

impl Peak {
    fn take(&mut self, now: u64, amount: u64) {
        let minute = 60_000_000_u64;
        if self.bucket {
            let inflow = u128::from(self.limit) * u128::from(now - self.at);
            self.at = now;
            self.level = self.level.saturating_sub(inflow) + u128::from(amount) * u128::from(minute);
        } else {
            self.log.push_back((now, amount));
            self.level += u128::from(amount);
            while let Some(&(at, old)) = self.log.front() {
                if at + minute > now {
                    break;
                }
                self.level -= u128::from(old);
                self.log.pop_front();
            }
        }
        if now > START + WARM {
            self.most = self.most.max(self.level);
        }
    }

    fn share(&self) -> f64 {
        let unit = if self.bucket { 60_000_000 } else { 1 };
        let most = u64::try_from(self.most / unit).unwrap_or(u64::MAX);
        tokens(most) / tokens(self.limit)
    }
}

impl Limiter {
    fn new(world: &World, rule: Rule) -> Self {
        let (guarantee, discipline) = match rule {
            Rule::Hold(each) => {
                return Self::Hold {
                    each,
                    limit: world.limit,
                    line: VecDeque::new(),
                    running: BTreeMap::new(),
                    window: VecDeque::new(),
                    used: 0,
                    until: START,
                };
            }
            Rule::Projected(guarantee) => (guarantee, Discipline::Rolling),
            Rule::Bucket(guarantee) => (guarantee, Discipline::TokenBucket),
        };
        let amount = NonZeroU64::new(world.limit).unwrap_or(NonZeroU64::MIN);
        let limit = Limit {
            discipline,
            ..Limit::rolling(Dimension::OutputTokens, MINUTE, amount)
        };
        let quota = QuotaPlan {
            guarantee,
            learning: Learning::Off,
            margin: MarginPolicy::Fixed(Duration::from_secs(1)),
            ..QuotaPlan::new(QUOTA, vec![limit], ChargeModel::ANTHROPIC)
        };
        let plan = Plan {
            quotas: vec![quota],
            ..Plan::default()
        };
        Self::Engine {
            engine: Box::new(Engine::new(Timestamp::from_micros(START), plan, world.seed)),
            tickets: BTreeMap::new(),
            permits: BTreeMap::new(),
        }
    }

    fn offer(&mut self, now: u64, id: u64, asked: u64, started: &mut Vec<(u64, u64)>) {
        let (engine, tickets, permits) = match self {
            Self::Hold { line, .. } => return line.push_back(id),
            Self::Engine {
                engine,
                tickets,
                permits,
            } => (engine, tickets, permits),
        };
        let at = Timestamp::from_micros(now);
        let request = Request::new(
            QuotaKey::named(QUOTA),
            Demand {
                class: RequestClass::of(&["model"]),
                ..Demand::generating(Tokens::new(10), Some(Tokens::new(asked)))
            },
            at + Duration::from_secs(3_600),
        );
        match engine.submit(at, request) {
            Decision::Admit(permit) => {
                permits.insert(id, permit.id);
                started.push((now, id));
            }
            Decision::Wait(ticket) => {
                tickets.insert(ticket.id, id);
            }
            // Told to come too late: offered again.
            Decision::Refuse(_) => {}
        }
    }

    /// Lets time pass from `now` until before `until`.
    fn advance(&mut self, now: u64, until: u64, started: &mut Vec<(u64, u64)>) {
        match self {
            Self::Engine {
                engine,
                tickets,
                permits,
            } => {
                let mut at = now;
                loop {
                    while let Some(output) = engine.poll_output() {
                        if let Output::Admit { ticket, permit } = output
                            && let Some(id) = tickets.remove(&ticket)
                        {
                            permits.insert(id, permit.id);
                            started.push((at, id));
                        }
                    }
                    match engine.poll_timeout() {
                        Some((due, _)) if due.as_micros() < until => {
                            at = at.max(due.as_micros());
                            engine.handle_timeout(Timestamp::from_micros(at));
                        }
                        _ => break,
                    }
                }
            }
            Self::Hold {
                each,
                limit,
                line,
                running,
                window,
                used,
                until: hold,
            } => {
                while let Some(&(at, old)) = window.front() {
                    if at + 61_000_000 > now {
                        break;
                    }
                    *used -= old;
                    window.pop_front();
                }
                let held: u64 = running.values().map(|seen| each.saturating_sub(*seen)).sum();
                let mut committed = *used + held;
                while now >= *hold && committed + *each <= *limit {
                    let Some(id) = line.pop_front() else { break };
                    running.insert(id, 0);
                    committed += *each;
                    started.push((now, id));
                }
            }
        }
    }

    fn progress(&mut self, now: u64, id: u64, generated: u64) {
        match self {
            Self::Engine { engine, permits, .. } => {
                if let Some(permit) = permits.get(&id) {
                    engine.progress(Timestamp::from_micros(now), *permit, Tokens::new(generated));
                }
            }
            Self::Hold {
                running,
                window,
                used,
                ..
            } => {
                let Some(seen) = running.get_mut(&id) else { return };
                let fresh = generated.saturating_sub(*seen);
                *seen = generated;
                window.push_back((now, fresh));
                *used += fresh;
            }
        }
    }

    fn end(&mut self, now: u64, id: u64, generated: u64) {
        match self {
            Self::Engine { engine, permits, .. } => {
                if let Some(permit) = permits.remove(&id) {
                    let usage = Usage {
                        output: Some(Tokens::new(generated)),
                        ..Usage::default()
                    };
                    engine.settle(Timestamp::from_micros(now), permit, Outcome::Completed(usage));
                }
            }
            Self::Hold { .. } => {
                self.progress(now, id, generated);
                if let Self::Hold { running, .. } = self {
                    running.remove(&id);
                }
            }
        }
    }

    fn refused(&mut self, now: u64, id: u64, wait: Duration) {
        match self {
            Self::Engine {
                engine,
                tickets,
                permits,
            } => {
                let Some(permit) = permits.remove(&id) else { return };
                let refused = RateLimited {
                    dimension: Some(Dimension::OutputTokens),
                    retry_after: Some(wait),
                    ..RateLimited::default()
                };
                let decision =
                    engine.retry(Timestamp::from_micros(now), permit, Failure::RateLimited(refused));
                if let Decision::Wait(ticket) = decision {
                    tickets.insert(ticket.id, id);
                }
            }
            Self::Hold {
                line, running, until, ..
            } => {
                running.remove(&id);
                line.push_front(id);
                *until = now + u64::try_from(wait.as_micros()).unwrap_or(0);
            }
        }
    }
}

/// Draws from the lognormal distribution with this mean and standard deviation.
fn lognormal(rng: &mut Pcg64Mcg, (mean, deviation): (f64, f64)) -> f64 {
    let variance = (1.0 + (deviation / mean).powi(2)).ln();
    let uniform: f64 = rng.random_range(f64::EPSILON..1.0);
    let turn: f64 = rng.random_range(0.0..core::f64::consts::TAU);
    let normal = (-2.0 * uniform.ln()).sqrt() * turn.cos();
    (mean.ln() - variance / 2.0 + normal * variance.sqrt()).exp()
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn tokens(tokens: u64) -> f64 {
    tokens as f64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive and small"
)]
fn whole(tokens: f64) -> u64 {
    tokens.max(0.0) as u64
}

/// Prints what each rule makes of the usual world, and what the projected window makes of others.
pub fn print_table(seed: u64, minutes: u64) {
    let one_in_a_thousand = Guarantee::default();
    println!("seed {seed}, {minutes} minutes each\n{:<52} {COLUMNS}", "rule");
    let usual = World::usual(seed, minutes);
    let print = |name: &str, world: World, rule: Rule| println!("{name:<52} {}", run(&world, rule));
    for (name, each) in [
        ("hold max_tokens", 4_096),
        ("hold p99", 3_400),
        ("hold p95", 1_900),
        ("hold p90", 1_330),
        ("hold the mean", 639),
    ] {
        print(name, usual, Rule::Hold(each));
    }
    let hasty = World {
        hasty: Some(50),
        ..usual
    };
    let one_in_a_hundred = Guarantee::Statistical { per_million: 10_000 };
    print("projected, 1 in 100", usual, Rule::Projected(one_in_a_hundred));
    print("projected, 1 in 1,000", usual, Rule::Projected(one_in_a_thousand));
    print("projected, hard", usual, Rule::Projected(Guarantee::Hard));
    print(
        "projected, hard, 1 call in 50 twice as fast",
        hasty,
        Rule::Projected(Guarantee::Hard),
    );
    let uneven = World { uneven: 40, ..usual };
    let silent = World { silent: 100, ..usual };
    let worlds = [
        ("speeds differ by 40 %", uneven),
        ("nothing streams", silent),
        (
            "nothing streams, speeds differ by 40 %",
            World {
                silent: 100,
                ..uneven
            },
        ),
        ("half streams", World { silent: 50, ..uneven }),
        (
            "max_tokens 64,000",
            World {
                asked: 64_000,
                ..usual
            },
        ),
        (
            "limit of 8,000",
            World {
                limit: 8_000,
                ..usual
            },
        ),
        (
            "limit of 800,000",
            World {
                limit: 800_000,
                ..usual
            },
        ),
        (
            "outputs five times as long from halfway on",
            World { grows: 5.0, ..usual },
        ),
        ("the same, nothing streams", World { grows: 5.0, ..silent }),
    ];
    for (name, world) in worlds {
        for (enforced, rule) in [
            (Algorithms::Rolling, Rule::Projected(one_in_a_thousand)),
            (Algorithms::Fixed, Rule::Projected(one_in_a_thousand)),
            (Algorithms::TokenBucket, Rule::Projected(one_in_a_thousand)),
            (Algorithms::TokenBucket, Rule::Bucket(one_in_a_thousand)),
        ] {
            let keeping = if matches!(rule, Rule::Bucket(_)) {
                ", kept as one"
            } else {
                ""
            };
            let name = format!("{name}; {}{keeping}", enforced.name());
            print(&name, World { enforced, ..world }, rule);
        }
    }
}
