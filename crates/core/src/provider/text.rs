//! Durations, dates and numbers as providers write them.
//!
//! Every function is total: what cannot be read, is negative (providers write -1 for "unknown") or does not fit gives
//! `None`, never a panic and never a guess.

use core::time::Duration;

use crate::time::Timestamp;

const NANOS_PER_SEC: u128 = 1_000_000_000;
const MICROS_PER_SEC: i128 = 1_000_000;

/// Units of [`duration`], with those first that begin like another one.
const UNITS: [(&str, u128); 9] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ns", 1),
    ("s", NANOS_PER_SEC),
    ("m", 60 * NANOS_PER_SEC),
    ("h", 3_600 * NANOS_PER_SEC),
    ("d", 86_400 * NANOS_PER_SEC),
];

/// Decimal digits after the point that can matter: a day has 8.64 × 10¹³ nanoseconds.
const FRACTION_DIGITS: u32 = 14;

/// Reads a duration as Go's `time.Duration` prints it (`6m0s`, `1m26.4s`, `120ms`), rounded up to the microsecond.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (value, rest) = leading_duration(text.trim())?;
    rest.is_empty().then_some(value)
}

/// Reads the duration at the start of a text, and returns what follows it.
pub(super) fn leading_duration(text: &str) -> Option<(Duration, &str)> {
    let mut rest = text;
    let mut nanos: u128 = 0;
    while let Some((part, after)) = duration_part(rest) {
        nanos = nanos.checked_add(part?)?;
        rest = after;
    }
    if rest.len() == text.len() {
        return None;
    }
    Some((from_nanos(nanos)?, rest))
}

/// Reads a number of seconds without a unit (`2`, `0.5`), rounded up to the microsecond.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let (number, rest) = leading_decimal(text.trim())?;
    if !rest.is_empty() {
        return None;
    }
    from_nanos(number?.times(NANOS_PER_SEC)?)
}

/// Reads a number of milliseconds without a unit, rounded up to the microsecond.
pub(super) fn milliseconds(text: &str) -> Option<Duration> {
    let (number, rest) = leading_decimal(text.trim())?;
    if !rest.is_empty() {
        return None;
    }
    from_nanos(number?.times(1_000_000)?)
}

/// Reads a wait at the start of a sentence's rest: a Go duration (`1.574s`) or seconds in words (`2 seconds`).
pub(super) fn leading_wait(text: &str) -> Option<Duration> {
    if let Some((value, _)) = leading_duration(text) {
        return Some(value);
    }
    let (number, rest) = leading_decimal(text)?;
    let unit = match rest.trim_start().get(..6)? {
        "second" => NANOS_PER_SEC,
        "minute" => 60 * NANOS_PER_SEC,
        "millis" => 1_000_000,
        _ => return None,
    };
    from_nanos(number?.times(unit)?)
}

/// Reads a whole number, with or without thousands commas.
pub(super) fn integer(text: &str) -> Option<u64> {
    let (value, rest) = leading_integer(text.trim())?;
    if rest.is_empty() { value } else { None }
}

/// Reads the whole number at the start of a text, and returns what follows it. A comma belongs to the number only if
/// three digits follow. The number is `None` if it does not fit.
pub(super) fn leading_integer(text: &str) -> Option<(Option<u64>, &str)> {
    let bytes = text.as_bytes();
    let mut value = Some(0_u64);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte.is_ascii_digit() {
            value = value
                .and_then(|value| value.checked_mul(10))
                .and_then(|value| value.checked_add(u64::from(byte - b'0')));
        } else if byte != b',' || at == 0 || !is_thousands_group(&bytes[at + 1..]) {
            break;
        }
        at += 1;
    }
    (at > 0).then(|| (value, &text[at..]))
}

/// Reads the whole number at the end of a text, with or without thousands commas.
pub(super) fn trailing_integer(text: &str) -> Option<u64> {
    let start = text
        .rfind(|c: char| !c.is_ascii_digit() && c != ',')
        .map_or(0, |at| at + text[at..].chars().next().map_or(0, char::len_utf8));
    integer(text[start..].trim_start_matches(','))
}

/// Returns what follows the first occurrence of an ASCII text, without regard to case.
pub(super) fn after<'a>(text: &'a str, needle: &str) -> Option<&'a str> {
    let (bytes, needle) = (text.as_bytes(), needle.as_bytes());
    let at = bytes
        .windows(needle.len().max(1))
        .position(|window| window.eq_ignore_ascii_case(needle))?;
    text.get(at + needle.len()..)
}

/// Returns whether an ASCII text occurs, without regard to case.
pub(super) fn contains(text: &str, needle: &str) -> bool {
    after(text, needle).is_some()
}

/// Reads a moment as RFC 3339 writes it and returns the time until then; zero if it is past.
pub(super) fn until_rfc3339(now: Timestamp, text: &str) -> Option<Duration> {
    let mut cursor = Cursor(text.trim());
    let year = cursor.digits(4)?;
    cursor.byte(b"-")?;
    let month = cursor.digits(2)?;
    cursor.byte(b"-")?;
    let day = cursor.digits(2)?;
    cursor.byte(b"Tt ")?;
    let time = cursor.time_of_day()?;
    let fraction = cursor.fraction_micros()?;
    let offset_secs = cursor.offset_secs()?;
    if !cursor.0.is_empty() {
        return None;
    }
    let secs = epoch_days(year, month, day)? * 86_400 + time - offset_secs;
    Some(until(
        now,
        i128::from(secs) * MICROS_PER_SEC + i128::from(fraction),
    ))
}

/// Reads a moment as HTTP writes it (`Sun, 06 Nov 1994 08:49:37 GMT`) and returns the time until then; zero if past.
pub(super) fn until_http_date(now: Timestamp, text: &str) -> Option<Duration> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (weekday, rest) = text.trim().split_once(", ")?;
    if weekday.len() != 3 {
        return None;
    }
    let mut cursor = Cursor(rest);
    let day = cursor.digits(2)?;
    cursor.byte(b" ")?;
    let name = cursor.take(3)?;
    let month = MONTHS.iter().position(|month| *month == name)?;
    cursor.byte(b" ")?;
    let year = cursor.digits(4)?;
    cursor.byte(b" ")?;
    let time = cursor.time_of_day()?;
    if cursor.0 != " GMT" {
        return None;
    }
    let secs = epoch_days(year, i64::try_from(month).ok()? + 1, day)? * 86_400 + time;
    Some(until(now, i128::from(secs) * MICROS_PER_SEC))
}

/// Reads a moment as a Unix time in seconds or milliseconds, and returns the time until then; zero if it is past.
///
/// Numbers below 10⁹ (2001) are spans and not moments; from 10¹¹ on (5138, or 1973) they are milliseconds.
pub(super) fn until_epoch(now: Timestamp, text: &str) -> Option<Duration> {
    let number = integer(text).filter(|number| *number >= 1_000_000_000)?;
    let moment = if number < 100_000_000_000 {
        Timestamp::from_secs(number)
    } else {
        Timestamp::from_millis(number)
    };
    Some(moment.since(now))
}

/// A decimal number: its digits before the point, and up to [`FRACTION_DIGITS`] of those after it.
struct Decimal {
    whole: u64,
    fraction: u64,
    digits: u32,
}

impl Decimal {
    /// Multiplies by a whole number, rounding up.
    fn times(&self, factor: u128) -> Option<u128> {
        let fraction = u128::from(self.fraction)
            .checked_mul(factor)?
            .div_ceil(10_u128.pow(self.digits));
        u128::from(self.whole).checked_mul(factor)?.checked_add(fraction)
    }
}

/// Reads an unsigned decimal number at the start of a text. The outer `None` means that there is none, the inner one
/// that it does not fit.
fn leading_decimal(text: &str) -> Option<(Option<Decimal>, &str)> {
    let whole_len = text.bytes().take_while(u8::is_ascii_digit).count();
    if whole_len == 0 {
        return None;
    }
    let (whole, rest) = text.split_at(whole_len);
    let whole = whole.parse().ok();
    let fraction_len = rest
        .strip_prefix('.')
        .map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    if fraction_len == 0 {
        return Some((
            whole.map(|whole| Decimal {
                whole,
                fraction: 0,
                digits: 0,
            }),
            rest,
        ));
    }
    let mut fraction = 0;
    let mut digits = 0;
    for byte in rest[1..=fraction_len].bytes().take(FRACTION_DIGITS as usize) {
        fraction = fraction * 10 + u64::from(byte - b'0');
        digits += 1;
    }
    let number = whole.map(|whole| Decimal {
        whole,
        fraction,
        digits,
    });
    Some((number, &rest[1 + fraction_len..]))
}

/// Reads one number with its unit; `Some((None, _))` if it does not fit.
fn duration_part(text: &str) -> Option<(Option<u128>, &str)> {
    let (number, rest) = leading_decimal(text)?;
    let (name, nanos) = UNITS.into_iter().find(|(name, _)| rest.starts_with(name))?;
    Some((number.and_then(|number| number.times(nanos)), &rest[name.len()..]))
}

fn from_nanos(nanos: u128) -> Option<Duration> {
    u64::try_from(nanos.div_ceil(1_000))
        .ok()
        .map(Duration::from_micros)
}

fn is_thousands_group(bytes: &[u8]) -> bool {
    let digits = bytes
        .iter()
        .take(4)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    digits == 3
}

fn until(now: Timestamp, micros: i128) -> Duration {
    match u64::try_from(micros) {
        Ok(micros) => Timestamp::from_micros(micros).since(now),
        Err(_) => Duration::ZERO,
    }
}

/// Returns the days from 1970-01-01 to a day of the Gregorian calendar.
///
/// Years begin in March here, so that the leap day is the last one and months need one linear formula.
fn epoch_days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let month_len = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=month_len).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    Some(year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468)
}

/// A text read from its start.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a str> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    fn byte(&mut self, allowed: &[u8]) -> Option<u8> {
        let byte = *self.take(1)?.as_bytes().first()?;
        allowed.contains(&byte).then_some(byte)
    }

    fn digits(&mut self, len: usize) -> Option<i64> {
        let text = self.take(len)?;
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        text.parse().ok()
    }

    /// Reads `15:04:05` as seconds of the day; a leap second counts as the one after it.
    fn time_of_day(&mut self) -> Option<i64> {
        let hour = self.digits(2)?;
        self.byte(b":")?;
        let minute = self.digits(2)?;
        self.byte(b":")?;
        let second = self.digits(2)?;
        (hour < 24 && minute < 60 && second <= 60).then_some(hour * 3_600 + minute * 60 + second)
    }

    /// Reads `.123456…`, if it is there, rounded down to the microsecond.
    fn fraction_micros(&mut self) -> Option<i64> {
        let Some(rest) = self.0.strip_prefix('.') else {
            return Some(0);
        };
        let len = rest.bytes().take_while(u8::is_ascii_digit).count();
        if len == 0 {
            return None;
        }
        let mut micros = 0;
        for place in 0..6 {
            let digit = if place < len {
                rest.as_bytes()[place] - b'0'
            } else {
                0
            };
            micros = micros * 10 + i64::from(digit);
        }
        self.0 = &rest[len..];
        Some(micros)
    }

    /// Reads `Z` or `+02:00`.
    fn offset_secs(&mut self) -> Option<i64> {
        let sign = match self.byte(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(0),
        };
        let hours = self.digits(2)?;
        self.byte(b":")?;
        let minutes = self.digits(2)?;
        (hours < 24 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
    }
}

#[cfg(test)]
mod tests;
