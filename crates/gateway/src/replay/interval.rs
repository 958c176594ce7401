//! Stretches of time, and how full a rolling window was during them.

use std::time::Duration;

use serde::Serialize;

/// A stretch of time, counted from the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Interval {
    /// Its first moment.
    pub from: Duration,
    /// The moment after its last.
    pub to: Duration,
}

impl Interval {
    /// Its length.
    pub fn length(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }

    /// Joins intervals that touch or overlap: the maximal intervals during which at least one of them was open.
    pub fn merged(mut intervals: Vec<Self>) -> Vec<Self> {
        intervals.retain(|interval| interval.from < interval.to);
        intervals.sort_unstable();
        let mut merged: Vec<Self> = Vec::new();
        for interval in intervals {
            match merged.last_mut() {
                Some(last) if interval.from <= last.to => last.to = last.to.max(interval.to),
                _ => merged.push(interval),
            }
        }
        merged
    }

    /// The length of all of them together.
    pub fn total(intervals: &[Self]) -> Duration {
        intervals.iter().map(Self::length).sum()
    }
}

/// What was taken from one dimension, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Take {
    pub(super) at: Duration,
    pub(super) amount: u64,
}

/// The use of a rolling window: at any moment, everything taken in the last `window`.
#[derive(Debug)]
pub(super) struct RollingUse {
    /// Moments at which the use changes, in order, with the use from then on.
    steps: Vec<(Duration, u64)>,
}

impl RollingUse {
    pub(super) fn new(mut takes: Vec<Take>, window: Duration) -> Self {
        takes.sort_unstable();
        let mut steps = Vec::with_capacity(takes.len() * 2);
        let (mut next, mut oldest, mut used) = (0, 0, 0_u64);
        while oldest < takes.len() {
            let expiry = takes[oldest].at + window;
            // What expires at a moment makes room for what is taken at that moment.
            let at = match takes.get(next) {
                Some(take) if take.at < expiry => {
                    used += take.amount;
                    next += 1;
                    take.at
                }
                _ => {
                    used -= takes[oldest].amount;
                    oldest += 1;
                    expiry
                }
            };
            match steps.last_mut() {
                Some((last, value)) if *last == at => *value = used,
                _ => steps.push((at, used)),
            }
        }
        Self { steps }
    }

    /// Of several limits, the share of the one that is fullest at each moment, in millionths.
    pub(super) fn fullest(limits: &[(Self, u64)]) -> Self {
        let changes = limits.iter().enumerate().flat_map(|(index, (used, limit))| {
            let share = |used: u64| {
                let share = u128::from(used) * 1_000_000 / u128::from((*limit).max(1));
                u64::try_from(share).unwrap_or(u64::MAX)
            };
            used.steps.iter().map(move |&(at, used)| (at, index, share(used)))
        });
        let mut changes: Vec<(Duration, usize, u64)> = changes.collect();
        changes.sort_unstable();
        let mut shares = vec![0; limits.len()];
        let mut steps: Vec<(Duration, u64)> = Vec::with_capacity(changes.len());
        for (at, index, share) in changes {
            shares[index] = share;
            let most = shares.iter().copied().max().unwrap_or(0);
            match steps.last_mut() {
                Some((last, value)) if *last == at => *value = most,
                _ => steps.push((at, most)),
            }
        }
        Self { steps }
    }

    /// The most that was ever taken within one window.
    pub(super) fn peak(&self) -> u64 {
        self.steps.iter().map(|&(_, used)| used).max().unwrap_or(0)
    }

    /// The average over time of the use during the (merged) intervals; `None` if they have no length.
    pub(super) fn mean_during(&self, intervals: &[Interval]) -> Option<f64> {
        let total = Interval::total(intervals).as_secs_f64();
        if total <= 0.0 {
            return None;
        }
        let mut area = 0.0;
        for interval in intervals {
            let first = self.steps.partition_point(|&(at, _)| at <= interval.from);
            let mut used = first.checked_sub(1).map_or(0, |index| self.steps[index].1);
            let mut since = interval.from;
            for &(at, value) in &self.steps[first..] {
                if at >= interval.to {
                    break;
                }
                area += used as f64 * (at - since).as_secs_f64();
                (since, used) = (at, value);
            }
            area += used as f64 * interval.to.saturating_sub(since).as_secs_f64();
        }
        Some(area / total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(pairs: &[(u64, u64)]) -> Vec<Interval> {
        pairs
            .iter()
            .map(|&(from, to)| Interval {
                from: Duration::from_secs(from),
                to: Duration::from_secs(to),
            })
            .collect()
    }

    #[test]
    fn intervals_that_touch_are_joined() {
        let merged = Interval::merged(seconds(&[(5, 6), (1, 2), (2, 3), (10, 20), (12, 15), (7, 7)]));
        assert_eq!(merged, seconds(&[(1, 3), (5, 6), (10, 20)]));
        assert_eq!(Interval::total(&merged), Duration::from_secs(13));
        assert!(Interval::merged(Vec::new()).is_empty());
    }

    fn rolling(takes: &[(u64, u64)]) -> RollingUse {
        let takes = takes
            .iter()
            .map(|&(at, amount)| Take {
                at: Duration::from_secs(at),
                amount,
            })
            .collect();
        RollingUse::new(takes, Duration::from_secs(10))
    }

    #[test]
    fn the_window_rolls() {
        // 0: 4, 5: 10, 10: 6 + 1 (the first expires as the third comes), 15: 1, 20: 0.
        let used = rolling(&[(5, 6), (0, 4), (10, 1)]);
        assert_eq!(used.peak(), 10);
        let check = |intervals: &[(u64, u64)], expect: Option<f64>| {
            assert_eq!(used.mean_during(&seconds(intervals)), expect, "{intervals:?}");
        };
        check(&[(0, 5)], Some(4.0));
        check(&[(5, 10)], Some(10.0));
        check(&[(10, 15)], Some(7.0));
        check(&[(0, 10)], Some(7.0));
        check(&[(2, 3), (14, 16)], Some((4.0 + 7.0 + 1.0) / 3.0));
        check(&[(18, 22)], Some(0.5));
        check(&[(30, 40)], Some(0.0));
        check(&[], None);
        assert_eq!(rolling(&[]).peak(), 0);
        assert_eq!(rolling(&[]).mean_during(&seconds(&[(1, 2)])), Some(0.0));
    }

    #[test]
    fn the_fullest_of_several_limits_counts_at_each_moment() {
        // Of 10: 4 from 0, 10 from 5, 6 from 10; of 4: 1 from 6 to 16.
        let fullest = RollingUse::fullest(&[(rolling(&[(0, 4), (5, 6)]), 10), (rolling(&[(6, 1)]), 4)]);
        let check = |intervals: &[(u64, u64)], expect: f64| {
            let mean = fullest.mean_during(&seconds(intervals)).map(|mean| mean / 1e6);
            assert_eq!(mean, Some(expect), "{intervals:?}");
        };
        check(&[(0, 5)], 0.4);
        check(&[(5, 10)], 1.0);
        check(&[(10, 15)], 0.6);
        check(&[(15, 16)], 0.25);
        check(&[(16, 20)], 0.0);
        assert_eq!(RollingUse::fullest(&[]).peak(), 0);
    }

    #[test]
    fn two_takes_at_one_moment_count_together() {
        assert_eq!(rolling(&[(3, 2), (3, 5), (13, 7)]).peak(), 7);
    }
}
