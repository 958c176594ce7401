//! Quota that no wait of a minute brings back: credits, spend limits, a day's allowance.
//!
//! Where the provider says when it comes back, nobody is let in until then. Since somebody may add credit or move to
//! another tier meanwhile, one request is let through after five minutes, and then after twice as long each time: nine a
//! day at the most.
//!
//! Where it does not say, every request gets the provider's own word. But once ten in a row got the same and none
//! succeeded, one a second is enough to see it change: the others are refused here.

/// Answers in a row after which not everybody is sent to ask.
const RUN: u32 = 10;
/// How often somebody is, in microseconds.
const ASK_EVERY: u64 = 1_000_000;
/// The first pause before somebody is let through while the group is closed.
const TEST_AFTER: u64 = 5 * 60_000_000;

/// What the provider said of spent quota since it last accepted anything.
#[derive(Debug, Clone, Default)]
pub(super) struct Spent {
    /// Until when nobody is let in.
    until: u64,
    /// When the provider first said so.
    since: u64,
    /// Answers without a time, in a row.
    run: u32,
    /// When somebody is let through all the same.
    test_at: u64,
    test_pause: u64,
}

impl Spent {
    /// Takes note of another such answer. Returns whether it is news.
    pub(super) fn told(&mut self, now: u64, sent: u64, until: Option<u64>) -> bool {
        if let Some(until) = until {
            let news = self.until <= now;
            self.until = until;
            if news {
                self.since = now;
                self.test_pause = TEST_AFTER;
                self.test_at = now.saturating_add(TEST_AFTER);
            }
            return news;
        }
        if self.run == 0 {
            self.since = now;
        }
        self.run = self.run.saturating_add(1);
        if self.run == RUN || (self.run > RUN && sent >= self.test_at) {
            self.test_at = now.saturating_add(ASK_EVERY);
        }
        self.run == 1 || self.run == RUN
    }

    /// Returns whether a success of a request sent at `sent` shows that there is quota again.
    pub(super) const fn is_refuted(&self, sent: u64) -> bool {
        sent >= self.since
    }

    /// Returns whether nobody is let in now.
    pub(super) const fn is_closed(&self, now: u64) -> bool {
        (self.until > now || self.run >= RUN) && now < self.test_at
    }

    /// Returns until when nobody is let in, if that is known.
    pub(super) fn until(&self, now: u64) -> Option<u64> {
        (self.until > now).then_some(self.until)
    }

    /// Returns when somebody is let in next, while nobody is.
    pub(super) fn opens_at(&self, now: u64) -> u64 {
        match self.until(now) {
            Some(until) => until.min(self.test_at),
            None => self.test_at,
        }
    }

    /// Returns the moment up to which everybody's deadline is too early.
    pub(super) fn hopeless_until(&self, now: u64) -> u64 {
        match self.until(now) {
            Some(until) => until,
            None if self.is_closed(now) => u64::MAX,
            None => 0,
        }
    }

    /// Takes note that somebody is let through.
    pub(super) fn take(&mut self, now: u64) {
        if self.until > now {
            self.test_pause = self.test_pause.saturating_mul(2);
            self.test_at = now.saturating_add(self.test_pause);
        } else if self.run >= RUN {
            self.test_at = now.saturating_add(ASK_EVERY);
        }
    }
}
