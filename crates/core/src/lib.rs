//! Every rule about limits on calls to language models, as one deterministic state machine.
//!
//! The crate knows no clock, no IO, no thread and no randomness of its own: time comes in as the first argument, a seed
//! at construction, and everything that is to happen comes out of [`Engine::poll_output`]. The same calls in the same
//! order give the same answers on every machine.
//!
//! The contract is one law: after every call that takes `now`, drain [`Engine::poll_output`] until it returns `None`,
//! then sleep until [`Engine::poll_timeout`] and call [`Engine::handle_timeout`]. A panic in this crate is a bug in this
//! crate: no request, configuration, header or clock value reaches one.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;

mod allowance;
mod calendar;
mod caller;
mod charge;
mod decision;
mod engine;
pub mod escrow;
mod estimate;
mod forecast;
mod group;
mod lasting;
pub mod ledger;
mod limit;
mod margin;
mod memory;
mod meter;
mod outcome;
mod output;
mod plan;
mod price;
mod projection;
pub mod provider;
mod queue;
mod request;
mod retry;
mod run;
mod signal;
mod sketch;
mod snapshot;
mod time;
mod units;
mod window;

#[cfg(test)]
mod tests;

pub use caller::{Caller, Priority, RouteId, TenantId};
pub use charge::{Charge, ChargeModel, InputCharge, OutputCharge, Settlement};
pub use decision::{
    Allotment, Decision, Obstacle, Permit, PermitId, Refusal, RefusalReason, Spent, Ticket, TicketId,
    WaitReason,
};
pub use engine::{ACCOUNTS_MAX, Engine};
pub use estimate::TextShape;
pub use limit::{Discipline, Limit, LimitRef, LimitSource, Zone};
pub use margin::MarginPolicy;
pub use memory::{
    AllowanceMemory, BudgetMemory, Charged, Gap, GroupMemory, LimitMemory, Memory, TrialMemory, UnknownMemory,
};
pub use outcome::{Failure, Outcome, Usage};
pub use output::{Notice, Output, Standing, Wake};
pub use plan::{
    Budget, BudgetUnit, Guarantee, Learning, Order, Period, Plan, QueueBounds, QuotaId, QuotaKey, QuotaPlan,
    RetryPolicy, RoutePlan, RunPlan, SharedPlan, TenantPlan, TierPlan,
};
pub use price::{Cost, Price};
pub use projection::CLASSES_MAX;
pub use request::{Demand, Request, RequestClass};
pub use run::{RunId, RunStep};
pub use signal::{Cause, READINGS_MAX, RateLimited, Reading, Readings, UpstreamSignal, Verdict};
pub use snapshot::{
    AllowanceSnapshot, BudgetSnapshot, CapEffect, CongestionSnapshot, EscrowSnapshot, Growth, LimitSnapshot,
    OutputSnapshot, Owner, QuotaSnapshot, RUNS_SHOWN, RunSnapshot, SHARES_SHOWN, ShareSnapshot, Snapshot,
    StoreSnapshot, Totals, WAITING_SHOWN, WaitingSnapshot,
};
pub use time::Timestamp;
pub use units::{Amount, Bytes, Dimension, Tokens};
