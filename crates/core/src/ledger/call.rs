//! What a replica says to the ledger.

use alloc::vec::Vec;

use crate::units::Dimension;

/// Names a limit of a quota group: its dimension and its window in microseconds (0 for requests in flight).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitName(u64);

impl LimitName {
    /// Returns the name of the limit of a dimension over a window, in microseconds (at most 2⁴⁵).
    pub const fn of(dimension: Dimension, window: u64) -> Self {
        let window = if window > 1 << 45 { 1 << 45 } else { window };
        Self(window * 8 + dimension.index() as u64)
    }

    /// Returns the name whose number this is, as [`LimitName::number`] gives it.
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Returns the name as a number below 2⁴⁹.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Returns the dimension, if the number is that of a name.
    pub fn dimension(self) -> Option<Dimension> {
        let index = usize::try_from(self.0 % 8).unwrap_or(usize::MAX);
        Dimension::ALL.get(index).copied()
    }

    /// Returns the window in microseconds.
    pub const fn window(self) -> u64 {
        self.0 / 8
    }
}

/// One limit as a replica keeps it. Times are in microseconds, those of the ledger's clock where they are moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Which limit.
    pub name: LimitName,
    /// How long a charge counts beyond the end of its bucket: window and margin.
    pub life: u64,
    /// The length of a bucket; always the same for a name.
    pub width: u64,
    /// The most that may count at one time.
    pub amount: u64,
    /// Charges in buckets before this moment count no more, whatever their age: the beginning of a provider's day. 0: none.
    pub since: u64,
    /// When that day ends; 0: never.
    pub ends: u64,
    /// What this replica holds of it now, beyond charges: requests in flight, output that is expected.
    pub held: u64,
}

/// A correction of what was charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// So much of what was charged at a moment was not used.
    Refund {
        /// Of which of the call's limits.
        limit: usize,
        /// When it was charged.
        stamp: u64,
        /// How much.
        amount: u64,
    },
    /// So much more was used.
    Charge {
        /// Of which of the call's limits.
        limit: usize,
        /// When; 0: now.
        stamp: u64,
        /// How much.
        amount: u64,
    },
    /// The provider said that so much is in use: what charges do not explain is somebody else's.
    Used {
        /// Of which of the call's limits.
        limit: usize,
        /// How much the provider counted.
        amount: u64,
    },
    /// The provider told another amount of a limit.
    Amount {
        /// Of which of the call's limits.
        limit: usize,
        /// The amount that holds now; 0: that of the configuration again.
        amount: u64,
        /// Who told, as a number that replicas understand.
        source: u64,
    },
    /// The provider told everybody to pause.
    Pause {
        /// Until when.
        until: u64,
    },
    /// A flow was given so much service more than was counted, or less.
    Service {
        /// Its priority tier, 0 to 3.
        tier: u8,
        /// Its tenant.
        tenant: u64,
        /// Service: cost over weight.
        by: i64,
    },
}

/// A request that wants to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Its priority tier, 0 to 3.
    pub tier: u8,
    /// Its tenant.
    pub tenant: u64,
    /// What it is of a window's cost (2³⁰ is a whole window).
    pub cost: u64,
    /// The same over its tenant's weight.
    pub service: u64,
    /// When it came.
    pub arrived: u64,
    /// What it takes of each of the call's limits.
    pub take: Vec<u64>,
    /// What it holds of each of them until it ends.
    pub hold: Vec<u64>,
}

/// What a replica knows of charges that the ledger has lost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seed {
    /// Its own charges that may still count: limit, moment, amount.
    pub own: Vec<(usize, u64, u64)>,
    /// Everybody's charges as it last saw them in a view of an open ledger, in slots of ten buckets: limit, slot, amount.
    pub seen: Vec<(usize, u64, u64)>,
    /// The replicas that it was last told of. None if it was not in touch for [`NAMES_KEPT`](super::NAMES_KEPT), or for as long
    /// as charges live, when it learned of the loss: there may be others, of whom it knows nothing.
    pub names: Vec<u64>,
}

/// An earlier call whose answer never came and is not waited for any more: if it was the last to be answered, what it was
/// granted is given back, and if it never arrived, its corrections are made up for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Missed {
    /// Its number.
    pub sequence: u64,
    /// Its corrections, by the limits of this call.
    pub entries: Vec<Entry>,
    /// What its requests would have taken of each of this call's limits, in its order.
    pub asks: Vec<Vec<u64>>,
}

/// What tells a call from all others, those of earlier epochs among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey {
    /// Who calls.
    pub replica: u64,
    /// The epoch that it knows.
    pub epoch: u64,
    /// Its number in that epoch.
    pub sequence: u64,
}

impl Call {
    /// Returns what tells it from all others.
    pub const fn key(&self) -> CallKey {
        CallKey {
            replica: self.replica,
            epoch: self.epoch,
            sequence: self.sequence,
        }
    }
}

/// One call of a replica to the ledger of a quota group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Call {
    /// Who calls: a number below 2⁵³, drawn anew by every process and every time it joins.
    pub replica: u64,
    /// 1 for its first call of an epoch, then one more each; a call that is repeated has the same number, and is answered
    /// with what it was answered the first time.
    pub sequence: u64,
    /// The epoch that it knows; 0: none.
    pub epoch: u64,
    /// The name of the next epoch, should the ledger have to begin anew: drawn at random, below 2⁵³.
    pub next_epoch: u64,
    /// Which server it is connected to, as a number that another one does not have, nor the same one once it has started
    /// anew; 0: it cannot say. What another server has kept of a ledger may lack what was last written.
    pub server: u64,
    /// What its own clock says of the ledger's time, when it sends the call for the first time; 0: it does not know yet.
    pub time: u64,
    /// The part of the quota that all replicas together may use when the ledger is out of reach, in millionths.
    pub shares: u64,
    /// For how long a replica that is cut off goes on with its share, in microseconds.
    pub share_life: u64,
    /// For how long what a silent replica holds stays held, in microseconds.
    pub lease: u64,
    /// Guaranteed shares of the four tiers, in percent.
    pub tiers: [u8; 4],
    /// Whether a ledger of which nobody knows anything is taken to be new, not lost.
    pub trusts_empty: bool,
    /// It leaves for good.
    pub leaves: bool,
    /// It wants to see what everybody has charged.
    pub wants_view: bool,
    /// The version of what the provider told that it knows.
    pub facts: u64,
    /// The limits.
    pub limits: Vec<Terms>,
    /// Corrections.
    pub entries: Vec<Entry>,
    /// Who wants to be sent, in the replica's own order.
    pub asks: Vec<Ask>,
    /// The calls right before this one whose answers were given up, in order; at most [`MISSED_MAX`](super::MISSED_MAX).
    pub missed: Vec<Missed>,
    /// What it knows of charges that were lost; only in answer to [`Status::Lost`](super::Status::Lost).
    pub seed: Option<Seed>,
}
