//! One that asks for everything at once, next to one that asks now and then.

use std::fmt;

use tidegate_core::Discipline;

use super::baseline::Rule;
use super::course::{Answer, Course, MINUTE, SECOND, START, Turn, Who};
use super::figures::{Waits, seconds, share};
use super::quota::{Call, Quota, Tenant};

/// Requests a minute.
pub const LIMIT: u64 = 500;
/// The time in which one request becomes possible, in seconds.
pub const SLOT: f64 = 0.12;
/// What one asks for at once.
const GATHERED: u64 = 5_000;

/// A greedy one next to a polite one, who asks once a second.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    /// The seed.
    pub seed: u64,
    /// Who decides.
    pub who: Who,
    /// How the engine keeps the limit.
    pub discipline: Discipline,
    /// Minutes in which the polite one was there before.
    pub history: u64,
    /// Whether the greedy one comes at all.
    pub is_shared: bool,
}

impl Scene {
    /// The usual: the engine with its rolling window, a minute of history.
    pub const fn usual(seed: u64) -> Self {
        Self {
            seed,
            who: Who::Ours,
            discipline: Discipline::Rolling,
            history: 1,
            is_shared: true,
        }
    }

    /// Every scene of the table, the name of its row first.
    pub fn all(seed: u64) -> Vec<(String, Self)> {
        let usual = Self::usual(seed);
        let mut rows = Vec::new();
        for rule in [Rule::Fifo, Rule::Fair] {
            let who = Who::Baseline(rule);
            rows.push((who.name().to_owned(), Self { who, ..usual }));
        }
        for (keeping, discipline) in [
            ("rolling", Discipline::Rolling),
            ("token bucket", Discipline::TokenBucket),
        ] {
            for (past, history) in [("a minute of history", 1), ("no history", 0)] {
                let scene = Self {
                    discipline,
                    history,
                    ..usual
                };
                rows.push((format!("Tidegate, {keeping}, {past}"), scene));
            }
        }
        let alone = Self {
            is_shared: false,
            ..usual
        };
        rows.push(("Tidegate, alone".to_owned(), alone));
        rows
    }

    /// Plays it until the greedy one is served, or for ten minutes if there is none.
    pub fn run(&self) -> Figures {
        let tenants = ["polite", "greedy"].map(|name| Tenant::new(name, 1));
        let quota = Quota {
            requests: Some(LIMIT),
            tokens: Some(1_000_000_000),
            discipline: self.discipline,
        };
        let mut course = Course::new(self.who, quota, &tenants, self.seed);
        let begin = START + self.history * MINUTE;
        // Half a second off, so that without history the greedy one is the first.
        course.plan(START + SECOND / 2, Event::Polite);
        if self.is_shared {
            course.plan(begin, Event::Greedy);
        }
        let end = begin + if self.is_shared { 120 * MINUTE } else { 10 * MINUTE };
        let mut figures = Figures::default();
        // When the polite one asked, while that call waits.
        let mut polite: Vec<Option<u64>> = Vec::new();
        while let Some(turn) = course.turn(end) {
            match turn {
                Turn::Due(Event::Polite) => {
                    polite.push(Some(course.now));
                    let id = polite.len() as u64;
                    if course.submit(id, Call::patient(0, 100)) == Answer::Start {
                        figures.answered(course.now, begin, &mut polite, id);
                    }
                    course.plan(course.now + SECOND, Event::Polite);
                }
                Turn::Due(Event::Greedy) => {
                    for _ in 0..GATHERED {
                        if course.submit(0, Call::patient(1, 100)) == Answer::Start {
                            figures.served(course.now - begin);
                        }
                    }
                }
                Turn::Start(0) => figures.served(course.now - begin),
                Turn::Start(id) => figures.answered(course.now, begin, &mut polite, id),
                Turn::Refuse(..) => {}
            }
            if figures.greedy == GATHERED {
                break;
            }
        }
        figures.lasted = course.now - begin;
        // Who still waits has waited so long at least.
        for came in polite.into_iter().flatten().filter(|came| *came >= begin) {
            figures.waits.add(course.now - came);
        }
        figures
    }
}

/// What is to happen.
#[derive(Debug, Clone, Copy)]
enum Event {
    Polite,
    Greedy,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// How long the polite one waited.
    pub waits: Waits,
    /// What the greedy one was served.
    greedy: u64,
    /// When it was served the last of it, in microseconds since it came.
    done: u64,
    /// Everything that was sent since.
    sent: u64,
    /// How long that took, in microseconds.
    lasted: u64,
}

impl Figures {
    /// A call of the polite one may start; those of before the greedy one came are not counted.
    fn answered(&mut self, now: u64, begin: u64, polite: &mut [Option<u64>], id: u64) {
        let place = usize::try_from(id - 1)
            .ok()
            .and_then(|place| polite.get_mut(place));
        if let Some(came) = place.and_then(Option::take).filter(|came| *came >= begin) {
            self.waits.add(now - came);
            self.sent += 1;
        }
    }

    fn served(&mut self, since: u64) {
        self.greedy += 1;
        self.sent += 1;
        self.done = since;
    }

    /// Returns when the greedy one was served the last of what it asked for, in minutes; `None` if it was not.
    pub fn done(&self) -> Option<f64> {
        (self.greedy == GATHERED).then(|| seconds(self.done) / 60.0)
    }

    /// Returns what was sent over what the limit allows in that time, the first window in full.
    pub fn used(&self) -> f64 {
        share(self.sent * MINUTE, LIMIT * (self.lasted + MINUTE))
    }
}

/// The head of the columns of [`Figures`].
pub const COLUMNS: &str = "polite p50     p99     max   greedy done min   used";

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99] = [50, 99].map(|percent| self.waits.percentile(percent));
        let done = self
            .done()
            .map_or_else(|| "–".to_owned(), |done| format!("{done:.2}"));
        write!(
            f,
            "{p50:>10.3} {p99:>7.3} {:>7.3} {done:>17} {:>6.3}",
            self.waits.longest(),
            self.used()
        )
    }
}
