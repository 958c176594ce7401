//! Several pools at once.

use std::time::Duration;

use proptest::prelude::*;

use super::super::*;
use super::{MINUTE, seconds};
use crate::settings::Key;

fn rpm(amount: u64) -> Vec<Limit> {
    vec![Limit::new(
        Dimension::Requests,
        MINUTE,
        amount,
        Algorithm::Rolling,
    )]
}

fn demand(characters: u64) -> Demand {
    Demand {
        characters,
        choices: 1,
        ..Demand::default()
    }
}

fn admit(account: &mut Account, id: u64, key: &str, model: &str, endpoint: &str, characters: u64) -> bool {
    let key = Key::new(key);
    let subject = Subject {
        key: &key,
        model,
        endpoint,
    };
    account
        .admit(seconds(0.0), id, &subject, &demand(characters))
        .is_ok()
}

#[test]
fn families_of_models_share_one_bucket() {
    let pool = Pool::new(Charging::ESTIMATE, rpm(2))
        .scoped(Scope::Model)
        .with_families(&[&["claude-opus-4-*", "claude-opus-4.*"]]);
    let mut account = Account::new(vec![pool], Duration::ZERO);
    assert!(admit(&mut account, 1, "k", "claude-opus-4-5", "messages", 4));
    assert!(admit(&mut account, 2, "k", "claude-opus-4.6", "messages", 4));
    assert!(!admit(&mut account, 3, "k", "claude-opus-4-8", "messages", 4));
    assert!(admit(&mut account, 4, "k", "claude-opus-5", "messages", 4));
    assert!(admit(&mut account, 5, "k", "claude-sonnet-5", "messages", 4));
}

#[test]
fn the_lowest_of_project_and_organization_wins_and_takes_nothing_from_the_other() {
    let project = Pool {
        level: Level::Project,
        ..Pool::new(Charging::ESTIMATE, rpm(1)).scoped(Scope::Key)
    };
    let mut account = Account::new(
        vec![Pool::new(Charging::ESTIMATE, rpm(3)), project],
        Duration::ZERO,
    );
    assert!(admit(&mut account, 1, "a", "m", "chat", 4));
    for id in 2..10 {
        assert!(
            !admit(&mut account, id, "a", "m", "chat", 4),
            "the project is full"
        );
    }
    assert!(admit(&mut account, 10, "b", "m", "chat", 4));
    assert!(admit(&mut account, 11, "c", "m", "chat", 4));
    assert!(
        !admit(&mut account, 12, "d", "m", "chat", 4),
        "the organization is full"
    );
    account.resize(seconds(0.0), 0, 0, 4);
    assert!(admit(&mut account, 12, "d", "m", "chat", 4));
    let key = Key::new("a");
    let subject = Subject {
        key: &key,
        model: "m",
        endpoint: "chat",
    };
    let states = account.state(seconds(0.0), &subject, &demand(4));
    assert_eq!(states.len(), 2);
    assert_eq!(
        (states[0].limits[0].remaining, states[1].limits[0].remaining),
        (0, 0)
    );
    assert_eq!(states[1].level, Level::Project);
}

#[test]
fn long_contexts_have_a_bucket_of_their_own() {
    let pool = |applies| Pool {
        applies,
        ..Pool::new(Charging::ESTIMATE, rpm(1))
    };
    let short = pool(Applies {
        input_up_to: Some(1_000),
        ..Applies::default()
    });
    let long = pool(Applies {
        input_above: Some(1_000),
        ..Applies::default()
    });
    let mut account = Account::new(vec![short, long], Duration::ZERO);
    assert!(admit(&mut account, 1, "k", "m", "chat", 4_000));
    assert!(!admit(&mut account, 2, "k", "m", "chat", 4_000));
    assert!(admit(&mut account, 3, "k", "m", "chat", 4_001));
    assert!(!admit(&mut account, 4, "k", "m", "chat", 4_001));
}

#[test]
fn pools_are_for_endpoints_and_models() {
    let pools = vec![
        Pool::new(Charging::ESTIMATE, rpm(1)).for_models(&["*:free"]),
        Pool::new(Charging::ESTIMATE, rpm(1)).for_endpoints(&["runtime/*"]),
    ];
    let mut account = Account::new(pools, Duration::ZERO);
    assert!(admit(&mut account, 1, "k", "a:free", "chat", 4));
    assert!(
        !admit(&mut account, 2, "k", "b:free", "chat", 4),
        "shared by all free models"
    );
    for id in 3..10 {
        assert!(admit(&mut account, id, "k", "a", "chat", 4));
    }
    assert!(admit(&mut account, 10, "k", "a", "runtime/chat", 4));
    assert!(!admit(&mut account, 11, "k", "a", "runtime/converse", 4));
}

/// Every model gets its own group until there are too many; then they share, and memory stays bounded.
#[test]
fn groups_are_bounded() {
    let pool = Pool::new(Charging::ESTIMATE, rpm(1)).scoped(Scope::Model);
    let mut account = Account::new(vec![pool], Duration::ZERO);
    let admitted = (0..3_000u64).filter(|id| admit(&mut account, *id, "k", &format!("m{id}"), "chat", 4));
    assert_eq!(admitted.count(), 1_024 + 1);
}

proptest! {
    /// A request enters all groups or none: every group holds exactly the admitted requests that are its own.
    #[test]
    fn all_or_none(requests in proptest::collection::vec((0usize..3, 0usize..4, 0u64..1_200_000), 1..150)) {
        let keys = ["a", "b", "c"].map(Key::new);
        let models = ["m0", "m1", "n0", "n1"];
        let window = Duration::from_secs(60);
        let limits = |amount| vec![Limit::new(Dimension::Requests, window, amount, Algorithm::Rolling)];
        let pools = vec![
            Pool::new(Charging::ESTIMATE, limits(12)),
            Pool::new(Charging::ESTIMATE, limits(6)).scoped(Scope::Key),
            Pool::new(Charging::SETTLED, limits(5)).scoped(Scope::Model).with_families(&[&["m*"]]),
        ];
        let mut account = Account::new(pools, Duration::ZERO);
        let mut admitted: Vec<(u64, usize, usize)> = Vec::new();
        let mut now = 0;
        for (id, (key, model, elapsed)) in (0u64..).zip(requests) {
            now += elapsed * 10;
            let family = |model: usize| if model < 2 { 0 } else { model };
            let alive = admitted.iter().filter(|(at, _, _)| at + 60_000_000 > now);
            let same_key = alive.clone().filter(|(_, other, _)| *other == key).count();
            let same_model = alive.clone().filter(|(_, _, other)| family(*other) == family(model)).count();
            let fits = alive.count() < 12 && same_key < 6 && same_model < 5;
            let subject = Subject { key: &keys[key], model: models[model], endpoint: "chat" };
            let result = account.admit(Timestamp(now), id, &subject, &demand(4));
            prop_assert_eq!(result.is_ok(), fits, "at {}", now);
            if result.is_ok() {
                admitted.push((now, key, model));
            }
        }
    }
}
