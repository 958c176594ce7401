//! What the events of a stream mean: usage, progress, end, fault.

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tidegate_core::Usage;

use super::fault::{StreamFault, word};
use super::fields::range_in;
use super::output::{Choices, Delta, choices, delta, tokens};
use super::sse::Data;
use super::usage::{self, Place, UsageFields};

/// What is known of a stream so far.
#[derive(Debug, Default)]
pub(super) struct StreamState {
    usage: UsageFields,
    output_estimate: u64,
    complete: bool,
    fault: Option<StreamFault>,
}

/// What becomes of an event whose client did not ask for usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is relayed as it is.
    Keep,
    /// It exists only because usage was asked for.
    Remove,
    /// These bytes of it do.
    Cut(Range<usize>),
}

/// The fields of any provider's event, unread.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow, default, deserialize_with = "word")]
    kind: Cow<'a, str>,
    /// Kept even if it is `null`, which has a place too.
    #[serde(borrow, default, deserialize_with = "present")]
    usage: Option<&'a RawValue>,
    #[serde(rename = "usageMetadata", borrow, default)]
    gemini_usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    x_groq: Option<&'a RawValue>,
    #[serde(rename = "amazon-bedrock-invocationMetrics", borrow, default)]
    invocation: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "choices")]
    choices: Option<Choices<'a>>,
    /// Gemini's choices.
    #[serde(borrow, default, deserialize_with = "choices")]
    candidates: Option<Choices<'a>>,
    #[serde(default, deserialize_with = "delta")]
    delta: Option<Delta>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "word")]
    code: Cow<'a, str>,
}

impl StreamState {
    /// Takes a server-sent event in, and tells what would become of it if its client had not asked for usage.
    pub(super) fn event(&mut self, event: &[u8]) -> Fate {
        let Some(data) = Data::of(event) else {
            return Fate::Keep;
        };
        if data.text.trim() == "[DONE]" {
            self.complete = true;
            return Fate::Keep;
        }
        let Ok(fields) = serde_json::from_str::<Event<'_>>(&data.text) else {
            return Fate::Keep;
        };
        self.take(&fields);
        fate(&data, &fields)
    }

    /// Takes in what an event says, wherever it came from.
    pub(super) fn data(&mut self, text: &str) {
        if let Ok(fields) = serde_json::from_str::<Event<'_>>(text) {
            self.take(&fields);
        }
    }

    /// Takes in an addition to the answer whose event has no name in its data (Bedrock).
    pub(super) fn addition(&mut self, text: &str) {
        if let Ok(fields) = serde_json::from_str::<Event<'_>>(text)
            && let Some(delta) = fields.delta
        {
            self.add_output(tokens(delta.characters));
        }
    }

    fn take(&mut self, event: &Event<'_>) {
        let reports = [
            (Place::Report, event.usage),
            (Place::Report, event.gemini_usage),
            (Place::Holder, event.x_groq),
            (Place::Report, event.invocation),
        ];
        for (place, raw) in reports {
            self.report(raw.and_then(|raw| usage::at_place(place, raw)));
        }
        match &*event.kind {
            "message_start" => self.take_nested(event.message),
            "message_stop" => self.complete = true,
            "message-end" => {
                self.report(event.delta.and_then(|delta| delta.usage));
                self.complete = true;
            }
            "error" => self.fail(event.error, &event.code),
            "response.completed" | "response.incomplete" => {
                self.take_nested(event.response);
                self.complete = true;
            }
            "response.failed" => {
                self.take_nested(event.response);
                self.fail(event.response.and_then(nested_error), "");
                self.complete = true;
            }
            _ if event.error.is_some() => self.fail(event.error, &event.code),
            _ => {}
        }
        if let Some(choices) = event.choices.or(event.candidates) {
            self.add_output(choices.tokens);
            if (choices.failed || choices.error.is_some()) && self.fault.is_none() {
                self.fail(choices.error, "");
            }
        } else if let Some(delta) = event.delta
            && is_addition(&event.kind)
        {
            self.add_output(tokens(delta.characters));
        }
    }

    fn report(&mut self, later: Option<UsageFields>) {
        if let Some(later) = later {
            self.usage.update(&later);
        }
    }

    fn add_output(&mut self, tokens: u64) {
        self.output_estimate = self.output_estimate.saturating_add(tokens);
    }

    /// Takes the usage in an object that an event carries.
    fn take_nested(&mut self, raw: Option<&RawValue>) {
        self.report(raw.and_then(usage::in_object));
    }

    fn fail(&mut self, error: Option<&RawValue>, code: &str) {
        self.fault = Some(StreamFault::read(error, code));
    }

    /// The stream ends with this fault.
    pub(super) fn fail_with(&mut self, fault: StreamFault) {
        self.fault = Some(fault);
    }

    /// The stream says that it is complete.
    pub(super) fn complete(&mut self) {
        self.complete = true;
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage.usage()
    }

    pub(super) fn output_estimate(&self) -> u64 {
        self.output_estimate
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn fault(&self) -> Option<&StreamFault> {
        self.fault.as_ref()
    }
}

/// Returns whether events of this type add to the output: Anthropic's, OpenAI's responses and transcripts, Cohere's.
fn is_addition(kind: &str) -> bool {
    matches!(
        kind,
        "content_block_delta" | "content-delta" | "tool-call-delta" | "tool-plan-delta"
    ) || kind.ends_with(".delta")
}

fn fate(data: &Data<'_>, event: &Event<'_>) -> Fate {
    let (Some(usage), Some(choices)) = (event.usage, &event.choices) else {
        return Fate::Keep;
    };
    if usage.get() == "null" {
        let cut = key_range(&data.text, usage.get()).zip(data.at.as_ref());
        return cut.map_or(Fate::Keep, |(range, at)| {
            Fate::Cut(at.start + range.start..at.start + range.end)
        });
    }
    if choices.is_empty_list && usage.get().starts_with('{') {
        Fate::Remove
    } else {
        Fate::Keep
    }
}

/// Returns the range of `"usage":null` in an object, with the comma that joins it to its neighbors.
fn key_range(object: &str, value: &str) -> Option<Range<usize>> {
    let value = range_in(object, value)?;
    let before = object[..value.start].trim_ascii_end().strip_suffix(':')?;
    let before = before.trim_ascii_end().strip_suffix("\"usage\"")?;
    if let Some(head) = before.trim_ascii_end().strip_suffix(',') {
        return Some(head.len()..value.end);
    }
    let rest = &object[value.end..];
    let end = rest
        .trim_ascii_start()
        .strip_prefix(',')
        .map_or(value.end, |next| object.len() - next.trim_ascii_start().len());
    Some(before.len()..end)
}

/// Reads a value that is there, whatever it is.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Returns the `error` in a response.
fn nested_error(response: &RawValue) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Failed<'a> {
        #[serde(borrow, default)]
        error: Option<&'a RawValue>,
    }

    let failed: Failed<'_> = serde_json::from_str(response.get()).ok()?;
    failed.error
}
