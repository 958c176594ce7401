//! Anthropic.

use tidegate_core::ChargeModel;
use tidegate_core::provider::Dialect;

use super::{AuthStyle, Profile, Provider, Shape};

/// Anthropic itself.
pub(super) const PROFILE: Profile = Profile {
    provider: Provider::Anthropic,
    base_url: Some("https://api.anthropic.com"),
    dialect: Dialect::Anthropic,
    charge: ChargeModel::ANTHROPIC,
    auth: AuthStyle::ApiKeyHeader,
    shape: Shape::Anthropic,
    stream_usage_optional: false,
};
