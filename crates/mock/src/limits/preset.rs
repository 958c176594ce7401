//! Each provider's own ways and usual limits, as far as they are known (reference/providers.md, the section named at each).

use std::time::Duration;

use super::{Algorithm, Charging, Dimension, Limit, Period, Pool, Scope, Slice};
use crate::provider::Provider;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const MONTH: Duration = Duration::from_secs(30 * 86_400);
const SECOND: Duration = Duration::from_secs(1);

/// Azure checks requests over this much of a minute (providers.md §3.2).
const SLICE: Duration = Duration::from_secs(10);

impl Provider {
    /// Returns how the provider charges; Bedrock's is its runtime's, for mantle see [`Charging::MANTLE`].
    pub const fn charging(self) -> Charging {
        match self {
            Self::Anthropic => Charging::AS_GENERATED,
            Self::Gemini | Self::Vertex => Charging::INPUT,
            Self::Groq => Charging::GROQ,
            Self::Mistral => Charging::MISTRAL,
            Self::Bedrock => Charging::BEDROCK,
            Self::OpenAi | Self::Azure | Self::OpenRouter | Self::DeepSeek | Self::Cohere | Self::Vllm => {
                Charging::ESTIMATE
            }
        }
    }

    /// Returns how the provider enforces a limit of this dimension over a minute.
    pub const fn minute(self, dimension: Dimension) -> Algorithm {
        match (self, dimension) {
            (Self::OpenAi | Self::Groq, _) => Algorithm::TokenBucket,
            (Self::Anthropic, Dimension::Requests) => Algorithm::Spaced { burst: SLICE },
            (Self::Anthropic, _) => Algorithm::TokenBucket,
            (Self::Azure, Dimension::Requests) => Algorithm::Slices {
                slice: SLICE,
                shape: Slice::Rolling,
            },
            (Self::Mistral, Dimension::Requests) => Algorithm::Spaced { burst: SECOND },
            (Self::Vertex, Dimension::Tokens | Dimension::Input) => Algorithm::Congestion {
                swing: 30,
                period: MINUTE,
                seed: 0,
            },
            _ => Algorithm::Rolling,
        }
    }

    /// Returns how the provider enforces a limit over a day.
    pub const fn day(self) -> Algorithm {
        match self {
            Self::OpenAi | Self::Groq | Self::Anthropic => Algorithm::TokenBucket,
            Self::Gemini => Algorithm::Civil(Period::PacificDay),
            Self::OpenRouter => Algorithm::Civil(Period::UtcDay),
            _ => Algorithm::Rolling,
        }
    }

    /// Whether responses say nothing about a limit of this dimension over a window.
    pub fn hides(self, dimension: Dimension, window: Duration) -> bool {
        let day = window > Duration::from_secs(3_600);
        match self {
            Self::OpenAi | Self::Azure | Self::Anthropic | Self::Mistral => !matches!(
                dimension,
                Dimension::Requests | Dimension::Tokens | Dimension::Input | Dimension::Output
            ),
            // Requests of a day and tokens of a minute are shown (providers.md §8).
            Self::Groq => day != (dimension == Dimension::Requests),
            _ => true,
        }
    }

    /// Returns a limit as this provider enforces and shows it; windows longer than an hour are taken for days.
    pub fn limit(self, dimension: Dimension, window: Duration, amount: u64) -> Limit {
        let day = window > Duration::from_secs(3_600);
        let algorithm = if day { self.day() } else { self.minute(dimension) };
        let limit = Limit::new(dimension, window, amount, algorithm);
        if self.hides(dimension, window) {
            limit.hidden()
        } else {
            limit
        }
    }

    /// Returns the limits of an ordinary new account.
    pub fn pools(self) -> Vec<Pool> {
        let pool = |limits| Pool::new(self.charging(), limits);
        let per_model = |limits| pool(limits).scoped(Scope::Model);
        let rpm = |amount| self.limit(Dimension::Requests, MINUTE, amount);
        let rpd = |amount| self.limit(Dimension::Requests, DAY, amount);
        let tpm = |amount| self.limit(Dimension::Tokens, MINUTE, amount);
        let tpd = |amount| self.limit(Dimension::Tokens, DAY, amount);
        let itpm = |amount| self.limit(Dimension::Input, MINUTE, amount);
        let otpm = |amount| self.limit(Dimension::Output, MINUTE, amount);
        match self {
            // gpt-4o-mini and gpt-4o, tier 1 (§2.6).
            Self::OpenAi => vec![
                per_model(vec![rpm(500), rpd(10_000), tpm(200_000)]).for_models(&["gpt-4o-mini*"]),
                per_model(vec![rpm(500), tpm(30_000)]).for_models(&["gpt-4o", "gpt-4o-2*", "gpt-4.1*"]),
            ],
            // gpt-4.1, tier 1 (§3.7).
            Self::Azure => vec![per_model(vec![rpm(1_000), tpm(1_000_000)])],
            Self::Anthropic => anthropic(),
            // gemini-2.5-flash, free (§5.1).
            Self::Gemini => vec![per_model(vec![rpm(10), itpm(250_000), rpd(250)])],
            Self::Groq => {
                // (§8) Every other model has the limits of the last.
                let models: [(&[&str], u64, u64, u64, u64); 5] = [
                    (&["llama-3.1-8b-instant"], 30, 14_400, 6_000, 500_000),
                    (&["llama-3.3-70b*"], 30, 1_000, 12_000, 100_000),
                    (&["*llama-4-scout*"], 30, 1_000, 30_000, 500_000),
                    (&["*qwen3-32b"], 60, 1_000, 6_000, 500_000),
                    (&["*gpt-oss*"], 30, 1_000, 8_000, 200_000),
                ];
                let pools = models.map(|(models, minute, day, tokens, of_day)| {
                    per_model(vec![rpm(minute), rpd(day), tpm(tokens), tpd(of_day)]).for_models(models)
                });
                let whisper = vec![
                    rpm(20),
                    rpd(2_000),
                    Limit::new(
                        Dimension::AudioSeconds,
                        Duration::from_secs(3_600),
                        7_200,
                        Algorithm::TokenBucket,
                    )
                    .hidden(),
                ];
                let whisper = per_model(whisper).for_models(&["whisper*"]);
                let named: Vec<&str> = models.iter().flat_map(|(models, ..)| *models).copied().collect();
                let others = per_model(vec![rpm(30), rpd(1_000), tpm(8_000), tpd(200_000)])
                    .except_models(&[named.as_slice(), &["whisper*"]].concat());
                pools.into_iter().chain([whisper, others]).collect()
            }
            // Free (§7).
            Self::Mistral => {
                let month = Algorithm::Civil(Period::UtcMonth);
                let month = Limit::new(Dimension::Tokens, MONTH, 1_000_000_000, month);
                vec![per_model(vec![rpm(60), tpm(500_000), month])]
            }
            // Free models share both limits (§11).
            Self::OpenRouter => vec![pool(vec![rpm(20), rpd(50)]).for_models(&["*:free"])],
            // (§10)
            Self::DeepSeek => vec![
                per_model(vec![Limit::concurrency(500).hidden()]).for_models(&["deepseek-v4-pro"]),
                per_model(vec![Limit::concurrency(2_500).hidden()]).except_models(&["deepseek-v4-pro"]),
            ],
            Self::Cohere => cohere(),
            // (§6) Nobody is told these numbers; they are round.
            Self::Bedrock => vec![
                per_model(vec![rpm(500), tpm(1_000_000), tpd(1_440_000_000)]).for_endpoints(&["runtime/*"]),
                Pool {
                    charging: Charging::MANTLE,
                    ..per_model(vec![itpm(2_000_000), otpm(400_000)]).for_endpoints(&["mantle/*"])
                },
            ],
            // (§5.2) Requests are the system's limit; tokens are a pool shared with everybody.
            Self::Vertex => vec![per_model(vec![rpm(30_000), itpm(2_000_000)])],
            // `--max-num-queued-reqs` counts running ones too (§12).
            Self::Vllm => vec![pool(vec![Limit::concurrency(512).hidden()])],
        }
    }
}

/// The Start tier (§4.6), and its separate limit on counting (§4.1).
fn anthropic() -> Vec<Pool> {
    let provider = Provider::Anthropic;
    let limits = |requests, input, output| {
        vec![
            provider.limit(Dimension::Requests, MINUTE, requests),
            provider.limit(Dimension::Input, MINUTE, input),
            provider.limit(Dimension::Output, MINUTE, output),
        ]
    };
    let pool = |limits| {
        Pool::new(Charging::AS_GENERATED, limits)
            .for_endpoints(&["messages"])
            .scoped(Scope::Model)
            .with_families(&[
                &[
                    "claude-opus-4-5*",
                    "claude-opus-4-6*",
                    "claude-opus-4-7*",
                    "claude-opus-4-8*",
                ],
                &["claude-sonnet-4-5*", "claude-sonnet-4-6*"],
            ])
    };
    let (fable, old_haiku) = (["claude-fable-*"], ["claude-3-5-haiku*"]);
    let counting = provider.limit(Dimension::Requests, MINUTE, 2_000);
    vec![
        pool(limits(1_000, 2_000_000, 400_000)).except_models(&[fable, old_haiku].concat()),
        pool(limits(1_000, 500_000, 100_000)).for_models(&fable),
        Pool {
            // Old models count reads from the cache too.
            charging: Charging {
                counts_cache_reads: true,
                ..Charging::AS_GENERATED
            },
            ..pool(limits(1_000, 100_000, 20_000)).for_models(&old_haiku)
        },
        Pool::new(Charging::AS_GENERATED, vec![counting]).for_endpoints(&["messages/count_tokens"]),
    ]
}

/// A trial key (§9): requests per minute, each endpoint on its own.
fn cohere() -> Vec<Pool> {
    let minute = |dimension, amount| Provider::Cohere.limit(dimension, MINUTE, amount);
    let pool = |endpoints: &[&str], scope, limit| {
        Pool::new(Charging::ESTIMATE, vec![limit])
            .for_endpoints(endpoints)
            .scoped(scope)
    };
    let calls = Algorithm::Civil(Period::UtcMonth);
    let calls = Limit::new(Dimension::Requests, MONTH, 1_000, calls).hidden();
    vec![
        pool(
            &["chat", "chat/completions"],
            Scope::KeyAndModel,
            minute(Dimension::Requests, 20),
        ),
        pool(
            &["embed", "embeddings"],
            Scope::Key,
            minute(Dimension::Inputs, 2_000),
        ),
        pool(&["rerank"], Scope::Key, minute(Dimension::Requests, 10)),
        pool(&["tokenize"], Scope::Key, minute(Dimension::Requests, 100)),
        Pool::new(Charging::ESTIMATE, vec![calls]).scoped(Scope::Key),
    ]
}
