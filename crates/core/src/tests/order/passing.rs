//! What a head that does not fit keeps for itself, and who may pass it.

use super::*;
use crate::RefusalReason;

/// A thousand tokens a minute: 500 are used at second 0 and 300 at second 10, so that 600 fit again from second 61 on, and
/// until second 72 only beside 100 more.
fn crowded() -> Desk {
    let mut desk = Desk::quick(plan(vec![tokens(1_000)]));
    desk.go(of("x", 500));
    desk.sleep(secs(10));
    desk.go(of("x", 300));
    desk.sleep(secs(1));
    desk
}

#[test]
fn small_ones_pass_if_and_only_if_the_moment_of_the_head_does_not_move() {
    let mut alone = crowded();
    alone.wait(of("a", 600));
    alone.sleep(secs(100));
    let moment = alone.when(2).expect("it fits after a window");
    assert!(moment >= secs(61) && moment < secs(62), "{moment:?}");
    for (small, which) in [("a", "its own tenant"), ("b", "another tenant")] {
        let mut desk = crowded();
        let ticket = desk.wait(of("a", 600));
        assert_eq!(
            ticket.eta.since(START),
            moment,
            "the announced time is the true one"
        );
        let first = desk.passes(of(small, 100));
        let second = desk.stays(of(small, 100));
        desk.sleep(secs(100));
        assert_eq!(desk.when(2), Some(moment), "a small one of {which} moved it");
        assert_eq!(desk.when(first), Some(secs(11)));
        assert!(desk.when(second).is_some_and(|at| at > moment), "{which}");
    }
}

#[test]
fn many_small_ones_never_move_the_head() {
    let mut desk = crowded();
    desk.wait(of("a", 600));
    for second in 11..61 {
        let ask = Ask {
            patience: secs(300),
            ..of(["a", "b", "c"][second % 3], 40)
        };
        desk.ask(ask);
        desk.sleep(secs(1));
    }
    desk.sleep(secs(10));
    let mut alone = crowded();
    alone.wait(of("a", 600));
    alone.sleep(secs(100));
    assert_eq!(desk.when(2), alone.when(2));
    assert_eq!(
        desk.order(),
        [0, 1, 3, 4, 2],
        "two of them fit beside it until second 72"
    );
}

#[test]
fn a_head_keeps_its_place_against_who_had_less_but_not_against_a_higher_tier() {
    let mut desk = crowded();
    // `x` has had 800 and `b` nothing; all the same `x` was first when nothing fitted.
    desk.wait(of("x", 600));
    desk.wait(of("b", 600));
    desk.sleep(secs(200));
    assert_eq!(desk.order()[2..], [2, 3]);

    let mut desk = crowded();
    desk.wait(of("x", 600));
    desk.wait(Ask {
        priority: Priority::High,
        ..of("b", 600)
    });
    desk.sleep(secs(200));
    assert_eq!(desk.order()[2..], [3, 2]);
}

#[test]
fn a_head_that_leaves_makes_room_at_once() {
    let mut desk = crowded();
    desk.wait(of("a", 600));
    desk.passes(of("b", 100));
    let next = desk.stays(of("b", 100));
    desk.cancel(2);
    assert_eq!(desk.when(next), Some(secs(11)), "nothing holds it back any more");
}

#[test]
fn a_head_whose_deadline_passes_makes_room_at_that_moment() {
    // Nobody knows when the one that runs ends, so nobody can tell that the head will be too late.
    let mut desk = Desk::new(plan(vec![tokens(1_000), concurrent(2)]));
    desk.go(of("x", 900));
    desk.go(of("x", 1));
    desk.wait(Ask {
        patience: secs(20),
        ..of("a", 90)
    });
    desk.wait(of("b", 50));
    desk.sleep(secs(30));
    let refusal = desk.refusal(2).expect("it was too late");
    assert_eq!(refusal.reason, RefusalReason::Deadline);
    desk.end(0, used(1, 0));
    assert_eq!(desk.when(3), Some(secs(30)));
}

#[test]
fn a_request_that_comes_at_a_free_moment_goes_at_once() {
    let mut desk = Desk::quick(Plan {
        tenants: vec![tenant("held up", vec![per_minute(1)])],
        ..plan(vec![tokens(1_000)])
    });
    desk.go(of("held up", 1));
    desk.wait(of("held up", 1));
    for _ in 0..3 {
        desk.go(of("a", 100));
        desk.go(Ask {
            priority: Priority::Low,
            ..of("b", 100)
        });
    }
}
