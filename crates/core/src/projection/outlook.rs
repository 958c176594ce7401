//! What running requests are expected to generate until each moment of a grid, added up.

use alloc::vec::Vec;

use super::Rate;
use super::grid::{Grid, NODES};

/// With fewer requests than this running, one of them may also generate all it can.
pub(crate) const FEW: u32 = 10;

/// The sums are worked out anew when a third has ended: one for every two that run.
const WEAR: usize = 2;

/// No request is expected to generate more than this.
pub(crate) const EXPECTED_MAX: u64 = 1 << 31;

/// What one request is expected to generate, from what was reported of it to each moment of the grid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) mean: [u64; NODES],
    pub(crate) variance: [u64; NODES],
    /// Reported since this was worked out.
    pub(crate) reported: u64,
    /// The most that it may still generate, from when on, and how fast.
    pub(crate) most: u64,
    pub(crate) from: u64,
    pub(crate) rate: Option<Rate>,
}

impl Expected {
    /// Returns the most that it may generate until a moment, beyond what is expected there.
    pub(crate) fn surprise(&self, node: usize, moment: u64) -> u64 {
        let until = moment.saturating_sub(self.from);
        let most = self
            .rate
            .map_or(self.most, |rate| rate.tokens(until).min(self.most));
        most.saturating_sub(self.mean[node])
    }
}

/// The sums over all running requests, kept as they come and go, and what is charged already and alive then.
#[derive(Debug, Clone)]
pub(crate) struct Outlook {
    grid: Grid,
    each: Vec<Option<Expected>>,
    count: u32,
    /// What was expected of those who ended since the sums were worked out. Those who end early make up for those who go
    /// on for longer than they were expected to, so what is expected of all together stays until it is worked out anew.
    ended: Vec<Expected>,
    mean: [u64; NODES],
    variance: [u128; NODES],
    /// Reported since the sums were worked out: no longer expected, but charged.
    reported: u64,
    /// Charged until now and alive at each moment.
    alive: [u64; NODES],
    /// The request that may surprise most, where few run.
    largest: Option<usize>,
}

impl Outlook {
    pub(crate) fn new(grid: Grid) -> Self {
        Self {
            grid,
            each: Vec::new(),
            count: 0,
            ended: Vec::new(),
            mean: [0; NODES],
            variance: [0; NODES],
            reported: 0,
            alive: [0; NODES],
            largest: None,
        }
    }

    pub(crate) const fn grid(&self) -> &Grid {
        &self.grid
    }

    /// Returns whether so many have ended that the sums should be worked out anew.
    pub(crate) fn is_worn(&self) -> bool {
        let enough = if self.count < FEW {
            0
        } else {
            self.count as usize / WEAR
        };
        self.ended.len() > enough
    }

    /// Returns how many run.
    pub(crate) const fn count(&self) -> u32 {
        self.count
    }

    /// Begins anew on another grid, without any request.
    pub(crate) fn renew(&mut self, grid: Grid, alive: [u64; NODES]) {
        self.grid = grid;
        self.alive = alive;
        self.clear();
    }

    /// Begins anew without any request; what is charged stays.
    pub(crate) fn clear(&mut self) {
        self.each.clear();
        self.ended.clear();
        self.count = 0;
        self.mean = [0; NODES];
        self.variance = [0; NODES];
        self.reported = 0;
        self.largest = None;
    }

    /// Adds a request, in place of what was known of it.
    pub(crate) fn set(&mut self, slot: usize, expected: Expected) {
        self.remove(slot);
        if self.each.len() <= slot {
            self.each.resize(slot + 1, None);
        }
        for node in 0..NODES {
            self.mean[node] += expected.mean[node];
            self.variance[node] += u128::from(expected.variance[node]);
        }
        self.count += 1;
        let last = NODES - 1;
        let surprise = |expected: &Expected| expected.most.saturating_sub(expected.mean[last]);
        let largest = self
            .largest
            .and_then(|slot| self.each[slot].as_ref())
            .map(surprise);
        if largest.is_none_or(|largest| surprise(&expected) > largest) {
            self.largest = Some(slot);
        }
        self.each[slot] = Some(expected);
        self.invariants();
    }

    /// Takes a request out, if it is there.
    pub(crate) fn remove(&mut self, slot: usize) {
        let Some(expected) = self.take(slot) else { return };
        for node in 0..NODES {
            self.mean[node] -= expected.mean[node];
            self.variance[node] -= u128::from(expected.variance[node]);
        }
        self.reported -= expected.reported;
        self.invariants();
    }

    /// Takes a request out that has generated all it will.
    pub(crate) fn end(&mut self, slot: usize) {
        if let Some(expected) = self.take(slot) {
            self.ended.push(expected);
        }
        self.invariants();
    }

    fn take(&mut self, slot: usize) -> Option<Expected> {
        let expected = self.each.get_mut(slot).and_then(Option::take)?;
        self.count -= 1;
        if self.count == 0 {
            self.each.clear();
        }
        if self.count < FEW {
            self.largest = self.find_largest();
        } else if self.largest == Some(slot) {
            self.largest = None;
        }
        Some(expected)
    }

    /// Takes note that a request has generated more, which is charged. Returns whether that is still what was expected of
    /// it; if not, it has to be [set](Outlook::set) anew.
    pub(crate) fn report(&mut self, slot: usize, tokens: u64) -> bool {
        let Some(expected) = self.each.get_mut(slot).and_then(Option::as_mut) else {
            return false;
        };
        let reported = expected.reported.saturating_add(tokens);
        if reported > expected.mean[1] {
            return false;
        }
        expected.reported = reported;
        self.reported += tokens;
        true
    }

    /// Takes note of a charge that is made now.
    pub(crate) fn charge(&mut self, amount: u64) {
        for alive in &mut self.alive {
            *alive = alive.saturating_add(amount);
        }
    }

    /// Takes note of an earlier charge, which lives at the moments of which `lives` says so.
    pub(crate) fn charge_earlier(&mut self, amount: u64, lives: impl Fn(u64) -> bool) {
        // The later the moment, the less lives.
        let (mut until, mut end) = (0, NODES);
        while until < end {
            let middle = usize::midpoint(until, end);
            if lives(self.grid.moment(middle)) {
                until = middle + 1;
            } else {
                end = middle;
            }
        }
        for alive in &mut self.alive[..until] {
            *alive = alive.saturating_add(amount);
        }
    }

    /// Returns what will still count at a node of what is charged already.
    pub(crate) const fn alive(&self, node: usize) -> u64 {
        self.alive[node]
    }

    /// Returns what is expected to be generated until a node beyond what is charged, and its variance.
    pub(crate) const fn until(&self, node: usize) -> (u64, u128) {
        (self.mean[node].saturating_sub(self.reported), self.variance[node])
    }

    /// Returns what is expected to have been generated by now beyond what is charged, and its variance: on the straight
    /// line between the first two nodes.
    pub(crate) fn unseen(&self, now: u64) -> (u64, u128) {
        let past = u128::from(now.saturating_sub(self.grid.first()).min(self.grid.step()));
        let step = u128::from(self.grid.step());
        let between = |from: u128, to: u128| from + to.saturating_sub(from) * past / step;
        let mean = between(u128::from(self.mean[0]), u128::from(self.mean[1]));
        let mean = u64::try_from(mean).unwrap_or(u64::MAX);
        let variance = self.variance[0] + self.variance[1].saturating_sub(self.variance[0]) / step * past;
        (mean.saturating_sub(self.reported), variance)
    }

    /// Returns the request that may surprise most, if few run.
    pub(crate) fn largest(&self) -> Option<&Expected> {
        if self.count >= FEW {
            return None;
        }
        self.each.get(self.largest?)?.as_ref()
    }

    fn find_largest(&self) -> Option<usize> {
        let last = NODES - 1;
        let surprise = |expected: &Expected| expected.most.saturating_sub(expected.mean[last]);
        let known = |(slot, expected): (usize, &Option<Expected>)| Some((surprise(expected.as_ref()?), slot));
        let each = self.each.iter().enumerate().filter_map(known);
        each.max().map(|(_, slot)| slot)
    }

    /// Asserts that the sums are what adding everything up anew gives.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn check(&self) {
        let all = || self.each.iter().flatten().chain(&self.ended);
        for node in 0..NODES {
            assert_eq!(
                self.mean[node],
                all().map(|one| one.mean[node]).sum::<u64>(),
                "node {node}"
            );
            let variance: u128 = all().map(|one| u128::from(one.variance[node])).sum();
            assert_eq!(self.variance[node], variance, "node {node}");
        }
        assert_eq!(self.reported, all().map(|one| one.reported).sum::<u64>());
        assert_eq!(self.count as usize, self.each.iter().flatten().count());
    }

    fn invariants(&self) {
        #[cfg(debug_assertions)]
        if self.each.len() <= 16 {
            self.check();
        }
    }
}
