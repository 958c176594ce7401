//! Work of different urgency over one quota: a nightly job next to people who wait, and tiers that all want everything.

use std::fmt;

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use tidegate_core::{Priority, Tokens};

use super::course::{Answer, Course, MINUTE, SECOND, START, Turn, Who};
use super::figures::{Waits, seconds, share};
use super::mixture::pause;
use super::quota::{Call, Quota, Tenant};
use super::window::LIFE_MEAN_S;

const QUOTA: Quota = Quota::both(3_000, 1_000_000);
/// Minutes that are not measured.
pub const WARM: u64 = 5;

/// What one tenant asks for.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// How urgent it is.
    pub priority: Priority,
    /// Tokens of each request.
    pub tokens: u64,
    /// When they come.
    pub comes: Comes,
}

/// When requests come.
#[derive(Debug, Clone, Copy)]
pub enum Comes {
    /// At random, so many in a second.
    Random(f64),
    /// So many, all at the beginning.
    Gathered(u64),
    /// So many wait at any time.
    Backlog(u64),
}

/// Several tenants with work of different urgency.
#[derive(Debug, Clone)]
pub struct Scene {
    /// The seed.
    pub seed: u64,
    /// Minutes that are measured, after [`WARM`] that are not.
    pub minutes: u64,
    /// What each tenant asks for.
    pub works: Vec<Work>,
}

impl Scene {
    /// A job of 20,000 gathered requests of 2,000 tokens, next to people who ask twice a second for 1,500.
    pub fn nightly(seed: u64, minutes: u64, job: Priority) -> Self {
        let mut scene = Self::quiet(seed, minutes);
        scene.works.push(Work {
            priority: job,
            tokens: 2_000,
            comes: Comes::Gathered(20_000),
        });
        scene
    }

    /// The people of [`Scene::nightly`] alone.
    pub fn quiet(seed: u64, minutes: u64) -> Self {
        let chat = Work {
            priority: Priority::High,
            tokens: 1_500,
            comes: Comes::Random(2.0),
        };
        Self {
            seed,
            minutes,
            works: vec![chat],
        }
    }

    /// The highest tier asks for 120 % of what the window can carry, and the next two for whatever they can get.
    pub fn overload(seed: u64, minutes: u64) -> Self {
        let tokens = 1_500;
        let backlog = |priority| Work {
            priority,
            tokens,
            comes: Comes::Backlog(30),
        };
        let high = Work {
            priority: Priority::High,
            tokens,
            comes: Comes::Random(1.2 * 1e6 / LIFE_MEAN_S / 1_500.0),
        };
        Self {
            seed,
            minutes,
            works: vec![high, backlog(Priority::Normal), backlog(Priority::Low)],
        }
    }

    /// Plays it.
    pub fn run(&self) -> Figures {
        let tenant = |index| Tenant::new(format!("tenant {index}"), 1);
        let tenants: Vec<Tenant> = (0..self.works.len()).map(tenant).collect();
        let begin = START + WARM * MINUTE;
        let end = begin + self.minutes * MINUTE;
        let mut play = Play {
            works: &self.works,
            course: Course::new(Who::Ours, QUOTA, &tenants, self.seed),
            begin,
            asked: Vec::new(),
            served: vec![Served::default(); self.works.len()],
        };
        let mut rng = Pcg64Mcg::seed_from_u64(self.seed);
        for (index, work) in self.works.iter().enumerate() {
            match work.comes {
                Comes::Random(rate) => {
                    let mut at = START;
                    while at < end {
                        at += pause(&mut rng, rate);
                        play.course.plan(at, index);
                    }
                }
                // After the others have begun, as a job does that is started while people work.
                Comes::Gathered(count) => {
                    (0..count).for_each(|_| play.course.plan(START + 2 * MINUTE, index));
                }
                Comes::Backlog(count) => {
                    (0..count).for_each(|_| play.course.plan(START + SECOND, index));
                }
            }
        }
        while let Some(turn) = play.course.turn(end) {
            match turn {
                Turn::Due(index) => play.ask(index),
                Turn::Start(id) => {
                    if let Some(index) = play.start(id)
                        && matches!(self.works[index].comes, Comes::Backlog(_))
                    {
                        play.ask(index);
                    }
                }
                Turn::Refuse(..) => {}
            }
        }
        play.keep_waiting(end);
        Figures {
            measured: end - begin,
            works: self.works.clone(),
            served: play.served,
        }
    }
}

/// A scene on its way.
struct Play<'a> {
    works: &'a [Work],
    course: Course<usize>,
    begin: u64,
    /// Who asked, and when, by the number of the request; nobody once it has started.
    asked: Vec<Option<(usize, u64)>>,
    served: Vec<Served>,
}

impl Play<'_> {
    /// Lets one ask; who keeps so many waiting asks until one has to wait.
    fn ask(&mut self, index: usize) {
        let work = self.works[index];
        loop {
            let (id, now) = (self.asked.len() as u64, self.course.now);
            self.asked.push(Some((index, now)));
            let call = Call {
                priority: work.priority,
                ..Call::patient(index, work.tokens)
            };
            if self.course.submit(id, call) != Answer::Start {
                break;
            }
            self.start(id);
            if !matches!(work.comes, Comes::Backlog(_)) {
                break;
            }
        }
    }

    /// One may start; returns whose it is.
    fn start(&mut self, id: u64) -> Option<usize> {
        let (index, came) = self.asked.get_mut(usize::try_from(id).ok()?)?.take()?;
        let now = self.course.now;
        let served = &mut self.served[index];
        served.count += u64::from(now >= self.begin);
        if came >= self.begin {
            served.waits.add(now - came);
        }
        Some(index)
    }

    /// Counts those who still wait in the end: they have waited so long at least.
    fn keep_waiting(&mut self, end: u64) {
        for (index, came) in self.asked.iter().flatten().copied() {
            if came >= self.begin {
                self.served[index].waits.add(end - came);
            }
        }
    }
}

/// What one was served.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// Requests, after the warm-up.
    pub count: u64,
    /// The waits of those who came after the warm-up, up to the end for those who still wait then.
    pub waits: Waits,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Figures {
    works: Vec<Work>,
    measured: u64,
    /// What each was served.
    pub served: Vec<Served>,
}

impl Figures {
    /// Returns what was used of what the rolling window can carry.
    pub fn used(&self) -> f64 {
        (0..self.works.len()).map(|index| self.part(index)).sum()
    }

    /// Returns what one got of all that was given.
    pub fn share(&self, index: usize) -> f64 {
        self.part(index) / self.used()
    }

    /// Returns requests of one that were served in a minute.
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn per_minute(&self, index: usize) -> f64 {
        self.served[index].count as f64 * 60.0 / seconds(self.measured)
    }

    fn part(&self, index: usize) -> f64 {
        let cost = QUOTA.cost(Tokens::new(self.works[index].tokens)).0;
        let windows = seconds(self.measured) / LIFE_MEAN_S;
        share(self.served[index].count * cost, super::quota::Part::WHOLE.0) / windows
    }
}

/// The head of the columns of [`Figures`].
pub const COLUMNS: &str = "  used   each tier: requests a minute, share of what was given, wait p50 and p99";

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6.3}", self.used())?;
        for (index, work) in self.works.iter().enumerate() {
            write!(
                f,
                "   {:>6} {:>5.0}/min {:>5.1} % {}",
                work.priority.name(),
                self.per_minute(index),
                self.share(index) * 100.0,
                self.served[index].waits,
            )?;
        }
        Ok(())
    }
}
