//! Many worlds added up.

use std::fmt;

use crate::client::Discipline;
use crate::setting::{Algorithms, Setting};
use crate::world::{Outcome, run};

/// What came of many worlds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Simulated minutes.
    pub minutes: u64,
    /// Requests that reached the provider.
    pub sent: u64,
    /// Those that it refused for rate.
    pub refused: u64,
    /// Worlds with a line all the time.
    pub backlogged: u64,
    /// The sum of their shares of the binding limit.
    pub utilization: f64,
    /// The least of them.
    pub least: f64,
    /// The seed of the first world with a refusal.
    pub first_refused: Option<u64>,
    /// A digest of all digests.
    pub digest: u64,
}

impl Tally {
    /// Adds a world.
    pub fn add(&mut self, setting: &Setting, outcome: &Outcome) {
        self.minutes += setting.minutes;
        self.sent += outcome.sent;
        self.refused += outcome.refused;
        if outcome.refused > 0 && self.first_refused.is_none() {
            self.first_refused = Some(setting.seed);
        }
        if let Some(share) = outcome.utilization() {
            self.least = if self.backlogged == 0 {
                share
            } else {
                self.least.min(share)
            };
            self.backlogged += 1;
            self.utilization += share;
        }
        self.digest = (self.digest ^ outcome.digest).wrapping_mul(0x0100_0000_01b3);
    }

    /// Returns refusals in a million simulated minutes.
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    pub fn refusals_per_million_minutes(&self) -> f64 {
        self.refused as f64 * 1e6 / self.minutes.max(1) as f64
    }

    /// Returns the mean share of the binding limit under backlog.
    #[allow(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn mean_utilization(&self) -> f64 {
        self.utilization / self.backlogged.max(1) as f64
    }
}

/// Runs many worlds and adds them up.
pub fn tally(settings: impl Iterator<Item = Setting>, discipline: Discipline) -> Tally {
    let mut tally = Tally::default();
    for setting in settings {
        tally.add(&setting, &run(&setting, discipline));
    }
    tally
}

/// One row of the table.
#[derive(Debug)]
pub struct Row<'a> {
    /// Who limits.
    pub discipline: Discipline,
    /// Who enforces.
    pub algorithm: Algorithms,
    /// What came of worlds of every kind.
    pub safety: &'a Tally,
    /// What came of the production case.
    pub production: &'a Tally,
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<24}{:<18}{:>9}{:>10}{:>13.0}{:>10}{:>10.2} %{:>9.2} %",
            self.discipline.name(),
            self.algorithm.name(),
            self.safety.minutes,
            self.safety.refused,
            self.safety.refusals_per_million_minutes(),
            self.production.refused,
            self.production.mean_utilization() * 100.0,
            self.production.least * 100.0,
        )
    }
}

/// The head of the table: worlds of every kind, then the production case.
pub const HEADING: &str = "limiter                 provider            minutes      429s   429s/M min      429s        used     least";
