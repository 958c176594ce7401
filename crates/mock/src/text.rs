//! Small texts: durations, times, base64.

use std::fmt::Write;
use std::time::Duration;

use crate::limits::civil;

/// Writes a duration as Go prints it, in whole milliseconds: `0s`, `8ms`, `8.64s`, `1m26.4s`, `114h18m0s`
/// (providers.md §2.4).
pub(crate) fn go_duration(span: Duration) -> String {
    let millis = span.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1_000 {
        return format!("{millis}ms");
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let mut text = String::new();
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if millis >= 60_000 {
        let _ = write!(text, "{minutes}m");
    }
    let fraction = format!("{:03}", millis % 1_000);
    let fraction = fraction.trim_end_matches('0');
    let _ = write!(text, "{}", millis / 1_000 % 60);
    if !fraction.is_empty() {
        let _ = write!(text, ".{fraction}");
    }
    text.push('s');
    text
}

/// Rounds up to whole milliseconds, at least one: a wait that is stated must not be too short.
pub(crate) fn up_to_millis(wait: Duration) -> Duration {
    let millis = wait.as_micros().div_ceil(1_000).max(1);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// Writes a Unix time in whole seconds as RFC 3339 in UTC.
pub(crate) fn rfc_3339(unix_seconds: u64) -> String {
    let (year, month, date) = civil::date(unix_seconds / 86_400);
    let second = unix_seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

/// Writes a number with thousands separated, as Anthropic's messages do.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Appends bytes in base64, padded.
pub(crate) fn base64(text: &mut String, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            if place <= chunk.len() {
                text.push(char::from(ALPHABET[(word >> (18 - 6 * place) & 63) as usize]));
            } else {
                text.push('=');
            }
        }
    }
}

/// Decodes `%20` and its kin; what is not a code stays as it is.
pub(crate) fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            decoded.push(byte);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Writes a text as a JSON string, with its quotes.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every sample of providers.md §2.4 that is in whole milliseconds.
    #[test]
    fn durations_are_written_as_go_does() {
        let check = |millis, expect: &str| assert_eq!(go_duration(Duration::from_millis(millis)), expect);
        check(0, "0s");
        check(8, "8ms");
        check(120, "120ms");
        check(1_000, "1s");
        check(8_640, "8.64s");
        check(1_574, "1.574s");
        check(60_000, "1m0s");
        check(360_000, "6m0s");
        check(86_400, "1m26.4s");
        check(252_172, "4m12.172s");
        check(411_480_000, "114h18m0s");
        check(83_909_144, "23h18m29.144s");
        check(3_600_000, "1h0m0s");
    }

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!(up_to_millis(Duration::from_micros(1)), Duration::from_millis(1));
        assert_eq!(
            up_to_millis(Duration::from_micros(1_000)),
            Duration::from_millis(1)
        );
        assert_eq!(
            up_to_millis(Duration::from_micros(1_001)),
            Duration::from_millis(2)
        );
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        let check = |unix, expect: &str| assert_eq!(rfc_3339(unix), expect);
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(1_711_483_200, "2024-03-26T20:00:00Z");
        check(1_748_877_348, "2025-06-02T15:15:48Z");
        check(4_107_542_399, "2100-02-28T23:59:59Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
    }

    #[test]
    fn numbers_have_their_thousands_separated() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(30_000), "30,000");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }

    #[test]
    fn percent_codes_are_decoded() {
        let check = |text, expect: &str| assert_eq!(percent_decoded(text), expect);
        check("anthropic.claude%3A0", "anthropic.claude:0");
        check("100%", "100%");
        check("%zz%é%e2%82%ac", "%zz%é€");
    }

    #[test]
    fn base64_pads() {
        let check = |bytes: &[u8], expect: &str| {
            let mut text = String::new();
            base64(&mut text, bytes);
            assert_eq!(text, expect);
        };
        check(b"", "");
        check(b"f", "Zg==");
        check(b"fo", "Zm8=");
        check(b"foo", "Zm9v");
        check(b"foobar", "Zm9vYmFy");
        check(&[0xff, 0xfe], "//4=");
    }
}
