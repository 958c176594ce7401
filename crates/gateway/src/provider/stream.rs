//! What the events of a stream mean: usage, progress, end, fault.

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tidegate_core::Usage;

use super::StreamFault;
use super::facts::range_in;
use super::sse::Data;
use super::usage::UsageFields;

/// The longest name of a fault that is kept.
const FAULT_KIND_MAX: usize = 64;

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
    #[serde(borrow, default)]
    choices: Option<&'a RawValue>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
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
    /// Takes an event in, and tells what would become of it if its client had not asked for usage.
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

    fn take(&mut self, event: &Event<'_>) {
        if let Some(usage) = event.usage.and_then(|raw| UsageFields::read(raw.get())) {
            self.usage.update(&usage);
        }
        match &*event.kind {
            "message_start" => self.take_nested(event.message),
            "message_stop" => self.complete = true,
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
        if let Some(choices) = event.choices {
            self.output_estimate += choices_tokens(choices);
        } else if let Some(delta) = event.delta
            && (event.kind == "content_block_delta" || event.kind.ends_with(".delta"))
        {
            self.output_estimate += delta_tokens(delta);
        }
    }

    /// Takes the usage in an object that an event carries.
    fn take_nested(&mut self, raw: Option<&RawValue>) {
        #[derive(Deserialize)]
        struct Nested<'a> {
            #[serde(borrow, default)]
            usage: Option<&'a RawValue>,
        }

        let nested: Option<Nested<'_>> = raw.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let usage = nested.and_then(|nested| UsageFields::read(nested.usage?.get()));
        if let Some(usage) = usage {
            self.usage.update(&usage);
        }
    }

    fn fail(&mut self, error: Option<&RawValue>, code: &str) {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Error<'a> {
            #[serde(rename = "type", borrow, deserialize_with = "word")]
            kind: Cow<'a, str>,
            #[serde(borrow, deserialize_with = "word")]
            code: Cow<'a, str>,
        }

        let error: Error<'_> = error
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
            .unwrap_or_default();
        let kind = [&error.code, code, &error.kind, "error"]
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or_default();
        self.fault = Some(StreamFault {
            kind: kind.chars().take(FAULT_KIND_MAX).collect(),
        });
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

fn fate(data: &Data<'_>, event: &Event<'_>) -> Fate {
    let (Some(usage), Some(choices)) = (event.usage, event.choices) else {
        return Fate::Keep;
    };
    if usage.get() == "null" {
        let cut = key_range(&data.text, usage.get()).zip(data.at.as_ref());
        return cut.map_or(Fate::Keep, |(range, at)| {
            Fate::Cut(at.start + range.start..at.start + range.end)
        });
    }
    let no_choices = choices.get().trim_start_matches('[').trim_ascii_start() == "]";
    if no_choices && usage.get().starts_with('{') {
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

/// Estimates the tokens in a chunk of a chat or completion: a quarter of the characters, at least one a choice.
fn choices_tokens(raw: &RawValue) -> u64 {
    #[derive(Deserialize)]
    struct Choice<'a> {
        #[serde(borrow, default, deserialize_with = "word")]
        text: Cow<'a, str>,
        #[serde(borrow, default)]
        delta: Option<Delta<'a>>,
    }

    let choices: Vec<Choice<'_>> = match serde_json::from_str(raw.get()) {
        Ok(choices) => choices,
        Err(_) => return 1,
    };
    choices
        .iter()
        .map(|choice| {
            let delta = choice.delta.as_ref().map_or(0, Delta::characters);
            tokens(characters(&choice.text) + delta)
        })
        .sum()
}

/// Estimates the tokens in a delta: a text (Responses) or an object with one (Anthropic).
fn delta_tokens(raw: &RawValue) -> u64 {
    if let Ok(text) = serde_json::from_str::<Cow<'_, str>>(raw.get()) {
        return tokens(characters(&text));
    }
    let delta: Option<Delta<'_>> = serde_json::from_str(raw.get()).ok();
    tokens(delta.as_ref().map_or(0, Delta::characters))
}

/// The texts that a delta may hold.
#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default, deserialize_with = "word")]
    content: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "word")]
    reasoning_content: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "word")]
    text: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "word")]
    thinking: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "word")]
    partial_json: Cow<'a, str>,
}

impl Delta<'_> {
    fn characters(&self) -> u64 {
        [
            &self.content,
            &self.reasoning_content,
            &self.text,
            &self.thinking,
            &self.partial_json,
        ]
        .into_iter()
        .map(|text| characters(text))
        .sum()
    }
}

fn characters(text: &str) -> u64 {
    text.chars().count() as u64
}

fn tokens(characters: u64) -> u64 {
    characters.div_ceil(4).max(1)
}

/// Reads a value that is there, whatever it is.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads a text; anything else counts as the empty one.
fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

    let raw = <&'de RawValue>::deserialize(deserializer)?;
    let text: Option<Text<'de>> = serde_json::from_str(raw.get()).ok();
    Ok(text.map_or(Cow::Borrowed(""), |text| text.0))
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
