use serde_json::{Map, Value};

use crate::answer::Digest;
use crate::directive::Directives;
use crate::limits::Demand;
use crate::native;
use crate::problem::Problem;
use crate::provider::Provider;
use crate::route::{Endpoint, Framing, Target};

/// A request, understood.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) target: Target,
    pub(crate) model: String,
    pub(crate) demand: Demand,
    /// What the request's input really is, in tokens.
    pub(crate) input_tokens: u64,
    /// One for each text that is answered on its own: a chat, a prompt, a text to embed.
    pub(crate) digests: Vec<Digest>,
    /// How the answer is streamed, if it is.
    pub(crate) framing: Option<Framing>,
    pub(crate) include_usage: bool,
    pub(crate) base64: bool,
    pub(crate) dimensions: usize,
    /// Most documents in the answer to a ranking.
    pub(crate) top: usize,
    /// How many answers to each text are returned: of the best of several not all.
    pub(crate) returned: u64,
    pub(crate) directives: Directives,
}

/// Most texts in one request, and most answers to one (OpenAI: 2,048 inputs of embeddings, `n` to 128).
pub(crate) const INPUTS_MAX: usize = 2_048;
const CHOICES_MAX: u64 = 128;
/// The largest number a request may name; anything above is a mistake.
const TOKENS_MAX: u64 = 1 << 31;
const DIMENSIONS: u64 = 1_536;
const DIMENSIONS_MAX: u64 = 3_072;

impl Call {
    /// Reads a request's body.
    ///
    /// # Errors
    ///
    /// Returns the provider's 400.
    pub(crate) fn read(
        target: Target,
        content_type: Option<&str>,
        body: &[u8],
        mut directives: Directives,
    ) -> Result<Self, Problem> {
        let (provider, endpoint) = (target.provider, target.endpoint);
        let fields = if endpoint == Endpoint::Transcriptions {
            native::form(content_type, body).ok_or_else(|| Problem::missing(provider, "file"))?
        } else {
            match serde_json::from_slice::<Value>(body) {
                Ok(Value::Object(fields)) => fields,
                _ => return Err(Problem::invalid_json(provider)),
            }
        };
        if let Some(asked) = fields.get("x_mock") {
            directives
                .read_body(asked)
                .map_err(|wrong| Problem::invalid(provider, "x_mock", &wrong))?;
        }
        let reader = Reader {
            provider,
            fields: &fields,
        };
        let model = match &target.model {
            Some(model) => model.clone(),
            None => reader.model(endpoint)?,
        };
        let texts = reader.texts(endpoint)?;
        let max_output = reader.max_output(endpoint)?;
        let demand = Demand {
            characters: texts.characters,
            messages: texts.messages,
            max_output,
            choices: reader.choices(endpoint, &texts)?,
            inputs: if endpoint == Endpoint::CohereEmbed {
                texts.digests.len() as u64
            } else {
                0
            },
            images: if endpoint == Endpoint::Images {
                reader.count("n", 1, CHOICES_MAX)?.unwrap_or(1)
            } else {
                0
            },
            audio_seconds: native::audio_seconds(endpoint, &fields),
        };
        let streamed = || {
            if endpoint == Endpoint::CohereChatV1 {
                Framing::Lines
            } else {
                Framing::Events
            }
        };
        let asks = endpoint.writes() && target.framing.is_none() && reader.flag("stream")?;
        if provider == Provider::Mistral && fields.contains_key("stream_options") {
            // Usage comes unasked there (providers.md §7).
            directives.rejected = Some("stream_options");
        }
        let dimensions_name = match endpoint {
            Endpoint::CohereEmbed => "output_dimension",
            _ => "dimensions",
        };
        Ok(Self {
            framing: target.framing.or_else(|| asks.then(streamed)),
            model,
            demand,
            input_tokens: texts.tokens(provider, endpoint),
            digests: texts.digests,
            include_usage: fields
                .get("stream_options")
                .and_then(|options| options.get("include_usage"))
                == Some(&Value::Bool(true)),
            base64: fields.get("encoding_format").and_then(Value::as_str) == Some("base64"),
            dimensions: native::dimensions(endpoint, &fields)
                .map_or_else(
                    || reader.count(dimensions_name, 1, DIMENSIONS_MAX),
                    |asked| Ok(Some(asked)),
                )?
                .unwrap_or(DIMENSIONS)
                .min(DIMENSIONS_MAX) as usize,
            top: reader
                .count("top_n", 1, INPUTS_MAX as u64)?
                .unwrap_or(INPUTS_MAX as u64) as usize,
            returned: if endpoint == Endpoint::Completions {
                reader.count("n", 1, CHOICES_MAX)?.unwrap_or(1)
            } else {
                CHOICES_MAX
            },
            directives,
            target,
        })
    }
}

/// The texts of a request, counted.
pub(crate) struct Texts {
    pub(crate) characters: u64,
    pub(crate) messages: u64,
    pub(crate) digests: Vec<Digest>,
}

impl Texts {
    /// The tokens that the provider's tokenizer is pretended to find: near the limiter's estimate and not equal to it.
    fn tokens(&self, provider: Provider, endpoint: Endpoint) -> u64 {
        match endpoint {
            _ if provider == Provider::Anthropic => self
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
    provider: Provider,
    fields: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn model(&self, endpoint: Endpoint) -> Result<String, Problem> {
        match self.fields.get("model") {
            // Those who moderate and Cohere's first version choose themselves.
            None if matches!(endpoint, Endpoint::Moderations | Endpoint::CohereChatV1) => {
                Ok("default".to_owned())
            }
            Some(Value::String(model)) if !model.is_empty() => Ok(model.clone()),
            None | Some(Value::Null | Value::String(_)) => Err(Problem::missing_model(self.provider)),
            Some(_) => Err(Problem::wrong_type(self.provider, "model", "a string")),
        }
    }

    fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(Problem::wrong_type(self.provider, name, "a boolean")),
        }
    }

    fn count(&self, name: &'static str, min: u64, max: u64) -> Result<Option<u64>, Problem> {
        let number = match self.fields.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(number)) => number,
            Some(_) => return Err(Problem::wrong_type(self.provider, name, "an integer")),
        };
        if number.as_i64().is_some_and(|number| number < min as i64) {
            return Err(Problem::below(self.provider, name, min, &number.to_string()));
        }
        match number.as_u64() {
            Some(count) if count <= max => Ok(Some(count)),
            None if number.as_f64().is_some_and(|number| number < max as f64) => {
                Err(Problem::wrong_type(self.provider, name, "an integer"))
            }
            _ => Err(Problem::above(self.provider, name, max, &number.to_string())),
        }
    }

    fn max_output(&self, endpoint: Endpoint) -> Result<Option<u64>, Problem> {
        let nested = |outer: &str, name: &'static str| match self.fields.get(outer) {
            Some(Value::Object(fields)) => Reader {
                provider: self.provider,
                fields,
            }
            .count(name, 1, TOKENS_MAX),
            _ => Ok(None),
        };
        match endpoint {
            Endpoint::GenerateContent => {
                let maximum = nested("generationConfig", "maxOutputTokens")?;
                maximum.map_or_else(
                    || nested("generation_config", "max_output_tokens"),
                    |max| Ok(Some(max)),
                )
            }
            Endpoint::Converse => nested("inferenceConfig", "maxTokens"),
            Endpoint::Responses => self.count("max_output_tokens", 1, TOKENS_MAX),
            Endpoint::Chat if self.fields.contains_key("max_completion_tokens") => {
                self.count("max_completion_tokens", 1, TOKENS_MAX)
            }
            Endpoint::Messages if !self.fields.contains_key("max_tokens") => {
                Err(Problem::missing(self.provider, "max_tokens"))
            }
            _ => self.count("max_tokens", 1, TOKENS_MAX),
        }
    }

    /// How many answers there are to be; 0 where no model writes.
    fn choices(&self, endpoint: Endpoint, texts: &Texts) -> Result<u64, Problem> {
        if !endpoint.writes() {
            return Ok(0);
        }
        let count = |name| Ok::<u64, Problem>(self.count(name, 1, CHOICES_MAX)?.unwrap_or(1));
        match endpoint {
            Endpoint::Chat => count("n"),
            // Of the best of several all are written (providers.md §2.3).
            Endpoint::Completions => {
                let each = count("n")?.max(count("best_of")?);
                Ok(each.saturating_mul(texts.digests.len() as u64))
            }
            Endpoint::GenerateContent => Ok(native::candidates(self.fields).clamp(1, CHOICES_MAX)),
            _ => Ok(1),
        }
    }

    fn texts(&self, endpoint: Endpoint) -> Result<Texts, Problem> {
        if let Some(texts) = native::texts(endpoint, self.fields) {
            return texts.map_err(|name| Problem::missing(self.provider, name));
        }
        match endpoint {
            Endpoint::Chat => self.conversation(None, "messages"),
            Endpoint::Messages | Endpoint::CountTokens => self.conversation(Some("system"), "messages"),
            Endpoint::Responses => self.conversation(Some("instructions"), "input"),
            Endpoint::Completions => self.separate("prompt"),
            Endpoint::Images => self.separate("prompt"),
            _ => self.separate("input"),
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
            None | Some(Value::Null) => return Err(Problem::missing(self.provider, name)),
            Some(_) => return Err(Problem::wrong_type(self.provider, name, "an array of messages")),
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
            None | Some(Value::Null) => return Err(Problem::missing(self.provider, name)),
            Some(_) => {
                return Err(Problem::wrong_type(
                    self.provider,
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
pub(crate) struct Tally {
    pub(crate) characters: u64,
    pub(crate) digest: Digest,
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
    pub(crate) fn text(&mut self, text: &str) {
        self.characters = self.characters.saturating_add(text.chars().count() as u64);
        self.digest.add(text);
    }

    /// The parser bounds the depth of values to 128.
    pub(crate) fn walk(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.text(text),
            // A number is a token of an encoded text: four characters.
            Value::Number(token) => {
                self.characters = self.characters.saturating_add(4);
                self.digest.add(&token.to_string());
            }
            Value::Array(values) => values.iter().for_each(|value| self.walk(value)),
            Value::Object(fields) => {
                for name in ["content", "text", "input", "output", "arguments", "parts"] {
                    if let Some(value) = fields.get(name) {
                        self.walk(value);
                    }
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }
}
