//! OpenAI, and everything that imitates it without rules of its own.

use tidegate_core::provider::Dialect;
use tidegate_core::{ChargeModel, Discipline, Learning};

use super::{Api, AuthStyle, Profile, Provider, Root, Shape};

/// OpenAI itself (providers.md §2).
pub(super) const PROFILE: Profile = Profile {
    provider: Provider::OpenAi,
    base_url: Some("https://api.openai.com"),
    base_url_example: "https://api.openai.com",
    base_url_ends: &[],
    openai_roots: &[Root::V1],
    native_roots: &[],
    apis: &[Api::OpenAi],
    dialect: Dialect::OpenAi,
    charge: ChargeModel::OPENAI,
    learning: Learning::Answers,
    discipline: Discipline::Rolling,
    slice: None,
    day: Discipline::TokenBucket,
    auth: AuthStyle::Bearer,
    shape: Shape::OpenAi,
    stream_usage_optional: true,
    refuses_in_success: false,
};

/// Anything that speaks OpenAI's API; what it charges is corrected by the usage that it reports.
pub(super) const COMPATIBLE: Profile = Profile {
    provider: Provider::Compatible,
    base_url: None,
    base_url_example: "http://127.0.0.1:11434",
    charge: ChargeModel::SETTLED,
    day: Discipline::Rolling,
    ..PROFILE
};
