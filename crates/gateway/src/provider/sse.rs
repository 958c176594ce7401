//! Server-sent events, cut apart however they arrive.
