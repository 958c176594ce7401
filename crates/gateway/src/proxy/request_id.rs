//! Identifiers of requests: `tg-`, eight digits of this worker, eight of the request.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

use http::HeaderValue;

const LENGTH: usize = 3 + 8 + 8;

/// Gives every request of one worker an identifier of its own.
#[derive(Debug)]
pub(crate) struct RequestIds {
    worker: u32,
    next: AtomicU32,
}

/// The identifier of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId([u8; LENGTH]);

impl RequestIds {
    /// Begins a series that no other worker of any process is likely to have.
    pub(crate) fn new() -> Self {
        let random = RandomState::new().hash_one("request identifiers");
        Self {
            worker: (random >> 32) as u32,
            next: AtomicU32::new(random as u32),
        }
    }

    /// Returns the next identifier.
    pub(crate) fn next(&self) -> RequestId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut text = *b"tg-0000000000000000";
        write_hex(&mut text[3..11], self.worker);
        write_hex(&mut text[11..], number);
        RequestId(text)
    }
}

impl RequestId {
    /// Returns the identifier as text.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Returns the identifier as the value of a header.
    pub(crate) fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or(HeaderValue::from_static(""))
    }
}

fn write_hex(digits: &mut [u8], number: u32) {
    for (at, digit) in digits.iter_mut().rev().enumerate() {
        let nibble = (number >> (4 * at)) & 0xf;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_count_up() {
        let ids = RequestIds {
            worker: 0xdead_beef,
            next: AtomicU32::new(u32::MAX),
        };
        assert_eq!(ids.next().as_str(), "tg-deadbeefffffffff");
        assert_eq!(ids.next().as_str(), "tg-deadbeef00000000");
        assert_eq!(ids.next().header(), "tg-deadbeef00000001");
    }
}
