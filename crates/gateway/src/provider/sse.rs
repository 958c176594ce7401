//! Server-sent events, cut apart however they arrive.

use std::borrow::Cow;
use std::ops::Range;

/// The mark that some servers put before a UTF-8 text; an event stream may begin with it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Finds the ends of events in a byte stream. Lines end with `\n`, `\r\n` or `\r`; an empty line ends an event.
#[derive(Debug)]
pub(super) struct Splitter {
    line_is_empty: bool,
    pending: Pending,
}

/// Whether a `\r` was the last byte so far, so that a `\n` that follows belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    No,
    InEvent,
    AfterEvent,
}

/// What the first bytes of a piece are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) len: usize,
    pub(super) kind: CutKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CutKind {
    /// An event, or the end of one that began earlier.
    Event,
    /// The `\n` of a `\r\n` whose `\r` ended the last event.
    Tail,
    /// The beginning of an event whose end is not there yet.
    Open,
}

impl Splitter {
    pub(super) fn new() -> Self {
        Self {
            line_is_empty: true,
            pending: Pending::No,
        }
    }

    /// Cuts the next part off a piece of the stream; the rest is to be given next.
    pub(super) fn cut(&mut self, bytes: &[u8]) -> Cut {
        let mut at = 0;
        if let Some(&first) = bytes.first() {
            let pending = std::mem::replace(&mut self.pending, Pending::No);
            if first == b'\n' && pending == Pending::AfterEvent {
                return Cut {
                    len: 1,
                    kind: CutKind::Tail,
                };
            }
            at = usize::from(first == b'\n' && pending == Pending::InEvent);
        }
        while let Some(found) = memchr::memchr2(b'\n', b'\r', &bytes[at..]) {
            let ends_event = self.line_is_empty && found == 0;
            self.line_is_empty = true;
            let end = at + found;
            at = end + 1;
            if bytes[end] == b'\r' {
                match bytes.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None if ends_event => self.pending = Pending::AfterEvent,
                    None => self.pending = Pending::InEvent,
                }
            }
            if ends_event {
                return Cut {
                    len: at,
                    kind: CutKind::Event,
                };
            }
        }
        if at < bytes.len() {
            self.line_is_empty = false;
        }
        Cut {
            len: bytes.len(),
            kind: CutKind::Open,
        }
    }
}

/// The data of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Data<'a> {
    /// The text; several `data` lines are joined by line feeds.
    pub(super) text: Cow<'a, str>,
    /// Where it stands in the event, if it is one line.
    pub(super) at: Option<Range<usize>>,
}

impl<'a> Data<'a> {
    /// Reads the data of an event; `None` if it has none, or none in UTF-8.
    pub(super) fn of(event: &'a [u8]) -> Option<Self> {
        let mut data: Option<Self> = None;
        let mut at = if event.starts_with(BYTE_ORDER_MARK) {
            BYTE_ORDER_MARK.len()
        } else {
            0
        };
        while at < event.len() {
            let line_end = memchr::memchr2(b'\n', b'\r', &event[at..]).map_or(event.len(), |len| at + len);
            if let Some(value) = data_value(&event[at..line_end]) {
                let text = str::from_utf8(value).ok()?;
                data = Some(match data {
                    None => Self {
                        text: Cow::Borrowed(text),
                        at: Some(line_end - value.len()..line_end),
                    },
                    Some(first) => Self {
                        text: Cow::Owned(format!("{}\n{text}", first.text)),
                        at: None,
                    },
                });
            }
            at = line_end + 1;
        }
        data
    }
}

/// Returns the value of a `data` line.
fn data_value(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"data")?;
    if rest.is_empty() {
        return Some(rest);
    }
    let value = rest.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts a whole stream that arrives in pieces of the given length.
    fn events(stream: &[u8], piece: usize) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::new();
        let mut events = vec![Vec::new()];
        for mut piece in stream.chunks(piece) {
            while !piece.is_empty() {
                let cut = splitter.cut(piece);
                let (head, rest) = piece.split_at(cut.len);
                piece = rest;
                match cut.kind {
                    CutKind::Tail => {
                        let last = events.len() - 2;
                        events[last].extend(head);
                    }
                    CutKind::Open => events.last_mut().unwrap().extend(head),
                    CutKind::Event => {
                        events.last_mut().unwrap().extend(head);
                        events.push(Vec::new());
                    }
                }
            }
        }
        events
    }

    #[test]
    fn events_end_at_empty_lines() {
        for (stream, expect) in [
            ("data: a\n\ndata: b\n\n", vec!["data: a\n\n", "data: b\n\n", ""]),
            (
                "data: a\r\n\r\ndata: b\r\n\r\n",
                vec!["data: a\r\n\r\n", "data: b\r\n\r\n", ""],
            ),
            ("data: a\r\rdata: b\r\r", vec!["data: a\r\r", "data: b\r\r", ""]),
            ("data: a\r\r\ndata: b", vec!["data: a\r\r\n", "data: b"]),
            (
                "data: a\n\r\ndata: b\r\n\n",
                vec!["data: a\n\r\n", "data: b\r\n\n", ""],
            ),
            ("\n\n: ping\n\n", vec!["\n", "\n", ": ping\n\n", ""]),
            ("data: a\ndata: b\n\nrest", vec!["data: a\ndata: b\n\n", "rest"]),
            ("", vec![""]),
        ] {
            for piece in 1..=stream.len().max(1) {
                let actual = events(stream.as_bytes(), piece);
                let expect: Vec<_> = expect.iter().map(|event| event.as_bytes().to_vec()).collect();
                assert_eq!(actual, expect, "{stream:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn data_is_found() {
        for (event, text, at) in [
            ("data: a\n\n", Some("a"), Some(6..7)),
            ("data:a\r\n\r\n", Some("a"), Some(5..6)),
            ("data:  a\n\n", Some(" a"), Some(6..8)),
            ("event: x\ndata: {}\nid: 1\n\n", Some("{}"), Some(15..17)),
            ("data: a\ndata: b\n\n", Some("a\nb"), None),
            ("data\n\n", Some(""), Some(4..4)),
            ("\u{feff}data: a\n\n", Some("a"), Some(9..10)),
            (": data: a\n\n", None, None),
            ("database: a\n\n", None, None),
            ("data: a", Some("a"), Some(6..7)),
            ("", None, None),
        ] {
            let data = Data::of(event.as_bytes());
            assert_eq!(data.as_ref().map(|data| &*data.text), text, "{event:?}");
            assert_eq!(data.and_then(|data| data.at), at, "{event:?}");
        }
        assert_eq!(Data::of(b"data: \xff\n\n"), None);
    }
}
