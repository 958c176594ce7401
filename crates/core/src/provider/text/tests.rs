use alloc::format;
use alloc::string::String;

use proptest::prelude::*;

use super::*;

fn micros(value: u64) -> Option<Duration> {
    Some(Duration::from_micros(value))
}

#[test]
fn durations() {
    for (text, expect) in [
        ("1s", micros(1_000_000)),
        ("6m0s", micros(360_000_000)),
        ("8ms", micros(8_000)),
        ("120ms", micros(120_000)),
        ("8.64s", micros(8_640_000)),
        ("4m12.172s", micros(252_172_000)),
        ("16m33.562s", micros(993_562_000)),
        ("23h18m29.144s", micros(83_909_144_000)),
        ("114h18m0s", micros(411_480_000_000)),
        ("1m26.4s", micros(86_400_000)),
        ("9m38.016s", micros(578_016_000)),
        ("2m59.56s", micros(179_560_000)),
        ("3.114s", micros(3_114_000)),
        ("0s", micros(0)),
        ("1.5µs", micros(2)),
        ("15us", micros(15)),
        ("15μs", micros(15)),
        ("1ns", micros(1)),
        ("2d", micros(172_800_000_000)),
        (" 1s ", micros(1_000_000)),
        ("1.s", None),
        ("", None),
        ("1", None),
        ("s", None),
        ("-1s", None),
        ("1s1", None),
        ("1 s", None),
        ("1x", None),
        ("1e3s", None),
        ("99999999999999999999s", None),
        ("18446744073709551615h", None),
        ("18446744073709.551615s", micros(u64::MAX)),
        ("18446744073709.551616s", None),
        ("0.00000000000000000000000000000000000000000000001s", micros(0)),
    ] {
        assert_eq!(duration(text), expect, "{text}");
    }
}

#[test]
fn plain_numbers_of_time() {
    for (text, expect) in [
        ("16", micros(16_000_000)),
        ("0.5", micros(500_000)),
        ("0", micros(0)),
        (" 2 ", micros(2_000_000)),
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("NaN", None),
        ("inf", None),
        ("1s", None),
        ("", None),
        ("99999999999999999999", None),
    ] {
        assert_eq!(seconds(text), expect, "{text}");
    }
    assert_eq!(milliseconds("2000"), micros(2_000_000));
    assert_eq!(milliseconds("0.5"), micros(500));
    assert_eq!(milliseconds("-5"), None);
}

#[test]
fn waits_in_sentences() {
    for (text, expect) in [
        ("1.574s. Visit https://…", micros(1_574_000)),
        ("644ms. Visit", micros(644_000)),
        ("1m26.4s.", micros(86_400_000)),
        ("2 seconds.", micros(2_000_000)),
        ("1 second", micros(1_000_000)),
        ("5 minutes", micros(300_000_000)),
        ("20.04466179s.", micros(20_044_662)),
        ("later", None),
        ("2", None),
        ("2 µµµµµµ", None),
    ] {
        assert_eq!(leading_wait(text), expect, "{text}");
    }
}

#[test]
fn integers() {
    for (text, expect) in [
        ("60", Some(60)),
        ("30,000", Some(30_000)),
        ("1,500,000", Some(1_500_000)),
        ("18446744073709551615", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("-1", None),
        ("1,00", None),
        (",000", None),
        ("1,0000", None),
        ("1.0", None),
        ("", None),
    ] {
        assert_eq!(integer(text), expect, "{text}");
    }
    assert_eq!(leading_integer("30000, Used 1"), Some((Some(30_000), ", Used 1")));
    assert_eq!(leading_integer("30,000."), Some((Some(30_000), ".")));
    assert_eq!(trailing_integer("rate limit of 30,000"), Some(30_000));
    assert_eq!(trailing_integer("µ7"), Some(7));
    assert_eq!(trailing_integer("rate limit of"), None);
}

#[test]
fn dates() {
    let now = Timestamp::from_secs(1_748_877_332); // 2025-06-02T15:15:32Z
    for (text, expect) in [
        ("2025-06-02T15:15:48Z", micros(16_000_000)),
        ("2025-06-02T15:15:48.25Z", micros(16_250_000)),
        ("2025-06-02T15:15:48.123456789Z", micros(16_123_456)),
        ("2025-06-02T17:15:48+02:00", micros(16_000_000)),
        ("2025-06-02T08:45:48-06:30", micros(16_000_000)),
        ("2025-06-02t15:15:48z", micros(16_000_000)),
        ("2025-06-02T15:14:45Z", micros(0)),
        ("1960-01-01T00:00:00Z", micros(0)),
        ("0000-01-01T00:00:00Z", micros(0)),
        ("2025-06-31T00:00:00Z", None),
        ("2025-02-29T00:00:00Z", None),
        ("2025-13-01T00:00:00Z", None),
        ("2025-06-02T25:00:00Z", None),
        ("2025-06-02T15:15:48", None),
        ("2025-06-02T15:15:48.Z", None),
        ("2025-06-02", None),
        ("20250602T151548Z", None),
        ("", None),
    ] {
        assert_eq!(until_rfc3339(now, text), expect, "{text}");
    }
    for (text, expect) in [
        ("Mon, 02 Jun 2025 15:15:48 GMT", micros(16_000_000)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", micros(0)),
        ("Mon, 02 Jun 2025 15:15:48 UTC", None),
        ("Mon, 31 Jun 2025 15:15:48 GMT", None),
        ("Monday, 02-Jun-25 15:15:48 GMT", None),
        ("02 Jun 2025 15:15:48 GMT", None),
        ("", None),
    ] {
        assert_eq!(until_http_date(now, text), expect, "{text}");
    }
    assert_eq!(
        until_http_date(Timestamp::ZERO, "Sun, 06 Nov 1994 08:49:37 GMT"),
        Some(Duration::from_secs(784_111_777))
    );
    assert_eq!(
        until_rfc3339(Timestamp::ZERO, "9999-12-31T23:59:60Z"),
        Some(Duration::from_secs(253_402_300_800))
    );
}

#[test]
fn unix_times() {
    let now = Timestamp::from_secs(1_791_331_000);
    for (text, expect) in [
        ("1791331200000", micros(200_000_000)),
        ("1791331200", micros(200_000_000)),
        ("1791330000", micros(0)),
        ("60", None),
        ("999999999", None),
        ("-1", None),
        ("1791331200.5", None),
        ("18446744073709551616", None),
        ("", None),
    ] {
        assert_eq!(until_epoch(now, text), expect, "{text}");
    }
    assert!(until_epoch(now, "18446744073709551615").is_some());
}

/// Prints a duration as Go does, for whole microseconds.
fn go(micros: u64) -> String {
    let (secs, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (hours, minutes, secs) = (secs / 3_600, secs / 60 % 60, secs % 60);
    match (hours, minutes) {
        (0, 0) => format!("{secs}.{fraction:06}s"),
        (0, _) => format!("{minutes}m{secs}.{fraction:06}s"),
        _ => format!("{hours}h{minutes}m{secs}.{fraction:06}s"),
    }
}

proptest! {
    #[test]
    fn durations_round_trip(value in any::<u64>()) {
        prop_assert_eq!(duration(&go(value)), micros(value));
    }

    #[test]
    fn dates_round_trip(days in 0_i64..2_932_896, secs in 0_i64..86_400, fraction in 0_u64..1_000_000) {
        let (year, month, day) = civil(days);
        let text = format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{fraction:06}Z",
            secs / 3_600, secs / 60 % 60, secs % 60
        );
        let expect = u64::try_from(days * 86_400 + secs).unwrap() * 1_000_000 + fraction;
        prop_assert_eq!(until_rfc3339(Timestamp::ZERO, &text), micros(expect));
    }

    #[test]
    fn nothing_panics(text in "\\PC*", grammar in "[0-9a-zµ:., TZ+-]{0,40}", now in any::<u64>()) {
        let now = Timestamp::from_micros(now);
        for text in [&text, &grammar] {
            let _ = (duration(text), seconds(text), milliseconds(text), leading_wait(text), integer(text));
            let _ = (trailing_integer(text), until_rfc3339(now, text), until_http_date(now, text));
            let _ = until_epoch(now, text);
            let _ = (after(text, "try again in "), leading_integer(text));
        }
    }
}

/// Counts days forward from the epoch, the slow and plain way.
fn civil(mut days: i64) -> (i64, i64, i64) {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while days >= 365 + i64::from(leap(year)) {
        days -= 365 + i64::from(leap(year));
        year += 1;
    }
    let lens = [
        31,
        28 + i64::from(leap(year)),
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 1;
    for len in lens {
        if days < len {
            break;
        }
        days -= len;
        month += 1;
    }
    (year, month, days + 1)
}
