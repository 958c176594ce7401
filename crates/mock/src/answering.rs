//! The life of a request from the limits on: faults, time, answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::answer::{Answer, Digest};
use crate::body::{Answering, EventStream, Pacer, Reply, break_off};
use crate::call::Call;
use crate::directive::Trouble;
use crate::problem::{Context, Problem};
use crate::provider::Provider;
use crate::route::{Endpoint, Framing};
use crate::service::{Connection, counted};
use crate::settings::{Fault, Key};
use crate::stamp::{JSON, Stamp, request_id};
use crate::state::{Flight, Granted, State, Verdict};
use crate::text::quoted;
use crate::{cohere, gemini, openai, rate_headers};

/// Output that is counted as it is made is counted in steps of this length, where nothing is sent meanwhile.
const STEP: Duration = Duration::from_millis(100);

const JSON_LINES: HeaderValue = HeaderValue::from_static("application/stream+json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

/// Everything from the arrival of the complete body on.
///
/// # Errors
///
/// Returns an error where the connection is to be broken off without an answer.
pub(crate) async fn generate(
    connection: &Arc<Connection>,
    key: &Key,
    mut call: Call,
) -> Result<Response<Answering>, io::Error> {
    let state = &connection.state;
    let (provider, name) = (call.target.provider, call.target.endpoint.name());
    call.directives.cached_tokens = call.directives.cached_tokens.min(call.input_tokens);
    let Verdict {
        id,
        result,
        states,
        unix,
    } = state.admit(key, &call);
    let mut stamp = Stamp::new(provider, id);
    let context = Context {
        provider,
        request_id: &request_id(id),
        target: Some(&call.target),
        model: &call.model,
        stream: call.framing.is_some(),
        unix,
    };
    let granted = match result {
        Ok(granted) => granted,
        Err(denied) => {
            rate_headers::write(&call.target, &states, unix, None, &mut stamp.headers);
            let problem = Problem::denied(provider, denied, &call.model);
            return Ok(stamp.problem(state, name, &problem, &context));
        }
    };
    let Granted {
        mut flight,
        fault,
        mut latency,
        output_tokens,
        cut,
    } = granted;
    // The head of a stream is sent before anything is made.
    let made = if call.framing.is_some() { 0 } else { output_tokens };
    let cost = made
        .saturating_mul(call.demand.choices)
        .saturating_add(call.input_tokens);
    rate_headers::write(&call.target, &states, unix, Some(cost), &mut stamp.headers);
    let told_in_stream = |trouble: &Trouble| *trouble == Trouble::Upstream && call.framing.is_some();
    if let Some(trouble) = call.directives.trouble.filter(|trouble| !told_in_stream(trouble)) {
        flight.complete();
        let problem = Problem::trouble(provider, trouble);
        return Ok(stamp.problem(state, name, &problem, &context));
    }
    match fault {
        Some(Fault::Status(status)) => {
            flight.complete();
            let problem = Problem::of_status(provider, status);
            return Ok(stamp.problem(state, name, &problem, &context));
        }
        Some(Fault::ResetBeforeHead) => {
            flight.complete();
            return Err(break_off(&connection.reset));
        }
        Some(Fault::Slow(by)) => latency = latency.saturating_add(by),
        Some(Fault::StallBeforeHead) => return std::future::pending().await,
        Some(Fault::StallMidStream) if call.framing.is_none() => return std::future::pending().await,
        Some(Fault::ResetMidStream | Fault::StallMidStream) | None => {}
    }
    latency = latency.saturating_add(call.directives.delay);
    flight.keep(state.turn(call.demand.choices.max(1)).await);
    if !latency.is_zero() && !keeps_company(&call) {
        tokio::time::sleep(std::mem::take(&mut latency)).await;
    }
    let spoken = Spoken {
        flight,
        fault,
        output_tokens,
        cut,
        latency,
    };
    Ok(speak(connection, stamp, &call, spoken, unix).await)
}

/// Whether the provider begins its answer at once and sends something empty until there is more.
fn keeps_company(call: &Call) -> bool {
    match call.target.provider {
        Provider::DeepSeek => call.target.endpoint.writes(),
        Provider::OpenRouter => call.framing.is_some(),
        _ => false,
    }
}

/// What is left of a grant when the answer begins.
struct Spoken {
    flight: Flight,
    fault: Option<Fault>,
    output_tokens: u64,
    cut: bool,
    /// What is left of the time to the first token.
    latency: Duration,
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
        latency,
    } = spoken;
    let state = &connection.state;
    let name = call.target.endpoint.name();
    let id = format!("{:024x}", stamp.id);
    if latency.is_zero() {
        flight.begin();
    }
    if !call.target.endpoint.writes() {
        flight.complete();
        drop(flight);
        let text = unwritten(call, &id, unix);
        return stamp.response(state, name, 200, JSON, whole(text, fault, connection));
    }
    let reply = reply(call, id, unix.as_secs(), output_tokens, cut);
    if let Some(framing) = call.framing {
        let stream = stream(connection, reply, flight, fault, latency);
        let kind = match framing {
            Framing::Events => EVENT_STREAM,
            Framing::Array => JSON,
            Framing::Lines => JSON_LINES,
        };
        return stamp.response(state, name, 200, kind, Answering::Stream(Box::new(stream)));
    }
    let pacer = Pacer::new(state.settings.tokens_per_second);
    let choices = reply.answers.len() as u64;
    if !latency.is_zero() {
        // A client that leaves is seen when the body is dropped.
        flight.streaming();
        let making = Box::pin(async move {
            tokio::time::sleep(latency).await;
            flight.begin();
            write_all(&mut flight, &pacer, output_tokens, choices).await;
            flight.complete();
            Bytes::from(reply.plain())
        });
        let late = Answering::Late {
            making,
            beat: beat(state),
            done: false,
        };
        return stamp.response(state, name, 200, JSON, late);
    }
    write_all(&mut flight, &pacer, output_tokens, choices).await;
    flight.complete();
    drop(flight);
    stamp.response(state, name, 200, JSON, whole(reply.plain(), fault, connection))
}

fn stream(
    connection: &Connection,
    reply: Reply,
    mut flight: Flight,
    fault: Option<Fault>,
    latency: Duration,
) -> EventStream {
    flight.streaming();
    let settings = &connection.state.settings;
    let comment = match reply.provider {
        Provider::OpenRouter => ": OPENROUTER PROCESSING\n\n",
        _ => ": keep-alive\n\n",
    };
    let reset = Arc::clone(&connection.reset);
    let per_event = settings.tokens_per_event;
    let stream = EventStream::new(reply, flight, fault, reset, per_event, settings.tokens_per_second);
    if latency.is_zero() {
        stream
    } else {
        stream.led_by(latency, beat(&connection.state), comment)
    }
}

fn whole(text: String, fault: Option<Fault>, connection: &Connection) -> Answering {
    if fault == Some(Fault::ResetMidStream) {
        Answering::broken(text, Arc::clone(&connection.reset))
    } else {
        Answering::whole(text)
    }
}

/// The beat of what keeps a waiting client company.
fn beat(state: &State) -> Interval {
    let period = state.settings.keep_alive.max(Duration::from_millis(1));
    let mut beat = tokio::time::interval_at(Instant::now() + period, period);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    beat
}

/// The answers that no model writes.
fn unwritten(call: &Call, id: &str, unix: Duration) -> String {
    let (digests, tokens) = (&call.digests, call.input_tokens);
    match call.target.endpoint {
        Endpoint::EmbedContent | Endpoint::BatchEmbed | Endpoint::Predict => {
            gemini::embeddings(call.target.endpoint, digests, call.dimensions, tokens)
        }
        Endpoint::CohereEmbed => cohere::embeddings(id, digests, call.dimensions, tokens),
        Endpoint::Rerank => cohere::ranking(id, digests, call.top),
        Endpoint::Images => openai::images(unix.as_secs(), call.demand.images, tokens),
        Endpoint::Transcriptions => {
            let digest = digests.first().copied().unwrap_or(Digest::EMPTY);
            openai::transcription(digest, call.demand.audio_seconds)
        }
        Endpoint::Moderations => openai::moderation(id, &call.model, digests.len()),
        endpoint if endpoint.counts() => counted(call),
        _ => {
            // Only Mistral numbers its embeddings.
            let id = Some(id).filter(|_| call.target.provider == Provider::Mistral);
            openai::embeddings(id, digests, &call.model, call.dimensions, call.base64, tokens)
        }
    }
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
    let kept = (0..call.demand.choices).filter(|choice| choice % each.max(1) < call.returned);
    let answers = kept.filter_map(|choice| {
        let digest = call.digests.get((choice / each.max(1)) as usize)?;
        Some(Answer::of(*digest, choice % each.max(1), output_tokens))
    });
    Reply {
        provider: call.target.provider,
        endpoint: call.target.endpoint,
        framing: call.framing,
        id,
        created,
        model: quoted(&call.model),
        answers: answers.collect(),
        input_tokens: call.input_tokens,
        cached_tokens: call.directives.cached_tokens,
        max_output: call.demand.max_output,
        cut,
        include_usage: call.include_usage,
        upstream_error: call.directives.trouble == Some(Trouble::Upstream),
    }
}
