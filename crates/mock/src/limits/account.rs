use std::collections::HashMap;
use std::time::Duration;

use super::{Charging, Demand, Enforcer, Limit, LimitState, Refused, Timestamp, Usage, Weights};
use crate::settings::Key;

/// Which requests share one set of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// All of them.
    #[default]
    All,
    /// Those of one API key.
    Key,
    /// Those for one model, or one family of models ([`Pool::families`]).
    Model,
    /// Those of one API key for one model or family.
    KeyAndModel,
}

/// Whose limits they are, where a provider has them at two levels (providers.md §2.1, §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// The organization's, or the only ones.
    #[default]
    Organization,
    /// Those of a project within it.
    Project,
}

/// Which requests a pool is for: those that meet every condition.
///
/// Names are patterns in which one `*` stands for any text: `claude-opus-4*`, `*:free`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applies {
    /// The endpoints; empty: all.
    pub endpoints: Vec<String>,
    /// The models; empty: all.
    pub models: Vec<String>,
    /// Models that are left out.
    pub except: Vec<String>,
    /// Only requests of more input tokens than this, as estimated: a separate limit for long contexts (providers.md §2.1).
    pub input_above: Option<u64>,
    /// Only requests of at most this many.
    pub input_up_to: Option<u64>,
}

/// Limits and the requests that they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Which requests it is for.
    pub applies: Applies,
    /// Which of them share one set of limits.
    pub scope: Scope,
    /// Families of models that count as one model, each a list of patterns.
    pub families: Vec<Vec<String>>,
    /// Whose limits they are.
    pub level: Level,
    /// How requests are charged.
    pub charging: Charging,
    /// The limits.
    pub limits: Vec<Limit>,
}

impl Pool {
    /// Builds a pool for all requests, shared by all of them.
    pub fn new(charging: Charging, limits: Vec<Limit>) -> Self {
        Self {
            applies: Applies::default(),
            scope: Scope::All,
            families: Vec::new(),
            level: Level::Organization,
            charging,
            limits,
        }
    }

    /// Limits the pool to these models, by pattern.
    #[must_use]
    pub fn for_models(mut self, models: &[&str]) -> Self {
        self.applies.models = strings(models);
        self
    }

    /// Leaves these models out, by pattern.
    #[must_use]
    pub fn except_models(mut self, models: &[&str]) -> Self {
        self.applies.except = strings(models);
        self
    }

    /// Limits the pool to these endpoints, by pattern.
    #[must_use]
    pub fn for_endpoints(mut self, endpoints: &[&str]) -> Self {
        self.applies.endpoints = strings(endpoints);
        self
    }

    /// Sets which requests share one set of limits.
    #[must_use]
    pub const fn scoped(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Lets models that match one list of patterns count as one.
    #[must_use]
    pub fn with_families(mut self, families: &[&[&str]]) -> Self {
        self.families = families.iter().map(|family| strings(family)).collect();
        self
    }
}

impl Pool {
    /// Whether any request for this model at this endpoint may belong to the pool.
    pub(crate) fn is_for(&self, endpoint: &str, model: &str) -> bool {
        let key = Key::default();
        let subject = Subject {
            key: &key,
            model,
            endpoint,
        };
        let any_length = Applies {
            input_above: None,
            input_up_to: None,
            ..self.applies.clone()
        };
        any_length.to(&subject, 0)
    }

    /// Returns the name that a model's group goes by: its family's first pattern, its own, or none where models share.
    pub(crate) fn group_of<'a>(&'a self, model: &'a str) -> &'a str {
        if !matches!(self.scope, Scope::Model | Scope::KeyAndModel) {
            return "";
        }
        let mut families = self.families.iter();
        let family = families.find(|family| family.iter().any(|pattern| matches(pattern, model)));
        family
            .and_then(|family| family.first())
            .map_or(model, String::as_str)
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

impl Applies {
    fn to(&self, subject: &Subject<'_>, input: u64) -> bool {
        let any = |patterns: &[String], name: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, name))
        };
        any(&self.endpoints, subject.endpoint)
            && any(&self.models, subject.model)
            && !self.except.iter().any(|pattern| matches(pattern, subject.model))
            && self.input_above.is_none_or(|above| input > above)
            && self.input_up_to.is_none_or(|most| input <= most)
    }
}

/// Whether a name is what a pattern says.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => {
            name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
        }
    }
}

/// Whose request it is, and for what.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// The API key.
    pub key: &'a Key,
    /// The model.
    pub model: &'a str,
    /// The endpoint: `chat/completions`, `messages`, `embeddings`.
    pub endpoint: &'a str,
}

/// A refusal and the pool that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The pool's place in the account's list.
    pub pool: usize,
    /// The limit.
    pub refused: Refused,
}

/// What the limits of one pool have left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolState {
    /// The pool's place in the account's list.
    pub pool: usize,
    /// Whose limits they are.
    pub level: Level,
    /// The limits, in their order.
    pub limits: Vec<LimitState>,
}

/// Most quota groups; requests of further keys and models share the last of their pool.
const GROUPS_MAX: usize = 1_024;

/// All pools of a provider. A request is charged in every pool that it belongs to, or in none: the lowest limit wins.
#[derive(Debug, Clone)]
pub struct Account {
    pools: Vec<Pool>,
    counts_failures: bool,
    began: Duration,
    groups: Vec<Enforcer>,
    names: HashMap<GroupName, usize>,
    /// Where open requests were charged.
    open: HashMap<u64, Vec<Place>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct GroupName {
    pool: usize,
    key: Key,
    model: String,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    pool: usize,
    group: usize,
}

impl Account {
    /// Builds an account that nothing was charged to; the beginning of time is so long after 1970.
    pub fn new(pools: Vec<Pool>, unix: Duration) -> Self {
        Self {
            pools,
            counts_failures: false,
            began: unix,
            groups: Vec::new(),
            names: HashMap::new(),
            open: HashMap::new(),
        }
    }

    /// Makes a refused request take one from the request limits; see [`Enforcer::counting_failures`].
    #[must_use]
    pub const fn counting_failures(mut self) -> Self {
        self.counts_failures = true;
        self
    }

    /// Returns the pools, with later changes of amounts.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// Charges a request in every limit that is for it, or in none. Returns the pools that it was charged in, with what
    /// was taken there.
    ///
    /// `id` names the request in later calls, until [`Account::finish`]; an id that is still open is finished first.
    ///
    /// # Errors
    ///
    /// Returns the limit that takes longest to make room.
    pub fn admit(
        &mut self,
        now: Timestamp,
        id: u64,
        subject: &Subject<'_>,
        demand: &Demand,
    ) -> Result<Vec<(usize, Weights)>, Refusal> {
        self.finish(now, id);
        let places = self.places(subject, demand);
        let estimate = |place: &Place| self.pools[place.pool].charging.estimate(demand);
        let weights: Vec<Weights> = places.iter().map(estimate).collect();
        let asked = places.iter().zip(&weights);
        let refused = asked.filter_map(|(place, weights)| {
            let refused = self.groups[place.group].refusal(now, weights)?;
            Some(Refusal {
                pool: place.pool,
                refused,
            })
        });
        let worst = refused.reduce(|worst, next| {
            if next.refused.wait > worst.refused.wait {
                next
            } else {
                worst
            }
        });
        if let Some(refusal) = worst {
            for (place, weights) in places.iter().zip(&weights) {
                self.groups[place.group].failed(now, weights);
            }
            return Err(refusal);
        }
        let mut charged = Vec::with_capacity(places.len());
        for (place, weights) in places.iter().zip(&weights) {
            // Every pool has just agreed, at this very moment.
            let admitted = self.groups[place.group].admit(now, id, weights);
            debug_assert!(admitted.is_ok(), "refusal() and admit() must agree");
            charged.push((place.pool, self.pools[place.pool].charging.at_admission(weights)));
        }
        self.open.insert(id, places);
        Ok(charged)
    }

    /// Corrects an open request's charges by what it really used. Returns, for each pool, what it had taken before and
    /// what it has taken now.
    pub fn settle(&mut self, now: Timestamp, id: u64, usage: &Usage) -> Vec<(usize, Weights, Weights)> {
        let places = self.open.get(&id).into_iter().flatten();
        let settled = places.filter_map(|place| {
            let (before, after) = self.groups[place.group].settle(now, id, usage)?;
            Some((place.pool, before, after))
        });
        settled.collect()
    }

    /// Counts `more` output tokens that an open request has just produced. Returns the pools that charge output as it
    /// is generated.
    pub fn generated(&mut self, now: Timestamp, id: u64, more: u64) -> Vec<usize> {
        let mut pools = Vec::new();
        for place in self.open.get(&id).into_iter().flatten() {
            if self.pools[place.pool].charging.as_generated {
                self.groups[place.group].generated(now, id, more);
                pools.push(place.pool);
            }
        }
        pools
    }

    /// Ends a request; unknown ids are ignored.
    pub fn finish(&mut self, now: Timestamp, id: u64) {
        for place in self.open.remove(&id).unwrap_or_default() {
            self.groups[place.group].finish(now, id);
        }
    }

    /// Returns what every pool that such a request belongs to has left.
    pub fn state(&mut self, now: Timestamp, subject: &Subject<'_>, demand: &Demand) -> Vec<PoolState> {
        let places = self.places(subject, demand);
        let states = places.into_iter().map(|place| PoolState {
            pool: place.pool,
            level: self.pools[place.pool].level,
            limits: self.groups[place.group].state(now),
        });
        states.collect()
    }

    /// Changes the amount of one limit in all its quota groups, as providers do without notice: Azure lowers limits for
    /// hours (providers.md §3.4). A place outside the lists is ignored.
    pub fn resize(&mut self, now: Timestamp, pool: usize, limit: usize, amount: u64) {
        let changed = self.pools.get_mut(pool);
        let Some(changed) = changed.and_then(|pool| pool.limits.get_mut(limit)) else {
            return;
        };
        changed.amount = amount;
        for (name, group) in &self.names {
            if name.pool == pool {
                self.groups[*group].resize(now, limit, amount);
            }
        }
    }

    /// Forgets all charges.
    pub fn reset(&mut self) {
        self.groups.clear();
        self.names.clear();
        self.open.clear();
    }

    fn places(&mut self, subject: &Subject<'_>, demand: &Demand) -> Vec<Place> {
        let mut places = Vec::new();
        for pool in 0..self.pools.len() {
            let input = self.pools[pool].charging.estimate(demand).input;
            if self.pools[pool].applies.to(subject, input) {
                let group = self.group(pool, subject);
                places.push(Place { pool, group });
            }
        }
        places
    }

    fn group(&mut self, index: usize, subject: &Subject<'_>) -> usize {
        let pool = &self.pools[index];
        let by_key = matches!(pool.scope, Scope::Key | Scope::KeyAndModel);
        let mut name = GroupName {
            pool: index,
            key: if by_key {
                subject.key.clone()
            } else {
                Key::default()
            },
            model: pool.group_of(subject.model).to_owned(),
        };
        if let Some(group) = self.names.get(&name) {
            return *group;
        }
        if self.groups.len() >= GROUPS_MAX {
            // One more for the rest of each pool.
            name = GroupName {
                pool: index,
                key: Key::default(),
                model: "*".to_owned(),
            };
            if let Some(group) = self.names.get(&name) {
                return *group;
            }
        }
        let mut group = Enforcer::since(pool.charging, pool.limits.clone(), self.began);
        if self.counts_failures {
            group = group.counting_failures();
        }
        self.groups.push(group);
        self.names.insert(name, self.groups.len() - 1);
        self.groups.len() - 1
    }
}
