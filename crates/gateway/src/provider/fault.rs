//! Errors inside answers that began as successes.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::sse::{CutKind, Splitter};
use super::stream::StreamState;
use super::usage;
use tidegate_core::provider::named_status;

/// The longest name of a fault that is kept.
const KIND_MAX: usize = 64;

/// The longest body of a fault that is kept: as much of it as is ever looked at would be sixteen times as long, but none
/// was seen beyond one thousand bytes.
const BODY_MAX: usize = 4 << 10;

/// An error that came in an answer whose status was a success: in the middle of a stream, or as its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamFault {
    /// The provider's name for it (`overloaded_error`, `rate_limit_exceeded` …), at most 64 characters.
    pub kind: String,
    /// The status that the provider would have answered with before the answer began.
    pub status: u16,
    /// The error as the body of such an answer, to be classified; nothing if it is longer than 4 KiB.
    pub(crate) body: Vec<u8>,
}

/// How much of an answer's beginning is searched for the name of an error.
const HEAD_BYTES: usize = 1 << 10;

/// The parts of an error, whoever wrote it.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Parts<'a> {
    #[serde(rename = "type", borrow, deserialize_with = "word")]
    kind: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "word")]
    code: Cow<'a, str>,
    /// Google's name.
    #[serde(borrow, deserialize_with = "word")]
    status: Cow<'a, str>,
}

impl StreamFault {
    /// Reads the value of `error`, and the code that stands beside it, if one does.
    pub(super) fn read(error: Option<&RawValue>, code: &str) -> Self {
        let parts: Parts<'_> = error
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default();
        let names = [&*parts.code, code, &*parts.status, &*parts.kind];
        let is_word = |name: &&&str| !name.is_empty() && name.parse::<u16>().is_err();
        let kind = names
            .iter()
            .find(is_word)
            .or_else(|| names.iter().find(|name| !name.is_empty()))
            .map_or("error", |name| *name);
        let number = names.iter().find_map(|name| name.parse().ok());
        let status = number.filter(|status| (400..600).contains(status));
        let raw = error.map_or("null", RawValue::get);
        Self {
            status: status
                .or_else(|| names.iter().find_map(|name| named_status(name)))
                .unwrap_or(500),
            kind: kind.chars().take(KIND_MAX).collect(),
            body: bounded(format!(r#"{{"type":"error","error":{raw}}}"#)),
        }
    }

    /// Returns whether an answer that begins with these bytes may be an error: an object whose first field is one, or an
    /// event of that kind.
    pub(crate) fn may_begin(bytes: &[u8]) -> bool {
        let bytes = bytes.trim_ascii_start();
        let object = bytes.strip_prefix(b"data:").unwrap_or(bytes).trim_ascii_start();
        object.starts_with(b"{")
            && object[..object.len().min(HEAD_BYTES)]
                .windows(7)
                .any(|window| window == b"\"error\"")
    }

    /// Returns the error that an answer beginning with these bytes is: a whole object with one in it, or a first event.
    pub(crate) fn in_first(bytes: &[u8]) -> Option<Self> {
        if !Self::may_begin(bytes) {
            return None;
        }
        if bytes.trim_ascii_start().starts_with(b"{") {
            let error = usage::in_answer(bytes)?.error?;
            return Some(Self::read(Some(error), ""));
        }
        let first = Splitter::new().cut(bytes.trim_ascii_start());
        if first.kind != CutKind::Event {
            return None;
        }
        let mut state = StreamState::default();
        state.event(bytes.trim_ascii_start().get(..first.len)?);
        state.fault().cloned()
    }

    /// An exception in one of AWS's event streams: its name and its body.
    pub(super) fn exception(name: &str, body: &[u8]) -> Self {
        Self {
            kind: name.chars().take(KIND_MAX).collect(),
            status: named_status(name).unwrap_or(500),
            body: if body.len() <= BODY_MAX {
                body.to_vec()
            } else {
                Vec::new()
            },
        }
    }
}

fn bounded(body: String) -> Vec<u8> {
    if body.len() <= BODY_MAX {
        body.into_bytes()
    } else {
        Vec::new()
    }
}

/// Reads a text, or a number as its digits; anything else counts as the empty text.
pub(super) fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    let raw = <&'de RawValue>::deserialize(deserializer)?.get();
    if raw.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Cow::Borrowed(raw));
    }
    let text: Option<Text<'de>> = serde_json::from_str(raw).ok();
    Ok(text.map_or(Cow::Borrowed(""), |text| text.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_have_a_name_and_a_status() {
        for (error, code, kind, status) in [
            (r#"{"code":429,"message":"m"}"#, "", "429", 429),
            (r#"{"code":"429"}"#, "", "429", 429),
            (
                r#"{"code":429,"status":"RESOURCE_EXHAUSTED"}"#,
                "",
                "RESOURCE_EXHAUSTED",
                429,
            ),
            (
                r#"{"code":"rate_limit_exceeded","type":"tokens"}"#,
                "",
                "rate_limit_exceeded",
                429,
            ),
            (r#"{"type":"overloaded_error"}"#, "", "overloaded_error", 529),
            (
                r#"{"code":"server_error","metadata":{}}"#,
                "",
                "server_error",
                500,
            ),
            (r#"{"code":null,"type":"x"}"#, "slow_down", "slow_down", 503),
            (r#"{"code":200}"#, "", "200", 500),
            (r#"{"code":99999999}"#, "", "99999999", 500),
            (r#""text""#, "", "error", 500),
            ("[]", "", "error", 500),
        ] {
            let raw: &RawValue = serde_json::from_str(error).unwrap();
            let fault = StreamFault::read(Some(raw), code);
            assert_eq!((&*fault.kind, fault.status), (kind, status), "{error}");
            let body: serde_json::Value = serde_json::from_slice(&fault.body).unwrap();
            assert_eq!(body["error"].to_string(), error.replace(' ', ""), "{error}");
        }
        let long = format!(r#"{{"code":"{}"}}"#, "x".repeat(5_000));
        let raw: &RawValue = serde_json::from_str(&long).unwrap();
        let fault = StreamFault::read(Some(raw), "");
        assert_eq!((fault.kind.len(), fault.body.len()), (64, 0));
        let fault = StreamFault::exception("throttlingException", br#"{"message":"m"}"#);
        assert_eq!((fault.status, &*fault.body), (429, &br#"{"message":"m"}"#[..]));
    }

    #[test]
    fn answers_that_are_errors_are_known_by_their_beginning() {
        for (bytes, status) in [
            (r#"{"error":{"message":"m","code":429},"user_id":"u"}"#, Some(429)),
            ("\n\n {\"error\":{\"code\":503}}", Some(503)),
            (
                r#"{"id":"g","choices":[{"error":{"code":502},"finish_reason":"error","message":{}}]}"#,
                Some(502),
            ),
            (
                "data: {\"id\":\"g\",\"error\":{\"code\":429},\"choices\":[]}\n\ndata: [DONE]\n\n",
                Some(429),
            ),
            // Not whole.
            (r#"{"error":{"message":"m","code":429}"#, None),
            ("data: {\"error\":{\"code\":429}}\n", None),
            // No error, or not the first.
            (
                r#"{"choices":[{"message":{"content":"\"error\""}}],"error":null}"#,
                None,
            ),
            (
                ": OPENROUTER PROCESSING\n\ndata: {\"error\":{\"code\":429}}\n\n",
                None,
            ),
            (
                "data: {\"choices\":[]}\n\ndata: {\"error\":{\"code\":429}}\n\n",
                None,
            ),
            ("", None),
            ("data:", None),
        ] {
            let found = StreamFault::in_first(bytes.as_bytes()).map(|fault| fault.status);
            assert_eq!(found, status, "{bytes}");
        }
    }
}
