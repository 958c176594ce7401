//! Who asks, and what each may use.

use std::num::NonZeroU32;

use tidegate_core::{Budget, BudgetUnit, Limit, Order, Priority, TenantId, TenantPlan};

use super::allowance;
use super::check::{Checker, Finding, repeated};
use super::field::{Field, Table};
use super::limits::patterns;
use super::model::ModelPattern;
use super::raw::RawTenant;
use super::{Auth, Config, Secret, Upstream, defaults};
use crate::keys::{KeyDigest, OWN_PREFIX};

/// The most tenants that are listed; others are known by the name that a header or a key gives.
const TENANTS_MAX: usize = 10_000;

/// The most keys of one tenant in the configuration.
const KEYS_MAX: usize = 1_000;

/// Who asks, and what it may use.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its name, unique; [`TenantPlan::EACH_OTHER`] stands for every tenant that is not listed.
    pub name: String,
    /// Its identifier in the engine.
    pub id: TenantId,
    /// By which keys it is known.
    pub keys: Vec<TenantKey>,
    /// Its share next to others.
    pub weight: NonZeroU32,
    /// The highest priority that its requests may have.
    pub priority: Priority,
    /// The priority of its requests that say none.
    pub default_priority: Priority,
    /// In which order its own requests are served.
    pub order: Order,
    /// Limits of its own.
    pub limits: Vec<Limit>,
    /// What it may use in a day or month.
    pub budgets: Vec<Budget>,
    /// The models that it may use; `None` means all.
    pub models: Option<Vec<ModelPattern>>,
    /// The places of the upstreams that it may use; `None` means all.
    pub upstreams: Option<Vec<usize>>,
    /// The most of its requests that wait in one quota group.
    pub waiting_max: usize,
    /// The most bytes that they hold.
    pub waiting_bytes_max: u64,
}

/// A key by which a tenant is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantKey {
    /// Its hash.
    pub digest: KeyDigest,
    /// Whether it is one of Tidegate's own, never to be sent upstream. One that stands in the configuration as such may
    /// be the provider's.
    pub is_own: bool,
}

impl Tenant {
    /// Returns whether it may use a model.
    pub fn may_use(&self, model: &str) -> bool {
        let fits = |models: &Vec<ModelPattern>| models.iter().any(|pattern| pattern.matches(model));
        self.models.as_ref().is_none_or(fits)
    }

    /// Returns whether it has a budget of money, so that prices must be known.
    pub fn has_money(&self) -> bool {
        self.budgets.iter().any(|budget| budget.unit == BudgetUnit::Cost)
    }

    /// Returns what the engine needs to know.
    pub fn plan(&self) -> TenantPlan {
        TenantPlan {
            name: self.name.clone(),
            weight: self.weight,
            order: self.order,
            limits: self.limits.clone(),
            budgets: self.budgets.clone(),
            waiting_max: self.waiting_max,
            waiting_bytes_max: self.waiting_bytes_max,
        }
    }
}

/// Checks all tenants.
pub(super) fn check(
    checker: &mut Checker<'_>,
    raws: &[Table<RawTenant>],
    upstreams: &[Upstream],
) -> Vec<Tenant> {
    if let Some(more) = raws.get(TENANTS_MAX) {
        let what = format!("there are {} tenants", raws.len());
        let help =
            format!("expected at most {TENANTS_MAX}; \"*\" is a template for those that are not listed");
        checker.errors.push(Finding::new(&more.origin, what).help(&help));
        return Vec::new();
    }
    let tenants: Vec<_> = raws
        .iter()
        .enumerate()
        .map(|(at, raw)| one(checker, raw, &format!("tenants[{at}]"), upstreams))
        .collect();
    for (at, before) in repeated(tenants.iter().map(|tenant| tenant.name.as_str())) {
        let what = format!(
            "tenants[{at}] and tenants[{before}] are both called \"{}\"",
            tenants[at].name
        );
        let finding = Finding::new(raws[at].value.name.origin(), what);
        checker
            .errors
            .push(finding.help("give each a name of its own; one tenant may have several `keys`"));
    }
    let keys = tenants.iter().enumerate();
    let keys: Vec<_> = keys
        .flat_map(|(at, tenant)| tenant.keys.iter().map(move |key| (at, key.digest)))
        .collect();
    for (again, before) in repeated(keys.iter().map(|(_, digest)| *digest)) {
        let (at, before) = (keys[again].0, keys[before].0);
        let what = if at == before {
            format!("`tenants[{at}]` has the same key twice")
        } else {
            format!("`tenants[{at}]` has a key that tenants[{before}] has too")
        };
        let finding = Finding::new(&raws[at].origin, what);
        checker
            .errors
            .push(finding.help("a key says who asks: give it to one tenant, once"));
    }
    tenants
}

fn one(checker: &mut Checker<'_>, raw: &Table<RawTenant>, at: &str, upstreams: &[Upstream]) -> Tenant {
    let key = |name: &str| format!("{at}.{name}");
    let (origin, raw) = (&raw.origin, &raw.value);
    let each_other = TenantPlan::EACH_OTHER;
    // Where nothing says its name, its place keeps it apart from the others: the missing name is the error then.
    let name = allowance::name(checker, &key("name"), &raw.name, origin, Some(each_other));
    let name = name.unwrap_or_else(|| at.to_owned());
    let keys = keys(checker, raw, at);
    if name == each_other && !keys.is_empty() {
        let what = format!("`{at}` is \"*\" and has a key");
        let finding = Finding::new(raw.name.origin(), what);
        checker
            .errors
            .push(finding.help("a key belongs to one tenant: give the tenant a name"));
    }
    let highest = allowance::priority(checker, &key("priority"), &raw.priority).unwrap_or_default();
    let default = allowance::priority(checker, &key("default_priority"), &raw.default_priority);
    if let Some(default) = default
        && default < highest
    {
        checker.error(
            &raw.default_priority,
            format!("`{}` is above `{}`", key("default_priority"), key("priority")),
            &format!(
                "`priority` is the highest that it may have: set priority = \"{}\"",
                default.name()
            ),
        );
    }
    let weight = checker.number(&key("weight"), &raw.weight, defaults::WEIGHT as i64, 1..=1_000);
    let orders = [("arrival", Order::Arrival), ("deadline", Order::Deadline)];
    let order = checker.word(&key("order"), &raw.order, &orders);
    let empty = "list the models that it may use, or leave it out for all";
    let models = (!raw.models.is_absent()).then(|| patterns(checker, &key("models"), &raw.models, empty));
    let waiting = |checker: &mut Checker<'_>| {
        let (requests, bytes) = (&raw.queue_requests_max, &raw.queue_bytes_max);
        let requests_max = checker.count(&key("queue_requests_max"), requests, 1);
        let bytes_max = checker.bytes(&key("queue_bytes_max"), bytes, 1_024);
        (
            if requests.is_absent() {
                usize::MAX
            } else {
                requests_max
            },
            if bytes.is_absent() {
                u64::MAX
            } else {
                bytes_max as u64
            },
        )
    };
    let (waiting_max, waiting_bytes_max) = waiting(checker);
    Tenant {
        id: TenantId::of(&name),
        keys,
        weight: u32::try_from(weight)
            .ok()
            .and_then(NonZeroU32::new)
            .unwrap_or(NonZeroU32::MIN),
        priority: highest,
        default_priority: default.unwrap_or(highest),
        order: order.unwrap_or_default(),
        limits: allowance::limits(checker, at, raw.amounts()),
        budgets: allowance::budgets(checker, raw, at),
        models,
        upstreams: allowed_upstreams(checker, &key("upstreams"), &raw.upstreams, upstreams),
        waiting_max,
        waiting_bytes_max,
        name,
    }
}

fn keys(checker: &mut Checker<'_>, raw: &RawTenant, at: &str) -> Vec<TenantKey> {
    let mut keys = Vec::new();
    let known = |secret: Secret| TenantKey {
        digest: KeyDigest::of(secret.expose().as_bytes()),
        is_own: secret.expose().starts_with(OWN_PREFIX),
    };
    let secret = checker.secret(
        &format!("{at}.key"),
        &raw.key,
        "leave key out: the tenant has none then",
    );
    keys.extend(secret.map(known));
    let key = format!("{at}.keys");
    let further = checker.given(&key, &raw.keys);
    too_many(checker, &key, &raw.keys, further.map_or(0, Vec::len));
    for (number, secret) in further.into_iter().flatten().take(KEYS_MAX).enumerate() {
        let field = raw.keys.entry(secret.clone());
        let secret = checker.secret(&format!("{key}[{number}]"), &field, "take it out of the list");
        keys.extend(secret.map(known));
    }
    let key = format!("{at}.key_sha256");
    let hashes = checker.given(&key, &raw.key_sha256);
    too_many(checker, &key, &raw.key_sha256, hashes.map_or(0, Vec::len));
    for hash in hashes.into_iter().flatten().take(KEYS_MAX) {
        match KeyDigest::parse(hash.trim()) {
            Some(digest) => keys.push(TenantKey { digest, is_own: true }),
            None => checker.error(
                &raw.key_sha256,
                format!("`{key}` has an entry that is no SHA-256"),
                "write 64 hexadecimal digits, as `printf %s \"$KEY\" | sha256sum` prints them; the key itself goes into `key`",
            ),
        }
    }
    keys
}

fn too_many<T>(checker: &mut Checker<'_>, key: &str, field: &Field<Vec<T>>, count: usize) {
    if count > KEYS_MAX {
        let what = format!("`{key}` has {count} entries");
        let help = format!("expected at most {KEYS_MAX}; `tidegate keys` keeps many more in a file");
        checker.error(field, what, &help);
    }
}

fn allowed_upstreams(
    checker: &mut Checker<'_>,
    key: &str,
    field: &Field<Vec<String>>,
    upstreams: &[Upstream],
) -> Option<Vec<usize>> {
    let names = checker.given(key, field)?;
    if names.is_empty() {
        checker.error(
            field,
            format!("`{key}` is empty"),
            "list the upstreams that it may use, or leave it out for all",
        );
    }
    let known: Vec<_> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    let mut places = Vec::new();
    for name in names {
        match known.iter().position(|known| known == name) {
            Some(at) => places.push(at),
            None => checker.unknown_word(key, &field.entry(name.clone()), &known),
        }
    }
    Some(places)
}

fn has_no_key(raw: &RawTenant) -> bool {
    raw.key.is_absent() && raw.keys.is_absent() && raw.key_sha256.is_absent()
}

/// Says what has no effect, or not the one that was meant.
pub(super) fn doubts(checker: &mut Checker<'_>, raw: &super::RawConfig, config: &Config) {
    let is_own = |tenant: &Tenant| tenant.keys.iter().any(|key| key.is_own);
    let has_own = config.server.keys_file.is_some() || config.tenants.iter().any(is_own);
    for (at, upstream) in config.upstreams.iter().enumerate() {
        if !has_own || upstream.api_key.is_some() {
            continue;
        }
        let what = format!(
            "upstream \"{}\" has no `api_key`, and Tidegate's own keys are never sent upstream: requests with such a key are refused there",
            upstream.name
        );
        let origin = raw
            .upstreams
            .get(at)
            .map(|raw| raw.origin.clone())
            .unwrap_or_default();
        let finding = Finding::new(&origin, what);
        checker.warnings.push(finding.help("set api_key = \"env:NAME\""));
    }
    for (tenant, raw) in config.tenants.iter().zip(&raw.tenants) {
        for model in tenant.models.iter().flatten() {
            if let ModelPattern::Exact(name) = model
                && tenant.has_money()
                && config.price(name).is_none()
            {
                let what = format!(
                    "tenant \"{}\" has a budget in dollars, and the price of \"{name}\" is not known: requests for it are refused",
                    tenant.name
                );
                let finding = Finding::new(raw.value.models.origin(), what);
                checker
                    .warnings
                    .push(finding.help("say the price under [[prices]]"));
            }
        }
    }
    if config.server.auth == Auth::Open
        && let Some(at) = config.tenants.iter().position(|tenant| !tenant.keys.is_empty())
    {
        let what = format!(
            "`tenants[{at}]` has a key, but `server.auth` is \"open\": keys say who asks, and nobody needs one"
        );
        let finding = Finding::new(raw.server.auth.origin(), what);
        checker
            .warnings
            .push(finding.help("leave auth out, or set auth = \"keys\""));
    }
    if config.server.auth == Auth::Keys
        && config.server.keys_file.is_none()
        && raw.server.tenant_header.is_absent()
        && raw.tenants.iter().all(|tenant| has_no_key(&tenant.value))
    {
        checker.error(
            &raw.server.auth,
            "`server.auth` is \"keys\", but there are no keys: every request would be refused".to_owned(),
            "give a tenant a `key`, make a file of keys (`tidegate keys new`) and name it in `server.keys_file`, or set auth = \"open\"",
        );
    }
}
