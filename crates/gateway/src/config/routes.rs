//! Kinds of requests: which there are, and which one a request is of.

use std::time::Duration;

use tidegate_core::{Limit, Priority, RouteId, RoutePlan};

use super::allowance;
use super::check::{Checker, Finding, repeated};
use super::field::{Field, Table};
use super::limits::patterns;
use super::model::ModelPattern;
use super::raw::RawRoute;
use crate::provider::Endpoint;

/// The most routes: each is looked at for each request.
const ROUTES_MAX: usize = 1_000;

/// The longest tag or path, in bytes.
const TEXT_MAX: usize = 256;

/// A kind of requests.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name, unique.
    pub name: String,
    /// Its identifier in the engine.
    pub id: RouteId,
    /// The priority of its requests that say none.
    pub priority: Option<Priority>,
    /// The longest that its requests may wait.
    pub max_wait: Option<Duration>,
    /// Limits that all its requests share.
    pub limits: Vec<Limit>,
    /// The operations; `None` means any.
    operations: Option<Vec<Endpoint>>,
    paths: Option<Vec<PathPattern>>,
    tags: Option<Vec<String>>,
    models: Option<Vec<ModelPattern>>,
}

/// What of a request its route is found by.
#[derive(Debug, Clone, Copy)]
pub struct RouteClues<'a> {
    /// The operation.
    pub endpoint: Endpoint,
    /// The path as the client sent it.
    pub path: &'a str,
    /// The values of `x-tidegate-tags`, each a list.
    pub tags: &'a [&'a str],
    /// The model.
    pub model: Option<&'a str>,
}

/// A path, or a beginning of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PathPattern {
    Exact(String),
    Prefix(String),
}

impl PathPattern {
    fn text(&self) -> String {
        match self {
            Self::Exact(path) => path.clone(),
            Self::Prefix(prefix) => format!("{prefix}*"),
        }
    }
}

impl Route {
    /// Says in words which requests take it.
    pub fn conditions(&self) -> String {
        let mut parts = Vec::new();
        let mut add = |what: &str, names: Option<Vec<String>>| {
            if let Some(names) = names {
                parts.push(format!("{what} {}", names.join(" or ")));
            }
        };
        let operations = self.operations.as_ref();
        add(
            "for",
            operations.map(|list| list.iter().map(|of| of.name().to_owned()).collect()),
        );
        let paths = self.paths.as_ref();
        add(
            "under",
            paths.map(|list| list.iter().map(PathPattern::text).collect()),
        );
        add("tagged", self.tags.clone());
        let models = self.models.as_ref();
        add(
            "of",
            models.map(|list| list.iter().map(ToString::to_string).collect()),
        );
        if parts.is_empty() {
            return "for everything".to_owned();
        }
        parts.join(", ")
    }

    /// Returns whether all conditions hold.
    pub fn fits(&self, clues: RouteClues<'_>) -> bool {
        let any = |list: &Option<Vec<_>>| list.as_ref().is_none_or(|list| list.contains(&clues.endpoint));
        let tagged = |tag: &String| {
            let lists = clues.tags.iter();
            lists
                .flat_map(|list| list.split(','))
                .any(|given| given.trim() == tag)
        };
        any(&self.operations)
            && self
                .paths
                .as_ref()
                .is_none_or(|paths| paths.iter().any(|path| path.matches(clues.path)))
            && self.models.as_ref().is_none_or(|models| {
                clues
                    .model
                    .is_some_and(|model| models.iter().any(|pattern| pattern.matches(model)))
            })
            && self.tags.as_ref().is_none_or(|tags| tags.iter().any(tagged))
    }

    /// Returns what the engine needs to know.
    pub fn plan(&self) -> RoutePlan {
        RoutePlan {
            name: self.name.clone(),
            limits: self.limits.clone(),
        }
    }

    fn is_for_everything(&self) -> bool {
        self.operations.is_none() && self.paths.is_none() && self.tags.is_none() && self.models.is_none()
    }
}

impl PathPattern {
    fn parse(text: &str) -> Option<Self> {
        if !text.starts_with('/')
            || text.len() > TEXT_MAX
            || text.contains(|c: char| c.is_control() || c == '?')
        {
            return None;
        }
        match text.strip_suffix('*') {
            Some(prefix) if !prefix.contains('*') => Some(Self::Prefix(prefix.to_owned())),
            None if !text.contains('*') => Some(Self::Exact(text.to_owned())),
            _ => None,
        }
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
        }
    }
}

/// Returns the operations that a word of `operations` stands for.
fn operations(word: &str) -> Option<Vec<Endpoint>> {
    let all = Endpoint::ALL.into_iter();
    let found: Vec<_> = match word {
        "chat" => all.filter(|endpoint| endpoint.is_chat()).collect(),
        "embeddings" => all.filter(|endpoint| endpoint.is_embedding()).collect(),
        name => all.filter(|endpoint| endpoint.name() == name).collect(),
    };
    (!found.is_empty()).then_some(found)
}

/// Returns every word that `operations` may hold.
fn operation_words() -> Vec<&'static str> {
    std::iter::once("chat")
        .chain(Endpoint::ALL.map(Endpoint::name))
        .collect()
}

/// Checks all routes.
pub(super) fn check(checker: &mut Checker<'_>, raws: &[Table<RawRoute>]) -> Vec<Route> {
    if let Some(more) = raws.get(ROUTES_MAX) {
        let what = format!("there are {} routes", raws.len());
        let help = format!("expected at most {ROUTES_MAX}");
        checker.errors.push(Finding::new(&more.origin, what).help(&help));
        return Vec::new();
    }
    let routes: Vec<_> = raws
        .iter()
        .enumerate()
        .map(|(at, raw)| one(checker, raw, &format!("routes[{at}]")))
        .collect();
    for (at, before) in repeated(routes.iter().map(|route| route.name.as_str())) {
        let what = format!(
            "routes[{at}] and routes[{before}] are both called \"{}\"",
            routes[at].name
        );
        let finding = Finding::new(raws[at].value.name.origin(), what);
        checker
            .errors
            .push(finding.help("give each a name of its own; one route may list several operations"));
    }
    let whole = routes.iter().position(Route::is_for_everything);
    if let Some(whole) = whole
        && let Some(after) = raws.get(whole + 1)
    {
        let what = format!(
            "`routes[{}]` is never reached: routes[{whole}] has no condition and takes everything",
            whole + 1
        );
        let finding = Finding::new(&after.origin, what);
        checker
            .warnings
            .push(finding.help("put the route for everything last"));
    }
    routes
}

fn one(checker: &mut Checker<'_>, raw: &Table<RawRoute>, at: &str) -> Route {
    let key = |name: &str| format!("{at}.{name}");
    let (origin, raw) = (&raw.origin, &raw.value);
    // Where nothing says its name, its place keeps it apart from the others: the missing name is the error then.
    let name =
        allowance::name(checker, &key("name"), &raw.name, origin, None).unwrap_or_else(|| at.to_owned());
    let empty = "list what the route is for, or leave it out for everything";
    let mut list = |name: &str, field: &Field<Vec<String>>, fits: &dyn Fn(&str) -> bool, help: &str| {
        let key = key(name);
        let texts = checker.given(&key, field)?;
        if texts.is_empty() {
            checker.error(field, format!("`{key}` is empty"), empty);
        }
        if texts.iter().any(|text| !fits(text)) {
            checker.error(field, format!("`{key}` has an entry that cannot be one"), help);
        }
        Some(texts.clone())
    };
    let is_path = |text: &str| PathPattern::parse(text).is_some();
    let paths = list(
        "paths",
        &raw.paths,
        &is_path,
        "write paths such as \"/v1/embeddings\", or beginnings such as \"/openai/*\"",
    );
    let is_tag = |text: &str| {
        !text.is_empty() && text.len() <= TEXT_MAX && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
    };
    let tags = list(
        "tags",
        &raw.tags,
        &is_tag,
        "write tags without spaces and commas, as they stand in x-tidegate-tags",
    );
    let words = list("operations", &raw.operations, &|_| true, "");
    let mut endpoints = Vec::new();
    for word in words.iter().flatten() {
        match operations(word) {
            Some(found) => endpoints.extend(found),
            None => checker.unknown_word(
                &key("operations"),
                &raw.operations.entry(word.clone()),
                &operation_words(),
            ),
        }
    }
    let models = (!raw.models.is_absent()).then(|| patterns(checker, &key("models"), &raw.models, empty));
    let waits = Duration::from_millis(1)..=Duration::from_secs(86_400);
    Route {
        id: RouteId::of(&name),
        priority: allowance::priority(checker, &key("priority"), &raw.priority),
        max_wait: checker.optional_duration(&key("max_wait"), &raw.max_wait, waits),
        limits: allowance::limits(checker, at, raw.amounts()),
        operations: words.map(|_| endpoints),
        paths: paths.map(|paths| paths.iter().filter_map(|path| PathPattern::parse(path)).collect()),
        tags,
        models,
        name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_word_and_groups_have_several() {
        for endpoint in Endpoint::ALL {
            assert!(operations(endpoint.name()).unwrap().contains(&endpoint));
        }
        let chat = operations("chat").unwrap();
        assert!(chat.contains(&Endpoint::Messages) && chat.contains(&Endpoint::GenerateContent));
        assert!(!chat.contains(&Endpoint::Completions) && !chat.contains(&Endpoint::Embeddings));
        assert!(operations("embeddings").unwrap().contains(&Endpoint::CohereEmbed));
        assert_eq!(operations("chats"), None);
    }

    #[test]
    fn paths_are_exact_or_begin_so() {
        for (pattern, path, expect) in [
            ("/v1/embeddings", "/v1/embeddings", true),
            ("/v1/embeddings", "/v1/embeddings/x", false),
            ("/openai/*", "/openai/v1/models", true),
            ("/openai/*", "/openai", false),
            ("/*", "/", true),
        ] {
            assert_eq!(
                PathPattern::parse(pattern).unwrap().matches(path),
                expect,
                "{pattern} {path}"
            );
        }
        for bad in ["", "v1", "*", "/a*b", "/a?b=c", "/a\n"] {
            assert_eq!(PathPattern::parse(bad), None, "{bad}");
        }
    }
}
