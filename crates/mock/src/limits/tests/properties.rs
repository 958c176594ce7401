//! Every meter against the most naive thing that can be written: a list of all that ever happened.

use proptest::prelude::*;

use super::super::*;

/// One step: wait, then do.
#[derive(Debug, Clone, Copy)]
struct Step {
    elapsed: u64,
    action: Action,
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Admit { input: u64, output: u64 },
    Settle { nth: usize, input: u64, output: u64 },
    Finish { nth: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let action = prop_oneof![
        4 => (0u64..60, 0u64..60).prop_map(|(input, output)| Action::Admit { input, output }),
        2 => (0usize..8, 0u64..90, 0u64..90)
            .prop_map(|(nth, input, output)| Action::Settle { nth, input, output }),
        1 => (0usize..8).prop_map(|nth| Action::Finish { nth }),
    ];
    let elapsed = prop_oneof![Just(0u64), 0u64..40, 0u64..400];
    proptest::collection::vec(
        (elapsed, action).prop_map(|(elapsed, action)| Step { elapsed, action }),
        1..200,
    )
}

/// A charge of the naive oracle; a refund changes the weight of the charge it belongs to.
#[derive(Debug, Clone, Copy)]
struct Charged {
    id: u64,
    at: u64,
    weight: u64,
}

/// What a limit of tokens counts at `now`, from the list of all charges alone.
fn naive_used(algorithm: Algorithm, window: u64, charges: &[Charged], now: u64) -> u64 {
    let counts = |charge: &Charged| match algorithm {
        Algorithm::Fixed { phase } => {
            let turn = |at: u64| (i128::from(at) - phase.as_micros() as i128).div_euclid(i128::from(window));
            turn(charge.at) == turn(now)
        }
        _ => charge.at + window > now,
    };
    charges
        .iter()
        .filter(|charge| counts(charge))
        .map(|charge| charge.weight)
        .sum()
}

fn run_logged(algorithm: Algorithm, window: u64, steps: &[Step]) {
    const AMOUNT: u64 = 150;
    let limit = Limit::new(
        Dimension::Tokens,
        Duration::from_micros(window),
        AMOUNT,
        algorithm,
    );
    let mut group = Enforcer::new(Charging::SETTLED, vec![limit]);
    let mut charges: Vec<Charged> = Vec::new();
    let mut open: Vec<(u64, u64, bool)> = Vec::new();
    let mut now = 0;
    for (id, step) in (0u64..).zip(steps) {
        now += step.elapsed;
        match step.action {
            Action::Admit { input, output } => {
                let weight = input + output;
                let fits = naive_used(algorithm, window, &charges, now) + weight <= AMOUNT || weight == 0;
                let result = group.admit(Timestamp(now), id, &Weights::request(input, output));
                assert_eq!(result.is_ok(), fits, "at {now}: {result:?}");
                if let Err(refused) = result {
                    check_wait(algorithm, window, &charges, now, &refused);
                } else {
                    charges.push(Charged { id, at: now, weight });
                    open.push((id, weight, false));
                }
            }
            Action::Settle { nth, input, output } if nth < open.len() => {
                let (id, charged, settled) = open[nth];
                let actual = input + output;
                group.settle(Timestamp(now), id, &Usage::of(input, output));
                open[nth].2 = true;
                if settled {
                    continue;
                }
                if actual > charged {
                    charges.push(Charged {
                        id: u64::MAX,
                        at: now,
                        weight: actual - charged,
                    });
                } else {
                    charges.iter_mut().find(|charge| charge.id == id).unwrap().weight = actual;
                }
            }
            Action::Finish { nth } if nth < open.len() => {
                group.finish(Timestamp(now), open.remove(nth).0);
            }
            Action::Settle { .. } | Action::Finish { .. } => {}
        }
        let used = naive_used(algorithm, window, &charges, now);
        assert_eq!(
            group.state(Timestamp(now))[0].remaining,
            AMOUNT.saturating_sub(used),
            "at {now}"
        );
    }
}

/// The stated wait is exact: at its end the request fits, a microsecond before it does not.
fn check_wait(algorithm: Algorithm, window: u64, charges: &[Charged], now: u64, refused: &Refused) {
    let Wait::For(wait) = refused.wait else {
        assert!(refused.requested > refused.amount, "{refused:?}");
        return;
    };
    let at = now + u64::try_from(wait.as_micros()).unwrap();
    let fits = |at| naive_used(algorithm, window, charges, at) + refused.requested <= refused.amount;
    assert!(fits(at) && !fits(at - 1), "at {now}: {refused:?}");
}

/// The same bucket in fractions, step by step.
fn run_bucket(window: u64, steps: &[Step]) {
    const AMOUNT: u64 = 150;
    let limit = Limit::new(
        Dimension::Tokens,
        Duration::from_micros(window),
        AMOUNT,
        Algorithm::TokenBucket,
    );
    let mut group = Enforcer::new(Charging::ESTIMATE, vec![limit]);
    // The level in units of 1/window of a token.
    let full = i128::from(AMOUNT) * i128::from(window);
    let mut level = full;
    let mut now = 0;
    for (id, step) in (0u64..).zip(steps) {
        for _ in 0..step.elapsed {
            level = (level + i128::from(AMOUNT)).min(full);
        }
        now += step.elapsed;
        let Action::Admit { input, output } = step.action else {
            continue;
        };
        let cost = i128::from(input + output) * i128::from(window);
        let result = group.admit(Timestamp(now), id, &Weights::request(input, output));
        assert_eq!(result.is_ok(), cost <= level, "at {now}: {result:?}");
        match result {
            Ok(()) => level -= cost,
            Err(Refused {
                wait: Wait::For(wait),
                ..
            }) => {
                let waited = level + wait.as_micros() as i128 * i128::from(AMOUNT);
                assert!(waited >= cost && waited < cost + i128::from(window) + i128::from(AMOUNT));
            }
            Err(refused) => panic!("{refused:?}"),
        }
        let remaining = group.state(Timestamp(now))[0].remaining;
        assert_eq!(
            i128::from(remaining),
            level / i128::from(window),
            "whole tokens, rounded down"
        );
    }
}

proptest! {
    #[test]
    fn rolling_window_is_the_exact_log(window in 1u64..500, steps in steps()) {
        run_logged(Algorithm::Rolling, window, &steps);
    }

    #[test]
    fn fixed_window_is_the_exact_count(window in 1u64..500, phase in 0u64..1_000, steps in steps()) {
        run_logged(Algorithm::Fixed { phase: Duration::from_micros(phase) }, window, &steps);
    }

    #[test]
    fn token_bucket_is_exact(window in 1u64..500, steps in steps()) {
        run_bucket(window, &steps);
    }
}
