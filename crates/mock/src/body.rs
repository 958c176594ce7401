use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Interval, Sleep};

use crate::answer::Answer;
use crate::provider::Provider;
use crate::route::{Endpoint, Framing};
use crate::settings::Fault;
use crate::state::Flight;
use crate::{anthropic, bedrock, cohere, gemini, openai, openrouter};

/// A frame is sent once it has grown to this size, whatever else is due.
const FRAME_BYTES: usize = 16 << 10;

/// How long a connection stays after its last bytes before it is reset: a reset takes back what the other side has not read
/// yet, and breaking off in the middle means that the first part was seen.
const BREAK_DELAY: Duration = Duration::from_millis(20);

/// What is said to an admitted request.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) provider: Provider,
    pub(crate) endpoint: Endpoint,
    /// How parts are told apart, in a stream.
    pub(crate) framing: Option<Framing>,
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// The model's name as a JSON string.
    pub(crate) model: String,
    pub(crate) answers: Vec<Answer>,
    pub(crate) input_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) max_output: Option<u64>,
    pub(crate) cut: bool,
    pub(crate) include_usage: bool,
    /// Whether the provider behind the provider breaks the stream off.
    pub(crate) upstream_error: bool,
}

impl Reply {
    pub(crate) fn output_tokens(&self) -> u64 {
        self.answers.iter().map(Answer::tokens).sum()
    }

    /// The tokens of each choice.
    fn length(&self) -> u64 {
        self.answers.first().map_or(0, Answer::tokens)
    }

    pub(crate) fn plain(&self) -> String {
        match self.endpoint {
            Endpoint::Messages | Endpoint::Invoke => anthropic::plain(self),
            Endpoint::GenerateContent => gemini::plain(self),
            Endpoint::CohereChat | Endpoint::CohereChatV1 => cohere::plain(self),
            Endpoint::Converse => bedrock::converse(self),
            _ => openai::plain(self),
        }
    }

    fn opening(&self, out: &mut String) {
        match self.endpoint {
            Endpoint::Messages => anthropic::opening(self, out),
            Endpoint::GenerateContent => {}
            Endpoint::CohereChat | Endpoint::CohereChatV1 => cohere::opening(self, out),
            _ => openai::opening(self, out),
        }
    }

    fn delta(&self, event: u64, from: u64, to: u64, out: &mut String) {
        match self.endpoint {
            Endpoint::Messages => anthropic::delta(self, from, to, out),
            Endpoint::GenerateContent => gemini::delta(self, event, from, to, out),
            Endpoint::CohereChat | Endpoint::CohereChatV1 => cohere::delta(self, from, to, out),
            _ => openai::delta(self, event, from, to, out),
        }
    }

    fn closing(&self, events: u64, out: &mut String) {
        match self.endpoint {
            Endpoint::Messages => anthropic::closing(self, out),
            Endpoint::GenerateContent => gemini::closing(self, events, out),
            Endpoint::CohereChat | Endpoint::CohereChatV1 => cohere::closing(self, out),
            _ if self.upstream_error => openrouter::write_upstream_error(self, out),
            _ => openai::closing(self, events, out),
        }
    }
}

/// The body of a response.
pub(crate) enum Answering {
    /// Known as a whole.
    Whole(Option<Bytes>),
    /// Breaks off: half is sent, then the connection goes.
    Broken {
        whole: usize,
        half: Option<Bytes>,
        end: Break,
    },
    /// Made while it is sent.
    Stream(Box<EventStream>),
    /// Not made yet; the connection is kept open by blanks meanwhile (DeepSeek, providers.md §10).
    Late {
        making: Pin<Box<dyn Future<Output = Bytes> + Send>>,
        beat: Interval,
        done: bool,
    },
}

impl Answering {
    pub(crate) fn whole(text: impl Into<Bytes>) -> Self {
        Self::Whole(Some(text.into()))
    }

    pub(crate) fn broken(text: impl Into<Bytes>, reset: Arc<AtomicBool>) -> Self {
        let text = text.into();
        Self::Broken {
            whole: text.len(),
            half: Some(text.slice(..text.len() / 2)),
            end: Break::new(reset),
        }
    }
}

impl Body for Answering {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Broken { half, end, .. } => match half.take() {
                Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
                None => end.poll(context).map(|error| Some(Err(error))),
            },
            Self::Late { done: true, .. } => Poll::Ready(None),
            Self::Late { making, beat, done } => {
                if let Poll::Ready(bytes) = making.as_mut().poll(context) {
                    *done = true;
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                let beaten = beat.poll_tick(context);
                beaten.map(|_| Some(Ok(Frame::data(Bytes::from_static(b"\n")))))
            }
            Self::Stream(stream) => stream
                .poll(context)
                .map(|next| next.map(|bytes| bytes.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None) | Self::Late { done: true, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Broken { whole, .. } => SizeHint::with_exact(*whole as u64),
            Self::Stream(_) | Self::Late { .. } => SizeHint::default(),
        }
    }
}

/// Marks the connection to be reset and returns the error that ends it.
pub(crate) fn break_off(reset: &AtomicBool) -> io::Error {
    reset.store(true, Ordering::Relaxed);
    io::Error::from(io::ErrorKind::ConnectionReset)
}

/// The end of a connection that breaks off.
pub(crate) struct Break {
    reset: Arc<AtomicBool>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Break {
    pub(crate) fn new(reset: Arc<AtomicBool>) -> Self {
        Self { reset, sleep: None }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(BREAK_DELAY)));
        sleep.as_mut().poll(context).map(|()| break_off(&self.reset))
    }
}

/// Server-sent events, made when they are due.
pub(crate) struct EventStream {
    pub(crate) reply: Reply,
    pub(crate) flight: Flight,
    pub(crate) fault: Option<Fault>,
    end: Break,
    pub(crate) tokens_per_event: u64,
    pacer: Pacer,
    stage: Stage,
    /// What is sent until the first token is there, and how often; the provider keeps the client waiting with it.
    lead: Option<Lead>,
    /// Tokens sent of each choice, and the events that they were sent in.
    sent: u64,
    events: u64,
}

/// The wait before a stream's first token.
struct Lead {
    sleep: Pin<Box<Sleep>>,
    beat: Interval,
    comment: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening,
    Tokens,
    Done,
}

impl EventStream {
    pub(crate) fn new(
        reply: Reply,
        flight: Flight,
        fault: Option<Fault>,
        reset: Arc<AtomicBool>,
        tokens_per_event: u64,
        tokens_per_second: Option<f64>,
    ) -> Self {
        Self {
            reply,
            flight,
            fault,
            end: Break::new(reset),
            tokens_per_event: tokens_per_event.max(1),
            pacer: Pacer::new(tokens_per_second),
            stage: Stage::Opening,
            lead: None,
            sent: 0,
            events: 0,
        }
    }

    /// Starts the stream at once and its first token only after a time.
    pub(crate) fn led_by(mut self, latency: Duration, beat: Interval, comment: &'static str) -> Self {
        let sleep = Box::pin(tokio::time::sleep(latency));
        self.lead = Some(Lead { sleep, beat, comment });
        self
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.stage == Stage::Done {
            return Poll::Ready(None);
        }
        if let Some(lead) = &mut self.lead {
            if lead.sleep.as_mut().poll(context).is_ready() {
                self.lead = None;
                self.flight.begin();
            } else {
                let comment = lead.comment.as_bytes();
                let beaten = lead.beat.poll_tick(context);
                return beaten.map(|_| Some(Ok(Bytes::from_static(comment))));
            }
        }
        if self.events > 0 {
            match self.fault {
                Some(Fault::ResetMidStream) => {
                    let ended = self.end.poll(context);
                    if ended.is_ready() {
                        self.flight.complete();
                    }
                    return ended.map(|error| Some(Err(error)));
                }
                Some(Fault::StallMidStream) => return Poll::Pending,
                _ => {}
            }
        }
        let mut out = String::new();
        if self.stage == Stage::Opening {
            self.reply.opening(&mut out);
            self.stage = Stage::Tokens;
        }
        let length = self.reply.length();
        let due = self.due(length);
        let before = self.sent;
        while self.sent < due && out.len() < FRAME_BYTES {
            let to = (self.sent + self.tokens_per_event).min(length);
            self.reply.delta(self.events, self.sent, to, &mut out);
            self.sent = to;
            self.events += 1;
        }
        if self.sent > before {
            self.flight
                .generated((self.sent - before) * self.reply.answers.len() as u64);
        }
        if self.sent >= length && self.break_after().is_none() {
            self.reply.closing(self.events, &mut out);
            self.flight.complete();
            self.stage = Stage::Done;
        }
        if !out.is_empty() {
            return Poll::Ready(Some(Ok(Bytes::from(out))));
        }
        let next = (self.sent + self.tokens_per_event).min(length);
        match self.pacer.poll_reached(next, context) {
            Poll::Ready(()) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// How many tokens may be out by now: all that were made, in whole events; only one event before a break.
    fn due(&mut self, length: u64) -> u64 {
        if self.break_after().is_some() {
            return self.tokens_per_event.min(length);
        }
        let made = self.pacer.made(length);
        if made >= length {
            length
        } else {
            made / self.tokens_per_event * self.tokens_per_event
        }
    }

    fn break_after(&self) -> Option<Fault> {
        self.fault
            .filter(|fault| matches!(fault, Fault::ResetMidStream | Fault::StallMidStream))
    }
}

/// Makes tokens at an even speed; the first is there at once.
pub(crate) struct Pacer {
    tokens_per_second: Option<f64>,
    began: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pacer {
    pub(crate) fn new(tokens_per_second: Option<f64>) -> Self {
        let tokens_per_second = tokens_per_second.filter(|speed| speed.is_finite() && *speed > 0.0);
        Self {
            tokens_per_second,
            began: None,
            sleep: None,
        }
    }

    /// How many of `length` tokens are made; the first call starts the making.
    fn made(&mut self, length: u64) -> u64 {
        let Some(speed) = self.tokens_per_second else {
            return length;
        };
        let began = *self.began.get_or_insert_with(Instant::now);
        let made = 1.0 + began.elapsed().as_secs_f64() * speed;
        (made as u64).min(length)
    }

    /// When this many tokens are made, counted from the beginning.
    pub(crate) fn time_of(&self, tokens: u64) -> Duration {
        let Some(speed) = self.tokens_per_second else {
            return Duration::ZERO;
        };
        let seconds = tokens.saturating_sub(1) as f64 / speed;
        // A little more than exact, so that rounding never wakes before the token is there.
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 4) + Duration::from_micros(1)
    }

    fn poll_reached(&mut self, tokens: u64, context: &mut Context<'_>) -> Poll<()> {
        let Some(began) = self.began else {
            return Poll::Ready(());
        };
        let deadline = began + self.time_of(tokens).min(Duration::from_secs(86_400 * 365));
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(context)
    }
}
