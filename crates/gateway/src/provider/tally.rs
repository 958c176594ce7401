//! Texts counted without keeping them.
//!
//! A [`walker`] goes through any JSON value and counts what a provider's tokenizer would see: it never builds the value,
//! and serde_json's depth limit (128) bounds its recursion. Where a count is uncertain it is too high, never too low.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tidegate_tokens::{Detail, Dimensions, Encoding, Ratio};

/// Characters of a number whose digits are not known: the most that a 64-bit float is printed with.
const FLOAT_CHARACTERS: u64 = 24;

/// Base64 characters of a document that count as one attachment: some 30 KB, less than a page of most PDFs
/// (1,500 to 3,000 tokens a page).
const DOCUMENT_CHARACTERS: u64 = 40_000;

/// Characters that stand for one token of an input that is given as tokens.
const TOKEN_CHARACTERS: u64 = 4;

/// Base64 characters of audio that count as one attachment: 24 seconds of the densest speech (32 kbit/s), and 32 tokens a
/// second, the most that any provider takes.
const AUDIO_CHARACTERS: u64 = 120_000;

/// The most images whose size is kept; others count as if theirs were unknown.
const PICTURES_MAX: usize = 256;

/// The texts of a request, added up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// Unicode scalar values in all texts.
    pub(super) characters: u64,
    /// What is more in bytes of UTF-8 than in characters.
    pub(super) bytes_beyond: u64,
    /// Messages (chat), inputs (embeddings) or prompts (completions).
    pub(super) messages: u64,
    /// Images, audio clips and files.
    pub(super) attachments: u64,
    /// The images among them, as far as something is known of them.
    pub(super) pictures: Vec<Picture>,
    /// The encoding in which tokens are counted, if they are.
    pub(super) encoding: Option<Encoding>,
    /// Tokens in all texts, at least where they are counted.
    pub(super) tokens: u64,
}

/// An image in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Picture {
    /// Its size, where the body holds it.
    pub(super) dimensions: Option<Dimensions>,
    /// How closely the model is to look.
    pub(super) detail: Detail,
}

impl Tally {
    /// Starts with nothing, counting tokens in an encoding or none.
    pub(super) fn new(encoding: Option<Encoding>) -> Self {
        Self {
            encoding,
            ..Self::default()
        }
    }

    /// Adds a text.
    fn add_text(&mut self, text: &str) {
        let characters = text.chars().count() as u64;
        self.characters += characters;
        self.bytes_beyond += text.len() as u64 - characters;
        if let Some(encoding) = self.encoding {
            self.tokens += encoding.count(text);
        }
    }

    /// Adds the name of a field, whose quotes, colon and comma may be tokens of their own.
    fn add_key(&mut self, key: &str) {
        self.add_text(key);
        self.characters += 2;
        self.tokens += 2;
    }

    /// Adds digits, of which up to three are one token.
    fn add_digits(&mut self, digits: u64) {
        self.characters += digits;
        self.tokens += digits.div_ceil(3);
    }

    /// Adds a text of which the length in bytes is known.
    fn add_bytes(&mut self, bytes: u64) {
        self.characters += bytes;
        self.tokens += Ratio::CAUTIOUS.tokens(bytes);
    }

    /// Adds an image.
    fn add_picture(&mut self, picture: Picture) {
        self.attachments += 1;
        if self.pictures.len() < PICTURES_MAX {
            self.pictures.push(picture);
        }
    }

    /// Adds another tally, its messages too.
    pub(super) fn add(&mut self, other: &Self) {
        self.characters = self.characters.saturating_add(other.characters);
        self.bytes_beyond = self.bytes_beyond.saturating_add(other.bytes_beyond);
        self.messages = self.messages.saturating_add(other.messages);
        self.attachments = self.attachments.saturating_add(other.attachments);
        self.tokens = self.tokens.saturating_add(other.tokens);
        let room = PICTURES_MAX.saturating_sub(self.pictures.len());
        self.pictures.extend(other.pictures.iter().take(room));
    }
}

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
    shape: &'t mut Tally,
    mode: Mode,
}

/// Adds up a list of messages, inputs or prompts: each element is one, and so is a text or object that stands alone.
pub(super) struct Items<'t> {
    shape: &'t mut Tally,
}

/// What a key in content means for its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Never shown to the model as text.
    Skipped,
    /// An image or a film.
    Media,
    /// An audio clip.
    Sound,
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
            "image_url" | "file_id" | "image" | "video" => Self::Media,
            "input_audio" | "audio" => Self::Sound,
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
pub(super) fn walker(shape: &mut Tally, mode: Mode) -> Any<Walker<'_>> {
    Any(Walker { shape, mode })
}

/// Returns what adds up a list of messages, inputs or prompts.
pub(super) fn items(shape: &mut Tally) -> Any<Items<'_>> {
    Any(Items { shape })
}

impl<'de> Read<'de> for Walker<'_> {
    type Output = ();

    fn text(self, text: &str) {
        add_text(self.shape, text);
    }

    fn word(self, word: Word) {
        match word {
            Word::Number(characters) => self.shape.add_digits(characters),
            Word::Boolean(characters) if self.mode == Mode::Schema => self.shape.add_digits(characters),
            Word::Boolean(_) | Word::Null => {}
        }
    }

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(walker(self.shape, self.mode))?.is_some() {}
        Ok(())
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { shape, mode } = self;
        if mode == Mode::Schema {
            while map.next_key_seed(Key(|key: &str| shape.add_key(key)))?.is_some() {
                map.next_value_seed(walker(shape, mode))?;
            }
            return Ok(());
        }
        // One object is at most one attachment, however many keys describe it.
        let mut attached = 0;
        let mut picture = None;
        while let Some(meaning) = map.next_key_seed(Key(Meaning::of))? {
            match meaning {
                Meaning::Skipped => {
                    map.next_value::<IgnoredAny>()?;
                }
                Meaning::Media => {
                    let sight = map.next_value_seed(Any(Look))?;
                    attached = attached.max(1);
                    picture = picture.or(Some(sight.picture()));
                }
                Meaning::Sound => {
                    let sight = map.next_value_seed(Any(Look))?;
                    attached = attached.max(sight.bytes.div_ceil(AUDIO_CHARACTERS).max(1));
                }
                Meaning::Document => {
                    let sight = map.next_value_seed(Any(Look))?;
                    attached = attached.max(pages(sight.bytes));
                }
                Meaning::Source => map.next_value_seed(Any(Source { shape }))?,
                Meaning::Schema => map.next_value_seed(walker(shape, Mode::Schema))?,
                Meaning::Content => map.next_value_seed(walker(shape, mode))?,
            }
        }
        match picture {
            Some(picture) if attached == 1 => shape.add_picture(picture),
            _ => shape.attachments += attached,
        }
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
    shape: &'t mut Tally,
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
        self.shape.tokens += 1;
        ItemKind::Token
    }

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ItemKind, A::Error> {
        self.shape.messages += 1;
        // Tokens; anything else here is the provider's to judge, and counted as what it is.
        let mut inner = Tally::new(self.shape.encoding);
        while seq.next_element_seed(Any(Item { shape: &mut inner }))?.is_some() {}
        self.shape.add(&Tally { messages: 0, ..inner });
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

/// Looks at a value for what it says of an image, a clip or a document.
struct Look;

/// What a value says of an image, a clip or a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sight {
    /// The length of the longest text, in bytes: data in base64, or an address.
    bytes: u64,
    /// The size of the image that one of the texts is.
    dimensions: Option<Dimensions>,
    /// The value of `detail`, where it is one.
    detail: Option<Detail>,
}

impl Sight {
    fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.max(other.bytes),
            dimensions: self.dimensions.or(other.dimensions),
            detail: self.detail.or(other.detail),
        }
    }

    fn picture(self) -> Picture {
        Picture {
            dimensions: self.dimensions,
            detail: self.detail.unwrap_or_default(),
        }
    }
}

impl<'de> Read<'de> for Look {
    type Output = Sight;

    fn text(self, text: &str) -> Sight {
        Sight {
            bytes: text.len() as u64,
            dimensions: Dimensions::of_base64(text),
            detail: None,
        }
    }

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Sight, A::Error> {
        let mut sight = Sight::default();
        while let Some(found) = seq.next_element_seed(Any(Self))? {
            sight = sight.and(found);
        }
        Ok(sight)
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<Sight, A::Error> {
        let mut sight = Sight::default();
        while let Some(is_detail) = map.next_key_seed(Key(|key: &str| key == "detail"))? {
            if is_detail {
                let detail = map.next_value_seed(Any(Name(|name: &str| Some(Detail::named(name)))))?;
                sight.detail = detail.or(sight.detail);
            } else {
                sight = sight.and(map.next_value_seed(Any(Self))?);
            }
        }
        Ok(sight)
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
    shape: &'t mut Tally,
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
        let mut data = Sight::default();
        while let Some(key) = map.next_key_seed(Key(SourceKey::of))? {
            match key {
                SourceKey::Type => kind = map.next_value_seed(Any(Name(SourceKind::of)))?,
                SourceKey::MediaType => {
                    is_image = map.next_value_seed(Any(Name(|name: &str| name.starts_with("image/"))))?;
                }
                SourceKey::Data => data = map.next_value_seed(Any(Look))?,
                SourceKey::Text => {
                    kind = SourceKind::Text;
                    data = map.next_value_seed(Any(Look))?;
                }
                SourceKey::Content => map.next_value_seed(walker(self.shape, Mode::Content))?,
                SourceKey::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        match kind {
            // Bytes, which are never fewer than characters.
            SourceKind::Text => self.shape.add_bytes(data.bytes),
            SourceKind::Content => {}
            SourceKind::Media if is_image || data.dimensions.is_some() => {
                self.shape.add_picture(data.picture());
            }
            SourceKind::Media => self.shape.attachments += pages(data.bytes),
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

/// Adds a text, or the image that it is.
fn add_text(shape: &mut Tally, text: &str) {
    if is_data_url(text) {
        shape.add_picture(Picture {
            dimensions: Dimensions::of_base64(text),
            detail: Detail::Auto,
        });
    } else {
        shape.add_text(text);
    }
}

/// Returns the digits of a number.
fn digits(value: u64) -> u64 {
    1 + u64::from(value.checked_ilog10().unwrap_or(0))
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
