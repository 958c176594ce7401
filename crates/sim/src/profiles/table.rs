//! The tables that people read.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::catalog::Profile;
use super::exchange::{Trial, run};
use super::figures::Figures;

/// A profile whose limits were told: the promise, and the use of the quota.
#[derive(Debug)]
pub struct ToldRow<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// What came of it.
    pub figures: &'a Figures,
}

/// The head of the table of [`ToldRow`]s.
pub const TOLD: &str = "profile                           minutes      sent   429s  tightest      used  at least  fullest output: first 2 min, later";

impl fmt::Display for ToldRow<'_> {
    #[allow(clippy::cast_precision_loss, reason = "a share for people")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { profile, figures } = self;
        let (name, share) = figures.utilization();
        write!(
            f,
            "{:<32}{:>9}{:>10}{:>7}  {:<9}{:>6.2} %{:>8.0} %",
            profile.name,
            figures.minutes,
            figures.sent,
            figures.refusals.all() + figures.spent,
            name,
            share * 100.0,
            profile.least,
        )?;
        if profile.measures_peak {
            let [first, later] = figures.peaks.map(|peak| peak as f64 / 10.0);
            write!(f, "{first:>10.1} %{later:>8.1} %")?;
        }
        Ok(())
    }
}

/// A profile whose limits were not told, or were told wrong.
#[derive(Debug)]
pub struct LearnedRow<'a> {
    /// What was tried.
    pub name: &'a str,
    /// What came of it.
    pub figures: &'a Figures,
}

/// The head of the table of [`LearnedRow`]s.
pub const LEARNED: &str = "profile                           minutes   to 90 %    429s  excepted  first 10 min  last at min  too large  spent  used after 10 min";

impl fmt::Display for LearnedRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, figures } = self;
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
        write!(
            f,
            "{:<32}{:>9}{:>10}{:>8}{:>10}{:>14}{:>13}{:>11}{:>7}{:>17.2} %",
            name,
            figures.minutes,
            or_dash(figures.settled().map(|minute| minute.to_string())),
            figures.refusals.all(),
            figures.excepted,
            figures.early,
            or_dash(figures.last.map(|minute| minute.to_string())),
            figures.too_large,
            figures.spent,
            figures.utilization_from(10, usize::MAX) * 100.0,
        )
    }
}

/// A profile whose limits move, or that has limits that nothing tells of.
#[derive(Debug)]
pub struct SurpriseRow<'a> {
    /// What is surprising.
    pub name: &'a str,
    /// What came of it.
    pub figures: &'a Figures,
}

/// The head of the table of [`SurpriseRow`]s.
pub const SURPRISE: &str = "surprise                          minutes    429s  first 10 min  last at min  after a change: in flight  later  used after 40 min";

impl fmt::Display for SurpriseRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, figures } = self;
        let [excepted, later] = figures.after_change;
        write!(
            f,
            "{:<32}{:>9}{:>8}{:>14}{:>13}{:>27}{:>7}{:>17.2} %",
            name,
            figures.minutes,
            figures.refusals.all(),
            figures.early,
            figures
                .last
                .map_or_else(|| "–".to_owned(), |minute| minute.to_string()),
            excepted,
            later,
            figures.utilization_from(40, usize::MAX) * 100.0,
        )
    }
}

/// Runs trials on as many threads as there are processors, and returns what came of them in their order.
pub fn run_all(trials: &[(&Profile, Trial)]) -> Vec<Figures> {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Figures>> = trials.iter().map(|_| Mutex::default()).collect();
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((index, (profile, trial))) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    trials.get(index).map(|trial| (index, trial))
                } {
                    let figures = run(profile, trial);
                    *done[index].lock().unwrap_or_else(PoisonError::into_inner) = figures;
                }
            });
        }
    });
    let figures = done.into_iter();
    figures
        .map(|figures| figures.into_inner().unwrap_or_else(PoisonError::into_inner))
        .collect()
}
