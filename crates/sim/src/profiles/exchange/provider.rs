//! The provider's side: it decides, generates, and settles.

use std::time::Duration;

use tidegate_mock::limits::{Subject, Wait, Weights};

use super::{Answer, Event, LOOK, SECOND, World};
use crate::profiles::wire;
use crate::setting::exponential;

impl World<'_> {
    /// The provider decides.
    pub(super) fn stamp(&mut self, id: u32) {
        let Some(asked) = self.call(id).map(|call| call.asked) else {
            return;
        };
        let now = self.provider_now();
        if let Some(call) = &mut self.calls[id as usize] {
            call.stamped = self.now;
        }
        let (profile, key) = (self.profile, &self.key);
        let subject = Subject {
            key,
            model: profile.model,
            endpoint: profile.endpoint,
        };
        let admitted = self.account.admit(now, u64::from(id), &subject, &asked.seen);
        let states = self.account.state(now, &subject, &asked.seen);
        let back = self.delay(10_000);
        let unix = Duration::from_micros(self.now);
        match admitted {
            Ok(charged) => {
                for (pool, weights) in charged {
                    self.take(pool, self.now, &Weights::default(), &weights);
                }
                self.count_concurrent(1);
                let first = 100_000 + exponential(&mut self.rng, 200_000).min(4 * SECOND);
                let worked = if asked.streams {
                    first
                } else {
                    first + asked.usage.output * SECOND / asked.pace.max(1)
                };
                let headers = wire::success(profile, &states, unix, Duration::from_micros(worked));
                let now = self.now;
                let Some(call) = &mut self.calls[id as usize] else {
                    return;
                };
                call.generated = 0;
                call.provider_counts = true;
                call.engine_counts = call.asked.streams;
                call.arrives = 0;
                call.answer = Answer {
                    status: 200,
                    headers,
                    ..Answer::default()
                };
                if asked.streams {
                    call.arrives = now + first + back;
                    self.at(now + first + back, Event::Head(id));
                }
                self.at(now + first, Event::Generate(id));
            }
            Err(refusal) => {
                let spoken = wire::refusal(profile, &self.account, &refusal, &states, unix);
                self.note(u64::from(id).wrapping_mul(31));
                if let Some(call) = &mut self.calls[id as usize] {
                    call.answer = Answer {
                        status: spoken.status,
                        headers: spoken.headers,
                        body: spoken.body,
                        never: refusal.refused.wait == Wait::Never,
                    };
                }
                self.at(self.now + back, Event::Refused(id));
            }
        }
    }

    /// The provider has generated another half second's worth.
    pub(super) fn generate(&mut self, id: u32) {
        let now = self.provider_now();
        let Some(call) = &mut self.calls[id as usize] else {
            return;
        };
        let asked = call.asked;
        let left = asked.usage.output - call.generated;
        if left == 0 {
            return self.complete(id);
        }
        // Where nobody counts output on the way, only the end matters.
        let step = if call.provider_counts || call.engine_counts {
            (asked.pace * LOOK / SECOND).max(1)
        } else {
            left
        };
        let more = step.min(left);
        call.generated += more;
        let generated = call.generated;
        let at = self.now + more * SECOND / asked.pace.max(1);
        let pools = self.account.generated(now, u64::from(id), more);
        let counted = Weights {
            output: more,
            ..Weights::default()
        };
        for pool in &pools {
            self.take(*pool, self.now, &Weights::default(), &counted);
        }
        if !pools.is_empty() && self.profile.measures_peak {
            self.measure_peak(&asked);
        }
        let back = self.delay(10_000);
        let now = self.now;
        let Some(call) = &mut self.calls[id as usize] else {
            return;
        };
        call.provider_counts = !pools.is_empty();
        if call.engine_counts && more < left {
            call.arrives = (now + back).max(call.arrives + 1);
            let arrives = call.arrives;
            self.at(arrives, Event::Progress(id, generated));
        }
        self.at(at, Event::Generate(id));
    }

    /// The provider is done with a request.
    pub(super) fn complete(&mut self, id: u32) {
        let now = self.provider_now();
        let Some((usage, stamped)) = self.call(id).map(|call| (call.asked.usage, call.stamped)) else {
            return;
        };
        for (pool, before, after) in self.account.settle(now, u64::from(id), &usage) {
            self.take(pool, stamped, &before, &after);
        }
        self.account.finish(now, u64::from(id));
        self.count_concurrent(-1);
        let back = self.delay(10_000);
        let now = self.now;
        if let Some(call) = &mut self.calls[id as usize] {
            let arrives = (now + back).max(call.arrives + 1);
            self.at(arrives, Event::Done(id));
        }
    }

    pub(super) fn change(&mut self, index: u32) {
        let now = self.provider_now();
        if let Some(change) = self.trial.changes.get(index as usize) {
            self.account.resize(now, change.pool, change.limit, change.amount);
            self.changed = Some(self.now);
            self.told_change = None;
        }
    }
}
