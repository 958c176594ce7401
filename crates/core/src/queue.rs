//! The waiting requests of one quota group, first come first served.

use alloc::collections::{BTreeMap, BTreeSet};

use crate::charge::Charge;
use crate::decision::WaitReason;
use crate::request::Request;
use crate::units::{Amount, Dimension};

/// A request that waits.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) request: Request,
    /// What it will take.
    pub(crate) charge: Charge,
    /// When it came, in microseconds.
    pub(crate) arrived: u64,
    /// When nobody waits for it any more, in microseconds.
    pub(crate) deadline: u64,
    /// Attempts made so far.
    pub(crate) attempts: u32,
    /// What it waited for first.
    pub(crate) reason: WaitReason,
}

/// Those who stand in line, in order of arrival, and those who pause before another attempt.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    line: BTreeMap<u64, Waiting>,
    paused: BTreeMap<u64, (u64, Waiting)>,
    resume: BTreeSet<(u64, u64)>,
    deadlines: BTreeSet<(u64, u64)>,
    /// What everybody in line will take.
    demand: Charge,
    bytes: u64,
}

impl Queue {
    /// Returns how many wait, in line or pausing.
    pub(crate) fn len(&self) -> usize {
        self.line.len() + self.paused.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.line.is_empty() && self.paused.is_empty()
    }

    pub(crate) fn line_is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// Returns the bytes that all waiting requests hold.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns what everybody in line will take.
    pub(crate) const fn demand(&self) -> &Charge {
        &self.demand
    }

    /// Returns until when one pauses, if it does.
    pub(crate) fn pauses_until(&self, arrival: u64) -> Option<u64> {
        self.paused.get(&arrival).map(|(until, _)| *until)
    }

    pub(crate) fn head(&self) -> Option<(u64, &Waiting)> {
        self.line
            .first_key_value()
            .map(|(arrival, waiting)| (*arrival, waiting))
    }

    /// Returns everybody, in order of arrival, those in line first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Waiting)> {
        let line = self.line.iter().map(|(arrival, waiting)| (*arrival, waiting));
        line.chain(
            self.paused
                .iter()
                .map(|(arrival, (_, waiting))| (*arrival, waiting)),
        )
    }

    /// Puts a request in line, at the place that its arrival gives it.
    pub(crate) fn join(&mut self, arrival: u64, waiting: Waiting) {
        self.enter(arrival, &waiting);
        self.stand(arrival, waiting);
    }

    /// Lets a request pause until `until` before it stands in line again.
    pub(crate) fn pause(&mut self, arrival: u64, until: u64, waiting: Waiting) {
        self.enter(arrival, &waiting);
        self.resume.insert((until, arrival));
        self.paused.insert(arrival, (until, waiting));
        self.invariants();
    }

    /// Puts those back in line whose pause is over.
    pub(crate) fn resume(&mut self, now: u64) {
        while let Some(&(until, arrival)) = self.resume.first() {
            if until > now {
                break;
            }
            self.resume.pop_first();
            if let Some((_, waiting)) = self.paused.remove(&arrival) {
                self.stand(arrival, waiting);
            }
        }
    }

    /// Returns when the next pause ends.
    pub(crate) fn next_resume(&self) -> Option<u64> {
        self.resume.first().map(|(until, _)| *until)
    }

    /// Returns the next deadline.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Takes out one whose deadline has passed.
    pub(crate) fn expire(&mut self, now: u64) -> Option<(u64, Waiting)> {
        let &(deadline, arrival) = self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.remove(arrival).map(|waiting| (arrival, waiting))
    }

    /// Takes anyone out.
    pub(crate) fn remove(&mut self, arrival: u64) -> Option<Waiting> {
        let waiting = if let Some(waiting) = self.line.remove(&arrival) {
            for dimension in Dimension::ALL {
                let rest = self
                    .demand
                    .amount(dimension)
                    .saturating_sub(waiting.charge.amount(dimension));
                self.demand.set(dimension, rest);
            }
            waiting
        } else {
            let (until, waiting) = self.paused.remove(&arrival)?;
            self.resume.remove(&(until, arrival));
            waiting
        };
        self.deadlines.remove(&(waiting.deadline, arrival));
        self.bytes = self.bytes.saturating_sub(waiting.request.bytes.value());
        self.invariants();
        Some(waiting)
    }

    /// Weighs everybody anew.
    pub(crate) fn weigh(&mut self, weigh: impl Fn(&Request) -> Charge) {
        self.demand = Charge::ZERO;
        for waiting in self.line.values_mut() {
            waiting.charge = weigh(&waiting.request);
            for dimension in Dimension::ALL {
                let sum = self.demand.amount(dimension) + waiting.charge.amount(dimension);
                self.demand.set(dimension, sum);
            }
        }
        for (_, waiting) in self.paused.values_mut() {
            waiting.charge = weigh(&waiting.request);
        }
        self.invariants();
    }

    /// Takes anyone out, in order of arrival.
    pub(crate) fn pop(&mut self) -> Option<(u64, Waiting)> {
        let arrival = self
            .line
            .keys()
            .next()
            .or_else(|| self.paused.keys().next())
            .copied()?;
        self.remove(arrival).map(|waiting| (arrival, waiting))
    }

    fn enter(&mut self, arrival: u64, waiting: &Waiting) {
        self.deadlines.insert((waiting.deadline, arrival));
        self.bytes = self.bytes.saturating_add(waiting.request.bytes.value());
    }

    fn stand(&mut self, arrival: u64, waiting: Waiting) {
        for dimension in Dimension::ALL {
            let sum = self.demand.amount(dimension) + waiting.charge.amount(dimension);
            self.demand.set(dimension, sum);
        }
        self.line.insert(arrival, waiting);
        self.invariants();
    }

    fn invariants(&self) {
        debug_assert_eq!(
            self.resume.len(),
            self.paused.len(),
            "everyone who pauses has a time to come back"
        );
        debug_assert_eq!(
            self.deadlines.len(),
            self.len(),
            "everyone who waits has a deadline"
        );
        debug_assert!(
            !self.line.is_empty() || self.demand == Charge::ZERO,
            "an empty line demands nothing"
        );
        debug_assert!(self.demand.amount(Dimension::Requests) <= Amount::new(self.line.len() as u64));
    }
}
