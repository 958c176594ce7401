//! Usage as providers report it (providers.md §2.8, §4.8).

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tidegate_core::{Tokens, Usage};

use super::facts::whole_number;

/// What a `usage` object says, whoever wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub(super) struct UsageFields {
    /// OpenAI's chat, completions and embeddings: all input, cached or not.
    #[serde(deserialize_with = "count")]
    prompt_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    completion_tokens: Option<u64>,
    /// OpenAI's responses: all input. Anthropic: input that neither came from the cache nor went to it.
    #[serde(deserialize_with = "count")]
    input_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    output_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    cache_creation_input_tokens: Option<u64>,
    #[serde(deserialize_with = "count")]
    cache_read_input_tokens: Option<u64>,
    #[serde(deserialize_with = "cached")]
    prompt_tokens_details: Option<u64>,
    #[serde(deserialize_with = "cached")]
    input_tokens_details: Option<u64>,
}

impl UsageFields {
    /// Reads a `usage` object; `None` if it is none.
    pub(super) fn read(raw: &str) -> Option<Self> {
        if !raw.starts_with('{') {
            return None;
        }
        serde_json::from_str(raw).ok()
    }

    /// Takes over what a later report says; what it leaves out stays.
    pub(super) fn update(&mut self, later: &Self) {
        let Self {
            prompt_tokens,
            completion_tokens,
            input_tokens,
            output_tokens,
            cache_creation_input_tokens,
            cache_read_input_tokens,
            prompt_tokens_details,
            input_tokens_details,
        } = *later;
        self.prompt_tokens = prompt_tokens.or(self.prompt_tokens);
        self.completion_tokens = completion_tokens.or(self.completion_tokens);
        self.input_tokens = input_tokens.or(self.input_tokens);
        self.output_tokens = output_tokens.or(self.output_tokens);
        self.cache_creation_input_tokens = cache_creation_input_tokens.or(self.cache_creation_input_tokens);
        self.cache_read_input_tokens = cache_read_input_tokens.or(self.cache_read_input_tokens);
        self.prompt_tokens_details = prompt_tokens_details.or(self.prompt_tokens_details);
        self.input_tokens_details = input_tokens_details.or(self.input_tokens_details);
    }

    /// Returns the usage in the engine's terms.
    pub(super) fn usage(&self) -> Usage {
        let created = self.cache_creation_input_tokens.unwrap_or(0);
        let uncached = self.input_tokens.map(|input| input.saturating_add(created));
        // OpenAI counts what came from its cache among the input, Anthropic beside it.
        let among = self.prompt_tokens_details.or(self.input_tokens_details);
        let input = self.prompt_tokens.or(uncached);
        let cached = among.map(|cached| cached.min(input.unwrap_or(0)));
        Usage {
            input: input.map(|input| Tokens::new(input - cached.unwrap_or(0))),
            cached_input: Tokens::new(cached.or(self.cache_read_input_tokens).unwrap_or(0)),
            output: self.completion_tokens.or(self.output_tokens).map(Tokens::new),
        }
    }
}

/// Reads a count; anything else counts as absent.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(whole_number(raw.get()))
}

/// Reads `{"cached_tokens": n, …}`.
fn cached<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    struct Details {
        #[serde(default, deserialize_with = "count")]
        cached_tokens: Option<u64>,
    }

    let raw = <&RawValue>::deserialize(deserializer)?;
    let details: Option<Details> = serde_json::from_str(raw.get()).ok();
    Ok(details.and_then(|details| details.cached_tokens))
}

/// Returns the usage that a whole answer reports.
pub(super) fn in_answer(body: &[u8]) -> Option<Usage> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow, default)]
        usage: Option<&'a RawValue>,
    }

    let answer: Answer<'_> = serde_json::from_slice(body).ok()?;
    Some(UsageFields::read(answer.usage?.get())?.usage())
}

/// Returns the usage that the end of an answer reports: the last object called `usage` in it.
///
/// A quoted `"usage"` cannot stand inside a text, where its quotes would be escaped.
pub(super) fn in_tail(tail: &[u8]) -> Option<Usage> {
    const KEY: &[u8] = b"\"usage\"";
    let key = memchr::memmem::rfind(tail, KEY)?;
    let rest = tail
        .get(key + KEY.len()..)?
        .trim_ascii_start()
        .strip_prefix(b":")?;
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<&RawValue>();
    let raw = values.next()?.ok()?;
    Some(UsageFields::read(raw.get())?.usage())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(input: Option<u64>, cached: u64, output: Option<u64>) -> Usage {
        Usage {
            input: input.map(Tokens::new),
            cached_input: Tokens::new(cached),
            output: output.map(Tokens::new),
        }
    }

    #[test]
    fn every_shape_is_read() {
        for (body, expect) in [
            // Chat.
            (
                r#"{"id":"x","usage":{"prompt_tokens":12,"completion_tokens":163,"total_tokens":175,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":1}}}"#,
                Some(usage(Some(12), 4, Some(163))),
            ),
            // Responses.
            (
                r#"{"usage":{"input_tokens":12,"input_tokens_details":{"cached_tokens":3},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":17},"user":null}"#,
                Some(usage(Some(12), 3, Some(5))),
            ),
            // Embeddings.
            (
                r#"{"data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}"#,
                Some(usage(Some(8), 0, None)),
            ),
            // Anthropic.
            (
                r#"{"usage":{"input_tokens":10,"cache_creation_input_tokens":200,"cache_read_input_tokens":3000,"cache_creation":{"ephemeral_5m_input_tokens":200},"output_tokens":7,"service_tier":"standard"}}"#,
                Some(usage(Some(210), 3_000, Some(7))),
            ),
            (
                r#"{"usage":{"prompt_tokens":-1,"completion_tokens":"7","prompt_tokens_details":null}}"#,
                Some(usage(None, 0, None)),
            ),
            (
                r#"{"usage":{"prompt_tokens":1e30,"completion_tokens":7.0}}"#,
                Some(usage(Some(u64::MAX), 0, Some(7))),
            ),
            (r#"{"usage":null}"#, None),
            (r#"{"usage":7}"#, None),
            (r#"{"choices":[{"usage":{"prompt_tokens":1}}]}"#, None),
            ("[]", None),
            ("", None),
            (r#"{"usage":{"prompt_tokens":1}"#, None),
        ] {
            assert_eq!(in_answer(body.as_bytes()), expect, "{body}");
        }
    }

    #[test]
    fn the_end_of_an_answer_suffices() {
        for (tail, expect) in [
            (
                r#"0.1,0.2]}],"model":"m","usage": {"prompt_tokens":8,"total_tokens":8}}"#,
                Some(usage(Some(8), 0, None)),
            ),
            (
                r#"says \"usage\" {\"usage\": 1}"}],"usage" :{"prompt_tokens":1,"completion_tokens":2},"service_tier":"default"}"#,
                Some(usage(Some(1), 0, Some(2))),
            ),
            (r#"says \"usage\": {\"prompt_tokens\": 1}"}]}"#, None),
            (r#""usage":{"prompt_tokens":8"#, None),
            (r#""usage""#, None),
            ("", None),
        ] {
            assert_eq!(in_tail(tail.as_bytes()), expect, "{tail}");
        }
    }
}
