//! Values as they stand in the file or on the command line, each with where it stands.
//!
//! A value of the wrong type does not end the reading: it is kept as such, so that everything that is wrong with a file
//! can be said at once.

use std::borrow::Cow;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use toml::{Spanned, Value};

use super::Secret;

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// Nowhere: nobody wrote it.
    #[default]
    Nowhere,
    /// In the file, from one byte to another.
    File(Range<usize>),
    /// On the command line, as this flag.
    Flag(&'static str),
}

/// One value that may be given.
#[derive(Debug, Clone)]
pub struct Field<T> {
    state: State<T>,
    origin: Origin,
}

#[derive(Debug, Clone)]
enum State<T> {
    Absent,
    Given(T),
    /// The value has another type; this says which, never the value itself.
    Mistyped(&'static str),
}

/// What a [`Field`] holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Held<'a, T> {
    Absent,
    Given(&'a T),
    Mistyped(&'static str),
}

/// A type that a value of the file can have.
pub(super) trait FromToml: Sized {
    /// What is expected, for the sentence "expected …".
    const EXPECTED: &'static str;

    /// Reads the value; `None` if it has another type.
    fn from_toml(value: Value) -> Option<Self>;

    /// Describes the type.
    fn schema() -> Schema;
}

/// A length of time as it was written: `"60s"`.
#[derive(Debug, Clone)]
pub struct DurationText(pub String);

/// A number of bytes, or `"32MiB"`.
#[derive(Debug, Clone)]
pub enum ByteText {
    /// Written as a number.
    Number(i64),
    /// Written as text.
    Text(String),
}

impl<T> Field<T> {
    /// Makes a field that was given by a flag, or an absent one.
    pub(super) fn flag(name: &'static str, value: Option<T>) -> Self {
        match value {
            Some(value) => Self {
                state: State::Given(value),
                origin: Origin::Flag(name),
            },
            None => Self::default(),
        }
    }

    /// Makes a field that a preset gives.
    pub(super) fn preset(value: Option<T>) -> Self {
        match value {
            Some(value) => Self {
                state: State::Given(value),
                origin: Origin::Nowhere,
            },
            None => Self::default(),
        }
    }

    /// Returns the value if there is one of the right type.
    pub fn value(&self) -> Option<&T> {
        match &self.state {
            State::Given(value) => Some(value),
            State::Absent | State::Mistyped(_) => None,
        }
    }

    pub(super) const fn held(&self) -> Held<'_, T> {
        match &self.state {
            State::Absent => Held::Absent,
            State::Given(value) => Held::Given(value),
            State::Mistyped(found) => Held::Mistyped(found),
        }
    }

    pub(super) const fn is_absent(&self) -> bool {
        matches!(self.state, State::Absent)
    }

    /// Makes a field of one entry of this field's list, so that the entry is checked and named where the list stands.
    pub(super) fn entry<U>(&self, value: U) -> Field<U> {
        Field {
            state: State::Given(value),
            origin: self.origin.clone(),
        }
    }

    pub(super) const fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl<T> Default for Field<T> {
    fn default() -> Self {
        Self {
            state: State::Absent,
            origin: Origin::Nowhere,
        }
    }
}

impl<'de, T: FromToml> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        let origin = Origin::File(spanned.span());
        let value = spanned.into_inner();
        let found = type_name(&value);
        let state = T::from_toml(value).map_or(State::Mistyped(found), State::Given);
        Ok(Self { state, origin })
    }
}

impl<T: FromToml> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Field".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        T::schema()
    }
}

/// A table of the file, with where it stands.
#[derive(Debug, Clone, Default)]
pub struct Table<T> {
    /// What is in it.
    pub value: T,
    /// Where it stands.
    pub origin: Origin,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        Ok(Self {
            origin: Origin::File(spanned.span()),
            value: spanned.into_inner(),
        })
    }
}

impl<T: JsonSchema> JsonSchema for Table<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl FromToml for String {
    const EXPECTED: &'static str = "a text in quotes";

    fn from_toml(value: Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl FromToml for Secret {
    const EXPECTED: &'static str = "a text in quotes, such as \"env:OPENAI_API_KEY\"";

    fn from_toml(value: Value) -> Option<Self> {
        String::from_toml(value).map(Self::new)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl FromToml for Vec<Secret> {
    const EXPECTED: &'static str = "a list of texts, such as [\"env:NEW_KEY\", \"env:OLD_KEY\"]";

    fn from_toml(value: Value) -> Option<Self> {
        match value {
            Value::Array(values) => values.into_iter().map(Secret::from_toml).collect(),
            _ => None,
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "array", "items": { "type": "string" } })
    }
}

impl FromToml for i64 {
    const EXPECTED: &'static str = "a whole number";

    fn from_toml(value: Value) -> Option<Self> {
        match value {
            Value::Integer(number) => Some(number),
            _ => None,
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "integer", "minimum": 1 })
    }
}

impl FromToml for f64 {
    const EXPECTED: &'static str = "a number, such as 0.001";

    fn from_toml(value: Value) -> Option<Self> {
        match value {
            Value::Float(number) => Some(number),
            // A whole number is a number too; what is asked for is judged by its size.
            Value::Integer(number) => Some(number as f64),
            _ => None,
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "number" })
    }
}

impl FromToml for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_toml(value: Value) -> Option<Self> {
        match value {
            Value::Boolean(value) => Some(value),
            _ => None,
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "boolean" })
    }
}

impl FromToml for DurationText {
    const EXPECTED: &'static str = "a length of time in quotes, with its unit, such as \"60s\"";

    fn from_toml(value: Value) -> Option<Self> {
        String::from_toml(value).map(Self)
    }

    fn schema() -> Schema {
        json_schema!({ "type": "string", "pattern": r"^\s*(\d+d)?(\d+h)?(\d+m)?(\d+s)?(\d+ms)?\s*$" })
    }
}

impl FromToml for ByteText {
    const EXPECTED: &'static str = "a number of bytes, or a text such as \"32MiB\"";

    fn from_toml(value: Value) -> Option<Self> {
        match value {
            Value::Integer(number) => Some(Self::Number(number)),
            Value::String(text) => Some(Self::Text(text)),
            _ => None,
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": ["integer", "string"], "minimum": 1, "pattern": r"^\s*\d+\s*(B|KiB|MiB|GiB)?\s*$" })
    }
}

impl FromToml for Vec<String> {
    const EXPECTED: &'static str = "a list of texts, such as [\"gpt-4o\", \"gpt-4o-2024-*\"]";

    fn from_toml(value: Value) -> Option<Self> {
        match value {
            Value::Array(values) => values.into_iter().map(String::from_toml).collect(),
            _ => None,
        }
    }

    fn schema() -> Schema {
        json_schema!({ "type": "array", "items": { "type": "string" } })
    }
}

impl ByteText {
    /// Returns the number of bytes; `None` if the text is not one, or the number is too large to be counted.
    pub(super) fn bytes(&self) -> Option<i64> {
        let text = match self {
            Self::Number(number) => return Some(*number),
            Self::Text(text) => text.trim(),
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor: i64 = match unit.trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        number.parse::<i64>().ok()?.checked_mul(factor)
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number with a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date or time",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_of_bytes() {
        let check = |text: &str, bytes: Option<i64>| {
            assert_eq!(ByteText::Text(text.to_owned()).bytes(), bytes, "{text}");
        };
        check("65536", Some(65_536));
        check("64KiB", Some(65_536));
        check("32 MiB", Some(33_554_432));
        check("1GiB", Some(1 << 30));
        check("", None);
        check("MiB", None);
        check("1MB", None);
        check("-1KiB", None);
        check("9999999999999GiB", None);
    }
}
