//! Plays a trace of requests against a base URL in open loop and reports what happened.
//!
//! Every request starts at its trace time, whatever became of the ones before it, and its latency counts from that
//! time even if the player itself was late: nothing is left out of the figures because the server was slow.

mod client;
mod connection;
mod interval;
mod player;
mod prompt;
mod report;
mod retry;
mod table;
mod trace;
mod wire;

pub use client::{Dialect, Failure};
pub use connection::ServerError;
pub use interval::Interval;
pub use player::{PlayError, Player, Progress, Record, Settings};
pub use prompt::mock_answer;
pub use report::{LimitUse, MinuteRow, Quantiles, QuotaLimits, Report};
pub(crate) use report::{binding_share, percent};
pub use retry::SdkRetries;
pub use table::{TextTable, human_count, human_duration};
pub use trace::{Span, Trace, TraceError, TraceRequest, TraceSummary};
