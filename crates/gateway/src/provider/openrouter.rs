//! OpenRouter.

use tidegate_core::provider::Dialect;
use tidegate_core::{ChargeModel, Discipline, Zone};

use super::{Profile, Provider, Root, Shape, openai};

/// OpenRouter (providers.md §11): paid models have no limits of its own, free ones share a day in UTC.
pub(super) const PROFILE: Profile = Profile {
    provider: Provider::OpenRouter,
    base_url: Some("https://openrouter.ai"),
    base_url_example: "https://openrouter.ai",
    base_url_ends: &["/api"],
    openai_roots: &[Root::ApiV1],
    dialect: Dialect::OpenRouter,
    charge: ChargeModel::SETTLED,
    day: Discipline::Day(Zone::Utc),
    shape: Shape::OpenRouter,
    // Usage always comes in the last chunk.
    stream_usage_optional: false,
    refuses_in_success: true,
    ..openai::PROFILE
};
