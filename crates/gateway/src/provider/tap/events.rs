//! Server-sent events on their way to the client.

use bytes::{BufMut, Bytes, BytesMut};

use super::super::sse::{CutKind, Splitter};
use super::super::stream::{Fate, StreamState};

/// The longest event that is read; a longer one passes through unread.
pub(super) const EVENT_BYTES_MAX: usize = 1 << 20;

/// The largest allocation that is kept from one event to the next.
const KEPT_BYTES_MAX: usize = 16 << 10;

/// An event stream.
#[derive(Debug)]
pub(super) struct EventTap {
    pub(super) strip: bool,
    splitter: Splitter,
    pub(super) state: StreamState,
    /// The beginning of an event whose end is not there yet.
    pub(super) held: Vec<u8>,
    /// Whether the event at hand is too long to be read.
    oversized: bool,
    /// Whether the last whole event was removed.
    removed: bool,
}

impl EventTap {
    pub(super) fn new(strip: bool) -> Self {
        Self {
            strip,
            splitter: Splitter::new(),
            state: StreamState::default(),
            held: Vec::new(),
            oversized: false,
            removed: false,
        }
    }

    pub(super) fn push(&mut self, chunk: &Bytes) -> Bytes {
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
            if event.capacity() <= KEPT_BYTES_MAX {
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
    pub(super) fn finish(&mut self) -> Bytes {
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
