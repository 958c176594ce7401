//! Gemini, by an API key (AI Studio) or under a project of Google Cloud (Vertex).

use tidegate_core::provider::Dialect;
use tidegate_core::{ChargeModel, Discipline, Learning, Zone};

use super::{Api, AuthStyle, Profile, Provider, Root, Shape, openai};

/// AI Studio (providers.md §5.1): input tokens only, no headers, and days that end at midnight on the Pacific coast.
pub(super) const PROFILE: Profile = Profile {
    provider: Provider::Gemini,
    base_url: Some("https://generativelanguage.googleapis.com"),
    base_url_example: "https://generativelanguage.googleapis.com",
    base_url_ends: &["/v1beta/openai", "/v1beta"],
    openai_roots: &[Root::V1BetaOpenAi],
    native_roots: &[Root::V1Beta, Root::V1],
    apis: &[Api::Gemini, Api::OpenAi],
    dialect: Dialect::Gemini,
    charge: ChargeModel::GEMINI,
    learning: Learning::Probe,
    day: Discipline::Day(Zone::Pacific),
    auth: AuthStyle::GoogleKey,
    shape: Shape::Google,
    ..openai::PROFILE
};

/// Vertex AI (providers.md §5.2): shared capacity rather than quota, so its limits are found by trying. OpenAI's API is
/// under a path with the project in it, which cannot be guessed.
pub(super) const VERTEX: Profile = Profile {
    provider: Provider::Vertex,
    base_url: None,
    base_url_example: "https://aiplatform.googleapis.com",
    base_url_ends: &["/v1beta1"],
    openai_roots: &[Root::VertexOpenAi],
    native_roots: &[Root::V1Beta1, Root::V1],
    apis: &[Api::Vertex],
    auth: AuthStyle::Bearer,
    day: Discipline::Rolling,
    ..PROFILE
};
