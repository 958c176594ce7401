//! Azure OpenAI: quota belongs to a deployment, which the path names.

use std::time::Duration;

use tidegate_core::provider::Dialect;
use tidegate_core::{ChargeModel, Discipline};

use super::profile::Slice;
use super::{Api, AuthStyle, Profile, Provider, Root, Shape, openai};

/// Azure OpenAI (providers.md §3). Requests are limited in slices of ten seconds.
pub(super) const PROFILE: Profile = Profile {
    provider: Provider::Azure,
    base_url: None,
    base_url_example: "https://RESOURCE.openai.azure.com",
    base_url_ends: &["/openai"],
    openai_roots: &[Root::OpenAiV1, Root::Deployment, Root::OpenAi],
    native_roots: &[Root::AnthropicV1],
    apis: &[Api::OpenAi],
    dialect: Dialect::Azure,
    charge: ChargeModel::AZURE,
    slice: Some(Slice::Of(Duration::from_secs(10))),
    auth: AuthStyle::AzureKey,
    shape: Shape::Azure,
    day: Discipline::Rolling,
    ..openai::PROFILE
};
