//! Usage read from an answer while it passes by.

mod events;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use tidegate_core::{Tokens, Usage};

use self::events::EventTap;
use super::Endpoint;
use super::aws_events::{Message, Messages, base64};
use super::fault::StreamFault;
use super::stream::StreamState;
use super::usage;

/// The longest answer that is kept to be read as a whole; of a longer one only the end is.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// How much of the end of a long answer is kept.
const TAIL_BYTES: usize = 16 << 10;

/// Reads an answer while it is relayed: usage, progress, and whether it ended well. Memory is bounded; what it returns
/// is what goes to the client.
#[derive(Debug)]
pub struct ResponseTap {
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// Relayed unread: compressed, or neither JSON nor events.
    Blind,
    Json(JsonTap),
    Events(Box<EventTap>),
    Messages(Box<MessageTap>),
}

/// The types of answers that are read, besides event streams.
const JSON: [&str; 3] = [
    "application/json",
    "application/stream+json",
    "application/x-ndjson",
];

impl ResponseTap {
    /// Makes the tap for an answer with these headers. `strip` takes out the usage that the gateway asked for.
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
        } else if media.eq_ignore_ascii_case("application/vnd.amazon.eventstream") {
            Body::Messages(Box::default())
        } else if JSON.iter().any(|json| media.eq_ignore_ascii_case(json)) {
            let told = matches!(endpoint, Endpoint::InvokeModel).then(|| usage::in_headers(headers));
            Body::Json(JsonTap {
                usage: told.flatten().unwrap_or_default().usage(),
                ..JsonTap::default()
            })
        } else {
            Body::Blind
        };
        Self { body }
    }

    /// Returns whether the answer is an event stream.
    pub fn is_stream(&self) -> bool {
        matches!(self.body, Body::Events(_) | Body::Messages(_))
    }

    /// Returns whether the answer is a stream of server-sent events that can be read.
    pub fn is_events(&self) -> bool {
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
            Body::Messages(messages) => {
                messages.push(&chunk);
                chunk
            }
        }
    }

    /// Takes the end of the answer and returns what is left to relay. Call it for broken answers too: what came of
    /// them belongs to the client.
    pub fn finish(&mut self) -> Bytes {
        match &mut self.body {
            Body::Blind | Body::Messages(_) => Bytes::new(),
            Body::Json(json) => {
                json.finish();
                Bytes::new()
            }
            Body::Events(events) => events.finish(),
        }
    }

    /// Returns the usage seen so far; complete after [`ResponseTap::finish`].
    pub fn usage(&self) -> Usage {
        match &self.body {
            Body::Blind => Usage::default(),
            Body::Json(json) => json.usage,
            Body::Events(_) | Body::Messages(_) => self.state().map(StreamState::usage).unwrap_or_default(),
        }
    }

    /// Returns the output tokens that have passed so far in a stream: an estimate by length, or what was reported if
    /// that is more.
    pub fn output_seen(&self) -> Tokens {
        let reported = self.usage().output.unwrap_or(Tokens::ZERO);
        let estimate = self.state().map_or(0, StreamState::output_estimate);
        reported.max(Tokens::new(estimate))
    }

    /// Returns whether a stream said that it is complete (`[DONE]`, `message_stop`, `response.completed` …).
    pub fn is_complete(&self) -> bool {
        self.state().is_some_and(StreamState::is_complete)
    }

    /// Returns the error in the answer, if there is one: in the middle of a stream, or as the body of a success.
    pub fn fault(&self) -> Option<&StreamFault> {
        match &self.body {
            Body::Json(json) => json.fault.as_deref(),
            Body::Blind | Body::Events(_) | Body::Messages(_) => self.state()?.fault(),
        }
    }

    fn state(&self) -> Option<&StreamState> {
        match &self.body {
            Body::Events(events) => Some(&events.state),
            Body::Messages(messages) => Some(&messages.state),
            Body::Blind | Body::Json(_) => None,
        }
    }
}

/// A JSON answer: all of it while it is short, else its end.
#[derive(Debug, Default)]
struct JsonTap {
    kept: Vec<u8>,
    cut: bool,
    usage: Usage,
    fault: Option<Box<StreamFault>>,
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

    /// Reads what was kept, as a whole if it is one, else by its end (several values in a row have one too).
    fn finish(&mut self) {
        let whole = if self.cut {
            None
        } else {
            usage::in_answer(&self.kept)
        };
        let Some(report) = whole else {
            self.usage = usage::in_tail(&self.kept).map_or(self.usage, |usage| usage.usage());
            return;
        };
        self.usage = report.usage.map_or(self.usage, |usage| usage.usage());
        self.fault = report
            .error
            .map(|error| Box::new(StreamFault::read(Some(error), "")));
    }
}

/// One of AWS's event streams. Relayed as it comes.
#[derive(Debug, Default)]
struct MessageTap {
    messages: Messages,
    state: StreamState,
}

impl MessageTap {
    fn push(&mut self, chunk: &[u8]) {
        let Self { messages, state } = self;
        messages.push(chunk, |message| take_message(state, message));
    }
}

/// Takes in one message of Bedrock's streams (providers.md §6).
fn take_message(state: &mut StreamState, message: Message<'_>) {
    if message.is_exception {
        state.fail_with(StreamFault::exception(message.name, message.payload));
        return;
    }
    let Ok(text) = str::from_utf8(message.payload) else {
        return;
    };
    match message.name {
        "contentBlockDelta" => state.addition(text),
        "metadata" => {
            state.data(text);
            state.complete();
        }
        // An event of the model maker's own stream, in base64.
        "chunk" => {
            if let Some(event) = chunk_bytes(text)
                && let Ok(event) = str::from_utf8(&event)
            {
                state.data(event);
            }
        }
        _ => {}
    }
}

fn chunk_bytes(text: &str) -> Option<Vec<u8>> {
    #[derive(serde::Deserialize)]
    struct Chunk<'a> {
        #[serde(borrow)]
        bytes: std::borrow::Cow<'a, str>,
    }

    let chunk: Chunk<'_> = serde_json::from_str(text).ok()?;
    base64(&chunk.bytes)
}

#[cfg(test)]
mod tests;
