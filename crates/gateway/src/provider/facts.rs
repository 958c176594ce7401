//! What is read from a request's body, without building it.

use std::num::NonZeroU32;

use bytes::Bytes;
use tidegate_core::{Demand, Tokens};
use tidegate_tokens::Encoding;

use super::bad_body::BadBody;
use super::edit::{self, Splice};
use super::fields::{self, Fields, HolderKind, OutputName, Place, Settings, TOOLS};
use super::input::Input;
use super::tally::Tally;
use super::{Endpoint, Provider, form, usage_option};

/// What a request's body says, as far as limits and relaying are concerned.
///
/// It is tolerant: what a provider would refuse (a negative maximum, say) counts as absent, and the provider gives its
/// own answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    /// The operation.
    pub endpoint: Endpoint,
    /// The model that is asked for, where the body names it.
    pub model: Option<String>,
    /// The most output tokens of each choice; a value no provider would accept counts as absent, a huge one saturates.
    pub max_output: Option<Tokens>,
    /// How many choices are generated (`n`, or `best_of` where it is larger; Gemini's `candidateCount`).
    pub choices: NonZeroU32,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the client asked for usage in the stream.
    pub usage_asked: bool,
    /// How much text there is.
    text: Tally,
    has_tools: bool,
    /// What the provider charges for the input, as far as that is known.
    input: Tokens,
    places: Places,
}

/// Where in the body changes may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Places {
    /// The opening brace.
    object: usize,
    is_empty: bool,
    /// How to ask for usage in the stream, where that is possible and was not done.
    usage: Option<Splice>,
    max_output: [Option<Place>; OutputName::COUNT],
    settings: [Option<fields::Holder>; 3],
}

/// What is to be changed in a body before it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    /// Who gets it: providers have different names for the maximum output.
    pub provider: Provider,
    /// Whether to ask for usage in the stream if the client did not.
    pub usage: bool,
    /// The most output tokens of each choice.
    pub output_max: Option<Tokens>,
}

/// A body as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The body: the client's, every byte of it, but for what was wished.
    pub body: Bytes,
    /// Whether usage is asked for on the client's behalf. The answer is then to be read by a [`super::ResponseTap`] made
    /// with `strip = true`; it must come uncompressed.
    pub asks_usage: bool,
    /// The maximum output that was set, if it was.
    pub output_max: Option<Tokens>,
}

impl RequestFacts {
    /// Reads the body of a request to an endpoint that [has facts](Endpoint::has_facts). Linear in its length.
    ///
    /// # Errors
    ///
    /// Returns an error if the body is not a JSON object in UTF-8, or if its texts are nested deeper than 128 levels.
    pub fn read(endpoint: Endpoint, body: &[u8]) -> Result<Self, BadBody> {
        let text = str::from_utf8(body).map_err(|error| BadBody::NotUtf8 {
            offset: error.valid_up_to(),
        })?;
        let Some(first) = text.bytes().position(|byte| !byte.is_ascii_whitespace()) else {
            return Err(BadBody::Empty);
        };
        let fields = fields::read(text, None).map_err(|error| BadBody::of(&error))?;
        Ok(Self::of(endpoint, fields, first))
    }

    fn of(endpoint: Endpoint, fields: Fields, object: usize) -> Self {
        let (text, has_tools) = (total(&fields), fields.parts[TOOLS].characters > 0);
        let choices = fields.choices.into_iter().flatten().max().unwrap_or(1);
        let choices = u32::try_from(choices).unwrap_or(u32::MAX);
        let options = fields.stream_options;
        let usage_asked = options.as_ref().is_some_and(|(_, options)| options.ask());
        let has_option = matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Completions);
        let usage = (has_option && fields.stream && !usage_asked)
            .then(|| match options {
                Some((at, options)) => options.asking(at),
                None => Some(usage_option::adding(object)),
            })
            .flatten();
        let numbers = output_names(endpoint)
            .iter()
            .filter_map(|name| fields.max_output[*name as usize].as_ref());
        Self {
            endpoint,
            model: fields.model,
            max_output: numbers.filter_map(|place| place.value).max().map(Tokens::new),
            choices: NonZeroU32::new(choices).unwrap_or(NonZeroU32::MIN),
            stream: fields.stream || endpoint.streams(),
            usage_asked,
            input: Input::unattributed(endpoint).tokens(&text, has_tools),
            text,
            has_tools,
            places: Places {
                object,
                is_empty: fields.is_empty,
                usage,
                max_output: fields.max_output,
                settings: fields.settings,
            },
        }
    }

    /// Counts the input as this provider charges it for this model. Where it charges real tokens and the tokenizer is
    /// public, the texts are gone through a second time: the model is often known only behind them. The facts must have
    /// been read from this very body.
    pub fn count(&mut self, body: &[u8], provider: Provider, model: Option<&str>) {
        let input = Input::of(self.endpoint, provider, model.unwrap_or_default());
        let counted = input.encoding().and_then(|encoding| tokens(body, encoding));
        self.text.tokens = counted.unwrap_or_default();
        self.input = input.tokens(&self.text, self.has_tools);
    }

    /// Returns the model that the form of an operation [with a form](Endpoint::has_form) names.
    pub fn model_of_form(content_type: &str, body: &[u8]) -> Option<String> {
        form::model(content_type, body)
    }

    /// Returns what the request may consume.
    pub fn demand(&self) -> Demand {
        let generating = Demand {
            choices: self.choices,
            ..Demand::generating(self.input, self.max_output)
        };
        match self.endpoint {
            Endpoint::ChatCompletions
            | Endpoint::Responses
            | Endpoint::Completions
            | Endpoint::GenerateContent
            | Endpoint::StreamGenerateContent
            | Endpoint::CohereChat
            | Endpoint::Messages
            | Endpoint::Converse
            | Endpoint::ConverseStream
            | Endpoint::InvokeModel
            | Endpoint::InvokeModelStream => generating,
            Endpoint::Embeddings
            | Endpoint::Moderations
            | Endpoint::EmbedContent
            | Endpoint::BatchEmbedContents
            | Endpoint::Predict
            | Endpoint::CohereEmbed
            | Endpoint::Rerank
            | Endpoint::Images
            | Endpoint::Speech
            | Endpoint::Ocr => Demand::input_only(self.input),
            Endpoint::ResponseTokens
            | Endpoint::ImageEdits
            | Endpoint::Transcriptions
            | Endpoint::CountTokens
            | Endpoint::CountContentTokens
            | Endpoint::Tokenize
            | Endpoint::CountModelTokens
            | Endpoint::Models
            | Endpoint::Other => Demand::REQUEST_ONLY,
        }
    }

    /// Makes the wished changes to the body, the smallest that do, and takes note of them. The facts must have been read
    /// from this very body, and this is done once.
    pub fn edit(&mut self, body: &Bytes, wishes: Wishes) -> Edited {
        let mut splices = Vec::new();
        if wishes.usage {
            splices.extend(self.places.usage.clone());
        }
        let asks_usage = !splices.is_empty();
        let cap = wishes.output_max.filter(|_| self.endpoint.generates());
        let capping = cap.and_then(|cap| self.places.capping(self.endpoint, wishes.provider, cap));
        let mut edited = Edited {
            body: body.clone(),
            asks_usage: false,
            output_max: None,
        };
        let output_max = capping.as_ref().and(cap);
        splices.extend(capping.into_iter().flatten());
        if splices.is_empty() {
            return edited;
        }
        if let Some(body) = edit::apply(body, splices) {
            self.max_output = output_max.or(self.max_output);
            edited = Edited {
                body,
                asks_usage,
                output_max,
            };
        }
        edited
    }
}

/// Returns all texts of a body together.
fn total(fields: &Fields) -> Tally {
    let mut text = Tally::default();
    for part in &fields.parts {
        text.add(part);
    }
    text
}

/// Returns the tokens of all texts of a body.
fn tokens(body: &[u8], encoding: Encoding) -> Option<u64> {
    let text = str::from_utf8(body).ok()?;
    let fields = fields::read(text, Some(encoding)).ok()?;
    Some(total(&fields).tokens)
}

impl Places {
    /// Returns the smallest changes by which no maximum is larger than `cap`, and one is set; `None` if none is needed or
    /// none can be made.
    ///
    /// A maximum that no provider accepts (`"512"`, -1) is left for the provider to refuse. Where a maximum is required
    /// (Anthropic) or the model's maker has a name of its own for it (Bedrock's `invoke`), none is added.
    fn capping(&self, endpoint: Endpoint, provider: Provider, cap: Tokens) -> Option<Vec<Splice>> {
        let own = output_name(endpoint, provider);
        let text = || cap.value().to_string();
        let mut splices = Vec::new();
        let mut is_set = false;
        for name in output_names(endpoint) {
            let Some(place) = &self.max_output[*name as usize] else {
                continue;
            };
            let is_own = own == Some(*name);
            match place.value {
                Some(value) if value > cap.value() => splices.push(Splice::replace(place.at.clone(), text())),
                None if place.is_null && is_own => splices.push(Splice::replace(place.at.clone(), text())),
                None if place.is_null => continue,
                Some(_) | None => {}
            }
            is_set = true;
        }
        if !is_set && let Some(own) = own {
            splices.push(self.adding(own, cap)?);
        }
        (!splices.is_empty()).then_some(splices)
    }

    /// Returns the change that adds a maximum under this name.
    fn adding(&self, name: OutputName, cap: Tokens) -> Option<Splice> {
        let entry = format!(r#""{}":{cap}"#, name.name(), cap = cap.value());
        let Some(settings) = name.settings() else {
            return Some(Splice::insert(self.object, self.is_empty, &entry));
        };
        match &self.settings[settings as usize] {
            None => {
                let entry = format!(r#""{}":{{{entry}}}"#, Settings::name(settings));
                Some(Splice::insert(self.object, self.is_empty, &entry))
            }
            Some(holder) => match holder.kind {
                HolderKind::Null => Some(Splice::replace(holder.at.clone(), format!("{{{entry}}}"))),
                HolderKind::Object { is_empty } => Some(Splice::insert(holder.at.start, is_empty, &entry)),
                HolderKind::Wrong => None,
            },
        }
    }
}

/// Returns the names that an operation has for the maximum output; others are ignored or refused.
fn output_names(endpoint: Endpoint) -> &'static [OutputName] {
    use OutputName::{
        Generation, Inference, MaxCompletionTokens, MaxGenerated, MaxOutputTokens, MaxTokens, TextGeneration,
    };
    match endpoint {
        Endpoint::ChatCompletions => &[MaxTokens, MaxCompletionTokens],
        Endpoint::Responses => &[MaxOutputTokens],
        Endpoint::GenerateContent | Endpoint::StreamGenerateContent => &[Generation],
        Endpoint::Converse | Endpoint::ConverseStream => &[Inference],
        Endpoint::InvokeModel | Endpoint::InvokeModelStream => &[
            MaxTokens,
            MaxCompletionTokens,
            MaxGenerated,
            Inference,
            TextGeneration,
        ],
        _ => &[MaxTokens],
    }
}

/// Returns the name under which a maximum output is added, where one may be.
fn output_name(endpoint: Endpoint, provider: Provider) -> Option<OutputName> {
    match endpoint {
        // Reasoning models refuse the old name; other servers know no other.
        Endpoint::ChatCompletions => Some(match provider {
            Provider::OpenAi
            | Provider::Azure
            | Provider::Groq
            | Provider::Bedrock
            | Provider::BedrockMantle => OutputName::MaxCompletionTokens,
            _ => OutputName::MaxTokens,
        }),
        Endpoint::Completions | Endpoint::CohereChat => Some(OutputName::MaxTokens),
        Endpoint::Responses => Some(OutputName::MaxOutputTokens),
        Endpoint::GenerateContent | Endpoint::StreamGenerateContent => Some(OutputName::Generation),
        Endpoint::Converse | Endpoint::ConverseStream => Some(OutputName::Inference),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
