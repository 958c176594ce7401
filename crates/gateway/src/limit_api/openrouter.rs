//! OpenRouter's `GET /api/v1/key` (providers.md §11).

use std::time::Duration;

use serde::Deserialize;
use tidegate_core::Dimension;

use super::{Rules, Told, Whose, limit};

/// The path that is asked.
pub(super) const PATH: &str = "/api/v1/key";

/// Requests in a minute for free models; the key does not tell them.
const FREE_RPM: u64 = 20;

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Deserialize)]
struct Answer {
    data: Key,
}

#[derive(Deserialize)]
struct Key {
    is_free_tier: Option<bool>,
    free_model_daily_requests: Option<Daily>,
}

#[derive(Deserialize)]
struct Daily {
    limit: Option<u64>,
}

/// Reads the answer; `None` if it is not one. Paid models have no limits, so only free ones are told of: all of them
/// share one day.
pub(super) fn read(body: &[u8], rules: &Rules) -> Option<Vec<Told>> {
    let key = serde_json::from_slice::<Answer>(body).ok()?.data;
    // An account that never bought anything has fifty a day, any other a thousand.
    let usual = key.is_free_tier.map(|is_free| if is_free { 50 } else { 1_000 });
    let daily = key
        .free_model_daily_requests
        .and_then(|daily| daily.limit)
        .or(usual);
    let limits = [
        daily.and_then(|daily| limit(Dimension::Requests, DAY, rules.day, daily)),
        limit(Dimension::Requests, rules.window, rules.discipline, FREE_RPM),
    ];
    Some(vec![Told {
        whose: Whose::Ending(":free"),
        limits: limits.into_iter().flatten().collect(),
    }])
}

#[cfg(test)]
mod tests {
    use tidegate_core::{Discipline, Zone};

    use super::*;

    #[test]
    fn free_models_share_a_day_and_a_minute() {
        let rules = Rules {
            window: Duration::from_secs(60),
            discipline: Discipline::Rolling,
            day: Discipline::Day(Zone::Utc),
        };
        let check = |body: &str, expect: Option<&[(u64, u64)]>| {
            let told = read(body.as_bytes(), &rules);
            let found = told.map(|told| {
                assert_eq!((told.len(), &told[0].whose), (1, &Whose::Ending(":free")));
                let limits = told[0].limits.iter();
                limits
                    .map(|limit| (limit.amount.get(), limit.window.as_secs()))
                    .collect::<Vec<_>>()
            });
            assert_eq!(found.as_deref(), expect, "{body}");
        };
        check(
            r#"{"data":{"label":"x","limit_remaining":null,"is_free_tier":false,"rate_limit":{"requests":-1},
               "free_model_daily_requests":{"used":3,"limit":1000,"remaining":997}}}"#,
            Some(&[(1_000, 86_400), (20, 60)]),
        );
        check(
            r#"{"data":{"is_free_tier":true}}"#,
            Some(&[(50, 86_400), (20, 60)]),
        );
        check(
            r#"{"data":{"is_free_tier":false}}"#,
            Some(&[(1_000, 86_400), (20, 60)]),
        );
        check(r#"{"data":{}}"#, Some(&[(20, 60)]));
        check("{}", None);
        check("", None);
    }
}
