//! What a book does with single calls.

use alloc::vec;

use super::*;
use crate::{Dimension, TenantId};

const SECOND: u64 = 1_000_000;
const START: u64 = 1_000 * SECOND;
const OWNER: Owner = Owner::Tenant(TenantId::of("a"));
const NAME: LimitName = LimitName::of(Dimension::Requests, 60 * SECOND);

/// A claim of a limit of ten: what is kept, what is needed, and what is wanted in all.
fn claim(keep: u64, need: u64, want: u64) -> Claim {
    Claim {
        name: NAME,
        amount: 10,
        life: 60 * SECOND,
        keep,
        need,
        least: need.min(1),
        want,
        spent: 0,
    }
}

/// Books and the numbers of the latest calls of its replicas.
#[derive(Default)]
struct Desk {
    books: Books,
    numbers: BTreeMap<u64, u64>,
    woken: Vec<u64>,
    epochs: BTreeMap<u64, u64>,
    trusts_empty: bool,
}

impl Desk {
    fn new() -> Self {
        Self {
            trusts_empty: true,
            ..Self::default()
        }
    }

    fn next(&mut self, replica: u64, claim: Claim) -> Call {
        let number = self.numbers.entry(replica).or_default();
        *number += 1;
        Call {
            replica,
            sequence: *number,
            patience: 45 * SECOND,
            leaves: false,
            trusts_empty: self.trusts_empty,
            owners: vec![Claims {
                owner: OWNER,
                epoch: self.epochs.get(&replica).copied().unwrap_or(0),
                limits: vec![claim],
            }],
        }
    }

    fn make(&mut self, seconds: u64, call: &Call) -> Grants {
        let (mut reply, wakenings) = self.books.call(START + seconds * SECOND, call);
        self.woken = wakenings.iter().map(|wakening| wakening.replica).collect();
        let grants = reply.owners.remove(0);
        self.epochs.insert(call.replica, grants.epoch);
        grants
    }

    /// Makes the next call of a replica, and returns what it has then.
    fn call(&mut self, seconds: u64, replica: u64, claim: Claim) -> u64 {
        let call = self.next(replica, claim);
        self.make(seconds, &call).limits[0].has
    }
}

#[test]
fn all_have_no_more_than_the_limit() {
    let mut desk = Desk::new();
    assert_eq!(desk.call(0, 1, claim(0, 4, 6)), 6);
    assert_eq!(desk.call(0, 2, claim(0, 6, 8)), 4, "what is left");
    assert_eq!(desk.woken, [1], "it may have more than it needs");
    assert_eq!(
        desk.call(0, 1, claim(4, 0, 6)),
        4,
        "nothing is kept ready while others are short"
    );
    assert_eq!(desk.woken, [2], "there is something for it");
    assert_eq!(desk.call(0, 2, claim(0, 6, 8)), 6);
    assert_eq!(desk.books.taken(OWNER, NAME), 10);
}

#[test]
fn what_must_be_kept_is_kept_even_if_it_is_too_much() {
    let mut desk = Desk::new();
    desk.call(0, 1, claim(0, 5, 5));
    desk.call(0, 2, claim(0, 5, 5));
    assert_eq!(desk.call(1, 1, claim(8, 0, 9)), 8, "an estimate was too low");
    assert_eq!(desk.call(1, 2, claim(5, 1, 6)), 5);
}

#[test]
fn a_repeated_call_changes_nothing_and_an_older_one_is_refused() {
    let mut desk = Desk::new();
    let first = desk.next(1, claim(0, 4, 6));
    let second = desk.next(1, claim(5, 0, 5));
    assert_eq!(desk.make(0, &first).limits[0].has, 6);
    let before = desk.books.taken(OWNER, NAME);
    assert_eq!(desk.make(1, &first).limits[0].has, 6);
    assert_eq!(desk.books.taken(OWNER, NAME), before);
    assert_eq!(desk.make(1, &second).limits[0].has, 5);
    assert_eq!(desk.make(1, &first), Grants::default());
    assert_eq!(desk.books.taken(OWNER, NAME), 5);
}

#[test]
fn those_who_are_short_share_evenly_and_take_turns() {
    let mut desk = Desk::new();
    desk.call(0, 1, claim(10, 0, 10));
    for replica in [2, 3] {
        assert_eq!(desk.call(0, replica, claim(0, 9, 9)), 0);
    }
    assert_eq!(desk.call(0, 1, claim(2, 0, 10)), 2);
    assert_eq!(desk.woken, [2, 3]);
    assert_eq!(desk.call(0, 2, claim(0, 9, 9)), 4);
    // The one that was served needs more, and is short as well.
    assert_eq!(desk.call(0, 3, claim(0, 9, 9)), 2);
    assert_eq!(desk.woken, [2], "the rest is for it");
    assert!(desk.books.taken(OWNER, NAME) <= 10);
}

#[test]
fn one_place_goes_to_whoever_was_served_longest_ago() {
    let mut desk = Desk::new();
    let one = |keep| Claim {
        amount: 1,
        ..claim(keep, 1, keep + 1)
    };
    for (replica, has) in [(1, 1), (2, 0), (3, 0)] {
        assert_eq!(desk.call(0, replica, one(0)), has);
    }
    // All are short since the same moment, and it is the first.
    assert_eq!(desk.call(1, 1, one(0)), 1);
    let mut has = 1;
    for (seconds, next) in (2..).zip([2, 3, 1, 2, 3, 1]) {
        for replica in [1, 2, 3] {
            assert_eq!(
                desk.call(seconds, replica, one(u64::from(replica == has))),
                u64::from(replica == has)
            );
        }
        // It is free, and whoever had it would like to have it again.
        assert_eq!(desk.call(seconds, has, one(0)), 0);
        assert_eq!(desk.woken, [next]);
        assert_eq!(desk.call(seconds, next, one(0)), 1);
        has = next;
    }
}

#[test]
fn a_request_that_needs_all_gets_its_turn() {
    let mut desk = Desk::new();
    let all = Claim {
        least: 10,
        ..claim(0, 10, 10)
    };
    desk.call(0, 1, claim(3, 0, 3));
    assert_eq!(desk.call(0, 2, all), 7);
    assert_eq!(desk.call(0, 3, claim(0, 1, 1)), 0, "what is there is the other's");
    desk.call(1, 2, all);
    desk.call(1, 1, claim(0, 0, 0));
    assert_eq!(desk.woken, [2]);
    assert_eq!(desk.call(1, 2, all), 10);
}

#[test]
fn what_a_silent_replica_has_is_kept_for_its_patience_and_a_life() {
    let mut desk = Desk::new();
    desk.call(0, 1, claim(0, 10, 10));
    // Somebody calls all the time, or the book's time would pass more slowly.
    for seconds in 1..=125 {
        let has = desk.call(seconds, 2, claim(0, 1, 1));
        assert_eq!(has, u64::from(seconds == 125), "after {seconds} s");
    }
}

#[test]
fn a_clock_that_jumps_ends_nothing_too_early() {
    let mut desk = Desk::new();
    desk.call(0, 1, claim(0, 10, 10));
    assert_eq!(desk.call(86_400, 2, claim(0, 1, 1)), 0);
    assert_eq!(desk.call(100, 2, claim(0, 1, 1)), 0);
    for seconds in 101..190 {
        assert_eq!(desk.call(seconds, 2, claim(0, 1, 1)), 0, "after {seconds} s");
    }
}

#[test]
fn who_leaves_keeps_what_is_in_use_for_a_life() {
    let mut desk = Desk::new();
    desk.call(0, 1, claim(0, 10, 10));
    let mut call = desk.next(1, claim(3, 0, 3));
    call.leaves = true;
    assert_eq!(desk.make(1, &call).limits[0].has, 3);
    assert_eq!(desk.call(1, 2, claim(0, 10, 10)), 7);
    for seconds in 2..=81 {
        let has = desk.call(seconds, 2, claim(7, 3, 10));
        assert_eq!(has == 10, seconds == 81, "after {seconds} s");
    }
}

#[test]
fn a_new_book_gives_half_at_first() {
    let mut desk = Desk::default();
    assert_eq!(desk.call(0, 1, claim(0, 10, 10)), 5);
    assert_eq!(desk.call(1, 1, claim(5, 5, 10)), 5);
    assert_eq!(desk.call(2, 1, claim(5, 5, 10)), 10);
    // One is the half of one.
    let mut desk = Desk::default();
    let one = Claim {
        amount: 1,
        ..claim(0, 1, 1)
    };
    assert_eq!(desk.call(0, 1, one), 1);
}

#[test]
fn a_book_that_was_lost_is_told_what_is_in_use_before_it_gives_anything() {
    let mut desk = Desk::new();
    for replica in [1, 2] {
        desk.call(0, replica, claim(0, 4, 4));
    }
    desk.books = Books::new();
    assert_eq!(desk.call(10, 1, claim(4, 5, 9)), 4);
    assert_eq!(desk.call(11, 3, claim(0, 6, 6)), 0);
    assert_eq!(desk.call(21, 2, claim(4, 0, 4)), 4);
    assert_eq!(desk.call(22, 3, claim(0, 6, 6)), 2);
    assert_eq!(desk.books.taken(OWNER, NAME), 10);
}

#[test]
fn it_is_known_what_others_have_spent() {
    let mut desk = Desk::new();
    let spent = |keep, spent| Claim {
        spent,
        ..claim(keep, 0, keep)
    };
    let call = desk.next(1, spent(6, 4));
    assert_eq!(desk.make(0, &call).limits[0].spent, 0);
    let call = desk.next(2, spent(3, 3));
    assert_eq!(desk.make(0, &call).limits[0].spent, 4);
    let call = desk.next(1, spent(6, 6));
    assert_eq!(desk.make(1, &call).limits[0].spent, 3);
}

#[test]
fn what_one_book_holds_is_bounded() {
    let mut desk = Desk::new();
    let huge = Claim {
        amount: AMOUNT_MAX,
        ..claim(0, 1, 1)
    };
    let most = PARTS_MAX as u64;
    for replica in 1..=most {
        assert_eq!(desk.call(0, replica, huge), 1);
    }
    assert_eq!(desk.call(0, most + 1, huge), 0);
    assert_eq!(desk.call(0, most, huge), 1);
    let must = Claim {
        keep: 2,
        want: 2,
        need: 0,
        ..huge
    };
    assert_eq!(
        desk.call(0, most + 2, must),
        2,
        "what is in use is noted all the same"
    );
}
