//! What happened, counted.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::Serialize;

use crate::limits::{Dimension, Log, Pool, Timestamp, Weights};

/// Seconds that the time series goes back.
const SERIES_MAX: usize = 3_600;

/// Everything counted since the start or the last reset.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stats {
    /// Seconds since then.
    pub elapsed_seconds: f64,
    /// Connections accepted.
    pub connections: u64,
    /// Requests that arrived whole or were refused before that, on every path of the provider.
    pub requests: u64,
    /// Answers by endpoint and status. A request whose client left before the answer's head, or that was reset, has none.
    pub endpoints: BTreeMap<&'static str, BTreeMap<u16, u64>>,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests that passed all limits.
    pub admitted: u64,
    /// 429s because a limit had no room.
    pub rate_limited: u64,
    /// 429s because the request is larger than the limit.
    pub too_large: u64,
    /// Refusals of both kinds by what the limit counts.
    pub refused_by: BTreeMap<&'static str, u64>,
    /// Faults that were played.
    pub faults: u64,
    /// Input tokens charged.
    pub charged_input: u64,
    /// Output tokens charged: reserved or generated, as the provider charges.
    pub charged_output: u64,
    /// Output tokens that were really sent.
    pub generated_tokens: u64,
    /// Requests admitted and not finished.
    pub in_flight: u64,
    /// The most of them at one time.
    pub in_flight_max: u64,
    /// Clients that left too early.
    pub disconnects: Disconnects,
    /// The most that any one window of each limit ever held, over all quota groups together.
    pub peaks: Vec<Peak>,
    /// The last hour, second by second; seconds in which nothing happened are left out.
    pub series: VecDeque<Second>,
}

/// Clients that left, by what they did not wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Disconnects {
    /// Before their request was complete.
    pub sending: u64,
    /// Before the head of the answer.
    pub waiting: u64,
    /// Before the end of a stream.
    pub streaming: u64,
}

/// The fullest rolling window of one limit, whatever the limit's own algorithm.
#[derive(Debug, Clone, Serialize)]
pub struct Peak {
    /// What is counted.
    pub dimension: &'static str,
    /// The window's length.
    pub window_seconds: f64,
    /// The limit.
    pub limit: u64,
    /// The most that was charged within one window.
    pub peak: u64,
}

/// One second of the time series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Second {
    /// Seconds since the provider started.
    pub second: u64,
    /// Requests admitted.
    pub admitted: u64,
    /// Requests refused for rate.
    pub refused: u64,
    /// Tokens charged, input and output.
    pub tokens: u64,
}

/// When a client left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Waiting,
    Streaming,
}

/// The counters and what they need to count.
#[derive(Debug)]
pub(crate) struct Recorder {
    stats: Stats,
    began: Timestamp,
    windows: Vec<Window>,
}

/// The log of one limit.
#[derive(Debug)]
struct Window {
    pool: usize,
    dimension: Dimension,
    log: Log,
}

impl Recorder {
    pub(crate) fn new(now: Timestamp, pools: &[Pool]) -> Self {
        let limits = pools.iter().enumerate().flat_map(|(index, pool)| {
            let limits = pool.limits.iter();
            limits.map(move |limit| (index, limit))
        });
        let windowed = limits.filter(|(_, limit)| limit.dimension != Dimension::Concurrency);
        let windows = windowed
            .clone()
            .map(|(pool, limit)| Window {
                pool,
                dimension: limit.dimension,
                log: Log::new(limit.window),
            })
            .collect();
        let peaks = windowed.map(|(_, limit)| Peak {
            dimension: name(limit.dimension),
            window_seconds: limit.window.as_secs_f64(),
            limit: limit.amount,
            peak: 0,
        });
        Self {
            stats: Stats {
                peaks: peaks.collect(),
                ..Stats::default()
            },
            began: now,
            windows,
        }
    }

    pub(crate) fn snapshot(&self, now: Timestamp) -> Stats {
        let mut stats = self.stats.clone();
        stats.elapsed_seconds = Duration::from_micros(now.0.saturating_sub(self.began.0)).as_secs_f64();
        stats
    }

    pub(crate) fn connection(&mut self) {
        self.stats.connections += 1;
    }

    pub(crate) fn request(&mut self) {
        self.stats.requests += 1;
    }

    pub(crate) fn answer(&mut self, endpoint: &'static str, status: u16) {
        *self.stats.statuses.entry(status).or_default() += 1;
        *self
            .stats
            .endpoints
            .entry(endpoint)
            .or_default()
            .entry(status)
            .or_default() += 1;
    }

    pub(crate) fn admitted(&mut self, now: Timestamp) {
        self.stats.admitted += 1;
        self.second(now).admitted += 1;
    }

    pub(crate) fn started(&mut self) {
        self.stats.in_flight += 1;
        self.stats.in_flight_max = self.stats.in_flight_max.max(self.stats.in_flight);
    }

    pub(crate) fn ended(&mut self) {
        self.stats.in_flight = self.stats.in_flight.saturating_sub(1);
    }

    pub(crate) fn refused(&mut self, now: Timestamp, dimension: Dimension, never: bool) {
        if never {
            self.stats.too_large += 1;
        } else {
            self.stats.rate_limited += 1;
            self.second(now).refused += 1;
        }
        *self.stats.refused_by.entry(name(dimension)).or_default() += 1;
    }

    pub(crate) fn fault(&mut self) {
        self.stats.faults += 1;
    }

    /// Counts what was charged, once for each request.
    pub(crate) fn charged(&mut self, now: Timestamp, weights: &Weights) {
        self.stats.charged_input = self.stats.charged_input.saturating_add(weights.input);
        self.stats.charged_output = self.stats.charged_output.saturating_add(weights.output);
        let second = self.second(now);
        second.tokens = second.tokens.saturating_add(weights.amount(Dimension::Tokens));
    }

    /// Counts what was charged in one pool, by its number.
    pub(crate) fn charged_in(&mut self, now: Timestamp, pool: usize, weights: &Weights) {
        let windows = self.windows.iter_mut().zip(&mut self.stats.peaks);
        for (window, peak) in windows.filter(|(window, _)| window.pool == pool) {
            window.log.charge(now, weights.amount(window.dimension));
            peak.peak = peak.peak.max(window.log.used(now));
        }
    }

    /// Takes back what settlement gave back. The time series keeps it: it tells what was charged when.
    pub(crate) fn refunded(&mut self, weights: &Weights) {
        self.stats.charged_input = self.stats.charged_input.saturating_sub(weights.input);
        self.stats.charged_output = self.stats.charged_output.saturating_sub(weights.output);
    }

    /// Takes back what settlement gave back in one pool.
    pub(crate) fn refunded_in(&mut self, stamp: Timestamp, pool: usize, weights: &Weights) {
        for window in self.windows.iter_mut().filter(|window| window.pool == pool) {
            window.log.refund(stamp, weights.amount(window.dimension));
        }
    }

    pub(crate) fn generated(&mut self, tokens: u64) {
        self.stats.generated_tokens = self.stats.generated_tokens.saturating_add(tokens);
    }

    pub(crate) fn left(&mut self, phase: Phase) {
        match phase {
            Phase::Waiting => self.stats.disconnects.waiting += 1,
            Phase::Streaming => self.stats.disconnects.streaming += 1,
        }
    }

    pub(crate) fn left_sending(&mut self) {
        self.stats.disconnects.sending += 1;
    }

    /// Keeps what is in flight through a reset of everything else.
    pub(crate) fn restarted(&self, now: Timestamp, pools: &[Pool]) -> Self {
        let mut fresh = Self::new(now, pools);
        fresh.stats.in_flight = self.stats.in_flight;
        fresh.stats.in_flight_max = self.stats.in_flight;
        fresh
    }

    fn second(&mut self, now: Timestamp) -> &mut Second {
        let second = now.0 / 1_000_000;
        let series = &mut self.stats.series;
        if series.back().is_none_or(|last| last.second != second) {
            if series.len() == SERIES_MAX {
                series.pop_front();
            }
            series.push_back(Second {
                second,
                ..Second::default()
            });
        }
        series.back_mut().expect("one was pushed if there was none")
    }
}

fn name(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Requests => "requests",
        Dimension::Tokens => "tokens",
        Dimension::Input => "input_tokens",
        Dimension::Output => "output_tokens",
        Dimension::Inputs => "inputs",
        Dimension::Images => "images",
        Dimension::AudioSeconds => "audio_seconds",
        Dimension::Concurrency => "concurrency",
    }
}
