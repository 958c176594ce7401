//! The tables that people read.

use std::fmt;

use super::catalog::Profile;
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
pub const TOLD: &str = "profile                           minutes      sent   429s  tightest      used  at least   fullest output";

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
            write!(f, "{:>14.1} %", figures.peak as f64 / 10.0)?;
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
