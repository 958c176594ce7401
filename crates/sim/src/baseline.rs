//! What people use today, for comparison.

use std::collections::VecDeque;

/// A limiter without an engine: one line, two limits, microseconds.
#[derive(Debug, Clone)]
pub struct Baseline {
    kind: Kind,
    window: u64,
    amounts: [u64; 2],
    /// Fixed and rolling: what was sent, with its time. Token bucket: unused.
    sent: VecDeque<(u64, [u64; 2])>,
    sums: [u64; 2],
    levels: [f64; 2],
    updated: u64,
}

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Everything at once.
    None,
    /// A bucket that holds a minute's worth (openai-cookbook, token-throttle, curator).
    TokenBucket,
    /// A window that starts with the first request and is then counted anew (LiteLLM).
    Fixed,
    /// A rolling window without a margin.
    Rolling,
}

impl Baseline {
    /// Makes an unused limiter.
    #[allow(clippy::cast_precision_loss, reason = "amounts are far below 2^52")]
    pub fn new(now: u64, kind: Kind, window: u64, amounts: [u64; 2]) -> Self {
        let levels = amounts.map(|amount| amount as f64);
        Self {
            kind,
            window,
            amounts,
            sent: VecDeque::new(),
            sums: [0; 2],
            levels,
            updated: now,
        }
    }

    /// Returns which one it is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Takes a request's weights if they fit now; otherwise says when to look again.
    ///
    /// # Errors
    ///
    /// Returns the time, in microseconds, at which it may fit.
    #[allow(clippy::cast_precision_loss, reason = "amounts are far below 2^52")]
    pub fn take(&mut self, now: u64, weights: [u64; 2]) -> Result<(), u64> {
        match self.kind {
            Kind::None => Ok(()),
            Kind::TokenBucket => {
                let elapsed = (now - self.updated) as f64 / self.window as f64;
                self.updated = now;
                for (level, amount) in self.levels.iter_mut().zip(self.amounts) {
                    *level = (*level + elapsed * amount as f64).min(amount as f64);
                }
                let fits = |index: usize| self.levels[index] >= weights[index] as f64;
                if fits(0) && fits(1) {
                    self.levels[0] -= weights[0] as f64;
                    self.levels[1] -= weights[1] as f64;
                    return Ok(());
                }
                let wait = |index: usize| {
                    let missing = (weights[index] as f64 - self.levels[index]).max(0.0);
                    missing * self.window as f64 / self.amounts[index] as f64
                };
                Err(now + micros(wait(0).max(wait(1))) + 1)
            }
            Kind::Fixed => {
                if self
                    .sent
                    .front()
                    .is_some_and(|(start, _)| now - start >= self.window)
                {
                    self.sent.clear();
                    self.sums = [0; 2];
                }
                self.take_counted(now, weights)
            }
            Kind::Rolling => {
                while let Some((at, gone)) = self
                    .sent
                    .front()
                    .copied()
                    .filter(|(at, _)| now - at >= self.window)
                {
                    debug_assert!(at <= now);
                    self.sums[0] -= gone[0];
                    self.sums[1] -= gone[1];
                    self.sent.pop_front();
                }
                self.take_counted(now, weights)
            }
        }
    }

    fn take_counted(&mut self, now: u64, weights: [u64; 2]) -> Result<(), u64> {
        let fits = (0..2).all(|index| self.sums[index] + weights[index] <= self.amounts[index]);
        if fits {
            self.sums[0] += weights[0];
            self.sums[1] += weights[1];
            self.sent.push_back((now, weights));
            return Ok(());
        }
        Err(self
            .sent
            .front()
            .map_or(now + 1, |(first, _)| first + self.window))
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a wait of at most some minutes"
)]
fn micros(wait: f64) -> u64 {
    wait.ceil() as u64
}
