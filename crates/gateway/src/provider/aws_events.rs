//! AWS's event streams (`application/vnd.amazon.eventstream`), read while they pass by.
//!
//! ```text
//!  total length u32 │ headers length u32 │ CRC of these two │ headers │ payload │ CRC of all
//!  header: name length u8 │ name │ type u8 │ value; of type 7: length u16 │ text
//! ```
//!
//! All numbers are big-endian. The checksums are the client's to verify: a stream whose lengths make no sense is relayed
//! unread from there on.

/// Bytes before the headers, and after the payload.
const PRELUDE: usize = 12;
const CHECKSUM: usize = 4;

/// The longest message that is read; a longer one passes through unread. AWS's own bound is 16 MiB.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The longest base64 that is read.
const BASE64_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// Cuts a stream into messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The beginning of a message whose end is not there yet.
    held: Vec<u8>,
    /// What is left to be skipped of a message that is too long to be read.
    skipped: usize,
    /// Whether the lengths made no sense.
    lost: bool,
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// `:event-type`, or `:exception-type`.
    pub(super) name: &'a str,
    /// Whether it is an exception.
    pub(super) is_exception: bool,
    pub(super) payload: &'a [u8],
}

impl Messages {
    /// Takes the next bytes in and shows every message that they complete.
    pub(super) fn push(&mut self, mut chunk: &[u8], mut each: impl FnMut(Message<'_>)) {
        while !chunk.is_empty() && !self.lost {
            if self.skipped > 0 {
                let len = self.skipped.min(chunk.len());
                self.skipped -= len;
                chunk = &chunk[len..];
                continue;
            }
            let wanted = self.wanted();
            let len = wanted.saturating_sub(self.held.len()).min(chunk.len());
            let (head, rest) = chunk.split_at(len);
            self.held.extend_from_slice(head);
            chunk = rest;
            if self.held.len() < self.wanted() {
                self.check();
            } else {
                self.lost = self.held.len() < PRELUDE + CHECKSUM;
                if let Some(message) = Message::read(&self.held) {
                    each(message);
                }
                self.held.clear();
            }
        }
    }

    /// Returns the length of the message at hand; of its prelude, while that is not whole.
    fn wanted(&self) -> usize {
        match self.held.first_chunk() {
            Some(total) if self.held.len() >= PRELUDE => u32::from_be_bytes(*total) as usize,
            _ => PRELUDE,
        }
    }

    /// Judges the length of the message at hand.
    fn check(&mut self) {
        if self.held.len() != PRELUDE {
            return;
        }
        let wanted = self.wanted();
        if wanted > MESSAGE_BYTES_MAX {
            self.skipped = wanted - PRELUDE;
            self.held.clear();
        }
    }
}

impl<'a> Message<'a> {
    /// Reads a whole message; `None` if it is neither an event nor an exception.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let headers_len = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?) as usize;
        let body = bytes.get(PRELUDE..bytes.len().checked_sub(CHECKSUM)?)?;
        let (mut headers, payload) = body.split_at_checked(headers_len)?;
        let mut event = None;
        let mut exception = None;
        while let Some((name, value, rest)) = header(headers) {
            headers = rest;
            match name {
                b":event-type" => event = str::from_utf8(value).ok(),
                b":exception-type" => exception = str::from_utf8(value).ok(),
                _ => {}
            }
        }
        Some(Self {
            name: exception.or(event)?,
            is_exception: exception.is_some(),
            payload,
        })
    }
}

/// Splits the first header off: its name, its value if that is a text (else nothing), and the rest.
fn header(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&name_len, bytes) = bytes.split_first()?;
    let (name, bytes) = bytes.split_at_checked(name_len.into())?;
    let (&kind, bytes) = bytes.split_first()?;
    let fixed = match kind {
        0 | 1 => 0,
        2 => 1,
        3 => 2,
        4 => 4,
        5 | 8 => 8,
        9 => 16,
        6 | 7 => {
            let (len, bytes) = bytes.split_first_chunk()?;
            let (value, rest) = bytes.split_at_checked(u16::from_be_bytes(*len).into())?;
            return Some((name, value, rest));
        }
        _ => return None,
    };
    let (_, rest) = bytes.split_at_checked(fixed)?;
    Some((name, &[], rest))
}

/// Reads base64 with the usual alphabet; `None` if it is none, or too long.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    if digits.len() > BASE64_BYTES_MAX || digits.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut bits = 0_u32;
        for digit in group {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

/// Makes a message as AWS does, but for its checksums.
#[cfg(test)]
pub(super) fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(u8::try_from(name.len()).unwrap());
        head.extend(name.as_bytes());
        head.push(7);
        head.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        head.extend(value.as_bytes());
    }
    let total = PRELUDE + head.len() + payload.len() + CHECKSUM;
    let mut bytes = u32::try_from(total).unwrap().to_be_bytes().to_vec();
    bytes.extend(u32::try_from(head.len()).unwrap().to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(head);
    bytes.extend(payload);
    bytes.extend([0; 4]);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(stream: &[u8], piece: usize) -> Vec<(String, bool, Vec<u8>)> {
        let mut messages = Messages::default();
        let mut read = Vec::new();
        for piece in stream.chunks(piece) {
            messages.push(piece, |message| {
                read.push((
                    message.name.to_owned(),
                    message.is_exception,
                    message.payload.to_vec(),
                ));
            });
            assert!(messages.held.len() <= MESSAGE_BYTES_MAX);
        }
        read
    }

    #[test]
    fn messages_are_found_however_they_arrive() {
        let mut stream = message(
            &[(":message-type", "event"), (":event-type", "contentBlockDelta")],
            b"{\"a\":1}",
        );
        stream.extend(message(&[(":content-type", "application/json")], b"unnamed"));
        stream.extend(message(&[(":event-type", "long")], &vec![0; MESSAGE_BYTES_MAX]));
        stream.extend(message(&[(":event-type", "metadata")], b""));
        stream.extend(message(&[(":exception-type", "throttlingException")], b"{}"));
        let expect = vec![
            ("contentBlockDelta".to_owned(), false, b"{\"a\":1}".to_vec()),
            ("metadata".to_owned(), false, vec![]),
            ("throttlingException".to_owned(), true, b"{}".to_vec()),
        ];
        for piece in [1, 2, 3, 5, 11, 12, 13, 100, 100_000, stream.len()] {
            assert_eq!(read(&stream, piece), expect, "pieces of {piece}");
        }
    }

    #[test]
    fn base64_is_read() {
        for (text, expect) in [
            ("", Some(&b""[..])),
            ("Zg==", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm9v", Some(b"foo")),
            ("Zm9vYg", Some(b"foob")),
            ("+/+/", Some(b"\xfb\xff\xbf")),
            ("Z", None),
            ("Zm9v!", None),
            ("Zm\n9v", None),
        ] {
            assert_eq!(base64(text).as_deref(), expect, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            prelude in proptest::collection::vec(0_u8..40, 12),
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            piece in 1_usize..50,
            text in "\\PC{0,20}",
        ) {
            let mut stream = prelude;
            stream[0] = 0;
            stream[1] = 0;
            stream.extend(bytes);
            read(&stream, piece);
            base64(&text);
        }
    }
}
