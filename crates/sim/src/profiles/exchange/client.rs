//! Our side: callers, the engine, and what reaches us.

use tidegate_core::{
    Decision, Failure, Outcome, Output, PermitId, Request, Timestamp as At, Tokens, UpstreamSignal, Usage,
    Verdict,
};

use super::{Answer, CALLERS_MAX, Call, Event, MINUTE, SECOND, World};
use crate::profiles::wire::Texts;

impl World<'_> {
    pub(super) fn come(&mut self) {
        if self.in_flight >= CALLERS_MAX {
            self.shy += 1;
            return;
        }
        let asked = self.profile.load.draw(&mut self.rng);
        let call = Call {
            asked,
            came: self.now,
            permit: None,
            granted: 0,
            attempts: 0,
            stamped: 0,
            generated: 0,
            arrives: 0,
            provider_counts: true,
            engine_counts: true,
            is_observed: false,
            answer: Answer::default(),
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.calls.push(None);
            u32::try_from(self.calls.len() - 1).unwrap_or(u32::MAX)
        });
        self.calls[id as usize] = Some(call);
        let request = Request::new(self.quota, asked.demand, At::from_micros(u64::MAX));
        match self.engine.submit(At::from_micros(self.now), request) {
            Decision::Admit(permit) => self.granted(id, permit.id),
            Decision::Wait(ticket) => {
                self.tickets.insert(ticket.id, id);
            }
            Decision::Refuse(_) => self.declined(id),
        }
    }

    pub(super) fn granted(&mut self, id: u32, permit: PermitId) {
        let now = self.now;
        if let Some(call) = &mut self.calls[id as usize] {
            call.permit = Some(permit);
            call.granted = now;
            self.sent.push(id);
        }
    }

    /// The engine does not let a request through. Its caller is told, and another comes a little later.
    pub(super) fn declined(&mut self, id: u32) {
        self.figures.declined += 1;
        self.forget(id);
        self.at(self.now + SECOND / 10, Event::Come);
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Admit { ticket, permit } => {
                    if let Some(id) = self.tickets.remove(&ticket) {
                        self.granted(id, permit.id);
                    }
                }
                Output::Refuse { ticket, .. } => {
                    if let Some(id) = self.tickets.remove(&ticket) {
                        let is_retry = self.call(id).is_some_and(|call| call.attempts > 0);
                        if is_retry {
                            // Somebody else has taken its place in line already.
                            self.figures.declined += 1;
                            self.forget(id);
                        } else {
                            self.declined(id);
                        }
                    }
                }
                Output::Notice { .. } | Output::Call { .. } | Output::CallEscrow => {}
            }
        }
    }

    /// Sends what may be sent; somebody else takes the place in line.
    pub(super) fn send(&mut self) {
        let mut sent = std::mem::take(&mut self.sent);
        for id in sent.drain(..) {
            self.in_flight += 1;
            self.figures.sent += 1;
            let now = self.now;
            let Some(call) = &mut self.calls[id as usize] else {
                continue;
            };
            call.attempts += 1;
            call.is_observed = false;
            let first = call.attempts == 1;
            if first {
                self.figures.longest_wait = self.figures.longest_wait.max(now - call.came);
            }
            let delay = self.delay(20_000);
            self.at(now + delay, Event::Stamp(id));
            if first {
                self.at(now, Event::Come);
            }
        }
        self.sent = sent;
    }

    pub(super) fn head(&mut self, id: u32) {
        let now = At::from_micros(self.now);
        let stamped = self.call(id).map_or(0, |call| call.stamped);
        self.hear(stamped);
        let Some(call) = &mut self.calls[id as usize] else {
            return;
        };
        if std::mem::replace(&mut call.is_observed, true) {
            return;
        }
        let Some(permit) = call.permit else { return };
        let texts = Texts(&call.answer.headers);
        let dialect = self.profile.dialect;
        let processing = dialect.processing(&texts);
        if texts.tell() || processing.is_some() {
            let readings = dialect.readings(now, &texts);
            self.engine.observe(
                now,
                UpstreamSignal {
                    permit,
                    readings,
                    processing,
                },
            );
        }
    }

    pub(super) fn progress(&mut self, id: u32, tokens: u64) {
        let Some(call) = &mut self.calls[id as usize] else {
            return;
        };
        let Some(permit) = call.permit else { return };
        let now = At::from_micros(self.now);
        call.engine_counts = self.engine.progress(now, permit, Tokens::new(tokens));
    }

    pub(super) fn done(&mut self, id: u32) {
        self.head(id);
        let Some((usage, permit)) = self.call(id).map(|call| (call.asked.usage, call.permit)) else {
            return;
        };
        let usage = Usage {
            input: Some(Tokens::new(usage.input - usage.cache_read)),
            cached_input: Tokens::new(usage.cache_read),
            output: Some(Tokens::new(usage.output)),
        };
        if let Some(permit) = permit {
            let now = At::from_micros(self.now);
            self.engine.settle(now, permit, Outcome::Completed(usage));
        }
        self.forget(id);
        self.leave();
    }

    /// A refusal reaches us: it is read, and the engine decides what becomes of the request.
    pub(super) fn refused(&mut self, id: u32) {
        let now = At::from_micros(self.now);
        let minute = (self.now - self.start) / MINUTE;
        let Some(call) = &mut self.calls[id as usize] else {
            return;
        };
        let Some(permit) = call.permit else { return };
        let (granted, stamped, never) = (call.granted, call.stamped, call.answer.never);
        let texts = Texts(&call.answer.headers);
        let dialect = self.profile.dialect;
        if texts.tell() {
            let readings = dialect.readings(now, &texts);
            self.engine.observe(
                now,
                UpstreamSignal {
                    permit,
                    readings,
                    processing: None,
                },
            );
        }
        let verdict = dialect.classify(now, call.answer.status, &texts, call.answer.body.as_bytes());
        self.leave();
        let failure = match verdict {
            Verdict::RateLimited(refused) => {
                self.figures.refusals.add(refused.cause);
                Some(Failure::RateLimited(refused))
            }
            Verdict::Overloaded { retry_after } => {
                self.figures.refusals.congestion += 1;
                Some(Failure::Overloaded { retry_after })
            }
            Verdict::Transient => Some(Failure::Transient { sent: true }),
            Verdict::QuotaSpent { until } => {
                self.figures.spent += 1;
                self.engine.settle(now, permit, Outcome::QuotaSpent { until });
                None
            }
            Verdict::TooLarge(refused) => {
                self.figures.too_large += 1;
                self.engine.settle(now, permit, Outcome::TooLarge(refused));
                None
            }
            Verdict::Success | Verdict::ClientError => {
                self.engine
                    .settle(now, permit, Outcome::Completed(Usage::default()));
                None
            }
        };
        if !never {
            self.count_refusal(granted, minute);
        }
        self.hear(stamped);
        let Some(failure) = failure else {
            self.forget(id);
            return;
        };
        match self.engine.retry(now, permit, failure) {
            Decision::Wait(ticket) => {
                self.tickets.insert(ticket.id, id);
            }
            Decision::Admit(permit) => self.granted(id, permit.id),
            Decision::Refuse(_) => {
                self.figures.declined += 1;
                self.forget(id);
            }
        }
    }

    /// A call is over, so that a caller who held back may ask.
    pub(super) fn leave(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.shy > 0 {
            self.shy -= 1;
            self.at(self.now, Event::Come);
        }
    }

    /// Sees to it that the engine is woken when it wants to be.
    pub(super) fn arm(&mut self) {
        let Some((next, _)) = self.engine.poll_timeout() else {
            return;
        };
        let next = next.as_micros().max(self.now);
        if self.woken_at.is_none_or(|at| next < at || at < self.now) {
            self.woken_at = Some(next);
            self.at(next, Event::Wake);
        }
    }
}
