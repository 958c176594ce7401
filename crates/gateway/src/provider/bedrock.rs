//! AWS Bedrock, by its API keys.

use tidegate_core::provider::Dialect;
use tidegate_core::{ChargeModel, Discipline, Learning};

use super::{Api, Profile, Provider, Root, Shape, openai};

/// The region's runtime (providers.md §6): input and the maximum output are reserved, and nothing tells what is left.
pub(super) const PROFILE: Profile = Profile {
    provider: Provider::Bedrock,
    base_url: None,
    base_url_example: "https://bedrock-runtime.us-east-1.amazonaws.com",
    base_url_ends: &["/openai"],
    openai_roots: &[Root::OpenAiV1],
    native_roots: &[Root::Bare],
    apis: &[Api::Bedrock, Api::OpenAi],
    dialect: Dialect::Bedrock,
    charge: ChargeModel::BEDROCK,
    learning: Learning::Probe,
    shape: Shape::Bedrock,
    day: Discipline::Rolling,
    ..openai::PROFILE
};

/// `bedrock-mantle`: the maximum output counts against the limit on input tokens, and there is none on requests.
pub(super) const MANTLE: Profile = Profile {
    provider: Provider::BedrockMantle,
    base_url_example: "https://bedrock-mantle.us-east-1.api.aws",
    base_url_ends: &[],
    openai_roots: &[Root::V1],
    native_roots: &[Root::AnthropicV1],
    apis: &[Api::OpenAi],
    charge: ChargeModel::BEDROCK_MANTLE,
    shape: Shape::OpenAi,
    ..PROFILE
};
