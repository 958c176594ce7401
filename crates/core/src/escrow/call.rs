//! What a replica says to the book, and what it answers.

use alloc::vec::Vec;

use crate::ledger::LimitName;
use crate::snapshot::Owner;

/// A call of a replica, about some of the owners of whose limits it has or wants something. Times are lengths in microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Call {
    /// The replica's number, below 2⁴⁸.
    pub replica: u64,
    /// The number of the call, from 1. One that is repeated has the same.
    pub sequence: u64,
    /// How long the replica goes on after the sending of its latest call that was answered.
    pub patience: u64,
    /// Whether it leaves: it keeps what it must, and wants nothing.
    pub leaves: bool,
    /// Whether a book of which nobody knows anything is taken to be new.
    pub trusts_empty: bool,
    /// The owners, at most [`super::OWNERS_MAX`].
    pub owners: Vec<Claims>,
}

/// What a replica says of one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Whose limits.
    pub owner: Owner,
    /// The book of which it has something; 0: of none.
    pub epoch: u64,
    /// Limits and budgets.
    pub limits: Vec<Claim>,
}

/// What a replica says of one limit or budget, in its unit. No amount is larger than [`super::AMOUNT_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Which limit. Budgets have names of their own, another for each day or month.
    pub name: LimitName,
    /// The most that all may use.
    pub amount: u64,
    /// How long use lasts at most, in microseconds.
    pub life: u64,
    /// What it must keep: what is in use, and what it may use until this call is answered.
    pub keep: u64,
    /// What those who wait need beyond that.
    pub need: u64,
    /// What the first of them needs; at most `need`.
    pub least: u64,
    /// What it would like to have in all, if nobody else is short; at least what it must keep.
    pub want: u64,
    /// What of it was used and will not come back before the limit begins anew: of budgets.
    pub spent: u64,
}

/// The answer to a call: of each of its owners, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    /// What the replica has of each.
    pub owners: Vec<Grants>,
}

/// What a replica has of an owner's limits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants {
    /// Which book says so; 0: the call is older than one that was answered, and nothing of it was done.
    pub epoch: u64,
    /// Of each limit of the call, in their order; none if it is too old.
    pub limits: Vec<Grant>,
}

/// What a replica has of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grant {
    /// How much it may use in all.
    pub has: u64,
    /// Whether others are short of it.
    pub is_pressed: bool,
    /// What all others have used that will not come back.
    pub spent: u64,
}

/// A replica that should call about an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wakening {
    /// About whom.
    pub owner: Owner,
    /// Which replica.
    pub replica: u64,
}

impl Reply {
    /// Returns the reply as numbers: of each owner its book, and of each of its limits what the replica has, 1 if others are
    /// short, and what they have spent.
    pub fn numbers(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        for grants in &self.owners {
            numbers.push(grants.epoch);
            for grant in &grants.limits {
                numbers.extend([grant.has, u64::from(grant.is_pressed), grant.spent]);
            }
        }
        numbers
    }

    /// Reads the reply to a call from its numbers; `None` if they are not those of a reply to it.
    pub fn from_numbers(call: &Call, numbers: &[u64]) -> Option<Self> {
        let mut rest = numbers.iter().copied();
        let mut reply = Self::default();
        for claims in &call.owners {
            let epoch = rest.next()?;
            let count = if epoch == 0 { 0 } else { claims.limits.len() };
            let mut limits = Vec::with_capacity(count);
            for _ in 0..count {
                limits.push(Grant {
                    has: rest.next()?,
                    is_pressed: rest.next()? != 0,
                    spent: rest.next()?,
                });
            }
            reply.owners.push(Grants { epoch, limits });
        }
        rest.next().is_none().then_some(reply)
    }
}
