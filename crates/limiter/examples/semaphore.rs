//! Instead of a semaphore and a sleep: as many calls at once as you like, as fast as the limit allows.
//!
//! `cargo run -p tidegate --example semaphore`

use std::time::Duration;

use tidegate::{Limiter, Tokens, Usage};
use tokio::task::JoinSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), tidegate::Refusal> {
    // Twenty requests in any two seconds, at most eight at once.
    let window = Duration::from_secs(2);
    let limiter = Limiter::builder()
        .limit(tidegate::core::Dimension::Requests, window, 20)
        .concurrent(8)
        .build();
    let mut calls = JoinSet::new();
    for number in 1..=60 {
        let limiter = limiter.clone();
        calls.spawn(async move {
            let permit = limiter.acquire_tokens(Tokens::ZERO, None).await?;
            println!(
                "call {number:>2} starts after {:>6.3} s",
                permit.waited().as_secs_f64()
            );
            call_the_provider().await;
            permit.settle(Usage::default());
            Ok(())
        });
    }
    calls.join_all().await.into_iter().collect()
}

async fn call_the_provider() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
