//! Azure's words and headers (providers.md §3.4, §3.5).

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::limits::{Dimension, PoolState};
use crate::problem::{Context, Problem, Told, What, whole_seconds};
use crate::rate_headers::{binding, shown};
use crate::route::Endpoint;
use crate::text::quoted;

/// Where the pretended resource is.
pub(crate) const REGION: &str = "East US 2";

/// Returns an error in Azure's words.
pub(crate) fn problem(problem: &Problem, context: &Context<'_>) -> Told {
    let code = match problem.what {
        What::MissingKey | What::WrongKey => "401",
        What::UnknownModel => "DeploymentNotFound",
        What::UnknownUrl => "404",
        What::Denied(_) => "429",
        _ => "",
    };
    let endpoint = context.target.map(|target| target.endpoint);
    let silent = endpoint == Some(Endpoint::Responses) && problem.status == 429;
    let headers = if silent {
        Vec::new()
    } else {
        problem.retry_headers(true)
    };
    if code.is_empty() {
        return Told {
            headers,
            ..problem.told_by_openai()
        };
    }
    let message = match &problem.what {
        What::MissingKey | What::WrongKey => {
            "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for \
             an active subscription and use a correct regional API endpoint for your resource."
                .to_owned()
        }
        What::UnknownModel => {
            "The API deployment for this resource does not exist. If you created the deployment within the last 5 \
             minutes, please wait a moment and try again."
                .to_owned()
        }
        What::Denied(denied) => {
            let calls = denied.refused.dimension == Dimension::Requests;
            refusal(problem, context, if calls { "call" } else { "token" })
        }
        _ => "Resource not found".to_owned(),
    };
    Told {
        status: problem.status,
        headers,
        body: format!(
            r#"{{"error":{{"code":"{code}","message":{}}}}}"#,
            quoted(&message)
        ),
    }
}

/// Three wordings were seen: one for each generation of `api-version`, and a short one (here: without any version).
fn refusal(problem: &Problem, context: &Context<'_>, what: &str) -> String {
    // What can never fit is told to come back after a day.
    let seconds = problem.retry_after.map_or(86_400, whole_seconds);
    let operation = match context.target.map(|target| target.endpoint) {
        Some(Endpoint::Embeddings) => "Embeddings_Create",
        Some(Endpoint::Completions) => "Completions_Create",
        Some(Endpoint::Responses) => "Responses_Create",
        _ => "ChatCompletions_Create",
    };
    let increase = "Please go here: https://aka.ms/oai/quotaincrease if you would like to further increase the default \
                    rate limit.";
    match context.target.and_then(|target| target.version.as_deref()) {
        None => format!("Rate limit is exceeded. Try again in {seconds} seconds."),
        Some(version) if version >= "2025" => {
            let model = context.model;
            format!(
                "Your requests to {model} for {model} in {REGION} have exceeded the {what} rate limit for your current \
                 AIServices S0 pricing tier. This request was for {operation} under Azure OpenAI API version \
                 {version}. Please retry after {seconds} seconds. {increase}"
            )
        }
        Some(version) => format!(
            "Requests to the {operation} Operation under Azure OpenAI API version {version} have exceeded {what} rate \
             limit of your current OpenAI S0 pricing tier. Please retry after {seconds} seconds. {increase}"
        ),
    }
}

/// Adds the rate-limit headers: whole numbers, of requests those of the slice; on Responses nothing is known.
pub(crate) fn write_headers(states: &[PoolState], endpoint: Endpoint, headers: &mut HeaderMap) {
    let shown = shown(states);
    for (dimension, name) in [(Dimension::Requests, "requests"), (Dimension::Tokens, "tokens")] {
        let Some(state) = binding(&shown, dimension) else {
            continue;
        };
        let (limit, remaining, reset) = state
            .slice
            .map_or((state.limit.amount, state.remaining, state.reset), |slice| {
                (slice.amount, slice.remaining, slice.reset)
            });
        let told = if endpoint == Endpoint::Responses {
            ["-1".to_owned(), "-1".to_owned(), "0".to_owned()]
        } else {
            [
                limit.to_string(),
                remaining.to_string(),
                whole_seconds(reset).to_string(),
            ]
        };
        for (part, value) in ["limit", "remaining", "reset"].into_iter().zip(told) {
            write(headers, &format!("x-ratelimit-{part}-{name}"), &value);
        }
    }
}

/// Adds what every response carries.
pub(crate) fn write_identity(request_id: &str, headers: &mut HeaderMap) {
    write(headers, "apim-request-id", request_id);
    write(headers, "x-request-id", request_id);
    write(headers, "x-ms-region", REGION);
    write(headers, "x-envoy-upstream-service-time", "1");
}

fn write(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}
