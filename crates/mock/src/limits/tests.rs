mod account;
mod hidden;
mod properties;
mod ways;

use std::time::Duration;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn seconds(seconds: f64) -> Timestamp {
    Timestamp((seconds * 1e6) as u64)
}

fn one(dimension: Dimension, amount: u64, algorithm: Algorithm) -> Enforcer {
    Enforcer::new(
        Charging::ESTIMATE,
        vec![Limit::new(dimension, MINUTE, amount, algorithm)],
    )
}

fn wait_of(result: Result<(), Refused>) -> Wait {
    result.expect_err("it must be refused").wait
}

fn millis(millis: u64) -> Wait {
    Wait::For(Duration::from_millis(millis))
}

#[test]
fn rolling_window_frees_what_is_a_window_old() {
    let mut group = one(Dimension::Requests, 2, Algorithm::Rolling);
    let request = Weights::request(1, 1);
    assert_eq!(group.admit(seconds(0.0), 1, &request), Ok(()));
    assert_eq!(group.admit(seconds(10.0), 2, &request), Ok(()));
    let refused = group.admit(seconds(59.5), 3, &request).unwrap_err();
    assert_eq!(
        (refused.limit, refused.amount, refused.used, refused.requested),
        (0, 2, 2, 1)
    );
    assert_eq!(refused.wait, millis(500));
    let state = group.state(seconds(59.5))[0];
    assert_eq!((state.remaining, state.reset), (0, Duration::from_millis(10_500)));
    assert_eq!(group.admit(seconds(60.0), 3, &request), Ok(()));
    assert_eq!(wait_of(group.admit(seconds(60.0), 4, &request)), millis(10_000));
}

#[test]
fn a_request_larger_than_the_limit_never_fits() {
    for algorithm in [
        Algorithm::Rolling,
        Algorithm::TokenBucket,
        Algorithm::Fixed {
            phase: Duration::from_secs(7),
        },
    ] {
        let mut group = one(Dimension::Tokens, 100, algorithm);
        assert_eq!(
            wait_of(group.admit(seconds(1.0), 1, &Weights::request(100, 1))),
            Wait::Never
        );
        assert_eq!(group.admit(seconds(1.0), 1, &Weights::request(84, 16)), Ok(()));
    }
}

/// Every 429 of OpenAI that providers.md §2.2 lists: limit, used, requested, window in seconds, stated wait in ms.
#[test]
fn token_bucket_states_the_wait_that_openai_states() {
    let check = |limit: u64, used: u64, requested: u64, window: u64, wait_ms: u64| {
        let limit = Limit::new(
            Dimension::Tokens,
            Duration::from_secs(window),
            limit,
            Algorithm::TokenBucket,
        );
        let mut group = Enforcer::new(Charging::ESTIMATE, vec![limit]);
        group.admit(seconds(5.0), 1, &Weights::request(used, 0)).unwrap();
        let refused = group
            .admit(seconds(5.0), 2, &Weights::request(requested, 0))
            .unwrap_err();
        assert_eq!(refused.used, used);
        let Wait::For(wait) = refused.wait else {
            panic!("{refused:?}")
        };
        assert_eq!(u64::try_from((wait.as_micros() + 500) / 1_000).unwrap(), wait_ms);
    };
    check(10_000, 8_554, 3_082, 60, 9_816);
    check(30_000, 14_567, 24_754, 60, 18_642);
    check(200_000, 162_960, 42_288, 60, 1_574);
    check(30_000, 29_937, 385, 60, 644);
    check(30_000, 28_039, 3_906, 60, 3_890);
    check(30_000, 18_928, 11_159, 60, 174);
    check(1_000, 1_000, 1, 86_400, 86_400);
    check(100_000, 96_749, 19_126, 2_592_000, 411_480_000);
}

/// OpenAI's header samples (providers.md §2.2): the reset is the time until the bucket is full.
#[test]
fn token_bucket_reset_is_the_time_until_full() {
    let check = |limit: u64, remaining: u64, window: u64, reset_ms: u64| {
        let limit_of = Limit::new(
            Dimension::Tokens,
            Duration::from_secs(window),
            limit,
            Algorithm::TokenBucket,
        );
        let mut group = Enforcer::new(Charging::ESTIMATE, vec![limit_of]);
        group
            .admit(seconds(0.0), 1, &Weights::request(limit - remaining, 0))
            .unwrap();
        let state = group.state(seconds(0.0))[0];
        assert_eq!(state.remaining, remaining);
        assert_eq!(state.reset.as_millis(), u128::from(reset_ms));
    };
    check(500, 499, 60, 120);
    check(10_000, 9_999, 86_400, 8_640);
    check(30_000, 29_996, 60, 8);
    check(10_000, 9_481, 60, 3_114);
    check(1_500_000, 1_482_750, 86_400, 993_600);
}

#[test]
fn fixed_window_starts_again_at_its_phase() {
    let mut group = one(
        Dimension::Requests,
        1,
        Algorithm::Fixed {
            phase: Duration::from_secs(7),
        },
    );
    let request = Weights::request(1, 1);
    assert_eq!(group.admit(seconds(6.9), 1, &request), Ok(()));
    assert_eq!(group.admit(seconds(7.0), 2, &request), Ok(()), "a new window");
    assert_eq!(wait_of(group.admit(seconds(7.5), 3, &request)), millis(59_500));
    assert_eq!(group.state(seconds(7.5))[0].reset, Duration::from_millis(59_500));
    assert_eq!(group.admit(seconds(67.0), 3, &request), Ok(()));
}

#[test]
fn slices_hold_their_share_and_the_window_the_whole() {
    for shape in [
        Slice::Rolling,
        Slice::Fixed {
            phase: Duration::ZERO,
        },
    ] {
        let slice = Duration::from_secs(10);
        let mut group = one(Dimension::Requests, 13, Algorithm::Slices { slice, shape });
        let request = Weights::request(1, 1);
        let mut admitted = 0;
        for id in 0..3 {
            admitted += usize::from(group.admit(seconds(0.0), id, &request).is_ok());
        }
        assert_eq!(admitted, 2, "13 / 6, rounded down");
        let refused = group.admit(seconds(1.0), 9, &request).unwrap_err();
        assert_eq!(
            (refused.window, refused.amount, refused.wait),
            (slice, 2, millis(9_000))
        );
        for second in 1..60 {
            for id in 0..3 {
                admitted += usize::from(group.admit(seconds(f64::from(second)), id, &request).is_ok());
            }
        }
        assert_eq!(admitted, 12);
        assert_eq!(group.state(seconds(59.0))[0].remaining, 1);
    }
}

#[test]
fn a_refused_request_is_charged_nowhere() {
    let limits = vec![
        Limit::new(Dimension::Requests, MINUTE, 2, Algorithm::Rolling),
        Limit::new(Dimension::Tokens, MINUTE, 100, Algorithm::TokenBucket),
    ];
    let mut group = Enforcer::new(Charging::ESTIMATE, limits.clone());
    group.admit(seconds(0.0), 1, &Weights::request(80, 0)).unwrap();
    assert_eq!(
        group
            .admit(seconds(0.0), 2, &Weights::request(40, 0))
            .unwrap_err()
            .limit,
        1
    );
    assert_eq!(group.state(seconds(0.0))[0].remaining, 1);

    let mut strict = Enforcer::new(Charging::ESTIMATE, limits).counting_failures();
    strict.admit(seconds(0.0), 1, &Weights::request(80, 0)).unwrap();
    for id in 2..9 {
        strict
            .admit(seconds(0.0), id, &Weights::request(40, 0))
            .unwrap_err();
    }
    let state = strict.state(seconds(0.0));
    assert_eq!((state[0].remaining, state[1].remaining), (0, 20));
}

#[test]
fn the_limit_with_the_longest_wait_is_named() {
    let limits = vec![
        Limit::new(Dimension::Requests, MINUTE, 1, Algorithm::Rolling),
        Limit::new(Dimension::Tokens, MINUTE * 2, 100, Algorithm::Rolling),
    ];
    let mut group = Enforcer::new(Charging::ESTIMATE, limits);
    group.admit(seconds(0.0), 1, &Weights::request(80, 0)).unwrap();
    let refused = group
        .admit(seconds(0.0), 2, &Weights::request(40, 0))
        .unwrap_err();
    assert_eq!((refused.limit, refused.wait), (1, millis(120_000)));
}

#[test]
fn concurrency_counts_open_requests() {
    let mut group = Enforcer::new(Charging::ESTIMATE, vec![Limit::concurrency(2)]);
    let request = Weights::request(1, 1);
    group.admit(seconds(0.0), 1, &request).unwrap();
    group.admit(seconds(0.0), 2, &request).unwrap();
    assert_eq!(wait_of(group.admit(seconds(500.0), 3, &request)), Wait::Unknown);
    group.finish(seconds(501.0), 1);
    group.finish(seconds(501.0), 1);
    assert_eq!(group.open(), 1);
    assert_eq!(group.admit(seconds(501.0), 3, &request), Ok(()));
    assert_eq!(group.state(seconds(501.0))[0].remaining, 0);
}

#[test]
fn estimate_is_never_given_back() {
    let mut group = one(Dimension::Tokens, 1_000, Algorithm::Rolling);
    group.admit(seconds(0.0), 1, &Weights::request(100, 900)).unwrap();
    group.settle(seconds(1.0), 1, &Usage::of(10, 5));
    group.finish(seconds(1.0), 1);
    assert_eq!(group.state(seconds(1.0))[0].remaining, 0);
}

#[test]
fn settlement_replaces_the_reserve() {
    for algorithm in [
        Algorithm::Rolling,
        Algorithm::TokenBucket,
        Algorithm::Fixed {
            phase: Duration::ZERO,
        },
    ] {
        let limit = Limit::new(Dimension::Tokens, MINUTE, 1_000, algorithm);
        let mut group = Enforcer::new(Charging::SETTLED, vec![limit]);
        group.admit(seconds(0.0), 1, &Weights::request(100, 900)).unwrap();
        group.settle(seconds(0.0), 1, &Usage::of(90, 110));
        assert_eq!(group.state(seconds(0.0))[0].remaining, 800, "{algorithm:?}");
        group.settle(seconds(0.0), 1, &Usage::of(0, 0));
        group.finish(seconds(0.0), 1);
        group.settle(seconds(0.0), 1, &Usage::of(0, 0));
        assert_eq!(
            group.state(seconds(0.0))[0].remaining,
            800,
            "{algorithm:?}: settled once"
        );
        group.admit(seconds(0.0), 2, &Weights::request(100, 100)).unwrap();
        group.settle(seconds(0.0), 2, &Usage::of(90, 1_210));
        let used = group.refusal(seconds(0.0), &Weights::request(1, 0)).unwrap().used;
        assert_eq!(used, 1_500, "{algorithm:?}: an excess overdraws");
    }
}

#[test]
fn a_late_settlement_does_not_reach_into_another_window() {
    for algorithm in [
        Algorithm::Rolling,
        Algorithm::Fixed {
            phase: Duration::ZERO,
        },
    ] {
        let limit = Limit::new(Dimension::Tokens, MINUTE, 1_000, algorithm);
        let mut group = Enforcer::new(Charging::SETTLED, vec![limit]);
        group.admit(seconds(0.0), 1, &Weights::request(100, 900)).unwrap();
        group.admit(seconds(70.0), 2, &Weights::request(100, 0)).unwrap();
        group.settle(seconds(71.0), 1, &Usage::of(0, 0));
        assert_eq!(group.state(seconds(71.0))[0].remaining, 900, "{algorithm:?}");
    }
}

#[test]
fn output_is_charged_as_it_is_generated() {
    for algorithm in [Algorithm::Rolling, Algorithm::TokenBucket] {
        let limits = vec![
            Limit::new(Dimension::Output, MINUTE, 600, algorithm),
            Limit::new(Dimension::Input, MINUTE, 100, algorithm),
        ];
        let mut group = Enforcer::new(Charging::AS_GENERATED, limits);
        let request = Weights::request(50, 1_000_000);
        assert_eq!(
            group.admit(seconds(0.0), 1, &request),
            Ok(()),
            "max_tokens does not count"
        );
        group.generated(seconds(0.0), 1, 500);
        assert_eq!(group.state(seconds(0.0))[0].remaining, 100);
        group.generated(seconds(0.0), 1, 200);
        group.settle(seconds(0.0), 1, &Usage::of(20, 650));
        let state = group.state(seconds(0.0));
        assert_eq!(
            (state[0].remaining, state[1].remaining),
            (0, 80),
            "input is settled, output stays"
        );
        let refused = group
            .admit(seconds(0.0), 2, &Weights::request(50, 10))
            .unwrap_err();
        assert_eq!(
            (refused.dimension, refused.used, refused.requested),
            (Dimension::Output, 700, 1)
        );
        let expect = if algorithm == Algorithm::Rolling {
            60_000
        } else {
            10_100
        };
        assert_eq!(refused.wait, millis(expect));
        assert_eq!(
            group.admit(Timestamp(expect * 1_000), 2, &Weights::request(50, 10)),
            Ok(())
        );
    }
}

#[test]
fn an_amount_may_change_on_the_way() {
    for algorithm in [
        Algorithm::Rolling,
        Algorithm::TokenBucket,
        Algorithm::Fixed {
            phase: Duration::ZERO,
        },
    ] {
        let mut group = one(Dimension::Tokens, 100, algorithm);
        group.admit(seconds(0.0), 1, &Weights::request(60, 0)).unwrap();
        group.resize(seconds(0.0), 0, 50);
        assert_eq!(group.state(seconds(0.0))[0].remaining, 0, "{algorithm:?}");
        group.resize(seconds(0.0), 0, 200);
        assert_eq!(group.state(seconds(0.0))[0].remaining, 140, "{algorithm:?}");
        assert_eq!(group.limits()[0].amount, 200);
    }
}

/// Nothing in the arithmetic may overflow, whatever a configuration or a request says.
#[test]
fn extremes_are_refused_and_never_overflow() {
    let windows = [Duration::ZERO, Duration::from_nanos(1), MINUTE, Duration::MAX];
    let algorithms = [
        Algorithm::Rolling,
        Algorithm::TokenBucket,
        Algorithm::Fixed { phase: Duration::MAX },
        Algorithm::Slices {
            slice: Duration::MAX,
            shape: Slice::Rolling,
        },
        Algorithm::Slices {
            slice: Duration::ZERO,
            shape: Slice::Fixed { phase: Duration::MAX },
        },
    ];
    let most = Usage::of(u64::MAX, u64::MAX);
    let big = Weights {
        requests: u64::MAX,
        ..Weights::request(u64::MAX, u64::MAX)
    };
    for window in windows {
        for algorithm in algorithms {
            for amount in [0, 1, u64::MAX] {
                for charging in [Charging::ESTIMATE, Charging::SETTLED, Charging::AS_GENERATED] {
                    let limit = Limit::new(Dimension::Tokens, window, amount, algorithm);
                    let mut group = Enforcer::new(charging, vec![limit]).counting_failures();
                    for now in [0, 1, u64::MAX / 2, u64::MAX, 5] {
                        for weights in [Weights::default(), Weights::request(1, 1), big] {
                            let _ = group.admit(Timestamp(now), 7, &weights);
                            group.generated(Timestamp(now), 7, u64::MAX);
                            group.settle(Timestamp(now), 7, &most);
                            group.settle(Timestamp(now), 7, &Usage::default());
                            group.resize(Timestamp(now), 0, amount / 2);
                            let _ = group.state(Timestamp(now));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn demand_is_estimated_from_characters_and_max_tokens() {
    let check = |characters, messages, max_output, choices, input, output| {
        let demand = Demand {
            characters,
            messages,
            max_output,
            choices,
            ..Demand::default()
        };
        let slots = choices.max(1);
        let expect = Weights {
            slots,
            ..Weights::request(input, output)
        };
        assert_eq!(Charging::ESTIMATE.estimate(&demand), expect);
    };
    check(21, 1, Some(512), 1, 9, 512);
    check(13, 1, None, 1, 7, 16);
    check(0, 0, None, 0, 0, 0);
    check(10, 0, Some(5_000), 100, 3, 500_000);
    check(u64::MAX, u64::MAX, Some(u64::MAX), u64::MAX, u64::MAX, u64::MAX);
}
