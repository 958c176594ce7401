//! Each provider's profile against the mock's model of that provider: what the engine is told, what it is not told, and
//! what it is told wrong.
//!
//! The engine gets its plan as the gateway's profile makes it. Everything that it hears comes as text, written by the
//! mock and read by the engine's own codecs: headers of successes, and status, headers and body of refusals.

pub mod catalog;
pub mod exchange;
pub mod figures;
pub mod load;
pub mod surprise;
pub mod table;
pub mod wire;

pub use catalog::{Profile, catalog, vertex};
pub use exchange::{Change, Knowledge, Trial, run};
pub use figures::Figures;
pub use surprise::{Surprise, surprises};
