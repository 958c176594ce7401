//! The task that calls the ledgers: it takes the calls that the engine wants made, sends them, and hands back the answers.
//!
//! One call of a group is under way at most, and one about the limits of tenants and routes. A call that is not answered is asked for again, and the engine, which knows
//! whether it still wants it, gives the same or another. Nothing is awaited while the limiter's mutex is held.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{FromRedisValue, PushInfo, PushKind};
use tidegate_core::QuotaKey;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, Sleep, sleep_until};

use super::address::Address;
use super::fault::{Fault, StoreError};
use super::link::{Dialer, Link};
use super::options::Topology;
use super::server::Server;
use super::status::{Board, StoreState};
use super::subject::{Request, Sent, Subject, quota_of};
use super::whereabouts::{Whereabouts, find, slot_of};
use super::wire::{self, Place};
use crate::limiter::Shared;

/// Whoever failed tries again after so long, doubling up to the longest, less up to a half by chance.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A server is looked at so often, whether it is called or not.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// Answers that take longer than the first are slow, until they take less than the second.
const SLOW: Duration = Duration::from_millis(50);
const SLOW_NO_MORE: Duration = Duration::from_millis(25);

/// Names of so many groups are remembered.
const PLACES_MAX: usize = 8_192;

pub(super) struct Driver {
    limiter: Weak<Shared>,
    wanted: Arc<Notify>,
    dialer: Arc<Dialer>,
    board: Arc<Board>,
    places: BTreeMap<QuotaKey, Arc<Place>>,
    whereabouts: Whereabouts,
    /// When it is to be found out anew where everything is; `None`: it is known.
    find_at: Option<Instant>,
    is_finding: bool,
    find_backoff: Backoff,
    nodes: BTreeMap<Address, Node>,
    /// What a call is due about.
    due: BTreeSet<Subject>,
    /// What a call is under way about.
    busy: BTreeSet<Subject>,
    /// What was called about in vain, though the server is well, and when it is again.
    paused: BTreeMap<Subject, (Instant, Backoff)>,
    /// What has its keys moved, and where to.
    asking: BTreeMap<Subject, Address>,
    jobs: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
    closings: mpsc::UnboundedReceiver<(Address, u64)>,
    closing: mpsc::UnboundedSender<(Address, u64)>,
    dials: u64,
}

/// A server, as it is connected to.
struct Node {
    link: Option<Link>,
    /// Which connection this is, among all that were made.
    dial: u64,
    is_dialing: bool,
    /// Nothing is tried before.
    retry_at: Option<Instant>,
    backoff: Backoff,
    check_at: Instant,
    /// How long answers take, smoothed.
    takes: Duration,
    is_slow: bool,
    evicts: bool,
    /// Whether people were told that its version has holes.
    is_told: bool,
}

/// What came of a job.
enum Done {
    Found(Result<Whereabouts, Fault>),
    Dialed(Address, u64, Result<(Link, Option<Server>), Fault>),
    Checked(Address, Link, Duration, Result<Option<Server>, Fault>),
    Called {
        sent: Sent,
        address: Address,
        link: Link,
        took: Duration,
        result: Result<Vec<u64>, Fault>,
    },
}

impl Driver {
    pub(super) fn new(
        limiter: Weak<Shared>,
        wanted: Arc<Notify>,
        dialer: Arc<Dialer>,
        board: Arc<Board>,
    ) -> Self {
        let (closing, closings) = mpsc::unbounded_channel();
        Self {
            limiter,
            wanted,
            dialer,
            board,
            places: BTreeMap::new(),
            whereabouts: Whereabouts::default(),
            find_at: Some(Instant::now()),
            is_finding: false,
            find_backoff: Backoff::default(),
            nodes: BTreeMap::new(),
            due: BTreeSet::new(),
            busy: BTreeSet::new(),
            paused: BTreeMap::new(),
            asking: BTreeMap::new(),
            jobs: FuturesUnordered::new(),
            closings,
            closing,
            dials: 0,
        }
    }

    /// Runs for as long as the limiter lives.
    pub(super) async fn run(mut self) {
        let wanted = Arc::clone(&self.wanted);
        let mut timer = Box::pin(sleep_until(Instant::now()));
        loop {
            {
                let Some(limiter) = self.limiter.upgrade() else {
                    return;
                };
                limiter.take_due(&mut self.due);
                let next = self.proceed(&limiter, Instant::now());
                if self.due.is_empty() && self.busy.is_empty() {
                    limiter.has_called_all();
                }
                arm(timer.as_mut(), next);
            }
            tokio::select! {
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.note(done),
                () = wanted.notified() => {}
                Some((address, dial)) = self.closings.recv() => self.closed(&address, dial),
                () = timer.as_mut() => {}
            }
        }
    }

    /// Starts whatever can be started. Returns when there is something to do again.
    fn proceed(&mut self, limiter: &Arc<Shared>, now: Instant) -> Instant {
        let mut next = now + CHECK_EVERY;
        self.find(now, &mut next);
        self.call(limiter, now, &mut next);
        let wanted: Vec<Address> = match self.dialer.options.topology {
            // Those of which nobody wants anything are not connected to.
            Topology::Cluster => self
                .nodes
                .keys()
                .chain(self.whereabouts.first())
                .cloned()
                .collect(),
            _ => self.whereabouts.first().cloned().into_iter().collect(),
        };
        for address in wanted {
            self.tend(&address, now, &mut next);
        }
        next
    }

    fn find(&mut self, now: Instant, next: &mut Instant) {
        let Some(at) = self.find_at.filter(|_| !self.is_finding) else {
            return;
        };
        if at > now {
            *next = at.min(*next);
            return;
        }
        self.is_finding = true;
        let dialer = Arc::clone(&self.dialer);
        let known: Vec<Address> = self.nodes.keys().cloned().collect();
        self.jobs
            .push(Box::pin(async move { Done::Found(find(&dialer, &known).await) }));
    }

    /// Makes the calls that are due.
    fn call(&mut self, limiter: &Arc<Shared>, now: Instant, next: &mut Instant) {
        let due: Vec<Subject> = self.due.difference(&self.busy).copied().collect();
        for subject in due {
            if let Some((at, _)) = self.paused.get(&subject)
                && *at > now
            {
                *next = (*at).min(*next);
                continue;
            }
            let place = match subject {
                Subject::Escrow => None,
                Subject::Group(quota) => match self.place(limiter, quota) {
                    Some(place) => Some((quota, place)),
                    None => {
                        self.due.remove(&subject);
                        continue;
                    }
                },
            };
            let tag = place
                .as_ref()
                .map_or(wire::escrow::TAG, |(_, place)| place.group());
            let asked = self.asking.get(&subject).cloned();
            let is_asking = asked.is_some();
            let Some(address) = asked.or_else(|| self.whereabouts.node(slot_of(tag)).cloned()) else {
                continue;
            };
            let node = self
                .nodes
                .entry(address.clone())
                .or_insert_with(|| Node::new(now));
            if node.retry_at.is_some_and(|at| at > now) {
                continue;
            }
            let Some(link) = node.link.clone() else { continue };
            self.due.remove(&subject);
            self.asking.remove(&subject);
            let request = match place {
                None => limiter.escrow_call().map(Request::Escrow),
                Some((quota, place)) => limiter
                    .call(quota)
                    .map(|call| Request::Group(quota, place, Box::new(call))),
            };
            let Some(request) = request else { continue };
            self.busy.insert(subject);
            let dialer = Arc::clone(&self.dialer);
            self.jobs.push(Box::pin(async move {
                let (start, options) = (Instant::now(), &dialer.options);
                let (sent, result) = request
                    .send(link.clone(), &options.prefix, options.call_timeout, is_asking)
                    .await;
                Done::Called {
                    sent,
                    address,
                    link,
                    took: start.elapsed(),
                    result,
                }
            }));
        }
    }

    /// Connects to a node, or looks how it is, where it is time.
    fn tend(&mut self, address: &Address, now: Instant, next: &mut Instant) {
        let node = self
            .nodes
            .entry(address.clone())
            .or_insert_with(|| Node::new(now));
        let at = match node.link {
            Some(_) => node.check_at,
            None if node.is_dialing => return,
            None => node.retry_at.unwrap_or(now),
        };
        if at > now {
            let at = node
                .retry_at
                .filter(|retry| *retry > now)
                .map_or(at, |retry| retry.min(at));
            *next = at.min(*next);
            return;
        }
        if let Some(link) = node.link.clone() {
            node.check_at = now + CHECK_EVERY;
            let (time, address) = (self.dialer.options.call_timeout, address.clone());
            self.jobs.push(Box::pin(async move {
                let start = Instant::now();
                let result = link.clone().check(time).await;
                Done::Checked(address, link, start.elapsed(), result)
            }));
            return;
        }
        self.dials += 1;
        (node.is_dialing, node.dial) = (true, self.dials);
        let limiter = self.limiter.clone();
        let (dialer, closing, dial, address) = (
            Arc::clone(&self.dialer),
            self.closing.clone(),
            self.dials,
            address.clone(),
        );
        self.jobs.push(Box::pin(async move {
            let here = address.clone();
            let on_push = move |push: PushInfo| match push.kind {
                PushKind::Disconnection => {
                    // A driver that is gone has closed it itself.
                    let _ = closing.send((here.clone(), dial));
                }
                PushKind::Message => wake(&limiter, push),
                _ => {}
            };
            let result = dialer.dial(&address, on_push).await;
            Done::Dialed(address, dial, result)
        }));
    }

    fn note(&mut self, done: Done) {
        match done {
            Done::Found(result) => self.found(result),
            Done::Dialed(address, dial, result) => self.dialed(&address, dial, result),
            Done::Checked(address, link, took, result) => {
                let is_current = self.nodes.get(&address).is_some_and(|node| node.is_at(&link));
                match result {
                    Ok(server) if is_current => self.checked(&address, took, server),
                    Err(fault) if is_current => self.failed(&address, &fault),
                    _ => {}
                }
            }
            Done::Called {
                sent,
                address,
                link,
                took,
                result,
            } => {
                let subject = sent.subject();
                self.busy.remove(&subject);
                let limiter = self.limiter.upgrade();
                match result.and_then(|numbers| sent.answer(limiter.as_ref(), &numbers)) {
                    Ok(is_of_use) => {
                        if is_of_use {
                            self.paused.remove(&subject);
                        } else {
                            // Once or twice in a row is what happens. More would go round and round.
                            self.pause(subject);
                        }
                        self.board.answered(took);
                        self.is_well(&address, took);
                    }
                    Err(fault) => {
                        self.due.insert(subject);
                        let is_current = self.nodes.get(&address).is_some_and(|node| node.is_at(&link));
                        self.not_called(subject, &address, is_current, &fault);
                    }
                }
            }
        }
    }

    fn found(&mut self, result: Result<Whereabouts, Fault>) {
        self.is_finding = false;
        match result {
            Ok(found) => {
                (self.find_at, self.find_backoff) = (None, Backoff::default());
                self.whereabouts = found;
                let is_in_use = |address: &Address| self.whereabouts.has(address);
                for (address, node) in &self.nodes {
                    if let (Some(link), false) = (&node.link, is_in_use(address)) {
                        link.end();
                    }
                }
                self.nodes.retain(|address, _| is_in_use(address));
                self.board.keep(self.now(), is_in_use);
                self.board.lost(self.now(), None);
            }
            Err(fault) => {
                self.board.failed(fault.error);
                let wait = self.find_backoff.next();
                self.find_at = Some(Instant::now() + wait);
                // Whoever is connected goes on.
                if self.nodes.values().all(|node| node.link.is_none()) {
                    self.board.lost(self.now(), Some(&fault));
                }
            }
        }
    }

    fn dialed(&mut self, address: &Address, dial: u64, result: Result<(Link, Option<Server>), Fault>) {
        let Some(node) = self.nodes.get_mut(address).filter(|node| node.dial == dial) else {
            return;
        };
        node.is_dialing = false;
        match result {
            Ok((link, server)) => {
                node.link = Some(link);
                node.retry_at = None;
                node.check_at = Instant::now() + CHECK_EVERY;
                self.learned(address, server.as_ref());
                self.prove(address);
                self.board.met(address, server);
                if let Some(limiter) = self.limiter.upgrade() {
                    limiter.escrow_reached();
                }
            }
            Err(fault) => self.failed(address, &fault),
        }
    }

    fn checked(&mut self, address: &Address, took: Duration, server: Option<Server>) {
        match server.as_ref().and_then(Server::fault) {
            Some(fault) => self.failed(address, &fault),
            None => {
                self.learned(address, server.as_ref());
                if let Some(node) = self.nodes.get_mut(address) {
                    node.time(took);
                }
                self.prove(address);
            }
        }
        if let Topology::Sentinel(_) = self.dialer.options.topology {
            // Another may be the first while this one does not know it.
            self.find_at = self.find_at.or(Some(Instant::now()));
        }
    }

    /// A node says that it is well: so it is, unless calls have failed, whose repetition is the proof.
    fn prove(&mut self, address: &Address) {
        let Some(node) = self.nodes.get_mut(address) else {
            return;
        };
        if node.backoff == Backoff::default() || self.due.is_empty() {
            (node.retry_at, node.backoff) = (None, Backoff::default());
            self.show(address);
        }
    }

    /// Takes note of what a server says of itself.
    fn learned(&mut self, address: &Address, server: Option<&Server>) {
        let (Some(node), Some(server)) = (self.nodes.get_mut(address), server) else {
            return;
        };
        let evicts = server.evicts();
        if evicts.is_some() && !node.evicts {
            tracing::warn!(
                node = %address,
                policy = evicts,
                "the store evicts keys when its memory is full: set maxmemory-policy to noeviction"
            );
        }
        node.evicts = evicts.is_some();
        if server.is_vulnerable() && !std::mem::replace(&mut node.is_told, true) {
            tracing::warn!(
                node = %address,
                server = server.name(),
                "this version of the store is known to have holes in its script engine: bring it up to date"
            );
        }
    }

    /// A node has answered.
    fn is_well(&mut self, address: &Address, took: Duration) {
        let Some(node) = self.nodes.get_mut(address) else {
            return;
        };
        (node.retry_at, node.backoff) = (None, Backoff::default());
        node.time(took);
        self.show(address);
    }

    /// Shows how a node is that is connected to.
    fn show(&self, address: &Address) {
        let Some(node) = self.nodes.get(address).filter(|node| node.link.is_some()) else {
            return;
        };
        let state = match (node.is_slow, node.evicts) {
            (true, _) => StoreState::Slow,
            (false, true) => StoreState::Evicting,
            (false, false) => StoreState::Connected,
        };
        self.board.set(self.now(), address, state, None);
    }

    /// A call was not answered as it should be.
    fn not_called(&mut self, subject: Subject, address: &Address, is_current: bool, fault: &Fault) {
        if let (Topology::Cluster, Some((slot, to, is_once))) =
            (&self.dialer.options.topology, &fault.redirect)
        {
            self.board.failed(fault.error);
            if *is_once {
                self.asking.insert(subject, to.clone());
            } else {
                self.whereabouts.moved(*slot, to.clone());
                self.find_at = self.find_at.or(Some(Instant::now()));
            }
            return;
        }
        if fault.error.is_of_node() {
            if is_current {
                self.failed(address, fault);
            } else {
                self.board.failed(fault.error);
            }
            return;
        }
        self.board.failed(fault.error);
        self.board
            .set(self.now(), address, fault.error.state(), Some(fault));
        if fault.error == StoreError::ClusterDown {
            self.find_at = self.find_at.or(Some(Instant::now() + BACKOFF_MIN));
        }
        self.pause(subject);
    }

    /// Leaves something alone for a while.
    fn pause(&mut self, subject: Subject) {
        let (at, backoff) = self
            .paused
            .entry(subject)
            .or_insert_with(|| (Instant::now(), Backoff::default()));
        *at = Instant::now() + backoff.next();
    }

    /// Something is wrong with a node: it is left alone for a while, and connected to anew where that may help.
    fn failed(&mut self, address: &Address, fault: &Fault) {
        self.board.failed(fault.error);
        let Some(node) = self.nodes.get_mut(address) else {
            return;
        };
        node.retry_at = Some(Instant::now() + node.backoff.next());
        if fault.error.ends_connection()
            && let Some(link) = node.link.take()
        {
            link.end();
        }
        if node.link.is_none() {
            // Names may mean others now, and another server may be the first.
            self.find_at = self.find_at.or(Some(Instant::now()));
        }
        self.board
            .set(self.now(), address, fault.error.state(), Some(fault));
    }

    /// A connection has ended.
    fn closed(&mut self, address: &Address, dial: u64) {
        let is_current = |node: &&Node| node.dial == dial && node.link.is_some();
        if self.nodes.get(address).is_some_and(|node| is_current(&node)) {
            self.failed(address, &Fault::new(StoreError::Closed, "the connection ended"));
        }
    }

    /// Returns where the ledger of a group is.
    fn place(&mut self, limiter: &Shared, quota: QuotaKey) -> Option<Arc<Place>> {
        if let Some(place) = self.places.get(&quota) {
            return Some(Arc::clone(place));
        }
        let name = limiter.name(quota.id)?;
        let group = format!("{name}.{:x}.{:x}", quota.id.value(), quota.account);
        let place = Arc::new(Place::new(&self.dialer.options.prefix, &group));
        if self.places.len() >= PLACES_MAX {
            self.places.clear();
        }
        self.places.insert(quota, Arc::clone(&place));
        Some(place)
    }

    fn now(&self) -> tidegate_core::Timestamp {
        self.limiter
            .upgrade()
            .map(|limiter| limiter.now())
            .unwrap_or_default()
    }
}

impl Node {
    fn new(now: Instant) -> Self {
        Self {
            link: None,
            dial: 0,
            is_dialing: false,
            retry_at: None,
            backoff: Backoff::default(),
            check_at: now,
            takes: Duration::ZERO,
            is_slow: false,
            evicts: false,
            is_told: false,
        }
    }

    /// Takes note of how long it took to answer.
    fn time(&mut self, took: Duration) {
        self.takes = (self.takes * 7 + took) / 8;
        self.is_slow = self.takes > if self.is_slow { SLOW_NO_MORE } else { SLOW };
    }

    fn is_at(&self, link: &Link) -> bool {
        self.link.as_ref().is_some_and(|own| own.is(link))
    }
}

/// How long to wait before the next try.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Backoff(u32);

impl Backoff {
    fn next(&mut self) -> Duration {
        let wait = BACKOFF_MIN.saturating_mul(1 << self.0.min(8)).min(BACKOFF_MAX);
        self.0 += 1;
        // Replicas that lost the same server do not come back in step.
        let chance = RandomState::new().hash_one(self.0) % 512;
        wait - wait * u32::try_from(chance).unwrap_or(0) / 1_024
    }
}

fn arm(timer: Pin<&mut Sleep>, at: Instant) {
    if timer.deadline() != at {
        timer.reset(at);
    }
}

/// Passes on that somebody here should call.
fn wake(limiter: &Weak<Shared>, push: PushInfo) {
    let Some(limiter) = limiter.upgrade() else { return };
    let message = push.data.into_iter().nth(1).map(String::from_redis_value);
    let Some(Ok(message)) = message else { return };
    if let Some(owner) = wire::escrow::read_wakening(&message) {
        limiter.escrow_wakened(owner);
    } else if let Some((group, wakening)) = wire::read_wakening(&message)
        && let Some(quota) = quota_of(group)
    {
        limiter.wakened(quota, wakening.replica, wakening.at);
    }
}
