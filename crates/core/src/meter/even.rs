//! Spreading what is taken beyond a fair share: how fast can it go on until what is in use expires?
//!
//! A window that rolls gives back in lumps what was taken in a lump. Whoever takes more than their share at once would
//! lock everybody else out until it comes back, however fair the line is. So that part is let through only as fast as can
//! be kept up: at no moment of the next window may less be left than an even pace from then on needs.
//!
//! Worked example: 500 requests a minute, 250 taken at once at second 0, nothing else in use. At second 61 they come back.
//! An even pace needs 8.2 a second, so the other 250 go from second 30 to second 61, and from then on 8.2 a second go on
//! for ever.

use alloc::boxed::Box;
use core::array;

use super::Meter;
use crate::limit::Discipline;
use crate::units::Dimension;

/// Moments of the next window that are looked at.
const NODES: usize = 8;

/// So much of the pace is not insisted on: one part in this many. A request is never looked at as larger than that part.
const SLACK: u64 = 64;

/// Longer windows are not spread, in microseconds: a day's quota in even shares would be a far lower limit.
const SPREAD_MAX: u64 = 600_000_000;

/// What expires until each node, as of one bucket of the window.
#[derive(Debug, Clone)]
pub(super) struct Expiries {
    bucket: u64,
    freed: [u64; NODES],
}

impl Meter {
    /// Returns when `weight` can go at a pace that can be kept up behind `ahead`, in microseconds.
    pub(crate) fn even_at(&mut self, now: u64, ahead: u64, weight: u64) -> u64 {
        // A bucket refills evenly by itself, and what is found by trying or next to others' traffic is paced already.
        let is_plain =
            self.bucket.is_none() && self.outlook.is_none() && self.lesson.is_none() && self.pacer.is_none();
        if !self.is_known()
            || !is_plain
            || self.dimension() == Dimension::Concurrency
            || self.limit.discipline != Discipline::Rolling
            || self.window > SPREAD_MAX
        {
            return now;
        }
        let life = self.all.life();
        let freed = self.freed(now);
        let free = i128::from(self.amount) - i128::from(self.all.live()) - i128::from(self.held);
        let weight = i128::from(weight.min(self.amount / SLACK));
        let pace = i128::from(self.amount - self.amount / SLACK);
        let mut wait = 0;
        for (node, freed) in (1..).zip(freed) {
            let needed = pace * node / NODES as i128 + weight;
            let missing = needed - free - i128::from(freed);
            wait = wait.max(missing * i128::from(life) / pace.max(1));
        }
        // What is ahead goes at that pace too.
        let before = u128::from(ahead) * u128::from(life) / u128::from(self.amount.max(1));
        now.saturating_add(u64::try_from(wait).unwrap_or(0))
            .saturating_add(u64::try_from(before).unwrap_or(u64::MAX))
    }

    /// Returns what expires until each node.
    fn freed(&mut self, now: u64) -> [u64; NODES] {
        let bucket = self.all.bucket(now);
        if let Some(known) = self.expiries.as_ref().filter(|known| known.bucket == bucket) {
            return known.freed;
        }
        let life = self.all.life();
        let moments: [u64; NODES] = array::from_fn(|node| now + life * (node as u64 + 1) / NODES as u64);
        let mut alive = [(0, 0); NODES];
        self.all.alive_at(&moments, &mut alive);
        let live = self.all.live();
        let freed = alive.map(|(alive, _)| live.saturating_sub(alive));
        self.expiries = Some(Box::new(Expiries { bucket, freed }));
        freed
    }
}
