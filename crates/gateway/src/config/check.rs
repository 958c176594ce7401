//! From what was said to what it means: every value checked, every default filled in, everything wrong said at once.

use std::collections::HashMap;
use std::env::VarError;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tidegate_core::{QueueBounds, RetryPolicy};

use super::field::{ByteText, DurationText, Field, FromToml, Held, Origin, Table};
use super::limits::patterns;
use super::problem::{Problem, nearest};
use super::raw::{RawConfig, RawPrice, RawRetry, RawServer};
use super::{Admin, Auth, Config, Secret, Server, allowance, defaults, duration, routes, store, tenants, upstream};
use crate::keys::{self, Key};
use crate::prices::PriceTable;
use crate::provider::AuthStyle;

/// Looks an environment variable up. Tests bring their own.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Result<String, VarError>;

/// The longest time that anything may be set to.
const DURATION_MAX: Duration = Duration::from_secs(86_400);

/// The shortest timeout.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// The shortest time between two signs of life to one client.
const KEEPALIVE_MIN: Duration = Duration::from_millis(10);

/// The most bytes or pieces that anything may be set to: what is larger is a slip, not a bound.
const COUNT_MAX: i64 = 1 << 40;

/// One thing that was found, before line and column are known.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    origin: Origin,
    what: String,
    help: String,
}

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

/// Checks one configuration.
pub(super) struct Checker<'a> {
    pub(super) environment: Environment<'a>,
    pub(super) errors: Findings,
    pub(super) warnings: Findings,
}

impl Finding {
    pub(super) fn new(origin: &Origin, what: String) -> Self {
        Self {
            origin: origin.clone(),
            what,
            help: String::new(),
        }
    }

    #[must_use]
    pub(super) fn help(self, help: &str) -> Self {
        Self {
            help: help.to_owned(),
            ..self
        }
    }
}

impl Findings {
    pub(super) fn push(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the findings in the order of the text, with line and column.
    pub(super) fn problems(mut self, source: &str, text: &str) -> Vec<Problem> {
        self.0.sort_by_key(|finding| match &finding.origin {
            Origin::File(span) => span.start,
            Origin::Flag(_) | Origin::Nowhere => 0,
        });
        let place = |origin: &Origin| match origin {
            Origin::File(span) => {
                let before = text.get(..span.start).unwrap_or(text);
                let line_start = before.rfind('\n').map_or(0, |at| at + 1);
                let line = 1 + before.matches('\n').count();
                let column = 1 + before.get(line_start..).map_or(0, |line| line.chars().count());
                format!("{source}:{line}:{column}")
            }
            Origin::Flag(name) => (*name).to_owned(),
            Origin::Nowhere => source.to_owned(),
        };
        self.0
            .into_iter()
            .map(|finding| Problem {
                place: place(&finding.origin),
                what: finding.what,
                help: finding.help,
            })
            .collect()
    }
}

impl Checker<'_> {
    /// Checks everything. The result counts only if no errors were found.
    pub(super) fn config(&mut self, raw: &RawConfig, source: &str) -> Config {
        let server = self.server(&raw.server);
        let queue = QueueBounds {
            requests_max: self.count(
                "server.queue_requests_max",
                &raw.server.queue_requests_max,
                defaults::QUEUE_REQUESTS_MAX,
            ),
            bytes_max: self.bytes(
                "server.queue_bytes_max",
                &raw.server.queue_bytes_max,
                defaults::QUEUE_BYTES_MAX,
            ) as u64,
            wait_max: self.timeout("server.max_wait", &raw.server.max_wait, defaults::MAX_WAIT),
        };
        let upstreams = upstream::check(self, &raw.upstreams);
        let tenants = tenants::check(self, &raw.tenants, &upstreams);
        let mut config = Config {
            keys: self.keys(&raw.server),
            server,
            upstreams,
            queue,
            retry: self.retry(&raw.retry),
            tenants,
            routes: routes::check(self, &raw.routes),
            tiers: allowance::tiers(self, &raw.priorities),
            runs: allowance::runs(self, &raw.runs),
            store: store::check(self, raw),
            prices: self.prices(&raw.prices),
            source: source.to_owned(),
            warnings: Vec::new(),
        };
        let words = [("keys", Auth::Keys), ("open", Auth::Open)];
        let has_keys =
            config.server.keys_file.is_some() || config.tenants.iter().any(|tenant| !tenant.keys.is_empty());
        let auth = self.word("server.auth", &raw.server.auth, &words);
        config.server.auth = auth.unwrap_or(if has_keys { Auth::Keys } else { Auth::Open });
        tenants::doubts(self, raw, &config);
        config
    }

    /// Returns the prices that are configured.
    fn prices(&mut self, raws: &[Table<RawPrice>]) -> PriceTable {
        let mut entries = Vec::new();
        for (at, raw) in raws.iter().enumerate() {
            let at = format!("prices[{at}]");
            let key = format!("{at}.models");
            if raw.value.models.is_absent() {
                let finding = Finding::new(&raw.origin, format!("`{key}` is missing"));
                self.errors.push(finding.help("list the models that cost this"));
            }
            let models = patterns(self, &key, &raw.value.models, "list the models that cost this");
            entries.push((models, allowance::price(self, &raw.value, &at, &raw.origin)));
        }
        let models: Vec<_> = entries
            .iter()
            .enumerate()
            .flat_map(|(at, (models, _))| models.iter().map(move |model| (at, model)))
            .collect();
        for (again, _) in repeated(models.iter().map(|(_, model)| *model)) {
            let (at, model) = models[again];
            let what = format!("`prices[{at}].models` lists \"{model}\", which has a price already");
            let finding = Finding::new(raws[at].value.models.origin(), what);
            self.errors.push(finding.help("say the price of a model once"));
        }
        PriceTable::new(entries)
    }

    /// Reads the file of keys.
    fn keys(&mut self, raw: &RawServer) -> Arc<[Key]> {
        let Some(path) = self.given("server.keys_file", &raw.keys_file) else {
            return Arc::default();
        };
        match keys::read(Path::new(path)) {
            Ok(keys) => keys.into(),
            Err(error) => {
                let help = "`tidegate keys new --file FILE --tenant NAME` makes such a file";
                self.error(&raw.keys_file, format!("`server.keys_file`: {error}"), help);
                Arc::default()
            }
        }
    }

    /// Returns where charges outlive a restart. It is written over, so it can be nothing else.
    fn state_file(&mut self, raw: &RawServer) -> Option<PathBuf> {
        let path = self.given("server.state_file", &raw.state_file)?;
        if path.trim().is_empty() || path.ends_with('/') || raw.keys_file.value() == Some(path) {
            self.error(
                &raw.state_file,
                "`server.state_file` cannot be this file".to_owned(),
                "write the path of a file of its own, such as \"/var/lib/tidegate/tidegate.state\"; Tidegate makes it",
            );
            return None;
        }
        Some(PathBuf::from(path))
    }

    /// Returns the header in which a trusted proxy names the tenant.
    fn tenant_header(&mut self, field: &Field<String>) -> Option<HeaderName> {
        let text = self.given("server.tenant_header", field)?;
        let name = HeaderName::from_bytes(text.trim().as_bytes()).ok();
        let is_free = |name: &HeaderName| !AuthStyle::HEADERS.contains(name);
        let name = name.filter(is_free);
        if name.is_none() {
            self.error(
                field,
                "`server.tenant_header` cannot be the name of that header".to_owned(),
                "write a header that a proxy before Tidegate sets, such as \"x-tidegate-tenant\"; none in which keys are sent",
            );
        }
        name
    }

    fn server(&mut self, raw: &RawServer) -> Server {
        let listen = self.address("server.listen", &raw.listen, defaults::LISTEN);
        let admin = self.admin(raw, listen);
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let workers = self.number("server.workers", &raw.workers, cores.get() as i64, 1..=1_024);
        let workers = usize::try_from(workers)
            .ok()
            .and_then(NonZeroUsize::new)
            .unwrap_or(cores);
        Server {
            listen,
            admin,
            workers,
            // Known only when the tenants are.
            auth: Auth::Open,
            tenant_header: self.tenant_header(&raw.tenant_header),
            keys_file: raw.keys_file.value().map(PathBuf::from),
            state_file: self.state_file(raw),
            head_bytes_max: self.bytes(
                "server.head_bytes_max",
                &raw.head_bytes_max,
                defaults::HEAD_BYTES_MAX,
            ),
            headers_max: self.count("server.headers_max", &raw.headers_max, defaults::HEADERS_MAX),
            body_bytes_max: self.bytes(
                "server.body_bytes_max",
                &raw.body_bytes_max,
                defaults::BODY_BYTES_MAX,
            ),
            connections_max: self.count(
                "server.connections_max",
                &raw.connections_max,
                defaults::CONNECTIONS_MAX,
            ),
            head_timeout: self.timeout("server.head_timeout", &raw.head_timeout, defaults::HEAD_TIMEOUT),
            body_timeout: self.timeout("server.body_timeout", &raw.body_timeout, defaults::BODY_TIMEOUT),
            idle_timeout: self.timeout(
                "server.idle_timeout",
                &raw.idle_timeout,
                defaults::SERVER_IDLE_TIMEOUT,
            ),
            drain_timeout: self.timeout(
                "server.drain_timeout",
                &raw.drain_timeout,
                defaults::DRAIN_TIMEOUT,
            ),
            stream_drain_timeout: self.timeout(
                "server.stream_drain_timeout",
                &raw.stream_drain_timeout,
                defaults::STREAM_DRAIN_TIMEOUT,
            ),
            queue_keepalive: self.optional_duration(
                "server.queue_keepalive",
                &raw.queue_keepalive,
                KEEPALIVE_MIN..=DURATION_MAX,
            ),
        }
    }

    fn admin(&mut self, raw: &RawServer, listen: SocketAddr) -> Option<Admin> {
        let token = self.secret(
            "server.admin_token",
            &raw.admin_token,
            "leave admin_token out on a loopback address",
        );
        if raw.admin.value().is_some_and(|text| text.trim() == "off") {
            return None;
        }
        let before = self.errors.0.len();
        let address = self.address("server.admin", &raw.admin, defaults::ADMIN);
        if self.errors.0.len() > before {
            return None;
        }
        let overlap = address.port() != 0
            && address.port() == listen.port()
            && (address.ip() == listen.ip() || address.ip().is_unspecified() || listen.ip().is_unspecified());
        if overlap {
            let origin = [raw.admin.origin(), raw.listen.origin()]
                .into_iter()
                .find(|origin| **origin != Origin::Nowhere);
            let what =
                format!("`server.admin` ({address}) and `server.listen` ({listen}) are the same address");
            let origin = origin.cloned().unwrap_or_default();
            self.errors.push(
                Finding::new(&origin, what)
                    .help("give the admin listener another port, or set admin = \"off\""),
            );
        }
        if !address.ip().is_loopback() && raw.admin_token.is_absent() {
            let what = format!(
                "`server.admin` is {address}, which others can reach, and there is no `server.admin_token`"
            );
            self.errors
                .push(Finding::new(raw.admin.origin(), what).help(
                    "set admin_token = \"env:NAME\", or use a loopback address such as 127.0.0.1:9090",
                ));
        }
        Some(Admin {
            listen: address,
            token,
        })
    }

    fn retry(&mut self, raw: &RawRetry) -> RetryPolicy {
        let backoff_min = self.timeout("retry.backoff_min", &raw.backoff_min, defaults::BACKOFF_MIN);
        let backoff_max = self.timeout("retry.backoff_max", &raw.backoff_max, defaults::BACKOFF_MAX);
        if backoff_min > backoff_max {
            let origin = if raw.backoff_min.is_absent() {
                &raw.backoff_max
            } else {
                &raw.backoff_min
            };
            self.errors.push(
                Finding::new(
                    origin.origin(),
                    "`retry.backoff_min` is longer than `retry.backoff_max`".to_owned(),
                )
                .help("make the first pause the shorter one"),
            );
        }
        let percent = self.number(
            "retry.budget_percent",
            &raw.budget_percent,
            defaults::RETRY_BUDGET_PERCENT as i64,
            0..=1_000,
        );
        let floor = self.number(
            "retry.budget_floor",
            &raw.budget_floor,
            defaults::RETRY_BUDGET_FLOOR as i64,
            0..=1_000_000,
        );
        RetryPolicy {
            backoff_min,
            backoff_max,
            horizon: self.timeout("retry.horizon", &raw.horizon, defaults::RETRY_HORIZON),
            budget_percent: u32::try_from(percent).unwrap_or_default(),
            budget_floor: u32::try_from(floor).unwrap_or_default(),
            ..RetryPolicy::default()
        }
    }

    /// Returns the field's value, if there is one of the right type.
    pub(super) fn given<'a, T: FromToml>(&mut self, key: &str, field: &'a Field<T>) -> Option<&'a T> {
        match field.held() {
            Held::Absent => None,
            Held::Given(value) => Some(value),
            Held::Mistyped(found) => {
                self.error(
                    field,
                    format!("`{key}` is {found}"),
                    &format!("expected {}", T::EXPECTED),
                );
                None
            }
        }
    }

    pub(super) fn error<T>(&mut self, field: &Field<T>, what: String, help: &str) {
        self.errors.push(Finding::new(field.origin(), what).help(help));
    }

    /// Returns a number within `range`.
    pub(super) fn number(
        &mut self,
        key: &str,
        field: &Field<i64>,
        default: i64,
        range: RangeInclusive<i64>,
    ) -> i64 {
        let Some(number) = self.given(key, field) else {
            return default;
        };
        if range.contains(number) {
            return *number;
        }
        let (least, most) = range.into_inner();
        self.error(
            field,
            format!("`{key}` is {number}"),
            &format!("expected a number from {least} to {most}"),
        );
        default
    }

    pub(super) fn count(&mut self, key: &str, field: &Field<i64>, default: u64) -> usize {
        let count = self.number(key, field, default as i64, 1..=i64::from(u32::MAX));
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    pub(super) fn bytes(&mut self, key: &str, field: &Field<ByteText>, default: u64) -> usize {
        let default = usize::try_from(default).unwrap_or(usize::MAX);
        let Some(given) = self.given(key, field) else {
            return default;
        };
        match given.bytes() {
            Some(bytes @ 1_024..=COUNT_MAX) => usize::try_from(bytes).unwrap_or(usize::MAX),
            Some(bytes) => {
                self.error(
                    field,
                    format!("`{key}` is {bytes} bytes"),
                    &format!("expected a number of bytes from 1024 to {COUNT_MAX}"),
                );
                default
            }
            None => {
                self.error(
                    field,
                    format!("`{key}` is not a number of bytes"),
                    "write a number, or a text such as \"64KiB\", \"32MiB\" or \"1GiB\"",
                );
                default
            }
        }
    }

    pub(super) fn timeout(&mut self, key: &str, field: &Field<DurationText>, default: &str) -> Duration {
        self.duration(key, field, default, TIMEOUT_MIN..=DURATION_MAX)
    }

    /// Returns a length of time within `range`.
    pub(super) fn duration(
        &mut self,
        key: &str,
        field: &Field<DurationText>,
        default: &str,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.optional_duration(key, field, range)
            .unwrap_or_else(|| duration::parse(default).expect("the defaults are lengths of time"))
    }

    /// Returns a length of time within `range`, if one is given.
    pub(super) fn optional_duration(
        &mut self,
        key: &str,
        field: &Field<DurationText>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let DurationText(text) = self.given(key, field)?;
        match duration::parse(text) {
            Ok(value) if range.contains(&value) => return Some(value),
            Ok(value) => {
                let (least, most) = range.into_inner();
                let (least, most) = (duration::display(least), duration::display(most));
                self.error(
                    field,
                    format!("`{key}` is {}", duration::display(value)),
                    &format!("expected a time from {least} to {most}"),
                );
            }
            Err(error) => self.error(
                field,
                format!("`{key}` is not a length of time"),
                &error.to_string(),
            ),
        }
        None
    }

    fn address(&mut self, key: &str, field: &Field<String>, default: &str) -> SocketAddr {
        if let Some(text) = self.given(key, field) {
            match text.trim().parse() {
                Ok(address) => return address,
                Err(_) => self.error(
                    field,
                    format!("`{key}` is not an address"),
                    &format!("expected an IP address and a port, such as \"{default}\" or \"0.0.0.0:8080\""),
                ),
            }
        }
        default.parse().expect("the defaults are addresses")
    }

    /// Returns one of the words of a list; the first is the default.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &str,
        field: &Field<String>,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = self.given(key, field)?;
        let found = words.iter().find(|(word, _)| *word == text.trim());
        if found.is_none() {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.unknown_word(key, field, &words);
        }
        found.map(|(_, value)| *value)
    }

    pub(super) fn unknown_word(&mut self, key: &str, field: &Field<String>, words: &[&str]) {
        let text = field.value().map_or("", String::as_str).trim();
        let near = nearest(text, words.iter().copied());
        let help = match near {
            Some(word) => format!("did you mean \"{word}\"?"),
            None => format!("expected one of: {}", words.join(", ")),
        };
        // The text is shown only where it is a plain word: somebody may have put a key into the wrong line.
        let plain = text.len() <= 24 && !text.starts_with("sk-") && !text.is_empty();
        let what = if plain {
            format!("`{key}` is \"{text}\"")
        } else {
            format!("`{key}` is none of the known words")
        };
        self.error(field, what, &help);
    }

    /// Returns a secret: what stands there, or what the environment variable that it names holds.
    pub(super) fn secret(&mut self, key: &str, field: &Field<Secret>, without: &str) -> Option<Secret> {
        let given = self.given(key, field)?;
        let text = given.expose().trim();
        let name = text.strip_prefix("env:").map(str::trim);
        if name.is_some_and(|name| !is_variable_name(name)) {
            let what = format!("`{key}` does not name an environment variable after \"env:\"");
            self.error(
                field,
                what,
                "write \"env:\" and the name of a variable, such as \"env:OPENAI_API_KEY\"",
            );
            return None;
        }
        let value = match name {
            None => {
                self.warnings.push(
                    Finding::new(field.origin(), format!("`{key}` holds the secret itself"))
                        .help("put it into an environment variable and write \"env:NAME\""),
                );
                Secret::new(text)
            }
            Some(name) => match (self.environment)(name) {
                Ok(value) => Secret::new(Secret::new(value).expose().trim()),
                Err(error) => {
                    let why = match error {
                        VarError::NotPresent => "is not set",
                        VarError::NotUnicode(_) => "is not text",
                    };
                    let what = format!("`{key}`: the environment variable {name} {why}");
                    self.error(field, what, &format!("set it, or {without}"));
                    return None;
                }
            },
        };
        let named = name
            .map(|name| format!(" (the environment variable {name})"))
            .unwrap_or_default();
        if value.expose().is_empty() {
            self.error(
                field,
                format!("`{key}`{named} is empty"),
                &format!("set it, or {without}"),
            );
            return None;
        }
        if !value.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let what =
                format!("`{key}`{named} has a space or another character in it that a header cannot carry");
            self.error(
                field,
                what,
                "look for a line break or a quotation mark that does not belong to it",
            );
            return None;
        }
        Some(value)
    }
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Finds what appears more than once: the second and later places, each with the place of the first.
pub(super) fn repeated<'a, T: Eq + std::hash::Hash + 'a>(
    items: impl Iterator<Item = T>,
) -> Vec<(usize, usize)> {
    let mut first = HashMap::new();
    let mut again = Vec::new();
    for (at, item) in items.enumerate() {
        if let Some(before) = first.get(&item) {
            again.push((at, *before));
        } else {
            first.insert(item, at);
        }
    }
    again
}
