use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tokio::time::Instant;

use crate::call::Call;
use crate::limits::{Charging, Enforcer, Limit, LimitState, Refused, Timestamp, Weights};
use crate::settings::{Dialect, Fault, Key, Latency, OutputLength, Scope, Settings};
use crate::stats::{Phase, Recorder, Stats};

/// Most quota groups; requests of further keys and models share the last one.
const GROUPS_MAX: usize = 1_024;
/// Most tokens in one response, all choices together: what is held in memory for it is bounded.
const OUTPUT_MAX: u64 = 1 << 17;
/// Most faults waiting to be played.
const SCRIPT_MAX: usize = 1 << 16;

/// The provider, shared by all its connections.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) settings: Settings,
    started: Instant,
    started_unix: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    groups: Vec<Enforcer>,
    names: HashMap<GroupName, usize>,
    limits: Vec<Limit>,
    recorder: Recorder,
    random: Pcg64Mcg,
    script: VecDeque<Fault>,
    next_id: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct GroupName {
    dialect: Dialect,
    key: Key,
    model: String,
}

/// What was decided about a request the moment it had arrived.
pub(crate) struct Verdict {
    pub(crate) id: u64,
    pub(crate) result: Result<Granted, Refused>,
    /// The limits after this request, for its headers.
    pub(crate) states: Vec<LimitState>,
    /// Time since 1970 at the decision.
    pub(crate) unix: Duration,
}

/// An admitted request and the dice thrown for it.
pub(crate) struct Granted {
    pub(crate) flight: Flight,
    pub(crate) fault: Option<Fault>,
    pub(crate) latency: Duration,
    /// Tokens in each choice.
    pub(crate) output_tokens: u64,
    /// Whether the request's own maximum cut the answer.
    pub(crate) cut: bool,
}

impl State {
    pub(crate) fn new(settings: Settings) -> Self {
        let started_unix = unix_now();
        let limits = settings.limits.clone();
        let inner = Inner {
            groups: Vec::new(),
            names: HashMap::new(),
            recorder: Recorder::new(Timestamp(0), &limits),
            limits,
            random: Pcg64Mcg::seed_from_u64(settings.seed),
            script: VecDeque::new(),
            next_id: 0,
        };
        Self {
            settings,
            started: Instant::now(),
            started_unix,
            inner: Mutex::new(inner),
        }
    }

    /// Decides about a request whose body has just arrived.
    pub(crate) fn admit(self: &Arc<Self>, key: &Key, call: &Call) -> Verdict {
        let dialect = call.endpoint.dialect();
        let charging = self.settings.charging.unwrap_or(dialect.charging());
        let mut guard = self.lock();
        let inner = &mut *guard;
        let elapsed = self.started.elapsed();
        let now = timestamp(elapsed);
        let id = inner.next_id;
        inner.next_id += 1;
        inner.recorder.request();
        let group = inner.group(&self.settings, dialect, charging, key, &call.model);
        let weights = call.demand.estimate();
        let admitted = inner.groups[group].admit(now, id, &weights);
        let states = inner.groups[group].state(now);
        let result = match admitted {
            Ok(()) => {
                let charged = match charging {
                    Charging::AsGenerated => Weights { output: 0, ..weights },
                    Charging::Estimate | Charging::Settled => weights,
                };
                inner.recorder.admitted(now);
                inner.recorder.charged(now, &charged);
                inner.recorder.started();
                let (output_tokens, cut) = inner.output(&self.settings, call);
                let fault = inner.fault(&self.settings, call);
                let flight = Flight {
                    state: Arc::clone(self),
                    group,
                    id,
                    admitted: now,
                    charging,
                    charged,
                    input: billable_input(dialect, call),
                    generated: 0,
                    settled: false,
                    phase: Some(Phase::Waiting),
                };
                let latency = inner.latency(&self.settings);
                Ok(Granted {
                    flight,
                    fault,
                    latency,
                    output_tokens,
                    cut,
                })
            }
            Err(refused) => {
                inner
                    .recorder
                    .refused(now, refused.dimension, refused.wait == crate::limits::Wait::Never);
                Err(refused)
            }
        };
        drop(guard);
        Verdict {
            id,
            result,
            states,
            unix: self.started_unix + elapsed,
        }
    }

    /// Returns the number of a request that is not limited.
    pub(crate) fn number(&self) -> u64 {
        let mut inner = self.lock();
        inner.recorder.request();
        inner.next_id += 1;
        inner.next_id - 1
    }

    /// Whole seconds since 1970.
    pub(crate) fn unix_seconds(&self) -> u64 {
        (self.started_unix + self.started.elapsed()).as_secs()
    }

    pub(crate) fn record(&self, record: impl FnOnce(&mut Recorder)) {
        record(&mut self.lock().recorder);
    }

    pub(crate) fn stats(&self) -> Stats {
        let inner = self.lock();
        inner.recorder.snapshot(timestamp(self.started.elapsed()))
    }

    /// Forgets all charges and counts.
    pub(crate) fn reset(&self) {
        let now = timestamp(self.started.elapsed());
        let mut guard = self.lock();
        let inner = &mut *guard;
        inner.groups.clear();
        inner.names.clear();
        inner.script.clear();
        inner.recorder = inner.recorder.restarted(now, &inner.limits);
    }

    pub(crate) fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut inner = self.lock();
        let room = SCRIPT_MAX - inner.script.len().min(SCRIPT_MAX);
        inner.script.extend(faults.into_iter().take(room));
    }

    pub(crate) fn resize(&self, limit: usize, amount: u64) {
        let now = timestamp(self.started.elapsed());
        let mut guard = self.lock();
        let inner = &mut *guard;
        if let Some(limit) = inner.limits.get_mut(limit) {
            limit.amount = amount;
        }
        inner
            .groups
            .iter_mut()
            .for_each(|group| group.resize(now, limit, amount));
    }

    /// A panic while counting leaves nothing half done that later requests could not live with.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn group(
        &mut self,
        settings: &Settings,
        dialect: Dialect,
        charging: Charging,
        key: &Key,
        model: &str,
    ) -> usize {
        let by_key = matches!(settings.scope, Scope::Key | Scope::KeyAndModel);
        let by_model = matches!(settings.scope, Scope::Model | Scope::KeyAndModel);
        let name = GroupName {
            dialect,
            key: if by_key { key.clone() } else { Key::default() },
            model: if by_model { model.to_owned() } else { String::new() },
        };
        if let Some(group) = self.names.get(&name) {
            return *group;
        }
        if self.groups.len() >= GROUPS_MAX {
            return self.groups.len() - 1;
        }
        let mut group = Enforcer::new(charging, self.limits.clone());
        if settings.counts_failures {
            group = group.counting_failures();
        }
        self.groups.push(group);
        self.names.insert(name, self.groups.len() - 1);
        self.groups.len() - 1
    }

    fn fault(&mut self, settings: &Settings, call: &Call) -> Option<Fault> {
        let asked = call.directives.fault.or_else(|| self.script.pop_front());
        let fault = match asked {
            Some(fault) => Some(fault),
            None if settings.faults == crate::settings::Faults::default() => None,
            None => settings.faults.of(self.random.random::<f64>()),
        };
        if fault.is_some() {
            self.recorder.fault();
        }
        fault
    }

    fn latency(&mut self, settings: &Settings) -> Duration {
        match settings.latency {
            Latency::Zero => Duration::ZERO,
            Latency::Fixed(latency) => latency,
            Latency::LogNormal { median, sigma } => {
                let factor = (sigma * self.normal()).exp();
                Duration::try_from_secs_f64(median.as_secs_f64() * factor).unwrap_or(median)
            }
        }
    }

    /// The tokens of each choice, and whether the request's maximum cut them.
    fn output(&mut self, settings: &Settings, call: &Call) -> (u64, bool) {
        let maximum = call.demand.max_output;
        let wanted = match (call.directives.output_tokens, settings.output) {
            (Some(tokens), _) | (None, OutputLength::Fixed(tokens)) => tokens,
            (None, OutputLength::Maximum { unset }) => maximum.unwrap_or(unset),
            (None, OutputLength::LogNormal { median, sigma }) => {
                // A float beyond the range of integers is cast to its end.
                (median as f64 * (sigma * self.normal()).exp()) as u64
            }
        };
        let bound = OUTPUT_MAX / call.demand.choices.max(1);
        let allowed = maximum.unwrap_or(bound).min(bound);
        (wanted.clamp(1, allowed.max(1)), wanted > allowed)
    }

    /// A normally distributed number (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.random.random::<f64>()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.random.random::<f64>()).cos()
    }
}

/// An admitted request on its way. Dropping it ends it: what was made so far is settled.
#[derive(Debug)]
pub(crate) struct Flight {
    state: Arc<State>,
    group: usize,
    id: u64,
    admitted: Timestamp,
    charging: Charging,
    charged: Weights,
    input: u64,
    generated: u64,
    settled: bool,
    /// What the client would be said to have missed if it left now; `None` once it has everything.
    phase: Option<Phase>,
}

impl Flight {
    /// The first token is there: input that was estimated is now known.
    pub(crate) fn begin(&mut self) {
        if self.charging == Charging::AsGenerated {
            let state = Arc::clone(&self.state);
            self.settle(&mut state.lock());
        }
    }

    /// Counts output tokens as they are made.
    pub(crate) fn generated(&mut self, tokens: u64) {
        self.generated = self.generated.saturating_add(tokens);
        let state = Arc::clone(&self.state);
        let mut guard = state.lock();
        let inner = &mut *guard;
        inner.recorder.generated(tokens);
        if self.charging == Charging::AsGenerated {
            let now = state.now();
            inner.recorder.charged(
                now,
                &Weights {
                    requests: 0,
                    input: 0,
                    output: tokens,
                },
            );
            if let Some(group) = inner.groups.get_mut(self.group) {
                group.generated(now, self.id, tokens);
            }
        }
    }

    /// Whether output must be counted in steps while it is made.
    pub(crate) fn counts_output(&self) -> bool {
        self.charging == Charging::AsGenerated
    }

    pub(crate) fn streaming(&mut self) {
        self.phase = Some(Phase::Streaming);
    }

    /// The client has everything, or it is the mock that breaks off.
    pub(crate) fn complete(&mut self) {
        self.phase = None;
    }

    fn settle(&mut self, inner: &mut Inner) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let now = self.state.now();
        let actual = match self.charging {
            Charging::Estimate => return,
            Charging::Settled => Weights {
                requests: 1,
                input: self.input,
                output: self.generated,
            },
            Charging::AsGenerated => Weights {
                requests: 1,
                input: self.input,
                output: 0,
            },
        };
        if let Some(group) = inner.groups.get_mut(self.group) {
            group.settle(now, self.id, &actual);
        }
        let more = |new: u64, old: u64| new.saturating_sub(old);
        let excess = Weights {
            requests: 0,
            input: more(actual.input, self.charged.input),
            output: more(actual.output, self.charged.output),
        };
        let refund = Weights {
            requests: 0,
            input: more(self.charged.input, actual.input),
            output: more(self.charged.output, actual.output),
        };
        inner.recorder.charged(now, &excess);
        inner.recorder.refunded(self.admitted, &refund);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let state = Arc::clone(&self.state);
        let mut guard = state.lock();
        self.settle(&mut guard);
        let inner = &mut *guard;
        if let Some(group) = inner.groups.get_mut(self.group) {
            group.finish(state.now(), self.id);
        }
        inner.recorder.ended();
        if let Some(phase) = self.phase {
            inner.recorder.left(phase);
        }
    }
}

impl State {
    fn now(&self) -> Timestamp {
        timestamp(self.started.elapsed())
    }
}

/// The time since 1970, read once: later times are elapsed time added.
#[expect(
    clippy::disallowed_methods,
    reason = "Anthropic's headers tell wall time, and the mock must not use the limiter's"
)]
fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn timestamp(elapsed: Duration) -> Timestamp {
    Timestamp(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
}

/// Input that counts: for Anthropic reads from the cache are free, for OpenAI they are not (providers.md §2.1, §4.3).
fn billable_input(dialect: Dialect, call: &Call) -> u64 {
    match dialect {
        Dialect::OpenAi => call.input_tokens,
        Dialect::Anthropic => call.input_tokens.saturating_sub(call.directives.cached_tokens),
    }
}
