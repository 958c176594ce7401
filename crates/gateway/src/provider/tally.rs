//! Texts counted without keeping them.
//!
//! A [`Walker`] goes through any JSON value and counts what a provider's tokenizer would see: it never builds the value,
//! and serde_json's depth limit (128) bounds its recursion. Where a count is uncertain it is too high, never too low.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tidegate_core::TextShape;

/// Characters of a number whose digits are not known: the most that a 64-bit float is printed with.
const FLOAT_CHARACTERS: u64 = 24;

/// Base64 characters of a document that count as one attachment: some 30 KB, less than a page of most PDFs
/// (1,500 to 3,000 tokens a page).
const DOCUMENT_CHARACTERS: u64 = 40_000;

/// Characters that stand for one token of an input that is given as tokens.
const TOKEN_CHARACTERS: u64 = 4;

/// How a value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A message or its content: values count, keys do not; images, audio clips and files are attachments.
    Content,
    /// A schema or a tool's arguments, which models see as text: keys count too.
    Schema,
}

/// Adds up the texts in one value of any type.
pub(super) struct Walker<'t> {
    pub(super) shape: &'t mut TextShape,
    pub(super) mode: Mode,
}

/// Adds up a list of messages, inputs or prompts: each element is one, and so is a text or object that stands alone.
pub(super) struct Items<'t> {
    pub(super) shape: &'t mut TextShape,
}

/// What a key in content means for its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Never shown to the model as text.
    Skipped,
    /// An image or audio clip.
    Media,
    /// A file, whose size tells its pages.
    Document,
    /// Anthropic's `source`: media, or a document in plain text.
    Source,
    /// Arguments or a schema.
    Schema,
    /// Anything else: content again.
    Content,
}

impl Meaning {
    fn of(key: &str) -> Self {
        match key {
            "role" | "type" | "id" | "tool_call_id" | "call_id" | "tool_use_id" | "detail" | "media_type"
            | "cache_control" | "status" | "signature" | "format" => Self::Skipped,
            "image_url" | "input_audio" | "audio" | "file_id" => Self::Media,
            "file" | "file_data" | "file_url" => Self::Document,
            "source" => Self::Source,
            "input" | "arguments" | "parameters" | "input_schema" | "schema" => Self::Schema,
            _ => Self::Content,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walker<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walker<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        add_text(self.shape, text);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        if self.mode == Mode::Schema {
            self.shape.characters += if value { 4 } else { 5 };
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.shape.characters += 1 + u64::from(value.checked_ilog10().unwrap_or(0));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.shape.characters += 2 + u64::from(value.unsigned_abs().checked_ilog10().unwrap_or(0));
        Ok(())
    }

    fn visit_f64<E>(self, _value: f64) -> Result<(), E> {
        self.shape.characters += FLOAT_CHARACTERS;
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { shape, mode } = self;
        while seq.next_element_seed(Walker { shape, mode })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { shape, mode } = self;
        if mode == Mode::Schema {
            while let Some(key_len) = map.next_key_seed(Key(characters))? {
                // The key's quotes, colon and comma may be tokens of their own.
                shape.characters += key_len + 2;
                map.next_value_seed(Walker { shape, mode })?;
            }
            return Ok(());
        }
        // One object is at most one attachment, however many keys describe it.
        let mut attached = 0;
        while let Some(meaning) = map.next_key_seed(Key(Meaning::of))? {
            match meaning {
                Meaning::Skipped => {
                    map.next_value::<IgnoredAny>()?;
                }
                Meaning::Media => attached = attached.max(map.next_value_seed(Payload { document: false })?),
                Meaning::Document => {
                    attached = attached.max(map.next_value_seed(Payload { document: true })?);
                }
                Meaning::Source => map.next_value_seed(Source { shape })?,
                Meaning::Schema => map.next_value_seed(Walker {
                    shape,
                    mode: Mode::Schema,
                })?,
                Meaning::Content => map.next_value_seed(Walker { shape, mode })?,
            }
        }
        shape.attachments += attached;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.shape.messages += 1;
        add_text(self.shape, text);
        Ok(())
    }

    fn visit_bool<E>(self, _value: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _value: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _value: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _value: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut bare_tokens = false;
        while let Some(kind) = seq.next_element_seed(Item { shape: self.shape })? {
            bare_tokens |= kind == ItemKind::Token;
        }
        // A list of tokens is one input; only a list of lists holds several.
        self.shape.messages += u64::from(bare_tokens);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.shape.messages += 1;
        let walker = Walker {
            shape: self.shape,
            mode: Mode::Content,
        };
        walker.visit_map(map)
    }
}

/// One element of [`Items`].
struct Item<'t> {
    shape: &'t mut TextShape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ItemKind {
    Message,
    Token,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = ItemKind;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<ItemKind, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Item<'_> {
    fn token(self) -> ItemKind {
        self.shape.characters += TOKEN_CHARACTERS;
        ItemKind::Token
    }
}

impl<'de> Visitor<'de> for Item<'_> {
    type Value = ItemKind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<ItemKind, E> {
        self.shape.messages += 1;
        add_text(self.shape, text);
        Ok(ItemKind::Message)
    }

    fn visit_bool<E>(self, _value: bool) -> Result<ItemKind, E> {
        Ok(ItemKind::Message)
    }

    fn visit_unit<E>(self) -> Result<ItemKind, E> {
        Ok(ItemKind::Message)
    }

    fn visit_u64<E>(self, _value: u64) -> Result<ItemKind, E> {
        Ok(self.token())
    }

    fn visit_i64<E>(self, _value: i64) -> Result<ItemKind, E> {
        Ok(self.token())
    }

    fn visit_f64<E>(self, _value: f64) -> Result<ItemKind, E> {
        Ok(self.token())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ItemKind, A::Error> {
        self.shape.messages += 1;
        // Tokens; anything else here is the provider's to judge, and counted as what it is.
        let mut inner = TextShape::default();
        while seq.next_element_seed(Item { shape: &mut inner })?.is_some() {}
        self.shape.characters += inner.characters;
        self.shape.attachments += inner.attachments;
        Ok(ItemKind::Message)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ItemKind, A::Error> {
        self.shape.messages += 1;
        let walker = Walker {
            shape: self.shape,
            mode: Mode::Content,
        };
        walker.visit_map(map)?;
        Ok(ItemKind::Message)
    }
}

/// A key, read by a function without being kept.
pub(super) struct Key<F>(pub(super) F);

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for Key<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for Key<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<T, E> {
        Ok((self.0)(key))
    }
}

/// Media or a document under a key of its own; gives the attachments that it counts as.
struct Payload {
    document: bool,
}

impl<'de> DeserializeSeed<'de> for Payload {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        let mut longest = 0;
        deserializer.deserialize_any(Longest(&mut longest))?;
        Ok(if self.document { pages(longest) } else { 1 })
    }
}

/// Finds the longest text in a value, and whether there is any value at all.
struct Longest<'t>(&'t mut u64);

impl<'de> DeserializeSeed<'de> for Longest<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Longest<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        *self.0 = (*self.0).max(text.len() as u64);
        Ok(())
    }

    fn visit_bool<E>(self, _value: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _value: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _value: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _value: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Longest(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(Longest(self.0))?;
        }
        Ok(())
    }
}

/// Anthropic's `source`: `{"type": "base64" | "url" | "file" | "text" | "content", "media_type", "data" …}`.
struct Source<'t> {
    shape: &'t mut TextShape,
}

impl<'de> DeserializeSeed<'de> for Source<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceKind {
    Text,
    Content,
    Media,
}

impl<'de> Visitor<'de> for Source<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    // In search results the source is a text.
    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        add_text(self.shape, text);
        Ok(())
    }

    fn visit_bool<E>(self, _value: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _value: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _value: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _value: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        let walker = Walker {
            shape: self.shape,
            mode: Mode::Content,
        };
        walker.visit_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut kind = SourceKind::Media;
        let mut image = false;
        let mut data_len = 0;
        while let Some(key) = map.next_key_seed(Key(SourceKey::of))? {
            match key {
                SourceKey::Type => {
                    kind = map.next_value_seed(Word(|text: &str| match text {
                        "text" => SourceKind::Text,
                        "content" => SourceKind::Content,
                        _ => SourceKind::Media,
                    }))?;
                }
                SourceKey::MediaType => {
                    image = map.next_value_seed(Word(|text: &str| text.starts_with("image/")))?;
                }
                SourceKey::Data => map.next_value_seed(Longest(&mut data_len))?,
                SourceKey::Content => {
                    map.next_value_seed(Walker {
                        shape: self.shape,
                        mode: Mode::Content,
                    })?;
                }
                SourceKey::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        match kind {
            // Bytes, which are never fewer than characters.
            SourceKind::Text => self.shape.characters += data_len,
            SourceKind::Content => {}
            SourceKind::Media if image => self.shape.attachments += 1,
            SourceKind::Media => self.shape.attachments += pages(data_len),
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceKey {
    Type,
    MediaType,
    Data,
    Content,
    Other,
}

impl SourceKey {
    fn of(key: &str) -> Self {
        match key {
            "type" => Self::Type,
            "media_type" => Self::MediaType,
            "data" => Self::Data,
            "content" => Self::Content,
            _ => Self::Other,
        }
    }
}

/// A value that should be a short text, read by a function; anything else counts as the empty text.
struct Word<F>(F);

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for Word<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        let raw = <&serde_json::value::RawValue>::deserialize(deserializer)?;
        let text: String = serde_json::from_str(raw.get()).unwrap_or_default();
        Ok((self.0)(&text))
    }
}

fn add_text(shape: &mut TextShape, text: &str) {
    if is_data_url(text) {
        shape.attachments += 1;
    } else {
        shape.characters += characters(text);
    }
}

fn characters(text: &str) -> u64 {
    text.chars().count() as u64
}

/// Returns whether a text is `data:image/png;base64,…`.
fn is_data_url(text: &str) -> bool {
    let head = &text.as_bytes()[..text.len().min(128)];
    head.starts_with(b"data:") && memchr::memmem::find(head, b";base64,").is_some()
}

/// Returns the attachments that a document of this many base64 characters counts as.
fn pages(characters: u64) -> u64 {
    characters.div_ceil(DOCUMENT_CHARACTERS).max(1)
}
