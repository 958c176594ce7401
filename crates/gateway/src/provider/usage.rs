//! Usage as providers report it (providers.md §2.8, §4.8, §5.3, §6, §7, §8, §9).
//!
//! Names that mean the same are one field, whoever uses them; no name means two things.

use std::fmt;

use http::HeaderMap;
use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tidegate_core::{Tokens, Usage};

use super::fields::whole_number;
use super::tally::{Any, Key, Read};

/// What reports of usage say, whoever wrote them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct UsageFields {
    /// All input, cached or not: OpenAI's chat and all that imitate it, Gemini.
    all_input: Option<u64>,
    /// All input where the cache's part is given in it (OpenAI's responses), else input that neither came from the cache
    /// nor went to it (Anthropic, Bedrock).
    input: Option<u64>,
    /// Input of tools that the provider runs itself, beside the rest (Gemini).
    tool_input: Option<u64>,
    cache_written: Option<u64>,
    /// What came from the cache, beside the rest of the input.
    cache_read: Option<u64>,
    /// What came from the cache, among the input.
    cached_among: Option<u64>,
    output: Option<u64>,
    /// Thoughts, beside the rest of the output (Gemini).
    thoughts: Option<u64>,
}

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    AllInput,
    Input,
    ToolInput,
    CacheWritten,
    CacheRead,
    CachedAmong,
    Output,
    Thoughts,
    /// An object that tells what came from the cache.
    Details,
    /// Cohere's real tokens, which count.
    Tokens,
    /// Cohere's billed units, which count where the real tokens are not told.
    Billed,
    Other,
}

impl Name {
    fn of(name: &str) -> Self {
        match name {
            "prompt_tokens" | "promptTokenCount" => Self::AllInput,
            "input_tokens" | "inputTokens" | "inputTokenCount" => Self::Input,
            "toolUsePromptTokenCount" => Self::ToolInput,
            "cache_creation_input_tokens" | "cacheWriteInputTokens" | "cacheWriteInputTokenCount" => {
                Self::CacheWritten
            }
            "cache_read_input_tokens" | "cacheReadInputTokens" | "cacheReadInputTokenCount" => {
                Self::CacheRead
            }
            // OpenAI's details, DeepSeek, Gemini.
            "cached_tokens" | "prompt_cache_hit_tokens" | "cachedContentTokenCount" => Self::CachedAmong,
            "completion_tokens"
            | "output_tokens"
            | "candidatesTokenCount"
            | "outputTokens"
            | "outputTokenCount" => Self::Output,
            "thoughtsTokenCount" => Self::Thoughts,
            "prompt_tokens_details" | "input_tokens_details" => Self::Details,
            "tokens" => Self::Tokens,
            "billed_units" => Self::Billed,
            _ => Self::Other,
        }
    }
}

impl UsageFields {
    /// Reads a report of usage; `None` if it is none.
    pub(super) fn read(raw: &str) -> Option<Self> {
        serde_json::Deserializer::from_str(raw)
            .deserialize_map(FieldsVisitor)
            .ok()
    }

    /// Takes over what a later report says; what it leaves out stays.
    pub(super) fn update(&mut self, later: &Self) {
        let Self {
            all_input,
            input,
            tool_input,
            cache_written,
            cache_read,
            cached_among,
            output,
            thoughts,
        } = *later;
        self.all_input = all_input.or(self.all_input);
        self.input = input.or(self.input);
        self.tool_input = tool_input.or(self.tool_input);
        self.cache_written = cache_written.or(self.cache_written);
        self.cache_read = cache_read.or(self.cache_read);
        self.cached_among = cached_among.or(self.cached_among);
        self.output = output.or(self.output);
        self.thoughts = thoughts.or(self.thoughts);
    }

    /// Returns the usage in the engine's terms.
    pub(super) fn usage(&self) -> Usage {
        let sum = |a: u64, b: Option<u64>| a.saturating_add(b.unwrap_or(0));
        let uncached = self.input.map(|input| sum(input, self.cache_written));
        let input = self
            .all_input
            .or(uncached)
            .map(|input| sum(input, self.tool_input));
        // What is told to be among the input is taken out of it; what is told beside it is not in it.
        let among = self.cached_among.map(|cached| cached.min(input.unwrap_or(0)));
        let output = match (self.output, self.thoughts) {
            (None, None) => None,
            (output, thoughts) => Some(sum(output.unwrap_or(0), thoughts)),
        };
        Usage {
            input: input.map(|input| Tokens::new(input - among.unwrap_or(0))),
            cached_input: Tokens::new(among.or(self.cache_read).unwrap_or(0)),
            output: output.map(Tokens::new),
        }
    }

    fn set(&mut self, name: Name, raw: &str) {
        let count = || whole_number(raw);
        match name {
            Name::AllInput => self.all_input = count(),
            Name::Input => self.input = count(),
            Name::ToolInput => self.tool_input = count(),
            Name::CacheWritten => self.cache_written = count(),
            Name::CacheRead => self.cache_read = count(),
            Name::CachedAmong => self.cached_among = count(),
            Name::Output => self.output = count(),
            Name::Thoughts => self.thoughts = count(),
            Name::Details => {
                let cached = Self::read(raw).and_then(|details| details.cached_among);
                self.cached_among = cached.or(self.cached_among);
            }
            Name::Tokens => {
                if let Some(tokens) = Self::read(raw) {
                    self.input = tokens.input.or(self.input);
                    self.output = tokens.output.or(self.output);
                }
            }
            Name::Billed => {
                if let Some(billed) = Self::read(raw) {
                    self.input = self.input.or(billed.input);
                    self.output = self.output.or(billed.output);
                }
            }
            Name::Other => {}
        }
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = UsageFields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a report of usage")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UsageFields, A::Error> {
        let mut fields = UsageFields::default();
        while let Some(name) = map.next_key_seed(Key(Name::of))? {
            if name == Name::Other {
                map.next_value::<IgnoredAny>()?;
            } else {
                let raw: &RawValue = map.next_value()?;
                fields.set(name, raw.get());
            }
        }
        Ok(fields)
    }
}

/// Where a report of usage stands in an answer or event, besides `usage` itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The report itself.
    Report,
    /// An object that holds it: Groq's `x_groq`.
    Holder,
    Other,
}

impl Place {
    pub(super) fn of(key: &str) -> Self {
        match key {
            // Cohere's older API has it in `meta`; Bedrock's metrics end an invocation's stream.
            "usage" | "usageMetadata" | "meta" | "amazon-bedrock-invocationMetrics" => Self::Report,
            "x_groq" => Self::Holder,
            _ => Self::Other,
        }
    }
}

/// What a whole answer says of its usage, and the error in it, if it is one.
#[derive(Debug, Default)]
pub(super) struct AnswerReport<'de> {
    pub(super) usage: Option<UsageFields>,
    pub(super) error: Option<&'de RawValue>,
}

/// Returns what a whole answer reports: an object, or a list of them (a Gemini stream without `alt=sse`), of which later
/// ones count. `None` if it is neither.
pub(super) fn in_answer(body: &[u8]) -> Option<AnswerReport<'_>> {
    let text = str::from_utf8(body).ok()?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut report = AnswerReport::default();
    Any(ReadAnswer { report: &mut report })
        .deserialize(&mut deserializer)
        .ok()?;
    deserializer.end().ok()?;
    Some(report)
}

struct ReadAnswer<'r, 'de> {
    report: &'r mut AnswerReport<'de>,
}

/// A key of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AnswerKey {
    Usage(Place),
    Error,
    Choices,
}

impl<'de> Read<'de> for ReadAnswer<'_, 'de> {
    type Output = ();

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq
            .next_element_seed(Any(ReadAnswer { report: self.report }))?
            .is_some()
        {}
        Ok(())
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let key = |key: &str| match key {
            "error" => AnswerKey::Error,
            "choices" => AnswerKey::Choices,
            _ => AnswerKey::Usage(Place::of(key)),
        };
        while let Some(key) = map.next_key_seed(Key(key))? {
            match key {
                AnswerKey::Usage(Place::Other) => {
                    map.next_value::<IgnoredAny>()?;
                }
                AnswerKey::Usage(place) => {
                    let raw: &RawValue = map.next_value()?;
                    if let Some(later) = at_place(place, raw) {
                        self.report.usage.get_or_insert_default().update(&later);
                    }
                }
                AnswerKey::Error => {
                    let raw: &RawValue = map.next_value()?;
                    if raw.get() != "null" {
                        self.report.error = Some(raw);
                    }
                }
                // OpenRouter puts what went wrong with one provider into the choice.
                AnswerKey::Choices => {
                    let found = map.next_value_seed(Any(ChoiceError))?;
                    self.report.error = self.report.error.or(found);
                }
            }
        }
        Ok(())
    }
}

/// Finds the first `error` in the elements of a list.
struct ChoiceError;

impl<'de> Read<'de> for ChoiceError {
    type Output = Option<&'de RawValue>;

    fn list<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Output, A::Error> {
        let mut first = None;
        while let Some(found) = seq.next_element_seed(Any(Self))? {
            first = first.or(found);
        }
        Ok(first)
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Output, A::Error> {
        let mut error = None;
        while let Some(is_error) = map.next_key_seed(Key(|key: &str| key == "error"))? {
            if is_error {
                let raw: &RawValue = map.next_value()?;
                error = (raw.get() != "null").then_some(raw);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(error)
    }
}

/// Reads the report in a value that stands at a place.
pub(super) fn at_place(place: Place, raw: &RawValue) -> Option<UsageFields> {
    match place {
        Place::Report => UsageFields::read(raw.get()),
        Place::Holder => in_object(raw),
        Place::Other => None,
    }
}

/// Returns the report that an object holds.
pub(super) fn in_object(raw: &RawValue) -> Option<UsageFields> {
    let mut report = AnswerReport::default();
    let read = Any(ReadAnswer { report: &mut report });
    read.deserialize(&mut serde_json::Deserializer::from_str(raw.get()))
        .ok()?;
    report.usage
}

/// Returns the usage that Bedrock reports in an answer's headers, whichever model wrote the body.
pub(super) fn in_headers(headers: &HeaderMap) -> Option<UsageFields> {
    let count = |name: &str| headers.get(name)?.to_str().ok().and_then(whole_number);
    let output = count("x-amzn-bedrock-output-token-count");
    let fields = UsageFields {
        input: count("x-amzn-bedrock-input-token-count"),
        cache_read: count("x-amzn-bedrock-cache-read-input-token-count"),
        cache_written: count("x-amzn-bedrock-cache-write-input-token-count"),
        output,
        ..UsageFields::default()
    };
    (fields.input.is_some() || output.is_some()).then_some(fields)
}

/// Returns the usage that the end of an answer reports: the last object in it that has the name of a report.
///
/// A quoted `"usage"` cannot stand inside a text, where its quotes would be escaped.
pub(super) fn in_tail(tail: &[u8]) -> Option<UsageFields> {
    const KEYS: [&[u8]; 3] = [b"\"usage\"", b"\"usageMetadata\"", b"\"meta\""];
    let (at, key) = KEYS
        .iter()
        .filter_map(|key| Some((memchr::memmem::rfind(tail, key)?, key)))
        .max()?;
    let rest = tail
        .get(at + key.len()..)?
        .trim_ascii_start()
        .strip_prefix(b":")?;
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<&RawValue>();
    UsageFields::read(values.next()?.ok()?.get())
}

#[cfg(test)]
mod tests;
