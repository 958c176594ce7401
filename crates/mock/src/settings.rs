//! How the provider behaves.

use std::fmt;
use std::time::Duration;

use crate::limits::{Charging, Limit, Pool, Scope};
use crate::provider::Provider;

/// An API key. It is not printed: somebody may point real ones here.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Key(String);

impl Key {
    /// Takes a key.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }
}

impl From<String> for Key {
    fn from(key: String) -> Self {
        Self(key)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(…)")
    }
}

/// How long until the first token.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Latency {
    /// Not at all; no timer is set.
    #[default]
    Zero,
    /// Always this long.
    Fixed(Duration),
    /// Log-normal around a median; `sigma` is the standard deviation of the logarithm.
    LogNormal {
        /// Half of all requests take no longer.
        median: Duration,
        /// The spread: 0.5 is usual.
        sigma: f64,
    },
}

/// How many tokens an answer has, unless the request's own maximum is smaller.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OutputLength {
    /// As many as the request allows; this many if it does not say.
    Maximum {
        /// The length where the request names no maximum.
        unset: u64,
    },
    /// Always this many.
    Fixed(u64),
    /// Log-normal around a median.
    LogNormal {
        /// Half of all answers are no longer.
        median: u64,
        /// The spread: the standard deviation of the logarithm.
        sigma: f64,
    },
}

/// What may go wrong with one request after it was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An error of this status, in the provider's shape.
    Status(u16),
    /// The connection is reset before the answer.
    ResetBeforeHead,
    /// The connection is reset after the first event of a stream, or within the body of a plain answer.
    ResetMidStream,
    /// No answer ever comes.
    StallBeforeHead,
    /// Nothing comes after the first event of a stream; a plain answer never comes.
    StallMidStream,
    /// The first token comes this much later.
    Slow(Duration),
}

/// The chance of each fault for each admitted request, 0 to 1; their sum should not exceed 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// Status 500.
    pub status_500: f64,
    /// Status 503.
    pub status_503: f64,
    /// Status 529.
    pub status_529: f64,
    /// [`Fault::ResetBeforeHead`].
    pub reset_before_head: f64,
    /// [`Fault::ResetMidStream`].
    pub reset_mid_stream: f64,
    /// [`Fault::StallBeforeHead`].
    pub stall: f64,
    /// [`Fault::Slow`] by [`Faults::slow_by`].
    pub slow: f64,
    /// How much later a slow answer comes.
    pub slow_by: Duration,
}

impl Faults {
    /// Returns the fault that an evenly drawn number of 0 to 1 stands for.
    pub(crate) fn of(&self, drawn: f64) -> Option<Fault> {
        let faults = [
            (self.status_500, Fault::Status(500)),
            (self.status_503, Fault::Status(503)),
            (self.status_529, Fault::Status(529)),
            (self.reset_before_head, Fault::ResetBeforeHead),
            (self.reset_mid_stream, Fault::ResetMidStream),
            (self.stall, Fault::StallBeforeHead),
            (self.slow, Fault::Slow(self.slow_by)),
        ];
        let mut reached = 0.0;
        faults.into_iter().find_map(|(chance, fault)| {
            reached += chance;
            (drawn < reached).then_some(fault)
        })
    }
}

/// Everything that can be set. [`Settings::default`] is an unlimited provider that answers at once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The only interface spoken; `None`: OpenAI's and Anthropic's, told apart by path.
    pub provider: Option<Provider>,
    /// The limits of each quota group, for all requests.
    pub limits: Vec<Limit>,
    /// Which requests share these limits. Two interfaces never do.
    pub scope: Scope,
    /// Further limits, each for some requests. A request must pass all that are for it.
    pub pools: Vec<Pool>,
    /// How requests are charged in [`Settings::limits`]; `None`: as the provider does.
    pub charging: Option<Charging>,
    /// Whether a refused request takes one from the request limits all the same.
    pub counts_failures: bool,
    /// The API keys that are accepted; empty: any.
    pub keys: Vec<Key>,
    /// The models that exist; empty: any.
    pub models: Vec<String>,
    /// The time to the first token.
    pub latency: Latency,
    /// How fast tokens follow the first; `None`: at once.
    pub tokens_per_second: Option<f64>,
    /// Tokens in one event of a stream, at least 1.
    pub tokens_per_event: u64,
    /// The length of answers.
    pub output: OutputLength,
    /// Requests that are worked on at one time; others wait in line. `None`: any number (vLLM's `--max-num-seqs`).
    pub running_max: Option<usize>,
    /// How often a provider that keeps waiting clients company does so (DeepSeek, OpenRouter).
    pub keep_alive: Duration,
    /// Whether Mistral refuses `stream_options`, as older ones did (providers.md §7).
    pub rejects_stream_options: bool,
    /// What goes wrong.
    pub faults: Faults,
    /// The seed of everything random.
    pub seed: u64,
    /// The time since 1970 at which the provider starts; `None`: now. Days and months turn by it.
    pub began: Option<Duration>,
    /// The largest request body, in bytes; a larger one is answered 413.
    pub body_bytes_max: usize,
    /// Connections open at one time; further ones wait to be accepted.
    pub connections_max: usize,
}

impl Settings {
    /// The interfaces that are spoken.
    /// The first is always there.
    pub(crate) fn spoken(&self) -> Vec<Provider> {
        self.provider.map_or_else(
            || vec![Provider::OpenAi, Provider::Anthropic],
            |provider| vec![provider],
        )
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            provider: None,
            limits: Vec::new(),
            scope: Scope::All,
            pools: Vec::new(),
            charging: None,
            counts_failures: false,
            keys: Vec::new(),
            models: Vec::new(),
            latency: Latency::Zero,
            tokens_per_second: None,
            tokens_per_event: 1,
            output: OutputLength::Maximum { unset: 16 },
            running_max: None,
            keep_alive: Duration::from_secs(5),
            rejects_stream_options: false,
            faults: Faults::default(),
            seed: 0,
            began: None,
            body_bytes_max: 32 << 20,
            connections_max: 16_384,
        }
    }
}
