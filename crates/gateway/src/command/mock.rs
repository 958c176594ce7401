//! `tidegate mock`.

mod limits;

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use tidegate_mock::{Faults, Handle, Key, Latency, OutputLength, Provider, Server, Settings};

use self::limits::{LimitArgs, Limits};
use super::CommandError;
use crate::config::duration;

/// Arguments of `tidegate mock`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The first line of the output is `listening on http://ADDRESS`. GET /mock/stats returns the statistics, POST /mock/reset \
forgets them and all charges, POST /mock/limits {\"limit\": PLACE, \"amount\": N} changes a limit. A request can ask for a behavior with headers x-mock-… or an object x_mock in its body: \
status, error, stall, reset, delay, output-tokens, cached-tokens.")]
pub(super) struct MockArgs {
    /// The address to listen on; port 0 takes any free port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
    /// Whose interface to speak, and whose ways to enforce; both is OpenAI's and Anthropic's, told apart by path.
    #[arg(long, visible_alias = "dialect", value_enum, default_value = "both")]
    provider: SpokenArg,
    #[command(flatten)]
    limits: LimitArgs,
    /// A refused request takes one from the request limits all the same.
    #[arg(long)]
    counts_failures: bool,
    /// An API key to accept; may be given several times. Without it any key is accepted.
    #[arg(long, value_name = "KEY")]
    key: Vec<Key>,
    /// A model that exists; may be given several times. Without it every model exists.
    #[arg(long, value_name = "NAME")]
    model: Vec<String>,
    /// The time to the first token.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration::parse)]
    ttft: Duration,
    /// The spread of that time: the standard deviation of its logarithm. 0 is no spread.
    #[arg(long, value_name = "SIGMA", default_value_t = 0.0, value_parser = spread)]
    ttft_spread: f64,
    /// How fast tokens follow the first; 0 is at once.
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = spread)]
    tokens_per_second: f64,
    /// Tokens in one event of a stream.
    #[arg(long, value_name = "N", default_value_t = 1)]
    tokens_per_event: u64,
    /// The length of an answer; without it as long as the request allows, 16 if it does not say.
    #[arg(long, value_name = "N")]
    output_tokens: Option<u64>,
    /// The spread of that length: the standard deviation of its logarithm. 0 is no spread.
    #[arg(long, value_name = "SIGMA", default_value_t = 0.0, value_parser = spread)]
    output_spread: f64,
    /// Requests that are worked on at one time; others wait in line (vLLM). The default is 256 for vllm, no bound else.
    #[arg(long, value_name = "N")]
    running: Option<usize>,
    /// How often a provider that keeps waiting clients company does so (deepseek, openrouter).
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = window)]
    keep_alive: Duration,
    /// Mistral answers 422 to stream_options, as it once did.
    #[arg(long)]
    reject_stream_options: bool,
    /// The time of the provider's clock at its start, in seconds since 1970; by default what it is. Days and months turn
    /// by it.
    #[arg(long, value_name = "SECONDS")]
    clock: Option<u64>,
    #[command(flatten)]
    faults: FaultArgs,
    /// The seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// The share of admitted requests that meet each fault.
#[derive(Debug, clap::Args)]
struct FaultArgs {
    /// The share of requests answered 500.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    fault_500: f64,
    /// The share of requests answered 503.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    fault_503: f64,
    /// The share of requests answered 529.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    fault_529: f64,
    /// The share of connections reset before the answer.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    fault_reset: f64,
    /// The share of connections reset within the answer.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    fault_reset_stream: f64,
    /// The share of requests never answered.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    fault_stall: f64,
    /// The share of requests answered late.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    fault_slow: f64,
    /// How late.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    slow_by: Duration,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SpokenArg {
    Both,
    #[value(name = "openai")]
    OpenAi,
    Azure,
    Anthropic,
    Gemini,
    Groq,
    Mistral,
    #[value(name = "openrouter")]
    OpenRouter,
    #[value(name = "deepseek")]
    DeepSeek,
    Cohere,
    Bedrock,
    Vertex,
    Vllm,
}

impl SpokenArg {
    const fn provider(self) -> Option<Provider> {
        Some(match self {
            Self::Both => return None,
            Self::OpenAi => Provider::OpenAi,
            Self::Azure => Provider::Azure,
            Self::Anthropic => Provider::Anthropic,
            Self::Gemini => Provider::Gemini,
            Self::Groq => Provider::Groq,
            Self::Mistral => Provider::Mistral,
            Self::OpenRouter => Provider::OpenRouter,
            Self::DeepSeek => Provider::DeepSeek,
            Self::Cohere => Provider::Cohere,
            Self::Bedrock => Provider::Bedrock,
            Self::Vertex => Provider::Vertex,
            Self::Vllm => Provider::Vllm,
        })
    }
}

pub(super) fn run(args: MockArgs) -> Result<ExitCode, CommandError> {
    let address = args.listen;
    let settings = args.settings()?;
    let listener =
        TcpListener::bind(address).map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let provider = Server::spawn(settings, listener)?;
    println!("listening on {}", provider.base_url());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(interrupted())?;
    print!("{}", report(provider)?);
    Ok(ExitCode::SUCCESS)
}

/// Waits for Ctrl-C or, where there are such things, SIGTERM.
async fn interrupted() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            done = tokio::signal::ctrl_c() => done,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

fn report(provider: Handle) -> Result<String, CommandError> {
    let mut stats = provider.shutdown();
    // The time series is for programs, which ask for it while the provider runs.
    stats.series.clear();
    Ok(serde_json::to_string_pretty(&stats)? + "\n")
}

impl MockArgs {
    fn settings(self) -> Result<Settings, CommandError> {
        let faults = self.faults.faults()?;
        let provider = self.provider.provider();
        let Limits {
            limits,
            scope,
            pools,
            charging,
        } = self.limits.limits(provider)?;
        // vLLM's own default (providers.md §12).
        let usual_running = (provider == Some(Provider::Vllm)).then_some(256);
        Ok(Settings {
            provider,
            limits,
            scope,
            pools,
            charging,
            counts_failures: self.counts_failures,
            latency: match (self.ttft, self.ttft_spread) {
                (Duration::ZERO, _) => Latency::Zero,
                (ttft, 0.0) => Latency::Fixed(ttft),
                (median, sigma) => Latency::LogNormal { median, sigma },
            },
            tokens_per_second: (self.tokens_per_second > 0.0).then_some(self.tokens_per_second),
            tokens_per_event: self.tokens_per_event,
            output: match (self.output_tokens, self.output_spread) {
                (None, _) => OutputLength::Maximum { unset: 16 },
                (Some(tokens), 0.0) => OutputLength::Fixed(tokens),
                (Some(median), sigma) => OutputLength::LogNormal { median, sigma },
            },
            faults,
            keys: self.key,
            models: self.model,
            running_max: self.running.or(usual_running),
            keep_alive: self.keep_alive,
            rejects_stream_options: self.reject_stream_options,
            began: self.clock.map(Duration::from_secs),
            seed: self.seed,
            ..Settings::default()
        })
    }
}

impl FaultArgs {
    fn faults(&self) -> Result<Faults, CommandError> {
        let shares = [
            self.fault_500,
            self.fault_503,
            self.fault_529,
            self.fault_reset,
            self.fault_reset_stream,
            self.fault_stall,
            self.fault_slow,
        ];
        let sum: f64 = shares.iter().sum();
        if sum > 1.0 {
            return Err(
                format!("the --fault-… shares add up to {sum}; a request can meet only one of them").into(),
            );
        }
        Ok(Faults {
            status_500: self.fault_500,
            status_503: self.fault_503,
            status_529: self.fault_529,
            reset_before_head: self.fault_reset,
            reset_mid_stream: self.fault_reset_stream,
            stall: self.fault_stall,
            slow: self.fault_slow,
            slow_by: self.slow_by,
        })
    }
}

fn window(text: &str) -> Result<Duration, String> {
    let window = duration::parse(text).map_err(|error| error.to_string())?;
    if window.is_zero() {
        Err("a window must be longer than nothing".to_owned())
    } else {
        Ok(window)
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "it must be a number from 0 to 1".to_owned())
}

fn spread(text: &str) -> Result<f64, String> {
    let spread = text
        .parse()
        .ok()
        .filter(|spread: &f64| spread.is_finite() && *spread >= 0.0);
    spread.ok_or_else(|| "it must be a number, 0 or more".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tidegate_mock::limits::{Algorithm, Dimension, Limit, Scope, Slice};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: MockArgs,
    }

    fn settings(line: &str) -> Result<Settings, String> {
        let line = Line::try_parse_from(std::iter::once("mock").chain(line.split_whitespace()));
        line.map_err(|error| error.to_string())?
            .args
            .settings()
            .map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_limits() {
        let check =
            |line: &str, expect: &[Limit]| assert_eq!(settings(line).unwrap().limits, expect, "{line}");
        let two = Duration::from_secs(2);
        check("", &[]);
        check(
            "--rpm 100 --tpm 9000 --window 2s",
            &[
                Limit::new(Dimension::Requests, two, 100, Algorithm::Rolling),
                Limit::new(Dimension::Tokens, two, 9_000, Algorithm::Rolling),
            ],
        );
        let phase = Duration::from_millis(500);
        check(
            "--itpm 5 --otpm 6 --algorithm fixed --phase 500ms --window 2s",
            &[
                Limit::new(Dimension::Input, two, 5, Algorithm::Fixed { phase }),
                Limit::new(Dimension::Output, two, 6, Algorithm::Fixed { phase }),
            ],
        );
        let slice = Duration::from_secs(1);
        check(
            "--rpm 60 --tpm 9 --rpd 1000 --concurrency 3 --window 2s --slice 1s",
            &[
                Limit::new(
                    Dimension::Requests,
                    two,
                    60,
                    Algorithm::Slices {
                        slice,
                        shape: Slice::Rolling,
                    },
                ),
                Limit::new(
                    Dimension::Requests,
                    Duration::from_secs(86_400),
                    1_000,
                    Algorithm::Rolling,
                ),
                Limit::new(Dimension::Tokens, two, 9, Algorithm::Rolling),
                Limit::concurrency(3),
            ],
        );
    }

    #[test]
    fn a_provider_has_its_own_ways() {
        let check = |line: &str, limits: usize, pools: usize| {
            let settings = settings(line).unwrap();
            assert_eq!(
                (settings.limits.len(), settings.pools.len()),
                (limits, pools),
                "{line}"
            );
            settings
        };
        check("--provider openai", 0, 0);
        check("--provider openai --limits usual", 0, 2);
        check("--provider groq", 0, 7);
        check("--provider groq --limits none", 0, 0);
        check("--dialect anthropic --itpm 100 --acceleration 10", 2, 0);
        let slices = check("--provider azure --rpm 60", 1, 0).limits[0];
        assert!(matches!(slices.algorithm, Algorithm::Slices { .. }));
        let rolling = check("--provider azure --rpm 60 --algorithm rolling", 1, 0).limits[0];
        assert_eq!(rolling.algorithm, Algorithm::Rolling);
        let long = check(
            "--tpm 9 --long-context 100 --long-context-tpm 5 --project-rpm 2",
            0,
            3,
        );
        assert_eq!(
            (
                long.pools[0].applies.input_up_to,
                long.pools[1].applies.input_above
            ),
            (Some(100), Some(100))
        );
        assert_eq!(long.pools[2].scope, Scope::Key);
        let families = check("--rpm 9 --scope model --family a*,b", 0, 1).pools;
        assert_eq!(families[0].families, [["a*", "b"]]);
        let charging = check("--provider bedrock --burndown 10", 0, 2).charging.unwrap();
        assert_eq!((charging.output_weight, charging.unset_output), (10, 64_000));
        assert_eq!(check("--provider vllm --running 4", 0, 1).running_max, Some(4));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let check = |line: &str, expect: &str| {
            let error = settings(line).expect_err(line);
            assert!(error.contains(expect), "{line}: {error}");
        };
        check("--window 0s", "longer than nothing");
        check("--window x", "number is missing");
        check("--slice 2m --rpm 1", "longer than --window");
        check("--slice 1s --algorithm token-bucket", "--slice goes with");
        check("--fault-500 1.5", "from 0 to 1");
        check("--fault-500 0.6 --fault-stall 0.6", "add up to");
        check("--ttft-spread nan", "0 or more");
    }
}
