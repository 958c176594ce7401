//! Mistral's words and headers (providers.md §7).

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::directive::Trouble;
use crate::limits::{Dimension, PoolState};
use crate::openai::join;
use crate::problem::{Context, MINUTE_MAX, Problem, Told, What, whole_seconds};
use crate::rate_headers::shown;
use crate::text::quoted;

/// Returns an error in Mistral's words.
pub(crate) fn problem(problem: &Problem, context: &Context<'_>) -> Told {
    let mut headers = Vec::new();
    let body = match &problem.what {
        What::MissingKey | What::WrongKey => {
            format!(r#"{{"message":"Unauthorized","request_id":"{}"}}"#, context.request_id)
        }
        What::Denied(denied) if denied.refused.dimension == Dimension::Requests => {
            r#"{"message":"Requests rate limit exceeded"}"#.to_owned()
        }
        What::Trouble(Trouble::Capacity) => {
            r#"{"object":"error","message":"Service tier capacity exceeded for this model.","type":"invalid_request_error","param":null,"code":null}"#.to_owned()
        }
        What::Denied(_) | What::Trouble(_) => {
            if matches!(problem.what, What::Trouble(Trouble::LimitZero)) {
                // The model is not on the plan.
                headers.push(("x-ratelimit-limit-req-minute", "0".to_owned()));
                headers.push(("x-ratelimit-remaining-req-minute", "0".to_owned()));
            }
            r#"{"object":"error","message":"Rate limit exceeded","type":"rate_limited","param":null,"code":"1300","raw_status_code":429}"#.to_owned()
        }
        _ if problem.status == 422 => format!(
            r#"{{"detail":[{{"type":"{}","loc":["body","{}"],"msg":{}}}]}}"#,
            problem.code.unwrap_or("value_error"),
            problem.param.unwrap_or_default(),
            quoted(&problem.message)
        ),
        _ => format!(
            r#"{{"object":"error","message":{},"type":"{}","param":null,"code":null}}"#,
            quoted(&problem.message),
            problem.kind
        ),
    };
    let limited = matches!(problem.what, What::Denied(_) | What::Trouble(_));
    Told {
        status: if limited { 429 } else { problem.status },
        headers,
        body,
    }
}

/// Returns the list of models.
pub(crate) fn models(names: &[String], created: u64) -> String {
    let models = join(names.iter(), |text, name| text.push_str(&model(name, created)));
    format!(r#"{{"object":"list","data":[{models}]}}"#)
}

/// Returns one model.
pub(crate) fn model(name: &str, created: u64) -> String {
    format!(
        r#"{{"id":{},"object":"model","created":{created},"owned_by":"mistralai","capabilities":{{"completion_chat":true,"function_calling":true}},"max_context_length":131072,"aliases":[],"type":"base"}}"#,
        quoted(name)
    )
}

/// Adds the limits of minute and month, and what this request cost.
pub(crate) fn write_headers(states: &[PoolState], cost: Option<u64>, headers: &mut HeaderMap) {
    let mut write = |name: String, value: u64| {
        if let Ok(name) = HeaderName::try_from(name) {
            headers.insert(name, HeaderValue::from(value));
        }
    };
    for state in shown(states) {
        let what = match state.limit.dimension {
            Dimension::Requests => "req",
            Dimension::Tokens => "tokens",
            _ => continue,
        };
        let per = if state.limit.window > MINUTE_MAX {
            "month"
        } else {
            "minute"
        };
        write(format!("x-ratelimit-limit-{what}-{per}"), state.limit.amount);
        write(format!("x-ratelimit-remaining-{what}-{per}"), state.remaining);
        write(
            format!("x-ratelimit-reset-{what}-{per}"),
            whole_seconds(state.reset),
        );
    }
    if let Some(cost) = cost {
        write("x-ratelimit-tokens-query-cost".to_owned(), cost);
    }
}
