//! The gateway's own answers, in the shape of the provider that the client believes it talks to.

mod body;
mod event;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Method, Response, StatusCode};
use tidegate_core::{
    Allotment, BudgetUnit, Dimension, LimitRef, Obstacle, Owner, Period, Refusal, RefusalReason, Spent,
};

use super::{BadBody, Shape};
pub use event::error_event;

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const X_AMZN_ERRORTYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
const X_AMZN_REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
/// The code, whatever shape the body has.
const X_TIDEGATE_CODE: HeaderName = HeaderName::from_static("x-tidegate-code");
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The longest wait that every official SDK honors; after a longer one they come back on their own, too early
/// (providers.md §13).
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);

/// The most characters of a client's own text that an answer repeats.
const ECHO_MAX: usize = 128;

/// An error that the gateway answers itself. It holds what the client may see and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReply {
    status: StatusCode,
    message: String,
    code: &'static str,
    /// OpenAI's `type` of a refusal for rate: what is limited.
    limited: &'static str,
    retry_after: Option<Duration>,
    should_retry: Option<bool>,
    allow: Option<&'static str>,
}

impl ErrorReply {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            code,
            limited: "requests",
            retry_after: None,
            should_retry: None,
            allow: None,
        }
    }

    /// The limiter refused.
    ///
    /// A request that can never be sent is the client's fault (400, never retried); one that cannot be sent in time is
    /// a refusal for rate (429) with the exact time to come back, to be retried only if SDKs honor that time. What is used
    /// up is a 402 that no SDK retries: time does not cure it soon, and a loop around `RateLimitError` would only spin.
    pub fn refusal(refusal: &Refusal) -> Self {
        Self::refusal_of(refusal, Asker::default())
    }

    /// The same, naming who asked.
    pub fn refusal_of(refusal: &Refusal, asker: Asker<'_>) -> Self {
        let limit = refusal.limit.as_ref().map(describe);
        let wait = refusal.retry_after;
        let again = wait.map_or(String::new(), |wait| {
            format!(" Please try again in {}.", seconds(wait))
        });
        let owner = match refusal.owner {
            None => String::new(),
            Some(Owner::Tenant(_)) => match asker.tenant {
                Some(name) => format!(" of tenant \"{}\"", echo(name)),
                None => " of your own tenant".to_owned(),
            },
            Some(Owner::Route(_)) => " of this route".to_owned(),
        };
        let because = match (limit.as_deref(), refusal.obstacle) {
            (Some(limit), _) => format!(" The limit of {limit}{owner} is in use."),
            (None, Some(Obstacle::Store)) => {
                " The store through which the gateways share their limits is out of reach.".to_owned()
            }
            (None, Some(Obstacle::Learning)) => {
                " How much of the quota is in use is not known yet.".to_owned()
            }
            (None, Some(Obstacle::Hold)) => {
                " Sending pauses, because the provider has refused requests.".to_owned()
            }
            (None, _) => String::new(),
        };
        let reply = match refusal.reason {
            RefusalReason::NeverFits => {
                let limit = limit.unwrap_or_else(|| "its quota".into());
                return Self::new(
                    StatusCode::BAD_REQUEST,
                    "request_exceeds_limit",
                    format!(
                        "This request alone needs more than the limit of {limit} and can never be sent. Shorten its \
                         input or lower its maximum output."
                    ),
                )
                .hopeless();
            }
            RefusalReason::Deadline => Self::rate_limited(format!(
                "Rate limit reached: this request cannot be sent before its deadline.{because}{again}"
            )),
            RefusalReason::QueueFull => Self::rate_limited(format!(
                "Rate limit reached: too many requests are waiting.{because}{again}"
            )),
            RefusalReason::QueueBytes => Self::rate_limited(format!(
                "Rate limit reached: the requests that are waiting hold too much memory.{because}{again}"
            )),
            RefusalReason::TenantQueueFull => Self::rate_limited(format!(
                "Rate limit reached: too many of your own requests are waiting.{because}{again}"
            )),
            RefusalReason::BudgetSpent | RefusalReason::RunSpent => {
                return Self::new(
                    StatusCode::PAYMENT_REQUIRED,
                    "budget_exceeded",
                    refusal.spent.map_or_else(
                        || "The budget of this request is spent.".to_owned(),
                        |spent| used_up(&spent, asker, wait),
                    ),
                )
                .hopeless();
            }
            RefusalReason::TooManyAccounts => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                format!("Too many API keys are in use at one time.{again}"),
            ),
            RefusalReason::RetriesSpent => {
                return Self::new(
                    StatusCode::BAD_GATEWAY,
                    "upstream_failed",
                    "The provider failed, and there is no time or budget left for another attempt.",
                )
                .hopeless();
            }
            RefusalReason::QuotaSpent => {
                let reply = Self::rate_limited(format!(
                    "The provider says that this account's quota is spent.{again}"
                ));
                return Self {
                    retry_after: wait.filter(|wait| *wait <= RETRY_WAIT_MAX),
                    ..reply
                }
                .hopeless();
            }
            RefusalReason::Closed => return Self::closing(),
            RefusalReason::UnknownQuota => return Self::internal(),
        };
        let counts_tokens = refusal
            .limit
            .is_some_and(|limit| !matches!(limit.dimension, Dimension::Requests | Dimension::Concurrency));
        Self {
            limited: if counts_tokens { "tokens" } else { "requests" },
            retry_after: wait,
            should_retry: Some(wait.is_some_and(|wait| wait <= RETRY_WAIT_MAX)),
            ..reply
        }
    }

    /// The body cannot be read: 400.
    pub fn bad_body(error: &BadBody) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_json",
            sentence(&error.to_string()),
        )
        .hopeless()
    }

    /// The head or body of the request breaks HTTP's or the gateway's rules: 400.
    pub fn bad_request(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", sentence(message)).hopeless()
    }

    /// The body is larger than the gateway takes: 413.
    pub fn too_large(bytes_max: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_too_large",
            format!("The request body is larger than the {bytes_max} bytes that this gateway takes."),
        )
        .hopeless()
    }

    /// The path names no upstream: 404.
    pub fn unknown_path(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_path",
            format!(
                "No upstream serves {}. Expected a path of the API (/v1/chat/completions, /v1/messages …), or one below \
                 an upstream's name.",
                echo(path)
            ),
        )
        .hopeless()
    }

    /// The method is not one that the path takes: 405. `allow` lists those it takes.
    pub fn method_not_allowed(method: &Method, allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                format!("{} is not allowed here: use {allow}.", echo(method.as_str())),
            )
            .hopeless()
        }
    }

    /// The client took too long to send its request: 408.
    pub fn client_timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            "The request did not arrive in time.",
        )
    }

    /// No API key was sent: 401.
    pub fn key_missing() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "missing_api_key",
            "No API key was sent. Send it as `Authorization: Bearer KEY` or `x-api-key: KEY`.",
        )
        .hopeless()
    }

    /// The API key is not one that the gateway knows: 401.
    pub fn key_wrong() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "invalid_api_key",
            "The API key is not one that this gateway knows.",
        )
        .hopeless()
    }

    /// The tenant may not use the model, or has to name one: 403.
    pub fn model_not_allowed(tenant: Option<&str>, model: Option<&str>) -> Self {
        let tenant = named("Tenant", tenant);
        let message = match model {
            Some(model) => format!("{tenant} may not use the model \"{}\".", echo(model)),
            None => format!("{tenant} may use certain models only, and this request names none."),
        };
        Self::new(StatusCode::FORBIDDEN, "model_not_allowed", message).hopeless()
    }

    /// The tenant may not use the upstream: 403.
    pub fn upstream_not_allowed(tenant: Option<&str>, upstream: &str) -> Self {
        let tenant = named("Tenant", tenant);
        let message = format!("{tenant} may not use the upstream \"{}\".", echo(upstream));
        Self::new(StatusCode::FORBIDDEN, "upstream_not_allowed", message).hopeless()
    }

    /// A budget is in dollars, and the model has no price: 403.
    pub fn model_not_priced(model: &str) -> Self {
        let message = format!(
            "The price of the model \"{}\" is not known, and a budget in dollars holds here. Add it under [[prices]] in the \
             gateway's configuration.",
            echo(model)
        );
        Self::new(StatusCode::FORBIDDEN, "model_not_priced", message).hopeless()
    }

    /// The key is Tidegate's own and must not go upstream, where the upstream has none: 403.
    pub fn upstream_has_no_key(upstream: &str) -> Self {
        let message = format!(
            "The API key is this gateway's own and is not passed on, and the upstream \"{}\" has no `api_key` in the gateway's \
             configuration.",
            echo(upstream)
        );
        Self::new(StatusCode::FORBIDDEN, "upstream_has_no_key", message).hopeless()
    }

    /// The upstream could not be reached, or broke off before its answer began: 502.
    pub fn upstream_unreachable(upstream: &str) -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            "upstream_unreachable",
            format!("The upstream {} could not be reached.", echo(upstream)),
        )
        .hopeless()
    }

    /// The upstream did not answer in time: 504.
    pub fn upstream_timeout(upstream: &str, after: Duration) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream_timeout",
            format!(
                "The upstream {} did not answer within {}.",
                echo(upstream),
                seconds(after)
            ),
        )
        .hopeless()
    }

    /// The upstream answered with an error whose words cannot be passed on.
    pub fn upstream_answered(upstream: &str, status: StatusCode) -> Self {
        Self::new(
            if status.is_success() {
                StatusCode::BAD_GATEWAY
            } else {
                status
            },
            "upstream_failed",
            format!(
                "The upstream {} answered {} and no stream of events.",
                echo(upstream),
                status.as_u16()
            ),
        )
        .hopeless()
    }

    /// The gateway is shutting down: 503; another replica, or the next one, takes the request.
    pub fn closing() -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            should_retry: Some(true),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "shutting_down",
                "This gateway is shutting down. Please try again.",
            )
        }
    }

    /// The gateway has as many connections or requests as it takes: 503.
    pub fn busy() -> Self {
        Self {
            retry_after: Some(Duration::from_secs(1)),
            should_retry: Some(true),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "This gateway has as many requests as it takes. Please try again.",
            )
        }
    }

    /// The gateway itself failed: 500. Details belong to the log, under the request's identifier.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal_error",
            "The gateway failed on this request. Its log says more.",
        )
    }

    fn rate_limited(message: String) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message)
    }

    /// Tells SDKs that the same request again gives the same answer, or that retrying was done here already.
    fn hopeless(self) -> Self {
        Self {
            should_retry: Some(false),
            ..self
        }
    }

    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the code, one of a fixed set: for logs and metrics.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Returns the whole answer: status, `content-type`, `x-tidegate-code`, `retry-after`, `retry-after-ms`, `x-should-retry` and body.
    pub fn render(&self, shape: Shape, request_id: &str) -> Response<Bytes> {
        let body = self.body(shape, request_id);
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(X_TIDEGATE_CODE, HeaderValue::from_static(self.code));
        if let Some(wait) = self.retry_after {
            let millis = u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
            headers.insert(RETRY_AFTER, HeaderValue::from(millis.div_ceil(1_000).max(1)));
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis.max(1)));
        }
        if let Some(retry) = self.should_retry {
            let text = if retry { "true" } else { "false" };
            headers.insert(X_SHOULD_RETRY, HeaderValue::from_static(text));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if shape == Shape::Bedrock {
            headers.insert(X_AMZN_ERRORTYPE, HeaderValue::from_static(self.bedrock_kind()));
            if let Ok(id) = HeaderValue::try_from(request_id) {
                headers.insert(X_AMZN_REQUEST_ID, id);
            }
        }
        response
    }
}

/// Who asked, for the words of a refusal.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asker<'a> {
    /// The tenant's name.
    pub tenant: Option<&'a str>,
    /// What the client calls its run.
    pub run: Option<&'a str>,
    /// What it calls the run that started that one, if it says so.
    pub parent: Option<&'a str>,
}

/// Says what is nearly used up, for a header: "calls 41/50", "dollars $4.10/$5.00", "calls 4/4 of run tide-6". `parent` is
/// what the client calls the run that started the one that asks.
pub fn in_short(spent: &Spent, parent: Option<&str>) -> String {
    let name = spent.what.name();
    let name = name.strip_prefix("run_").unwrap_or(name);
    let amount = |amount: u64| match spent.what {
        Allotment::Budget(BudgetUnit::Cost, _) | Allotment::RunCost => dollars(amount),
        Allotment::RunTime => duration(Duration::from_micros(amount)),
        _ => amount.to_string(),
    };
    let whose = match (spent.above, parent) {
        (0, _) => String::new(),
        (1, Some(parent)) => format!(" of run {}", echo(parent)),
        _ => " of a run above".to_owned(),
    };
    format!("{name} {}/{}{whose}", amount(spent.used), amount(spent.most))
}

/// Names somebody, or says that it is the one that asks.
fn named(kind: &str, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{kind} \"{}\"", echo(name)),
        None => format!("This {}", kind.to_lowercase()),
    }
}

/// Names the run that has used something up: the one that asks, or one that it was started by.
fn run_of(spent: &Spent, asker: Asker<'_>) -> String {
    let asks = match asker.run {
        Some(run) => format!("run \"{}\"", echo(run)),
        None => "this run".to_owned(),
    };
    match (spent.above, asker.parent) {
        (0, _) => named("Run", asker.run),
        (1, Some(parent)) => format!("Run \"{}\", which started {asks},", echo(parent)),
        _ => format!("A run above {asks}"),
    }
}

/// Says what is used up: whose it was, how much of it, and when there is more.
fn used_up(spent: &Spent, asker: Asker<'_>, wait: Option<Duration>) -> String {
    let run = run_of(spent, asker);
    let (used, most) = (spent.used, spent.most);
    // What is larger than the whole never fits: to say when there is more would only make it come back.
    let too_large = |who: &str, budget: &str| {
        format!("{who} has a budget of {budget}, and this request alone needs more.")
    };
    match spent.what {
        Allotment::Budget(unit, period) => {
            let tenant = named("Tenant", asker.tenant);
            let (span, each) = match period {
                Period::Day => ("today", "a day"),
                Period::Month => ("this month", "a month"),
            };
            let is_unused = used == 0;
            let (used, most) = match unit {
                BudgetUnit::Tokens => (format!("{used}"), format!("{most} tokens")),
                BudgetUnit::Cost => (dollars(used), dollars(most)),
            };
            if is_unused {
                return too_large(&tenant, &format!("{most} {each}"));
            }
            let renews = wait.map_or(String::new(), |wait| {
                format!(" The budget renews in {}.", duration(wait))
            });
            format!(
                "{tenant} has used {used} of its {most} {span}, and this request does not fit into the rest.{renews}"
            )
        }
        Allotment::RunCalls => format!("{run} has made {used} of its {most} calls and is stopped."),
        Allotment::RunTokens if used == 0 => too_large(&run, &format!("{most} tokens")),
        Allotment::RunCost if used == 0 => too_large(&run, &dollars(most)),
        Allotment::RunTokens => {
            format!(
                "{run} has used {used} of its {most} tokens, and this request does not fit into the rest."
            )
        }
        Allotment::RunCost => format!(
            "{run} has used {} of its {}, and this request does not fit into the rest.",
            dollars(used),
            dollars(most)
        ),
        Allotment::RunTime => {
            let [used, most] = [used, most].map(|micros| duration(Duration::from_micros(micros)));
            format!("{run} has been going on for {used} of its {most} and is stopped.")
        }
        Allotment::RunDepth => format!("{run} is at depth {used}; runs may be nested {most} deep."),
        Allotment::RunRepeats => format!(
            "{run} repeats itself: it has made the same call {used} times among its last 20 steps, and {most} are allowed."
        ),
    }
}

/// Says an amount of money, given in millionths: "$12.50", with more digits where it is small.
pub(crate) fn dollars(micros: u64) -> String {
    let (whole, rest) = (micros / 1_000_000, micros % 1_000_000);
    let digits = format!("{rest:06}");
    let digits = digits.trim_end_matches('0');
    format!("${whole}.{digits:0<2}")
}

/// Says a length of time in its largest units: "3d 4h", "2m 5s".
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds % 86_400 / 3_600, "h"),
        (seconds % 3_600 / 60, "m"),
        (seconds % 60, "s"),
    ];
    let shown: Vec<_> = parts
        .iter()
        .skip_while(|(count, _)| *count == 0)
        .take(2)
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if shown.is_empty() {
        "less than a second".to_owned()
    } else {
        shown.join(" ")
    }
}

/// Says a limit in words: "30000 tokens per minute".
fn describe(limit: &LimitRef) -> String {
    let unit = match limit.dimension {
        Dimension::Requests => "requests",
        Dimension::Tokens => "tokens",
        Dimension::InputTokens => "input tokens",
        Dimension::OutputTokens => "output tokens",
        Dimension::Concurrency => return format!("{} requests at one time", limit.amount),
    };
    let window = match limit.window.as_secs() {
        60 => "minute".into(),
        3_600 => "hour".into(),
        86_400 => "day".into(),
        _ => seconds(limit.window),
    };
    format!("{} {unit} per {window}", limit.amount)
}

/// Says a time in seconds, rounded up to the millisecond: "1.574s".
fn seconds(time: Duration) -> String {
    let millis = time.as_micros().div_ceil(1_000);
    let (whole, rest) = (millis / 1_000, millis % 1_000);
    if rest == 0 {
        return format!("{whole}s");
    }
    let fraction = format!("{rest:03}");
    format!("{whole}.{}s", fraction.trim_end_matches('0'))
}

/// Begins with a capital and ends with a full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).chain(['.']).collect()
}

/// Repeats a client's text, cut to a bounded length and without control characters.
fn echo(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(ECHO_MAX).collect()
}

#[cfg(test)]
mod tests;
