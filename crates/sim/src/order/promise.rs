//! What callers are told, next to what comes: when they will start, and when to come back.

use std::fmt;
use std::time::Duration;

use tidegate_core::{Discipline, Priority, Timestamp, Tokens};

use super::course::{Answer, Course, MINUTE, SECOND, START, Turn, Who};
use super::figures::{Waits, seconds, share};
use super::quota::{Call, Quota, Tenant};
use super::trace::Traced;

/// How often a caller comes back at most.
const RETURNS_MAX: u32 = 100;
/// Tokens that a request generates in a second.
const SPEED: u64 = 50;

/// A replay of a trace against one quota.
#[derive(Debug, Clone, Copy)]
pub struct Replay {
    /// The seed.
    pub seed: u64,
    /// The mean load of the trace over the limits on requests and on tokens, in percent.
    pub load: u64,
    /// How many tenants send it, taking turns.
    pub tenants: usize,
    /// How long callers wait, in seconds.
    pub patience: u64,
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Those who were told when they will start, and did start after a wait: how long they waited.
    pub waits: Waits,
    /// How far the start was from what they were told.
    pub errors: Waits,
    /// The same over what is allowed of it, in millionths: the larger of a second and 15 % of the wait.
    relative: Waits,
    /// Those who were turned away at once.
    pub refused: u64,
    /// Those who were turned away after a wait.
    pub expired: u64,
    /// Those who came back once, and those of them who were let in then: at once, or after a wait.
    pub first_returns: (u64, u64),
    /// The same for every time that anybody came back.
    pub returns: (u64, u64),
}

impl Figures {
    /// Returns the error over what is allowed of it that so many percent do not exceed.
    pub fn relative(&self, percent: usize) -> f64 {
        self.relative.percentile(percent)
    }

    /// Returns the share of waits whose error is within what is allowed of it.
    pub fn within(&self) -> f64 {
        self.relative.share_up_to(SECOND)
    }

    /// Returns the share of those who came back once that were let in.
    pub fn returned(&self) -> f64 {
        share(self.first_returns.1, self.first_returns.0)
    }
}

/// The head of the columns of [`Figures`].
pub const COLUMNS: &str = "waited  wait p50   error s p50    p90   within %   p90 over bound   refused  expired   first returns: let in %   all: let in %";

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>6} {:>9.1} {:>13.2} {:>6.2} {:>10.1} {:>16.2} {:>9} {:>8} {:>15} {:>8} {:>6} {:>8}",
            self.waits.len(),
            self.waits.percentile(50),
            self.errors.percentile(50),
            self.errors.percentile(90),
            self.within() * 100.0,
            self.relative(90),
            self.refused,
            self.expired,
            self.first_returns.0,
            let_in(self.first_returns),
            self.returns.0,
            let_in(self.returns),
        )
    }
}

/// Returns the share of those who came back that were let in, in percent.
fn let_in((came, let_in): (u64, u64)) -> String {
    if came == 0 {
        return "–".to_owned();
    }
    format!("{:.1}", share(let_in, came) * 100.0)
}

/// What is to happen: a request of the trace comes, or comes back for the so manieth time.
#[derive(Debug, Clone, Copy)]
struct Try {
    index: usize,
    returns: u32,
}

/// One who waits.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    attempt: Try,
    came: u64,
    told: Option<u64>,
}

impl Replay {
    /// Plays it.
    pub fn run(&self, trace: &[Traced]) -> Figures {
        let tenants: Vec<Tenant> = (0..self.tenants)
            .map(|index| Tenant::new(format!("tenant {index}"), 1))
            .collect();
        let mut course = Course::new(Who::Ours, self.quota(trace), &tenants, self.seed);
        for (index, traced) in trace.iter().enumerate() {
            course.plan(START + traced.at, Try { index, returns: 0 });
        }
        let mut figures = Figures::default();
        let mut waiting: Vec<Waiting> = Vec::new();
        // Long enough for the last one to be served at any of these loads.
        let end = START + 24 * 60 * MINUTE;
        while let Some(turn) = course.turn(end) {
            match turn {
                Turn::Due(attempt) => {
                    let id = waiting.len() as u64;
                    let answer =
                        course.submit(id, self.call(course.now, &trace[attempt.index], attempt.index));
                    let told = if let Answer::Wait(told) = answer {
                        told
                    } else {
                        None
                    };
                    waiting.push(Waiting {
                        attempt,
                        came: course.now,
                        told,
                    });
                    match answer {
                        Answer::Start => figures.end(attempt, true),
                        Answer::Wait(_) => {}
                        Answer::Refuse(retry_after) => {
                            figures.refused += u64::from(attempt.returns == 0);
                            figures.end(attempt, false);
                            come_back(&mut course, attempt, retry_after);
                        }
                    }
                }
                Turn::Start(id) => {
                    if let Some(one) = usize::try_from(id).ok().and_then(|id| waiting.get(id)) {
                        figures.wait(course.now, one);
                        figures.end(one.attempt, true);
                    }
                }
                Turn::Refuse(id, retry_after) => {
                    if let Some(one) = usize::try_from(id).ok().and_then(|id| waiting.get(id)) {
                        figures.expired += 1;
                        figures.end(one.attempt, false);
                        come_back(&mut course, one.attempt, retry_after);
                    }
                }
            }
        }
        figures
    }

    /// Returns the quota under which the trace is this load.
    fn quota(&self, trace: &[Traced]) -> Quota {
        let span = trace.last().map_or(1, |last| last.at).max(1);
        let tokens: u64 = trace.iter().map(|traced| traced.input + traced.output).sum();
        let per_minute = |total: u64| {
            let amount = u128::from(total) * u128::from(MINUTE) * 100;
            let amount = amount / (u128::from(span) * u128::from(self.load.max(1)));
            Some(u64::try_from(amount).unwrap_or(u64::MAX))
        };
        Quota {
            requests: per_minute(trace.len() as u64),
            tokens: per_minute(tokens),
            discipline: Discipline::Rolling,
        }
    }

    fn call(&self, now: u64, traced: &Traced, index: usize) -> Call {
        Call {
            tenant: index % self.tenants,
            priority: Priority::Normal,
            tokens: Tokens::new(traced.input + traced.output),
            deadline: Timestamp::from_micros(now + self.patience * SECOND),
            lasts: Duration::from_micros(traced.output * SECOND / SPEED),
            identity: Some(index as u64),
        }
    }
}

fn come_back(course: &mut Course<Try>, attempt: Try, retry_after: Option<Duration>) {
    if let Some(wait) = retry_after
        && attempt.returns < RETURNS_MAX
    {
        let wait = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        let next = Try {
            returns: attempt.returns + 1,
            ..attempt
        };
        course.plan(course.now.saturating_add(wait), next);
    }
}

impl Figures {
    fn wait(&mut self, now: u64, one: &Waiting) {
        let Some(told) = one.told else { return };
        let (wait, error) = (now - one.came, now.abs_diff(told));
        let allowed = SECOND.max(wait * 15 / 100);
        self.waits.add(wait);
        self.errors.add(error);
        self.relative.add(error * SECOND / allowed);
    }

    /// Takes note that an attempt was let in or turned away.
    fn end(&mut self, attempt: Try, is_in: bool) {
        if attempt.returns == 1 {
            self.first_returns.0 += 1;
            self.first_returns.1 += u64::from(is_in);
        }
        if attempt.returns > 0 {
            self.returns.0 += 1;
            self.returns.1 += u64::from(is_in);
        }
    }
}

/// Returns how long the trace is, in minutes.
pub fn minutes(trace: &[Traced]) -> f64 {
    seconds(trace.last().map_or(0, |last| last.at)) / 60.0
}
