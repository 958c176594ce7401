//! How long it takes to be let in, alone and with a store on this machine, when nobody waits: `cargo bench -p tidegate --bench store`.
//!
//! The store's runtime is a thread of its own, as in the gateway; the one who asks is another.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

#[path = "../tests/redis_server/mod.rs"]
mod redis_server;

use std::time::Duration;

use redis_server::RedisServer;
use tidegate::{Builder, Limiter, StoreOptions, Tokens, Usage};
use tokio::time::Instant;

const ROUNDS: usize = 20_000;

fn main() {
    let server = RedisServer::start();
    let describe = || {
        Limiter::builder()
            .requests_per_minute(100_000_000)
            .tokens_per_minute(u64::MAX >> 20)
    };
    measure("alone", describe(), None);
    let options = |url: &str| Some(StoreOptions::redis(url).unwrap().trust_empty(true));
    measure("with a store, by TCP", describe(), options(&server.tcp_url()));
    measure("with a store, by its socket", describe(), options(&server.url()));
    let times = round_trips(&server);
    print("PING alone, blocking, by its socket", times);
}

fn measure(name: &str, limiter: Builder, store: Option<StoreOptions>) {
    let keeper = runtime();
    let limiter = keeper.block_on(async move {
        match store {
            Some(options) => limiter.build_with(options).unwrap(),
            None => limiter.build(),
        }
    });
    std::thread::spawn(move || keeper.block_on(std::future::pending::<()>()));
    let times = runtime().block_on(async {
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
