//! Moments to come, at which what will have been generated is compared with what will have expired.

/// Moments looked at: one life of a charge in steps (theory.md §2.3 takes steps of 2 s for a minute).
pub(crate) const NODES: usize = 25;

/// Equidistant moments from just before now to one life of a charge from now. They stand still while time passes, so that
/// what is expected by each of them stays what it is, until the first step is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    first: u64,
    step: u64,
    /// How long a charge lives.
    life: u64,
}

impl Grid {
    pub(crate) fn at(now: u64, life: u64) -> Self {
        let step = (life / (NODES as u64 - 1)).max(1);
        Self {
            first: now - now % step,
            step,
            life,
        }
    }

    /// Returns the first moment; it is not later than now.
    pub(crate) const fn first(&self) -> u64 {
        self.first
    }

    pub(crate) const fn step(&self) -> u64 {
        self.step
    }

    pub(crate) const fn life(&self) -> u64 {
        self.life
    }

    /// Returns one moment.
    pub(crate) const fn moment(&self, node: usize) -> u64 {
        self.first.saturating_add(self.step.saturating_mul(node as u64))
    }

    /// Returns every moment; the first of them is now itself.
    pub(crate) fn moments(&self, now: u64) -> impl Iterator<Item = u64> {
        let grid = *self;
        (0..NODES).map(move |node| grid.moment(node).max(now))
    }
}
