//! Anthropic.

use tidegate_core::ChargeModel;
use tidegate_core::provider::Dialect;

use super::{Api, AuthStyle, Profile, Provider, Root, Shape, openai};

/// Anthropic itself (providers.md §4). Counting tokens has a limit of its own.
pub(super) const PROFILE: Profile = Profile {
    provider: Provider::Anthropic,
    base_url: Some("https://api.anthropic.com"),
    base_url_example: "https://api.anthropic.com",
    openai_roots: &[],
    native_roots: &[Root::V1],
    apis: &[Api::Anthropic],
    dialect: Dialect::Anthropic,
    charge: ChargeModel::ANTHROPIC,
    auth: AuthStyle::ApiKeyHeader,
    shape: Shape::Anthropic,
    stream_usage_optional: false,
    ..openai::PROFILE
};
