//! What the ledger answers.

use alloc::vec::Vec;

use super::call::LimitName;

/// How the ledger stands to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// As it should.
    Open,
    /// It has lost charges, or does not know whether it has, and lets nobody in until it knows what is in use.
    Learning,
    /// It is not the ledger that the caller knows: nothing of the call was done. The caller has to say what it knows.
    Lost,
    /// The call is older than one that was answered already: nothing of it was done.
    Stale,
}

impl Status {
    /// Returns the number by which it is told.
    pub const fn number(self) -> u64 {
        match self {
            Self::Open => 0,
            Self::Learning => 1,
            Self::Lost => 2,
            Self::Stale => 3,
        }
    }

    /// Returns the status of a number.
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::Open),
            1 => Some(Self::Learning),
            2 => Some(Self::Lost),
            3 => Some(Self::Stale),
            _ => None,
        }
    }
}

/// Why the first of those who were not let in was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Denial {
    /// Nobody was refused.
    #[default]
    None,
    /// A limit has no room.
    Limit,
    /// Somebody else, at another replica, goes first.
    Line,
    /// The provider told everybody to pause.
    Pause,
    /// The ledger is learning what is in use, or not everybody knows yet that the caller is there.
    Learning,
}

impl Denial {
    /// Returns the number by which it is told.
    pub const fn number(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Limit => 1,
            Self::Line => 2,
            Self::Pause => 3,
            Self::Learning => 4,
        }
    }

    /// Returns the denial of a number.
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Limit),
            2 => Some(Self::Line),
            3 => Some(Self::Pause),
            4 => Some(Self::Learning),
            _ => None,
        }
    }
}

/// Tells a replica that the first of its requests goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wakening {
    /// Which replica.
    pub replica: u64,
    /// When it should call, by the ledger's clock, in microseconds.
    pub at: u64,
}

/// What a provider told of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact {
    /// Which limit.
    pub name: LimitName,
    /// Its amount; 0: that of the configuration.
    pub amount: u64,
    /// Who told, as a number that replicas understand.
    pub source: u64,
}

/// The answer to a call. Moments are by the ledger's clock, in microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// How the ledger stands to the caller.
    pub status: Status,
    /// Its epoch.
    pub epoch: u64,
    /// Its time; 0: it is in doubt, nothing of the call was done, and it is to be made again a little later.
    pub now: u64,
    /// How many replicas are there.
    pub replicas: u64,
    /// The caller's part of the quota when the ledger is out of reach, in millionths.
    pub share: u64,
    /// Until when everybody pauses; 0: nobody does.
    pub paused_until: u64,
    /// Until when it learns at the latest; 0: it does not.
    pub learning_until: u64,
    /// Why the first of those who were not let in was not.
    pub denial: Denial,
    /// Which limit that is, as a number; 0: none.
    pub denied_by: u64,
    /// When the caller should call again, because the first of its requests goes next; 0: somebody else goes next, or
    /// nobody knows when.
    pub wake_at: u64,
    /// The version of what the provider told.
    pub facts_version: u64,
    /// Who is let in, one for each ask.
    pub granted: Vec<bool>,
    /// What is in use of each of the call's limits, everybody's charges and holds together.
    pub totals: Vec<u64>,
    /// The service that the flow of each ask has had.
    pub tags: Vec<u64>,
    /// What the provider told, if the caller knows another version.
    pub facts: Vec<Fact>,
    /// The replicas of which charges may count, as far as all of them are known.
    pub names: Vec<u64>,
    /// Everybody's charges that count, of each of the call's limits, where a view was asked for or somebody was not let
    /// in: slots of ten buckets, and the amount of each.
    pub view: Option<Vec<Vec<(u64, u64)>>>,
}

impl Reply {
    /// Returns the reply as a list of numbers, as it travels.
    pub fn numbers(&self) -> Vec<u64> {
        let mut all = Vec::with_capacity(32);
        all.extend([
            self.status.number(),
            self.epoch,
            self.now,
            self.replicas,
            self.share,
            self.paused_until,
            self.learning_until,
            self.denial.number(),
            self.denied_by,
            self.wake_at,
            self.facts_version,
        ]);
        push_list(&mut all, self.granted.iter().map(|granted| u64::from(*granted)));
        push_list(&mut all, self.totals.iter().copied());
        push_list(&mut all, self.tags.iter().copied());
        all.push(self.facts.len() as u64);
        for fact in &self.facts {
            all.extend([fact.name.number(), fact.amount, fact.source]);
        }
        push_list(&mut all, self.names.iter().copied());
        all.push(self.view.as_ref().map_or(0, |view| view.len() as u64));
        for slots in self.view.iter().flatten() {
            all.push(slots.len() as u64);
            for (slot, amount) in slots {
                all.extend([*slot, *amount]);
            }
        }
        all
    }

    /// Reads a reply from the numbers by which it travels; `None` if they are none.
    pub fn from_numbers(numbers: &[u64]) -> Option<Self> {
        let mut rest = Numbers(numbers);
        let mut reply = Self {
            status: Status::from_number(rest.next()?)?,
            epoch: rest.next()?,
            now: rest.next()?,
            replicas: rest.next()?,
            share: rest.next()?,
            paused_until: rest.next()?,
            learning_until: rest.next()?,
            denial: Denial::from_number(rest.next()?)?,
            denied_by: rest.next()?,
            wake_at: rest.next()?,
            facts_version: rest.next()?,
            granted: rest.list()?.iter().map(|granted| *granted != 0).collect(),
            totals: rest.list()?.to_vec(),
            tags: rest.list()?.to_vec(),
            facts: Vec::new(),
            names: Vec::new(),
            view: None,
        };
        for _ in 0..rest.next()? {
            reply.facts.push(Fact {
                name: LimitName::from_number(rest.next()?),
                amount: rest.next()?,
                source: rest.next()?,
            });
        }
        reply.names = rest.list()?.to_vec();
        let limits = rest.next()?;
        if limits > 0 {
            let mut view = Vec::new();
            for _ in 0..limits {
                let count = usize::try_from(rest.next()?).ok()?;
                let slots = rest.take(count.checked_mul(2)?)?;
                view.push(slots.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect());
            }
            reply.view = Some(view);
        }
        rest.0.is_empty().then_some(reply)
    }
}

fn push_list(all: &mut Vec<u64>, list: impl ExactSizeIterator<Item = u64>) {
    all.push(list.len() as u64);
    all.extend(list);
}

/// Numbers yet to be read.
struct Numbers<'a>(&'a [u64]);

impl<'a> Numbers<'a> {
    fn next(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u64]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn list(&mut self) -> Option<&'a [u64]> {
        let count = usize::try_from(self.next()?).ok()?;
        self.take(count)
    }
}
