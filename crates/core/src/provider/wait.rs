//! How long a refusal asks to wait.

use core::time::Duration;

use super::{Headers, text};
use crate::signal::Readings;
use crate::time::Timestamp;
use crate::units::{Amount, Dimension};

/// Returns the wait that headers or message state: `retry-after-ms`, then `retry-after` (seconds or a date), then
/// "try again in …" (providers.md §2.4).
///
/// A header that is only the message's wait rounded to its own unit yields to the message, which is exact: the
/// provider's window is solved from it.
pub(super) fn stated(now: Timestamp, headers: &impl Headers, message: &str) -> Option<Duration> {
    let said = in_message(message);
    let header = headers
        .text("retry-after-ms")
        .and_then(text::milliseconds)
        .or_else(|| retry_after(now, headers.text("retry-after")?));
    match (header, said) {
        (Some(header), Some(said)) if header.abs_diff(said) < Duration::from_secs(1) => Some(said),
        (header, said) => header.or(said),
    }
}

/// Returns the time until the dimension's limit is whole again, or, where it is not known which one refused, until
/// all those are that have nothing left. It is more than needed, and used only where nothing better is said.
pub(super) fn until_reset(readings: &Readings, dimension: Option<Dimension>) -> Option<Duration> {
    if let Some(dimension) = dimension {
        return readings.reading(dimension)?.reset;
    }
    Dimension::ALL
        .into_iter()
        .filter_map(|dimension| readings.reading(dimension))
        .filter(|reading| reading.remaining == Some(Amount::ZERO))
        .filter_map(|reading| reading.reset)
        .max()
}

fn retry_after(now: Timestamp, value: &str) -> Option<Duration> {
    text::seconds(value).or_else(|| text::until_http_date(now, value))
}

fn in_message(message: &str) -> Option<Duration> {
    ["try again in ", "retry after ", "retry in "]
        .into_iter()
        .find_map(|lead| text::leading_wait(text::after(message, lead)?))
}
