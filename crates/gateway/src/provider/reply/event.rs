//! Errors as events: for streams that have begun, whose status says nothing any more.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::Shape;
use super::ErrorReply;

impl ErrorReply {
    /// Returns the answer as the last event of a stream.
    pub fn event(&self, shape: Shape, request_id: &str) -> Bytes {
        // A list is no event.
        let shape = match shape {
            Shape::GoogleList => Shape::Google,
            shape => shape,
        };
        let body = self.body(shape, request_id);
        error_event(shape, &body).unwrap_or(body)
    }
}

/// Makes an event of the body of an error, so that SDKs raise it: OpenAI's look for an `error` in the data, Anthropic's at
/// the name of the event. `None` if the body is no JSON object.
pub fn error_event(shape: Shape, body: &[u8]) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow, default)]
        error: Option<&'a RawValue>,
    }

    let body = body.trim_ascii();
    // Without this, a list would be read as the fields of an object.
    if !body.starts_with(b"{") {
        return None;
    }
    let has_error = serde_json::from_slice::<Body<'_>>(body).ok()?.error.is_some();
    let (before, after): (&[u8], &[u8]) = match shape {
        Shape::Anthropic => (b"event: error\ndata: ", b"\n\n"),
        _ if has_error => (b"data: ", b"\n\n"),
        // Errors of other shapes under OpenAI's API.
        _ => (b"data: {\"error\":", b"}\n\n"),
    };
    let mut event = BytesMut::with_capacity(before.len() + body.len() + after.len());
    event.put_slice(before);
    // In JSON line breaks stand between tokens only; in an event they would end the data.
    event.extend(body.iter().map(|byte| match byte {
        b'\n' | b'\r' => b' ',
        byte => *byte,
    }));
    event.put_slice(after);
    Some(event.freeze())
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn errors_become_events_of_one_line() {
        for (shape, body, expect) in [
            (
                Shape::OpenAi,
                "{\n  \"error\": {\"message\": \"a\\nb\"}\r\n}\n",
                Some("data: {   \"error\": {\"message\": \"a\\nb\"}  }\n\n"),
            ),
            (
                Shape::OpenAi,
                r#"{"detail":"x"}"#,
                Some("data: {\"error\":{\"detail\":\"x\"}}\n\n"),
            ),
            (
                Shape::Mistral,
                r#"{"object":"error"}"#,
                Some("data: {\"error\":{\"object\":\"error\"}}\n\n"),
            ),
            (
                Shape::Google,
                r#"{"error":{"code":400}}"#,
                Some("data: {\"error\":{\"code\":400}}\n\n"),
            ),
            (
                Shape::Anthropic,
                r#"{"type":"error","error":{}}"#,
                Some("event: error\ndata: {\"type\":\"error\",\"error\":{}}\n\n"),
            ),
            (
                Shape::OpenAi,
                r#"{"error":null}"#,
                Some("data: {\"error\":{\"error\":null}}\n\n"),
            ),
            (Shape::OpenAi, "<html>", None),
            (Shape::OpenAi, "", None),
            (Shape::OpenAi, "{\"error\":", None),
            (Shape::Anthropic, "\"text\"", None),
        ] {
            let event = error_event(shape, body.as_bytes());
            assert_eq!(event.as_deref(), expect.map(str::as_bytes), "{body}");
        }
    }

    #[test]
    fn own_answers_become_events_in_every_shape() {
        let reply = ErrorReply::upstream_answered("up", StatusCode::BAD_REQUEST);
        for shape in [
            Shape::OpenAi,
            Shape::Azure,
            Shape::OpenRouter,
            Shape::Google,
            Shape::Mistral,
        ] {
            let event = reply.event(shape, "tg-1");
            let text = str::from_utf8(&event).unwrap();
            assert!(
                text.starts_with("data: {\"error\":{") && text.ends_with("}\n\n"),
                "{text}"
            );
        }
        let event = reply.event(Shape::Anthropic, "tg-1");
        assert!(
            event.starts_with(b"event: error\ndata: {\"type\":\"error\""),
            "{event:?}"
        );
    }
}
