//! Usage read from an answer while it passes by.

use bytes::Bytes;
use http::HeaderMap;
use tidegate_core::{Tokens, Usage};

use super::Endpoint;

/// Reads an answer while it is relayed: usage, progress, and whether it ended well. Memory is bounded; what it returns
/// is what goes to the client.
#[derive(Debug)]
pub struct ResponseTap {
    usage: Usage,
}

/// An error that came in the middle of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamFault {
    /// The provider's name for it (`overloaded_error`, `rate_limit_exceeded` …), at most 64 characters.
    pub kind: String,
}

impl ResponseTap {
    /// Makes the tap for an answer with these headers. `strip` takes out the usage that [`super::ensure_usage`] asked
    /// for.
    pub fn new(_endpoint: Endpoint, _headers: &HeaderMap, _strip: bool) -> Self {
        Self {
            usage: Usage::default(),
        }
    }

    /// Returns whether what is relayed may differ from what came in, so that no `content-length` may be relayed.
    pub fn may_change_length(&self) -> bool {
        false
    }

    /// Takes the next bytes of the answer and returns the bytes to relay now; they may be none.
    pub fn push(&mut self, chunk: Bytes) -> Bytes {
        chunk
    }

    /// Takes the end of the answer and returns what is left to relay.
    pub fn finish(&mut self) -> Bytes {
        Bytes::new()
    }

    /// Returns the usage seen so far; complete after [`ResponseTap::finish`].
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Returns an estimate of the output tokens that have passed so far in a stream.
    pub fn output_seen(&self) -> Tokens {
        Tokens::ZERO
    }

    /// Returns whether a stream said that it is complete (`[DONE]`, `message_stop`, `response.completed` …).
    pub fn is_complete(&self) -> bool {
        false
    }

    /// Returns the error that came in the middle of the stream, if one did.
    pub fn fault(&self) -> Option<&StreamFault> {
        None
    }
}
