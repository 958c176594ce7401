//! What callers ask for: sizes, maxima, answers, caches.

use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use tidegate_core::{Demand, Tokens};
use tidegate_mock::limits::{Demand as Seen, Usage};

use crate::setting::exponential;

/// Requests of one kind; there are always more of them than fit.
#[derive(Debug, Clone)]
pub struct Load {
    /// Input tokens, evenly spread between these.
    pub input: (u64, u64),
    /// The maximum that requests name; `None`: none.
    pub max_output: Option<u64>,
    /// Mean output tokens, exponentially spread and cut at the maximum; 0 where nothing is generated.
    pub output: u64,
    /// Output tokens in a second, 20 % more or less.
    pub pace: u64,
    /// The share of requests that stream, in percent.
    pub streams: u64,
    /// The share of requests whose input comes from the cache by four fifths, in percent.
    pub cached: u64,
    /// How far our estimate of the input and the provider's may each be from what is counted in the end, in percent.
    pub error: u64,
    /// One request in so many is larger than any limit; 0: none is.
    pub oversize: u64,
}

impl Load {
    /// Chats that ask for about a thousand tokens all in all.
    pub const CHAT: Self = Self {
        input: (100, 1_400),
        max_output: Some(250),
        output: 120,
        pace: 60,
        streams: 70,
        cached: 0,
        error: 0,
        oversize: 0,
    };
}

/// One request, as everybody sees it.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// As the gateway estimates it.
    pub demand: Demand,
    /// As the provider sees it before it runs.
    pub seen: Seen,
    /// What it uses in the end.
    pub usage: Usage,
    /// Whether its answer streams.
    pub streams: bool,
    /// Output tokens in a second.
    pub pace: u64,
}

/// Messages of a chat; the provider counts three tokens for the frame of each, and the gateway four.
const MESSAGES: u64 = 2;
/// Input that no limit of any profile has room for.
const OVERSIZE: u64 = 100_000_000;

impl Load {
    /// Draws one request.
    pub fn draw(&self, rng: &mut Pcg64Mcg) -> Asked {
        let mut input = rng.random_range(self.input.0..=self.input.1);
        if self.oversize > 0 && rng.random_range(0..self.oversize) == 0 {
            input = OVERSIZE;
        }
        let most = self.max_output.unwrap_or(u64::MAX);
        let output = match self.output {
            0 => 0,
            mean => (1 + exponential(rng, mean)).min(most).min(20 * mean),
        };
        let cache_read = if rng.random_range(0..100) < self.cached {
            input / 5 * 4
        } else {
            0
        };
        let mut estimate = || {
            let spread = input * self.error / 100;
            rng.random_range(input - spread..=input + spread)
        };
        let (ours, theirs) = (estimate(), estimate());
        let generates = self.output > 0;
        let (ours, theirs) = if self.error > 0 {
            (ours, theirs)
        } else {
            // The provider's own estimate is known, and ours has the larger frame.
            (input + MESSAGES, input)
        };
        let demand = if generates {
            Demand::generating(Tokens::new(ours), self.max_output.map(Tokens::new))
        } else {
            Demand::input_only(Tokens::new(ours))
        };
        let seen = Seen {
            characters: theirs.saturating_sub(MESSAGES * 3) * 4,
            messages: MESSAGES,
            max_output: self.max_output,
            choices: u64::from(generates),
            ..Seen::default()
        };
        Asked {
            demand,
            seen,
            usage: Usage {
                input,
                cache_read,
                output,
            },
            streams: rng.random_range(0..100) < self.streams,
            pace: self.pace * rng.random_range(80..=120) / 100,
        }
    }
}
