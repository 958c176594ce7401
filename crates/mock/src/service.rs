//! The life of a request up to the limits: path, key, body.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::answering::generate;
use crate::body::Answering;
use crate::call::Call;
use crate::directive::Directives;
use crate::problem::{Context, Problem};
use crate::provider::Provider;
use crate::route::{Endpoint, Route, Target};
use crate::stamp::{JSON, Stamp, request_id};
use crate::state::State;
use crate::stats::Recorder;
use crate::{anthropic, auth, catalog, cohere, gemini};

/// What the service needs to know of a connection: setting the flag makes its end a reset.
pub(crate) struct Connection {
    pub(crate) state: Arc<State>,
    pub(crate) reset: Arc<AtomicBool>,
}

/// Answers one request.
///
/// # Errors
///
/// Returns an error where the connection is to be broken off without an answer.
pub(crate) async fn answer<B>(
    connection: Arc<Connection>,
    request: Request<B>,
) -> Result<Response<Answering>, io::Error>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let state = &connection.state;
    let (head, body) = request.into_parts();
    let route = match Route::find(state.settings.provider, &head.method, &head.uri, &head.headers) {
        Ok(route) => route,
        Err((provider, problem)) => return Ok(unlimited_problem(state, provider, None, "unknown", &problem)),
    };
    let body = Limited::new(body, state.settings.body_bytes_max);
    let target = match route {
        Route::Stats => return Ok(json(stats(state))),
        Route::Reset => {
            state.reset();
            return Ok(json("{}"));
        }
        Route::Resize => {
            let body = body.collect().await.map_err(io::Error::other)?;
            return Ok(resize(state, &body.to_bytes()));
        }
        Route::Generate(target) => target,
        other => return Ok(look_up(state, &other, &head)),
    };
    let (provider, name) = (target.provider, target.endpoint.name());
    let refuse = |problem| Ok(unlimited_problem(state, provider, Some(&target), name, &problem));
    let key = match auth::key(&state.settings.keys, provider, &head.headers, &head.uri) {
        Ok(key) => key,
        Err(problem) => return refuse(problem),
    };
    let sending = Sending(Some(state));
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            sending.arrived();
            return refuse(Problem::too_large_body(provider));
        }
        Err(error) => return Err(io::Error::other(error)),
    };
    sending.arrived();
    let content_type = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let mut directives = Directives::default();
    let call = directives
        .read_headers(&head.headers)
        .map_err(|wrong| Problem::invalid(provider, "x-mock", &wrong))
        .and_then(|()| Call::read(target.clone(), content_type, &body, directives))
        .and_then(|call| accepted(state, call));
    drop(body);
    let call = match call {
        Ok(call) => call,
        Err(problem) => return refuse(problem),
    };
    if target.endpoint.counts() && !state.limits_endpoint(name) {
        // Counting has limits of its own, if any (providers.md §4.1).
        return Ok(unlimited(state, provider, name, counted(&call)));
    }
    generate(&connection, &key, call).await
}

/// Answers what needs no model, only a key.
fn look_up(state: &State, route: &Route, head: &http::request::Parts) -> Response<Answering> {
    let (provider, name) = match route {
        Route::Models(provider) | Route::Model(provider, _) => (*provider, "models"),
        Route::KeyInfo => (Provider::OpenRouter, "key"),
        _ => (Provider::Anthropic, "rate_limits"),
    };
    let found = auth::key(&state.settings.keys, provider, &head.headers, &head.uri).and_then(|key| {
        Ok(match route {
            Route::Model(_, name) => catalog::model(state, provider, name)?,
            Route::KeyInfo => catalog::key_info(state, &key),
            Route::RateLimits { workspace } => {
                catalog::rate_limits(state, *workspace, head.uri.query().unwrap_or_default())
            }
            _ => catalog::models(state, provider),
        })
    });
    match found {
        Ok(text) => unlimited(state, provider, name, text),
        Err(problem) => unlimited_problem(state, provider, None, name, &problem),
    }
}

/// Changes a limit while the provider runs: `{"limit": 0, "amount": 100}`.
fn resize(state: &State, body: &[u8]) -> Response<Answering> {
    let asked = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    let number = |name: &str| asked.get(name).and_then(serde_json::Value::as_u64);
    if let (Some(limit), Some(amount)) = (number("limit"), number("amount")) {
        state.resize(usize::try_from(limit).unwrap_or(usize::MAX), amount);
        return json("{}");
    }
    let mut response = json(r#"{"error":"send {\"limit\": PLACE, \"amount\": N}"}"#);
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

/// The answer to a request to count tokens.
pub(crate) fn counted(call: &Call) -> String {
    match call.target.endpoint {
        Endpoint::GeminiCount => gemini::counted(call.input_tokens),
        Endpoint::Tokenize => cohere::tokenized(call.input_tokens),
        _ => anthropic::counted(call.input_tokens),
    }
}

/// Whether the provider knows the model and every field.
fn accepted(state: &State, call: Call) -> Result<Call, Problem> {
    let models = &state.settings.models;
    if !models.is_empty() && !models.contains(&call.model) {
        return Err(Problem::unknown_model(call.target.provider, &call.model));
    }
    match call.directives.rejected {
        Some(field) if state.settings.rejects_stream_options => Err(Problem::unknown_field(field)),
        _ => Ok(call),
    }
}

/// Counts a client that leaves before its request is complete.
struct Sending<'a>(Option<&'a State>);

impl Sending<'_> {
    fn arrived(mut self) {
        self.0 = None;
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.0 {
            state.record(Recorder::left_sending);
        }
    }
}

/// An answer to what no limit counts.
fn unlimited(state: &State, provider: Provider, name: &'static str, text: String) -> Response<Answering> {
    let stamp = Stamp::new(provider, state.number());
    stamp.response(state, name, 200, JSON, Answering::whole(text))
}

fn unlimited_problem(
    state: &State,
    provider: Provider,
    target: Option<&Target>,
    name: &'static str,
    problem: &Problem,
) -> Response<Answering> {
    let stamp = Stamp::new(provider, state.number());
    let context = Context {
        provider,
        request_id: &request_id(stamp.id),
        target,
        model: target
            .and_then(|target| target.model.as_deref())
            .unwrap_or_default(),
        stream: target.is_some_and(|target| target.framing.is_some()),
        unix: Duration::from_secs(state.unix_seconds()),
    };
    stamp.problem(state, name, problem, &context)
}

/// An answer of the mock itself.
fn json(text: impl Into<Bytes>) -> Response<Answering> {
    let mut response = Response::new(Answering::whole(text));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn stats(state: &State) -> String {
    serde_json::to_string(&state.stats()).expect("statistics are numbers under names")
}
