//! The orders that others use, each over the same rolling window: first come first served, smallest first, and fair with a
//! virtual token counter, whose head blocks or is passed by whatever fits.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use super::quota::{Call, Part, Quota, Tenant};
use super::window::Window;

/// Who goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Who came first.
    Fifo,
    /// The smallest of those who are first in the line of their tenant.
    SmallestFirst,
    /// The first of the tenant with the least service; while that does not fit, nobody.
    Fair,
    /// The first of the tenant with the least service of those whose first one fits.
    FairSkip,
}

/// A limiter with one of these orders.
#[derive(Debug, Clone)]
pub struct Baseline {
    rule: Rule,
    quota: Quota,
    requests: Option<Window>,
    tokens: Option<Window>,
    flows: Vec<Flow>,
    /// The service of the tenant that last had nobody waiting any more: who comes into an empty line starts from there.
    left: Part,
    arrivals: u64,
    started: VecDeque<u64>,
}

/// The line of one tenant.
#[derive(Debug, Clone)]
struct Flow {
    weight: NonZeroU32,
    service: Part,
    line: VecDeque<Waiting>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    id: u64,
    arrival: u64,
    call: Call,
}

impl Baseline {
    /// Makes a limiter of which nothing was asked yet.
    pub fn new(rule: Rule, quota: Quota, tenants: &[Tenant]) -> Self {
        let flow = |tenant: &Tenant| Flow {
            weight: tenant.weight,
            service: Part::default(),
            line: VecDeque::new(),
        };
        Self {
            rule,
            quota,
            requests: quota.requests.map(Window::new),
            tokens: quota.tokens.map(Window::new),
            flows: tenants.iter().map(flow).collect(),
            left: Part::default(),
            arrivals: 0,
            started: VecDeque::new(),
        }
    }

    /// Takes a call; it may start at once.
    pub fn submit(&mut self, now: u64, id: u64, call: Call) {
        self.wake(now);
        if self.flows[call.tenant].line.is_empty() {
            // Nobody earns anything by idling.
            let active = self.flows.iter().filter(|flow| !flow.line.is_empty());
            let least = active.map(|flow| flow.service).min().unwrap_or(self.left);
            let flow = &mut self.flows[call.tenant];
            flow.service = flow.service.max(least);
        }
        self.arrivals += 1;
        let arrival = self.arrivals;
        self.flows[call.tenant]
            .line
            .push_back(Waiting { id, arrival, call });
        self.serve(now);
    }

    /// Starts everybody for whom there is room.
    pub fn wake(&mut self, now: u64) {
        for window in self.requests.iter_mut().chain(&mut self.tokens) {
            window.advance(now);
        }
        self.serve(now);
    }

    /// Returns when there may be room for somebody.
    pub fn next(&self) -> Option<u64> {
        if self.flows.iter().all(|flow| flow.line.is_empty()) {
            return None;
        }
        let windows = self.requests.iter().chain(&self.tokens);
        windows.filter_map(Window::next).min()
    }

    /// Returns the next one that has started.
    pub fn started(&mut self) -> Option<u64> {
        self.started.pop_front()
    }

    fn serve(&mut self, now: u64) {
        while let Some(index) = self.choose() {
            let Some(head) = self.flows[index].line.front().copied() else {
                break;
            };
            if !self.fits(head.call) {
                break;
            }
            if let Some(window) = &mut self.requests {
                window.take(now, 1);
            }
            if let Some(window) = &mut self.tokens {
                window.take(now, head.call.tokens.value());
            }
            let cost = self.quota.cost(head.call.tokens);
            let flow = &mut self.flows[index];
            flow.line.pop_front();
            flow.service.0 += cost.over(flow.weight).0;
            if flow.line.is_empty() {
                self.left = flow.service;
            }
            self.started.push_back(head.id);
        }
    }

    fn choose(&self) -> Option<usize> {
        let heads = self.flows.iter().enumerate().filter_map(|(index, flow)| {
            let head = flow.line.front()?;
            Some((index, flow.service, head))
        });
        let chosen = match self.rule {
            Rule::Fifo => heads.min_by_key(|(_, _, head)| head.arrival),
            Rule::SmallestFirst => heads.min_by_key(|(_, _, head)| (head.call.tokens, head.arrival)),
            Rule::Fair => heads.min_by_key(|(_, service, head)| (*service, head.arrival)),
            Rule::FairSkip => heads
                .filter(|(_, _, head)| self.fits(head.call))
                .min_by_key(|(_, service, head)| (*service, head.arrival)),
        };
        chosen.map(|(index, _, _)| index)
    }

    fn fits(&self, call: Call) -> bool {
        let requests = self.requests.as_ref().is_none_or(|window| window.fits(1));
        requests
            && self
                .tokens
                .as_ref()
                .is_none_or(|window| window.fits(call.tokens.value()))
    }
}
