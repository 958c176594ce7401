//! The ledger that replicas share: what it is to be asked, and what it answers.

use super::Engine;
use crate::decision::TicketId;
use crate::group::Let;
use crate::ledger::{Call, CallKey, Reply};
use crate::output::Output;
use crate::plan::QuotaKey;
use crate::time::Timestamp;

impl Engine {
    /// Returns the number of this process among the replicas, drawn from the seed: the ledger knows it in every group by numbers
    /// of which this is the 4,096th part.
    pub const fn process(&self) -> u64 {
        self.process
    }

    /// Makes the call to a group's ledger that [`Output::Call`] has told of. It is made again, the same, as long as no
    /// answer to it has come; `None` if none is due.
    pub fn call(&mut self, now: Timestamp, quota: QuotaKey) -> Option<Call> {
        self.pass(now);
        let (now, tiers) = (self.now, self.plan.tiers);
        let index = *self.keys.get(&quota)?;
        let group = self.groups.get_mut(index as usize)?;
        group.advance(now);
        let call = group.call(now, tiers);
        self.rearm(index);
        call
    }

    /// Takes note of the ledger's answer to a call.
    pub fn answer(&mut self, now: Timestamp, quota: QuotaKey, call: CallKey, reply: &Reply) {
        self.pass(now);
        let now = self.now;
        let Some(index) = self.keys.get(&quota).copied() else {
            return;
        };
        let Some(group) = self.groups.get_mut(index as usize) else {
            return;
        };
        group.advance(now);
        let lets = group.answered(now, call, reply, &mut self.allowances, &mut self.notices);
        self.publish(quota);
        for Let {
            slot,
            place,
            granted,
            valid_until,
        } in lets
        {
            let bytes = place.waiting.request.bytes.value();
            self.bytes_waiting = self.bytes_waiting.saturating_sub(bytes);
            let arrival = place.arrival;
            let ticket = TicketId {
                arrival,
                group: index,
                slot,
            };
            let permit = self.launch_as(index, arrival, place.waiting, granted, valid_until);
            self.outputs.push_back(Output::Admit { ticket, permit });
        }
        self.pump(index);
    }

    /// The ledger says that a group's first request goes next, at a moment of its clock.
    pub fn wakened(&mut self, now: Timestamp, quota: QuotaKey, replica: u64, at: u64) {
        self.pass(now);
        let now = self.now;
        let Some(index) = self.keys.get(&quota).copied() else {
            return;
        };
        let Some(group) = self.groups.get_mut(index as usize) else {
            return;
        };
        group.wakened(now, replica, at);
        self.pump(index);
    }

    /// Leaves every ledger, so that what is kept for this replica is free for others at once. Calls to say so are outputs.
    pub fn leave(&mut self, now: Timestamp) {
        self.pass(now);
        for index in 0..self.groups.len() {
            self.groups[index].leave_ledger();
            self.rearm(u32::try_from(index).unwrap_or(u32::MAX));
        }
        self.allowances.leave(self.now);
        self.announce_escrow();
    }

    pub(super) fn is_shared(&self, index: u32) -> bool {
        self.groups[index as usize].shared.is_some()
    }

    /// Goes on alone with a group whose ledger was silent for too long.
    pub(super) fn keep_in_touch(&mut self, index: u32) {
        let group = &mut self.groups[index as usize];
        if group.shared.is_none() {
            return;
        }
        let key = group.key;
        group.keep_in_touch(self.now, &mut self.allowances, &mut self.notices);
        self.publish(key);
    }

    /// Puts everybody back in line of whom a ledger was asked: what they take may be another soon.
    pub(super) fn take_back_all(&mut self) {
        for group in &mut self.groups {
            group.take_back(self.now, &mut self.allowances);
        }
    }
}
