//! Calendars, as far as quotas follow them.

/// A span of the calendar after which a quota starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// The minute of the clock.
    Minute,
    /// The day in UTC (OpenRouter, providers.md §11).
    UtcDay,
    /// The day in California, daylight saving included (Gemini, providers.md §5.1).
    PacificDay,
    /// The month in UTC (Mistral, Anthropic's spend limit).
    UtcMonth,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

impl Period {
    /// Returns the period's number, which grows by one with every turn, at a time in seconds since 1970.
    pub(super) fn index(self, unix: u64) -> u64 {
        match self {
            Self::Minute => unix / MINUTE,
            Self::UtcDay => unix / DAY,
            // A day in the summer ends an hour before the day in winter would.
            Self::PacificDay => (unix + DAY - pacific_offset(unix)) / DAY,
            Self::UtcMonth => {
                let (year, month, _) = date(unix / DAY);
                year * 12 + month - 1
            }
        }
    }

    /// Returns the second at which the next period starts.
    pub(super) fn next(self, unix: u64) -> u64 {
        match self {
            Self::Minute => (unix / MINUTE + 1) * MINUTE,
            Self::UtcDay => (unix / DAY + 1) * DAY,
            Self::PacificDay => {
                // The number of the next day is one more than the days since 1970 that it starts after.
                let midnight = self.index(unix) * DAY;
                let summer = midnight + 7 * HOUR;
                if pacific_offset(summer) == 7 * HOUR {
                    summer
                } else {
                    midnight + 8 * HOUR
                }
            }
            Self::UtcMonth => {
                let (year, month, _) = date(unix / DAY);
                let (year, month) = if month == 12 {
                    (year + 1, 1)
                } else {
                    (year, month + 1)
                };
                days(year, month, 1) * DAY
            }
        }
    }
}

/// How far California is behind UTC, in seconds: an hour less from the second Sunday of March, 2:00, to the first Sunday
/// of November, 2:00.
fn pacific_offset(unix: u64) -> u64 {
    let (year, _, _) = date(unix / DAY);
    let summer = sunday(year, 3, 2) * DAY + 10 * HOUR;
    let winter = sunday(year, 11, 1) * DAY + 9 * HOUR;
    if (summer..winter).contains(&unix) {
        7 * HOUR
    } else {
        8 * HOUR
    }
}

/// The days since 1970 of the n-th Sunday of a month.
fn sunday(year: u64, month: u64, nth: u64) -> u64 {
    let first = days(year, month, 1);
    // 1970-01-01 was a Thursday, so day 3 was a Sunday.
    let to_sunday = (7 - (first + 4) % 7) % 7;
    first + to_sunday + 7 * (nth - 1)
}

/// Returns year, month and day of the month, each counted as people do, of a number of days since 1970.
pub(crate) fn date(days: u64) -> (u64, u64, u64) {
    // Days since 0000-03-01, in eras of 400 years of 146,097 days; years start in March so that February is last.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, date)
}

/// Returns the days since 1970 of a date from 1970 on.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, march_month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * march_month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_days_are_inverse() {
        for day in (0..200_000).step_by(13) {
            let (year, month, of_month) = date(day);
            assert_eq!(days(year, month, of_month), day);
        }
        assert_eq!(date(11_016), (2000, 2, 29));
    }

    #[test]
    fn pacific_days_turn_at_midnight_in_summer_and_winter() {
        // (a moment, the next midnight in California), from the tz database: 2026-03-08 and 2026-11-01 are the changes.
        let check = |unix, next| {
            assert_eq!(Period::PacificDay.next(unix), next, "{unix}");
            assert_eq!(Period::PacificDay.index(next - 1), Period::PacificDay.index(unix));
            assert_eq!(Period::PacificDay.index(next), Period::PacificDay.index(unix) + 1);
        };
        check(1_767_254_400, 1_767_340_800); // 2026-01-01 00:00 PST
        check(1_772_956_800, 1_773_039_600); // 2026-03-08 00:00 PST: a day of 23 hours
        check(1_773_039_600, 1_773_126_000); // 2026-03-09 00:00 PDT
        check(1_783_000_000, 1_783_062_000); // 2026-07-02
        check(1_793_516_400, 1_793_606_400); // 2026-11-01 00:00 PDT: a day of 25 hours
        check(1_793_606_399, 1_793_606_400);
        check(1_793_606_400, 1_793_692_800);
    }

    #[test]
    fn months_turn_on_the_first() {
        let check = |unix, next| assert_eq!(Period::UtcMonth.next(unix), next, "{unix}");
        check(951_782_400, 951_868_800); // 2000-02-29
        check(1_798_761_599, 1_798_761_600); // the last second of 2026
        assert_eq!(
            Period::UtcMonth.index(1_798_761_600),
            Period::UtcMonth.index(1_798_761_599) + 1
        );
    }

    #[test]
    fn every_period_turns_exactly_where_it_says() {
        for period in [
            Period::Minute,
            Period::UtcDay,
            Period::PacificDay,
            Period::UtcMonth,
        ] {
            let mut unix = 0;
            for _ in 0..5_000 {
                let next = period.next(unix);
                assert_eq!(period.index(next - 1), period.index(unix), "{period:?} {unix}");
                assert_eq!(period.index(next), period.index(unix) + 1, "{period:?} {unix}");
                unix = next;
            }
        }
    }
}
