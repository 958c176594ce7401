//! Several programs, one quota: each of them keeps to the limit that all of them have together.
//!
//! ```text
//! redis-server --save "" &
//! cargo run -p tidegate --features redis --example shared & cargo run -p tidegate --features redis --example shared
//! ```

use std::time::Duration;

use tidegate::{Limiter, StoreOptions, Tokens, Usage};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1);
    let url = url.as_deref().unwrap_or("redis://127.0.0.1:6379");
    let limiter = Limiter::builder()
        .requests_per_minute(60)
        .tokens_per_minute(30_000)
        .build_with(StoreOptions::redis(url)?)?;

    for number in 1..=20 {
        let permit = limiter
            .acquire_tokens(Tokens::new(400), Some(Tokens::new(100)))
            .await
            .map_err(|refusal| format!("refused: {:?}", refusal.reason))?;
        println!("{number}: sent after {:?}", permit.waited());
        // … call the provider …
        permit.settle(Usage {
            input: Some(Tokens::new(400)),
            output: Some(Tokens::new(80)),
            ..Usage::default()
        });
    }

    if let Some(status) = limiter.store_status() {
        println!(
            "the store is {}: {} calls, {:?} each",
            status.state.name(),
            status.calls,
            status.round_trips.mean()
        );
    }
    // What is kept for this program is free for the others at once.
    limiter.leave(Duration::from_millis(500)).await;
    Ok(())
}
