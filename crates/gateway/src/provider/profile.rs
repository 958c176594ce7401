//! What distinguishes one provider from the others, as data.

use std::time::Duration;

use tidegate_core::provider::Dialect;
use tidegate_core::{ChargeModel, Discipline, Learning};

use super::{Api, AuthStyle, Endpoint, Operation, Provider, Root, Shape};

/// What distinguishes a provider from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// The provider.
    pub provider: Provider,
    /// Where its API lives when the configuration does not say; `None` where it has to.
    pub base_url: Option<&'static str>,
    /// An address such as the configuration should name.
    pub base_url_example: &'static str,
    /// Ends of addresses that are part of every path anyway: with or without them an address means the same.
    pub base_url_ends: &'static [&'static str],
    /// The beginnings of paths under which it has OpenAI's API. The first is put where a client leaves the beginning
    /// out, or uses another provider's; it may be one that cannot be guessed.
    pub openai_roots: &'static [Root],
    /// The beginnings of paths under which it has its own API, or another's but OpenAI's.
    pub native_roots: &'static [Root],
    /// The APIs that it speaks, its own first.
    pub apis: &'static [Api],
    /// How its headers and refusals are read.
    pub dialect: Dialect,
    /// How it charges requests.
    pub charge: ChargeModel,
    /// How limits become known that are not configured.
    pub learning: Learning,
    /// How limits over its minute are kept, unless the configuration says otherwise: as rolling windows, which are safe
    /// whatever a provider does, except where it is known to refill continuously and rolling windows would waste much.
    pub discipline: Discipline,
    /// The shorter time over which it also enforces `rpm`, unless the configuration says otherwise.
    pub slice: Option<Slice>,
    /// How limits over a day are kept, unless the configuration says otherwise.
    pub day: Discipline,
    /// Where it expects the API key.
    pub auth: AuthStyle,
    /// The shape of its errors.
    pub shape: Shape,
    /// Whether usage has to be asked for in streams (`stream_options.include_usage`).
    pub stream_usage_optional: bool,
    /// Whether a refusal may come as a success with an error in it, so that the first bytes are looked at before they are
    /// relayed.
    pub refuses_in_success: bool,
}

/// A shorter time over which a provider also enforces its limit on requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slice {
    /// The share of `rpm` that falls into this time (Azure and Anthropic: 10 s; providers.md §3.2, §4.2).
    Of(Duration),
    /// One second, or the time between two requests where that is longer (Mistral; providers.md §7).
    Spacing,
}

impl Profile {
    /// Returns whether it serves operations of this API.
    pub fn speaks(&self, api: Api) -> bool {
        self.apis.contains(&api)
    }

    /// Returns whether paths with this beginning are its own.
    pub fn has_root(&self, root: Root) -> bool {
        self.openai_roots.contains(&root) || self.native_roots.contains(&root)
    }

    /// Returns the beginning to put in place of a path's own; `None` leaves the path as it is.
    pub fn root_instead(&self, operation: &Operation<'_>) -> Option<&'static str> {
        let (root, endpoint) = (operation.root, operation.endpoint);
        let instead = match endpoint.api() {
            Some(Api::OpenAi) if self.openai_roots.contains(&root) => None,
            Some(Api::OpenAi) => self.openai_roots.first(),
            Some(_) if root == Root::Bare && !self.has_root(root) => self.native_roots.first(),
            Some(_) => None,
            None if self.has_root(root) => None,
            // What is not known may be anything: only a version that everybody writes alike is replaced.
            None if root == Root::V1 || (root == Root::Bare && endpoint == Endpoint::Models) => {
                self.openai_roots.first().or(self.native_roots.first())
            }
            None => None,
        };
        instead?.text()
    }

    /// Returns the shape of errors that clients of this provider expect of an operation.
    pub fn shape_of(&self, endpoint: Endpoint) -> Shape {
        match (endpoint.api(), self.shape) {
            (None, shape)
            | (Some(Api::OpenAi), shape @ (Shape::Mistral | Shape::Azure | Shape::OpenRouter)) => shape,
            (Some(api), _) => api.shape(),
        }
    }
}

impl Slice {
    /// Returns the shortest that it can be, for limits that are not known yet.
    pub const fn shortest(self) -> Duration {
        match self {
            Self::Of(length) => length,
            Self::Spacing => Duration::from_secs(1),
        }
    }

    /// Returns the length of the slice for a limit of `rpm` requests in `window`.
    pub fn length(self, rpm: u64, window: Duration) -> Duration {
        match self {
            Self::Of(length) => length,
            Self::Spacing => {
                let spacing = window.as_millis().div_ceil(u128::from(rpm.max(1)));
                Duration::from_millis(u64::try_from(spacing).unwrap_or(u64::MAX)).max(Duration::from_secs(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_fixed_or_as_long_as_the_spacing() {
        let minute = Duration::from_secs(60);
        let check = |slice: Slice, rpm: u64, expect_ms: u64| {
            assert_eq!(
                slice.length(rpm, minute),
                Duration::from_millis(expect_ms),
                "{slice:?} {rpm}"
            );
        };
        check(Slice::Of(Duration::from_secs(10)), 600, 10_000);
        check(Slice::Spacing, 720, 1_000);
        check(Slice::Spacing, 60, 1_000);
        check(Slice::Spacing, 4, 15_000);
        check(Slice::Spacing, 0, 60_000);
    }
}
