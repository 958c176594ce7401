//! The arguments of `tidegate mock` that make limits.

use std::time::Duration;

use clap::ValueEnum;
use tidegate_mock::Provider;
use tidegate_mock::limits::{Algorithm, Applies, Charging, Dimension, Level, Limit, Pool, Scope, Slice};

use crate::command::CommandError;
use crate::config::duration;

const DAY: Duration = Duration::from_secs(86_400);

/// What is limited, how and for whom.
#[derive(Debug, clap::Args)]
pub(super) struct LimitArgs {
    /// Which limits there are when none is given: those of an ordinary new account with the provider, or none. The
    /// default is none for openai and both.
    #[arg(long, value_enum)]
    limits: Option<UsualArg>,
    /// Requests per window.
    #[arg(long, value_name = "N")]
    rpm: Option<u64>,
    /// Tokens per window.
    #[arg(long, value_name = "N")]
    tpm: Option<u64>,
    /// Input tokens per window.
    #[arg(long, value_name = "N")]
    itpm: Option<u64>,
    /// Output tokens per window.
    #[arg(long, value_name = "N")]
    otpm: Option<u64>,
    /// Images per window.
    #[arg(long, value_name = "N")]
    ipm: Option<u64>,
    /// Requests per day; the day turns as the provider's does.
    #[arg(long, value_name = "N")]
    rpd: Option<u64>,
    /// Tokens per day.
    #[arg(long, value_name = "N")]
    tpd: Option<u64>,
    /// Requests at one time.
    #[arg(long, value_name = "N")]
    concurrency: Option<u64>,
    /// Input tokens per minute that may be used at first, where usage must grow slowly (Anthropic's acceleration limit);
    /// headers keep silent about it.
    #[arg(long, value_name = "N")]
    acceleration: Option<u64>,
    /// What every minute boundary adds to that, up to --itpm.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    acceleration_step: u64,
    /// Requests per minute that may be sent at first; faster growth is answered 503 Slow Down (OpenAI). Every minute
    /// boundary adds half as many, up to --rpm.
    #[arg(long, value_name = "N")]
    slow_down: Option<u64>,
    /// Requests per window of each key's project, besides the limits of all.
    #[arg(long, value_name = "N")]
    project_rpm: Option<u64>,
    /// Tokens per window of each key's project, besides the limits of all.
    #[arg(long, value_name = "N")]
    project_tpm: Option<u64>,
    /// Requests of more input tokens than this have limits of their own.
    #[arg(long, value_name = "TOKENS", requires = "long_context_tpm")]
    long_context: Option<u64>,
    /// Tokens per window of such requests.
    #[arg(long, value_name = "N", requires = "long_context")]
    long_context_tpm: Option<u64>,
    /// Models that count as one, separated by commas; one * in each stands for any text. May be given several times.
    #[arg(long, value_name = "MODELS", value_delimiter = ',', action = clap::ArgAction::Append, num_args = 1)]
    family: Vec<String>,
    /// The length of the provider's minute.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = super::window)]
    window: Duration,
    /// How the windows move. The default is the provider's own way; rolling for openai and both.
    #[arg(long, value_enum)]
    algorithm: Option<AlgorithmArg>,
    /// Where a fixed window, or a fixed slice, starts.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration::parse)]
    phase: Duration,
    /// Slices of the window that may each hold only their share: a length, or none. Slices go with rolling windows;
    /// `--algorithm fixed` makes the slices fixed.
    #[arg(long, value_name = "TIME", default_value = "none", value_parser = slice)]
    slice: SliceArg,
    /// Which limits have slices.
    #[arg(long, value_enum, default_value = "requests")]
    sliced: SlicedArg,
    /// When tokens are charged; by default as the provider does.
    #[arg(long, value_enum)]
    charge: Option<ChargeArg>,
    /// How many tokens one token of output counts for in the end (Bedrock's burndown).
    #[arg(long, value_name = "N")]
    burndown: Option<u64>,
    /// The output that is reserved for a request that names no maximum.
    #[arg(long, value_name = "TOKENS")]
    unset_output: Option<u64>,
    /// Which requests share the limits.
    #[arg(long, visible_alias = "limit-scope", value_enum, default_value = "all")]
    scope: ScopeArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum UsualArg {
    Usual,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AlgorithmArg {
    /// The provider's own.
    Own,
    Rolling,
    TokenBucket,
    Fixed,
}

#[derive(Debug, Clone, Copy)]
enum SliceArg {
    None,
    Of(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SlicedArg {
    Requests,
    All,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ChargeArg {
    /// The estimate, never corrected.
    Estimate,
    /// The estimate, replaced by what was used.
    Settled,
    /// Input, corrected; output as it is made.
    AsGenerated,
    /// Input alone.
    Input,
    /// Input and maximum as input, output as it is made (Bedrock's mantle).
    Mantle,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScopeArg {
    All,
    Key,
    Model,
    KeyAndModel,
}

/// What [`LimitArgs`] come to.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) limits: Vec<Limit>,
    pub(super) scope: Scope,
    pub(super) pools: Vec<Pool>,
    pub(super) charging: Option<Charging>,
}

impl LimitArgs {
    /// Makes the limits of a provider; `None` is OpenAI and Anthropic at once.
    pub(super) fn limits(&self, provider: Option<Provider>) -> Result<Limits, CommandError> {
        let whose = provider.unwrap_or(Provider::OpenAi);
        let in_particular = provider.filter(|provider| *provider != Provider::OpenAi);
        let charging = self.charging(whose);
        let charged = charging.unwrap_or(whose.charging());
        let limits = self.whole_limits(whose, in_particular.is_some())?;
        let usual = match self.limits {
            None => in_particular.is_some(),
            Some(usual) => usual == UsualArg::Usual,
        };
        let mut pools = Vec::new();
        if limits.is_empty() && usual {
            pools = whose.pools();
            if charging.is_some() {
                pools.iter_mut().for_each(|pool| pool.charging = charged);
            }
        }
        let special = self.special_pools(whose, charged);
        let scope = self.scope();
        if self.family.is_empty() && self.long_context.is_none() {
            pools.extend(special);
            return Ok(Limits {
                limits,
                scope,
                pools,
                charging,
            });
        }
        if !limits.is_empty() {
            let family = Some(self.family.clone()).filter(|family| !family.is_empty());
            pools.push(Pool {
                applies: Applies {
                    input_up_to: self.long_context,
                    ..Applies::default()
                },
                scope,
                families: family.into_iter().collect(),
                ..Pool::new(charged, limits)
            });
        }
        pools.extend(special);
        Ok(Limits {
            limits: Vec::new(),
            scope,
            pools,
            charging,
        })
    }

    fn charging(&self, provider: Provider) -> Option<Charging> {
        if self.charge.is_none() && self.burndown.is_none() && self.unset_output.is_none() {
            return None;
        }
        let charging = match self.charge {
            None => provider.charging(),
            Some(ChargeArg::Estimate) => Charging::ESTIMATE,
            Some(ChargeArg::Settled) => Charging::SETTLED,
            Some(ChargeArg::AsGenerated) => Charging::AS_GENERATED,
            Some(ChargeArg::Input) => Charging::INPUT,
            Some(ChargeArg::Mantle) => Charging::MANTLE,
        };
        Some(Charging {
            output_weight: self.burndown.unwrap_or(charging.output_weight),
            unset_output: self.unset_output.unwrap_or(charging.unset_output),
            ..charging
        })
    }

    const fn scope(&self) -> Scope {
        match self.scope {
            ScopeArg::All => Scope::All,
            ScopeArg::Key => Scope::Key,
            ScopeArg::Model => Scope::Model,
            ScopeArg::KeyAndModel => Scope::KeyAndModel,
        }
    }

    fn whole_limits(&self, provider: Provider, own: bool) -> Result<Vec<Limit>, CommandError> {
        let default = if own {
            AlgorithmArg::Own
        } else {
            AlgorithmArg::Rolling
        };
        let algorithm = self.algorithm.unwrap_or(default);
        let whole = match algorithm {
            AlgorithmArg::Own => None,
            AlgorithmArg::Rolling => Some(Algorithm::Rolling),
            AlgorithmArg::TokenBucket => Some(Algorithm::TokenBucket),
            AlgorithmArg::Fixed => Some(Algorithm::Fixed { phase: self.phase }),
        };
        let sliced = match (self.slice, algorithm) {
            (SliceArg::None, _) => whole,
            (SliceArg::Of(slice), AlgorithmArg::Rolling | AlgorithmArg::Own) => Some(Algorithm::Slices {
                slice,
                shape: Slice::Rolling,
            }),
            (SliceArg::Of(slice), AlgorithmArg::Fixed) => Some(Algorithm::Slices {
                slice,
                shape: Slice::Fixed { phase: self.phase },
            }),
            (SliceArg::Of(_), AlgorithmArg::TokenBucket) => {
                return Err(
                    "--slice goes with --algorithm rolling or fixed: no provider slices a bucket".into(),
                );
            }
        };
        if let SliceArg::Of(slice) = self.slice
            && slice > self.window
        {
            return Err("--slice is longer than --window; make it a part of the window".into());
        }
        let tokens = if self.sliced == SlicedArg::All {
            sliced
        } else {
            whole
        };
        let windowed = [
            (Dimension::Requests, self.rpm, self.window, sliced),
            (Dimension::Requests, self.rpd, DAY, whole),
            (Dimension::Tokens, self.tpm, self.window, tokens),
            (Dimension::Tokens, self.tpd, DAY, whole),
            (Dimension::Input, self.itpm, self.window, tokens),
            (Dimension::Output, self.otpm, self.window, tokens),
            (Dimension::Images, self.ipm, self.window, whole),
        ];
        let windowed = windowed
            .into_iter()
            .filter_map(|(dimension, amount, window, algorithm)| {
                let limit = provider.limit(dimension, window, amount?);
                Some(Limit {
                    algorithm: algorithm.unwrap_or(limit.algorithm),
                    hidden: own && limit.hidden,
                    ..limit
                })
            });
        let concurrency = self.concurrency.map(Limit::concurrency);
        let acceleration = self.acceleration.map(|start| {
            let amount = self.itpm.unwrap_or(u64::MAX);
            let ramp = ramp(start, self.acceleration_step);
            Limit::new(Dimension::Input, self.window, amount, ramp).hidden()
        });
        let slow_down = self.slow_down.map(|start| {
            let amount = self.rpm.unwrap_or(u64::MAX);
            let ramp = ramp(start, start.div_ceil(2));
            Limit::new(Dimension::Requests, self.window, amount, ramp).hidden()
        });
        let hidden = [concurrency, acceleration, slow_down].into_iter().flatten();
        Ok(windowed.chain(hidden).collect())
    }

    fn special_pools(&self, provider: Provider, charging: Charging) -> Vec<Pool> {
        let limit = |dimension, amount: Option<u64>| {
            amount.map(|amount| provider.limit(dimension, self.window, amount))
        };
        let project = [
            limit(Dimension::Requests, self.project_rpm),
            limit(Dimension::Tokens, self.project_tpm),
        ];
        let project: Vec<Limit> = project.into_iter().flatten().collect();
        let project = Some(project)
            .filter(|limits| !limits.is_empty())
            .map(|limits| Pool {
                level: Level::Project,
                ..Pool::new(charging, limits).scoped(Scope::Key)
            });
        let long = limit(Dimension::Tokens, self.long_context_tpm).map(|limit| Pool {
            applies: Applies {
                input_above: self.long_context,
                ..Applies::default()
            },
            ..Pool::new(charging, vec![limit]).scoped(self.scope())
        });
        long.into_iter().chain(project).collect()
    }
}

fn ramp(start: u64, step: u64) -> Algorithm {
    // How long growth is remembered is not known; 15 minutes are what OpenAI asks to wait (providers.md §2.5).
    Algorithm::Ramp {
        start,
        step,
        idle: Some(15),
    }
}

fn slice(text: &str) -> Result<SliceArg, String> {
    if text == "none" {
        Ok(SliceArg::None)
    } else {
        super::window(text).map(SliceArg::Of)
    }
}
