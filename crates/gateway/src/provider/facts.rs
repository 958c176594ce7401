//! What is read from a request's body, without building it.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;

use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use tidegate_core::{Demand, TextShape, Tokens};

use super::Endpoint;
use super::tally::{Key, Mode, items, walker};
use super::usage_option::Splice;

/// The longest name of a model; a longer one counts as absent, and the provider judges it.
const MODEL_BYTES_MAX: usize = 256;

/// Characters of the system prompt that Anthropic adds where tools are given: 804 tokens (providers.md §14) at 2.7.
const ANTHROPIC_TOOLS_CHARACTERS: u64 = 2_171;

/// What a request's body says, as far as limits and relaying are concerned.
///
/// It is tolerant: what a provider would refuse (a negative maximum, say) counts as absent, and the provider gives its
/// own answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    /// The operation.
    pub endpoint: Endpoint,
    /// The model that is asked for.
    pub model: Option<String>,
    /// The most output tokens of each choice; a value no provider would accept counts as absent, a huge one saturates.
    pub max_output: Option<Tokens>,
    /// How many choices are generated (`n`, or `best_of` where it is larger).
    pub choices: NonZeroU32,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the client asked for usage in the stream.
    pub usage_asked: bool,
    /// How much text there is.
    pub text: TextShape,
    /// How to ask for usage in the stream, where that is possible and was not done.
    pub(super) splice: Option<Splice>,
}

/// A body that cannot be read; the gateway answers it itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBody {
    /// No byte at all.
    #[error("the request body is empty: expected a JSON object")]
    Empty,
    /// Not a text.
    #[error("the request body is not UTF-8: the byte at offset {offset} does not belong there")]
    NotUtf8 {
        /// The offset of the first byte that is wrong.
        offset: usize,
    },
    /// JSON, but a list, a text, a number …
    #[error("the request body is not a JSON object")]
    NotAnObject,
    /// Nested too deeply.
    #[error("the request body is nested deeper than 128 levels, at line {line}, column {column}")]
    TooDeep {
        /// The line, from 1.
        line: usize,
        /// The byte in the line, from 1.
        column: usize,
    },
    /// Not JSON.
    #[error("the request body is not valid JSON: {reason} at line {line}, column {column}")]
    Syntax {
        /// What is wrong.
        reason: String,
        /// The line, from 1.
        line: usize,
        /// The byte in the line, from 1.
        column: usize,
    },
}

impl RequestFacts {
    /// Reads the body of a request to an endpoint that [has facts](Endpoint::has_facts). Linear in its length.
    ///
    /// # Errors
    ///
    /// Returns an error if the body is not a JSON object in UTF-8, or if its texts are nested deeper than 128 levels.
    pub fn read(endpoint: Endpoint, body: &[u8]) -> Result<Self, BadBody> {
        let text = str::from_utf8(body).map_err(|error| BadBody::NotUtf8 {
            offset: error.valid_up_to(),
        })?;
        let Some(first) = text.bytes().position(|byte| !byte.is_ascii_whitespace()) else {
            return Err(BadBody::Empty);
        };
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let fields = deserializer
            .deserialize_map(FieldsVisitor { text })
            .and_then(|fields| deserializer.end().map(|()| fields))
            .map_err(|error| bad_body(&error))?;
        Ok(fields.into_facts(endpoint, first))
    }

    /// Returns what the request may consume.
    pub fn demand(&self) -> Demand {
        match self.endpoint {
            Endpoint::ChatCompletions | Endpoint::Responses | Endpoint::Completions => Demand {
                choices: self.choices,
                ..Demand::generating(self.text.openai_tokens(), self.max_output)
            },
            Endpoint::Messages => Demand::generating(self.text.anthropic_tokens(), self.max_output),
            Endpoint::Embeddings => Demand::input_only(self.text.embedding_tokens()),
            endpoint if endpoint.generates() => {
                Demand::generating(self.text.openai_tokens(), self.max_output)
            }
            Endpoint::EmbedContent
            | Endpoint::BatchEmbedContents
            | Endpoint::CohereEmbed
            | Endpoint::Moderations => Demand::input_only(self.text.embedding_tokens()),
            _ => Demand::REQUEST_ONLY,
        }
    }
}

fn bad_body(error: &serde_json::Error) -> BadBody {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    if error.is_data() {
        return BadBody::NotAnObject;
    }
    if text.starts_with("recursion limit exceeded") {
        return BadBody::TooDeep { line, column };
    }
    let reason = text.split(" at line ").next().unwrap_or_default().to_owned();
    BadBody::Syntax { reason, line, column }
}

/// A field of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Model,
    MaxOutput(usize),
    Choices(usize),
    Stream,
    StreamOptions,
    /// A list of messages, inputs or prompts.
    Items(usize),
    /// One more text that the model sees.
    Content(usize),
    /// Tools or a format of the answer.
    Schema(usize),
    Ignored,
}

/// Parts of the body that hold text; the last of several of the same name counts, as in every JSON parser.
const PARTS: usize = 13;
const TOOLS: usize = 8;

impl Field {
    fn of(key: &str) -> Self {
        match key {
            "model" => Self::Model,
            "max_tokens" => Self::MaxOutput(0),
            "max_completion_tokens" => Self::MaxOutput(1),
            "max_output_tokens" => Self::MaxOutput(2),
            "n" => Self::Choices(0),
            "best_of" => Self::Choices(1),
            "stream" => Self::Stream,
            "stream_options" => Self::StreamOptions,
            "messages" => Self::Items(0),
            "input" => Self::Items(1),
            "prompt" => Self::Items(2),
            "system" => Self::Content(3),
            "instructions" => Self::Content(4),
            "suffix" => Self::Content(5),
            "prediction" => Self::Content(6),
            "documents" => Self::Content(7),
            "tools" => Self::Schema(TOOLS),
            "functions" => Self::Schema(9),
            "response_format" => Self::Schema(10),
            "text" => Self::Schema(11),
            "output_config" | "output_format" => Self::Schema(12),
            _ => Self::Ignored,
        }
    }
}

/// The fields as they stand in the body.
#[derive(Debug, Default)]
struct Fields {
    model: Option<String>,
    max_output: [Option<u64>; 3],
    choices: [Option<u64>; 2],
    stream: bool,
    stream_options: Option<(Range<usize>, StreamOptions)>,
    parts: [TextShape; PARTS],
}

/// What `stream_options` is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum StreamOptions {
    /// `null`, which means none.
    Null,
    /// An object; the value of `include_usage` and where it stands in it.
    Object {
        empty: bool,
        include_usage: Option<(Range<usize>, Option<bool>)>,
    },
    /// What a provider refuses.
    Wrong,
}

impl Fields {
    fn into_facts(self, endpoint: Endpoint, object_start: usize) -> RequestFacts {
        let mut text = TextShape::default();
        for part in &self.parts {
            text.characters = text.characters.saturating_add(part.characters);
            text.messages = text.messages.saturating_add(part.messages);
            text.attachments = text.attachments.saturating_add(part.attachments);
        }
        if endpoint == Endpoint::Messages && self.parts[TOOLS].characters > 0 {
            text.characters = text.characters.saturating_add(ANTHROPIC_TOOLS_CHARACTERS);
        }
        let choices = self.choices.into_iter().flatten().max().unwrap_or(1);
        let choices = u32::try_from(choices).unwrap_or(u32::MAX);
        let usage_asked = matches!(
            &self.stream_options,
            Some((
                _,
                StreamOptions::Object {
                    include_usage: Some((_, Some(true))),
                    ..
                }
            ))
        );
        let has_option = matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Completions);
        let splice = (has_option && self.stream && !usage_asked)
            .then(|| splice(self.stream_options, object_start))
            .flatten();
        RequestFacts {
            endpoint,
            model: self.model,
            max_output: self.max_output.into_iter().flatten().max().map(Tokens::new),
            choices: NonZeroU32::new(choices).unwrap_or(NonZeroU32::MIN),
            stream: self.stream,
            usage_asked,
            text,
            splice,
        }
    }
}

/// Returns the smallest change that asks for usage.
fn splice(options: Option<(Range<usize>, StreamOptions)>, object_start: usize) -> Option<Splice> {
    let Some((at, options)) = options else {
        // The object has at least `stream`, so a comma follows.
        let start = object_start + 1;
        return Some(Splice {
            at: start..start,
            with: r#""stream_options":{"include_usage":true},"#,
        });
    };
    match options {
        StreamOptions::Null => Some(Splice {
            at,
            with: r#"{"include_usage":true}"#,
        }),
        StreamOptions::Object {
            include_usage: Some((value, Some(false) | None)),
            ..
        } => Some(Splice {
            at: at.start + value.start..at.start + value.end,
            with: "true",
        }),
        StreamOptions::Object {
            include_usage: None,
            empty,
        } => {
            let start = at.start + 1;
            let with = if empty {
                r#""include_usage":true"#
            } else {
                r#""include_usage":true,"#
            };
            Some(Splice {
                at: start..start,
                with,
            })
        }
        StreamOptions::Object { .. } | StreamOptions::Wrong => None,
    }
}

struct FieldsVisitor<'de> {
    text: &'de str,
}

impl<'de> Visitor<'de> for FieldsVisitor<'de> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(field) = map.next_key_seed(Key(Field::of))? {
            match field {
                Field::Ignored => {
                    map.next_value::<IgnoredAny>()?;
                }
                Field::Items(part) => {
                    let shape = fresh(&mut fields.parts[part]);
                    map.next_value_seed(items(shape))?;
                }
                Field::Content(part) => {
                    let shape = fresh(&mut fields.parts[part]);
                    map.next_value_seed(walker(shape, Mode::Content))?;
                    shape.messages = u64::from(shape.characters > 0);
                }
                Field::Schema(part) => {
                    let shape = fresh(&mut fields.parts[part]);
                    map.next_value_seed(walker(shape, Mode::Schema))?;
                }
                Field::Model => {
                    let name: Option<String> = serde_json::from_str(raw(&mut map)?).ok();
                    fields.model = name.filter(|name| name.len() <= MODEL_BYTES_MAX);
                }
                Field::MaxOutput(which) => fields.max_output[which] = whole_number(raw(&mut map)?),
                Field::Choices(which) => fields.choices[which] = whole_number(raw(&mut map)?),
                Field::Stream => fields.stream = raw(&mut map)? == "true",
                Field::StreamOptions => {
                    let value = raw(&mut map)?;
                    let at = range_in(self.text, value).ok_or_else(|| A::Error::custom("not borrowed"))?;
                    fields.stream_options = Some((at, StreamOptions::read(value)));
                }
            }
        }
        Ok(fields)
    }
}

impl StreamOptions {
    fn read(value: &str) -> Self {
        if value == "null" {
            return Self::Null;
        }
        serde_json::Deserializer::from_str(value)
            .deserialize_map(OptionsVisitor { text: value })
            .unwrap_or(Self::Wrong)
    }
}

struct OptionsVisitor<'de> {
    text: &'de str,
}

impl<'de> Visitor<'de> for OptionsVisitor<'de> {
    type Value = StreamOptions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StreamOptions, A::Error> {
        let mut empty = true;
        let mut include_usage = None;
        while let Some(found) = map.next_key_seed(Key(|key: &str| key == "include_usage"))? {
            empty = false;
            let value = raw(&mut map)?;
            if !found {
                continue;
            }
            let at = range_in(self.text, value).ok_or_else(|| A::Error::custom("not borrowed"))?;
            match value {
                "true" => include_usage = Some((at, Some(true))),
                "false" => include_usage = Some((at, Some(false))),
                "null" => include_usage = Some((at, None)),
                _ => return Ok(StreamOptions::Wrong),
            }
        }
        Ok(StreamOptions::Object { empty, include_usage })
    }
}

fn fresh(shape: &mut TextShape) -> &mut TextShape {
    *shape = TextShape::default();
    shape
}

fn raw<'de, A: MapAccess<'de>>(map: &mut A) -> Result<&'de str, A::Error> {
    map.next_value::<&'de RawValue>().map(RawValue::get)
}

/// Returns where a part of a text stands in it.
pub(super) fn range_in(whole: &str, part: &str) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    let end = start.checked_add(part.len())?;
    (whole.get(start..end)? == part).then_some(start..end)
}

/// Reads a JSON number that should be a count. What is negative, broken or no number counts as absent; what is larger
/// than any count saturates.
pub(super) fn whole_number(raw: &str) -> Option<u64> {
    if raw.starts_with('-') {
        return None;
    }
    if !raw.is_empty() && raw.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(raw.parse().unwrap_or(u64::MAX));
    }
    let value: f64 = raw.parse().ok()?;
    // The cast saturates; infinity stands for numbers beyond any float, like 1e400.
    (value.is_infinite() || value.fract() == 0.0).then_some(value as u64)
}

#[cfg(test)]
mod tests;
