use http::{HeaderMap, Method};
use serde_json::{Map, Value};

use crate::answer::Digest;
use crate::directive::Directives;
use crate::limits::Demand;
use crate::problem::Problem;
use crate::settings::Dialect;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    Generate(Endpoint),
    Models(Dialect),
    Model(Dialect, String),
    Stats,
    Reset,
}

/// Where models work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Responses,
    Completions,
    Embeddings,
    Messages,
    CountTokens,
}

/// A request, understood.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) endpoint: Endpoint,
    pub(crate) model: String,
    pub(crate) demand: Demand,
    /// What the request's input really is, in tokens.
    pub(crate) input_tokens: u64,
    /// One for each text that is answered on its own: a chat, a prompt, a text to embed.
    pub(crate) digests: Vec<Digest>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) base64: bool,
    pub(crate) dimensions: usize,
    pub(crate) directives: Directives,
}

/// Most texts in one request, and most answers to one (OpenAI: 2,048 inputs of embeddings, `n` to 128).
const INPUTS_MAX: usize = 2_048;
const CHOICES_MAX: u64 = 128;
/// The largest number a request may name; anything above is a mistake.
const TOKENS_MAX: u64 = 1 << 31;
const DIMENSIONS: u64 = 1_536;
const DIMENSIONS_MAX: u64 = 3_072;

impl Route {
    /// Finds what a path asks for; OpenAI's paths also without `/v1`.
    ///
    /// # Errors
    ///
    /// Returns the answer to an unknown path or a wrong method, in the provider's shape.
    pub(crate) fn find(
        only: Option<Dialect>,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Self, (Dialect, Problem)> {
        let trimmed = path.trim_end_matches('/');
        let short = trimmed.strip_prefix("/v1").unwrap_or(trimmed);
        let anthropic = headers.contains_key("anthropic-version") || short.starts_with("/messages");
        let spoken = only.unwrap_or(if anthropic {
            Dialect::Anthropic
        } else {
            Dialect::OpenAi
        });
        let (route, expected) = match short {
            "/chat/completions" => (Self::Generate(Endpoint::Chat), Method::POST),
            "/responses" => (Self::Generate(Endpoint::Responses), Method::POST),
            "/completions" => (Self::Generate(Endpoint::Completions), Method::POST),
            "/embeddings" => (Self::Generate(Endpoint::Embeddings), Method::POST),
            "/messages" => (Self::Generate(Endpoint::Messages), Method::POST),
            "/messages/count_tokens" => (Self::Generate(Endpoint::CountTokens), Method::POST),
            "/models" => (Self::Models(spoken), Method::GET),
            "/mock/stats" => (Self::Stats, Method::GET),
            "/mock/reset" => (Self::Reset, Method::POST),
            other => match other.strip_prefix("/models/") {
                Some(model) => (Self::Model(spoken, model.to_owned()), Method::GET),
                None => return Err((spoken, Problem::unknown_url(spoken, method, path))),
            },
        };
        if let (Some(only), Self::Generate(endpoint)) = (only, &route)
            && endpoint.dialect() != only
        {
            return Err((only, Problem::unknown_url(only, method, path)));
        }
        if *method == expected {
            Ok(route)
        } else {
            Err((spoken, Problem::wrong_method(method, path)))
        }
    }
}

impl Endpoint {
    pub(crate) const fn dialect(self) -> Dialect {
        match self {
            Self::Messages | Self::CountTokens => Dialect::Anthropic,
            Self::Chat | Self::Responses | Self::Completions | Self::Embeddings => Dialect::OpenAi,
        }
    }

    /// The name in statistics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Responses => "responses",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Messages => "messages",
            Self::CountTokens => "messages/count_tokens",
        }
    }
}

impl Call {
    /// Reads a request's body.
    ///
    /// # Errors
    ///
    /// Returns the provider's 400.
    pub(crate) fn read(endpoint: Endpoint, body: &[u8], mut directives: Directives) -> Result<Self, Problem> {
        let dialect = endpoint.dialect();
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            return Err(Problem::invalid_json(dialect));
        };
        let Value::Object(fields) = value else {
            return Err(Problem::invalid_json(dialect));
        };
        if let Some(asked) = fields.get("x_mock") {
            directives
                .read_body(asked)
                .map_err(|wrong| Problem::invalid(dialect, "x_mock", &wrong))?;
        }
        let reader = Reader {
            dialect,
            fields: &fields,
        };
        let model = reader.model()?;
        let texts = reader.texts(endpoint)?;
        let limit_name = match endpoint {
            Endpoint::Responses => "max_output_tokens",
            Endpoint::Chat if fields.contains_key("max_completion_tokens") => "max_completion_tokens",
            _ => "max_tokens",
        };
        let max_output = reader.count(limit_name, 1, TOKENS_MAX)?;
        if endpoint == Endpoint::Messages && max_output.is_none() {
            return Err(Problem::missing(dialect, "max_tokens"));
        }
        let choices = match endpoint {
            Endpoint::Embeddings | Endpoint::CountTokens => 0,
            Endpoint::Messages | Endpoint::Responses => 1,
            Endpoint::Chat => reader.count("n", 1, CHOICES_MAX)?.unwrap_or(1),
            Endpoint::Completions => {
                let each = reader.count("n", 1, CHOICES_MAX)?.unwrap_or(1);
                each.saturating_mul(texts.digests.len() as u64)
            }
        };
        let demand = Demand {
            characters: texts.characters,
            messages: texts.messages,
            max_output,
            choices,
            ..Demand::default()
        };
        Ok(Self {
            endpoint,
            model,
            demand,
            input_tokens: texts.tokens(endpoint),
            digests: texts.digests,
            stream: reader.flag("stream")?,
            include_usage: fields
                .get("stream_options")
                .and_then(|options| options.get("include_usage"))
                == Some(&Value::Bool(true)),
            base64: fields.get("encoding_format").and_then(Value::as_str) == Some("base64"),
            dimensions: reader
                .count("dimensions", 1, DIMENSIONS_MAX)?
                .unwrap_or(DIMENSIONS) as usize,
            directives,
        })
    }
}

/// The texts of a request, counted.
struct Texts {
    characters: u64,
    messages: u64,
    digests: Vec<Digest>,
}

impl Texts {
    /// The tokens that the provider's tokenizer is pretended to find: near the limiter's estimate and not equal to it.
    fn tokens(&self, endpoint: Endpoint) -> u64 {
        match endpoint {
            Endpoint::Messages | Endpoint::CountTokens => self
                .characters
                .saturating_mul(2)
                .div_ceil(7)
                .saturating_add(self.messages * 4)
                .max(1),
            _ if self.messages > 0 => self.characters.div_ceil(4) + self.messages * 4 + 3,
            _ => self.characters.div_ceil(4).max(1),
        }
    }
}

struct Reader<'a> {
    dialect: Dialect,
    fields: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn model(&self) -> Result<String, Problem> {
        match self.fields.get("model") {
            Some(Value::String(model)) if !model.is_empty() => Ok(model.clone()),
            None | Some(Value::Null | Value::String(_)) => Err(Problem::missing_model(self.dialect)),
            Some(_) => Err(Problem::wrong_type(self.dialect, "model", "a string")),
        }
    }

    fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(Problem::wrong_type(self.dialect, name, "a boolean")),
        }
    }

    fn count(&self, name: &'static str, min: u64, max: u64) -> Result<Option<u64>, Problem> {
        let number = match self.fields.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => number,
            Some(_) => return Err(Problem::wrong_type(self.dialect, name, "an integer")),
        };
        if number.as_i64().is_some_and(|number| number < min as i64) {
            return Err(Problem::below(self.dialect, name, min, &number.to_string()));
        }
        match number.as_u64() {
            Some(count) if count <= max => Ok(Some(count)),
            None if number.as_f64().is_some_and(|number| number < max as f64) => {
                Err(Problem::wrong_type(self.dialect, name, "an integer"))
            }
            _ => Err(Problem::above(self.dialect, name, max, &number.to_string())),
        }
    }

    fn texts(&self, endpoint: Endpoint) -> Result<Texts, Problem> {
        match endpoint {
            Endpoint::Chat => self.conversation(None, "messages"),
            Endpoint::Messages | Endpoint::CountTokens => self.conversation(Some("system"), "messages"),
            Endpoint::Responses => self.conversation(Some("instructions"), "input"),
            Endpoint::Completions => self.separate("prompt"),
            Endpoint::Embeddings => self.separate("input"),
        }
    }

    /// One answer to all texts together.
    fn conversation(&self, lead: Option<&'static str>, name: &'static str) -> Result<Texts, Problem> {
        let mut tally = Tally::default();
        let mut messages = 0;
        if let Some(lead) = lead
            .and_then(|lead| self.fields.get(lead))
            .filter(|lead| !lead.is_null())
        {
            tally.walk(lead);
            messages += 1;
        }
        match self.fields.get(name) {
            Some(Value::String(text)) if name == "input" => {
                tally.text(text);
                messages += 1;
            }
            Some(Value::Array(entries)) if entries.iter().all(Value::is_object) && !entries.is_empty() => {
                entries.iter().for_each(|entry| tally.walk(entry));
                messages += entries.len() as u64;
            }
            None | Some(Value::Null) => return Err(Problem::missing(self.dialect, name)),
            Some(_) => return Err(Problem::wrong_type(self.dialect, name, "an array of messages")),
        }
        Ok(Texts {
            characters: tally.characters,
            messages,
            digests: vec![tally.digest],
        })
    }

    /// An answer to each text: a string, strings, tokens, or lists of tokens.
    fn separate(&self, name: &'static str) -> Result<Texts, Problem> {
        let one = match self.fields.get(name) {
            Some(one @ Value::String(_)) => std::slice::from_ref(one),
            Some(one @ Value::Array(entries)) if entries.first().is_some_and(Value::is_number) => {
                std::slice::from_ref(one)
            }
            Some(Value::Array(entries)) if !entries.is_empty() && entries.len() <= INPUTS_MAX => {
                entries.as_slice()
            }
            None | Some(Value::Null) => return Err(Problem::missing(self.dialect, name)),
            Some(_) => {
                return Err(Problem::wrong_type(
                    self.dialect,
                    name,
                    "a string, or up to 2048 of them",
                ));
            }
        };
        let mut characters = 0u64;
        let digests = one.iter().map(|text| {
            let mut tally = Tally::default();
            tally.walk(text);
            // Each text is rounded up on its own (providers.md §2.3).
            characters = characters.saturating_add(tally.characters.div_ceil(4) * 4);
            tally.digest
        });
        let digests = digests.collect();
        Ok(Texts {
            characters,
            messages: 0,
            digests,
        })
    }
}

/// Counts and digests texts wherever a message may keep them.
struct Tally {
    characters: u64,
    digest: Digest,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            characters: 0,
            digest: Digest::EMPTY,
        }
    }
}

impl Tally {
    fn text(&mut self, text: &str) {
        self.characters = self.characters.saturating_add(text.chars().count() as u64);
        self.digest.add(text);
    }

    /// The parser bounds the depth of values to 128.
    fn walk(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.text(text),
            // A number is a token of an encoded text: four characters.
            Value::Number(token) => {
                self.characters = self.characters.saturating_add(4);
                self.digest.add(&token.to_string());
            }
            Value::Array(values) => values.iter().for_each(|value| self.walk(value)),
            Value::Object(fields) => {
                for name in ["content", "text", "input", "output", "arguments"] {
                    if let Some(value) = fields.get(name) {
                        self.walk(value);
                    }
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }
}
