//! Tests of the ledger that replicas share, by calls as replicas make them.

mod admission;
mod bounds;
mod learning;
mod model;
mod replica;
mod shares;
mod time;
mod turns;
mod world;
mod worlds;

use tidegate_core::Dimension;
use tidegate_core::ledger::{
    Ask, Call, Entry, Ledger, LimitName, Missed, Reply, Seed, Status, Terms, Wakening,
};

const SECOND: u64 = 1_000_000;

/// The time at which tests begin, by every clock.
const START: u64 = 100_000 * SECOND;

/// A window, for how long its charges live, and the length of a bucket.
const WINDOW: u64 = 10 * SECOND;
const LIFE: u64 = WINDOW + 400_000;
const WIDTH: u64 = 100_000;

/// How long a share is used; how long holds of a silent replica stay.
const SHARE_LIFE: u64 = 20 * SECOND;
const LEASE: u64 = 30 * SECOND;

const NAME: LimitName = LimitName::of(Dimension::Tokens, WINDOW);

fn terms(amount: u64) -> Terms {
    Terms {
        name: NAME,
        life: LIFE,
        width: WIDTH,
        amount,
        since: 0,
        ends: 0,
        held: 0,
    }
}

/// A request of a tenant in a tier, for so much.
fn ask_of(tier: u8, tenant: u64, arrived: u64, take: u64) -> Ask {
    Ask {
        tier,
        tenant,
        cost: take << 20,
        service: take << 10,
        arrived,
        take: vec![take],
        hold: vec![0],
    }
}

fn ask(take: u64) -> Ask {
    ask_of(1, 1, 0, take)
}

/// A replica, as far as it matters how it numbers its calls.
#[derive(Clone)]
struct Peer {
    id: u64,
    epoch: u64,
    sequence: u64,
    /// What its clock is ahead of the true time.
    ahead: i64,
}

/// A ledger and the true time.
#[derive(Clone)]
struct Bench {
    ledger: Ledger,
    now: u64,
    /// What the server's clock is ahead of the true time.
    ahead: i64,
    limits: Vec<Terms>,
    shares: u64,
    wakenings: Vec<Wakening>,
}

impl Peer {
    fn new(id: u64) -> Self {
        Self {
            id,
            epoch: 0,
            sequence: 0,
            ahead: 0,
        }
    }
}

impl Bench {
    /// A ledger whose limit is so much.
    fn new(amount: u64) -> Self {
        Self {
            ledger: Ledger::new(),
            now: START,
            ahead: 0,
            limits: vec![terms(amount)],
            shares: 500_000,
            wakenings: Vec::new(),
        }
    }

    /// A ledger and replicas that are there for a second, and know of one another.
    fn with(amount: u64, count: u64) -> (Self, Vec<Peer>) {
        let mut bench = Self::new(amount);
        let mut peers: Vec<Peer> = (1..=count).map(Peer::new).collect();
        bench.beats(&mut peers, SECOND);
        (bench, peers)
    }

    /// The same, where nothing is kept for anybody who is silent.
    fn unshared(amount: u64, count: u64) -> (Self, Vec<Peer>) {
        let mut bench = Self::new(amount);
        bench.shares = 0;
        let mut peers: Vec<Peer> = (1..=count).map(Peer::new).collect();
        bench.beats(&mut peers, SECOND);
        (bench, peers)
    }

    /// Fills the window evenly, as a long backlog would have.
    fn fill(&mut self, peer: &mut Peer) {
        let amount = self.limits[0].amount;
        let buckets = LIFE / WIDTH;
        let entries: Vec<Entry> = (0..buckets)
            .map(|nth| Entry::Charge {
                limit: 0,
                stamp: self.now - nth * WIDTH,
                amount: amount * (nth + 1) / buckets - amount * nth / buckets,
            })
            .collect();
        self.tells(peer, &entries);
    }

    /// Lets replicas beat for so long.
    fn beats(&mut self, peers: &mut [Peer], duration: u64) {
        let end = self.now + duration;
        loop {
            for peer in &mut *peers {
                self.beat(peer);
            }
            if self.now >= end {
                break;
            }
            self.now = (self.now + 300_000).min(end);
        }
    }

    /// The next call of a replica.
    fn next(&self, peer: &mut Peer) -> Call {
        peer.sequence += 1;
        Call {
            replica: peer.id,
            sequence: peer.sequence,
            epoch: peer.epoch,
            next_epoch: self.now + peer.id,
            time: self.now.saturating_add_signed(peer.ahead),
            shares: self.shares,
            share_life: SHARE_LIFE,
            lease: LEASE,
            trusts_empty: true,
            limits: self.limits.clone(),
            wants_view: true,
            ..Call::default()
        }
    }

    fn send(&mut self, call: &Call) -> Reply {
        let (reply, wakenings) = self.ledger.call(self.now.saturating_add_signed(self.ahead), call);
        self.wakenings = wakenings;
        // What travels is what was said.
        assert_eq!(
            Reply::from_numbers(&reply.numbers()).as_ref(),
            Some(&reply),
            "{call:?}"
        );
        reply
    }

    fn sends(&mut self, peer: &mut Peer, change: impl FnOnce(&mut Call)) -> Reply {
        let mut call = self.next(peer);
        change(&mut call);
        let reply = self.send(&call);
        if reply.status != Status::Lost {
            peer.epoch = reply.epoch;
        }
        reply
    }

    fn beat(&mut self, peer: &mut Peer) -> Reply {
        self.sends(peer, |_| {})
    }

    fn asks(&mut self, peer: &mut Peer, asks: &[Ask]) -> Reply {
        self.sends(peer, |call| call.asks = asks.to_vec())
    }

    /// Asks for one request, and returns whether it is let in.
    fn gets(&mut self, peer: &mut Peer, take: u64) -> bool {
        self.asks(peer, &[ask(take)]).granted == [true]
    }

    fn tells(&mut self, peer: &mut Peer, entries: &[Entry]) -> Reply {
        self.sends(peer, |call| call.entries = entries.to_vec())
    }

    /// Tells a ledger that lost something what a replica knows.
    fn seeds(&mut self, peer: &mut Peer, own: &[(u64, u64)], names: &[u64]) -> Reply {
        let lost = self.beat(peer);
        assert_eq!(lost.status, Status::Lost);
        (peer.epoch, peer.sequence) = (lost.epoch, 0);
        let own = own.iter().map(|(stamp, amount)| (0, *stamp, *amount));
        let seed = Seed {
            own: own.collect(),
            seen: Vec::new(),
            names: names.to_vec(),
        };
        self.sends(peer, |call| call.seed = Some(seed))
    }
}
