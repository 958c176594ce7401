//! The one place where the shell reads a clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_core::Timestamp;
use tokio::time::Instant;

/// Unix time at its making, plus monotonic time since: it never steps, and follows tokio's paused clock in tests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    unix: Duration,
    origin: Instant,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one reading of wall time; everything after it is monotonic"
    )]
    pub(crate) fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            unix,
            origin: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::ZERO + self.unix + self.origin.elapsed()
    }

    /// Returns the instant at which the clock will show `at`.
    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        self.origin + at.since(Timestamp::ZERO + self.unix)
    }
}
