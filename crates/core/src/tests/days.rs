//! Days that begin at midnight.

use core::time::Duration;

use super::{MINUTE, World, amount, plan};
use alloc::vec;
use alloc::vec::Vec;

use crate::{Decision, Dimension, Discipline, Limit, Output, Timestamp, Zone};

const DAY: Duration = Duration::from_secs(86_400);

fn daily(value: u64, zone: Zone) -> Limit {
    Limit {
        discipline: Discipline::Day(zone),
        ..Limit::rolling(Dimension::Requests, DAY, amount(value))
    }
}

/// A provider counts days by its own clock, up to a second off; requests take up to a second to reach it.
#[test]
fn no_day_of_the_provider_exceeds_the_limit_and_all_of_it_is_used() {
    for (zone, began) in [
        // 2026-03-06 12:34:56 UTC: two days on is the day that has 23 hours.
        (Zone::Pacific, 1_772_800_496),
        // 2026-10-30: two days on is the day that has 25 hours.
        (Zone::Pacific, 1_793_363_696),
        (Zone::Utc, 1_772_800_496),
    ] {
        let mut world = World::new(plan(vec![daily(1_000, zone)]));
        world.now = Timestamp::from_secs(began);
        let mut stamps: Vec<Timestamp> = Vec::new();
        let mut delay = 7_u64;
        let end = world.now + DAY * 5;
        while world.now < end {
            let mut sent = Vec::new();
            if let Decision::Admit(permit) = world.ask(1) {
                sent.push(permit.id);
            }
            let later = world.sleep(Duration::from_secs(13));
            sent.extend(later.into_iter().filter_map(|output| match output {
                Output::Admit { permit, .. } => Some(permit.id),
                _ => None,
            }));
            for permit in sent {
                delay = (delay * 7 + 311_357) % 2_000_000;
                stamps.push(world.now + Duration::from_micros(delay) - Duration::from_secs(1));
                world.engine.settle(
                    world.now,
                    permit,
                    crate::Outcome::Completed(crate::Usage::default()),
                );
            }
        }
        let mut days = alloc::collections::BTreeMap::<Timestamp, u64>::new();
        for stamp in &stamps {
            *days.entry(zone.midnight_before(*stamp)).or_default() += 1;
        }
        let counts: Vec<u64> = days.into_values().collect();
        assert!(counts.iter().all(|count| *count <= 1_000), "{zone:?}: {counts:?}");
        let whole_days = &counts[1..counts.len() - 1];
        assert!(
            whole_days.iter().all(|count| *count >= 990),
            "{zone:?}: {counts:?}"
        );
    }
}

#[test]
fn a_new_day_begins_two_seconds_after_midnight() {
    let mut world = World::new(plan(vec![daily(1, Zone::Utc)]));
    world.now = Timestamp::from_secs(1_772_800_496);
    world.admit(1);
    let midnight = Zone::Utc.next_midnight(world.now);
    world.now = midnight - MINUTE;
    assert!(matches!(world.ask(1), Decision::Wait(_)));
    let outputs = world.step();
    assert!(matches!(outputs[..], [Output::Admit { .. }]), "{outputs:?}");
    assert_eq!(world.now, midnight + Duration::from_secs(2));
}
