//! How long outputs are: a histogram of fixed size, and what it says of an output that has begun.
//!
//! Cells are exact below 8 tokens and eight to the octave above, so a value is known to an eighth of its octave (the idea of
//! HDR histograms and of DDSketch, in integers). Between the borders of a cell the survival function is taken to be a straight line;
//! the mean and the second moment of what is left of an output are then integrals that two tables answer at once.
//!
//! Short outputs end first, so those that have ended are too short to speak for all, at first and whenever many run. Those
//! who run are therefore counted among those who reached each cell, as Kaplan and Meier do (Journal of the American
//! Statistical Association 53, 1958): S falls in a cell by the share of those who ended in it among those who reached it.
//!
//! ```text
//!  S(x) = P(X > x)        E[min(X - g, a) | X > g]  = (A(g + a) - A(g)) / S(g)                     A(x) = ∫ S
//!  ████▆▅▄▃▂▁             E[min(X - g, a)² | X > g] = 2 (B(g + a) - B(g) - g (A(g + a) - A(g))) / S(g)   B(x) = ∫ u S(u)
//!      g   g+a
//! ```

use alloc::boxed::Box;

use crate::units::Tokens;

/// Cells to the octave.
const SUB: usize = 8;
const SUB_BITS: u32 = 3;
/// Outputs of this many tokens and more are one token less: no model generates a million tokens in one answer.
const TOP_BITS: u32 = 20;
const TOP: u64 = 1 << TOP_BITS;
const CELLS: usize = (TOP_BITS - SUB_BITS + 1) as usize * SUB;

/// What one output weighs when it is counted; halving wears it down.
const UNIT: u32 = 16;
/// Beyond this total everything is halved, so that no sum overflows.
const TOTAL_MAX: u32 = 1 << 20;
/// Everything is halved after this many microseconds: a mean life of an hour.
const HALF_LIFE: u64 = 2_495_000_000;
/// Outputs that must have been seen before anything is believed.
pub(crate) const SAMPLES_MIN: u32 = 50;
/// Outputs that must have been longer than this one before anything is said of what is left of it.
const LONGER_MIN: u32 = 5;
/// What S is at length 0.
const ALL: u32 = 1 << 20;
/// Below this S is too coarse to divide by.
const LONGER_SHARE_MIN: u64 = 16;

/// A decaying histogram of output lengths in tokens.
#[derive(Debug, Clone)]
pub(crate) struct Sketch {
    counts: Box<[u32; CELLS]>,
    total: u32,
    /// Outputs counted since the tables were made.
    fresh: u32,
    halved_at: u64,
    tables: Option<Box<Tables>>,
}

/// Integrals from 0 to the lower border of each cell, and to the top.
#[derive(Debug, Clone)]
struct Tables {
    /// S, times [`ALL`].
    longer: [u32; CELLS + 1],
    /// The weight of those who ended in this cell or behind it.
    ended: [u32; CELLS],
    first: [u64; CELLS + 1],
    second: [u64; CELLS + 1],
}

/// A mean and a variance, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Moments {
    pub(crate) mean: u64,
    pub(crate) variance: u64,
    /// The share of those who would generate more than they may, in 1,024ths.
    pub(crate) beyond: u64,
}

/// The integrals up to one length.
#[derive(Debug, Clone, Copy)]
struct Integrals {
    longer: u64,
    first: u64,
    second: u64,
}

/// What is known of outputs that have reached a length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tail<'a> {
    tables: &'a Tables,
    from: u64,
    at: Integrals,
    /// 2^40 / S(from).
    inverse: u64,
}

impl Sketch {
    pub(crate) fn new(now: u64) -> Self {
        Self {
            counts: Box::new([0; CELLS]),
            total: 0,
            fresh: 0,
            halved_at: now,
            tables: None,
        }
    }

    /// Counts one output. Returns whether enough are new that the tables should be [renewed](Sketch::renew).
    #[must_use]
    pub(crate) fn sample(&mut self, now: u64, output: u64) -> bool {
        // What was learned is kept over a quiet night: it only fades where enough stays to be believed.
        if self.total > TOTAL_MAX
            || (now.saturating_sub(self.halved_at) >= HALF_LIFE && self.samples() >= 4 * SAMPLES_MIN)
        {
            self.halve();
            self.halved_at = now;
        }
        self.counts[cell(output.min(TOP - 1))] += UNIT;
        self.total += UNIT;
        self.fresh += 1;
        self.invariants();
        self.samples() >= SAMPLES_MIN && self.fresh >= (self.samples() / 32).max(1)
    }

    /// Makes the tables anew, given how far those are who run.
    pub(crate) fn renew(&mut self, running: impl Iterator<Item = u64>) {
        let mut reached = [0_u32; CELLS];
        for progress in running {
            reached[cell(progress.min(TOP - 1))] += UNIT;
        }
        self.tables = Some(Box::new(Tables::of(&self.counts, &reached)));
        self.fresh = 0;
    }

    /// Returns how many outputs it stands for.
    pub(crate) const fn samples(&self) -> u32 {
        self.total / UNIT
    }

    /// Returns what is known of outputs longer than `from`, once enough of them were seen.
    pub(crate) fn tail(&self, from: u64) -> Option<Tail<'_>> {
        let tables = self.tables.as_deref()?;
        if self.samples() < SAMPLES_MIN || from >= TOP {
            return None;
        }
        let at = tables.integrals(from);
        let ended = tables.ended[cell(from)];
        (ended >= LONGER_MIN * UNIT && at.longer >= LONGER_SHARE_MIN).then(|| Tail {
            tables,
            from,
            at,
            inverse: (1 << 40) / at.longer,
        })
    }

    /// Returns lengths at the borders of cells, and how many in a million outputs are longer, down to the first that none
    /// exceeds.
    pub(crate) fn longer(&self) -> impl Iterator<Item = (Tokens, u32)> {
        let total = u64::from(self.total).max(1);
        let mut longer = u64::from(self.total);
        let mut ended = longer == 0;
        self.counts.iter().enumerate().map_while(move |(index, count)| {
            if ended {
                return None;
            }
            longer -= u64::from(*count);
            ended = longer == 0;
            let per_million = u32::try_from((longer * 1_000_000).div_ceil(total)).unwrap_or(1_000_000);
            Some((Tokens::new(border(index + 1) - 1), per_million))
        })
    }

    fn halve(&mut self) {
        for count in self.counts.iter_mut() {
            *count /= 2;
        }
        self.total = self.counts.iter().sum();
    }

    fn invariants(&self) {
        debug_assert_eq!(
            u64::from(self.total),
            self.counts.iter().map(|count| u64::from(*count)).sum::<u64>(),
            "the total is the sum of the cells"
        );
    }
}

impl Tail<'_> {
    /// Returns the mean and the variance of what these outputs still generate, each at most `most`.
    pub(crate) fn within(&self, most: u64) -> Moments {
        let end = self.tables.integrals(self.from.saturating_add(most));
        // Rounding may make a whole token less of the later one.
        let first = end.first.saturating_sub(self.at.first);
        let second = end
            .second
            .saturating_sub(self.at.second)
            .saturating_sub(self.from * first);
        let mean = scaled(first, self.inverse);
        let square = scaled(second.saturating_mul(2), self.inverse);
        Moments {
            mean,
            variance: square.saturating_sub(mean * mean),
            // At most 2^20 × 2^36.
            beyond: (end.longer * self.inverse) >> 30,
        }
    }
}

impl Tables {
    fn of(ended: &[u32; CELLS], running: &[u32; CELLS]) -> Self {
        let mut tables = Self {
            longer: [0; CELLS + 1],
            ended: [0; CELLS],
            first: [0; CELLS + 1],
            second: [0; CELLS + 1],
        };
        tables.longer[0] = ALL;
        let mut behind = ended.iter().map(|count| u64::from(*count)).sum::<u64>();
        let mut running_behind = running.iter().map(|count| u64::from(*count)).sum::<u64>();
        for index in 0..CELLS {
            tables.ended[index] = u32::try_from(behind).unwrap_or(u32::MAX);
            // Of those who are in this cell now, half the cell is known to be behind them.
            running_behind -= u64::from(running[index]);
            let reached = behind + running_behind + u64::from(running[index] / 2);
            let fall = u64::from(tables.longer[index]) * u64::from(ended[index]) / reached.max(1);
            behind -= u64::from(ended[index]);
            tables.longer[index + 1] = tables.longer[index] - u32::try_from(fall).unwrap_or(u32::MAX);
            let at = tables.inside(index, border(index + 1) - border(index));
            tables.first[index + 1] = at.first;
            tables.second[index + 1] = at.second;
        }
        tables
    }

    fn integrals(&self, length: u64) -> Integrals {
        if length >= TOP {
            return Integrals {
                longer: 0,
                first: self.first[CELLS],
                second: self.second[CELLS],
            };
        }
        let index = cell(length);
        self.inside(index, length - border(index))
    }

    /// Returns the integrals up to `t` tokens inside a cell, where S falls in a straight line.
    fn inside(&self, index: usize, t: u64) -> Integrals {
        let low = border(index);
        let longer = u64::from(self.longer[index]);
        let count = longer - u64::from(self.longer[index + 1]);
        let bits = width_bits(index);
        // At most 2^20 × 2^16 × 2^16.
        let squared = count * t * t;
        let area = t * longer - (squared >> (bits + 1));
        // ∫ u S = low ∫ S + ∫ t S
        let moment = t * t * longer / 2 - (squared >> bits) * t / 3;
        Integrals {
            longer: longer - ((count * t) >> bits),
            first: self.first[index] + area,
            second: self.second[index] + low * area + moment,
        }
    }
}

fn scaled(value: u64, inverse: u64) -> u64 {
    // At most 2^60 × 2^34, and a quotient of at most 2^41.
    let product = u128::from(value) * u128::from(inverse) + (1 << 39);
    u64::try_from(product >> 40).unwrap_or(u64::MAX)
}

/// Returns the cell of a length below [`TOP`].
fn cell(length: u64) -> usize {
    if length < SUB as u64 {
        return usize::try_from(length).unwrap_or(0);
    }
    let octave = length.ilog2();
    let sub = (length >> (octave - SUB_BITS)) & (SUB as u64 - 1);
    (octave - SUB_BITS + 1) as usize * SUB + usize::try_from(sub).unwrap_or(0)
}

/// Returns the lower border of a cell.
const fn border(index: usize) -> u64 {
    if index < SUB {
        return index as u64;
    }
    ((SUB + index % SUB) as u64) << width_bits(index)
}

/// Returns the binary logarithm of a cell's width.
const fn width_bits(index: usize) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "at most 18 octaves")]
    let octave = (index / SUB) as u32;
    octave.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn every_length_lies_between_the_borders_of_its_cell() {
        for length in (0..10_000).chain([65_535, 65_536, 1 << 19, TOP - 1]) {
            let index = cell(length);
            assert!(border(index) <= length && length < border(index + 1), "{length}");
            assert_eq!(
                border(index + 1) - border(index),
                1 << width_bits(index),
                "{length}"
            );
        }
        assert_eq!(border(CELLS), TOP);
    }

    /// Lengths of which every other one is far longer.
    fn lengths() -> Vec<u64> {
        (0..2_000_u64)
            .map(|step| {
                if step % 2 == 0 {
                    40 + step
                } else {
                    step * step / 400
                }
            })
            .collect()
    }

    fn sketch(lengths: &[u64]) -> Sketch {
        let mut sketch = Sketch::new(0);
        for length in lengths {
            let _ = sketch.sample(0, *length);
        }
        sketch.renew(core::iter::empty());
        sketch
    }

    #[test]
    #[allow(clippy::cast_precision_loss, reason = "exact enough to compare with")]
    fn what_is_left_of_an_output_is_known_within_a_few_percent() {
        let lengths = lengths();
        let sketch = sketch(&lengths);
        for from in [0, 1, 50, 300, 1_000, 2_000, 5_000] {
            for most in [10, 100, 700, 4_000, 100_000] {
                let left: Vec<f64> = lengths
                    .iter()
                    .filter(|length| **length > from)
                    .map(|length| (length - from).min(most) as f64)
                    .collect();
                let mean = left.iter().sum::<f64>() / left.len() as f64;
                let variance = left.iter().map(|left| (left - mean).powi(2)).sum::<f64>() / left.len() as f64;
                let tail = sketch.tail(from).expect("many are longer");
                let moments = tail.within(most);
                let error = (moments.mean as f64 - mean).abs();
                assert!(
                    error <= 3.0 + mean * 0.04,
                    "{from}, {most}: {moments:?}, not {mean}"
                );
                let (found, exact) = ((moments.variance as f64).sqrt(), variance.sqrt());
                assert!(
                    (found - exact).abs() <= 5.0 + exact * 0.06,
                    "{from}, {most}: {found}, not {exact}"
                );
            }
        }
    }

    /// All began at once, and a quarter has ended: the shortest ones.
    #[test]
    fn those_who_run_speak_for_the_long_ones() {
        let mut lengths = lengths();
        lengths.sort_unstable();
        let mean = lengths.iter().sum::<u64>() / lengths.len() as u64;
        let (ended, running) = lengths.split_at(lengths.len() / 4);
        let reached = ended[ended.len() - 1];
        let mut sketch = sketch(ended);
        let naive = sketch.tail(0).expect("known").within(TOP).mean;
        assert!(naive < mean / 4, "{naive} of {mean}");
        sketch.renew(running.iter().map(|_| reached));
        let tail = sketch.tail(0).expect("known");
        let half = tail.within(reached).mean;
        let exact = lengths.iter().map(|length| (*length).min(reached)).sum::<u64>() / lengths.len() as u64;
        assert!(half.abs_diff(exact) <= 2 + exact / 20, "{half}, not {exact}");
        assert!(
            tail.within(5_000).mean > mean,
            "what nobody has seen yet may be as long as it may"
        );
    }

    #[test]
    fn few_outputs_in_wide_cells_lose_no_precision() {
        let lengths: Vec<u64> = (0..60).map(|step| 300_000 + step * 5_000).collect();
        let sketch = sketch(&lengths);
        let mut last = 0;
        for from in (0..450_000).step_by(777) {
            let tail = sketch.tail(from).expect("enough are longer");
            let mut before = 0;
            for most in (0..300_000).step_by(1_111) {
                let Moments { mean, .. } = tail.within(most);
                assert!(
                    mean >= before && mean <= most + 1,
                    "{from}, {most}: {mean} after {before}"
                );
                before = mean;
            }
            assert!(from + before + 2_000 >= last, "{from}: {before}");
            last = from + before;
        }
    }

    #[test]
    fn nothing_is_said_before_enough_was_seen() {
        let mut sketch = Sketch::new(0);
        for _ in 0..SAMPLES_MIN - 1 {
            assert!(!sketch.sample(0, 500));
        }
        sketch.renew(core::iter::empty());
        assert!(sketch.tail(0).is_none());
        assert!(sketch.sample(0, 500));
        assert!(sketch.tail(0).is_some());
        assert!(sketch.tail(600).is_none(), "none was ever so long");
    }

    #[test]
    fn the_share_of_longer_outputs_is_exact_at_the_borders() {
        let lengths = lengths();
        let sketch = sketch(&lengths);
        let list: Vec<_> = sketch.longer().collect();
        assert_eq!(list.last().map(|(_, longer)| *longer), Some(0));
        for (length, per_million) in list {
            let longer = lengths.iter().filter(|other| **other > length.value()).count();
            assert_eq!(
                per_million as usize,
                (longer * 1_000_000).div_ceil(lengths.len()),
                "{length}"
            );
        }
        assert_eq!(Sketch::new(0).longer().count(), 0);
    }

    #[test]
    fn the_old_fades_but_never_to_nothing() {
        let mut sketch = Sketch::new(0);
        for _ in 0..1_000 {
            let _ = sketch.sample(0, 100);
        }
        for hour in 1..20 {
            let _ = sketch.sample(hour * 3_600_000_000, 5_000);
        }
        assert!(
            sketch.samples() >= SAMPLES_MIN && sketch.samples() < 250,
            "{}",
            sketch.samples()
        );
    }

    #[test]
    fn no_length_and_no_number_of_them_overflows() {
        let mut sketch = Sketch::new(0);
        for _ in 0..200_000 {
            let _ = sketch.sample(u64::MAX, u64::MAX);
        }
        sketch.renew([0, u64::MAX].into_iter());
        let tail = sketch.tail(0).expect("known");
        let moments = tail.within(u64::MAX);
        assert!(moments.mean <= TOP && moments.mean > TOP / 10 * 9, "{moments:?}");
        assert!(sketch.total <= TOTAL_MAX + UNIT);
    }
}
