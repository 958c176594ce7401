//! The sums that are kept are those that adding everything up anew gives.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

const START: u64 = 1_000_000_000_000;
const LIFE: u64 = 61_000_000;

#[derive(Debug, Clone)]
enum Op {
    Launch(u8, u64, u64),
    Report(usize, u64),
    End(usize, u64),
    Fail(usize),
    Sleep(u64),
    Charge(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let tokens = || prop_oneof![8 => 0_u64..6_000, 1 => Just(u64::MAX), 1 => any::<u64>()];
    prop_oneof![
        6 => (0..20_u8, tokens(), 1..4_u64).prop_map(|(class, most, answers)| Op::Launch(class, most, answers)),
        6 => (any::<usize>(), tokens()).prop_map(|(which, output)| Op::Report(which, output)),
        5 => (any::<usize>(), tokens()).prop_map(|(which, output)| Op::End(which, output)),
        1 => any::<usize>().prop_map(Op::Fail),
        6 => (0_u64..4_000_000).prop_map(Op::Sleep),
        1 => (0_u64..100_000_000_000).prop_map(Op::Sleep),
        2 => tokens().prop_map(Op::Charge),
    ]
}

proptest! {
    #[test]
    fn kept_sums_are_those_of_adding_everything_up(
        ops in prop::collection::vec(op(), 1..400),
        hard in any::<bool>(),
        trained in any::<bool>(),
    ) {
        let guarantee = if hard { Guarantee::Hard } else { Guarantee::default() };
        let mut now = START;
        let mut projection = Projection::new(guarantee);
        if trained {
            for call in 0..200_u64 {
                let class = RequestClass::of(&["0"]);
                let slot = projection.launch(now, class, 4_096, 1);
                now += 100_000 + call * 10_000;
                projection.complete(now, Some(slot), class, 10 + call * 20);
                projection.remove(slot);
            }
        }
        let mut outlook = Outlook::new(Grid::at(now, LIFE));
        let mut running: Vec<(u32, RequestClass)> = Vec::new();
        for op in ops {
            let pick = |which: usize| running.get(which % running.len().max(1)).copied();
            match op {
                Op::Launch(class, most, answers) => {
                    let class = RequestClass::of(&[["0", "1", "2"][usize::from(class % 3)], ["a", "b"][usize::from(class % 2)]]);
                    let slot = projection.launch(now, class, most, answers);
                    running.push((slot, class));
                    let expected = projection.expected(now, slot, outlook.grid()).expect("it runs");
                    prop_assert!(expected.mean.iter().all(|mean| *mean <= most.min(EXPECTED_MAX)));
                    prop_assert!(expected.mean.is_sorted(), "more time, more tokens: {:?}", expected.mean);
                    outlook.set(slot as usize, expected);
                }
                Op::Report(which, output) => {
                    if let Some((slot, _)) = pick(which)
                        && let Some(fresh) = projection.report(now, slot, output.min(1 << 40))
                    {
                        prop_assert!(fresh.since <= now);
                        outlook.charge(fresh.tokens);
                        if !outlook.report(slot as usize, fresh.tokens) {
                            let expected = projection.expected(now, slot, outlook.grid()).expect("it runs");
                            outlook.set(slot as usize, expected);
                        }
                    }
                }
                Op::End(which, output) => {
                    if let Some((slot, class)) = pick(which) {
                        let since = projection.complete(now, Some(slot), class, output.min(1 << 40));
                        prop_assert!(since <= now);
                        outlook.end(slot as usize);
                        projection.remove(slot);
                        running.retain(|(other, _)| *other != slot);
                    }
                }
                Op::Fail(which) => {
                    if let Some((slot, _)) = pick(which) {
                        outlook.remove(slot as usize);
                        projection.remove(slot);
                        running.retain(|(other, _)| *other != slot);
                    }
                }
                Op::Sleep(micros) => now += micros,
                Op::Charge(amount) => outlook.charge(amount),
            }
            let grid = Grid::at(now, LIFE);
            if *outlook.grid() != grid || outlook.is_worn() {
                outlook.renew(grid, [0; NODES]);
                for (slot, expected) in projection.all(now, grid) {
                    outlook.set(slot, expected);
                }
            }
            outlook.check();
            prop_assert_eq!(outlook.count() as usize, running.len());
            prop_assert!(projection.snapshots().len() <= CLASSES_MAX);
        }
    }
}

#[test]
fn the_class_that_was_not_used_for_longest_makes_way() {
    let mut projection = Projection::new(Guarantee::default());
    let class = |number: usize| RequestClass::of(&[alloc::format!("{number}").as_str()]);
    for number in 0..CLASSES_MAX {
        projection.used(START, class(number), 100);
    }
    projection.used(START, class(0), 100);
    projection.used(START, class(CLASSES_MAX), 100);
    let known: Vec<_> = projection.snapshots().iter().map(|known| known.class).collect();
    assert!(known.contains(&class(0)) && !known.contains(&class(1)));
    assert_eq!(known.len(), CLASSES_MAX);
}

#[test]
fn a_cap_is_judged_by_the_outputs_seen() {
    let mut projection = Projection::new(Guarantee::default());
    let class = RequestClass::of(&["model", "route"]);
    for call in 0..1_000_u64 {
        projection.used(START, class, 4_096);
        projection.complete(START, None, class, call);
    }
    let snapshot = &projection.snapshots()[0];
    assert!(snapshot.samples >= 900);
    let effect = snapshot.effect_of_cap(Tokens::new(512));
    assert_eq!(
        (effect.reserved, effect.capped),
        (Tokens::new(4_096), Tokens::new(512))
    );
    assert!((480_000..560_000).contains(&effect.cut_per_million), "{effect:?}");
    assert_eq!(snapshot.effect_of_cap(Tokens::new(2_000)).cut_per_million, 0);
    let median = snapshot.quantile(500_000).expect("known").value();
    assert!((500..=576).contains(&median), "{median}");
}

#[test]
fn nothing_is_promised_before_fifty_outputs_were_seen_and_the_rate_is_known() {
    let class = RequestClass::default();
    let mut projection = Projection::new(Guarantee::default());
    let mut now = START;
    for call in 0..60_u64 {
        let need = projection.need(class, 4_096, 1);
        assert_eq!(need.mean < 4_096, call >= 50, "after {call} outputs: {need:?}");
        let slot = projection.launch(now, class, 4_096, 1);
        now += 10_000_000;
        projection.complete(now, Some(slot), class, 600);
        projection.remove(slot);
    }
    let need = projection.need(class, 4_096, 1);
    assert!(
        (580..=640).contains(&need.mean) && need.variance < 40 * 40,
        "{need:?}"
    );
    assert_eq!(need.rate.map(Rate::per_second), Some(59));
    projection.follow(Guarantee::Hard);
    assert_eq!(projection.need(class, 4_096, 1).mean, 4_096);
}
