//! OpenAI, and everything that imitates it.

use tidegate_core::ChargeModel;
use tidegate_core::provider::Dialect;

use super::{AuthStyle, Profile, Provider, Shape};

/// OpenAI itself.
pub(super) const PROFILE: Profile = Profile {
    provider: Provider::OpenAi,
    base_url: Some("https://api.openai.com"),
    dialect: Dialect::OpenAi,
    charge: ChargeModel::OPENAI,
    auth: AuthStyle::Bearer,
    shape: Shape::OpenAi,
    stream_usage_optional: true,
};

/// Anything that speaks OpenAI's API; what it charges is corrected by the usage that it reports.
pub(super) const COMPATIBLE: Profile = Profile {
    provider: Provider::Compatible,
    base_url: None,
    charge: ChargeModel::SETTLED,
    ..PROFILE
};
