//! Texts counted without keeping them.
//!
//! A [`walker`] goes through any JSON value and counts what a provider's tokenizer would see: it never builds the value,
//! and serde_json's depth limit (128) bounds its recursion. Where a count is uncertain it is too high, never too low.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
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
    shape: &'t mut TextShape,
    mode: Mode,
}

/// Adds up a list of messages, inputs or prompts: each element is one, and so is a text or object that stands alone.
pub(super) struct Items<'t> {
    shape: &'t mut TextShape,
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
            // Gemini's and Bedrock's.
            "model" | "taskType" | "mimeType" | "mime_type" | "thoughtSignature" | "thought_signature"
            | "toolUseId" | "cachePoint" => Self::Skipped,
            "image_url" | "input_audio" | "audio" | "file_id" | "image" | "video" => Self::Media,
            "file" | "file_data" | "file_url" | "fileData" | "document_url" => Self::Document,
            "source" | "inlineData" | "inline_data" => Self::Source,
            "input" | "arguments" | "parameters" | "input_schema" | "schema" | "args" | "json"
            | "response" => Self::Schema,
            _ => Self::Content,
        }
    }
}

/// Reads a value of any type; what a reader does not care for gives the default.
pub(super) trait Read<'de>: Sized {
    type Output: Default;

    fn text(self, _text: &str) -> Self::Output {
        Self::Output::default()
    }

    /// Reads a number, a boolean or `null` that is printed with so many characters.
    fn word(self, _word: Word) -> Self::Output {
        Self::Output::default()
    }

    fn list<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Output, A::Error>;

    fn object<A: MapAccess<'de>>(self, map: A) -> Result<Self::Output, A::Error>;
}

/// A value without quotes, and its length in characters (at most).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Number(u64),
    Boolean(u64),
    Null,
}

/// Lets serde drive a [`Read`].
pub(super) struct Any<R>(pub(super) R);

impl<'de, R: Read<'de>> DeserializeSeed<'de> for Any<R> {
    type Value = R::Output;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<R::Output, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, R: Read<'de>> Visitor<'de> for Any<R> {
    type Value = R::Output;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<R::Output, E> {
        Ok(self.0.text(text))
    }

    fn visit_bool<E>(self, value: bool) -> Result<R::Output, E> {
        Ok(self.0.word(Word::Boolean(if value { 4 } else { 5 })))
    }

    fn visit_unit<E>(self) -> Result<R::Output, E> {
        Ok(self.0.word(Word::Null))
    }

    fn visit_u64<E>(self, value: u64) -> Result<R::Output, E> {
        Ok(self.0.word(Word::Number(digits(value))))
    }

    fn visit_i64<E>(self, value: i64) -> Result<R::Output, E> {
        Ok(self.0.word(Word::Number(1 + digits(value.unsigned_abs()))))
    }

    fn visit_f64<E>(self, _value: f64) -> Result<R::Output, E> {
        Ok(self.0.word(Word::Number(FLOAT_CHARACTERS)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<R::Output, A::Error> {
        self.0.list(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<R::Output, A::Error> {
        self.0.object(map)
    }
}

/// Returns what adds up the texts in one value.
pub(super) fn walker(shape: &mut TextShape, mode: Mode) -> Any<Walker<'_>> {
    Any(Walker { shape, mode })
}

/// Returns what adds up a list of messages, inputs or prompts.
pub(super) fn items(shape: &mut TextShape) -> Any<Items<'_>> {
    Any(Items { shape })
}

impl<'de> Read<'de> for Walker<'_> {
    type Output = ();

    fn text(self, text: &str) {
        add_text(self.shape, text);
    }

    fn word(self, word: Word) {
        self.shape.characters += match word {
            Word::Number(characters) => characters,
            Word::Boolean(characters) if self.mode == Mode::Schema => characters,
            Word::Boolean(_) | Word::Null => 0,
        };
    }

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(walker(self.shape, self.mode))?.is_some() {}
        Ok(())
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { shape, mode } = self;
        if mode == Mode::Schema {
            while let Some(key_len) = map.next_key_seed(Key(characters))? {
                // The key's quotes, colon and comma may be tokens of their own.
                shape.characters += key_len + 2;
                map.next_value_seed(walker(shape, mode))?;
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
                Meaning::Media => {
                    map.next_value::<IgnoredAny>()?;
                    attached = attached.max(1);
                }
                Meaning::Document => {
                    let longest = map.next_value_seed(Any(Longest))?;
                    attached = attached.max(pages(longest));
                }
                Meaning::Source => map.next_value_seed(Any(Source { shape }))?,
                Meaning::Schema => map.next_value_seed(walker(shape, Mode::Schema))?,
                Meaning::Content => map.next_value_seed(walker(shape, mode))?,
            }
        }
        shape.attachments += attached;
        Ok(())
    }
}

impl<'de> Read<'de> for Items<'_> {
    type Output = ();

    fn text(self, text: &str) {
        Item { shape: self.shape }.text(text);
    }

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut bare_tokens = false;
        while let Some(kind) = seq.next_element_seed(Any(Item { shape: self.shape }))? {
            bare_tokens |= kind == ItemKind::Token;
        }
        // A list of tokens is one input; only a list of lists holds several.
        self.shape.messages += u64::from(bare_tokens);
        Ok(())
    }

    fn object<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        Item { shape: self.shape }.object(map).map(drop)
    }
}

/// One element of [`Items`].
struct Item<'t> {
    shape: &'t mut TextShape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ItemKind {
    #[default]
    Message,
    Token,
}

impl<'de> Read<'de> for Item<'_> {
    type Output = ItemKind;

    fn text(self, text: &str) -> ItemKind {
        self.shape.messages += 1;
        add_text(self.shape, text);
        ItemKind::Message
    }

    fn word(self, word: Word) -> ItemKind {
        if !matches!(word, Word::Number(_)) {
            return ItemKind::Message;
        }
        self.shape.characters += TOKEN_CHARACTERS;
        ItemKind::Token
    }

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ItemKind, A::Error> {
        self.shape.messages += 1;
        // Tokens; anything else here is the provider's to judge, and counted as what it is.
        let mut inner = TextShape::default();
        while seq.next_element_seed(Any(Item { shape: &mut inner }))?.is_some() {}
        self.shape.characters += inner.characters;
        self.shape.attachments += inner.attachments;
        Ok(ItemKind::Message)
    }

    fn object<A: MapAccess<'de>>(self, map: A) -> Result<ItemKind, A::Error> {
        self.shape.messages += 1;
        let content = Walker {
            shape: self.shape,
            mode: Mode::Content,
        };
        content.object(map)?;
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

/// Finds the length of the longest text in a value, in bytes.
struct Longest;

impl<'de> Read<'de> for Longest {
    type Output = u64;

    fn text(self, text: &str) -> u64 {
        text.len() as u64
    }

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<u64, A::Error> {
        let mut longest = 0;
        while let Some(found) = seq.next_element_seed(Any(Self))? {
            longest = longest.max(found);
        }
        Ok(longest)
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<u64, A::Error> {
        let mut longest = 0;
        while map.next_key::<IgnoredAny>()?.is_some() {
            longest = longest.max(map.next_value_seed(Any(Self))?);
        }
        Ok(longest)
    }
}

/// A short text, read by a function; anything else gives the default.
struct Name<F>(F);

impl<'de, T: Default, F: FnOnce(&str) -> T> Read<'de> for Name<F> {
    type Output = T;

    fn text(self, text: &str) -> T {
        (self.0)(text)
    }

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<T, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(T::default())
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(T::default())
    }
}

/// Anthropic's `source`: `{"type": "base64" | "url" | "file" | "text" | "content", "media_type", "data" …}`, Bedrock's
/// `{"bytes" | "text" | "content" | "s3Location"}`, and Gemini's `inlineData`: `{"mimeType", "data"}`.
struct Source<'t> {
    shape: &'t mut TextShape,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum SourceKind {
    Text,
    Content,
    #[default]
    Media,
}

impl SourceKind {
    fn of(name: &str) -> Self {
        match name {
            "text" => Self::Text,
            "content" => Self::Content,
            _ => Self::Media,
        }
    }
}

impl<'de> Read<'de> for Source<'_> {
    type Output = ();

    /// In search results the source is a text.
    fn text(self, text: &str) {
        add_text(self.shape, text);
    }

    fn list<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        let content = Walker {
            shape: self.shape,
            mode: Mode::Content,
        };
        content.list(seq)
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut kind = SourceKind::Media;
        let mut is_image = false;
        let mut data_len = 0;
        while let Some(key) = map.next_key_seed(Key(SourceKey::of))? {
            match key {
                SourceKey::Type => kind = map.next_value_seed(Any(Name(SourceKind::of)))?,
                SourceKey::MediaType => {
                    is_image = map.next_value_seed(Any(Name(|name: &str| name.starts_with("image/"))))?;
                }
                SourceKey::Data => data_len = map.next_value_seed(Any(Longest))?,
                SourceKey::Text => {
                    kind = SourceKind::Text;
                    data_len = map.next_value_seed(Any(Longest))?;
                }
                SourceKey::Content => map.next_value_seed(walker(self.shape, Mode::Content))?,
                SourceKey::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        match kind {
            // Bytes, which are never fewer than characters.
            SourceKind::Text => self.shape.characters += data_len,
            SourceKind::Content => {}
            SourceKind::Media if is_image => self.shape.attachments += 1,
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
    Text,
    Content,
    Other,
}

impl SourceKey {
    fn of(key: &str) -> Self {
        match key {
            "type" => Self::Type,
            "media_type" | "mimeType" | "mime_type" => Self::MediaType,
            "data" | "bytes" => Self::Data,
            "text" => Self::Text,
            "content" => Self::Content,
            _ => Self::Other,
        }
    }
}

fn add_text(shape: &mut TextShape, text: &str) {
    if is_data_url(text) {
        shape.attachments += 1;
    } else {
        shape.characters += characters(text);
    }
}

/// Returns the digits of a number.
fn digits(value: u64) -> u64 {
    1 + u64::from(value.checked_ilog10().unwrap_or(0))
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
