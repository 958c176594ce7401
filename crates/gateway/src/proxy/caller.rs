//! Who asks, and on what terms: priority, route, price, and what the tenant may not use.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, request};
use tidegate_core::{Caller, Price, Priority, RouteId, TenantId};

use super::Exchange;
use super::unanswered::Unanswered;
use crate::config::{Config, RouteClues, Tenant};
use crate::metrics::Refused;
use crate::provider::{Asker, AuthStyle, Endpoint, ErrorReply, Scope};
use crate::shared::Shared;
use crate::site::Site;
use crate::tenants::{Unknown, Who};

/// How urgent the client says it is.
const PRIORITY: HeaderName = HeaderName::from_static("x-tidegate-priority");

/// What the client says the request is for.
const TAGS: HeaderName = HeaderName::from_static("x-tidegate-tags");

/// The most tag headers that are looked at.
const TAG_HEADERS_MAX: usize = 8;

/// What a request's head says about who asks.
#[derive(Debug)]
pub(super) struct Asking {
    who: Who,
    priority: Option<Priority>,
}

/// What is asked for, when all of it is known.
struct Asked<'a> {
    head: &'a request::Parts,
    endpoint: Endpoint,
    model: Option<&'a str>,
    /// The upstream's place in the configuration.
    upstream: usize,
    /// Whether it belongs to a run of an agent.
    is_run: bool,
}

/// On what terms a request goes on.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) caller: Caller,
    pub(super) price: Price,
    /// The longest that it may wait by its route.
    pub(super) max_wait: Option<Duration>,
    /// The route's place in the configuration.
    pub(super) route: Option<usize>,
}

impl Exchange<'_> {
    /// Finds out who asks, and keeps it for the record.
    pub(super) fn asking(&mut self) -> Result<Asking, Unanswered> {
        let asking = Asking::of(self.shared, &self.bench.site, self.head)?;
        self.record.who = Some(asking.who.clone());
        Ok(asking)
    }

    /// Finds out on what terms the request goes on, and keeps them for the record. It goes to the upstream at this place,
    /// for this operation.
    pub(super) fn terms(
        &mut self,
        asking: &Asking,
        (upstream, endpoint): (usize, Endpoint),
        model: Option<&str>,
        is_run: bool,
    ) -> Result<Terms, Unanswered> {
        let asked = Asked {
            head: self.head,
            endpoint,
            model,
            upstream,
            is_run,
        };
        let terms = asking.terms(&self.bench.site, &asked);
        if terms.is_err() {
            // Whoever reads the log wants to know what was not allowed.
            self.record.model = model.map(str::to_owned);
        }
        let terms = terms?;
        self.record.priority = Some(terms.caller.priority);
        self.record.route = terms.route;
        Ok(terms)
    }
}

impl Asking {
    /// Returns who asks, for the words of a refusal.
    pub(super) fn asker(&self) -> Asker<'_> {
        Asker {
            tenant: self.who.name.as_deref(),
            ..Asker::default()
        }
    }

    /// Returns the tenant.
    pub(super) const fn tenant(&self) -> TenantId {
        self.who.id
    }

    /// Finds out who asks.
    ///
    /// # Errors
    ///
    /// Returns the answer for a key that is missing or not known, and for headers that cannot be read.
    fn of(shared: &Shared, site: &Site, head: &request::Parts) -> Result<Self, Unanswered> {
        let headers = &head.headers;
        let now = || shared.limiter.now().as_micros() / 1_000_000;
        let who = site.tenants.identify(headers, head.uri.query(), now);
        let who = who.map_err(|unknown| match unknown {
            Unknown::KeyMissing => Unanswered::refused(ErrorReply::key_missing(), Refused::Unknown),
            Unknown::KeyWrong => Unanswered::refused(ErrorReply::key_wrong(), Refused::Unknown),
            Unknown::BadName => {
                let reply = ErrorReply::bad_request("the header that names the tenant must hold one name, of at most 64 letters, digits, -, _, ., @ and :");
                Unanswered::refused(reply, Refused::BadHead)
            }
        })?;
        // What a header or a file of keys calls a tenant is known nowhere else.
        if let (Some(name), true) = (
            &who.name,
            who.rules.is_none_or(|at| is_template(&site.config, at)),
        ) {
            shared.admin.names().note(who.id.value(), name);
        }
        let priority = priority(headers).map_err(|reply| Unanswered::refused(reply, Refused::BadHead))?;
        Ok(Self { who, priority })
    }

    /// Finds out on what terms the request goes on.
    ///
    /// # Errors
    ///
    /// Returns the answer for what the tenant may not use, or what has no price although it must have one.
    fn terms(&self, site: &Site, asked: &Asked<'_>) -> Result<Terms, Unanswered> {
        let config = &*site.config;
        let rules = self.who.rules.and_then(|at| config.tenants.get(at));
        self.check(site, rules, asked)
            .map_err(|reply| Unanswered::refused(reply, Refused::NotAllowed))?;
        let mut tags = [""; TAG_HEADERS_MAX];
        let mut count = 0;
        if !config.routes.is_empty() {
            let given = asked.head.headers.get_all(TAGS).iter();
            for (place, text) in tags.iter_mut().zip(given.filter_map(|value| value.to_str().ok())) {
                *place = text;
                count += 1;
            }
        }
        let route = config.route_of(RouteClues {
            endpoint: asked.endpoint,
            path: asked.head.uri.path(),
            tags: &tags[..count],
            model: asked.model,
        });
        let taken = route.and_then(|at| config.routes.get(at));
        // Where nobody is told apart, there is nobody whose turn an urgent request could take.
        let (highest, usual) = match rules {
            Some(rules) => (rules.priority, rules.default_priority),
            None if !site.tenants.tells_apart() => (Priority::High, Priority::Normal),
            None => (Priority::Normal, Priority::Normal),
        };
        let wished = self.priority.or(taken.and_then(|route| route.priority));
        // Without tenants and runs nobody adds up money.
        let adds_up = site.tenants.tells_apart() || asked.is_run;
        let priced = asked.model.filter(|_| adds_up);
        let price = priced.and_then(|model| config.price(model));
        Ok(Terms {
            caller: Caller {
                tenant: self.who.id,
                // The first of them is the most urgent: what is above the highest becomes the highest.
                priority: wished.unwrap_or(usual).max(highest),
                route: taken.map_or(RouteId::NONE, |route| route.id),
            },
            price: price.unwrap_or(Price::NONE),
            max_wait: taken.and_then(|route| route.max_wait),
            route,
        })
    }

    fn check(&self, site: &Site, rules: Option<&Tenant>, asked: &Asked<'_>) -> Result<(), ErrorReply> {
        let config = &*site.config;
        let upstream = config.upstreams.get(asked.upstream);
        let upstream_name = upstream.map_or("", |upstream| upstream.name.as_str());
        let name = self.who.name.as_deref();
        if let Some(rules) = rules {
            let allowed = &rules.upstreams;
            if allowed
                .as_ref()
                .is_some_and(|allowed| !allowed.contains(&asked.upstream))
            {
                return Err(ErrorReply::upstream_not_allowed(name, upstream_name));
            }
            let is_allowed = match asked.model {
                Some(model) => rules.may_use(model),
                // A batch, say, may name any model inside; asking what there is does no harm.
                None => {
                    rules.models.is_none()
                        || [Method::GET, Method::HEAD, Method::DELETE].contains(&asked.head.method)
                }
            };
            if !is_allowed {
                return Err(ErrorReply::model_not_allowed(name, asked.model));
            }
        }
        let target = site.targets.get(asked.upstream);
        if target.is_some_and(|target| !target.has_key())
            && (self.who.has_own_key || AuthStyle::holds_own_key(&asked.head.headers, asked.head.uri.query()))
        {
            return Err(ErrorReply::upstream_has_no_key(upstream_name));
        }
        let counts_money =
            rules.is_some_and(Tenant::has_money) || (asked.is_run && config.runs.cost.is_some());
        if let Some(model) = asked.model
            && counts_money
            && asked.endpoint.scope() == Scope::Model
            && config.price(model).is_none()
        {
            return Err(ErrorReply::model_not_priced(model));
        }
        Ok(())
    }
}

/// Returns whether what holds for a tenant is the template.
fn is_template(config: &Config, at: usize) -> bool {
    config.each_other() == Some(at)
}

/// Returns how urgent the client says it is.
fn priority(headers: &HeaderMap) -> Result<Option<Priority>, ErrorReply> {
    let Some(value) = headers.get(PRIORITY) else {
        return Ok(None);
    };
    let tier = value
        .to_str()
        .ok()
        .and_then(|text| Priority::named(&text.trim().to_ascii_lowercase()));
    tier.map(Some).ok_or_else(|| {
        ErrorReply::bad_request("the header x-tidegate-priority must be one of high, normal, low and batch")
    })
}
