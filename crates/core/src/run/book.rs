//! What each run has used, and whether it repeats itself.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;

use super::{RunId, RunStep};
use crate::allowance::{Hold, Used};
use crate::decision::{Allotment, Spent};
use crate::plan::RunPlan;
use crate::price::Cost;
use crate::snapshot::{RUNS_SHOWN, RunSnapshot};
use crate::time::micros;

/// The most runs that are remembered; the one that was heard of least lately makes room.
const RUNS_MAX: usize = 10_000;

/// Runs that are looked at to make room.
const LOOKS: usize = 64;

/// The steps among which repetitions are looked for.
const STEPS: usize = 20;

/// No run is nested deeper.
const DEPTH_MAX: u32 = 64;

/// From this part of what a run may use on, in percent, it is warned.
const WARNING_PERCENT: u64 = 80;

/// One run.
#[derive(Debug, Clone)]
struct Run {
    parent: Option<RunId>,
    depth: u32,
    calls: u64,
    tokens: u64,
    cost: u64,
    /// Requests under way, waiting ones among them, and what they may use yet.
    open: u32,
    held: Hold,
    began: u64,
    heard: u64,
    /// The latest steps, as far as they are known, the oldest first.
    steps: Vec<u64>,
}

/// All runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runs {
    runs: BTreeMap<RunId, Run>,
    /// Runs by when they were last heard of.
    heard: BTreeSet<(u64, RunId)>,
}

impl Runs {
    /// Takes note of a request, if its run and those that started it may make one more that uses so much.
    pub(crate) fn enter(
        &mut self,
        now: u64,
        plan: &RunPlan,
        step: &RunStep,
        hold: Hold,
    ) -> Result<(), Spent> {
        self.forget_idle(now, micros(plan.idle));
        let depth = self.meet(now, step);
        if let Some(most) = plan.depth
            && depth > most
        {
            return Err(spent(Allotment::RunDepth, depth.into(), most.into()));
        }
        let chain = self.chain(step.run);
        for id in &chain {
            self.hear(now, *id);
        }
        for (above, id) in (0..).zip(&chain) {
            let Some(run) = self.runs.get(id) else { continue };
            run.may_use(now, plan, hold)
                .map_err(|spent| Spent { above, ..spent })?;
        }
        if let (Some(fingerprint), Some(run)) = (step.fingerprint, self.runs.get_mut(&step.run)) {
            let times = 1 + run.steps.iter().filter(|known| **known == fingerprint).count() as u64;
            if let Some(most) = plan.repeats.map(u64::from)
                && times > most
            {
                return Err(spent(Allotment::RunRepeats, times, most));
            }
            if run.steps.len() >= STEPS {
                run.steps.remove(0);
            }
            run.steps.push(fingerprint);
        }
        for id in &chain {
            if let Some(run) = self.runs.get_mut(id) {
                run.calls += 1;
                run.open += 1;
                run.held.tokens = run.held.tokens.saturating_add(hold.tokens);
                run.held.cost = run.held.cost.saturating_add(hold.cost);
            }
        }
        Ok(())
    }

    /// A request that was noted was not sent after all.
    pub(crate) fn leave(&mut self, step: &RunStep, hold: Hold) {
        if let (Some(fingerprint), Some(run)) = (step.fingerprint, self.runs.get_mut(&step.run))
            && let Some(at) = run.steps.iter().rposition(|known| *known == fingerprint)
        {
            run.steps.remove(at);
        }
        for id in self.chain(step.run) {
            if let Some(run) = self.runs.get_mut(&id) {
                run.calls = run.calls.saturating_sub(1);
                run.release(hold);
            }
        }
    }

    /// A request has ended: what it held is replaced by what it used; `None` if it was not sent.
    pub(crate) fn settle(&mut self, now: u64, step: &RunStep, hold: Hold, used: Option<Used>) {
        let Some(used) = used else {
            return self.leave(step, hold);
        };
        for id in self.chain(step.run) {
            if let Some(run) = self.runs.get_mut(&id) {
                run.release(hold);
                run.tokens = run.tokens.saturating_add(used.tokens());
                run.cost = run.cost.saturating_add(used.cost);
            }
            self.hear(now, id);
        }
    }

    pub(crate) fn snapshot(&self, now: u64, plan: &RunPlan, id: RunId) -> Option<RunSnapshot> {
        let mut snapshot = self.runs.get(&id)?.snapshot(now, plan, id);
        // What the runs above it have nearly used up is as good as used up for this one.
        let above = self.chain(id).into_iter().zip(0..).skip(1);
        let warnings = above.filter_map(|(id, above)| {
            let warning = self.runs.get(&id)?.warning(now, plan)?;
            Some(Spent { above, ..warning })
        });
        let all = snapshot.warning.into_iter().chain(warnings);
        snapshot.warning = all.min_by_key(|spent| Reverse(percent(spent)));
        Some(snapshot)
    }

    /// Returns the runs that were heard of last.
    pub(crate) fn snapshots(&self, now: u64, plan: &RunPlan) -> Vec<RunSnapshot> {
        let latest = self.heard.iter().rev().take(RUNS_SHOWN);
        latest
            .filter_map(|(_, id)| self.snapshot(now, plan, *id))
            .collect()
    }

    /// Makes a run known, and those that started it. Returns its depth.
    fn meet(&mut self, now: u64, step: &RunStep) -> u32 {
        let parent = step.parent.filter(|parent| *parent != step.run);
        if let Some(parent) = parent {
            self.know(now, parent, None);
        }
        self.know(now, step.run, parent)
    }

    fn know(&mut self, now: u64, id: RunId, parent: Option<RunId>) -> u32 {
        if !self.runs.contains_key(&id) {
            if self.runs.len() >= RUNS_MAX {
                self.make_room(parent);
            }
            let above = parent.and_then(|parent| self.runs.get(&parent));
            let depth = above.map_or(1, |above| (above.depth + 1).min(DEPTH_MAX));
            let run = Run {
                parent,
                depth,
                calls: 0,
                tokens: 0,
                cost: 0,
                open: 0,
                held: Hold::default(),
                began: now,
                heard: now,
                steps: Vec::new(),
            };
            self.runs.insert(id, run);
            self.heard.insert((now, id));
        }
        self.hear(now, id);
        self.runs.get(&id).map_or(1, |run| run.depth)
    }

    fn hear(&mut self, now: u64, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        self.heard.remove(&(run.heard, id));
        run.heard = now;
        self.heard.insert((now, id));
        debug_assert_eq!(self.heard.len(), self.runs.len(), "every run is heard of");
    }

    /// Forgets the run that was heard of least lately and has nothing under way, but for this one; if all have, the first.
    fn make_room(&mut self, kept: Option<RunId>) {
        let is_idle = |id: &RunId| self.runs.get(id).is_none_or(|run| run.open == 0);
        let others = self.heard.iter().filter(|(_, id)| Some(*id) != kept);
        let idle = others.clone().take(LOOKS).find(|(_, id)| is_idle(id)).copied();
        if let Some(least) = idle.or_else(|| others.clone().next().copied()) {
            self.heard.remove(&least);
            self.runs.remove(&least.1);
        }
    }

    fn forget_idle(&mut self, now: u64, idle: u64) {
        while let Some(&(heard, id)) = self.heard.first() {
            if now.saturating_sub(heard) < idle {
                break;
            }
            if self.runs.get(&id).is_some_and(|run| run.open > 0) {
                // A request that takes so long is still one of the run.
                self.hear(now, id);
                continue;
            }
            self.heard.pop_first();
            self.runs.remove(&id);
        }
    }

    /// Returns a run and those that started it.
    fn chain(&self, id: RunId) -> Vec<RunId> {
        let mut chain = Vec::new();
        let mut next = Some(id);
        while let Some(id) = next
            && chain.len() < DEPTH_MAX as usize
            && !chain.contains(&id)
        {
            chain.push(id);
            next = self.runs.get(&id).and_then(|run| run.parent);
        }
        chain
    }
}

impl Run {
    /// Returns whether one more request is allowed that may use so much.
    fn may_use(&self, now: u64, plan: &RunPlan, hold: Hold) -> Result<(), Spent> {
        let time = now.saturating_sub(self.began);
        if let Some(most) = plan.time.map(micros)
            && time > most
        {
            return Err(spent(Allotment::RunTime, time, most));
        }
        let counts = [
            (Allotment::RunCalls, plan.calls, self.calls, 1),
            (
                Allotment::RunTokens,
                plan.tokens,
                self.tokens + self.held.tokens,
                hold.tokens.max(1),
            ),
            (
                Allotment::RunCost,
                plan.cost,
                self.cost + self.held.cost,
                hold.cost.max(1),
            ),
        ];
        for (what, most, used, more) in counts {
            if let Some(most) = most
                && used.saturating_add(more) > most
            {
                return Err(spent(what, used, most));
            }
        }
        Ok(())
    }

    fn release(&mut self, hold: Hold) {
        self.open = self.open.saturating_sub(1);
        self.held.tokens = self.held.tokens.saturating_sub(hold.tokens);
        self.held.cost = self.held.cost.saturating_sub(hold.cost);
    }

    fn repeats(&self) -> u64 {
        let Some(last) = self.steps.last() else { return 0 };
        self.steps.iter().filter(|step| *step == last).count() as u64
    }

    /// Returns what is nearly used up, the fullest first.
    fn warning(&self, now: u64, plan: &RunPlan) -> Option<Spent> {
        let time = now.saturating_sub(self.began);
        let used = [
            (Allotment::RunCalls, plan.calls, self.calls),
            (Allotment::RunTokens, plan.tokens, self.tokens + self.held.tokens),
            (Allotment::RunCost, plan.cost, self.cost + self.held.cost),
            (Allotment::RunTime, plan.time.map(micros), time),
            (Allotment::RunRepeats, plan.repeats.map(u64::from), self.repeats()),
        ];
        let all = used
            .into_iter()
            .filter_map(|(what, most, used)| Some(spent(what, used, most?)));
        let nearly = all.filter(|spent| percent(spent) >= WARNING_PERCENT);
        nearly.min_by_key(|spent| Reverse(percent(spent)))
    }

    fn snapshot(&self, now: u64, plan: &RunPlan, run: RunId) -> RunSnapshot {
        RunSnapshot {
            run,
            calls: self.calls,
            tokens: self.tokens + self.held.tokens,
            cost: Cost::from_micros(self.cost + self.held.cost),
            time: Duration::from_micros(now.saturating_sub(self.began)),
            depth: self.depth,
            repeats: u32::try_from(self.repeats()).unwrap_or(u32::MAX),
            warning: self.warning(now, plan),
        }
    }
}

/// Returns how much of something is used, in percent.
fn percent(spent: &Spent) -> u64 {
    let percent = u128::from(spent.used) * 100 / u128::from(spent.most.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}

const fn spent(what: Allotment, used: u64, most: u64) -> Spent {
    Spent {
        what,
        used,
        most,
        above: 0,
    }
}
