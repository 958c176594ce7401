//! Asking for usage in a stream whose client did not ask.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::RequestFacts;

/// A change to a body: some bytes replaced by others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Splice {
    pub(super) at: Range<usize>,
    pub(super) with: &'static str,
}

impl Splice {
    /// Returns the changed body; `None` if the place is not in it.
    pub(super) fn apply(&self, body: &[u8]) -> Option<Bytes> {
        let head = body.get(..self.at.start)?;
        let tail = body.get(self.at.end..)?;
        let mut changed = BytesMut::with_capacity(head.len() + self.with.len() + tail.len());
        changed.put_slice(head);
        changed.put_slice(self.with.as_bytes());
        changed.put_slice(tail);
        Some(changed.freeze())
    }
}

/// Returns the body with `"stream_options":{"include_usage":true}` added, every other byte as it is; `None` if there is
/// nothing to add (no stream, no such option on this endpoint, or the client asked itself). `facts` must have been read
/// from this very body.
///
/// The answer to such a body is read by a [`super::ResponseTap`] made with `strip = true`; it must come uncompressed, so
/// no `accept-encoding` may be sent with it.
pub fn ensure_usage(body: &Bytes, facts: &RequestFacts) -> Option<Bytes> {
    facts.splice.as_ref()?.apply(body)
}
