//! What tenants, routes and runs may use: limits, money and tokens.

use std::num::NonZeroU64;
use std::time::Duration;

use tidegate_core::{Budget, BudgetUnit, Dimension, Limit, Period, Price, Priority};

use super::check::{Checker, Finding};
use super::defaults;
use super::field::{Field, Origin};
use super::limits::{DAY, SECOND, amount};
use super::raw::{RawPrice, RawRuns, RawTenant};
use super::upstream::is_name;

/// The window of what is counted in a minute.
const MINUTE: Duration = Duration::from_secs(60);

/// The largest amount of money that can be given, in dollars.
const DOLLARS_MAX: f64 = 1e9;

/// The highest price of a million tokens, in dollars.
const PRICE_MAX: f64 = 1e6;

/// Checks the name of a tenant or route. `other` is a further text that is allowed.
pub(super) fn name(
    checker: &mut Checker<'_>,
    key: &str,
    field: &Field<String>,
    origin: &Origin,
    other: Option<&str>,
) -> Option<String> {
    if field.is_absent() {
        checker
            .errors
            .push(Finding::new(origin, format!("`{key}` is missing")).help("give it a name of its own"));
        return None;
    }
    let text = checker.given(key, field)?;
    if is_name(text) || other == Some(text.as_str()) {
        return Some(text.clone());
    }
    let also = other.map_or(String::new(), |other| {
        format!(", or \"{other}\" for all that are not listed")
    });
    checker.error(
        field,
        format!("`{key}` cannot be a name"),
        &format!("use at most 64 lower-case letters, digits, - and _{also}"),
    );
    None
}

/// Makes the limits of a tenant or route: they roll, so that no boundary lets twice the amount through.
pub(super) fn limits(
    checker: &mut Checker<'_>,
    at: &str,
    amounts: [(&'static str, &Field<i64>); 8],
) -> Vec<Limit> {
    let mut limits = Vec::new();
    for (name, field) in amounts {
        let (dimension, window) = match name {
            "rpm" => (Dimension::Requests, MINUTE),
            "tpm" => (Dimension::Tokens, MINUTE),
            "itpm" => (Dimension::InputTokens, MINUTE),
            "otpm" => (Dimension::OutputTokens, MINUTE),
            "rps" => (Dimension::Requests, SECOND),
            "rpd" => (Dimension::Requests, DAY),
            "tpd" => (Dimension::Tokens, DAY),
            _ => (Dimension::Concurrency, MINUTE),
        };
        if let Some(amount) = amount(checker, &format!("{at}.{name}"), field) {
            limits.push(Limit::rolling(dimension, window, amount));
        }
    }
    limits
}

/// Makes the budgets of a tenant.
pub(super) fn budgets(checker: &mut Checker<'_>, raw: &RawTenant, at: &str) -> Vec<Budget> {
    let key = |name: &str| format!("{at}.{name}");
    let mut budgets = Vec::new();
    let tokens = [
        ("tokens_per_day", &raw.tokens_per_day, Period::Day),
        ("tokens_per_month", &raw.tokens_per_month, Period::Month),
    ];
    for (name, field, period) in tokens {
        if let Some(amount) = amount(checker, &key(name), field) {
            budgets.push(Budget {
                unit: BudgetUnit::Tokens,
                period,
                amount: amount.get(),
            });
        }
    }
    let dollars = [
        ("dollars_per_day", &raw.dollars_per_day, Period::Day),
        ("dollars_per_month", &raw.dollars_per_month, Period::Month),
    ];
    for (name, field, period) in dollars {
        if let Some(amount) = self::dollars(checker, &key(name), field) {
            budgets.push(Budget {
                unit: BudgetUnit::Cost,
                period,
                amount,
            });
        }
    }
    budgets
}

/// Checks an amount of money and returns it in millionths of a dollar.
pub(super) fn dollars(checker: &mut Checker<'_>, key: &str, field: &Field<f64>) -> Option<u64> {
    let dollars = *checker.given(key, field)?;
    let micros = micros(dollars);
    if micros == 0 || dollars > DOLLARS_MAX {
        checker.error(
            field,
            format!("`{key}` is {dollars}"),
            "expected a number of dollars above zero and at most 1000000000, such as 12.5; leave it out where there is no bound",
        );
        return None;
    }
    Some(micros)
}

/// Returns an amount of dollars in millionths; 0 for what is none. The nearest whole number: a price of $0.15 is 150,000
/// whatever the fraction's last binary digit says.
fn micros(dollars: f64) -> u64 {
    // A cast takes what is not a number, or below zero, to zero, and what is too large to the largest.
    (dollars * 1_000_000.0).round() as u64
}

/// Checks one entry of `[[prices]]`.
pub(super) fn price(checker: &mut Checker<'_>, raw: &RawPrice, at: &str, origin: &Origin) -> Price {
    let mut part = |name: &str, field: &Field<f64>, help: &str| {
        let key = format!("{at}.{name}");
        if field.is_absent() && !help.is_empty() {
            let finding = Finding::new(origin, format!("`{key}` is missing"));
            checker.errors.push(finding.help(help));
        }
        let dollars = *checker.given(&key, field)?;
        if (0.0..=PRICE_MAX).contains(&dollars) {
            return Some(micros(dollars));
        }
        checker.error(
            field,
            format!("`{key}` is {dollars}"),
            "expected the dollars for a million tokens, from 0 to 1000000, such as 2.5",
        );
        None
    };
    let input = part(
        "input",
        &raw.input,
        "say what a million input tokens cost, in dollars",
    );
    let output = part(
        "output",
        &raw.output,
        "say what a million output tokens cost, in dollars; 0 where nothing is generated",
    );
    let input = input.unwrap_or_default();
    Price {
        input,
        cached_input: part("cached_input", &raw.cached_input, "").unwrap_or(input),
        output: output.unwrap_or_default(),
    }
}

/// Checks a priority.
pub(super) fn priority(checker: &mut Checker<'_>, key: &str, field: &Field<String>) -> Option<Priority> {
    checker.word(key, field, &Priority::ALL.map(|tier| (tier.name(), tier)))
}

/// Checks what a run may use.
pub(super) fn runs(checker: &mut Checker<'_>, raw: &RawRuns) -> tidegate_core::RunPlan {
    const DAYS: fn(u64) -> Duration = |days| Duration::from_secs(days * 86_400);
    let mut small = |key: &str, field: &Field<i64>, range| {
        let is_given = !field.is_absent();
        let number = checker.number(key, field, 1, range);
        is_given.then(|| u32::try_from(number).unwrap_or(u32::MAX))
    };
    let depth = small("runs.depth", &raw.depth, 1..=1_000);
    // The loop detector looks at the last twenty steps.
    let repeats = small("runs.repeats", &raw.repeats, 1..=19);
    tidegate_core::RunPlan {
        calls: amount(checker, "runs.calls", &raw.calls).map(NonZeroU64::get),
        tokens: amount(checker, "runs.tokens", &raw.tokens).map(NonZeroU64::get),
        cost: dollars(checker, "runs.dollars", &raw.dollars),
        time: checker.optional_duration("runs.time", &raw.time, SECOND..=DAYS(30)),
        depth,
        repeats,
        idle: checker.duration("runs.idle", &raw.idle, defaults::RUN_IDLE, SECOND..=DAYS(7)),
    }
}

/// Checks what each priority is guaranteed.
pub(super) fn tiers(checker: &mut Checker<'_>, raw: &super::RawPriorities) -> [tidegate_core::TierPlan; 4] {
    let fields = [&raw.high, &raw.normal, &raw.low, &raw.batch];
    let mut shares = defaults::SHARES;
    for ((share, field), tier) in shares.iter_mut().zip(fields).zip(Priority::ALL) {
        let key = format!("priorities.{}", tier.name());
        *share = checker.number(&key, field, *share as i64, 0..=100) as u64;
    }
    let sum: u64 = shares.iter().sum();
    if sum > 100
        && let Some(field) = fields.iter().find(|field| !field.is_absent())
    {
        checker.error(
            field,
            format!("`priorities` guarantee {sum} percent together"),
            "expected at most 100 percent; what is left goes to the highest tier that waits",
        );
    }
    shares.map(|share| tidegate_core::TierPlan {
        share_percent: u8::try_from(share).unwrap_or(100),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_counted_in_whole_millionths() {
        for (dollars, expect) in [
            (0.15, 150_000),
            (2.5, 2_500_000),
            (0.000_001, 1),
            (0.1 + 0.2, 300_000),
            (0.003_625, 3_625),
            (1e9, 1_000_000_000_000_000),
            (-1.0, 0),
            (f64::NAN, 0),
            (f64::INFINITY, u64::MAX),
        ] {
            assert_eq!(micros(dollars), expect, "{dollars}");
        }
    }
}
