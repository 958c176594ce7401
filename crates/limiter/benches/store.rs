//! How long it takes to be let in, alone and with a store on this machine, when nobody waits: `cargo bench -p tidegate --bench store`.
//!
//! The store's runtime is a thread of its own, as in the gateway, and the one who asks is another; or both are on one, as in
//! a program with one runtime.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

#[path = "../tests/redis_server/mod.rs"]
mod redis_server;

use std::time::Duration;

use redis_server::RedisServer;
use tidegate::{Builder, Limiter, StoreOptions, Tokens, Usage};
use tokio::time::Instant;

const ROUNDS: usize = 20_000;

/// How often what one gives back is waited for by the other, and for how long before it does: long enough for the store to
/// know of it, and for charges longer than replicas are asked to look at refunds.
const PLACES: (usize, Duration) = (500, Duration::from_millis(20));
const CHARGES: (usize, Duration) = (100, Duration::from_millis(700));

fn main() {
    let server = RedisServer::start();
    let describe = || {
        Limiter::builder()
            .requests_per_minute(100_000_000)
            .tokens_per_minute(u64::MAX >> 20)
    };
    measure("alone", describe(), None, false);
    let options = |url: &str| Some(StoreOptions::redis(url).unwrap().trust_empty(true));
    let (tcp, socket) = (server.tcp_url(), server.url());
    let name = "a place that becomes free, the other has after";
    hand_over(name, &tcp, || Limiter::builder().concurrent(1), PLACES);
    let name = "tokens that are given back, the other has after";
    hand_over(
        name,
        &tcp,
        || Limiter::builder().tokens_per_minute(1_000),
        CHARGES,
    );
    measure("with a store, by TCP", describe(), options(&tcp), false);
    measure("with a store, by its socket", describe(), options(&socket), false);
    measure(
        "with a store, by TCP, on one runtime",
        describe(),
        options(&tcp),
        true,
    );
    measure(
        "with a store, by its socket, on one runtime",
        describe(),
        options(&socket),
        true,
    );
    println!(
        "the script alone: {} µs in the mean, as the server counts",
        script(&server)
    );
    let times = round_trips(&server);
    print("PING alone, blocking, by its socket", times);
}

fn measure(name: &str, limiter: Builder, store: Option<StoreOptions>, is_one: bool) {
    let keeper = runtime();
    let limiter = keeper.block_on(async move {
        match store {
            Some(options) => limiter.build_with(options).unwrap(),
            None => limiter.build(),
        }
    });
    let asker = if is_one {
        keeper
    } else {
        std::thread::spawn(move || keeper.block_on(std::future::pending::<()>()));
        runtime()
    };
    let times = asker.block_on(async {
        let mut times = Vec::with_capacity(ROUNDS);
        for round in 0..ROUNDS + 1_000 {
            let start = Instant::now();
            let permit = limiter
                .acquire_tokens(Tokens::new(10), Some(Tokens::new(10)))
                .await
                .unwrap();
            if round >= 1_000 {
                times.push(start.elapsed());
            }
            permit.settle(Usage {
                input: Some(Tokens::new(10)),
                output: Some(Tokens::new(10)),
                ..Usage::default()
            });
        }
        times
    });
    print(name, times);
    if let Some(status) = limiter.store_status() {
        println!("  of that the store: {:?} in the mean", status.round_trips.mean());
    }
}

/// Measures how long after a request of one replica has ended the other's, which waits for what it had, is let in.
fn hand_over(name: &str, url: &str, limits: impl Fn() -> Builder, (count, settled): (usize, Duration)) {
    let keeper = runtime();
    let replica = || async {
        let options = StoreOptions::redis(url)
            .unwrap()
            .trust_empty(true)
            .prefix(name.replace(|c: char| !c.is_ascii_alphabetic(), "-"));
        limits().build_with(options).unwrap()
    };
    let [one, other] = keeper.block_on(async { [replica().await, replica().await] });
    std::thread::spawn(move || keeper.block_on(std::future::pending::<()>()));
    let times = runtime().block_on(async {
        let mut times = Vec::with_capacity(count);
        let large = || Tokens::new(900);
        let (mut has, mut waits) = (&one, &other);
        let mut permit = has.acquire_tokens(large(), None).await.unwrap();
        for _ in 0..count {
            let waiting = waits.acquire_tokens(large(), None);
            tokio::pin!(waiting);
            assert!(tokio::time::timeout(settled, &mut waiting).await.is_err());
            let start = Instant::now();
            permit.not_sent();
            permit = waiting.await.unwrap();
            times.push(start.elapsed());
            (has, waits) = (waits, has);
        }
        let _ = has;
        permit.not_sent();
        times
    });
    print(name, times);
}

/// Returns how long the server takes for a call.
fn script(server: &RedisServer) -> String {
    let info: String = redis::cmd("INFO")
        .arg("commandstats")
        .query(&mut server.connect())
        .unwrap();
    let line = info
        .lines()
        .find(|line| line.starts_with("cmdstat_evalsha:"))
        .unwrap();
    let value = line
        .split(',')
        .find_map(|part| part.strip_prefix("usec_per_call="));
    value.unwrap().to_owned()
}

fn round_trips(server: &RedisServer) -> Vec<Duration> {
    let mut connection = server.connect();
    let ping = || {
        let start = Instant::now();
        redis::cmd("PING").exec(&mut connection).unwrap();
        start.elapsed()
    };
    std::iter::repeat_with(ping).take(ROUNDS).collect()
}

fn print(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!("{name}: p50 {:?}, p90 {:?}, p99 {:?}", at(50), at(90), at(99));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
