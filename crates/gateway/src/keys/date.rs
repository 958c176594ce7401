//! Moments as files of keys have them: RFC 3339 in UTC, to the second.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A day, in seconds.
const DAY: u64 = 86_400;

/// The first moment after what can be written: the year 10000.
const END: u64 = 253_402_300_800;

/// A moment, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(u64);

/// A text that is no moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no date; write one such as \"2027-03-01\" or \"2027-03-01T12:00:00Z\" (UTC)")]
pub struct DateError;

/// Returns the moment that it is now, for commands: they run once and have no limiter to ask.
#[expect(
    clippy::disallowed_methods,
    reason = "a command that writes dates into a file has no limiter whose clock it could ask"
)]
pub fn now() -> Date {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Date::from_unix(unix.as_secs())
}

impl Date {
    /// Makes a moment of the seconds since 1970, as far as they can be written.
    pub fn from_unix(seconds: u64) -> Self {
        Self(seconds.min(END - 1))
    }

    /// Returns the seconds since 1970.
    pub const fn unix(self) -> u64 {
        self.0
    }

    /// Returns the moment so much later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self::from_unix(self.0.saturating_add(time.as_secs()))
    }

    /// Reads a moment, or a date: that is its first moment.
    ///
    /// # Errors
    ///
    /// Returns an error if the text is neither.
    pub fn parse(text: &str) -> Result<Self, DateError> {
        let (date, time) = match text.split_once(['T', 't', ' ']) {
            Some((date, time)) => (date, Some(time)),
            None => (text, None),
        };
        let [year, month, day] = numbers(date, '-', [4, 2, 2]).ok_or(DateError)?;
        let days = days(year, month, day).ok_or(DateError)?;
        let seconds = match time {
            None => 0,
            Some(time) => {
                let time = time.strip_suffix(['Z', 'z']).ok_or(DateError)?;
                let [hour, minute, second] = numbers(time, ':', [2, 2, 2]).ok_or(DateError)?;
                if hour > 23 || minute > 59 || second > 59 {
                    return Err(DateError);
                }
                hour * 3_600 + minute * 60 + second
            }
        };
        Ok(Self(days * DAY + seconds))
    }
}

impl fmt::Display for Date {
    /// A moment at midnight is written as a date alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut year, mut rest) = (1970, self.0 / DAY);
        while rest >= year_length(year) {
            rest -= year_length(year);
            year += 1;
        }
        let mut month = 1;
        while rest >= month_length(year, month) {
            rest -= month_length(year, month);
            month += 1;
        }
        write!(f, "{year:04}-{month:02}-{:02}", rest + 1)?;
        match self.0 % DAY {
            0 => Ok(()),
            time => write!(f, "T{:02}:{:02}:{:02}Z", time / 3_600, time / 60 % 60, time % 60),
        }
    }
}

/// Reads three numbers with so many digits each.
fn numbers(text: &str, separator: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; 3];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Returns the days from 1970 to a date; `None` if there is no such date, or it lies before.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || day == 0 || day > month_length(year, month) {
        return None;
    }
    let years: u64 = (1970..year).map(year_length).sum();
    let months: u64 = (1..month).map(|month| month_length(year, month)).sum();
    Some(years + months + day - 1)
}

fn year_length(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn month_length(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_and_written() {
        for (text, unix) in [
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400),
            ("2026-11-28T23:11:24Z", 1_795_907_484),
            ("2027-03-01", 1_803_859_200),
            ("9999-12-31T23:59:59Z", END - 1),
        ] {
            assert_eq!(Date::parse(text), Ok(Date(unix)), "{text}");
            assert_eq!(Date(unix).to_string(), text);
        }
        assert_eq!(Date::parse("2027-03-01 00:00:00z"), Date::parse("2027-03-01"));
        for bad in [
            "",
            "2027-3-1",
            "2027-02-29",
            "1969-12-31",
            "2027-13-01",
            "2027-03-01T24:00:00Z",
            "2027-03-01T12:00:00",
            "2027-03-01T12:00:00+01:00",
            "2027-03-01-01",
            "zzzz-03-01",
        ] {
            assert_eq!(Date::parse(bad), Err(DateError), "{bad}");
        }
    }

    #[test]
    fn moments_end_where_they_cannot_be_written() {
        let last = Date::from_unix(u64::MAX);
        assert_eq!(last.to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(last.after(Duration::from_secs(1)), last);
    }
}
