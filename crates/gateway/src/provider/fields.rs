//! The fields of a request's body that say what it may consume, whichever API it is of.
//!
//! One table serves all: a name that only one API knows means the same wherever it stands, and what a provider does not
//! know it refuses or ignores.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use tidegate_tokens::Encoding;

use super::tally::{Key, Mode, Tally, items, walker};
use super::usage_option::StreamOptions;

/// The longest name of a model; a longer one counts as absent, and the provider judges it.
pub(super) const MODEL_BYTES_MAX: usize = 256;

/// The fields as they stand in the body.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// Whether the body has no field at all.
    pub(super) is_empty: bool,
    pub(super) model: Option<String>,
    /// By [`OutputName`].
    pub(super) max_output: [Option<Place>; OutputName::COUNT],
    /// Objects that hold settings, by [`Settings`]: where they stand, and whether they are objects, with entries or
    /// without.
    pub(super) settings: [Option<Holder>; 3],
    pub(super) choices: [Option<u64>; 3],
    pub(super) stream: bool,
    pub(super) stream_options: Option<(Range<usize>, StreamOptions)>,
    pub(super) parts: [Tally; PARTS],
}

/// A number in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// `None` if it is no number that makes sense.
    pub(super) value: Option<u64>,
    pub(super) is_null: bool,
    pub(super) at: Range<usize>,
}

/// An object in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) at: Range<usize>,
    pub(super) kind: HolderKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HolderKind {
    Null,
    Object {
        is_empty: bool,
    },
    /// What a provider refuses.
    Wrong,
}

/// A name of the maximum output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum OutputName {
    /// `max_tokens`: OpenAI's old name, Anthropic's and nearly everybody's.
    MaxTokens,
    /// `max_completion_tokens`.
    MaxCompletionTokens,
    /// `max_output_tokens`: OpenAI's responses.
    MaxOutputTokens,
    /// `max_gen_len`, `max_tokens_to_sample`: makers of models on Bedrock.
    MaxGenerated,
    /// Gemini's `generationConfig.maxOutputTokens`.
    Generation,
    /// Bedrock's `inferenceConfig.maxTokens`.
    Inference,
    /// Titan's `textGenerationConfig.maxTokenCount`.
    TextGeneration,
}

impl OutputName {
    pub(super) const COUNT: usize = 7;

    /// Returns the name as it is written in its object.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
            Self::MaxGenerated => "max_gen_len",
            Self::Generation => "maxOutputTokens",
            Self::Inference => "maxTokens",
            Self::TextGeneration => "maxTokenCount",
        }
    }

    /// Returns the object that holds it, where that is not the body itself.
    pub(super) const fn settings(self) -> Option<Settings> {
        match self {
            Self::Generation => Some(Settings::Generation),
            Self::Inference => Some(Settings::Inference),
            Self::TextGeneration => Some(Settings::TextGeneration),
            _ => None,
        }
    }
}

/// An object that holds settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settings {
    Generation,
    Inference,
    TextGeneration,
}

impl Settings {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Generation => "generationConfig",
            Self::Inference => "inferenceConfig",
            Self::TextGeneration => "textGenerationConfig",
        }
    }

    const fn output(self) -> OutputName {
        match self {
            Self::Generation => OutputName::Generation,
            Self::Inference => OutputName::Inference,
            Self::TextGeneration => OutputName::TextGeneration,
        }
    }
}

/// A field of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Model,
    MaxOutput(OutputName),
    Choices(usize),
    Stream,
    StreamOptions,
    Settings(Settings),
    /// A list of messages, inputs or prompts.
    Items(usize),
    /// One more text that the model sees.
    Content(usize),
    /// Tools or a format of the answer.
    Schema(usize),
    Ignored,
}

/// Parts of the body that hold text; the last of several of the same name counts, as in every JSON parser.
const PARTS: usize = 29;

/// The part of `tools`.
pub(super) const TOOLS: usize = 8;

/// The part of what `generationConfig` shows the model.
const GENERATION: usize = 13;

/// The place of Gemini's `candidateCount` among the numbers of choices.
const CANDIDATES: usize = 2;

impl Field {
    fn of(key: &str) -> Self {
        match key {
            "model" => Self::Model,
            "max_tokens" => Self::MaxOutput(OutputName::MaxTokens),
            "max_completion_tokens" => Self::MaxOutput(OutputName::MaxCompletionTokens),
            "max_output_tokens" => Self::MaxOutput(OutputName::MaxOutputTokens),
            "max_gen_len" | "max_tokens_to_sample" => Self::MaxOutput(OutputName::MaxGenerated),
            "generationConfig" | "generation_config" => Self::Settings(Settings::Generation),
            "inferenceConfig" => Self::Settings(Settings::Inference),
            "textGenerationConfig" => Self::Settings(Settings::TextGeneration),
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
            // Gemini and Vertex.
            "contents" => Self::Items(14),
            "content" => Self::Content(15),
            "requests" => Self::Items(16),
            "instances" => Self::Items(17),
            "systemInstruction" | "system_instruction" => Self::Content(18),
            // Cohere.
            "message" => Self::Content(19),
            "chat_history" => Self::Items(20),
            "preamble" => Self::Content(21),
            "texts" => Self::Items(22),
            "images" => Self::Items(23),
            "inputs" => Self::Items(24),
            "query" => Self::Content(25),
            // Bedrock, and Titan on it.
            "toolConfig" => Self::Schema(26),
            "inputText" => Self::Content(27),
            // Mistral's text recognition.
            "document" => Self::Content(28),
            _ => Self::Ignored,
        }
    }
}

/// Reads the fields of a body, counting tokens in an encoding or none. Linear in its length.
pub(super) fn read(text: &str, encoding: Option<Encoding>) -> serde_json::Result<Fields> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let fields = deserializer.deserialize_map(FieldsVisitor { text, encoding })?;
    deserializer.end()?;
    Ok(fields)
}

struct FieldsVisitor<'de> {
    text: &'de str,
    encoding: Option<Encoding>,
}

impl<'de> Visitor<'de> for FieldsVisitor<'de> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields {
            is_empty: true,
            parts: std::array::from_fn(|_| Tally::new(self.encoding)),
            ..Fields::default()
        };
        while let Some(field) = map.next_key_seed(Key(Field::of))? {
            fields.is_empty = false;
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
                    shape.messages = u64::from(shape.characters > 0 || shape.attachments > 0);
                }
                Field::Schema(part) => {
                    let shape = fresh(&mut fields.parts[part]);
                    map.next_value_seed(walker(shape, Mode::Schema))?;
                }
                Field::Model => {
                    let name: Option<String> = serde_json::from_str(raw(&mut map)?).ok();
                    fields.model = name.filter(|name| name.len() <= MODEL_BYTES_MAX);
                }
                Field::MaxOutput(name) => {
                    let place = Place::read(raw(&mut map)?, self.text)?;
                    fields.max_output[name as usize] = Some(place);
                }
                Field::Choices(which) => fields.choices[which] = whole_number(raw(&mut map)?),
                Field::Stream => fields.stream = raw(&mut map)? == "true",
                Field::StreamOptions => {
                    let value = raw(&mut map)?;
                    let at = range(self.text, value)?;
                    fields.stream_options = Some((at, StreamOptions::read(value)));
                }
                Field::Settings(settings) => {
                    let value = raw(&mut map)?;
                    fields.take_settings(settings, value, self.text)?;
                }
            }
        }
        Ok(fields)
    }
}

impl Fields {
    /// Takes in an object that holds settings.
    fn take_settings<E: serde::de::Error>(
        &mut self,
        settings: Settings,
        value: &str,
        body: &str,
    ) -> Result<(), E> {
        self.max_output[settings.output() as usize] = None;
        if settings == Settings::Generation {
            self.choices[CANDIDATES] = None;
            fresh(&mut self.parts[GENERATION]);
        }
        let at = range(body, value)?;
        let kind = if value == "null" {
            HolderKind::Null
        } else {
            let visitor = SettingsVisitor {
                settings,
                body,
                fields: self,
            };
            // The value is JSON; what fails here is no object, or nested too deeply for any provider.
            serde_json::Deserializer::from_str(value)
                .deserialize_map(visitor)
                .map_or(HolderKind::Wrong, |is_empty| HolderKind::Object { is_empty })
        };
        self.settings[settings as usize] = Some(Holder { at, kind });
        Ok(())
    }
}

/// Reads an object that holds settings, and returns whether it is empty.
struct SettingsVisitor<'f, 'b> {
    settings: Settings,
    body: &'b str,
    fields: &'f mut Fields,
}

impl<'de> Visitor<'de> for SettingsVisitor<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut is_empty = true;
        while let Some(setting) = map.next_key_seed(Key(Setting::of))? {
            is_empty = false;
            match setting {
                Setting::MaxOutput => {
                    let place = Place::read(raw(&mut map)?, self.body)?;
                    self.fields.max_output[self.settings.output() as usize] = Some(place);
                }
                Setting::Choices => self.fields.choices[CANDIDATES] = whole_number(raw(&mut map)?),
                Setting::Schema => {
                    let shape = fresh(&mut self.fields.parts[GENERATION]);
                    map.next_value_seed(walker(shape, Mode::Schema))?;
                }
                Setting::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(is_empty)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    MaxOutput,
    Choices,
    Schema,
    Other,
}

impl Setting {
    fn of(key: &str) -> Self {
        match key {
            // Gemini; Bedrock, and Nova on it; Titan.
            "maxOutputTokens" | "max_output_tokens" | "maxTokens" | "max_new_tokens" | "maxTokenCount" => {
                Self::MaxOutput
            }
            "candidateCount" | "candidate_count" => Self::Choices,
            "responseSchema" | "response_schema" | "responseJsonSchema" | "response_json_schema" => {
                Self::Schema
            }
            _ => Self::Other,
        }
    }
}

impl Place {
    fn read<E: serde::de::Error>(value: &str, body: &str) -> Result<Self, E> {
        Ok(Self {
            value: whole_number(value),
            is_null: value == "null",
            at: range(body, value)?,
        })
    }
}

fn fresh(shape: &mut Tally) -> &mut Tally {
    *shape = Tally::new(shape.encoding);
    shape
}

pub(super) fn raw<'de, A: MapAccess<'de>>(map: &mut A) -> Result<&'de str, A::Error> {
    map.next_value::<&'de RawValue>().map(RawValue::get)
}

fn range<E: serde::de::Error>(whole: &str, part: &str) -> Result<Range<usize>, E> {
    range_in(whole, part).ok_or_else(|| E::custom("not borrowed"))
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
