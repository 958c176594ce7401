//! A moment of an engine with something to tell.

use std::time::Duration;

use tidegate_core::{
    Allotment, AllowanceSnapshot, Amount, Budget, BudgetSnapshot, BudgetUnit, Bytes, Caller, Cost, Dimension,
    Discipline, LimitRef, LimitSnapshot, LimitSource, Owner, Period, Priority, QuotaId, QuotaKey,
    QuotaSnapshot, RouteId, RunId, RunSnapshot, ShareSnapshot, Snapshot, Spent, TenantId, Timestamp, Totals,
    WaitReason, WaitingSnapshot,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Two configured groups, one of them with two accounts, and one that is not configured any more.
pub(crate) fn busy() -> Snapshot {
    let now = Timestamp::from_secs(1_000);
    let requests = limit(Dimension::Requests, 500, 450, LimitSource::Config);
    let tokens = limit(Dimension::Tokens, 30_000, 29_000, LimitSource::Header);
    let waiting = WaitingSnapshot {
        place: 1,
        waited: Duration::from_millis(1_500),
        deadline: now + MINUTE,
        reason: WaitReason::Limit(tokens.limit),
        eta: Some(now + Duration::from_millis(2_500)),
        caller: Caller {
            tenant: TenantId::of("search-team"),
            priority: Priority::High,
            route: RouteId::of("chat"),
        },
    };
    let behind = WaitingSnapshot {
        place: 2,
        reason: WaitReason::Line,
        eta: None,
        caller: Caller::default(),
        ..waiting
    };
    Snapshot {
        now,
        quotas: vec![
            QuotaSnapshot {
                waiting: 2,
                waiting_bytes: Bytes::new(4_096),
                first_waiting: vec![waiting, behind],
                shares: vec![
                    share(TenantId::of("search-team"), Priority::High, 1),
                    share(TenantId::ANYONE, Priority::Normal, 1),
                    share(TenantId::of("forgotten"), Priority::Low, 0),
                ],
                in_flight: 3,
                ..group("openai/gpt-4o", 0, vec![requests, tokens])
            },
            QuotaSnapshot {
                hold_until: Some(now + Duration::from_secs(7)),
                ..group(
                    "openai",
                    0xab,
                    vec![limit(Dimension::Requests, 100, 10, LimitSource::Header)],
                )
            },
            group(
                "openai",
                0xcd,
                vec![limit(Dimension::Requests, 200, 180, LimitSource::Header)],
            ),
            QuotaSnapshot {
                learning: true,
                ..group("gone/model", 0, vec![])
            },
        ],
        waiting_bytes: Bytes::new(4_096),
        allowances: vec![
            AllowanceSnapshot {
                owner: Owner::Tenant(TenantId::of("search-team")),
                limits: Vec::new(),
                budgets: vec![BudgetSnapshot {
                    budget: Budget {
                        unit: BudgetUnit::Cost,
                        period: Period::Month,
                        amount: 500_000_000,
                    },
                    used: 12_500_000,
                    held: 300,
                    renews: now + 60 * MINUTE,
                }],
                escrow: None,
            },
            AllowanceSnapshot {
                owner: Owner::Route(RouteId::of("chat")),
                limits: vec![limit(Dimension::Requests, 100, 7, LimitSource::Config)],
                budgets: Vec::new(),
                escrow: None,
            },
        ],
        runs: vec![RunSnapshot {
            run: RunId::of(0xabc),
            calls: 41,
            tokens: 90_000,
            cost: Cost::from_micros(1_700_000),
            time: MINUTE,
            depth: 2,
            repeats: 3,
            warning: Some(Spent {
                what: Allotment::RunCalls,
                used: 41,
                most: 50,
                above: 0,
            }),
        }],
    }
}

fn share(tenant: TenantId, priority: Priority, waiting: usize) -> ShareSnapshot {
    ShareSnapshot {
        tenant,
        priority,
        weight: 2,
        waiting,
        waiting_bytes: Bytes::new(2_048),
        used_per_million: 250_000,
    }
}

fn group(name: &str, account: u64, limits: Vec<LimitSnapshot>) -> QuotaSnapshot {
    QuotaSnapshot {
        key: QuotaKey {
            id: QuotaId::of(name),
            account,
        },
        name: name.to_owned(),
        limits,
        waiting: 0,
        waiting_bytes: Bytes::ZERO,
        first_waiting: vec![],
        shares: Vec::new(),
        in_flight: 0,
        hold_until: None,
        learning: false,
        outputs: Vec::new(),
        probing: None,
        congestion: None,
        spent_until: None,
        store: None,
        totals: Totals::default(),
    }
}

fn limit(dimension: Dimension, amount: u64, used: u64, source: LimitSource) -> LimitSnapshot {
    LimitSnapshot {
        limit: LimitRef {
            dimension,
            window: MINUTE,
            amount,
        },
        discipline: Discipline::Rolling,
        source,
        told: Timestamp::from_micros(0),
        used: Amount::new(used),
        held: Amount::ZERO,
        presumed: Amount::ZERO,
        foreign: Amount::ZERO,
        margin: Duration::from_secs(1),
        growth: None,
    }
}
