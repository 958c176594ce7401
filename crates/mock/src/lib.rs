//! A language-model provider to run against: it charges, limits and refuses as the real ones do.
//!
//! [`limits`] holds the enforcement models alone, pure and in virtual time. Nothing here knows the limiter whose promise
//! it tests: the mock is the oracle and shares no line with it.

pub mod limits;
