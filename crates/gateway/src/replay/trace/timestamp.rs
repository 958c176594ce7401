//! Points in time as traces write them.

use std::time::Duration;

const NANOS: u64 = 1_000_000_000;

/// Nanoseconds since 1970, UTC; enough until the year 2554.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UnixNanos(u64);

impl UnixNanos {
    pub(super) const ZERO: Self = Self(0);

    /// Reads `2023-11-16 18:17:03.9799600`, RFC 3339 (`T`, `Z`, `+02:00`; no zone means UTC) or epoch seconds with
    /// an optional fraction. Digits beyond the ninth of a fraction are dropped.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected 2023-11-16 18:17:03.97, 2023-11-16T18:17:03.97Z or epoch seconds";
        let (whole, fraction, rest) = split(text);
        if !whole.contains(['-', ':']) {
            if !rest.is_empty() {
                return Err(EXPECTED);
            }
            let seconds = digits(whole, 1..=19).ok_or(EXPECTED)?;
            return Self::new(seconds, nanos(fraction).ok_or(EXPECTED)?);
        }
        // `whole` ends where the fraction starts, or where the zone does.
        let (whole, zone) = if fraction.is_some() {
            (whole, rest)
        } else {
            unzoned(text)
        };
        let [date, time] = halves(whole).ok_or(EXPECTED)?;
        let mut date = date.split('-');
        let mut time = time.split(':');
        let next = |parts: &mut std::str::Split<'_, char>, len| {
            parts
                .next()
                .and_then(|part| digits(part, len..=len))
                .ok_or(EXPECTED)
        };
        let (year, month, day) = (next(&mut date, 4)?, next(&mut date, 2)?, next(&mut date, 2)?);
        let (hour, minute, second) = (next(&mut time, 2)?, next(&mut time, 2)?, next(&mut time, 2)?);
        if date.next().is_some() || time.next().is_some() {
            return Err(EXPECTED);
        }
        if !(1970..=2500).contains(&year) {
            return Err("the year is not between 1970 and 2500");
        }
        if !(1..=12).contains(&month) || day == 0 || day > days_in(year, month) {
            return Err("there is no such day");
        }
        if hour > 23 || minute > 59 || second > 60 {
            return Err("there is no such time of day");
        }
        let seconds = days_before(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
        let (offset, east) = offset(zone).ok_or("the zone is neither Z nor like +02:00")?;
        let seconds = if east {
            seconds.checked_sub(offset).ok_or("the time is before 1970")?
        } else {
            seconds + offset
        };
        Self::new(seconds, nanos(fraction).ok_or(EXPECTED)?)
    }

    /// The time from `earlier` to this.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    fn new(seconds: u64, nanos: u64) -> Result<Self, &'static str> {
        seconds
            .checked_mul(NANOS)
            .and_then(|whole| whole.checked_add(nanos))
            .map(Self)
            .ok_or("the time is after the year 2554; are these milliseconds? Epoch times are in seconds")
    }
}

/// Splits at the decimal point: before it, the digits of the fraction, what follows them.
fn split(text: &str) -> (&str, Option<&str>, &str) {
    match text.split_once('.') {
        None => (text, None, ""),
        Some((whole, tail)) => {
            let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
            (whole, Some(&tail[..end]), &tail[end..])
        }
    }
}

/// Splits a zone off a time without a fraction.
fn unzoned(text: &str) -> (&str, &str) {
    // A date has two hyphens before the time starts, so the zone's sign is looked for after the first colon.
    let from = text.find(':').unwrap_or(0);
    match text[from..].find(['Z', 'z', '+', '-']) {
        Some(at) => text.split_at(from + at),
        None => (text, ""),
    }
}

fn halves(text: &str) -> Option<[&str; 2]> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    Some([date, time])
}

fn digits(text: &str, len: std::ops::RangeInclusive<usize>) -> Option<u64> {
    let plain = len.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

fn nanos(fraction: Option<&str>) -> Option<u64> {
    let Some(fraction) = fraction else {
        return Some(0);
    };
    if fraction.is_empty() {
        return None;
    }
    let kept = &fraction[..fraction.len().min(9)];
    let scale = 10_u64.pow(9 - u32::try_from(kept.len()).ok()?);
    Some(digits(kept, 1..=9)? * scale)
}

/// The seconds of a zone, and whether it lies east of Greenwich.
fn offset(zone: &str) -> Option<(u64, bool)> {
    let (sign, text) = match zone.chars().next() {
        None | Some('Z' | 'z') if zone.len() <= 1 => return Some((0, true)),
        Some('+') => (true, &zone[1..]),
        Some('-') => (false, &zone[1..]),
        _ => return None,
    };
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2..=2)?, digits(minutes, 2..=2)?);
    (hours < 24 && minutes < 60).then_some((hours * 3600 + minutes * 60, sign))
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in(year: u64, month: u64) -> u64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the given day.
fn days_before(year: u64, month: u64, day: u64) -> u64 {
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    years + (1..month).map(|m| days_in(year, m)).sum::<u64>() + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: u64) {
        assert_eq!(UnixNanos::parse(text), Ok(UnixNanos(expect)), "{text}");
    }

    #[test]
    fn times_are_read_in_every_form() {
        check("1970-01-01 00:00:00", 0);
        check("1970-01-01T00:00:01Z", NANOS);
        check("2023-11-16 18:17:03.9799600", 1_700_158_623_979_960_000);
        check("2023-11-16T18:17:03.97996Z", 1_700_158_623_979_960_000);
        check("2023-11-16T20:17:03.97996+02:00", 1_700_158_623_979_960_000);
        check("2023-11-16T12:47:03-05:30", 1_700_158_623_000_000_000);
        check("1700158623", 1_700_158_623_000_000_000);
        check("1700158623.5", 1_700_158_623_500_000_000);
        check("1700158623.1234567899", 1_700_158_623_123_456_789);
        check("2000-02-29 00:00:00", 951_782_400_000_000_000);
        check("2100-03-01 00:00:00", 4_107_542_400_000_000_000);
    }

    #[test]
    fn wrong_times_are_refused() {
        for text in [
            "",
            ".",
            "-1",
            "1.",
            "1.5s",
            "2023-11-16",
            "2023-11-16 18:17",
            "2023-11-16 18:17:03.",
            "2023-11-16 18:17:03.5 UTC",
            "2023-02-29 00:00:00",
            "2023-13-01 00:00:00",
            "2023-11-16 24:00:00",
            "1969-12-31 00:00:00",
            "1970-01-01T00:00:00+01:00",
            "1700158623979",
            "99999999999",
            "2023-11-16T18:17:03+2:00",
            "2023-11-16T18:17:03Zulu",
            "日本",
            "2023-11-16 18:17:日",
        ] {
            assert!(UnixNanos::parse(text).is_err(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = UnixNanos::parse(&text);
        }

        #[test]
        fn near_times_do_not_panic(text in "[0-9]{0,5}[-T: .+Z0-9]{0,30}") {
            let _ = UnixNanos::parse(&text);
        }
    }
}
