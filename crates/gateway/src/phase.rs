//! The phases of the program's life, which every connection watches.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Where in its life the program is; it only goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Requests are taken.
    Serving,
    /// No new connections or requests; those that are open are finished.
    Draining,
    /// Everything that is open is cut.
    Ended,
}

/// The current phase, and a call when it changes.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    phase: AtomicU8,
    changed: Notify,
}

impl Phases {
    /// Returns the current phase.
    pub(crate) fn now(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Serving,
            1 => Phase::Draining,
            _ => Phase::Ended,
        }
    }

    /// Goes on to `phase`, unless that or a later one is reached already.
    pub(crate) fn advance(&self, phase: Phase) {
        let earlier = self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        if earlier < phase as u8 {
            self.changed.notify_waiters();
        }
    }

    /// Returns a future that is ready after the next change. Poll it once, then look at [`Phases::now`], then wait.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Waits until `phase` or a later one is reached.
    pub(crate) async fn reached(&self, phase: Phase) {
        loop {
            let changed = self.changed();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if self.now() >= phase {
                return;
            }
            changed.await;
        }
    }
}
