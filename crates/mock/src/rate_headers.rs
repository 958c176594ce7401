//! What responses tell about the limits (providers.md §2.4 and §4.4).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::limits::{Dimension, Level, LimitState, PoolState};
use crate::provider::Provider;
use crate::route::Target;
use crate::text::{go_duration, rfc_3339};
use crate::{azure, mistral};

/// Adds the rate-limit headers that the provider sends with every answer; `unix` is the time since 1970, `cost` what the
/// request was charged.
pub(crate) fn write(
    target: &Target,
    pools: &[PoolState],
    unix: Duration,
    cost: Option<u64>,
    headers: &mut HeaderMap,
) {
    match target.provider {
        Provider::OpenAi | Provider::Groq => {
            let states = shown(pools);
            write_openai(&states, Dimension::Requests, &OPENAI_REQUESTS, headers);
            write_openai(&states, Dimension::Tokens, &OPENAI_TOKENS, headers);
            let projects = pools.iter().filter(|pool| pool.level == Level::Project);
            let projects: Vec<LimitState> = projects.flat_map(|pool| &pool.limits).copied().collect();
            write_openai(&projects, Dimension::Tokens, &OPENAI_PROJECT_TOKENS, headers);
        }
        Provider::Anthropic => write_anthropic(&shown(pools), unix, headers),
        Provider::Azure => azure::write_headers(pools, target.endpoint, headers),
        Provider::Mistral => mistral::write_headers(pools, cost, headers),
        // The others tell nothing.
        Provider::Gemini
        | Provider::OpenRouter
        | Provider::DeepSeek
        | Provider::Cohere
        | Provider::Bedrock
        | Provider::Vertex
        | Provider::Vllm => {}
    }
}

/// Returns the organization's limits that are not hidden.
pub(crate) fn shown(pools: &[PoolState]) -> Vec<LimitState> {
    let pools = pools.iter().filter(|pool| pool.level == Level::Organization);
    let limits = pools.flat_map(|pool| &pool.limits);
    limits.filter(|state| !state.limit.hidden).copied().collect()
}

/// The names of one dimension's headers: limit, remaining, reset.
type Names = [HeaderName; 3];

static OPENAI_REQUESTS: Names = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
static OPENAI_TOKENS: Names = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];
static OPENAI_PROJECT_TOKENS: Names = [
    HeaderName::from_static("x-ratelimit-limit-project-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-project-tokens"),
    HeaderName::from_static("x-ratelimit-reset-project-tokens"),
];
static ANTHROPIC_REQUESTS: Names = [
    HeaderName::from_static("anthropic-ratelimit-requests-limit"),
    HeaderName::from_static("anthropic-ratelimit-requests-remaining"),
    HeaderName::from_static("anthropic-ratelimit-requests-reset"),
];
static ANTHROPIC_TOKENS: Names = [
    HeaderName::from_static("anthropic-ratelimit-tokens-limit"),
    HeaderName::from_static("anthropic-ratelimit-tokens-remaining"),
    HeaderName::from_static("anthropic-ratelimit-tokens-reset"),
];
static ANTHROPIC_INPUT: Names = [
    HeaderName::from_static("anthropic-ratelimit-input-tokens-limit"),
    HeaderName::from_static("anthropic-ratelimit-input-tokens-remaining"),
    HeaderName::from_static("anthropic-ratelimit-input-tokens-reset"),
];
static ANTHROPIC_OUTPUT: Names = [
    HeaderName::from_static("anthropic-ratelimit-output-tokens-limit"),
    HeaderName::from_static("anthropic-ratelimit-output-tokens-remaining"),
    HeaderName::from_static("anthropic-ratelimit-output-tokens-reset"),
];

/// Of several limits of one dimension the binding one is shown: that which takes longest to come back.
pub(crate) fn binding(states: &[LimitState], dimension: Dimension) -> Option<&LimitState> {
    let of_dimension = states.iter().filter(|state| state.limit.dimension == dimension);
    of_dimension.reduce(|binding, next| if next.reset > binding.reset { next } else { binding })
}

fn write_openai(states: &[LimitState], dimension: Dimension, names: &Names, headers: &mut HeaderMap) {
    let Some(state) = binding(states, dimension) else {
        return;
    };
    let reset = HeaderValue::from_str(&go_duration(state.reset)).expect("durations are plain ASCII");
    headers.insert(names[0].clone(), HeaderValue::from(state.limit.amount));
    headers.insert(names[1].clone(), HeaderValue::from(state.remaining));
    headers.insert(names[2].clone(), reset);
}

fn write_anthropic(states: &[LimitState], unix: Duration, headers: &mut HeaderMap) {
    let mut write = |names: &Names, limit: u64, remaining: u64, reset: Duration| {
        let at = unix.saturating_add(reset);
        let seconds = at.as_secs() + u64::from(at.subsec_nanos() > 0);
        let reset = HeaderValue::from_str(&rfc_3339(seconds)).expect("times are plain ASCII");
        headers.insert(names[0].clone(), HeaderValue::from(limit));
        headers.insert(names[1].clone(), HeaderValue::from(remaining));
        headers.insert(names[2].clone(), reset);
    };
    if let Some(state) = binding(states, Dimension::Requests) {
        write(
            &ANTHROPIC_REQUESTS,
            state.limit.amount,
            state.remaining,
            state.reset,
        );
    }
    let input = binding(states, Dimension::Input);
    let output = binding(states, Dimension::Output);
    for (names, state) in [(&ANTHROPIC_INPUT, input), (&ANTHROPIC_OUTPUT, output)] {
        if let Some(state) = state {
            write(
                names,
                state.limit.amount,
                to_thousands(state.remaining),
                state.reset,
            );
        }
    }
    if let Some(state) = binding(states, Dimension::Tokens) {
        write(
            &ANTHROPIC_TOKENS,
            state.limit.amount,
            to_thousands(state.remaining),
            state.reset,
        );
    } else if let (Some(input), Some(output)) = (input, output) {
        let limit = input.limit.amount.saturating_add(output.limit.amount);
        let remaining = input.remaining.saturating_add(output.remaining);
        write(
            &ANTHROPIC_TOKENS,
            limit,
            to_thousands(remaining),
            input.reset.max(output.reset),
        );
    }
}

/// Rounds to the nearest thousand, as Anthropic does with remaining tokens.
fn to_thousands(tokens: u64) -> u64 {
    tokens.saturating_add(500) / 1_000 * 1_000
}
