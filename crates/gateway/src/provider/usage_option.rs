//! Asking for usage in a stream whose client did not ask (providers.md §2.8).

use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer as _, Error as _, MapAccess, Visitor};

use super::edit::Splice;
use super::fields::{range_in, raw};
use super::tally::Key;

/// What `stream_options` is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StreamOptions {
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

impl StreamOptions {
    pub(super) fn read(value: &str) -> Self {
        if value == "null" {
            return Self::Null;
        }
        serde_json::Deserializer::from_str(value)
            .deserialize_map(OptionsVisitor { text: value })
            .unwrap_or(Self::Wrong)
    }

    /// Returns whether they ask for usage.
    pub(super) fn ask(&self) -> bool {
        matches!(
            self,
            Self::Object {
                include_usage: Some((_, Some(true))),
                ..
            }
        )
    }

    /// Returns the smallest change that asks for usage; `at` is where they stand in the body.
    pub(super) fn asking(&self, at: Range<usize>) -> Option<Splice> {
        match self {
            Self::Null => Some(Splice::replace(at, r#"{"include_usage":true}"#)),
            Self::Object {
                include_usage: Some((value, Some(false) | None)),
                ..
            } => Some(Splice::replace(
                at.start + value.start..at.start + value.end,
                "true",
            )),
            Self::Object {
                include_usage: None,
                empty,
            } => Some(Splice::insert(at.start, *empty, r#""include_usage":true"#)),
            Self::Object { .. } | Self::Wrong => None,
        }
    }
}

/// Returns the change that asks for usage in a body without `stream_options`.
pub(super) fn adding(object: usize) -> Splice {
    // The object has at least `stream`.
    Splice::insert(object, false, r#""stream_options":{"include_usage":true}"#)
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
