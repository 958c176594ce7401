//! Midnights: where a provider's day begins, and the first of a month.

use crate::limit::Zone;
use crate::time::Timestamp;

const HOUR: u64 = 3_600_000_000;
const DAY: u64 = 24 * HOUR;

/// A day of the proleptic Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Date {
    year: u64,
    /// From 1.
    month: u64,
    /// From 1.
    day: u64,
}

impl Zone {
    /// Returns the latest midnight that is not after `now`.
    pub fn midnight_before(self, now: Timestamp) -> Timestamp {
        let now = now.as_micros();
        let midnight = match self {
            Self::Utc => now / DAY * DAY,
            Self::Pacific => {
                let local = now.saturating_sub(pacific_offset(now)) / DAY * DAY;
                // Clocks change at two in the morning, so midnight has the offset that it has.
                [7 * HOUR, 8 * HOUR]
                    .map(|offset| (local.saturating_add(offset), offset))
                    .into_iter()
                    .find_map(|(at, offset)| (pacific_offset(at) == offset).then_some(at))
                    .unwrap_or(local)
            }
        };
        Timestamp::from_micros(midnight.min(now))
    }

    /// Returns the first midnight after `now`.
    pub fn next_midnight(self, now: Timestamp) -> Timestamp {
        // A day has 23 to 25 hours, so 26 hours after one midnight is early in the next day.
        let later = self.midnight_before(now).as_micros().saturating_add(26 * HOUR);
        self.midnight_before(Timestamp::from_micros(later))
    }
}

/// Returns the first moment of the next month, UTC.
pub(crate) fn next_month(now: Timestamp) -> Timestamp {
    let date = Date::of(now.as_micros() / DAY);
    let (year, month) = if date.month == 12 {
        (date.year + 1, 1)
    } else {
        (date.year, date.month + 1)
    };
    let first = Date { year, month, day: 1 };
    Timestamp::from_micros(first.days().saturating_mul(DAY))
}

/// Returns how far the US Pacific coast is behind UTC: seven hours from the second Sunday of March, 10:00 UTC, to the
/// first Sunday of November, 09:00 UTC; else eight (Energy Policy Act of 2005).
fn pacific_offset(now: u64) -> u64 {
    let year = Date::of(now / DAY).year;
    let begins = sunday(year, 3, 2).saturating_mul(DAY).saturating_add(10 * HOUR);
    let ends = sunday(year, 11, 1).saturating_mul(DAY).saturating_add(9 * HOUR);
    if (begins..ends).contains(&now) {
        7 * HOUR
    } else {
        8 * HOUR
    }
}

/// Returns the `nth` Sunday of a month as days since 1970-01-01.
fn sunday(year: u64, month: u64, nth: u64) -> u64 {
    let first = Date { year, month, day: 1 }.days();
    // 1970-01-01 was a Thursday: day 3 was the first Sunday.
    let until_sunday = (10 - first % 7) % 7;
    first + until_sunday + 7 * (nth - 1)
}

impl Date {
    /// Returns the date of a day since 1970-01-01.
    ///
    /// Years are counted from March, so that the leap day is the last of its year; eras have 400 years, 146,097 days.
    fn of(days: u64) -> Self {
        let days = days.saturating_add(719_468);
        let era = days / 146_097;
        let of_era = days % 146_097;
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        Self {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: of_year - (153 * march_month + 2) / 5 + 1,
        }
    }

    /// Returns the days since 1970-01-01; 0 for earlier dates.
    fn days(self) -> u64 {
        let year = self.year.saturating_sub(u64::from(self.month <= 2));
        let era = year / 400;
        let year_of_era = year % 400;
        let march_month = (self.month + 9) % 12;
        let of_year = (153 * march_month + 2) / 5 + self.day - 1;
        let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
        (era * 146_097 + of_era).saturating_sub(719_468)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn midnights_on_the_pacific_coast() {
        for (now, before, next) in [
            // 2026-11-22 01:00 PST.
            (1_795_338_000, 1_795_334_400, 1_795_420_800),
            // 2026-03-08, the day that has 23 hours: midnight PST is 08:00 UTC, the next is midnight PDT, 07:00 UTC.
            (1_772_956_800, 1_772_956_800, 1_773_039_600),
            // 2026-11-01, the day that has 25 hours.
            (1_793_520_000, 1_793_516_400, 1_793_606_400),
            // 2026-07-04 12:00 PDT.
            (1_783_191_600, 1_783_148_400, 1_783_234_800),
        ] {
            let now = Timestamp::from_secs(now);
            assert_eq!(Zone::Pacific.midnight_before(now), Timestamp::from_secs(before));
            assert_eq!(Zone::Pacific.next_midnight(now), Timestamp::from_secs(next));
        }
    }

    #[test]
    fn months_begin() {
        for (now, next) in [
            (1_795_338_000, 1_796_083_200), // 2026-11-22: 2026-12-01
            (1_798_675_200, 1_798_761_600), // 2026-12-31: 2027-01-01
            (1_709_164_800, 1_709_251_200), // 2024-02-29: 2024-03-01
        ] {
            assert_eq!(next_month(Timestamp::from_secs(now)), Timestamp::from_secs(next));
        }
    }

    proptest! {
        #[test]
        fn days_and_dates_agree(days in 0_u64..4_000_000) {
            prop_assert_eq!(Date::of(days).days(), days);
        }

        #[test]
        fn midnights_follow_each_other(now in any::<u64>(), near in 0_u64..4_102_444_800_000_000) {
            for zone in [Zone::Utc, Zone::Pacific] {
                let before = zone.midnight_before(Timestamp::from_micros(near)).as_micros();
                let next = zone.next_midnight(Timestamp::from_micros(near)).as_micros();
                // The first hours of 1970 belong to a day that began before.
                prop_assert!(near < DAY || (before <= near && near < next));
                prop_assert!(near < DAY || (23 * HOUR..=25 * HOUR).contains(&(next - before)));
                let _ = zone.next_midnight(Timestamp::from_micros(now));
            }
        }
    }
}
