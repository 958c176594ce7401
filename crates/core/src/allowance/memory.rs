//! What tenants and routes used of limits and budgets of their own, over a restart.

use alloc::vec::Vec;

use super::{ALLOWANCES_MAX, Allowance, Allowances, Entry};
use crate::group::UnderWay;
use crate::margin::{Margin, MarginPolicy};
use crate::memory::AllowanceMemory;
use crate::meter::{Meter, Taking};
use core::time::Duration;

impl Allowances {
    /// Returns how many limits there are.
    pub(crate) fn limits(&self) -> usize {
        self.list.iter().map(|allowance| allowance.meters.len()).sum()
    }

    /// Returns what was used, in at most `each` charges of each limit. What is held counts as used.
    pub(crate) fn remember(&mut self, now: u64, each: usize) -> Vec<AllowanceMemory> {
        let one = |allowance: &mut Allowance| {
            allowance.advance(now);
            let limits = allowance.meters.iter();
            let budgets = allowance.accounts.iter_mut();
            let known = AllowanceMemory {
                owner: allowance.owner,
                limits: limits
                    .filter_map(|meter| meter.remember(now, each, &UnderWay::default()))
                    .collect(),
                budgets: budgets.filter_map(|account| account.remember(now)).collect(),
            };
            (!known.limits.is_empty() || !known.budgets.is_empty()).then_some(known)
        };
        self.list.iter_mut().filter_map(one).collect()
    }

    /// Takes over what was used at `at`, as far as the plan still limits it.
    pub(crate) fn recall(&mut self, now: u64, at: u64, memory: &[AllowanceMemory]) {
        let margin = Margin::new(MarginPolicy::Fixed(Duration::ZERO));
        for known in memory.iter().take(ALLOWANCES_MAX) {
            if self.known(known.owner).is_some() {
                continue;
            }
            let entry = self.find(now, known.owner);
            if entry == Entry::NONE {
                continue;
            }
            let Some(allowance) = self.entry_mut(entry) else {
                continue;
            };
            let older: Vec<Meter> = known
                .limits
                .iter()
                .map(|limit| Meter::recalled(now, at, limit, Taking::AtOnce, &margin))
                .collect();
            for meter in &mut allowance.meters {
                let same = |old: &&Meter| old.dimension() == meter.dimension();
                let nearest = older.iter().filter(same);
                let nearest = nearest.max_by_key(|old| (old.window() == meter.window(), old.window()));
                if let Some(old) = nearest {
                    meter.inherit(old);
                }
            }
            for account in &mut allowance.accounts {
                for budget in &known.budgets {
                    account.recall(now, budget);
                }
            }
        }
    }
}
