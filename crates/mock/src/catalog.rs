//! What can be asked without a model at work: models, limits, the state of a key.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::limits::{Dimension, Level, Limit, Pool, Subject};
use crate::openai::join;
use crate::problem::{MINUTE_MAX, Problem};
use crate::provider::Provider;
use crate::settings::Key;
use crate::state::State;
use crate::text::quoted;
use crate::{anthropic, gemini, mistral, openai, openrouter};

/// The models that exist where any do.
const fn example_models(provider: Provider) -> &'static [&'static str] {
    match provider {
        Provider::OpenAi | Provider::Azure => &["gpt-4o", "gpt-4o-mini", "text-embedding-3-small"],
        Provider::Anthropic => &[
            "claude-sonnet-4-5",
            "claude-sonnet-4-6",
            "claude-sonnet-5",
            "claude-opus-4-5",
            "claude-opus-4-6",
            "claude-opus-4-7",
            "claude-opus-4-8",
            "claude-opus-5",
            "claude-haiku-4-5",
            "claude-fable-5",
        ],
        Provider::Gemini | Provider::Vertex => {
            &["gemini-2.5-flash", "gemini-2.5-pro", "gemini-embedding-001"]
        }
        Provider::Groq => &[
            "llama-3.1-8b-instant",
            "llama-3.3-70b-versatile",
            "openai/gpt-oss-120b",
        ],
        Provider::Mistral => &["mistral-small-latest", "mistral-large-latest", "mistral-embed"],
        Provider::OpenRouter => &["openai/gpt-4o", "meta-llama/llama-3.3-70b-instruct:free"],
        Provider::DeepSeek => &["deepseek-flash", "deepseek-v4-pro"],
        Provider::Cohere => &["command-a-03-2025", "embed-v4.0", "rerank-v3.5"],
        Provider::Bedrock => &[
            "anthropic.claude-sonnet-4-5-20250929-v1:0",
            "openai.gpt-oss-120b-1:0",
        ],
        Provider::Vllm => &["mock"],
    }
}

fn known_models(state: &State, provider: Provider) -> Vec<String> {
    if state.settings.models.is_empty() {
        let examples = example_models(provider).iter();
        examples.map(|name| (*name).to_owned()).collect()
    } else {
        state.settings.models.clone()
    }
}

/// Returns the list of models.
pub(crate) fn models(state: &State, provider: Provider) -> String {
    let names = known_models(state, provider);
    match provider {
        Provider::Anthropic => anthropic::models(&names),
        Provider::Mistral => mistral::models(&names, state.unix_seconds()),
        Provider::Gemini | Provider::Vertex => gemini::models(&names),
        _ => openai::models(&names, state.unix_seconds()),
    }
}

/// Returns one model.
///
/// # Errors
///
/// Returns that there is none of this name.
pub(crate) fn model(state: &State, provider: Provider, name: &str) -> Result<String, Problem> {
    let known = &state.settings.models;
    if !known.is_empty() && !known.iter().any(|model| model == name) {
        return Err(Problem::unknown_model(provider, name));
    }
    Ok(match provider {
        Provider::Anthropic => anthropic::model(name),
        Provider::Mistral => mistral::model(name, state.unix_seconds()),
        Provider::Gemini | Provider::Vertex => gemini::model(name),
        _ => openai::model(name, state.unix_seconds()),
    })
}

/// Returns what OpenRouter tells of a key (providers.md §11).
pub(crate) fn key_info(state: &State, key: &Key) -> String {
    let subject = Subject {
        key,
        model: "any:free",
        endpoint: "chat/completions",
    };
    let states = state.look(Provider::OpenRouter, &subject);
    let mut limits = states.iter().flat_map(|pool| &pool.limits);
    let daily =
        limits.find(|state| state.limit.dimension == Dimension::Requests && state.limit.window > MINUTE_MAX);
    openrouter::key_info(daily)
}

/// Returns Anthropic's limits: groups of the models that share them, and those of other endpoints (providers.md §4.6).
pub(crate) fn rate_limits(state: &State, workspace: bool, query: &str) -> String {
    let level = if workspace {
        Level::Project
    } else {
        Level::Organization
    };
    let pools = state.pools(Provider::Anthropic);
    let pools = || {
        pools
            .iter()
            .filter(|pool| pool.level == level && !pool.limits.is_empty())
    };
    let mut groups: BTreeMap<(usize, String), Vec<String>> = BTreeMap::new();
    for model in known_models(state, Provider::Anthropic) {
        for (index, pool) in pools().enumerate() {
            if pool.is_for("messages", &model) {
                let name = pool.group_of(&model).to_owned();
                groups.entry((index, name)).or_default().push(model.clone());
            }
        }
    }
    let wanted = |name| crate::route::parameter(query, name);
    let (model, group_type) = (wanted("model"), wanted("group_type"));
    let of_type = |name: &str| group_type.as_deref().is_none_or(|wanted| wanted == name);
    let mut data: Vec<String> = Vec::new();
    for ((index, _), models) in &groups {
        let named = model.as_ref().is_none_or(|model| models.contains(model));
        if let Some(pool) = pools().nth(*index).filter(|_| named && of_type("model_group")) {
            let models = join(models.iter(), |text, model| text.push_str(&quoted(model)));
            data.push(entry("model_group", &format!("[{models}]"), pool));
        }
    }
    if model.is_none() && of_type("token_count") {
        let counting = pools().filter(|pool| {
            let mut endpoints = pool.applies.endpoints.iter();
            endpoints.any(|endpoint| endpoint == "messages/count_tokens")
        });
        data.extend(counting.map(|pool| entry("token_count", "null", pool)));
    }
    format!(r#"{{"data":[{}],"next_page":null}}"#, data.join(","))
}

fn entry(group: &str, models: &str, pool: &Pool) -> String {
    let told = pool.limits.iter().filter(|limit| !limit.hidden);
    let limits = join(
        told.filter_map(|limit| Some((kind(limit)?, limit.amount))),
        |text, (kind, value)| {
            let _ = write!(text, r#"{{"type":"{kind}","value":{value}}}"#);
        },
    );
    format!(r#"{{"type":"rate_limit","group_type":"{group}","models":{models},"limits":[{limits}]}}"#)
}

fn kind(limit: &Limit) -> Option<&'static str> {
    Some(match limit.dimension {
        Dimension::Requests => "requests_per_minute",
        Dimension::Input => "input_tokens_per_minute",
        Dimension::Output => "output_tokens_per_minute",
        Dimension::Tokens => "tokens_per_minute",
        _ => return None,
    })
}
