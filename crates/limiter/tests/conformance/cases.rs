//! Single cases that traces do not reach: what the server does around the script, and bounds.

use tidegate::store::wire;
use tidegate_core::Dimension;
use tidegate_core::ledger::{Ask, Call, Entry, LimitName, Status, Terms};

use super::both::Both;
use super::redis_server::RedisServer;
use super::world::{Kind, World};

const NOW: u64 = 1_790_000_000_000_000;
const MINUTE: u64 = 60_000_000;

/// The commands that the module's documentation lists, as an access list takes them.
const COMMANDS: &[&str] = &[
    "+evalsha",
    "+hmget",
    "+hget",
    "+hgetall",
    "+hset",
    "+hdel",
    "+bitfield_ro",
    "+bitfield",
    "+getrange",
    "+del",
    "+pexpire",
    "+publish",
    "+time",
];

fn requests(amount: u64) -> Terms {
    Terms {
        name: LimitName::of(Dimension::Requests, MINUTE),
        life: MINUTE + 1_000_000,
        width: 100_000,
        amount,
        since: 0,
        ends: 0,
        held: 0,
    }
}

fn ask(tenant: u64, service: u64) -> Ask {
    Ask {
        tier: 1,
        tenant,
        cost: 1 << 20,
        service,
        arrived: NOW,
        take: vec![1],
        hold: Vec::new(),
    }
}

fn call(replica: u64, sequence: u64, epoch: u64, amount: u64) -> Call {
    Call {
        replica,
        sequence,
        epoch,
        next_epoch: 77 + sequence,
        trusts_empty: true,
        share_life: 2 * MINUTE,
        lease: MINUTE / 2,
        limits: vec![requests(amount)],
        ..Call::default()
    }
}

/// Joins a replica and charges something.
fn joined(both: &mut Both) -> u64 {
    let mut first = call(5, 1, 0, 100);
    first.asks = vec![ask(1, 1)];
    let (reply, _) = both.call(NOW, &first, "first");
    assert_eq!(reply.granted, [true]);
    reply.epoch
}

#[test]
fn who_goes_next_is_told_on_its_channel() {
    let server = RedisServer::start();
    let mut both = Both::new(&server, "a group");
    let mut listener = server.connect();
    let mut heard = listener.as_pubsub();
    heard.subscribe(both.place.channel(5)).expect("it listens");
    let epoch = joined(&mut both);
    let mut waits = call(5, 2, epoch, 1);
    waits.asks = vec![ask(1, 1)];
    let (reply, _) = both.call(NOW + 1, &waits, "waits");
    assert_eq!(reply.granted, [false]);
    let (_, wakenings) = both.call(NOW + 90_000, &call(6, 1, epoch, 5), "the limit is raised");
    assert_eq!(wakenings.len(), 2, "somebody new is there, and there is room");
    let message: String = heard
        .get_message()
        .and_then(|message| message.get_payload())
        .expect("a message");
    assert_eq!(wire::read_wakening(&message), Some(("a%20%group", wakenings[0])));
}

#[test]
fn whoever_lost_a_part_has_lost_everything() {
    let server = RedisServer::start();
    let mut both = Both::new(&server, "parts");
    let epoch = joined(&mut both);
    let ring = both.place.ring(requests(1).name);
    both.command::<()>(&["DEL", &ring]);
    let mut next = call(5, 2, epoch, 100);
    next.asks = vec![ask(1, 1)];
    let numbers = both.in_redis(NOW + 1, &next).expect("an answer");
    let (reply, _) = wire::read_reply(&numbers).expect("a reply");
    assert_eq!((reply.status, reply.epoch), (Status::Lost, 79));
    // It learns, and nobody is let in.
    let mut again = call(5, 1, 79, 100);
    again.asks = vec![ask(1, 1)];
    let numbers = both.in_redis(NOW + 2, &again).expect("an answer");
    let (reply, _) = wire::read_reply(&numbers).expect("a reply");
    assert_eq!((reply.status, reply.granted), (Status::Learning, vec![false]));
}

/// Everything that is stored, as it is stored.
fn stored(both: &mut Both) -> Vec<(String, String)> {
    let mut keys: Vec<String> = both.command(&["KEYS", "*"]);
    keys.sort();
    let all = keys.into_iter().map(|key| {
        let kind: String = both.command(&["TYPE", &key]);
        let value = if kind == "hash" {
            let mut fields: Vec<(Vec<u8>, Vec<u8>)> = both.command(&["HGETALL", &key]);
            fields.sort();
            format!("{fields:?}")
        } else {
            format!("{:?}", both.command::<Vec<u8>>(&["GET", &key]))
        };
        (key, value)
    });
    all.collect()
}

#[test]
fn a_call_that_fails_changes_nothing() {
    let server = RedisServer::start();
    let mut both = Both::new(&server, "whole");
    let epoch = joined(&mut both);
    let mut next = call(5, 2, epoch, 100);
    next.asks = vec![ask(1, 1), ask(2, 1)];
    next.entries = vec![Entry::Refund {
        limit: 0,
        stamp: NOW,
        amount: 1,
    }];
    let before = stored(&mut both);

    // The memory is full.
    both.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = both.in_redis(NOW + 1, &next).expect_err("no room");
    assert!(error.to_string().contains("OOM"), "{error}");
    both.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(stored(&mut both), before);

    // The server follows another one, and may not be written to.
    both.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    let error = both.in_redis(NOW + 1, &next).expect_err("read only");
    assert!(error.to_string().to_lowercase().contains("read only"), "{error}");
    both.command::<()>(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(stored(&mut both), before);

    // Somebody else has put something at the place of a new limit's charges.
    let mut more = next.clone();
    let name = LimitName::of(Dimension::Tokens, MINUTE);
    more.limits.push(Terms { name, ..requests(5) });
    more.limits.reverse();
    both.command::<()>(&["SET", &both.place.keys(&[])[1].clone(), "x"]);
    let with_stranger = stored(&mut both);
    let mut contended = more.clone();
    contended.asks.push(ask(3, 1));
    let flows = both.in_redis(NOW + 1, &contended);
    assert!(flows.is_err() && stored(&mut both) == with_stranger, "{flows:?}");
    both.command::<()>(&["DEL", &both.place.keys(&[])[1].clone()]);

    // And then the call is answered as if nothing had been.
    assert_eq!(stored(&mut both), before);
    both.call(NOW + 1, &next, "after all");
}

#[test]
fn every_key_expires_and_not_too_soon() {
    let server = RedisServer::start();
    let mut both = Both::new(&server, "short");
    let epoch = joined(&mut both);
    let mut next = call(5, 2, epoch, 100);
    next.asks = vec![ask(1, 9), ask(2, 9)];
    both.call(NOW + 1, &next, "flows are remembered");
    let day = 86_400_000;
    for key in both.command::<Vec<String>>(&["KEYS", "*"]) {
        let left: i64 = both.command(&["PTTL", &key]);
        assert!(left > day && left <= day + 61_000, "{key} has {left} ms");
        both.command::<()>(&["PEXPIRE", &key, "1000"]);
    }
    // Half a day later they are given a day again.
    let later = NOW + 43_300_000_000;
    let next = Call {
        time: later,
        ..call(5, 3, epoch, 100)
    };
    both.call(later, &next, "later");
    for key in both.command::<Vec<String>>(&["KEYS", "*"]) {
        let left: i64 = both.command(&["PTTL", &key]);
        assert!(left > day, "{key} has {left} ms");
    }
}

#[test]
fn the_servers_own_clock_is_asked_where_none_is_given() {
    let server = RedisServer::start();
    let mut both = Both::new(&server, "clock");
    let time = |both: &mut Both| {
        let (seconds, micros): (u64, u64) = both.command(&["TIME"]);
        seconds * 1_000_000 + micros
    };
    let before = time(&mut both);
    let numbers = both.in_redis(0, &call(5, 1, 0, 10)).expect("an answer");
    let after = time(&mut both);
    let (reply, _) = wire::read_reply(&numbers).expect("a reply");
    assert!(
        (before..=after).contains(&reply.now),
        "{before} {} {after}",
        reply.now
    );
}

#[test]
fn as_many_flows_are_remembered_as_may_be_and_no_more() {
    let server = RedisServer::start();
    let mut both = Both::new(&server, "flows");
    let epoch = joined(&mut both);
    for round in 0..40_u64 {
        let mut next = call(5, 2 + round, epoch, 1 << 30);
        // The first stays where it was, so everybody after it is ahead; in the end all have moved on.
        let service = if round < 30 { 1 << 20 } else { 1 << 30 };
        let tenants = (0..64_u64).map(|at| if round < 30 { round * 64 + at } else { at });
        next.asks = tenants.map(|tenant| ask(tenant, service + tenant)).collect();
        next.entries = vec![Entry::Service {
            tier: 1,
            tenant: round,
            by: -(1 << 19),
        }];
        both.call(NOW + 1 + round, &next, &format!("round {round}"));
        let remembered: u64 = both.command(&["HLEN", &both.place.keys(&[])[1].clone()]);
        assert!(remembered <= 1_024, "{remembered} flows");
    }
}

#[test]
fn the_commands_that_are_listed_are_enough() {
    let server = RedisServer::start();
    let mut both = Both::new(&server, "listed");
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg("ledger").arg(&[
        "on",
        ">secret",
        "~tidegate:*",
        "resetchannels",
        "&tidegate:wake:*",
        "-@all",
    ]);
    command
        .arg(COMMANDS)
        .query::<()>(&mut both.redis)
        .expect("a user");
    redis::cmd("AUTH")
        .arg("ledger")
        .arg("secret")
        .query::<()>(&mut both.redis)
        .expect("it is let in");
    World::new(Kind::Full, 3).run(&mut both, 600);
    World::new(Kind::Wide, 3).run(&mut both, 200);
}

#[test]
fn a_cluster_keeps_a_group_at_one_node() {
    let server = RedisServer::start_with(&["--save", "", "--appendonly", "no", "--cluster-enabled", "yes"]);
    let mut both = Both::new(&server, "node");
    let slots: Vec<String> = (0..16_384).map(|slot: u32| slot.to_string()).collect();
    let mut command = redis::cmd("CLUSTER");
    command
        .arg("ADDSLOTS")
        .arg(slots)
        .query::<()>(&mut both.redis)
        .expect("slots");
    while !both
        .command::<String>(&["CLUSTER", "INFO"])
        .contains("cluster_state:ok")
    {}
    World::new(Kind::Full, 4).run(&mut both, 600);
    World::new(Kind::Wide, 4).run(&mut both, 200);
}

/// Lets a replica call every 100 ms until its calls are common ones, and returns the next.
fn settled(both: &mut Both, change: impl Fn(&mut Call)) -> Call {
    let mut epoch = 0;
    let mut next = Call::default();
    for sequence in 1..=6 {
        let now = NOW + sequence * 100_000;
        next = call(5, sequence, epoch, 100);
        next.time = now;
        change(&mut next);
        if sequence == 1 {
            next.asks = vec![ask(1, 1)];
        }
        if sequence < 6 {
            epoch = both.call(now, &next, "it settles").0.epoch;
        }
    }
    next
}

// Found by traces.
#[test]
fn what_is_held_no_longer_is_not_given_back() {
    let server = RedisServer::start();
    let mut both = Both::new(&server, "lease");
    let next = settled(&mut both, |call| {
        call.lease = 50_000;
        call.limits[0].held = 7;
    });
    both.call(next.time, &next, "after its lease");
    let next = Call {
        sequence: 7,
        time: next.time + 10_000,
        ..next
    };
    both.call(next.time, &next, "within its lease");
    assert!(both.common > 0);
}

// Found by traces.
#[test]
fn what_is_said_of_a_moment_long_ago_changes_nothing_of_now() {
    let server = RedisServer::start();
    let mut both = Both::new(&server, "places");
    let mut next = settled(&mut both, |_| {});
    // Its bucket and its slot have the place of those that were charged: there are 640 and 64.
    next.entries = vec![Entry::Refund {
        limit: 0,
        stamp: NOW + 100_000 - 640 * 100_000,
        amount: 1,
    }];
    both.call(next.time, &next, "a refund");
    assert!(both.common > 0);
    let mut looks = Call {
        sequence: 7,
        time: next.time + 10_000,
        wants_view: true,
        ..next
    };
    looks.entries.clear();
    let (reply, _) = both.call(looks.time, &looks, "a view");
    assert_eq!(reply.totals, [1]);
    looks.sequence = 8;
    looks.entries = vec![Entry::Refund {
        limit: 0,
        stamp: NOW + 100_000,
        amount: 1,
    }];
    assert_eq!(both.call(looks.time, &looks, "what was charged").0.totals, [0]);
}

#[test]
fn what_another_version_has_stored_is_not_taken_for_this_ones() {
    let server = RedisServer::start();
    let mut both = Both::new(&server, "format");
    let epoch = joined(&mut both);
    // The first value says in which way the others are stored.
    let state = both.place.keys(&[])[0].clone();
    let mut stored: Vec<u8> = both.command(&["HGET", &state, "c"]);
    assert_eq!(stored[0], 2);
    stored[0] = 1;
    redis::cmd("HSET")
        .arg(&state)
        .arg("c")
        .arg(&stored)
        .exec(&mut server.connect())
        .expect("it is stored");
    let numbers = both
        .in_redis(NOW + 1, &call(5, 2, epoch, 100))
        .expect("an answer");
    let (reply, _) = wire::read_reply(&numbers).expect("a reply");
    assert_eq!(reply.status, Status::Lost);
    assert_ne!(reply.epoch, epoch);
}
