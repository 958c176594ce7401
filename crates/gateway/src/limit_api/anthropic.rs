//! Anthropic's `GET /v1/organizations/rate_limits` (providers.md §4.6).

use http::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use tidegate_core::{Dimension, Limit};

use super::{Page, Rules, Told, Whose, limit};

/// The version of the API that is asked.
pub(super) const VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("anthropic-version"),
    HeaderValue::from_static("2023-06-01"),
);

/// The most groups, and the most models in one, that are taken from a page.
const GROUPS_MAX: usize = 1_000;

#[derive(Deserialize)]
struct List {
    data: Vec<Group>,
    next_page: Option<String>,
}

#[derive(Deserialize)]
struct Group {
    group_type: String,
    models: Option<Vec<String>>,
    limits: Vec<Amount>,
}

#[derive(Deserialize)]
struct Amount {
    #[serde(rename = "type")]
    kind: String,
    value: Option<u64>,
}

/// Returns the path of a page: of the organization's limits, or of those of one workspace.
pub(super) fn path(workspace: Option<&str>, page: Option<&str>) -> String {
    let path = match workspace {
        None => "/v1/organizations/rate_limits".to_owned(),
        Some(workspace) => format!("/v1/organizations/workspaces/{}/rate_limits", plain(workspace)),
    };
    match page {
        None => path,
        Some(page) => format!("{path}?page={}", plain(page)),
    }
}

/// Reads a page; `None` if it is not one.
pub(super) fn read(body: &[u8], rules: &Rules) -> Option<Page> {
    let list: List = serde_json::from_slice(body).ok()?;
    let told = list.data.into_iter().take(GROUPS_MAX).filter_map(|group| {
        let whose = match (group.group_type.as_str(), group.models) {
            ("model_group", Some(models)) if !models.is_empty() => {
                Whose::Models(models.into_iter().take(GROUPS_MAX).collect())
            }
            ("token_count" | "token_counting" | "count_tokens", _) => Whose::Own("count_tokens"),
            // Batches and files have pools of their own, which nothing here draws from.
            _ => return None,
        };
        let limits: Vec<_> = group
            .limits
            .iter()
            .filter_map(|amount| amount.limit(rules))
            .collect();
        (!limits.is_empty()).then_some(Told { whose, limits })
    });
    Some(Page {
        told: told.collect(),
        next: list.next_page.filter(|next| !next.is_empty()),
    })
}

/// Lowers the organization's limits to a workspace's, where those are lower.
pub(super) fn lower(told: &mut [Told], workspace: Vec<Told>) {
    for of in workspace {
        let same = |told: &&mut Told| match (&told.whose, &of.whose) {
            (Whose::Models(all), Whose::Models(some)) => some.iter().any(|model| all.contains(model)),
            (all, some) => all == some,
        };
        let Some(told) = told.iter_mut().find(same) else {
            continue;
        };
        for lower in of.limits {
            let same =
                |limit: &&mut Limit| limit.dimension == lower.dimension && limit.window == lower.window;
            match told.limits.iter_mut().find(same) {
                Some(limit) => limit.amount = limit.amount.min(lower.amount),
                None => told.limits.push(lower),
            }
        }
    }
}

impl Amount {
    fn limit(&self, rules: &Rules) -> Option<Limit> {
        let dimension = match self.kind.as_str() {
            "requests_per_minute" => Dimension::Requests,
            "tokens_per_minute" => Dimension::Tokens,
            "input_tokens_per_minute" => Dimension::InputTokens,
            "output_tokens_per_minute" => Dimension::OutputTokens,
            _ => return None,
        };
        limit(dimension, rules.window, rules.discipline, self.value?)
    }
}

/// Writes a text so that it is one piece of a path or a query, whatever is in it.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            plain.push(char::from(byte));
        } else {
            plain.push_str(&format!("%{byte:02X}"));
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_core::{Discipline, LimitSource};

    use super::*;

    const RULES: Rules = Rules {
        window: Duration::from_secs(60),
        discipline: Discipline::Rolling,
        day: Discipline::Rolling,
    };

    fn amounts(told: &Told) -> Vec<(Dimension, u64)> {
        let limits = told.limits.iter();
        limits
            .map(|limit| {
                assert_eq!((limit.source, limit.window), (LimitSource::Api, RULES.window));
                (limit.dimension, limit.amount.get())
            })
            .collect()
    }

    fn models(names: &[&str]) -> Whose {
        Whose::Models(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn groups_of_models_share_what_they_are_told() {
        let body = br#"{"data":[
            {"type":"rate_limit","group_type":"model_group","models":["claude-opus-4-8","claude-opus-4-7"],"limits":[
                {"type":"requests_per_minute","value":4000},
                {"type":"input_tokens_per_minute","value":2000000},
                {"type":"output_tokens_per_minute","value":400000},
                {"type":"something_new","value":1}]},
            {"type":"rate_limit","group_type":"model_group","models":["gone"],"limits":[{"type":"requests_per_minute","value":0}]},
            {"type":"rate_limit","group_type":"token_count","models":null,"limits":[{"type":"requests_per_minute","value":2000}]},
            {"type":"rate_limit","group_type":"batch","limits":[{"type":"enqueued_batch_requests","value":500000}]}],
            "next_page":"p/2"}"#;
        let page = read(body, &RULES).unwrap();
        assert_eq!(page.next.as_deref(), Some("p/2"));
        assert_eq!(page.told.len(), 2);
        assert_eq!(
            page.told[0].whose,
            models(&["claude-opus-4-8", "claude-opus-4-7"])
        );
        assert_eq!(
            amounts(&page.told[0]),
            [
                (Dimension::Requests, 4_000),
                (Dimension::InputTokens, 2_000_000),
                (Dimension::OutputTokens, 400_000)
            ]
        );
        assert_eq!(page.told[1].whose, Whose::Own("count_tokens"));
        assert_eq!(amounts(&page.told[1]), [(Dimension::Requests, 2_000)]);

        let empty = read(br#"{"data":[],"next_page":null}"#, &RULES).unwrap();
        assert_eq!((empty.told.len(), empty.next), (0, None));
        for wrong in [
            "",
            "[]",
            "{}",
            r#"{"data":3}"#,
            r#"{"data":[{"group_type":"model_group"}]}"#,
        ] {
            assert_eq!(read(wrong.as_bytes(), &RULES), None, "{wrong}");
        }
    }

    #[test]
    fn a_workspace_may_have_less() {
        let told = |names: &[&str], amounts: &[(Dimension, u64)]| Told {
            whose: models(names),
            limits: amounts
                .iter()
                .filter_map(|(dimension, amount)| limit(*dimension, RULES.window, RULES.discipline, *amount))
                .collect(),
        };
        let mut all = vec![told(
            &["a", "b"],
            &[(Dimension::Requests, 100), (Dimension::InputTokens, 1_000)],
        )];
        let own = vec![
            told(
                &["b"],
                &[
                    (Dimension::Requests, 10),
                    (Dimension::InputTokens, 5_000),
                    (Dimension::OutputTokens, 7),
                ],
            ),
            told(&["elsewhere"], &[(Dimension::Requests, 1)]),
        ];
        lower(&mut all, own);
        assert_eq!(all.len(), 1);
        assert_eq!(
            amounts(&all[0]),
            [
                (Dimension::Requests, 10),
                (Dimension::InputTokens, 1_000),
                (Dimension::OutputTokens, 7)
            ]
        );
    }

    #[test]
    fn paths_hold_nothing_but_what_belongs_there() {
        assert_eq!(path(None, None), "/v1/organizations/rate_limits");
        assert_eq!(
            path(Some("wrkspc_1"), Some("a b&c=/")),
            "/v1/organizations/workspaces/wrkspc_1/rate_limits?page=a%20b%26c%3D%2F"
        );
    }
}
