//! DeepSeek's refusals: it limits what is in flight, not what is sent (providers.md §10).

use super::json::ErrorFields;
use super::{Headers, plain_verdict, wait};
use crate::signal::{Cause, RateLimited, Verdict};
use crate::time::Timestamp;
use crate::units::Dimension;

pub(super) fn classify(now: Timestamp, status: u16, headers: &impl Headers, error: &ErrorFields) -> Verdict {
    if status != 429 {
        return plain_verdict(now, status, headers, error);
    }
    Verdict::RateLimited(RateLimited {
        cause: Cause::Concurrency,
        dimension: Some(Dimension::Concurrency),
        retry_after: wait::stated(now, headers, error),
        ..RateLimited::default()
    })
}
