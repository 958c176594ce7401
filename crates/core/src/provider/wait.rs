//! How long a refusal asks to wait.

use core::time::Duration;

use super::json::ErrorFields;
use super::{Headers, text};
use crate::signal::Readings;
use crate::time::Timestamp;
use crate::units::{Amount, Dimension};

/// Returns the wait that headers or body state: `retry-after-ms`, then `retry-after` (seconds or a date), then "try
/// again in …" or the delay of Gemini's `RetryInfo` (providers.md §2.4, §5.1).
///
/// A statement that is only the message's wait rounded to its own unit yields to the message, which is exact: the
/// provider's window is solved from it.
pub(super) fn stated(now: Timestamp, headers: &impl Headers, error: &ErrorFields) -> Option<Duration> {
    let said = in_message(&error.message);
    let rounded = in_headers(now, headers).or_else(|| text::duration(&error.retry_delay));
    match (rounded, said) {
        (Some(rounded), Some(said)) if rounded.abs_diff(said) < Duration::from_secs(1) => Some(said),
        (rounded, said) => rounded.or(said),
    }
}

/// Returns the wait that the headers for it state.
pub(super) fn in_headers(now: Timestamp, headers: &impl Headers) -> Option<Duration> {
    headers
        .text("retry-after-ms")
        .and_then(text::milliseconds)
        .or_else(|| retry_after(now, headers.text("retry-after")?))
}

/// Returns the wait that a sentence states.
pub(super) fn in_message(message: &str) -> Option<Duration> {
    ["try again in ", "retry after ", "retry in "]
        .into_iter()
        .find_map(|lead| text::leading_wait(text::after(message, lead)?))
}

/// Returns the time until the limits are whole again that have nothing left, of the refused dimension if that is known;
/// else until the dimension's first limit is. It is more than needed, and used only where nothing better is said.
pub(super) fn until_reset(readings: &Readings, dimension: Option<Dimension>) -> Option<Duration> {
    let empty = readings
        .iter()
        .filter(|(of, reading)| {
            dimension.is_none_or(|dimension| dimension == *of) && reading.remaining == Some(Amount::ZERO)
        })
        .filter_map(|(_, reading)| reading.reset)
        .max();
    empty.or_else(|| readings.reading(dimension?)?.reset)
}

fn retry_after(now: Timestamp, value: &str) -> Option<Duration> {
    text::seconds(value).or_else(|| text::until_http_date(now, value))
}
