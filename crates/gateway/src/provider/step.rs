//! What a step of an agent does, as a number: equal steps have equal fingerprints, by which loops are known.
//!
//! The history that a request carries says what its agent did last: the tools that the model's last turn calls, by name
//! and arguments. Identifiers of calls differ every time and results say little (many calls return `ok`), so neither
//! counts. Where the model called no tool, the whole prompt is the step.
//!
//! Nothing is built of a body: values are hashed while they are read, and entries of objects are added up, so that their
//! order does not matter. The time is linear in the body's length, and its depth bounded by the JSON reader.

use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Endpoint;

/// Returns the fingerprint of the step that a request makes; `None` for operations without a history, and for bodies that
/// cannot be read.
pub fn fingerprint(endpoint: Endpoint, model: Option<&str>, body: &[u8]) -> Option<u64> {
    if !endpoint.generates() {
        return None;
    }
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    let done = match (body.messages, body.input) {
        (Some(messages), _) => of_messages(messages),
        (None, Some(input)) => of_items(input, body.previous.is_some() || body.conversation.is_some()),
        (None, None) => None,
    };
    match done {
        Some(step) => Some(step),
        None => body.prompt_hash(model),
    }
}

/// The fields of a body that hold a history, whichever API it is of.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default, alias = "contents")]
    messages: Option<&'a RawValue>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default)]
    prompt: Option<&'a RawValue>,
    #[serde(borrow, default, alias = "instructions", alias = "systemInstruction")]
    system: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "previous_response_id")]
    previous: Option<&'a RawValue>,
    #[serde(borrow, default)]
    conversation: Option<&'a RawValue>,
}

impl Body<'_> {
    /// The same prompt to the same model is the same step.
    fn prompt_hash(&self, model: Option<&str>) -> Option<u64> {
        self.messages.or(self.input).or(self.prompt)?;
        let parts = [
            self.messages,
            self.input,
            self.prompt,
            self.system,
            self.previous,
            self.conversation,
        ];
        let mut hasher = begin(Kind::Prompt);
        model.hash(&mut hasher);
        for part in parts {
            part.map(|part| value_hash(part.get())).hash(&mut hasher);
        }
        Some(hasher.finish())
    }
}

/// One message of a history, with what every API calls its parts.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<Call<'a>>>,
    /// OpenAI's name from before there were several.
    #[serde(borrow, default)]
    function_call: Option<Call<'a>>,
    #[serde(borrow, default, alias = "parts")]
    content: Option<&'a RawValue>,
}

/// A call of a tool: by itself, or within what holds it.
#[derive(Deserialize)]
struct Call<'a> {
    #[serde(
        borrow,
        default,
        alias = "custom",
        alias = "functionCall",
        alias = "function_call",
        alias = "toolUse"
    )]
    function: Option<Named<'a>>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default, alias = "input", alias = "args")]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default, alias = "input", alias = "args")]
    arguments: Option<&'a RawValue>,
}

impl Call<'_> {
    /// Returns the hash of the call; `None` if this is something else.
    fn hash(&self) -> Option<u64> {
        let (name, arguments) = match &self.function {
            Some(named) => (named.name.as_deref(), named.arguments),
            None => (self.name.as_deref(), self.arguments),
        };
        Some(call_hash(name?, arguments))
    }
}

/// Hashes the calls of the model's last message; `None` if it makes none.
fn of_messages(messages: &RawValue) -> Option<u64> {
    let messages: Vec<Message<'_>> = serde_json::from_str(messages.get()).ok()?;
    let is_models = |message: &&Message<'_>| matches!(message.role.as_deref(), Some("assistant" | "model"));
    let last = messages.iter().rfind(is_models)?;
    let called = last.tool_calls.iter().flatten().chain(&last.function_call);
    let mut calls: Vec<u64> = called.filter_map(Call::hash).collect();
    if let Some(content) = last.content
        && let Ok(blocks) = serde_json::from_str::<Vec<Call<'_>>>(content.get())
    {
        let calling = blocks
            .iter()
            .filter(|block| block.function.is_some() || block.kind.as_deref() == Some("tool_use"));
        calls.extend(calling.filter_map(Call::hash));
    }
    together(Kind::Calls, &calls)
}

/// One item of a response's history.
#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default, alias = "input")]
    arguments: Option<&'a RawValue>,
    #[serde(borrow, default)]
    output: Option<&'a RawValue>,
}

/// What an item is to the search for the last calls.
enum Part {
    Call(u64),
    Output(u64),
    /// Something else that the model said.
    Said,
    /// What stands between the others and decides nothing.
    Between,
    /// What the client asks.
    Asked,
}

impl Item<'_> {
    fn part(&self) -> Part {
        match self.kind.as_deref() {
            Some("function_call" | "custom_tool_call") => match self.name.as_deref() {
                Some(name) => Part::Call(call_hash(name, self.arguments)),
                None => Part::Said,
            },
            Some("function_call_output" | "custom_tool_call_output") => {
                Part::Output(self.output.map_or(0, text_or_json_hash))
            }
            Some("reasoning" | "item_reference") => Part::Between,
            _ if self.role.as_deref() == Some("assistant") => Part::Said,
            _ => Part::Asked,
        }
    }
}

/// Hashes the last calls in a row; where the history is at the provider's, what the client answers to them.
fn of_items(input: &RawValue, is_elsewhere: bool) -> Option<u64> {
    let items: Vec<Item<'_>> = serde_json::from_str(input.get()).ok()?;
    let mut calls = Vec::new();
    let mut outputs = Vec::new();
    let mut is_asked = false;
    for item in items.iter().rev() {
        match item.part() {
            Part::Call(hash) => calls.push(hash),
            Part::Between => {}
            Part::Said => break,
            Part::Output(_) | Part::Asked if !calls.is_empty() => break,
            Part::Output(hash) => outputs.push(hash),
            Part::Asked => is_asked = true,
        }
    }
    calls.reverse();
    let made = together(Kind::Calls, &calls);
    if made.is_none() && is_elsewhere && !is_asked {
        outputs.reverse();
        return together(Kind::Outputs, &outputs);
    }
    made
}

/// Keeps hashes of different things apart.
#[derive(Hash, Clone, Copy)]
enum Kind {
    Prompt,
    Calls,
    Outputs,
    Call,
    Text,
    Number,
    Word,
    List,
    Object,
    Entry,
}

fn begin(kind: Kind) -> DefaultHasher {
    let mut hasher = DefaultHasher::new();
    kind.hash(&mut hasher);
    hasher
}

fn hash_of(kind: Kind, what: impl Hash) -> u64 {
    let mut hasher = begin(kind);
    what.hash(&mut hasher);
    hasher.finish()
}

fn together(kind: Kind, parts: &[u64]) -> Option<u64> {
    (!parts.is_empty()).then(|| hash_of(kind, parts))
}

fn call_hash(name: &str, arguments: Option<&RawValue>) -> u64 {
    hash_of(Kind::Call, (name, arguments.map(text_or_json_hash)))
}

/// Arguments are JSON, or JSON within a string, or a text.
fn text_or_json_hash(value: &RawValue) -> u64 {
    match serde_json::from_str::<Cow<'_, str>>(value.get()) {
        Ok(text) => json_hash(&text).unwrap_or_else(|| hash_of(Kind::Text, &*text)),
        Err(_) => value_hash(value.get()),
    }
}

/// A value that is nested too deep to be read counts by its text.
fn value_hash(json: &str) -> u64 {
    json_hash(json).unwrap_or_else(|| hash_of(Kind::Text, json))
}

/// Hashes a JSON value whatever its whitespace and the order of its keys.
fn json_hash(json: &str) -> Option<u64> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let hash = Canonical.deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    Some(hash)
}

/// Hashes a value while it is read.
struct Canonical;

impl<'de> DeserializeSeed<'de> for Canonical {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<u64, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Canonical {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<u64, E> {
        Ok(hash_of(Kind::Word, Some(value)))
    }

    fn visit_unit<E>(self) -> Result<u64, E> {
        Ok(hash_of(Kind::Word, None::<bool>))
    }

    fn visit_u64<E>(self, value: u64) -> Result<u64, E> {
        Ok(hash_of(Kind::Number, i128::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<u64, E> {
        Ok(hash_of(Kind::Number, i128::from(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<u64, E> {
        Ok(hash_of(Kind::Number, value.to_bits()))
    }

    fn visit_str<E>(self, text: &str) -> Result<u64, E> {
        Ok(hash_of(Kind::Text, text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u64, A::Error> {
        let mut hasher = begin(Kind::List);
        while let Some(item) = items.next_element_seed(Canonical)? {
            item.hash(&mut hasher);
        }
        Ok(hasher.finish())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<u64, A::Error> {
        let mut sum = 0_u64;
        while let Some(key) = entries.next_key_seed(Canonical)? {
            let value = entries.next_value_seed(Canonical)?;
            sum = sum.wrapping_add(hash_of(Kind::Entry, (key, value)));
        }
        Ok(hash_of(Kind::Object, sum))
    }
}

#[cfg(test)]
mod tests;
