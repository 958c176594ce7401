use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::call::Call;
use crate::limits::{Account, Demand, Pool, PoolState, Refused, Subject, Timestamp, Usage, Wait, Weights};
use crate::provider::Provider;
use crate::settings::{Fault, Key, Latency, OutputLength, Settings};
use crate::stats::{Phase, Recorder, Stats};

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
    /// Places to be worked on, and how many there are.
    running: Option<(Arc<Semaphore>, u32)>,
}

#[derive(Debug)]
struct Inner {
    /// One for each interface: two never share limits.
    accounts: BTreeMap<Provider, Account>,
    recorder: Recorder,
    random: Pcg64Mcg,
    script: VecDeque<Fault>,
    next_id: u64,
}

/// What was decided about a request the moment it had arrived.
pub(crate) struct Verdict {
    pub(crate) id: u64,
    pub(crate) result: Result<Granted, Denied>,
    /// The limits after this request, for its headers.
    pub(crate) states: Vec<PoolState>,
    /// Time since 1970 at the decision.
    pub(crate) unix: Duration,
}

/// A refusal, with what its text needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Denied {
    pub(crate) refused: Refused,
    /// The window of the whole limit.
    pub(crate) window: Duration,
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
        let running = settings.running_max.map(|most| {
            let most = u32::try_from(most).unwrap_or(u32::MAX).clamp(1, 1 << 20);
            (Arc::new(Semaphore::new(most as usize)), most)
        });
        let inner = Inner {
            accounts: BTreeMap::new(),
            recorder: Recorder::new(Timestamp(0), &pools(&settings, settings.spoken()[0])),
            random: Pcg64Mcg::seed_from_u64(settings.seed),
            script: VecDeque::new(),
            next_id: 0,
        };
        Self {
            started_unix: settings.began.unwrap_or_else(unix_now),
            settings,
            started: Instant::now(),
            inner: Mutex::new(inner),
            running,
        }
    }

    /// Decides about a request whose body has just arrived.
    pub(crate) fn admit(self: &Arc<Self>, key: &Key, call: &Call) -> Verdict {
        let provider = call.target.provider;
        let place = call.target.place();
        let subject = Subject {
            key,
            model: &call.model,
            endpoint: &place,
        };
        let mut guard = self.lock();
        let inner = &mut *guard;
        let elapsed = self.started.elapsed();
        let now = timestamp(elapsed);
        let id = inner.next_id;
        inner.next_id += 1;
        inner.recorder.request();
        let account = self.account(&mut inner.accounts, provider);
        let admitted = account.admit(now, id, &subject, &call.demand);
        let states = account.state(now, &subject, &call.demand);
        let result = match admitted {
            Ok(charged) => {
                inner.recorder.admitted(now);
                inner.recorder.started();
                if let Some((_, weights)) = charged.first() {
                    inner.recorder.charged(now, weights);
                }
                for (pool, weights) in &charged {
                    inner.recorder.charged_in(now, *pool, weights);
                }
                let as_generated = charged
                    .iter()
                    .any(|(pool, _)| account.pools()[*pool].charging.as_generated);
                let (output_tokens, cut) = inner.output(&self.settings, call);
                let fault = inner.fault(&self.settings, call);
                let flight = Flight {
                    state: Arc::clone(self),
                    provider,
                    id,
                    admitted: now,
                    as_generated,
                    input: call.input_tokens,
                    cached: call.directives.cached_tokens,
                    generated: 0,
                    settled: false,
                    turn: None,
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
            Err(refusal) => {
                let refused = refusal.refused;
                inner
                    .recorder
                    .refused(now, refused.dimension, refused.wait == Wait::Never);
                let limits = &account.pools()[refusal.pool].limits;
                let window = limits
                    .get(refused.limit)
                    .map_or(refused.window, |limit| limit.window);
                Err(Denied { refused, window })
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

    /// Whether a limit is for this endpoint by name.
    pub(crate) fn limits_endpoint(&self, name: &str) -> bool {
        let mut named = self
            .settings
            .pools
            .iter()
            .flat_map(|pool| &pool.applies.endpoints);
        named.any(|endpoint| endpoint == name)
    }

    /// Returns the pools of an interface, with all changes of amounts.
    pub(crate) fn pools(&self, provider: Provider) -> Vec<Pool> {
        let mut inner = self.lock();
        self.account(&mut inner.accounts, provider).pools().to_vec()
    }

    /// Returns what a request would find, without charging anything.
    pub(crate) fn look(&self, provider: Provider, subject: &Subject<'_>) -> Vec<PoolState> {
        let now = self.now();
        let mut inner = self.lock();
        let account = self.account(&mut inner.accounts, provider);
        account.state(now, subject, &Demand::default())
    }

    /// Waits in line until the request may be worked on.
    pub(crate) async fn turn(&self, slots: u64) -> Option<OwnedSemaphorePermit> {
        let (running, most) = self.running.as_ref()?;
        let slots = u32::try_from(slots).unwrap_or(u32::MAX).min(*most);
        // The semaphore is never closed.
        Arc::clone(running).acquire_many_owned(slots).await.ok()
    }

    fn account<'a>(
        &self,
        accounts: &'a mut BTreeMap<Provider, Account>,
        provider: Provider,
    ) -> &'a mut Account {
        accounts.entry(provider).or_insert_with(|| {
            let account = Account::new(pools(&self.settings, provider), self.started_unix);
            if self.settings.counts_failures {
                account.counting_failures()
            } else {
                account
            }
        })
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
        inner.accounts.values_mut().for_each(Account::reset);
        inner.script.clear();
        let pools = self
            .account(&mut inner.accounts, self.settings.spoken()[0])
            .pools()
            .to_vec();
        inner.recorder = inner.recorder.restarted(now, &pools);
    }

    pub(crate) fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        let mut inner = self.lock();
        let room = SCRIPT_MAX - inner.script.len().min(SCRIPT_MAX);
        inner.script.extend(faults.into_iter().take(room));
    }

    /// Changes one limit, by its place among those of all pools.
    pub(crate) fn resize(&self, limit: usize, amount: u64) {
        let now = timestamp(self.started.elapsed());
        let mut guard = self.lock();
        let inner = &mut *guard;
        for provider in self.settings.spoken() {
            let account = self.account(&mut inner.accounts, provider);
            let mut place = limit;
            let found = account.pools().iter().position(|pool| {
                let here = place < pool.limits.len();
                if !here {
                    place -= pool.limits.len();
                }
                here
            });
            if let Some(pool) = found {
                account.resize(now, pool, place, amount);
            }
        }
    }

    /// A panic while counting leaves nothing half done that later requests could not live with.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pools of one interface: those for all requests, those for some, and an empty one for the rest, so that everything
/// is charged somewhere.
fn pools(settings: &Settings, provider: Provider) -> Vec<Pool> {
    let charging = settings.charging.unwrap_or(provider.charging());
    let all = Pool::new(charging, settings.limits.clone()).scoped(settings.scope);
    let all = Some(all).filter(|all| !all.limits.is_empty());
    let rest = Pool::new(charging, Vec::new());
    all.into_iter()
        .chain(settings.pools.iter().cloned())
        .chain([rest])
        .collect()
}

impl Inner {
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
    provider: Provider,
    id: u64,
    admitted: Timestamp,
    /// Whether output is charged while it is made.
    as_generated: bool,
    input: u64,
    cached: u64,
    generated: u64,
    settled: bool,
    /// Its place among those that are worked on.
    turn: Option<OwnedSemaphorePermit>,
    /// What the client would be said to have missed if it left now; `None` once it has everything.
    phase: Option<Phase>,
}

impl Flight {
    /// The first token is there: input that was estimated is now known.
    pub(crate) fn begin(&mut self) {
        if self.as_generated {
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
        if self.as_generated {
            let now = state.now();
            let made = Weights {
                output: tokens,
                ..Weights::default()
            };
            inner.recorder.charged(now, &made);
            if let Some(account) = inner.accounts.get_mut(&self.provider) {
                for pool in account.generated(now, self.id, tokens) {
                    inner.recorder.charged_in(now, pool, &made);
                }
            }
        }
    }

    /// Whether output must be counted in steps while it is made.
    pub(crate) fn counts_output(&self) -> bool {
        self.as_generated
    }

    /// Keeps the request's place among those that are worked on until it ends.
    pub(crate) fn keep(&mut self, turn: Option<OwnedSemaphorePermit>) {
        self.turn = turn;
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
        let Some(account) = inner.accounts.get_mut(&self.provider) else {
            return;
        };
        let usage = Usage {
            input: self.input,
            cache_read: self.cached,
            output: if self.as_generated { 0 } else { self.generated },
        };
        for (index, (pool, before, after)) in account.settle(now, self.id, &usage).into_iter().enumerate() {
            let (excess, refund) = (more(&after, &before), more(&before, &after));
            if index == 0 {
                inner.recorder.charged(now, &excess);
                inner.recorder.refunded(&refund);
            }
            inner.recorder.charged_in(now, pool, &excess);
            inner.recorder.refunded_in(self.admitted, pool, &refund);
        }
    }
}

/// The tokens by which one weight exceeds another.
fn more(new: &Weights, old: &Weights) -> Weights {
    Weights {
        input: new.input.saturating_sub(old.input),
        output: new.output.saturating_sub(old.output),
        ..Weights::default()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let state = Arc::clone(&self.state);
        let mut guard = state.lock();
        self.settle(&mut guard);
        let inner = &mut *guard;
        if let Some(account) = inner.accounts.get_mut(&self.provider) {
            account.finish(state.now(), self.id);
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
