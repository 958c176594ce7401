//! OpenRouter's words (providers.md §11).

use std::fmt::Write;

use crate::body::Reply;
use crate::directive::Trouble;
use crate::limits::LimitState;
use crate::problem::{Context, Problem, Told, What};
use crate::text::{quoted, up_to_millis};

/// Returns an error in OpenRouter's words.
pub(crate) fn problem(problem: &Problem, context: &Context<'_>) -> Told {
    let told = |status: u16, headers, message: &str, metadata: &str| Told {
        status,
        headers,
        body: format!(
            r#"{{"error":{{"message":{},"code":{status}{metadata}}},"user_id":"user_tidegatemock"}}"#,
            quoted(message)
        ),
    };
    match &problem.what {
        What::Denied(denied) => {
            let reset = context.unix.saturating_add(denied.wait().unwrap_or_default());
            let reset = up_to_millis(reset).as_millis().to_string();
            let (message, source) = if denied.per_day() {
                (
                    "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per \
                     day",
                    r#","limit_source":"openrouter_free_tier_daily""#,
                )
            } else {
                ("Rate limit exceeded: free-models-per-min. ", "")
            };
            let limit = denied.refused.amount.to_string();
            let metadata = format!(
                r#","metadata":{{"headers":{{"X-RateLimit-Limit":"{limit}","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"{reset}"}},"provider_name":null{source}}}"#
            );
            let headers = vec![
                ("x-ratelimit-limit", limit),
                ("x-ratelimit-remaining", "0".to_owned()),
                ("x-ratelimit-reset", reset),
            ];
            told(429, headers, message, &metadata)
        }
        What::Trouble(Trouble::Upstream) => {
            let status = 200;
            Told {
                status,
                ..told(429, Vec::new(), UPSTREAM, &upstream_metadata(context.model))
            }
        }
        What::Trouble(Trouble::Capacity) => {
            told(429, Vec::new(), UPSTREAM, &upstream_metadata(context.model))
        }
        What::Trouble(_) => told(
            402,
            Vec::new(),
            "Insufficient credits. Add more using https://openrouter.ai/settings/credits",
            r#","metadata":{"limit_source":"openrouter_credits"}"#,
        ),
        What::MissingKey => told(401, Vec::new(), "No auth credentials found", ""),
        What::WrongKey => told(401, Vec::new(), "User not found.", ""),
        _ => told(problem.status, Vec::new(), &problem.message, ""),
    }
}

const UPSTREAM: &str = "Provider returned error";

fn upstream_metadata(model: &str) -> String {
    let raw = format!("{model} is temporarily rate-limited upstream. Please retry shortly.");
    format!(r#","metadata":{{"raw":{},"provider_name":"Mock"}}"#, quoted(&raw))
}

/// Writes the end of a stream that the provider behind the provider broke off.
pub(crate) fn write_upstream_error(reply: &Reply, out: &mut String) {
    let Reply {
        id, created, model, ..
    } = reply;
    let _ = write!(
        out,
        "data: {{\"id\":\"gen-{id}\",\"object\":\"chat.completion.chunk\",\"created\":{created},\"model\":{model},\"provider\":\"Mock\",\"error\":{{\"code\":429,\"message\":\"{UPSTREAM}\"}},\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"finish_reason\":\"error\",\"native_finish_reason\":\"error\"}}]}}\n\ndata: [DONE]\n\n"
    );
}

/// Returns what a key may do: its requests to free models today.
pub(crate) fn key_info(daily: Option<&LimitState>) -> String {
    let free = daily.map_or_else(
        || "null".to_owned(),
        |daily| {
            let limit = daily.limit.amount;
            let used = limit.saturating_sub(daily.remaining);
            format!(
                r#"{{"used":{used},"limit":{limit},"remaining":{}}}"#,
                daily.remaining
            )
        },
    );
    format!(
        r#"{{"data":{{"label":"sk-or-v1-tid...ate","limit":null,"limit_reset":null,"limit_remaining":null,"usage":0,"usage_daily":0,"is_free_tier":true,"is_provisioning_key":false,"free_model_daily_requests":{free},"rate_limit":{{"requests":-1,"interval":"10s","note":"This field is deprecated and safe to ignore."}}}}}}"#
    )
}
