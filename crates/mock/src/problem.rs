//! What goes wrong, and how OpenAI and Anthropic say it, word for word where the words are known (providers.md §2.5 and
//! §4.5). The other providers' words are in their own modules.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::directive::Trouble;
use crate::limits::{Dimension, Wait};
use crate::provider::Provider;
use crate::route::Target;
use crate::state::Denied;
use crate::text::{go_duration, quoted, thousands, up_to_millis};
use crate::{azure, bedrock, cohere, gemini, groq, hosted, mistral, openrouter};

/// An answer that is an error.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    pub(crate) what: What,
    pub(crate) kind: &'static str,
    pub(crate) param: Option<&'static str>,
    pub(crate) code: Option<&'static str>,
    pub(crate) message: Box<str>,
    pub(crate) retry_after: Option<Duration>,
    should_retry: Option<bool>,
}

/// What it is about.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// The request cannot be understood, or not be met.
    Invalid,
    MissingKey,
    WrongKey,
    UnknownModel,
    UnknownUrl,
    Trouble(Trouble),
    /// An error of the service itself, or any status that was asked for.
    Status,
    /// A limit refused it.
    Denied(Box<Denied>),
}

/// Whom it is said to, and about what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) provider: Provider,
    pub(crate) request_id: &'a str,
    pub(crate) target: Option<&'a Target>,
    pub(crate) model: &'a str,
    /// Whether the answer was to be a stream.
    pub(crate) stream: bool,
    /// Time since 1970.
    pub(crate) unix: Duration,
}

/// An error in a provider's words.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

/// The pretended organization.
pub(crate) const OPENAI_ORGANIZATION: &str = "org-tidegatemock0000000000000";
pub(crate) const ANTHROPIC_ORGANIZATION: &str = "00000000-0000-4000-8000-000000000000";

/// Windows up to this long are called minutes, longer ones days: tests shorten them.
pub(crate) const MINUTE_MAX: Duration = Duration::from_secs(3_600);

const REFUSED_AS_ASKED: &str = "The request was refused, as it asked for.";

impl Problem {
    fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            what: What::Invalid,
            kind,
            param: None,
            code: None,
            message: message.into().into_boxed_str(),
            retry_after: None,
            should_retry: None,
        }
    }

    fn about(self, what: What) -> Self {
        Self { what, ..self }
    }

    fn bad_request(
        provider: Provider,
        param: &'static str,
        code: Option<&'static str>,
        openai: String,
        anthropic: &str,
    ) -> Self {
        match provider {
            Provider::Anthropic => Self::new(400, "invalid_request_error", format!("{param}: {anthropic}")),
            _ => Self {
                param: Some(param),
                code,
                ..Self::new(400, "invalid_request_error", openai)
            },
        }
    }

    pub(crate) fn invalid_json(provider: Provider) -> Self {
        let message = match provider {
            Provider::Anthropic => "The request body is not valid JSON.",
            _ => {
                "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your \
                 HTTP library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON. \
                 If you have trouble figuring out how to fix this, please contact us through our help center at \
                 help.openai.com.)"
            }
        };
        Self::new(400, "invalid_request_error", message)
    }

    pub(crate) fn missing_model(provider: Provider) -> Self {
        match provider {
            Provider::Anthropic => Self::missing(provider, "model"),
            _ => Self::new(400, "invalid_request_error", "you must provide a model parameter"),
        }
    }

    pub(crate) fn missing(provider: Provider, param: &'static str) -> Self {
        let openai = format!("Missing required parameter: '{param}'.");
        Self::bad_request(
            provider,
            param,
            Some("missing_required_parameter"),
            openai,
            "Field required",
        )
    }

    pub(crate) fn wrong_type(provider: Provider, param: &'static str, expected: &str) -> Self {
        let openai = format!("Invalid type for '{param}': expected {expected}.");
        let anthropic = format!("Input should be {expected}");
        Self::bad_request(provider, param, Some("invalid_type"), openai, &anthropic)
    }

    pub(crate) fn below(provider: Provider, param: &'static str, min: u64, got: &str) -> Self {
        let openai = format!(
            "Invalid '{param}': integer below minimum value. Expected a value >= {min}, but got {got} instead."
        );
        let anthropic = format!("Input should be greater than or equal to {min}");
        Self::bad_request(
            provider,
            param,
            Some("integer_below_min_value"),
            openai,
            &anthropic,
        )
    }

    pub(crate) fn above(provider: Provider, param: &'static str, max: u64, got: &str) -> Self {
        let openai = format!(
            "Invalid '{param}': integer above maximum value. Expected a value <= {max}, but got {got} instead."
        );
        let anthropic = format!("{got} > {max}, which is the maximum allowed value");
        Self::bad_request(
            provider,
            param,
            Some("integer_above_max_value"),
            openai,
            &anthropic,
        )
    }

    pub(crate) fn invalid(provider: Provider, param: &'static str, message: &str) -> Self {
        Self::bad_request(
            provider,
            param,
            Some("invalid_value"),
            message.to_owned(),
            message,
        )
    }

    /// A field that this provider does not know.
    pub(crate) fn unknown_field(param: &'static str) -> Self {
        Self {
            param: Some(param),
            code: Some("extra_forbidden"),
            ..Self::new(422, "invalid_request_error", "Extra inputs are not permitted")
        }
    }

    pub(crate) fn missing_version() -> Self {
        Self::new(
            400,
            "invalid_request_error",
            "anthropic-version: header is required",
        )
    }

    pub(crate) fn missing_key(provider: Provider) -> Self {
        let problem = match provider {
            Provider::Anthropic => Self::new(401, "authentication_error", "x-api-key header is required"),
            _ => Self::new(
                401,
                "invalid_request_error",
                "You didn't provide an API key. You need to provide your API key in an Authorization header using \
                 Bearer auth (i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank username) if \
                 you're accessing the API from your browser and are prompted for a username and password. You can \
                 obtain an API key from https://platform.openai.com/account/api-keys.",
            ),
        };
        problem.about(What::MissingKey)
    }

    /// The key itself is not repeated: it may be a real one.
    pub(crate) fn wrong_key(provider: Provider) -> Self {
        let problem = match provider {
            Provider::Anthropic => Self::new(401, "authentication_error", "invalid x-api-key"),
            _ => Self {
                code: Some("invalid_api_key"),
                ..Self::new(
                    401,
                    "invalid_request_error",
                    "Incorrect API key provided. You can find your API key at \
                     https://platform.openai.com/account/api-keys.",
                )
            },
        };
        problem.about(What::WrongKey)
    }

    pub(crate) fn unknown_model(provider: Provider, model: &str) -> Self {
        let problem = match provider {
            Provider::Anthropic => Self::new(404, "not_found_error", format!("model: {model}")),
            _ => Self {
                code: Some("model_not_found"),
                ..Self::new(
                    404,
                    "invalid_request_error",
                    format!("The model `{model}` does not exist or you do not have access to it."),
                )
            },
        };
        problem.about(What::UnknownModel)
    }

    pub(crate) fn unknown_url(provider: Provider, method: &Method, path: &str) -> Self {
        let problem = match provider {
            Provider::Anthropic => Self::new(404, "not_found_error", "Not found"),
            _ => Self::new(
                404,
                "invalid_request_error",
                format!("Invalid URL ({method} {path})"),
            ),
        };
        problem.about(What::UnknownUrl)
    }

    pub(crate) fn wrong_method(method: &Method, path: &str) -> Self {
        Self {
            code: Some("method_not_supported"),
            ..Self::new(
                405,
                "invalid_request_error",
                format!("Not allowed to {method} on {path}."),
            )
        }
    }

    pub(crate) fn too_large_body(provider: Provider) -> Self {
        match provider {
            Provider::Anthropic => Self::new(
                413,
                "request_too_large",
                "Request exceeds the maximum allowed number of bytes.",
            ),
            _ => Self::new(413, "invalid_request_error", "The request body is too large."),
        }
    }

    pub(crate) fn trouble(provider: Provider, trouble: Trouble) -> Self {
        let problem = match (provider, trouble) {
            (_, Trouble::SlowDown) => Self {
                code: Some("slow_down"),
                ..Self::new(503, "server_error", "Slow Down")
            },
            (Provider::Anthropic, Trouble::Capacity | Trouble::Upstream) => {
                Self::new(529, "overloaded_error", "Overloaded")
            }
            (Provider::Anthropic, Trouble::Balance) => {
                Self::new(402, "billing_error", "Your credit balance is too low.")
            }
            (Provider::Anthropic, Trouble::Quota) => Self::new(
                400,
                "invalid_request_error",
                "You have reached your specified API usage limits. You will regain access next month.",
            ),
            (Provider::Anthropic, Trouble::Spend | Trouble::LimitZero) => Self::new(
                429,
                "rate_limit_error",
                "You have reached your API usage limits: your organization's monthly spend limit.",
            ),
            (_, Trouble::Capacity | Trouble::Upstream) => Self {
                code: Some("server_is_overloaded"),
                ..Self::new(
                    503,
                    "server_error",
                    "The engine is currently overloaded, please try again later",
                )
            },
            (_, Trouble::Balance) => Self::new(402, "insufficient_quota", "Insufficient Balance"),
            (_, Trouble::Quota | Trouble::Spend | Trouble::LimitZero) => Self {
                code: Some("insufficient_quota"),
                ..Self::new(
                    429,
                    "insufficient_quota",
                    "You exceeded your current quota, please check your plan and billing details. For more \
                     information on this error, read the docs: \
                     https://platform.openai.com/docs/guides/error-codes/api-errors.",
                )
            },
        };
        Self {
            should_retry: (provider == Provider::Anthropic && trouble == Trouble::Spend).then_some(false),
            ..problem.about(What::Trouble(trouble))
        }
    }

    /// An error of the service itself, or any other status that was asked for.
    pub(crate) fn of_status(provider: Provider, status: u16) -> Self {
        let (kind, message) = match (provider, status) {
            (Provider::Anthropic, 529) => ("overloaded_error", "Overloaded"),
            (Provider::Anthropic, 429) => ("rate_limit_error", "Rate limit is exceeded."),
            (Provider::Anthropic, 504) => ("timeout_error", "The request timed out while processing."),
            (Provider::Anthropic, 500..) => ("api_error", "Internal server error"),
            (Provider::Anthropic, 401) => ("authentication_error", "invalid x-api-key"),
            (Provider::Anthropic, 403) => ("permission_error", "Your API key may not do that."),
            (Provider::Anthropic, 404) => ("not_found_error", "Not found"),
            (Provider::Anthropic, _) => ("invalid_request_error", REFUSED_AS_ASKED),
            (_, 503) => (
                "server_error",
                "The engine is currently overloaded, please try again later",
            ),
            (_, 429) => ("requests", "Rate limit is exceeded."),
            (_, 500..) => (
                "server_error",
                "The server had an error while processing your request. Sorry about that!",
            ),
            _ => ("invalid_request_error", REFUSED_AS_ASKED),
        };
        Self::new(status, kind, message).about(What::Status)
    }

    /// A request that a limit refused.
    pub(crate) fn denied(provider: Provider, denied: Denied, model: &str) -> Self {
        let wait = denied.wait();
        let problem = match provider {
            Provider::Anthropic => anthropic_refusal(&denied, model),
            Provider::OpenAi if denied.refused.growing_to.is_some() => {
                Self::trouble(provider, Trouble::SlowDown)
            }
            // Only Azure checks slices, and it names no numbers.
            _ if denied.refused.window != denied.window => azure_refusal(wait),
            _ => openai_refusal(&denied, model),
        };
        Self {
            retry_after: wait,
            ..problem.about(What::Denied(Box::new(denied)))
        }
    }

    /// Returns the error in the provider's words.
    pub(crate) fn told(&self, context: &Context<'_>) -> Told {
        match context.provider {
            Provider::OpenAi => self.told_by_openai(),
            Provider::Anthropic => self.told_by_anthropic(context.request_id),
            Provider::Azure => azure::problem(self, context),
            Provider::Gemini | Provider::Vertex => gemini::problem(self, context),
            Provider::Groq => groq::problem(self, context),
            Provider::Mistral => mistral::problem(self, context),
            Provider::OpenRouter => openrouter::problem(self, context),
            Provider::DeepSeek | Provider::Vllm => hosted::problem(self, context),
            Provider::Cohere => cohere::problem(self, context),
            Provider::Bedrock => bedrock::problem(self),
        }
    }

    /// The error in OpenAI's shape, which many share.
    pub(crate) fn told_by_openai(&self) -> Told {
        let or_null = |text: Option<&str>| text.map_or_else(|| "null".to_owned(), quoted);
        let message = quoted(&self.message);
        let (kind, param, code) = (quoted(self.kind), or_null(self.param), or_null(self.code));
        let mut headers = self.retry_headers(true);
        headers.extend(self.should_retry_header());
        Told {
            status: self.status,
            headers,
            body: format!(
                r#"{{"error":{{"message":{message},"type":{kind},"param":{param},"code":{code}}}}}"#
            ),
        }
    }

    fn told_by_anthropic(&self, request_id: &str) -> Told {
        let message = quoted(&self.message);
        let details = match self.what {
            What::Trouble(Trouble::Spend | Trouble::LimitZero) => {
                r#","details":{"error_code":"enforced_spend_limit_reached"}"#
            }
            _ => "",
        };
        let mut headers = self.retry_headers(false);
        headers.extend(self.should_retry_header());
        Told {
            status: self.status,
            headers,
            body: format!(
                r#"{{"type":"error","error":{{"type":"{}","message":{message}{details}}},"request_id":"{request_id}"}}"#,
                self.kind
            ),
        }
    }

    /// `retry-after` in whole seconds, rounded up, and in milliseconds where asked for.
    pub(crate) fn retry_headers(&self, millis: bool) -> Vec<(&'static str, String)> {
        let Some(wait) = self.retry_after else {
            return Vec::new();
        };
        let mut headers = vec![("retry-after", whole_seconds(wait).to_string())];
        if millis {
            headers.push(("retry-after-ms", wait.as_millis().to_string()));
        }
        headers
    }

    fn should_retry_header(&self) -> Option<(&'static str, String)> {
        self.should_retry
            .map(|should| ("x-should-retry", should.to_string()))
    }
}

/// Returns a wait in whole seconds, rounded up.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX)
}

/// Adds an error's headers.
pub(crate) fn write_headers(told: &Told, headers: &mut HeaderMap) {
    for (name, value) in &told.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

impl Denied {
    /// What is told of the wait: whole milliseconds; `None` if it never ends.
    pub(crate) fn wait(&self) -> Option<Duration> {
        match self.refused.wait {
            Wait::For(wait) => Some(up_to_millis(wait)),
            // Nobody knows when another request ends; providers say a second.
            Wait::Unknown => Some(Duration::from_secs(1)),
            Wait::Never => None,
        }
    }

    /// Whether the limit is over a day or longer.
    pub(crate) fn per_day(&self) -> bool {
        self.refused.window > MINUTE_MAX
    }

    /// The limit in the words of OpenAI and Groq, and its kind.
    pub(crate) fn described(&self, minute: &str) -> (String, &'static str) {
        let (per, letter) = if self.per_day() {
            ("day", 'D')
        } else {
            (minute, 'M')
        };
        match self.refused.dimension {
            Dimension::Requests => (format!("requests per {per} (RP{letter})"), "requests"),
            Dimension::Tokens => (format!("tokens per {per} (TP{letter})"), "tokens"),
            Dimension::Input => (format!("input tokens per {per} (ITP{letter})"), "tokens"),
            Dimension::Output => (format!("output tokens per {per} (OTP{letter})"), "tokens"),
            Dimension::Inputs => (format!("inputs per {per}"), "requests"),
            Dimension::Images => (format!("images per {per} (IP{letter})"), "requests"),
            Dimension::AudioSeconds if self.per_day() => {
                ("seconds of audio per day (ASD)".to_owned(), "seconds")
            }
            Dimension::AudioSeconds => ("seconds of audio per hour (ASH)".to_owned(), "seconds"),
            Dimension::Concurrency => ("concurrent requests".to_owned(), "requests"),
        }
    }
}

fn openai_refusal(denied: &Denied, model: &str) -> Problem {
    let (what, kind) = denied.described("min");
    let refused = &denied.refused;
    let (amount, used, requested) = (refused.amount, refused.used, refused.requested);
    let whose = format!("{model} in organization {OPENAI_ORGANIZATION} on {what}");
    let message = match denied.wait() {
        Some(wait) => format!(
            "Rate limit reached for {whose}: Limit {amount}, Used {used}, Requested {requested}. Please try again in \
             {}. Visit https://platform.openai.com/account/rate-limits to learn more.",
            go_duration(wait)
        ),
        None => format!(
            "Request too large for {whose}: Limit {amount}, Requested {requested}. The input or output tokens must be \
             reduced in order to run successfully. Visit https://platform.openai.com/account/rate-limits to learn more."
        ),
    };
    Problem {
        code: Some("rate_limit_exceeded"),
        ..Problem::new(429, kind, message)
    }
}

fn azure_refusal(wait: Option<Duration>) -> Problem {
    let seconds = wait.map_or(86_400, whole_seconds);
    let message = format!("Rate limit is exceeded. Try again in {seconds} seconds.");
    Problem {
        code: Some("429"),
        ..Problem::new(429, "requests", message)
    }
}

fn anthropic_refusal(denied: &Denied, model: &str) -> Problem {
    let refused = &denied.refused;
    let what = match refused.dimension {
        Dimension::Requests => "requests",
        Dimension::Tokens => "tokens",
        Dimension::Input => "input tokens",
        Dimension::Output => "output tokens",
        Dimension::Inputs => "inputs",
        Dimension::Images => "images",
        Dimension::AudioSeconds => "seconds of audio",
        Dimension::Concurrency => "",
    };
    let amount = thousands(refused.amount);
    let message = if refused.dimension == Dimension::Concurrency {
        "Number of concurrent connections has exceeded your rate limit. Please try again later or contact sales at \
         https://www.anthropic.com/contact-sales to discuss your options for a rate limit increase."
            .to_owned()
    } else if let Some(next) = refused.growing_to {
        format!(
            "This request would exceed your organization's maximum usage increase rate for {what} per minute (org: \
             {ANTHROPIC_ORGANIZATION}, model: {model}). Your current limit is {amount} {what} per minute, and will \
             increase to {} at the next minute boundary. Please scale up your {what} usage more gradually to stay \
             within the acceleration limit.",
            thousands(next)
        )
    } else {
        let per = if denied.window > MINUTE_MAX {
            "day"
        } else {
            "minute"
        };
        format!(
            "This request would exceed your organization's rate limit of {amount} {what} per {per} (org: \
             {ANTHROPIC_ORGANIZATION}, model: {model}). For details, refer to: \
             https://docs.claude.com/en/api/rate-limits. You can see the response headers for current usage. Please \
             reduce the prompt length or the maximum tokens requested, or try again later. You may also contact sales \
             at https://www.anthropic.com/contact-sales to discuss your options for a rate limit increase."
        )
    };
    Problem {
        should_retry: Some(refused.wait != Wait::Never),
        ..Problem::new(429, "rate_limit_error", message)
    }
}
