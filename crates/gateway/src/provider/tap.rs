//! Usage read from an answer while it passes by.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use tidegate_core::{Tokens, Usage};

use super::Endpoint;
use super::sse::{CutKind, Splitter};
use super::stream::{Fate, StreamState};
use super::usage;

/// The longest event that is read; a longer one passes through unread.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// The longest answer that is kept to be read as a whole; of a longer one only the end is.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How much of the end of a long answer is kept.
const TAIL_BYTES: usize = 16 << 10;

/// Reads an answer while it is relayed: usage, progress, and whether it ended well. Memory is bounded; what it returns
/// is what goes to the client.
#[derive(Debug)]
pub struct ResponseTap {
    body: Body,
    usage: Usage,
}

/// An error that came in the middle of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamFault {
    /// The provider's name for it (`overloaded_error`, `rate_limit_exceeded` …), at most 64 characters.
    pub kind: String,
}

#[derive(Debug)]
enum Body {
    /// Relayed unread: compressed, or neither JSON nor events.
    Blind,
    Json(JsonTap),
    Events(Box<EventTap>),
}

impl ResponseTap {
    /// Makes the tap for an answer with these headers. `strip` takes out the usage that [`super::ensure_usage`] asked
    /// for.
    pub fn new(endpoint: Endpoint, headers: &HeaderMap, strip: bool) -> Self {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value: &http::HeaderValue| value.to_str().ok())
        };
        let plain = text(CONTENT_ENCODING).is_none_or(|coding| coding.eq_ignore_ascii_case("identity"))
            && (text(CONTENT_ENCODING).is_some() || !headers.contains_key(CONTENT_ENCODING));
        let media = text(CONTENT_TYPE).unwrap_or("application/json");
        let media = media.split(';').next().unwrap_or_default().trim();
        let body = if !plain || !endpoint.has_facts() {
            Body::Blind
        } else if media.eq_ignore_ascii_case("text/event-stream") {
            Body::Events(Box::new(EventTap::new(strip)))
        } else if media.eq_ignore_ascii_case("application/json") {
            Body::Json(JsonTap::default())
        } else {
            Body::Blind
        };
        Self {
            body,
            usage: Usage::default(),
        }
    }

    /// Returns whether the answer is an event stream.
    pub fn is_stream(&self) -> bool {
        matches!(self.body, Body::Events(_))
    }

    /// Returns whether what is relayed may differ from what came in, so that no `content-length` may be relayed.
    pub fn may_change_length(&self) -> bool {
        matches!(&self.body, Body::Events(events) if events.strip)
    }

    /// Takes the next bytes of the answer and returns the bytes to relay now; they may be none.
    pub fn push(&mut self, chunk: Bytes) -> Bytes {
        match &mut self.body {
            Body::Blind => chunk,
            Body::Json(json) => {
                json.push(&chunk);
                chunk
            }
            Body::Events(events) => events.push(&chunk),
        }
    }

    /// Takes the end of the answer and returns what is left to relay. Call it for broken answers too: what came of
    /// them belongs to the client.
    pub fn finish(&mut self) -> Bytes {
        match &mut self.body {
            Body::Blind => Bytes::new(),
            Body::Json(json) => {
                self.usage = json.usage().unwrap_or_default();
                Bytes::new()
            }
            Body::Events(events) => events.finish(),
        }
    }

    /// Returns the usage seen so far; complete after [`ResponseTap::finish`].
    pub fn usage(&self) -> Usage {
        match &self.body {
            Body::Blind | Body::Json(_) => self.usage,
            Body::Events(events) => events.state.usage(),
        }
    }

    /// Returns the output tokens that have passed so far in a stream: an estimate by length, or what was reported if
    /// that is more.
    pub fn output_seen(&self) -> Tokens {
        let reported = self.usage().output.unwrap_or(Tokens::ZERO);
        match &self.body {
            Body::Blind | Body::Json(_) => reported,
            Body::Events(events) => reported.max(Tokens::new(events.state.output_estimate())),
        }
    }

    /// Returns whether a stream said that it is complete (`[DONE]`, `message_stop`, `response.completed` …).
    pub fn is_complete(&self) -> bool {
        matches!(&self.body, Body::Events(events) if events.state.is_complete())
    }

    /// Returns the error that came in the middle of the stream, if one did.
    pub fn fault(&self) -> Option<&StreamFault> {
        match &self.body {
            Body::Blind | Body::Json(_) => None,
            Body::Events(events) => events.state.fault(),
        }
    }
}

/// A JSON answer: all of it while it is short, else its end.
#[derive(Debug, Default)]
struct JsonTap {
    kept: Vec<u8>,
    cut: bool,
}

impl JsonTap {
    fn push(&mut self, chunk: &[u8]) {
        self.kept.extend_from_slice(chunk);
        // Once cut, the buffer grows to twice the tail before it is cut again, so that each byte moves once.
        let bound = if self.cut {
            2 * TAIL_BYTES
        } else {
            ANSWER_BYTES_MAX
        };
        if self.kept.len() > bound {
            self.cut = true;
            self.kept.drain(..self.kept.len() - TAIL_BYTES);
            self.kept.shrink_to(2 * TAIL_BYTES);
        }
    }

    fn usage(&self) -> Option<Usage> {
        if self.cut {
            usage::in_tail(&self.kept)
        } else {
            usage::in_answer(&self.kept)
        }
    }
}

/// An event stream.
#[derive(Debug)]
struct EventTap {
    strip: bool,
    splitter: Splitter,
    state: StreamState,
    /// The beginning of an event whose end is not there yet.
    held: Vec<u8>,
    /// Whether the event at hand is too long to be read.
    oversized: bool,
    /// Whether the last whole event was removed.
    removed: bool,
}

impl EventTap {
    fn new(strip: bool) -> Self {
        Self {
            strip,
            splitter: Splitter::new(),
            state: StreamState::default(),
            held: Vec::new(),
            oversized: false,
            removed: false,
        }
    }

    fn push(&mut self, chunk: &Bytes) -> Bytes {
        let mut relay = Relay::new(chunk, self.strip);
        let mut at = 0;
        while at < chunk.len() {
            let cut = self.splitter.cut(&chunk[at..]);
            let end = at + cut.len;
            match cut.kind {
                CutKind::Tail if self.removed => {}
                CutKind::Tail => relay.pass(at, end),
                CutKind::Open => self.open(&mut relay, at, end),
                CutKind::Event => self.event(&mut relay, at, end),
            }
            at = end;
        }
        relay.finish()
    }

    fn open(&mut self, relay: &mut Relay<'_>, at: usize, end: usize) {
        if !self.oversized && self.held.len() + (end - at) > EVENT_BYTES_MAX {
            self.oversized = true;
            relay.put(&self.held);
            self.held = Vec::new();
        }
        if self.oversized {
            relay.pass(at, end);
        } else {
            self.held.extend_from_slice(&relay.chunk[at..end]);
        }
    }

    fn event(&mut self, relay: &mut Relay<'_>, at: usize, end: usize) {
        self.removed = false;
        if self.oversized {
            self.oversized = false;
            relay.pass(at, end);
            return;
        }
        if !self.held.is_empty() {
            let mut event = std::mem::take(&mut self.held);
            event.extend_from_slice(&relay.chunk[at..end]);
            let fate = self.state.event(&event);
            self.removed = self.strip && fate == Fate::Remove;
            relay.put_by(&fate, &event);
            // The allocation is worth keeping unless one long event made it large.
            if event.capacity() <= TAIL_BYTES {
                event.clear();
                self.held = event;
            }
            return;
        }
        let fate = self.state.event(&relay.chunk[at..end]);
        self.removed = self.strip && fate == Fate::Remove;
        match fate {
            Fate::Keep => relay.pass(at, end),
            Fate::Remove => {}
            Fate::Cut(range) => {
                relay.pass(at, at + range.start);
                relay.pass(at + range.end, end);
            }
        }
    }

    /// A stream that ends without an empty line has one more event.
    fn finish(&mut self) -> Bytes {
        let event = std::mem::take(&mut self.held);
        if event.is_empty() {
            return Bytes::new();
        }
        let fate = self.state.event(&event);
        let empty = Bytes::new();
        let mut relay = Relay::new(&empty, self.strip);
        relay.put_by(&fate, &event);
        relay.finish()
    }
}

/// What of a chunk is relayed: a slice of it as long as that suffices, else a copy.
struct Relay<'a> {
    chunk: &'a Bytes,
    /// Without it every chunk is relayed whole and at once.
    strip: bool,
    start: usize,
    end: usize,
    copy: Option<BytesMut>,
}

impl<'a> Relay<'a> {
    fn new(chunk: &'a Bytes, strip: bool) -> Self {
        Self {
            chunk,
            strip,
            start: 0,
            end: 0,
            copy: None,
        }
    }

    /// Relays a part of the chunk.
    fn pass(&mut self, start: usize, end: usize) {
        if !self.strip {
            return;
        }
        if self.copy.is_none() {
            if self.start == self.end {
                (self.start, self.end) = (start, end);
                return;
            }
            if self.end == start {
                self.end = end;
                return;
            }
        }
        let part = self.chunk.slice(start..end);
        self.put(&part);
    }

    /// Relays bytes from elsewhere.
    fn put(&mut self, bytes: &[u8]) {
        if !self.strip {
            return;
        }
        let copy = self.copy.get_or_insert_with(|| {
            let mut copy = BytesMut::with_capacity(self.chunk.len() + bytes.len());
            copy.put_slice(&self.chunk[self.start..self.end]);
            copy
        });
        copy.put_slice(bytes);
    }

    fn put_by(&mut self, fate: &Fate, event: &[u8]) {
        match fate {
            Fate::Keep => self.put(event),
            Fate::Remove => {}
            Fate::Cut(range) => {
                self.put(&event[..range.start]);
                self.put(&event[range.end..]);
            }
        }
    }

    fn finish(self) -> Bytes {
        match self.copy {
            _ if !self.strip => self.chunk.clone(),
            Some(copy) => copy.freeze(),
            None => self.chunk.slice(self.start..self.end),
        }
    }
}

#[cfg(test)]
mod tests;
