//! The limiters that no header shows: acceleration, spacing, congestion, the calendar.

use proptest::prelude::*;

use super::super::*;
use super::{MINUTE, one, seconds, wait_of};

const SECOND: u64 = 1_000_000;

fn ramp(start: u64, step: u64, ceiling: u64, idle: Option<u64>) -> Enforcer {
    one(Dimension::Input, ceiling, Algorithm::Ramp { start, step, idle })
}

fn input(tokens: u64) -> Weights {
    Weights::request(tokens, 0)
}

/// The numbers of the one message that was seen (providers.md §4.5).
#[test]
fn acceleration_tells_what_it_allows_and_what_comes_next() {
    let mut group = ramp(48_276, 10_000, 200_000, None);
    assert_eq!(group.admit(seconds(50.0), 1, &input(1_000)), Ok(()));
    let refused = group.admit(seconds(65.0), 2, &input(57_277)).unwrap_err();
    assert_eq!((refused.amount, refused.growing_to), (58_276, Some(68_276)));
    // A boundary comes after 55 s; the first thousand leaves after 45 s, which is earlier and enough.
    assert_eq!(refused.wait, Wait::For(Duration::from_secs(45)));
    assert_eq!(group.admit(seconds(65.0), 2, &input(57_276)), Ok(()));
    let refused = group.admit(seconds(66.0), 3, &input(68_000)).unwrap_err();
    assert_eq!(
        refused.wait,
        Wait::For(Duration::from_secs(59)),
        "when the rest has left, a second after the boundary that makes room"
    );
    assert_eq!(
        wait_of(group.admit(seconds(66.0), 4, &input(200_001))),
        Wait::Never
    );
}

#[test]
fn acceleration_starts_again_after_a_rest() {
    let mut group = ramp(100, 100, 1_000, Some(5));
    assert_eq!(
        wait_of(group.admit(seconds(0.0), 1, &input(101))),
        Wait::Unknown,
        "what is never used never grows"
    );
    assert_eq!(group.admit(seconds(0.0), 1, &input(100)), Ok(()));
    assert_eq!(group.admit(seconds(300.0), 2, &input(600)), Ok(()));
    assert!(group.admit(seconds(300.0 + 359.9), 3, &input(1_000)).is_ok());
    assert!(
        group
            .admit(seconds(300.0 + 359.9 + 361.0), 4, &input(101))
            .is_err()
    );
}

#[test]
fn spaced_requests_come_one_by_one() {
    let burst = Duration::from_secs(1);
    let mut group = one(Dimension::Requests, 60, Algorithm::Spaced { burst });
    for second in 0..10 {
        assert_eq!(group.admit(seconds(f64::from(second)), 1, &input(1)), Ok(()));
        let refused = group
            .admit(seconds(f64::from(second) + 0.25), 2, &input(1))
            .unwrap_err();
        assert_eq!(
            refused.wait,
            Wait::For(Duration::from_secs(1)),
            "whole requests missing"
        );
        assert_eq!(
            group.state(seconds(f64::from(second) + 0.25))[0].remaining,
            59,
            "headers speak of the minute"
        );
    }
    group.resize(seconds(10.0), 0, 600);
    assert!((0..10).all(|id| group.admit(seconds(11.0), id, &input(1)).is_ok()));
    assert!(group.admit(seconds(11.0), 11, &input(1)).is_err());
}

#[test]
fn congestion_is_rare_below_the_capacity_and_certain_at_twice_as_much() {
    let algorithm = |seed| Algorithm::Congestion {
        swing: 30,
        period: MINUTE,
        seed,
    };
    let refused_share = |rate: u64| {
        let mut group = one(Dimension::Requests, 600, algorithm(7));
        let (mut refused, mut sent) = (0u64, 0u64);
        for number in 0..rate * 60 {
            let result = group.admit(Timestamp(number * 60 * SECOND / rate), number, &input(1));
            if let Err(told) = &result {
                assert!(told.congested && told.wait == Wait::Unknown, "{told:?}");
            }
            refused += u64::from(result.is_err());
            sent += 1;
        }
        refused * 100 / sent
    };
    assert_eq!(refused_share(420), 0, "the capacity never falls below 70 %");
    assert!((5..40).contains(&refused_share(720)));
    // The first minute is still filling.
    assert!(refused_share(2_400) >= 95);
    let run = |seed| -> Vec<bool> {
        let mut group = one(Dimension::Requests, 10, algorithm(seed));
        (0..200)
            .map(|id| group.admit(Timestamp(id * SECOND * 4), id, &input(1)).is_ok())
            .collect()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn days_turn_in_california_and_months_in_utc() {
    let began = Duration::from_secs(1_772_956_800 - 60);
    let day = |period| {
        Limit::new(
            Dimension::Requests,
            Duration::from_secs(86_400),
            1,
            Algorithm::Civil(period),
        )
    };
    // A minute before the day on which the clocks go forward: it has 23 hours.
    let check = |period, at: f64, expect: u64| {
        let mut group = Enforcer::since(Charging::ESTIMATE, vec![day(period)], began);
        assert_eq!(group.admit(seconds(at), 1, &input(1)), Ok(()));
        assert_eq!(
            wait_of(group.admit(seconds(at), 2, &input(1))),
            Wait::For(Duration::from_secs(expect)),
            "{period:?}"
        );
        let next = at + expect as f64;
        assert!(group.admit(seconds(next - 1e-6), 2, &input(1)).is_err());
        assert_eq!(group.admit(seconds(next), 2, &input(1)), Ok(()));
    };
    check(Period::PacificDay, 0.0, 60);
    check(Period::PacificDay, 60.0, 23 * 3_600);
    check(Period::UtcDay, 60.0, 16 * 3_600);
    check(Period::Minute, 30.0, 30);
    check(Period::UtcMonth, 60.0, 24 * 86_400 - 8 * 3_600);
}

/// A charge that the naive oracle remembers.
type Charges = Vec<(u64, u64)>;

fn naive_ramp(start: u64, step: u64, ceiling: u64, charges: &Charges, at: u64) -> (u64, u64) {
    let minute = 60 * SECOND;
    let usable = charges.first().map_or(start, |(first, _)| {
        (start + step * (at / minute - first / minute)).min(ceiling)
    });
    let used = charges
        .iter()
        .filter(|(stamp, _)| stamp + minute > at)
        .map(|(_, weight)| weight);
    (usable, used.sum())
}

proptest! {
    /// Against the list of all charges; and the stated wait is exact to the microsecond.
    #[test]
    fn acceleration_is_the_exact_log(
        start in 1u64..100,
        step in 1u64..50,
        ceiling in 100u64..300,
        steps in proptest::collection::vec((0u64..90 * SECOND, 1u64..350), 1..60),
    ) {
        let mut group = ramp(start, step, ceiling, None);
        let mut charges = Charges::new();
        let mut now = 0;
        for (id, (elapsed, tokens)) in (0u64..).zip(steps) {
            now += elapsed;
            let fits = |at| {
                let (usable, used) = naive_ramp(start, step, ceiling, &charges, at);
                used + tokens <= usable
            };
            match group.admit(Timestamp(now), id, &input(tokens)) {
                Ok(()) => {
                    prop_assert!(fits(now), "at {now}");
                    charges.push((now, tokens));
                }
                Err(Refused { wait: Wait::For(wait), .. }) => {
                    let at = now + u64::try_from(wait.as_micros()).unwrap();
                    prop_assert!(!fits(now) && fits(at) && !fits(at - 1), "at {now} for {wait:?}");
                }
                Err(Refused { wait: Wait::Never, .. }) => prop_assert!(tokens > ceiling),
                Err(Refused { wait: Wait::Unknown, .. }) => prop_assert!(charges.is_empty() && tokens > start),
            }
        }
    }

    /// A spaced bucket admits exactly what a bucket of that capacity would.
    #[test]
    fn a_spaced_bucket_is_exact(
        amount in 1u64..200,
        burst in 1u64..60,
        steps in proptest::collection::vec(0u64..3 * SECOND, 1..100),
    ) {
        let limit = Algorithm::Spaced { burst: Duration::from_secs(burst) };
        let mut group = one(Dimension::Requests, amount, limit);
        let capacity = (amount * burst / 60).max(1);
        let minute = u128::from(60 * SECOND);
        let full = u128::from(capacity) * minute;
        let (mut level, mut now) = (full, 0);
        for (id, elapsed) in (0u64..).zip(steps) {
            now += elapsed;
            level = (level + u128::from(elapsed) * u128::from(amount)).min(full);
            let admitted = group.admit(Timestamp(now), id, &input(1)).is_ok();
            prop_assert_eq!(admitted, level >= minute);
            if admitted {
                level -= minute;
            }
        }
    }
}
