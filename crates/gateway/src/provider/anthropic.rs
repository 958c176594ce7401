//! Anthropic.

use std::time::Duration;

use tidegate_core::provider::Dialect;
use tidegate_core::{ChargeModel, Discipline};

use super::{Api, AuthStyle, Profile, Provider, Root, Shape, Slice, openai};

/// Anthropic itself (providers.md §4). Counting tokens has a limit of its own.
///
/// "The API uses the token bucket algorithm", and "short bursts of requests can exceed the limit": tokens are kept as
/// buckets, and requests as one that holds ten seconds' worth (§4.2).
pub(super) const PROFILE: Profile = Profile {
    provider: Provider::Anthropic,
    base_url: Some("https://api.anthropic.com"),
    base_url_example: "https://api.anthropic.com",
    openai_roots: &[],
    native_roots: &[Root::V1],
    apis: &[Api::Anthropic],
    dialect: Dialect::Anthropic,
    charge: ChargeModel::ANTHROPIC,
    discipline: Discipline::TokenBucket,
    slice: Some(Slice::Of(Duration::from_secs(10))),
    auth: AuthStyle::ApiKeyHeader,
    shape: Shape::Anthropic,
    stream_usage_optional: false,
    day: Discipline::Rolling,
    ..openai::PROFILE
};
