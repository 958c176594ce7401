//! Cohere.

use tidegate_core::provider::Dialect;
use tidegate_core::{ChargeModel, Discipline, Learning};

use super::{Api, Profile, Provider, Root, Shape, openai};

/// Cohere (providers.md §9): requests in a minute, for each operation and model; no headers.
pub(super) const PROFILE: Profile = Profile {
    provider: Provider::Cohere,
    base_url: Some("https://api.cohere.com"),
    base_url_example: "https://api.cohere.com",
    base_url_ends: &["/compatibility", "/v2"],
    openai_roots: &[Root::CompatibilityV1],
    native_roots: &[Root::V2, Root::V1],
    apis: &[Api::Cohere, Api::OpenAi],
    dialect: Dialect::Cohere,
    charge: ChargeModel::SETTLED,
    learning: Learning::Probe,
    shape: Shape::Cohere,
    day: Discipline::Rolling,
    ..openai::PROFILE
};
