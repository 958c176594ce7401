//! Limiters that share their limits through a real Redis. Each test has a server of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod address;
mod loss;
#[path = "../redis_server/mod.rs"]
mod redis_server;
mod sharing;
mod tenants;
mod tls;
mod topology;

use std::time::Duration;

use tidegate::core::{Dimension, Learning, Limit, LimitSource, Standing};
use tidegate::{
    ChargeModel, Discipline, Limiter, Plan, QuotaKey, QuotaPlan, Request, StoreOptions, Timestamp, Tokens,
};

pub(crate) use redis_server::RedisServer;

/// The only group of the tests.
pub(crate) const GROUP: &str = "group";

/// Whoever waits longer than this for something that has to happen waits in vain.
const PATIENCE: Duration = Duration::from_secs(20);

/// A plan with one group that admits so many requests in a window.
pub(crate) fn plan(requests: u64, window: Duration) -> Plan {
    let limit = Limit {
        dimension: Dimension::Requests,
        window,
        amount: requests.try_into().unwrap(),
        discipline: Discipline::Rolling,
        source: LimitSource::Config,
    };
    let quota = QuotaPlan {
        learning: Learning::Off,
        ..QuotaPlan::new(GROUP, vec![limit], ChargeModel::OPENAI)
    };
    Plan {
        quotas: vec![quota],
        ..Plan::default()
    }
}

/// A limiter at a server, which is taken to be new.
pub(crate) fn replica(server: &RedisServer, plan: Plan) -> Limiter {
    let options = StoreOptions::redis(&server.tcp_url()).unwrap().trust_empty(true);
    Limiter::with_store(plan, options).unwrap()
}

/// A request that waits as long as it takes.
pub(crate) fn request() -> Request {
    let demand = tidegate::Demand::generating(Tokens::new(10), Some(Tokens::new(10)));
    Request::new(QuotaKey::named(GROUP), demand, Timestamp::from_micros(u64::MAX))
}

/// The same, refused if it has to wait longer than so.
pub(crate) fn impatient(limiter: &Limiter, patience: Duration) -> Request {
    Request {
        deadline: limiter.now() + patience,
        ..request()
    }
}

/// Asks a server something, as its administrator.
pub(crate) fn ask(server: &RedisServer, command: &[&str]) {
    let mut cmd = redis::cmd(command[0]);
    cmd.arg(&command[1..]);
    cmd.query::<redis::Value>(&mut server.connect()).unwrap();
}

/// Returns how the group stands.
pub(crate) fn standing(limiter: &Limiter) -> Standing {
    let snapshot = limiter.snapshot();
    let quota = snapshot.quotas.first();
    quota
        .and_then(|quota| quota.store)
        .map_or(Standing::Idle, |store| store.standing)
}

/// Waits for something that has to come true.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    soon(what, async {
        let mut look = tokio::time::interval(Duration::from_millis(1));
        while !holds() {
            look.tick().await;
        }
    })
    .await;
}

/// Waits for something that has to happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("in vain: {what}"),
    }
}
