//! The errors of both providers, word for word where the words are known (providers.md §2.5 and §4.5).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::directive::Exhausted;
use crate::limits::{Dimension, Refused, Wait};
use crate::settings::Dialect;
use crate::text::{go_duration, quoted, thousands, up_to_millis};

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    kind: &'static str,
    param: Option<&'static str>,
    code: Option<&'static str>,
    /// Anthropic's `error.details.error_code`.
    detail: Option<&'static str>,
    message: String,
    retry_after: Option<Duration>,
    should_retry: Option<bool>,
}

/// The pretended organization.
pub(crate) const OPENAI_ORGANIZATION: &str = "org-tidegatemock0000000000000";
pub(crate) const ANTHROPIC_ORGANIZATION: &str = "00000000-0000-4000-8000-000000000000";

/// Windows up to this long are called minutes, longer ones days: tests shorten them.
const MINUTE_MAX: Duration = Duration::from_secs(3_600);

impl Problem {
    fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            param: None,
            code: None,
            detail: None,
            message: message.into(),
            retry_after: None,
            should_retry: None,
        }
    }

    fn bad_request(
        dialect: Dialect,
        param: &'static str,
        code: Option<&'static str>,
        openai: String,
        anthropic: &str,
    ) -> Self {
        match dialect {
            Dialect::OpenAi => Self {
                param: Some(param),
                code,
                ..Self::new(400, "invalid_request_error", openai)
            },
            Dialect::Anthropic => Self::new(400, "invalid_request_error", format!("{param}: {anthropic}")),
        }
    }

    pub(crate) fn invalid_json(dialect: Dialect) -> Self {
        let message = match dialect {
            Dialect::OpenAi => {
                "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your \
                 HTTP library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON. \
                 If you have trouble figuring out how to fix this, please contact us through our help center at \
                 help.openai.com.)"
            }
            Dialect::Anthropic => "The request body is not valid JSON.",
        };
        Self::new(400, "invalid_request_error", message)
    }

    pub(crate) fn missing_model(dialect: Dialect) -> Self {
        match dialect {
            Dialect::OpenAi => Self::new(400, "invalid_request_error", "you must provide a model parameter"),
            Dialect::Anthropic => Self::missing(dialect, "model"),
        }
    }

    pub(crate) fn missing(dialect: Dialect, param: &'static str) -> Self {
        let openai = format!("Missing required parameter: '{param}'.");
        Self::bad_request(
            dialect,
            param,
            Some("missing_required_parameter"),
            openai,
            "Field required",
        )
    }

    pub(crate) fn wrong_type(dialect: Dialect, param: &'static str, expected: &str) -> Self {
        let openai = format!("Invalid type for '{param}': expected {expected}.");
        let anthropic = format!("Input should be {expected}");
        Self::bad_request(dialect, param, Some("invalid_type"), openai, &anthropic)
    }

    pub(crate) fn below(dialect: Dialect, param: &'static str, min: u64, got: &str) -> Self {
        let openai = format!(
            "Invalid '{param}': integer below minimum value. Expected a value >= {min}, but got {got} instead."
        );
        let anthropic = format!("Input should be greater than or equal to {min}");
        Self::bad_request(
            dialect,
            param,
            Some("integer_below_min_value"),
            openai,
            &anthropic,
        )
    }

    pub(crate) fn above(dialect: Dialect, param: &'static str, max: u64, got: &str) -> Self {
        let openai = format!(
            "Invalid '{param}': integer above maximum value. Expected a value <= {max}, but got {got} instead."
        );
        let anthropic = format!("{got} > {max}, which is the maximum allowed value");
        Self::bad_request(
            dialect,
            param,
            Some("integer_above_max_value"),
            openai,
            &anthropic,
        )
    }

    pub(crate) fn invalid(dialect: Dialect, param: &'static str, message: &str) -> Self {
        Self::bad_request(dialect, param, Some("invalid_value"), message.to_owned(), message)
    }

    pub(crate) fn missing_version() -> Self {
        Self::new(
            400,
            "invalid_request_error",
            "anthropic-version: header is required",
        )
    }

    pub(crate) fn missing_key(dialect: Dialect) -> Self {
        match dialect {
            Dialect::OpenAi => Self::new(
                401,
                "invalid_request_error",
                "You didn't provide an API key. You need to provide your API key in an Authorization header using \
                 Bearer auth (i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank username) if \
                 you're accessing the API from your browser and are prompted for a username and password. You can \
                 obtain an API key from https://platform.openai.com/account/api-keys.",
            ),
            Dialect::Anthropic => Self::new(401, "authentication_error", "x-api-key header is required"),
        }
    }

    /// The key itself is not repeated: it may be a real one.
    pub(crate) fn wrong_key(dialect: Dialect) -> Self {
        match dialect {
            Dialect::OpenAi => Self {
                code: Some("invalid_api_key"),
                ..Self::new(
                    401,
                    "invalid_request_error",
                    "Incorrect API key provided. You can find your API key at \
                     https://platform.openai.com/account/api-keys.",
                )
            },
            Dialect::Anthropic => Self::new(401, "authentication_error", "invalid x-api-key"),
        }
    }

    pub(crate) fn unknown_model(dialect: Dialect, model: &str) -> Self {
        match dialect {
            Dialect::OpenAi => Self {
                code: Some("model_not_found"),
                ..Self::new(
                    404,
                    "invalid_request_error",
                    format!("The model `{model}` does not exist or you do not have access to it."),
                )
            },
            Dialect::Anthropic => Self::new(404, "not_found_error", format!("model: {model}")),
        }
    }

    pub(crate) fn unknown_url(dialect: Dialect, method: &Method, path: &str) -> Self {
        match dialect {
            Dialect::OpenAi => Self::new(
                404,
                "invalid_request_error",
                format!("Invalid URL ({method} {path})"),
            ),
            Dialect::Anthropic => Self::new(404, "not_found_error", "Not found"),
        }
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

    pub(crate) fn too_large_body(dialect: Dialect) -> Self {
        match dialect {
            Dialect::OpenAi => Self::new(413, "invalid_request_error", "The request body is too large."),
            Dialect::Anthropic => Self::new(
                413,
                "request_too_large",
                "Request exceeds the maximum allowed number of bytes.",
            ),
        }
    }

    pub(crate) fn exhausted(dialect: Dialect, what: Exhausted) -> Self {
        match (dialect, what) {
            (Dialect::OpenAi, Exhausted::Quota | Exhausted::Spend) => Self {
                code: Some("insufficient_quota"),
                ..Self::new(
                    429,
                    "insufficient_quota",
                    "You exceeded your current quota, please check your plan and billing details. For more \
                     information on this error, read the docs: \
                     https://platform.openai.com/docs/guides/error-codes/api-errors.",
                )
            },
            (Dialect::Anthropic, Exhausted::Quota) => Self::new(
                400,
                "invalid_request_error",
                "You have reached your specified API usage limits. You will regain access next month.",
            ),
            (Dialect::Anthropic, Exhausted::Spend) => Self {
                detail: Some("enforced_spend_limit_reached"),
                ..Self::new(
                    429,
                    "rate_limit_error",
                    "You have reached your API usage limits: your organization's monthly spend limit.",
                )
            },
        }
    }

    /// An error of the service itself, or any other status that was asked for.
    pub(crate) fn of_status(dialect: Dialect, status: u16) -> Self {
        let (kind, message) = match (dialect, status) {
            (Dialect::OpenAi, 503) => (
                "server_error",
                "The engine is currently overloaded, please try again later",
            ),
            (Dialect::OpenAi, 429) => ("requests", "Rate limit is exceeded."),
            (Dialect::OpenAi, 500..) => (
                "server_error",
                "The server had an error while processing your request. Sorry about that!",
            ),
            (Dialect::OpenAi, _) => (
                "invalid_request_error",
                "The request was refused, as it asked for.",
            ),
            (Dialect::Anthropic, 529) => ("overloaded_error", "Overloaded"),
            (Dialect::Anthropic, 429) => ("rate_limit_error", "Rate limit is exceeded."),
            (Dialect::Anthropic, 504) => ("timeout_error", "The request timed out while processing."),
            (Dialect::Anthropic, 500..) => ("api_error", "Internal server error"),
            (Dialect::Anthropic, 401) => ("authentication_error", "invalid x-api-key"),
            (Dialect::Anthropic, 403) => ("permission_error", "Your API key may not do that."),
            (Dialect::Anthropic, 404) => ("not_found_error", "Not found"),
            (Dialect::Anthropic, _) => (
                "invalid_request_error",
                "The request was refused, as it asked for.",
            ),
        };
        Self::new(status, kind, message)
    }

    /// A request that a limit refused; `window` is that of the whole limit.
    pub(crate) fn refused(dialect: Dialect, refused: &Refused, window: Duration, model: &str) -> Self {
        let wait = match refused.wait {
            Wait::For(wait) => Some(up_to_millis(wait)),
            // Nobody knows when another request ends; providers say a second.
            Wait::Unknown => Some(Duration::from_secs(1)),
            Wait::Never => None,
        };
        let problem = match dialect {
            Dialect::OpenAi if refused.window != window => azure_refusal(wait),
            Dialect::OpenAi => openai_refusal(refused, wait, model),
            Dialect::Anthropic => anthropic_refusal(refused, window, model),
        };
        Self {
            retry_after: wait,
            ..problem
        }
    }

    /// Returns the body in the provider's shape.
    pub(crate) fn body(&self, dialect: Dialect, request_id: &str) -> String {
        let message = quoted(&self.message);
        match dialect {
            Dialect::OpenAi => {
                let or_null = |text: Option<&str>| text.map_or_else(|| "null".to_owned(), quoted);
                let (kind, param, code) = (quoted(self.kind), or_null(self.param), or_null(self.code));
                format!(r#"{{"error":{{"message":{message},"type":{kind},"param":{param},"code":{code}}}}}"#)
            }
            Dialect::Anthropic => {
                let details = self.detail.map_or_else(String::new, |code| {
                    format!(r#","details":{{"error_code":"{code}"}}"#)
                });
                format!(
                    r#"{{"type":"error","error":{{"type":"{}","message":{message}{details}}},"request_id":"{request_id}"}}"#,
                    self.kind
                )
            }
        }
    }

    /// Adds `retry-after` and its kin.
    pub(crate) fn write_headers(&self, dialect: Dialect, headers: &mut HeaderMap) {
        if let Some(wait) = self.retry_after {
            let seconds = u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX);
            headers.insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
            if dialect == Dialect::OpenAi {
                let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                headers.insert(
                    HeaderName::from_static("retry-after-ms"),
                    HeaderValue::from(millis),
                );
            }
        }
        if let Some(should) = self.should_retry {
            let value = if should { "true" } else { "false" };
            headers.insert(
                HeaderName::from_static("x-should-retry"),
                HeaderValue::from_static(value),
            );
        }
    }
}

fn openai_refusal(refused: &Refused, wait: Option<Duration>, model: &str) -> Problem {
    let per_day = refused.window > MINUTE_MAX;
    let (what, kind) = match (refused.dimension, per_day) {
        (Dimension::Requests, false) => ("requests per min (RPM)", "requests"),
        (Dimension::Requests, true) => ("requests per day (RPD)", "requests"),
        (Dimension::Tokens, false) => ("tokens per min (TPM)", "tokens"),
        (Dimension::Tokens, true) => ("tokens per day (TPD)", "tokens"),
        (Dimension::Input, _) => ("input tokens per min (ITPM)", "tokens"),
        (Dimension::Output, _) => ("output tokens per min (OTPM)", "tokens"),
        (Dimension::Inputs, _) => ("inputs per min", "requests"),
        (Dimension::Images, _) => ("images per min (IPM)", "requests"),
        (Dimension::AudioSeconds, false) => ("seconds of audio per hour (ASH)", "seconds"),
        (Dimension::AudioSeconds, true) => ("seconds of audio per day (ASD)", "seconds"),
        (Dimension::Concurrency, _) => ("concurrent requests", "requests"),
    };
    let Refused {
        amount,
        used,
        requested,
        ..
    } = refused;
    let whose = format!("{model} in organization {OPENAI_ORGANIZATION} on {what}");
    let message = match wait {
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

/// Only Azure checks slices, and it names no numbers (providers.md §3.5).
fn azure_refusal(wait: Option<Duration>) -> Problem {
    let seconds = wait.map_or(86_400, |wait| wait.as_millis().div_ceil(1_000));
    let message = format!("Rate limit is exceeded. Try again in {seconds} seconds.");
    Problem {
        code: Some("429"),
        ..Problem::new(429, "requests", message)
    }
}

fn anthropic_refusal(refused: &Refused, window: Duration, model: &str) -> Problem {
    let what = match refused.dimension {
        Dimension::Requests => "requests",
        Dimension::Tokens => "tokens",
        Dimension::Input => "input tokens",
        Dimension::Output => "output tokens",
        Dimension::Inputs => "inputs",
        Dimension::Images => "images",
        Dimension::AudioSeconds => "seconds of audio",
        Dimension::Concurrency => {
            let message = "Number of concurrent connections has exceeded your rate limit. Please try again later or \
                           contact sales at https://www.anthropic.com/contact-sales to discuss your options for a \
                           rate limit increase.";
            return Problem {
                should_retry: Some(true),
                ..Problem::new(429, "rate_limit_error", message)
            };
        }
    };
    let per = if window > MINUTE_MAX { "day" } else { "minute" };
    let message = format!(
        "This request would exceed your organization's rate limit of {} {what} per {per} (org: \
         {ANTHROPIC_ORGANIZATION}, model: {model}). For details, refer to: \
         https://docs.claude.com/en/api/rate-limits. You can see the response headers for current usage. Please reduce \
         the prompt length or the maximum tokens requested, or try again later. You may also contact sales at \
         https://www.anthropic.com/contact-sales to discuss your options for a rate limit increase.",
        thousands(refused.amount)
    );
    Problem {
        should_retry: Some(refused.wait != Wait::Never),
        ..Problem::new(429, "rate_limit_error", message)
    }
}
