//! Remembering over a restart.

use tidegate_core::{Engine, Gap, Memory, Timestamp, UnknownMemory};

use crate::limiter::Limiter;

impl Limiter {
    /// Returns what is known now: what was charged, what was learned of limits, and budgets. Whoever keeps it hands it to the
    /// next limiter by [`Limiter::recall`], so that a restart does not exceed a limit.
    ///
    /// At the end it is best called when nothing is under way any more: what still is counts as used in full.
    ///
    /// ```
    /// # use tidegate::{Limiter, Tokens, Usage};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let before = Limiter::builder().requests_per_minute(2).build();
    /// before.acquire_tokens(Tokens::new(10), None).await.expect("there is room").settle(Usage::default());
    /// let memory = before.remember();
    ///
    /// let after = Limiter::builder().requests_per_minute(2).build();
    /// after.recall(&memory).expect("it is of this version");
    /// assert_eq!(after.snapshot().quotas[0].limits[0].used.value(), 1);
    /// # }
    /// ```
    pub fn remember(&self) -> Memory {
        self.command(Engine::remember)
    }

    /// Takes over what a limiter before this one knew. It is to be called before the first request: quota groups that are in
    /// use already are left alone.
    ///
    /// # Errors
    ///
    /// Returns an error, and changes nothing, if the memory is of a version that this crate does not understand.
    pub fn recall(&self, memory: &Memory) -> Result<(), UnknownMemory> {
        self.command(|engine, now| engine.recall(now, memory))
    }

    /// Takes every limit for used up as of the end of a gap of which nobody knows what was sent in it: after a crash, between
    /// the last memory that was kept and the moment at which the limiter before this one was gone at the latest. It is to be
    /// called after [`Limiter::recall`] and before the first request.
    ///
    /// Until answers tell what is left, requests then go one at a time; see [`Engine::presume`]. Returns when
    /// the last of it will have expired; `None` if that is past, and nothing is presumed, or if there is a store: its ledgers
    /// know what was charged.
    pub fn presume(&self, gap: Gap) -> Option<Timestamp> {
        self.command(|engine, now| engine.presume(now, gap))
    }
}
