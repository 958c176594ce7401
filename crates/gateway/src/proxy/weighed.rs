//! A request's body, and what it may consume.

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body::Body;
use hyper::body::Incoming;
use tidegate_core::{Demand, Tokens};

use super::Exchange;
use super::intake::{self, IntakeBounds, IntakeError};
use super::unanswered::Unanswered;
use crate::metrics::Refused;
use crate::pool::Payload;
use crate::provider::{ErrorReply, Provider, RequestFacts, Wishes};

/// A request's body and what it may consume.
pub(super) struct Weighed {
    pub(super) payload: Payload,
    /// The model that the body names, and whether it asks for a stream.
    model: Option<String>,
    pub(super) stream: bool,
    /// What else the body says, until it is changed: not every request carries the room for it while it waits.
    facts: Option<Box<RequestFacts>>,
    pub(super) demand: Demand,
    /// Whether usage was asked for on the client's behalf, to be taken out of the answer again.
    pub(super) asks_usage: bool,
    /// The maximum output that was set on the client's behalf.
    pub(super) output_max: Option<Tokens>,
}

impl Weighed {
    /// A body that is not read.
    fn unread(payload: Payload) -> Self {
        Self {
            payload,
            model: None,
            stream: false,
            facts: None,
            demand: Demand::REQUEST_ONLY,
            asks_usage: false,
            output_max: None,
        }
    }

    /// Counts what it may consume as this provider does for this model.
    pub(super) fn count(&mut self, provider: Provider, model: Option<&str>) {
        if let (Some(facts), Payload::Full(body)) = (&mut self.facts, &self.payload) {
            facts.count(body, provider, model);
            self.demand = facts.demand();
        }
    }

    /// Takes the model that the body names.
    pub(super) fn take_model(&mut self) -> Option<String> {
        self.model.take()
    }

    /// Returns the body, if it was read.
    pub(super) fn body(&self) -> Option<&[u8]> {
        match &self.payload {
            Payload::Full(bytes) => Some(bytes),
            Payload::Stream(_) | Payload::Spent => None,
        }
    }

    /// Returns the memory that the body holds.
    pub(super) fn bytes(&self) -> u64 {
        match &self.payload {
            Payload::Full(bytes) => bytes.len() as u64,
            Payload::Stream(_) | Payload::Spent => 0,
        }
    }

    /// Changes the body as the upstream and its quota group wish it. Tokens that are counted are counted anew.
    pub(super) fn edit(&mut self, wishes: Wishes) {
        let (Some(mut facts), Payload::Full(body)) = (self.facts.take(), &mut self.payload) else {
            return;
        };
        let edited = facts.edit(body, wishes);
        *body = edited.body;
        self.asks_usage = edited.asks_usage;
        self.output_max = edited.output_max;
        let class = self.demand.class;
        let request_only = Demand {
            class,
            ..Demand::REQUEST_ONLY
        };
        if self.demand != request_only {
            self.demand = Demand {
                class,
                ..facts.demand()
            };
        }
    }
}

impl Exchange<'_> {
    /// Reads the body and says what it may consume. Bodies of unknown operations and long forms are passed on as they come.
    pub(super) async fn weigh(&self, body: Incoming) -> Result<Weighed, Unanswered> {
        let endpoint = self.sight.endpoint;
        if body.is_end_stream() && !endpoint.has_facts() {
            return Ok(Weighed::unread(Payload::Full(Bytes::new())));
        }
        if !endpoint.has_facts() && !self.is_form_in_bounds(&body) {
            return Ok(Weighed::unread(Payload::Stream(body)));
        }
        let is_encoded = |value: &HeaderValue| value != "identity";
        if self.head.headers.get(CONTENT_ENCODING).is_some_and(is_encoded) {
            let reply = ErrorReply::bad_request(
                "the request body is compressed (content-encoding); send it as it is",
            );
            return Err(Unanswered::refused(reply, Refused::BadBody));
        }
        let server = &self.bench.site.config.server;
        let bounds = IntakeBounds {
            bytes_max: server.body_bytes_max,
            patience: server.body_timeout,
        };
        let bytes = intake::read(body, bounds).await.map_err(|error| match error {
            IntakeError::TooLarge => {
                let reply = ErrorReply::too_large(bounds.bytes_max as u64);
                Unanswered::refused(reply, Refused::BodyTooLarge)
            }
            IntakeError::TooSlow => Unanswered::refused(ErrorReply::client_timeout(), Refused::Slow),
            IntakeError::Broken => {
                let reply = ErrorReply::bad_request("the request body broke off");
                Unanswered::refused(reply, Refused::BadBody)
            }
        })?;
        if endpoint.has_form() {
            let content_type = self.head.headers.get(CONTENT_TYPE);
            let content_type = content_type.and_then(|value| value.to_str().ok());
            return Ok(Weighed {
                model: content_type.and_then(|text| RequestFacts::model_of_form(text, &bytes)),
                ..Weighed::unread(Payload::Full(bytes))
            });
        }
        let mut facts = RequestFacts::read(endpoint, &bytes)
            .map_err(|error| Unanswered::refused(ErrorReply::bad_body(&error), Refused::BadBody))?;
        Ok(Weighed {
            model: facts.model.take(),
            stream: facts.stream,
            demand: facts.demand(),
            payload: Payload::Full(bytes),
            facts: Some(Box::new(facts)),
            asks_usage: false,
            output_max: None,
        })
    }

    /// Returns whether the body is a form that may be kept to be read; a larger one passes as it comes.
    fn is_form_in_bounds(&self, body: &Incoming) -> bool {
        let bytes_max = self.bench.site.config.server.body_bytes_max as u64;
        let declared = body.size_hint().exact();
        let is_plain = !self.head.headers.contains_key(CONTENT_ENCODING);
        self.sight.endpoint.has_form() && is_plain && declared.is_some_and(|length| length <= bytes_max)
    }
}
