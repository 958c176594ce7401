//! Generated text counted while it streams by: for limits that count output as it is generated.

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess};
use serde_json::value::RawValue;

use super::tally::{Any, Key, Read, Word};
use super::usage::UsageFields;

/// The choices (OpenAI and all that imitate it) or candidates (Gemini) of a chunk. They are read once and only counted:
/// this runs for every event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choices<'de> {
    /// An estimate: a quarter of the characters, at least one a choice.
    pub(super) tokens: u64,
    pub(super) is_empty_list: bool,
    /// Whether a choice ended with an error (OpenRouter), and what the choice says of it.
    pub(super) failed: bool,
    pub(super) error: Option<&'de RawValue>,
}

impl Choices<'_> {
    /// What stands where a list was expected.
    const UNKNOWN: Self = Self {
        tokens: 1,
        is_empty_list: false,
        failed: false,
        error: None,
    };
}

/// What an event adds to its answer: a text (OpenAI's responses) or an object with texts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Delta {
    pub(super) characters: u64,
    /// Cohere ends a stream with a delta that reports usage.
    pub(super) usage: Option<UsageFields>,
}

pub(super) fn choices<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Choices<'de>>, D::Error> {
    Any(ReadChoices).deserialize(deserializer)
}

pub(super) fn delta<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Delta>, D::Error> {
    Any(ReadDelta).deserialize(deserializer)
}

/// Estimates the tokens of so many characters: every piece that a provider sends is one at least.
pub(super) fn tokens(characters: u64) -> u64 {
    characters.div_ceil(4).max(1)
}

struct ReadChoices;

impl<'de> Read<'de> for ReadChoices {
    type Output = Option<Choices<'de>>;

    fn text(self, _text: &str) -> Self::Output {
        Some(Choices::UNKNOWN)
    }

    fn word(self, word: Word) -> Self::Output {
        (word != Word::Null).then_some(Choices::UNKNOWN)
    }

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Output, A::Error> {
        let mut choices = Choices {
            tokens: 0,
            is_empty_list: true,
            ..Choices::UNKNOWN
        };
        while let Some(choice) = seq.next_element_seed(Any(ReadChoice))? {
            // A choice that only says that it failed adds nothing.
            if choice.characters > 0 || !choice.failed {
                choices.tokens = choices.tokens.saturating_add(tokens(choice.characters));
            }
            choices.is_empty_list = false;
            choices.failed |= choice.failed;
            choices.error = choices.error.or(choice.error);
        }
        Ok(Some(choices))
    }

    fn object<A: MapAccess<'de>>(self, map: A) -> Result<Self::Output, A::Error> {
        skip_object(map)?;
        Ok(Some(Choices::UNKNOWN))
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Choice<'de> {
    characters: u64,
    failed: bool,
    error: Option<&'de RawValue>,
}

struct ReadChoice;

impl<'de> Read<'de> for ReadChoice {
    type Output = Choice<'de>;

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Choice<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Choice::default())
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<Choice<'de>, A::Error> {
        let mut choice = Choice::default();
        while let Some(field) = map.next_key_seed(Key(Field::of))? {
            match field {
                Field::Text => choice.characters += map.next_value_seed(Any(ReadText))?,
                Field::FinishReason => {
                    let raw: &RawValue = map.next_value()?;
                    choice.failed = raw.get() == r#""error""#;
                }
                Field::Error => {
                    let raw: &RawValue = map.next_value()?;
                    choice.error = (raw.get() != "null").then_some(raw);
                }
                Field::Usage | Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(choice)
    }
}

struct ReadDelta;

impl<'de> Read<'de> for ReadDelta {
    type Output = Option<Delta>;

    fn text(self, text: &str) -> Option<Delta> {
        Some(Delta {
            characters: characters(text),
            usage: None,
        })
    }

    fn word(self, word: Word) -> Option<Delta> {
        (word != Word::Null).then(Delta::default)
    }

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<Delta>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Some(Delta::default()))
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Delta>, A::Error> {
        let mut delta = Delta::default();
        while let Some(field) = map.next_key_seed(Key(Field::of))? {
            match field {
                Field::Text => delta.characters += map.next_value_seed(Any(ReadText))?,
                Field::Usage => {
                    let raw: &RawValue = map.next_value()?;
                    delta.usage = UsageFields::read(raw.get());
                }
                Field::FinishReason | Field::Error | Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Some(delta))
    }
}

/// Counts the characters of generated texts, however they are wrapped.
struct ReadText;

impl<'de> Read<'de> for ReadText {
    type Output = u64;

    fn text(self, text: &str) -> u64 {
        characters(text)
    }

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<u64, A::Error> {
        let mut characters = 0;
        while let Some(more) = seq.next_element_seed(Any(Self))? {
            characters += more;
        }
        Ok(characters)
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<u64, A::Error> {
        let mut characters = 0;
        while let Some(field) = map.next_key_seed(Key(Field::of))? {
            if field == Field::Text {
                characters += map.next_value_seed(Any(Self))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(characters)
    }
}

/// What the value of a key in a choice or delta is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    /// Generated text, or what wraps it.
    Text,
    FinishReason,
    Error,
    Usage,
    Other,
}

impl Field {
    fn of(key: &str) -> Self {
        match key {
            "text" | "content" | "refusal" => Self::Text,
            "reasoning" | "reasoning_content" | "thinking" | "tool_plan" => Self::Text,
            // Arguments of calls: Anthropic's, everybody's, Bedrock's.
            "partial_json" | "arguments" | "input" => Self::Text,
            // Wrappers: OpenAI's, Cohere's, Gemini's and Bedrock's.
            "delta" | "tool_calls" | "function" | "message" | "parts" | "toolUse" | "reasoningContent" => {
                Self::Text
            }
            "finish_reason" => Self::FinishReason,
            "error" => Self::Error,
            "usage" => Self::Usage,
            _ => Self::Other,
        }
    }
}

fn skip_object<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

fn characters(text: &str) -> u64 {
    text.chars().count() as u64
}
