//! Mistral.

use tidegate_core::provider::Dialect;
use tidegate_core::{ChargeModel, Discipline};

use super::profile::Slice;
use super::{Profile, Provider, Shape, openai};

/// Mistral (providers.md §7): requests are limited by the second, usage comes in the last chunk unasked, and older
/// models refuse to be asked for it.
pub(super) const PROFILE: Profile = Profile {
    provider: Provider::Mistral,
    base_url: Some("https://api.mistral.ai"),
    base_url_example: "https://api.mistral.ai",
    dialect: Dialect::Mistral,
    charge: ChargeModel::MISTRAL,
    slice: Some(Slice::Spacing),
    shape: Shape::Mistral,
    stream_usage_optional: false,
    day: Discipline::Rolling,
    ..openai::PROFILE
};
