//! What happens in a world, and what came of it.

use std::path::Path;
use std::time::Duration;

use tokio::time::{sleep, sleep_until};

use crate::load::{Demand, EXCESS, End, Fate, Load, TENANTS, plan};
use crate::oracle::{Stats, back, used};
use crate::proxy::Passage;
use crate::table::Row;
use crate::world::{Provider, Setup, World};

/// Calls of one gateway that has nothing to ask: one in so many seconds for each quota group.
const BEAT: f64 = 0.3;

/// How long one gateway is cut off.
const CUT: Duration = Duration::from_secs(15);

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    RedisKilled,
    RedisEmptied,
    RedisFrozen,
    GatewayKilled,
    Stalled,
    Dropped,
    ClockAhead,
    ClockBehind,
}

/// One line of the program: its name, how many gateways there are, and what goes wrong.
pub(crate) const SCENARIOS: [(&str, usize, Fault); 11] = [
    ("1 gateway", 1, Fault::Nothing),
    ("3 gateways", 3, Fault::Nothing),
    ("8 gateways", 8, Fault::Nothing),
    ("Redis killed, restarted", 3, Fault::RedisKilled),
    ("Redis killed, restarted empty", 3, Fault::RedisEmptied),
    ("Redis frozen for 5 s", 3, Fault::RedisFrozen),
    ("a gateway killed", 3, Fault::GatewayKilled),
    ("one gateway's store stalls for 15 s", 3, Fault::Stalled),
    ("one gateway's store is cut for 15 s", 3, Fault::Dropped),
    ("Redis's clock goes 90 s ahead", 3, Fault::ClockAhead),
    ("Redis's clock goes 90 s back", 3, Fault::ClockBehind),
];

/// What is the same in all scenarios.
#[derive(Debug, Clone)]
pub(crate) struct Course {
    pub(crate) trace: Vec<(Duration, u64, u64)>,
    pub(crate) window: Duration,
    /// How many times as fast as it was recorded the trace is played.
    pub(crate) speed: f64,
}

impl Course {
    /// Returns a provider of every kind, each with so much room that the trace asks for [`EXCESS`] times as much.
    pub(crate) fn providers(&self) -> Vec<Provider> {
        let length = self.trace.last().map_or(1.0, |(at, ..)| at.as_secs_f64() + 1.0);
        let windows = length / self.speed / self.window.as_secs_f64();
        let requests = self.trace.len() as f64 / windows;
        let tokens = self
            .trace
            .iter()
            .map(|(_, input, output)| input + output)
            .sum::<u64>() as f64
            / windows;
        let provider = |name, enforcement: &str| Provider {
            name,
            enforcement: enforcement.split_whitespace().map(str::to_owned).collect(),
            setting: String::new(),
            // So many that they are never what is missing.
            requests: (requests * 4.0) as u64,
            tokens: (tokens / EXCESS) as u64,
            counts_requests: false,
        };
        let slice = format!("{}ms", (self.window / 6).as_millis());
        vec![
            provider("rolling", "--algorithm rolling"),
            provider("fixed", "--algorithm fixed --phase 1700ms"),
            provider("bucket", "--algorithm token-bucket"),
            Provider {
                setting: format!("slice = \"{slice}\""),
                requests: (requests / EXCESS) as u64,
                tokens: (tokens * 4.0) as u64,
                counts_requests: true,
                ..provider("slices", &format!("--algorithm rolling --slice {slice}"))
            },
        ]
    }
}

/// The stretches of time that are looked at, from the beginning of the load.
#[derive(Debug, Clone, Copy)]
struct Times {
    warm: Duration,
    fault: Duration,
    after: Duration,
    end: Duration,
}

impl Times {
    fn of(window: Duration) -> Self {
        // Stretches of two windows and a second hold windows that begin at every moment of one.
        let warm = window + Duration::from_secs(5);
        let fault = warm + window * 2 + Duration::from_secs(1);
        let after = fault + window * 2;
        Self {
            warm,
            fault,
            after,
            end: after + window * 2 + Duration::from_secs(1),
        }
    }
}

/// Plays one scenario and returns its rows, one for each provider.
pub(crate) async fn run(
    folder: &Path,
    course: &Course,
    (name, gateways, fault): (&'static str, usize, Fault),
) -> Result<Vec<Row>, String> {
    let providers = course.providers();
    let mut world = World::start(
        folder,
        Setup {
            providers: providers.clone(),
            gateways,
            window: course.window,
            // Longer than anybody waits: shares are of those who wait, not of those who were refused.
            max_wait: course.window * 5,
            answer_time: Duration::from_millis(400),
            has_movable_clock: matches!(fault, Fault::ClockAhead | Fault::ClockBehind),
        },
    )
    .await?;
    world.open().await?;
    eprintln!("{name}: open");
    let times = Times::of(course.window);
    let mut requests = Vec::new();
    for (upstream, provider) in providers.iter().enumerate() {
        let demand = Demand {
            upstream,
            counts_requests: provider.counts_requests,
        };
        requests.extend(plan(&course.trace, course.speed, times.end, gateways, demand));
    }
    let load = Load::start(world.targets(), requests);
    let began = load.began;
    sleep_until(began + times.warm).await;
    let (scripts, granted) = (world.redis.scripts().await?, granted(&world).await?);
    sleep_until(began + times.fault).await;
    let seconds = (times.fault - times.warm).as_secs_f64();
    let calls = (world.redis.scripts().await? - scripts) as f64 / seconds;
    let grants = (self::granted(&world).await? - granted) as f64 / seconds;
    eprintln!("{name}: now");
    strike(&mut world, fault).await?;
    sleep_until(began + times.end).await;
    eprintln!("{name}: waiting for the rest");
    let fates = load.end().await;
    let mut rows = Vec::new();
    for (upstream, provider) in providers.iter().enumerate() {
        let stats = Stats::of(world.mocks[upstream].address).await?;
        let series = stats.since(began, provider.counts_requests);
        let limit = provider.limit();
        let used = |from, to| used(&series, from, to, course.window, limit);
        let own: Vec<&Fate> = fates
            .iter()
            .filter(|fate| fate.planned.upstream == upstream)
            .collect();
        let count = |is: fn(&Fate) -> bool| own.iter().filter(|fate| is(fate)).count();
        for (second, refused) in stats.refusals(began) {
            eprintln!("{name}: {} refused {refused} at {second} s", provider.name);
        }
        rows.push(Row {
            scenario: name,
            gateways,
            algorithm: provider.name,
            requests: own.len(),
            answered: count(|fate| fate.end == End::Answered),
            refused: count(|fate| matches!(fate.end, End::Refused(_))),
            failed: count(|fate| matches!(fate.end, End::Failed(_))),
            lost: count(|fate| fate.end == End::Lost),
            moved: count(|fate| fate.moves > 0),
            upstream_429: stats.rate_limited,
            used: [
                used(times.warm, times.fault),
                used(times.fault, times.after),
                used(times.after, times.end),
            ],
            back: (fault != Fault::Nothing).then(|| back(&series, times.fault, course.window, limit, 0.95)),
            share_error: share_error(&own, provider.counts_requests, times),
            calls,
            grants,
            beats: gateways as f64 * providers.len() as f64 / BEAT,
        });
        let failures: Vec<u16> = own
            .iter()
            .filter_map(|fate| match fate.end {
                End::Failed(status) => Some(status),
                _ => None,
            })
            .collect();
        if !failures.is_empty() {
            eprintln!("{name}: {} failed with {failures:?}", provider.name);
        }
    }
    Ok(rows)
}

async fn granted(world: &World) -> Result<u64, String> {
    let mut sum = 0;
    for mock in &world.mocks {
        sum += Stats::of(mock.address).await?.admitted;
    }
    Ok(sum)
}

async fn strike(world: &mut World, fault: Fault) -> Result<(), String> {
    let gap = Duration::from_secs(1);
    match fault {
        Fault::Nothing => {}
        Fault::RedisKilled | Fault::RedisEmptied => {
            world.redis.kill().await;
            sleep(gap).await;
            world.redis.restart(fault == Fault::RedisEmptied).await?;
        }
        Fault::RedisFrozen => {
            world.redis.freeze().await?;
            sleep(Duration::from_secs(5)).await;
            world.redis.thaw().await?;
        }
        Fault::GatewayKilled => world.gateways[0].kill().await,
        Fault::Stalled | Fault::Dropped => {
            let passage = if fault == Fault::Stalled {
                Passage::Stalled
            } else {
                Passage::Dropped
            };
            world.proxy.set(passage);
            sleep(CUT).await;
            world.proxy.set(Passage::Open);
        }
        Fault::ClockAhead => world.redis.move_clock(90)?,
        Fault::ClockBehind => world.redis.move_clock(-90)?,
    }
    Ok(())
}

/// Returns how far a tenant's part of what was answered is from its weight's, at worst, while all of them waited.
fn share_error(fates: &[&Fate], counts_requests: bool, times: Times) -> f64 {
    let mut answered = [0.0; TENANTS.len()];
    for fate in fates {
        if fate.end == End::Answered && (times.warm..times.end).contains(&fate.ended) {
            let tokens = fate.planned.input + fate.planned.output;
            answered[fate.planned.tenant] += if counts_requests { 1.0 } else { tokens as f64 };
        }
    }
    let sum: f64 = answered.iter().sum();
    let weights: u32 = TENANTS.iter().map(|tenant| tenant.weight).sum();
    let error = |(tenant, answered): (usize, &f64)| {
        let weight = f64::from(TENANTS[tenant].weight) / f64::from(weights);
        (answered / sum / weight - 1.0).abs()
    };
    answered.iter().enumerate().map(error).fold(0.0, f64::max)
}
