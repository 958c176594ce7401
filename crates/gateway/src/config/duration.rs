//! Lengths of time as people write them: `500ms`, `60s`, `10m`, `1h30m`, `1d`.

use std::fmt;
use std::time::Duration;

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Why a text is not a length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// A number is missing.
    #[error("a number is missing; write whole numbers, each with its unit, such as \"1h30m\"")]
    NoNumber,
    /// A number has no unit, or one that is not known.
    #[error("a unit is missing or not known; the units are ms, s, m, h and d, as in \"500ms\" or \"60s\"")]
    NoUnit,
    /// The units do not go from large to small.
    #[error("units go from large to small, each at most once, as in \"1h30m\"")]
    Order,
    /// It is too long to be counted.
    #[error("it is too long")]
    TooLong,
}

/// Reads a length of time.
///
/// # Errors
///
/// Returns what is wrong with the text; the text itself is not in the error.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(DurationError::Empty);
    }
    let mut total: u64 = 0;
    let mut smaller_than = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(DurationError::NoNumber);
        }
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let (_, factor) = UNITS
            .into_iter()
            .find(|(name, _)| *name == unit)
            .ok_or(DurationError::NoUnit)?;
        if factor >= smaller_than {
            return Err(DurationError::Order);
        }
        smaller_than = factor;
        let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
        total = number
            .checked_mul(factor)
            .and_then(|part| total.checked_add(part))
            .ok_or(DurationError::TooLong)?;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

/// Writes a length of time as [`parse`] reads it, in whole milliseconds.
pub fn display(duration: Duration) -> impl fmt::Display {
    Shown(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

struct Shown(u64);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A minute is written "60s", not "1m": limits are spoken of in these terms.
        if self.0 == 60_000 {
            return f.write_str("60s");
        }
        let mut rest = self.0;
        for (unit, factor) in UNITS.into_iter().rev() {
            if rest >= factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        if self.0 == 0 { f.write_str("0s") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let check = |text: &str, ms: u64| assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        check("500ms", 500);
        check("60s", 60_000);
        check("10m", 600_000);
        check("1h30m", 5_400_000);
        check("1d", 86_400_000);
        check(" 1m1ms ", 60_001);
        check("0s", 0);
    }

    #[test]
    fn says_what_is_wrong() {
        let check = |text: &str, error| assert_eq!(parse(text), Err(error), "{text}");
        check("", DurationError::Empty);
        check("60", DurationError::NoUnit);
        check("60 s", DurationError::NoUnit);
        check("1.5s", DurationError::NoUnit);
        check("60sec", DurationError::NoUnit);
        check("60µs", DurationError::NoUnit);
        check("-1s", DurationError::NoNumber);
        check("s", DurationError::NoNumber);
        check("30m1h", DurationError::Order);
        check("1s1s", DurationError::Order);
        check("99999999999999999999s", DurationError::TooLong);
        check("18446744073709551615d", DurationError::TooLong);
    }

    #[test]
    fn shows_what_it_reads() {
        for text in ["0s", "500ms", "60s", "10m", "1h30m", "1d", "1d2h3m4s5ms"] {
            assert_eq!(display(parse(text).unwrap()).to_string(), text);
        }
    }
}
