//! A request's body, and what it may consume.

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_ENCODING;
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
    /// What the body says, where it is read.
    facts: Option<RequestFacts>,
    pub(super) demand: Demand,
    /// Whether usage was asked for on the client's behalf, to be taken out of the answer again.
    pub(super) asks_usage: bool,
    /// The maximum output that was set on the client's behalf.
    pub(super) output_max: Option<Tokens>,
}

impl Weighed {
    /// Takes the model that the body names.
    pub(super) fn take_model(&mut self) -> Option<String> {
        self.facts.as_mut()?.model.take()
    }

    /// Counts what it may consume as this provider does for this model.
    pub(super) fn count(&mut self, provider: Provider, model: Option<&str>) {
        if let (Some(facts), Payload::Full(body)) = (&mut self.facts, &self.payload) {
            facts.count(body, provider, model);
            self.demand = facts.demand();
        }
    }

    /// Returns whether the answer is to be streamed.
    pub(super) fn stream(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.stream)
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
        let (Some(facts), Payload::Full(body)) = (&mut self.facts, &mut self.payload) else {
            return;
        };
        let edited = facts.edit(body, wishes);
        *body = edited.body;
        self.asks_usage = edited.asks_usage;
        self.output_max = edited.output_max;
        if self.demand != Demand::REQUEST_ONLY {
            self.demand = facts.demand();
        }
    }
}

impl Exchange<'_> {
    /// Reads the body and says what it may consume. Bodies of unknown operations are passed on as they come.
    pub(super) async fn weigh(&self, body: Incoming) -> Result<Weighed, Unanswered> {
        if !self.sight.endpoint.has_facts() {
            let payload = if body.is_end_stream() {
                Payload::Full(Bytes::new())
            } else {
                Payload::Stream(body)
            };
            return Ok(Weighed {
                payload,
                facts: None,
                demand: Demand::REQUEST_ONLY,
                asks_usage: false,
                output_max: None,
            });
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
        let facts = RequestFacts::read(self.sight.endpoint, &bytes)
            .map_err(|error| Unanswered::refused(ErrorReply::bad_body(&error), Refused::BadBody))?;
        Ok(Weighed {
            demand: facts.demand(),
            payload: Payload::Full(bytes),
            facts: Some(facts),
            asks_usage: false,
            output_max: None,
        })
    }
}
