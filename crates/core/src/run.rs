//! Runs of agents: many requests that belong to one task, and what they may use together.

mod book;

pub(crate) use book::Runs;

/// Identifies a run. The caller makes it of whatever names the run, and of the tenant, so that nobody can use up
/// another tenant's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(u64);

impl RunId {
    /// Makes an identifier of a hash.
    pub const fn of(hash: u64) -> Self {
        Self(hash)
    }

    /// Returns the number that stands for it.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// One request of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunStep {
    /// The run.
    pub run: RunId,
    /// The run that started it, if one did: what this run uses, that one uses too.
    pub parent: Option<RunId>,
    /// A hash of what the step does, by which repetitions are known; `None` where that cannot be told.
    pub fingerprint: Option<u64>,
}
