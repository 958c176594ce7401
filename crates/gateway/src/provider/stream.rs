//! What the events of a stream mean: usage, progress, end, fault.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tidegate_core::Usage;

use super::StreamFault;
use super::facts::range_in;
use super::sse::Data;
use super::tally::{Any, Key, Read, Word};
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
    #[serde(default, deserialize_with = "choices")]
    choices: Option<Choices>,
    /// The characters of the delta.
    #[serde(default, deserialize_with = "delta")]
    delta: Option<u64>,
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
        if let Some(choices) = &event.choices {
            self.output_estimate += choices.tokens;
        } else if let Some(characters) = event.delta
            && (event.kind == "content_block_delta" || event.kind.ends_with(".delta"))
        {
            self.output_estimate += tokens(characters);
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

/// The choices of a chunk of a chat or completion. They are read once and only counted: this runs for every event.
#[derive(Debug, Clone, Copy)]
struct Choices {
    /// An estimate: a quarter of the characters, at least one a choice.
    tokens: u64,
    is_empty_list: bool,
}

impl Choices {
    /// What stands where a list was expected.
    const UNKNOWN: Self = Self {
        tokens: 1,
        is_empty_list: false,
    };
}

fn choices<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Choices>, D::Error> {
    Any(ReadChoices).deserialize(deserializer)
}

/// Reads the characters of a delta: a text (Responses), or an object with texts (Anthropic, chat).
fn delta<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Any(ReadDelta).deserialize(deserializer)
}

struct ReadChoices;

impl<'de> Read<'de> for ReadChoices {
    type Output = Option<Choices>;

    fn text(self, _text: &str) -> Option<Choices> {
        Some(Choices::UNKNOWN)
    }

    fn word(self, word: Word) -> Option<Choices> {
        (word != Word::Null).then_some(Choices::UNKNOWN)
    }

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<Choices>, A::Error> {
        let mut choices = Choices {
            tokens: 0,
            is_empty_list: true,
        };
        while let Some(characters) = seq.next_element_seed(Any(ReadChoice))? {
            choices.tokens += tokens(characters);
            choices.is_empty_list = false;
        }
        Ok(Some(choices))
    }

    fn object<A: MapAccess<'de>>(self, map: A) -> Result<Option<Choices>, A::Error> {
        skip_object(map)?;
        Ok(Some(Choices::UNKNOWN))
    }
}

/// Counts the characters of one choice.
struct ReadChoice;

impl<'de> Read<'de> for ReadChoice {
    type Output = u64;

    fn list<A: SeqAccess<'de>>(self, seq: A) -> Result<u64, A::Error> {
        skip_list(seq)
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<u64, A::Error> {
        let mut characters = 0;
        while let Some(field) = map.next_key_seed(Key(Field::of))? {
            characters += match field {
                Field::Delta => map.next_value_seed(Any(ReadDelta))?.unwrap_or(0),
                Field::Text => map.next_value_seed(Any(ReadText))?,
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                    0
                }
            };
        }
        Ok(characters)
    }
}

struct ReadDelta;

impl<'de> Read<'de> for ReadDelta {
    type Output = Option<u64>;

    fn text(self, text: &str) -> Option<u64> {
        Some(characters(text))
    }

    fn word(self, word: Word) -> Option<u64> {
        (word != Word::Null).then_some(0)
    }

    fn list<A: SeqAccess<'de>>(self, seq: A) -> Result<Option<u64>, A::Error> {
        skip_list(seq).map(Some)
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<u64>, A::Error> {
        let mut characters = 0;
        while let Some(field) = map.next_key_seed(Key(Field::of))? {
            if field == Field::Text {
                characters += map.next_value_seed(Any(ReadText))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Some(characters))
    }
}

/// Counts the characters of a text; anything else has none.
struct ReadText;

impl<'de> Read<'de> for ReadText {
    type Output = u64;

    fn text(self, text: &str) -> u64 {
        characters(text)
    }

    fn list<A: SeqAccess<'de>>(self, seq: A) -> Result<u64, A::Error> {
        skip_list(seq)
    }

    fn object<A: MapAccess<'de>>(self, map: A) -> Result<u64, A::Error> {
        skip_object(map)
    }
}

/// What the value of a key in a choice or delta is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    /// Generated text.
    Text,
    Delta,
    Other,
}

impl Field {
    fn of(key: &str) -> Self {
        match key {
            "text" | "content" | "reasoning_content" | "thinking" | "partial_json" => Self::Text,
            "delta" => Self::Delta,
            _ => Self::Other,
        }
    }
}

fn skip_list<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<u64, A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(0)
}

fn skip_object<'de, A: MapAccess<'de>>(mut map: A) -> Result<u64, A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(0)
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
