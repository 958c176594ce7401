//! Groq's words (providers.md §8).

use crate::problem::{Context, Problem, Told, What};
use crate::text::{go_duration, quoted};

const ORGANIZATION: &str = "org_01tidegatemock000000000000";

/// Returns an error in Groq's words. What is larger than the limit is 413 there.
pub(crate) fn problem(problem: &Problem, context: &Context<'_>) -> Told {
    let What::Denied(denied) = &problem.what else {
        return problem.told_by_openai();
    };
    let (what, kind) = denied.described("minute");
    let refused = &denied.refused;
    let (amount, used, requested) = (refused.amount, refused.used, refused.requested);
    let model = context.model;
    let whose =
        format!("model `{model}` in organization `{ORGANIZATION}` service tier `on_demand` on {what}");
    let upgrade = "Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing";
    let (status, message) = match denied.wait() {
        Some(wait) => (
            429,
            format!(
                "Rate limit reached for {whose}: Limit {amount}, Used {used}, Requested {requested}. Please try again \
                 in {}. {upgrade}",
                go_duration(wait)
            ),
        ),
        None => (
            413,
            format!(
                "Request too large for {whose}: Limit {amount}, Requested {requested}, please reduce your message size \
                 and try again. {upgrade}"
            ),
        ),
    };
    let mut headers = problem.retry_headers(false);
    if status == 413 {
        headers.push(("x-should-retry", "false".to_owned()));
    }
    Told {
        status,
        headers,
        body: format!(
            r#"{{"error":{{"message":{},"type":"{kind}","code":"rate_limit_exceeded"}}}}"#,
            quoted(&message)
        ),
    }
}
