//! The limiter: one engine behind one mutex, one timer task, and the futures that wait.

#[cfg(feature = "redis")]
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
#[cfg(feature = "redis")]
use std::sync::OnceLock;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

#[cfg(feature = "redis")]
use tidegate_core::ledger::{Call, CallKey, Reply};
use tidegate_core::{
    Decision, Demand, Engine, Limit, Notice, Outcome, Output, Permit as Grant, Plan, QuotaKey, Refusal,
    RefusalReason, Request, RunId, RunSnapshot, SharedPlan, Snapshot, Standing, Ticket, TicketId, Timestamp,
    Tokens, WaitReason,
};
#[cfg(feature = "redis")]
use tidegate_core::{Owner, QuotaId, escrow};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use crate::builder::{Builder, DEFAULT_QUOTA};
use crate::clock::Clock;
use crate::permit::Permit;
#[cfg(feature = "redis")]
use crate::store::{Store, StoreOptions, StoreProblem, StoreStatus, Subject};

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

pub(crate) struct Shared {
    clock: Clock,
    state: Mutex<State>,
    /// Tells the timer task that it has to wake up earlier than it thinks.
    sooner: Arc<Notify>,
    timer: Mutex<Option<AbortHandle>>,
    /// Tells the task that calls the ledgers that a call is due.
    wanted: Arc<Notify>,
    /// Tells whoever leaves that all calls were answered.
    #[cfg(feature = "redis")]
    called_all: Notify,
    #[cfg(feature = "redis")]
    store: OnceLock<Store>,
}

struct State {
    engine: Engine,
    waiting: HashMap<TicketId, oneshot::Sender<Answer>>,
    /// When the timer task wakes up by itself.
    armed: Option<Timestamp>,
    /// The groups of which a call to their ledger is due, and whether one about the limits of tenants and routes is.
    due: Vec<QuotaKey>,
    escrow_is_due: bool,
    #[cfg(feature = "redis")]
    is_leaving: bool,
}

impl Limiter {
    /// Makes a limiter for a plan and starts its timer task. It shares nothing with other processes, whatever the plan says
    /// of that: [`Limiter::with_store`] does.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime with time enabled.
    pub fn new(plan: Plan) -> Self {
        Self::start(Plan { shared: None, ..plan })
    }

    /// Makes a limiter that shares its quota groups with all others at the same store, and starts its tasks. It does not
    /// wait for the store: requests do, and for what happens when it is lost there are options.
    ///
    /// Each process has its part until it says that it leaves ([`Limiter::leave`]).
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the options.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime with time and IO enabled.
    #[cfg(feature = "redis")]
    pub fn with_store(plan: Plan, options: StoreOptions) -> Result<Self, StoreProblem> {
        options.check()?;
        let shared = Some(options.plan());
        let limiter = Self::start(Plan { shared, ..plan });
        let process = limiter.lock().engine.process();
        let store = Store::start(
            limiter.now(),
            process,
            options,
            Arc::downgrade(&limiter.shared),
            Arc::clone(&limiter.shared.wanted),
        )?;
        // It was just made and has none.
        let _ = limiter.shared.store.set(store);
        Ok(limiter)
    }

    fn start(plan: Plan) -> Self {
        let clock = Clock::start();
        let now = clock.now();
        let state = State {
            engine: Engine::new(now, plan, seed(now)),
            waiting: HashMap::new(),
            armed: None,
            due: Vec::new(),
            escrow_is_due: false,
            #[cfg(feature = "redis")]
            is_leaving: false,
        };
        let sooner = Arc::new(Notify::new());
        let shared = Arc::new(Shared {
            clock,
            state: Mutex::new(state),
            sooner: Arc::clone(&sooner),
            timer: Mutex::new(None),
            wanted: Arc::new(Notify::new()),
            #[cfg(feature = "redis")]
            called_all: Notify::new(),
            #[cfg(feature = "redis")]
            store: OnceLock::new(),
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
                    self.shared.pass_on(&mut state);
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
        let reason = match reason {
            WaitReason::Store => grant.reason,
            reason => Some(reason),
        };
        Ok(Permit::new(self.clone(), grant, came, reason))
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
    ///
    /// How groups are shared stays as it was.
    pub fn reconfigure(&self, plan: Plan) {
        let shared = self.shared.plan();
        let plan = Plan { shared, ..plan };
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

    /// Tells other replicas that this one leaves, so that what is kept for it is free for them at once. Waits until the store
    /// has heard it, but not longer than this. Returns whether it has.
    ///
    /// To be called when no more requests come: one that does joins again.
    #[cfg(feature = "redis")]
    pub async fn leave(&self, patience: Duration) -> bool {
        let called_all = self.shared.called_all.notified();
        self.lock().is_leaving = true;
        self.command(Engine::leave);
        self.shared.wanted.notify_one();
        tokio::time::timeout(patience, called_all).await.is_ok()
    }

    /// Returns what is known of the store, if there is one.
    #[cfg(feature = "redis")]
    pub fn store_status(&self) -> Option<StoreStatus> {
        self.shared.store.get().map(Store::status)
    }

    /// Refuses everything that waits and everything that comes from now on.
    pub fn close(&self) {
        self.command(Engine::close);
    }

    /// Runs a command of the engine and passes on what comes of it.
    pub(crate) fn command<T>(&self, command: impl FnOnce(&mut Engine, Timestamp) -> T) -> T {
        self.shared.command(command)
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

    fn command<T>(&self, command: impl FnOnce(&mut Engine, Timestamp) -> T) -> T {
        let now = self.clock.now();
        let mut state = self.lock();
        let result = command(&mut state.engine, now);
        self.pass_on(&mut state);
        result
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
                Output::Call { quota } => {
                    state.due.push(quota);
                    self.wanted.notify_one();
                }
                Output::CallEscrow => {
                    state.escrow_is_due = true;
                    self.wanted.notify_one();
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

#[cfg(feature = "redis")]
impl Shared {
    fn plan(&self) -> Option<SharedPlan> {
        self.store.get().map(Store::plan)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns the name of a group of the plan.
    pub(crate) fn name(&self, id: QuotaId) -> Option<String> {
        self.lock().engine.name(id).map(str::to_owned)
    }

    /// Adds what a call is due about.
    pub(crate) fn take_due(&self, due: &mut BTreeSet<Subject>) {
        let mut state = self.lock();
        due.extend(state.due.drain(..).map(Subject::Group));
        if std::mem::take(&mut state.escrow_is_due) {
            due.insert(Subject::Escrow);
        }
    }

    /// Makes the call to a group's ledger.
    pub(crate) fn call(&self, quota: QuotaKey) -> Option<Call> {
        self.command(|engine, now| engine.call(now, quota))
    }

    /// Hands back what the ledger answered.
    pub(crate) fn answer(&self, quota: QuotaKey, call: CallKey, reply: &Reply) {
        self.command(|engine, now| engine.answer(now, quota, call, reply));
    }

    /// The ledger says that a group's first request goes next.
    pub(crate) fn wakened(&self, quota: QuotaKey, replica: u64, at: u64) {
        self.command(|engine, now| engine.wakened(now, quota, replica, at));
    }

    /// Makes the call about the limits of tenants and routes.
    pub(crate) fn escrow_call(&self) -> Option<escrow::Call> {
        self.command(Engine::escrow_call)
    }

    /// Hands back what was answered to it.
    pub(crate) fn escrow_answer(&self, sequence: u64, reply: &escrow::Reply) {
        self.command(|engine, now| engine.escrow_answer(now, sequence, reply));
    }

    /// The store says that this process should call about an owner.
    pub(crate) fn escrow_wakened(&self, owner: Owner) {
        self.command(|engine, now| engine.escrow_wakened(now, owner));
    }

    /// A server of the store was connected to.
    pub(crate) fn escrow_reached(&self) {
        self.command(Engine::escrow_reached);
    }

    /// No call is due, and none is under way.
    pub(crate) fn has_called_all(&self) {
        let state = self.lock();
        if state.is_leaving && state.due.is_empty() && !state.escrow_is_due {
            self.called_all.notify_waiters();
        }
    }
}

#[cfg(not(feature = "redis"))]
impl Shared {
    #[expect(clippy::unused_self, reason = "it knows with the feature `redis`")]
    const fn plan(&self) -> Option<SharedPlan> {
        None
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

/// Returns a seed that no other process has.
fn seed(now: Timestamp) -> u64 {
    // The system's own randomness is in the keys of every new state.
    RandomState::new().hash_one(now.as_micros())
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
        Notice::Store { standing } => match standing {
            Standing::Sharing | Standing::Closed => {
                tracing::warn!(
                    group,
                    account,
                    standing = standing.name(),
                    "the store is out of reach"
                );
            }
            Standing::Learning => tracing::warn!(
                group,
                account,
                standing = standing.name(),
                "the store does not know what is in use: nobody is let in until it does"
            ),
            Standing::Idle | Standing::Joining => {
                tracing::debug!(group, account, standing = standing.name(), "no part in the store");
            }
            Standing::Open => tracing::info!(
                group,
                account,
                standing = standing.name(),
                "the limits are shared through the store"
            ),
        },
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
