//! The life of a request: path, key, body, limits, faults, time, answer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use tokio::time::Instant;

use crate::answer::Answer;
use crate::body::{Answering, EventStream, Pacer, Reply, break_off};
use crate::call::{Call, Endpoint, Route};
use crate::directive::{Directives, Exhausted};
use crate::problem::{ANTHROPIC_ORGANIZATION, OPENAI_ORGANIZATION, Problem};
use crate::settings::{Dialect, Fault, Key};
use crate::state::{Flight, Granted, State, Verdict};
use crate::stats::Recorder;
use crate::text::quoted;
use crate::{anthropic, openai, rate_headers};

/// Output that is counted as it is made is counted in steps of this length, where nothing is sent meanwhile.
const STEP: Duration = Duration::from_millis(100);

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
    let route = Route::find(
        state.settings.dialect,
        &head.method,
        head.uri.path(),
        &head.headers,
    );
    let (dialect, route) = match route {
        Ok(route) => (route.dialect(), route),
        Err((dialect, problem)) => return Ok(unlimited_problem(state, dialect, "unknown", &problem)),
    };
    let endpoint = match route {
        Route::Stats => return Ok(json(stats(state))),
        Route::Reset => {
            state.reset();
            return Ok(json("{}"));
        }
        Route::Generate(endpoint) => Some(endpoint),
        Route::Models(_) | Route::Model(..) => None,
    };
    let name = endpoint.map_or("models", Endpoint::name);
    let key = match key(state, dialect, &head.headers) {
        Ok(key) => key,
        Err(problem) => return Ok(unlimited_problem(state, dialect, name, &problem)),
    };
    let Some(endpoint) = endpoint else {
        return Ok(models(state, &route));
    };
    let sending = Sending(Some(state));
    let body = Limited::new(body, state.settings.body_bytes_max).collect().await;
    let body = match body {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            sending.arrived();
            return Ok(unlimited_problem(
                state,
                dialect,
                name,
                &Problem::too_large_body(dialect),
            ));
        }
        Err(error) => return Err(io::Error::other(error)),
    };
    sending.arrived();
    let mut directives = Directives::default();
    let call = directives
        .read_headers(&head.headers)
        .map_err(|wrong| Problem::invalid(dialect, "x-mock", &wrong))
        .and_then(|()| Call::read(endpoint, &body, directives))
        .and_then(|call| known_model(state, dialect, call));
    drop(body);
    let call = match call {
        Ok(call) => call,
        Err(problem) => return Ok(unlimited_problem(state, dialect, name, &problem)),
    };
    if endpoint == Endpoint::CountTokens {
        // Counting has limits of its own, which nobody tests here (providers.md §4.1).
        return Ok(unlimited(
            state,
            dialect,
            name,
            anthropic::counted(call.input_tokens),
        ));
    }
    generate(&connection, &key, call).await
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

/// Everything from the arrival of the complete body on.
async fn generate(
    connection: &Arc<Connection>,
    key: &Key,
    mut call: Call,
) -> Result<Response<Answering>, io::Error> {
    let state = &connection.state;
    let (dialect, name) = (call.endpoint.dialect(), call.endpoint.name());
    call.directives.cached_tokens = call.directives.cached_tokens.min(call.input_tokens);
    let exhausted = call.directives.exhausted;
    let Verdict {
        id,
        result,
        states,
        unix,
    } = state.admit(key, &call);
    let mut stamp = Stamp::new(dialect, id);
    rate_headers::write(dialect, &states, unix, &mut stamp.headers);
    let granted = match (result, exhausted) {
        (Err(denied), _) => {
            let problem = Problem::refused(dialect, &denied.refused, denied.window, &call.model);
            return Ok(stamp.problem(state, name, &problem));
        }
        (Ok(mut granted), Some(exhausted)) => {
            granted.flight.complete();
            let problem = Problem::exhausted(dialect, exhausted);
            if dialect == Dialect::Anthropic && exhausted == Exhausted::Spend {
                stamp.headers.insert(
                    HeaderName::from_static("x-should-retry"),
                    HeaderValue::from_static("false"),
                );
            }
            return Ok(stamp.problem(state, name, &problem));
        }
        (Ok(granted), None) => granted,
    };
    let Granted {
        mut flight,
        fault,
        mut latency,
        output_tokens,
        cut,
    } = granted;
    match fault {
        Some(Fault::Status(status)) => {
            flight.complete();
            return Ok(stamp.problem(state, name, &Problem::of_status(dialect, status)));
        }
        Some(Fault::ResetBeforeHead) => {
            flight.complete();
            return Err(break_off(&connection.reset));
        }
        Some(Fault::Slow(by)) => latency = latency.saturating_add(by),
        Some(Fault::StallBeforeHead) => return std::future::pending().await,
        Some(Fault::StallMidStream) if !call.stream => return std::future::pending().await,
        Some(Fault::ResetMidStream | Fault::StallMidStream) | None => {}
    }
    latency = latency.saturating_add(call.directives.delay);
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    flight.begin();
    Ok(speak(
        connection,
        stamp,
        &call,
        Spoken {
            flight,
            fault,
            output_tokens,
            cut,
        },
        unix,
    )
    .await)
}

/// What is left of a grant when the first token is there.
struct Spoken {
    flight: Flight,
    fault: Option<Fault>,
    output_tokens: u64,
    cut: bool,
}

/// The answer itself, whole or as a stream.
async fn speak(
    connection: &Arc<Connection>,
    stamp: Stamp,
    call: &Call,
    spoken: Spoken,
    unix: Duration,
) -> Response<Answering> {
    let Spoken {
        mut flight,
        fault,
        output_tokens,
        cut,
    } = spoken;
    let state = &connection.state;
    let name = call.endpoint.name();
    let speed = state.settings.tokens_per_second;
    let text = if call.endpoint == Endpoint::Embeddings {
        openai::embeddings(
            &call.digests,
            &call.model,
            call.dimensions,
            call.base64,
            call.input_tokens,
        )
    } else {
        let reply = reply(
            call,
            format!("{:024x}", stamp.id),
            unix.as_secs(),
            output_tokens,
            cut,
        );
        if call.stream {
            flight.streaming();
            let reset = Arc::clone(&connection.reset);
            let per_event = state.settings.tokens_per_event;
            let stream = EventStream::new(reply, flight, fault, reset, per_event, speed);
            return stamp.response(
                state,
                name,
                200,
                EVENT_STREAM,
                Answering::Stream(Box::new(stream)),
            );
        }
        write_all(
            &mut flight,
            &Pacer::new(speed),
            output_tokens,
            reply.answers.len() as u64,
        )
        .await;
        reply.plain()
    };
    flight.complete();
    drop(flight);
    let body = if fault == Some(Fault::ResetMidStream) {
        Answering::broken(text, Arc::clone(&connection.reset))
    } else {
        Answering::whole(text)
    };
    stamp.response(state, name, 200, JSON, body)
}

/// Takes the time that a plain answer takes to write.
async fn write_all(flight: &mut Flight, pacer: &Pacer, length: u64, choices: u64) {
    let total = pacer.time_of(length);
    let tokens = length.saturating_mul(choices);
    if total.is_zero() {
        flight.generated(tokens);
        return;
    }
    if !flight.counts_output() {
        tokio::time::sleep(total).await;
        flight.generated(tokens);
        return;
    }
    let (mut slept, mut counted) = (Duration::ZERO, 0);
    while slept < total {
        let step = STEP.min(total - slept);
        tokio::time::sleep(step).await;
        slept += step;
        let share = slept.as_secs_f64() / total.as_secs_f64();
        let made = ((tokens as f64 * share) as u64).clamp(counted, tokens);
        flight.generated(made - counted);
        counted = made;
    }
    flight.generated(tokens - counted);
}

fn reply(call: &Call, id: String, created: u64, output_tokens: u64, cut: bool) -> Reply {
    let texts = call.digests.len() as u64;
    let each = call.demand.choices / texts.max(1);
    let answers = (0..call.demand.choices).filter_map(|choice| {
        let digest = call.digests.get((choice / each.max(1)) as usize)?;
        Some(Answer::of(*digest, choice % each.max(1), output_tokens))
    });
    Reply {
        endpoint: call.endpoint,
        id,
        created,
        model: quoted(&call.model),
        answers: answers.collect(),
        input_tokens: call.input_tokens,
        cached_tokens: call.directives.cached_tokens,
        max_output: call.demand.max_output,
        cut,
        include_usage: call.include_usage,
    }
}

impl Route {
    fn dialect(&self) -> Dialect {
        match self {
            Self::Generate(endpoint) => endpoint.dialect(),
            Self::Models(dialect) | Self::Model(dialect, _) => *dialect,
            Self::Stats | Self::Reset => Dialect::OpenAi,
        }
    }
}

/// Returns the key of a request, if it is one that is accepted.
fn key(state: &State, dialect: Dialect, headers: &HeaderMap) -> Result<Key, Problem> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| {
        value
            .strip_prefix("Bearer ")
            .or_else(|| value.strip_prefix("bearer "))
    });
    let own = headers.get("x-api-key").and_then(|value| value.to_str().ok());
    let key = match dialect {
        Dialect::OpenAi => bearer,
        Dialect::Anthropic => own.or(bearer),
    };
    let key = key.map(str::trim).filter(|key| !key.is_empty());
    let key = Key::new(key.ok_or_else(|| Problem::missing_key(dialect))?);
    let keys = &state.settings.keys;
    if !keys.is_empty() && !keys.contains(&key) {
        return Err(Problem::wrong_key(dialect));
    }
    if dialect == Dialect::Anthropic && !headers.contains_key("anthropic-version") {
        return Err(Problem::missing_version());
    }
    Ok(key)
}

fn known_model(state: &State, dialect: Dialect, call: Call) -> Result<Call, Problem> {
    let models = &state.settings.models;
    if models.is_empty() || models.contains(&call.model) {
        return Ok(call);
    }
    Err(Problem::unknown_model(dialect, &call.model))
}

/// The models that exist where any do.
const EXAMPLE_MODELS: [(Dialect, &str); 4] = [
    (Dialect::OpenAi, "gpt-4o"),
    (Dialect::OpenAi, "gpt-4o-mini"),
    (Dialect::OpenAi, "text-embedding-3-small"),
    (Dialect::Anthropic, "claude-sonnet-4-5"),
];

fn models(state: &State, route: &Route) -> Response<Answering> {
    let created = state.unix_seconds();
    let known = &state.settings.models;
    match route {
        Route::Model(dialect, name) if !known.is_empty() && !known.contains(name) => {
            unlimited_problem(state, *dialect, "models", &Problem::unknown_model(*dialect, name))
        }
        Route::Model(Dialect::OpenAi, name) => {
            unlimited(state, Dialect::OpenAi, "models", openai::model(name, created))
        }
        Route::Model(Dialect::Anthropic, name) => {
            unlimited(state, Dialect::Anthropic, "models", anthropic::model(name))
        }
        _ => {
            let dialect = route.dialect();
            let examples = EXAMPLE_MODELS.iter().filter(|(whose, _)| *whose == dialect);
            let examples: Vec<String> = examples.map(|(_, name)| (*name).to_owned()).collect();
            let names = if known.is_empty() { &examples } else { known };
            let text = match dialect {
                Dialect::OpenAi => openai::models(names, created),
                Dialect::Anthropic => anthropic::models(names),
            };
            unlimited(state, dialect, "models", text)
        }
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

/// What every response of one request carries.
struct Stamp {
    dialect: Dialect,
    id: u64,
    /// When the request had arrived.
    arrived: Instant,
    headers: HeaderMap,
}

impl Stamp {
    fn new(dialect: Dialect, id: u64) -> Self {
        Self {
            dialect,
            id,
            arrived: Instant::now(),
            headers: HeaderMap::with_capacity(16),
        }
    }
}

impl Stamp {
    fn problem(mut self, state: &State, name: &'static str, problem: &Problem) -> Response<Answering> {
        problem.write_headers(self.dialect, &mut self.headers);
        let body = problem.body(self.dialect, &request_id(self.id));
        let status = problem.status;
        self.response(state, name, status, JSON, Answering::whole(body))
    }

    fn response(
        mut self,
        state: &State,
        name: &'static str,
        status: u16,
        kind: HeaderValue,
        body: Answering,
    ) -> Response<Answering> {
        state.record(|recorder| recorder.answer(name, status));
        let id = HeaderValue::from_str(&request_id(self.id)).expect("ids are plain ASCII");
        match self.dialect {
            Dialect::OpenAi => {
                self.headers.insert(HeaderName::from_static("x-request-id"), id);
                let organization = HeaderValue::from_static(OPENAI_ORGANIZATION);
                self.headers
                    .insert(HeaderName::from_static("openai-organization"), organization);
                let version = HeaderValue::from_static("2020-10-01");
                self.headers
                    .insert(HeaderName::from_static("openai-version"), version);
                let millis = u64::try_from(self.arrived.elapsed().as_millis()).unwrap_or(u64::MAX);
                let millis = HeaderValue::from(millis.max(1));
                self.headers
                    .insert(HeaderName::from_static("openai-processing-ms"), millis);
            }
            Dialect::Anthropic => {
                self.headers.insert(HeaderName::from_static("request-id"), id);
                let organization = HeaderValue::from_static(ANTHROPIC_ORGANIZATION);
                self.headers
                    .insert(HeaderName::from_static("anthropic-organization-id"), organization);
            }
        }
        self.headers.insert(CONTENT_TYPE, kind);
        let mut response = Response::new(body);
        // Statuses are bounded where they are set: 100 to 599.
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = self.headers;
        response
    }
}

fn request_id(id: u64) -> String {
    format!("req_{id:024x}")
}

/// An answer to what no limit counts.
fn unlimited(state: &State, dialect: Dialect, name: &'static str, text: String) -> Response<Answering> {
    let stamp = Stamp::new(dialect, state.number());
    stamp.response(state, name, 200, JSON, Answering::whole(text))
}

fn unlimited_problem(
    state: &State,
    dialect: Dialect,
    name: &'static str,
    problem: &Problem,
) -> Response<Answering> {
    let stamp = Stamp::new(dialect, state.number());
    stamp.problem(state, name, problem)
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
