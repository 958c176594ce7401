//! Groq.

use tidegate_core::provider::Dialect;
use tidegate_core::{ChargeModel, Discipline};

use super::{Profile, Provider, Root, openai};

/// Groq (providers.md §8): as OpenAI, but cached input is free, and only RPD and TPM are told by headers. Its
/// refusals prove a continuous bucket; cached input goes back into it at once.
pub(super) const PROFILE: Profile = Profile {
    provider: Provider::Groq,
    base_url: Some("https://api.groq.com"),
    base_url_example: "https://api.groq.com",
    base_url_ends: &["/openai"],
    openai_roots: &[Root::OpenAiV1],
    dialect: Dialect::Groq,
    charge: ChargeModel::GROQ,
    discipline: Discipline::TokenBucket,
    ..openai::PROFILE
};
