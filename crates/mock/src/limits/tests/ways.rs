//! How each provider charges, in the terms of its own documentation.

use super::super::*;
use super::{MINUTE, seconds};
use crate::provider::Provider;

fn group(charging: Charging, limits: &[(Dimension, u64)]) -> Enforcer {
    let limits = limits
        .iter()
        .map(|(dimension, amount)| Limit::new(*dimension, MINUTE, *amount, Algorithm::Rolling));
    Enforcer::new(charging, limits.collect())
}

fn left(group: &mut Enforcer, at: f64) -> Vec<u64> {
    group
        .state(seconds(at))
        .iter()
        .map(|state| state.remaining)
        .collect()
}

/// What is left after admission, and after the end of a request of 100 input (40 of them from the cache), 500 reserved
/// and 20 produced.
fn check(charging: Charging, admitted: [u64; 3], settled: [u64; 3]) {
    let dimensions = [Dimension::Tokens, Dimension::Input, Dimension::Output];
    let mut group = group(charging, &dimensions.map(|dimension| (dimension, 1_000)));
    assert_eq!(group.admit(seconds(0.0), 1, &Weights::request(100, 500)), Ok(()));
    assert_eq!(left(&mut group, 0.0), admitted, "{charging:?}");
    group.generated(seconds(1.0), 1, 20);
    let usage = Usage {
        cache_read: 40,
        ..Usage::of(100, 20)
    };
    group.settle(seconds(1.0), 1, &usage);
    group.finish(seconds(1.0), 1);
    assert_eq!(left(&mut group, 1.0), settled, "{charging:?}");
}

#[test]
fn every_provider_charges_in_its_way() {
    check(Charging::ESTIMATE, [400, 900, 500], [400, 900, 500]);
    check(Charging::SETTLED, [400, 900, 500], [880, 900, 980]);
    check(Charging::AS_GENERATED, [900, 900, 1_000], [920, 940, 980]);
    check(Charging::INPUT, [900, 900, 1_000], [900, 900, 1_000]);
    check(Charging::GROQ, [400, 900, 500], [440, 940, 500]);
    check(Charging::MISTRAL, [900, 900, 1_000], [880, 900, 980]);
    check(Charging::BEDROCK, [400, 900, 500], [840, 940, 900]);
    check(Charging::MANTLE, [400, 400, 1_000], [920, 940, 980]);
    let weighed = Charging {
        weighs_reservation: true,
        output_weight: 2,
        ..Charging::BEDROCK
    };
    let request = Weights::request(100, 500);
    assert_eq!(weighed.at_admission(&request), Weights::request(100, 1_000));
    assert_eq!(weighed.settled(&request, &Usage::of(100, 20)).output, 40);
}

#[test]
fn an_unset_maximum_is_what_the_provider_takes_it_for() {
    let demand = Demand {
        characters: 21,
        messages: 1,
        choices: 2,
        ..Demand::default()
    };
    let output = |charging: Charging| charging.estimate(&demand).output;
    assert_eq!(output(Charging::ESTIMATE), 32);
    assert_eq!(output(Charging::BEDROCK), 128_000);
}

/// Every preset can be built, admits a request, and gives back everything that it keeps open.
#[test]
fn presets_work() {
    for provider in Provider::ALL {
        for pool in provider.pools() {
            assert!(!pool.limits.is_empty(), "{provider}");
            let mut group = Enforcer::new(pool.charging, pool.limits.clone());
            let demand = Demand {
                characters: 400,
                messages: 1,
                max_output: Some(100),
                choices: 1,
                ..Demand::default()
            };
            let weights = pool.charging.estimate(&demand);
            assert_eq!(group.admit(seconds(0.0), 1, &weights), Ok(()), "{provider}");
            group.settle(seconds(1.0), 1, &Usage::of(100, 50));
            group.finish(seconds(1.0), 1);
            assert_eq!(group.open(), 0, "{provider}");
        }
    }
}

#[test]
fn what_is_hidden_is_what_the_provider_hides() {
    let minute = MINUTE;
    let day = Duration::from_secs(86_400);
    let hides = |provider: Provider, dimension, window| provider.hides(dimension, window);
    assert!(hides(Provider::Groq, Dimension::Requests, minute));
    assert!(!hides(Provider::Groq, Dimension::Requests, day));
    assert!(!hides(Provider::Groq, Dimension::Tokens, minute));
    assert!(hides(Provider::Groq, Dimension::Tokens, day));
    assert!(hides(Provider::Gemini, Dimension::Input, minute));
    assert!(hides(Provider::Anthropic, Dimension::Concurrency, Duration::ZERO));
    assert!(!hides(Provider::Azure, Dimension::Requests, minute));
}
