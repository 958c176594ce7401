//! Small, middle and large requests over one quota, in five orders: the comparison of theory.md §3.3.

use std::fmt;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::course::{Answer, Course, MINUTE, START, Turn, Who};
use super::figures::{Waits, seconds, share};
use super::quota::{Call, Quota, Tenant};
use super::window::LIFE_MEAN_S;

/// Tokens a minute.
const LIMIT: u64 = 1_000_000;
/// The classes: tokens of a request, and how many come in a second at 17,000 tokens a second in all.
const CLASSES: [(u64, f64); 3] = [(500, 8.0), (5_000, 0.6), (200_000, 0.05)];
/// What the classes ask for in a second, in tokens, before they are scaled.
const ASKED: f64 = 17_000.0;
/// Minutes that are not measured.
pub const WARM: u64 = 5;

/// A comparison.
#[derive(Debug, Clone, Copy)]
pub struct Mixture {
    /// The first seed of the arrivals, which are the same for everybody.
    pub seed: u64,
    /// Worlds, one for each of so many seeds: at a load near the limit the tail of the waits is that of the few worst hours.
    pub worlds: u64,
    /// Minutes that are measured, after [`WARM`] that are not.
    pub minutes: u64,
    /// The offered load over what the rolling window can carry: the limit in every 61.05 s.
    pub load: f64,
}

/// What came of one order.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Whose order.
    pub who: Who,
    /// The waits of those who came after the warm-up and were served, class by class.
    pub waits: [Waits; 3],
    /// What was used of what the rolling window can carry.
    pub used: f64,
    /// The share of the tokens asked for, class by class, that is not served in the end.
    pub unserved: [f64; 3],
    /// The longest time in which one of the class waited and none was started, in seconds.
    pub pause: [f64; 3],
}

/// The head of the columns of [`Figures`].
pub const COLUMNS: &str = concat!(
    "order                        small p50     p99  middle p50     p99   large p50     p99    used",
    "   unserved %: small middle large   longest pause s: small middle large"
);

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [small, middle, large] = &self.waits;
        write!(
            f,
            "{:<29}  {small}     {middle}     {large}  {:>6.3}",
            self.who.name(),
            self.used
        )?;
        let [small, middle, large] = self.unserved.map(|unserved| unserved * 100.0);
        write!(f, "              {small:>6.1} {middle:>6.1} {large:>5.1}")?;
        let [small, middle, large] = self.pause;
        write!(f, "                    {small:>5.1} {middle:>6.1} {large:>5.1}")
    }
}

/// One that came: when, and of which class.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    at: u64,
    class: usize,
}

/// Lets every order serve the same arrivals.
pub fn compare(mixture: &Mixture) -> Vec<Figures> {
    let mut all: Vec<Figures> = Vec::new();
    for world in 0..mixture.worlds.max(1) {
        let one = Mixture {
            seed: mixture.seed + world,
            ..*mixture
        };
        let arrivals = arrivals(&one);
        let figures = Who::ALL.map(|who| run(&one, &arrivals, who));
        if all.is_empty() {
            all.extend(figures);
        } else {
            for (sum, figures) in all.iter_mut().zip(figures) {
                sum.join(figures, world);
            }
        }
    }
    all
}

impl Figures {
    /// Adds the figures of another world to those of so many before it.
    #[allow(clippy::cast_precision_loss, reason = "a handful of worlds")]
    fn join(&mut self, other: Self, before: u64) {
        let before = before as f64;
        let mean = |one: f64, other: f64| (one * before + other) / (before + 1.0);
        self.used = mean(self.used, other.used);
        for class in 0..3 {
            self.unserved[class] = mean(self.unserved[class], other.unserved[class]);
            self.pause[class] = self.pause[class].max(other.pause[class]);
        }
        for (waits, others) in self.waits.iter_mut().zip(other.waits) {
            waits.join(others);
        }
    }
}

fn run(mixture: &Mixture, arrivals: &[Arrival], who: Who) -> Figures {
    let tenants = ["small", "middle", "large"].map(|name| Tenant::new(name, 1));
    let mut course = Course::new(who, Quota::tokens(LIMIT), &tenants, mixture.seed);
    let (begin, end) = span(mixture);
    let mut tally = Tally {
        begin,
        started: 0,
        waits: Default::default(),
        waiting: [0; 3],
        since: [START; 3],
        pause: [0; 3],
    };
    course.plan(arrivals.first().map_or(end, |arrival| arrival.at), 0_usize);
    while let Some(turn) = course.turn(end) {
        match turn {
            Turn::Due(next) => {
                let arrival = arrivals[next];
                if let Some(later) = arrivals.get(next + 1) {
                    course.plan(later.at, next + 1);
                }
                tally.come(course.now, arrival.class);
                let call = Call::patient(arrival.class, CLASSES[arrival.class].0);
                if course.submit(next as u64, call) == Answer::Start {
                    tally.start(course.now, arrival);
                }
            }
            Turn::Start(id) => {
                let arrival = usize::try_from(id).ok().and_then(|id| arrivals.get(id));
                if let Some(arrival) = arrival {
                    tally.start(course.now, *arrival);
                }
            }
            Turn::Refuse(..) => {}
        }
    }
    for class in 0..3 {
        tally.pause(end, class);
    }
    let measured = seconds(end - begin) / LIFE_MEAN_S;
    let came = |class| arrivals.iter().filter(|arrival| arrival.class == class).count() as u64;
    Figures {
        who,
        used: share(tally.started, LIMIT) / measured,
        unserved: [0, 1, 2].map(|class| share(tally.waiting[class], came(class).max(1))),
        waits: tally.waits,
        pause: tally.pause.map(seconds),
    }
}

/// What is counted on the way.
struct Tally {
    /// When measuring begins.
    begin: u64,
    /// Tokens started since.
    started: u64,
    waits: [Waits; 3],
    waiting: [u64; 3],
    /// Since when no one of the class was started while one waited.
    since: [u64; 3],
    pause: [u64; 3],
}

impl Tally {
    fn come(&mut self, now: u64, class: usize) {
        if self.waiting[class] == 0 {
            self.since[class] = now;
        }
        self.waiting[class] += 1;
    }

    fn start(&mut self, now: u64, arrival: Arrival) {
        let class = arrival.class;
        self.pause(now, class);
        self.waiting[class] -= 1;
        if now >= self.begin {
            self.started += CLASSES[class].0;
        }
        if arrival.at >= self.begin {
            self.waits[class].add(now - arrival.at);
        }
    }

    fn pause(&mut self, now: u64, class: usize) {
        if self.waiting[class] > 0 {
            self.pause[class] = self.pause[class].max(now - self.since[class]);
            self.since[class] = now;
        }
    }
}

/// Returns from when until when is measured.
const fn span(mixture: &Mixture) -> (u64, u64) {
    let begin = START + WARM * MINUTE;
    (begin, begin + mixture.minutes * MINUTE)
}

fn arrivals(mixture: &Mixture) -> Vec<Arrival> {
    let mut rng = Pcg64Mcg::seed_from_u64(mixture.seed);
    #[allow(clippy::cast_precision_loss, reason = "a million")]
    let scale = mixture.load * (LIMIT as f64 / LIFE_MEAN_S) / ASKED;
    let end = span(mixture).1;
    let mut all = Vec::new();
    for (class, (_, rate)) in CLASSES.into_iter().enumerate() {
        let mut at = START;
        loop {
            at += pause(&mut rng, rate * scale);
            if at >= end {
                break;
            }
            all.push(Arrival { at, class });
        }
    }
    all.sort_by_key(|arrival| (arrival.at, arrival.class));
    all
}

/// Draws the time until the next arrival of so many a second, in microseconds: exponential, so that they come at random.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive, and hours at most"
)]
pub(super) fn pause(rng: &mut Pcg64Mcg, per_second: f64) -> u64 {
    let uniform: f64 = rng.random_range(f64::EPSILON..1.0);
    (-uniform.ln() / per_second * 1e6) as u64
}
