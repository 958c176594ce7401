//! A language-model provider to run against: it charges, limits and refuses as the real ones do.
//!
//! [`limits`] holds the enforcement models alone, pure and in virtual time; [`Server`] puts them behind the HTTP interface
//! of a [`Provider`]. Nothing here knows the limiter whose promise it tests: the mock is the oracle and shares
//! no line with it.
//!
//! # Directives
//!
//! A request may ask for a behavior, in a header or, where a proxy lets no such header through, under the key `x_mock` of
//! its JSON body (`{"x_mock": {"status": "500"}}`; keys without the `x-mock-`):
//!
//! | Header | Value | Effect |
//! |---|---|---|
//! | `x-mock-status` | 400 … 599 | this answer, after admission, in the provider's shape |
//! | `x-mock-error` | `insufficient_quota`, `spend_limit`, `balance`, `limit_zero` | the refusal that time does not cure |
//! | `x-mock-error` | `capacity`, `slow_down`, `upstream` | the refusal that is not this account's own doing |
//! | `x-mock-stall` | `head`, `stream` | no answer ever; or none after the first event |
//! | `x-mock-reset` | `head`, `stream` | the connection is reset before the answer, or after the first event |
//! | `x-mock-delay` | milliseconds | added before the first token |
//! | `x-mock-output-tokens` | count | what the answer has; cut at the request's own maximum |
//! | `x-mock-cached-tokens` | count | how much of the input is reported as read from the cache |

pub mod answer;
mod answering;
mod anthropic;
mod auth;
mod azure;
mod bedrock;
mod body;
mod call;
mod catalog;
mod cohere;
mod directive;
mod gemini;
mod groq;
mod hosted;
pub mod limits;
mod mistral;
mod native;
mod openai;
mod openrouter;
mod problem;
mod provider;
mod rate_headers;
mod route;
mod server;
mod service;
pub mod settings;
pub mod speech;
mod stamp;
mod state;
pub mod stats;
mod text;

pub use limits::Scope;
pub use provider::Provider;
pub use server::{Handle, Server};
pub use settings::{Fault, Faults, Key, Latency, OutputLength, Settings};
pub use stats::Stats;
