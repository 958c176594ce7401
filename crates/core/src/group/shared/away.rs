//! What is done while the ledger is out of reach.
//!
//! Whoever is cut off goes on with a share of what it sees expire, of the charges that it knew of: the ledger keeps that
//! share from the others as soon as it misses its calls, a second before the share is used (theory.md §4.6). So nobody has to
//! know what the others do, and together they stay within the limit.

use alloc::vec::Vec;

use super::{Asked, Group, Shared, length};
use crate::allowance::Allowances;
use crate::decision::WaitReason;
use crate::ledger::SILENT_AFTER;
use crate::output::{Notice, Standing};

/// Whoever was not in touch for so long, in microseconds, goes on alone: a second after the ledger has begun to keep a share.
const AWAY_AFTER: u64 = 2 * SILENT_AFTER;

/// Shares are in millionths.
pub(super) const SHARES: u64 = 1_000_000;

impl Shared {
    /// Returns when it goes on alone, or stops to.
    pub(super) fn next_retreat(&self) -> Option<u64> {
        // Whoever was never in touch has no share.
        let contact = self.contact.or(self.wanted)?;
        match self.standing {
            Standing::Sharing => Some(contact + length(self.plan.share_life)),
            Standing::Closed => None,
            _ => Some(contact + AWAY_AFTER),
        }
    }
}

impl Group {
    /// Goes on alone if the ledger was silent for too long, and stops to when its share is used up.
    pub(crate) fn keep_in_touch(&mut self, now: u64, allowances: &mut Allowances, notices: &mut Vec<Notice>) {
        let is_in_use = self.is_in_use();
        let Some(shared) = &self.shared else { return };
        if !is_in_use && !shared.is_member && shared.standing == Standing::Closed {
            // Nobody waits for the ledger any more.
            for meter in &mut self.meters {
                meter.advance_again();
            }
            self.stand(Standing::Idle, notices);
            return;
        }
        if !is_in_use || shared.next_retreat().is_none_or(|at| at > now) {
            return;
        }
        if shared.standing == Standing::Sharing {
            self.stand(Standing::Closed, notices);
            return;
        }
        self.note_changes(now);
        self.take_back(now, allowances);
        let Some(shared) = &mut self.shared else { return };
        shared.give_up();
        (shared.is_quiet, shared.wake_at) = (false, None);
        shared.registered.clear();
        let share = shared.share;
        for meter in &mut self.meters {
            meter.retreat(now, share, SHARES);
        }
        let standing = if share == 0 {
            Standing::Closed
        } else {
            Standing::Sharing
        };
        self.stand(standing, notices);
    }

    /// Puts everybody back in line of whom the ledger was asked.
    pub(crate) fn take_back(&mut self, now: u64, allowances: &mut Allowances) {
        let Some(shared) = &mut self.shared else { return };
        let mut back: Vec<Asked> = core::mem::take(&mut shared.asked);
        if let Some(sent) = &mut shared.sent {
            back.append(&mut sent.asked);
        }
        for asked in back {
            self.undo(now, &asked, true, allowances);
        }
    }

    /// Returns what everybody waits for who waits, while the ledger does not decide: the store, or that it knows what is in use.
    pub(crate) fn waits_for_store(&self) -> Option<WaitReason> {
        match self.shared.as_ref()?.standing {
            Standing::Sharing | Standing::Closed => Some(WaitReason::Store),
            Standing::Learning => Some(WaitReason::Learning),
            _ => None,
        }
    }

    /// Returns whether nobody may be sent because the ledger is out of reach.
    pub(crate) fn is_closed_off(&self) -> bool {
        self.shared
            .as_ref()
            .is_some_and(|shared| shared.standing == Standing::Closed)
    }
}
