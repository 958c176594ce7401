//! What replicas share of the limits of tenants and routes: what the book is to be asked, and what it answers.

use super::Engine;
use crate::escrow::{Call, Reply};
use crate::output::Output;
use crate::snapshot::Owner;
use crate::time::Timestamp;

/// The most requests in line of each group that are looked at for what they need.
const LOOKED_AT: usize = 4_096;

impl Engine {
    /// Makes the call about the limits of tenants and routes that [`Output::CallEscrow`] has told of. It is made again, the same,
    /// as long as no answer to it has come; `None` if none is due.
    pub fn escrow_call(&mut self, now: Timestamp) -> Option<Call> {
        self.pass(now);
        if let Some(call) = self.allowances.escrow_call_again() {
            return Some(call);
        }
        let mut due = self.allowances.escrow_due(self.now);
        for group in self.groups.iter().filter(|group| !group.queue.is_empty()) {
            for (_, place) in group.queue.places().take(LOOKED_AT) {
                if place.paused.is_none() {
                    let waiting = &place.waiting;
                    self.allowances
                        .demand(&mut due, waiting.allowed, &waiting.charge, waiting.hold);
                }
            }
        }
        self.allowances.escrow_call(self.now, &due)
    }

    /// Takes note of the answer to the call of a number. Answers to others are left alone.
    pub fn escrow_answer(&mut self, now: Timestamp, sequence: u64, reply: &Reply) {
        self.pass(now);
        let waiters = self.allowances.escrow_answer(self.now, sequence, reply);
        self.wake_all(waiters);
        self.announce_escrow();
    }

    /// The book says that others are short of what this replica has of an owner's limits, or that there is something for it.
    pub fn escrow_wakened(&mut self, now: Timestamp, owner: Owner) {
        self.pass(now);
        self.allowances.escrow_wakened(self.now, owner);
        self.announce_escrow();
    }

    /// A server of the store was connected to. It may have lost what this replica has of the limits of tenants and routes, so
    /// calls are made that say it.
    pub fn escrow_reached(&mut self, now: Timestamp) {
        self.pass(now);
        self.allowances.escrow_reached(self.now);
        self.announce_escrow();
    }

    /// Tells the driver that a call is due, if one is.
    pub(super) fn announce_escrow(&mut self) {
        if self.allowances.announces(self.now) {
            self.outputs.push_back(Output::CallEscrow);
        }
    }
}
