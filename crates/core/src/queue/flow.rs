//! The requests of one tenant in one tier.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use super::recent::{Clock, Recent};
use super::{Terms, Waiting};
use crate::caller::{Priority, RouteId, TenantId};
use crate::charge::Charge;
use crate::plan::Order;

/// Service is counted in parts of a cost so small that the largest weight still moves it.
const SERVICE_SCALE: u64 = 1 << 10;

/// Whoever is silent for so many times the usual time between two requests is gone.
const GONE_INTERVALS: u64 = 8;

/// The proportions of what a flow takes are those of about so many of its requests.
const MIX_PARTS: u64 = 16;

/// Deadlines further away, in microseconds, are all the same: a day.
const LONG: u64 = 86_400_000_000;

/// What was usual is forgotten by this part in a sixteenth of a window.
const USUAL_DECAY: u64 = 8;

/// What a flow is given by all replicas together.
#[derive(Debug, Clone, Default)]
pub(super) struct Everywhere {
    pub(super) recent: Recent,
    /// When its service was told, and what it was.
    told: Option<(u64, u64)>,
}

/// Service that was told longer ago, in microseconds, may since have been raised to that of others.
const TOLD_LATELY: u64 = 1_000_000;

/// The requests of one tenant in one tier.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    pub(crate) tenant: TenantId,
    pub(crate) priority: Priority,
    pub(crate) weight: NonZeroU32,
    pub(super) order: Order,
    pub(super) next_order: Order,
    /// Service so far: cost over weight.
    pub(crate) tag: u64,
    /// The position of the caller that came back last, behind which the next one stands.
    pub(super) last_back: u64,
    /// The number of its last dispatch.
    pub(super) served: u64,
    /// Requests that wait, in line or pausing, and the bytes that they hold.
    pub(crate) waiting: u32,
    pub(crate) bytes: u64,
    /// What those in line will take.
    pub(crate) demand: Charge,
    /// The same as a cost.
    pub(crate) cost: u64,
    pub(super) lanes: Vec<Lane>,
    pub(crate) recent: Recent,
    /// What it is given by all replicas together, and its service when that was last told, where limits are shared.
    pub(super) everywhere: Option<Box<Everywhere>>,
    /// What was given to it lately, fading: in which proportion it takes of each dimension.
    pub(super) mix: Charge,
    pub(super) mix_cost: u64,
    /// The most that it used in a window lately.
    usual: u64,
    /// What others of its tier leave free for it who have more than their share, and what lower tiers do.
    pub(super) kept: u64,
    pub(super) kept_from_lower: u64,
    /// Since when somebody has always been in line, in microseconds, while somebody is.
    pub(super) active_since: Option<u64>,
    /// When it came, and when it was last heard of, in microseconds.
    came: u64,
    pub(super) seen: u64,
    /// The time between two of its requests, on average; 0 if there was only one.
    interval: u64,
    pub(super) is_present: bool,
}

/// Requests of a flow by one route and of about one size.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) route: RouteId,
    pub(super) class: u8,
    /// Rank, arrival and place.
    pub(super) line: BTreeSet<(u64, u64, u32)>,
    /// Until when its head cannot go.
    pub(super) blocked: Option<u64>,
}

impl Lane {
    pub(super) fn is_open(&self) -> bool {
        self.blocked.is_none() && !self.line.is_empty()
    }
}

impl Flow {
    pub(super) fn new(now: u64, (priority, tenant): (Priority, TenantId), terms: Terms) -> Self {
        Self {
            tenant,
            priority,
            weight: terms.weight,
            order: terms.order,
            next_order: terms.order,
            tag: 0,
            last_back: 0,
            served: 0,
            waiting: 0,
            bytes: 0,
            demand: Charge::ZERO,
            cost: 0,
            lanes: Vec::new(),
            recent: Recent::default(),
            everywhere: None,
            mix: Charge::ZERO,
            mix_cost: 0,
            usual: 0,
            kept: 0,
            kept_from_lower: 0,
            active_since: None,
            came: now,
            seen: now,
            interval: 0,
            is_present: true,
        }
    }

    /// Takes note of what was given to it.
    pub(super) fn note_mix(&mut self, charge: &Charge, cost: u64) {
        self.mix = self.mix.part(MIX_PARTS - 1, MIX_PARTS);
        self.mix_cost -= self.mix_cost / MIX_PARTS;
        self.mix.add(charge);
        self.mix_cost = self.mix_cost.saturating_add(cost);
    }

    /// Takes note of a request.
    pub(super) fn hear(&mut self, now: u64, window: u64) {
        let since = now.saturating_sub(self.seen);
        if since > window {
            // What was usual then says nothing about now.
            (self.came, self.usual, self.interval, self.seen) = (now, 0, 0, now);
            return;
        }
        self.interval = if self.interval == 0 {
            since
        } else {
            self.interval - self.interval / 8 + since / 8
        };
        self.seen = now;
    }

    /// Returns whether nobody waits and none has come for much longer than usual.
    pub(super) fn is_gone(&self, now: u64, window: u64) -> bool {
        let usual = self.interval.max(window / 64);
        let quiet_max = usual.saturating_mul(GONE_INTERVALS).min(window);
        self.waiting == 0 && now.saturating_sub(self.seen) > quiet_max
    }

    /// Judges what it will use soon, beyond what it has used in this window.
    pub(super) fn judge(&mut self, now: u64, slot: u64, window: u64, fair: u64) {
        (self.kept, self.kept_from_lower) = (0, 0);
        let used = self.recent.live(slot);
        self.usual = used.max(self.usual - self.usual / USUAL_DECAY);
        if !self.is_present {
            return;
        }
        let age = now.saturating_sub(self.came);
        let waits = self.in_line() > 0;
        if waits {
            // Whoever has waited for a whole window wants all it can get, and gets it in turn; of whoever has just come
            // it is not known.
            let since = *self.active_since.get_or_insert(now);
            if now.saturating_sub(since) >= window || age < window {
                return;
            }
        }
        let (usual, most) = if age < window {
            let at_this_pace = u128::from(used) * u128::from(window) / u128::from(age.max(window / 64));
            (u64::try_from(at_this_pace).unwrap_or(fair), fair)
        } else {
            (self.usual, super::WINDOW_COST)
        };
        let more = usual.saturating_add(usual / 8);
        self.kept = more.min(fair).saturating_sub(used);
        // Lower tiers come behind whoever waits in any case.
        self.kept_from_lower = if waits {
            0
        } else {
            more.min(most).saturating_sub(used)
        };
    }

    /// Returns its place among the flows of its tier.
    pub(super) const fn rank(&self, at: u32) -> (u64, u64, u32) {
        (self.tag, self.served, at)
    }

    /// Returns how many stand in line.
    pub(super) fn in_line(&self) -> usize {
        self.lanes.iter().map(|lane| lane.line.len()).sum()
    }

    /// Returns whether somebody stands in line who may go.
    pub(super) fn is_ready(&self) -> bool {
        self.lanes.iter().any(Lane::is_open)
    }

    /// Returns the first of those who may go.
    pub(super) fn head(&self) -> Option<(u64, u64, u32)> {
        let open = self.lanes.iter().filter(|lane| lane.is_open());
        open.filter_map(|lane| lane.line.first().copied()).min()
    }

    /// Returns how much service a cost is.
    pub(crate) fn service(&self, cost: u64) -> u64 {
        (cost.saturating_mul(SERVICE_SCALE) / u64::from(self.weight.get())).max(1)
    }

    /// Adopts the service that it has had at all replicas together, and whether that was counted.
    pub(super) fn adopt(&mut self, now: u64, clock: Clock, tag: u64, is_counted: bool) {
        self.tag = tag;
        let everywhere = self.everywhere.get_or_insert_default();
        if let Some((at, before)) = everywhere.told
            && is_counted
            && now.saturating_sub(at) <= TOLD_LATELY
        {
            let weight = i128::from(self.weight.get());
            let cost = (i128::from(tag) - i128::from(before)) * weight / i128::from(SERVICE_SCALE);
            everywhere
                .recent
                .add(clock.slot(now), i64::try_from(cost).unwrap_or(0));
        }
        everywhere.told = is_counted.then_some((now, tag));
    }

    /// Returns the lane of a route and size, made if there is none.
    pub(super) fn lane(&mut self, route: RouteId, class: u8) -> usize {
        let found = self
            .lanes
            .iter()
            .position(|lane| lane.route == route && lane.class == class);
        found.unwrap_or_else(|| {
            // An empty lane serves anybody.
            let lane = Lane {
                route,
                class,
                line: BTreeSet::new(),
                blocked: None,
            };
            match self.lanes.iter().position(|lane| lane.line.is_empty()) {
                Some(at) => {
                    self.lanes[at] = lane;
                    at
                }
                None => {
                    self.lanes.push(lane);
                    self.lanes.len() - 1
                }
            }
        })
    }

    /// Returns the rank of a request among those of the flow.
    pub(super) const fn rank_of(&self, waiting: &Waiting) -> u64 {
        match self.order {
            Order::Arrival => waiting.position,
            Order::Deadline => waiting.deadline,
        }
    }

    /// Returns the moment by which its requests are ordered over all replicas, in microseconds: when each came, or has to go.
    pub(crate) fn since(&self, now: u64, waiting: &Waiting) -> u64 {
        match self.order {
            Order::Arrival => waiting.arrived,
            Order::Deadline => waiting.deadline.min(now.saturating_add(LONG)),
        }
    }
}
