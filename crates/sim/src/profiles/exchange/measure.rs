//! What is measured while a trial goes on.

use tidegate_core::Timestamp as At;
use tidegate_mock::limits::{Algorithm, Dimension, Limit, Subject, Timestamp, Weights};

use super::{MINUTE, WARM, World};
use crate::profiles::load::Asked;

impl World<'_> {
    /// Works out what the limits allowed, and what was used of those on concurrency.
    pub(super) fn close(&mut self) {
        self.now = self.end;
        self.count_concurrent(0);
        let snapshot = self.engine.snapshot(At::from_micros(self.now));
        self.figures.believed = snapshot
            .quotas
            .into_iter()
            .flat_map(|quota| quota.limits)
            .collect();
        let mut amounts: Vec<u64> = self
            .profile
            .pools
            .iter()
            .flat_map(|pool| &pool.limits)
            .map(|limit| limit.amount)
            .collect();
        let mut changes = self.trial.changes.iter().peekable();
        for minute in 0..usize::try_from(self.trial.minutes).unwrap_or(0) {
            while let Some(change) = changes.next_if(|change| change.minute <= minute as u64) {
                amounts[self.places[change.pool] + change.limit] = change.amount;
            }
            for ((used, limit), amount) in self.figures.uses.iter_mut().zip(&self.limits).zip(&amounts) {
                used.allowed[minute] = allowed(limit, *amount, minute == 0);
            }
        }
    }

    /// An answer arrives to what the provider decided on at `stamped`: it tells the limits of that moment.
    pub(super) fn hear(&mut self, stamped: u64) {
        self.told.get_or_insert(self.now);
        if self.changed.is_some_and(|changed| changed <= stamped) {
            self.told_change.get_or_insert(self.now);
        }
    }

    pub(super) fn count_refusal(&mut self, granted: u64, minute: u64) {
        let figures = &mut self.figures;
        figures.early += u64::from(minute < 10);
        figures.last = Some(minute);
        if self.told.is_none_or(|told| granted <= told) {
            figures.excepted += 1;
        } else {
            figures.later += 1;
        }
        if self.changed.is_some() {
            let before = self.told_change.is_none_or(|told| granted <= told);
            figures.after_change[usize::from(!before)] += 1;
        }
    }

    /// Counts what was taken in a pool, as of a moment.
    pub(super) fn take(&mut self, pool: usize, at: u64, before: &Weights, after: &Weights) {
        let minute = usize::try_from((at - self.start) / MINUTE).unwrap_or(usize::MAX);
        let first = self.places[pool];
        let count = self.profile.pools[pool].limits.len();
        for place in first..first + count {
            let dimension = self.limits[place].dimension;
            if dimension == Dimension::Concurrency {
                continue;
            }
            let taken = i64::try_from(after.amount(dimension)).unwrap_or(i64::MAX)
                - i64::try_from(before.amount(dimension)).unwrap_or(i64::MAX);
            if let Some(used) = self.figures.uses[place].taken.get_mut(minute) {
                *used += taken;
            }
        }
    }

    /// Adds up how many were open, and for how long, in microseconds.
    pub(super) fn count_concurrent(&mut self, change: i64) {
        let (open, mut from) = self.concurrent;
        for place in 0..self.limits.len() {
            if self.limits[place].dimension != Dimension::Concurrency {
                continue;
            }
            from = self.concurrent.1;
            while from < self.now {
                let minute = (from - self.start) / MINUTE;
                let to = self.now.min(self.start + (minute + 1) * MINUTE);
                let used = usize::try_from(minute)
                    .ok()
                    .and_then(|minute| self.figures.uses[place].taken.get_mut(minute));
                if let Some(used) = used {
                    *used += i64::try_from(open * (to - from)).unwrap_or(i64::MAX);
                }
                from = to;
            }
        }
        debug_assert!(from <= self.now, "time runs forward");
        self.concurrent = (open.saturating_add_signed(change), self.now);
    }

    /// Takes note of how far a limit on output is used: the time until its bucket is full again tells it.
    pub(super) fn measure_peak(&mut self, asked: &Asked) {
        let subject = Subject {
            key: &self.key,
            model: self.profile.model,
            endpoint: self.profile.endpoint,
        };
        let now = Timestamp(self.now - self.start);
        for state in self.account.state(now, &subject, &asked.seen) {
            for limit in &state.limits {
                if limit.limit.dimension == Dimension::Output && !limit.limit.hidden {
                    let thousandths = limit.reset.as_micros() * 1_000 / limit.limit.window.as_micros().max(1);
                    let thousandths = u64::try_from(thousandths).unwrap_or(u64::MAX);
                    let is_warm = self.now >= self.start + WARM;
                    let peak = &mut self.figures.peaks[usize::from(is_warm)];
                    *peak = (*peak).max(thousandths);
                }
            }
        }
    }
}

/// Returns what people call a limit.
pub(super) fn name(limit: &Limit) -> String {
    let what = match limit.dimension {
        Dimension::Requests => "R",
        Dimension::Tokens => "T",
        Dimension::Input => "IT",
        Dimension::Output => "OT",
        Dimension::Concurrency => return "in flight".to_owned(),
        _ => "other ",
    };
    let per = match limit.window.as_secs() {
        0..=9 => "PS",
        10..=59 => "P10S",
        60..=3_600 => "PM",
        _ => "PD",
    };
    format!("{what}{per}")
}

/// Returns what a limit allows in a minute; a bucket also what it held at first.
#[allow(clippy::cast_precision_loss, reason = "a share for people")]
fn allowed(limit: &Limit, amount: u64, is_first: bool) -> f64 {
    if limit.dimension == Dimension::Concurrency {
        return amount as f64 * MINUTE as f64;
    }
    let whole = match limit.algorithm {
        // Slices are rounded down.
        Algorithm::Slices { slice, .. } => {
            let parts = (limit.window.as_micros() / slice.as_micros().max(1)) as f64;
            (amount as f64 / parts).floor() * parts
        }
        _ => amount as f64,
    };
    let minutes = limit.window.as_secs_f64() / 60.0;
    let burst = match limit.algorithm {
        Algorithm::TokenBucket if is_first => amount as f64,
        Algorithm::Spaced { .. } if is_first => limit.capacity() as f64,
        _ => 0.0,
    };
    whole / minutes + burst
}
