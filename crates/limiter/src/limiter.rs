//! The limiter: one engine behind one mutex, one timer task, and the futures that wait.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tidegate_core::{
    Decision, Demand, Engine, Limit, Notice, Outcome, Output, Permit as Grant, Plan, QuotaKey, Refusal,
    RefusalReason, Request, RunId, RunSnapshot, Snapshot, Ticket, TicketId, Timestamp, Tokens,
};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use crate::builder::{Builder, DEFAULT_QUOTA};
use crate::clock::Clock;
use crate::permit::Permit;

/// The answer that a waiting request gets.
type Answer = Result<Grant, Refusal>;

/// Waits until requests may be sent. Clones share one engine.
///
/// It is made inside a tokio runtime, on which its timer task runs, and may then be used from any thread and any
/// runtime. Nothing is awaited while its mutex is held.
#[derive(Clone)]
pub struct Limiter {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    state: Mutex<State>,
    /// Tells the timer task that it has to wake up earlier than it thinks.
    sooner: Arc<Notify>,
    timer: Mutex<Option<AbortHandle>>,
}

struct State {
    engine: Engine,
    waiting: HashMap<TicketId, oneshot::Sender<Answer>>,
    /// When the timer task wakes up by itself.
    armed: Option<Timestamp>,
}

impl Limiter {
    /// Makes a limiter for a plan and starts its timer task.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime with time enabled.
    pub fn new(plan: Plan) -> Self {
        let clock = Clock::start();
        let now = clock.now();
        let state = State {
            engine: Engine::new(now, plan, now.as_micros()),
            waiting: HashMap::new(),
            armed: None,
        };
        let sooner = Arc::new(Notify::new());
        let shared = Arc::new(Shared {
            clock,
            state: Mutex::new(state),
            sooner: Arc::clone(&sooner),
            timer: Mutex::new(None),
        });
        let timer = tokio::spawn(keep_time(Arc::downgrade(&shared), sooner, clock));
        *shared.timer.lock().unwrap_or_else(PoisonError::into_inner) = Some(timer.abort_handle());
        Self { shared }
    }

    /// Starts to describe a limiter for one provider account.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Waits until the request may be sent. Dropping the future gives up its place in the line.
    ///
    /// # Errors
    ///
    /// Returns a [`Refusal`] at once if the request can never be sent, cannot be sent before its deadline, or finds the
    /// queue full; and later if its deadline passes or the limiter is closed.
    pub async fn acquire(&self, request: Request) -> Result<Permit, Refusal> {
        self.acquire_noting(request, |_| ()).await
    }

    /// The same; `note` is shown the place in line if the request has to wait: which it is, for what, and until when.
    ///
    /// # Errors
    ///
    /// As [`Limiter::acquire`].
    pub async fn acquire_noting(
        &self,
        request: Request,
        note: impl FnOnce(&Ticket),
    ) -> Result<Permit, Refusal> {
        let came = self.now();
        let (id, receiver, reason) = {
            let mut state = self.lock();
            match state.engine.submit(came, request) {
                Decision::Admit(grant) => {
                    drop(state);
                    return Ok(Permit::new(self.clone(), grant, came, None));
                }
                Decision::Refuse(refusal) => {
                    self.shared.pass_on(&mut state);
                    return Err(refusal);
                }
                Decision::Wait(ticket) => {
                    let receiver = self.enlist(&mut state, ticket.id);
                    drop(state);
                    note(&ticket);
                    (ticket.id, receiver, ticket.reason)
                }
            }
        };
        let grant = Place {
            limiter: self,
            id,
            receiver: Some(receiver),
        }
        .wait()
        .await?;
        Ok(Permit::new(self.clone(), grant, came, Some(reason)))
    }

    /// Waits until a request with so many input tokens, and at most `output` generated ones, may be sent under the
    /// limits given to [`Limiter::builder`]. It waits as long as it takes.
    ///
    /// # Errors
    ///
    /// As [`Limiter::acquire`].
    pub async fn acquire_tokens(&self, input: Tokens, output: Option<Tokens>) -> Result<Permit, Refusal> {
        let demand = match output {
            Some(_) => Demand::generating(input, output),
            None => Demand::input_only(input),
        };
        let request = Request::new(
            QuotaKey::named(DEFAULT_QUOTA),
            demand,
            Timestamp::from_micros(u64::MAX),
        );
        self.acquire(request).await
    }

    /// Returns the time on the limiter's clock, for making deadlines.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Adopts another plan; charges, lines and everything learned stay.
    pub fn reconfigure(&self, plan: Plan) {
        self.command(|engine, now| engine.reconfigure(now, plan));
    }

    /// Adopts limits that the provider's interface tells of one quota group, as [`Engine::inform`] does.
    pub fn inform(&self, quota: QuotaKey, limits: &[Limit]) {
        self.command(|engine, now| engine.inform(now, quota, limits));
    }

    /// Returns what every quota group looks like now.
    pub fn snapshot(&self) -> Snapshot {
        let now = self.now();
        self.lock().engine.snapshot(now)
    }

    /// Returns what a run of an agent has used, if it was heard of lately.
    pub fn run(&self, run: RunId) -> Option<RunSnapshot> {
        let now = self.now();
        self.lock().engine.run(now, run)
    }

    /// Refuses everything that waits and everything that comes from now on.
    pub fn close(&self) {
        self.command(Engine::close);
    }

    /// Runs a command of the engine and passes on what comes of it.
    pub(crate) fn command<T>(&self, command: impl FnOnce(&mut Engine, Timestamp) -> T) -> T {
        let now = self.now();
        let mut state = self.lock();
        let result = command(&mut state.engine, now);
        self.shared.pass_on(&mut state);
        result
    }

    /// Runs a retry of the engine and waits for what comes of it.
    pub(crate) async fn command_and_wait(
        &self,
        command: impl FnOnce(&mut Engine, Timestamp) -> Decision,
    ) -> Result<Grant, Refusal> {
        let (id, receiver) = {
            let now = self.now();
            let mut state = self.lock();
            match command(&mut state.engine, now) {
                Decision::Admit(grant) => return Ok(grant),
                Decision::Refuse(refusal) => {
                    self.shared.pass_on(&mut state);
                    return Err(refusal);
                }
                Decision::Wait(ticket) => (ticket.id, self.enlist(&mut state, ticket.id)),
            }
        };
        Place {
            limiter: self,
            id,
            receiver: Some(receiver),
        }
        .wait()
        .await
    }

    /// Notes who waits for a ticket, before outputs are passed on, so that none can miss its receiver.
    fn enlist(&self, state: &mut State, id: TicketId) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        state.waiting.insert(id, sender);
        self.shared.pass_on(state);
        receiver
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug of the engine; the other callers are still better served than hung.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands every output to whom it concerns and sees to it that the timer wakes up in time.
    fn pass_on(&self, state: &mut State) {
        while let Some(output) = state.engine.poll_output() {
            match output {
                Output::Admit { ticket, permit } => {
                    let unclaimed = match state.waiting.remove(&ticket) {
                        Some(sender) => sender.send(Ok(permit)).is_err(),
                        None => true,
                    };
                    if unclaimed {
                        let now = self.clock.now();
                        state.engine.settle(now, permit.id, Outcome::NotSent);
                    }
                }
                Output::Refuse { ticket, refusal } => {
                    if let Some(sender) = state.waiting.remove(&ticket) {
                        // A receiver that is gone has nothing to be told.
                        let _ = sender.send(Err(refusal));
                    }
                }
                Output::Notice { quota, notice } => {
                    log(
                        state.engine.name(quota.id).unwrap_or_default(),
                        quota.account,
                        &notice,
                    );
                }
            }
        }
        if let Some((at, _)) = state.engine.poll_timeout()
            && state.armed.is_none_or(|armed| at < armed)
        {
            state.armed = Some(at);
            self.sooner.notify_one();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            timer.abort();
        }
    }
}

/// A place in the line; dropping it gives it up, or gives back the permit that arrived in the same moment.
struct Place<'a> {
    limiter: &'a Limiter,
    id: TicketId,
    receiver: Option<oneshot::Receiver<Answer>>,
}

impl Place<'_> {
    async fn wait(mut self) -> Answer {
        let Some(receiver) = self.receiver.as_mut() else {
            return Err(closed());
        };
        let answer = receiver.await;
        self.receiver = None;
        answer.unwrap_or_else(|_| Err(closed()))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Some(mut receiver) = self.receiver.take() else {
            return;
        };
        let now = self.limiter.now();
        let mut state = self.limiter.lock();
        if state.waiting.remove(&self.id).is_some() {
            state.engine.cancel(now, self.id);
        } else if let Ok(Ok(grant)) = receiver.try_recv() {
            state.engine.settle(now, grant.id, Outcome::NotSent);
        }
        self.limiter.shared.pass_on(&mut state);
    }
}

const fn closed() -> Refusal {
    Refusal::of(RefusalReason::Closed)
}

/// Sleeps until the engine wants to be called, for as long as the limiter lives.
async fn keep_time(shared: Weak<Shared>, sooner: Arc<Notify>, clock: Clock) {
    loop {
        let armed = {
            let Some(shared) = shared.upgrade() else { return };
            let mut state = shared.lock();
            let now = clock.now();
            state.engine.handle_timeout(now);
            // It is awake, so nothing that comes of this needs to wake it.
            state.armed = Some(Timestamp::ZERO);
            shared.pass_on(&mut state);
            state.armed = state.engine.poll_timeout().map(|(at, _)| at);
            state.armed
        };
        match armed {
            Some(at) => {
                tokio::select! {
                    () = tokio::time::sleep_until(clock.instant(at)) => {}
                    () = sooner.notified() => {}
                }
            }
            None => sooner.notified().await,
        }
    }
}

/// Writes down what happened to a quota group. `account` is a hash that says which of its accounts, 0 where there is one.
fn log(group: &str, account: u64, notice: &Notice) {
    let account = (account != 0).then(|| format!("{account:x}"));
    match notice {
        Notice::LimitChanged(limit) => tracing::info!(
            group,
            account,
            dimension = limit.dimension.name(),
            window_s = limit.window.as_secs_f64(),
            amount = limit.amount,
            "limit changed"
        ),
        Notice::PromiseBroken { dimension } => tracing::warn!(
            group,
            account,
            dimension = dimension.map_or("unknown", |dimension| dimension.name()),
            "the provider refused for rate"
        ),
        Notice::Refused { cause, dimension } => tracing::info!(
            group,
            account,
            cause = cause.name(),
            dimension = dimension.map_or("unknown", |dimension| dimension.name()),
            "the provider refused for now"
        ),
        Notice::Slowed { per_minute } => {
            tracing::info!(group, account, per_minute, "shared capacity is short");
        }
        Notice::QuotaSpent { until } => tracing::warn!(
            group,
            account,
            until_unix_s = until.map(|until| until.as_micros() / 1_000_000),
            "the provider says that the quota is spent"
        ),
        Notice::ForeignTraffic { dimension, amount } => {
            tracing::debug!(
                group,
                account,
                dimension = dimension.name(),
                amount = amount.value(),
                "somebody else uses the same limits"
            );
        }
    }
}

/// Returns how long a request waited, for people.
pub(crate) fn waited(came: Timestamp, granted: Timestamp) -> Duration {
    granted.since(came)
}
