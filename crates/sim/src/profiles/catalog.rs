//! Every profile: what the provider enforces, and the plan that the gateway makes of the same limits.

use std::num::NonZeroU64;
use std::time::Duration;

use tidegate_core::provider::Dialect;
use tidegate_core::{ChargeModel, Dimension, Discipline, Learning, Limit, LimitSource, QuotaPlan, Zone};
use tidegate_mock::Provider;
use tidegate_mock::limits::{
    Algorithm, Charging, Dimension as Counted, Level, Limit as Enforced, Pool, Slice,
};

use super::load::Load;

/// A provider as it enforces, and as the gateway sees it.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its name in tables.
    pub name: &'static str,
    /// Whose words are spoken.
    pub provider: Provider,
    /// How they are read.
    pub dialect: Dialect,
    /// The model asked for.
    pub model: &'static str,
    /// The endpoint asked.
    pub endpoint: &'static str,
    /// What the provider enforces.
    pub pools: Vec<Pool>,
    /// Whether refused requests count against limits on requests.
    pub counts_failures: bool,
    /// What the gateway makes of the same limits.
    pub plan: QuotaPlan,
    /// What callers ask for.
    pub load: Load,
    /// The least share of the tightest limit that has to be used, in percent.
    pub least: f64,
    /// Whether the fullest that a limit on output ever is has to stay within the limit.
    pub measures_peak: bool,
}

const SECOND: Duration = Duration::from_secs(1);
const SLICE: Duration = Duration::from_secs(10);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// Returns every profile.
pub fn catalog() -> Vec<Profile> {
    vec![
        openai(
            "OpenAI, tokens",
            &[(Requests, MINUTE, 1_000), (Tokens, MINUTE, 300_000)],
        ),
        openai(
            "OpenAI, requests",
            &[(Requests, MINUTE, 300), (Tokens, MINUTE, 2_000_000)],
        ),
        openai(
            "OpenAI, requests a day",
            &[
                (Requests, MINUTE, 60),
                (Requests, DAY, 10_000),
                (Tokens, MINUTE, 200_000),
            ],
        ),
        openai_project(),
        azure("Azure, rolling slices", Slice::Rolling, Algorithm::Rolling),
        azure(
            "Azure, fixed slices and counter",
            Slice::Fixed { phase: PHASE },
            Algorithm::Fixed { phase: PHASE },
        ),
        azure_tokens("Azure, tokens, rolling", Algorithm::Rolling),
        azure_tokens("Azure, tokens, fixed", Algorithm::Fixed { phase: PHASE }),
        anthropic(
            "Anthropic, input",
            1_000,
            250_000,
            100_000,
            Load {
                cached: 50,
                error: 5,
                max_output: Some(1_024),
                ..Load::CHAT
            },
        ),
        anthropic(
            "Anthropic, requests",
            300,
            2_000_000,
            400_000,
            Load {
                error: 5,
                max_output: Some(1_024),
                ..Load::CHAT
            },
        ),
        anthropic("Anthropic, output", 1_000, 2_000_000, 80_000, OUTPUT),
        anthropic(
            "Anthropic, output, not streamed",
            1_000,
            2_000_000,
            80_000,
            Load { streams: 0, ..OUTPUT },
        ),
        gemini(
            "Gemini, tokens, rolling",
            Algorithm::Rolling,
            1_000,
            250_000,
            100_000_000,
        ),
        gemini(
            "Gemini, tokens, calendar minute",
            Algorithm::Civil(tidegate_mock::limits::Period::Minute),
            1_000,
            250_000,
            100_000_000,
        ),
        gemini("Gemini, requests a day", Algorithm::Rolling, 60, 250_000, 10_000),
        groq("Groq, tokens", 1_000, 10_000_000, 200_000, 100_000_000_000),
        groq("Groq, tokens a day", 60, 1_000_000, 60_000, 10_000_000),
        mistral(),
        openrouter("OpenRouter, requests", 300, 10_000_000),
        openrouter("OpenRouter, requests a day", 20, 1_000),
        deepseek(),
        cohere(),
        bedrock(),
        mantle(),
    ]
}

/// Returns the provider that is nobody's quota but everybody's capacity: it can only be learned.
pub fn vertex() -> Profile {
    let provider = Provider::Vertex;
    let mut profile = gemini("Vertex, shared pool", Algorithm::Rolling, 30_000, 250_000, 1);
    profile.provider = provider;
    profile.pools = vec![Pool::new(
        provider.charging(),
        vec![
            provider.limit(Counted::Requests, MINUTE, 30_000),
            provider.limit(Counted::Input, MINUTE, 250_000),
        ],
    )];
    profile.plan = plan(ChargeModel::GEMINI, Learning::Probe, Vec::new());
    profile
}

use Dimension::{InputTokens, OutputTokens, Requests, Tokens};

/// Where fixed windows begin.
const PHASE: Duration = Duration::from_millis(7_350);

/// Long answers, of which few are as long as they may be (theory.md §2.3).
pub(super) const OUTPUT: Load = Load {
    input: (100, 400),
    max_output: Some(4_096),
    output: 640,
    pace: 60,
    streams: 100,
    cached: 0,
    error: 5,
    oversize: 0,
};

pub(super) fn openai(name: &'static str, limits: &[(Dimension, Duration, u64)]) -> Profile {
    let provider = Provider::OpenAi;
    let enforced = limits
        .iter()
        .map(|(dimension, window, amount)| provider.limit(counted(*dimension), *window, *amount));
    Profile {
        name,
        provider,
        dialect: Dialect::OpenAi,
        model: "gpt-4o",
        endpoint: "chat/completions",
        pools: vec![Pool::new(provider.charging(), enforced.collect())],
        counts_failures: true,
        plan: daily_buckets(plan(
            ChargeModel::OPENAI,
            Learning::Answers,
            limits
                .iter()
                .map(|(dimension, window, amount)| limit(*dimension, *window, *amount))
                .collect(),
        )),
        load: Load::CHAT,
        least: 98.0,
        measures_peak: false,
    }
}

/// An organization with 400,000 tokens a minute, and a project that may use 250,000 of them.
fn openai_project() -> Profile {
    let provider = Provider::OpenAi;
    let organization = vec![
        provider.limit(Counted::Requests, MINUTE, 1_000),
        provider.limit(Counted::Tokens, MINUTE, 400_000),
    ];
    let project = vec![provider.limit(Counted::Tokens, MINUTE, 250_000)];
    Profile {
        pools: vec![
            Pool::new(provider.charging(), organization),
            Pool {
                level: Level::Project,
                ..Pool::new(provider.charging(), project)
            },
        ],
        plan: daily_buckets(plan(
            ChargeModel::OPENAI,
            Learning::Answers,
            vec![
                limit(Requests, MINUTE, 1_000),
                limit(Tokens, MINUTE, 400_000),
                limit(Tokens, MINUTE, 250_000),
            ],
        )),
        ..openai("OpenAI, project", &[])
    }
}

/// Requests bind, in slices of ten seconds.
pub(super) fn azure(name: &'static str, shape: Slice, tokens: Algorithm) -> Profile {
    // A limit on requests that belongs to the limit on tokens: 6 a minute for every 1,000 (providers.md §3.1).
    let (rpm, tpm) = (300, 50_000);
    let requests = Algorithm::Slices { slice: SLICE, shape };
    Profile {
        provider: Provider::Azure,
        dialect: Dialect::Azure,
        pools: vec![Pool::new(
            Provider::Azure.charging(),
            vec![
                Enforced::new(Counted::Requests, MINUTE, rpm, requests),
                Enforced::new(Counted::Tokens, MINUTE, tpm, tokens),
            ],
        )],
        plan: plan(
            ChargeModel::AZURE,
            Learning::Answers,
            vec![
                limit(Requests, MINUTE, rpm),
                limit(Requests, SLICE, rpm / 6),
                limit(Tokens, MINUTE, tpm),
            ],
        ),
        load: Load {
            input: (20, 100),
            max_output: Some(40),
            output: 20,
            ..Load::CHAT
        },
        least: 96.0,
        ..openai(name, &[])
    }
}

/// Tokens bind.
pub(super) fn azure_tokens(name: &'static str, tokens: Algorithm) -> Profile {
    let (rpm, tpm) = (1_800, 300_000);
    let mut profile = azure(name, Slice::Rolling, tokens);
    let requests = Algorithm::Slices {
        slice: SLICE,
        shape: Slice::Rolling,
    };
    profile.pools[0].limits = vec![
        Enforced::new(Counted::Requests, MINUTE, rpm, requests),
        Enforced::new(Counted::Tokens, MINUTE, tpm, tokens),
    ];
    profile.plan.limits = vec![
        limit(Requests, MINUTE, rpm),
        limit(Requests, SLICE, rpm / 6),
        limit(Tokens, MINUTE, tpm),
    ];
    profile.load = Load::CHAT;
    profile
}

pub(super) fn anthropic(name: &'static str, rpm: u64, itpm: u64, otpm: u64, load: Load) -> Profile {
    let provider = Provider::Anthropic;
    let output = load.output >= OUTPUT.output;
    Profile {
        provider,
        dialect: Dialect::Anthropic,
        model: "claude-sonnet-4-5",
        endpoint: "messages",
        pools: vec![Pool::new(
            provider.charging(),
            vec![
                provider.limit(Counted::Requests, MINUTE, rpm),
                provider.limit(Counted::Input, MINUTE, itpm),
                provider.limit(Counted::Output, MINUTE, otpm),
            ],
        )],
        counts_failures: false,
        plan: bucketed(plan(
            ChargeModel::ANTHROPIC,
            Learning::Answers,
            vec![
                limit(Requests, MINUTE, rpm),
                limit(Requests, SLICE, rpm / 6),
                limit(InputTokens, MINUTE, itpm),
                limit(OutputTokens, MINUTE, otpm),
            ],
        )),
        load,
        least: if output { 95.0 } else { 96.0 },
        measures_peak: true,
        ..openai(name, &[])
    }
}

fn gemini(name: &'static str, minute: Algorithm, rpm: u64, tpm: u64, rpd: u64) -> Profile {
    let provider = Provider::Gemini;
    let enforced = |dimension, amount| Enforced::new(dimension, MINUTE, amount, minute).hidden();
    Profile {
        provider,
        dialect: Dialect::Gemini,
        model: "gemini-2.5-flash",
        endpoint: "generateContent",
        pools: vec![Pool::new(
            provider.charging(),
            vec![
                enforced(Counted::Requests, rpm),
                enforced(Counted::Input, tpm),
                provider.limit(Counted::Requests, DAY, rpd),
            ],
        )],
        counts_failures: false,
        plan: plan(
            ChargeModel::GEMINI,
            Learning::Probe,
            vec![
                limit(Requests, MINUTE, rpm),
                limit(InputTokens, MINUTE, tpm),
                Limit {
                    discipline: Discipline::Day(Zone::Pacific),
                    ..limit(Requests, DAY, rpd)
                },
            ],
        ),
        ..openai(name, &[])
    }
}

fn groq(name: &'static str, rpm: u64, rpd: u64, tpm: u64, tpd: u64) -> Profile {
    let provider = Provider::Groq;
    Profile {
        provider,
        dialect: Dialect::Groq,
        model: "llama-3.3-70b-versatile",
        pools: vec![Pool::new(
            provider.charging(),
            vec![
                provider.limit(Counted::Requests, MINUTE, rpm),
                provider.limit(Counted::Requests, DAY, rpd),
                provider.limit(Counted::Tokens, MINUTE, tpm),
                provider.limit(Counted::Tokens, DAY, tpd),
            ],
        )],
        counts_failures: false,
        plan: bucketed(plan(
            ChargeModel::GROQ,
            Learning::Answers,
            vec![
                limit(Requests, MINUTE, rpm),
                limit(Requests, DAY, rpd),
                limit(Tokens, MINUTE, tpm),
                limit(Tokens, DAY, tpd),
            ],
        )),
        load: Load {
            cached: 30,
            oversize: 200,
            ..Load::CHAT
        },
        ..openai(name, &[])
    }
}

/// Requests by the second, tokens by the minute.
fn mistral() -> Profile {
    let provider = Provider::Mistral;
    let (rpm, tpm) = (720, 250_000);
    Profile {
        provider,
        dialect: Dialect::Mistral,
        model: "mistral-large-latest",
        pools: vec![Pool::new(
            provider.charging(),
            vec![
                provider.limit(Counted::Requests, MINUTE, rpm),
                provider.limit(Counted::Tokens, MINUTE, tpm),
            ],
        )],
        counts_failures: false,
        plan: plan(
            ChargeModel::MISTRAL,
            Learning::Answers,
            vec![
                limit(Requests, MINUTE, rpm),
                limit(Requests, SECOND, rpm / 60),
                limit(Tokens, MINUTE, tpm),
            ],
        ),
        load: Load {
            error: 5,
            ..Load::CHAT
        },
        // Slices of a second, and the most that may be generated is kept while a request runs.
        least: 96.0,
        ..openai("Mistral", &[])
    }
}

fn openrouter(name: &'static str, rpm: u64, rpd: u64) -> Profile {
    let provider = Provider::OpenRouter;
    Profile {
        provider,
        dialect: Dialect::OpenRouter,
        model: "meta-llama/llama-3.3-70b-instruct:free",
        pools: vec![Pool::new(
            provider.charging(),
            vec![
                provider.limit(Counted::Requests, MINUTE, rpm),
                provider.limit(Counted::Requests, DAY, rpd),
            ],
        )],
        counts_failures: false,
        plan: plan(
            ChargeModel::SETTLED,
            Learning::Answers,
            vec![
                limit(Requests, MINUTE, rpm),
                Limit {
                    discipline: Discipline::Day(Zone::Utc),
                    ..limit(Requests, DAY, rpd)
                },
            ],
        ),
        ..openai(name, &[])
    }
}

fn deepseek() -> Profile {
    let provider = Provider::DeepSeek;
    Profile {
        provider,
        dialect: Dialect::DeepSeek,
        model: "deepseek-flash",
        pools: vec![Pool::new(
            provider.charging(),
            vec![Enforced::concurrency(20).hidden()],
        )],
        counts_failures: false,
        plan: plan(
            ChargeModel::SETTLED,
            Learning::Probe,
            vec![limit(Dimension::Concurrency, MINUTE, 20)],
        ),
        ..openai("DeepSeek", &[])
    }
}

fn cohere() -> Profile {
    let provider = Provider::Cohere;
    Profile {
        provider,
        dialect: Dialect::Cohere,
        model: "command-a-03-2025",
        endpoint: "chat",
        pools: vec![Pool::new(
            provider.charging(),
            vec![provider.limit(Counted::Requests, MINUTE, 500)],
        )],
        counts_failures: false,
        plan: plan(
            ChargeModel::SETTLED,
            Learning::Probe,
            vec![limit(Requests, MINUTE, 500)],
        ),
        ..openai("Cohere", &[])
    }
}

/// The runtime, with a burndown of five.
fn bedrock() -> Profile {
    let provider = Provider::Bedrock;
    let (rpm, tpm) = (1_000, 400_000);
    Profile {
        provider,
        dialect: Dialect::Bedrock,
        model: "anthropic.claude-sonnet-4-5-20250929-v1:0",
        endpoint: "runtime/converse",
        pools: vec![Pool::new(
            Charging::BEDROCK,
            vec![
                provider.limit(Counted::Requests, MINUTE, rpm),
                provider.limit(Counted::Tokens, MINUTE, tpm),
            ],
        )],
        counts_failures: false,
        plan: plan(
            ChargeModel {
                output_percent: 500,
                ..ChargeModel::BEDROCK
            },
            Learning::Probe,
            vec![limit(Requests, MINUTE, rpm), limit(Tokens, MINUTE, tpm)],
        ),
        load: Load {
            cached: 30,
            error: 5,
            max_output: Some(500),
            ..Load::CHAT
        },
        least: 95.0,
        ..openai("Bedrock runtime", &[])
    }
}

fn mantle() -> Profile {
    let provider = Provider::Bedrock;
    let (itpm, otpm) = (300_000, 100_000);
    Profile {
        endpoint: "mantle/chat/completions",
        pools: vec![Pool::new(
            Charging::MANTLE,
            vec![
                provider.limit(Counted::Input, MINUTE, itpm),
                provider.limit(Counted::Output, MINUTE, otpm),
            ],
        )],
        plan: plan(
            ChargeModel::BEDROCK_MANTLE,
            Learning::Probe,
            vec![
                limit(InputTokens, MINUTE, itpm),
                limit(OutputTokens, MINUTE, otpm),
            ],
        ),
        name: "Bedrock mantle",
        // The provider itself keeps the most that may be generated while a request runs.
        least: 93.0,
        ..bedrock()
    }
}

fn plan(charge: ChargeModel, learning: Learning, limits: Vec<Limit>) -> QuotaPlan {
    let shorter = limits
        .iter()
        .find(|limit| limit.dimension == Requests && limit.window < MINUTE);
    QuotaPlan {
        learning,
        slice: shorter.map(|limit| limit.window),
        ..QuotaPlan::new("trial", limits, charge)
    }
}

/// Keeps limits of a day as buckets, as the gateway does for OpenAI; those of a minute stay rolling, which is safe whatever
/// the provider does.
fn daily_buckets(mut plan: QuotaPlan) -> QuotaPlan {
    for limit in &mut plan.limits {
        if limit.window >= DAY {
            limit.discipline = Discipline::TokenBucket;
        }
    }
    plan
}

/// Keeps every limit as the bucket that the provider keeps.
fn bucketed(mut plan: QuotaPlan) -> QuotaPlan {
    for limit in &mut plan.limits {
        limit.discipline = Discipline::TokenBucket;
    }
    plan.discipline = Discipline::TokenBucket;
    plan
}

fn limit(dimension: Dimension, window: Duration, amount: u64) -> Limit {
    Limit {
        dimension,
        window,
        amount: NonZeroU64::new(amount).unwrap_or(NonZeroU64::MIN),
        discipline: Discipline::Rolling,
        source: LimitSource::Config,
    }
}

const fn counted(dimension: Dimension) -> Counted {
    match dimension {
        Requests => Counted::Requests,
        Tokens => Counted::Tokens,
        InputTokens => Counted::Input,
        OutputTokens => Counted::Output,
        Dimension::Concurrency => Counted::Concurrency,
    }
}
