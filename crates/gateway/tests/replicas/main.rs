//! Gateways that share a limit through one Redis, as processes, while things go wrong: the provider refuses nothing, every
//! request ends, and service goes on. `make replicas` measures the same with longer windows.

#![allow(
    dead_code,
    reason = "the table of `make replicas` needs more of these modules"
)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../../benches/replicas/load.rs"]
mod load;
#[path = "../../benches/replicas/oracle.rs"]
mod oracle;
#[path = "../../benches/replicas/process.rs"]
mod process;
#[path = "../../benches/replicas/proxy.rs"]
mod proxy;
#[path = "../../benches/replicas/world.rs"]
mod world;

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::load::{Demand, EXCESS, End, Fate, Load, plan};
use crate::oracle::Stats;
use crate::proxy::Passage;
use crate::world::{Provider, Setup, World};

const WINDOW: Duration = Duration::from_secs(4);
/// Requests in a window.
const LIMIT: u64 = 120;
/// Longer than anything here takes on the slowest machine.
const BOUND: Duration = Duration::from_secs(60);

/// Gateways under load.
struct Run {
    world: World,
    load: Load,
    /// Where the programs have their files.
    _folder: tempfile::TempDir,
}

impl Run {
    /// Starts three gateways and asks them for more than there is, until more than one window's worth was used. `None`
    /// where there is no Redis.
    async fn start() -> Option<Self> {
        if std::process::Command::new("redis-server")
            .arg("--version")
            .output()
            .is_err()
        {
            eprintln!("redis-server is not installed: not tested");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let provider = Provider {
            name: "provider",
            enforcement: ["--algorithm", "rolling"].map(str::to_owned).to_vec(),
            setting: String::new(),
            requests: LIMIT,
            tokens: 10_000_000,
            counts_requests: true,
        };
        let setup = Setup {
            providers: vec![provider],
            gateways: 3,
            window: WINDOW,
            max_wait: WINDOW * 2,
            answer_time: Duration::from_millis(100),
            has_movable_clock: false,
        };
        let world = World::start(folder.path(), setup).await.unwrap();
        world.open().await.unwrap();
        let gap = WINDOW.div_f64(LIMIT as f64 * EXCESS);
        let trace: Vec<_> = (0..1_000).map(|n| (gap * n, 40, 8)).collect();
        let demand = Demand {
            upstream: 0,
            counts_requests: true,
        };
        let load = Load::start(world.targets(), plan(&trace, 1.0, BOUND, 3, demand));
        let run = Self {
            world,
            load,
            _folder: folder,
        };
        run.until_admitted(LIMIT * 3 / 2).await;
        Some(run)
    }

    async fn stats(&self) -> Stats {
        Stats::of(self.world.mocks[0].address).await.unwrap()
    }

    /// Waits until the provider has let so many more in.
    async fn until_admitted(&self, more: u64) {
        let goal = self.stats().await.admitted + more;
        let reached = async {
            while self.stats().await.admitted < goal {
                // Nobody reports it.
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(BOUND, reached).await.expect("service goes on");
    }

    /// Service goes on; then nothing may have been refused upstream, and everything ends.
    async fn finish(self) -> Vec<Fate> {
        self.until_admitted(LIMIT).await;
        let stats = self.stats().await;
        let (world, began) = (self.world, self.load.began);
        let fates = timeout(BOUND * 2, self.load.end())
            .await
            .expect("everything ends");
        let last = Stats::of(world.mocks[0].address).await.unwrap();
        assert_eq!(last.rate_limited, 0, "refused at {:?}", last.refusals(began));
        assert!(last.admitted >= stats.admitted);
        for fate in &fates {
            assert!(matches!(fate.end, End::Answered | End::Refused(_)), "{fate:?}");
        }
        let answered = fates.iter().filter(|fate| fate.end == End::Answered).count() as u64;
        assert!(answered >= LIMIT * 2, "{answered} were answered");
        fates
    }
}

#[tokio::test]
async fn a_store_that_is_killed_and_comes_back_empty() {
    let Some(mut run) = Run::start().await else { return };
    run.world.redis.kill().await;
    run.world.redis.restart(true).await.unwrap();
    run.finish().await;
}

#[tokio::test]
async fn a_store_that_is_killed_and_comes_back_with_what_it_had() {
    let Some(mut run) = Run::start().await else { return };
    run.world.redis.kill().await;
    run.world.redis.restart(false).await.unwrap();
    run.finish().await;
}

#[tokio::test]
async fn a_store_that_freezes() {
    let Some(run) = Run::start().await else { return };
    run.world.redis.freeze().await.unwrap();
    // The fault is that it lasts so long.
    let until = Instant::now() + Duration::from_secs(5);
    tokio::time::sleep_until(until).await;
    run.world.redis.thaw().await.unwrap();
    run.finish().await;
}

#[tokio::test]
async fn a_gateway_that_is_killed() {
    let Some(mut run) = Run::start().await else { return };
    run.world.gateways[0].kill().await;
    let fates = run.finish().await;
    assert!(
        fates.iter().any(|fate| fate.moves > 0),
        "nobody was at the gateway"
    );
}

#[tokio::test]
async fn a_gateway_whose_way_to_the_store_stalls() {
    let Some(run) = Run::start().await else { return };
    run.world.proxy.set(Passage::Stalled);
    // The others go on, and it goes on with its share.
    run.until_admitted(LIMIT).await;
    run.world.proxy.set(Passage::Open);
    run.finish().await;
}
