//! How much of a limit is in use: the rolling window, and the bucket that refills.

mod bucket;
mod rolling;

pub(crate) use bucket::Bucket;
pub(crate) use rolling::{Rolling, WINDOW_MAX, WINDOW_MIN};
