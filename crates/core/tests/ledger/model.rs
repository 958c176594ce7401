//! Every course that a small world can take: few replicas, few units, whole seconds, and so many misfortunes.
//!
//! The ledger and the replicas are the real ones. Every second each replica has its turn, and what it sends arrives at once,
//! unless something happens: a call or an answer is lost, comes late or twice, a replica is cut off or crashes, the ledger is
//! wiped or falls back to a copy of a second ago, the server's clock steps. All courses with so many of these are tried,
//! breadth first, and four properties are looked at everywhere:
//!
//! * **NoOverAdmission**: what was used in any window is within the limit.
//! * **SettleOnce**: once nothing is on its way, the ledger has charged what the replicas own up to, no more and no less.
//! * **EpochFence**: nothing is let in by an answer of another epoch than the call was for.
//! * **LeaseConservation**: the shares that replicas may use never sum to more than they may, and nothing is let in where
//!   charges and what is kept exceed the limit.
//!
//! That they can fail is shown by [`Mutant`]s of the protocol: the property that each breaks stands beside it. With
//! `TIDEGATE_LEDGER_DEEP` set there is one misfortune more everywhere, which takes many minutes.

use core::fmt::Write;
use std::collections::HashSet;

use super::replica::{Doings, Key, Replica, key};
use super::*;

/// The window, and for how long a share is used.
const SHORT: u64 = 2 * SECOND;
const SHORT_SHARE: u64 = 6 * SECOND;

/// How a protocol may be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    /// None: the real one.
    None,
    /// A repeated call is taken for another one: SettleOnce.
    NoDedupe,
    /// Nothing is kept for who is silent: NoOverAdmission.
    NoFence,
    /// A lost ledger is taken for a new one, and calls of all epochs for its own: EpochFence.
    NoEpoch,
    /// Who knows of others does not say so when a ledger was lost: NoOverAdmission.
    NoNames,
    /// Another server's copy is taken for the ledger: NoOverAdmission.
    NoServer,
    /// Everybody is given an equal share at once: LeaseConservation.
    NoWaiting,
}

/// How far the search goes.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    replicas: usize,
    limit: u64,
    seconds: u64,
    faults: u32,
    /// The kinds of misfortune that it knows, as bits.
    kinds: u32,
}

const MESSAGES: u32 = 1;
const CUTS: u32 = 2;
const CRASHES: u32 = 4;
const LOSSES: u32 = 8;
const CLOCKS: u32 = 16;
const REFUNDS: u32 = 32;

/// What may happen to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Arrives,
    /// It is lost, or only its answer is.
    Lost,
    AnswerLost,
    Twice,
    /// It is answered, but the answer comes in the next second.
    AnswerLate,
    /// A unit that is let in is not used after all.
    Refunded,
}

/// What may happen at the beginning of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    None,
    /// Nothing of a replica gets through: what it sends is lost, or comes when it is over.
    Cut(usize, bool),
    Heal(usize),
    Crash(usize),
    Wipe,
    FailOver,
    Step(i64),
}

#[derive(Clone, Debug)]
struct Place {
    replica: Replica,
    cut: Option<bool>,
    /// Calls and answers that come later.
    calls: Vec<Call>,
    answers: Vec<(Key, Reply)>,
}

#[derive(Clone, Debug)]
struct State {
    now: u64,
    ledger: Ledger,
    copy: Ledger,
    server: u64,
    server_ahead: i64,
    places: Vec<Place>,
    next_id: u64,
    /// Units used, by second, as far as they matter.
    used: Vec<(u64, u64)>,
    /// Charges that replicas own up to, by second.
    owned: Vec<(u64, u64)>,
    /// Whether charges can be compared: nobody has crashed, nothing was lost.
    is_exact: bool,
    faults: u32,
    /// How far the mutant without memory has counted.
    counts: Vec<(u64, u64, u64)>,
}

/// A property that does not hold.
type Broken = (&'static str, String);

struct Search {
    bounds: Bounds,
    mutant: Mutant,
    /// The only property that is looked at, if not all are.
    only: Option<&'static str>,
}

impl Search {
    fn broken(&self, broken: Broken) -> Result<(), Broken> {
        if self.only.is_none_or(|only| only == broken.0) {
            Err(broken)
        } else {
            Ok(())
        }
    }

    fn begin(&self) -> State {
        let mut state = State {
            now: START,
            ledger: Ledger::new(),
            copy: Ledger::new(),
            server: 1,
            server_ahead: 0,
            places: Vec::new(),
            next_id: 0,
            used: Vec::new(),
            owned: Vec::new(),
            is_exact: true,
            faults: 0,
            counts: Vec::new(),
        };
        for nth in 0..self.bounds.replicas {
            let mut replica = self.newcomer(&mut state);
            replica.trusts_empty = nth == 0;
            state.places.push(Place {
                replica,
                cut: None,
                calls: Vec::new(),
                answers: Vec::new(),
            });
        }
        // Everybody joins, and is known to everybody.
        for _ in 0..3 {
            for at in 0..self.bounds.replicas {
                state.places[at].replica.queue = vec![vec![1]];
                let _ = self.turn(&mut state, at, Fate::Arrives);
            }
            state.now += SECOND / 2;
        }
        state.now = START + 2 * SECOND;
        state
    }

    fn newcomer(&self, state: &mut State) -> Replica {
        state.next_id += 1;
        let limit = Terms {
            name: LimitName::of(Dimension::Requests, SHORT),
            life: SHORT + SECOND / 2,
            ..terms(self.bounds.limit)
        };
        let mut replica = Replica::new(state.next_id, vec![limit], 1_000_000);
        replica.share_life = SHORT_SHARE;
        replica.lease = SHORT_SHARE;
        replica
    }

    /// Lets a replica have its turn; its call meets a fate.
    fn turn(&self, state: &mut State, at: usize, fate: Fate) -> Result<(), Broken> {
        let now = state.now;
        let doings = state.places[at].replica.tick(now);
        let call = doings.call.clone();
        self.follow(state, at, doings, fate)?;
        let Some(call) = call else { return Ok(()) };
        match (state.places[at].cut, fate) {
            (Some(true), _) | (_, Fate::Lost) => {}
            (Some(false), _) => state.places[at].calls.push(call),
            (None, _) => {
                self.carry(state, at, &call, fate)?;
                if fate == Fate::Twice {
                    self.carry(state, at, &call, Fate::AnswerLost)?;
                }
            }
        }
        Ok(())
    }

    /// Carries a call to the ledger, and its answer back.
    fn carry(&self, state: &mut State, at: usize, call: &Call, fate: Fate) -> Result<(), Broken> {
        let made = self.mutate(state, call);
        let clock = state.now.saturating_add_signed(state.server_ahead);
        let (mut reply, _) = state.ledger.call(clock, &made);
        if self.mutant == Mutant::NoWaiting && reply.replicas > 0 {
            reply.share = reply.share.max(1_000_000 / reply.replicas);
        }
        let grants = reply.granted.iter().any(|granted| *granted);
        if grants && reply.totals[0] > self.bounds.limit {
            self.broken(("LeaseConservation", format!("let in with {:?}", reply.totals)))?;
        }
        if grants && call.epoch != 0 && call.epoch != reply.epoch {
            self.broken(("EpochFence", format!("{} let in for {}", reply.epoch, call.epoch)))?;
        }
        match fate {
            Fate::AnswerLost => Ok(()),
            Fate::AnswerLate => {
                state.places[at].answers.push((key(call), reply));
                Ok(())
            }
            _ => {
                self.answer(state, at, key(call), &reply, fate)?;
                self.settles(state, &reply)
            }
        }
    }

    /// Looks whether charges are what replicas own up to, if nothing is on its way.
    fn settles(&self, state: &State, reply: &Reply) -> Result<(), Broken> {
        let is_quiet = state
            .places
            .iter()
            .all(|place| place.replica.is_quiet() && place.calls.is_empty() && place.answers.is_empty());
        if let (true, true, Some(view)) = (is_quiet, state.is_exact, &reply.view) {
            let charged: u64 = view[0].iter().map(|(_, amount)| amount).sum();
            let life = SHORT + SECOND / 2;
            let counts = |(at, _): &&(u64, u64)| at + WIDTH + life > reply.now;
            let owned: u64 = state.owned.iter().filter(counts).map(|(_, amount)| amount).sum();
            if charged != owned {
                self.broken(("SettleOnce", format!("{charged} charged of {owned}")))?;
            }
        }
        Ok(())
    }

    fn answer(&self, state: &mut State, at: usize, to: Key, reply: &Reply, fate: Fate) -> Result<(), Broken> {
        let now = state.now;
        let doings = state.places[at].replica.answer(now, to, reply);
        self.follow(state, at, doings, fate)
    }

    fn follow(&self, state: &mut State, at: usize, doings: Doings, fate: Fate) -> Result<(), Broken> {
        let now = state.now;
        for (nth, (demand, _, stamp)) in doings.uses.into_iter().enumerate() {
            if nth == 0 && fate == Fate::Refunded {
                state.places[at].replica.will_refund(now, 0, stamp, demand[0]);
                continue;
            }
            state.owned.push((stamp, demand[0]));
            state.used.push((now, demand[0]));
            let recent = state.used.iter().filter(|(when, _)| when + SHORT >= now);
            let sum: u64 = recent.map(|(_, amount)| amount).sum();
            if sum > self.bounds.limit {
                self.broken(("NoOverAdmission", format!("{sum} of {}", self.bounds.limit)))?;
            }
        }
        let claims = state.places.iter().map(|place| place.replica.claim(now));
        let claims: u64 = claims.sum();
        if claims > 1_000_000 {
            return self.broken(("LeaseConservation", format!("shares of {claims}")));
        }
        Ok(())
    }

    fn mutate(&self, state: &mut State, call: &Call) -> Call {
        let mut call = call.clone();
        call.server = state.server;
        match self.mutant {
            Mutant::None | Mutant::NoWaiting => {}
            Mutant::NoDedupe => {
                let known = state
                    .counts
                    .iter_mut()
                    .find(|(id, epoch, _)| (*id, *epoch) == (call.replica, call.epoch.max(1)));
                call.missed.clear();
                match known {
                    Some((_, _, count)) => {
                        *count += 1;
                        call.sequence = *count;
                    }
                    None => {
                        let first = if call.epoch == 0 { 1 } else { call.sequence };
                        state.counts.push((call.replica, call.epoch.max(1), first));
                    }
                }
            }
            Mutant::NoFence => call.share_life = 0,
            Mutant::NoEpoch => {
                let mut look = call.clone();
                look.asks.clear();
                let (reply, _) = state
                    .ledger
                    .clone()
                    .call(state.now.saturating_add_signed(state.server_ahead), &look);
                if reply.status == Status::Lost || reply.status == Status::Learning {
                    (call.epoch, call.sequence, call.trusts_empty) = (0, 1, true);
                    call.next_epoch += 1_000;
                    call.missed.clear();
                    call.seed = None;
                }
            }
            Mutant::NoNames => {
                if let Some(seed) = &mut call.seed {
                    seed.names = vec![call.replica];
                }
            }
            Mutant::NoServer => call.server = 0,
        }
        call
    }

    fn events(&self, state: &State) -> Vec<Event> {
        let mut events = vec![Event::None];
        for (at, place) in state.places.iter().enumerate() {
            if place.cut.is_some() {
                events.push(Event::Heal(at));
            }
        }
        if state.faults >= self.bounds.faults {
            return events;
        }
        let knows = |kind| self.bounds.kinds & kind != 0;
        for (at, place) in state.places.iter().enumerate() {
            if place.cut.is_none() && knows(CUTS) {
                events.extend([Event::Cut(at, true), Event::Cut(at, false)]);
            }
            if knows(CRASHES) {
                events.push(Event::Crash(at));
            }
        }
        // Somebody has to be there who knows what is lost, and what time it is.
        let is_met = state
            .places
            .iter()
            .any(|place| place.cut.is_none() && place.replica.claim(state.now) > 0);
        if is_met && knows(LOSSES) {
            events.extend([Event::Wipe, Event::FailOver]);
        }
        if is_met && knows(CLOCKS) {
            events.extend([Event::Step(5_000_000), Event::Step(-5_000_000)]);
        }
        events
    }

    fn happen(&self, state: &mut State, event: Event) -> Result<(), Broken> {
        state.now += SECOND;
        let oldest = state.now - 8 * SECOND;
        state.used.retain(|(at, _)| *at > oldest);
        state.owned.retain(|(at, _)| *at > oldest);
        let copy = state.ledger.clone();
        state.faults += u32::from(!matches!(event, Event::None | Event::Heal(_)));
        match event {
            Event::None => {}
            Event::Cut(at, loses) => state.places[at].cut = Some(loses),
            Event::Heal(at) => {
                state.places[at].cut = None;
                for call in core::mem::take(&mut state.places[at].calls) {
                    self.carry(state, at, &call, Fate::Arrives)?;
                }
            }
            Event::Crash(at) => {
                state.is_exact = false;
                let replica = self.newcomer(state);
                let place = &mut state.places[at];
                place.replica = replica;
                place.answers.clear();
            }
            Event::Wipe => {
                state.is_exact = false;
                state.ledger = Ledger::new();
            }
            Event::FailOver => {
                state.is_exact = false;
                state.ledger = state.copy.clone();
                state.server += 1;
                for place in &mut state.places {
                    place.calls.clear();
                }
            }
            Event::Step(by) => state.server_ahead += by,
        }
        state.copy = copy;
        for at in 0..state.places.len() {
            for (to, reply) in core::mem::take(&mut state.places[at].answers) {
                self.answer(state, at, to, &reply, Fate::Arrives)?;
            }
        }
        Ok(())
    }

    /// All that may become of a state within a second.
    fn next(&self, state: &State) -> Result<Vec<State>, Box<(Broken, State)>> {
        let mut nexts = Vec::new();
        for event in self.events(state) {
            let mut next = state.clone();
            self.happen(&mut next, event)
                .map_err(|broken| Box::new((broken, next.clone())))?;
            nexts.push(next);
        }
        for at in 0..self.bounds.replicas {
            let mut after = Vec::new();
            for state in nexts {
                let mut fates = vec![Fate::Arrives];
                if state.faults < self.bounds.faults && state.places[at].cut.is_none() {
                    if self.bounds.kinds & MESSAGES != 0 {
                        fates.extend([Fate::Lost, Fate::AnswerLost, Fate::Twice, Fate::AnswerLate]);
                    }
                    if self.bounds.kinds & REFUNDS != 0 {
                        fates.push(Fate::Refunded);
                    }
                }
                for fate in fates {
                    let mut next = state.clone();
                    next.faults += u32::from(fate != Fate::Arrives);
                    let replica = &mut next.places[at].replica;
                    while replica.queue.len() < 3 {
                        replica.queue.push(vec![1]);
                    }
                    // A second turn follows at once, for what an answer calls for.
                    let turns = self.turn(&mut next, at, fate).and_then(|()| {
                        let is_waiting = !next.places[at].replica.is_answered();
                        if is_waiting {
                            Ok(())
                        } else {
                            self.turn(&mut next, at, Fate::Arrives)
                        }
                    });
                    turns.map_err(|broken| Box::new((broken, next.clone())))?;
                    after.push(next);
                }
            }
            nexts = after;
        }
        Ok(nexts)
    }

    /// Looks at all states within the bounds. Returns how many there are, or what is broken first.
    fn run(&self) -> Result<usize, Broken> {
        let mut seen = HashSet::new();
        let mut states = vec![self.begin()];
        let end = START + (2 + self.bounds.seconds) * SECOND;
        let mut count = 0;
        while let Some(first) = states.first()
            && first.now < end
        {
            let mut after = Vec::new();
            for state in &states {
                let nexts = self.next(state).map_err(|broken| {
                    let ((name, what), state) = *broken;
                    (
                        name,
                        format!("{what} after {} s: {state:?}", (state.now - START) / SECOND),
                    )
                })?;
                for next in nexts {
                    if seen.insert(fingerprint(&next)) {
                        count += 1;
                        after.push(next);
                    }
                }
            }
            states = after;
        }
        Ok(count)
    }
}

/// Two sums over what a state looks like when it is printed, which tell states apart.
struct Fingerprint(u64, u64);

impl core::fmt::Write for Fingerprint {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
            self.1 = (self.1.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        Ok(())
    }
}

fn fingerprint(state: &State) -> (u64, u64) {
    let mut sums = Fingerprint(0xCBF2_9CE4_8422_2325, 1);
    write!(sums, "{state:?}").expect("sums take everything");
    (sums.0, sums.1)
}

/// Looks at a small world with some kinds of misfortune.
fn explore(replicas: usize, faults: u32, kinds: u32) {
    let more = u32::from(std::env::var("TIDEGATE_LEDGER_DEEP").is_ok());
    let bounds = Bounds {
        replicas,
        limit: 4,
        // Long enough for whoever is cut off to live on its share until what it let in has expired.
        seconds: if faults > 2 { 8 } else { 9 } + u64::from(more),
        faults: faults + more,
        kinds,
    };
    let search = Search {
        bounds,
        mutant: Mutant::None,
        only: None,
    };
    match search.run() {
        Ok(count) => println!("{count} states within {bounds:?}"),
        Err((name, what)) => panic!("{name}: {what}"),
    }
}

fn breaks(mutant: Mutant, replicas: usize, faults: u32, kinds: u32, name: &'static str) {
    let bounds = Bounds {
        replicas,
        limit: 4,
        seconds: 9,
        faults,
        kinds,
    };
    let search = Search {
        bounds,
        mutant,
        only: Some(name),
    };
    assert!(search.run().is_err(), "{mutant:?} breaks nothing");
}

const ALL: u32 = MESSAGES | CUTS | CRASHES | LOSSES | CLOCKS | REFUNDS;

#[test]
fn three_messages_or_refunds_of_two() {
    explore(2, 3, MESSAGES | REFUNDS);
}

#[test]
fn three_cuts_or_crashes_of_two() {
    explore(2, 3, CUTS | CRASHES);
}

#[test]
fn two_cuts_or_refunds_of_three() {
    explore(3, 2, CUTS | REFUNDS);
}

#[test]
fn three_losses_or_cuts_of_two() {
    explore(2, 3, LOSSES | CUTS);
}

#[test]
fn two_losses_crashes_or_messages_of_two() {
    explore(2, 2, LOSSES | CRASHES | MESSAGES);
}

#[test]
fn three_steps_or_losses_of_two() {
    explore(2, 3, CLOCKS | LOSSES);
}

#[test]
fn two_misfortunes_of_two() {
    explore(2, 2, ALL);
}

#[test]
fn two_cuts_crashes_or_losses_of_three() {
    explore(3, 2, CUTS | CRASHES | LOSSES);
}

#[test]
fn one_misfortune_of_four() {
    explore(4, 1, ALL);
}

#[test]
fn without_memory_something_is_charged_twice() {
    breaks(Mutant::NoDedupe, 2, 1, MESSAGES, "SettleOnce");
}

#[test]
fn without_a_fence_too_much_is_let_in() {
    breaks(Mutant::NoFence, 2, 1, CUTS, "NoOverAdmission");
}

#[test]
fn without_epochs_calls_of_another_one_are_let_in() {
    breaks(Mutant::NoEpoch, 2, 1, LOSSES, "EpochFence");
}

#[test]
fn without_names_nobody_is_waited_for() {
    breaks(Mutant::NoNames, 2, 2, LOSSES | CUTS, "NoOverAdmission");
}

#[test]
fn without_servers_a_copy_passes_for_the_ledger() {
    breaks(Mutant::NoServer, 2, 3, LOSSES | MESSAGES, "NoOverAdmission");
}

#[test]
fn without_waiting_shares_sum_to_more() {
    breaks(Mutant::NoWaiting, 2, 1, CRASHES, "LeaseConservation");
}
