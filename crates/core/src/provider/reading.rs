//! One limit as three headers tell it, and the window that its numbers give away.

use core::time::Duration;

use super::{Headers, text};
use crate::signal::Reading;
use crate::time::micros;
use crate::units::Amount;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const TEN_SECONDS: Duration = Duration::from_secs(10);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// A month, wherever one is spoken of.
pub(super) const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// The headers of one limit.
pub(super) struct Names {
    pub limit: &'static str,
    pub remaining: &'static str,
    pub reset: &'static str,
}

/// Reads one limit. A reset alone says nothing: Azure sends limit -1, remaining -1, reset 0 for "unknown".
pub(super) fn read(
    headers: &impl Headers,
    names: &Names,
    reset: impl FnOnce(&str) -> Option<Duration>,
) -> Option<Reading> {
    let amount = |name| headers.text(name).and_then(text::integer).map(Amount::new);
    let (limit, remaining) = (amount(names.limit), amount(names.remaining));
    if limit.is_none() && remaining.is_none() {
        return None;
    }
    Some(Reading {
        limit,
        remaining,
        reset: headers.text(names.reset).and_then(reset),
        ..Reading::default()
    })
}

/// From so many units in use on, the unit that may be in use only in part makes no window look like another.
const MANY: u64 = 100;

/// What a Go duration is rounded to.
const STEP: Duration = Duration::from_millis(1);

/// Windows that a few units in use can tell apart.
const COMMON: [Duration; 3] = [MINUTE, DAY, MONTH];

/// Windows that limits have.
const KNOWN: [Duration; 6] = [SECOND, TEN_SECONDS, MINUTE, HOUR, DAY, MONTH];

/// Solves the window of a limit that refills evenly, and whose reset is the time until it is whole:
/// `window = reset × limit / (limit − remaining)` (providers.md §2.2).
///
/// Worked example (§2.4): limit 10,000, remaining 9,999, reset 8.64 s: a day, so it is the limit on requests per day that
/// binds; limit 500, remaining 499, reset 120 ms: a minute.
///
/// The numbers may be off by [`STEP`] in the reset, by a thousandth for everything else, and, because a bucket refills
/// continuously while headers count whole units, by up to one unit that is in use only in part. From [`MANY`] units in
/// use on that is allowed for, and all six known windows are looked for. Below, it would make one window look like
/// another (half a request of 500 a minute looks like 30 s), so the numbers must match a minute, a day or a month as they
/// are. Where the rounding alone is more than half a window, the numbers tell nothing.
pub(super) fn solve_window(reading: &Reading) -> Option<Duration> {
    let limit = reading.limit?.value();
    let used = limit
        .checked_sub(reading.remaining?.value())
        .filter(|used| *used > 0)?;
    let per_used = |span: Duration| u128::from(micros(span)) * u128::from(limit) / u128::from(used);
    let solved = per_used(reading.reset?);
    let rounding = per_used(STEP);
    let (windows, partial): (&[Duration], u64) = if used < MANY { (&COMMON, 0) } else { (&KNOWN, 1) };
    windows.iter().copied().find(|window| {
        let window = u128::from(micros(*window));
        let above = rounding + window / 1_000;
        let below = above + window * u128::from(partial) / u128::from(used);
        rounding <= window / 2 && solved <= window + above && solved + below >= window
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(limit: u64, remaining: u64, reset_millis: u64, expect: Option<Duration>) {
        let reading = Reading {
            limit: Some(Amount::new(limit)),
            remaining: Some(Amount::new(remaining)),
            reset: Some(Duration::from_millis(reset_millis)),
            ..Reading::default()
        };
        assert_eq!(
            solve_window(&reading),
            expect,
            "{limit} {remaining} {reset_millis}"
        );
    }

    #[test]
    fn windows() {
        // providers.md §2.2 and §2.4.
        check(500, 499, 120, Some(MINUTE));
        check(10_000, 9_999, 8_640, Some(DAY));
        check(30_000, 29_996, 8, Some(MINUTE));
        check(10_000, 9_481, 3_114, Some(MINUTE));
        check(1_500_000, 1_495_621, 252_172, Some(DAY));
        check(1_500_000, 1_482_750, 993_562, Some(DAY));
        check(1_500_000, 43_244, 83_909_144, Some(DAY));
        check(60, 59, 1_000, Some(MINUTE));
        check(60_000, 57_000, 3_000, Some(MINUTE));
        check(200_000, 199_978, 6, Some(MINUTE));
        // The documented pair is illustrative: 39 days.
        check(150_000, 149_984, 360_000, None);

        check(1_000, 900, 100, Some(SECOND));
        check(1_000, 900, 1_000, Some(TEN_SECONDS));
        check(1_000, 900, 360_000, Some(HOUR));
        check(100_000, 80_000, 518_400_000, Some(MONTH));
        check(1_000, 900, 6_000, Some(MINUTE));

        // One request of 500 a minute, of which five sixths have flowed back: neither ten seconds nor anything else.
        check(500, 499, 20, None);
        check(500, 499, 60, None);
        check(1_000, 900, 3_000, None);
        check(1_000, 900, 0, None);
        check(1_000, 1_000, 60_000, None);
        check(1_000, 1_001, 60_000, None);
        check(0, 0, 60_000, None);
        // A thousandth of a second is 7.5 s of the window here, and twice the window there.
        check(150_000_000, 149_999_990, 1, None);
        check(1_000, 999, 1_000, None);
        check(u64::MAX, 0, u64::MAX, None);
    }

    #[test]
    fn a_refilling_bucket_is_told_by_every_level() {
        for (limit, window) in [
            (600, MINUTE),
            (500, MINUTE),
            (5_000, MINUTE),
            (10_000, DAY),
            (1_000, TEN_SECONDS),
        ] {
            for eighths in 8 * MANY..8 * limit {
                let used_micros = micros(window) * eighths / (8 * limit);
                let remaining = limit - eighths.div_ceil(8);
                check(limit, remaining, used_micros / 1_000, Some(window));
            }
        }
    }
}
