//! What a limiter knows over a restart, through its public API.

use tidegate::core::Timestamp;
use tidegate::{Gap, Limiter, Memory, Refusal, Tokens, Usage};

async fn use_some(limiter: &Limiter, count: usize) -> Result<(), Refusal> {
    for _ in 0..count {
        let permit = limiter.acquire_tokens(Tokens::new(5), None).await?;
        permit.settle(Usage::default());
    }
    Ok(())
}

fn used(limiter: &Limiter) -> u64 {
    limiter.snapshot().quotas[0].limits[0].used.value()
}

#[tokio::test(start_paused = true)]
async fn the_next_limiter_knows_what_the_one_before_it_used() {
    let limiter = || {
        Limiter::builder()
            .requests_per_minute(3)
            .tokens_per_minute(1_000)
            .build()
    };
    let before = limiter();
    use_some(&before, 3).await.unwrap();
    let memory = before.remember();
    let after = limiter();
    after.recall(&memory).unwrap();
    assert_eq!(used(&after), 3);
    let wrong = Memory {
        version: 99,
        ..Memory::default()
    };
    let error = after.recall(&wrong).unwrap_err();
    assert!(error.to_string().contains("version 99"), "{error}");

    let crashed = limiter();
    let gap = Gap {
        since: Timestamp::ZERO,
        until: crashed.now(),
    };
    let until = crashed.presume(gap).unwrap();
    assert!(until > crashed.now());
    use_some(&crashed, 1).await.unwrap();
    assert_eq!(used(&crashed), 4, "one goes beside what is presumed");
}

#[cfg(feature = "serde")]
mod saved {
    use tidegate::core::{
        AllowanceMemory, Amount, BudgetMemory, BudgetUnit, Charged, Dimension, GroupMemory, LimitMemory,
        LimitSource, Owner, Period, RouteId, TenantId, TrialMemory, Zone,
    };
    use tidegate::{Discipline, SavedMemory};

    use super::*;

    fn full() -> Memory {
        let charged = |at: u64, amount: u64| Charged {
            stamp: Timestamp::from_secs(at),
            amount: Amount::new(amount),
        };
        let limit = LimitMemory {
            dimension: Dimension::Tokens,
            window: std::time::Duration::from_secs(60),
            discipline: Discipline::Day(Zone::Pacific),
            amount: Amount::new(1 << 40),
            source: LimitSource::Learned,
            told: Timestamp::from_secs(5),
            charges: vec![charged(1, 2), charged(3, 4)],
            unsettled: Amount::new(3),
            foreign: vec![charged(1, 1)],
            foreign_known: Timestamp::from_secs(6),
            first_known: Some(Timestamp::from_secs(7)),
            missing: Some(Amount::new(8)),
            paced_until: Some(Timestamp::from_micros(u64::MAX)),
            trial: Some(TrialMemory {
                told: Some((Amount::new(9), LimitSource::Header)),
                refused: Amount::new(10),
                agreed: 2,
            }),
            presumed: Some(charged(11, 12)),
        };
        let budget = BudgetMemory {
            unit: BudgetUnit::Cost,
            period: Period::Month,
            used: 13,
            renews: Timestamp::from_secs(14),
        };
        let owners = [Owner::Tenant(TenantId::of("a")), Owner::Route(RouteId::of("b"))];
        Memory {
            version: Memory::VERSION,
            at: Timestamp::from_secs(20),
            groups: vec![GroupMemory {
                name: "a \"group\"".to_owned(),
                account: u64::MAX,
                succeeded: true,
                hold_until: Some(Timestamp::from_secs(21)),
                margin_doublings: 2,
                limits: vec![limit.clone()],
            }],
            allowances: owners
                .map(|owner| AllowanceMemory {
                    owner,
                    limits: vec![limit.clone()],
                    budgets: vec![budget],
                })
                .to_vec(),
            gap: Some(Gap {
                since: Timestamp::from_secs(15),
                until: Timestamp::from_secs(16),
            }),
        }
    }

    #[test]
    fn what_is_saved_is_read_again() {
        for memory in [Memory::default(), full()] {
            let text = serde_json::to_string(&SavedMemory::from(&memory)).unwrap();
            let read: SavedMemory = serde_json::from_str(&text).unwrap();
            assert_eq!(Memory::from(read), memory, "{text}");
        }
        let text = serde_json::to_string(&SavedMemory::from(&full())).unwrap();
        let wrong = text.replace("\"learned\"", "\"dreamt\"");
        let error = serde_json::from_str::<SavedMemory>(&wrong).unwrap_err();
        assert!(error.to_string().contains("dreamt"), "{error}");
    }
}
