//! DeepSeek.

use tidegate_core::provider::Dialect;
use tidegate_core::{ChargeModel, Discipline, Learning};

use super::{Api, Profile, Provider, Root, openai};

/// DeepSeek (providers.md §10): nothing but requests in flight is limited, and nothing tells how many are.
pub(super) const PROFILE: Profile = Profile {
    provider: Provider::DeepSeek,
    base_url: Some("https://api.deepseek.com"),
    base_url_example: "https://api.deepseek.com",
    base_url_ends: &[],
    openai_roots: &[Root::V1, Root::Bare, Root::Beta],
    native_roots: &[Root::AnthropicV1],
    apis: &[Api::OpenAi],
    dialect: Dialect::DeepSeek,
    charge: ChargeModel::SETTLED,
    learning: Learning::Probe,
    day: Discipline::Rolling,
    ..openai::PROFILE
};
